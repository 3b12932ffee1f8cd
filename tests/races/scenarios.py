"""Deterministic interleavings, each a function that acts one out and returns the damage it left.

An unharmed pymig returns [] from every one of them (test_interleavings.py); a mutated one must not
(test_mutations.py). R numbers are the classes of races the project keeps count of, in
docs/explanation/races.md.
"""

from __future__ import annotations

from contextlib import suppress

import psycopg

from tests.races import styles
from tests.races.interleave import (
    DELETE,
    INSERT,
    SOURCE,
    TABLE,
    UPDATE,
    WIDE,
    Session,
    Stage,
    times,
)

A, B, C = times(3)
FAR = "2024-03-05 20:00:00"  # many buckets later
COLLECT = "SELECT pymig._collect_pending(s) FROM pymig.source AS s"
SYNC = "CALL pymig.sync_pending()"
CHUNK = "SELECT outcome FROM pymig.backfill_chunk('x')"
BACKFILL = "CALL pymig.backfill('x')"


def _chunk_in_flight(s: Stage, change: str, value: int | None = None) -> list[str]:
    """A chunk has its snapshot; a writer changes a row and a worker passes; the chunk writes."""
    for at in (A, B):
        s.insert("x", "a", at, 1)
    s.start_sync("x")
    s.deal("x")
    s.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    chunk, worker = s.session("chunk"), s.session("worker")
    with s.held("chunk", "reading"):
        chunk.start(CHUNK)
        s.stopped(chunk)
        if change == "delete":
            s.delete("x", "a", A)
        else:
            s.update("x", "a", A, value)
        worker.start(SYNC)
        s.stopped_or_done(worker)
    chunk.finish()
    worker.finish()
    s.main.run(BACKFILL)
    return s.damage("x")


def r01_delete_resurrection(s: Stage) -> list[str]:
    """A row the chunk has read is deleted before the chunk writes."""
    return _chunk_in_flight(s, "delete")


def r02_stale_overwrite(s: Stage) -> list[str]:
    """A row the chunk has read gets a new value before the chunk writes."""
    return _chunk_in_flight(s, "update", 2)


def r03_refill(s: Stage) -> list[str]:
    """A cell becomes NULL: while a chunk holds its old value, and again when all is moved."""
    damage = _chunk_in_flight(s, "update", None)
    s.insert("x", "b", B, 1)
    s.drain()
    s.update("x", "b", B, None)
    return damage + s.damage("x")


def r04_isolation(s: Stage) -> list[str]:
    """Writers whose snapshots are older than the arming and than the chunk's rows."""
    for at in (A, B, C):
        s.insert("x", "a", at, 1)
    writers = [s.session(name) for name in ("repeatable", "serializable")]
    for writer, level in zip(writers, ("REPEATABLE READ", "SERIALIZABLE"), strict=True):
        writer.begin(level)
        writer.run("SELECT count(*) FROM pymig.entity")  # the snapshot; touches no narrow row
    s.migrate("x")
    s.update("x", "a", A, 2, writers[0])
    s.insert("x", "b", FAR, 2, writers[0])
    s.delete("x", "a", B, writers[1])
    s.insert("x", "c", FAR, 2, writers[1])
    s.main.run(SYNC)
    for writer in writers:
        writer.run("COMMIT")
    return s.damage("x")


def r05_arming(s: Stage) -> list[str]:
    """A writer is in flight when the source is armed, and commits when history is moved."""
    s.insert("x", "a", A, 1)
    writer, starter = s.session("writer"), s.session("starter")
    writer.begin()
    s.update("x", "a", A, 2, writer)
    s.insert("x", "b", B, 2, writer)
    starter.start("CALL pymig.start_sync('x', p_strategy => 'json')")
    if not s.stopped_or_done(starter):  # a pymig that doesn't wait moves history at once
        s.main.run(BACKFILL)
    writer.run("COMMIT")
    starter.finish()
    s.main.run(BACKFILL)
    return s.damage("x")


def r06_one_wide_row(s: Stage) -> list[str]:
    """Two writers meet in two wide rows in opposite order, all of pymig's locks being held."""
    s.insert("x", "z", A, 1)
    s.migrate("x")
    one, two = s.session("one"), s.session("two")
    holder = s.session("holder of all")
    holder.begin()
    holder.run(f"LOCK TABLE {WIDE}x IN ACCESS EXCLUSIVE MODE")
    holder.run(f"SELECT pymig._lock_entity('{SOURCE}', 'x', true)")
    holder.run(f"SELECT pymig._lock_buckets('{SOURCE}', 'x', %s, %s)", s.bucket(A), s.bucket(A))
    holder.run("LOCK TABLE pymig.entity, pymig.chunk, pymig.channel IN ACCESS EXCLUSIVE MODE")
    errors = []
    try:
        for writer in (one, two):
            writer.run("SET statement_timeout = '2s'")
            writer.begin()
        one.run(INSERT, "x", "a", A, 1)
        two.run(INSERT, "x", "b", B, 1)
        one.run(INSERT, "x", "a", B, 1)
        two.run(INSERT, "x", "b", A, 1)
        one.run(UPDATE, 2, "x", "a", A)
        two.run(DELETE, "x", "b", B)
        one.run("COMMIT")
        two.run("COMMIT")
    except psycopg.Error as error:
        errors.append(f"ingest: {error}")
        for writer in (one, two):
            writer.run("ROLLBACK")
    holder.run("COMMIT")
    return errors + s.damage("x")


