"""The demonstration's helpers in the background: the live writer and the sync worker."""

import threading
import time
from abc import ABC, abstractmethod
from typing import Final

import psycopg

RECONNECT_PAUSE: Final = 0.5  # seconds


class Repeater(threading.Thread, ABC):
    """A thread that runs one routine again and again on a connection of its own.

    errors counts failed turns and last_error says why; the thread goes on after each. Times are in
    seconds. A turn that comes too late is not skipped.
    """

    def __init__(self, url: str, name: str, period: float) -> None:
        """url: connection string; name: shown in pg_stat_activity; period: seconds per turn."""
        super().__init__(name=name, daemon=True)
        self.url: Final = url
        self.period: Final = period
        self.turns = 0
        self.errors = 0
        self.last_error = ""
        self.slowest = 0.0
        self._stopping: Final = threading.Event()

    @abstractmethod
    def turn(self, conn: psycopg.Connection, number: int) -> None:
        """Do turn number (from 1) on conn, which is in autocommit."""

    def run(self) -> None:
        """Connect, take turns until stopped, connect again where the connection is lost."""
        number = 0
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self.url, autocommit=True, application_name=self.name) as conn:
                    while not self._stopping.is_set() and not conn.closed:
                        number += 1
                        self._take_turn(conn, number)
            except psycopg.Error as error:
                self._note(error)
                self._stopping.wait(RECONNECT_PAUSE)

    def stop(self) -> None:
        """Let the turn that runs finish, then end the thread."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def _take_turn(self, conn: psycopg.Connection, number: int) -> None:
        began = time.monotonic()
        try:
            self.turn(conn, number)
            self.turns += 1
        except psycopg.Error as error:
            self._note(error)
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        self._stopping.wait(max(self.period - took, 0.0))

    def _note(self, error: psycopg.Error) -> None:
        self.errors += 1
        self.last_error = str(error).strip().partition("\n")[0]


class LiveWriter(Repeater):
    """The simulated ships' ingest: a sample set a second."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "pymig demo live writer", 1.0)
        self.rows = 0
        self.committed_at: Final[dict[int, float]] = {}  # tick -> time.monotonic() of its commit

    def turn(self, conn: psycopg.Connection, number: int) -> None:
        """Write tick number and note when it was committed."""
        row = conn.execute("SELECT demo_fleet.write_sample_set(%s)", [number]).fetchone()
        self.committed_at[number] = time.monotonic()
        self.rows += row[0] if row else 0


class SyncWorker(Repeater):
    """What `pymig worker` does: recompute what is pending, ten times a second."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "pymig demo worker", 0.1)

    def turn(self, conn: psycopg.Connection, number: int) -> None:
        """One pass over the pending keys."""
        conn.execute("CALL pymig.sync_pending()")
