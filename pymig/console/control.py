"""The controls: procedures of pymig's, each with the form of what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
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


class Workers(Of):
    """How many connections move its history; none: as commands are started."""

    p_workers = forms.IntegerField(
        label=gettext_lazy("Workers"), min_value=1, max_value=64, required=False
    )


class ChunkTarget(Of):
    """How long a chunk should take; none, for a ship: as its source says."""

    p_target = forms.FloatField(
        label=gettext_lazy("Seconds a chunk"), min_value=0.001, max_value=600, required=False
    )

    def clean_p_target(self) -> str:
        """As PostgreSQL takes an interval."""
        seconds = self.cleaned_data["p_target"]
        return "" if seconds is None else f"{seconds} seconds"


class Priority(Of):
    """Higher ones are migrated first."""

    p_priority = forms.IntegerField(label=gettext_lazy("Priority"))


class Alert(forms.Form):
    """A rule and its limit; none: it is not looked at."""

    p_alert = forms.CharField(strip=False)
    p_max = forms.FloatField(required=False)


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
        Control("set_priority", noop("Priority"), Priority, noop("The priority is set.")),
        Control("set_alert", noop("Alert"), Alert, noop("The limit is set.")),
        Control("set_throttle", noop("Throttle"), Throttle, noop("The limit is set.")),
    )
}


#: Where what they set is read.
_COLUMNS: Final = {
    "set_workers": "workers",
    "set_chunk_target": "chunk_target",
    "set_priority": "priority",
}


def settings(rows: list[Any], of: dict[str, Any], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Of these controls those that are there, each with its form's field and what is set now.

    rows: of pymig.controls; of: a row of pymig.source or pymig.entity.
    """
    there = {row["control"] for row in rows if row["is_there"]}
    fields = {
        name: next(f for f in CONTROLS[name].form.base_fields if f not in Of.base_fields)
        for name in names
    }
    return [
        {
            "control": CONTROLS[name],
            "field": fields[name],
            "label": CONTROLS[name].form.base_fields[fields[name]].label,
            "value": _value(of[_COLUMNS[name]]),
        }
        for name in names
        if name in there
    ]


def _value(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value


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
    subjects = (request.POST.get(name) for name in ("p_entity", "p_condition", "p_alert"))
    subject = next(filter(None, subjects), None)
    return f"{subject}: {sentence}" if subject else sentence
