"""What holds for every answer: who may see it, what a browser may do with it, how errors are said.

Errors are a page of one sentence and a hint. While the database is away pages say so, with status
503, and go on asking.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Final

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.http import urlencode

from pymig import errors
from pymig.console.auth import back, is_logged_in
from pymig.console.state import console
from pymig.settings import Settings

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_OPEN: Final = ("login", "healthz", "set_language")
_STATUS: Final[dict[type[errors.PymigError], int]] = {
    errors.ServerError: 503,
    errors.NotInstalledError: 503,
    errors.PrivilegeError: 403,
    errors.UsageError: 400,
    errors.NotDoneError: 409,
}


class Guard:
    """A middleware of Django's."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response: Final = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, with the headers that keep it safe and fresh."""
        response = self._get_response(request)
        response["Content-Security-Policy"] = _POLICY
        response["Cache-Control"] = "no-store"
        patch_vary_headers(response, ("HX-Request", "Cookie"))
        return response

    def process_view(
        self, request: HttpRequest, _view: object, _args: object, _kwargs: object
    ) -> HttpResponse | None:
        """Send people to the login where nothing is shown without."""
        match = request.resolver_match
        is_open = match is not None and match.url_name in _OPEN
        if is_open or not console().require_login or is_logged_in(request):
            return None
        login = f"{reverse('login')}?{urlencode({'next': request.get_full_path()})}"
        if getattr(request, "htmx", False):
            return HttpResponse(headers={"HX-Redirect": login})
        return HttpResponseRedirect(login)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Say what went wrong: to the person in a sentence, on stderr in a line."""
        if isinstance(error, (Http404, PermissionDenied, SuspiciousOperation)):
            return None
        if Settings.load().debug:
            traceback.print_exception(error)
        return said(request, errors.unexpected(error))


def said(request: HttpRequest, error: errors.PymigError) -> HttpResponse:
    """The page, or the fragment, that says an error."""
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    print(f"pymig console: {request.path}: {status} {error.message}", file=sys.stderr, flush=True)
    template = "console/_error.html" if getattr(request, "htmx", False) else "console/error.html"
    context = {"error": error, "status": status, "back": back(request)}
    return render(request, template, context, status=status)
