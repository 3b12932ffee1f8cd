-- The catalog of pymig. Run once by revision 0001; routines and views come after it, from frozen/0001.

CREATE TABLE pymig.source (
    source text PRIMARY KEY CHECK (source ~ '^[a-z_][a-z0-9_]{0,39}$'),
    narrow regclass NOT NULL UNIQUE,
    entity_column text NOT NULL,
    channel_column text NOT NULL,
    time_column text NOT NULL,
    time_type text NOT NULL,
    time_unit text CHECK (time_unit IN ('s', 'ms', 'us')),
    value_columns text[] NOT NULL CHECK (cardinality(value_columns) > 0),
    format_column text,
    formats jsonb,
    tie_break text[] NOT NULL DEFAULT '{}',
    grain_ticks bigint CHECK (grain_ticks > 0),
    bucket_ticks bigint NOT NULL CHECK (bucket_ticks > 0),
    reads_by_key boolean NOT NULL,
    reads_by_time boolean NOT NULL,
    is_unique boolean NOT NULL,
    wide_schema text NOT NULL,
    wide_name text NOT NULL,
    column_types text NOT NULL DEFAULT 'text' CHECK (column_types IN ('text', 'native')),
    new_entities text NOT NULL DEFAULT 'ask' CHECK (new_entities IN ('ask', 'auto')),
    rotate_above bigint NOT NULL DEFAULT 8388608 CHECK (rotate_above > 0),
    queue_limit bigint DEFAULT 1073741824 CHECK (queue_limit > rotate_above),
    queue_tablespace text,
    lost_seen bigint NOT NULL DEFAULT 0,
    lost_xid xid8,
    lost_handled bigint NOT NULL DEFAULT 0,
    retention text NOT NULL DEFAULT 'drop' CHECK (retention IN ('drop', 'keep')),
    dictionary regclass,
    dictionary_key text,
    dictionary_name text,
    registered_at timestamptz NOT NULL DEFAULT now(),
    registered_by text NOT NULL DEFAULT session_user,
    type_drift text NOT NULL DEFAULT 'quarantine' CHECK (type_drift IN ('quarantine', 'promote')),
    verify_budget real NOT NULL DEFAULT 0.05 CHECK (verify_budget BETWEEN 0 AND 1),
    verify_after timestamptz,
    certificate_age interval CHECK (certificate_age > interval '0'),
    compat_view text,
    archive_table text,
    wide_partitions text NOT NULL DEFAULT 'none' CHECK (wide_partitions IN ('none', 'month')),
    paused_at timestamptz,
    paused_by text,
    paused_for text,
    is_cancelled boolean NOT NULL DEFAULT false,
    workers int CHECK (workers BETWEEN 1 AND 64),
    chunk_target interval NOT NULL DEFAULT '1 second' CHECK (chunk_target > interval '0'),
    keep_wide interval CHECK (keep_wide > interval '0'),
    CHECK (keep_wide IS NULL OR wide_partitions = 'month')
);
COMMENT ON TABLE pymig.source IS 'A registered narrow table and how to read it. Written by register_source and the set_ procedures; the lost_ columns by the worker.';
COMMENT ON COLUMN pymig.source.source IS 'Short name; also the prefix of the objects generated for it in schema pymig.';
COMMENT ON COLUMN pymig.source.narrow IS 'The narrow table. pymig never alters its columns or rows.';
COMMENT ON COLUMN pymig.source.entity_column IS 'Column whose value says which wide table a row belongs to.';
COMMENT ON COLUMN pymig.source.channel_column IS 'Column whose value says which wide column a row belongs to.';
COMMENT ON COLUMN pymig.source.time_column IS 'Column that becomes the primary key of the wide tables.';
COMMENT ON COLUMN pymig.source.time_type IS 'Type of the time column, as format_type prints it.';
COMMENT ON COLUMN pymig.source.time_unit IS 'Unit of a bigint epoch (s, ms, us); NULL for the other time types.';
COMMENT ON COLUMN pymig.source.value_columns IS 'Columns that can hold the value.';
COMMENT ON COLUMN pymig.source.format_column IS 'Column that says which value column counts; NULL: the only non-null one counts.';
COMMENT ON COLUMN pymig.source.formats IS 'Content of the format column -> value column.';
COMMENT ON COLUMN pymig.source.tie_break IS 'Columns that decide between rows of one cell: the highest wins, NULL last.';
COMMENT ON COLUMN pymig.source.grain_ticks IS 'Samples within one grain become one wide row, the last wins (ticks; NULL: every time is its own row).';
COMMENT ON COLUMN pymig.source.bucket_ticks IS 'Width of a bucket in ticks: microseconds, days (date) or the unit of a bigint epoch.';
COMMENT ON COLUMN pymig.source.reads_by_key IS 'An index leads with entity, channel, time: channels can be read one by one.';
COMMENT ON COLUMN pymig.source.reads_by_time IS 'An index leads with time or entity, time: all channels of a time can be read together.';
COMMENT ON COLUMN pymig.source.is_unique IS 'A unique key on entity, channel and time rules duplicates out.';
COMMENT ON COLUMN pymig.source.wide_schema IS 'Schema of the wide tables.';
COMMENT ON COLUMN pymig.source.wide_name IS 'Pattern of their names: {table} and {entity} (lower case) are filled in.';
COMMENT ON COLUMN pymig.source.column_types IS 'text or native: the default for its entities.';
COMMENT ON COLUMN pymig.source.new_entities IS 'What the worker does with an entity it has never seen: ask (an event) or auto (migrate it).';
COMMENT ON COLUMN pymig.source.rotate_above IS 'Bytes above which the triggers fill the other pending table, and the drained one is truncated.';
COMMENT ON COLUMN pymig.source.queue_limit IS 'Bytes of a pending table above which the triggers record no key but that keys were lost; NULL: no limit.';
COMMENT ON COLUMN pymig.source.queue_tablespace IS 'Tablespace of the pending tables, whose errors the triggers then catch; NULL: that of the database.';
COMMENT ON COLUMN pymig.source.lost_seen IS 'Value of the sequence <source>_lost when a worker last looked.';
COMMENT ON COLUMN pymig.source.lost_xid IS 'Its transaction then: who lost keys by that value has an older one.';
COMMENT ON COLUMN pymig.source.lost_handled IS 'Value of that sequence up to which all entities were sent to repair.';
COMMENT ON COLUMN pymig.source.retention IS 'What becomes of the wide rows of a partition that is detached or dropped: drop or keep.';
COMMENT ON COLUMN pymig.source.dictionary IS 'Table that gives channels readable names; NULL: the channel names itself.';
COMMENT ON COLUMN pymig.source.dictionary_key IS 'Its column that equals the channel column.';
COMMENT ON COLUMN pymig.source.dictionary_name IS 'Its column with the readable name.';
COMMENT ON COLUMN pymig.source.registered_at IS 'When it was registered.';
COMMENT ON COLUMN pymig.source.registered_by IS 'By which role.';
COMMENT ON COLUMN pymig.source.type_drift IS 'What becomes of values that do not fit their column: quarantine, or promote the column.';
COMMENT ON COLUMN pymig.source.verify_budget IS 'Share of one worker''s time that goes into verifying buckets again, for ever; 0: none.';
COMMENT ON COLUMN pymig.source.verify_after IS 'Not before this time is the next one verified: the last ones used up the budget until then. NULL: at once.';
COMMENT ON COLUMN pymig.source.certificate_age IS 'After this time a certificate is stale; NULL: never for its age.';
COMMENT ON COLUMN pymig.source.archive_table IS 'Where finalize puts the narrow rows it deletes, qualified and quoted; NULL: nothing was archived yet.';
COMMENT ON COLUMN pymig.source.wide_partitions IS 'How wide tables are partitioned that are created from now on: none or month.';
COMMENT ON COLUMN pymig.source.paused_at IS 'Since when all its entities are paused; NULL: they are not.';
COMMENT ON COLUMN pymig.source.paused_by IS 'Who paused them.';
COMMENT ON COLUMN pymig.source.paused_for IS 'Why, in that person''s words.';
COMMENT ON COLUMN pymig.source.is_cancelled IS 'They are not only paused: commands that would wait end.';
COMMENT ON COLUMN pymig.source.workers IS 'Connections a command moves history with; NULL: as it was started.';
COMMENT ON COLUMN pymig.source.chunk_target IS 'Time a chunk should take.';
COMMENT ON COLUMN pymig.source.keep_wide IS 'Months of finalized entities that are older are dropped from their wide tables; NULL: none is.';
COMMENT ON COLUMN pymig.source.compat_view IS 'The narrow-shaped view for applications that keep their SQL, qualified and quoted; NULL: none was asked for.';

