"""Random faults while a fleet is migrated, each to be recovered from without a person.

`make faults COUNT=100 SEED=1`. A round rolls the fleet back, starts `pymig migrate --ship all`
under a supervisor that starts it again when it fails, as systemd would; `pymig worker` runs
likewise and two applications write. At a random moment one fault strikes. Recovered means: the
migration ends well, the worker drains the queue, and the wide tables equal the oracle, within
DEADLINE seconds after the fault is over. pymig reaches the server through a proxy, which is the
network that fails.

The applications know what they committed, retry what was cut off, and must see no error but a lost
connection. Uses a server of its own (PG_BINDIR chooses the binaries). Exit 1 where anything was
lost or did not recover.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.fault_site import SHIPS, TABLE, FaultError, Site, Supervised, site
from tests.oracle import default_narrow, difference

DEADLINE = 120.0


# --- faults: each returns when it is over, and says what it hit -----------------------------------


def backend_killed(site: Site) -> str:
    """Terminate one of pymig's backends."""
    with site.connect() as conn:
        for _ in range(100):
            row = conn.execute(
                "SELECT v.application_name, pg_terminate_backend(v.pid) FROM ("
                " SELECT a.application_name, a.pid FROM pg_stat_activity a"
                " WHERE a.application_name LIKE 'pymig%' AND a.datname = current_database()"
                " ORDER BY a.state = 'active' DESC, random() LIMIT 1) AS v"
            ).fetchone()
            if row:
                return str(row[0])
            time.sleep(0.02)
    return ""


def worker_killed(site: Site) -> str:
    """SIGKILL `pymig worker`."""
    return "worker" if site.worker.kill() else ""


def client_killed(site: Site) -> str:
    """SIGKILL `pymig migrate`."""
    return "migrate" if site.migration.kill() else ""


def server_crashed(site: Site) -> str:
    """Stop without a checkpoint, or SIGKILL of every process; start again a little later."""
    hard = site.rng.random() < 0.5
    site.cluster.kill() if hard else site.cluster.stop("immediate")
    time.sleep(site.rng.random() * 0.5)
    site.cluster.start()
    return "killed" if hard else "immediate"


def network_cut(site: Site) -> str:
    """Every connection is reset; new ones work."""
    site.proxy.cut()
    return "reset"


def network_refused(site: Site) -> str:
    """Every connection is reset, and no new one can be made for a while."""
    with site.proxy.refusing():
        time.sleep(site.span())
    return "refused"


def network_frozen(site: Site) -> str:
    """Nothing arrives for a while, then every connection is reset."""
    with site.proxy.frozen():
        time.sleep(site.span())
    return "frozen"


def disk_full(site: Site) -> str:
    """The tablespace of the wide tables has no byte left for a while."""
    if site.disk is None:
        return ""
    filler = site.disk / "filler"
    try:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        time.sleep(site.span())
    finally:
        filler.unlink()
    return "full"


LOCKS = (
    ("ACCESS EXCLUSIVE", "chunk"),
    ("ACCESS EXCLUSIVE", "entity"),
    ("ACCESS EXCLUSIVE", "channel"),
    ("ACCESS EXCLUSIVE", "event"),
    ("EXCLUSIVE", "tbl_data_timeseries_todo"),
    ("ACCESS EXCLUSIVE", "wide"),
    ("ACCESS SHARE", "wide"),
    ("SHARE", "narrow"),
)


def lock_held(site: Site) -> str:
    """Somebody holds a table for a while: one of pymig's, a wide one, or the narrow one."""
    mode, what = site.rng.choice(LOCKS)
    with site.connect() as conn:
        table = sql.SQL(TABLE) if what == "narrow" else sql.Identifier("pymig", what)
        if what == "wide":
            rows = conn.execute("SELECT DISTINCT m.wide_table FROM pymig.channel_map m").fetchall()
            if not rows:
                return ""
            table = sql.SQL(site.rng.choice(rows)[0])
        for application in site.applications:
            application.slowest = 0.0
        try:
            with conn.transaction():
                conn.execute("SET LOCAL lock_timeout = '10s'")
                conn.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(table, sql.SQL(mode)))
                held = site.span()
                time.sleep(held)
        except (psycopg.errors.DeadlockDetected, psycopg.errors.UndefinedTable):
            return ""
        for application in site.applications:
            if what != "narrow" and application.slowest > 0.8 * held:
                application.errors.append(
                    f"{application.name} waited {application.slowest:.1f} s for {mode} on {what}"
                )
    return f"{mode} {what}"


FAULTS: dict[str, Callable[[Site], str]] = {
    "backend killed": backend_killed,
    "worker killed": worker_killed,
    "client killed": client_killed,
    "server crashed": server_crashed,
    "network cut": network_cut,
    "network refused": network_refused,
    "network frozen": network_frozen,
    "disk full": disk_full,
    "lock held": lock_held,
}


# --- rounds ---------------------------------------------------------------------------------------


