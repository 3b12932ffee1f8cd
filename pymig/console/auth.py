"""Who looks: nobody in particular, or a role of PostgreSQL that has logged in with its password.

The password stays in the memory of the console, in Django's session: it is needed for each CALL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from pymig.console.database import connect_as
from pymig.console.state import console
from pymig.errors import PrivilegeError, PymigError

_TRIES: Final = 5
_TRY_SECONDS: Final = 60


@dataclass(frozen=True)
class Viewer:
    """The role that has logged in, if any, and the controls it may use."""

    role: str | None
    may: frozenset[str]


def is_logged_in(request: HttpRequest) -> bool:
    """Whether a role has logged in."""
    return "role" in request.session


def find_viewer(request: HttpRequest) -> Viewer:
    """Who looks, asked for once a request. What a role may is asked for each time."""
    known: Viewer | None = getattr(request, "viewer", None)
    if known is None:
        role = request.session.get("role")
        rows = console().reader.select("controls", p_role=role) if role else []
        known = Viewer(role, frozenset(row["control"] for row in rows if row["may"]))
        request.viewer = known  # type: ignore[attr-defined]
    return known


def viewer(request: HttpRequest) -> dict[str, Any]:
    """For templates: who looks, without asking the database where that may be away."""
    return {"viewer_role": request.session.get("role")}


def login(request: HttpRequest) -> HttpResponse:
    """Ask for a role and its password; PostgreSQL says whether they are right."""
    target = _local(request, request.POST.get("next") or request.GET.get("next"))
    if request.method != "POST":
        return render(request, "console/login.html", {"next": target})
    role, password = request.POST.get("role", ""), request.POST.get("password", "")
    try:
        _count_try(request, role)
        connect_as(console().conninfo, role, password).close()
    except PymigError as error:
        context = {"next": target, "role": role, "error": error}
        return render(request, "console/login.html", context, status=403)
    request.session.cycle_key()
    request.session["role"], request.session["password"] = role, password
    return HttpResponseRedirect(target)


@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    """Forget the session with its password."""
    request.session.flush()
    return HttpResponseRedirect(reverse("fleet"))


def back(request: HttpRequest) -> str:
    """The page of ours that a form was sent from."""
    return _local(request, request.POST.get("next"))


def forged(request: HttpRequest, reason: str = "") -> HttpResponse:
    """What Django shows where a form's CSRF token is missing or wrong."""
    error = PrivilegeError(
        _("This form did not come from the page it should."),
        _("Load the page again and repeat it; cookies must be allowed."),
    )
    context = {"error": error, "status": 403, "back": back(request)}
    return render(request, "console/error.html", context, status=403)


def _local(request: HttpRequest, target: str | None) -> str:
    hosts = {request.get_host()}
    if target and url_has_allowed_host_and_scheme(target, allowed_hosts=hosts):
        return target
    return reverse("fleet")


def _count_try(request: HttpRequest, role: str) -> None:
    """Slow down who guesses: five tries a minute for a role from an address."""
    key = f"login-{request.META.get('REMOTE_ADDR')}-{role.encode().hex()[:100]}"
    cache.add(key, 0, _TRY_SECONDS)
    if cache.incr(key) > _TRIES:
        raise PrivilegeError(_("Too many tries."), _("Wait a minute."))