CREATE TABLE pymig.entity (
    source text NOT NULL REFERENCES pymig.source ON DELETE CASCADE,
    entity text NOT NULL,
    state text NOT NULL DEFAULT 'known' CHECK (state IN
        ('known', 'planned', 'syncing', 'backfilled', 'verified', 'cut_over', 'finalized', 'failed', 'rolled_back')),
    is_adopted boolean NOT NULL DEFAULT false,
    column_types text CHECK (column_types IN ('text', 'native')),
    strategy text NOT NULL DEFAULT 'auto'
        CHECK (strategy IN ('auto', 'transpose', 'crosstab', 'json', 'filter')),
    wide_table text,
    first_bucket bigint,
    last_bucket bigint,
    next_bucket bigint,
    repair_from bigint,
    estimated_rows bigint,
    moved_rows bigint,
    last_error text,
    started_at timestamptz,
    backfilled_at timestamptz,
    verified_at timestamptz,
    cut_over_at timestamptz,
    is_held boolean NOT NULL DEFAULT false,
    routing text NOT NULL DEFAULT 'narrow' CHECK (routing IN ('narrow', 'percent', 'wide', 'shadow')),
    routing_percent smallint CHECK (routing_percent BETWEEN 0 AND 100),
    keep_narrow interval CHECK (keep_narrow >= interval '0'),
    is_archived boolean NOT NULL DEFAULT true,
    is_monthly boolean NOT NULL DEFAULT false,
    paused_at timestamptz,
    paused_by text,
    paused_for text,
    is_cancelled boolean NOT NULL DEFAULT false,
    workers int CHECK (workers BETWEEN 1 AND 64),
    chunk_target interval CHECK (chunk_target > interval '0'),
    priority int NOT NULL DEFAULT 0,
    state_changed_at timestamptz NOT NULL DEFAULT now(),
    type_drift text CHECK (type_drift IN ('quarantine', 'promote')),
    promote_at timestamptz,
    sync text NOT NULL DEFAULT 'pending' CHECK (sync IN ('pending', 'direct')),
    direct_budget interval NOT NULL DEFAULT '50 ms' CHECK (direct_budget > interval '0'),
    PRIMARY KEY (source, entity)
) WITH (fillfactor = 50);
COMMENT ON TABLE pymig.entity IS 'One row per entity: its state and settings. State changes only through the procedures.';
COMMENT ON COLUMN pymig.entity.source IS 'Its source.';
COMMENT ON COLUMN pymig.entity.entity IS 'Text form of the value in the entity column.';
COMMENT ON COLUMN pymig.entity.state IS 'known (seen, not asked for) -> planned -> syncing -> backfilled -> verified -> cut_over -> finalized; failed; rolled_back.';
COMMENT ON COLUMN pymig.entity.is_adopted IS 'The worker found it and migrates it by the policy auto.';
COMMENT ON COLUMN pymig.entity.column_types IS 'text or native.';
COMMENT ON COLUMN pymig.entity.strategy IS 'Pivot strategy of its chunks; auto measures the candidates on the first chunks.';
COMMENT ON COLUMN pymig.entity.wide_table IS 'Name of its wide table (of the view, with several parts), without schema.';
COMMENT ON COLUMN pymig.entity.first_bucket IS 'First bucket of the backfill.';
COMMENT ON COLUMN pymig.entity.last_bucket IS 'Frozen upper bound of the backfill, read after arming.';
COMMENT ON COLUMN pymig.entity.next_bucket IS 'First bucket that is not yet dealt to a chunk.';
COMMENT ON COLUMN pymig.entity.repair_from IS 'After keys were lost: first bucket that is not yet queued for its recompute; NULL: none is to be.';
COMMENT ON COLUMN pymig.entity.estimated_rows IS 'Narrow rows by the planner''s estimate when it was planned.';
COMMENT ON COLUMN pymig.entity.moved_rows IS 'Narrow rows its chunks moved, summed once all are done.';
COMMENT ON COLUMN pymig.entity.last_error IS 'Last error of a chunk or a recompute; NULL once the work went through.';
COMMENT ON COLUMN pymig.entity.started_at IS 'When it began to sync.';
COMMENT ON COLUMN pymig.entity.backfilled_at IS 'When its last chunk was done.';
COMMENT ON COLUMN pymig.entity.verified_at IS 'When it last verified without a difference.';
COMMENT ON COLUMN pymig.entity.cut_over_at IS 'When it was cut over; since then it can be written in the wide shape.';
COMMENT ON COLUMN pymig.entity.is_held IS 'Its cutover waits until release_cut_over.';
COMMENT ON COLUMN pymig.entity.keep_narrow IS 'Narrow rows older than that are retired, once it is finalized.';
COMMENT ON COLUMN pymig.entity.is_archived IS 'What is retired goes to the archive table; false: it is deleted.';
COMMENT ON COLUMN pymig.entity.paused_at IS 'Since when its history is not moved and not verified; NULL: it is.';
COMMENT ON COLUMN pymig.entity.paused_by IS 'Who paused it.';
COMMENT ON COLUMN pymig.entity.paused_for IS 'Why, in that person''s words.';
COMMENT ON COLUMN pymig.entity.is_cancelled IS 'It is not only paused: commands that would wait end.';
COMMENT ON COLUMN pymig.entity.workers IS 'Connections of a command that move it at once, at most; NULL: all of them.';
COMMENT ON COLUMN pymig.entity.chunk_target IS 'Time a chunk should take; NULL: as its source says.';
COMMENT ON COLUMN pymig.entity.priority IS 'Entities of a higher one are migrated first; among equals the smaller first.';
COMMENT ON COLUMN pymig.entity.is_monthly IS 'Its wide tables are partitioned by month.';
COMMENT ON COLUMN pymig.entity.routing IS 'Where read() and the compat view take its rows from: narrow, wide, percent (so many of 100 sessions from wide), shadow (both, compared; narrow is returned).';
COMMENT ON COLUMN pymig.entity.routing_percent IS 'Sessions of 100 that read wide, with routing percent.';
COMMENT ON COLUMN pymig.entity.state_changed_at IS 'When the state last changed.';
COMMENT ON COLUMN pymig.entity.type_drift IS 'Its own choice of quarantine or promote; NULL: the source''s.';
COMMENT ON COLUMN pymig.entity.sync IS 'pending: the worker writes its wide rows; direct: the statement that changes narrow rows does, where it can.';
COMMENT ON COLUMN pymig.entity.direct_budget IS 'Time a statement may take to write wide rows itself.';
COMMENT ON COLUMN pymig.entity.promote_at IS 'Not before this time does the worker go on with promotions: readers of the wide table, say, were in the way.';

