"""The controls: procedures of pymig's, each with the form of what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from pymig.console import auth
from pymig.console.database import call_as
from pymig.console.state import console
from pymig.console.words import noop
from pymig.errors import PrivilegeError, UsageError


class Of(forms.Form):
    """What most controls take: a source, and a ship or all of them."""

    p_source = forms.CharField()
    p_entity = forms.CharField(required=False, strip=False)


class OfSource(forms.Form):
    """What is set for a source as a whole."""

    p_source = forms.CharField()


class Workers(OfSource):
    """How many connections move its history."""

    p_workers = forms.IntegerField(
        label=gettext_lazy("Workers"), min_value=0, max_value=64, required=True
    )


class ChunkTarget(OfSource):
    """How long a chunk should take."""

    p_seconds = forms.FloatField(
        label=gettext_lazy("Seconds a chunk"), min_value=0.05, max_value=600
    )


class Throttle(forms.Form):
    """A condition and its limit; none: it is not looked at."""

    p_condition = forms.CharField(strip=False)
    p_max = forms.FloatField(required=False)


@dataclass(frozen=True)
class Control:
    """A procedure of pymig's with its form, as it is shown."""

    name: str
    label: str
    form: type[forms.Form]
    said: str
    confirm: str = ""


CONTROLS: Final = {
    control.name: control
    for control in (
        Control("pause", noop("Pause"), Of, noop("History waits; sync goes on.")),
        Control("resume", noop("Resume"), Of, noop("History goes on.")),
        Control(
            "cancel",
            noop("Cancel"),
            Of,
            noop("What moves its history ends after the current chunks."),
            noop("End the commands that move this history?"),
        ),
        Control("set_workers", noop("Workers"), Workers, noop("The number of workers is set.")),
        Control(
            "set_chunk_target",
            noop("Chunk target"),
            ChunkTarget,
            noop("The duration of a chunk is set."),
        ),
        Control("set_throttle", noop("Throttle"), Throttle, noop("The limit is set.")),
    )
}


@require_POST
def control(request: HttpRequest, name: str) -> HttpResponse:
    """CALL a control as the role that has logged in. PostgreSQL decides whether it may."""
    chosen = CONTROLS.get(name)
    if chosen is None:
        raise Http404(name)
    if not auth.is_logged_in(request):
        raise PrivilegeError(
            _("Only who has logged in may change anything."),
            _("Log in as a role of PostgreSQL that may."),
        )
    session = request.session
    call_as(
        console().conninfo, session["role"], session["password"], name, **_params(chosen, request)
    )
    messages.success(request, _about(request, _(chosen.said)))
    return HttpResponseRedirect(auth.back(request))


def _params(chosen: Control, request: HttpRequest) -> dict[str, Any]:
    """What the form says; nothing said keeps a default. Raises UsageError."""
    form = chosen.form(request.POST)
    if not form.is_valid():
        field, said = next(iter(form.errors.items()))
        raise UsageError(f"{form.fields[field].label or field}: {said[0]}", _("Correct it."))
    return {name: None if value == "" else value for name, value in form.cleaned_data.items()}


def _about(request: HttpRequest, sentence: str) -> str:
    subject = request.POST.get("p_entity") or request.POST.get("p_condition")
    return f"{subject}: {sentence}" if subject else sentence