def r07_key_change(s: Stage) -> list[str]:
    """Updates of time (within a bucket and beyond), channel and entity."""
    for channel in "abcd":
        s.insert("x", channel, A, 1)
    s.insert("y", "a", A, 1)
    s.migrate("x", "y")
    for change in (
        f"created_time = '{B}' WHERE data_channel_id = 'a' AND ship_id = 'x'",
        f"created_time = '{FAR}' WHERE data_channel_id = 'b'",
        "data_channel_id = 'new' WHERE data_channel_id = 'c'",
        "ship_id = 'y' WHERE data_channel_id = 'd'",
    ):
        s.main.run(f"UPDATE {TABLE} SET {change}")
    s.drain()
    s.main.run(f"UPDATE {TABLE} SET created_time = '{C}' WHERE data_channel_id = 'new'")
    return s.damage("x", "y")


def r08_duplicates(s: Stage) -> list[str]:
    """Without a unique key: the highest tie-break wins in every strategy and in the worker."""
    assert not s.unique
    ships = {"f": "filter", "t": "transpose", "j": "json"}
    for ship in ships:
        for value in (3, 1, 2):
            s.insert(ship, "a", A, value)
            s.insert(ship, "b", B, value)
    for ship, strategy in ships.items():
        s.migrate(ship, strategy=strategy)
    damage = s.damage(*ships)
    s.main.run(f"DELETE FROM {TABLE} WHERE data_channel_id = 'a' AND long_v = 2")  # the winner
    s.main.run(f"DELETE FROM {TABLE} WHERE data_channel_id = 'b' AND long_v = 3")  # a loser
    return damage + s.damage(*ships)


def r09_type_drift(s: Stage) -> list[str]:
    """Channels change their format under native columns: ingest goes on, so do other channels."""
    for channel in "abc":
        s.insert("x", channel, A, 1)
    s.main.run("CALL pymig.start_sync('x', p_column_types => 'native', p_strategy => 'json')")
    s.main.run(BACKFILL)
    writer = s.session("writer")
    put = (
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, str_v, double_v, bool_v,"
        " value_format) VALUES ('x', %s, %s::timestamp, %s, %s, %s, %s)"
    )
    damage = []
    try:
        writer.run(put, "a", B, "no number", None, None, "String")
        writer.run(put, "b", B, None, 0.5, None, "Decimal")
        writer.run(put, "a", C, None, None, True, "Boolean")
        s.insert("x", "c", B, 2, writer)
        writer.run(
            f"UPDATE {TABLE} SET long_v = NULL, str_v = 'text', value_format = 'String'"
            " WHERE data_channel_id = 'b'"
        )
    except psycopg.Error as error:
        damage.append(f"ingest: {error}")
    return damage + s.damage("x")


def r10_ddl_in_write_path(s: Stage) -> list[str]:
    """Two writers bring new channels in opposite order, a reader being on the wide tables."""
    for ship in "xy":
        s.insert(ship, "a", A, 1)
    s.migrate("x", "y")
    reader = s.session("reader")
    reader.begin()
    for ship in "xy":
        reader.run(f"SELECT * FROM {WIDE}{ship}")
    one, two = s.session("one"), s.session("two")
    errors = []
    try:
        for writer in (one, two):
            writer.run("SET lock_timeout = '300ms'")
            writer.begin()
        s.insert("x", "new 1", A, 1, one)
        s.insert("y", "new 2", A, 1, two)
        s.insert("y", "new 1", B, 1, one)
        s.insert("x", "new 2", B, 1, two)
        s.main.run(SYNC)  # nothing to see yet
        one.run("COMMIT")
        two.run("COMMIT")
        s.main.run(SYNC)  # gives way to the reader
        s.update("x", "a", A, 2, one)
        reader.run(f"SELECT * FROM {WIDE}x")
    except psycopg.Error as error:
        errors.append(f"ingest or a reader waits: {error}")
        for writer in (one, two):
            writer.run("ROLLBACK")
    reader.run("ROLLBACK")
    return errors + s.damage("x", "y")


def r11_replica_role(s: Stage) -> list[str]:
    """Writers with session_replication_role = replica, for which ordinary triggers don't fire."""
    for at in (A, B, C):
        s.insert("x", "a", at, 1)
    s.migrate("x")
    writer = s.session("writer")
    writer.run("SET session_replication_role = replica")
    s.insert("x", "a", FAR, 1, writer)
    s.update("x", "a", A, 2, writer)
    s.delete("x", "a", B, writer)
    damage = s.damage("x")
    writer.run(f"TRUNCATE {TABLE}")
    return damage + s.damage("x")