CREATE TABLE pymig.part (
    source text NOT NULL,
    entity text NOT NULL,
    part int NOT NULL,
    wide_table text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, entity, part),
    FOREIGN KEY (source, entity) REFERENCES pymig.entity ON DELETE CASCADE
);
COMMENT ON TABLE pymig.part IS 'Physical wide tables of an entity.';
COMMENT ON COLUMN pymig.part.source IS 'Its source.';
COMMENT ON COLUMN pymig.part.entity IS 'Its entity.';
COMMENT ON COLUMN pymig.part.part IS 'Number of the part, from 1.';
COMMENT ON COLUMN pymig.part.wide_table IS 'Its table, without schema.';
COMMENT ON COLUMN pymig.part.created_at IS 'When it was made: columns of the same moment stand in it without padding, later ones are appended.';

CREATE TABLE pymig.channel (
    source text NOT NULL,
    entity text NOT NULL,
    channel text NOT NULL,
    ord int NOT NULL,
    part int NOT NULL,
    wide_column text NOT NULL,
    column_type text NOT NULL
        CHECK (column_type IN ('text', 'float8', 'int8', 'bool', 'numeric', 'jsonb')),
    kind text CHECK (kind IN ('text', 'float8', 'int8', 'bool', 'numeric', 'jsonb')),
    added_at timestamptz NOT NULL DEFAULT now(),
    attnum smallint,
    PRIMARY KEY (source, entity, channel),
    UNIQUE (source, entity, ord),
    FOREIGN KEY (source, entity, part) REFERENCES pymig.part ON DELETE CASCADE
);
COMMENT ON TABLE pymig.channel IS 'Which part, column and type a channel of an entity has. People read it as channel_map.';
COMMENT ON COLUMN pymig.channel.source IS 'Its source.';
COMMENT ON COLUMN pymig.channel.entity IS 'Its entity.';
COMMENT ON COLUMN pymig.channel.channel IS 'Text form of the value in the channel column.';
COMMENT ON COLUMN pymig.channel.ord IS 'Position among the entity''s channels, from 1; never reused.';
COMMENT ON COLUMN pymig.channel.part IS 'The part it is in.';
COMMENT ON COLUMN pymig.channel.wide_column IS 'Its column.';
COMMENT ON COLUMN pymig.channel.column_type IS 'Type of that column.';
COMMENT ON COLUMN pymig.channel.kind IS 'Native type of the values it had when the column was made, where column_type may be text by choice; NULL: it had none.';
COMMENT ON COLUMN pymig.channel.added_at IS 'When the column was made.';
COMMENT ON COLUMN pymig.channel.attnum IS 'Its number in pg_attribute: by it a column that somebody renamed is found again.';

CREATE TABLE pymig.promotion (
    source text NOT NULL,
    entity text NOT NULL,
    channel text NOT NULL,
    ord int NOT NULL,
    part int NOT NULL,
    wide_column text NOT NULL,
    column_type text NOT NULL CHECK (column_type IN ('text', 'float8', 'numeric')),
    next_bucket bigint DEFAULT -9223372036854775808,
    filled_by xid8,
    is_lossless boolean NOT NULL DEFAULT true,
    begun_at timestamptz NOT NULL DEFAULT now(),
    retry_at timestamptz,
    error text,
    PRIMARY KEY (source, entity, channel),
    UNIQUE (source, entity, ord),
    FOREIGN KEY (source, entity, channel) REFERENCES pymig.channel ON DELETE CASCADE,
    FOREIGN KEY (source, entity, part) REFERENCES pymig.part ON DELETE CASCADE
);
COMMENT ON TABLE pymig.promotion IS 'Columns that are getting a wider type: a new column is filled beside the old one and takes its place.';
COMMENT ON COLUMN pymig.promotion.source IS 'Source.';
COMMENT ON COLUMN pymig.promotion.entity IS 'Entity.';
COMMENT ON COLUMN pymig.promotion.channel IS 'Channel whose type drifted.';
COMMENT ON COLUMN pymig.promotion.ord IS 'Its own number among the entity''s columns.';
COMMENT ON COLUMN pymig.promotion.part IS 'Part of the new column.';
COMMENT ON COLUMN pymig.promotion.wide_column IS 'Name of the new column until it takes the old one''s.';
COMMENT ON COLUMN pymig.promotion.column_type IS 'Its type.';
COMMENT ON COLUMN pymig.promotion.next_bucket IS 'First bucket that is not yet filled; NULL: all are.';
COMMENT ON COLUMN pymig.promotion.filled_by IS 'Transaction after which all buckets were filled: who has an older snapshot would miss values in the new column.';
COMMENT ON COLUMN pymig.promotion.is_lossless IS 'false: a value of the old column does not fit the new type; it begins again as text.';
COMMENT ON COLUMN pymig.promotion.begun_at IS 'When it began.';
COMMENT ON COLUMN pymig.promotion.retry_at IS 'Not before this time does it go on.';
COMMENT ON COLUMN pymig.promotion.error IS 'What holds it up.';

