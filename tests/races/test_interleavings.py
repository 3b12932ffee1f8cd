"""T2: every race acted out step by step; pymig must come out unharmed."""

from __future__ import annotations

import pytest

from tests.conftest import Database
from tests.races import scenarios
from tests.races.interleave import Stage


@pytest.fixture
def stage(db: Database) -> Stage:
    """The default source on a fresh database."""
    return Stage(db)


def test_r01_delete_resurrection(stage: Stage) -> None:
    """A row the chunk has read is deleted before the chunk writes."""
    assert scenarios.r01_delete_resurrection(stage) == []


def test_r02_stale_overwrite(stage: Stage) -> None:
    """A row the chunk has read gets a new value before the chunk writes."""
    assert scenarios.r02_stale_overwrite(stage) == []


def test_r03_refill(stage: Stage) -> None:
    """A cell becomes NULL: while a chunk holds its old value, and again when all is moved."""
    assert scenarios.r03_refill(stage) == []


def test_r04_isolation(stage: Stage) -> None:
    """Writers whose snapshots are older than the arming and than the chunk's rows."""
    assert scenarios.r04_isolation(stage) == []


def test_r05_arming(stage: Stage) -> None:
    """A writer is in flight when the source is armed, and commits when history is moved."""
    assert scenarios.r05_arming(stage) == []


def test_r06_one_wide_row(stage: Stage) -> None:
    """Two writers meet in two wide rows in opposite order, all of pymig's locks being held."""
    assert scenarios.r06_one_wide_row(stage) == []


def test_r07_key_change(stage: Stage) -> None:
    """Updates of time (within a bucket and beyond), channel and entity."""
    assert scenarios.r07_key_change(stage) == []


def test_r08_duplicates(db: Database) -> None:
    """Without a unique key: the highest tie-break wins in every strategy and in the worker."""
    assert scenarios.r08_duplicates(Stage(db, unique=False)) == []


def test_r09_type_drift(stage: Stage) -> None:
    """Channels change their format under native columns: ingest goes on, so do other channels."""
    assert scenarios.r09_type_drift(stage) == []


def test_r10_ddl_in_write_path(stage: Stage) -> None:
    """Two writers bring new channels in opposite order, a reader being on the wide tables."""
    assert scenarios.r10_ddl_in_write_path(stage) == []


def test_r11_replica_role(stage: Stage) -> None:
    """Writers with session_replication_role = replica, for which ordinary triggers don't fire."""
    assert scenarios.r11_replica_role(stage) == []


def test_r11_triggers_disabled(stage: Stage) -> None:
    """A restore disables triggers, loads, and enables them again, not as they were."""
    assert scenarios.r11_triggers_disabled(stage) == []


def test_r12_checkpoint(stage: Stage) -> None:
    """The session that moves a chunk dies before its rows, and after them."""
    assert scenarios.r12_checkpoint(stage) == []


def test_r13_retry(stage: Stage) -> None:
    """A chunk fails half-way, is halved, tried, reported as failed, and completed later."""
    assert scenarios.r13_retry(stage) == []


def test_r14_two_encodings(stage: Stage) -> None:
    """All strategies and the worker write the same bits."""
    assert scenarios.r14_two_encodings(stage) == []


def test_r15_no_end(stage: Stage) -> None:
    """A writer adds a bucket for every step of the backfill."""
    assert scenarios.r15_no_end(stage) == []


def test_r16_queue_order(stage: Stage) -> None:
    """Keys commit in another order than they were written, and twice."""
    assert scenarios.r16_queue_order(stage) == []


def test_r16_crash_between(stage: Stage) -> None:
    """The worker dies while it collects, after its claim, and after its rows."""
    assert scenarios.r16_crash_between(stage) == []


def test_r17_advisory_locks(stage: Stage) -> None:
    """A worker waits for the exclusive entity lock: ingest and other workers go on."""
    assert scenarios.r17_advisory_locks(stage) == []


