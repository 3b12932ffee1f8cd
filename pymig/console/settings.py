"""Django's settings for one console. Nothing is kept: sessions end with the process."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import django
import psutil
from django.conf import settings

from pymig.console.state import Console
from pymig.errors import UsageError

HERE: Final = Path(__file__).resolve().parent
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_EVERYWHERE: Final = ("0.0.0.0", "::", "")
_HOURS: Final = 8


def configure(console: Console, host: str, url: str | None = None) -> None:
    """Set Django up, once a process.

    host: the address listened on; url: where people find it, behind a proxy. Raises UsageError.
    """
    is_tls = (url or "").startswith("https://")
    settings.configure(
        CONSOLE=console,
        SECRET_KEY=secrets.token_urlsafe(48),
        ALLOWED_HOSTS=allowed_hosts(host, url),
        CSRF_TRUSTED_ORIGINS=[url.rstrip("/")] if url else [],
        CSRF_COOKIE_SECURE=is_tls,
        CSRF_COOKIE_HTTPONLY=True,
        CSRF_COOKIE_SAMESITE="Lax",
        CSRF_FAILURE_VIEW="pymig.console.auth.forged",
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        SESSION_COOKIE_SECURE=is_tls,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_AGE=_HOURS * 3600,
        SESSION_EXPIRE_AT_BROWSER_CLOSE=True,
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
        X_FRAME_OPTIONS="DENY",
        LANGUAGE_COOKIE_SAMESITE="Lax",
        **_FIXED,
    )
    django.setup()


def allowed_hosts(host: str, url: str | None) -> list[str]:
    """The names a browser may ask for; others are refused, whoever made a browser ask for them.

    Raises UsageError for a url that is none.
    """
    names = [*LOOPBACK]
    if host in _EVERYWHERE:
        names += [socket.gethostname(), socket.getfqdn()]
        names += [
            _bracketed(address.address.partition("%")[0])
            for addresses in psutil.net_if_addrs().values()
            for address in addresses
            if address.family in (socket.AF_INET, socket.AF_INET6)
        ]
    else:
        names.append(_bracketed(host))
    if url:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no address.", "For example https://pymig.example.org.")
        names.append(_bracketed(parts.hostname))
    return list(dict.fromkeys(names))


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


_FIXED: Final[dict[str, Any]] = {
    "ROOT_URLCONF": "pymig.console.urls",
    "INSTALLED_APPS": [
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "django_htmx",
        "pymig.console",
    ],
    "MIDDLEWARE": [
        "django.middleware.security.SecurityMiddleware",
        "whitenoise.middleware.WhiteNoiseMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        "django_htmx.middleware.HtmxMiddleware",
        "pymig.console.guard.Guard",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.template.context_processors.i18n",
                    "django.contrib.messages.context_processors.messages",
                    "pymig.console.auth.viewer",
                ],
            },
        }
    ],
    "CACHES": {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 10_000},
        }
    },
    "STATIC_URL": "static/",
    "WHITENOISE_USE_FINDERS": True,
    "WHITENOISE_AUTOREFRESH": False,
    "DATA_UPLOAD_MAX_MEMORY_SIZE": 65_536,
    "USE_TZ": True,
    "TIME_ZONE": "UTC",
    "LANGUAGE_CODE": "en",
    "LANGUAGES": [("en", "English"), ("ko", "한국어")],
    "LOCALE_PATHS": [str(HERE / "locale")],
    "LOGGING": {
        "version": 1,
        "disable_existing_loggers": False,
        "loggers": {
            "django": {"level": "CRITICAL", "propagate": False},  # Guard says what is to be said
            "waitress.queue": {"level": "ERROR"},
        },
    },
}