CREATE TABLE pymig.chunk (
    chunk bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    entity text NOT NULL,
    first_bucket bigint NOT NULL,
    last_bucket bigint NOT NULL,
    from_time text NOT NULL,
    to_time text NOT NULL,
    state text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'done', 'failed')),
    attempts int NOT NULL DEFAULT 0,
    strategy text,
    narrow_rows bigint,
    superseded_rows bigint,
    cells bigint,
    wide_rows bigint,
    seconds double precision,
    error text,
    retry_at timestamptz,
    finished_at timestamptz,
    finished_by text,
    FOREIGN KEY (source, entity) REFERENCES pymig.entity ON DELETE CASCADE
);
CREATE INDEX chunk_open ON pymig.chunk (source, entity, first_bucket) WHERE state <> 'done';
CREATE INDEX chunk_entity ON pymig.chunk (source, entity, chunk);
COMMENT ON TABLE pymig.chunk IS 'Runs of buckets of the backfill. A chunk''s rows and its state commit together.';
COMMENT ON COLUMN pymig.chunk.chunk IS 'Number of the chunk.';
COMMENT ON COLUMN pymig.chunk.source IS 'Its source.';
COMMENT ON COLUMN pymig.chunk.entity IS 'Its entity.';
COMMENT ON COLUMN pymig.chunk.first_bucket IS 'First bucket of the run.';
COMMENT ON COLUMN pymig.chunk.last_bucket IS 'Last bucket of the run.';
COMMENT ON COLUMN pymig.chunk.from_time IS 'First time it covers.';
COMMENT ON COLUMN pymig.chunk.to_time IS 'Last time it covers.';
COMMENT ON COLUMN pymig.chunk.state IS 'planned, done, or failed after its last attempt.';
COMMENT ON COLUMN pymig.chunk.attempts IS 'Failed attempts so far.';
COMMENT ON COLUMN pymig.chunk.strategy IS 'Pivot strategy that moved it.';
COMMENT ON COLUMN pymig.chunk.narrow_rows IS 'Narrow rows that decided a cell, NULL values included.';
COMMENT ON COLUMN pymig.chunk.superseded_rows IS 'Narrow rows that lost the tie-break to another row of their cell; NULL where the source has a unique key.';
COMMENT ON COLUMN pymig.chunk.cells IS 'Cells that are not NULL.';
COMMENT ON COLUMN pymig.chunk.wide_rows IS 'Wide rows written, counted once over the parts.';
COMMENT ON COLUMN pymig.chunk.seconds IS 'Duration of the attempt that went through.';
COMMENT ON COLUMN pymig.chunk.error IS 'Error of the last failed attempt.';
COMMENT ON COLUMN pymig.chunk.retry_at IS 'Not before this time is it tried again.';
COMMENT ON COLUMN pymig.chunk.finished_at IS 'When it was done or given up.';
COMMENT ON COLUMN pymig.chunk.finished_by IS 'application_name and backend that did it.';

CREATE TABLE pymig.quarantine (
    quarantine bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    entity text NOT NULL,
    channel text,
    time text,
    bucket bigint NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    narrow_row jsonb NOT NULL,
    is_kept boolean NOT NULL DEFAULT false,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (source, entity) REFERENCES pymig.entity ON DELETE CASCADE
);
CREATE INDEX quarantine_bucket ON pymig.quarantine (source, entity, bucket);
CREATE INDEX quarantine_drift ON pymig.quarantine (source, entity, channel, quarantine) WHERE reason = 'type_mismatch' AND NOT is_kept;
COMMENT ON TABLE pymig.quarantine IS 'Narrow rows that cannot become a cell, with the reason. Rewritten with every recompute of their bucket.';
COMMENT ON COLUMN pymig.quarantine.quarantine IS 'Number of the row.';
COMMENT ON COLUMN pymig.quarantine.source IS 'Its source.';
COMMENT ON COLUMN pymig.quarantine.entity IS 'Its entity.';
COMMENT ON COLUMN pymig.quarantine.channel IS 'Its channel.';
COMMENT ON COLUMN pymig.quarantine.time IS 'Its time in the wide table (ISO, UTC).';
COMMENT ON COLUMN pymig.quarantine.bucket IS 'Its bucket.';
COMMENT ON COLUMN pymig.quarantine.reason IS 'unknown_format, other_column, several_values, type_mismatch, no_time, no_channel, closed_range, or recompute_failed: a key that is tried again and again.';
COMMENT ON COLUMN pymig.quarantine.detail IS 'The reason as a sentence.';
COMMENT ON COLUMN pymig.quarantine.narrow_row IS 'The whole narrow row.';
COMMENT ON COLUMN pymig.quarantine.is_kept IS 'Its partition is gone by the policy keep: this is the only copy, which nothing touches until the policy is drop again.';
COMMENT ON COLUMN pymig.quarantine.quarantined_at IS 'When it was found.';

CREATE TABLE pymig.verification (
    source text NOT NULL,
    entity text NOT NULL,
    bucket bigint NOT NULL,
    from_time text NOT NULL,
    to_time text NOT NULL,
    is_equal boolean NOT NULL,
    cells bigint NOT NULL,
    differences bigint NOT NULL,
    repaired boolean NOT NULL DEFAULT false,
    sample jsonb,
    digest text,
    seconds double precision NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, entity, bucket),
    FOREIGN KEY (source, entity) REFERENCES pymig.entity ON DELETE CASCADE
);
COMMENT ON TABLE pymig.verification IS 'Result of the last exact comparison of every bucket.';
COMMENT ON COLUMN pymig.verification.source IS 'Its source.';
COMMENT ON COLUMN pymig.verification.entity IS 'Its entity.';
COMMENT ON COLUMN pymig.verification.bucket IS 'The bucket.';
COMMENT ON COLUMN pymig.verification.from_time IS 'First time of the bucket.';
COMMENT ON COLUMN pymig.verification.to_time IS 'Last time of the bucket.';
COMMENT ON COLUMN pymig.verification.is_equal IS 'No difference but for keys that were pending (after the repair, if one was asked for).';
COMMENT ON COLUMN pymig.verification.cells IS 'Cells of the narrow side, not counting NULL.';
COMMENT ON COLUMN pymig.verification.differences IS 'Differing cells, missing or surplus wide rows found (before the repair).';
COMMENT ON COLUMN pymig.verification.repaired IS 'The bucket was recomputed because of these differences.';
COMMENT ON COLUMN pymig.verification.sample IS 'Up to 20 of the differences: channel, time, narrow value, wide value.';
COMMENT ON COLUMN pymig.verification.digest IS 'MD5 over times and cells in channel and time order: a record of what was compared.';
COMMENT ON COLUMN pymig.verification.seconds IS 'Duration.';
COMMENT ON COLUMN pymig.verification.checked_at IS 'When it was compared.';

CREATE INDEX verification_age ON pymig.verification (source, checked_at);

CREATE TABLE pymig.changed_bucket (
    source text NOT NULL,
    entity text NOT NULL,
    bucket bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, entity, bucket),
    FOREIGN KEY (source, entity) REFERENCES pymig.entity ON DELETE CASCADE
);
COMMENT ON TABLE pymig.changed_bucket IS 'Buckets of verified entities that were recomputed since they were last compared: the first ones to be verified again.';
COMMENT ON COLUMN pymig.changed_bucket.source IS 'Its source.';
COMMENT ON COLUMN pymig.changed_bucket.entity IS 'Its entity.';
COMMENT ON COLUMN pymig.changed_bucket.bucket IS 'The bucket.';
COMMENT ON COLUMN pymig.changed_bucket.changed_at IS 'First recompute since.';

