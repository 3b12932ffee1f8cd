"""T3: take one protection away, act out the race that needs it: the damage must be seen.

A mutation changes routines of the test's own database by text; a text that isn't there any more
is an error, so that a mutation never silently mutates nothing.
"""

# ruff: noqa: E501  (texts of SQL, to be found as they stand)

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.conftest import Database
from tests.races import scenarios
from tests.races.interleave import SOURCE, Stage, damage_without

RC = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"
PLAN = "PERFORM pymig._plan_entity(v_source, v_entity, p_column_types, p_strategy, p_allow_scan);"
IN_SYNC = """EXISTS (SELECT FROM pymig.entity AS e
                        WHERE e.source = %3$L AND e.entity = c.entity AND e.state NOT IN ('known', 'rolled_back'))"""
MARK_CHUNK = """
        DECLARE v_marked pymig.chunk;
        BEGIN
            UPDATE pymig.chunk AS c SET state = 'done'
            WHERE c.chunk = (SELECT min(c.chunk) FROM pymig.chunk AS c WHERE c.entity = v_entity AND c.state = 'planned')
            RETURNING c.* INTO v_marked;
            COMMIT;
            IF v_marked.chunk IS NOT NULL THEN
                PERFORM pymig._recompute(pymig._source(v_source), v_entity, 'json', v_marked.first_bucket, v_marked.last_bucket, NULL);
                COMMIT;
                CONTINUE;
            END IF;
        END;
        v_step := pymig.backfill_chunk("""


def _claim_skips_locked(s: Stage) -> None:
    """Else a worker that claims waits for the claim of another: a second lock in effect."""
    s.patch(
        "_recompute_todo",
        (
            "RETURNING d.times, d.attempts, d.recorded_at)",
            f"AND d.ctid IN (SELECT t.ctid FROM pymig.{SOURCE}_todo AS t"
            " WHERE t.entity = $1 AND t.bucket = ANY ($2) FOR UPDATE SKIP LOCKED)"
            " RETURNING d.times, d.attempts, d.recorded_at)",
        ),
    )


def no_mutual_exclusion(s: Stage) -> None:
    """Recomputers take no bucket lock."""
    s.patch("_lock_buckets", ("pg_advisory_xact_lock(", "abs("))
    s.patch("_recompute_todo", ("NOT pg_try_advisory_xact_lock(", "0 > abs("))
    _claim_skips_locked(s)


def lock_across_commit(s: Stage) -> None:
    """The worker's transaction lock is taken before a COMMIT, and gone after it."""
    s.patch("_recompute_todo", ("NOT pg_try_advisory_xact_lock(", "0 > abs("))
    _claim_skips_locked(s)
    s.patch(
        "_drain_run",
        (
            "    BEGIN\n        PERFORM",
            f"""
    PERFORM pymig._lock_buckets(p_source.source, p_entity, p_buckets[1], p_buckets[1]);
    COMMIT;
    {RC}
    BEGIN
        PERFORM""",
        ),
    )


def read_before_claim(s: Stage) -> None:
    """The worker reads, then claims all keys there are."""
    s.patch(
        "_recompute_todo",
        (
            "(DELETE FROM pymig.%I AS d",
            "(SELECT d.times, d.attempts, d.recorded_at FROM pymig.%I AS d",
        ),
        ("RETURNING d.times, d.attempts, d.recorded_at)", ")"),
        (
            "    UPDATE pymig.entity AS e SET last_error = NULL",
            "    EXECUTE format('DELETE FROM pymig.%I AS d WHERE d.entity = $1 AND d.bucket = ANY ($2)',"
            " p_source.source || '_todo') USING p_entity, p_buckets;\n"
            "    UPDATE pymig.entity AS e SET last_error = NULL",
        ),
    )


