"""Everything at once on one long-lived source: `make soak MINUTES=20 SEED=1`.

Writers of all styles, backfill, killed sessions, a server that crashes and comes back, new channels
and ships, roll-backs and new migrations, verification under load, TRUNCATEs; in the end the oracle
compares every cell. HOLD=60 also arms and uninstalls behind sessions that hold the narrow table for
so many seconds. Uses a server of its own (PG_BINDIR chooses the binaries). Prints the seed and what
happened how often. Exit 1 on any difference, false alarm, or error of ingest that is not its own.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psycopg
from psycopg import sql

from pymig.server import Cluster
from tests import arming
from tests.seeds import tell
from tests.stress import MIGRATING, Config, Control, StressError, Surface, run_stress
from tests.stress_writers import CHANNELS, TABLE, World

GRACE = 3.0  # seconds after a start in which a session may still find out that it lost the server
PATIENCE = 20.0  # seconds a probe waits before it asks why


class Restarter(Control):
    """Crashes the server and starts it again."""

    def __init__(self, world: World, config: Config, cluster: Cluster, every: float) -> None:
        super().__init__(world, config, "restarter")
        self.cluster, self.every = cluster, every

    def run(self) -> None:
        """Needs no session: it has the server's programs."""
        while not self.done.wait(self.every * self.rng.uniform(0.5, 1.5)):
            self.world.excused_until = float("inf")
            if self.rng.random() < 0.3:
                self.cluster.kill()
            else:
                self.cluster.stop("immediate")
            self.done.wait(self.rng.random() * 0.5)
            self.cluster.start()
            self.world.excused_until = time.monotonic() + GRACE
            self.world.count("server crashes")


class Probe(Control):
    """Commits a row and waits for it in the wide table: the lag as an application sees it."""

    def __init__(self, world: World, config: Config) -> None:
        super().__init__(world, config, "probe")
        self.lags: list[float] = []
        self.number = 0

    def session(self, pymig: Surface) -> None:
        while not self.done.wait(0.2):
            rows = pymig.conn.execute(
                "SELECT m.entity, m.wide_table::text FROM pymig.channel_map m"
                " JOIN pymig.entity e ON e.source = m.source AND e.entity = m.entity"
                " WHERE m.channel = %s AND e.state = ANY (%s)",
                [CHANNELS[0], list(MIGRATING)],
            ).fetchall()
            if rows:
                self.probe(pymig, *self.rng.choice(rows))

    def probe(self, pymig: Surface, ship: str, wide: str) -> None:
        """One row; where its ship is rolled back or the table truncated meanwhile, no figure."""
        self.number += 1
        at = [f"2024-02-{1 + self.number // 86400:02d}", self.number % 86400]
        moment = "%s::timestamp + %s * interval '1 second'"
        pymig.conn.execute(
            f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, double_v, value_format)"
            f" VALUES (%s, %s, {moment}, 1, 'Decimal')",
            [ship, CHANNELS[0], *at],
        )
        began = time.monotonic()
        look = sql.SQL(f"SELECT count(*) FROM {{}} w WHERE w.created_time = {moment}")
        try:
            while pymig.conn.execute(look.format(sql.SQL(wide)), at).fetchone() == (0,):
                if self.done.wait(0.01) or time.monotonic() - began > PATIENCE:
                    self.world.count("probes without an answer")
                    return
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            self.world.count("probes rolled back")
            return
        self.lags.append(time.monotonic() - began)


def soak(
    cluster: Cluster, name: str, seed: int, seconds: float, writers: int, every: float
) -> tuple[Counter[str], list[float]]:
    """One long run in a fresh database: counts, lags in seconds. Raises StressError."""
    probes: list[Probe] = []

    def extra(world: World, config: Config) -> list[Control]:
        probes.append(Probe(world, config))
        return [*probes, Restarter(world, config, cluster, every)]

    with psycopg.connect(cluster.url(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    config = Config(
        cluster.url(name),
        seed,
        seconds,
        kill=True,
        new_entities="auto",
        writers=writers,
        truncate_every=max(120.0, seconds / 10),
    )
    counts = Counter(run_stress(config, extra))
    return counts, sorted(lag for probe in probes for lag in probe.lags)


def show(counts: Counter[str], lags: list[float]) -> str:
    """What happened, and the lag."""
    text = tell(counts)
    if lags:
        p50, p99 = (lags[int(share * (len(lags) - 1))] for share in (0.5, 0.99))
        text += f"\nlag of {len(lags)} probes, workers killed and server crashed meanwhile: "
        text += f"p50 {p50:.2f} s, p99 {p99:.2f} s, max {lags[-1]:.2f} s"
    return text


def main(arguments: list[str] | None = None) -> int:
    """Arm behind long sessions where asked for, then soak."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, help="default: random")
    parser.add_argument("--writers", type=int, default=6)
    parser.add_argument("--restart-every", type=float, default=30.0, help="seconds, on average")
    parser.add_argument("--hold", type=float, default=0.0, help="seconds: arm behind long sessions")
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="pymig-soak-", dir="/tmp"))
    folder.chmod(0o755)
    cluster = Cluster(folder / "s", fast=True)
    try:
        cluster.start()
        print(f"PostgreSQL {cluster.server_version}, seed {seed}", flush=True)
        if given.hold:
            _arm(cluster, given.hold)
        found = soak(cluster, "soak", seed, given.minutes * 60, given.writers, given.restart_every)
        print(show(*found))
        log = cluster.log.read_text(errors="replace")
        deadlocks = log.count("deadlock detected")
        print(f"deadlocks in the server's log, the writers' own included: {deadlocks}")
    except StressError as error:
        print(error)
        return 1
    finally:
        cluster.remove()
        folder.rmdir()
    print("equal to the oracle")
    return 0


def _arm(cluster: Cluster, seconds: float) -> None:
    from pymig.install import install

    with psycopg.connect(cluster.url(), autocommit=True) as conn:
        conn.execute("CREATE DATABASE arming")
    with psycopg.connect(cluster.url("arming"), autocommit=True) as conn:
        conn.execute(arming.CREATE)
    install(cluster.url("arming"))
    for what, waits in arming.both(cluster.url("arming"), seconds).items():
        print(f"{what} behind a SELECT and a writer of {seconds:.0f} s: {waits}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