CREATE TABLE pymig.shadow_read (
    shadow_read bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    entity text NOT NULL,
    read_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    read_by text NOT NULL DEFAULT session_user,
    channels text[],
    from_time text,
    to_time text,
    cells bigint NOT NULL,
    differences bigint NOT NULL,
    sample jsonb,
    narrow_ms double precision NOT NULL,
    wide_ms double precision NOT NULL,
    FOREIGN KEY (source, entity) REFERENCES pymig.entity ON DELETE CASCADE
);
COMMENT ON TABLE pymig.shadow_read IS 'What read() found where it read both sides (routing shadow). A worker keeps the newest 10,000.';
COMMENT ON COLUMN pymig.shadow_read.shadow_read IS 'Number of the read.';
COMMENT ON COLUMN pymig.shadow_read.source IS 'Source.';
COMMENT ON COLUMN pymig.shadow_read.entity IS 'Entity.';
COMMENT ON COLUMN pymig.shadow_read.read_at IS 'When.';
COMMENT ON COLUMN pymig.shadow_read.read_by IS 'Role that read.';
COMMENT ON COLUMN pymig.shadow_read.channels IS 'Channels asked for; NULL: all.';
COMMENT ON COLUMN pymig.shadow_read.from_time IS 'First time asked for; NULL: no bound.';
COMMENT ON COLUMN pymig.shadow_read.to_time IS 'Time before which it ended; NULL: no bound.';
COMMENT ON COLUMN pymig.shadow_read.cells IS 'Cells that were returned.';
COMMENT ON COLUMN pymig.shadow_read.differences IS 'Cells that one side had and the other had not, but for keys that were pending.';
COMMENT ON COLUMN pymig.shadow_read.sample IS 'Up to 20 of them: side, channel, time, value.';
COMMENT ON COLUMN pymig.shadow_read.narrow_ms IS 'Milliseconds the narrow side took.';
COMMENT ON COLUMN pymig.shadow_read.wide_ms IS 'Milliseconds the wide side took.';

CREATE TABLE pymig.certificate (
    certificate bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    entity text NOT NULL,
    wide_table text NOT NULL,
    certified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    certified_by text NOT NULL DEFAULT session_user,
    lsn pg_lsn NOT NULL,
    from_time text,
    to_time text,
    buckets bigint NOT NULL,
    cells bigint NOT NULL,
    wide_rows bigint NOT NULL,
    quarantined bigint NOT NULL,
    digest text NOT NULL,
    bucket_digests jsonb NOT NULL,
    code_hash text NOT NULL,
    voided_at timestamptz,
    void_reason text,
    FOREIGN KEY (source, entity) REFERENCES pymig.entity ON DELETE CASCADE
);
CREATE INDEX certificate_entity ON pymig.certificate (source, entity, certificate);
COMMENT ON TABLE pymig.certificate IS 'Records that wide equalled narrow for an entity, cell by cell. The newest of an entity counts; certificate_fault() says whether it still does.';
COMMENT ON COLUMN pymig.certificate.certificate IS 'Number of the certificate.';
COMMENT ON COLUMN pymig.certificate.source IS 'Its source.';
COMMENT ON COLUMN pymig.certificate.entity IS 'Its entity.';
COMMENT ON COLUMN pymig.certificate.wide_table IS 'Qualified name of the wide table, or of the view over its parts.';
COMMENT ON COLUMN pymig.certificate.certified_at IS 'When the last bucket had been compared.';
COMMENT ON COLUMN pymig.certificate.certified_by IS 'Role that asked for it.';
COMMENT ON COLUMN pymig.certificate.lsn IS 'Position in the WAL at that moment.';
COMMENT ON COLUMN pymig.certificate.from_time IS 'First time of the first bucket.';
COMMENT ON COLUMN pymig.certificate.to_time IS 'Last time of the last bucket.';
COMMENT ON COLUMN pymig.certificate.buckets IS 'Buckets compared.';
COMMENT ON COLUMN pymig.certificate.cells IS 'Cells compared, not counting NULL.';
COMMENT ON COLUMN pymig.certificate.wide_rows IS 'Rows of the wide table at that moment.';
COMMENT ON COLUMN pymig.certificate.quarantined IS 'Narrow rows in quarantine: in no cell, and said so.';
COMMENT ON COLUMN pymig.certificate.digest IS 'SHA-256 over the buckets and their digests, in order.';
COMMENT ON COLUMN pymig.certificate.bucket_digests IS 'Bucket -> digest of its cells as in pymig.verification, as they were when it was given.';
COMMENT ON COLUMN pymig.certificate.code_hash IS 'SHA-256 over the triggers and functions that keep wide equal to narrow, and over the cell view.';
COMMENT ON COLUMN pymig.certificate.voided_at IS 'When it was voided; NULL: it was not.';
COMMENT ON COLUMN pymig.certificate.void_reason IS 'Why.';

CREATE TABLE pymig.partition (
    source text NOT NULL REFERENCES pymig.source ON DELETE CASCADE,
    relation regclass NOT NULL,
    attachment text NOT NULL,
    name text NOT NULL,
    is_leaf boolean NOT NULL,
    by_time boolean NOT NULL,
    first_tick bigint NOT NULL,
    last_tick bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('new', 'armed', 'expanded', 'served', 'detaching', 'detached')),
    attempts int NOT NULL DEFAULT 0,
    retry_at timestamptz,
    error text,
    noticed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, relation)
);
COMMENT ON TABLE pymig.partition IS 'Partitions of a partitioned narrow table as the worker last saw them; the catalog is compared with it in every pass.';
COMMENT ON COLUMN pymig.partition.source IS 'Its source.';
COMMENT ON COLUMN pymig.partition.relation IS 'The partition.';
COMMENT ON COLUMN pymig.partition.attachment IS 'Transaction that attached it (and those above it): another one where it was attached anew.';
COMMENT ON COLUMN pymig.partition.name IS 'Its name when it was noticed.';
COMMENT ON COLUMN pymig.partition.is_leaf IS 'It has rows itself, and no partitions.';
COMMENT ON COLUMN pymig.partition.by_time IS 'Its range of times alone says which rows it has.';
COMMENT ON COLUMN pymig.partition.first_tick IS 'First tick of its range.';
COMMENT ON COLUMN pymig.partition.last_tick IS 'Last tick of its range (inclusive).';
COMMENT ON COLUMN pymig.partition.state IS 'new (to be armed) -> armed (what wide has in its range is to be queued) -> expanded (what it has itself is) -> served; detaching (CONCURRENTLY, not yet done), detached (its triggers are to be dropped).';
COMMENT ON COLUMN pymig.partition.attempts IS 'Failed attempts at the next step.';
COMMENT ON COLUMN pymig.partition.retry_at IS 'Not before this time is it tried again.';
COMMENT ON COLUMN pymig.partition.error IS 'Error of the last attempt.';
COMMENT ON COLUMN pymig.partition.noticed_at IS 'When it was noticed.';