def unique_pending(s: Stage) -> None:
    """A key that is pending is not recorded again."""
    s.main.run(f"CREATE UNIQUE INDEX ON pymig.{SOURCE}_pending_1 (entity, time)")
    for event, last in (
        ("insert", "new_rows AS n"),
        ("update", "old_rows AS o"),
        ("delete", "old_rows AS o"),
    ):
        s.patch(
            f"{SOURCE}_record_{event}",
            (f"{last};", f"{last} ON CONFLICT DO NOTHING;"),
            *(
                [("OFFSET 1);", "OFFSET 1) ON CONFLICT DO NOTHING;")]
                if event == "update"
                else [("LIMIT 2;", "LIMIT 2 ON CONFLICT DO NOTHING;")]
            ),
        )


def blind_upsert(s: Stage) -> None:
    """Rows are merged into wide by COALESCE instead of replaced."""
    s.patch("_recompute", ("EXECUTE format('DELETE FROM", "PERFORM format('DELETE FROM"))
    s.patch(
        "_insert_part_sql",
        (
            "'INSERT INTO %I.%I (%I, %s) %s RETURNING 1'",
            "'INSERT INTO %I.%I AS w (%I, %s) %s ON CONFLICT (%3$I) DO UPDATE SET %6$s RETURNING 1'",
        ),
        (
            "        p_query)",
            """        p_query, (
            SELECT string_agg(format('%1$I = coalesce(excluded.%1$I, w.%1$I)', c.wide_column), ', ')
            FROM pymig.channel AS c WHERE c.source = p.source AND c.entity = p.entity AND c.part = p.part))""",
        ),
    )


def repeatable_read_allowed(s: Stage) -> None:
    """A chunk may run in a session whose snapshot is frozen."""
    s.patch(
        "_require_read_committed",
        ("IF current_setting('transaction_isolation') <> 'read committed' THEN", "IF false THEN"),
    )


def planned_in_one_transaction(s: Stage) -> None:
    """Entity row, bounds and channels commit together."""
    s.patch(
        "start_sync",
        (PLAN, ""),
        ("    PERFORM pymig._create_entity(", f"    {PLAN}\n    PERFORM pymig._create_entity("),
    )


def remembered_entities(s: Stage) -> None:
    """The collector discards by a list it read before."""
    s.patch(
        "_collect_pending",
        ("    v_keys bigint;", "    v_keys bigint;\n    v_list text[];"),
        (
            "    IF NOT pg_try_advisory_xact_lock",
            """
    v_list := ARRAY(SELECT e.entity FROM pymig.entity AS e WHERE e.state NOT IN ('known', 'rolled_back'));
    IF NOT pg_try_advisory_xact_lock""",
        ),
        (IN_SYNC, "c.entity = ANY (%8$L)"),
        (
            "p_source.source || '_pending_1')\n",
            "p_source.source || '_pending_1', v_list)\n",
        ),
    )


def upsert_without_lock(s: Stage) -> None:
    """Recomputers take no lock, and who comes last overwrites instead of colliding."""
    no_mutual_exclusion(s)
    blind_upsert(s)


def failed_chunk_skipped(s: Stage) -> None:
    """A chunk that failed for good counts as done."""
    s.patch("_chunk_failed", ("'failed'", "'done'"))


def unknown_channel_skipped(s: Stage) -> None:
    """A channel without a column is passed over."""
    s.patch("_recompute", ("IF v_unknown IS NOT NULL THEN", "IF false THEN"))


def row_security_on(s: Stage) -> None:
    """Policies of the narrow table apply silently."""
    for routine in ("_recompute", "_recompute_todo"):
        s.patch(routine, ("\n SET row_security TO 'off'", ""))


def chunk_state_commits_first(s: Stage) -> None:
    """A chunk is marked done in a transaction before the one that moves it."""
    s.patch("backfill", ("v_step := pymig.backfill_chunk(", MARK_CHUNK))


def arming_does_not_wait(s: Stage) -> None:
    """Writers in flight are not waited for; the triggers come when they may."""
    s.patch("_arm", ("IN SHARE ROW EXCLUSIVE MODE'", "IN SHARE ROW EXCLUSIVE MODE NOWAIT'"))
    s.patch("_arm_source", ("v_attempt := v_attempt + 1;", "v_done := true;"))
    s.patch(
        "_create_entity",
        ("IF pymig._trigger_state(p_source.narrow) <> 'armed' THEN", "IF false THEN"),
    )