def r11_triggers_disabled(s: Stage) -> list[str]:
    """A restore disables triggers, loads, and enables them again, not as they were."""
    s.insert("x", "a", A, 1)
    s.migrate("x")
    s.main.run("CALL pymig.verify('x')")
    s.main.run(f"ALTER TABLE {TABLE} DISABLE TRIGGER ALL")
    s.insert("x", "a", B, 1)
    s.main.run(f"ALTER TABLE {TABLE} ENABLE TRIGGER ALL")
    said = [s.main.value("SELECT triggers FROM pymig.status")]
    s.start_sync("x")
    said += s.main.run("SELECT triggers, state FROM pymig.status")[0]
    damage = [] if said == ["drifted", "armed", "backfilled"] else [f"drift goes unseen: {said}"]
    s.main.run("CALL pymig.verify('x', p_repair => true)")
    s.insert("x", "a", C, 1)
    return damage + s.damage("x")


def r12_checkpoint(s: Stage) -> list[str]:
    """The session that moves a chunk dies before its rows, and after them."""
    s.insert("x", "a", A, 1)
    s.insert("x", "a", FAR, 1)
    s.start_sync("x")
    s.deal("x")
    s.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    s.point(f"{WIDE}x", "AFTER INSERT", "written")
    for point in ("reading", "written"):
        mover = s.session("mover")
        with s.held("mover", point):
            mover.start(BACKFILL)
            s.stopped(mover)
            s.kill(mover)
            with suppress(psycopg.Error):
                mover.finish()
    s.main.run(BACKFILL)
    return s.damage("x")


def r13_retry(s: Stage) -> list[str]:
    """A chunk fails half-way, is halved, tried, reported as failed, and completed later."""
    hours = [times(1, hour)[0] for hour in range(8)]
    for at in hours:
        s.insert("x", "a", at, 1)
    s.start_sync("x")
    s.main.run("SELECT pymig._deal_chunks(s, 'x') FROM pymig.source AS s")
    s.main.run(
        "UPDATE pymig.chunk SET last_bucket = first_bucket + 7, to_time = %s WHERE chunk ="
        " (SELECT min(chunk) FROM pymig.chunk)",
        hours[7],
    )
    s.main.run("DELETE FROM pymig.chunk WHERE chunk > (SELECT min(chunk) FROM pymig.chunk)")
    s.main.run("UPDATE pymig.entity SET next_bucket = NULL")
    s.main.run(f"ALTER TABLE {WIDE}x ADD CONSTRAINT bad CHECK (created_time <> '{hours[5]}')")
    outcomes = []
    for _ in range(60):
        s.main.run("UPDATE pymig.chunk SET retry_at = NULL")
        outcomes.append(s.main.value(CHUNK))
        if outcomes[-1] in ("failed", "done"):
            break
    damage = [] if outcomes[-1] == "failed" else [f"a chunk that can't be moved: {outcomes}"]
    if s.main.value("SELECT state FROM pymig.entity") != "failed":
        damage.append("the entity is not called failed")
    rows = len(s.wide("x"))
    if rows != 7:
        damage.append(f"{rows} of 7 good buckets were moved")
    s.main.run(f"ALTER TABLE {WIDE}x DROP CONSTRAINT bad")
    s.start_sync("x")
    s.main.run(BACKFILL)
    return damage + s.damage("x")


def r14_two_encodings(s: Stage) -> list[str]:
    """All strategies and the worker write the same bits."""
    values = {
        "double_v": ["0.1", "-0", "NaN", "1e300", "-Infinity", "5e-324"],
        "long_v": ["9007199254740993", "-1", "0"],
        "str_v": ["", " x ", "NULL", '{"a": 1}', "é😀"],
        "bool_v": ["true", "false"],
    }
    formats = {"double_v": "Decimal", "long_v": "Integer", "str_v": "String", "bool_v": "Boolean"}
    strategies = ["transpose", "json", "filter"]
    for ship in strategies:
        for column, texts in values.items():
            for n, text in enumerate(texts):
                s.main.run(
                    f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, {column},"
                    " value_format) VALUES (%s, %s, %s::timestamp, %s, %s)",
                    ship,
                    f"{column}{n % 3}",
                    times(9)[n],
                    text,
                    formats[column],
                )
        s.migrate(ship, strategy=ship)
    tables = [s.wide(ship) for ship in strategies]
    s.main.run(f"UPDATE {TABLE} SET server_created_time = created_time")
    s.drain()
    tables += [s.wide(ship) for ship in strategies]
    damage = [f"{n}: {table}" for n, table in enumerate(tables) if table != tables[0]]
    return damage + s.damage(*strategies)


