"""The console's addresses."""

from __future__ import annotations

from typing import Final

from django.urls import path
from django.views.i18n import set_language

from pymig.console import auth, control, lists, views

urlpatterns: Final = [
    path("", views.fleet, name="fleet"),
    path("ship", views.ship, name="ship"),
    path("charts", views.charts, name="charts"),
    path("controls", views.controls, name="controls"),
    path("control/<str:name>", control.control, name="control"),
    path("login", auth.login, name="login"),
    path("logout", auth.logout, name="logout"),
    path("language", set_language, name="set_language"),
    path("healthz", views.healthz, name="healthz"),
    *(
        path(name, lists.listing, {"name": name}, name=name)
        for name in lists.LISTINGS
    ),
]  # fmt: skip