def truncate_ignored(s: Stage) -> None:
    """The marker of TRUNCATE is thrown away."""
    s.patch("_collect_pending", ("IF v_truncates IS NOT NULL THEN", "IF false THEN"))


def any_duplicate_wins(s: Stage) -> None:
    """Nothing chooses between rows of one cell."""
    s.patch("_winner_sql", ("THEN format('DISTINCT ON (%s)', p_key) ELSE", "THEN '' ELSE"))


def last_tie_break_wins(s: Stage) -> None:
    """The worker and the chunk agree, but on the wrong row."""
    s.patch("_winner_sql", ("DESC NULLS LAST", "ASC NULLS LAST"))


def old_keys_forgotten(s: Stage) -> None:
    """UPDATE records only where a row went, not whence it came."""
    s.patch(
        f"{SOURCE}_record_update",
        (" UNION SELECT o.ship_id, o.created_time FROM old_rows AS o", ""),
    )


def state_looked_up_by_trigger(s: Stage) -> None:
    """The trigger records only what its own snapshot knows to be migrated."""
    for event, row in (("insert", "n"), ("delete", "o")):
        known = "WHERE EXISTS (SELECT FROM pymig.entity AS e WHERE e.entity = {}.ship_id AND e.wide_table IS NOT NULL)"
        s.patch(
            f"{SOURCE}_record_{event}",
            (f"_rows AS {row};", f"_rows AS {row} {known.format(row)};"),
            (f"_rows AS {row} LIMIT", f"_rows AS {row} {known.format(row)} LIMIT"),
        )


def ingest_takes_the_lock(s: Stage) -> None:
    """The trigger shares a lock with the recomputers."""
    s.patch(
        f"{SOURCE}_record_insert",
        (
            "BEGIN",
            f"BEGIN PERFORM pymig._lock_entity('{SOURCE}', (SELECT min(n.ship_id) FROM new_rows AS n), false);",
        ),
    )


def two_encodings(s: Stage) -> None:
    """Three strategies make cells their own way."""
    s.patch("_value_sql", ("format('%s.as_%s', p_alias", "format('upper(%s.as_%s)', p_alias"))


def bound_not_frozen(s: Stage) -> None:
    """The backfill goes on as long as rows come."""
    s.patch(
        "_deal_chunks",
        ("OR v_first > v_entity.last_bucket", ""),
        (
            "least(v_first::numeric + v_size - 1, v_entity.last_bucket)::bigint",
            "v_first + v_size - 1",
        ),
        ("CASE WHEN v_last < v_entity.last_bucket THEN v_last + 1 END", "v_last + 1"),
    )


def entity_lock_waited_for(s: Stage) -> None:
    """The worker waits for an entity instead of leaving it for the next pass."""
    s.patch(
        "_recompute_todo",
        (
            "IF NOT pg_try_advisory_xact_lock_shared(",
            "PERFORM pg_advisory_xact_lock_shared(hashtextextended(format('pymig entity %L %L', p_source.source, p_entity), 0)); IF NOT pg_try_advisory_xact_lock_shared(",
        ),
    )
    s.patch("_drain_run", ("'10s'", "'0'"))


def poison_ends_the_pass(s: Stage) -> None:
    """An error of one bucket is everybody's."""
    s.patch("_drain_run", ("PERFORM pymig._todo_failed(", "RAISE; PERFORM pymig._todo_failed("))


def first_keys_only(s: Stage) -> None:
    """A pass looks at the first keys of the queue, parked or not."""
    s.patch(
        "_due_todo",
        (" AND e.wide_table IS NOT NULL", ""),
        (
            "FROM due AS d JOIN",
            "FROM (SELECT d.* FROM due AS d ORDER BY d.entity LIMIT 50) AS d JOIN",
        ),
    )


