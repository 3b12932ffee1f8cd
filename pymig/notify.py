"""Tell people about events: CRITICAL at once, WARNING in a digest, INFO as lines of a log.

Who is told what stands in a configuration file of apprise; each address has a tag: critical,
warning or info. What a target was told is kept in the database, so a notifier that is killed and
started again tells nothing twice and leaves nothing out. One that can't be reached holds up nobody:
each has a thread of its own, and tries again.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Final

import apprise

from pymig import db, logs
from pymig.errors import NotDoneError, PymigError, UsageError

LEVELS: Final = ("CRITICAL", "WARNING", "INFO")
LOG: Final = "log"
_LOOK_SECONDS: Final = 1.0
#: How often the rules of pymig.alert are looked at; the database does so every five seconds.
_ALERT_SECONDS: Final = 2.0
#: How long a kind of event that was told is counted only, in seconds.
_QUIET_SECONDS: Final = {"CRITICAL": 600.0, "WARNING": 0.0, "INFO": 0.0}
_FIRST_RETRY, _LAST_RETRY = 2.0, 300.0  # seconds
_KINDS: Final = {
    "CRITICAL": apprise.NotifyType.FAILURE,
    "WARNING": apprise.NotifyType.WARNING,
    "INFO": apprise.NotifyType.INFO,
}

Send = Callable[[str, str], bool]


@dataclass(frozen=True)
class Target:
    """Somebody to tell: a name that gives no password away, and how a message is sent."""

    name: str
    shown: str
    level: str
    send: Send


def targets(config: Path) -> list[Target]:
    """The addresses of a configuration file of apprise, by their tags. Raises UsageError."""
    if not config.is_file():
        raise UsageError(f"{config} is not there.", "Name apprise's configuration with --config.")
    book = apprise.Apprise()
    book.add(apprise.AppriseConfig(paths=str(config)))
    found = [
        Target(_digest(server), _address(server, privacy=True), level, _sender(server, level))
        for level in LEVELS
        for server in book.find(tag=level.lower())
    ]
    if not found:
        raise UsageError(
            f"{config} names nobody.", "Each address needs a tag: critical, warning or info."
        )
    return found


def _address(server: apprise.NotifyBase, *, privacy: bool = False) -> str:
    return str(server.url(privacy=privacy))  # type: ignore[no-untyped-call]


def _digest(server: apprise.NotifyBase) -> str:
    return hashlib.sha256(_address(server).encode()).hexdigest()[:16]


def _sender(server: apprise.NotifyBase, level: str) -> Send:
    def send(title: str, body: str) -> bool:
        return bool(server.notify(title=title, body=body, notify_type=_KINDS[level]))

    return send


def test(config: Path) -> list[str]:
    """Send a message to everybody; returns who got it. Raises NotDoneError naming the others."""
    outcome = {
        t.shown: t.send("pymig: a test", "Alerts of pymig reach you here.") for t in targets(config)
    }
    if missed := [shown for shown, is_there in outcome.items() if not is_there]:
        raise NotDoneError(
            f"Not reached: {', '.join(missed)}.", "See the address, the password and the network."
        )
    return list(outcome)


def watch(
    conninfo: str,
    everybody: list[Target],
    stop: threading.Event,
    digest_seconds: float,
) -> None:
    """Tell everybody until stop is set; every event is a line of the log as well."""
    to_log = [Target(LOG, LOG, level, lambda *_: True) for level in LEVELS]
    threads = [
        threading.Thread(
            target=_tell_for_ever,
            args=(conninfo, target, stop),
            kwargs={
                "every": digest_seconds if _is_digest(target) else _LOOK_SECONDS,
                "quiet": 0.0 if target.name == LOG else _QUIET_SECONDS[target.level],
            },
            name=f"pymig notify {target.level}",
            daemon=True,
        )
        for target in [*to_log, *everybody]
    ]
    for thread in threads:
        thread.start()
    _look_at_alerts(conninfo, stop)
    for thread in threads:
        thread.join(_LOOK_SECONDS)


def _look_at_alerts(conninfo: str, stop: threading.Event) -> None:
    """Measure the rules as workers do: that there is none is a rule, too. Until stop is set."""
    with db.Session(conninfo, "notify alerts", stop) as session:
        while not stop.wait(_ALERT_SECONDS):
            with suppress(PymigError):  # the others say that the database is away
                session.select("look_at_alerts")


def _is_digest(target: Target) -> bool:
    return target.level != "CRITICAL" and target.name != LOG


def _tell_for_ever(
    conninfo: str,
    target: Target,
    stop: threading.Event,
    *,
    every: float,
    quiet: float,
) -> None:
    pause = _FIRST_RETRY
    with db.Session(conninfo, "notify", stop) as session:
        # At once: from now on what happens is told.
        while not stop.is_set():
            try:
                is_told = _tell(session, target, quiet)
            except PymigError as error:
                said = f"events can't be read: {error.message}"
                logs.say(said, logging.WARNING, line=f"WARNING {said}")
                is_told = False
            if is_told:
                pause = _FIRST_RETRY
                stop.wait(every)
            else:
                stop.wait(pause)
                pause = min(2 * pause, _LAST_RETRY)


def _tell(session: db.Session, target: Target, quiet: float) -> bool:
    rows = session.select(
        "events_to_tell",
        p_target=target.name,
        p_level=target.level,
        p_quiet=f"{quiet} seconds",
    )
    if not rows:
        return True
    if target.name == LOG:
        for row in rows:
            _log(target.level, row)
    body = "\n".join(_line(target.level, row) for row in rows)
    several = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    about = f" {rows[0]['entity']}" if rows[0]["entity"] else ""
    if not target.send(f"pymig {target.level}:{about} {rows[0]['what']}{several}", body):
        return False
    events = [event for row in rows for event in row["events"]]
    session.call("tell", p_target=target.name, p_level=target.level, p_events=events)
    return True


def _log(level: str, row: db.Row) -> None:
    logs.say(
        f"{row['what']}: {row['detail']}",
        logging.getLevelNamesMapping()[level],
        line=_line(level, row),
        source=row["source"],
        ship=row["entity"],
        what=row["what"],
        times=row["times"],
        events=row["events"],
        happened_at=row["last_at"].astimezone(UTC).isoformat(),
    )


def _line(level: str, row: db.Row) -> str:
    where = "/".join(filter(None, (row["source"], row["entity"])))
    times = f" ({row['times']} times)" if row["times"] > 1 else ""
    at = row["last_at"].isoformat(sep=" ", timespec="seconds")
    return " ".join(filter(None, (at, level, where, f"{row['what']}{times}:", row["detail"])))
