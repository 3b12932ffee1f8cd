"""The sync worker: calls `pymig.sync_pending()` again and again. The work is the database's.

The history of adopted ships is moved on a second connection, and buckets are verified again: that
takes a second at a time, and live keys don't wait for it.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Final

from pymig import db
from pymig.errors import PymigError, ServerError

#: Pause between two passes where the first one found the database unwilling, in seconds.
_PAUSE_AFTER_ERROR: Final = 1.0
#: After a pass the worker rests this many times as long as it took, but no longer than so many
#: seconds: where ingest keeps all cores busy, it waits for fewer and longer passes, which recompute
#: a key once that many rows have changed. `run_worker` does the same.
_REST: Final = 2.0
_LONGEST_REST: Final = 0.3
#: How often adopted ships are looked for, in seconds.
_ADOPT_SECONDS: Final = 1.0


def keep_in_sync(
    conninfo: str,
    stop: threading.Event,
    *,
    source: str | None = None,
    poll_seconds: float = 0.1,
    name: str | None = None,
) -> None:
    """Recompute pending keys until stop is set; reconnect where the connection is lost.

    source: only this one (default: all). name: for the heartbeat in pymig.worker. Raises PymigError
    when the server stays away, or pymig is not installed.
    """
    worker = name or db.worker_name()
    ended = threading.Event()
    with (
        db.Session(conninfo, "worker", stop) as session,
        db.Session(conninfo, "adopter", ended) as adopting,
    ):
        adopter = threading.Thread(
            target=_migrate_adopted, args=(adopting, source), name="pymig adopter", daemon=True
        )
        adopter.start()
        try:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    session.call("sync_pending", p_source=source, p_worker=worker, p_adopt=False)
                except ServerError:
                    if not stop.is_set():  # else it was not tried again: whoever comes next does it
                        raise
                rest = min(_REST * (time.monotonic() - began), _LONGEST_REST)
                stop.wait(max(poll_seconds, rest))
        finally:
            ended.set()
            while adopter.is_alive():  # a chunk that is cut off is moved again
                adopting.cancel()
                adopter.join(_ADOPT_SECONDS)


def _migrate_adopted(session: db.Session, source: str | None) -> None:
    """Move the history of adopted ships and verify for ever, until the session's stop is set."""
    while not session.stop.is_set():
        # What is wrong with a ship is in pymig.status, what with the connection the worker says.
        with suppress(PymigError):
            session.call("migrate_adopted", p_source=source)
            session.call("reverify", p_source=source)
            session.call("retire", p_source=source)
            session.select("look_at_alerts")
        session.stop.wait(_ADOPT_SECONDS)


class BackgroundWorker(threading.Thread):
    """keep_in_sync in a thread of its own: what `pymig migrate` runs beside the backfill."""

    def __init__(self, conninfo: str, source: str | None) -> None:
        super().__init__(name="pymig worker", daemon=True)
        self._conninfo: Final = conninfo
        self._source: Final = source
        self._stopping: Final = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        """Work until stopped; an error is kept and the thread tries again after a pause."""
        while not self._stopping.is_set():
            try:
                keep_in_sync(self._conninfo, self._stopping, source=self._source)
            except Exception as error:  # kept for whoever joins
                self.error = error
                self._stopping.wait(_PAUSE_AFTER_ERROR)

    def stop(self) -> None:
        """Finish the pass that runs, then end."""
        self._stopping.set()
        self.join()