def strike(site: Site, kind: str) -> tuple[str, float]:
    """One round: what the fault hit, and the seconds until all was well. Raises FaultError."""
    _roll_back(site)
    site.migration = Supervised(site.proxied, "migrate", "--ship", "all", "--workers", "2")
    site.migration.start()
    try:
        _wait(site, "the migration begins", _has_begun, 30)
        began = time.monotonic()
        hit = ""
        if kind:
            time.sleep(site.rng.random() * site.calm_seconds)
            hit = FAULTS[kind](site)
            began = time.monotonic()
        _wait(site, "the migration ends", lambda _: site.migration.finished, DEADLINE)
        _assert_equal(site, began)
        return hit, time.monotonic() - began
    finally:
        site.migration.end()
        site.counts["commands started again"] += len(site.migration.failures)


def _roll_back(site: Site) -> None:
    with site.connect() as conn:
        rows = conn.execute(
            "SELECT e.entity FROM pymig.entity e WHERE e.state NOT IN ('known', 'rolled_back')"
        ).fetchall()
        for row in rows:
            conn.execute("CALL pymig.roll_back(%s)", row)


def _has_begun(conn: psycopg.Connection[Any]) -> bool:
    row = conn.execute(
        "SELECT count(*) FROM pymig.entity e WHERE e.state NOT IN ('known', 'rolled_back')"
    ).fetchone()
    return bool(row and row[0])


def _wait(
    site: Site, what: str, condition: Callable[[psycopg.Connection[Any]], bool], seconds: float
) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(psycopg.OperationalError), site.connect() as conn:
            while time.monotonic() < end:
                if condition(conn):
                    return
                time.sleep(0.02)
    raise FaultError(
        f"after {seconds:.0f} s still not: {what}; migrate said {site.migration.failures[-2:]}"
    )


def _assert_equal(site: Site, began: float) -> None:
    """The worker, started again where need be, drains; then oracle and ledgers agree."""
    with ExitStack() as stack, site.connect() as conn:
        for application in site.applications:
            stack.enter_context(application.paused())

        def drained(conn: psycopg.Connection[Any]) -> bool:
            return conn.execute("SELECT count(*) FROM pymig.pending").fetchone() == (0,)

        _wait(site, "the queue is drained", drained, DEADLINE - (time.monotonic() - began))
        states = dict(conn.execute("SELECT e.entity, e.state FROM pymig.entity e").fetchall())
        lines = [f"states {states}"] if states != dict.fromkeys(SHIPS, "verified") else []
        lines += difference(conn, default_narrow(), set(SHIPS))
        for application in site.applications:
            lines += application.lost_rows(conn)
            lines += application.errors
        if lines:
            raise FaultError("\n  ".join(lines[:20]))


def run(count: int, seed: int, hold: float, kinds: list[str], say: Callable[[str], None]) -> int:
    """All rounds; how many were not recovered."""
    folder = Path(tempfile.mkdtemp(prefix="pymig-faults-", dir="/tmp"))
    folder.chmod(0o755)
    seconds: dict[str, list[float]] = defaultdict(list)
    bad: Counter[str] = Counter()
    try:
        with site(folder, seed, hold) as found:
            if found.disk is None and "disk full" in kinds:
                kinds.remove("disk full")
                say("disk full: left out, it needs root and the right to mount")
            strike(found, "")
            found.calm_seconds = strike(found, "")[1]
            say(
                f"PostgreSQL {found.cluster.server_version}; undisturbed {found.calm_seconds:.1f} s"
            )
            order = [kinds[n % len(kinds)] for n in range(count)]
            found.rng.shuffle(order)
            for number, kind in enumerate(order, 1):
                try:
                    hit, took = strike(found, kind)
                except FaultError as error:
                    bad[kind] += 1
                    say(f"{number}: {kind}: NOT RECOVERED: {error}")
                    continue
                seconds[kind].append(took)
                say(f"{number}: {kind} ({hit or 'missed'}): all well after {took:.1f} s")
            for kind in kinds:
                _tell(kind, seconds[kind], bad[kind], say)
            for application in found.applications:
                say(
                    f"application {application.name}: {application.statements} statements,"
                    f" {application.lost} cut off with its connection,"
                    f" {len(application.errors)} other errors"
                )
            say(
                f"commands started again: {found.counts['commands started again']} migrate,"
                f" {len(found.worker.failures)} worker"
            )
            log = found.cluster.log.read_text(errors="replace")
            for text in ("No space left on device", "deadlock detected"):
                say(f"in the server's log: {log.count(text)} times {text!r}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    done = sum(map(len, seconds.values()))
    say(f"{done} of {count} faults recovered without a person; seed {seed}")
    return sum(bad.values())


def _tell(kind: str, seconds: list[float], bad: int, say: Callable[[str], None]) -> None:
    spread = (
        f", median {statistics.median(seconds):.1f} s, max {max(seconds):.1f} s" if seconds else ""
    )
    say(f"{kind:16} {len(seconds)} of {len(seconds) + bad} recovered{spread}")


def main(arguments: list[str] | None = None) -> int:
    """Strike `--count` times."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--hold", type=float, default=3.0, help="seconds a lasting fault lasts")
    parser.add_argument("--only", action="append", choices=list(FAULTS))
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    kinds = given.only or list(FAULTS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that server and disk are removed
    return int(run(given.count, seed, given.hold, kinds, lambda line: print(line, flush=True)) > 0)


if __name__ == "__main__":
    sys.exit(main())