def r15_no_end(s: Stage) -> list[str]:
    """A writer adds a bucket for every step of the backfill."""
    s.insert("x", "a", A, 1)
    s.start_sync("x")
    for step in range(40):
        s.main.run(
            f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
            " SELECT 'x', 'a', %s::timestamp + (%s * 500 + i) * interval '1 hour', 1, 'Integer'"
            " FROM generate_series(1, 500, 100) AS i",
            A,
            step,
        )
        if s.main.value(CHUNK) == "done":
            return s.damage("x")
    return ["the backfill never ends"]


def r16_queue_order(s: Stage) -> list[str]:
    """Keys commit in another order than they were written, and twice."""
    for at in (A, B):
        s.insert("x", "a", at, 1)
    s.migrate("x")
    slow = s.session("slow")
    s.update("x", "a", A, 2)  # a key that waits
    slow.begin()
    s.update("x", "a", B, 2, slow)
    s.insert("x", "b", A, 3, slow)  # the same key again, by a slow transaction
    s.update("x", "a", A, 4)
    s.main.run(SYNC)
    slow.run("COMMIT")
    return s.damage("x")


def r16_crash_between(s: Stage) -> list[str]:
    """The worker dies while it collects, after its claim, and after its rows."""
    for at in (A, B):
        s.insert("x", "a", at, 1)
    s.migrate("x")
    s.point(f"pymig.{SOURCE}_todo", "AFTER INSERT", "collected")
    s.point(f"pymig.{SOURCE}_todo", "AFTER DELETE", "claimed")
    s.point(f"{WIDE}x", "AFTER INSERT", "written")
    for number, point in enumerate(("collected", "claimed", "written"), 2):
        s.update("x", "a", A, number)
        worker = s.session("worker")
        with s.held("worker", point):
            worker.start(SYNC)
            s.stopped(worker)
            s.delete("x", "a", B) if number == 3 else None
            s.kill(worker)
            with suppress(psycopg.Error):
                worker.finish()
    return s.damage("x")


def r17_advisory_locks(s: Stage) -> list[str]:
    """A worker waits for the exclusive entity lock: ingest and other workers go on."""
    s.insert("x", "a", A, 1)
    s.insert("y", "a", A, 1)
    s.migrate("x", "y")
    reader, waiting, other = s.session("reader"), s.session("waiting"), s.session("other")
    reader.begin()
    reader.run(f"SELECT pymig._lock_entity('{SOURCE}', 'x', false)")
    s.insert("x", "new", A, 1)
    waiting.start(SYNC)
    s.stopped(waiting)
    damage = []
    s.insert("x", "a", B, 1)
    s.insert("y", "a", B, 1)
    other.run("SET statement_timeout = '5s'")
    other.run(SYNC)
    if len(s.wide("y")) != 2:
        damage.append("another entity's keys wait for a lock of x")
    reader.run("COMMIT")
    waiting.finish()
    return damage + s.damage("x", "y")


WATCH = """
CREATE TABLE race.seen (what text, began timestamptz, locks bigint);
CREATE FUNCTION race.watch(what text) RETURNS boolean LANGUAGE sql AS $$
    INSERT INTO race.seen SELECT what, now(), count(*) FROM pg_locks AS l
    WHERE l.pid = pg_backend_pid() AND l.locktype = 'advisory' RETURNING true $$;
CREATE FUNCTION race.watch_trigger() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM race.watch(TG_ARGV[0]); RETURN NULL; END $$;
"""


def _hours(s: Stage, ship: str, count: int) -> None:
    """A row an hour, that is one in each of so many buckets."""
    s.main.run(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
        " SELECT %s, 'a', %s::timestamp + i * interval '1 hour', 1, 'Integer'"
        " FROM generate_series(1, %s) AS i",
        ship,
        A,
        count,
    )


def _watch(s: Stage, what: str) -> None:
    """From here on every write of x is noted as `what`: when its transaction began, its locks."""
    s.main.run(f'DROP TRIGGER IF EXISTS "watch" ON {WIDE}x')
    s.main.run(
        f'CREATE TRIGGER "watch" AFTER INSERT ON {WIDE}x FOR EACH STATEMENT'
        f" EXECUTE FUNCTION race.watch_trigger('{what}')"
    )
    s.main.run(f'ALTER TABLE {WIDE}x ENABLE ALWAYS TRIGGER "watch"')


def r18_lock_table(s: Stage) -> list[str]:
    """Hundreds of buckets are moved, drained and written: locks of a transaction stay few."""
    s.main.run(WATCH)
    _hours(s, "x", 300)
    s.start_sync("x")
    _watch(s, "chunk")
    s.main.run(BACKFILL)
    _watch(s, "worker")
    writer = s.session("writer")
    writer.begin()
    writer.run(f"UPDATE {TABLE} SET long_v = 2")
    advisory = "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'advisory'"
    ingest = s.main.value(advisory, writer.pid)
    writer.run("COMMIT")
    damage = s.damage("x")
    most = dict(s.main.run("SELECT what, max(locks) FROM race.seen GROUP BY 1"))
    if ingest or most["chunk"] > 70 or most["worker"] > 70:
        damage.append(f"advisory locks: {ingest} of ingest, {most}")
    return damage