def test_r18_lock_table(stage: Stage) -> None:
    """Hundreds of buckets are moved, drained and written: locks of a transaction stay few."""
    assert scenarios.r18_lock_table(stage) == []


def test_r19_subtransactions(stage: Stage) -> None:
    """Subtransactions stay fewer than 64: of ingest, and of a bucket with one bad key of 300."""
    assert scenarios.r19_subtransactions(stage) == []


def test_r20_own_snapshot(stage: Stage) -> None:
    """Each chunk, and each bucket of the worker and of verify, has its own transaction."""
    assert scenarios.r20_own_snapshot(stage) == []


def test_r21_every_writer(stage: Stage) -> None:
    """Every style of writing there is, the worker passing after each."""
    assert scenarios.r21_every_writer(stage) == []


def test_r22_lock_then_read(stage: Stage) -> None:
    """A chunk waits for a bucket while its holder claims, recomputes and deletes a row."""
    assert scenarios.r22_lock_then_read(stage) == []


def test_r30_chunk_at_repeatable_read(stage: Stage) -> None:
    """A chunk in a session that freezes snapshots is refused."""
    assert scenarios.r22_lock_then_read(stage, "repeatable read") == []


def test_r22_claim_then_read(stage: Stage) -> None:
    """A key comes again while the worker that claimed it has already read."""
    assert scenarios.r22_claim_then_read(stage) == []


def test_r23_two_recomputers(stage: Stage) -> None:
    """Two workers have keys of one bucket; the second one's read is the newer."""
    assert scenarios.r23_two_recomputers(stage) == []


def test_r24_poison(stage: Stage) -> None:
    """One bucket can't be recomputed: the others are, in the same pass, and it in the end."""
    assert scenarios.r24_poison(stage) == []


def test_r25_row_security(stage: Stage) -> None:
    """Row-level security hides a row from pymig: an error, never a NULL."""
    assert scenarios.r25_row_security(stage) == []


def test_r26_extreme_times(stage: Stage) -> None:
    """Infinities, the ends of the type, BC: as history and as news."""
    assert scenarios.r26_extreme_times(stage) == []


def test_r27_planning(stage: Stage) -> None:
    """Rows beyond the bounds and a new channel come between planning and the first wide row."""
    assert scenarios.r27_planning(stage) == []


def test_r27_collector_in_flight(stage: Stage) -> None:
    """An entity is planned and gets rows while a collector has begun but not yet looked."""
    assert scenarios.r27_collector_in_flight(stage) == []


def test_r27_new_channel(stage: Stage) -> None:
    """A channel nobody has seen, met by the worker; and one met by a chunk."""
    assert scenarios.r27_new_channel(stage) == []


def test_r28_head_of_line(stage: Stage) -> None:
    """Parked keys of a planned entity and many buckets stand before one fresh key."""
    assert scenarios.r28_head_of_line(stage) == []


def test_r29_verify_snapshot(stage: Stage) -> None:
    """Writers and a worker commit before verify's statement, and while it runs."""
    assert scenarios.r29_verify_snapshot(stage) == []


def test_r30_session_defaults(stage: Stage) -> None:
    """A database whose defaults are all unlike what a routine would like."""
    assert scenarios.r30_session_defaults(stage) == []


def test_truncate(stage: Stage) -> None:
    """TRUNCATE comes while a chunk is in flight, with rows again in the same transaction."""
    assert scenarios.truncate(stage) == []


def test_finish_by_many(stage: Stage) -> None:
    """Sessions that find no chunk while another deals, moves or halves the last ones."""
    assert scenarios.finish_by_many(stage) == []


def test_adopted(db: Database) -> None:
    """A new entity is adopted by two workers at once, while it goes on sending."""
    assert scenarios.adopted(Stage(db, policy="auto")) == []


def test_new_part_under_reader(stage: Stage) -> None:
    """A second part appears between two recomputes, a reader being on the view of the first."""
    assert scenarios.new_part_under_reader(stage) == []