def verify_in_two_statements(s: Stage) -> None:
    """Pending keys are read before the two sides are compared."""
    statement = "pymig._verify_sql(p_source, p_entity, p_first_bucket, p_last_bucket)"
    s.patch(
        "_compare_buckets",
        (
            "BEGIN\n",
            f"""BEGIN
    DROP TABLE IF EXISTS pg_temp.seen, pg_temp.seen_todo;
    CREATE TEMP TABLE seen AS SELECT * FROM pymig.{SOURCE}_pending;
    CREATE TEMP TABLE seen_todo AS SELECT * FROM pymig.{SOURCE}_todo;
""",
        ),
        (
            statement,
            f"""replace(replace({statement},
        'pymig.{SOURCE}_pending', 'pg_temp.seen'), 'pymig.{SOURCE}_todo', 'pg_temp.seen_todo')""",
        ),
    )


def cast_in_the_trigger(s: Stage) -> None:
    """The trigger looks at values."""
    s.patch(
        f"{SOURCE}_record_insert",
        (
            "BEGIN",
            "BEGIN PERFORM n.str_v::float8 FROM new_rows AS n WHERE n.str_v IS NOT NULL;",
        ),
    )


def bucket_in_the_trigger(s: Stage) -> None:
    """The trigger computes buckets, in a type that is too small for all of them."""
    s.patch(
        f"{SOURCE}_record_insert",
        (
            "BEGIN",
            "BEGIN PERFORM extract(epoch FROM n.created_time)::int4 FROM new_rows AS n;",
        ),
    )


def columns_by_the_trigger(s: Stage) -> None:
    """The trigger adds what column a new channel lacks."""
    s.patch(
        f"{SOURCE}_record_insert",
        (
            "BEGIN",
            """
        DECLARE v_new record;
        BEGIN
            FOR v_new IN SELECT DISTINCT e.wide_table, n.data_channel_id AS channel FROM new_rows AS n JOIN pymig.entity AS e ON e.entity = n.ship_id
                WHERE e.wide_table IS NOT NULL AND n.data_channel_id NOT IN (SELECT c.channel FROM pymig.channel AS c WHERE c.entity = n.ship_id)
            LOOP
                EXECUTE format('ALTER TABLE tenant.%I ADD COLUMN IF NOT EXISTS %I text', v_new.wide_table, v_new.channel);
            END LOOP;""",
        ),
    )


def triggers_only_at_origin(s: Stage) -> None:
    """Ordinary triggers, and nobody calls that drifted."""
    s.patch("_arm", ("ENABLE ALWAYS", "ENABLE"))
    s.patch("_has_triggers", ("ELSE 'A' END", "ELSE 'O' END"))


def drift_ignored(s: Stage) -> None:
    """Triggers that are there are taken for armed."""
    s.patch("_trigger_state", ("ELSE 'drifted'", "ELSE 'armed'"))


def locks_without_end(s: Stage) -> None:
    """A chunk may have as many buckets as it takes."""
    s.patch("_chunk_buckets", ("least(64,", "least(6400,"))


def exception_block_in_trigger(s: Stage) -> None:
    """The trigger shields ingest from itself."""
    s.patch(
        f"{SOURCE}_record_insert",
        ("BEGIN", "BEGIN BEGIN"),
        (
            "    RETURN NULL;\n        END",
            "    EXCEPTION WHEN OTHERS THEN NULL; END; RETURN NULL;\n        END",
        ),
    )


def singly_without_end(s: Stage) -> None:
    """Keys that failed together are tried one by one, all in one transaction."""
    s.patch("_recompute_singly", ("int := 60;", "int := 60000;"))


def no_commit_in(*routines: str) -> Callable[[Stage], None]:
    """Procedures that keep one transaction."""

    def one_transaction(s: Stage) -> None:
        for routine in routines:
            s.patch(routine, (f"COMMIT;\n    {RC}", ""))

    one_transaction.__name__ = f"no_commit_in_{routines[0]}"
    return one_transaction


def first_level_only(s: Stage) -> None:
    """What a trigger of the application changes is not recorded."""
    for event in ("insert", "update", "delete"):
        s.patch(
            f"{SOURCE}_record_{event}",
            ("BEGIN", "BEGIN IF pg_trigger_depth() > 1 THEN RETURN NULL; END IF;"),
        )


def deletes_unrecorded(s: Stage) -> None:
    """Nobody notes what goes."""
    s.patch(f"{SOURCE}_record_delete", ("BEGIN", "BEGIN RETURN NULL;"))


