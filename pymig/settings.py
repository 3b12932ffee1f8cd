"""What the environment says: which server, and the defaults of the CLI's options."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pymig.errors import PymigError

ColumnTypes = Literal["text", "native"]
Strategy = Literal["auto", "transpose", "crosstab", "json", "filter"]
LogFormat = Literal["text", "json"]
Routing = Literal["narrow", "percent", "wide", "shadow"]

# libpq's variables that say *which* server; PGPASSWORD, PGSSLMODE and the like only say how.
SERVER_VARIABLES: Final = (
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGSERVICE",
)


class Settings(BaseSettings):
    """Read from the environment: DATABASE_URL or PG*, and PYMIG_*. Flags of the CLI go first."""

    model_config = SettingsConfigDict(
        env_prefix="PYMIG_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    """A libpq URL or conninfo string. SQLAlchemy's `postgresql+psycopg://` is understood too."""

    source: str | None = None
    """PYMIG_SOURCE: the registered source; not needed with one source."""

    workers: int = Field(default=2, ge=1, le=64)
    """PYMIG_WORKERS: connections that move chunks of the history in parallel."""

    column_types: ColumnTypes | None = None
    """PYMIG_COLUMN_TYPES: text or native; None: the ship's own, at first its source's."""

    strategy: Strategy | None = None
    """PYMIG_STRATEGY: auto or a pivot strategy by name; None: the ship's own, at first auto."""

    poll_seconds: float = Field(default=0.1, gt=0)
    """PYMIG_POLL_SECONDS: how often the worker looks for pending keys."""

    server_dir: Path | None = None
    """PYMIG_SERVER_DIR: the embedded server's folder; None: one per checkout."""

    log_format: LogFormat = "text"
    """PYMIG_LOG_FORMAT: how migrate, worker, notify and metrics say what they do: text, or json."""

    debug: bool = False
    """PYMIG_DEBUG: show tracebacks."""

    @field_validator("database_url")
    @classmethod
    def _without_driver(cls, url: str | None) -> str | None:
        return re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", url) if url else None

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises PymigError naming the first wrong variable."""
        try:
            return cls()
        except ValidationError as e:
            wrong = e.errors(include_url=False)[0]
            name = f"PYMIG_{'_'.join(str(part) for part in wrong['loc'])}".upper()
            raise PymigError(
                f"{name} is {wrong['input']!r}: {wrong['msg'].lower()}.",
                f"Correct {name} or unset it.",
            ) from e

    @property
    def uses_embedded_server(self) -> bool:
        """Neither DATABASE_URL nor one of libpq's variables names a server."""
        return self.database_url is None and not names_server(os.environ)

    @property
    def conninfo(self) -> str:
        """What psycopg.connect takes, with a server of one's own; empty: libpq reads PG*.

        Raises PymigError when the embedded server is to be used: it knows its own URL.
        """
        if self.uses_embedded_server:
            raise PymigError("Neither DATABASE_URL nor PGHOST names a server.")
        return self.database_url or ""


def names_server(environment: Mapping[str, str]) -> bool:
    """Whether one of libpq's variables says which server to use."""
    return any(environment.get(name) for name in SERVER_VARIABLES)