def r19_subtransactions(s: Stage) -> list[str]:
    """Subtransactions stay fewer than 64: of ingest, and of a bucket with one bad key of 300."""
    s.insert("x", "a", A, 1)
    s.migrate("x")
    writer = s.session("writer")
    writer.begin()
    for second in range(300):
        s.insert("x", "b", f"{B[:-2]}00.{second:06d}", second, writer)
    writer.run("COMMIT")
    xids = f"SELECT count(DISTINCT xmin::text) FROM pymig.{SOURCE}_pending_1"
    ingest = int(s.main.value(xids))
    bad = f"ADD CONSTRAINT bad CHECK (created_time <> '{B[:-2]}00.000123')"
    s.main.run(f"ALTER TABLE {WIDE}x ADD b text, {bad}")
    s.main.run(
        "INSERT INTO pymig.channel (source, entity, channel, ord, part, wide_column, column_type)"
        f" VALUES ('{SOURCE}', 'x', 'b', 2, 1, 'b', 'text')"
    )
    damage, most = [], 0
    seen: set[str] = set()
    for _ in range(40):  # a slow machine does fewer keys a turn
        if s.pending() == 1:
            break
        s.main.run(f"UPDATE pymig.{SOURCE}_todo SET retry_at = NULL")
        s.main.run(SYNC)  # one bucket, so one transaction that writes wide rows
        xmins = {row[0] for row in s.main.run(f"SELECT DISTINCT xmin::text FROM {WIDE}x")}
        most = max(most, len(xmins - seen))
        seen |= xmins
    if ingest > 1 or most > 64:
        damage.append(f"subtransactions: {ingest} of ingest, {most} of a bucket")
    if len(s.wide("x")) != 300 or s.pending() != 1:
        damage.append(f"{len(s.wide('x'))} of 300 good keys, {s.pending()} pending")
    s.main.run(f"ALTER TABLE {WIDE}x DROP CONSTRAINT bad")
    return damage + s.damage("x")


def r20_own_snapshot(s: Stage) -> list[str]:
    """Each chunk, each run of the worker and each run of verify has its own transaction."""
    s.main.run(WATCH)
    s.patch("_compare_buckets", ("BEGIN\n", "BEGIN\n    PERFORM race.watch('verify');\n"))
    _hours(s, "x", 90)
    s.start_sync("x")
    _watch(s, "chunk")
    s.main.run(BACKFILL)
    _watch(s, "worker")
    s.main.run(f"UPDATE {TABLE} SET long_v = 2")
    s.main.run(SYNC)
    s.main.run("CALL pymig.verify('x')")
    s.main.run(f'DROP TRIGGER "watch" ON {WIDE}x')
    began = dict(s.main.run("SELECT what, count(DISTINCT began) FROM race.seen GROUP BY 1"))
    chunks = s.main.value("SELECT count(*) FROM pymig.chunk")
    compared = s.main.value("SELECT count(*) FROM race.seen WHERE what = 'verify'")
    buckets = s.main.value("SELECT count(*) FROM pymig.verification")
    damage = s.damage("x")
    # The worker takes runs of up to 16 whole buckets, or of those that have 60 keys together.
    runs = began.pop("worker", 0)
    if chunks < 2 or began != {"chunk": chunks, "verify": compared} or not 3 <= runs <= 90:
        damage.append(f"{chunks} chunks, {compared} of verify in transactions: {began}, {runs}")
    if not 2 <= compared < buckets == 90:  # runs of up to 64
        damage.append(f"{buckets} buckets compared in {compared} statements")
    return damage


def r21_every_writer(s: Stage) -> list[str]:
    """Every style of writing there is, the worker passing after each."""
    with suppress(psycopg.errors.DuplicateObject):
        s.main.run(f"CREATE ROLE {styles.ROLE}")
    s.main.conn.execute(styles.APPLICATION)
    s.main.conn.execute(styles.HISTORY, {"minutes": styles.MINUTES, "styles": len(styles.STYLES)})
    s.migrate("x", "y")
    app = styles.App(s.session("writer").conn, False, "READ COMMITTED")
    app.conn.execute(f"SET ROLE {styles.ROLE}")
    for slot, style in styles.slots(False):
        app.do(slot, style)
        s.main.run(SYNC)
    return app.errors + s.damage("x", "y")