CREATE TABLE pymig.closed_range (
    source text NOT NULL,
    entity text NOT NULL,
    first_tick bigint NOT NULL,
    last_tick bigint NOT NULL,
    partition_name text,
    closed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, entity, first_tick, last_tick),
    FOREIGN KEY (source, entity) REFERENCES pymig.entity ON DELETE CASCADE
);
COMMENT ON TABLE pymig.closed_range IS 'Ranges whose narrow rows are gone while their wide rows are kept, by the retention keep or by finalize: no recompute touches them.';
COMMENT ON COLUMN pymig.closed_range.source IS 'Its source.';
COMMENT ON COLUMN pymig.closed_range.entity IS 'Its entity.';
COMMENT ON COLUMN pymig.closed_range.first_tick IS 'First tick that is closed.';
COMMENT ON COLUMN pymig.closed_range.last_tick IS 'Last tick that is closed.';
COMMENT ON COLUMN pymig.closed_range.partition_name IS 'The partition that had it; NULL: it was retired by finalize, bucket by bucket.';
COMMENT ON COLUMN pymig.closed_range.closed_at IS 'When it was closed.';

CREATE TABLE pymig.retired_bucket (
    source text NOT NULL,
    entity text NOT NULL,
    bucket bigint NOT NULL,
    from_time text NOT NULL,
    to_time text NOT NULL,
    narrow_rows bigint NOT NULL,
    cells bigint NOT NULL,
    digest text,
    is_archived boolean NOT NULL,
    certificate bigint NOT NULL,
    retired_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, entity, bucket),
    FOREIGN KEY (source, entity) REFERENCES pymig.entity ON DELETE CASCADE
);
COMMENT ON TABLE pymig.retired_bucket IS 'Buckets whose narrow rows finalize took away, each compared once more in the same transaction.';
COMMENT ON COLUMN pymig.retired_bucket.source IS 'Its source.';
COMMENT ON COLUMN pymig.retired_bucket.entity IS 'Its entity.';
COMMENT ON COLUMN pymig.retired_bucket.bucket IS 'The bucket.';
COMMENT ON COLUMN pymig.retired_bucket.from_time IS 'First time of the bucket.';
COMMENT ON COLUMN pymig.retired_bucket.to_time IS 'Last time of the bucket.';
COMMENT ON COLUMN pymig.retired_bucket.narrow_rows IS 'Narrow rows that were taken away.';
COMMENT ON COLUMN pymig.retired_bucket.cells IS 'Cells of the wide tables they made.';
COMMENT ON COLUMN pymig.retired_bucket.digest IS 'Digest of these cells, as in pymig.verification.';
COMMENT ON COLUMN pymig.retired_bucket.is_archived IS 'The rows are in the archive table; false: only the wide tables have their values.';
COMMENT ON COLUMN pymig.retired_bucket.certificate IS 'The certificate that counted then.';
COMMENT ON COLUMN pymig.retired_bucket.retired_at IS 'When.';

