"""T1 after the cutover: ships are certified, routed, cut over, written in both shapes, finalized,
restored and rolled back at random, and read through every door.

Threads for `run_stress(config, extra=cut_over)`, and what is to hold at the end: `settle` brings
retired rows back before the oracle compares, `compare_doors` reads each ship by every door.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import sql

from tests.stress import Config, Control, Surface
from tests.stress_writers import SHIPS, SOURCE, TABLE, World

COMPAT: Final = f"{TABLE}_compat"
#: A row that changed, is there already, can't be written; a view that went, or gets other columns.
REFUSED: Final = frozenset({"40001", "23505", "42P01", "42703"})
VALUES: Final = {
    "float8": ("0.5", "-2", "NaN"),
    "int8": ("7", "-1"),
    "bool": ("true", "false"),
    "numeric": ("1.50",),
    "text": ("wide", "", "0"),
}


class Decider(Control):
    """A DBA who moves ships on and back: certificate, routing, cutover, retirement, restoring."""

    def session(self, pymig: Surface) -> None:
        while not self.done.wait(self.rng.random() * 0.3):
            ship = self.rng.choice(SHIPS)
            state = pymig.states().get(ship)
            if state in ("backfilled", "verified"):
                self.step(pymig, "certify", ship)
                if self.rng.random() < 0.5:
                    self.step(pymig, "cut_over", ship, p_lock_wait="2 seconds")
                else:
                    self.route(pymig, ship)
            elif state == "cut_over":
                match self.rng.randrange(5):
                    case 0:
                        self.step(pymig, "certify", ship)
                        self.step(pymig, "finalize", ship, p_keep="30 minutes")
                    case 1:
                        self.step(pymig, "roll_back", ship)
                    case 2:
                        self.step(pymig, "verify", ship)
                    case _:
                        self.route(pymig, ship)
            elif state == "finalized":
                self.step(pymig, self.rng.choice(["retire", "restore_narrow"]), ship)
            if self.rng.random() < 0.1:
                pymig.conn.execute("CALL pymig.reverify(%s)", [SOURCE])

    def step(self, pymig: Surface, routine: str, ship: str, **more: str) -> None:
        """CALL a routine for a ship."""
        names = {"p_source": SOURCE, **more} | ({} if routine == "retire" else {"p_entity": ship})
        arguments = sql.SQL(", ").join(
            sql.SQL("{} => {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in names.items()
        )
        pymig.conn.execute(
            sql.SQL("CALL {}({})").format(sql.Identifier("pymig", routine), arguments)
        )
        self.world.count(f"calls of {routine}")

    def route(self, pymig: Surface, ship: str) -> None:
        """Somewhere else."""
        routing = self.rng.choice(["narrow", "percent", "wide", "shadow"])
        percent = self.rng.randrange(101) if routing == "percent" else None
        pymig.conn.execute(
            "CALL pymig.set_routing(%s, %s, %s, p_source => %s, p_lock_wait => '1 second')",
            [ship, routing, percent, SOURCE],
        )
        self.world.count("routings")


class WideWriter(Control):
    """An application that writes in the wide shape."""

    def session(self, pymig: Surface) -> None:
        self.world.writer_pids.add(pymig.conn.info.backend_pid)
        while not self.done.wait(self.rng.random() * 0.02):
            try:
                self.write(pymig.conn)
            except psycopg.Error as error:
                if error.sqlstate == "40P01":
                    self.world.count("own error 40P01")
                elif error.sqlstate in REFUSED:
                    self.world.count(f"wide writes refused by {error.sqlstate}")
                else:
                    raise

    def write(self, conn: psycopg.Connection[Any]) -> None:
        """One statement on a random column of a ship that is cut over."""
        ship = self.rng.choice(SHIPS)
        found = conn.execute(
            "SELECT s.wide_schema, e.wide_table || '_rw', c.wide_column,"
            " CASE c.column_type WHEN 'text' THEN coalesce(c.kind, 'text') ELSE c.column_type END"
            " FROM pymig.entity AS e JOIN pymig.source AS s USING (source)"
            " JOIN pymig.channel AS c USING (source, entity)"
            " WHERE e.entity = %s AND e.state IN ('cut_over', 'finalized')"
            " ORDER BY random() LIMIT 1",
            [ship],
        ).fetchone()
        if not found:
            return
        schema, table, column, kind = found
        view = sql.Identifier(schema, table)
        value = self.rng.choice(VALUES.get(kind, ("0",)))
        picked = sql.SQL(
            "created_time IN (SELECT v.created_time FROM {} AS v ORDER BY random() LIMIT 2)"
        ).format(view)
        match self.rng.randrange(6):
            case 0:
                statement = sql.SQL("DELETE FROM {} WHERE {}").format(view, picked)
            case 1:
                statement = sql.SQL(
                    "INSERT INTO {} (created_time, {}) SELECT max(v.created_time)"
                    " + random() * interval '1 minute', {} FROM {} AS v"
                ).format(view, sql.Identifier(column), sql.Literal(value), view)
            case 2:
                statement = sql.SQL("UPDATE {} SET {} = NULL WHERE {}").format(
                    view, sql.Identifier(column), picked
                )
            case _:
                statement = sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(
                    view, sql.Identifier(column), sql.Literal(value), picked
                )
        conn.execute(statement)
        self.world.count("wide writes")


class DoorReader(Control):
    """Readers by every door; what shadow reads find must be nothing."""

    def session(self, pymig: Surface) -> None:
        while not self.done.wait(self.rng.random() * 0.05):
            ship = self.rng.choice(SHIPS)
            try:
                pymig.conn.execute("SELECT count(*) FROM pymig.read(%s)", [ship])
                pymig.conn.execute(
                    sql.SQL("SELECT count(*) FROM {} WHERE ship_id = %s").format(sql.SQL(COMPAT)),
                    [ship],
                )
                self.world.count("reads by doors")
            except psycopg.Error as error:
                if error.sqlstate not in REFUSED:  # its table went between looking and reading
                    raise
            found = pymig.conn.execute(
                "SELECT r.entity, r.differences, r.sample FROM pymig.shadow_read AS r"
                " WHERE r.differences > 0"
            ).fetchone()
            if found:
                self.world.fail(f"shadow read: {found}")


def cut_over(world: World, config: Config) -> list[Control]:
    """Everything that happens to a ship after it is verified; for `extra` of run_stress.

    Two ships are cut over before the writers begin.
    """
    with psycopg.connect(config.url, autocommit=True) as conn:
        conn.execute("CALL pymig.create_compat_view(%s)", [SOURCE])
        there = {ship for (ship,) in conn.execute(f"SELECT DISTINCT ship_id FROM {TABLE}")}
        pymig = Surface(conn, config)
        for ship in [ship for ship in SHIPS if ship in there][:2]:
            pymig.start_sync(ship)
            pymig.backfill(ship)
            conn.execute("CALL pymig.certify(%s, %s)", [ship, SOURCE])
            conn.execute("CALL pymig.cut_over(%s, %s)", [ship, SOURCE])
            world.count("calls of cut_over")
    return [
        Decider(world, config, "decider 1"),
        Decider(world, config, "decider 2"),
        WideWriter(world, config, "wide 1"),
        WideWriter(world, config, "wide 2"),
        DoorReader(world, config, "door 1"),
    ]


def settle(conn: psycopg.Connection[Any], _world: World) -> None:
    """Bring back what was retired, so that the narrow table has all of it."""
    retired = conn.execute(
        "SELECT e.entity FROM pymig.entity AS e WHERE e.source = %s AND (e.state = 'finalized'"
        " OR EXISTS (SELECT FROM pymig.retired_bucket AS r WHERE r.entity = e.entity))",
        [SOURCE],
    ).fetchall()
    for (ship,) in retired:
        conn.execute("CALL pymig.restore_narrow(%s, p_source => %s)", [ship, SOURCE])


def compare_doors(conn: psycopg.Connection[Any], world: World) -> None:
    """With nothing pending, each ship reads the same by every door and from both sides."""
    query = "SELECT channel, time, value FROM pymig.read(%s) ORDER BY 1, 2, 3"
    compat = sql.SQL(
        "SELECT data_channel_id, created_time::text, count(*) FROM {} WHERE ship_id = %s"
        " AND num_nonnulls(bool_v, str_v, long_v, double_v) > 0 GROUP BY 1, 2 ORDER BY 1, 2"
    ).format(sql.SQL(COMPAT))
    for (ship,) in conn.execute(
        "SELECT e.entity FROM pymig.entity AS e WHERE e.verified_at IS NOT NULL"
    ).fetchall():
        sides = []
        for routing in ("narrow", "wide"):
            conn.execute("CALL pymig.set_routing(%s, %s, p_source => %s)", [ship, routing, SOURCE])
            sides.append(conn.execute(query, [ship]).fetchall())
        if sides[0] != sides[1]:
            world.fail(f"{ship!r}: read() differs between narrow and wide")
        keys = [(channel, time) for channel, time, _ in sides[1]]
        rows = conn.execute(compat, [ship]).fetchall()
        if sorted((c, t) for c, t, _ in rows) != sorted(keys):
            world.fail(f"{ship!r}: the compat view has other cells than read()")
        world.count("ships compared by doors")