def r22_lock_then_read(s: Stage, isolation: str = "read committed") -> list[str]:
    """A chunk waits for a bucket while its holder claims, recomputes and deletes a row."""
    s.patch(
        "_recompute_todo",
        ("    EXECUTE format(", "    PERFORM race.pause('locked');\n    EXECUTE format("),
    )
    for at in (A, B):
        s.insert("x", "a", at, 1)
    s.start_sync("x")
    s.deal("x")
    s.insert("x", "a", C, 1)  # a key that leaves no row for the chunk to collide with
    s.delete("x", "a", C)
    worker, chunk = s.session("worker"), s.session("chunk")
    chunk.run(f"SET default_transaction_isolation = '{isolation}'")
    with s.held("worker", "locked"):
        worker.start(SYNC)
        s.stopped(worker)
        chunk.start(CHUNK)
        s.stopped_or_done(chunk)
        s.delete("x", "a", A)
        s.main.run(COLLECT)
    worker.finish()
    refused = False
    try:
        chunk.finish()
    except psycopg.Error as error:
        refused = error.sqlstate == "PM006"
        if not refused:
            raise
    s.main.run(BACKFILL)
    damage = s.damage("x")
    if isolation != "read committed" and not refused:
        damage.append(f"a chunk ran at {isolation}")
    return damage


def r22_claim_then_read(s: Stage) -> list[str]:
    """A key comes again while the worker that claimed it has already read."""
    s.insert("x", "a", A, 1)
    s.migrate("x")
    s.update("x", "a", A, 2)
    s.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    worker = s.session("worker")
    with s.held("worker", "reading"):
        worker.start(SYNC)
        s.stopped(worker)
        s.update("x", "a", A, 3)
        s.main.run(COLLECT)
    worker.finish()
    return s.damage("x")


def r23_two_recomputers(s: Stage) -> list[str]:
    """Two workers have keys of one bucket; the second one's read is the newer."""
    s.insert("x", "a", A, 1)
    s.migrate("x")
    s.update("x", "a", A, 2)
    s.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    one, two = s.session("one"), s.session("two")
    with s.held("one", "reading"):
        one.start(SYNC)
        s.stopped(one)
        s.delete("x", "a", A)
        two.start(SYNC)
        s.stopped_or_done(two)
    one.finish()
    two.finish()
    return s.damage("x")


def r24_poison(s: Stage) -> list[str]:
    """One bucket can't be recomputed: the others are, in the same pass, and it in the end."""
    early, late = times(1, 3)[0], times(1, 20)[0]
    for ship in "xy":
        for at in (early, late):
            s.insert(ship, "a", at, 1)
    s.migrate("x", "y")
    s.main.run(
        f"ALTER TABLE {WIDE}x ADD CONSTRAINT bad CHECK (a <> '2' OR created_time <> '{late}')"
    )
    s.main.run(f"UPDATE {TABLE} SET long_v = 2")
    damage = []
    try:
        s.main.run(SYNC)
    except psycopg.Error as error:
        damage.append(f"one key ends the pass: {error}")
    if [row[1] for row in s.wide("x")] != ["2", "1"] or [row[1] for row in s.wide("y")] != [
        "2"
    ] * 2:
        damage.append(f"one key holds up others: {s.wide('x')} {s.wide('y')}")
    with suppress(psycopg.Error):
        s.main.run("CALL pymig.verify('x')")
        damage.append("verified although a key can't be recomputed")
    s.main.run(f"ALTER TABLE {WIDE}x DROP CONSTRAINT bad")
    return damage + s.damage("x", "y")