CREATE TABLE pymig.worker (
    worker text PRIMARY KEY,
    backend int NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE pymig.worker IS 'Heartbeats of the workers: sync_pending leaves one a second at most.';
COMMENT ON COLUMN pymig.worker.worker IS 'Name the worker gave itself; the application_name otherwise.';
COMMENT ON COLUMN pymig.worker.backend IS 'Its backend process.';
COMMENT ON COLUMN pymig.worker.started_at IS 'First heartbeat.';
COMMENT ON COLUMN pymig.worker.seen_at IS 'Last heartbeat.';

CREATE TABLE pymig.lag (
    source text NOT NULL,
    entity text NOT NULL,
    slot smallint NOT NULL,
    minute timestamptz NOT NULL,
    keys bigint[] NOT NULL,
    PRIMARY KEY (source, entity, slot),
    FOREIGN KEY (source, entity) REFERENCES pymig.entity ON DELETE CASCADE
) WITH (fillfactor = 50);
COMMENT ON TABLE pymig.lag IS 'How old the keys were when their wide rows were written: a histogram of each of the last minutes. People read it as sync_lag_p50 and sync_lag_p99 of status.';
COMMENT ON COLUMN pymig.lag.source IS 'Its source.';
COMMENT ON COLUMN pymig.lag.entity IS 'Its entity.';
COMMENT ON COLUMN pymig.lag.slot IS 'Minute modulo 6: rows are used again, never added.';
COMMENT ON COLUMN pymig.lag.minute IS 'The minute it counts.';
COMMENT ON COLUMN pymig.lag.keys IS 'Keys by lag: element i counts those under 2^(i/2) milliseconds, the last one also all beyond.';

CREATE TABLE pymig.event (
    event bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    happened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    level text NOT NULL CHECK (level IN ('INFO', 'WARNING', 'CRITICAL')),
    source text,
    entity text,
    what text NOT NULL,
    detail text NOT NULL,
    who text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE pymig.event IS 'Who did what, when; and what a person should know.';
COMMENT ON COLUMN pymig.event.event IS 'Number of the event.';
COMMENT ON COLUMN pymig.event.happened_at IS 'When.';
COMMENT ON COLUMN pymig.event.level IS 'INFO, WARNING (look at it today) or CRITICAL (look at it now).';
COMMENT ON COLUMN pymig.event.source IS 'Source it concerns.';
COMMENT ON COLUMN pymig.event.entity IS 'Entity it concerns.';
COMMENT ON COLUMN pymig.event.what IS 'Short, stable name of the kind of event.';
COMMENT ON COLUMN pymig.event.detail IS 'The sentence for a person.';
COMMENT ON COLUMN pymig.event.who IS 'Role that caused it.';

CREATE TABLE pymig.throttle (
    condition text PRIMARY KEY,
    measure text,
    is_rate boolean NOT NULL DEFAULT false,
    unit text NOT NULL,
    max_value double precision,
    what_to_do text NOT NULL,
    value double precision,
    raw double precision,
    checked_at timestamptz,
    error text,
    is_over boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE pymig.throttle IS 'When history waits: conditions with a limit each. Change a limit with set_throttle or UPDATE while work goes on, and add conditions of your own.';
COMMENT ON COLUMN pymig.throttle.condition IS 'Name of the condition.';
COMMENT ON COLUMN pymig.throttle.measure IS 'SELECT of one number, run twice a second at most while there is work; NULL as its result: not known, and no reason to wait. NULL here: somebody reports the value (report_throttle).';
COMMENT ON COLUMN pymig.throttle.is_rate IS 'The measure is a counter, and its increase a second is the value.';
COMMENT ON COLUMN pymig.throttle.unit IS 'Unit of value and max_value.';
COMMENT ON COLUMN pymig.throttle.max_value IS 'Work waits while the value is greater; NULL: the condition is not looked at.';
COMMENT ON COLUMN pymig.throttle.what_to_do IS 'For a person who finds work held up by it.';
COMMENT ON COLUMN pymig.throttle.value IS 'As measured last.';
COMMENT ON COLUMN pymig.throttle.raw IS 'Of a rate, the counter as read last.';
COMMENT ON COLUMN pymig.throttle.checked_at IS 'When it was measured last; after 10 seconds it counts no more.';
COMMENT ON COLUMN pymig.throttle.is_over IS 'It held work up when it was measured last.';
COMMENT ON COLUMN pymig.throttle.error IS 'Why it could not be measured.';
INSERT INTO pymig.throttle (condition, unit, max_value, is_rate, measure, what_to_do) VALUES
    ('replica lag', 'bytes', 268435456, false, 'SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn)) FROM pg_stat_replication AS r WHERE r.state = ''streaming''',
        'A standby replays more slowly than this server writes: look at its disk, and for queries that hold its replay up.'),
    ('wal kept by slots', 'bytes', 17179869184, false, 'SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)) FROM pg_replication_slots AS s WHERE s.wal_status <> ''lost''',
        'A replication slot is not read: see to its consumer, or drop it with pg_drop_replication_slot.'),
    ('archiver backlog', 'files', 100, false, 'SELECT count(*) FROM pg_ls_archive_statusdir() AS f WHERE f.name LIKE ''%.ready'' AND current_setting(''archive_mode'') <> ''off''',
        'archive_command fails or is slow: see pg_stat_archiver and the server''s log.'),
    ('wal rate', 'bytes/s', NULL, true, 'SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), ''0/0'')',
        'The server writes more WAL than its limit; it goes on by itself when that is less.'),
    ('checkpoint pressure', '% of max_wal_size', 90, false, 'SELECT 100 * pg_wal_lsn_diff(pg_current_wal_lsn(), c.redo_lsn) / pg_size_bytes(current_setting(''max_wal_size'')) FROM pg_control_checkpoint() AS c',
        'Checkpoints come later than max_wal_size asks for: raise it, or find what keeps the disk busy.'),
    ('active sessions', 'sessions', NULL, false, 'SELECT count(*) FROM pg_stat_activity AS a WHERE a.backend_type = ''client backend'' AND a.state = ''active'' AND a.application_name NOT LIKE ''pymig%''',
        'The server is busy with others; it goes on by itself when they are fewer.'),
    ('lock waits', 'sessions', 20, false, 'SELECT count(*) FROM pg_stat_activity AS a WHERE a.wait_event_type = ''Lock'' AND a.application_name NOT LIKE ''pymig%''',
        'Sessions wait for locks of each other: see pg_blocking_pids().'),
    ('ingest latency', 'ms', NULL, false, 'SELECT 1000 * max(extract(epoch FROM clock_timestamp() - a.query_start)) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE l.mode = ''RowExclusiveLock'' AND l.granted AND pymig._is_ours(l.relation) AND a.state = ''active'' AND a.application_name NOT LIKE ''pymig%''',
        'Statements that write a narrow table take long: see what they wait for in pg_stat_activity.'),
    ('autovacuum', 'tables', NULL, false, 'SELECT count(*) FROM pg_stat_progress_vacuum AS v JOIN pg_stat_activity AS a USING (pid) WHERE a.backend_type = ''autovacuum worker'' AND v.datname = current_database() AND pymig._is_ours(v.relid)',
        'Autovacuum is at a narrow or a wide table: let it end, or raise its autovacuum_vacuum_cost_limit.'),
    ('anti-wraparound vacuum', 'tables', 0, false, 'SELECT count(*) FROM pg_stat_activity AS a WHERE a.backend_type = ''autovacuum worker'' AND a.datname = current_database() AND a.query LIKE ''%(to prevent wraparound)''',
        'Autovacuum freezes a table to prevent wraparound: let it end.'),
    ('oldest snapshot', 's', 3600, false, 'SELECT max(extract(epoch FROM clock_timestamp() - a.xact_start)) FROM pg_stat_activity AS a WHERE a.backend_xmin IS NOT NULL AND a.application_name NOT LIKE ''pymig%''',
        'A transaction has been open for so long that dead rows pile up: end it (pg_terminate_backend), or wait for it.'),
    ('maintenance window', 'outside = 1', NULL, false, 'SELECT pymig.outside_window(''22:00'', ''06:00'', ''UTC'')',
        'It is not the time for it; it goes on by itself when the window opens.'),
    ('disk used', '%', 98, false, NULL,
        'The disk of the data directory fills up: make room. A pymig command on the server itself reports this.');

CREATE TABLE pymig.trial (
    trial bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL REFERENCES pymig.source ON DELETE CASCADE,
    column_types text NOT NULL CHECK (column_types IN ('text', 'native')),
    magnitude int NOT NULL,
    strategy text NOT NULL,
    chunk_target interval NOT NULL,
    workers int NOT NULL,
    rows_per_second double precision NOT NULL,
    gain double precision NOT NULL,
    latency double precision,
    measured_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX trial_shape ON pymig.trial (source, column_types, magnitude, trial);
COMMENT ON TABLE pymig.trial IS 'What pymig migrate --tune has tried, and what it came to. The next one begins with the best for the shape of a ship: source, column types, magnitude. Deleted rows are forgotten.';
COMMENT ON COLUMN pymig.trial.trial IS 'Number of the trial.';
COMMENT ON COLUMN pymig.trial.source IS 'Source of the ship it was made on.';
COMMENT ON COLUMN pymig.trial.column_types IS 'Its column types: text or native.';
COMMENT ON COLUMN pymig.trial.magnitude IS 'Its channels, as the nearest power of ten.';
COMMENT ON COLUMN pymig.trial.strategy IS 'Pivot strategy that was tried.';
COMMENT ON COLUMN pymig.trial.chunk_target IS 'How long a chunk was to take.';
COMMENT ON COLUMN pymig.trial.workers IS 'How many connections moved chunks.';
COMMENT ON COLUMN pymig.trial.rows_per_second IS 'Narrow rows a second of all of them; 0: ingest was too slow before a chunk was done.';
COMMENT ON COLUMN pymig.trial.gain IS 'The same as a multiple of what the default moved shortly before, on the same ship; of the default itself 1.';
COMMENT ON COLUMN pymig.trial.latency IS 'The worst latency of ingest meanwhile, in ms, as the throttle measures it; NULL: there is no limit, or nothing was written.';
COMMENT ON COLUMN pymig.trial.measured_at IS 'When it ended.';

CREATE TABLE pymig.alert (
    alert text PRIMARY KEY,
    level text NOT NULL CHECK (level IN ('INFO', 'WARNING', 'CRITICAL')),
    measure text NOT NULL,
    unit text NOT NULL,
    max_value double precision,
    lasting interval NOT NULL DEFAULT '0' CHECK (lasting >= interval '0'),
    what_to_do text NOT NULL,
    checked_at timestamptz,
    error text
);
COMMENT ON TABLE pymig.alert IS 'When a figure becomes an event: rules with a limit each. Change a limit with set_alert or UPDATE, and add rules of your own. What simply happens (a chunk fails) is an event by itself and needs no rule.';
COMMENT ON COLUMN pymig.alert.alert IS 'Name of the rule, and of its events.';
COMMENT ON COLUMN pymig.alert.level IS 'Level of its events.';
COMMENT ON COLUMN pymig.alert.measure IS 'SELECT of three columns: source, entity (both may be NULL) and a number, a row for each thing that is watched.';
COMMENT ON COLUMN pymig.alert.unit IS 'Unit of the number.';
COMMENT ON COLUMN pymig.alert.max_value IS 'Greater numbers are told; NULL: the rule is not looked at.';
COMMENT ON COLUMN pymig.alert.lasting IS 'How long the number has to be greater before.';
COMMENT ON COLUMN pymig.alert.what_to_do IS 'For a person who is told.';
COMMENT ON COLUMN pymig.alert.checked_at IS 'When it was measured last.';
COMMENT ON COLUMN pymig.alert.error IS 'Why it could not be measured.';
INSERT INTO pymig.alert (alert, level, measure, unit, max_value, lasting, what_to_do) VALUES
    ('sync lag', 'WARNING', 'SELECT s.source, s.entity, extract(epoch FROM s.sync_lag) FROM pymig.status AS s', 's', 10, '1 minute',
        'Look for a writer with a long transaction, then for what the worker waits for.'),
    ('pending keys', 'WARNING', 'SELECT s.source, s.entity, s.pending FROM pymig.status AS s', 'keys', 100000, '15 minutes',
        'Run another worker, or find what this one waits for.'),
    ('rows quarantined', 'WARNING', 'SELECT q.source, q.entity, count(*) FROM pymig.quarantine AS q GROUP BY q.source, q.entity', 'rows', 0, '0',
        'SELECT * FROM pymig.quarantine has the rows and the reasons.'),
    ('history throttled', 'WARNING', 'SELECT NULL, NULL, count(*) FROM pymig.throttle AS t WHERE t.is_over AND t.condition <> ''maintenance window''', 'conditions', 0, '1 hour',
        'SELECT * FROM pymig.throttle says by what, and what to do.'),
    ('disk nearly full', 'WARNING', 'SELECT NULL, NULL, t.value FROM pymig.throttle AS t WHERE t.condition = ''disk used'' AND t.checked_at > clock_timestamp() - interval ''10 minutes''', '%', 90, '0',
        'Make room where the server keeps its data; history waits at the limit of the throttle.'),
    ('no worker alive', 'CRITICAL', 'SELECT NULL, NULL, count(*) FROM pymig.entity AS e WHERE e.wide_table IS NOT NULL AND pymig.workers_alive() = 0', 'ships without one', 0, '1 minute',
        'Start pymig worker, or look at its log: changes wait in the queue, nothing is lost.');

CREATE TABLE pymig.alert_state (
    alert text NOT NULL REFERENCES pymig.alert ON UPDATE CASCADE ON DELETE CASCADE,
    source text,
    entity text,
    value double precision NOT NULL,
    over_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    told_value double precision,
    UNIQUE NULLS NOT DISTINCT (alert, source, entity)
);
COMMENT ON TABLE pymig.alert_state IS 'What is over a limit of pymig.alert just now.';
COMMENT ON COLUMN pymig.alert_state.alert IS 'By which rule.';
COMMENT ON COLUMN pymig.alert_state.source IS 'Of which source; NULL: of all of pymig.';
COMMENT ON COLUMN pymig.alert_state.entity IS 'Of which entity.';
COMMENT ON COLUMN pymig.alert_state.value IS 'As measured last.';
COMMENT ON COLUMN pymig.alert_state.over_since IS 'Since when.';
COMMENT ON COLUMN pymig.alert_state.told_value IS 'The number its last event told; NULL: none was written yet.';

CREATE TABLE pymig.alert_target (
    target text,
    level text CHECK (level IN ('INFO', 'WARNING', 'CRITICAL')),
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (target, level)
);
COMMENT ON TABLE pymig.alert_target IS 'Whom pymig notify tells of events of which level. Addresses and passwords are not here, but in its configuration file.';
COMMENT ON COLUMN pymig.alert_target.target IS 'A digest of its address, or log.';
COMMENT ON COLUMN pymig.alert_target.level IS 'Level of the events it gets.';
COMMENT ON COLUMN pymig.alert_target.since IS 'Events from before are not told.';

CREATE TABLE pymig.told (
    target text,
    level text,
    event bigint,
    told_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (target, level, event),
    FOREIGN KEY (target, level) REFERENCES pymig.alert_target ON DELETE CASCADE
);
COMMENT ON TABLE pymig.told IS 'Events a target was told, for a week. One by one: an event of a long transaction shows up after younger ones.';
COMMENT ON COLUMN pymig.told.target IS 'Target.';
COMMENT ON COLUMN pymig.told.level IS 'Level.';
COMMENT ON COLUMN pymig.told.event IS 'Event.';
COMMENT ON COLUMN pymig.told.told_at IS 'When the message had left.';

CREATE TYPE pymig.cells_text AS (cells text[]);
CREATE TYPE pymig.cells_float8 AS (cells float8[]);
CREATE TYPE pymig.cells_int8 AS (cells int8[]);
CREATE TYPE pymig.cells_bool AS (cells bool[]);
CREATE TYPE pymig.cells_numeric AS (cells numeric[]);
CREATE TYPE pymig.cells_jsonb AS (cells jsonb[]);
COMMENT ON TYPE pymig.cells_text IS 'The cells of one channel of this type: arrays of different lengths make no array, rows with one array each do.';
COMMENT ON TYPE pymig.cells_float8 IS 'The cells of one channel of this type: arrays of different lengths make no array, rows with one array each do.';
COMMENT ON TYPE pymig.cells_int8 IS 'The cells of one channel of this type: arrays of different lengths make no array, rows with one array each do.';
COMMENT ON TYPE pymig.cells_bool IS 'The cells of one channel of this type: arrays of different lengths make no array, rows with one array each do.';
COMMENT ON TYPE pymig.cells_numeric IS 'The cells of one channel of this type: arrays of different lengths make no array, rows with one array each do.';
COMMENT ON TYPE pymig.cells_jsonb IS 'The cells of one channel of this type: arrays of different lengths make no array, rows with one array each do.';
CREATE AGGREGATE pymig._array_agg(anycompatible) (SFUNC = pg_catalog.array_append, STYPE = anycompatiblearray, INITCOND = '{}');
COMMENT ON AGGREGATE pymig._array_agg(anycompatible) IS
    'Like array_agg, for few large values: array_append makes the array in which they are read, where array_agg copies them into another at the end. No row makes an empty array.';
CREATE TYPE pymig.planned_channel AS (channel text, part int, wide_column text, column_type text);
COMMENT ON TYPE pymig.planned_channel IS 'A channel as plan() would lay it out.';