class Mutation(NamedTuple):
    """What is taken away, and the race that shows it."""

    mutate: Callable[[Stage], None]
    scenario: Callable[[Stage], list[str]]
    unique: bool = True


def at_repeatable_read(s: Stage) -> list[str]:
    """The chunk of R22 at REPEATABLE READ; being let through is not the damage that counts."""
    return [
        line for line in scenarios.r22_lock_then_read(s, "repeatable read") if "ran at" not in line
    ]


MUTATIONS = [
    Mutation(no_mutual_exclusion, scenarios.r01_delete_resurrection),
    Mutation(no_mutual_exclusion, scenarios.r23_two_recomputers),
    Mutation(lock_across_commit, scenarios.r23_two_recomputers),
    Mutation(read_before_claim, scenarios.r22_claim_then_read),
    Mutation(unique_pending, scenarios.r16_queue_order),
    Mutation(blind_upsert, scenarios.r01_delete_resurrection),
    Mutation(blind_upsert, scenarios.r03_refill),
    Mutation(repeatable_read_allowed, at_repeatable_read),
    Mutation(planned_in_one_transaction, scenarios.r27_planning),
    Mutation(remembered_entities, scenarios.r27_collector_in_flight),
    Mutation(unknown_channel_skipped, scenarios.r27_new_channel),
    Mutation(row_security_on, scenarios.r25_row_security),
    Mutation(chunk_state_commits_first, scenarios.r12_checkpoint),
    Mutation(arming_does_not_wait, scenarios.r05_arming),
    Mutation(truncate_ignored, scenarios.truncate),
    Mutation(any_duplicate_wins, scenarios.r08_duplicates, unique=False),
    Mutation(last_tie_break_wins, scenarios.r08_duplicates, unique=False),
    Mutation(old_keys_forgotten, scenarios.r07_key_change),
    Mutation(state_looked_up_by_trigger, scenarios.r04_isolation),
    Mutation(ingest_takes_the_lock, scenarios.r06_one_wide_row),
    Mutation(upsert_without_lock, scenarios.r02_stale_overwrite),
    Mutation(failed_chunk_skipped, scenarios.r13_retry),
    Mutation(bucket_in_the_trigger, scenarios.r26_extreme_times),
    Mutation(cast_in_the_trigger, scenarios.r09_type_drift),
    Mutation(columns_by_the_trigger, scenarios.r10_ddl_in_write_path),
    Mutation(triggers_only_at_origin, scenarios.r11_replica_role),
    Mutation(truncate_ignored, scenarios.r11_replica_role),
    Mutation(drift_ignored, scenarios.r11_triggers_disabled),
    Mutation(locks_without_end, scenarios.r18_lock_table),
    Mutation(exception_block_in_trigger, scenarios.r19_subtransactions),
    Mutation(singly_without_end, scenarios.r19_subtransactions),
    Mutation(no_commit_in("backfill"), scenarios.r20_own_snapshot),
    Mutation(no_commit_in("sync_pending", "_drain_run"), scenarios.r20_own_snapshot),
    Mutation(no_commit_in("verify"), scenarios.r20_own_snapshot),
    Mutation(first_level_only, scenarios.r21_every_writer),
    Mutation(deletes_unrecorded, scenarios.r21_every_writer),
    Mutation(two_encodings, scenarios.r14_two_encodings),
    Mutation(bound_not_frozen, scenarios.r15_no_end),
    Mutation(entity_lock_waited_for, scenarios.r17_advisory_locks),
    Mutation(poison_ends_the_pass, scenarios.r24_poison),
    Mutation(first_keys_only, scenarios.r28_head_of_line),
    Mutation(verify_in_two_statements, scenarios.r29_verify_snapshot),
]


@pytest.mark.parametrize(
    "mutation", MUTATIONS, ids=lambda m: f"{m.mutate.__name__}-{m.scenario.__name__}"
)
def test_mutation_is_seen(db: Database, mutation: Mutation) -> None:
    """The race test of this protection goes red without it."""
    stage = Stage(db, unique=mutation.unique)
    assert damage_without(stage, mutation.mutate, mutation.scenario)