def r25_row_security(s: Stage) -> list[str]:
    """Row-level security hides a row from pymig: an error, never a NULL."""
    s.insert("x", "a", A, 1)
    s.insert("x", "b", A, 1)
    s.migrate("x")
    role = f"hidden_{s.db.name}"
    s.main.run(f"CREATE ROLE {role}")
    try:
        for schema in ("tenant", "pymig"):
            s.main.run(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
            s.main.run(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}")
            s.main.run(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {role}")
        s.main.run(f"CREATE POLICY partial ON {TABLE} USING (data_channel_id <> 'b')")
        s.main.run(f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
        s.update("x", "a", A, 2)
        s.main.run(f"SET ROLE {role}")
        s.main.run(SYNC)
        s.main.run("RESET ROLE")
        damage = [] if s.wide("x")[0][2] == "1" else [f"a hidden row became NULL: {s.wide('x')}"]
        s.main.run(f"ALTER TABLE {TABLE} DISABLE ROW LEVEL SECURITY")
        return damage + s.damage("x")
    finally:
        s.main.run("RESET ROLE")
        s.main.run(f"DROP OWNED BY {role}")
        s.main.run(f"DROP ROLE {role}")


def r26_extreme_times(s: Stage) -> list[str]:
    """Infinities, the ends of the type, BC: as history and as news."""
    extremes = [
        "infinity",
        "-infinity",
        "294276-12-20 23:59:59.999999",
        "4713-01-01 00:00:00 BC",
        "290000-01-01",
        "0001-01-01 00:00:00 BC",
        "1999-12-31 23:59:59.999999",
    ]
    for at in (A, *extremes):
        s.insert("x", "a", at, 1)
        s.insert("y", "a", A, 1) if at == A else None
    s.migrate("x", "y")
    for at in extremes:
        s.insert("y", "a", at, 1)
        s.update("x", "a", at, 2)
    s.drain()
    s.delete("x", "a", "infinity")
    s.delete("y", "a", "-infinity")
    damage = s.damage("x", "y")
    for ship in "xy":
        s.main.run("CALL pymig.verify(%s)", ship)
    return damage


def r27_planning(s: Stage) -> list[str]:
    """Rows beyond the bounds and a new channel come between planning and the first wide row."""
    s.insert("other", "a", A, 1)
    s.migrate("other")
    s.insert("x", "a", A, 1)
    s.point("pymig.entity", "BEFORE UPDATE OF first_bucket", "bounded")
    starter, worker = s.session("starter"), s.session("worker")
    with s.held("starter", "bounded"):
        starter.start("CALL pymig.start_sync('x', p_strategy => 'json')")
        s.stopped(starter)
        s.insert("x", "a", FAR, 1)
        s.insert("x", "new", FAR, 1)
        worker.start(SYNC)
        s.stopped_or_done(worker)
    starter.finish()
    worker.finish()
    s.main.run(BACKFILL)
    return s.damage("x", "other")


def r27_collector_in_flight(s: Stage) -> list[str]:
    """An entity is planned and gets rows while a collector has begun but not yet looked."""
    s.patch(
        "_collect_pending",
        (
            "    EXECUTE format($sql$",
            "    PERFORM race.pause('collect');\n    EXECUTE format($sql$",
        ),
    )
    s.insert("other", "a", A, 1)
    s.migrate("other")
    s.insert("x", "a", A, 1)
    worker = s.session("worker")
    with s.held("worker", "collect"):
        worker.start(SYNC)
        s.stopped(worker)
        s.start_sync("x")
        s.insert("x", "a", FAR, 1)
    worker.finish()
    s.main.run(BACKFILL)
    return s.damage("x", "other")


def r27_new_channel(s: Stage) -> list[str]:
    """A channel nobody has seen, met by the worker; and one met by a chunk."""
    s.insert("x", "a", A, 1)
    s.insert("y", "a", A, 1)
    s.migrate("x")
    s.start_sync("y")
    s.deal("y")
    s.insert("x", "new", A, 1)
    s.insert("y", "new", A, 1)
    s.main.run("CALL pymig.backfill('y')")
    return s.damage("x", "y")


def r28_head_of_line(s: Stage) -> list[str]:
    """Parked keys of a planned entity and many buckets stand before one fresh key."""
    s.insert("x", "a", A, 1)
    s.migrate("x")
    s.main.run(
        f"INSERT INTO {TABLE} (ship_id, data_channel_id, created_time, long_v, value_format)"
        " SELECT 'parked', 'a', %s::timestamp + i * interval '1 hour', 1, 'Integer'"
        " FROM generate_series(1, 400) AS i",
        A,
    )
    s.main.run("UPDATE pymig.entity SET state = 'planned' WHERE entity = 'parked'")
    s.main.run(
        f"INSERT INTO pymig.entity (source, entity, state) VALUES ('{SOURCE}', 'parked',"
        " 'planned') ON CONFLICT DO NOTHING"
    )
    s.main.run(COLLECT)
    s.update("x", "a", A, 2)
    s.main.run(SYNC)
    row = s.wide("x")[0]
    return [] if row[1] == "2" else [f"a fresh key waits behind parked ones: {row}"]


def r29_verify_snapshot(s: Stage) -> list[str]:
    """Writers and a worker commit before verify's statement, and while it runs."""
    run = "    RETURN QUERY EXECUTE"
    s.patch("_compare_buckets", (run, f"    PERFORM race.pause('before');\n{run}"))
    s.patch(
        "_verify_sql",
        (
            "        SELECT t.filled::bigint AS",
            "        SELECT t.filled::bigint + CASE WHEN race.pause('inside') THEN 0 END AS",
        ),
    )
    for at in (A, B):
        s.insert("x", "a", at, 1)
    s.migrate("x")
    alarms = []
    # In runs of buckets, then one by one.
    for number, point in enumerate(("before", "inside", "before") * 2, 2):
        if number == 5:
            s.main.run("CALL pymig.set_chunk_target('1 ms')")
        verifier = s.session("verifier")
        with s.held("verifier", point):
            verifier.start("CALL pymig.verify('x')")
            s.stopped(verifier)
            s.update("x", "a", A, number)
            if point == "before":  # a new column would wait for the verifier
                s.insert("x", f"c{number}", B, 1)
            s.main.run(f"UPDATE {TABLE} SET value_format = 'odd' WHERE data_channel_id = 'c2'")
            if number not in (2, 5):
                s.main.run(SYNC if point == "inside" else COLLECT)
        try:
            verifier.finish()
        except psycopg.Error as error:
            alarms.append(f"false alarm ({point}): {error}")
        s.drain()
    return alarms + s.damage("x")


def r30_session_defaults(s: Stage) -> list[str]:
    """A database whose defaults are all unlike what a routine would like."""
    for name, value in {
        "default_transaction_isolation": "serializable",
        "search_path": "tenant, public",
        "lock_timeout": "7s",
        "extra_float_digits": "0",
        "bytea_output": "escape",
        "enable_seqscan": "off",
        "plan_cache_mode": "force_generic_plan",
        "default_transaction_deferrable": "on",
        "IntervalStyle": "sql_standard",
    }.items():
        s.main.run(f"ALTER DATABASE {s.db.name} SET {name} = '{value}'")
    s.main.run(
        "CREATE FUNCTION tenant.hashtextextended(text, int) RETURNS int8 LANGUAGE sql AS 'SELECT 1'"
    )
    for at in (A, B):
        s.insert("x", "a", at, 1)
    mover, worker, writer = s.session("mover"), s.session("worker"), s.session("writer")
    mover.run("CALL pymig.start_sync('x', p_strategy => 'json')")
    s.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    with s.held("mover", "reading"):
        mover.start(BACKFILL)
        s.stopped(mover)
        s.delete("x", "a", A, writer)
        s.update("x", "a", B, 2, writer)
        worker.run(SYNC)
    mover.finish()
    with s.held("worker", "reading"):
        s.update("x", "a", B, 3, writer)
        worker.start(SYNC)
        s.stopped(worker)
        s.update("x", "a", B, 4, writer)
    worker.finish()
    worker.run(SYNC)
    mover.run("CALL pymig.verify('x')")
    return s.damage("x")


def truncate(s: Stage) -> list[str]:
    """TRUNCATE comes while a chunk is in flight, with rows again in the same transaction."""
    for at in (A, B, FAR):
        s.insert("x", "a", at, 1)
        s.insert("y", "a", at, 1)
    s.migrate("y")
    s.start_sync("x")
    s.deal("x")
    s.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    chunk, writer, worker = s.session("chunk"), s.session("writer"), s.session("worker")
    writer.begin()
    with s.held("chunk", "reading"):
        chunk.start(CHUNK)
        s.stopped(chunk)
        writer.start(f"TRUNCATE {TABLE}")
        s.stopped(writer)  # behind the chunk
    chunk.finish()
    writer.finish()
    s.insert("x", "a", B, 2, writer)
    worker.start(SYNC)
    s.stopped_or_done(worker)
    writer.run("COMMIT")
    worker.finish()
    s.main.run(BACKFILL)
    return s.damage("x", "y")


def finish_by_many(s: Stage) -> list[str]:
    """Sessions that find no chunk while another deals, moves or halves the last ones."""
    for at in (A, FAR):
        s.insert("x", "a", at, 1)
    s.start_sync("x")
    one, two = s.session("one"), s.session("two")
    s.point("pymig.chunk", "AFTER INSERT", "dealt")
    said = []
    with s.held("one", "dealt"):
        one.start(CHUNK)
        s.stopped(one)
        two.start(CHUNK)
        s.stopped(two)  # behind the one who deals
    one.finish()
    two.finish()
    s.point(f"{WIDE}x", "BEFORE INSERT", "reading")
    with s.held("one", "reading"):
        one.start(CHUNK)
        s.stopped(one)
        said += [s.main.value(CHUNK) for _ in range(3)]
    one.finish()
    if "done" in said:
        return [f"done while a chunk is in flight: {said}"]
    s.main.run(BACKFILL)
    return s.damage("x")


def adopted(s: Stage) -> list[str]:
    """A new entity is adopted by two workers at once, while it goes on sending."""
    s.insert("x", "a", A, 1)
    s.migrate("x")
    s.insert("new", "a", A, 1)
    s.point("pymig.entity", "BEFORE UPDATE OF first_bucket", "bounded")
    one, two = s.session("one"), s.session("two")
    with s.held("one", "bounded"):
        one.start(SYNC)
        s.stopped(one)
        s.insert("new", "b", FAR, 1)
        two.start(SYNC)
        s.stopped(two)
    one.finish()
    two.finish()
    s.drain()
    damage = s.damage("x", "new")
    if s.main.value("SELECT state FROM pymig.entity WHERE entity = 'new'") != "backfilled":
        damage.append("the new entity is not migrated")
    return damage


def new_part_under_reader(s: Stage) -> list[str]:
    """A second part appears between two recomputes, a reader being on the view of the first."""
    s.insert("x", "a", A, 1)
    s.migrate("x")
    s.patch(
        "_deal_types",
        ("v_columns + 2 > 1600", "p_is_appended AND v_part = 1"),
    )
    reader: Session = s.session("reader")
    reader.begin()
    reader.run(f"SELECT * FROM {WIDE}x")
    s.insert("x", "b", A, 1)
    s.insert("x", "a", B, 1)
    s.main.run(SYNC)  # gives way to the reader
    reader.run("COMMIT")
    s.drain()
    s.update("x", "b", A, 2)
    s.delete("x", "a", B)
    damage = s.damage("x")
    s.main.run("CALL pymig.verify('x')")
    if len(s.main.run("SELECT 1 FROM pymig.part")) != 2:
        damage.append("no second part")
    return damage
