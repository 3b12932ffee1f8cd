SET LOCAL check_function_bodies = off;

-- sql/core/functions/_add_channels.sql
CREATE OR REPLACE FUNCTION pymig._add_channels(p_source pymig.source, p_entity text)
RETURNS int
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_entity pymig.entity;
    v_channels text[];
    v_columns text[];
    v_types text[];
    v_kinds text[];
    v_parts int[];
    v_added int;
    v_last int;
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM pymig._lock_entity(p_source.source, p_entity, p_exclusive => true);
    -- Whoever reads a wide table holds up ADD COLUMN; while it waits new readers wait too, so it soon gives way and is tried again.
    PERFORM set_config('lock_timeout', '300ms', true);
    v_entity := pymig._entity(p_source.source, p_entity);
    WITH found AS MATERIALIZED (
        SELECT d.* FROM pymig._discover_channels(p_source, p_entity, true) AS d
        WHERE NOT EXISTS (SELECT FROM pymig.channel AS c WHERE c.source = p_source.source AND c.entity = p_entity AND c.channel = d.channel)
    )
    SELECT array_agg(f.channel ORDER BY f.channel COLLATE "C"), array_agg(n.wide_column ORDER BY f.channel COLLATE "C"),
        array_agg(pymig._native_type(f.kinds, v_entity.column_types) ORDER BY f.channel COLLATE "C"),
        array_agg(pymig._channel_kind(f.kinds) ORDER BY f.channel COLLATE "C")
    INTO v_channels, v_columns, v_types, v_kinds
    FROM found AS f
    JOIN pymig._column_names(p_source, (SELECT array_agg(f.channel) FROM found AS f), ARRAY(
        SELECT c.wide_column FROM pymig.channel AS c WHERE c.source = p_source.source AND c.entity = p_entity
        UNION ALL
        SELECT m.wide_column FROM pymig.promotion AS m WHERE m.source = p_source.source AND m.entity = p_entity
        UNION ALL
        -- A column somebody added is theirs.
        SELECT a.attname::text FROM pymig.part AS p
        JOIN pg_attribute AS a ON a.attrelid = to_regclass(format('%I.%I', p_source.wide_schema, p.wide_table)) AND a.attnum > 0 AND NOT a.attisdropped
        WHERE p.source = p_source.source AND p.entity = p_entity)) AS n USING (channel);
    v_added := coalesce(cardinality(v_channels), 0);
    IF v_added = 0 THEN
        RETURN 0;
    END IF;
    v_last := pymig._last_ord(p_source.source, p_entity);
    v_parts := pymig._deal_columns(p_source, p_entity, v_types);
    PERFORM pymig._add_parts(p_source, p_entity, v_parts[v_added]);
    -- Columns of a new part are as old as it is; what is appended to an old part is younger.
    INSERT INTO pymig.channel (source, entity, channel, ord, part, wide_column, column_type, kind)
    SELECT p_source.source, p_entity, u.channel, v_last + u.i, u.part, u.wide_column, u.column_type, u.kind
    FROM unnest(v_channels, v_columns, v_types, v_kinds, v_parts) WITH ORDINALITY AS u (channel, wide_column, column_type, kind, part, i);
    PERFORM pymig._add_missing_columns(p_source, p_entity);
    PERFORM pymig._note('INFO', p_source.source, p_entity, 'channels added', format('%s new channels got their columns.', v_added));
    RETURN v_added;
END
$$;
COMMENT ON FUNCTION pymig._add_channels(pymig.source, text) IS
    'Gives every channel that has none a column, in the last part with room or in new ones: all of them in one transaction, one ALTER TABLE a part. Returns how many. 55P03 where a long reader holds the wide table: try again.';

-- sql/core/functions/_add_missing_columns.sql
CREATE OR REPLACE FUNCTION pymig._add_missing_columns(p_source pymig.source, p_entity text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := (SELECT e.wide_table FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity);
    v_table regclass := to_regclass(format('%I.%I', p_source.wide_schema, v_name));
    v_is_split boolean := (SELECT count(*) > 1 FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity);
    v_grants text[] := pymig._read_grants(p_source, p_entity);
    v_grant text;
    r_part record;
BEGIN
    -- New parts come first, complete and with a row for every time: until that is done no reader is in the way, and none waits.
    FOR r_part IN
        SELECT p.part, p.wide_table FROM pymig.part AS p
        WHERE p.source = p_source.source AND p.entity = p_entity AND p.part > 1
          AND to_regclass(format('%I.%I', p_source.wide_schema, p.wide_table)) IS NULL
        ORDER BY p.part
    LOOP
        PERFORM pymig._create_part(p_source, p_entity, r_part.wide_table, pymig._column_definitions(p_source.source, p_entity, r_part.part));
        PERFORM pymig._add_months(p_source, p_entity);
        PERFORM set_config('pymig.writes_wide', 'on', true);
        EXECUTE format('INSERT INTO %1$I.%2$I (%4$I) SELECT p.%4$I FROM %1$I.%3$I AS p', p_source.wide_schema, r_part.wide_table,
            CASE WHEN to_regclass(format('%I.%I', p_source.wide_schema, v_name || '_1')) IS NULL THEN v_name ELSE v_name || '_1' END,
            p_source.time_column);
        PERFORM set_config('pymig.writes_wide', 'off', true);
    END LOOP;
    IF v_is_split THEN
        IF (SELECT c.relkind IN ('r', 'p') FROM pg_class AS c WHERE c.oid = v_table) THEN
            EXECUTE format('ALTER TABLE %s RENAME TO %I', v_table, v_name || '_1');
        END IF;
    END IF;
    FOR r_part IN
        SELECT p.wide_table, string_agg(format('ADD COLUMN %I %s', c.wide_column, c.column_type), ', ' ORDER BY c.ord) AS columns
        FROM pymig.part AS p
        JOIN (
            SELECT c.source, c.entity, c.part, c.ord, c.wide_column, c.column_type FROM pymig.channel AS c
            UNION ALL
            SELECT m.source, m.entity, m.part, m.ord, m.wide_column, m.column_type FROM pymig.promotion AS m
        ) AS c USING (source, entity, part)
        WHERE p.source = p_source.source AND p.entity = p_entity AND NOT EXISTS (
            SELECT FROM pg_attribute AS a
            WHERE a.attrelid = format('%I.%I', p_source.wide_schema, p.wide_table)::regclass AND a.attname = c.wide_column AND NOT a.attisdropped)
        GROUP BY p.part, p.wide_table
        ORDER BY p.part
    LOOP
        EXECUTE format('ALTER TABLE %I.%I %s', p_source.wide_schema, r_part.wide_table, r_part.columns);
    END LOOP;
    PERFORM pymig._note_columns(p_source, p_entity);
    IF v_is_split THEN
        PERFORM pymig._create_parts_view(p_source, p_entity);
        FOREACH v_grant IN ARRAY v_grants LOOP
            EXECUTE v_grant;
        END LOOP;
    END IF;
    PERFORM pymig._create_rw_views(p_source, p_entity);
    PERFORM pymig._create_compat_view(p_source.source, p_entity);
END
$$;
COMMENT ON FUNCTION pymig._add_missing_columns(pymig.source, text) IS
    'Makes what the catalog has and the wide tables have not: new parts, then columns, one ALTER TABLE a part. With the second part the entity''s table becomes <name>_1 and its name the view over all parts.';

-- sql/core/functions/_add_months.sql
CREATE OR REPLACE FUNCTION pymig._add_months(p_source pymig.source, p_entity text, p_first_bucket bigint DEFAULT NULL, p_last_bucket bigint DEFAULT NULL)
RETURNS int
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_first_tick bigint := pymig._first_tick_of(p_source, p_first_bucket);
    v_last_tick bigint := pymig._last_tick_of(p_source, p_last_bucket);
    v_added int := 0;
    v_options text;
    r_month record;
BEGIN
    IF NOT (pymig._entity(p_source.source, p_entity)).is_monthly THEN
        RETURN 0;
    END IF;
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM pymig._lock_entity(p_source.source, p_entity, p_exclusive => false);
    PERFORM pg_advisory_xact_lock(pymig._lock_key('months', p_source.source, p_entity));
    -- Neither readers nor recomputes are in the way of ATTACH PARTITION; VACUUM and ANALYZE are.
    PERFORM set_config('lock_timeout', '300ms', true);
    FOR r_month IN
        WITH found AS MATERIALIZED (SELECT w.* FROM pymig._wide_months(p_source, p_entity) AS w)
        SELECT p.wide_table, m.label, m.from_sql, m.to_sql
        FROM pymig.part AS p CROSS JOIN (
            SELECT m.* FROM pymig._months(p_source, v_first_tick, v_last_tick) AS m
            UNION
            SELECT m.* FROM found AS f CROSS JOIN LATERAL pymig._months(p_source, f.first_tick, f.first_tick) AS m
        ) AS m
        -- Parts that are still to come get theirs as they do.
        WHERE p.source = p_source.source AND p.entity = p_entity AND to_regclass(format('%I.%I', p_source.wide_schema, p.wide_table)) IS NOT NULL
          AND NOT EXISTS (SELECT FROM found AS f WHERE f.wide_table = p.wide_table AND f.from_sql = m.from_sql)
        ORDER BY p.part, m.label
    LOOP
        -- A new month is kept as the others are.
        v_options := coalesce(v_options, (
            SELECT array_to_string(c.reloptions, ', ') FROM pymig._wide_months(p_source, p_entity) AS w JOIN pg_class AS c ON c.oid = w.partition
            WHERE w.wide_table = r_month.wide_table ORDER BY w.first_tick DESC LIMIT 1));
        PERFORM pymig._create_month(p_source, p_entity, r_month.wide_table, r_month.label, r_month.from_sql, r_month.to_sql, v_options);
        v_added := v_added + 1;
    END LOOP;
    RETURN v_added;
END
$$;
COMMENT ON FUNCTION pymig._add_months(pymig.source, text, bigint, bigint) IS
    'Gives the wide tables of an entity that are partitioned the months of a run of buckets which they lack, and each of them the months that another has. Returns how many. 55P03 while VACUUM holds one: try again.';

-- sql/core/functions/_add_parts.sql
CREATE OR REPLACE FUNCTION pymig._add_parts(p_source pymig.source, p_entity text, p_parts int)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := (SELECT e.wide_table FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity);
    v_last int := (SELECT max(p.part) FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity);
BEGIN
    IF p_parts > v_last THEN
        UPDATE pymig.part AS p SET wide_table = v_name || '_1' WHERE p.source = p_source.source AND p.entity = p_entity AND p.part = 1;
        INSERT INTO pymig.part (source, entity, part, wide_table)
        SELECT p_source.source, p_entity, g.part, v_name || '_' || g.part FROM generate_series(v_last + 1, p_parts) AS g (part);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._add_parts(pymig.source, text, int) IS
    'Adds parts to the catalog up to this number. _add_missing_columns then makes the tables. The caller holds the entity exclusively.';

-- sql/core/functions/_add_promotions.sql
CREATE OR REPLACE FUNCTION pymig._add_promotions(p_source pymig.source, p_entity text, p_channels text[], p_types text[])
RETURNS int
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_added int := coalesce(cardinality(p_channels), 0);
    v_parts int[];
    v_last int := pymig._last_ord(p_source.source, p_entity);
BEGIN
    IF v_added = 0 THEN
        RETURN 0;
    END IF;
    v_parts := pymig._deal_columns(p_source, p_entity, p_types);
    PERFORM pymig._add_parts(p_source, p_entity, v_parts[v_added]);
    INSERT INTO pymig.promotion (source, entity, channel, ord, part, wide_column, column_type)
    SELECT p_source.source, p_entity, u.channel, v_last + u.i, u.part,
        format('promoted_%s_%s', v_last + u.i, md5(u.channel)), u.column_type
    FROM unnest(p_channels, p_types, v_parts) WITH ORDINALITY AS u (channel, column_type, part, i);
    PERFORM pymig._add_missing_columns(p_source, p_entity);
    PERFORM pymig._note('INFO', p_source.source, p_entity, 'promotion begun',
        (SELECT string_agg(format('%s becomes %s', quote_literal(u.channel), u.column_type), '; ') FROM unnest(p_channels, p_types) AS u (channel, column_type)));
    RETURN v_added;
END
$$;
COMMENT ON FUNCTION pymig._add_promotions(pymig.source, text, text[], text[]) IS
    'Adds a new, empty column beside each of these channels'' own. From the commit on every recompute fills both. The caller holds the entity exclusively.';

-- sql/core/functions/_age_tick.sql
CREATE OR REPLACE FUNCTION pymig._age_tick(p_source pymig.source, p_entity text, p_age interval)
RETURNS bigint
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_now numeric := pymig._now_tick(p_source);
    v_newest bigint;
BEGIN
    EXECUTE format('SELECT pymig.tick_of(max(w.%1$I)) FROM %2$I.%3$I AS w WHERE w.%1$I < %4$L::%5$s',
        p_source.time_column, p_source.wide_schema,
        (SELECT p.wide_table FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity AND p.part = 1),
        pymig.time_text(9223372036854775807, p_source.time_type), p_source.time_type)
    INTO v_newest;
    -- A ship that has been silent for a week keeps its last days; a row from the future does not make all others old.
    RETURN (least(v_newest, v_now) - CASE WHEN p_age > interval '0'
        THEN pymig._ticks_of(p_age, p_source.time_type, p_source.time_unit) ELSE 0 END)::bigint;
END
$$;
COMMENT ON FUNCTION pymig._age_tick(pymig.source, text, interval) IS
    'The tick that lies so long before an entity''s newest wide row, or before now if that is earlier.';

-- sql/core/functions/_analyze_layout.sql
CREATE OR REPLACE FUNCTION pymig._analyze_layout(
    p_source pymig.source, p_entity text, p_layout jsonb, OUT item text, OUT level text, OUT value text, OUT advice text, OUT detail jsonb)
RETURNS SETOF record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_rows bigint := pymig._estimate_rows(p_source, p_entity);
    v_bounds record;
    v_now bigint := pymig.bucket_of(floor(pymig._now_tick(p_source))::bigint, p_source.bucket_ticks);
BEGIN
    v_bounds := pymig._discover_bounds(p_source, p_entity);
    RETURN QUERY
    SELECT 'rows', 'green', format('about %s', to_char(v_rows, 'FM999,999,999,999,990')), NULL, jsonb_build_object('rows', v_rows)
    UNION ALL
    SELECT 'times', CASE WHEN v_bounds.last_bucket > v_now + 1 OR v_bounds.first_bucket = -9223372036854775808 THEN 'yellow' ELSE 'green' END,
        format('%s to %s', pymig._bucket_start(p_source, v_bounds.first_bucket), pymig._bucket_end(p_source, v_bounds.last_bucket)),
        CASE WHEN v_bounds.last_bucket > v_now + 1 THEN 'Some rows are of the future. They are migrated as all others: look at the clock of who writes them.'
             WHEN v_bounds.first_bucket = -9223372036854775808 THEN 'Some rows are of time -infinity. They are migrated as all others.' END,
        jsonb_build_object('first', pymig._bucket_start(p_source, v_bounds.first_bucket), 'last', pymig._bucket_end(p_source, v_bounds.last_bucket))
    WHERE v_bounds.first_bucket IS NOT NULL
    UNION ALL
    SELECT 'channels', CASE WHEN p_layout IS NULL THEN 'yellow' ELSE 'green' END,
        CASE WHEN p_layout IS NULL THEN 'not looked for' WHEN c.channels = 0 THEN 'none' ELSE format('%s in %s wide table%s: %s', c.channels, c.parts, CASE WHEN c.parts > 1 THEN 's' END, t.types) END,
        CASE WHEN p_layout IS NULL THEN 'Finding them means reading the whole table: p_allow_scan, --allow-scan.' END,
        CASE WHEN p_layout IS NOT NULL THEN jsonb_build_object('channels', c.channels, 'parts', c.parts, 'types', t.types_by_name) END
    FROM (SELECT count(*) AS channels, count(DISTINCT l.part) AS parts FROM jsonb_to_recordset(p_layout) AS l (part int)) AS c
    CROSS JOIN (
        SELECT string_agg(format('%s %s', k.n, k.kind), ', ' ORDER BY k.n DESC, k.kind) AS types, jsonb_object_agg(k.kind, k.n) AS types_by_name
        FROM (SELECT coalesce(l.kind, 'without values') AS kind, count(*) AS n FROM jsonb_to_recordset(p_layout) AS l (kind text) GROUP BY 1) AS k
    ) AS t;
END
$$;
COMMENT ON FUNCTION pymig._analyze_layout(pymig.source, text, jsonb) IS
    'The rows of pymig.analyze about an entity as a whole: rows by estimate, first and last time, channels and the types of what they send.';

-- sql/core/functions/_analyze_quality.sql
CREATE OR REPLACE FUNCTION pymig._analyze_quality(
    p_source pymig.source, p_entity text, p_layout jsonb, p_sample int, p_share double precision, p_most bigint, p_until timestamptz,
    OUT item text, OUT level text, OUT value text, OUT advice text, OUT detail jsonb)
RETURNS SETOF record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    c_shown constant int := 5;
    v_channels text[] := ARRAY(SELECT l.channel FROM jsonb_to_recordset(p_layout) AS l (channel text));
    v_picked record;
BEGIN
    v_picked := pymig._pick_buckets(p_source, p_entity,
        pymig.bucket_of(pymig._newest_tick(p_source, p_entity, v_channels), p_source.bucket_ticks), p_sample);
    RETURN QUERY
    WITH seen AS MATERIALIZED (
        SELECT l.* FROM pymig._look_at_buckets(p_source, p_entity, p_layout, v_picked.buckets, p_share, p_most, p_until) AS l
    ),
    total AS (
        SELECT coalesce(sum(s.rows) FILTER (WHERE s.finding IN ('rows', 'duplicate', 'no_time')), 0) AS rows, count(DISTINCT s.bucket) AS buckets,
            coalesce(v_picked.is_all AND p_share >= 1 AND count(DISTINCT s.bucket) = cardinality(v_picked.buckets)
                AND max(s.rows) < p_most, true) AS is_all
        FROM seen AS s
    ),
    finding AS (
        SELECT j.item, j.reason, j.advice, sum(s.rows) AS rows,
            (SELECT array_agg(DISTINCT c.c ORDER BY c.c) FROM seen AS o CROSS JOIN unnest(o.channels) AS c (c)
             WHERE (o.finding, o.column_type, o.kind) IS NOT DISTINCT FROM (s.finding, s.column_type, s.kind)) AS channels,
            (SELECT array_agg(DISTINCT f.f ORDER BY f.f) FROM seen AS o CROSS JOIN unnest(o.formats) AS f (f) WHERE o.finding = s.finding) AS formats
        FROM seen AS s CROSS JOIN LATERAL pymig._judge_finding(s.finding, s.column_type, s.kind) AS j
        WHERE s.finding <> 'rows'
        GROUP BY s.finding, s.column_type, s.kind, j.item, j.reason, j.advice
    ),
    -- The rows that would go to quarantine, all reasons together.
    bad AS (SELECT coalesce(sum(f.rows), 0) AS rows FROM finding AS f WHERE f.reason IS NOT NULL)
    SELECT 'data quality', CASE WHEN b.rows = 0 THEN 'green' WHEN b.rows > 0.1 * t.rows THEN 'red' ELSE 'yellow' END,
        format('%s of %s rows looked at would go to quarantine (%s)', to_char(b.rows, 'FM999,999,999,990'), to_char(t.rows, 'FM999,999,999,990'),
            CASE WHEN t.is_all THEN 'all there are' WHEN p_share >= 1 THEN format('%s whole buckets', t.buckets) ELSE format('parts of %s buckets', t.buckets) END),
        CASE WHEN b.rows = 0 THEN NULL WHEN b.rows > 0.1 * t.rows THEN 'One in ten or more: look at how the source is registered, and at who writes such rows, first.'
             ELSE 'The lines below say which and why. Quarantine keeps each with its reason; its cell is NULL.' END,
        jsonb_build_object('rows', t.rows, 'quarantined', b.rows, 'buckets', t.buckets, 'is_all', t.is_all)
    FROM total AS t CROSS JOIN bad AS b
    UNION ALL
    (SELECT f.item, CASE WHEN f.reason IS NOT NULL AND f.rows > 0.1 * t.rows THEN 'red' ELSE 'yellow' END,
        format('%s rows (%s %%)%s%s', to_char(f.rows, 'FM999,999,999,990'), to_char(100.0 * f.rows / t.rows, 'FM990.0999'),
            CASE WHEN cardinality(f.channels) > 0 THEN format(', channel%s %s%s', CASE WHEN cardinality(f.channels) > 1 THEN 's' END,
                array_to_string(f.channels[1:c_shown], ', '), CASE WHEN cardinality(f.channels) > c_shown THEN ', …' END) END,
            '; formats: ' || array_to_string(f.formats, ', ')),
        f.advice, jsonb_strip_nulls(jsonb_build_object('reason', f.reason, 'rows', f.rows, 'of', t.rows, 'channels', to_jsonb(f.channels), 'formats', to_jsonb(f.formats)))
     FROM finding AS f CROSS JOIN total AS t
     ORDER BY f.reason IS NULL, f.rows DESC, f.item);
END
$$;
COMMENT ON FUNCTION pymig._analyze_quality(pymig.source, text, jsonb, int, double precision, bigint, timestamptz) IS
    'The rows of pymig.analyze about the data: what would go to quarantine and what else is worth knowing, in a sample of an entity''s buckets.';

-- sql/core/functions/_analyze_volume.sql
CREATE OR REPLACE FUNCTION pymig._analyze_volume(
    p_source pymig.source, p_entity text, p_layout jsonb, p_most bigint, p_until timestamptz,
    OUT item text, OUT level text, OUT value text, OUT advice text, OUT detail jsonb)
RETURNS SETOF record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_channels text[] := ARRAY(SELECT l.channel FROM jsonb_to_recordset(p_layout) AS l (channel text));
    v_newest bigint := pymig._newest_tick(p_source, p_entity, v_channels);
    v_ticks bigint := pymig._ticks_of('1 hour', p_source.time_type, p_source.time_unit);
    v_week numeric := pymig._ticks_of('7 days', p_source.time_type, p_source.time_unit);
    v_unit text := CASE WHEN p_source.time_type = 'date' THEN 'day' ELSE 'hour' END;
    v_hours jsonb;
    v_before bigint;
    v_bytes numeric := (SELECT pymig._table_bytes(p_source.narrow) / nullif(t.tuples, 0) FROM pymig._narrow_tuples(p_source.narrow) AS t);
BEGIN
    IF v_newest IS NULL THEN
        RETURN QUERY SELECT format('rows per %s', v_unit), 'yellow', 'none up to now', 'It has no rows, or all are of the future or without a time: look at the clock of who writes them.', NULL::jsonb;
        RETURN;
    END IF;
    v_hours := (SELECT jsonb_agg(jsonb_build_object('ends', h.ends, 'rows', h.rows) ORDER BY h.hour DESC)
                FROM pymig._count_hours(p_source, p_entity, v_channels, v_newest, p_most, p_until) AS h);
    v_before := pymig._count_rows(p_source, p_entity, v_channels, v_newest - v_week - v_ticks + 1, v_newest - v_week, p_most);
    RETURN QUERY
    WITH h AS (
        SELECT count(*) AS hours, sum(h.rows) AS rows, min(h.rows) AS fewest, max(h.rows) AS most, (v_hours -> -1 ->> 'rows')::bigint AS newest,
            bool_or(h.rows >= p_most) AS is_cut, CASE WHEN v_unit = 'hour' THEN 24 ELSE 1 END * sum(h.rows) / count(*) AS a_day
        FROM jsonb_to_recordset(v_hours) AS h (rows bigint)
    )
    SELECT format('rows per %s', v_unit), CASE WHEN h.hours < 24 OR h.is_cut THEN 'yellow' ELSE 'green' END,
        format('%s%s in each of %s %ss up to the newest row (%s)', CASE WHEN h.is_cut THEN 'at least ' END,
            concat_ws(' to ', to_char(nullif(h.fewest, h.most), 'FM999,999,999,990'), to_char(h.most, 'FM999,999,999,990')), CASE WHEN h.hours < 24 THEN h.hours || ' of the 24' ELSE 'the 24' END, v_unit, pymig.time_text(v_newest, p_source.time_type)),
        CASE WHEN h.is_cut THEN format('Counting ended at %s rows of each.', to_char(p_most, 'FM999,999,999,990'))
             WHEN h.hours < 24 THEN 'The time was up before all were counted: p_budget, --budget.' END,
        jsonb_build_object('unit', v_unit, 'hours', v_hours)
    FROM h
    UNION ALL
    SELECT 'growth', CASE WHEN g.growth > 1.5 THEN 'yellow' ELSE 'green' END,
        format('about %s rows a day%s%s', to_char(h.a_day, 'FM999,999,999,999,990'), ', ' || pg_size_pretty(h.a_day * v_bytes) || ' of the narrow table',
            CASE WHEN v_before = 0 THEN '; none a week before' ELSE format('; %s %% against the same %s a week before', to_char(100 * (g.growth - 1), 'FMSG999,990'), v_unit) END),
        CASE WHEN g.growth > 1.5 THEN 'It grows fast: give disks and limits room for what comes while history moves.' END,
        jsonb_build_object('rows_a_day', round(h.a_day), 'newest', h.newest, 'week_before', v_before)
    FROM h CROSS JOIN LATERAL (SELECT h.newest / nullif(v_before, 0)::numeric) AS g (growth);
END
$$;
COMMENT ON FUNCTION pymig._analyze_volume(pymig.source, text, jsonb, bigint, timestamptz) IS
    'The rows of pymig.analyze about how much comes: rows of each hour of the last day, and growth against a week before.';

-- sql/core/functions/_begin_finalize.sql
CREATE OR REPLACE FUNCTION pymig._begin_finalize(p_source pymig.source, p_entity pymig.entity, p_keep interval, p_archive boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_keep IS NULL OR p_keep < interval '0' THEN
        RAISE EXCEPTION 'narrow rows can''t be kept for %', quote_nullable(p_keep)
            USING ERRCODE = 'PM007', HINT = 'Give an interval, say 2 days: what is older is retired.';
    ELSIF p_entity.state NOT IN ('cut_over', 'finalized') THEN
        RAISE EXCEPTION '% is % and can be finalized once it is cut over', quote_literal(p_entity.entity), p_entity.state
            USING ERRCODE = 'PM004', HINT = format('CALL pymig.cut_over(%L) first.', p_entity.entity);
    ELSIF p_source.grain_ticks IS NOT NULL THEN
        RAISE EXCEPTION 'narrow rows can''t be retired with a time grain: a late one would change a row whose others are gone'
            USING ERRCODE = 'PM065', HINT = 'Keep them, or detach their partition.';
    END IF;
    PERFORM pymig._require_certificate(p_source, p_entity);
    IF p_archive THEN
        PERFORM pymig._create_archive(p_source);
    END IF;
    PERFORM pymig._lock_entity(p_source.source, p_entity.entity, p_exclusive => false);
    UPDATE pymig.entity AS e SET state = 'finalized', keep_narrow = p_keep, is_archived = p_archive,
        state_changed_at = CASE e.state WHEN 'finalized' THEN e.state_changed_at ELSE now() END
    WHERE e.source = p_source.source AND e.entity = p_entity.entity AND (e.state, e.keep_narrow, e.is_archived) IS DISTINCT FROM ('finalized', p_keep, p_archive);
    IF FOUND THEN
        PERFORM pymig._set_routing(p_source.source, p_entity.entity, 'wide');
        PERFORM pymig._note('INFO', p_source.source, p_entity.entity, 'finalized',
            format('Its narrow rows older than %s are %s.', p_keep, CASE WHEN p_archive THEN 'archived' ELSE 'deleted' END));
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._begin_finalize(pymig.source, pymig.entity, interval, boolean) IS
    'First step of finalize: state, archive table, routing. PM004, PM007, PM040, PM065.';

-- sql/core/functions/_begin_promotions.sql
CREATE OR REPLACE FUNCTION pymig._begin_promotions(p_source pymig.source, p_entity text)
RETURNS int
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    -- The latest rows of a channel tell what it has become; what only older ones have is promoted next time.
    c_sample constant int := 100;
    v_channels text[];
    v_types text[];
BEGIN
    EXECUTE format(
        'SELECT array_agg(c.channel ORDER BY c.channel), array_agg(pymig._promoted_type(c.column_type, k.kinds) ORDER BY c.channel)
         FROM pymig.channel AS c
         CROSS JOIN LATERAL (
             SELECT array_agg(DISTINCT %1$s) AS kinds
             FROM (SELECT q.narrow_row FROM pymig.quarantine AS q
                   WHERE q.source = c.source AND q.entity = c.entity AND q.channel = c.channel AND q.reason = ''type_mismatch'' AND NOT q.is_kept
                   ORDER BY q.quarantine DESC LIMIT %2$s) AS q
             CROSS JOIN LATERAL jsonb_populate_record(NULL::%3$s, q.narrow_row) AS n) AS k
         WHERE c.source = $1 AND c.entity = $2 AND k.kinds IS NOT NULL
           AND NOT EXISTS (SELECT FROM pymig.promotion AS m WHERE m.source = c.source AND m.entity = c.entity AND m.channel = c.channel)',
        pymig._cell_kind_sql(p_source), c_sample, p_source.narrow)
    INTO v_channels, v_types
    USING p_source.source, p_entity;
    RETURN pymig._add_promotions(p_source, p_entity, v_channels, v_types);
END
$$;
COMMENT ON FUNCTION pymig._begin_promotions(pymig.source, text) IS
    'Begins to promote every column that has values in quarantine because of its type. Returns how many.';

-- sql/core/functions/_begin_restore.sql
CREATE OR REPLACE FUNCTION pymig._begin_restore(p_source pymig.source, p_entity pymig.entity)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- First of all, so that no worker retires what comes back.
    PERFORM pymig._lock_entity(p_source.source, p_entity.entity, p_exclusive => true);
    UPDATE pymig.entity AS e SET state = 'cut_over', keep_narrow = NULL, state_changed_at = now()
    WHERE e.source = p_source.source AND e.entity = p_entity.entity AND e.state = 'finalized';
    IF FOUND THEN
        PERFORM pymig._note('INFO', p_source.source, p_entity.entity, 'restore begun', 'Its narrow rows come back.');
    ELSIF p_entity.state <> 'cut_over' THEN
        -- One that is cut over has been restored, or never was finalized: nothing to do either way.
        RAISE EXCEPTION '% is %, so none of its narrow rows were retired', quote_literal(p_entity.entity), p_entity.state
            USING ERRCODE = 'PM004', HINT = 'Only what finalize retired can be restored.';
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._begin_restore(pymig.source, pymig.entity) IS 'First step of restore_narrow: nothing more of the entity is retired. PM004 where nothing can have been.';

-- sql/core/functions/_blockers.sql
CREATE OR REPLACE FUNCTION pymig._blockers(p_source pymig.source, p_channels int)
RETURNS SETOF text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT b.value
    FROM pymig._index_paths(p_source.narrow, p_source.entity_column, p_source.channel_column, p_source.time_column) AS i
    CROSS JOIN LATERAL (VALUES
        (NOT (has_table_privilege(p_source.narrow, 'SELECT') AND has_table_privilege(p_source.narrow, 'TRIGGER')),
         format('Role %s may not read %s and create triggers on it.', current_user, p_source.narrow)),
        (NOT has_schema_privilege(p_source.wide_schema, 'CREATE'),
         format('Role %s may not create tables in schema %I.', current_user, p_source.wide_schema)),
        (NOT pg_has_role(current_user, (SELECT c.relowner FROM pg_class AS c WHERE c.oid = p_source.narrow), 'USAGE'),
         format('Role %s does not own %s, and only its owner can enable triggers always.', current_user, p_source.narrow)),
        (EXISTS (SELECT FROM pymig._partition_tree(p_source) AS t JOIN pg_class AS c ON c.oid = t.relation
                 WHERE NOT pg_has_role(current_user, c.relowner, 'USAGE')),
         format('Role %s does not own all partitions of %s.', current_user, p_source.narrow)),
        (p_source.reads_by_key AND NOT i.reads_by_key,
         format('The index on (%I, %I, %I) is gone since the source was registered.', p_source.entity_column, p_source.channel_column, p_source.time_column)),
        (p_source.reads_by_time AND NOT i.reads_by_time,
         format('The index that leads with %I is gone since the source was registered.', p_source.time_column)),
        (p_source.is_unique AND NOT i.is_unique,
         'The unique key is gone since the source was registered, and no tie-break says which of two rows would count.'),
        (p_channels = 0, 'It has no channels.')
    ) AS b (holds, value)
    WHERE b.holds
$$;
COMMENT ON FUNCTION pymig._blockers(pymig.source, int) IS 'What stands in the way of a migration, a sentence each.';

-- sql/core/functions/_bound_tick.sql
CREATE OR REPLACE FUNCTION pymig._bound_tick(p_bound text, p_time_type text, p_is_upper boolean)
RETURNS bigint
LANGUAGE sql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
    SELECT CASE
        WHEN p_bound IS NULL THEN NULL
        WHEN p_bound = 'MINVALUE' THEN (-9223372036854775808)::bigint
        WHEN p_bound = 'MAXVALUE' THEN 9223372036854775807::bigint
        ELSE b.tick - (p_is_upper AND b.tick NOT IN (9223372036854775807, -9223372036854775808))::int
    END
    FROM (
        SELECT CASE p_time_type
            WHEN 'bigint' THEN nullif(btrim(v.value, ''''), '')::bigint
            WHEN 'date' THEN pymig.tick_of(btrim(v.value, '''')::date)
            WHEN 'timestamp with time zone' THEN pymig.tick_of(btrim(v.value, '''')::timestamptz)
            ELSE pymig.tick_of(btrim(v.value, '''')::timestamp) END AS tick
        FROM (SELECT CASE WHEN p_bound NOT IN ('MINVALUE', 'MAXVALUE') THEN p_bound END AS value) AS v
    ) AS b
$$;
COMMENT ON FUNCTION pymig._bound_tick(text, text, boolean) IS
    'Bound of a partition as pg_get_expr prints it -> first or (p_is_upper: the bound is exclusive) last tick of the partition.';

-- sql/core/functions/_bucket_end.sql
CREATE OR REPLACE FUNCTION pymig._bucket_end(p_source pymig.source, p_bucket bigint)
RETURNS text
LANGUAGE sql
STABLE
AS $$
    SELECT pymig.time_text(
        CASE WHEN p_bucket IN (9223372036854775807, -9223372036854775808) THEN p_bucket::numeric
             ELSE (p_bucket::numeric + 1) * p_source.bucket_ticks - 1 END,
        p_source.time_type)
$$;
COMMENT ON FUNCTION pymig._bucket_end(pymig.source, bigint) IS
    'Last time of a bucket (inclusive: times are whole ticks), as a literal of the source''s time type.';

-- sql/core/functions/_bucket_sql.sql
CREATE OR REPLACE FUNCTION pymig._bucket_sql(p_source pymig.source, p_time text)
RETURNS text
LANGUAGE sql
STABLE
AS $$
    SELECT format('coalesce(pymig.bucket_of(pymig.tick_of(%s), %s), (-9223372036854775807))', p_time, p_source.bucket_ticks)
$$;
COMMENT ON FUNCTION pymig._bucket_sql(pymig.source, text) IS 'SQL expression: the bucket of a time expression.';

-- sql/core/functions/_bucket_start.sql
CREATE OR REPLACE FUNCTION pymig._bucket_start(p_source pymig.source, p_bucket bigint)
RETURNS text
LANGUAGE sql
STABLE
AS $$
    SELECT pymig.time_text(
        CASE WHEN p_bucket IN (9223372036854775807, -9223372036854775808) THEN p_bucket::numeric
             -- Beyond the last bucket of the type there is only infinity.
             WHEN p_bucket::numeric * p_source.bucket_ticks > pymig._last_tick(p_source.time_type) THEN 9223372036854775807
             ELSE p_bucket::numeric * p_source.bucket_ticks END,
        p_source.time_type)
$$;
COMMENT ON FUNCTION pymig._bucket_start(pymig.source, bigint) IS 'First time of a bucket, as a literal of the source''s time type.';

-- sql/core/functions/_bytes_needed.sql
CREATE OR REPLACE FUNCTION pymig._bytes_needed(p_source pymig.source)
RETURNS bigint
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- 9 bytes a cell, as in _expected_bytes, and as much write-ahead log.
    SELECT 2 * 9 * greatest(
        (SELECT t.tuples FROM pymig._narrow_tuples(p_source.narrow) AS t)
        - (SELECT coalesce(sum(e.moved_rows), 0) FROM pymig.entity AS e WHERE e.source = p_source.source AND e.wide_table IS NOT NULL), 0)::bigint
$$;
COMMENT ON FUNCTION pymig._bytes_needed(pymig.source) IS
    'Rough disk space in bytes that migrating every ship of a source that is not migrated yet takes, write-ahead log included.';

-- sql/core/functions/_canonical_entity.sql
CREATE OR REPLACE FUNCTION pymig._canonical_entity(p_source pymig.source, p_entity text)
RETURNS text
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_type text := (SELECT format_type(a.atttypid, NULL) FROM pg_attribute AS a
                    WHERE a.attrelid = p_source.narrow AND a.attname = p_source.entity_column);
    v_entity text;
    v_exists boolean;
BEGIN
    -- The narrow table was dropped: whoever was migrated can still be rolled back.
    IF v_type IS NULL AND EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity) THEN
        RETURN p_entity;
    END IF;
    BEGIN
        EXECUTE format('SELECT %L::%s::text', p_entity, v_type) INTO v_entity;
        -- First, as who controls a migration need not be able to read the narrow table.
        IF EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = v_entity) THEN
            RETURN v_entity;
        END IF;
        -- In the order of the index where there is one: a scan ends at the first row, which for a new ship may be the last of the table.
        EXECUTE format(CASE WHEN pymig._leads_with(p_source.narrow, p_source.entity_column)
                            THEN 'SELECT coalesce((SELECT n.entity FROM pymig.%1$I AS n WHERE n.entity >= %2$L ORDER BY n.entity LIMIT 1) = %2$L, false)'
                            ELSE 'SELECT EXISTS (SELECT FROM pymig.%1$I AS n WHERE n.entity = %2$L)' END, p_source.source || '_cell', v_entity)
        INTO v_exists;
    EXCEPTION WHEN data_exception THEN
        v_exists := false;
    END;
    IF v_exists THEN
        RETURN v_entity;
    END IF;
    RAISE EXCEPTION '% has no rows with % = %', p_source.narrow, p_source.entity_column, quote_nullable(p_entity)
        USING ERRCODE = 'PM002', HINT = 'List what is there: SELECT * FROM pymig.discover_entities().';
END
$$;
COMMENT ON FUNCTION pymig._canonical_entity(pymig.source, text) IS
    'Text form of an entity as the narrow table has it (a uuid in lower case, say). PM002 where it has no rows and never had.';

-- sql/core/functions/_cast_sql.sql
CREATE OR REPLACE FUNCTION pymig._cast_sql(p_expression text, p_kind text, p_cell_type text)
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN p_cell_type = 'text' THEN format('(%s)::text COLLATE "C"', p_expression)
        WHEN p_cell_type = p_kind THEN format('(%s)::%s', p_expression, p_kind)
        WHEN p_kind = 'int8' AND p_cell_type = 'numeric' THEN format('(%s)::numeric', p_expression)
        -- Up to 2^53 every integer is a double (IEEE 754); beyond it a cast would change digits.
        WHEN p_kind = 'int8' AND p_cell_type = 'float8' THEN
            format('CASE WHEN %1$s BETWEEN -9007199254740992 AND 9007199254740992 THEN (%1$s)::float8 END', p_expression)
    END
$$;
COMMENT ON FUNCTION pymig._cast_sql(text, text, text) IS
    'SQL expression that turns a value of one kind into a cell type without loss (NULL at run time where a value does not fit); NULL: never possible.';

-- sql/core/functions/_channel_kind.sql
CREATE OR REPLACE FUNCTION pymig._channel_kind(p_kinds text[])
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN cardinality(p_kinds) > 0 THEN pymig._native_type(p_kinds, 'native') END
$$;
COMMENT ON FUNCTION pymig._channel_kind(text[]) IS 'What a channel with values of these kinds holds, whatever type its column gets; NULL: it has no values.';

-- sql/core/functions/_channel_magnitude.sql
CREATE OR REPLACE FUNCTION pymig._channel_magnitude(p_source text, p_entity text)
RETURNS int
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT round(log(greatest(count(*), 1)))::int FROM pymig.channel AS c WHERE c.source = p_source AND c.entity = p_entity
$$;
COMMENT ON FUNCTION pymig._channel_magnitude(text, text) IS 'How many channels an entity has, as the nearest power of ten.';

-- sql/core/functions/_check_keep.sql
CREATE OR REPLACE FUNCTION pymig._check_keep(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A default partition has no range either; but mostly it has no rows, and stays.
    v_odd text := (SELECT string_agg(t.relation::text, ', ' ORDER BY t.relation)
                   FROM pymig._partition_tree(p_source) AS t JOIN pg_class AS c ON c.oid = t.relation
                   WHERE t.is_leaf AND NOT t.by_time AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT');
BEGIN
    IF NOT pymig._is_partitioned(p_source.narrow) THEN
        RAISE EXCEPTION '% is not partitioned, so no partition of it can go', p_source.narrow
            USING ERRCODE = 'PM022', HINT = 'The policy keep is for partitioned tables. Rows deleted from a table go from the wide table, too.';
    ELSIF p_source.grain_ticks IS NOT NULL THEN
        RAISE EXCEPTION 'wide rows can''t be kept with a time grain: one of them may stem from two partitions'
            USING ERRCODE = 'PM022', HINT = 'Stay with the policy drop, or detach what shall be kept and register it as a source of its own.';
    ELSIF v_odd IS NOT NULL THEN
        RAISE EXCEPTION 'wide rows can''t be kept by a range of % alone where partitions are cut otherwise', quote_ident(p_source.time_column)
            USING ERRCODE = 'PM022', DETAIL = format('These are not cut by range of time alone: %s.', v_odd),
            HINT = 'Stay with the policy drop.';
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._check_keep(pymig.source) IS
    'PM022 where a partition that goes leaves no range of times of its own behind that could be closed.';

-- sql/core/functions/_check_source.sql
CREATE OR REPLACE FUNCTION pymig._check_source(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation pg_class := (SELECT c FROM pg_class AS c WHERE c.oid = p_source.narrow);
    v_missing text := (
        SELECT string_agg(quote_ident(w.name), ', ')
        FROM unnest(ARRAY[p_source.entity_column, p_source.channel_column, p_source.time_column, p_source.format_column]
                    || p_source.value_columns || p_source.tie_break) AS w (name)
        WHERE w.name IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_attribute AS a
            WHERE a.attrelid = p_source.narrow AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped));
    v_formats_are_object boolean := coalesce(jsonb_typeof(p_source.formats), 'object') = 'object';
    v_unmapped text := (
        SELECT string_agg(coalesce(quote_ident(f.value), 'NULL'), ', ')
        FROM jsonb_each_text(CASE WHEN v_formats_are_object THEN p_source.formats END) AS f
        WHERE f.value IS NULL OR f.value <> ALL (p_source.value_columns));
    v_wrong_id text := (
        SELECT string_agg(format('%I is %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ') FROM pg_attribute AS a
        WHERE a.attrelid = p_source.narrow AND a.attname IN (p_source.entity_column, p_source.channel_column)
          AND a.atttypid <> ALL ('{text,varchar,uuid,int2,int4,int8}'::regtype[]));
    -- What is equal there and differs as text would be one entity for the triggers and two for the wide tables.
    v_blurred text := (
        SELECT string_agg(quote_ident(a.attname), ', ') FROM pg_attribute AS a JOIN pg_collation AS l ON l.oid = a.attcollation
        WHERE a.attrelid = p_source.narrow AND a.attname IN (p_source.entity_column, p_source.channel_column) AND NOT l.collisdeterministic);
    v_unordered text := (
        SELECT string_agg(quote_ident(a.attname), ', ') FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = p_source.narrow AND a.attname = ANY (p_source.tie_break) AND t.typname <> 'varchar' AND NOT EXISTS (
            SELECT FROM pg_opclass AS o JOIN pg_am AS m ON m.oid = o.opcmethod AND m.amname = 'btree'
            WHERE o.opcdefault AND o.opcintype = t.oid));
    v_wrong text;
    v_hint text := 'See docs/reference/sources.md for what a source can be.';
BEGIN
    v_wrong := CASE
        WHEN p_source.source IS NULL OR p_source.source !~ '^[a-z_][a-z0-9_]{0,39}$' THEN
            format('%s is not a source name: use up to 40 lower-case letters, digits and underscores', coalesce(quote_literal(p_source.source), 'NULL'))
        WHEN EXISTS (SELECT FROM pymig.source AS s WHERE s.source = p_source.source) THEN
            format('there already is a source %L', p_source.source)
        WHEN EXISTS (SELECT FROM pymig.source AS s WHERE s.narrow = p_source.narrow) THEN
            format('%s is already registered', p_source.narrow)
        WHEN p_source.narrow IS NULL OR v_relation.relkind <> ALL ('{r,p}') THEN
            format('%s is %s, and only an ordinary or a partitioned table can be a source', coalesce(p_source.narrow::text, 'NULL'),
                CASE v_relation.relkind WHEN 'v' THEN 'a view' WHEN 'f' THEN 'a foreign table'
                     WHEN 'm' THEN 'a materialized view' ELSE 'no table' END)
        WHEN v_relation.relpersistence = 't' THEN format('%s is a temporary table', p_source.narrow)
        WHEN v_relation.relhassubclass AND v_relation.relkind = 'r' AND NOT pymig._is_hypertable(p_source.narrow) THEN format('%s has inheritance children, whose changes fire no trigger of its own', p_source.narrow)
        WHEN v_missing IS NOT NULL THEN format('%s has no column %s', p_source.narrow, v_missing)
        WHEN p_source.entity_column IS NULL OR p_source.channel_column IS NULL OR p_source.time_column IS NULL THEN
            'the entity, channel and time columns must all be named'
        WHEN coalesce(cardinality(p_source.value_columns), 0) = 0 OR array_position(p_source.value_columns, NULL) IS NOT NULL
            OR array_position(p_source.tie_break, NULL) IS NOT NULL THEN 'a value or tie-break column has no name'
        WHEN cardinality(p_source.value_columns) <> (SELECT count(DISTINCT c.c) FROM unnest(p_source.value_columns) AS c (c)) THEN
            'a value column is named twice'
        WHEN v_wrong_id IS NOT NULL THEN
            format('%s; entity and channel must be text, varchar, uuid or an integer type', v_wrong_id)
        WHEN v_blurred IS NOT NULL THEN
            format('the collation of %s takes different texts for equal, so it can''t tell entities or channels apart', v_blurred)
        WHEN v_unordered IS NOT NULL THEN format('the type of %s has no order, so it can''t break ties', v_unordered)
        WHEN p_source.time_type NOT IN ('timestamp without time zone', 'timestamp with time zone', 'date', 'bigint') THEN
            format('column %I is %s; a time must be timestamp, timestamptz, date or a bigint epoch', p_source.time_column, p_source.time_type)
        WHEN (p_source.time_type = 'bigint') <> (p_source.time_unit IS NOT NULL) THEN
            'p_time_unit (s, ms or us) goes with a bigint time and with nothing else'
        WHEN p_source.time_unit NOT IN ('s', 'ms', 'us') THEN format('%L is not a time unit: use s, ms or us', p_source.time_unit)
        WHEN (p_source.format_column IS NULL) <> (p_source.formats IS NULL) THEN 'p_format_column and p_formats go together'
        WHEN NOT v_formats_are_object THEN 'p_formats must be an object that maps formats to value columns'
        WHEN p_source.formats = '{}' THEN 'p_formats maps nothing'
        WHEN v_unmapped IS NOT NULL THEN format('p_formats names %s, which p_value_columns does not', v_unmapped)
        WHEN p_source.column_types IS NULL OR p_source.column_types NOT IN ('text', 'native') THEN
            format('column types are text or native, not %L', p_source.column_types)
        WHEN p_source.new_entities IS NULL OR p_source.new_entities NOT IN ('ask', 'auto') THEN format('the policy for new entities is ask or auto, not %L', p_source.new_entities)
        WHEN NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = p_source.wide_schema) THEN
            format('there is no schema %I for the wide tables', p_source.wide_schema)
        WHEN p_source.wide_name IS NULL OR position('{entity}' IN p_source.wide_name) = 0 THEN 'p_wide_name must contain {entity}, or all entities would share one table'
        WHEN p_source.dictionary IS NULL AND (p_source.dictionary_key IS NOT NULL OR p_source.dictionary_name IS NOT NULL) THEN
            'p_dictionary_key and p_dictionary_name go with p_dictionary'
        WHEN p_source.dictionary IS NOT NULL AND 2 <> (
            SELECT count(*) FROM pg_attribute AS a WHERE a.attrelid = p_source.dictionary AND NOT a.attisdropped
            AND a.attname IN (p_source.dictionary_key, p_source.dictionary_name)) THEN
            format('%s lacks the columns named by p_dictionary_key and p_dictionary_name', p_source.dictionary)
    END;
    IF v_wrong IS NULL AND NOT (has_table_privilege(p_source.narrow, 'SELECT') AND has_table_privilege(p_source.narrow, 'TRIGGER')) THEN
        RAISE EXCEPTION 'role % may not read % and create triggers on it', current_user, p_source.narrow
            USING ERRCODE = 'PM008', HINT = format('GRANT SELECT, TRIGGER ON %s TO %I; arming also needs its owner.', p_source.narrow, current_user);
    ELSIF v_wrong IS NULL THEN
        PERFORM pymig._check_source_partitions(p_source);
    ELSE
        RAISE EXCEPTION '%', v_wrong USING ERRCODE = 'PM003', HINT = v_hint;
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._check_source(pymig.source) IS 'PM003 with one sentence on the first thing that makes a table unfit as a source; PM008 for a missing privilege; PM022 where its partitions can''t be followed.';

-- sql/core/functions/_check_source_indexes.sql
CREATE OR REPLACE FUNCTION pymig._check_source_indexes(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT (p_source.reads_by_key OR p_source.reads_by_time) THEN
        RAISE EXCEPTION 'no index of % finds the rows of an entity and a time range', p_source.narrow
            USING ERRCODE = 'PM003',
            HINT = format('CREATE INDEX CONCURRENTLY ON %s (%I, %I); every chunk would read the whole table without it.',
                p_source.narrow, p_source.entity_column, p_source.time_column);
    ELSIF NOT p_source.is_unique AND p_source.tie_break = '{}' THEN
        RAISE EXCEPTION 'no unique key on (%, %, %) of % rules duplicates out, and no tie-break says which of them counts',
            p_source.entity_column, p_source.channel_column, p_source.time_column, p_source.narrow
            USING ERRCODE = 'PM003', HINT = 'Name the columns whose highest value wins, e.g. p_tie_break => ''{id}''. NOT NULL columns are part of a unique key.';
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._check_source_indexes(pymig.source) IS 'PM003 where no index serves chunks, or duplicates could not be decided.';

-- sql/core/functions/_check_source_partitions.sql
CREATE OR REPLACE FUNCTION pymig._check_source_partitions(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_parent text := (SELECT i.inhparent::regclass::text FROM pg_inherits AS i WHERE i.inhrelid = p_source.narrow LIMIT 1);
    v_foreign text := (SELECT string_agg(t.relation::text, ', ' ORDER BY t.relation) FROM pymig._partition_tree(p_source) AS t
                       JOIN pg_class AS c ON c.oid = t.relation AND c.relkind = 'f');
BEGIN
    IF pymig._is_hypertable(p_source.narrow) THEN
        RAISE EXCEPTION '% is a hypertable of TimescaleDB, and its chunks come, go and are compressed without the events pymig relies on', p_source.narrow
            USING ERRCODE = 'PM022', HINT = 'A table partitioned by PostgreSQL itself (PARTITION BY RANGE) is served.';
    ELSIF v_parent IS NOT NULL THEN
        RAISE EXCEPTION '% belongs to %, and what is written through that one would not be recorded', p_source.narrow, v_parent
            USING ERRCODE = 'PM022', HINT = format('Register %s.', v_parent);
    ELSIF v_foreign IS NOT NULL THEN
        RAISE EXCEPTION 'partitions of % are foreign tables, whose changes fire no trigger here', p_source.narrow
            USING ERRCODE = 'PM022', DETAIL = v_foreign, HINT = 'Detach them, or stay with the narrow table.';
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._check_source_partitions(pymig.source) IS
    'PM022 with one sentence where a table is part of another one, a hypertable, or has partitions elsewhere.';

-- sql/core/functions/_check_source_spans.sql
CREATE OR REPLACE FUNCTION pymig._check_source_spans(p_source pymig.source, p_bucket interval, p_grain interval)
RETURNS void
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_grain_ticks numeric := extract(epoch FROM p_grain) * CASE p_source.time_type
        WHEN 'date' THEN 1.0 / 86400
        WHEN 'bigint' THEN CASE p_source.time_unit WHEN 's' THEN 1 WHEN 'ms' THEN 1000 ELSE 1000000 END
        ELSE 1000000 END;
BEGIN
    IF p_bucket IS NULL OR p_bucket <= interval '0' THEN
        RAISE EXCEPTION 'a bucket must be longer than nothing, not %', coalesce(p_bucket::text, 'NULL')
            USING ERRCODE = 'PM003', HINT = 'An hour of samples is a good bucket.';
    ELSIF v_grain_ticks < 1 OR v_grain_ticks <> trunc(v_grain_ticks) THEN
        RAISE EXCEPTION 'a time grain of % is no whole number of the units of %', p_grain, quote_ident(p_source.time_column)
            USING ERRCODE = 'PM003', HINT = 'Choose a positive multiple of the unit the time column counts in.';
    ELSIF p_source.bucket_ticks % coalesce(p_source.grain_ticks, 1) <> 0 THEN
        RAISE EXCEPTION 'the bucket of % is not a multiple of the time grain of %', p_bucket, p_grain
            USING ERRCODE = 'PM003', HINT = 'Choose p_bucket as a multiple of p_time_grain.';
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._check_source_spans(pymig.source, interval, interval) IS 'PM003 where bucket and time grain can''t be what a source is cut into.';

-- sql/core/functions/_choose_strategy.sql
CREATE OR REPLACE FUNCTION pymig._choose_strategy(
    p_source pymig.source, p_entity pymig.entity, p_wanted text DEFAULT NULL, OUT strategy text, OUT is_trial boolean)
RETURNS record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH measured AS MATERIALIZED (
        SELECT r.* FROM pymig._strategy_rates(p_source.source, p_entity.entity) AS r
    ),
    -- Of sparse rows one chunk says enough: transpose, the likeliest, is the slowest there by far (docs/explanation/pivot.md).
    done AS (SELECT coalesce(sum(m.chunks), 0) AS chunks, CASE WHEN min(m.filled) < 0.25 THEN 1 ELSE 4 END AS enough FROM measured AS m)
    -- The first candidate moves the first four chunks, each other one is then tried on a piece of one, the fastest moves the
    -- rest. Every hundred chunks the others have fallen out of sight and are tried again: data change.
    SELECT p_entity.strategy, false WHERE p_entity.strategy <> 'auto'
    UNION ALL (
        SELECT c.strategy, t.is_trial
        FROM pymig._strategies(p_source.source, p_entity.entity) AS c CROSS JOIN done AS d LEFT JOIN measured AS m USING (strategy)
        CROSS JOIN LATERAL (
            SELECT m.strategy IS NULL AND CASE WHEN c.strategy = p_wanted THEN d.chunks > 0
                ELSE c.rank > 1 AND d.chunks >= d.enough + c.rank - 2 END) AS t (is_trial)
        WHERE p_entity.strategy = 'auto'
        ORDER BY c.strategy = p_wanted DESC NULLS LAST, t.is_trial DESC, m.rows_per_second DESC NULLS LAST, c.rank
        LIMIT 1)
$$;
COMMENT ON FUNCTION pymig._choose_strategy(pymig.source, pymig.entity, text) IS
    'Pivot strategy of the next chunk: the one that was set, or with auto the wanted one where it is a candidate, else the one that moved most rows a second on this entity so far, once each candidate has had its try: after four chunks, or after one where less than a quarter of the channels have a row at a time. is_trial: this is that try.';

-- sql/core/functions/_chunk_buckets.sql
CREATE OR REPLACE FUNCTION pymig._chunk_buckets(p_source text, p_entity text, p_target interval DEFAULT NULL)
RETURNS int
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A second a chunk by default: short enough for vacuum (R20) and for a clean stop, long enough to drown the planning of a
    -- 1,000-column statement. At most 64 bucket locks (R18), and at most twice the size that was just measured.
    -- Before anything is measured: about a million narrow rows a second by the planner's estimate.
    WITH target AS (
        SELECT extract(epoch FROM pymig._chunk_target(p_source, p_entity, p_target)) AS seconds,
            (e.last_bucket::numeric - e.first_bucket + 1) / greatest(e.estimated_rows, 1) AS buckets_a_row
        FROM pymig.entity AS e
        WHERE e.source = p_source AND e.entity = p_entity
    )
    SELECT greatest(1, least(64, CASE
        WHEN count(*) > 0 THEN least(2 * max(c.buckets), (SELECT t.seconds FROM target AS t) * sum(c.buckets) / nullif(sum(c.seconds), 0))
        ELSE (SELECT t.seconds * 1000000 * t.buckets_a_row FROM target AS t)
        END))::int
    FROM (
        SELECT c.last_bucket - c.first_bucket + 1 AS buckets, c.seconds
        FROM pymig.chunk AS c
        WHERE c.source = p_source AND c.entity = p_entity AND c.state = 'done'
        ORDER BY c.chunk DESC
        LIMIT 8
    ) AS c
$$;
COMMENT ON FUNCTION pymig._chunk_buckets(text, text, interval) IS 'Buckets the next chunks should have to take as long as the chunk target says, by the last ones.';

-- sql/core/functions/_chunk_failed.sql
CREATE OR REPLACE FUNCTION pymig._chunk_failed(p_chunk pymig.chunk, p_sqlstate text, p_error text)
RETURNS pymig.chunk
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_attempts constant int := 5;
    -- Another session was in the way, not the data: no smaller chunk would help, and it ends some day.
    v_is_lock boolean := pymig._is_in_the_way(p_sqlstate);
    v_middle bigint := p_chunk.first_bucket + (p_chunk.last_bucket - p_chunk.first_bucket) / 2;
    v_chunk pymig.chunk;
BEGIN
    IF p_chunk.last_bucket > p_chunk.first_bucket AND NOT v_is_lock THEN
        v_chunk := pymig._split_chunk(pymig._source(p_chunk.source), p_chunk, v_middle, p_error);
    ELSE
        UPDATE pymig.chunk AS c SET
            attempts = c.attempts + 1, error = format('%s (%s)', p_error, p_sqlstate),
            state = CASE WHEN c.attempts + 1 >= c_attempts AND NOT v_is_lock THEN 'failed' ELSE 'planned' END,
            retry_at = clock_timestamp() + least(0.1 * 2 ^ least(c.attempts, 10), 10) * (0.5 + random()) * interval '1 second',
            finished_at = clock_timestamp()
        WHERE c.chunk = p_chunk.chunk
        RETURNING c.* INTO v_chunk;
    END IF;
    UPDATE pymig.entity AS e SET last_error = format('%s (%s)', p_error, p_sqlstate)
    WHERE e.source = p_chunk.source AND e.entity = p_chunk.entity;
    IF v_chunk.state = 'failed' THEN
        PERFORM pymig._note('CRITICAL', p_chunk.source, p_chunk.entity, 'chunk failed',
            format('Chunk %s (%s to %s) failed for good: %s', p_chunk.chunk, v_chunk.from_time, v_chunk.to_time, p_error));
    END IF;
    RETURN v_chunk;
END
$$;
COMMENT ON FUNCTION pymig._chunk_failed(pymig.chunk, text, text) IS
    'After a failed attempt: halves a chunk of several buckets, so that the failure is narrowed down to one; a single bucket is tried again with growing pauses, and after five attempts reported as failed. Never skipped. A lock that was not to be had is waited for without end, in attempts.';

-- sql/core/functions/_chunk_needs_channels.sql
CREATE OR REPLACE FUNCTION pymig._chunk_needs_channels(p_source pymig.source, p_chunk pymig.chunk)
RETURNS pymig.chunk
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pymig._add_channels(p_source, p_chunk.entity);
    RETURN p_chunk;
EXCEPTION
    WHEN OTHERS THEN
        RETURN pymig._chunk_failed(p_chunk, SQLSTATE, SQLERRM);
END
$$;
COMMENT ON FUNCTION pymig._chunk_needs_channels(pymig.source, pymig.chunk) IS
    'Adds the columns a chunk missed; the chunk is tried again. What fails here is written to it.';

-- sql/core/functions/_chunk_needs_mending.sql
CREATE OR REPLACE FUNCTION pymig._chunk_needs_mending(p_source pymig.source, p_chunk pymig.chunk, p_sqlstate text, p_error text)
RETURNS pymig.chunk
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_is_mended boolean;
BEGIN
    BEGIN
        v_is_mended := pymig._mend_columns(p_source, p_chunk.entity);
    EXCEPTION
        WHEN OTHERS THEN
            RETURN pymig._chunk_failed(p_chunk, SQLSTATE, SQLERRM);
    END;
    RETURN CASE WHEN v_is_mended THEN p_chunk ELSE pymig._chunk_failed(p_chunk, p_sqlstate, p_error) END;
END
$$;
COMMENT ON FUNCTION pymig._chunk_needs_mending(pymig.source, pymig.chunk, text, text) IS
    'After a chunk missed a column or table: mends what can be mended, and the chunk is tried again; else it has failed.';

-- sql/core/functions/_chunk_needs_months.sql
CREATE OR REPLACE FUNCTION pymig._chunk_needs_months(p_source pymig.source, p_chunk pymig.chunk)
RETURNS pymig.chunk
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pymig._add_months(p_source, p_chunk.entity, p_chunk.first_bucket, p_chunk.last_bucket);
    RETURN p_chunk;
EXCEPTION
    WHEN OTHERS THEN
        RETURN pymig._chunk_failed(p_chunk, SQLSTATE, SQLERRM);
END
$$;
COMMENT ON FUNCTION pymig._chunk_needs_months(pymig.source, pymig.chunk) IS
    'Makes the partitions a chunk missed; the chunk is tried again. What fails here is written to it.';

-- sql/core/functions/_chunk_rows.sql
CREATE OR REPLACE FUNCTION pymig._chunk_rows(p_source text, p_entity text, p_target interval DEFAULT NULL)
RETURNS double precision
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT extract(epoch FROM pymig._chunk_target(p_source, p_entity, p_target)) * least(coalesce(
        (SELECT sum(c.narrow_rows) / nullif(sum(c.seconds), 0)
         FROM (SELECT c.narrow_rows, c.seconds FROM pymig.chunk AS c
               WHERE c.source = p_source AND c.entity = p_entity AND c.state = 'done' AND c.narrow_rows > 0 ORDER BY c.chunk DESC LIMIT 8) AS c),
        -- Before anything is measured: about so many a second.
        1000000),
        -- However fast the server is: a chunk may be twice as large, which takes up to 280 MB of memory.
        1200000)
$$;
COMMENT ON FUNCTION pymig._chunk_rows(text, text, interval) IS 'Narrow rows the next chunks should have to take as long as the chunk target says, by the last ones.';

-- sql/core/functions/_chunk_target.sql
CREATE OR REPLACE FUNCTION pymig._chunk_target(p_source text, p_entity text, p_wanted interval DEFAULT NULL)
RETURNS interval
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(e.chunk_target, CASE WHEN s.chunk_target = interval '1 second' THEN p_wanted END, s.chunk_target)
    FROM pymig.source AS s JOIN pymig.entity AS e USING (source)
    WHERE e.source = p_source AND e.entity = p_entity
$$;
COMMENT ON FUNCTION pymig._chunk_target(text, text, interval) IS
    'How long a chunk of an entity should take: as somebody set it for the entity or, other than the default, for its source; else as wanted, else a second.';

-- sql/core/functions/_close_range.sql
CREATE OR REPLACE FUNCTION pymig._close_range(p_source pymig.source, p_entity text, p_partition pymig.partition)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_table text;
    v_has_rows boolean;
    v_is_behind boolean;
    v_quarantined bigint;
BEGIN
    PERFORM pymig._lock_entity(p_source.source, p_entity, p_exclusive => false);
    SELECT p.wide_table INTO v_table FROM pymig.part AS p
    WHERE p.source = p_source.source AND p.entity = p_entity AND p.part = 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- Their narrow rows are gone, too. A key that could not be recomputed is still tried, and no copy of anything.
    EXECUTE format(
        'UPDATE pymig.quarantine AS q SET is_kept = true
         WHERE q.source = $1 AND q.entity = $2 AND q.bucket BETWEEN $3 AND $4 AND q.reason <> ''recompute_failed''
           AND q.time::%s BETWEEN $5::%1$s AND $6::%1$s', p_source.time_type)
    USING p_source.source, p_entity, pymig.bucket_of(p_partition.first_tick, p_source.bucket_ticks),
        pymig.bucket_of(p_partition.last_tick, p_source.bucket_ticks),
        pymig.time_text(p_partition.first_tick, p_source.time_type), pymig.time_text(p_partition.last_tick, p_source.time_type);
    GET DIAGNOSTICS v_quarantined = ROW_COUNT;
    -- Where nothing is kept nothing needs protection, and a row that comes late has its place.
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I AS w WHERE w.%I BETWEEN %L::%s AND %L::%5$s)',
        p_source.wide_schema, v_table, p_source.time_column, pymig.time_text(p_partition.first_tick, p_source.time_type),
        p_source.time_type, pymig.time_text(p_partition.last_tick, p_source.time_type))
    INTO v_has_rows;
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = %5$L AND e.entity = %6$L AND NOT pymig._is_backfilled(e.state))
             OR EXISTS (SELECT FROM pymig.%1$I AS p WHERE p.kind <> ''key'' OR p.entity::text = %6$L AND p.time BETWEEN %2$L AND %3$L::%4$s)
             OR EXISTS (SELECT FROM pymig.%7$I AS d WHERE d.entity = %6$L AND d.bucket BETWEEN %8$s AND %9$s)',
        p_source.source || '_pending', pymig.time_text(p_partition.first_tick, p_source.time_type),
        pymig.time_text(p_partition.last_tick, p_source.time_type), p_source.time_type, p_source.source, p_entity, p_source.source || '_todo',
        pymig.bucket_of(p_partition.first_tick, p_source.bucket_ticks), pymig.bucket_of(p_partition.last_tick, p_source.bucket_ticks))
    INTO v_is_behind;
    IF v_is_behind AND p_partition.state <> 'detaching' THEN
        PERFORM pymig._note('CRITICAL', p_source.source, p_entity, 'kept rows may lack changes',
            format('%s went before all of it was in the wide table; what was not is in neither.', p_partition.name));
    END IF;
    IF v_has_rows OR v_quarantined > 0 THEN
        INSERT INTO pymig.closed_range (source, entity, first_tick, last_tick, partition_name)
        VALUES (p_source.source, p_entity, p_partition.first_tick, p_partition.last_tick, p_partition.name)
        ON CONFLICT DO NOTHING;
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._close_range(pymig.source, text, pymig.partition) IS
    'Closes the range of a partition that is gone, if the entity has wide or quarantined rows in it: from now on recomputes leave both alone, and narrow rows in it go to quarantine. An event tells where the wide table was behind at that moment.';

-- sql/core/functions/_closed_rows_sql.sql
CREATE OR REPLACE FUNCTION pymig._closed_rows_sql(
    p_source pymig.source, p_entity text, p_first_bucket bigint, p_last_bucket bigint, p_times text DEFAULT NULL)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        'SELECT n.channel::text AS channel, n.time, ''closed_range'' AS reason, n.narrow_row
         FROM pymig.%I AS n WHERE n.entity = %L AND %s AND (%s)',
        p_source.source || '_cell', p_entity,
        pymig._time_condition(p_source, 'n.raw_time', p_first_bucket, p_last_bucket, p_times),
        coalesce(pymig._closed_sql(p_source, p_entity, 'n.raw_time', p_first_bucket, p_last_bucket), 'false'))
$$;
COMMENT ON FUNCTION pymig._closed_rows_sql(pymig.source, text, bigint, bigint, text) IS
    'SELECT of the narrow rows of an entity that stand in a closed range: channel, time, reason, narrow_row.';

-- sql/core/functions/_closed_sql.sql
CREATE OR REPLACE FUNCTION pymig._closed_sql(
    p_source pymig.source, p_entity text, p_column text, p_first_bucket bigint, p_last_bucket bigint)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format('%s BETWEEN %L::%s AND %L::%3$s', p_column, pymig.time_text(c.first_tick, p_source.time_type),
        p_source.time_type, pymig.time_text(c.last_tick, p_source.time_type)), ' OR ' ORDER BY c.first_tick)
    FROM pymig.closed_range AS c
    WHERE c.source = p_source.source AND c.entity = p_entity
      AND pymig.bucket_of(c.first_tick, p_source.bucket_ticks) <= p_last_bucket
      AND pymig.bucket_of(c.last_tick, p_source.bucket_ticks) >= p_first_bucket
$$;
COMMENT ON FUNCTION pymig._closed_sql(pymig.source, text, text, bigint, bigint) IS
    'SQL condition that holds for the times of a run of buckets that are closed for an entity; NULL: none is.';

-- sql/core/functions/_code_hash.sql
CREATE OR REPLACE FUNCTION pymig._code_hash(p_source pymig.source)
RETURNS text
LANGUAGE sql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
    SELECT encode(sha256(convert_to(string_agg(c.code, E'\n' ORDER BY c.name), 'UTF8')), 'hex')
    FROM (
        SELECT p.proname::text AS name, pg_get_functiondef(p.oid) AS code
        FROM pg_proc AS p
        WHERE p.pronamespace = 'pymig'::regnamespace
          AND (starts_with(p.proname, p_source.source || '_record_') OR p.proname IN ('_recompute', '_recompute_todo', '_cells_sql', '_winner_sql', '_has_one_row_a_cell'))
        UNION ALL
        SELECT t.tgname::text, format('%s %s', pg_get_triggerdef(t.oid), t.tgenabled) FROM pg_trigger AS t
        WHERE t.tgrelid = p_source.narrow AND t.tgname LIKE 'pymig\_record\_%'
        UNION ALL
        SELECT c.relname::text, pg_get_viewdef(c.oid) FROM pg_class AS c
        WHERE c.oid = to_regclass(format('pymig.%I', p_source.source || '_cell'))
    ) AS c
$$;
COMMENT ON FUNCTION pymig._code_hash(pymig.source) IS
    'SHA-256 over what keeps wide equal to narrow: the triggers of the narrow table, their functions, the cell view, and the routines that recompute.';

-- sql/core/functions/_collect_pending.sql
CREATE OR REPLACE FUNCTION pymig._collect_pending(p_source pymig.source)
RETURNS bigint
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
    SET work_mem = '128MB'
AS $$
DECLARE
    v_keys bigint;
    v_truncates text[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(pymig._lock_key('collect', p_source.source)) THEN
        RETURN 0;
    END IF;
    -- One statement: what it deletes it either keeps as work, or knows to be of nobody's interest in the same snapshot (R27).
    EXECUTE format($sql$
        WITH from_1 AS (
            DELETE FROM pymig.%7$I AS p RETURNING p.entity::text COLLATE "C" AS entity, p.time, pymig.tick_of(p.time) AS tick, p.kind COLLATE "C" AS kind, p.recorded_at
        ),
        from_2 AS (
            DELETE FROM pymig.%1$I AS p RETURNING p.entity::text COLLATE "C" AS entity, p.time, pymig.tick_of(p.time) AS tick, p.kind COLLATE "C" AS kind, p.recorded_at
        ),
        -- A writer that was slow between choosing and inserting fills the table whose turn it no longer is: always both.
        collected AS MATERIALIZED (
            SELECT c.entity, c.kind, coalesce(pymig.bucket_of(c.tick, %6$s), (-9223372036854775807)) AS bucket, array_agg(c.time) AS times, min(c.recorded_at) AS recorded_at, count(*) AS keys
            FROM (SELECT f.* FROM from_1 AS f UNION ALL SELECT f.* FROM from_2 AS f) AS c
            GROUP BY 1, 2, 3
        ),
        adopted AS (
            INSERT INTO pymig.entity (source, entity, state, is_adopted, column_types)
            SELECT DISTINCT %3$L, c.entity, CASE %4$L WHEN 'auto' THEN 'planned' ELSE 'known' END, %4$L = 'auto', %5$L
            FROM collected AS c
            WHERE c.entity IS NOT NULL
              AND NOT EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = %3$L AND e.entity = c.entity)
            ON CONFLICT DO NOTHING
            RETURNING entity, is_adopted
        ),
        noted AS (
            INSERT INTO pymig.event (level, source, entity, what, detail)
            SELECT CASE WHEN a.is_adopted THEN 'INFO' ELSE 'WARNING' END, %3$L, a.entity, 'new entity',
                CASE WHEN a.is_adopted THEN 'It has begun to send and is migrated by the policy auto.'
                     ELSE 'It has begun to send; migrate it, or set the policy to auto.' END
            FROM adopted AS a
        ),
        kept AS (
            INSERT INTO pymig.%2$I (entity, bucket, times, recorded_at)
            SELECT c.entity, c.bucket, CASE c.kind WHEN 'key' THEN ARRAY(SELECT DISTINCT t.time FROM unnest(c.times) AS t (time)) END, c.recorded_at
            FROM collected AS c
            WHERE c.kind IN ('key', 'bucket') AND (
                EXISTS (SELECT FROM pymig.entity AS e
                        WHERE e.source = %3$L AND e.entity = c.entity AND e.state NOT IN ('known', 'rolled_back'))
                OR EXISTS (SELECT FROM adopted AS a WHERE a.entity = c.entity AND a.is_adopted))
        )
        SELECT coalesce(sum(c.keys), 0), array_agg(DISTINCT c.kind) FILTER (WHERE c.kind LIKE 'truncate%%') FROM collected AS c
        $sql$, p_source.source || '_pending_2', p_source.source || '_todo', p_source.source, p_source.new_entities,
        p_source.column_types, p_source.bucket_ticks, p_source.source || '_pending_1')
    INTO v_keys, v_truncates;
    -- Left behind where a roll-back met a pass that was under way.
    EXECUTE format(
        'DELETE FROM pymig.%I AS d USING pymig.entity AS e
         WHERE e.source = %L AND e.entity = d.entity AND e.state IN (''known'', ''rolled_back'')',
        p_source.source || '_todo', p_source.source);
    IF v_truncates IS NOT NULL THEN
        -- No narrow row is left of what wide has: look at its buckets again.
        PERFORM pymig._expand_truncates(p_source, v_truncates);
    END IF;
    RETURN v_keys;
END
$$;
COMMENT ON FUNCTION pymig._collect_pending(pymig.source) IS
    'Moves what the triggers recorded to the indexed todo, grouped by bucket; discards keys of entities nobody migrates, parks those of planned ones, notices new entities, expands TRUNCATE. Returns the number of keys; 0 also while another session collects.';

-- sql/core/functions/_column_changes.sql
CREATE OR REPLACE FUNCTION pymig._column_changes(
    p_source pymig.source, p_entity text, OUT channel text, OUT wide_table text, OUT wide_column text, OUT change text, OUT found text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A restored dump numbers columns anew, so a number is believed only where the name is gone, the type fits and no other channel has that column.
    SELECT c.channel, format('%I.%I', p_source.wide_schema, p.wide_table), c.wide_column,
        CASE WHEN a.attnum IS NOT NULL THEN 'type' WHEN r.attnum IS NOT NULL THEN 'renamed' ELSE 'dropped' END,
        CASE WHEN a.attnum IS NOT NULL THEN format_type(a.atttypid, a.atttypmod) ELSE r.attname::text END
    FROM pymig.channel AS c
    JOIN pymig.part AS p USING (source, entity, part)
    JOIN pg_class AS t ON t.oid = to_regclass(format('%I.%I', p_source.wide_schema, p.wide_table))
    LEFT JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attname = c.wide_column AND NOT a.attisdropped
    LEFT JOIN pg_attribute AS r ON a.attnum IS NULL AND r.attrelid = t.oid AND r.attnum = c.attnum AND NOT r.attisdropped
        AND r.atttypid = c.column_type::regtype
        AND NOT EXISTS (SELECT FROM pymig.channel AS o WHERE o.source = c.source AND o.entity = c.entity AND o.wide_column = r.attname)
        AND NOT EXISTS (SELECT FROM pymig.promotion AS o WHERE o.source = c.source AND o.entity = c.entity AND o.wide_column = r.attname)
    WHERE c.source = p_source.source AND c.entity = p_entity AND a.atttypid IS DISTINCT FROM c.column_type::regtype
    ORDER BY c.ord
$$;
COMMENT ON FUNCTION pymig._column_changes(pymig.source, text) IS
    'Columns of wide tables that are not as the catalog says: renamed (found: its name now), dropped, or of another type (found: which).';

-- sql/core/functions/_column_definitions.sql
CREATE OR REPLACE FUNCTION pymig._column_definitions(p_source text, p_entity text, p_part int)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Fixed width first: no padding between them (see _column_width).
    SELECT string_agg(format('%I %s', c.wide_column, c.column_type), ', '
        ORDER BY array_position(ARRAY['float8', 'int8', 'bool'], c.column_type), c.ord)
    FROM (
        SELECT c.wide_column, c.column_type, c.ord FROM pymig.channel AS c
        WHERE c.source = p_source AND c.entity = p_entity AND c.part = p_part
        UNION ALL
        SELECT m.wide_column, m.column_type, m.ord FROM pymig.promotion AS m
        WHERE m.source = p_source AND m.entity = p_entity AND m.part = p_part
    ) AS c
$$;
COMMENT ON FUNCTION pymig._column_definitions(text, text, int) IS 'Column list of CREATE TABLE for a part.';

-- sql/core/functions/_column_dependents.sql
CREATE OR REPLACE FUNCTION pymig._column_dependents(p_table regclass, p_column text, p_views regclass[])
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(DISTINCT d.what, ', ')
    FROM (
        SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS what
        FROM pg_depend AS d
        JOIN pg_attribute AS a ON a.attrelid = p_table AND a.attname = p_column AND NOT a.attisdropped
        WHERE d.refclassid = 'pg_class'::regclass AND (d.refobjid = p_table AND d.refobjsubid = a.attnum OR d.refobjid = ANY (p_views))
          AND d.deptype IN ('n', 'a')
          -- The view over the parts, and those it is written by, are our own.
          AND NOT (d.classid = 'pg_rewrite'::regclass AND EXISTS (SELECT FROM pg_rewrite AS r WHERE r.oid = d.objid AND r.ev_class = ANY (p_views)))
          AND NOT (d.classid = 'pg_trigger'::regclass AND EXISTS (SELECT FROM pg_trigger AS t WHERE t.oid = d.objid AND t.tgfoid = 'pymig._write_wide'::regproc))
        UNION ALL
        SELECT 'privileges on the column itself' FROM pg_attribute AS a
        WHERE a.attrelid = p_table AND a.attname = p_column AND a.attacl IS NOT NULL
    ) AS d
$$;
COMMENT ON FUNCTION pymig._column_dependents(regclass, text, regclass[]) IS
    'What would be lost with a wide column: views, indexes, constraints, statistics, column privileges of the user''s, also on our own views over it (p_views). NULL: nothing.';

-- sql/core/functions/_column_names.sql
CREATE OR REPLACE FUNCTION pymig._column_names(
    p_source pymig.source, p_channels text[], p_taken text[], OUT channel text, OUT wide_column text)
RETURNS SETOF record
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_reserved text[] := p_taken || p_source.time_column
        || ARRAY['tableoid', 'xmin', 'cmin', 'xmax', 'cmax', 'ctid'];
    v_names text := 'SELECT c.c, c.c FROM unnest($1) AS c (c)';
BEGIN
    IF p_source.dictionary IS NOT NULL THEN
        v_names := format('SELECT c.c, coalesce((SELECT min(d.%I::text) FROM %s AS d WHERE d.%I::text = c.c), c.c) FROM unnest($1) AS c (c)',
            p_source.dictionary_name, p_source.dictionary, p_source.dictionary_key);
    END IF;
    RETURN QUERY EXECUTE format(
        'WITH named(channel, name) AS (%s),
         short AS (
             SELECT n.channel, CASE
                 WHEN octet_length(n.name) BETWEEN 1 AND 63 AND n.name <> ALL ($2) AND count(*) OVER (PARTITION BY n.name) = 1 THEN n.name
                 ELSE pymig._cut_name(n.name, 63, n.channel) END AS name
             FROM named AS n)
         SELECT s.channel, CASE WHEN s.name = ANY ($2) OR row_number() OVER (PARTITION BY s.name ORDER BY s.channel) > 1
             THEN ''channel_'' || md5(s.channel) ELSE s.name END
         FROM short AS s', v_names)
    USING p_channels, v_reserved;
END
$$;
COMMENT ON FUNCTION pymig._column_names(pymig.source, text[], text[]) IS
    'Column name of each channel: its id (or its name in the dictionary) verbatim, or a stable short name with a hash where that is empty, over 63 bytes, reserved or taken.';

-- sql/core/functions/_column_width.sql
CREATE OR REPLACE FUNCTION pymig._column_width(p_column_type text, p_is_appended boolean)
RETURNS int
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT CASE
        WHEN p_column_type IN ('float8', 'int8') THEN CASE WHEN p_is_appended THEN 15 ELSE 8 END
        WHEN p_column_type = 'bool' THEN 1
        ELSE 24
    END
$$;
COMMENT ON FUNCTION pymig._column_width(text, boolean) IS
    'Worst-case bytes of a cell in a tuple. Variable-length values: the toaster moves out only what is longer than MAXALIGN(18) = 24 bytes (heaptoast.c), so 24, not the 18 of a TOAST pointer. Fixed-width columns stand first in a new table; appended behind text they can need 7 bytes of padding.';

-- sql/core/functions/_compact_todo.sql
CREATE OR REPLACE FUNCTION pymig._compact_todo(p_source pymig.source)
RETURNS boolean
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    -- Beyond this the dead rows of a hot bucket cost each claim milliseconds.
    c_above constant bigint := 1024 * 1024;
    v_todo text := format('pymig.%I', p_source.source || '_todo');
    v_rows text[];
    v_bytes bigint;
BEGIN
    IF pg_relation_size(v_todo::regclass) <= c_above THEN
        RETURN false;
    END IF;
    EXECUTE format('SELECT coalesce(sum(pg_column_size(d)), 0) FROM %s AS d', v_todo) INTO v_bytes;
    IF v_bytes > pg_relation_size(v_todo::regclass) / 4 THEN
        RETURN false;
    END IF;
    -- Only workers and readers of the status meet this lock; ingest never touches todo.
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', v_todo);
    -- Not by VACUUM or CLUSTER: while an old snapshot is open they keep every dead row.
    EXECUTE format('SELECT array_agg(d::text) FROM %s AS d', v_todo) INTO v_rows;
    EXECUTE format('TRUNCATE %s', v_todo);
    EXECUTE format('INSERT INTO %1$s SELECT (d.r::%1$s).* FROM unnest($1) AS d (r)', v_todo) USING v_rows;
    RETURN true;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN false;
END
$$;
COMMENT ON FUNCTION pymig._compact_todo(pymig.source) IS
    'Rewrites the todo of a source where three quarters of it are dead rows, also under an old snapshot that keeps vacuum from it. false: nothing to do, or its lock is not to be had now.';

-- sql/core/functions/_compare_buckets.sql
CREATE OR REPLACE FUNCTION pymig._compare_buckets(p_source pymig.source, p_entity text, p_first_bucket bigint, p_last_bucket bigint)
RETURNS SETOF pymig.verification
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
    SET enable_seqscan = off
    SET enable_indexscan = off
    SET enable_nestloop = off
    SET enable_sort = off
    SET work_mem = '128MB'
AS $$
DECLARE
    v_is_one boolean := p_first_bucket = p_last_bucket;
BEGIN
    -- Where there is anything to say of a run, each of its buckets has to be asked.
    RETURN QUERY EXECUTE format(
        'SELECT $1.source, $2, b.bucket,
             CASE b.bucket WHEN (-9223372036854775807) THEN ''no time'' ELSE pymig._bucket_start($1, b.bucket) END,
             CASE b.bucket WHEN (-9223372036854775807) THEN ''no time'' ELSE pymig._bucket_end($1, b.bucket) END,
             b.differences = 0, b.cells, b.differences, false, b.sample, b.digest,
             extract(epoch FROM clock_timestamp() - $5)::float8 / b.buckets, clock_timestamp()
         FROM (SELECT CASE WHEN $4 THEN $3 ELSE r.bucket END AS bucket, CASE WHEN $4 THEN r.narrow_cells ELSE r.cells END AS cells,
                   r.differences + coalesce(r.quarantine_off, 0) AS differences, r.is_pending, r.sample, r.digest, r.buckets
               FROM (%s) AS r) AS b
         WHERE $4 OR b.differences = 0 AND NOT b.is_pending AND b.bucket IS NOT NULL',
        CASE WHEN p_first_bucket = (-9223372036854775807) THEN pymig._verify_no_time_sql(p_source, p_entity)
             ELSE pymig._verify_sql(p_source, p_entity, p_first_bucket, p_last_bucket) END)
    USING p_source, p_entity, p_first_bucket, v_is_one, clock_timestamp();
END
$$;
COMMENT ON FUNCTION pymig._compare_buckets(pymig.source, text, bigint, bigint) IS
    'Compares a run of buckets in one statement; changes nothing. One bucket: a row, whatever it is like. More: a row for each that has wide rows, if all of them are equal and nothing of them is pending; else none, and they have to be compared one by one.';

-- sql/core/functions/_compared_sql.sql
CREATE OR REPLACE FUNCTION pymig._compared_sql(p_types text[])
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- *<> compares images: it tells -0.0 from 0.0 and 1.0 from 1.00, which = does not. A channel that has all times of the
    -- run is compared as two arrays; only where they differ, for whatever reason, are its cells looked at one by one. The arrays go through here
    -- once: what is kept of equal ones is the hash of each bucket's slice, which is one as the wide side is in time order.
    SELECT format(
        'compared AS MATERIALIZED (
             SELECT c.ord, c.part, c.differs, CASE WHEN c.differs THEN c.narrow_times END AS narrow_times, CASE WHEN c.differs THEN c.wide_times END AS wide_times, %s, d.buckets, d.filled, d.hashes
             FROM (SELECT ord, w.part, g.times AS narrow_times, t.times AS wide_times, %s,
                       ROW(g.times, %s)::record OPERATOR(pg_catalog.*<>) ROW(t.times, %s)::record AS differs
                   FROM wide AS w FULL JOIN gathered AS g USING (ord) LEFT JOIN wide_time AS t ON t.part = w.part
                   OFFSET 0) AS c
             CROSS JOIN LATERAL (
                 SELECT array_agg(s.bucket) AS buckets, array_agg(format(''%%s:%%s:%%s'', c.ord, s.hash, coalesce(%s))) AS hashes,
                     array_agg(coalesce(%s)) AS filled
                 FROM (SELECT s.bucket, s.hash, %s FROM span AS s WHERE s.part = c.part OFFSET 0) AS s) AS d)',
        string_agg(replace('CASE WHEN c.differs THEN c.narrow_% END AS narrow_%, CASE WHEN c.differs THEN c.wide_% END AS wide_%', '%', t.t), ', '),
        string_agg(replace('g.cells_% AS narrow_%, w.cells_% AS wide_%', '%', t.t), ', '),
        string_agg('g.cells_' || t.t, ', '), string_agg('w.cells_' || t.t, ', '),
        string_agg(format('hash_array_extended(s.%s, 0)', t.t), ', '),
        string_agg(replace('CASE WHEN array_position(s.%, NULL) IS NULL THEN cardinality(s.%) ELSE cardinality(array_remove(s.%, NULL)) END', '%', t.t), ', '),
        string_agg(format('c.wide_%1$s[s.first:s.last] AS %1$s', t.t), ', '))
    FROM unnest(p_types) AS t (t)
$$;
COMMENT ON FUNCTION pymig._compared_sql(text[]) IS
    'CTE compared: of each channel its part, whether its arrays differ between the two sides (narrow_times, wide_times; in narrow_<type> and wide_<type> the cells) and, if they do, these; for each bucket the cells of the wide side that are not NULL and their hash.';

-- sql/core/functions/_compat_branch_sql.sql
CREATE OR REPLACE FUNCTION pymig._compat_branch_sql(p_source pymig.source, p_entity pymig.entity)
RETURNS SETOF text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns text := pymig._compat_columns_sql(p_source, p_entity.entity);
    v_route text := CASE p_entity.routing WHEN 'percent' THEN format(' AND (SELECT pymig._routes_wide(%s))', p_entity.routing_percent) ELSE '' END;
    r_part record;
BEGIN
    FOR r_part IN
        SELECT p.part, p.wide_table, array_agg(c.ord ORDER BY c.ord) AS ords, array_agg(format('w.%I::text', c.wide_column) ORDER BY c.ord) AS cells
        FROM pymig.part AS p JOIN pymig.channel AS c USING (source, entity, part)
        WHERE p.source = p_source.source AND p.entity = p_entity.entity
        GROUP BY p.part, p.wide_table
        ORDER BY p.part
    LOOP
        -- A WITH that nobody reads: the planner neither pulls such a SELECT up, which would copy the tree into each column that is made
        -- of it, nor plans it where the ship is another; and conditions still go in, as they don't past an OFFSET 0. What is in a SELECT of
        -- its own does not, or the tree would be there twice.
        RETURN NEXT format(
            'SELECT %s, true
             FROM (WITH apart AS (SELECT) SELECT c.*, %s AS value_kind
                 FROM (WITH apart AS (SELECT) SELECT c.channel, c.column_type, c.kind, w.%I AS time, %s AS value
                     FROM pymig.channel AS c, %I.%I AS w
                     WHERE c.source = %L AND c.entity = %L AND c.part = %s) AS c
                 WHERE (SELECT c.value) IS NOT NULL) AS v
             WHERE true%s',
            v_columns, pymig._kind_sql(), p_source.time_column, pymig._value_tree_sql(r_part.ords, r_part.cells),
            p_source.wide_schema, r_part.wide_table, p_source.source, p_entity.entity, r_part.part, v_route);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._compat_branch_sql(pymig.source, pymig.entity) IS
    'SELECTs of the compat view that unpivot the wide tables of an entity, one a part. A channel is found in the catalog first, so one of a thousand costs one cell a row.';

-- sql/core/functions/_compat_columns_sql.sql
CREATE OR REPLACE FUNCTION pymig._compat_columns_sql(p_source pymig.source, p_entity text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format('(%s)::%s AS %I', CASE
        WHEN a.attname = p_source.entity_column THEN quote_literal(p_entity)
        WHEN a.attname = p_source.channel_column THEN 'v.channel'
        WHEN a.attname = p_source.time_column THEN 'v.time'
        WHEN a.attname = p_source.format_column THEN format('CASE v.value_kind %s END',
            (SELECT string_agg(format('WHEN %L THEN %L', s.kind, s.format), ' ') FROM pymig._kind_slots(p_source) AS s))
        WHEN a.attname = ANY (p_source.value_columns) THEN coalesce(
            (SELECT format('CASE WHEN v.value_kind = ANY (%L) THEN v.value END', array_agg(s.kind)) FROM pymig._kind_slots(p_source) AS s
             WHERE s.value_column = a.attname HAVING count(*) > 0), 'NULL')
        ELSE 'NULL' END, format_type(a.atttypid, a.atttypmod), a.attname), ', ' ORDER BY a.attnum)
    FROM pg_attribute AS a
    WHERE a.attrelid = p_source.narrow AND a.attnum > 0 AND NOT a.attisdropped
$$;
COMMENT ON FUNCTION pymig._compat_columns_sql(pymig.source, text) IS
    'Select list of the compat view for an entity that is read from wide: all columns of the narrow table; NULL where wide does not keep them.';

-- sql/core/functions/_count_hours.sql
CREATE OR REPLACE FUNCTION pymig._count_hours(
    p_source pymig.source, p_entity text, p_channels text[], p_newest_tick bigint, p_most bigint, p_until timestamptz,
    OUT hour int, OUT ends text, OUT rows bigint)
RETURNS SETOF record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    c_hours constant int := 24;
    v_ticks constant numeric := pymig._ticks_of('1 hour', p_source.time_type, p_source.time_unit);
    v_first numeric;
BEGIN
    -- Every fourth first, so that they are spread over the day if the time is up before all are counted.
    FOR hour IN SELECT h.h FROM generate_series(0, c_hours - 1) AS h (h) ORDER BY h.h % 4, h.h LOOP
        EXIT WHEN hour > 0 AND clock_timestamp() > p_until;
        v_first := p_newest_tick - (hour + 1) * v_ticks + 1;
        ends := pymig.time_text(p_newest_tick - hour * v_ticks, p_source.time_type);
        rows := pymig._count_rows(p_source, p_entity, p_channels, v_first, v_first + v_ticks - 1, p_most);
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._count_hours(pymig.source, text, text[], bigint, bigint, timestamptz) IS
    'Rows of each of the 24 hours that end with an entity''s newest row (hour 0 is the last one); of days where times are dates. Fewer, spread over the day, where the time is up before.';

-- sql/core/functions/_count_rows.sql
CREATE OR REPLACE FUNCTION pymig._count_rows(
    p_source pymig.source, p_entity text, p_channels text[], p_first_tick numeric, p_last_tick numeric, p_most bigint)
RETURNS bigint
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
    SET enable_seqscan = off
AS $$
DECLARE
    v_narrow text := format('SELECT FROM pymig.%I AS n WHERE n.entity = %L AND %s', p_source.source || '_cell', p_entity,
        pymig._ticks_condition(p_source, 'n.raw_time', p_first_tick, p_last_tick));
    v_rows bigint;
BEGIN
    IF p_source.reads_by_key THEN
        v_narrow := format('SELECT FROM unnest($1::%s[]) AS c (channel) CROSS JOIN LATERAL (%s AND n.channel = c.channel) AS n',
            pymig._type_name(p_source, p_source.channel_column), v_narrow);
    END IF;
    EXECUTE format('SELECT count(*) FROM (%s LIMIT %s) AS r', v_narrow, p_most) INTO v_rows USING p_channels;
    RETURN v_rows;
END
$$;
COMMENT ON FUNCTION pymig._count_rows(pymig.source, text, text[], numeric, numeric, bigint) IS
    'Narrow rows of an entity from one tick to another, counted through the index that finds them; p_most where there are as many or more. p_channels: all of the entity''s, which are looked up one by one where it is read by key.';

-- sql/core/functions/_create_archive.sql
CREATE OR REPLACE FUNCTION pymig._create_archive(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_archive text := (SELECT format('%I.%I', n.nspname, left(c.relname, 55) || '_archive') FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                       WHERE c.oid = p_source.narrow);
BEGIN
    IF (SELECT to_regclass(s.archive_table) FROM pymig.source AS s WHERE s.source = p_source.source) IS NOT NULL THEN
        RETURN;
    ELSIF to_regclass(v_archive) IS NOT NULL THEN
        RAISE EXCEPTION 'the archive table would be %, and that name is taken', v_archive
            USING ERRCODE = 'PM014', HINT = 'Rename or drop that relation.';
    END IF;
    EXECUTE format('CREATE TABLE %s (LIKE %s)', v_archive, p_source.narrow);
    EXECUTE format('CREATE INDEX ON %s (%I, %I)', v_archive, p_source.entity_column, p_source.time_column);
    EXECUTE format('COMMENT ON TABLE %s IS %L', v_archive,
        format('Rows of %s that pymig.finalize retired. Yours to move elsewhere; pymig.restore_narrow brings back what is in it.', p_source.narrow));
    UPDATE pymig.source AS s SET archive_table = v_archive WHERE s.source = p_source.source;
END
$$;
COMMENT ON FUNCTION pymig._create_archive(pymig.source) IS 'Makes the archive table of a source, with the narrow table''s columns and no constraints, where there is none. PM014 where its name is taken.';

-- sql/core/functions/_create_compat_view.sql
CREATE OR REPLACE FUNCTION pymig._create_compat_view(p_source text, p_of text DEFAULT NULL, p_is_out boolean DEFAULT false)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source;
    v_narrow text;
    v_wide text;
    v_columns text;
    v_condition text;
BEGIN
    SELECT s.* INTO v_source FROM pymig.source AS s WHERE s.source = p_source;
    IF v_source.compat_view IS NULL OR p_of IS NOT NULL AND NOT EXISTS (
        SELECT FROM pymig.entity AS e WHERE e.source = p_source AND e.entity = p_of AND e.routing IN ('wide', 'percent')) THEN
        RETURN;
    END IF;
    -- One at a time: made from what another session is just changing, the view would show a table that goes, or not show one that came.
    PERFORM pg_advisory_xact_lock(pymig._lock_key('compat', p_source));
    SELECT s.* INTO v_source FROM pymig.source AS s WHERE s.source = p_source;
    IF v_source.compat_view IS NULL THEN
        RETURN;
    END IF;
    SELECT string_agg(format('n.%I', a.attname), ', ' ORDER BY a.attnum), string_agg(format('u.%I', a.attname), ', ' ORDER BY a.attnum)
    INTO v_narrow, v_columns
    FROM pg_attribute AS a WHERE a.attrelid = v_source.narrow AND a.attnum > 0 AND NOT a.attisdropped;
    SELECT string_agg(format(' AND (u.is_wide OR u.%1$I <> %2$L OR u.%1$I IS NULL%3$s)', v_source.entity_column, e.entity,
            CASE e.routing WHEN 'percent' THEN format(' OR (SELECT NOT pymig._routes_wide(%s))', e.routing_percent) END), '' ORDER BY e.entity),
        string_agg(b.branches, '' ORDER BY e.entity)
    INTO v_condition, v_wide
    FROM pymig.entity AS e
    CROSS JOIN LATERAL (SELECT string_agg(' UNION ALL ' || b.branch, '') FROM pymig._compat_branch_sql(v_source, e) AS b (branch)) AS b (branches)
    WHERE e.source = p_source AND e.routing IN ('wide', 'percent') AND NOT (p_is_out AND e.entity = p_of);
    -- While no entity is read from wide it is the narrow table by another name, and costs nothing. Afterwards the condition stands outside:
    -- so the planner takes the narrow table for a member of the union, and leaves it out where the entity that is asked for contradicts it.
    EXECUTE format('CREATE OR REPLACE VIEW %s AS ', v_source.compat_view) || CASE
        WHEN v_wide IS NULL THEN format('SELECT %s FROM %s AS n', v_narrow, v_source.narrow)
        ELSE format('SELECT %s FROM (SELECT %s, false AS is_wide FROM %s AS n%s) AS u WHERE true%s', v_columns, v_narrow, v_source.narrow, v_wide, v_condition) END;
END
$$;
COMMENT ON FUNCTION pymig._create_compat_view(text, text, boolean) IS
    'Makes the compat view of a source anew, if one was asked for, by the routing its entities have now. p_of: only if it shows the wide tables of this entity; p_is_out: and without them, since they are about to change.';

-- sql/core/functions/_create_entity.sql
CREATE OR REPLACE FUNCTION pymig._create_entity(p_source pymig.source, p_entity text, p_allow_scan boolean)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_entity pymig.entity;
    v_parts int;
    v_bounds record;
    v_name text;
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM pymig._lock_entity(p_source.source, p_entity, p_exclusive => true);
    SELECT e.* INTO v_entity FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity FOR NO KEY UPDATE;
    IF v_entity.state IN ('known', 'rolled_back') THEN
        RAISE EXCEPTION '% was rolled back meanwhile', quote_literal(p_entity)
            USING ERRCODE = 'PM004', HINT = 'Start it again, if that is what you want.';
    ELSIF v_entity.state <> 'planned' THEN
        RETURN;
    END IF;
    -- Until the commit nobody takes the triggers away.
    PERFORM pg_advisory_xact_lock_shared(pymig._lock_key('arm', p_source.source));
    IF pymig._trigger_state(p_source.narrow) <> 'armed' THEN
        RAISE EXCEPTION 'the triggers of % are not armed', p_source.narrow
            USING ERRCODE = 'PM004', HINT = 'CALL pymig.start_sync(...) arms them.';
    END IF;
    v_name := pymig._wide_table_name(p_source, p_entity);
    CREATE TEMPORARY TABLE _pymig_layout ON COMMIT DROP AS
        SELECT l.* FROM pymig._layout(p_source, p_entity, v_entity.column_types, p_allow_scan) AS l;
    SELECT max(l.part) INTO v_parts FROM pg_temp._pymig_layout AS l;
    IF v_parts IS NULL THEN
        RAISE EXCEPTION '% has no rows with % = %', p_source.narrow, p_source.entity_column, quote_literal(p_entity)
            USING ERRCODE = 'PM002', HINT = 'List what is there: SELECT * FROM pymig.discover_entities().';
    END IF;
    INSERT INTO pymig.part (source, entity, part, wide_table)
    SELECT p_source.source, p_entity, g.part, CASE WHEN v_parts = 1 THEN v_name ELSE v_name || '_' || g.part END
    FROM generate_series(1, v_parts) AS g (part);
    INSERT INTO pymig.channel (source, entity, channel, ord, part, wide_column, column_type, kind)
    SELECT p_source.source, p_entity, l.channel, l.ord, l.part, l.wide_column, l.column_type, l.kind FROM pg_temp._pymig_layout AS l;
    DROP TABLE pg_temp._pymig_layout;
    v_bounds := pymig._discover_bounds(p_source, p_entity);
    UPDATE pymig.entity AS e SET
        state = 'syncing', wide_table = v_name, started_at = now(), state_changed_at = now(), last_error = NULL,
        first_bucket = v_bounds.first_bucket, last_bucket = v_bounds.last_bucket, next_bucket = v_bounds.first_bucket,
        estimated_rows = pymig._estimate_rows(p_source, p_entity), is_monthly = p_source.wide_partitions = 'month'
    WHERE e.source = p_source.source AND e.entity = p_entity;
    PERFORM pymig._create_part(p_source, p_entity, p.wide_table, pymig._column_definitions(p.source, p.entity, p.part))
    FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity;
    PERFORM pymig._add_months(p_source, p_entity);
    IF v_parts > 1 THEN
        PERFORM pymig._create_parts_view(p_source, p_entity);
    END IF;
    PERFORM pymig._note_columns(p_source, p_entity);
    PERFORM pymig._recompute(p_source, p_entity, 'json', (-9223372036854775807), (-9223372036854775807), NULL);
    PERFORM pymig._note('INFO', p_source.source, p_entity, 'sync started', format('%s.%I keeps up from here on.', p_source.wide_schema, v_name));
END
$$;
COMMENT ON FUNCTION pymig._create_entity(pymig.source, text, boolean) IS
    'Last step of start_sync, in a snapshot later than arming: bounds, channels, wide tables, state syncing, all in one transaction.';

-- sql/core/functions/_create_guard.sql
CREATE OR REPLACE FUNCTION pymig._create_guard(p_source pymig.source, p_entity text, p_table text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Asks first whether it is a recompute that writes, which costs it nothing.
    EXECUTE format('CREATE TRIGGER pymig_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I.%I FOR EACH STATEMENT
        WHEN (pg_catalog.current_setting(''pymig.writes_wide'', true) IS DISTINCT FROM ''on'') EXECUTE FUNCTION pymig._guard_wide(%L, %L)',
        p_source.wide_schema, p_table, p_source.source, p_entity);
END
$$;
COMMENT ON FUNCTION pymig._create_guard(pymig.source, text, text) IS
    'Guards a wide table, or a partition of one (by name), against statements that are not pymig''s.';

-- sql/core/functions/_create_month.sql
CREATE OR REPLACE FUNCTION pymig._create_month(
    p_source pymig.source, p_entity text, p_wide_table text, p_label text, p_from text, p_to text, p_options text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := p_wide_table || '_' || p_label;
BEGIN
    IF octet_length(v_name) > 63 THEN
        v_name := pymig._cut_name(p_wide_table, 62 - octet_length(p_label), p_wide_table) || '_' || p_label;
    END IF;
    IF to_regclass(format('%I.%I', p_source.wide_schema, v_name)) IS NOT NULL THEN
        RAISE EXCEPTION 'the partition % of the wide table of % would be %, and that name is taken', p_label, quote_literal(p_entity), quote_ident(v_name)
            USING ERRCODE = 'PM014', HINT = 'Rename or drop that relation; it goes on by itself.';
    END IF;
    EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I) WITH (%4$s)', p_source.wide_schema, v_name, p_wide_table, coalesce(p_options, 'toast_tuple_target = 8160'));
    PERFORM pymig._create_guard(p_source, p_entity, v_name);
    EXECUTE format('ALTER TABLE %1$I.%2$I ATTACH PARTITION %1$I.%3$I FOR VALUES FROM (%4$s) TO (%5$s)', p_source.wide_schema, p_wide_table, v_name, p_from, p_to);
END
$$;
COMMENT ON FUNCTION pymig._create_month(pymig.source, text, text, text, text, text, text) IS
    'Creates a partition of a wide table: p_from and p_to are SQL (a literal, MINVALUE, MAXVALUE); p_options: storage parameters. PM014 where its name is taken.';

-- sql/core/functions/_create_part.sql
CREATE OR REPLACE FUNCTION pymig._create_part(p_source pymig.source, p_entity text, p_wide_table text, p_columns text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table text := format('%I.%I', p_source.wide_schema, p_wide_table);
    v_is_monthly boolean := (pymig._entity(p_source.source, p_entity)).is_monthly;
BEGIN
    -- toast_tuple_target: cells stay in the row as long as it fits a page; the default would push long ones out of any row over 2 kB.
    EXECUTE format('CREATE TABLE %s (%I %s PRIMARY KEY%s)', v_table, p_source.time_column, p_source.time_type, coalesce(', ' || p_columns, ''))
        || CASE WHEN v_is_monthly THEN format(' PARTITION BY RANGE (%I)', p_source.time_column) ELSE ' WITH (toast_tuple_target = 8160)' END;
    EXECUTE format('COMMENT ON TABLE %s IS %L', v_table,
        format('Wide table of %s from %s, kept equal by pymig. Columns: pymig.channel_map. Write to the narrow table.', p_entity, p_source.narrow));
    PERFORM pymig._create_guard(p_source, p_entity, p_wide_table);
    PERFORM pymig._grant_like_narrow(p_source, v_table);
END
$$;
COMMENT ON FUNCTION pymig._create_part(pymig.source, text, text, text) IS
    'Creates one wide table, guarded against writes that are not pymig''s; whoever may read the narrow table may read it. Where the entity''s are partitioned by month, _add_months makes the partitions.';

-- sql/core/functions/_create_parts_view.sql
CREATE OR REPLACE FUNCTION pymig._create_parts_view(p_source pymig.source, p_entity text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A view has no more columns than a table, and one is the time.
    c_columns constant int := 1599;
    v_view text := (SELECT format('%I.%I', p_source.wide_schema, e.wide_table) FROM pymig.entity AS e
                    WHERE e.source = p_source.source AND e.entity = p_entity);
    v_count bigint := (SELECT count(*) FROM pymig.channel AS c WHERE c.source = p_source.source AND c.entity = p_entity);
    v_columns text;
    v_from text;
BEGIN
    SELECT string_agg(format('part_%s.%I', c.part, c.wide_column), ', ' ORDER BY c.ord) INTO v_columns
    FROM (SELECT c.* FROM pymig.channel AS c WHERE c.source = p_source.source AND c.entity = p_entity ORDER BY c.ord LIMIT c_columns) AS c;
    -- Every part has every time; but for a reader whose snapshot is older than a part, that part is empty, and must not empty the view.
    -- Besides, the planner leaves a part out that a query wants no column of.
    SELECT string_agg(format(CASE p.part WHEN 1 THEN '%1$I.%2$I AS part_%3$s' ELSE 'LEFT JOIN %1$I.%2$I AS part_%3$s USING (%4$I)' END,
            p_source.wide_schema, p.wide_table, p.part, p_source.time_column), ' ' ORDER BY p.part)
    INTO v_from
    FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity;
    EXECUTE format('CREATE OR REPLACE VIEW %s AS SELECT %I, %s FROM %s', v_view, p_source.time_column, v_columns, v_from);
    EXECUTE format('COMMENT ON VIEW %s IS %L', v_view,
        format(CASE WHEN v_count > c_columns THEN 'The first %s of %s channels of %s; the others are only in its parts. Columns: pymig.channel_map.'
                    ELSE 'All parts of the wide table of %3$s. Columns: pymig.channel_map.' END, c_columns, v_count, p_entity));
    PERFORM pymig._grant_like_narrow(p_source, v_view);
    IF v_count > c_columns AND NOT EXISTS (
        SELECT FROM pymig.event AS e WHERE e.source = p_source.source AND e.entity = p_entity AND e.what = 'view is full'
          AND e.happened_at > (SELECT n.started_at FROM pymig.entity AS n WHERE n.source = p_source.source AND n.entity = p_entity)) THEN
        PERFORM pymig._note('WARNING', p_source.source, p_entity, 'view is full',
            format('A view can''t have more than %s channels: %s has the first ones. Read the others in the parts, by pymig.channel_map.', c_columns, v_view));
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._create_parts_view(pymig.source, text) IS
    'The view with the entity''s name over its parts; columns by ord, so that new ones only append. It has the first 1,599 channels; those that come later are only in the parts, and an event says so.';

-- sql/core/functions/_create_rw_views.sql
CREATE OR REPLACE FUNCTION pymig._create_rw_views(p_source pymig.source, p_entity text, p_grants text[] DEFAULT '{}')
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- As many as the view over the parts has.
    c_columns constant int := 1599;
    r_view record;
    v_view text;
    v_columns text;
    v_grant text;
BEGIN
    -- With a time grain a wide row is made of several times: which of them would a new value belong to?
    IF p_source.grain_ticks IS NOT NULL OR NOT EXISTS (SELECT FROM pymig.entity AS e
        WHERE e.source = p_source.source AND e.entity = p_entity AND e.state IN ('cut_over', 'finalized')) THEN
        RETURN;
    END IF;
    FOR r_view IN SELECT v.* FROM pymig._rw_views(p_source, p_entity) AS v LOOP
        v_view := format('%I.%I', p_source.wide_schema, r_view.name);
        IF NOT r_view.is_there AND to_regclass(v_view) IS NOT NULL THEN
            RAISE EXCEPTION '% is to be written through %, and that name is taken', quote_literal(p_entity), v_view
                USING ERRCODE = 'PM014', HINT = 'Rename or drop that relation, then cut over again.';
        END IF;
        SELECT string_agg(quote_ident(c.wide_column), ', ' ORDER BY c.ord) INTO v_columns
        FROM (SELECT c.* FROM pymig.channel AS c
              WHERE c.source = p_source.source AND c.entity = p_entity AND c.part = coalesce(r_view.part, c.part) ORDER BY c.ord LIMIT c_columns) AS c;
        EXECUTE format('CREATE OR REPLACE VIEW %s AS SELECT %I, %s FROM %I.%I', v_view, p_source.time_column, v_columns, p_source.wide_schema, r_view.relation);
        IF NOT r_view.is_there THEN
            EXECUTE format('CREATE TRIGGER pymig_write INSTEAD OF INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION pymig._write_wide(%L, %L)',
                v_view, p_source.source, p_entity);
            EXECUTE format('COMMENT ON VIEW %s IS %L', v_view,
                format('%s in the wide shape, to be written: INSERT, UPDATE and DELETE go to %s, and come from there.', p_entity, p_source.narrow));
            PERFORM pymig._grant_like_narrow(p_source, v_view, '{SELECT,INSERT,UPDATE,DELETE}');
        END IF;
    END LOOP;
    FOREACH v_grant IN ARRAY p_grants LOOP
        EXECUTE v_grant;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._create_rw_views(pymig.source, text, text[]) IS
    'Makes the views in which an entity that is cut over is written, or brings their columns up to date; then repeats GRANTs. Whoever may read, insert into, update or delete from the narrow table may do so there. PM014 where a name is taken.';

-- sql/core/functions/_cut_name.sql
CREATE OR REPLACE FUNCTION pymig._cut_name(p_name text, p_bytes int, p_hash_of text)
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Cut between characters, not bytes: PostgreSQL's own cut could leave half a character, and two names equal.
    SELECT left(p_name, (
        SELECT max(n.n) FROM generate_series(0, p_bytes) AS n (n)
        WHERE octet_length(left(p_name, n.n)) <= p_bytes - 9)) || '_' || left(md5(p_hash_of), 8)
$$;
COMMENT ON FUNCTION pymig._cut_name(text, int, text) IS
    'A stable name of at most so many bytes: the beginning of a name and 8 hexadecimal digits of the MD5 of what it stands for.';

-- sql/core/functions/_database_tablespace.sql
CREATE OR REPLACE FUNCTION pymig._database_tablespace()
RETURNS name
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.spcname FROM pg_database AS d JOIN pg_tablespace AS t ON t.oid = d.dattablespace WHERE d.datname = current_database()
$$;
COMMENT ON FUNCTION pymig._database_tablespace() IS 'Default tablespace of this database.';

-- sql/core/functions/_deal_chunks.sql
CREATE OR REPLACE FUNCTION pymig._deal_chunks(
    p_source pymig.source, p_entity text, p_workers int DEFAULT 1, p_target interval DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    -- Enough for a few workers until the sizes are adapted again; while sizes are on trial no more than are wanted at once.
    v_chunks int := CASE WHEN p_target IS NULL THEN 4 ELSE greatest(p_workers, 1) END;
    v_size int := pymig._chunk_buckets(p_source.source, p_entity, p_target);
    v_share numeric;
    v_rows bigint;
    v_entity pymig.entity;
    v_first bigint;
    v_last bigint;
    v_dealt int := 0;
BEGIN
    SELECT e.* INTO v_entity FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity FOR NO KEY UPDATE;
    -- At the end there is a chunk for each worker, so that all end together.
    v_share := ceil((v_entity.last_bucket::numeric - v_entity.next_bucket + 1) / greatest(p_workers, 1));
    IF p_workers > 1 AND v_share BETWEEN 2 AND v_size THEN
        -- By rows: the first and the last bucket are parts of one, as a rule, and a bucket less may be nearer to a share.
        v_rows := pymig._estimate_rows(p_source, p_entity, v_entity.next_bucket, v_entity.last_bucket) / p_workers;
        v_share := v_share - (abs(pymig._estimate_rows(p_source, p_entity, v_entity.next_bucket, (v_entity.next_bucket + v_share - 2)::bigint) - v_rows)
            < abs(pymig._estimate_rows(p_source, p_entity, v_entity.next_bucket, (v_entity.next_bucket + v_share - 1)::bigint) - v_rows))::int;
    END IF;
    v_size := greatest(1, least(v_size, v_share));
    WHILE v_dealt < v_chunks AND v_entity.next_bucket IS NOT NULL LOOP
        v_first := CASE WHEN v_entity.next_bucket = v_entity.first_bucket THEN v_entity.first_bucket
                        ELSE pymig._next_narrow_bucket(p_source, p_entity, v_entity.next_bucket) END;
        IF v_first IS NULL OR v_first > v_entity.last_bucket THEN
            v_entity.next_bucket := NULL;
            EXIT;
        END IF;
        v_last := CASE WHEN v_first = -9223372036854775808 THEN v_first
                       ELSE least(v_first::numeric + v_size - 1, v_entity.last_bucket)::bigint END;
        -- What little would be left over goes along.
        IF v_last < v_entity.last_bucket AND v_first::numeric + 2 * v_size > v_entity.last_bucket
            AND pymig._estimate_rows(p_source, p_entity, v_last + 1, v_entity.last_bucket) <= 0.25 * pymig._estimate_rows(p_source, p_entity, v_first, v_last) THEN
            v_last := v_entity.last_bucket;
        END IF;
        INSERT INTO pymig.chunk (source, entity, first_bucket, last_bucket, from_time, to_time)
        VALUES (p_source.source, p_entity, v_first, v_last, pymig._bucket_start(p_source, v_first), pymig._bucket_end(p_source, v_last));
        v_dealt := v_dealt + 1;
        v_entity.next_bucket := CASE WHEN v_last < v_entity.last_bucket THEN v_last + 1 END;
    END LOOP;
    UPDATE pymig.entity AS e SET next_bucket = v_entity.next_bucket WHERE e.source = p_source.source AND e.entity = p_entity;
END
$$;
COMMENT ON FUNCTION pymig._deal_chunks(pymig.source, text, int, interval) IS
    'Deals the next few chunks from where the last one ended, jumping over gaps; no larger than what is left for each of so many workers. At the frozen upper bound it deals none, and the entity''s next_bucket is NULL.';

-- sql/core/functions/_deal_columns.sql
CREATE OR REPLACE FUNCTION pymig._deal_columns(p_source pymig.source, p_entity text, p_types text[])
RETURNS int[]
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    -- The dropped columns of a part keep their slots for ever, so columns are counted in pg_attribute, too.
    SELECT pymig._deal_types(p_types, p.part, greatest(count(c.channel), coalesce((
            SELECT max(a.attnum) - 1 FROM pg_attribute AS a
            WHERE a.attrelid = to_regclass(format('%I.%I', p_source.wide_schema, p.wide_table))), 0)),
        coalesce(sum(pymig._column_width(c.column_type, c.is_appended)), 0),
        coalesce(min(pymig._column_width(c.column_type, false)), 24), true)
    FROM pymig.part AS p
    LEFT JOIN LATERAL (
        SELECT c.channel, c.column_type, c.added_at > p.created_at AS is_appended FROM pymig.channel AS c
        WHERE c.source = p.source AND c.entity = p.entity AND c.part = p.part
        UNION ALL
        SELECT m.channel, m.column_type, m.begun_at > p.created_at FROM pymig.promotion AS m
        WHERE m.source = p.source AND m.entity = p.entity AND m.part = p.part
    ) AS c ON true
    WHERE p.source = p_source.source AND p.entity = p_entity
    GROUP BY p.part, p.wide_table
    ORDER BY p.part DESC
    LIMIT 1
$$;
COMMENT ON FUNCTION pymig._deal_columns(pymig.source, text, text[]) IS
    'The part each of some new columns goes to, by their types: the last one while it can hold one more column in the worst case, then new ones. Reads, changes nothing.';

-- sql/core/functions/_deal_types.sql
CREATE OR REPLACE FUNCTION pymig._deal_types(
    p_types text[], p_part int, p_columns bigint, p_bytes bigint, p_narrowest int, p_is_appended boolean)
RETURNS int[]
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_part int := p_part;
    v_columns bigint := p_columns;
    v_bytes bigint := p_bytes;
    v_narrowest int := p_narrowest;
    v_is_appended boolean := p_is_appended;
    v_type text;
    v_width int;
    v_parts int[] := '{}';
BEGIN
    FOREACH v_type IN ARRAY p_types LOOP
        v_width := pymig._column_width(v_type, v_is_appended);
        IF v_columns + 2 > 1600 OR pymig._tuple_width(v_columns + 1, v_bytes + v_width, least(v_narrowest, v_width)) > 8160 THEN
            v_part := v_part + 1;
            v_is_appended := false;
            v_columns := 0;
            v_bytes := 0;
            v_narrowest := 24;
            v_width := pymig._column_width(v_type, false);
        END IF;
        v_columns := v_columns + 1;
        v_bytes := v_bytes + v_width;
        v_narrowest := least(v_narrowest, v_width);
        v_parts := v_parts || v_part;
    END LOOP;
    RETURN v_parts;
END
$$;
COMMENT ON FUNCTION pymig._deal_types(text[], int, bigint, bigint, int, boolean) IS
    'The part each of some columns goes to, by their types: this part while it can hold one more column in the worst case, then the next ones. p_columns, p_bytes, p_narrowest: what this part has already. p_is_appended: its columns are added to a table that is there.';

-- sql/core/functions/_delete_cells.sql
CREATE OR REPLACE FUNCTION pymig._delete_cells(p_source pymig.source, p_entity text, p_time text, p_channels text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('DELETE FROM %s AS n WHERE %s', p_source.narrow, pymig._row_condition(p_source))
    USING p_entity, p_time, p_channels;
END
$$;
COMMENT ON FUNCTION pymig._delete_cells(pymig.source, text, text, text[]) IS
    'Deletes the narrow rows of these channels at one time, those in quarantine and superseded ones, too.';

-- sql/core/functions/_differences_sql.sql
CREATE OR REPLACE FUNCTION pymig._differences_sql(
    p_source pymig.source, p_entity text, p_types text[], p_condition text, p_by_key boolean)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_cells text := (
        SELECT string_agg(format(
            'SELECT (SELECT c.channel FROM pymig.channel AS c WHERE c.source = %2$L AND c.entity = %3$L AND c.ord = u.ord), d.time, d.narrow_value, d.wide_value
             FROM compared AS u CROSS JOIN LATERAL (
                 SELECT coalesce(n.time, w.time) AS time, n.cell::text AS narrow_value, w.cell::text AS wide_value
                 -- NULL is the same as no row here, and most cells of a sparse channel are NULL.
                 FROM (SELECT n.* FROM unnest(u.narrow_times, u.narrow_%1$s) AS n (time, cell) WHERE n.cell IS NOT NULL) AS n
                 FULL JOIN (SELECT w.* FROM unnest(u.wide_times, u.wide_%1$s) AS w (time, cell) WHERE w.cell IS NOT NULL) AS w ON w.time = n.time
                 WHERE ROW(n.cell)::record OPERATOR(pg_catalog.*<>) ROW(w.cell)::record) AS d
             WHERE num_nulls(u.narrow_%1$s, u.wide_%1$s) < 2', t.t, p_source.source, p_entity), ' UNION ALL ')
        FROM unnest(p_types) AS t (t));
    c_rows constant text := 'SELECT NULL, time, CASE WHEN n.part IS NULL THEN ''no row'' ELSE ''row'' END, CASE WHEN w.part IS NULL THEN ''no row'' ELSE ''row'' END
        FROM (SELECT w.part, n.time FROM wide_time AS w CROSS JOIN narrow_time AS n) AS n
        FULL JOIN (SELECT w.part, u.time FROM wide_time AS w CROSS JOIN LATERAL unnest(w.times) AS u (time)) AS w USING (part, time)
        WHERE n.part IS NULL OR w.part IS NULL';
    v_unknown text := CASE WHEN p_by_key THEN format(
            'SELECT u.channel::text, n.time, n.as_text, ''no column''
             FROM unknown AS u JOIN pymig.%I AS n ON n.entity = %L AND n.channel = u.channel AND %s',
            p_source.source || '_cell', p_entity, p_condition)
        ELSE 'SELECT x.channel, x.time, NULL, ''no column'' FROM cell AS x WHERE x.ord IS NULL AND x.channel IS NOT NULL' END;
BEGIN
    RETURN concat_ws(' UNION ALL ', v_cells, c_rows, v_unknown);
END
$$;
COMMENT ON FUNCTION pymig._differences_sql(pymig.source, text, text[], text, boolean) IS
    'SELECT of all differences of a bucket: cells, wide rows missing or surplus in any part, channels without a column.';

-- sql/core/functions/_direct_keys.sql
CREATE OR REPLACE FUNCTION pymig._direct_keys()
RETURNS int
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Whoever sets it to something else only has less written directly.
    SELECT coalesce(substring(current_setting('pymig.direct_keys', true) FROM '^[0-9]{1,6}$'), '0')::int
$$;
COMMENT ON FUNCTION pymig._direct_keys() IS 'How many keys this transaction has written directly, as often as it has.';

-- sql/core/functions/_discover_bounds.sql
CREATE OR REPLACE FUNCTION pymig._discover_bounds(
    p_source pymig.source, p_entity text, OUT first_bucket bigint, OUT last_bucket bigint)
RETURNS record
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_view text := p_source.source || '_cell';
    v_bounds text := format('SELECT min(n.raw_time) AS first, max(n.raw_time) AS last FROM pymig.%I AS n WHERE n.entity = %L', v_view, p_entity);
BEGIN
    IF p_source.reads_by_key THEN
        v_bounds := format(
            'SELECT min(b.first) AS first, max(b.last) AS last FROM (
                 WITH RECURSIVE loose(value) AS (%s)
                 SELECT x.* FROM loose AS l CROSS JOIN LATERAL (%s AND n.channel = l.value) AS x WHERE l.value IS NOT NULL) AS b',
            pymig._loose_scan_sql(p_source, 'channel', format('n.entity = %L', p_entity)), v_bounds);
    END IF;
    EXECUTE format('SELECT pymig.bucket_of(pymig.tick_of(b.first), %1$s), pymig.bucket_of(pymig.tick_of(b.last), %1$s) FROM (%2$s) AS b',
        p_source.bucket_ticks, v_bounds)
    INTO first_bucket, last_bucket;
END
$$;
COMMENT ON FUNCTION pymig._discover_bounds(pymig.source, text) IS
    'Buckets of the first and the last time of an entity: by first and last row of each channel where the key allows.';

-- sql/core/functions/_discover_channels.sql
CREATE OR REPLACE FUNCTION pymig._discover_channels(
    p_source pymig.source, p_entity text, p_allow_scan boolean, OUT channel text, OUT kinds text[])
RETURNS SETOF record
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    -- The latest rows of a channel tell its type; a type that only older rows have is drift, handled when it is met.
    c_sample constant int := 100;
    v_view text := p_source.source || '_cell';
BEGIN
    IF p_source.reads_by_key THEN
        RETURN QUERY EXECUTE format(
            'WITH RECURSIVE loose(value) AS (%s)
             SELECT l.value::text, ARRAY(
                 SELECT DISTINCT s.kind
                 FROM (SELECT n.kind, n.fault FROM pymig.%I AS n WHERE n.entity = %L AND n.channel = l.value
                       ORDER BY n.raw_time DESC LIMIT %s) AS s
                 WHERE s.kind IS NOT NULL AND s.fault IS NULL ORDER BY 1)
             FROM loose AS l WHERE l.value IS NOT NULL',
            pymig._loose_scan_sql(p_source, 'channel', format('n.entity = %L', p_entity)), v_view, p_entity, c_sample);
    ELSE
        PERFORM pymig._refuse_long_scan(p_source, p_allow_scan, 'channels');
        RETURN QUERY EXECUTE format(
            'SELECT n.channel::text, array_remove(array_agg(DISTINCT n.kind) FILTER (WHERE n.fault IS NULL), NULL)
             FROM pymig.%I AS n WHERE n.entity = %L AND n.channel IS NOT NULL GROUP BY n.channel::text',
            v_view, p_entity);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._discover_channels(pymig.source, text, boolean) IS
    'All channels of an entity, and the native kinds of value seen in them (all rows, or the latest 100 of each where channels are read by key).';

-- sql/core/functions/_drop_archive.sql
CREATE OR REPLACE FUNCTION pymig._drop_archive(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_is_empty boolean;
BEGIN
    IF to_regclass(p_source.archive_table) IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s AS a)', p_source.archive_table) INTO v_is_empty;
    IF v_is_empty THEN
        EXECUTE format('DROP TABLE %s', p_source.archive_table);
    ELSE
        RAISE WARNING '% still has rows and stays', p_source.archive_table
            USING HINT = 'Nobody else has these rows: move them away before you drop it.';
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._drop_archive(pymig.source) IS 'Drops the archive table of a source, unless it has rows.';

-- sql/core/functions/_drop_compat_view.sql
CREATE OR REPLACE FUNCTION pymig._drop_compat_view(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_source.compat_view IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(pymig._lock_key('compat', p_source.source));
        EXECUTE format('DROP VIEW IF EXISTS %s', p_source.compat_view);
        UPDATE pymig.source AS s SET compat_view = NULL WHERE s.source = p_source.source;
    END IF;
EXCEPTION
    WHEN dependent_objects_still_exist THEN
        RAISE EXCEPTION 'something depends on %', p_source.compat_view
            USING ERRCODE = 'PM015', DETAIL = SQLERRM, HINT = 'Drop what depends on it, then repeat this.';
END
$$;
COMMENT ON FUNCTION pymig._drop_compat_view(pymig.source) IS 'Drops the compat view of a source, where there is one. PM015 where something depends on it.';

-- sql/core/functions/_drop_old_months.sql
CREATE OR REPLACE FUNCTION pymig._drop_old_months(p_source text, p_entity text)
RETURNS int
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity pymig.entity := pymig._entity(p_source, p_entity);
    v_end_tick bigint;
    v_months text[];
    v_said text;
    v_until bigint;
BEGIN
    IF v_source.keep_wide IS NULL OR NOT v_entity.is_monthly OR v_entity.state <> 'finalized' THEN
        RETURN 0;
    END IF;
    -- Only where the narrow rows are gone: elsewhere wide has to equal narrow.
    SELECT least(max(c.last_tick), pymig._age_tick(v_source, p_entity, v_source.keep_wide) - 1) INTO v_end_tick
    FROM pymig.closed_range AS c WHERE c.source = p_source AND c.entity = p_entity AND c.partition_name IS NULL;
    SELECT array_agg(w.partition::text ORDER BY w.first_tick, w.wide_table), max(w.last_tick),
        format('%s to %s', pymig.time_text(min(w.first_tick), v_source.time_type), pymig.time_text(max(w.last_tick), v_source.time_type))
    INTO v_months, v_until, v_said
    FROM pymig._wide_months(v_source, p_entity) AS w
    WHERE w.last_tick <= v_end_tick AND w.from_sql <> 'MINVALUE';
    IF v_months IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM pymig._lock_entity(p_source, p_entity, p_exclusive => false);
    -- DROP waits for readers of the wide table, and new ones wait behind it.
    PERFORM set_config('lock_timeout', '300ms', true);
    EXECUTE format('DROP TABLE %s', array_to_string(v_months, ', '));
    DELETE FROM pymig.retired_bucket AS r WHERE r.source = p_source AND r.entity = p_entity AND pymig._last_tick_of(v_source, r.bucket) <= v_until;
    DELETE FROM pymig.verification AS v WHERE v.source = p_source AND v.entity = p_entity AND pymig._last_tick_of(v_source, v.bucket) <= v_until;
    PERFORM pymig._note('INFO', p_source, p_entity, 'wide months dropped', format('%s, older than %s: %s.', v_said, v_source.keep_wide, array_to_string(v_months, ', ')));
    RETURN cardinality(v_months);
END
$$;
COMMENT ON FUNCTION pymig._drop_old_months(text, text) IS
    'Drops the months of a finalized entity''s wide tables that the source''s keep_wide lets go and whose narrow rows are retired. Returns how many partitions. 55P03 while a long reader holds the table: try again.';

-- sql/core/functions/_drop_promotions.sql
CREATE OR REPLACE FUNCTION pymig._drop_promotions(p_source pymig.source, p_entity text, p_channels text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r_part record;
BEGIN
    FOR r_part IN
        SELECT p.wide_table, string_agg(format('DROP COLUMN IF EXISTS %I', m.wide_column), ', ' ORDER BY m.ord) AS drops
        FROM pymig.promotion AS m JOIN pymig.part AS p USING (source, entity, part)
        WHERE m.source = p_source.source AND m.entity = p_entity AND m.channel = ANY (p_channels)
        GROUP BY p.part, p.wide_table
        ORDER BY p.part
    LOOP
        EXECUTE format('ALTER TABLE %I.%I %s', p_source.wide_schema, r_part.wide_table, r_part.drops);
    END LOOP;
    DELETE FROM pymig.promotion AS m WHERE m.source = p_source.source AND m.entity = p_entity AND m.channel = ANY (p_channels);
END
$$;
COMMENT ON FUNCTION pymig._drop_promotions(pymig.source, text, text[]) IS
    'Gives promotions up: their new columns go, the old ones were always whole. The caller holds the entity exclusively.';

-- sql/core/functions/_drop_rw_views.sql
CREATE OR REPLACE FUNCTION pymig._drop_rw_views(p_source pymig.source, p_entity text)
RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_grants text[];
    r_view record;
BEGIN
    SELECT coalesce(array_agg(g.statement), '{}') INTO v_grants
    FROM pymig._rw_views(p_source, p_entity) AS v
    CROSS JOIN LATERAL pymig._grants_on(format('%I.%I', p_source.wide_schema, v.name)::regclass) AS g (statement)
    WHERE v.is_there;
    FOR r_view IN SELECT v.name FROM pymig._rw_views(p_source, p_entity) AS v WHERE v.is_there LOOP
        EXECUTE format('DROP VIEW %I.%I', p_source.wide_schema, r_view.name);
    END LOOP;
    RETURN v_grants;
END
$$;
COMMENT ON FUNCTION pymig._drop_rw_views(pymig.source, text) IS
    'Drops the views in which an entity is written. Returns the GRANTs on them, for _create_rw_views. 2BP01 where something of the user''s depends on them.';

-- sql/core/functions/_drop_triggers.sql
CREATE OR REPLACE FUNCTION pymig._drop_triggers(p_source pymig.source, p_relation regclass, p_lock_timeout interval)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_trigger name;
BEGIN
    PERFORM set_config('lock_timeout', (extract(epoch FROM p_lock_timeout) * 1000)::int::text, true);
    FOR v_trigger IN
        SELECT t.tgname FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid AND p.proname = p_source.source || substr(t.tgname, 6)
        WHERE t.tgrelid = p_relation AND t.tgname LIKE 'pymig\_record\_%'
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', v_trigger, p_relation);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._drop_triggers(pymig.source, regclass, interval) IS
    'One attempt to drop the triggers of a source from one table; 55P03 where a reader or writer held it for longer than the timeout.';

-- sql/core/functions/_drop_wide_tables.sql
CREATE OR REPLACE FUNCTION pymig._drop_wide_tables(p_source pymig.source, p_entity text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := (SELECT e.wide_table FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity);
    v_parts text := (SELECT string_agg(format('%I.%I', p_source.wide_schema, p.wide_table), ', ')
                     FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity);
BEGIN
    PERFORM pymig._create_compat_view(p_source.source, p_entity, p_is_out => true);
    PERFORM pymig._drop_rw_views(p_source, p_entity);
    IF EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
               WHERE n.nspname = p_source.wide_schema AND c.relname = v_name AND c.relkind = 'v') THEN
        EXECUTE format('DROP VIEW %I.%I', p_source.wide_schema, v_name);
    END IF;
    IF v_parts IS NOT NULL THEN
        EXECUTE format('DROP TABLE IF EXISTS %s', v_parts);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._drop_wide_tables(pymig.source, text) IS
    'Drops the wide tables and the views of an entity. 2BP01 where something of the user''s depends on them.';

-- sql/core/functions/_due_bucket.sql
CREATE OR REPLACE FUNCTION pymig._due_bucket(p_source pymig.source, OUT entity text, OUT bucket bigint)
RETURNS record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The hour that is being written changes all the time.
    c_rest constant interval := '10 seconds';
BEGIN
    IF NOT EXISTS (SELECT FROM pymig.source AS s WHERE s.source = p_source.source AND s.verify_budget > 0 AND s.paused_at IS NULL AND coalesce(s.verify_after, '-infinity') <= clock_timestamp())
        OR NOT pg_try_advisory_xact_lock(pymig._lock_key('verify', p_source.source)) THEN
        RETURN;
    ELSIF pymig.look_at_throttle() IS NOT NULL THEN
        RETURN;
    END IF;
    -- In a transaction of its own, before the comparison: what changes meanwhile is noted again, and no recompute waits for us.
    DELETE FROM pymig.changed_bucket AS c
    WHERE (c.source, c.entity, c.bucket) = (
        SELECT b.source, b.entity, b.bucket
        FROM pymig.changed_bucket AS b JOIN pymig.entity AS e USING (source, entity)
        WHERE b.source = p_source.source AND b.changed_at < clock_timestamp() - c_rest AND e.verified_at IS NOT NULL AND e.paused_at IS NULL AND pymig._is_backfilled(e.state)
        ORDER BY b.changed_at
        LIMIT 1)
    RETURNING c.entity, c.bucket INTO entity, bucket;
    IF NOT FOUND THEN
        -- Whatever was not looked at for longest: so each gets its turn, which drawing lots would not promise.
        SELECT v.entity, v.bucket INTO entity, bucket
        FROM pymig.verification AS v JOIN pymig.entity AS e USING (source, entity)
        WHERE v.source = p_source.source AND v.checked_at < clock_timestamp() - c_rest AND e.verified_at IS NOT NULL AND e.paused_at IS NULL AND pymig._is_backfilled(e.state)
        ORDER BY v.checked_at
        LIMIT 1;
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._due_bucket(pymig.source) IS
    'The bucket that is to be verified again next: the one that changed longest ago, else the one compared longest ago. NULL where the budget is spent, another worker is at it, all that is verified is paused, history is throttled, or nothing is verified.';

-- sql/core/functions/_due_promotions.sql
CREATE OR REPLACE FUNCTION pymig._due_promotions(p_source text)
RETURNS text[]
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(
        SELECT e.entity
        FROM pymig.entity AS e JOIN pymig.source AS s USING (source)
        CROSS JOIN LATERAL (
            SELECT count(*) AS begun, bool_and(coalesce(m.retry_at > clock_timestamp(), false) OR m.next_bucket IS NULL AND pymig._has_older_snapshots(m.filled_by)) AS is_waiting, bool_and(m.next_bucket IS NULL) AS is_free
            FROM pymig.promotion AS m WHERE m.source = e.source AND m.entity = e.entity
        ) AS m
        WHERE e.source = p_source AND e.wide_table IS NOT NULL AND coalesce(e.promote_at, '-infinity') <= clock_timestamp() AND CASE
            WHEN coalesce(e.type_drift, s.type_drift) = 'quarantine' THEN m.begun > 0
            WHEN NOT pymig._is_backfilled(e.state) THEN false
            WHEN m.begun > 0 AND m.is_waiting IS NOT TRUE THEN true
            -- Promotions that wait for somebody to drop what depends on a column don't keep others from beginning.
            WHEN m.is_free IS FALSE THEN false
            ELSE pymig._has_drift(e.source, e.entity)
        END
        ORDER BY e.entity)
$$;
COMMENT ON FUNCTION pymig._due_promotions(text) IS
    'Entities of a source that have a promotion to begin, to go on with, or, since the policy changed, to give up.';

-- sql/core/functions/_due_todo.sql
CREATE OR REPLACE FUNCTION pymig._due_todo(
    p_source pymig.source, p_after bigint, OUT entities text[], OUT runs text[], OUT oldest timestamptz)
RETURNS record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A bucket with more keys is recomputed as a whole, so its whole neighbours can come along. With a time grain it always is.
    c_keys constant int := CASE WHEN p_source.grain_ticks IS NULL THEN 60 ELSE 0 END;
BEGIN
    -- Round robin over the entities, newest bucket first and alone: nobody's backlog delays another's live rows. Every fifth is the
    -- one that has waited longest, so that a backlog ends also under live rows without end. The entities of a turn stand in a
    -- ring, which is entered behind the one that was done last: a list that is left early still serves everybody.
    -- What failed before is alone as well, and so are the buckets that have no neighbours: the infinities, and no time.
    EXECUTE format($sql$
        WITH due AS (
            SELECT d.entity, d.bucket, sum(cardinality(d.times)) AS keys, min(d.recorded_at) AS recorded_at,
                CASE WHEN max(d.attempts) > 0 OR d.bucket IN (-9223372036854775808, (-9223372036854775807), 9223372036854775807)
                          OR row_number() OVER (PARTITION BY d.entity ORDER BY d.bucket DESC) = 1 THEN 'alone'
                     WHEN bool_or(d.times IS NULL) OR sum(cardinality(d.times)) > %3$s THEN 'whole'
                     ELSE 'keys' END AS kind
            FROM pymig.%1$I AS d
            JOIN pymig.entity AS e ON e.source = %2$L AND e.entity = d.entity AND e.wide_table IS NOT NULL
            GROUP BY d.entity, d.bucket
            HAVING bool_or(coalesce(d.retry_at, '-infinity') <= clock_timestamp())
        ),
        size AS MATERIALIZED (
            SELECT e.entity, greatest(1, pymig._chunk_buckets(%2$L, e.entity) / 4) AS buckets FROM (SELECT DISTINCT d.entity FROM due AS d) AS e
        ),
        placed AS (
            SELECT d.entity, d.bucket, d.recorded_at, d.kind,
                CASE d.kind WHEN 'alone' THEN d.bucket
                    WHEN 'whole' THEN d.bucket - row_number() OVER neighbours
                    ELSE floor(d.bucket / 64.0) END AS run,
                CASE d.kind WHEN 'whole' THEN floor(d.bucket / s.buckets::numeric)
                    WHEN 'keys' THEN div(sum(d.keys) OVER neighbours, %3$s + 1) END AS piece
            FROM due AS d JOIN size AS s ON s.entity = d.entity
            WINDOW neighbours AS (PARTITION BY d.entity, d.kind ORDER BY d.bucket)
        ),
        run AS (
            SELECT p.entity, array_agg(p.bucket ORDER BY p.bucket)::text AS buckets, min(p.recorded_at) AS recorded_at,
                row_number() OVER (PARTITION BY p.entity ORDER BY max(p.bucket) DESC) AS turn
            FROM placed AS p
            GROUP BY p.entity, p.kind, p.run, p.piece
        ),
        ranked AS (
            SELECT u.entity, u.buckets, u.recorded_at, least(
                row_number() OVER (ORDER BY u.turn, pymig._ring_place(u.entity) <= $1, pymig._ring_place(u.entity), u.entity),
                4 * row_number() OVER (ORDER BY u.recorded_at, u.entity, u.buckets)) AS place
            FROM run AS u
        )
        SELECT array_agg(r.entity ORDER BY r.place, r.entity, r.buckets), array_agg(r.buckets ORDER BY r.place, r.entity, r.buckets), min(r.recorded_at)
        FROM ranked AS r
        $sql$, p_source.source || '_todo', p_source.source, c_keys)
    INTO entities, runs, oldest
    USING p_after;
END
$$;
COMMENT ON FUNCTION pymig._due_todo(pymig.source, bigint) IS
    'p_after: _ring_place of the entity that was done last. What is due for a recompute, in the order to do it: entities, and beside each a run of its buckets (an array literal) for one transaction. Neighbours that are recomputed as a whole go together, about a quarter of a second''s worth; so do a few keys of buckets that lie near each other. oldest: since when the oldest key of them waits. Parked keys of entities without wide tables are not among them.';

-- sql/core/functions/_empty_pending.sql
CREATE OR REPLACE FUNCTION pymig._empty_pending(p_source pymig.source, p_table text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('TRUNCATE pymig.%I', p_table);
    EXECUTE format('ALTER TABLE pymig.%I SET TABLESPACE %I', p_table, coalesce(p_source.queue_tablespace, pymig._database_tablespace()));
EXCEPTION
    WHEN disk_full THEN
        -- TRUNCATE makes the new files before it frees the old. So by way of the other disk, and back in a later pass.
        EXECUTE format('ALTER TABLE pymig.%I SET TABLESPACE %I', p_table, pymig._database_tablespace());
END
$$;
COMMENT ON FUNCTION pymig._empty_pending(pymig.source, text) IS
    'Truncates a pending table that has no keys and is locked, and puts it into the tablespace it should be in; where that is full, into the database''s.';

-- sql/core/functions/_entity.sql
CREATE OR REPLACE FUNCTION pymig._entity(p_source text, p_entity text)
RETURNS pymig.entity
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_entity pymig.entity;
BEGIN
    SELECT e.* INTO v_entity FROM pymig.entity AS e WHERE e.source = p_source AND e.entity = p_entity;
    IF v_entity.wide_table IS NULL THEN
        RAISE EXCEPTION '% is not being migrated', coalesce(quote_literal(p_entity), 'NULL')
            USING ERRCODE = 'PM004', HINT = 'Start it: CALL pymig.migrate(...) or CALL pymig.start_sync(...).';
    END IF;
    RETURN v_entity;
END
$$;
COMMENT ON FUNCTION pymig._entity(text, text) IS 'Row of an entity that has wide tables. PM004 where it has none.';

-- sql/core/functions/_estimate_rows.sql
CREATE OR REPLACE FUNCTION pymig._estimate_rows(
    p_source pymig.source, p_entity text, p_first_bucket bigint DEFAULT NULL, p_last_bucket bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_plan json;
BEGIN
    EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM pymig.%I AS n WHERE n.entity = %L%s', p_source.source || '_cell', p_entity,
        CASE WHEN p_first_bucket IS NOT NULL THEN ' AND ' || pymig._time_condition(p_source, 'n.raw_time', p_first_bucket, p_last_bucket) END) INTO v_plan;
    RETURN (v_plan -> 0 -> 'Plan' ->> 'Plan Rows')::numeric::bigint;
END
$$;
COMMENT ON FUNCTION pymig._estimate_rows(pymig.source, text, bigint, bigint) IS
    'Narrow rows of an entity, or of a run of its buckets, by the planner''s statistics (ANALYZE the narrow table for a good one).';

-- sql/core/functions/_exchange_columns.sql
CREATE OR REPLACE FUNCTION pymig._exchange_columns(p_source pymig.source, p_entity text, p_channels text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r_part record;
    r_column record;
    v_comments text[];
BEGIN
    v_comments := ARRAY(
        SELECT format('COMMENT ON COLUMN %I.%I.%I IS %L', p_source.wide_schema, new.wide_table, c.wide_column, col_description(a.attrelid, a.attnum))
        FROM pymig.promotion AS m
        JOIN pymig.channel AS c USING (source, entity, channel)
        JOIN pymig.part AS old ON old.source = m.source AND old.entity = m.entity AND old.part = c.part
        JOIN pymig.part AS new ON new.source = m.source AND new.entity = m.entity AND new.part = m.part
        JOIN pg_attribute AS a ON a.attrelid = format('%I.%I', p_source.wide_schema, old.wide_table)::regclass AND a.attname = c.wide_column
        WHERE m.source = p_source.source AND m.entity = p_entity AND m.channel = ANY (p_channels) AND col_description(a.attrelid, a.attnum) IS NOT NULL);
    FOR r_part IN
        SELECT p.wide_table, string_agg(format('DROP COLUMN %I', c.wide_column), ', ' ORDER BY c.ord) AS drops
        FROM pymig.channel AS c JOIN pymig.part AS p USING (source, entity, part)
        WHERE c.source = p_source.source AND c.entity = p_entity AND c.channel = ANY (p_channels)
        GROUP BY p.part, p.wide_table
        ORDER BY p.part
    LOOP
        EXECUTE format('ALTER TABLE %I.%I %s', p_source.wide_schema, r_part.wide_table, r_part.drops);
    END LOOP;
    FOR r_column IN
        SELECT p.wide_table, m.wide_column AS old_name, c.wide_column AS new_name
        FROM pymig.promotion AS m
        JOIN pymig.channel AS c USING (source, entity, channel)
        JOIN pymig.part AS p ON p.source = m.source AND p.entity = m.entity AND p.part = m.part
        WHERE m.source = p_source.source AND m.entity = p_entity AND m.channel = ANY (p_channels)
        ORDER BY p.part, m.ord
    LOOP
        EXECUTE format('ALTER TABLE %I.%I RENAME COLUMN %I TO %I', p_source.wide_schema, r_column.wide_table, r_column.old_name, r_column.new_name);
    END LOOP;
    FOR r_column IN SELECT c.c AS comment FROM unnest(v_comments) AS c (c) LOOP
        EXECUTE r_column.comment;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._exchange_columns(pymig.source, text, text[]) IS
    'Drops the old columns of promoted channels and gives the new ones their names and comments.';

-- sql/core/functions/_expand_partition.sql
CREATE OR REPLACE FUNCTION pymig._expand_partition(p_source pymig.source, p_partition pymig.partition)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_entity text;
BEGIN
    -- A row may have been recomputed into wide and deleted before the triggers were there. Whoever is just recomputing has
    -- perhaps read such a row, and is waited for, in attempts. No lock of the narrow table is held meanwhile: a recompute
    -- that waits for one would close a circle (TRUNCATE), and ingest could be its victim.
    PERFORM set_config('lock_timeout', '300ms', true);
    FOREACH v_entity IN ARRAY ARRAY(
        SELECT p.entity FROM pymig.part AS p WHERE p.source = p_source.source AND p.part = 1 ORDER BY p.entity)
    LOOP
        PERFORM pymig._lock_entity(p_source.source, v_entity, p_exclusive => true);
        PERFORM pymig._expand_range(p_source, v_entity, p_partition.first_tick, p_partition.last_tick);
    END LOOP;
    UPDATE pymig.partition AS p SET state = 'expanded', attempts = 0, retry_at = NULL, error = NULL
    WHERE p.source = p_partition.source AND p.relation = p_partition.relation;
END
$$;
COMMENT ON FUNCTION pymig._expand_partition(pymig.source, pymig.partition) IS
    'Queues every bucket in which wide has rows in the range of a new partition, which is armed by now.';

-- sql/core/functions/_expand_range.sql
CREATE OR REPLACE FUNCTION pymig._expand_range(p_source pymig.source, p_entity text, p_first_tick bigint, p_last_tick bigint)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_first bigint := pymig.bucket_of(p_first_tick, p_source.bucket_ticks);
    v_last bigint := pymig.bucket_of(p_last_tick, p_source.bucket_ticks);
    v_is_all boolean := v_first = -9223372036854775808 AND v_last = 9223372036854775807;
    v_table text;
    v_faults text;
BEGIN
    IF v_first > v_last THEN
        RETURN;
    END IF;
    PERFORM pymig._lock_entity(p_source.source, p_entity, p_exclusive => false);
    SELECT p.wide_table INTO v_table FROM pymig.part AS p
    WHERE p.source = p_source.source AND p.entity = p_entity AND p.part = 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- A table that somebody dropped must not stop the queue of all others.
    v_faults := pymig._part_faults(p_source, p_entity);
    IF v_faults IS NOT NULL THEN
        PERFORM pymig._fail_entity(p_source, p_entity, v_faults);
        RETURN;
    END IF;
    EXECUTE format(
        'INSERT INTO pymig.%1$I (entity, bucket, times, recorded_at)
         SELECT %2$L, b.bucket, NULL::%3$s[], now()
         FROM (SELECT DISTINCT %4$s FROM %5$I.%6$I AS w WHERE %7$s
               UNION SELECT q.bucket FROM pymig.quarantine AS q
               WHERE q.source = %8$L AND q.entity = %2$L AND q.bucket BETWEEN %9$s AND %10$s
               UNION SELECT %11$s WHERE %12$L) AS b (bucket)',
        p_source.source || '_todo', p_entity, p_source.time_type,
        pymig._bucket_sql(p_source, format('w.%I', p_source.time_column)), p_source.wide_schema, v_table,
        pymig._time_condition(p_source, format('w.%I', p_source.time_column), v_first, v_last),
        p_source.source, v_first, v_last, (-9223372036854775807), v_is_all);
END
$$;
COMMENT ON FUNCTION pymig._expand_range(pymig.source, text, bigint, bigint) IS
    'Queues every bucket in which an entity has wide or quarantined rows between two ticks, to be looked at again. Everything includes the rows without a time.';

-- sql/core/functions/_expand_truncates.sql
CREATE OR REPLACE FUNCTION pymig._expand_truncates(p_source pymig.source, p_kinds text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A chunk in flight held TRUNCATE up until it had committed. TRUNCATE of all has a marker of each partition: one will do.
    PERFORM pymig._expand_range(p_source, p.entity, t.first_tick, t.last_tick)
    FROM pymig.part AS p
    CROSS JOIN (
        SELECT DISTINCT coalesce(x.first_tick, -9223372036854775808) AS first_tick, coalesce(x.last_tick, 9223372036854775807) AS last_tick
        FROM unnest(p_kinds) AS k (kind)
        LEFT JOIN pymig.partition AS x ON x.source = p_source.source AND x.relation::oid::text = split_part(k.kind, ':', 2)
        WHERE NOT p_source.narrow::oid::text = ANY (SELECT split_part(o.kind, ':', 2) FROM unnest(p_kinds) AS o (kind))
           OR split_part(k.kind, ':', 2) = p_source.narrow::oid::text
    ) AS t
    WHERE p.source = p_source.source AND p.part = 1;
END
$$;
COMMENT ON FUNCTION pymig._expand_truncates(pymig.source, text[]) IS
    'Queues what a TRUNCATE emptied, given the kinds of its markers (truncate:<oid of the table>): the range of a partition, or all.';

-- sql/core/functions/_expected_bytes.sql
CREATE OR REPLACE FUNCTION pymig._expected_bytes(p_rows bigint, p_layout pymig.planned_channel[])
RETURNS bigint
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A text cell of a number is about 8 characters long. 36 bytes of header and line pointer and 24 of index entry for each wide row.
    SELECT (sum(CASE WHEN l.column_type = 'text' THEN 9 ELSE pymig._column_width(l.column_type, false) END) * p_rows / greatest(count(*), 1)
        + count(DISTINCT l.part) * 60 * p_rows / greatest(count(*), 1))::bigint
    FROM unnest(p_layout) AS l
$$;
COMMENT ON FUNCTION pymig._expected_bytes(bigint, pymig.planned_channel[]) IS
    'Rough size of the wide tables in bytes, were every channel sent at every time.';

-- sql/core/functions/_fail_entity.sql
CREATE OR REPLACE FUNCTION pymig._fail_entity(p_source pymig.source, p_entity text, p_fault text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE pymig.entity AS e SET state = 'failed', verified_at = NULL, last_error = p_fault, state_changed_at = now()
    WHERE e.source = p_source.source AND e.entity = p_entity AND e.state <> 'failed';
    IF FOUND THEN
        PERFORM pymig._void_certificate(p_source.source, p_entity, 'its wide tables were altered');
        PERFORM pymig._note('CRITICAL', p_source.source, p_entity, 'wide table gone', format(
            'Nothing of this entity is kept in sync: %s. Undo that, then CALL pymig.migrate(%L) again; or CALL pymig.roll_back(%2$L) and migrate it anew.',
            p_fault, p_entity));
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._fail_entity(pymig.source, text, text) IS
    'Sets an entity to failed because of its wide tables, with an event that says what to do. Its keys stay pending.';

-- sql/core/functions/_failed_chunks.sql
CREATE OR REPLACE FUNCTION pymig._failed_chunks(p_source text, p_entity text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format('%s to %s: %s', c.from_time, c.to_time, c.error), '; ' ORDER BY c.first_bucket)
    FROM (SELECT c.* FROM pymig.chunk AS c WHERE c.source = p_source AND c.entity = p_entity AND c.state = 'failed' ORDER BY c.first_bucket LIMIT 5) AS c
$$;
COMMENT ON FUNCTION pymig._failed_chunks(text, text) IS 'The first five failed chunks of an entity, for a person.';

-- sql/core/functions/_fault_columns.sql
CREATE OR REPLACE FUNCTION pymig._fault_columns()
RETURNS text[]
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY['fault', 'kind', 'narrow_row'] || ARRAY(SELECT 'as_' || t.t FROM unnest(ARRAY['text', 'float8', 'int8', 'bool', 'numeric', 'jsonb']) AS t (t))
$$;
COMMENT ON FUNCTION pymig._fault_columns() IS 'Columns of the cell view that _faults_sql looks at.';

-- sql/core/functions/_faults_sql.sql
CREATE OR REPLACE FUNCTION pymig._faults_sql(p_cells text)
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- The text form is asked for last: of a float it takes longer than all the rest.
    SELECT format(
        'SELECT f.* FROM (
             SELECT x.*, coalesce(x.fault, CASE WHEN CASE x.column_type
                 WHEN ''text'' THEN false WHEN ''float8'' THEN x.as_float8 IS NULL WHEN ''int8'' THEN x.as_int8 IS NULL WHEN ''bool'' THEN x.as_bool IS NULL WHEN ''numeric'' THEN x.as_numeric IS NULL WHEN ''jsonb'' THEN x.as_jsonb IS NULL END AND x.as_text IS NOT NULL THEN ''type_mismatch'' END) AS reason
             FROM (%s) AS x) AS f
         WHERE f.reason IS NOT NULL', p_cells)
$$;
COMMENT ON FUNCTION pymig._faults_sql(text) IS
    'SELECT of the rows among those of _cells_sql that can''t be a cell of their column, with the reason.';

-- sql/core/functions/_fill_next_bucket.sql
CREATE OR REPLACE FUNCTION pymig._fill_next_bucket(p_source pymig.source, p_entity text, p_from bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_bucket bigint := pymig._next_bucket(p_source, p_entity, p_from);
BEGIN
    -- Its own statement, before the narrow rows are read (R22).
    IF v_bucket IS NOT NULL THEN
        PERFORM pymig._lock_buckets(p_source.source, p_entity, v_bucket, v_bucket);
        PERFORM pymig._fill_promoted(p_source, p_entity, v_bucket, v_bucket, NULL);
    END IF;
    UPDATE pymig.promotion AS m SET next_bucket = CASE WHEN v_bucket < 9223372036854775807 THEN v_bucket + 1 END, filled_by = pg_current_xact_id(), error = NULL, retry_at = NULL
    WHERE m.source = p_source.source AND m.entity = p_entity AND m.next_bucket = p_from;
END
$$;
COMMENT ON FUNCTION pymig._fill_next_bucket(pymig.source, text, bigint) IS
    'Fills the new columns in the next bucket that has rows, and remembers it in the same transaction.';

-- sql/core/functions/_fill_promoted.sql
CREATE OR REPLACE FUNCTION pymig._fill_promoted(
    p_source pymig.source, p_entity text, p_first_bucket bigint, p_last_bucket bigint, p_times text)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_wide text := pymig._time_condition(p_source, format('w.%I', p_source.time_column), p_first_bucket, p_last_bucket, p_times);
    v_is_lossy boolean;
    r_group record;
    r_check record;
BEGIN
    PERFORM set_config('pymig.writes_wide', 'on', true);
    FOR r_group IN
        SELECT array_agg(m.ord ORDER BY m.ord) AS ords
        FROM pymig.promotion AS m
        JOIN pymig.channel AS c USING (source, entity, channel)
        WHERE m.source = p_source.source AND m.entity = p_entity
        GROUP BY c.part, m.part
        ORDER BY c.part, m.part
    LOOP
        EXECUTE pymig._fill_promoted_sql(p_source, p_entity, r_group.ords,
            pymig._time_condition(p_source, 'n.raw_time', p_first_bucket, p_last_bucket, p_times, p_entity), v_wide);
    END LOOP;
    -- Text takes everything, and numeric every integer.
    FOR r_check IN
        SELECT m.channel, m.wide_column AS new_column, c.wide_column AS old_column, new.wide_table AS new_table, old.wide_table AS old_table
        FROM pymig.promotion AS m
        JOIN pymig.channel AS c USING (source, entity, channel)
        JOIN pymig.part AS old ON old.source = m.source AND old.entity = m.entity AND old.part = c.part
        JOIN pymig.part AS new ON new.source = m.source AND new.entity = m.entity AND new.part = m.part
        WHERE m.source = p_source.source AND m.entity = p_entity AND m.column_type = 'float8' AND m.is_lossless
    LOOP
        EXECUTE format(
            'SELECT EXISTS (SELECT FROM %1$I.%2$I AS w JOIN %1$I.%3$I AS t USING (%4$I) WHERE %5$s AND w.%6$I IS NOT NULL AND t.%7$I IS NULL)',
            p_source.wide_schema, r_check.old_table, r_check.new_table, p_source.time_column, v_wide, r_check.old_column, r_check.new_column)
        INTO v_is_lossy;
        IF v_is_lossy THEN
            UPDATE pymig.promotion AS m SET is_lossless = false
            WHERE m.source = p_source.source AND m.entity = p_entity AND m.channel = r_check.channel;
        END IF;
    END LOOP;
    PERFORM set_config('pymig.writes_wide', 'off', true);
END
$$;
COMMENT ON FUNCTION pymig._fill_promoted(pymig.source, text, bigint, bigint, text) IS
    'Fills the new columns of channels that are being promoted, for a run of buckets or some times, and notices values the new type can''t hold. The caller holds the locks of the buckets.';

-- sql/core/functions/_fill_promoted_sql.sql
CREATE OR REPLACE FUNCTION pymig._fill_promoted_sql(
    p_source pymig.source, p_entity text, p_ords int[], p_narrow_condition text, p_wide_condition text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A cell whose narrow row is gone while its wide row is kept has only the old column to come from.
    SELECT format(
        'UPDATE %1$I.%2$I AS t SET %3$s
         FROM (SELECT w.%4$I AS time, %5$s FROM %1$I.%6$I AS w LEFT JOIN (%7$s) AS j ON j.time = w.%4$I WHERE %8$s) AS v
         WHERE t.%4$I = v.time AND ROW(%9$s)::record OPERATOR(pg_catalog.*<>) ROW(%10$s)::record',
        p_source.wide_schema, min(new.wide_table),
        string_agg(format('%I = v."%s"', m.wide_column, m.ord), ', ' ORDER BY m.ord),
        p_source.time_column,
        string_agg(format('coalesce(j."%1$s", %2$s) AS "%1$s"', m.ord,
            pymig._cast_sql(format('w.%I', c.wide_column), c.column_type, m.column_type)), ', ' ORDER BY m.ord),
        min(old.wide_table),
        pymig._promoted_cells_sql(p_source, p_entity, p_ords, p_narrow_condition),
        p_wide_condition,
        string_agg(format('t.%I', m.wide_column), ', ' ORDER BY m.ord),
        string_agg(format('v."%s"', m.ord), ', ' ORDER BY m.ord))
    FROM pymig.promotion AS m
    JOIN pymig.channel AS c USING (source, entity, channel)
    JOIN pymig.part AS old ON old.source = m.source AND old.entity = m.entity AND old.part = c.part
    JOIN pymig.part AS new ON new.source = m.source AND new.entity = m.entity AND new.part = m.part
    WHERE m.source = p_source.source AND m.entity = p_entity AND m.ord = ANY (p_ords)
$$;
COMMENT ON FUNCTION pymig._fill_promoted_sql(pymig.source, text, int[], text, text) IS
    'UPDATE that fills new columns of one part, whose old columns are all in one part, too, where the conditions hold.';

-- sql/core/functions/_finish_backfill.sql
CREATE OR REPLACE FUNCTION pymig._finish_backfill(p_source text, p_entity text)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_planned bigint;
    v_failed bigint;
BEGIN
    SELECT count(*) FILTER (WHERE c.state = 'planned'), count(*) FILTER (WHERE c.state = 'failed')
    INTO v_planned, v_failed
    FROM pymig.chunk AS c
    WHERE c.source = p_source AND c.entity = p_entity AND c.state <> 'done';
    IF v_planned > 0 THEN
        RETURN 'wait';
    ELSIF v_failed > 0 THEN
        UPDATE pymig.entity AS e SET state = 'failed', state_changed_at = now()
        WHERE e.source = p_source AND e.entity = p_entity AND e.state = 'syncing';
        IF FOUND THEN
            PERFORM pymig._note('CRITICAL', p_source, p_entity, 'ship failed', format('Its backfill ended with %s chunks that failed for good; sync goes on.', v_failed));
        END IF;
        RETURN 'failed';
    END IF;
    UPDATE pymig.entity AS e SET state = 'backfilled', backfilled_at = now(), state_changed_at = now(), last_error = NULL,
        moved_rows = (SELECT sum(c.narrow_rows) FROM pymig.chunk AS c WHERE c.source = p_source AND c.entity = p_entity AND c.state = 'done')
    WHERE e.source = p_source AND e.entity = p_entity AND e.state IN ('syncing', 'failed') AND e.next_bucket IS NULL;
    IF FOUND THEN
        PERFORM pymig._note('INFO', p_source, p_entity, 'backfilled', 'All of its history is in the wide table.');
        RETURN 'done';
    END IF;
    RETURN 'wait';
END
$$;
COMMENT ON FUNCTION pymig._finish_backfill(text, text) IS
    'With no chunk left to claim: wait (others still move some), failed, or done and the entity is backfilled.';

-- sql/core/functions/_finish_verify.sql
CREATE OR REPLACE FUNCTION pymig._finish_verify(p_source pymig.source, p_entity text, p_started timestamptz)
RETURNS text
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_unequal bigint;
    v_differences numeric;
    v_stuck bigint;
    v_error text;
    v_is_lost boolean;
BEGIN
    DELETE FROM pymig.verification AS v WHERE v.source = p_source.source AND v.entity = p_entity AND v.checked_at < p_started;
    SELECT count(*), sum(v.differences) INTO v_unequal, v_differences
    FROM pymig.verification AS v WHERE v.source = p_source.source AND v.entity = p_entity AND NOT v.is_equal;
    -- A pending key excuses a difference; one that can't be recomputed must not excuse it for ever.
    EXECUTE format('SELECT count(*), max(d.error) FROM pymig.%I AS d WHERE d.entity = $1 AND d.attempts > 0 AND d.recorded_at < $2', p_source.source || '_todo')
    INTO v_stuck, v_error
    USING p_entity, p_started;
    v_is_lost := pymig._has_lost_keys(p_source) OR EXISTS (SELECT FROM pymig.entity AS e
        WHERE e.source = p_source.source AND e.entity = p_entity AND e.repair_from IS NOT NULL);
    IF v_unequal = 0 AND v_stuck = 0 AND NOT v_is_lost THEN
        UPDATE pymig.entity AS e SET
            state = CASE WHEN e.state = 'backfilled' THEN 'verified' ELSE e.state END, verified_at = now(),
            state_changed_at = CASE WHEN e.state = 'backfilled' THEN now() ELSE e.state_changed_at END
        WHERE e.source = p_source.source AND e.entity = p_entity AND pymig._is_backfilled(e.state);
        PERFORM pymig._note('INFO', p_source.source, p_entity, 'verified', format('%s buckets compared, all equal.', (
            SELECT count(*) FROM pymig.verification AS v WHERE v.source = p_source.source AND v.entity = p_entity)));
        RETURN NULL;
    END IF;
    PERFORM pymig._unverify(p_source.source, p_entity, 'it did not verify any more');
    PERFORM pymig._note('CRITICAL', p_source.source, p_entity, 'verification mismatch',
        format('%s differences in %s buckets, %s buckets with keys that can''t be recomputed%s.', coalesce(v_differences, 0), v_unequal, v_stuck,
            CASE WHEN v_is_lost THEN '; keys were lost, and their repair is not done' END));
    RETURN CASE WHEN v_unequal > 0 THEN format('%s differences in %s buckets', v_differences, v_unequal)
                WHEN v_stuck = 0 THEN 'keys were lost, and the worker has not yet repaired what they stood for'
                ELSE format('the pending keys of %s buckets cannot be recomputed: %s', v_stuck, v_error) END;
END
$$;
COMMENT ON FUNCTION pymig._finish_verify(pymig.source, text, timestamptz) IS
    'Sums a verification up and sets the entity''s state by it. Returns what is wrong, or NULL.';

-- sql/core/functions/_first_tick_of.sql
CREATE OR REPLACE FUNCTION pymig._first_tick_of(p_source pymig.source, p_bucket bigint)
RETURNS bigint
LANGUAGE sql
IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    -- The infinities are buckets, too.
    SELECT greatest(-9223372036854775808, least(p_bucket::numeric * p_source.bucket_ticks, 9223372036854775807))::bigint
$$;
COMMENT ON FUNCTION pymig._first_tick_of(pymig.source, bigint) IS 'First tick of a bucket.';

-- sql/core/functions/_fit_buckets.sql
CREATE OR REPLACE FUNCTION pymig._fit_buckets(
    p_source pymig.source, p_entity text, p_first_bucket bigint, p_most numeric, p_target interval DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_size numeric := greatest(1, least(p_most, pymig._chunk_buckets(p_source.source, p_entity, p_target)));
    v_limit double precision := pymig._chunk_rows(p_source.source, p_entity, p_target);
    v_rows bigint;
BEGIN
    -- By buckets what the last chunks took, by rows what the planner's histogram of times says: after a gap it is another density.
    WHILE v_size > 1 LOOP
        v_rows := pymig._estimate_rows(p_source, p_entity, p_first_bucket, (p_first_bucket + v_size - 1)::bigint);
        EXIT WHEN v_rows <= 2 * v_limit;
        v_size := greatest(1, floor(v_size * v_limit::numeric / v_rows));
    END LOOP;
    RETURN v_size;
END
$$;
COMMENT ON FUNCTION pymig._fit_buckets(pymig.source, text, bigint, numeric, interval) IS
    'How many buckets from one on, p_most at most, take about as long as the chunk target says, or up to twice as long; at least one.';

-- sql/core/functions/_fit_chunk.sql
CREATE OR REPLACE FUNCTION pymig._fit_chunk(p_source pymig.source, p_chunk pymig.chunk, p_target interval DEFAULT NULL)
RETURNS pymig.chunk
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_buckets numeric := p_chunk.last_bucket::numeric - p_chunk.first_bucket + 1;
    v_size bigint := pymig._fit_buckets(p_source, p_chunk.entity, p_chunk.first_bucket, v_buckets, p_target);
BEGIN
    IF v_buckets <= 2 * v_size THEN
        RETURN p_chunk;
    END IF;
    RETURN pymig._split_chunk(p_source, p_chunk, p_chunk.first_bucket + v_size - 1);
END
$$;
COMMENT ON FUNCTION pymig._fit_chunk(pymig.source, pymig.chunk, interval) IS
    'A planned chunk that would take more than twice as long as the chunk target says, cut to what does; the rest becomes a chunk of its own. It was dealt before the last ones turned out to be slow, the target was changed, or a gap ended.';

-- sql/core/functions/_fits_kind.sql
CREATE OR REPLACE FUNCTION pymig._fits_kind(p_value text, p_kind text)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN p_kind IN ('text', 'jsonb') THEN true
        WHEN p_kind = 'bool' THEN lower(p_value) IN ('true', 'false')
        WHEN p_kind = 'int8' THEN CASE WHEN p_value ~ '^[+-]?[0-9]+$'
            THEN p_value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 ELSE false END
        WHEN p_kind IN ('float8', 'numeric') THEN
            p_value ~* '^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?$' OR p_value ~* '^([+-]?inf(inity)?|nan)$'
    END
$$;
COMMENT ON FUNCTION pymig._fits_kind(text, text) IS 'Can this text be a value of this native type? Whether it is too large, its type says.';

-- sql/core/functions/_follow_rename.sql
CREATE OR REPLACE FUNCTION pymig._follow_rename(p_source pymig.source, p_entity text, p_channel text, p_old text, p_new text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_view text;
BEGIN
    UPDATE pymig.channel AS c SET wide_column = p_new
    WHERE c.source = p_source.source AND c.entity = p_entity AND c.channel = p_channel;
    FOR v_view IN
        SELECT format('%I.%I', p_source.wide_schema, v.name)
        FROM (SELECT e.wide_table AS name FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity
              UNION ALL SELECT w.name FROM pymig._rw_views(p_source, p_entity) AS w WHERE w.is_there) AS v
        JOIN pg_class AS c ON c.oid = to_regclass(format('%I.%I', p_source.wide_schema, v.name)) AND c.relkind = 'v'
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = p_old
    LOOP
        EXECUTE format('ALTER VIEW %s RENAME COLUMN %I TO %I', v_view, p_old, p_new);
    END LOOP;
    PERFORM pymig._note('WARNING', p_source.source, p_entity, 'column renamed',
        format('Somebody renamed the column %I of %s to %I; pymig.channel_map follows.', p_old, quote_literal(p_channel), p_new));
END
$$;
COMMENT ON FUNCTION pymig._follow_rename(pymig.source, text, text, text, text) IS
    'A column was renamed: the catalog and our views over it follow.';

-- sql/core/functions/_forget_entity.sql
CREATE OR REPLACE FUNCTION pymig._forget_entity(p_source pymig.source, p_entity text, p_lock_timeout interval)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_had_tables boolean;
BEGIN
    -- Recomputes last about a second, transactions that write directly until their end; ingest waits for none of these locks.
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM pymig._lock_entity(p_source.source, p_entity, p_exclusive => true);
    PERFORM set_config('lock_timeout', (extract(epoch FROM p_lock_timeout) * 1000)::int::text, true);
    SELECT e.wide_table IS NOT NULL INTO v_had_tables FROM pymig.entity AS e
    WHERE e.source = p_source.source AND e.entity = p_entity AND e.state <> 'known' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Who has claimed a chunk waits for the entity, which we hold: waiting in turn would be a deadlock.
    PERFORM FROM pymig.chunk AS c WHERE c.source = p_source.source AND c.entity = p_entity FOR UPDATE NOWAIT;
    PERFORM pymig._require_no_closed_range(p_source.source, p_entity);
    PERFORM pymig._drop_wide_tables(p_source, p_entity);
    DELETE FROM pymig.chunk AS c WHERE c.source = p_source.source AND c.entity = p_entity;
    DELETE FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity;
    DELETE FROM pymig.quarantine AS q WHERE q.source = p_source.source AND q.entity = p_entity;
    PERFORM pymig._void_certificate(p_source.source, p_entity, 'it was rolled back');
    DELETE FROM pymig.changed_bucket AS b WHERE b.source = p_source.source AND b.entity = p_entity;
    DELETE FROM pymig.verification AS v WHERE v.source = p_source.source AND v.entity = p_entity;
    DELETE FROM pymig.lag AS l WHERE l.source = p_source.source AND l.entity = p_entity;
    EXECUTE format('DELETE FROM pymig.%I AS d WHERE d.entity = $1', p_source.source || '_todo') USING p_entity;
    UPDATE pymig.entity AS e SET
        state = 'rolled_back', is_adopted = false, strategy = 'auto', wide_table = NULL, first_bucket = NULL, last_bucket = NULL, next_bucket = NULL, repair_from = NULL,
        estimated_rows = NULL, moved_rows = NULL, last_error = NULL, started_at = NULL, backfilled_at = NULL, verified_at = NULL, cut_over_at = NULL, is_held = false, routing = 'narrow', routing_percent = NULL, state_changed_at = now()
    WHERE e.source = p_source.source AND e.entity = p_entity AND e.state <> 'rolled_back';
    IF FOUND THEN
        PERFORM pymig._note('INFO', p_source.source, p_entity, 'rolled back', 'Its wide tables are gone; the narrow table was never changed.');
    END IF;
    RETURN v_had_tables;
END
$$;
COMMENT ON FUNCTION pymig._forget_entity(pymig.source, text, interval) IS
    'One attempt to roll an entity back: drops its wide tables and all state of it in one transaction. 55P03 where a session has claimed a chunk, or a reader held a wide table for longer than the timeout. Returns whether it had wide tables.';

-- sql/core/functions/_forget_newcomer.sql
CREATE OR REPLACE FUNCTION pymig._forget_newcomer(p_source pymig.source, p_entity text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_exists boolean;
BEGIN
    -- While nobody collects, keys that arrive stay in pending; once its row is gone they make it a newcomer again.
    IF NOT pg_try_advisory_xact_lock(pymig._lock_key('collect', p_source.source)) THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM pymig.%I AS n WHERE n.entity = %L)', p_source.source || '_cell', p_entity) INTO v_exists;
    IF NOT v_exists THEN
        DELETE FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity AND e.state = 'planned';
        IF FOUND THEN
            EXECUTE format('DELETE FROM pymig.%I AS d WHERE d.entity = $1', p_source.source || '_todo') USING p_entity;
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._forget_newcomer(pymig.source, text) IS
    'Forgets an adopted entity whose rows were all deleted before it was migrated, so that it is new when it sends again.';

-- sql/core/functions/_forget_quarantine.sql
CREATE OR REPLACE FUNCTION pymig._forget_quarantine(
    p_source pymig.source, p_entity text, p_first_bucket bigint, p_last_bucket bigint, p_times text)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
BEGIN
    DELETE FROM pymig.quarantine AS q
    WHERE q.source = p_source.source AND q.entity = p_entity AND q.bucket BETWEEN p_first_bucket AND p_last_bucket AND NOT q.is_kept
      AND (p_times IS NULL OR q.time = ANY (p_times::text[]));
END
$$;
COMMENT ON FUNCTION pymig._forget_quarantine(pymig.source, text, bigint, bigint, text) IS
    'Deletes what was quarantined of a run of buckets or of some times, before it is found again; but not the only copies of rows whose partition is gone.';

-- sql/core/functions/_free_connections.sql
CREATE OR REPLACE FUNCTION pymig._free_connections()
RETURNS int
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT least(
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true)::int, 0) - (SELECT sum(s.numbackends) FROM pg_stat_database AS s),
        (SELECT d.datconnlimit - s.numbackends FROM pg_database AS d JOIN pg_stat_database AS s ON s.datid = d.oid
         WHERE d.datname = current_database() AND d.datconnlimit >= 0),
        (SELECT r.rolconnlimit - (SELECT count(*) FROM pg_stat_activity AS a WHERE a.usesysid = r.oid) FROM pg_roles AS r
         WHERE r.rolname = session_user AND r.rolconnlimit >= 0))::int
$$;
COMMENT ON FUNCTION pymig._free_connections() IS 'How many more connections the server, this database and this role have room for.';

-- sql/core/functions/_give_certificate.sql
CREATE OR REPLACE FUNCTION pymig._give_certificate(p_source pymig.source, p_entity pymig.entity)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_table text := (SELECT format('%I.%I', p_source.wide_schema, p.wide_table) FROM pymig.part AS p
                     WHERE p.source = p_source.source AND p.entity = p_entity.entity AND p.part = 1);
    v_rows bigint;
    v_fault text;
BEGIN
    PERFORM pymig._require_same_entity(p_entity);
    EXECUTE format('SELECT count(*) FROM %s', v_table) INTO v_rows;
    DELETE FROM pymig.changed_bucket AS b
    USING pymig.verification AS v
    WHERE b.source = p_source.source AND b.entity = p_entity.entity
      AND v.source = b.source AND v.entity = b.entity AND v.bucket = b.bucket AND v.checked_at - v.seconds * interval '1 second' > b.changed_at;
    PERFORM pymig._void_certificate(p_source.source, p_entity.entity, 'a newer one was given');
    INSERT INTO pymig.certificate (source, entity, wide_table, lsn, from_time, to_time, buckets, cells, wide_rows, quarantined, digest, bucket_digests, code_hash)
    SELECT p_source.source, p_entity.entity, format('%I.%I', p_source.wide_schema, p_entity.wide_table), pg_current_wal_insert_lsn(),
        (array_agg(v.from_time ORDER BY v.bucket) FILTER (WHERE v.bucket <> (-9223372036854775807)))[1],
        (array_agg(v.to_time ORDER BY v.bucket DESC) FILTER (WHERE v.bucket <> (-9223372036854775807)))[1],
        count(*), coalesce(sum(v.cells), 0), v_rows,
        (SELECT count(*) FROM pymig.quarantine AS q WHERE q.source = p_source.source AND q.entity = p_entity.entity),
        encode(sha256(convert_to(coalesce(string_agg(format('%s:%s', v.bucket, v.digest), E'\n' ORDER BY v.bucket), ''), 'UTF8')), 'hex'),
        coalesce(jsonb_object_agg(v.bucket, v.digest), '{}'), pymig._code_hash(p_source)
    FROM pymig.verification AS v
    WHERE v.source = p_source.source AND v.entity = p_entity.entity;
    -- Keys may have been lost, or triggers changed, while it was compared.
    v_fault := pymig.certificate_fault(p_entity.entity, p_source.source);
    IF v_fault IS NOT NULL THEN
        RAISE EXCEPTION '% cannot be certified: %', quote_literal(p_entity.entity), v_fault
            USING ERRCODE = 'PM041', HINT = 'Remove the cause (pymig.status, pymig.event), then certify again.';
    END IF;
    PERFORM pymig._note('INFO', p_source.source, p_entity.entity, 'certified', 'Every cell was compared, and all are equal: pymig.certificate.');
END
$$;
COMMENT ON FUNCTION pymig._give_certificate(pymig.source, pymig.entity) IS
    'Writes the certificate of an entity that has just been verified, from pymig.verification. PM041 where it would not count.';

-- sql/core/functions/_grain_sql.sql
CREATE OR REPLACE FUNCTION pymig._grain_sql(p_source pymig.source, p_time text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN p_source.grain_ticks IS NULL THEN p_time
        WHEN p_source.time_type = 'bigint' THEN
            format('((%1$s) / %2$s - ((%1$s) %% %2$s < 0)::int) * %2$s', p_time, p_source.grain_ticks)
        WHEN p_source.time_type = 'date' THEN
            format('CASE WHEN isfinite(%1$s) THEN date ''2000-01-01'' + (%2$s * floor((%1$s - date ''2000-01-01'')::numeric / %2$s))::int ELSE %1$s END',
                p_time, p_source.grain_ticks)
        ELSE format('date_bin(%L::interval, %s, %L::%s)',
                p_source.grain_ticks || ' microseconds', p_time, '2000-01-01 00:00:00+00', p_source.time_type)
    END
$$;
COMMENT ON FUNCTION pymig._grain_sql(pymig.source, text) IS
    'SQL expression: the wide time a narrow time falls on (itself, without a time grain).';

-- sql/core/functions/_grant_like_narrow.sql
CREATE OR REPLACE FUNCTION pymig._grant_like_narrow(p_source pymig.source, p_relation text, p_privileges text[] DEFAULT '{SELECT}')
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_grant text;
BEGIN
    FOR v_grant IN
        SELECT format('GRANT %s ON %s TO %s', a.privilege_type, p_relation, coalesce(quote_ident(r.rolname), 'PUBLIC'))
        FROM pg_class AS c
        CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        LEFT JOIN pg_roles AS r ON r.oid = a.grantee
        WHERE c.oid = p_source.narrow AND a.privilege_type = ANY (p_privileges) AND a.grantee <> c.relowner
    LOOP
        EXECUTE v_grant;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._grant_like_narrow(pymig.source, text, text[]) IS
    'Whoever has one of these privileges on the narrow table gets it on this relation (qualified and quoted).';

-- sql/core/functions/_grants_on.sql
CREATE OR REPLACE FUNCTION pymig._grants_on(p_relation regclass)
RETURNS SETOF text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A grantee that was dropped meanwhile has no name any more.
    SELECT format('GRANT %s%s ON %s TO %s%s', a.privilege_type, ' (' || quote_ident(p.attname) || ')', p_relation,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)
    FROM (
        SELECT c.relacl AS acl, NULL::name AS attname, c.relowner FROM pg_class AS c WHERE c.oid = p_relation
        UNION ALL
        SELECT t.attacl, t.attname, c.relowner FROM pg_attribute AS t JOIN pg_class AS c ON c.oid = t.attrelid
        WHERE t.attrelid = p_relation AND t.attnum > 0 AND NOT t.attisdropped
    ) AS p
    CROSS JOIN LATERAL aclexplode(p.acl) AS a
    LEFT JOIN pg_roles AS r ON r.oid = a.grantee
    WHERE a.grantee <> p.relowner AND (a.grantee = 0 OR r.rolname IS NOT NULL)
$$;
COMMENT ON FUNCTION pymig._grants_on(regclass) IS 'The GRANTs others have on a relation and on its columns, as statements.';

-- sql/core/functions/_guard_wide.sql
CREATE OR REPLACE FUNCTION pymig._guard_wide()
RETURNS trigger
LANGUAGE plpgsql
-- Who writes here may have no right to look into the catalog.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = TG_ARGV[0] AND e.entity = TG_ARGV[1] AND e.state IN ('cut_over', 'finalized')) THEN
        RAISE EXCEPTION '%.% is written by pymig alone', quote_ident(TG_TABLE_SCHEMA), quote_ident(TG_TABLE_NAME)
            USING ERRCODE = 'PM060', HINT = 'Write the same rows to its view that ends in _rw, or to the narrow table: both get here in a moment.';
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION pymig._guard_wide() FROM PUBLIC;
COMMENT ON FUNCTION pymig._guard_wide() IS
    'Trigger function of the wide tables, for statements that are not pymig''s own: PM060 once the entity is cut over. Arguments: source, entity.';

-- sql/core/functions/_has_drift.sql
CREATE OR REPLACE FUNCTION pymig._has_drift(p_source text, p_entity text)
RETURNS boolean
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    -- From channel to channel through the index: a pass of the worker asks this, and there may be millions of rows.
    WITH RECURSIVE drifted AS (
        (SELECT q.channel FROM pymig.quarantine AS q
         WHERE q.source = p_source AND q.entity = p_entity AND q.reason = 'type_mismatch' AND NOT q.is_kept
         ORDER BY q.channel LIMIT 1)
        UNION ALL
        SELECT n.channel
        FROM drifted AS d
        CROSS JOIN LATERAL (
            SELECT q.channel FROM pymig.quarantine AS q
            WHERE q.source = p_source AND q.entity = p_entity AND q.reason = 'type_mismatch' AND NOT q.is_kept AND q.channel > d.channel
            ORDER BY q.channel LIMIT 1) AS n
    )
    SELECT EXISTS (
        SELECT FROM drifted AS d
        WHERE NOT EXISTS (SELECT FROM pymig.promotion AS m WHERE m.source = p_source AND m.entity = p_entity AND m.channel = d.channel))
$$;
COMMENT ON FUNCTION pymig._has_drift(text, text) IS
    'Has an entity a channel with values in quarantine because of its type, that is not being promoted?';

-- sql/core/functions/_has_lost_keys.sql
CREATE OR REPLACE FUNCTION pymig._has_lost_keys(p_source pymig.source)
RETURNS boolean
LANGUAGE sql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Without the right PostgreSQL 15 raises an error, and 18 would say that none ever was.
    SELECT CASE WHEN has_sequence_privilege(l.lost, 'SELECT') THEN s.lost_handled <> coalesce(pg_sequence_last_value(l.lost), 0) END
    FROM pymig.source AS s CROSS JOIN LATERAL (SELECT format('pymig.%I', s.source || '_lost')::regclass) AS l (lost)
    WHERE s.source = p_source.source
$$;
COMMENT ON FUNCTION pymig._has_lost_keys(pymig.source) IS 'Were keys lost that no worker has acted upon yet? NULL: the role may not know.';

-- sql/core/functions/_has_narrow_rows.sql
CREATE OR REPLACE FUNCTION pymig._has_narrow_rows(p_source pymig.source, p_entity text, p_first_bucket bigint, p_last_bucket bigint)
RETURNS boolean
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
    SET enable_seqscan = off
AS $$
DECLARE
    v_found boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM pymig.%I AS n WHERE n.entity = %L AND %s AND n.raw_time BETWEEN %L::%s AND %L::%5$s)',
        p_source.source || '_cell', p_entity,
        pymig._channel_range_sql(p_source, p_entity, pymig._leaves_sql(p_source, 'n.raw_time', p_first_bucket, p_last_bucket)),
        pymig._bucket_start(p_source, p_first_bucket), p_source.time_type, pymig._bucket_end(p_source, p_last_bucket))
    INTO v_found;
    RETURN v_found;
END
$$;
COMMENT ON FUNCTION pymig._has_narrow_rows(pymig.source, text, bigint, bigint) IS
    'Has an entity narrow rows in a run of buckets. By a skip scan of the key: where _skips_channels, else it reads all of the entity.';

-- sql/core/functions/_has_older_snapshots.sql
CREATE OR REPLACE FUNCTION pymig._has_older_snapshots(p_xid xid8)
RETURNS boolean
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    -- age() counts back from the next transaction, so it compares xid with xid8 across a wraparound.
    SELECT EXISTS (
        SELECT FROM pg_stat_activity AS a
        WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
          AND age(a.backend_xmin) >= age(p_xid::xid))
$$;
COMMENT ON FUNCTION pymig._has_older_snapshots(xid8) IS
    'Does any session read with a snapshot that is older than the end of this transaction? Sessions of other roles show it to members of pg_read_all_stats only.';

-- sql/core/functions/_has_pending.sql
CREATE OR REPLACE FUNCTION pymig._has_pending(p_source pymig.source, p_entity text, p_bucket bigint)
RETURNS boolean
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_found boolean;
    -- Keys of our own deletion are no news: recorded by a transaction that began at this microsecond and is no older than ours.
    v_own text := pg_current_xact_id_if_assigned()::xid::text;
BEGIN
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM pymig.%1$I AS p WHERE %5$s) OR EXISTS (SELECT FROM pymig.%2$I AS p WHERE %5$s)
             OR EXISTS (SELECT FROM pymig.%3$I AS d WHERE d.entity = %4$L AND d.bucket = %6$s)',
        p_source.source || '_pending_1', p_source.source || '_pending_2', p_source.source || '_todo', p_entity,
        format('(p.kind <> ''key'' OR p.entity::text = %1$L AND %2$s = %3$s)%4$s',
            p_entity, pymig._bucket_sql(p_source, 'p.time'), p_bucket,
            CASE WHEN v_own IS NOT NULL THEN format(' AND (p.recorded_at <> now() OR age(p.xmin) > age(%L::xid))', v_own) END), p_bucket)
    INTO v_found;
    RETURN v_found OR pymig._has_lost_keys(p_source);
END
$$;
COMMENT ON FUNCTION pymig._has_pending(pymig.source, text, bigint) IS
    'Is a key of this bucket pending that another transaction recorded, or may one have been lost?';

-- sql/core/functions/_has_to_wait.sql
CREATE OR REPLACE FUNCTION pymig._has_to_wait(p_source text, p_entity text)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pymig.look_at_throttle();
    RETURN pymig._held_up(p_source, p_entity);
END
$$;
COMMENT ON FUNCTION pymig._has_to_wait(text, text) IS
    'Why the history of an entity has to wait, the throttle measured anew where that is due; NULL: it goes on. Workers ask this before they retire, and held_up_by, which commands ask; _held_up only tells what is known.';

-- sql/core/functions/_has_triggers.sql
CREATE OR REPLACE FUNCTION pymig._has_triggers(p_source text, p_relation regclass)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(t.oid) = CASE (SELECT c.relkind FROM pg_class AS c WHERE c.oid = p_relation) WHEN 'p' THEN 4 ELSE 5 END
        AND bool_and(t.tgenabled = CASE t.tgname WHEN 'pymig_record_row' THEN 'R' ELSE 'A' END)
    FROM pg_trigger AS t
    JOIN pg_proc AS p ON p.oid = t.tgfoid AND p.proname = p_source || substr(t.tgname, 6)
    WHERE t.tgrelid = p_relation AND t.tgname LIKE 'pymig\_record\_%'
$$;
COMMENT ON FUNCTION pymig._has_triggers(text, regclass) IS
    'Are all triggers of a source on this table, enabled as installed? A partitioned table has no row-level twin: its partitions have.';

-- sql/core/functions/_has_unknown_channels.sql
CREATE OR REPLACE FUNCTION pymig._has_unknown_channels(p_source pymig.source, p_entity text)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pymig._discover_channels(p_source, p_entity, true) AS d
        WHERE NOT EXISTS (
            SELECT FROM pymig.channel AS c
            WHERE c.source = p_source.source AND c.entity = p_entity AND c.channel = d.channel))
$$;
COMMENT ON FUNCTION pymig._has_unknown_channels(pymig.source, text) IS 'Does the narrow table have channels of the entity that have no column yet?';

-- sql/core/functions/_heartbeat.sql
CREATE OR REPLACE FUNCTION pymig._heartbeat(p_worker text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    -- The first one after a silence says so, if there was anything to do in it.
    INSERT INTO pymig.event (level, what, detail)
    SELECT 'WARNING', 'no worker', format('No worker ran from %s to %s.', date_trunc('second', w.seen_at), date_trunc('second', now()))
    FROM (SELECT max(w.seen_at) AS seen_at FROM pymig.worker AS w) AS w
    WHERE w.seen_at < now() - interval '1 minute' AND EXISTS (SELECT FROM pymig.entity AS e WHERE e.wide_table IS NOT NULL);
    INSERT INTO pymig.worker AS w (worker, backend)
    VALUES (coalesce(p_worker, nullif(current_setting('application_name'), ''), 'psql'), pg_backend_pid())
    ON CONFLICT (worker) DO UPDATE SET seen_at = now(), backend = excluded.backend
    WHERE w.seen_at < now() - interval '1 second';
    DELETE FROM pymig.worker AS w WHERE w.seen_at < now() - interval '1 day';
$$;
COMMENT ON FUNCTION pymig._heartbeat(text) IS
    'Leaves a heartbeat, at most one a second; forgets workers that were silent for a day. The first after a minute without any leaves an event.';

-- sql/core/functions/_held_up.sql
CREATE OR REPLACE FUNCTION pymig._held_up(p_source text, p_entity text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT format('%s by %s since %s%s', CASE WHEN p.is_cancelled THEN 'cancelled' ELSE 'paused' END, p.paused_by, date_trunc('second', p.paused_at), ': ' || p.paused_for)
         FROM (
             SELECT e.paused_at, e.paused_by, e.paused_for, e.is_cancelled FROM pymig.entity AS e WHERE e.source = p_source AND e.entity = p_entity
             UNION ALL
             SELECT s.paused_at, s.paused_by, s.paused_for, s.is_cancelled FROM pymig.source AS s WHERE s.source = p_source) AS p
         WHERE p.paused_at IS NOT NULL
         ORDER BY p.is_cancelled DESC, p.paused_at LIMIT 1),
        'throttled: ' || pymig._throttled())
$$;
COMMENT ON FUNCTION pymig._held_up(text, text) IS 'Why the history of an entity is not moved and not verified just now: paused, cancelled or throttled; NULL: it is.';

-- sql/core/functions/_hold_cut_over.sql
CREATE OR REPLACE FUNCTION pymig._hold_cut_over(p_source text, p_entity text, p_is_held boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE pymig.entity AS e SET is_held = p_is_held
    WHERE e.source = p_source AND e.entity = p_entity AND e.is_held <> p_is_held AND e.state NOT IN ('cut_over', 'finalized');
    IF FOUND THEN
        PERFORM pymig._note('INFO', p_source, p_entity, CASE WHEN p_is_held THEN 'cutover held' ELSE 'cutover released' END,
            CASE WHEN p_is_held THEN 'Its cutover waits until it is released.' ELSE 'Its cutover may go on.' END);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._hold_cut_over(text, text, boolean) IS 'Holds the cutover of an entity back, or releases it; an event says who did it.';

-- sql/core/functions/_hold_promotions.sql
CREATE OR REPLACE FUNCTION pymig._hold_promotions(p_source text, p_entity text, p_channels text[], p_error text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_is_news boolean;
BEGIN
    WITH held AS (
        SELECT m.channel, m.error IS DISTINCT FROM p_error AS is_news FROM pymig.promotion AS m
        WHERE m.source = p_source AND m.entity = p_entity AND m.channel = ANY (p_channels)
    ),
    noted AS (
        UPDATE pymig.promotion AS m SET error = p_error, retry_at = clock_timestamp() + interval '10 seconds'
        FROM held AS h WHERE m.source = p_source AND m.entity = p_entity AND m.channel = h.channel
    )
    SELECT bool_or(h.is_news) INTO v_is_news FROM held AS h;
    IF v_is_news THEN
        PERFORM pymig._note('WARNING', p_source, p_entity, 'promotion held up', p_error);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._hold_promotions(text, text, text[], text) IS
    'Lets the promotion of some channels wait for a person, with the reason; with an event where that is news.';

-- sql/core/functions/_index_paths.sql
CREATE OR REPLACE FUNCTION pymig._index_paths(
    p_narrow regclass, p_entity_column text, p_channel_column text, p_time_column text,
    OUT reads_by_key boolean, OUT reads_by_time boolean, OUT is_unique boolean)
RETURNS record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH index_columns AS (
        SELECT i.indexrelid, i.indisunique AND i.indimmediate AS is_unique,
            array_agg(coalesce(a.attname::text, '(expression)') ORDER BY k.pos) AS columns
        FROM pg_index AS i
        JOIN pg_class AS c ON c.oid = i.indexrelid
        JOIN pg_am AS m ON m.oid = c.relam AND m.amname = 'btree'
        CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, pos)
        LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0
        WHERE i.indrelid = p_narrow AND i.indisvalid AND i.indpred IS NULL AND k.pos <= i.indnkeyatts
        GROUP BY i.indexrelid, i.indisunique, i.indimmediate
    ),
    no_nulls AS (
        SELECT bool_and(a.attnotnull) AS hold
        FROM pg_attribute AS a
        WHERE a.attrelid = p_narrow AND a.attname IN (p_entity_column, p_channel_column, p_time_column)
    )
    SELECT
        -- A NULL channel is met by no probe of the key, so nullable columns are read through time.
        coalesce(bool_or(i.columns[1:3] = ARRAY[p_entity_column, p_channel_column, p_time_column]) AND bool_and(n.hold), false),
        coalesce(bool_or(i.columns[1] = p_time_column OR i.columns[1:2] = ARRAY[p_entity_column, p_time_column]), false),
        coalesce(bool_or(i.is_unique AND i.columns <@ ARRAY[p_entity_column, p_channel_column, p_time_column]) AND bool_and(n.hold), false)
    FROM index_columns AS i
    CROSS JOIN no_nulls AS n
$$;
COMMENT ON FUNCTION pymig._index_paths(regclass, text, text, text) IS
    'How the indexes of a narrow table let it be read: channel by channel, by time, and whether duplicates are ruled out.';

-- sql/core/functions/_is_as_created.sql
CREATE OR REPLACE FUNCTION pymig._is_as_created(p_source pymig.source, p_entity text)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
    -- jsonb: a JSON null would come back as no value at all.
    WITH type AS MATERIALIZED (
        SELECT t.t AS column_type, t.t::regtype::oid AS oid FROM unnest(ARRAY['text', 'float8', 'int8', 'bool', 'numeric', 'jsonb']) AS t (t) WHERE t.t <> 'jsonb'
    ),
    part AS MATERIALIZED (
        SELECT p.part, format('%I.%I', p_source.wide_schema, p.wide_table)::regclass::oid AS oid
        FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity
    ),
    found AS (
        SELECT p.part, a.attname::text COLLATE "C" AS name, a.atttypid
        FROM part AS p JOIN pg_attribute AS a ON a.attrelid = p.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE a.attname <> p_source.time_column
    ),
    expected AS (
        SELECT c.part, c.wide_column COLLATE "C" AS name, t.oid AS atttypid
        FROM pymig.channel AS c LEFT JOIN type AS t USING (column_type)
        WHERE c.source = p_source.source AND c.entity = p_entity
    )
    SELECT NOT EXISTS (
        SELECT FROM found AS f FULL JOIN expected AS e ON e.part = f.part AND e.name = f.name
        WHERE e.atttypid IS DISTINCT FROM f.atttypid)
$$;
COMMENT ON FUNCTION pymig._is_as_created(pymig.source, text) IS
    'Do the wide tables have the columns the catalog says, of these types, and no others? A column that somebody renamed, dropped or added has its keys recomputed by the column list, which says what is wrong.';

-- sql/core/functions/_is_backfilled.sql
CREATE OR REPLACE FUNCTION pymig._is_backfilled(p_state text)
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
    SELECT p_state IN ('backfilled', 'verified', 'cut_over', 'finalized')
$$;
COMMENT ON FUNCTION pymig._is_backfilled(text) IS 'Does an entity of this state have all of its history in the wide table?';

-- sql/core/functions/_is_cancelled.sql
CREATE OR REPLACE FUNCTION pymig._is_cancelled(p_source text, p_entity text)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = p_source AND e.entity = p_entity AND e.is_cancelled)
        OR EXISTS (SELECT FROM pymig.source AS s WHERE s.source = p_source AND s.is_cancelled)
$$;
COMMENT ON FUNCTION pymig._is_cancelled(text, text) IS 'Whether the work on the history of an entity was cancelled, alone or with its source.';

-- sql/core/functions/_is_hypertable.sql
CREATE OR REPLACE FUNCTION pymig._is_hypertable(p_narrow regclass)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_is_one boolean;
BEGIN
    IF to_regclass('_timescaledb_catalog.hypertable') IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE 'SELECT EXISTS (
        SELECT FROM _timescaledb_catalog.hypertable AS h
        JOIN pg_namespace AS n ON n.nspname = h.schema_name
        JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = h.table_name
        WHERE c.oid = $1)'
    INTO v_is_one USING p_narrow;
    RETURN v_is_one;
END
$$;
COMMENT ON FUNCTION pymig._is_hypertable(regclass) IS 'Is it a hypertable in the catalog of TimescaleDB?';

-- sql/core/functions/_is_in_the_way.sql
CREATE OR REPLACE FUNCTION pymig._is_in_the_way(p_sqlstate text)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p_sqlstate IN ('40001', '40P01', '55P03', 'PM023')
$$;
COMMENT ON FUNCTION pymig._is_in_the_way(text) IS
    'Was another session in the way (serialization, deadlock, a lock, partitions that changed), and not the data? Then the same again goes through some day, and it is no failed attempt.';

-- sql/core/functions/_is_migrating.sql
CREATE OR REPLACE FUNCTION pymig._is_migrating(p_source text)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = p_source AND e.state NOT IN ('known', 'rolled_back'))
$$;
COMMENT ON FUNCTION pymig._is_migrating(text) IS 'Does any entity of the source need its triggers?';

-- sql/core/functions/_is_ours.sql
CREATE OR REPLACE FUNCTION pymig._is_ours(p_relation oid)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pymig.source AS s WHERE s.narrow = r.root)
        OR EXISTS (SELECT FROM pymig.part AS p JOIN pymig.source AS s USING (source) WHERE to_regclass(format('%I.%I', s.wide_schema, p.wide_table)) = r.root)
    FROM (SELECT coalesce(pg_partition_root(p_relation), p_relation)) AS r (root)
$$;
COMMENT ON FUNCTION pymig._is_ours(oid) IS 'Whether a relation is a narrow or a wide table, or a partition of one.';

-- sql/core/functions/_is_partitioned.sql
CREATE OR REPLACE FUNCTION pymig._is_partitioned(p_narrow regclass)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT c.relkind = 'p' FROM pg_class AS c WHERE c.oid = p_narrow), false)
$$;
COMMENT ON FUNCTION pymig._is_partitioned(regclass) IS 'Is it a partitioned table?';

-- sql/core/functions/_is_paused.sql
CREATE OR REPLACE FUNCTION pymig._is_paused(p_source text)
RETURNS boolean
LANGUAGE sql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN has_sequence_privilege(p.until, 'SELECT') THEN coalesce(pg_sequence_last_value(p.until), 0) >= extract(epoch FROM clock_timestamp()) END
    FROM (SELECT format('pymig.%I', p_source || '_paused')::regclass) AS p (until)
$$;
COMMENT ON FUNCTION pymig._is_paused(text) IS 'Do the triggers of a source leave all keys to the worker for the moment, although entities of it are direct? NULL: the role may not know.';

-- sql/core/functions/_is_worn.sql
CREATE OR REPLACE FUNCTION pymig._is_worn(p_source pymig.source, p_table text, p_has_lost boolean)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_relation_size(c.oid) > CASE WHEN p_has_lost THEN 0 ELSE p_source.rotate_above END
        OR coalesce(t.spcname, pymig._database_tablespace()) <> coalesce(p_source.queue_tablespace, pymig._database_tablespace())
    FROM pg_class AS c
    LEFT JOIN pg_tablespace AS t ON t.oid = c.reltablespace
    WHERE c.relnamespace = 'pymig'::regnamespace AND c.relname = p_table
$$;
COMMENT ON FUNCTION pymig._is_worn(pymig.source, text, boolean) IS
    'Is this pending table larger than rotate_above (where keys were lost: than nothing), or not in the tablespace it should be in?';

-- sql/core/functions/_judge_finding.sql
CREATE OR REPLACE FUNCTION pymig._judge_finding(
    p_finding text, p_column_type text, p_kind text, OUT item text, OUT reason text, OUT advice text)
RETURNS record
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT j.item, CASE WHEN j.is_reason THEN p_finding END, j.advice
    FROM (VALUES
        ('unknown_format', 'unknown format', true, 'Correct the rows, or register the source with a wider map of formats: they would go to quarantine.'),
        ('other_column', 'value in another column', true, 'Correct the rows: their format names a column that is empty, so they would go to quarantine.'),
        ('several_values', 'several values', true, 'Correct the rows: no format says which of their values counts, so they would go to quarantine.'),
        ('no_time', 'no time', true, 'Correct or delete the rows: they would go to quarantine.'),
        ('no_channel', 'no channel', true, 'Correct or delete the rows: they would go to quarantine.'),
        ('type_mismatch', CASE WHEN p_kind = 'int8' AND p_column_type = 'float8' THEN 'number out of range' ELSE 'type mismatch' END, true,
         CASE WHEN p_kind = 'int8' AND p_column_type = 'float8' THEN 'Beyond 2^53 a double can''t hold every integer' ELSE format('%s does not fit a column of type %s', p_kind, p_column_type) END
         || ': they would go to quarantine. Columns of type text take everything, and CALL pymig.set_type_drift(''promote'') widens a column by itself.'),
        ('duplicate', 'duplicates', false, 'Of rows with the same channel and time one counts: the one with the highest tie-break. Delete the others, if they are not to be kept in the narrow table alone.'),
        ('no_value', 'NULL values', false, 'Their cells are NULL, as where there is no row at all: who has to tell these apart reads the narrow table.'),
        ('long_text', 'long text', false, 'Over 2,000 bytes: kept outside the wide row, so slower to read, and too long for an index (2,704 bytes).'),
        ('type_drift', 'type drift', false, 'Columns of type text take them. As native columns these channels would get rows in quarantine, or be promoted (set_type_drift).')
    ) AS j (finding, item, is_reason, advice)
    WHERE j.finding = p_finding
$$;
COMMENT ON FUNCTION pymig._judge_finding(text, text, text) IS
    'A finding of _look_at_buckets in words: its name, the reason of quarantine it would have (NULL: it would not go there), what to do.';

-- sql/core/functions/_keep_alert_state.sql
CREATE OR REPLACE FUNCTION pymig._keep_alert_state(p_alert text, p_over jsonb)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r_over record;
BEGIN
    INSERT INTO pymig.alert_state AS s (alert, source, entity, value)
    SELECT p_alert, o.source, o.entity, o.value FROM jsonb_to_recordset(p_over) AS o (source text, entity text, value double precision)
    ON CONFLICT (alert, source, entity) DO UPDATE SET value = excluded.value;
    FOR r_over IN
        DELETE FROM pymig.alert_state AS s
        WHERE s.alert = p_alert AND NOT EXISTS (
            SELECT FROM jsonb_to_recordset(p_over) AS o (source text, entity text)
            WHERE o.source IS NOT DISTINCT FROM s.source AND o.entity IS NOT DISTINCT FROM s.entity)
        RETURNING s.source, s.entity, s.told_value
    LOOP
        IF r_over.told_value IS NOT NULL THEN
            PERFORM pymig._note('INFO', r_over.source, r_over.entity, p_alert || ' is over', 'It is not above the limit any more.');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._keep_alert_state(text, jsonb) IS
    'Brings pymig.alert_state of one rule up to date with what is over its limit now (objects with source, entity, value); what was told and is over is noted.';

-- sql/core/functions/_keep_bucket.sql
CREATE OR REPLACE FUNCTION pymig._keep_bucket(p_source pymig.source, p_entity pymig.entity)
RETURNS bigint
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pymig.bucket_of(pymig._age_tick(p_source, p_entity.entity, p_entity.keep_narrow), p_source.bucket_ticks)
$$;
COMMENT ON FUNCTION pymig._keep_bucket(pymig.source, pymig.entity) IS
    'First bucket of a finalized entity whose narrow rows are kept: that of its newest row, or of now if that is earlier, less what is to be kept.';

-- sql/core/functions/_kind_of.sql
CREATE OR REPLACE FUNCTION pymig._kind_of(p_type oid)
RETURNS text
LANGUAGE sql
IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT CASE p_type::regtype::text
        WHEN 'boolean' THEN 'bool'
        WHEN 'smallint' THEN 'int8' WHEN 'integer' THEN 'int8' WHEN 'bigint' THEN 'int8'
        WHEN 'real' THEN 'float8' WHEN 'double precision' THEN 'float8'
        WHEN 'numeric' THEN 'numeric'
        WHEN 'jsonb' THEN 'jsonb'
        ELSE 'text'
    END
$$;
COMMENT ON FUNCTION pymig._kind_of(oid) IS 'Type of a value column -> the native column type that holds it without loss.';

-- sql/core/functions/_kind_slots.sql
CREATE OR REPLACE FUNCTION pymig._kind_slots(p_source pymig.source, OUT kind text, OUT format text, OUT value_column text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT ON (k.kind) k.kind, v.format, v.value_column
    FROM unnest(ARRAY['text', 'float8', 'int8', 'bool', 'numeric', 'jsonb']) AS k (kind)
    JOIN pymig._value_columns(p_source) AS v ON v.kind = k.kind
    ORDER BY k.kind, v.ord
$$;
COMMENT ON FUNCTION pymig._kind_slots(pymig.source) IS 'For each native type the value column that takes it, and the format that says so.';

-- sql/core/functions/_kind_sql.sql
CREATE OR REPLACE FUNCTION pymig._kind_sql()
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Text that does not look like its channel's kind would be an error of the cast: it is what has drifted, and goes the way of text.
    SELECT $kind$CASE
        WHEN c.column_type <> 'text' THEN c.column_type
        WHEN c.kind IN ('float8', 'numeric') THEN CASE WHEN c.value ~* '^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?$|^([+-]?inf(inity)?|nan)$' THEN c.kind ELSE 'text' END
        WHEN c.kind = 'int8' THEN CASE WHEN c.value ~ '^[+-]?[0-9]{1,18}$' THEN c.kind
            WHEN c.value ~ '^[+-]?[0-9]+$' AND c.value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN c.kind ELSE 'text' END
        WHEN c.kind = 'bool' THEN CASE WHEN c.value IN ('true', 'false') THEN c.kind ELSE 'text' END
        ELSE coalesce(c.kind, 'text') END$kind$
$$;
COMMENT ON FUNCTION pymig._kind_sql() IS
    'SQL expression over a row c with column_type and kind of a channel, and a text value: the native type to give the value back in.';

-- sql/core/functions/_known_entity.sql
CREATE OR REPLACE FUNCTION pymig._known_entity(p_source pymig.source, p_entity text)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_entity text := pymig._canonical_entity(p_source, p_entity);
BEGIN
    IF NOT EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = v_entity) THEN
        INSERT INTO pymig.entity (source, entity) VALUES (p_source.source, v_entity) ON CONFLICT DO NOTHING;
    END IF;
    RETURN v_entity;
END
$$;
COMMENT ON FUNCTION pymig._known_entity(pymig.source, text) IS
    'Canonical name of an entity that is to be given a setting; one that nobody asked for yet becomes known. PM002 for one without rows.';

-- sql/core/functions/_lag_by_entity.sql
CREATE OR REPLACE FUNCTION pymig._lag_by_entity(
    OUT source text, OUT entity text, OUT p50 interval, OUT p99 interval)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH bin AS (
        SELECT l.source, l.entity, b.bin, sum(b.keys) AS keys
        FROM pymig.lag AS l CROSS JOIN LATERAL unnest(l.keys) WITH ORDINALITY AS b (keys, bin)
        WHERE l.minute > clock_timestamp() - interval '5 minutes' AND b.keys > 0
        GROUP BY l.source, l.entity, b.bin
    ),
    summed AS (
        SELECT b.source, b.entity, b.bin, sum(b.keys) OVER (PARTITION BY b.source, b.entity ORDER BY b.bin) AS up_to,
            sum(b.keys) OVER (PARTITION BY b.source, b.entity) AS total
        FROM bin AS b
    )
    SELECT s.source, s.entity,
        make_interval(secs => 2 ^ (min(s.bin) FILTER (WHERE s.up_to >= 0.5 * s.total) / 2.0) / 1000),
        make_interval(secs => 2 ^ (min(s.bin) FILTER (WHERE s.up_to >= 0.99 * s.total) / 2.0) / 1000)
    FROM summed AS s
    GROUP BY s.source, s.entity
$$;
COMMENT ON FUNCTION pymig._lag_by_entity() IS
    'Median and 99th percentile of the sync lag of the last 4 to 5 minutes, by entity; none where no key was recomputed. Upper edges of a scale with two steps an octave: at most 41 % too high, never too low.';

-- sql/core/functions/_last_base_backup.sql
CREATE OR REPLACE FUNCTION pymig._last_base_backup()
RETURNS timestamptz
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT has_function_privilege('pg_catalog.pg_ls_archive_statusdir()', 'EXECUTE') THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT max(f.modification) FROM pg_ls_archive_statusdir() AS f WHERE f.name LIKE '%.backup.%');
END
$$;
COMMENT ON FUNCTION pymig._last_base_backup() IS
    'When the last base backup of this server ended, by its backup history file that waits for the archive or was handed to it; NULL where there is none any more (checkpoints remove them) or the role is no member of pg_monitor.';

-- sql/core/functions/_last_ord.sql
CREATE OR REPLACE FUNCTION pymig._last_ord(p_source text, p_entity text)
RETURNS int
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT greatest(
        (SELECT max(c.ord) FROM pymig.channel AS c WHERE c.source = p_source AND c.entity = p_entity),
        (SELECT max(m.ord) FROM pymig.promotion AS m WHERE m.source = p_source AND m.entity = p_entity), 0)
$$;
COMMENT ON FUNCTION pymig._last_ord(text, text) IS 'The highest position any channel of an entity has, or is about to have.';

-- sql/core/functions/_last_tick.sql
CREATE OR REPLACE FUNCTION pymig._last_tick(p_time_type text)
RETURNS bigint
LANGUAGE sql
IMMUTABLE STRICT PARALLEL SAFE
AS $$
    -- The last microsecond or day the types hold (datatype/timestamp.h); the last bigint stands for infinity.
    SELECT CASE p_time_type WHEN 'bigint' THEN 9223372036854775806 WHEN 'date' THEN 2145031948 ELSE 9223371331199999999 END
$$;
COMMENT ON FUNCTION pymig._last_tick(text) IS 'Tick of the last finite time of a time type.';

-- sql/core/functions/_last_tick_of.sql
CREATE OR REPLACE FUNCTION pymig._last_tick_of(p_source pymig.source, p_bucket bigint)
RETURNS bigint
LANGUAGE sql
IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT greatest(-9223372036854775808, least((p_bucket::numeric + 1) * p_source.bucket_ticks - 1, pymig._last_tick(p_source.time_type)))::bigint
$$;
COMMENT ON FUNCTION pymig._last_tick_of(pymig.source, bigint) IS 'Last tick of a bucket (inclusive).';

-- sql/core/functions/_layout.sql
CREATE OR REPLACE FUNCTION pymig._layout(
    p_source pymig.source, p_entity text, p_column_types text, p_allow_scan boolean DEFAULT false,
    OUT channel text, OUT ord int, OUT part int, OUT wide_column text, OUT column_type text, OUT kind text)
RETURNS SETOF record
LANGUAGE sql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
    WITH found AS MATERIALIZED (SELECT d.* FROM pymig._discover_channels(p_source, p_entity, p_allow_scan) AS d),
    named AS MATERIALIZED (
        -- Ids with the same prefix stay together in one part.
        SELECT f.channel, row_number() OVER (ORDER BY f.channel COLLATE "C") AS ord, n.wide_column,
            pymig._native_type(f.kinds, p_column_types) AS column_type, pymig._channel_kind(f.kinds) AS kind
        FROM found AS f
        JOIN pymig._column_names(p_source, (SELECT array_agg(f.channel) FROM found AS f), '{}') AS n USING (channel)
    )
    SELECT n.channel, n.ord::int, d.part, n.wide_column, n.column_type, n.kind
    FROM named AS n
    JOIN unnest(pymig._deal_types(ARRAY(SELECT n.column_type FROM named AS n ORDER BY n.ord), 1, 0, 0, 24, false))
        WITH ORDINALITY AS d (part, ord) USING (ord)
    ORDER BY n.ord
$$;
COMMENT ON FUNCTION pymig._layout(pymig.source, text, text, boolean) IS
    'How the channels of an entity are dealt to columns and parts, by worst-case row width. Reads, changes nothing.';

-- sql/core/functions/_leads_with.sql
CREATE OR REPLACE FUNCTION pymig._leads_with(p_narrow regclass, p_column text)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pg_index AS i
        JOIN pg_class AS c ON c.oid = i.indexrelid
        JOIN pg_am AS m ON m.oid = c.relam AND m.amname = 'btree'
        JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = p_narrow AND i.indisvalid AND i.indpred IS NULL AND a.attname = p_column)
$$;
COMMENT ON FUNCTION pymig._leads_with(regclass, text) IS 'Does a btree index lead with this column?';

-- sql/core/functions/_leaves_sql.sql
CREATE OR REPLACE FUNCTION pymig._leaves_sql(p_source pymig.source, p_column text, p_first_bucket bigint, p_last_bucket bigint)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Where a partition is read as a whole the time is no condition within its index, and a loose scan is one descent a value.
    SELECT coalesce((
        SELECT format('%s BETWEEN %L::%s AND %L::%3$s', p_column,
            CASE WHEN min(x.first_bucket) < p_first_bucket THEN pymig.time_text(min(x.first_tick), p_source.time_type)
                 ELSE pymig._bucket_start(p_source, p_first_bucket) END, p_source.time_type,
            CASE WHEN max(x.last_bucket) > p_last_bucket THEN pymig.time_text(max(x.last_tick), p_source.time_type)
                 ELSE pymig._bucket_end(p_source, p_last_bucket) END)
        FROM (
            SELECT p.first_tick, p.last_tick, pymig.bucket_of(p.first_tick, p_source.bucket_ticks) AS first_bucket,
                pymig.bucket_of(p.last_tick, p_source.bucket_ticks) AS last_bucket
            FROM pymig.partition AS p
            WHERE p.source = p_source.source AND p.is_leaf AND p.state <> 'detached'
              AND (p.first_tick <> -9223372036854775808 OR p.last_tick <> 9223372036854775807)
        ) AS x
        WHERE x.first_bucket <= p_last_bucket AND x.last_bucket >= p_first_bucket
        HAVING count(*) > 0), 'true')
$$;
COMMENT ON FUNCTION pymig._leaves_sql(pymig.source, text, bigint, bigint) IS
    'SQL condition that holds for a run of buckets and for the rest of the partitions they lie in, so that only these are read; true where there are none.';

-- sql/core/functions/_lock_buckets.sql
CREATE OR REPLACE FUNCTION pymig._lock_buckets(p_source text, p_entity text, p_first_bucket bigint, p_last_bucket bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Ascending, so that two recomputers of overlapping runs cannot deadlock (R23).
    FOR v_step IN 0 .. p_last_bucket - p_first_bucket LOOP
        PERFORM pg_advisory_xact_lock(pymig._lock_key('bucket', p_source, p_entity, p_first_bucket + v_step));
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._lock_buckets(text, text, bigint, bigint) IS
    'Exclusive lock of each bucket until the end of the transaction: only one recomputer at a time. A statement of its own, before claim and read (R22).';

-- sql/core/functions/_lock_directly.sql
CREATE OR REPLACE FUNCTION pymig._lock_directly(p_source text, p_entity text, p_ticks bigint[], p_bucket_ticks bigint)
RETURNS interval
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Of a transaction: each statement is a subtransaction, of which a snapshot holds 64 (R19), and each key a lock (R18).
    c_keys constant int := 60;
    v_keys int := cardinality(p_ticks) + pymig._direct_keys();
    v_buckets bigint[] := ARRAY(SELECT DISTINCT pymig.bucket_of(t.t, p_bucket_ticks) FROM unnest(p_ticks) AS t (t));
    v_budget interval;
    v_part regclass;
BEGIN
    IF v_keys <= c_keys
        AND pg_try_advisory_xact_lock_shared(pymig._lock_key('entity', p_source, p_entity))
        AND (SELECT bool_and(pg_try_advisory_xact_lock_shared(pymig._lock_key('bucket', p_source, p_entity, b.b))) FROM unnest(v_buckets) AS b (b))
        AND (SELECT bool_and(pg_try_advisory_xact_lock(pymig._lock_key('time', p_source, p_entity, t.t))) FROM unnest(p_ticks) AS t (t)) THEN
        PERFORM set_config('pymig.direct_keys', v_keys::text, true);
        -- Who changes any of this holds the entity exclusively, so it stays until our transaction ends.
        SELECT e.direct_budget INTO v_budget
        FROM pymig.entity AS e
        WHERE e.source = p_source AND e.entity = p_entity AND e.sync = 'direct' AND NOT e.is_monthly AND (e.state = 'syncing' OR pymig._is_backfilled(e.state))
          AND NOT EXISTS (SELECT FROM pymig.promotion AS m WHERE m.source = p_source AND m.entity = p_entity)
          AND NOT EXISTS (SELECT FROM pymig.quarantine AS q WHERE q.source = p_source AND q.entity = p_entity AND q.bucket = ANY (v_buckets));
    END IF;
    IF v_budget IS NULL THEN
        RAISE EXCEPTION 'not now' USING ERRCODE = 'PM031', HINT = 'The worker does it.';
    END IF;
    -- Somebody who alters a wide table by hand holds none of our locks.
    FOR v_part IN
        SELECT to_regclass(format('%I.%I', s.wide_schema, p.wide_table)) FROM pymig.part AS p JOIN pymig.source AS s USING (source)
        WHERE p.source = p_source AND p.entity = p_entity ORDER BY p.part
    LOOP
        IF v_part IS NULL THEN
            RAISE EXCEPTION 'a wide table is gone' USING ERRCODE = 'PM031', HINT = 'The worker does it.';
        END IF;
        EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE NOWAIT', v_part);
        -- A default would fill cells nobody sent; a deferred constraint would fail where nobody catches it.
        IF EXISTS (SELECT FROM pg_attrdef AS d WHERE d.adrelid = v_part) OR EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = v_part AND t.tgdeferrable) THEN
            RAISE EXCEPTION '% has a default or a deferred constraint', v_part USING ERRCODE = 'PM031', HINT = 'The worker does it.';
        END IF;
    END LOOP;
    RETURN v_budget;
END
$$;
COMMENT ON FUNCTION pymig._lock_directly(text, text, bigint[], bigint) IS
    'Tries every lock a direct write of these times needs, until the end of the transaction: entity and buckets shared, each (entity, time) exclusive, the wide tables. Returns the entity''s time budget. PM031 or 55P03 where one is not to be had at once, the entity is not direct or not in sync, a column is being promoted, rows of a bucket are in quarantine, or the transaction has written 60 keys.';

-- sql/core/functions/_lock_entity.sql
CREATE OR REPLACE FUNCTION pymig._lock_entity(p_source text, p_entity text, p_exclusive boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_key bigint := pymig._lock_key('entity', p_source, p_entity);
BEGIN
    IF p_exclusive THEN
        -- A transaction that writes directly holds it to its end, which may be far: it is tried again later, and others are served meanwhile.
        IF EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = p_source AND e.entity = p_entity AND e.sync = 'direct') THEN
            PERFORM set_config('lock_timeout', '300ms', true);
        END IF;
        PERFORM pg_advisory_xact_lock(v_key);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(v_key);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._lock_entity(text, text, boolean) IS
    'Until the end of the transaction: shared by recomputes, exclusive for who changes parts, columns or state. Only ingest that writes directly takes it, shared, and never waits for it.';

-- sql/core/functions/_lock_holders.sql
CREATE OR REPLACE FUNCTION pymig._lock_holders(p_narrow regclass)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(string_agg(DISTINCT coalesce(
        format('backend %s (%s, %s, since %s)', a.pid, a.usename, a.application_name, a.xact_start),
        format('prepared transaction %L of %s', x.gid, x.owner)), '; '), 'Nobody holds it at this moment.')
    FROM pg_locks AS l
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    LEFT JOIN pg_prepared_xacts AS x ON l.pid IS NULL AND l.virtualtransaction = '-1/' || x.transaction
    WHERE l.locktype = 'relation' AND l.granted
      AND l.relation IN (SELECT p_narrow UNION ALL SELECT p.relation FROM pymig.partition AS p JOIN pymig.source AS s USING (source) WHERE s.narrow = p_narrow) AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
$$;
COMMENT ON FUNCTION pymig._lock_holders(regclass) IS 'Who holds a lock on the narrow table or a partition of it, prepared transactions included.';

-- sql/core/functions/_lock_key.sql
CREATE OR REPLACE FUNCTION pymig._lock_key(p_kind text, p_source text, p_entity text DEFAULT NULL, p_bucket bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT hashtextextended(concat_ws(' ', 'pymig', p_kind, quote_literal(p_source), quote_literal(p_entity), p_bucket), 0)
$$;
COMMENT ON FUNCTION pymig._lock_key(text, text, text, bigint) IS
    'Key of an advisory lock: arm, collect, lost or compat (of a source), entity, bucket, or time (of an entity, by its tick). Two that collide only wait for each other.';

-- sql/core/functions/_lock_rows.sql
CREATE OR REPLACE FUNCTION pymig._lock_rows(p_source pymig.source, p_entity text, p_times text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_keys bigint[];
BEGIN
    EXECUTE format('SELECT array_agg(DISTINCT pymig._lock_key(''write'', $1, $2, pymig.tick_of(t.t::%s))) FROM unnest($3) AS t (t)', p_source.time_type)
    INTO v_keys
    USING p_source.source, p_entity, p_times;
    PERFORM pg_advisory_xact_lock(k.k) FROM (SELECT k.k FROM unnest(v_keys) AS k (k) ORDER BY k.k) AS k;
END
$$;
COMMENT ON FUNCTION pymig._lock_rows(pymig.source, text, text[]) IS
    'Until the end of the transaction nobody else writes these wide rows through the views that end in _rw. Ingest takes no such lock: it has the narrow rows''.';

-- sql/core/functions/_look_at_bucket.sql
CREATE OR REPLACE FUNCTION pymig._look_at_bucket(
    p_source pymig.source, p_entity text, p_layout jsonb, p_bucket bigint, p_share double precision, p_most bigint,
    OUT finding text, OUT column_type text, OUT kind text, OUT rows bigint, OUT channels text[], OUT formats text[])
RETURNS SETOF record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
    SET enable_seqscan = off
AS $$
DECLARE
    v_condition text := pymig._slice_condition(p_source, p_bucket, p_share);
    v_leaves text := pymig._leaves_sql(p_source, 'n.raw_time', p_bucket, p_bucket);
    v_columns text[] := array_remove(pymig._fault_columns(), 'narrow_row');
    v_cells text := pymig._cells_sql(p_source, p_entity, v_condition, p_source.reads_by_key, pymig._fault_columns(), v_leaves);
    v_narrow text := format('pymig.%I AS n WHERE n.entity = %L AND %s', p_source.source || '_cell', p_entity, v_condition);
BEGIN
    IF p_source.reads_by_key THEN
        v_narrow := format('(%s) AS c CROSS JOIN LATERAL (SELECT FROM %s AND n.channel = c.channel) AS n',
            pymig._channel_list_sql(p_source, p_entity, v_leaves), v_narrow);
    END IF;
    RETURN QUERY EXECUTE format(
        'WITH layout AS MATERIALIZED (SELECT l.* FROM jsonb_to_recordset($1) AS l (channel text, column_type text, kind text)),
         cell AS MATERIALIZED (
             SELECT c.channel, coalesce(c.column_type, l.column_type) AS column_type, l.kind AS channel_kind, c.%1$s,
                 CASE WHEN c.fault = ''unknown_format'' THEN coalesce(c.narrow_row ->> %2$L, ''NULL'') END AS format
             FROM (%3$s) AS c LEFT JOIN layout AS l ON l.channel = c.channel
             LIMIT %4$s),
         found AS (
             SELECT f.reason AS finding, CASE WHEN f.reason = ''type_mismatch'' THEN f.column_type END AS column_type,
                 CASE WHEN f.reason = ''type_mismatch'' THEN f.kind END AS kind, f.channel, f.format FROM (%5$s) AS f
             UNION ALL
             SELECT ''no_value'', NULL, NULL, x.channel, NULL FROM cell AS x WHERE x.fault IS NULL AND x.as_text IS NULL
             UNION ALL
             SELECT ''long_text'', NULL, NULL, x.channel, NULL FROM cell AS x WHERE x.fault IS NULL AND octet_length(x.as_text) > 2000
             UNION ALL
             SELECT ''type_drift'', NULL, NULL, x.channel, NULL FROM cell AS x
             WHERE x.fault IS NULL AND x.column_type = ''text'' AND x.as_text IS NOT NULL AND x.channel_kind IS NOT NULL
               AND pymig._native_type(ARRAY(SELECT DISTINCT k.k FROM unnest(ARRAY[x.channel_kind, x.kind]) AS k (k)), ''native'') <> x.channel_kind)
         SELECT f.finding, f.column_type, f.kind, count(*),
             (array_agg(DISTINCT f.channel ORDER BY f.channel) FILTER (WHERE f.channel IS NOT NULL))[1:100],
             (array_agg(DISTINCT f.format) FILTER (WHERE f.format IS NOT NULL))[1:10]
         FROM found AS f GROUP BY f.finding, f.column_type, f.kind
         UNION ALL
         SELECT ''rows'', NULL, NULL, count(*), NULL, NULL FROM cell
         UNION ALL
         SELECT ''duplicate'', NULL, NULL, n.rows - c.rows, NULL, NULL
         FROM (SELECT count(*) AS rows FROM (SELECT FROM %6$s LIMIT %4$s) AS n) AS n
         CROSS JOIN (SELECT count(*) AS rows FROM cell) AS c
         WHERE %7$L AND n.rows < %4$s AND n.rows > c.rows',
        array_to_string(v_columns, ', c.'), p_source.format_column, v_cells, p_most, pymig._faults_sql('SELECT x.* FROM cell AS x'), v_narrow,
        NOT pymig._has_one_row_a_cell(p_source))
    USING p_layout;
END
$$;
COMMENT ON FUNCTION pymig._look_at_bucket(pymig.source, text, jsonb, bigint, double precision, bigint) IS
    'What migrate would find in a share of a bucket''s time, by its own view, winners and faults: rows of each reason of quarantine, and no_value, long_text, type_drift, duplicate (rows that another one hides); rows: those that decide a cell. p_layout: channel, column_type and kind of each channel as planned; p_most: rows at most.';

-- sql/core/functions/_look_at_buckets.sql
CREATE OR REPLACE FUNCTION pymig._look_at_buckets(
    p_source pymig.source, p_entity text, p_layout jsonb, p_buckets bigint[], p_share double precision, p_most bigint, p_until timestamptz,
    OUT bucket bigint, OUT finding text, OUT column_type text, OUT kind text, OUT rows bigint, OUT channels text[], OUT formats text[])
RETURNS SETOF record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
BEGIN
    -- The newest one always, the others in any order: where the time is up before all are done, it is not always the old ones that are left out.
    FOR bucket IN SELECT b.b FROM unnest(p_buckets) AS b (b) ORDER BY b.b <> (SELECT max(m.m) FROM unnest(p_buckets) AS m (m)), random() LOOP
        RETURN QUERY SELECT bucket, l.* FROM pymig._look_at_bucket(p_source, p_entity, p_layout, bucket, p_share, p_most) AS l;
        EXIT WHEN clock_timestamp() > p_until;
    END LOOP;
    IF EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = p_source.narrow AND a.attname = p_source.time_column AND NOT a.attnotnull) THEN
        RETURN QUERY EXECUTE format(
            'SELECT NULL::bigint, ''no_time'', NULL, NULL, count(*), (array_agg(DISTINCT n.channel) FILTER (WHERE n.channel IS NOT NULL))[1:100], NULL::text[]
             FROM (SELECT n.channel::text AS channel FROM pymig.%I AS n WHERE n.entity = %L AND n.raw_time IS NULL LIMIT %s) AS n
             HAVING count(*) > 0', p_source.source || '_cell', p_entity, p_most);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._look_at_buckets(pymig.source, text, jsonb, bigint[], double precision, bigint, timestamptz) IS
    '_look_at_bucket for some buckets, until the time is up, and the rows that have no time and so no bucket (p_most of them at most).';

-- sql/core/functions/_loose_scan_sql.sql
CREATE OR REPLACE FUNCTION pymig._loose_scan_sql(p_source pymig.source, p_column text, p_condition text)
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        '(SELECT n.%1$s FROM pymig.%2$I AS n WHERE %3$s ORDER BY n.%1$s LIMIT 1)
         UNION ALL
         SELECT (SELECT n.%1$s FROM pymig.%2$I AS n WHERE %3$s AND n.%1$s > l.value ORDER BY n.%1$s LIMIT 1)
         FROM loose AS l WHERE l.value IS NOT NULL',
        p_column, p_source.source || '_cell', p_condition)
$$;
COMMENT ON FUNCTION pymig._loose_scan_sql(pymig.source, text, text) IS
    'Body of a recursive CTE loose(value): the distinct values of entity or channel by one index descent each (PostgreSQL wiki, Loose indexscan). Ends with a NULL.';

-- sql/core/functions/_mark_changed.sql
CREATE OR REPLACE FUNCTION pymig._mark_changed(p_source pymig.source, p_entity text, p_buckets bigint[])
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pymig.changed_bucket (source, entity, bucket)
    SELECT p_source.source, p_entity, b.b FROM unnest(p_buckets) AS b (b)
    WHERE p_source.verify_budget > 0 AND EXISTS (
        SELECT FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity AND e.verified_at IS NOT NULL)
    ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION pymig._mark_changed(pymig.source, text, bigint[]) IS
    'Notes that these buckets of a verified entity have to be compared again. One that is noted already costs a look at an index.';

-- sql/core/functions/_mark_drift.sql
CREATE OR REPLACE FUNCTION pymig._mark_drift(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Without (all) triggers while entities are in sync, changes went by unrecorded.
    IF pymig._trigger_state(p_source.narrow) = 'armed' THEN
        RETURN;
    END IF;
    PERFORM pymig._unverify(p_source.source, NULL, 'the triggers were not as installed');
    IF EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = p_source.source AND e.wide_table IS NOT NULL) THEN
        PERFORM pymig._note('CRITICAL', p_source.source, NULL, 'triggers drifted',
            format('The triggers of %s were not as installed: changes may be missing. Verify with repair.', p_source.narrow));
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._mark_drift(pymig.source) IS
    'Takes the state verified from all entities of a source whose triggers are not as installed.';

-- sql/core/functions/_measured_strategy.sql
CREATE OR REPLACE FUNCTION pymig._measured_strategy(p_source text, p_entity text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Not crosstab: its extension may have gone since.
    SELECT coalesce((
        SELECT r.strategy
        FROM pymig._strategy_rates(p_source, p_entity) AS r
        WHERE r.strategy <> 'crosstab'
        ORDER BY r.rows_per_second DESC NULLS LAST
        LIMIT 1), 'transpose')
$$;
COMMENT ON FUNCTION pymig._measured_strategy(text, text) IS
    'The strategy that moved most rows a second in the last chunks of an entity: what the worker recomputes whole buckets with. transpose where nothing was measured.';

-- sql/core/functions/_mend_columns.sql
CREATE OR REPLACE FUNCTION pymig._mend_columns(p_source pymig.source, p_entity text)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_faults text := pymig._part_faults(p_source, p_entity);
    -- NULL: it was rolled back meanwhile.
    v_view text := (SELECT format('%I.%I', p_source.wide_schema, e.wide_table) FROM pymig.entity AS e
                    WHERE e.source = p_source.source AND e.entity = p_entity AND e.wide_table IS NOT NULL);
    v_is_split boolean := (SELECT count(*) > 1 FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity);
    v_lost text[];
    v_is_mended boolean := false;
    v_dropped text;
    v_changed text;
    r_renamed record;
BEGIN
    IF v_view IS NULL THEN
        RETURN false;
    END IF;
    PERFORM set_config('lock_timeout', '10s', true);
    IF v_faults IS NOT NULL THEN
        -- Tables that are gone by a roll-back, maybe: look again while there can be none.
        PERFORM pymig._lock_entity(p_source.source, p_entity, p_exclusive => true);
        v_faults := pymig._part_faults(p_source, p_entity);
        IF v_faults IS NOT NULL THEN
            PERFORM pymig._fail_entity(p_source, p_entity, v_faults);
        END IF;
        RETURN false;
    END IF;
    v_lost := ARRAY(
        SELECT m.channel FROM pymig.promotion AS m
        WHERE m.source = p_source.source AND m.entity = p_entity AND NOT EXISTS (
            SELECT FROM pymig.part AS p JOIN pg_attribute AS a ON a.attrelid = to_regclass(format('%I.%I', p_source.wide_schema, p.wide_table))
            WHERE p.source = m.source AND p.entity = m.entity AND p.part = m.part AND a.attname = m.wide_column AND NOT a.attisdropped));
    IF v_lost = '{}' AND NOT (v_is_split AND to_regclass(v_view) IS NULL) AND NOT EXISTS (SELECT FROM pymig._column_changes(p_source, p_entity) AS c) THEN
        RETURN false;
    END IF;
    PERFORM pymig._lock_entity(p_source.source, p_entity, p_exclusive => true);
    PERFORM set_config('lock_timeout', '300ms', true);
    v_is_split := (SELECT count(*) > 1 FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity);
    FOR r_renamed IN SELECT c.* FROM pymig._column_changes(p_source, p_entity) AS c WHERE c.change = 'renamed' LOOP
        PERFORM pymig._follow_rename(p_source, p_entity, r_renamed.channel, r_renamed.wide_column, r_renamed.found);
        v_is_mended := true;
    END LOOP;
    -- A new column that is gone is simply begun again.
    DELETE FROM pymig.promotion AS m WHERE m.source = p_source.source AND m.entity = p_entity AND m.channel = ANY (v_lost);
    v_is_mended := v_is_mended OR FOUND;
    SELECT string_agg(format('%s (%I)', quote_literal(c.channel), c.wide_column), ', ') FILTER (WHERE c.change = 'dropped'),
        string_agg(format('%s.%I of %s is %s', c.wide_table, c.wide_column, quote_literal(c.channel), c.found), ', ') FILTER (WHERE c.change = 'type')
    INTO v_dropped, v_changed
    FROM pymig._column_changes(p_source, p_entity) AS c;
    IF v_dropped IS NOT NULL THEN
        PERFORM pymig._add_missing_columns(p_source, p_entity);
        PERFORM pymig._expand_range(p_source, p_entity, -9223372036854775808, 9223372036854775807);
        PERFORM pymig._note('WARNING', p_source.source, p_entity, 'columns made again',
            format('Somebody dropped the columns of %s. They are there again and are filled.', v_dropped));
    END IF;
    IF v_is_split AND to_regclass(v_view) IS NULL THEN
        PERFORM pymig._create_parts_view(p_source, p_entity);
        PERFORM pymig._note('WARNING', p_source.source, p_entity, 'view made again', format('Somebody dropped the view %s over the parts.', v_view));
    END IF;
    IF v_changed IS NOT NULL THEN
        PERFORM pymig._unverify(p_source.source, p_entity, 'somebody changed the type of columns');
        v_changed := format('Somebody changed the type of columns: %s. Values may differ. Drop these columns: they are made again.', v_changed);
        IF NOT EXISTS (SELECT FROM pymig.event AS e WHERE e.source = p_source.source AND e.entity = p_entity AND e.what = 'column types changed' AND e.detail = v_changed) THEN
            PERFORM pymig._note('CRITICAL', p_source.source, p_entity, 'column types changed', v_changed);
        END IF;
    END IF;
    RETURN v_is_mended OR v_dropped IS NOT NULL;
END
$$;
COMMENT ON FUNCTION pymig._mend_columns(pymig.source, text) IS
    'Where somebody altered the wide tables: follows a renamed column, makes a dropped one again, says what it can''t mend. Returns whether a recompute that failed is worth another try. Called when a recompute or a chunk fails because of a column or table, and by verify.';

-- sql/core/functions/_merge_part.sql
CREATE OR REPLACE FUNCTION pymig._merge_part(
    p_schema text, p_wide_table text, p_time_column text, p_columns text[], p_times anyarray, p_cells json[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Planning a column takes 16 us, the way through the row type 1.7 ms at 1,000 columns (PostgreSQL 18).
    c_few constant int := 60;
    v_table text := format('%I.%I', p_schema, p_wide_table);
    v_names text[] := ARRAY(SELECT regexp_replace(c.c, ' \w+$', '') FROM unnest(p_columns) AS c (c));
BEGIN
    PERFORM set_config('pymig.writes_wide', 'on', true);
    IF p_columns = '{}' THEN
        EXECUTE format('INSERT INTO %1$s (%2$I) SELECT t.time FROM unnest($1) AS t (time) ON CONFLICT (%2$I) DO NOTHING', v_table, p_time_column)
        USING p_times;
    ELSIF cardinality(p_columns) <= c_few THEN
        EXECUTE format(
            'INSERT INTO %1$s AS w (%2$I, %3$s)
             SELECT f.time, r.* FROM unnest($1, $2) AS f (time, cells) CROSS JOIN LATERAL json_to_record(f.cells) AS r (%4$s)
             ON CONFLICT (%2$I) DO UPDATE SET %5$s',
            v_table, p_time_column, array_to_string(v_names, ', '), array_to_string(p_columns, ', '),
            (SELECT string_agg(format('%1$s = coalesce(excluded.%1$s, w.%1$s)', n.n), ', ') FROM unnest(v_names) AS n (n)))
        USING p_times, p_cells;
    ELSE
        -- Nobody else has these rows: their times are locked.
        EXECUTE format(
            'WITH old AS (DELETE FROM %1$s AS w WHERE w.%2$I = ANY ($1) RETURNING w.%2$I AS time, w AS cells)
             INSERT INTO %1$s
             SELECT r.* FROM unnest($1, $2) AS f (time, cells)
             LEFT JOIN old AS o ON o.time = f.time
             CROSS JOIN LATERAL json_populate_record(
                 coalesce(o.cells, json_populate_record(NULL::%1$s, json_build_object(%2$L, f.time::text))), f.cells) AS r',
            v_table, p_time_column)
        USING p_times, p_cells;
    END IF;
    -- The transaction is the application's.
    PERFORM set_config('pymig.writes_wide', 'off', true);
END
$$;
COMMENT ON FUNCTION pymig._merge_part(text, text, text, text[], anyarray, json[]) IS
    'Sets cells of a wide table that are not NULL, and makes rows for times that have none. p_columns: names and types of the columns that occur; p_times, and beside each p_cells: an object of its cells by column. The caller holds the locks of _lock_directly.';

-- sql/core/functions/_months.sql
CREATE OR REPLACE FUNCTION pymig._months(
    p_source pymig.source, p_first_tick bigint, p_last_tick bigint, OUT label text, OUT from_sql text, OUT to_sql text)
RETURNS SETOF record
LANGUAGE sql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
    -- From 2000 to 2099. What lies before and after, a clock gone wrong mostly, has a partition for all of it.
    WITH unit AS (
        SELECT CASE p_source.time_unit WHEN 's' THEN 1 WHEN 'ms' THEN 1000 ELSE 1000000 END AS ticks
    ),
    edge AS (
        SELECT greatest(p_first_tick, pymig._tick_of_day(p_source, '2000-01-01')) AS first_tick,
            least(p_last_tick, pymig._tick_of_day(p_source, '2100-01-01') - 1) AS last_tick
    ),
    day AS (
        SELECT CASE p_source.time_type
                WHEN 'date' THEN date '2000-01-01' + t.tick::int
                WHEN 'bigint' THEN (timestamp '1970-01-01' + make_interval(days => (t.tick / u.ticks / 86400)::int))::date
                ELSE (timestamp '2000-01-01' + make_interval(days => (t.tick / 86400000000)::int))::date END AS day, t.is_last
        FROM edge AS e, unit AS u, LATERAL (VALUES (e.first_tick, false), (e.last_tick, true)) AS t (tick, is_last)
        WHERE e.first_tick <= e.last_tick AND p_first_tick <= p_last_tick
    )
    SELECT to_char(m.m, 'YYYY_MM'),
        quote_literal(pymig.time_text(pymig._tick_of_day(p_source, m.m::date), p_source.time_type)),
        quote_literal(pymig.time_text(pymig._tick_of_day(p_source, (m.m + interval '1 month')::date), p_source.time_type))
    FROM generate_series(
        (SELECT date_trunc('month', d.day::timestamp) FROM day AS d WHERE NOT d.is_last),
        (SELECT d.day::timestamp FROM day AS d WHERE d.is_last), interval '1 month') AS m (m)
    UNION ALL
    SELECT 'before', 'MINVALUE', quote_literal(pymig.time_text(pymig._tick_of_day(p_source, '2000-01-01'), p_source.time_type))
    UNION ALL
    SELECT 'after', quote_literal(pymig.time_text(pymig._tick_of_day(p_source, '2100-01-01'), p_source.time_type)), 'MAXVALUE'
$$;
COMMENT ON FUNCTION pymig._months(pymig.source, bigint, bigint) IS
    'Partitions for a span of ticks: its months (UTC, label YYYY_MM), and one for all before 2000 and one for all after 2099. from_sql (inclusive) and to_sql (exclusive): the bounds, as PostgreSQL prints them.';

-- sql/core/functions/_move_cells.sql
CREATE OR REPLACE FUNCTION pymig._move_cells(p_source pymig.source, p_entity text, p_time text, p_new_time text, p_channels text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('UPDATE %s AS n SET %I = $4::%s WHERE %s', p_source.narrow, p_source.time_column, p_source.time_type, pymig._row_condition(p_source))
    USING p_entity, p_time, p_channels, p_new_time;
END
$$;
COMMENT ON FUNCTION pymig._move_cells(pymig.source, text, text, text, text[]) IS
    'Moves the narrow rows of these channels from one time to another, with all that they have besides a value.';

-- sql/core/functions/_move_chunk.sql
CREATE OR REPLACE FUNCTION pymig._move_chunk(
    p_source pymig.source, p_entity pymig.entity, p_chunk pymig.chunk, p_strategy text DEFAULT NULL)
RETURNS pymig.chunk
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- How much of a chunk a strategy is tried on.
    c_trial constant numeric := 0.125;
    v_chunk pymig.chunk := p_chunk;
    v_started timestamptz := clock_timestamp();
    v_choice record;
    v_result record;
    v_constraint text;
BEGIN
    -- Waits for no disk: what a crash takes back is the chunk's rows with its state, and it is moved again. The commit that ends the backfill waits for all.
    PERFORM set_config('synchronous_commit', 'off', true);
    BEGIN
        PERFORM set_config('lock_timeout', '10s', true);
        PERFORM pymig._lock_entity(p_source.source, p_entity.entity, p_exclusive => false);
        PERFORM pymig._lock_buckets(p_source.source, p_entity.entity, p_chunk.first_bucket, p_chunk.last_bucket);
        -- What failed with the wanted strategy is not tried with it again.
        v_choice := pymig._choose_strategy(p_source, p_entity, CASE WHEN p_chunk.error IS NULL THEN p_strategy END);
        IF v_choice.is_trial THEN
            -- However slow it turns out to be, it costs a small part of a chunk.
            -- One bucket at least, which may be that of infinity: nothing is added to it.
            v_chunk := pymig._split_chunk(p_source, p_chunk,
                p_chunk.first_bucket + greatest(c_trial * (p_chunk.last_bucket::numeric - p_chunk.first_bucket + 1) - 1, 0)::bigint);
        END IF;
        v_result := pymig._recompute(p_source, p_entity.entity, v_choice.strategy, v_chunk.first_bucket, v_chunk.last_bucket, NULL);
        UPDATE pymig.chunk AS c SET
            state = 'done', strategy = v_choice.strategy, narrow_rows = v_result.narrow_rows, cells = v_result.cells,
            wide_rows = v_result.wide_rows, superseded_rows = pymig._superseded_rows(p_source, p_entity.entity, v_result.narrow_rows, v_chunk),
            seconds = extract(epoch FROM clock_timestamp() - v_started), error = NULL, retry_at = NULL,
            finished_at = clock_timestamp(), finished_by = format('%s (%s)', current_setting('application_name'), pg_backend_pid())
        WHERE c.chunk = p_chunk.chunk
        RETURNING c.* INTO v_chunk;
    EXCEPTION
        WHEN SQLSTATE 'PM009' THEN
            v_chunk := pymig._chunk_needs_channels(p_source, p_chunk);
        WHEN undefined_column OR undefined_table OR datatype_mismatch THEN
            v_chunk := pymig._chunk_needs_mending(p_source, p_chunk, SQLSTATE, SQLERRM);
        WHEN check_violation THEN
            -- That a row has no partition is the one that has no name.
            GET STACKED DIAGNOSTICS v_constraint = CONSTRAINT_NAME;
            v_chunk := CASE v_constraint WHEN '' THEN pymig._chunk_needs_months(p_source, p_chunk) ELSE pymig._chunk_failed(p_chunk, SQLSTATE, SQLERRM) END;
        WHEN OTHERS THEN
            v_chunk := pymig._chunk_failed(p_chunk, SQLSTATE, SQLERRM);
    END;
    RETURN v_chunk;
END
$$;
COMMENT ON FUNCTION pymig._move_chunk(pymig.source, pymig.entity, pymig.chunk, text) IS
    'Recomputes a chunk and marks it done in the same transaction (R12). A new channel gets its column instead, a month its partition; any other error is written to the chunk, which is tried again. One subtransaction a chunk.';

-- sql/core/functions/_narrow_row.sql
CREATE OR REPLACE FUNCTION pymig._narrow_row(
    p_source pymig.source, p_entity text, p_time text, p_channels text[],
    OUT present text[], OUT formats text[], OUT channels text[], OUT kinds text[], OUT cells text[])
RETURNS record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_types text[] := pymig._column_types(p_source.source, p_entity);
    v_bucket bigint;
BEGIN
    EXECUTE format('SELECT %s', pymig._bucket_sql(p_source, format('$1::%s', p_source.time_type))) INTO v_bucket USING p_time;
    -- Locked first: what is read below in a later snapshot stays so until the end of the transaction.
    EXECUTE format(
        'SELECT coalesce(array_agg(d.channel), ''{}''), coalesce(array_agg(d.format), ''{}'')
         FROM (SELECT DISTINCT ON (l.channel) l.channel, l.format
               FROM (SELECT n.%I::text AS channel, %s AS format FROM %s AS n WHERE %s FOR UPDATE) AS l) AS d',
        p_source.channel_column, CASE WHEN p_source.format_column IS NULL THEN 'NULL::text' ELSE format('n.%I::text', p_source.format_column) END,
        p_source.narrow, pymig._row_condition(p_source))
    INTO present, formats
    USING p_entity, p_time, p_channels;
    EXECUTE format(
        'SELECT coalesce(array_agg(x.channel), ''{}''), coalesce(array_agg(x.kind), ''{}''), coalesce(array_agg((%s)::text), ''{}'')
         FROM (%s) AS x WHERE x.channel = ANY ($1) AND x.ord IS NOT NULL',
        pymig._value_sql('x', v_types),
        pymig._cells_sql(p_source, p_entity,
            pymig._time_condition(p_source, 'n.raw_time', v_bucket, v_bucket, ARRAY[p_time]::text),
            p_source.reads_by_key AND NOT p_source.reads_by_time,
            ARRAY(SELECT 'as_' || t.t FROM unnest(v_types) AS t (t)) || 'kind'::text))
    INTO channels, kinds, cells
    USING p_channels;
END
$$;
COMMENT ON FUNCTION pymig._narrow_row(pymig.source, text, text, text[]) IS
    'What the narrow table has of these channels at one time, locked until the end of the transaction. present: channels that have rows, formats: beside each, the format of one of them; channels, kinds, cells: what decides the wide row.';

-- sql/core/functions/_narrow_tuples.sql
CREATE OR REPLACE FUNCTION pymig._narrow_tuples(p_narrow regclass, OUT tables bigint, OUT unknown bigint, OUT tuples bigint)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*), count(*) FILTER (WHERE c.reltuples < 0), coalesce(sum(greatest(c.reltuples, 0)::bigint), 0)
    FROM pg_class AS c
    WHERE c.oid = p_narrow AND c.relkind = 'r' OR c.oid IN (SELECT p.relid FROM pg_partition_tree(p_narrow) AS p WHERE p.isleaf)
$$;
COMMENT ON FUNCTION pymig._narrow_tuples(regclass) IS
    'Tables (partitions) with rows of a narrow table, how many of them have no statistics, and the rows by the statistics of the others.';

-- sql/core/functions/_native_type.sql
CREATE OR REPLACE FUNCTION pymig._native_type(p_kinds text[], p_column_types text)
RETURNS text
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT CASE
        WHEN p_column_types = 'text' THEN 'text'
        WHEN cardinality(p_kinds) = 1 THEN p_kinds[1]
        WHEN p_kinds <@ '{int8,float8}' AND cardinality(p_kinds) = 2 THEN 'float8'
        WHEN p_kinds <@ '{int8,numeric}' AND cardinality(p_kinds) = 2 THEN 'numeric'
        ELSE 'text'
    END
$$;
COMMENT ON FUNCTION pymig._native_type(text[], text) IS
    'Column type for the kinds of value a channel has: text by choice, or where nothing narrower holds all of them.';

-- sql/core/functions/_newest_tick.sql
CREATE OR REPLACE FUNCTION pymig._newest_tick(p_source pymig.source, p_entity text, p_channels text[])
RETURNS bigint
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
    SET enable_seqscan = off
AS $$
DECLARE
    v_newest text := format('SELECT max(n.raw_time) AS time FROM pymig.%I AS n WHERE n.entity = %L AND n.raw_time <= %L::%s',
        p_source.source || '_cell', p_entity, pymig.time_text(floor(pymig._now_tick(p_source)), p_source.time_type), p_source.time_type);
    v_tick bigint;
BEGIN
    IF p_source.reads_by_key THEN
        v_newest := format('SELECT max(x.time) AS time FROM unnest($1::%s[]) AS c (channel) CROSS JOIN LATERAL (%s AND n.channel = c.channel) AS x',
            pymig._type_name(p_source, p_source.channel_column), v_newest);
    END IF;
    EXECUTE format('SELECT nullif(pymig.tick_of(b.time), -9223372036854775808) FROM (%s) AS b', v_newest) INTO v_tick USING p_channels;
    RETURN v_tick;
END
$$;
COMMENT ON FUNCTION pymig._newest_tick(pymig.source, text, text[]) IS
    'Tick of an entity''s newest narrow row up to now: rows of the future don''t count. NULL: none. p_channels: as in _count_rows.';

-- sql/core/functions/_next_bucket.sql
CREATE OR REPLACE FUNCTION pymig._next_bucket(p_source pymig.source, p_entity text, p_bucket bigint)
RETURNS bigint
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_wide bigint;
    v_narrow bigint;
BEGIN
    EXECUTE format('SELECT min(%s) FROM (%s) AS p (bucket)', 'p.bucket', (
        SELECT string_agg(format('SELECT %s FROM (SELECT min(w.%2$I) AS time FROM %3$I.%4$I AS w WHERE w.%2$I >= %5$L::%6$s) AS w WHERE w.time IS NOT NULL',
            pymig._bucket_sql(p_source, 'w.time'), p_source.time_column, p_source.wide_schema, p.wide_table,
            pymig._bucket_start(p_source, p_bucket), p_source.time_type), ' UNION ALL ')
        FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity))
    INTO v_wide;
    -- Only over a gap on the wide side is the narrow side asked: between neighbours there is no room for a bucket.
    IF v_wide = p_bucket THEN
        RETURN v_wide;
    END IF;
    -- Mostly it has none there either, which the key says sooner than where each channel goes on.
    IF NOT (p_source.reads_by_key AND pymig._skips_channels()) OR pymig._has_narrow_rows(p_source, p_entity, p_bucket, coalesce(v_wide - 1, 9223372036854775807)) THEN
        v_narrow := pymig._next_narrow_bucket(p_source, p_entity, p_bucket);
    END IF;
    RETURN least(v_wide, v_narrow, (
        SELECT min(q.bucket) FROM pymig.quarantine AS q
        WHERE q.source = p_source.source AND q.entity = p_entity AND q.bucket >= p_bucket AND q.bucket <> (-9223372036854775807)));
END
$$;
COMMENT ON FUNCTION pymig._next_bucket(pymig.source, text, bigint) IS
    'First bucket from this one on that has rows on the narrow or the wide side or in quarantine; NULL: none.';

-- sql/core/functions/_next_narrow_bucket.sql
CREATE OR REPLACE FUNCTION pymig._next_narrow_bucket(p_source pymig.source, p_entity text, p_bucket bigint)
RETURNS bigint
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_from text := format('SELECT min(n.raw_time) AS time FROM pymig.%I AS n WHERE n.entity = %L AND n.raw_time >= %L::%s',
        p_source.source || '_cell', p_entity, pymig._bucket_start(p_source, p_bucket), p_source.time_type);
    v_first text;
    v_leaf text;
    v_bucket bigint;
BEGIN
    -- Leaf by leaf: over all of them each step of a loose scan would be a descent into each.
    FOREACH v_leaf IN ARRAY pymig._spans_sql(p_source, 'n.raw_time', p_bucket) LOOP
        v_first := v_from;
        IF p_source.reads_by_key THEN
            v_first := format('SELECT x.time FROM loose AS l CROSS JOIN LATERAL (%s AND n.channel = l.value AND %s) AS x WHERE l.value IS NOT NULL', v_from, v_leaf);
        END IF;
        -- Mostly the bucket itself has rows, and one of its first channels says so: the others are not read then.
        EXECUTE format(
            'WITH RECURSIVE %1$sfirst AS MATERIALIZED (SELECT pymig.bucket_of(pymig.tick_of(x.time), %2$s) AS bucket FROM (%3$s) AS x)
             SELECT coalesce((SELECT f.bucket FROM first AS f WHERE f.bucket = %4$s LIMIT 1), (SELECT min(f.bucket) FROM first AS f))',
            CASE WHEN p_source.reads_by_key THEN format('loose(value) AS (%s), ',
                pymig._loose_scan_sql(p_source, 'channel', format('n.entity = %L AND %s', p_entity, v_leaf))) END,
            p_source.bucket_ticks, v_first, p_bucket) INTO v_bucket;
        EXIT WHEN v_bucket IS NOT NULL;
    END LOOP;
    RETURN v_bucket;
END
$$;
COMMENT ON FUNCTION pymig._next_narrow_bucket(pymig.source, text, bigint) IS
    'First bucket from this one on that has narrow rows of the entity: gaps cost one probe a channel, not a chunk. NULL: none.';

-- sql/core/functions/_next_unarmed.sql
CREATE OR REPLACE FUNCTION pymig._next_unarmed(p_source pymig.source)
RETURNS regclass
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- The table itself last: armed, it says that all are. Which of the others does not matter.
    SELECT coalesce(
        (SELECT p.relation FROM pymig.partition AS p WHERE p.source = p_source.source AND p.state = 'new' LIMIT 1),
        (SELECT p.relation FROM pymig.partition AS p
         WHERE p.source = p_source.source AND p.state IN ('armed', 'expanded', 'served') AND NOT pymig._has_triggers(p_source.source, p.relation)
         LIMIT 1),
        (SELECT p_source.narrow WHERE NOT pymig._has_triggers(p_source.source, p_source.narrow)))
$$;
COMMENT ON FUNCTION pymig._next_unarmed(pymig.source) IS
    'The next of a source''s tables whose triggers are not as installed: partitions first, the registered table last. NULL: all are armed.';

-- sql/core/functions/_not_written.sql
CREATE OR REPLACE FUNCTION pymig._not_written(p_source text, p_sqlstate text, p_error text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_pause constant int := 10;
BEGIN
    IF p_sqlstate <> 'PM031' AND NOT pymig._is_in_the_way(p_sqlstate) THEN
        RAISE LOG 'pymig: direct writes of % pause for % seconds: % (%)', p_source, c_pause, p_error, p_sqlstate;
        PERFORM setval(format('pymig.%I', p_source || '_paused')::regclass, extract(epoch FROM clock_timestamp())::bigint + c_pause);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._not_written(text, text, text) IS
    'After a direct write that was given up: what will be in the way of the next statement as well (any error, a time budget that was exceeded) is not tried for 10 seconds. A doubt (PM031) or a lock is.';

-- sql/core/functions/_note.sql
CREATE OR REPLACE FUNCTION pymig._note(
    p_level text, p_source text, p_entity text, p_what text, p_detail text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pymig.event (level, source, entity, what, detail)
    VALUES (p_level, p_source, p_entity, p_what, p_detail)
$$;
COMMENT ON FUNCTION pymig._note(text, text, text, text, text) IS 'Writes one event.';

-- sql/core/functions/_note_columns.sql
CREATE OR REPLACE FUNCTION pymig._note_columns(p_source pymig.source, p_entity text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE pymig.channel AS c SET attnum = a.attnum
    FROM pymig.part AS p, pg_attribute AS a
    WHERE c.source = p_source.source AND c.entity = p_entity
      AND p.source = c.source AND p.entity = c.entity AND p.part = c.part
      AND a.attrelid = to_regclass(format('%I.%I', p_source.wide_schema, p.wide_table)) AND a.attname = c.wide_column AND NOT a.attisdropped
      AND c.attnum IS DISTINCT FROM a.attnum
$$;
COMMENT ON FUNCTION pymig._note_columns(pymig.source, text) IS
    'Remembers the number of each wide column, by which it is found again should somebody rename it.';

-- sql/core/functions/_note_lag.sql
CREATE OR REPLACE FUNCTION pymig._note_lag(p_source text, p_entity text, p_recorded timestamptz[], p_keys bigint[])
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH aged AS (
        SELECT least(1 + floor(2 * ln(greatest(extract(epoch FROM clock_timestamp() - r.recorded_at)::float8 * 1000, 1)) / ln(2::float8)), 48)::int AS bin, sum(r.keys)::bigint AS keys
        FROM unnest(p_recorded, p_keys) AS r (recorded_at, keys)
        GROUP BY 1
    )
    INSERT INTO pymig.lag AS l (source, entity, slot, minute, keys)
    SELECT p_source, p_entity, extract(epoch FROM m.minute)::bigint / 60 % 6, m.minute,
        ARRAY(SELECT coalesce(a.keys, 0) FROM generate_series(1, 48) AS b (bin) LEFT JOIN aged AS a USING (bin) ORDER BY b.bin)
    FROM (SELECT date_trunc('minute', clock_timestamp()) AS minute) AS m
    ON CONFLICT (source, entity, slot) DO UPDATE SET minute = excluded.minute, keys = CASE
        WHEN l.minute = excluded.minute
            THEN ARRAY(SELECT o.keys + n.keys FROM unnest(l.keys) WITH ORDINALITY AS o (keys, bin)
                       JOIN unnest(excluded.keys) WITH ORDINALITY AS n (keys, bin) USING (bin) ORDER BY bin)
        ELSE excluded.keys END
$$;
COMMENT ON FUNCTION pymig._note_lag(text, text, timestamptz[], bigint[]) IS
    'Counts recomputed keys by their age, which begins with the transaction that changed them. The last statement of a recompute: two workers of one entity wait for each other no longer than a commit.';

-- sql/core/functions/_note_missing_source.sql
CREATE OR REPLACE FUNCTION pymig._note_missing_source(p_source pymig.source)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_class AS c WHERE c.oid = p_source.narrow) THEN
        RETURN false;
    END IF;
    PERFORM pymig._note_once('CRITICAL', p_source.source, 'source gone',
        format('The narrow table of source %s was dropped; its wide tables stay as they are. CALL pymig.unregister_source(%1$L) removes them.', p_source.source));
    RETURN true;
END
$$;
COMMENT ON FUNCTION pymig._note_missing_source(pymig.source) IS
    'Was the narrow table of a source dropped? Says so by an event, and the worker passes it over.';

-- sql/core/functions/_note_once.sql
CREATE OR REPLACE FUNCTION pymig._note_once(p_level text, p_source text, p_what text, p_detail text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pymig._note(p_level, p_source, NULL, p_what, p_detail)
    WHERE NOT EXISTS (
        SELECT FROM (SELECT e.* FROM pymig.event AS e ORDER BY e.event DESC LIMIT 100) AS e
        WHERE e.source = p_source AND e.what = p_what AND e.detail = p_detail AND e.happened_at > clock_timestamp() - interval '1 hour')
$$;
COMMENT ON FUNCTION pymig._note_once(text, text, text, text) IS
    'Writes an event of a source that a worker would meet in every pass: not again while it stands among the latest, for an hour.';

-- sql/core/functions/_note_partitions.sql
CREATE OR REPLACE FUNCTION pymig._note_partitions(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_tree pymig.partition[];
    v_is_pending boolean;
    r_gone pymig.partition;
    r_found record;
BEGIN
    v_tree := ARRAY(
        SELECT ROW(p_source.source, t.relation, t.attachment, t.relation::text, t.is_leaf, t.by_time, t.first_tick, t.last_tick,
                   'new', 0, NULL, NULL, clock_timestamp())::pymig.partition
        FROM pymig._partition_tree(p_source) AS t);
    FOR r_gone IN
        SELECT p.* FROM pymig.partition AS p
        WHERE p.source = p_source.source AND p.state <> 'detached'
          AND (p.relation, p.attachment) NOT IN (SELECT t.relation, t.attachment FROM unnest(v_tree) AS t)
        ORDER BY p.relation
    LOOP
        -- DETACH CONCURRENTLY: gone for new statements at once, for those in flight once its row in pg_inherits is.
        v_is_pending := EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = r_gone.relation AND i.inhdetachpending);
        CONTINUE WHEN v_is_pending AND r_gone.state = 'detaching';
        PERFORM pymig._partition_gone(p_source, r_gone, p_is_back => EXISTS (
            SELECT FROM unnest(v_tree) AS t WHERE t.relation = r_gone.relation));
        UPDATE pymig.partition AS p
        SET state = CASE WHEN v_is_pending THEN 'detaching' ELSE 'detached' END, attempts = 0, retry_at = NULL, error = NULL
        WHERE p.source = r_gone.source AND p.relation = r_gone.relation;
    END LOOP;
    FOR r_found IN
        INSERT INTO pymig.partition AS p SELECT t.* FROM unnest(v_tree) AS t
        ON CONFLICT (source, relation) DO UPDATE SET
            attachment = excluded.attachment, name = excluded.name, is_leaf = excluded.is_leaf, by_time = excluded.by_time,
            first_tick = excluded.first_tick, last_tick = excluded.last_tick,
            state = 'new', attempts = 0, retry_at = NULL, error = NULL, noticed_at = clock_timestamp()
        WHERE p.attachment <> excluded.attachment OR p.state IN ('detaching', 'detached')
        RETURNING p.*
    LOOP
        CONTINUE WHEN NOT r_found.is_leaf OR pymig._trigger_state(p_source.narrow) = 'none';
        PERFORM pymig._note('INFO', p_source.source, NULL, 'partition added',
            format('%s is a partition of %s now.', r_found.name, p_source.narrow));
        IF EXISTS (SELECT FROM pymig.closed_range AS c WHERE c.source = p_source.source
                   AND c.first_tick <= r_found.last_tick AND c.last_tick >= r_found.first_tick) THEN
            PERFORM pymig._note('WARNING', p_source.source, NULL, 'partition in a closed range',
                format('%s covers times whose wide rows are kept: its rows go to quarantine. CALL pymig.set_retention(''drop'') lets the wide tables follow again.', r_found.name));
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._note_partitions(pymig.source) IS
    'Brings pymig.partition up to the catalog: what is new is to be armed, what is gone is treated by the source''s policy (R11). The caller holds the lock of arming.';

-- sql/core/functions/_notice_lost.sql
CREATE OR REPLACE FUNCTION pymig._notice_lost(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Read before anything here gets a transaction number: whoever moved it so far has a lower one than ours will be.
    v_is_fresh boolean := pg_current_xact_id_if_assigned() IS NULL;
    v_lost bigint := coalesce(pg_sequence_last_value(format('pymig.%I', p_source.source || '_lost')::regclass), 0);
    v_source pymig.source;
BEGIN
    SELECT s.* INTO v_source FROM pymig.source AS s WHERE s.source = p_source.source;
    IF NOT v_is_fresh OR (v_lost = v_source.lost_seen AND v_lost = v_source.lost_handled)
        OR NOT pg_try_advisory_xact_lock(pymig._lock_key('lost', p_source.source)) THEN
        RETURN;
    END IF;
    SELECT s.* INTO v_source FROM pymig.source AS s WHERE s.source = p_source.source;
    IF v_lost <> v_source.lost_seen OR v_source.lost_xid >= pg_snapshot_xmax(pg_current_snapshot()) THEN
        -- It moves before its writer commits: what to repair is not to be seen until all that run now have ended.
        -- (A number from the future is another cluster's: this one was restored from a dump.)
        UPDATE pymig.source AS s SET lost_seen = v_lost, lost_xid = pg_current_xact_id() WHERE s.source = p_source.source;
        PERFORM pymig._unverify(p_source.source, NULL, 'keys were lost');
        IF v_source.lost_seen = v_source.lost_handled THEN
            PERFORM pymig._note('CRITICAL', p_source.source, NULL, 'keys lost',
                'Changes were not recorded: the pending queue was at its limit or its disk was full. All entities are repaired, then have to be verified again.');
        END IF;
    ELSIF pg_snapshot_xmin(pg_current_snapshot()) > v_source.lost_xid THEN
        -- One that is just being started may have read its bounds too early, and has no tables yet: not before that has ended.
        IF (SELECT count(*) FROM pymig.entity AS e WHERE e.source = p_source.source)
            > (SELECT count(*) FROM (SELECT FROM pymig.entity AS e WHERE e.source = p_source.source FOR UPDATE SKIP LOCKED) AS e) THEN
            RETURN;
        END IF;
        UPDATE pymig.entity AS e SET repair_from = -9223372036854775808
        WHERE e.source = p_source.source AND e.wide_table IS NOT NULL;
        UPDATE pymig.source AS s SET lost_handled = v_lost WHERE s.source = p_source.source;
        PERFORM pymig._record_newcomers(p_source);
        PERFORM pymig._note('WARNING', p_source.source, NULL, 'repair begun', 'Every bucket of every entity is recomputed, because keys were lost.');
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._notice_lost(pymig.source) IS
    'Where a trigger could not record keys: takes the state verified from the entities of the source at once, and sends all of them to repair as soon as every transaction that ran then has ended. First in its transaction, at READ COMMITTED.';

-- sql/core/functions/_now_tick.sql
CREATE OR REPLACE FUNCTION pymig._now_tick(p_source pymig.source)
RETURNS numeric
LANGUAGE sql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
    SELECT CASE p_source.time_type
        WHEN 'bigint' THEN extract(epoch FROM now()) * CASE p_source.time_unit WHEN 's' THEN 1 WHEN 'ms' THEN 1000 ELSE 1000000 END
        WHEN 'date' THEN pymig.tick_of(now()::date) ELSE pymig.tick_of(now()) END
$$;
COMMENT ON FUNCTION pymig._now_tick(pymig.source) IS 'Now, in ticks of a source''s time type.';

-- sql/core/functions/_part_faults.sql
CREATE OR REPLACE FUNCTION pymig._part_faults(p_source pymig.source, p_entity text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(f.fault, '; ' ORDER BY p.part)
    FROM pymig.part AS p
    CROSS JOIN LATERAL (SELECT format('%I.%I', p_source.wide_schema, p.wide_table) AS name) AS n
    LEFT JOIN pg_class AS c ON c.oid = to_regclass(n.name) AND c.relkind IN ('r', 'p')
    LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = p_source.time_column AND NOT a.attisdropped
    CROSS JOIN LATERAL (
        SELECT CASE WHEN c.oid IS NULL THEN format('the wide table %s is gone', n.name)
                    WHEN a.attnum IS NULL OR format_type(a.atttypid, NULL) <> p_source.time_type
                        THEN format('the wide table %s has no column %I of type %s', n.name, p_source.time_column, p_source.time_type) END AS fault
    ) AS f
    WHERE p.source = p_source.source AND p.entity = p_entity
$$;
COMMENT ON FUNCTION pymig._part_faults(pymig.source, text) IS
    'What somebody did to the wide tables that can''t be mended: a table dropped or renamed, or its time column. NULL: nothing.';

-- sql/core/functions/_partition_failed.sql
CREATE OR REPLACE FUNCTION pymig._partition_failed(p_partition pymig.partition, p_sqlstate text, p_error text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_worrying constant int := 10;
    v_attempts int;
BEGIN
    UPDATE pymig.partition AS p SET
        attempts = p.attempts + 1, error = format('%s (%s)', p_error, p_sqlstate),
        retry_at = clock_timestamp() + least(0.2 * 1.5 ^ least(p.attempts, 20), 60) * (0.5 + random()) * interval '1 second'
    WHERE p.source = p_partition.source AND p.relation = p_partition.relation
    RETURNING p.attempts INTO v_attempts;
    IF v_attempts = c_worrying THEN
        PERFORM pymig._note(CASE p_partition.state WHEN 'detached' THEN 'WARNING' ELSE 'CRITICAL' END, p_partition.source, NULL, 'partition not served',
            format('%s is %s, and %s attempts to go on with it failed: %s', p_partition.name, p_partition.state, v_attempts, p_error));
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._partition_failed(pymig.partition, text, text) IS
    'After an attempt to arm, queue or disarm a partition that failed (a long writer on it, say): it is tried again with growing pauses of up to a minute, and reported after ten.';

-- sql/core/functions/_partition_gone.sql
CREATE OR REPLACE FUNCTION pymig._partition_gone(p_source pymig.source, p_partition pymig.partition, p_is_back boolean)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_is_bounded boolean := p_partition.by_time AND p_partition.first_tick <= p_partition.last_tick;
    v_entity text;
    v_level text := 'INFO';
    v_then text := 'the wide rows of its range follow';
BEGIN
    IF NOT p_partition.is_leaf THEN
        RETURN;
    ELSIF p_is_back THEN
        v_then := 'it was attached anew meanwhile, and the wide rows of its range follow what it has';
    ELSIF p_source.retention = 'keep' AND v_is_bounded THEN
        v_then := 'the wide rows of its range are kept';
    ELSIF p_source.retention = 'keep' THEN
        v_level := 'WARNING';
        v_then := 'it had no range of times of its own, so its wide rows can''t be kept and follow';
    END IF;
    FOREACH v_entity IN ARRAY ARRAY(
        SELECT p.entity FROM pymig.part AS p WHERE p.source = p_source.source AND p.part = 1 ORDER BY p.entity)
    LOOP
        IF p_source.retention = 'keep' AND v_is_bounded AND NOT p_is_back THEN
            PERFORM pymig._close_range(p_source, v_entity, p_partition);
        ELSE
            PERFORM pymig._expand_range(p_source, v_entity, p_partition.first_tick, p_partition.last_tick);
        END IF;
    END LOOP;
    IF p_partition.state <> 'detaching' THEN
        PERFORM pymig._note(v_level, p_source.source, NULL, 'partition gone',
            format('%s is no partition of %s any more: %s.', p_partition.name, p_source.narrow, v_then));
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._partition_gone(pymig.source, pymig.partition, boolean) IS
    'What becomes of the wide rows of a partition that was detached or dropped: recomputed with the policy drop, closed to any change with keep.';

-- sql/core/functions/_partition_tree.sql
CREATE OR REPLACE FUNCTION pymig._partition_tree(
    p_source pymig.source, OUT relation regclass, OUT attachment text, OUT is_leaf boolean, OUT by_time boolean,
    OUT first_tick bigint, OUT last_tick bigint)
RETURNS SETOF record
LANGUAGE sql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
    -- pg_inherits and not pg_partition_tree(): that one locks what it lists, and would wait behind a DETACH.
    WITH RECURSIVE tree AS (
        SELECT p_source.narrow::oid AS relation, NULL::text AS attachment, true AS by_time,
            (-9223372036854775808)::bigint AS first_tick, 9223372036854775807::bigint AS last_tick, 0 AS depth
        UNION ALL
        SELECT i.inhrelid, concat_ws(' ', t.attachment, i.xmin::text), t.by_time AND k.is_time AND b.lower IS NOT NULL,
            greatest(t.first_tick, CASE WHEN k.is_time THEN pymig._bound_tick(b.lower, p_source.time_type, false) END),
            least(t.last_tick, CASE WHEN k.is_time THEN pymig._bound_tick(b.upper, p_source.time_type, true) END),
            t.depth + 1
        FROM tree AS t
        JOIN pg_inherits AS i ON i.inhparent = t.relation AND NOT i.inhdetachpending
        JOIN pg_partitioned_table AS p ON p.partrelid = t.relation
        JOIN pg_class AS c ON c.oid = i.inhrelid
        CROSS JOIN LATERAL (
            SELECT p.partstrat = 'r' AND p.partnatts = 1 AND EXISTS (
                SELECT FROM pg_attribute AS a
                WHERE a.attrelid = p.partrelid AND a.attnum = p.partattrs[0] AND a.attname = p_source.time_column) AS is_time
        ) AS k
        CROSS JOIN LATERAL (
            SELECT m.m[1] AS lower, m.m[2] AS upper
            FROM (SELECT regexp_match(pg_get_expr(c.relpartbound, c.oid), '^FOR VALUES FROM \((.+)\) TO \((.+)\)$') AS m) AS m
        ) AS b
    )
    SELECT t.relation, t.attachment, c.relkind <> 'p', t.by_time, t.first_tick, t.last_tick
    FROM tree AS t JOIN pg_class AS c ON c.oid = t.relation
    WHERE t.depth > 0
    ORDER BY t.depth DESC, t.first_tick DESC
$$;
COMMENT ON FUNCTION pymig._partition_tree(pymig.source) IS
    'The partitions of a narrow table at all levels, deepest and newest first; none for an ordinary table. attachment changes when a partition is attached anew; by_time: its range of ticks says all, no other column decides; without known bounds the range is everything.';

-- sql/core/functions/_partitions_known.sql
CREATE OR REPLACE FUNCTION pymig._partitions_known(p_source text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(md5(string_agg(format('%s %s', p.relation::oid, p.attachment), ',' ORDER BY p.relation::oid)), '')
    FROM pymig.partition AS p
    WHERE p.source = p_source AND p.state IN ('new', 'armed', 'expanded', 'served')
$$;
COMMENT ON FUNCTION pymig._partitions_known(text) IS 'The digest of _partitions_now, of the partitions that were noticed.';

-- sql/core/functions/_partitions_now.sql
CREATE OR REPLACE FUNCTION pymig._partitions_now(p_narrow regclass)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE tree AS (
        SELECT i.inhrelid AS relation, i.xmin::text AS attachment FROM pg_inherits AS i
        WHERE i.inhparent = p_narrow AND NOT i.inhdetachpending
        UNION ALL
        SELECT i.inhrelid, concat_ws(' ', t.attachment, i.xmin::text)
        FROM tree AS t JOIN pg_inherits AS i ON i.inhparent = t.relation AND NOT i.inhdetachpending
    )
    SELECT coalesce(md5(string_agg(format('%s %s', t.relation::oid, t.attachment), ',' ORDER BY t.relation::oid)), '') FROM tree AS t
$$;
COMMENT ON FUNCTION pymig._partitions_now(regclass) IS
    'A digest of the partitions the catalog has now. It never takes a value twice: a partition that is attached anew has a new row in pg_inherits.';

-- sql/core/functions/_partitions_settled.sql
CREATE OR REPLACE FUNCTION pymig._partitions_settled(p_source pymig.source)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pymig._partitions_known(p_source.source)
    WHERE pymig._partitions_known(p_source.source) = pymig._partitions_now(p_source.narrow)
      AND NOT EXISTS (SELECT FROM pymig.partition AS p WHERE p.source = p_source.source AND p.state IN ('new', 'armed', 'expanded'))
$$;
COMMENT ON FUNCTION pymig._partitions_settled(pymig.source) IS
    'The digest of the partitions, where what the catalog has was noticed, armed and queued to the last one; else NULL.';

-- sql/core/functions/_pending_by_entity.sql
CREATE OR REPLACE FUNCTION pymig._pending_by_entity(
    p_source text, OUT entity text, OUT keys bigint, OUT oldest timestamptz, OUT attempts int)
RETURNS SETOF record
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Many only where no worker is alive; who asks every second must not read a million rows each time.
    c_rows constant int := 5000;
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH recorded AS MATERIALIZED (SELECT p.entity::text AS entity, p.recorded_at FROM pymig.%1$I AS p LIMIT %3$s),
         waiting AS MATERIALIZED (SELECT d.entity, coalesce(cardinality(d.times), 1) AS keys, d.recorded_at, d.attempts FROM pymig.%2$I AS d LIMIT %3$s),
         counted AS (
             SELECT k.entity, sum(k.keys)::bigint AS keys, min(k.recorded_at) AS oldest, max(k.attempts) AS attempts
             FROM (SELECT r.entity, 1 AS keys, r.recorded_at, 0 AS attempts FROM recorded AS r UNION ALL SELECT w.* FROM waiting AS w) AS k
             GROUP BY k.entity
         ),
         total AS (SELECT (SELECT count(*) FROM recorded) < %3$s AND (SELECT count(*) FROM waiting) < %3$s AS is_all)
         SELECT e.entity, coalesce(c.keys, CASE WHEN t.is_all THEN 0 END), c.oldest, c.attempts
         FROM pymig.entity AS e
         CROSS JOIN total AS t
         LEFT JOIN counted AS c ON c.entity = e.entity
         WHERE e.source = %4$L',
        p_source || '_pending', p_source || '_todo', c_rows, p_source);
END
$$;
COMMENT ON FUNCTION pymig._pending_by_entity(text) IS
    'Pending keys of a source by entity: how many, since when, most attempts. Looks at 5,000 rows of each stage at most: with more, keys is a lower bound, and NULL for who is not among them.';

-- sql/core/functions/_pick_buckets.sql
CREATE OR REPLACE FUNCTION pymig._pick_buckets(
    p_source pymig.source, p_entity text, p_newest bigint, p_most int, OUT buckets bigint[], OUT is_all boolean)
RETURNS record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_bounds record;
    v_next bigint;
    v_first bigint;
    v_span numeric;
BEGIN
    v_bounds := pymig._discover_bounds(p_source, p_entity);
    v_next := v_bounds.first_bucket;
    buckets := '{}';
    WHILE v_next IS NOT NULL AND cardinality(buckets) < p_most LOOP
        buckets := buckets || v_next;
        v_first := coalesce(v_first, nullif(v_next, -9223372036854775808));
        v_next := CASE WHEN v_next < v_bounds.last_bucket THEN pymig._next_narrow_bucket(p_source, p_entity, v_next + 1) END;
    END LOOP;
    is_all := v_next IS NULL;
    IF NOT is_all THEN
        v_span := greatest(p_newest::numeric - v_first + 1, 1);
        buckets := ARRAY(
            SELECT DISTINCT pymig._next_narrow_bucket(p_source, p_entity, w.bucket)
            FROM (
                -- What lies in the future is looked at, too.
                SELECT v_bounds.last_bucket WHERE v_bounds.last_bucket > p_newest
                UNION ALL
                SELECT p_newest - i.i FROM generate_series(0, p_most / 2 - 1) AS i (i)
                UNION ALL
                SELECT (v_first + floor(random()::numeric * v_span))::bigint FROM generate_series(1, p_most - p_most / 2)
            ) AS w (bucket)
            WHERE w.bucket IS NOT NULL);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._pick_buckets(pymig.source, text, bigint, int) IS
    'The buckets of an entity that are looked at: all that have rows where these are no more than p_most (is_all), else half of them the newest (p_newest: that of the newest row up to now) and half at random; one more where the last one is of the future.';

-- sql/core/functions/_plan_entity.sql
CREATE OR REPLACE FUNCTION pymig._plan_entity(
    p_source pymig.source, p_entity text, p_column_types text, p_strategy text, p_allow_scan boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_column_types NOT IN ('text', 'native') THEN
        RAISE EXCEPTION 'column types are text or native, not %', quote_literal(p_column_types) USING ERRCODE = 'PM007', HINT = 'See the help of migrate.';
    ELSIF p_strategy NOT IN ('auto', 'transpose', 'crosstab', 'json', 'filter') THEN
        RAISE EXCEPTION 'there is no strategy %', quote_literal(p_strategy)
            USING ERRCODE = 'PM007', HINT = 'Choose auto, transpose, crosstab, json or filter.';
    ELSIF p_strategy = 'crosstab' AND NOT EXISTS (SELECT FROM pg_extension AS e WHERE e.extname = 'tablefunc') THEN
        RAISE EXCEPTION 'strategy crosstab needs the extension tablefunc' USING ERRCODE = 'PM007', HINT = 'CREATE EXTENSION tablefunc, or choose auto.';
    END IF;
    IF pymig._trigger_state(p_source.narrow) = 'none' THEN
        -- Who is there before the triggers is known; whoever shows up later is new.
        INSERT INTO pymig.entity (source, entity)
        SELECT p_source.source, d.entity FROM pymig.discover_entities(p_source.source, p_allow_scan) AS d (entity)
        ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO pymig.entity AS e (source, entity, state, column_types, strategy)
    VALUES (p_source.source, p_entity, 'planned', coalesce(p_column_types, p_source.column_types), coalesce(p_strategy, 'auto'))
    ON CONFLICT (source, entity) DO UPDATE SET
        state = CASE WHEN e.state IN ('known', 'rolled_back') THEN 'planned' ELSE e.state END,
        state_changed_at = CASE WHEN e.state IN ('known', 'rolled_back') THEN now() ELSE e.state_changed_at END,
        column_types = CASE WHEN e.wide_table IS NULL THEN excluded.column_types ELSE e.column_types END,
        strategy = coalesce(p_strategy, e.strategy);
    IF EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity AND e.column_types <> p_column_types) THEN
        RAISE EXCEPTION '% already has wide tables with other column types than %', quote_literal(p_entity), p_column_types
            USING ERRCODE = 'PM007', HINT = format('Roll it back first: CALL pymig.roll_back(%L).', p_entity);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._plan_entity(pymig.source, text, text, text, boolean) IS
    'First step of start_sync: the entity''s row. From its commit on the worker parks the entity''s keys instead of discarding them (R27).';

-- sql/core/functions/_precheck_access.sql
CREATE OR REPLACE FUNCTION pymig._precheck_access(p_source pymig.source, OUT item text, OUT level text, OUT value text, OUT advice text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'privileges', CASE WHEN f.fault IS NULL THEN 'green' ELSE 'red' END, coalesce(f.fault, format('role %s has those for pymig''s own tables and for temporary ones', current_user)), f.advice
    FROM (VALUES (1)) AS one
    LEFT JOIN (
        SELECT u.fault, u.advice FROM pymig._unreadable(p_source) AS u WHERE u.fault IS NOT NULL
        UNION ALL
        SELECT format('Role %s may not write pymig''s tables.', current_user), 'Migrate as the role that installed pymig, or as a member of it.'
        WHERE NOT (has_table_privilege('pymig.entity', 'INSERT') AND has_table_privilege('pymig.entity', 'UPDATE') AND has_table_privilege('pymig.entity', 'DELETE'))
        UNION ALL
        SELECT format('Role %s may not make temporary tables.', current_user), format('GRANT TEMPORARY ON DATABASE %I TO %I.', current_database(), current_user)
        WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')
    ) AS f ON true
    UNION ALL
    SELECT 'indexes', CASE WHEN i.reads_by_key AND v.invalid IS NULL THEN 'green' ELSE 'yellow' END,
        format('read %s, %s; %s', CASE WHEN i.reads_by_key THEN 'channel by channel' WHEN i.reads_by_time THEN 'by time' ELSE 'by no index' END,
            CASE WHEN i.is_unique THEN 'duplicates are ruled out' ELSE 'duplicates can be' END, pg_size_pretty(v.bytes)) || coalesce('; invalid: ' || v.invalid, ''),
        CASE WHEN v.invalid IS NOT NULL THEN 'Drop what is invalid, or REINDEX INDEX CONCURRENTLY: each INSERT writes it and no query reads it.'
             WHEN NOT i.reads_by_key THEN format('An index on (%I, %I, %I) finds ships and channels in milliseconds instead of by a scan.',
                 p_source.entity_column, p_source.channel_column, p_source.time_column) END
    FROM pymig._index_paths(p_source.narrow, p_source.entity_column, p_source.channel_column, p_source.time_column) AS i
    CROSS JOIN (
        SELECT string_agg(x.indexrelid::regclass::text, ', ' ORDER BY x.indexrelid::regclass::text) FILTER (WHERE NOT x.indisvalid), coalesce(sum(pg_relation_size(x.indexrelid)), 0)
        FROM pg_index AS x
        WHERE x.indrelid = p_source.narrow OR x.indrelid IN (SELECT t.relation FROM pymig._partition_tree(p_source) AS t)
    ) AS v (invalid, bytes)
    UNION ALL
    SELECT 'partitions', CASE WHEN t.leaves > 1000 OR t.odd > 0 THEN 'yellow' ELSE 'green' END,
        CASE WHEN t.leaves = 0 THEN 'not partitioned' ELSE format('%s%s', t.leaves, CASE WHEN t.odd > 0 THEN format(', %s of them not by ranges of time alone', t.odd) END) END,
        CASE WHEN t.odd > 0 THEN 'When one of those goes, every bucket is looked at: it has no range of time to go by.'
             WHEN t.leaves > 1000 THEN 'Each is armed by a lock of its own, and statements without a time take long to plan: merge or drop old ones.' END
    FROM (
        SELECT count(*), count(*) FILTER (WHERE NOT p.by_time AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT')
        FROM pymig._partition_tree(p_source) AS p JOIN pg_class AS c ON c.oid = p.relation WHERE p.is_leaf
    ) AS t (leaves, odd)
$$;
COMMENT ON FUNCTION pymig._precheck_access(pymig.source) IS
    'The rows of pymig.precheck about how a narrow table is reached: privileges, indexes, partitions.';

-- sql/core/functions/_precheck_backups.sql
CREATE OR REPLACE FUNCTION pymig._precheck_backups(OUT item text, OUT level text, OUT value text, OUT advice text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'archiving',
        CASE WHEN c.mode = 'off' THEN 'yellow' WHEN c.fails THEN 'red' WHEN a.last_archived_time IS NULL THEN 'yellow' ELSE 'green' END,
        CASE WHEN c.mode = 'off' THEN 'off'
             WHEN c.fails THEN format('fails: %s at %s', a.last_failed_wal, a.last_failed_time::timestamptz(0))
             WHEN a.last_archived_time IS NULL THEN 'on, and nothing is archived yet'
             ELSE format('%s at %s', a.last_archived_wal, a.last_archived_time::timestamptz(0)) END,
        CASE WHEN c.mode = 'off' THEN 'Without it a migration can be rolled back but the server not be recovered to a point in time: set archive_mode and archive_command, or run pg_receivewal.'
             WHEN c.fails THEN 'Mend archive_command first: the WAL of a migration would fill the disk.'
             WHEN a.last_archived_time IS NULL THEN 'Try it: SELECT pg_switch_wal(), then look at pg_stat_archiver.' END
    FROM pg_stat_archiver AS a
    CROSS JOIN LATERAL (SELECT current_setting('archive_mode'), a.last_failed_time > coalesce(a.last_archived_time, '-infinity')) AS c (mode, fails)
    UNION ALL
    SELECT 'base backup',
        CASE WHEN b.is_running OR b.ended_at > now() - interval '1 day' THEN 'green' ELSE 'yellow' END,
        CASE WHEN b.is_running THEN 'one is running' ELSE coalesce('the last one ended at ' || b.ended_at::timestamptz(0), 'none that the server knows of') END,
        CASE WHEN b.is_running OR b.ended_at > now() - interval '1 day' THEN NULL ELSE 'Take one (pg_basebackup): recovery begins with it.' END
    FROM (SELECT EXISTS (SELECT FROM pg_stat_progress_basebackup), pymig._last_base_backup()) AS b (is_running, ended_at)
    UNION ALL
    SELECT 'restore point', CASE WHEN f.fault IS NULL THEN 'green' ELSE 'yellow' END,
        CASE WHEN f.fault IS NULL THEN 'is set before the first write of each ship' ELSE 'cannot be set' END, f.fault
    FROM pymig._restore_point_fault() AS f (fault)
$$;
COMMENT ON FUNCTION pymig._precheck_backups() IS 'The rows of pymig.precheck about recovery: archiving, base backup, restore point.';

-- sql/core/functions/_precheck_replication.sql
CREATE OR REPLACE FUNCTION pymig._precheck_replication(OUT item text, OUT level text, OUT value text, OUT advice text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH wal AS (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn)
    SELECT 'replication', CASE WHEN s.standbys > 0 AND NOT s.sees_all OR s.behind > s.most OR s.waits THEN 'yellow' ELSE 'green' END,
        CASE WHEN s.standbys = 0 THEN 'nobody follows' ELSE format('%s standbys or subscribers, %s', s.standbys,
                CASE WHEN NOT s.sees_all THEN 'how far behind is not visible' WHEN s.behind IS NULL THEN 'none says how far behind' ELSE format('up to %s behind', pg_size_pretty(s.behind)) END) END
            || CASE WHEN s.waits THEN '; commits wait for a standby' ELSE '' END,
        CASE WHEN s.standbys > 0 AND NOT s.sees_all THEN format('GRANT pg_read_all_stats TO %I, or look as a member of pg_monitor.', current_user)
             WHEN s.behind > s.most THEN 'Let it catch up first: a migration waits while a standby is that far behind (pymig throttle).'
             WHEN s.waits THEN 'Chunks and sync don''t wait for it, DDL does: a standby that hangs holds up new channels and cutovers.' END
    FROM (
        SELECT count(r.pid) AS standbys, max(pg_wal_lsn_diff(w.lsn, coalesce(r.replay_lsn, r.flush_lsn))) AS behind, 256 * 1024 ^ 2 AS most, pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
            current_setting('synchronous_standby_names') <> '' AND current_setting('synchronous_commit') NOT IN ('off', 'local') AS waits
        FROM wal AS w LEFT JOIN pg_stat_replication AS r ON true
    ) AS s
    UNION ALL
    SELECT 'replication slots', CASE WHEN count(*) = 0 THEN 'green' WHEN current_setting('max_slot_wal_keep_size') = '-1' THEN 'red' ELSE 'yellow' END,
        coalesce('unused: ' || string_agg(s.slot_name, ', ' ORDER BY s.slot_name), 'none that is unused'),
        CASE WHEN count(*) > 0 THEN 'Nobody reads them, so they keep all WAL that a migration writes: drop them, or set max_slot_wal_keep_size.' END
    FROM pg_replication_slots AS s WHERE NOT s.active
    UNION ALL
    SELECT 'WAL kept by slots', CASE WHEN s.bytes > 1024 ^ 3 THEN 'yellow' ELSE 'green' END, pg_size_pretty(s.bytes),
        CASE WHEN s.bytes > 1024 ^ 3 THEN 'Who reads them is behind already: a migration would put it further behind, and the disk gets fuller.' END
    FROM (SELECT max(pg_wal_lsn_diff(w.lsn, s.restart_lsn)) FROM wal AS w CROSS JOIN pg_replication_slots AS s WHERE s.active) AS s (bytes)
    WHERE s.bytes IS NOT NULL
$$;
COMMENT ON FUNCTION pymig._precheck_replication() IS 'The rows of pymig.precheck about who follows the WAL, and replication slots.';

-- sql/core/functions/_precheck_server.sql
CREATE OR REPLACE FUNCTION pymig._precheck_server(
    p_source pymig.source, p_free_bytes bigint, OUT item text, OUT level text, OUT value text, OUT advice text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'server', CASE WHEN pg_is_in_recovery() THEN 'red' ELSE 'green' END,
        format('PostgreSQL %s%s', current_setting('server_version'), CASE WHEN pg_is_in_recovery() THEN ', a standby' END),
        CASE WHEN pg_is_in_recovery() THEN 'Connect to the primary: a standby can''t be written.' END
    UNION ALL
    SELECT 'disk', CASE WHEN p_free_bytes < d.needed THEN 'red' WHEN p_free_bytes >= 1.5 * d.needed THEN 'green' ELSE 'yellow' END,
        format('all ships need about %s; free: %s', pg_size_pretty(d.needed), coalesce(pg_size_pretty(p_free_bytes), 'not visible from SQL')),
        CASE WHEN p_free_bytes IS NULL THEN 'Look on the server (df), then SELECT * FROM pymig.precheck(p_free_bytes => …).'
             WHEN p_free_bytes < 1.5 * d.needed THEN 'Make room, or migrate ship by ship and retire narrow rows between (finalize).' END
    FROM pymig._bytes_needed(p_source) AS d (needed)
    UNION ALL
    SELECT 'long transactions', CASE WHEN count(a.pid) = 0 AND r.sees_all THEN 'green' ELSE 'yellow' END,
        CASE WHEN count(a.pid) = 0 THEN CASE WHEN r.sees_all THEN 'none' ELSE 'those of other roles are not visible' END ELSE format('%s, the oldest for %s', count(a.pid), max(now() - a.xact_start)::interval(0)) END,
        CASE WHEN count(a.pid) > 0 THEN 'Arming waits for those that use the narrow table, and VACUUM keeps what they may still see.'
             WHEN NOT r.sees_all THEN format('GRANT pg_read_all_stats TO %I, or look as a member of pg_monitor.', current_user) END
    FROM (SELECT pg_has_role('pg_read_all_stats', 'USAGE')) AS r (sees_all)
    LEFT JOIN pg_stat_activity AS a
        ON a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.xact_start < now() - interval '5 minutes'
    GROUP BY r.sees_all
    UNION ALL
    SELECT 'prepared transactions', CASE WHEN count(*) = 0 THEN 'green' ELSE 'yellow' END,
        CASE WHEN count(*) = 0 THEN 'none' ELSE format('%s, the oldest for %s', count(*), max(now() - p.prepared)::interval(0)) END,
        CASE WHEN count(*) > 0 THEN 'COMMIT PREPARED or ROLLBACK PREPARED what is left over: it holds its locks.' END
    FROM pg_prepared_xacts AS p
    WHERE p.database = current_database() AND p.prepared < now() - interval '5 minutes'
    UNION ALL
    SELECT 'extensions', 'green', string_agg(format('%s %s', w.name, CASE WHEN e.installed_version IS NOT NULL THEN 'is installed' WHEN e.name IS NOT NULL THEN 'can be created' ELSE 'is not there' END)
            || format(' (%s)', w.use), ', ' ORDER BY w.ord), NULL
    FROM (VALUES (1, 'tablefunc', 'strategy crosstab'), (2, 'pg_cron', 'workers without a service')) AS w (ord, name, use)
    LEFT JOIN pg_available_extensions AS e ON e.name = w.name
$$;
COMMENT ON FUNCTION pymig._precheck_server(pymig.source, bigint) IS
    'The rows of pymig.precheck about the server: version, disk, transactions that hold things up, extensions.';

-- sql/core/functions/_precheck_settings.sql
CREATE OR REPLACE FUNCTION pymig._precheck_settings(OUT item text, OUT level text, OUT value text, OUT advice text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.item, CASE WHEN s.advice IS NULL THEN 'green' ELSE 'yellow' END, s.value, s.advice
    FROM (
        SELECT 'autovacuum' AS item, current_setting('autovacuum') AS value,
            CASE WHEN current_setting('autovacuum') = 'off' THEN 'Turn it on: pending keys and rewritten wide rows leave dead ones behind.' END AS advice
        UNION ALL
        SELECT 'max_wal_size', pg_size_pretty(b.bytes),
            CASE WHEN b.bytes < 4 * 1024 ^ 3 THEN '4 GB or more: after each checkpoint pages are written to the WAL whole again.' END
        FROM (SELECT pg_size_bytes(current_setting('max_wal_size'))) AS b (bytes)
        UNION ALL
        SELECT 'shared_buffers', pg_size_pretty(b.bytes),
            CASE WHEN b.bytes < 1024 ^ 3 THEN 'About a quarter of the memory (a restart): the pages a chunk has read and written are still there for ingest, the next chunk and verify.' END
        FROM (SELECT pg_size_bytes(current_setting('shared_buffers'))) AS b (bytes)
        UNION ALL
        SELECT 'work_mem', pg_size_pretty(b.bytes) || '; recomputing sets its own, for its statements alone',
            CASE WHEN b.bytes < 4 * 1024 ^ 2 THEN '4 MB or more: the keys of a large statement of ingest stay in memory and out of temporary files.' END
        FROM (SELECT pg_size_bytes(current_setting('work_mem'))) AS b (bytes)
        UNION ALL
        SELECT 'maintenance_work_mem', pg_size_pretty(b.bytes),
            CASE WHEN b.bytes < 256 * 1024 ^ 2 THEN '256 MB or more: indexes on wide tables (pymig tune) are sorted in memory, and VACUUM passes over indexes less often. SET it in that session is enough.' END
        FROM (SELECT pg_size_bytes(current_setting('maintenance_work_mem'))) AS b (bytes)
        UNION ALL
        SELECT 'random_page_cost', r.cost::text,
            CASE WHEN r.cost >= 4 THEN '1.1 on SSDs: readers'' queries take an index where now a scan looks cheaper. Recomputing rules scans out by itself.' END
        FROM (SELECT current_setting('random_page_cost')::numeric) AS r (cost)
        UNION ALL
        SELECT 'jit', CASE WHEN j.is_on THEN 'on, from a cost of ' || current_setting('jit_above_cost') ELSE 'off' END,
            CASE WHEN j.is_on THEN 'Off for who reads wide tables (ALTER ROLE … SET jit = off): a query of 1,000 columns whose cost is above that is compiled for seconds.' END
        FROM (SELECT pg_jit_available() AND current_setting('jit_above_cost')::float8 >= 0) AS j (is_on)
        UNION ALL
        SELECT 'temp_file_limit', t.setting, CASE WHEN t.setting <> '-1' THEN 'A statement of ingest whose keys need more than that fails once there are triggers: raise it for who ingests.' END
        FROM current_setting('temp_file_limit') AS t (setting)
        UNION ALL
        SELECT 'timeouts', coalesce(string_agg(format('%s = %s', t.name, current_setting(t.name)), ', ' ORDER BY t.name), 'none'),
            CASE WHEN count(*) > 0 THEN format('A migration runs for longer than that in one command: ALTER ROLE %I SET … = 0.', current_user) END
        FROM (VALUES ('statement_timeout'), ('idle_in_transaction_session_timeout'), ('transaction_timeout')) AS t (name)
        WHERE coalesce(current_setting(t.name, true), '0') <> '0'
    ) AS s
$$;
COMMENT ON FUNCTION pymig._precheck_settings() IS 'The rows of pymig.precheck about settings, with what another value would gain. None is changed by pymig.';

-- sql/core/functions/_precheck_source.sql
CREATE OR REPLACE FUNCTION pymig._precheck_source(p_source pymig.source, OUT item text, OUT level text, OUT value text, OUT advice text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'narrow table', CASE WHEN b.value IS NULL THEN 'green' ELSE 'red' END, coalesce(b.value, 'can be served'),
        CASE WHEN b.value IS NOT NULL THEN 'Remove it: no ship can be migrated before.' END
    FROM (VALUES (1)) AS one LEFT JOIN pymig._blockers(p_source, 1) AS b (value) ON true
    UNION ALL
    SELECT 'statistics', CASE WHEN t.unknown = 0 THEN 'green' ELSE 'yellow' END,
        CASE WHEN t.unknown = 0 THEN format('about %s rows', to_char(t.tuples, 'FM999,999,999,999,999')) ELSE format('none for %s of %s tables', t.unknown, t.tables) END,
        CASE WHEN t.unknown > 0 THEN format('ANALYZE %s: estimates and plans rest on it.', p_source.narrow) END
    FROM pymig._narrow_tuples(p_source.narrow) AS t
    UNION ALL
    SELECT 'publications', 'yellow', p.sentence, 'Make the tables on the subscriber, too, or publish by name.'
    FROM pymig._publications(p_source.wide_schema) AS p (sentence) WHERE p.sentence IS NOT NULL
$$;
COMMENT ON FUNCTION pymig._precheck_source(pymig.source) IS 'The rows of pymig.precheck about a narrow table: whether it can be served, its statistics, publications.';

-- sql/core/functions/_promote_failed.sql
CREATE OR REPLACE FUNCTION pymig._promote_failed(p_source text, p_entity text, p_sqlstate text, p_error text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_is_lock boolean := pymig._is_in_the_way(p_sqlstate);
    v_error text := format('promotion: %s (%s)', p_error, p_sqlstate);
BEGIN
    IF NOT v_is_lock AND (SELECT e.last_error IS DISTINCT FROM v_error FROM pymig.entity AS e WHERE e.source = p_source AND e.entity = p_entity) THEN
        PERFORM pymig._note('WARNING', p_source, p_entity, 'promotion held up', v_error);
    END IF;
    UPDATE pymig.entity AS e SET
        last_error = CASE WHEN v_is_lock THEN e.last_error ELSE v_error END,
        promote_at = clock_timestamp() + CASE WHEN v_is_lock THEN 0.2 + random() ELSE 10 END * interval '1 second'
    WHERE e.source = p_source AND e.entity = p_entity;
END
$$;
COMMENT ON FUNCTION pymig._promote_failed(text, text, text, text) IS
    'After a failed step of a promotion: it is tried again, after a second or so where a reader was in the way, else after ten.';

-- sql/core/functions/_promote_step.sql
CREATE OR REPLACE FUNCTION pymig._promote_step(p_source pymig.source, p_entity text)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_wanted boolean;
    v_next bigint;
    v_channels text[];
BEGIN
    SELECT coalesce(e.type_drift, p_source.type_drift) = 'promote' AND pymig._is_backfilled(e.state) INTO v_wanted
    FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity AND e.wide_table IS NOT NULL;
    IF v_wanted IS NULL OR NOT pg_try_advisory_xact_lock(pymig._lock_key('promote', p_source.source, p_entity)) THEN
        RETURN false;
    END IF;
    -- Filling is a recompute like any other; beginning and ending change columns, and wait neither long for recomputes nor for readers.
    PERFORM set_config('lock_timeout', '1s', true);
    IF v_wanted THEN
        SELECT min(m.next_bucket) INTO v_next FROM pymig.promotion AS m WHERE m.source = p_source.source AND m.entity = p_entity;
        IF v_next IS NOT NULL THEN
            IF NOT pg_try_advisory_xact_lock_shared(pymig._lock_key('entity', p_source.source, p_entity)) THEN
                RETURN false;
            END IF;
            PERFORM pymig._fill_next_bucket(p_source, p_entity, v_next);
            RETURN true;
        END IF;
    END IF;
    PERFORM pymig._lock_entity(p_source.source, p_entity, p_exclusive => true);
    PERFORM set_config('lock_timeout', '300ms', true);
    v_channels := ARRAY(
        SELECT m.channel FROM pymig.promotion AS m
        WHERE m.source = p_source.source AND m.entity = p_entity AND NOT (v_wanted AND m.is_lossless) ORDER BY m.ord);
    IF v_channels <> '{}' THEN
        PERFORM pymig._drop_promotions(p_source, p_entity, v_channels);
        IF v_wanted THEN
            PERFORM pymig._add_promotions(p_source, p_entity, v_channels, ARRAY(SELECT 'text' FROM unnest(v_channels) AS c));
        END IF;
        RETURN v_wanted;
    END IF;
    -- Not in one transaction: the first holds its tables' locks to the end, and the second may have to fill a new part.
    IF pymig._swap_promoted(p_source, p_entity) > 0 THEN
        RETURN true;
    END IF;
    RETURN pymig._begin_promotions(p_source, p_entity) > 0;
END
$$;
COMMENT ON FUNCTION pymig._promote_step(pymig.source, text) IS
    'One transaction of the promotion of drifted columns: begin, fill a bucket, or put the filled columns in place. false: nothing more to do for now.';

-- sql/core/functions/_promoted_cells_sql.sql
CREATE OR REPLACE FUNCTION pymig._promoted_cells_sql(p_source pymig.source, p_entity text, p_ords int[], p_condition text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('SELECT x.time, %s FROM (%s) AS x GROUP BY x.time',
        string_agg(format('min(x.value) FILTER (WHERE x.ord = %1$s)::%2$s AS "%1$s"', m.ord, m.column_type), ', ' ORDER BY m.ord),
        string_agg(format('SELECT %s AS ord, n.time, n.cell::text COLLATE "C" AS value FROM (
                SELECT %s n.time, n.as_%s AS cell FROM pymig.%I AS n WHERE n.entity = %L AND n.channel = %L AND %s %s) AS n',
            m.ord, w.distinct_on, m.column_type, p_source.source || '_cell', p_entity, m.channel, p_condition, w.order_by), ' UNION ALL ' ORDER BY m.ord))
    FROM pymig.promotion AS m CROSS JOIN pymig._winner_sql(p_source, 'n.time') AS w
    WHERE m.source = p_source.source AND m.entity = p_entity AND m.ord = ANY (p_ords)
$$;
COMMENT ON FUNCTION pymig._promoted_cells_sql(pymig.source, text, int[], text) IS
    'SELECT of the cells of columns that are being promoted, in their new types, a row a time.';

-- sql/core/functions/_promoted_type.sql
CREATE OR REPLACE FUNCTION pymig._promoted_type(p_type text, p_kinds text[])
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Where the narrowest common type is the one it has (an integer beyond 2^53 in float8), only text is wider.
    SELECT coalesce(nullif(pymig._native_type(ARRAY(SELECT DISTINCT k.k FROM unnest(p_kinds || p_type) AS k (k)), 'native'), p_type), 'text')
$$;
COMMENT ON FUNCTION pymig._promoted_type(text, text[]) IS
    'Type a column is promoted to, given the kinds of value that did not fit it: int8 and float8 make float8, int8 and numeric make numeric, all else text.';

-- sql/core/functions/_publications.sql
CREATE OR REPLACE FUNCTION pymig._publications(p_schema text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%s publish every new table%s, so the wide ones too: a subscriber without them stops applying.',
        string_agg(quote_ident(p.pubname), ', ' ORDER BY p.pubname),
        CASE WHEN bool_or(p.puballtables) THEN '' ELSE format(' of schema %I', p_schema) END)
    FROM pg_publication AS p
    WHERE p.puballtables OR EXISTS (
        SELECT FROM pg_publication_namespace AS n WHERE n.pnpubid = p.oid AND n.pnnspid = (
            SELECT s.oid FROM pg_namespace AS s WHERE s.nspname = p_schema))
    HAVING count(*) > 0
$$;
COMMENT ON FUNCTION pymig._publications(text) IS
    'A sentence on the publications (FOR ALL TABLES, or FOR TABLES IN SCHEMA of the wide tables) that tables of pymig''s fall into; NULL where there are none.';

-- sql/core/functions/_quarantine_closed.sql
CREATE OR REPLACE FUNCTION pymig._quarantine_closed(
    p_source pymig.source, p_entity text, p_first_bucket bigint, p_last_bucket bigint, p_times text)
RETURNS bigint
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_rows bigint;
BEGIN
    IF pymig._closed_sql(p_source, p_entity, 'n.raw_time', p_first_bucket, p_last_bucket) IS NULL THEN
        RETURN 0;
    END IF;
    EXECUTE format(
        'INSERT INTO pymig.quarantine (source, entity, channel, time, bucket, reason, detail, narrow_row)
         SELECT %L, %L, c.channel, c.time::text, %s, c.reason, pymig._quarantine_detail(c.reason, NULL, NULL), c.narrow_row
         FROM (%s) AS c', p_source.source, p_entity, pymig._bucket_sql(p_source, 'c.time'),
        pymig._closed_rows_sql(p_source, p_entity, p_first_bucket, p_last_bucket, p_times));
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;
COMMENT ON FUNCTION pymig._quarantine_closed(pymig.source, text, bigint, bigint, text) IS
    'Writes the narrow rows that stand in a closed range to quarantine. Returns their number.';

-- sql/core/functions/_quarantine_detail.sql
CREATE OR REPLACE FUNCTION pymig._quarantine_detail(p_reason text, p_column_type text, p_kind text)
RETURNS text
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT CASE p_reason
        WHEN 'unknown_format' THEN 'Its format names no value column of the source.'
        WHEN 'other_column' THEN 'Its format names a value column that is NULL, and the value stands in another one.'
        WHEN 'several_values' THEN 'More than one of its value columns is not NULL.'
        WHEN 'no_time' THEN 'It has no time.'
        WHEN 'closed_range' THEN 'Its partition is gone, and the wide rows of that range are kept as they are.'
        WHEN 'no_channel' THEN 'It has no channel.'
        ELSE 'Its value (' || coalesce(p_kind, 'unknown') || ') does not fit the column (' || p_column_type || ') without loss.'
    END
$$;
COMMENT ON FUNCTION pymig._quarantine_detail(text, text, text) IS 'The sentence for a reason of quarantine.';

-- sql/core/functions/_quarantine_differences_sql.sql
CREATE OR REPLACE FUNCTION pymig._quarantine_differences_sql(p_source pymig.source, p_entity text, p_first_bucket bigint, p_last_bucket bigint, p_faults text)
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        '(WITH found AS MATERIALIZED (SELECT f.channel, f.time::text, f.reason, f.narrow_row FROM (%s) AS f),
               kept AS MATERIALIZED (
                   SELECT q.channel, q.time, q.reason, q.narrow_row FROM pymig.quarantine AS q
                   WHERE q.source = %L AND q.entity = %L AND q.bucket BETWEEN %s AND %s AND NOT q.is_kept)
          SELECT count(*) FROM (
              (SELECT f.* FROM found AS f EXCEPT ALL SELECT k.* FROM kept AS k)
              UNION ALL
              (SELECT k.* FROM kept AS k EXCEPT ALL SELECT f.* FROM found AS f)) AS d)',
        p_faults, p_source.source, p_entity, p_first_bucket, p_last_bucket)
$$;
COMMENT ON FUNCTION pymig._quarantine_differences_sql(pymig.source, text, bigint, bigint, text) IS
    'SQL expression: how many rows of the quarantine of a run of buckets are missing, surplus or different, given the SELECT that finds them.';

-- sql/core/functions/_quarantine_rows.sql
CREATE OR REPLACE FUNCTION pymig._quarantine_rows(
    p_source pymig.source, p_entity text, p_first_bucket bigint, p_last_bucket bigint, p_times text, p_condition text, p_by_key boolean,
    p_gather boolean DEFAULT false)
RETURNS bigint
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_cells text := pymig._cells_sql(p_source, p_entity, p_condition, p_by_key, pymig._fault_columns(),
        pymig._leaves_sql(p_source, 'n.raw_time', p_first_bucket, p_last_bucket), p_gather);
    v_statement text;
    v_rows bigint;
BEGIN
    IF p_first_bucket = (-9223372036854775807) THEN
        v_cells := format(
            'SELECT 1 AS ord, ''text'' AS column_type, n.channel::text AS channel, n.time, n.%s
             FROM pymig.%I AS n WHERE n.entity = %L AND %s', array_to_string(pymig._fault_columns(), ', n.'), p_source.source || '_cell', p_entity, p_condition);
    END IF;
    PERFORM pymig._forget_quarantine(p_source, p_entity, p_first_bucket, p_last_bucket, p_times);
    v_statement := format(
        'WITH written AS (
             INSERT INTO pymig.quarantine (source, entity, channel, time, bucket, reason, detail, narrow_row)
             SELECT %L, %L, f.channel, f.time::text, %s, f.reason, pymig._quarantine_detail(f.reason, f.column_type, f.kind), f.narrow_row
             FROM (%s) AS f
             RETURNING 1)
         SELECT count(*) FROM written', p_source.source, p_entity, pymig._bucket_sql(p_source, 'f.time'), pymig._faults_sql(v_cells));
    IF p_gather THEN
        v_rows := (SELECT r.narrow_rows FROM pymig._run_gathering(v_statement) AS r);
    ELSE
        EXECUTE v_statement INTO v_rows;
    END IF;
    RETURN v_rows;
END
$$;
COMMENT ON FUNCTION pymig._quarantine_rows(pymig.source, text, bigint, bigint, text, text, boolean, boolean) IS
    'Finds the rows among those recomputed that could not become a cell and writes them to quarantine, in place of what was there. p_gather: as in _cells_sql. Returns their number.';

-- sql/core/functions/_queue_partition.sql
CREATE OR REPLACE FUNCTION pymig._queue_partition(p_source pymig.source, p_relation regclass)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
BEGIN
    -- Read in a snapshot later than arming: what is not in it fires the triggers.
    EXECUTE format(
        'INSERT INTO pymig.%I (entity, time, kind) SELECT n.%2$I, min(n.%3$I), ''bucket'' FROM ONLY %4$s AS n GROUP BY n.%2$I, %5$s',
        p_source.source || '_pending_1', p_source.entity_column, p_source.time_column, p_relation,
        pymig._bucket_sql(p_source, format('n.%I', p_source.time_column)));
    UPDATE pymig.partition AS p SET state = 'served', attempts = 0, retry_at = NULL, error = NULL
    WHERE p.source = p_source.source AND p.relation = p_relation AND p.state = 'expanded';
END
$$;
COMMENT ON FUNCTION pymig._queue_partition(pymig.source, regclass) IS
    'Records every bucket a new partition has rows in, of every entity, as the triggers would have: what it had before it was armed, new entities and channels included.';

-- sql/core/functions/_queue_repairs.sql
CREATE OR REPLACE FUNCTION pymig._queue_repairs(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    -- Steps of 64 buckets, some a pass and so many waiting: a transaction stays short, and the todo small.
    c_buckets constant int := 64;
    c_steps constant int := 8;
    c_waiting constant int := 1024;
    v_todo text := p_source.source || '_todo';
    v_waiting bigint;
    v_from bigint;
    v_first bigint;
    v_last bigint;
    r_entity record;
BEGIN
    FOR r_entity IN
        SELECT e.entity, e.repair_from FROM pymig.entity AS e
        WHERE e.source = p_source.source AND e.repair_from IS NOT NULL AND e.wide_table IS NOT NULL ORDER BY e.entity
    LOOP
        EXECUTE format('SELECT count(*) FROM pymig.%I AS d WHERE d.entity = $1 AND d.times IS NULL', v_todo) INTO v_waiting USING r_entity.entity;
        CONTINUE WHEN v_waiting > c_waiting;
        v_from := r_entity.repair_from;
        FOR v_step IN 1 .. c_steps LOOP
            v_first := pymig._next_bucket(p_source, r_entity.entity, v_from);
            -- What has no time comes last; before and after the real buckets there are the infinities alone.
            v_last := CASE WHEN v_first IS NULL THEN (-9223372036854775807) ELSE greatest(v_first, CASE
                WHEN v_first > -9223372036854775808 THEN
                    least(v_first::numeric + c_buckets - 1, floor(pymig._last_tick(p_source.time_type)::numeric / p_source.bucket_ticks)) END) END;
            EXECUTE format('INSERT INTO pymig.%I (entity, bucket, recorded_at) SELECT $1, g.bucket, now() FROM generate_series($2, $3) AS g (bucket)', v_todo)
            USING r_entity.entity, coalesce(v_first, v_last), v_last;
            v_from := CASE WHEN v_first IS NOT NULL AND v_last < 9223372036854775807 THEN v_last + 1 END;
            EXIT WHEN v_from IS NULL;
        END LOOP;
        -- Not where keys were lost again meanwhile, and it starts anew.
        UPDATE pymig.entity AS e SET repair_from = v_from
        WHERE e.source = p_source.source AND e.entity = r_entity.entity AND e.repair_from = r_entity.repair_from;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._queue_repairs(pymig.source) IS
    'Goes on queueing every bucket, with rows on the narrow or the wide side, of the entities that are to be repaired.';

-- sql/core/functions/_raise_alerts.sql
CREATE OR REPLACE FUNCTION pymig._raise_alerts()
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_told bigint := 0;
    r_due record;
BEGIN
    FOR r_due IN
        UPDATE pymig.alert_state AS s SET told_value = s.value FROM pymig.alert AS a
        WHERE a.alert = s.alert AND s.over_since <= clock_timestamp() - a.lasting AND (s.told_value IS NULL OR s.told_value > 0 AND s.value >= 2 * s.told_value)
        RETURNING a.*, s.source, s.entity, s.value, s.over_since
    LOOP
        v_told := v_told + 1;
        PERFORM pymig._note(r_due.level, r_due.source, r_due.entity, r_due.alert, format('%s %s, limit %s, since %s. %s',
            trim_scale(round(r_due.value::numeric, 1)), r_due.unit, r_due.max_value, date_trunc('second', r_due.over_since), r_due.what_to_do));
    END LOOP;
    RETURN v_told;
END
$$;
COMMENT ON FUNCTION pymig._raise_alerts() IS
    'Writes an event for what has been over its limit for long enough and was not told yet, or has doubled since: so one hears again of what grows, and only once of what stays. Returns how many.';

-- sql/core/functions/_read_both.sql
CREATE OR REPLACE FUNCTION pymig._read_both(
    p_source pymig.source, p_entity text, p_channels text[], p_from text, p_to text)
RETURNS TABLE (channel text, "time" text, value text, kind text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_narrow text := pymig._read_narrow_sql(p_source, p_entity, p_channels, p_from, p_to);
    v_wide text := pymig._read_wide_sql(p_source, p_entity, p_channels, p_from, p_to);
    -- One that gets its column only now is on one side of what is compared below.
    v_known text[] := ARRAY(SELECT c.channel FROM pymig.channel AS c WHERE c.source = p_source.source AND c.entity = p_entity);
    v_started timestamptz := clock_timestamp();
    v_narrow_ms double precision;
    v_wide_ms double precision;
    v_cells bigint;
    v_differences bigint;
    v_sample jsonb;
BEGIN
    RETURN QUERY EXECUTE v_narrow;
    GET DIAGNOSTICS v_cells = ROW_COUNT;
    v_narrow_ms := extract(epoch FROM clock_timestamp() - v_started) * 1000;
    -- A standby, a read-only transaction, a reader without the right to write it down: it is a read all the same.
    IF current_setting('transaction_read_only')::boolean OR NOT has_table_privilege('pymig.shadow_read', 'INSERT') THEN
        RETURN;
    END IF;
    v_started := clock_timestamp();
    EXECUTE format('SELECT count(w.value) FROM (%s) AS w', v_wide);
    v_wide_ms := extract(epoch FROM clock_timestamp() - v_started) * 1000;
    -- One statement, one snapshot: a difference whose key is not pending in it is real (R29).
    EXECUTE format(
        'WITH n AS MATERIALIZED (SELECT n.channel, n.time, n.value FROM (%1$s) AS n), w AS MATERIALIZED (SELECT w.channel, w.time, w.value FROM (%2$s) AS w),
         difference AS MATERIALIZED (
             SELECT d.* FROM (
                 SELECT ''narrow'' AS side, o.* FROM (TABLE n EXCEPT ALL TABLE w) AS o
                 UNION ALL SELECT ''wide'', o.* FROM (TABLE w EXCEPT ALL TABLE n) AS o) AS d
             WHERE d.channel = ANY ($1)
               AND NOT EXISTS (SELECT FROM pymig.%3$I AS p WHERE p.kind <> ''key'' OR p.entity::text = %5$L AND (%6$s)::text = d.time)
               AND NOT EXISTS (SELECT FROM pymig.%4$I AS p WHERE p.entity = %5$L AND p.bucket = %8$s
                   AND (p.times IS NULL OR EXISTS (SELECT FROM unnest(p.times) AS k (time) WHERE (%7$s)::text = d.time))))
         SELECT (SELECT count(*) FROM difference) AS differences,
             (SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT d.* FROM difference AS d LIMIT 20) AS s) AS sample',
        v_narrow, v_wide, p_source.source || '_pending', p_source.source || '_todo', p_entity,
        pymig._grain_sql(p_source, 'p.time'), pymig._grain_sql(p_source, 'k.time'), pymig._bucket_sql(p_source, format('d.time::%s', p_source.time_type)))
    INTO v_differences, v_sample
    USING v_known;
    INSERT INTO pymig.shadow_read (source, entity, channels, from_time, to_time, cells, differences, sample, narrow_ms, wide_ms)
    VALUES (p_source.source, p_entity, p_channels, p_from, p_to, v_cells, v_differences, v_sample, v_narrow_ms, v_wide_ms);
END
$$;
COMMENT ON FUNCTION pymig._read_both(pymig.source, text, text[], text, text) IS
    'read() with routing shadow: returns the narrow side, and records in pymig.shadow_read how the wide side differs, and how long each took.';

-- sql/core/functions/_read_columns_sql.sql
CREATE OR REPLACE FUNCTION pymig._read_columns_sql(
    p_source pymig.source, p_entity text, p_channels text[], p_from text, p_to text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Only the parts that have one of the channels, and of them only its columns.
    SELECT coalesce(string_agg(format(
        'SELECT v.channel, w.%1$I::text AS time, v.value, v.kind
         FROM %2$I.%3$I AS w CROSS JOIN LATERAL (VALUES %4$s) AS v (channel, value, kind)
         WHERE v.value IS NOT NULL%5$s',
        p_source.time_column, p_source.wide_schema, c.wide_table, c.cells,
        pymig._span_sql(p_source, p_from, p_to)), ' UNION ALL ' ORDER BY c.part),
        'SELECT NULL::text, NULL::text, NULL::text, NULL::text WHERE false')
    FROM (
        SELECT p.part, p.wide_table,
            string_agg(format('(%L, w.%I::text, %L)', c.channel, c.wide_column,
                CASE c.column_type WHEN 'text' THEN coalesce(c.kind, 'text') ELSE c.column_type END), ', ' ORDER BY c.ord) AS cells
        FROM pymig.channel AS c JOIN pymig.part AS p USING (source, entity, part)
        WHERE c.source = p_source.source AND c.entity = p_entity AND (p_channels IS NULL OR c.channel = ANY (p_channels))
        GROUP BY p.part, p.wide_table
    ) AS c
$$;
COMMENT ON FUNCTION pymig._read_columns_sql(pymig.source, text, text[], text, text) IS
    'SELECT of cells (channel, time, value as text, kind) from the wide tables, column by column. NULL: all channels, no bound.';

-- sql/core/functions/_read_grants.sql
CREATE OR REPLACE FUNCTION pymig._read_grants(p_source pymig.source, p_entity text)
RETURNS text[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A column that somebody added himself is in no view of ours; a grantee that was dropped meanwhile has no name any more.
    SELECT ARRAY(
        SELECT format('GRANT SELECT %s ON %I.%I TO %s', '(' || quote_ident(p.attname) || ')', p_source.wide_schema, e.wide_table,
            CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END)
        FROM pymig.entity AS e
        CROSS JOIN LATERAL (
            SELECT c.relacl AS acl, NULL::name AS attname FROM pg_class AS c
            WHERE c.oid = to_regclass(format('%I.%I', p_source.wide_schema, e.wide_table))
            UNION ALL
            SELECT t.attacl, t.attname FROM pg_attribute AS t
            WHERE t.attrelid = to_regclass(format('%I.%I', p_source.wide_schema, e.wide_table)) AND t.attnum > 0 AND NOT t.attisdropped
              AND (t.attname = p_source.time_column OR EXISTS (
                  SELECT FROM pymig.channel AS c WHERE c.source = e.source AND c.entity = e.entity AND c.wide_column = t.attname))
        ) AS p
        CROSS JOIN LATERAL aclexplode(p.acl) AS a
        LEFT JOIN pg_roles AS r ON r.oid = a.grantee
        WHERE e.source = p_source.source AND e.entity = p_entity AND a.privilege_type = 'SELECT' AND (a.grantee = 0 OR r.rolname IS NOT NULL))
$$;
COMMENT ON FUNCTION pymig._read_grants(pymig.source, text) IS
    'The GRANTs by which others read the relation with the entity''s name, or columns of it: to be repeated on the view that takes its place.';

-- sql/core/functions/_read_narrow_sql.sql
CREATE OR REPLACE FUNCTION pymig._read_narrow_sql(
    p_source pymig.source, p_entity text, p_channels text[], p_from text, p_to text)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_types text[] := coalesce(pymig._column_types(p_source.source, p_entity), '{text}');
    -- Without a time or a channel it is no cell; it is in quarantine.
    v_condition text := 'n.raw_time IS NOT NULL AND n.channel IS NOT NULL';
BEGIN
    IF p_from IS NOT NULL THEN
        v_condition := v_condition || format(' AND n.raw_time >= %L::%s', p_from, p_source.time_type);
    END IF;
    IF p_to IS NOT NULL AND p_source.grain_ticks IS NULL THEN
        v_condition := v_condition || format(' AND n.raw_time < %L::%s', p_to, p_source.time_type);
    END IF;
    -- Of samples that became one row, its time decides: the bound on theirs is a grain later, and there for the index.
    IF p_from IS NOT NULL AND p_source.grain_ticks IS NOT NULL THEN
        v_condition := v_condition || format(' AND n.time >= %L::%s', p_from, p_source.time_type);
    END IF;
    IF p_to IS NOT NULL AND p_source.grain_ticks IS NOT NULL THEN
        v_condition := v_condition || format(' AND n.time < %L::%s AND n.raw_time <= ', p_to, p_source.time_type) || format(CASE p_source.time_type
            WHEN 'bigint' THEN 'least(%1$L::numeric + %3$s, 9223372036854775807)::bigint'
            WHEN 'date' THEN '%1$L::date + %3$s'
            ELSE '%1$L::%2$s + interval ''%3$s microseconds''' END, p_to, p_source.time_type, p_source.grain_ticks);
    END IF;
    IF p_channels IS NOT NULL THEN
        v_condition := v_condition || format(' AND n.channel = ANY (%L::%s[])', p_channels, pymig._type_name(p_source, p_source.channel_column));
    END IF;
    -- A channel that has no column yet has no type it would have to fit, either.
    RETURN format('SELECT x.channel, x.time::text AS time, x.value, x.kind
                   FROM (SELECT x.channel, x.time, x.kind, CASE WHEN x.ord IS NULL THEN x.as_text ELSE (%s)::text END AS value FROM (%s) AS x) AS x
                   WHERE x.value IS NOT NULL',
        pymig._value_sql('x', v_types),
        pymig._cells_sql(p_source, p_entity, v_condition, false,
            ARRAY(SELECT 'as_' || t.t FROM unnest(v_types) AS t (t) UNION SELECT 'as_text') || 'kind'::text));
END
$$;
COMMENT ON FUNCTION pymig._read_narrow_sql(pymig.source, text, text[], text, text) IS
    'SELECT of cells (channel, time, value as text, kind) from the narrow table, by the same rules as the wide table is made. NULL: all channels, no bound.';

-- sql/core/functions/_read_rows_sql.sql
CREATE OR REPLACE FUNCTION pymig._read_rows_sql(
    p_source pymig.source, p_entity text, p_channels text[], p_from text, p_to text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- json keeps the digits of a number as they are printed; jsonb would not.
    SELECT string_agg(format(
        'SELECT c.channel, w.%1$I::text AS time, j.value, CASE c.column_type WHEN ''text'' THEN coalesce(c.kind, ''text'') ELSE c.column_type END AS kind
         FROM %2$I.%3$I AS w CROSS JOIN LATERAL json_each_text(row_to_json(w)) AS j (wide_column, value)
         JOIN pymig.channel AS c ON c.source = %4$L AND c.entity = %5$L AND c.part = %6$s AND c.wide_column = j.wide_column
         WHERE j.value IS NOT NULL%7$s%8$s',
        p_source.time_column, p_source.wide_schema, p.wide_table, p_source.source, p_entity, p.part, pymig._span_sql(p_source, p_from, p_to),
        CASE WHEN p_channels IS NOT NULL THEN format(' AND c.channel = ANY (%L)', p_channels) END), ' UNION ALL ' ORDER BY p.part)
    FROM pymig.part AS p
    WHERE p.source = p_source.source AND p.entity = p_entity AND EXISTS (
        SELECT FROM pymig.channel AS c
        WHERE c.source = p.source AND c.entity = p.entity AND c.part = p.part AND (p_channels IS NULL OR c.channel = ANY (p_channels)))
$$;
COMMENT ON FUNCTION pymig._read_rows_sql(pymig.source, text, text[], text, text) IS
    'The same cells as _read_columns_sql, row by row as json: cheap to plan, dear for each row. Not for columns of type jsonb, whose strings would lose their quotes.';

-- sql/core/functions/_read_wide_sql.sql
CREATE OR REPLACE FUNCTION pymig._read_wide_sql(
    p_source pymig.source, p_entity text, p_channels text[], p_from text, p_to text)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- To plan a column takes as long as to print and parse one of about 30 rows (docs/explanation/reading.md).
    c_rows constant int := 30;
    v_limit int;
    v_table text;
    v_rows int;
BEGIN
    -- Rows of json have all columns, so where few are asked for it pays for fewer rows. Without a beginning there are many.
    IF p_from IS NOT NULL AND coalesce(cardinality(p_channels), 1000) >= 50 THEN
        SELECT CASE WHEN bool_or(c.column_type = 'jsonb') THEN 0 ELSE c_rows * count(*) FILTER (WHERE p_channels IS NULL OR c.channel = ANY (p_channels)) / count(*) END,
            min(format('%I.%I', p_source.wide_schema, p.wide_table))
        INTO v_limit, v_table
        FROM pymig.channel AS c JOIN pymig.part AS p USING (source, entity, part)
        WHERE c.source = p_source.source AND c.entity = p_entity;
        IF v_limit > 0 THEN
            EXECUTE format('SELECT count(*) FROM (SELECT FROM %s AS w WHERE true%s LIMIT %s) AS w', v_table, pymig._span_sql(p_source, p_from, p_to), v_limit + 1) INTO v_rows;
            IF v_rows <= v_limit THEN
                RETURN pymig._read_rows_sql(p_source, p_entity, p_channels, p_from, p_to);
            END IF;
        END IF;
    END IF;
    RETURN pymig._read_columns_sql(p_source, p_entity, p_channels, p_from, p_to);
END
$$;
COMMENT ON FUNCTION pymig._read_wide_sql(pymig.source, text, text[], text, text) IS
    'SELECT of cells (channel, time, value as text, kind) from the wide tables, in whichever way is cheaper: by columns, or of a few rows with many columns by rows. NULL: all channels, no bound.';

-- sql/core/functions/_recompute.sql
CREATE OR REPLACE FUNCTION pymig._recompute(
    p_source pymig.source, p_entity text, p_strategy text, p_first_bucket bigint, p_last_bucket bigint, p_times text,
    OUT narrow_rows bigint, OUT cells bigint, OUT wide_rows bigint, OUT quarantined bigint)
RETURNS record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    -- With a time grain a key stands for all samples of its grain: recompute the bucket.
    v_times text := CASE WHEN p_source.grain_ticks IS NULL THEN p_times END;
    v_by_key boolean := p_source.reads_by_key AND (v_times IS NULL OR NOT p_source.reads_by_time);
    -- Before anything is read of it.
    v_partitions text := pymig._partitions_known(p_source.source);
    v_condition text := pymig._time_condition(p_source, 'n.raw_time', p_first_bucket, p_last_bucket, v_times, p_entity);
    v_leaves text := pymig._leaves_sql(p_source, 'n.raw_time', p_first_bucket, p_last_bucket);
    v_strategy text := CASE WHEN v_times IS NULL THEN p_strategy ELSE 'json' END;
    -- One row a cell: no duplicates to sort out on the way.
    v_gather boolean := v_by_key AND v_times IS NULL AND pymig._has_one_row_a_cell(p_source);
    v_statement text;
    v_nulls bigint;
    v_unknown text;
    r_part record;
BEGIN
    IF p_first_bucket = (-9223372036854775807) THEN
        quarantined := pymig._quarantine_rows(p_source, p_entity, p_first_bucket, p_last_bucket, NULL, v_condition, false);
        RETURN;
    END IF;
    PERFORM set_config('pymig.writes_wide', 'on', true);
    FOR r_part IN SELECT p.wide_table FROM pymig.part AS p WHERE p.source = p_source.source AND p.entity = p_entity ORDER BY p.part LOOP
        EXECUTE format('DELETE FROM %I.%I AS w WHERE %s', p_source.wide_schema, r_part.wide_table,
            pymig._time_condition(p_source, format('w.%I', p_source.time_column), p_first_bucket, p_last_bucket, v_times, p_entity));
    END LOOP;
    -- One statement reads narrow once and writes all parts. Its snapshot is later than the caller's lock and claim.
    v_statement := CASE v_strategy
        WHEN 'transpose' THEN pymig._recompute_by_arrays_sql(p_source, p_entity, v_condition, v_by_key, v_leaves)
        WHEN 'crosstab' THEN pymig._recompute_by_crosstab_sql(p_source, p_entity, v_condition, v_by_key, v_leaves, v_gather)
        WHEN 'filter' THEN pymig._recompute_by_cells_sql(p_source, p_entity, 'filter', v_condition, v_by_key, v_leaves, v_gather)
        ELSE pymig._recompute_by_cells_sql(p_source, p_entity, CASE WHEN pymig._is_as_created(p_source, p_entity) THEN 'record' ELSE 'json' END,
            v_condition, v_by_key, v_leaves, v_gather) END;
    IF v_gather OR v_strategy = 'transpose' THEN
        SELECT r.narrow_rows, r.cells, r.nulls, r.wide_rows, r.unknown INTO narrow_rows, cells, v_nulls, wide_rows, v_unknown FROM pymig._run_gathering(v_statement) AS r;
    ELSE
        EXECUTE v_statement INTO narrow_rows, cells, v_nulls, wide_rows, v_unknown;
    END IF;
    IF v_unknown IS NOT NULL THEN
        RAISE EXCEPTION '% has a channel without a column: %', quote_literal(p_entity), quote_literal(v_unknown)
            USING ERRCODE = 'PM009', HINT = 'The worker adds the column and recomputes; nothing to do.';
    END IF;
    IF narrow_rows <> cells + v_nulls THEN
        quarantined := pymig._quarantine_rows(p_source, p_entity, p_first_bucket, p_last_bucket, v_times, v_condition, v_by_key, v_gather);
    ELSE
        PERFORM pymig._forget_quarantine(p_source, p_entity, p_first_bucket, p_last_bucket, v_times);
        quarantined := 0;
    END IF;
    IF EXISTS (SELECT FROM pymig.promotion AS m WHERE m.source = p_source.source AND m.entity = p_entity) THEN
        PERFORM pymig._fill_promoted(p_source, p_entity, p_first_bucket, p_last_bucket, v_times);
    END IF;
    quarantined := quarantined + pymig._quarantine_closed(p_source, p_entity, p_first_bucket, p_last_bucket, v_times);
    PERFORM set_config('pymig.writes_wide', 'off', true);
    PERFORM pymig._require_same_partitions(p_source, v_partitions);
END
$$;
COMMENT ON FUNCTION pymig._recompute(pymig.source, text, text, bigint, bigint, text) IS
    'Makes wide equal to narrow for a run of buckets, or for the times of an array literal: the only routine that writes wide rows, but for _fill_promoted and the direct writes of _merge_part. The caller holds the locks and has claimed the keys. Returns counts; quarantined is NULL-free. PM009 for a channel without a column.';

-- sql/core/functions/_recompute_singly.sql
CREATE OR REPLACE FUNCTION pymig._recompute_singly(
    p_source pymig.source, p_entity text, p_bucket bigint, p_times text[], p_attempts int)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    -- Each is a subtransaction, and a transaction with more than 64 slows every snapshot on the server down, most of all on standbys (R19).
    c_keys constant int := 60;
    -- Where the fault is not in one key (a full disk, say), or they are many, the rest waits for another turn.
    c_failures constant int := 20;
    v_until timestamptz := clock_timestamp() + interval '500 ms';
    v_failures int := 0;
    v_time text;
    v_done int := 0;
BEGIN
    FOREACH v_time IN ARRAY p_times[:c_keys] LOOP
        EXIT WHEN v_failures >= c_failures OR clock_timestamp() > v_until;
        v_done := v_done + 1;
        BEGIN
            PERFORM pymig._recompute(p_source, p_entity, 'json', p_bucket, p_bucket, ARRAY[v_time]::text);
        EXCEPTION
            WHEN SQLSTATE 'PM009' OR undefined_column OR undefined_table OR datatype_mismatch THEN
                RAISE;
            WHEN OTHERS THEN
                EXECUTE format(
                    'INSERT INTO pymig.%I (entity, bucket, times, recorded_at, attempts) VALUES ($1, $2, ARRAY[$3::%s], now(), $4)',
                    p_source.source || '_todo', p_source.time_type)
                USING p_entity, p_bucket, v_time, p_attempts;
                -- The others of this bucket are done by now, so only this key is marked.
                PERFORM pymig._todo_failed(p_source, p_entity, ARRAY[p_bucket], SQLSTATE, SQLERRM);
                v_failures := v_failures + 1;
        END;
    END LOOP;
    IF v_done < cardinality(p_times) THEN
        EXECUTE format(
            'INSERT INTO pymig.%I (entity, bucket, times, recorded_at, attempts) VALUES ($1, $2, $3::%s[], now(), $4)',
            p_source.source || '_todo', p_source.time_type)
        USING p_entity, p_bucket, p_times[v_done + 1:]::text, p_attempts;
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._recompute_singly(pymig.source, text, bigint, text[], int) IS
    'Recomputes claimed keys one by one after they failed together: the one that can''t be recomputed goes back to todo, the others are done (R24), 60 a turn (R19).';

-- sql/core/functions/_recompute_todo.sql
CREATE OR REPLACE FUNCTION pymig._recompute_todo(p_source pymig.source, p_entity text, p_buckets bigint[])
RETURNS boolean
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    -- From so many keys on, reading the bucket as a whole is cheaper than key by key.
    c_keys constant int := 60;
    v_first constant bigint := p_buckets[1];
    v_last constant bigint := p_buckets[cardinality(p_buckets)];
    v_times text;
    v_is_whole boolean;
    v_claimed bigint;
    v_attempts int;
    v_strategy text;
    v_recorded timestamptz[];
    v_keys bigint[];
    v_is_direct boolean := (SELECT e.sync = 'direct' FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity);
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared(pymig._lock_key('entity', p_source.source, p_entity)) THEN
        RETURN false;
    END IF;
    -- Gaps too: as a whole a run is recomputed from its first to its last bucket.
    FOR v_step IN 0 .. v_last - v_first LOOP
        IF NOT pg_try_advisory_xact_lock(pymig._lock_key('bucket', p_source.source, p_entity, v_first + v_step)) THEN
            -- Writers that share it could for ever keep us out by turns; while we wait, they leave their keys to us (R17).
            IF NOT coalesce(v_is_direct, false) THEN
                RETURN false;
            END IF;
            PERFORM set_config('lock_timeout', '20ms', true);
            PERFORM pg_advisory_xact_lock(pymig._lock_key('bucket', p_source.source, p_entity, v_first + v_step));
        END IF;
    END LOOP;
    -- Lock, claim, read: three statements, each with a later snapshot than the one before (R16, R22).
    EXECUTE format(
        'WITH claimed AS (DELETE FROM pymig.%I AS d
             WHERE d.entity = $1 AND d.bucket = ANY ($2) AND coalesce(d.retry_at, ''-infinity'') <= clock_timestamp()
             RETURNING d.times, d.attempts, d.recorded_at),
         total AS (
             SELECT count(*) AS claimed, max(c.attempts) AS attempts,
                 bool_or(c.times IS NULL) OR (sum(cardinality(c.times)) > $3 AND max(c.attempts) = 0) AS is_whole
             FROM claimed AS c)
         SELECT t.claimed, t.attempts, t.is_whole, CASE WHEN NOT t.is_whole THEN
             (SELECT array_agg(DISTINCT k.time)::text FROM claimed AS c CROSS JOIN LATERAL unnest(c.times) AS k (time)) END,
             (SELECT array_agg(c.recorded_at) FROM claimed AS c), (SELECT array_agg(coalesce(cardinality(c.times), 1)) FROM claimed AS c)
         FROM total AS t',
        p_source.source || '_todo')
    INTO v_claimed, v_attempts, v_is_whole, v_times, v_recorded, v_keys
    USING p_entity, p_buckets, c_keys * cardinality(p_buckets);
    IF v_claimed = 0 THEN
        RETURN false;
    END IF;
    PERFORM pymig._mark_changed(p_source, p_entity, p_buckets);
    IF v_attempts > 0 AND NOT v_is_whole AND v_first = v_last THEN
        PERFORM pymig._recompute_singly(p_source, p_entity, v_first, v_times::text[], v_attempts);
        RETURN true;
    END IF;
    v_strategy := CASE WHEN v_is_whole THEN pymig._measured_strategy(p_source.source, p_entity) ELSE 'json' END;
    PERFORM pymig._recompute(p_source, p_entity, v_strategy, v_first, v_last, v_times);
    UPDATE pymig.entity AS e SET last_error = NULL
    WHERE e.source = p_source.source AND e.entity = p_entity AND e.last_error IS NOT NULL AND e.state <> 'failed';
    PERFORM pymig._note_lag(p_source.source, p_entity, v_recorded, v_keys);
    RETURN true;
END
$$;
COMMENT ON FUNCTION pymig._recompute_todo(pymig.source, text, bigint[]) IS
    'Claims and recomputes the pending keys of a run of buckets (ascending) in one transaction. false: nothing was claimed, or another recomputer holds one of them. 55P03: a transaction that writes directly does.';

-- sql/core/functions/_record_newcomers.sql
CREATE OR REPLACE FUNCTION pymig._record_newcomers(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Without such an index it would be a scan of everything; they are found when they send again.
    IF pymig._leads_with(p_source.narrow, p_source.entity_column) THEN
        EXECUTE format(
            'INSERT INTO pymig.%1$I (entity)
             SELECT d.entity::%2$s FROM pymig.discover_entities(%3$L) AS d (entity)
             WHERE NOT EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = %3$L AND e.entity = d.entity)',
            p_source.source || '_pending_1',
            (SELECT format_type(a.atttypid, NULL) FROM pg_attribute AS a
             WHERE a.attrelid = p_source.narrow AND a.attname = p_source.entity_column), p_source.source);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._record_newcomers(pymig.source) IS
    'Records a key of each entity that nobody has seen, as its own lost ones would have: the worker notes or adopts it.';

-- sql/core/functions/_record_verification.sql
CREATE OR REPLACE FUNCTION pymig._record_verification(p_found pymig.verification)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pymig.verification AS v SELECT p_found.*
    ON CONFLICT (source, entity, bucket) DO UPDATE SET
        is_equal = excluded.is_equal, cells = excluded.cells, differences = excluded.differences, repaired = excluded.repaired,
        sample = excluded.sample, digest = excluded.digest, seconds = excluded.seconds, checked_at = excluded.checked_at
$$;
COMMENT ON FUNCTION pymig._record_verification(pymig.verification) IS 'Keeps the result of a bucket''s comparison in place of its last one.';

-- sql/core/functions/_refuse_long_scan.sql
CREATE OR REPLACE FUNCTION pymig._refuse_long_scan(p_source pymig.source, p_allow_scan boolean, p_what text)
RETURNS void
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A sequential scan reads about a million narrow rows a second (measured on 2 shared cores).
    v_seconds double precision := (
        SELECT sum(greatest(c.reltuples, 0)) / 1e6 FROM pg_class AS c
        WHERE c.oid = CASE WHEN pymig._is_partitioned(p_source.narrow) THEN NULL ELSE p_source.narrow END
           OR c.oid IN (SELECT t.relation FROM pymig._partition_tree(p_source) AS t WHERE t.is_leaf));
BEGIN
    IF v_seconds > 60 AND NOT p_allow_scan THEN
        RAISE EXCEPTION 'finding the % of % means reading all of it, about % minutes', p_what, p_source.narrow, ceil(v_seconds / 60)
            USING ERRCODE = 'PM010',
            HINT = format('Allow it (p_allow_scan => true, --allow-scan), or CREATE INDEX CONCURRENTLY ON %s (%I, %I, %I).',
                p_source.narrow, p_source.entity_column, p_source.channel_column, p_source.time_column);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._refuse_long_scan(pymig.source, boolean, text) IS 'PM010 where a scan would take over a minute by estimate and was not allowed.';

-- sql/core/functions/_require_certificate.sql
CREATE OR REPLACE FUNCTION pymig._require_certificate(p_source pymig.source, p_entity pymig.entity)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_fault text := pymig.certificate_fault(p_entity.entity, p_source.source);
BEGIN
    IF v_fault IS NOT NULL THEN
        RAISE EXCEPTION '% has no fresh certificate: %', quote_literal(p_entity.entity), v_fault
            USING ERRCODE = 'PM040', HINT = format('CALL pymig.certify(%L) compares every cell and gives one.', p_entity.entity);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._require_certificate(pymig.source, pymig.entity) IS 'PM040 for an entity whose newest certificate does not count.';

-- sql/core/functions/_require_cuttable.sql
CREATE OR REPLACE FUNCTION pymig._require_cuttable(p_source pymig.source, p_entity pymig.entity)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_entity.state NOT IN ('verified', 'cut_over', 'finalized') THEN
        RAISE EXCEPTION '% is % and can be cut over once it is verified', quote_literal(p_entity.entity), p_entity.state
            USING ERRCODE = 'PM004', HINT = format('CALL pymig.migrate(%L), then CALL pymig.certify(%1$L).', p_entity.entity);
    ELSIF p_entity.state = 'verified' THEN
        PERFORM pymig._require_certificate(p_source, p_entity);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._require_cuttable(pymig.source, pymig.entity) IS
    'PM004 for an entity that is not verified, PM040 for one without a fresh certificate.';

-- sql/core/functions/_require_no_closed_range.sql
CREATE OR REPLACE FUNCTION pymig._require_no_closed_range(p_source text, p_entity text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_retired bigint := (SELECT count(*) FROM pymig.retired_bucket AS r WHERE r.source = p_source AND r.entity = p_entity);
    v_partitions text := (SELECT string_agg(c.partition_name, ', ' ORDER BY c.first_tick) FROM pymig.closed_range AS c
                          WHERE c.source = p_source AND c.entity = p_entity);
BEGIN
    IF v_retired > 0 THEN
        RAISE EXCEPTION 'the wide table of % has rows that the narrow table no longer has', quote_literal(p_entity)
            USING ERRCODE = 'PM024', DETAIL = format('finalize retired %s buckets of it.', v_retired),
            HINT = format('CALL pymig.restore_narrow(%L) brings them back; then roll back again.', p_entity);
    ELSIF v_partitions IS NOT NULL THEN
        RAISE EXCEPTION 'the wide table of % has rows that the narrow table no longer has', quote_literal(p_entity)
            USING ERRCODE = 'PM024', DETAIL = format('They were kept when these partitions went: %s.', v_partitions),
            HINT = format('Copy them away if you need them, then CALL pymig.set_retention(''drop'', %L) and roll back again.', p_source);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._require_no_closed_range(text, text) IS 'PM024 where dropping the wide table of an entity would destroy the only copy of its rows.';

-- sql/core/functions/_require_read_committed.sql
CREATE OR REPLACE FUNCTION pymig._require_read_committed()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'this must run at READ COMMITTED, not at %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'PM006', HINT = 'SET default_transaction_isolation = ''read committed'' in this session.';
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._require_read_committed() IS
    'PM006 unless each statement has a snapshot of its own, on which claim-then-read depends (R22, R30).';

-- sql/core/functions/_require_same_entity.sql
CREATE OR REPLACE FUNCTION pymig._require_same_entity(p_entity pymig.entity)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_entity pymig.entity;
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM pymig._lock_entity(p_entity.source, p_entity.entity, p_exclusive => false);
    v_entity := pymig._entity(p_entity.source, p_entity.entity);
    IF v_entity.started_at IS DISTINCT FROM p_entity.started_at OR NOT pymig._is_backfilled(v_entity.state) THEN
        RAISE EXCEPTION '% was rolled back and started again meanwhile', quote_literal(p_entity.entity)
            USING ERRCODE = 'PM004', HINT = 'Verify it once its backfill is done.';
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._require_same_entity(pymig.entity) IS
    'Holds an entity as it is until the end of the transaction; PM004 where it is no longer the one that was looked up.';

-- sql/core/functions/_require_same_partitions.sql
CREATE OR REPLACE FUNCTION pymig._require_same_partitions(p_source pymig.source, p_known text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Asked after the narrow rows were read: a partition whose rows, or whose absence, they showed is there, or absent, here too.
    IF pymig._partitions_now(p_source.narrow) <> p_known THEN
        RAISE EXCEPTION 'the partitions of % changed meanwhile', p_source.narrow
            USING ERRCODE = 'PM023', HINT = 'The worker looks at them and recomputes; nothing to do.';
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._require_same_partitions(pymig.source, text) IS
    'PM023 where a partition came or went that the digest given (of those noticed before) does not know. Else wide rows could be written of a partition that goes before anybody noticed it, or rows deleted that are to be kept.';

-- sql/core/functions/_require_writable.sql
CREATE OR REPLACE FUNCTION pymig._require_writable(p_source pymig.source, p_entity text, p_view regclass, p_times text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_time text;
    v_closed text;
BEGIN
    FOREACH v_time IN ARRAY p_times LOOP
        IF v_time IS NULL THEN
            RAISE EXCEPTION 'a row of % needs a time', p_view
                USING ERRCODE = 'PM062', HINT = format('Set %I.', p_source.time_column);
        END IF;
        EXECUTE format(
            'SELECT coalesce(c.partition_name, ''finalize'') FROM pymig.closed_range AS c
             WHERE c.source = $1 AND c.entity = $2 AND pymig.tick_of($3::%s) BETWEEN c.first_tick AND c.last_tick LIMIT 1', p_source.time_type)
        INTO v_closed
        USING p_source.source, p_entity, v_time;
        IF v_closed IS NOT NULL THEN
            RAISE EXCEPTION 'the row of % at % can''t be written: its narrow rows went with %', p_view, v_time, v_closed
                USING ERRCODE = 'PM063', HINT = 'Only the wide table has it any more (retention keep, or finalize: CALL pymig.restore_narrow(...)), and that is left as it is.';
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._require_writable(pymig.source, text, regclass, text[]) IS
    'PM062 for a row without time, PM063 for one in a range whose narrow rows are gone.';

-- sql/core/functions/_restore_next.sql
CREATE OR REPLACE FUNCTION pymig._restore_next(p_source pymig.source, p_entity pymig.entity)
RETURNS boolean
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_retired pymig.retired_bucket;
    v_before bigint;
    v_rows bigint;
BEGIN
    PERFORM pymig._require_read_committed();
    SELECT r.* INTO v_retired FROM pymig.retired_bucket AS r
    WHERE r.source = p_source.source AND r.entity = p_entity.entity ORDER BY r.bucket DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM pymig._lock_entity(p_source.source, p_entity.entity, p_exclusive => false);
    PERFORM pymig._lock_buckets(p_source.source, p_entity.entity, v_retired.bucket, v_retired.bucket);
    v_rows := pymig._restore_rows(p_source, p_entity, v_retired);
    SELECT r.bucket INTO v_before FROM pymig.retired_bucket AS r
    WHERE r.source = p_source.source AND r.entity = p_entity.entity AND r.bucket < v_retired.bucket ORDER BY r.bucket DESC LIMIT 1;
    IF v_before IS NULL THEN
        DELETE FROM pymig.closed_range AS c WHERE c.source = p_source.source AND c.entity = p_entity.entity AND c.partition_name IS NULL;
    ELSE
        UPDATE pymig.closed_range AS c SET last_tick = pymig._last_tick_of(p_source, v_before)
        WHERE c.source = p_source.source AND c.entity = p_entity.entity AND c.partition_name IS NULL;
    END IF;
    UPDATE pymig.quarantine AS q SET is_kept = false WHERE q.source = p_source.source AND q.entity = p_entity.entity AND q.bucket = v_retired.bucket;
    DELETE FROM pymig.retired_bucket AS r WHERE r.source = p_source.source AND r.entity = p_entity.entity AND r.bucket = v_retired.bucket;
    -- All of it, late rows that waited in quarantine, too, and gaps between the buckets.
    PERFORM pymig._expand_range(p_source, p_entity.entity,
        CASE WHEN v_before IS NULL THEN (-9223372036854775807) + 1 ELSE pymig._last_tick_of(p_source, v_before) + 1 END,
        pymig._last_tick_of(p_source, v_retired.bucket));
    IF v_rows < v_retired.narrow_rows AND v_retired.is_archived THEN
        PERFORM pymig._note('WARNING', p_source.source, p_entity.entity, 'restored in part', format(
            '%s of %s rows from %s to %s came back: of the others a newer one had come, or the archive no longer has them.',
            v_rows, v_retired.narrow_rows, v_retired.from_time, v_retired.to_time));
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pymig._restore_next(pymig.source, pymig.entity) IS
    'Brings the narrow rows of the newest retired bucket back and opens its range, in one transaction. false: none is left.';

-- sql/core/functions/_restore_point_fault.sql
CREATE OR REPLACE FUNCTION pymig._restore_point_fault()
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN NOT has_function_privilege('pg_catalog.pg_create_restore_point(text)', 'EXECUTE')
            THEN format('Role %s may not create restore points: GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO %I.', current_user, current_user)
        WHEN current_setting('wal_level') = 'minimal' THEN 'The wal_level is minimal, from which nothing can be recovered.'
    END
$$;
COMMENT ON FUNCTION pymig._restore_point_fault() IS 'Why this role can''t create a restore point here; NULL where it can.';

-- sql/core/functions/_restore_rows.sql
CREATE OR REPLACE FUNCTION pymig._restore_rows(p_source pymig.source, p_entity pymig.entity, p_retired pymig.retired_bucket)
RETURNS bigint
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_archive text := (SELECT s.archive_table FROM pymig.source AS s WHERE s.source = p_source.source);
    v_columns text := (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute AS a
                       WHERE a.attrelid = p_source.narrow AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '');
    v_kept text := (SELECT string_agg(quote_ident(c.c), ', ') FROM unnest(
                       ARRAY[p_source.entity_column, p_source.channel_column, p_source.time_column, p_source.format_column] || p_source.value_columns) AS c (c)
                    WHERE c.c IS NOT NULL);
    v_rows bigint := 0;
BEGIN
    IF p_retired.is_archived AND to_regclass(v_archive) IS NOT NULL THEN
        -- What came for the same key meanwhile is newer.
        EXECUTE format(
            'WITH gone AS (DELETE FROM %s AS n WHERE n.%I = %L AND %s RETURNING n.*),
                  back AS (INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %6$s FROM gone ON CONFLICT DO NOTHING RETURNING 1)
             SELECT count(*) FROM back',
            v_archive, p_source.entity_column, p_entity.entity,
            pymig._time_condition(p_source, format('n.%I', p_source.time_column), p_retired.bucket, p_retired.bucket), p_source.narrow, v_columns)
        INTO v_rows;
    END IF;
    IF v_rows = 0 AND p_retired.cells > 0 THEN
        EXECUTE format(
            'WITH back AS (INSERT INTO %s (%s) SELECT %2$s FROM (%s) AS n WHERE %s ON CONFLICT DO NOTHING RETURNING 1) SELECT count(*) FROM back',
            p_source.narrow, v_kept, (SELECT string_agg(b.branch, ' UNION ALL ') FROM pymig._compat_branch_sql(p_source, p_entity) AS b (branch)),
            pymig._time_condition(p_source, format('n.%I', p_source.time_column), p_retired.bucket, p_retired.bucket))
        INTO v_rows;
    END IF;
    RETURN v_rows;
END
$$;
COMMENT ON FUNCTION pymig._restore_rows(pymig.source, pymig.entity, pymig.retired_bucket) IS
    'Inserts the narrow rows of a retired bucket: those of the archive, or else cells of the wide tables. Returns how many.';

-- sql/core/functions/_retire_bucket.sql
CREATE OR REPLACE FUNCTION pymig._retire_bucket(p_source pymig.source, p_entity pymig.entity, p_bucket bigint)
RETURNS text
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_found pymig.verification;
    v_condition text := format('n.%I = %L AND %s', p_source.entity_column, p_entity.entity,
        pymig._time_condition(p_source, format('n.%I', p_source.time_column), p_bucket, p_bucket));
    v_rows bigint;
    v_last_tick bigint := pymig._last_tick_of(p_source, p_bucket);
BEGIN
    PERFORM pymig._require_read_committed();
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM pymig._require_same_entity(p_entity);
    PERFORM pymig._require_certificate(p_source, p_entity);
    -- Until we commit nobody recomputes it, so what changes from here on is pending.
    PERFORM pymig._lock_buckets(p_source.source, p_entity.entity, p_bucket, p_bucket);
    IF EXISTS (SELECT FROM pymig.retired_bucket AS r WHERE r.source = p_source.source AND r.entity = p_entity.entity AND r.bucket = p_bucket)
        OR (pymig._entity(p_source.source, p_entity.entity)).state <> 'finalized' THEN
        RETURN 'another session was there';
    ELSIF pymig._has_pending(p_source, p_entity.entity, p_bucket) THEN
        RETURN 'its keys are pending';
    END IF;
    v_found := pymig._compare_buckets(p_source, p_entity.entity, p_bucket, p_bucket);
    IF NOT v_found.is_equal THEN
        RAISE EXCEPTION '% differs from % to %, so its narrow rows stay', quote_literal(p_entity.entity), v_found.from_time, v_found.to_time
            USING ERRCODE = 'PM065', HINT = format('CALL pymig.verify(%L, p_repair => true), then CALL pymig.certify(%1$L) and finalize again.', p_entity.entity);
    END IF;
    IF NOT p_source.reads_by_time THEN
        v_condition := v_condition || format(' AND n.%I = ANY (ARRAY(SELECT v.v FROM pymig._channel_values(%L, %L) AS v (v))::%s[])',
            p_source.channel_column, p_source.source, p_entity.entity, pymig._type_name(p_source, p_source.channel_column));
    END IF;
    -- Shorter than deadlock_timeout: where we and a writer want each other's rows, it is never the writer who is ended.
    PERFORM set_config('lock_timeout', '500ms', true);
    EXECUTE CASE WHEN p_entity.is_archived
        THEN format('WITH gone AS (DELETE FROM %s AS n WHERE %s RETURNING n.*), kept AS (INSERT INTO %s SELECT * FROM gone RETURNING 1) SELECT count(*) FROM kept',
            p_source.narrow, v_condition, (SELECT s.archive_table FROM pymig.source AS s WHERE s.source = p_source.source))
        ELSE format('WITH gone AS (DELETE FROM %s AS n WHERE %s RETURNING 1) SELECT count(*) FROM gone', p_source.narrow, v_condition) END
    INTO v_rows;
    -- What somebody changed between the comparison and the deletion has committed, and its keys with it: all of this is undone.
    IF pymig._has_pending(p_source, p_entity.entity, p_bucket) THEN
        RAISE EXCEPTION 'rows of % from % to % changed while they were retired', quote_literal(p_entity.entity), v_found.from_time, v_found.to_time
            USING ERRCODE = '40001', HINT = 'It is tried again; nothing to do.';
    END IF;
    UPDATE pymig.quarantine AS q SET is_kept = true
    WHERE q.source = p_source.source AND q.entity = p_entity.entity AND q.bucket = p_bucket AND q.reason <> 'recompute_failed';
    UPDATE pymig.closed_range AS c SET last_tick = v_last_tick, closed_at = clock_timestamp()
    WHERE c.source = p_source.source AND c.entity = p_entity.entity AND c.partition_name IS NULL;
    IF NOT FOUND THEN
        INSERT INTO pymig.closed_range (source, entity, first_tick, last_tick)
        VALUES (p_source.source, p_entity.entity, (-9223372036854775807) + 1, v_last_tick);
    END IF;
    INSERT INTO pymig.retired_bucket (source, entity, bucket, from_time, to_time, narrow_rows, cells, digest, is_archived, certificate)
    VALUES (p_source.source, p_entity.entity, p_bucket, v_found.from_time, v_found.to_time, v_rows, v_found.cells, v_found.digest, p_entity.is_archived,
        (SELECT max(c.certificate) FROM pymig.certificate AS c WHERE c.source = p_source.source AND c.entity = p_entity.entity));
    RETURN 'retired';
EXCEPTION
    WHEN serialization_failure OR lock_not_available OR deadlock_detected THEN
        RETURN SQLERRM;
END
$$;
COMMENT ON FUNCTION pymig._retire_bucket(pymig.source, pymig.entity, bigint) IS
    'Takes the narrow rows of one bucket away, in one transaction: compares it, closes its range, archives and deletes. Whatever changes meanwhile undoes it. Returns retired, or why it has to wait. PM065 where it differs.';

-- sql/core/functions/_retire_next.sql
CREATE OR REPLACE FUNCTION pymig._retire_next(p_source text, p_entity text)
RETURNS text
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity pymig.entity := pymig._entity(p_source, p_entity);
    v_bucket bigint;
BEGIN
    IF v_entity.state <> 'finalized' THEN
        RETURN 'done';
    END IF;
    -- From where the last one ended: a late row behind it is in quarantine, and stays. Infinite times are never old.
    v_bucket := pymig._next_narrow_bucket(v_source, p_entity, coalesce(
        (SELECT max(r.bucket) + 1 FROM pymig.retired_bucket AS r WHERE r.source = p_source AND r.entity = p_entity), (-9223372036854775807) + 1));
    IF v_bucket IS NULL OR v_bucket >= pymig._keep_bucket(v_source, v_entity) THEN
        RETURN 'done';
    END IF;
    RETURN pymig._retire_bucket(v_source, v_entity, v_bucket);
END
$$;
COMMENT ON FUNCTION pymig._retire_next(text, text) IS
    'Retires the next bucket of a finalized entity that is old enough. Returns retired, done, or why it has to wait.';

-- sql/core/functions/_retry_failed_chunks.sql
CREATE OR REPLACE FUNCTION pymig._retry_failed_chunks(p_source text, p_entity text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE pymig.chunk AS c SET state = 'planned', attempts = 0, retry_at = NULL
    WHERE c.source = p_source AND c.entity = p_entity AND c.state = 'failed';
    UPDATE pymig.entity AS e SET state = 'syncing', state_changed_at = now()
    WHERE e.source = p_source AND e.entity = p_entity AND e.state = 'failed';
END
$$;
COMMENT ON FUNCTION pymig._retry_failed_chunks(text, text) IS 'Gives the failed chunks of an entity another round of attempts.';

-- sql/core/functions/_reverify_bucket.sql
CREATE OR REPLACE FUNCTION pymig._reverify_bucket(p_source pymig.source, p_entity text, p_bucket bigint)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Time that was not used is not saved up.
    c_credit constant interval := '10 seconds';
    v_started timestamptz := clock_timestamp();
    v_found pymig.verification;
BEGIN
    IF NOT pg_try_advisory_xact_lock(pymig._lock_key('verify', p_source.source)) THEN
        RETURN;
    END IF;
    BEGIN
        v_found := pymig.verify_bucket(p_entity, p_bucket, true, p_source.source);
    EXCEPTION
        WHEN OTHERS THEN
            -- Rolled back meanwhile, or a table in somebody's hands: another turn. What stays so is met by sync as well.
            PERFORM pymig._note_once('WARNING', p_source.source, 'verification failed', format('A bucket of %s could not be compared: %s (%s)', quote_literal(p_entity), SQLERRM, SQLSTATE));
            UPDATE pymig.verification AS v SET checked_at = clock_timestamp()
            WHERE v.source = p_source.source AND v.entity = p_entity AND v.bucket = p_bucket;
    END;
    IF v_found.differences > 0 THEN
        PERFORM pymig._unverify(p_source.source, p_entity, format('%s differences were found from %s to %s', v_found.differences, v_found.from_time, v_found.to_time));
        PERFORM pymig._note('CRITICAL', p_source.source, p_entity, 'verification mismatch',
            format('%s differences from %s to %s, though it had been verified. They were repaired; look at pymig.verification for where they may come from, then CALL pymig.certify(%L).',
                v_found.differences, v_found.from_time, v_found.to_time, p_entity));
    END IF;
    UPDATE pymig.source AS s
    SET verify_after = greatest(s.verify_after, clock_timestamp() - c_credit) + (clock_timestamp() - v_started) / s.verify_budget
    WHERE s.source = p_source.source AND s.verify_budget > 0;
END
$$;
COMMENT ON FUNCTION pymig._reverify_bucket(pymig.source, text, bigint) IS
    'Compares one bucket of a verified entity again. A difference is repaired and said, and takes the entity''s certificate and its state verified.';

-- sql/core/functions/_ring_place.sql
CREATE OR REPLACE FUNCTION pymig._ring_place(p_entity text)
RETURNS bigint
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT hashtextextended(p_entity, 0)
$$;
COMMENT ON FUNCTION pymig._ring_place(text) IS 'Place of an entity in the ring in which workers serve them.';

-- sql/core/functions/_rotate_pending.sql
CREATE OR REPLACE FUNCTION pymig._rotate_pending(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_sequence regclass := format('pymig.%I', p_source.source || '_turn');
    v_turn bigint;
    v_filled text;
    v_drained text;
    v_has_keys boolean;
    -- A disk can be full, or a limit reached, long before the size at which tables change turns.
    v_has_lost boolean := pymig._has_lost_keys(p_source);
BEGIN
    -- One at a time: two that both gave the turn would have given it back.
    IF NOT pg_try_advisory_xact_lock(pymig._lock_key('collect', p_source.source)) THEN
        RETURN;
    END IF;
    v_turn := coalesce(pg_sequence_last_value(v_sequence), 0);
    v_filled := format('%s_pending_%s', p_source.source, v_turn % 2 + 1);
    v_drained := format('%s_pending_%s', p_source.source, 2 - v_turn % 2);
    IF pymig._is_worn(p_source, v_drained, v_has_lost) THEN
        -- Never waits: behind a waiting ACCESS EXCLUSIVE lock every late writer would wait too.
        EXECUTE format('LOCK TABLE pymig.%I IN ACCESS EXCLUSIVE MODE NOWAIT', v_drained);
        -- A statement of its own, so with a snapshot later than the lock: a slow writer may have committed a key just before.
        EXECUTE format('SELECT EXISTS (SELECT FROM pymig.%I AS p)', v_drained) INTO v_has_keys;
        IF NOT v_has_keys THEN
            PERFORM pymig._empty_pending(p_source, v_drained);
        END IF;
    ELSIF pymig._is_worn(p_source, v_filled, v_has_lost) THEN
        v_turn := nextval(v_sequence);
    END IF;
    IF v_turn >= 1099511627776 AND pg_relation_size(format('pymig.%I', format('%s_pending_%s', p_source.source, v_turn % 2 + 1))::regclass) < p_source.queue_limit THEN
        -- 2: a sequence can't be 0. A trigger that sets it anew meanwhile may undo the turn; the next pass gives it again.
        PERFORM setval(v_sequence, v_turn - 1099511627776 + 2);
    END IF;
EXCEPTION
    WHEN lock_not_available THEN
        -- A prepared transaction, a dump, vacuum: claims go on, and the next pass tries again.
        NULL;
    WHEN OTHERS THEN
        RAISE WARNING 'pending tables of % could not be rotated: %', p_source.source, SQLERRM;
END
$$;
COMMENT ON FUNCTION pymig._rotate_pending(pymig.source) IS
    'Truncates the pending table that is not being filled once it is empty; else, where the one being filled has grown beyond rotate_above, lets the triggers fill the other. Both also where a table is not in the tablespace it should be in. Lets the triggers off asking for the size once there is room again. In a transaction of its own at READ COMMITTED, which commits without waiting. Never waits for a lock.';

-- sql/core/functions/_routes_wide.sql
CREATE OR REPLACE FUNCTION pymig._routes_wide(p_percent int)
RETURNS boolean
LANGUAGE sql
STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
    -- A backend's start and number together are never used twice.
    SELECT abs(hashtextextended(format('%s %s', pg_backend_pid(), a.backend_start), 0) % 100) < p_percent
    FROM pg_stat_get_activity(pg_backend_pid()) AS a
$$;
COMMENT ON FUNCTION pymig._routes_wide(int) IS 'Is this session one of so many of a hundred? The same for all of the session''s life.';

-- sql/core/functions/_row_cells.sql
CREATE OR REPLACE FUNCTION pymig._row_cells(
    p_source text, p_entity text, p_row json, OUT channel text, OUT wide_column text, OUT column_type text, OUT kind text, OUT value text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- json, not jsonb: it keeps what the type prints, the sign of zero and the scale of a numeric.
    SELECT c.channel, c.wide_column, c.column_type, c.kind,
        CASE c.column_type WHEN 'jsonb' THEN nullif(r.value::text, 'null') ELSE r.value #>> '{}' END
    FROM json_each(p_row) AS r (wide_column, value)
    JOIN pymig.channel AS c ON c.source = p_source AND c.entity = p_entity AND c.wide_column = r.wide_column
$$;
COMMENT ON FUNCTION pymig._row_cells(text, text, json) IS
    'Cells of a wide row as text, with the channels they belong to. A JSON null counts as no value.';

-- sql/core/functions/_row_condition.sql
CREATE OR REPLACE FUNCTION pymig._row_condition(p_source pymig.source)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('n.%I = $1::%s AND n.%I = $2::%s AND n.%I = ANY ($3::%s[])',
        p_source.entity_column, pymig._type_name(p_source, p_source.entity_column), p_source.time_column, p_source.time_type,
        p_source.channel_column, pymig._type_name(p_source, p_source.channel_column))
$$;
COMMENT ON FUNCTION pymig._row_condition(pymig.source) IS
    'SQL condition over a narrow row n: it is of the entity $1, the time $2 and one of the channels $3 (all text).';

-- sql/core/functions/_run_gathering.sql
CREATE OR REPLACE FUNCTION pymig._run_gathering(
    p_statement text, OUT narrow_rows bigint, OUT cells bigint, OUT nulls bigint, OUT wide_rows bigint, OUT unknown text)
RETURNS record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
    SET enable_seqscan = off
    SET enable_indexscan = off
    SET enable_nestloop = off
    SET enable_sort = off
    SET work_mem = '128MB'
AS $$
BEGIN
    EXECUTE p_statement INTO narrow_rows, cells, nulls, wide_rows, unknown;
END
$$;
COMMENT ON FUNCTION pymig._run_gathering(text) IS
    'Runs a recompute that gathers a chunk''s rows through the key (transpose, and others with p_gather) under settings that leave the planner one way to do it. Also looks for bad rows in this way, and returns their number as narrow_rows. Returns what the statement returns.';

-- sql/core/functions/_rw_views.sql
CREATE OR REPLACE FUNCTION pymig._rw_views(
    p_source pymig.source, p_entity text, OUT relation text, OUT name text, OUT part int, OUT is_there boolean)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT w.relation, n.name, w.part, t.tgrelid IS NOT NULL
    FROM (
        SELECT e.wide_table AS relation, NULL::int AS part FROM pymig.entity AS e
        WHERE e.source = p_source.source AND e.entity = p_entity AND e.wide_table IS NOT NULL
        UNION ALL
        SELECT p.wide_table, p.part FROM pymig.part AS p JOIN pymig.entity AS e USING (source, entity)
        WHERE p.source = p_source.source AND p.entity = p_entity AND p.wide_table <> e.wide_table
    ) AS w
    CROSS JOIN LATERAL (
        SELECT CASE WHEN octet_length(w.relation) <= 60 THEN w.relation ELSE pymig._cut_name(w.relation, 60, w.relation) END || '_rw') AS n (name)
    LEFT JOIN pg_trigger AS t ON t.tgrelid = to_regclass(format('%I.%I', p_source.wide_schema, n.name))
        AND t.tgname = 'pymig_write' AND t.tgfoid = 'pymig._write_wide'::regproc
$$;
COMMENT ON FUNCTION pymig._rw_views(pymig.source, text) IS
    'Views in which an entity is written once it is cut over: one over the relation with its name (part NULL), and one over each part where there are several. relation, name: without schema; is_there: it has been made.';

-- sql/core/functions/_serve_partition.sql
CREATE OR REPLACE FUNCTION pymig._serve_partition(p_source pymig.source, p_lock_timeout interval)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_partition pymig.partition;
BEGIN
    -- Whoever takes the triggers away is waited for, and then there is nothing to do.
    IF NOT pg_try_advisory_xact_lock_shared(pymig._lock_key('arm', p_source.source)) OR NOT pymig._is_migrating(p_source.source) THEN
        RETURN false;
    END IF;
    SELECT p.* INTO v_partition FROM pymig.partition AS p
    WHERE p.source = p_source.source AND p.state IN ('new', 'armed', 'expanded', 'detached')
      AND coalesce(p.retry_at, '-infinity') <= clock_timestamp()
    ORDER BY p.state = 'detached', p.first_tick DESC, p.relation
    LIMIT 1
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    BEGIN
        CASE v_partition.state
            WHEN 'new' THEN
                PERFORM pymig._arm(p_source, v_partition.relation, p_lock_timeout);
            WHEN 'armed' THEN
                PERFORM pymig._expand_partition(p_source, v_partition);
            WHEN 'expanded' THEN
                PERFORM pymig._queue_partition(p_source, v_partition.relation);
            ELSE
                -- No longer ours: what it records would be nobody's.
                PERFORM pymig._drop_triggers(p_source, v_partition.relation, p_lock_timeout);
                DELETE FROM pymig.partition AS p WHERE p.source = v_partition.source AND p.relation = v_partition.relation;
        END CASE;
    EXCEPTION
        -- Also where it was dropped since it was noticed: the next look at the catalog tells.
        WHEN OTHERS THEN
            PERFORM pymig._partition_failed(v_partition, SQLSTATE, SQLERRM);
    END;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pymig._serve_partition(pymig.source, interval) IS
    'The next step for the next partition, in a transaction of its own: arm a new one; queue what wide has in its range, then what it has itself; take the triggers from one that is gone. false: nothing is due.';

-- sql/core/functions/_set_paused.sql
CREATE OR REPLACE FUNCTION pymig._set_paused(
    p_entity text, p_source text, p_is_paused boolean, p_reason text DEFAULT NULL, p_is_cancelled boolean DEFAULT false)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity text := CASE WHEN p_entity IS NOT NULL THEN pymig._known_entity(v_source, p_entity) END;
    v_is_changed boolean := false;
BEGIN
    IF v_entity IS NULL THEN
        UPDATE pymig.source AS s SET paused_at = CASE WHEN p_is_paused THEN now() END, paused_by = CASE WHEN p_is_paused THEN session_user END,
            paused_for = p_reason, is_cancelled = p_is_cancelled
        WHERE s.source = v_source.source AND ((s.paused_at IS NOT NULL) <> p_is_paused OR p_is_cancelled AND NOT s.is_cancelled);
        v_is_changed := FOUND;
    END IF;
    -- Resumed as a whole, none of the source stays behind.
    IF v_entity IS NOT NULL OR NOT p_is_paused THEN
        UPDATE pymig.entity AS e SET paused_at = CASE WHEN p_is_paused THEN now() END, paused_by = CASE WHEN p_is_paused THEN session_user END,
            paused_for = p_reason, is_cancelled = p_is_cancelled
        WHERE e.source = v_source.source AND e.entity = coalesce(v_entity, e.entity)
          AND ((e.paused_at IS NOT NULL) <> p_is_paused OR p_is_cancelled AND NOT e.is_cancelled);
        v_is_changed := v_is_changed OR FOUND;
    END IF;
    IF v_is_changed THEN
        PERFORM pymig._note('INFO', v_source.source, v_entity,
            CASE WHEN p_is_cancelled THEN 'cancelled' WHEN p_is_paused THEN 'paused' ELSE 'resumed' END,
            CASE WHEN p_is_cancelled THEN 'Commands that move history end; sync goes on.' WHEN p_is_paused THEN 'History waits; sync goes on.' ELSE 'History goes on.' END
            || coalesce(' ' || p_reason, ''));
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._set_paused(text, text, boolean, text, boolean) IS 'What pause, cancel and resume do. PM001, PM002.';

-- sql/core/functions/_set_restore_point.sql
CREATE OR REPLACE FUNCTION pymig._set_restore_point(p_source text, p_entity text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- 63 bytes are all that PostgreSQL takes; and it has to be typed into a configuration file.
    v_name text := format('pymig_%s_%s', left(regexp_replace(p_entity, '[^A-Za-z0-9_.-]+', '_', 'g'), 40),
        to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS"Z"'));
    v_fault text := pymig._restore_point_fault();
BEGIN
    IF NOT EXISTS (SELECT FROM pymig.entity AS e WHERE e.source = p_source AND e.entity = p_entity AND e.state = 'planned') THEN
        RETURN;  -- It was begun before: its restore point is there.
    ELSIF v_fault IS NOT NULL THEN
        PERFORM pymig._note('INFO', p_source, p_entity, 'no restore point', v_fault);
    ELSE
        PERFORM pymig._note('INFO', p_source, p_entity, 'restore point',
            format('recovery_target_name = ''%s'' is the server as it was before this migration wrote anything, at %s.', v_name, pg_create_restore_point(v_name)));
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._set_restore_point(text, text) IS
    'Names the position in the WAL before the first write of an entity''s migration, in an event, too. Where it may not, an event says why and the migration goes on.';

-- sql/core/functions/_set_routing.sql
CREATE OR REPLACE FUNCTION pymig._set_routing(p_source text, p_entity text, p_routing text, p_percent int DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE pymig.entity AS e SET routing = p_routing, routing_percent = p_percent
    WHERE e.source = p_source AND e.entity = p_entity AND (e.routing, e.routing_percent) IS DISTINCT FROM (p_routing, p_percent::smallint);
    IF FOUND THEN
        PERFORM pymig._create_compat_view(p_source);
        PERFORM pymig._note('INFO', p_source, p_entity, 'routing set', format('It is read from %s.', CASE p_routing
            WHEN 'percent' THEN format('wide by %s of 100 sessions, else from narrow', p_percent)
            WHEN 'shadow' THEN 'both sides, which are compared, and narrow is returned' ELSE p_routing END));
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._set_routing(text, text, text, int) IS 'Sets where an entity is read from, and makes the compat view anew, which waits for its readers.';

-- sql/core/functions/_slice_condition.sql
CREATE OR REPLACE FUNCTION pymig._slice_condition(p_source pymig.source, p_bucket bigint, p_share double precision)
RETURNS text
LANGUAGE sql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN p_share >= 1 OR p_bucket IN (9223372036854775807, -9223372036854775808)
            THEN pymig._time_condition(p_source, 'n.raw_time', p_bucket, p_bucket)
        ELSE pymig._ticks_condition(p_source, 'n.raw_time', s.first_tick, s.first_tick + s.ticks - 1) END
    FROM (
        SELECT w.ticks, p_bucket::numeric * p_source.bucket_ticks
            + w.grain * floor(random()::numeric * ((p_source.bucket_ticks - w.ticks) / w.grain + 1)) AS first_tick
        FROM (
            -- Whole grains: samples of one that were cut apart would be no duplicates any more.
            SELECT g.grain, g.grain * ceil(p_source.bucket_ticks * p_share::numeric / g.grain) AS ticks
            FROM (SELECT coalesce(p_source.grain_ticks, 1)::numeric) AS g (grain)
        ) AS w
    ) AS s
$$;
COMMENT ON FUNCTION pymig._slice_condition(pymig.source, bigint, double precision) IS
    'SQL condition on n.raw_time that holds for a share (0 to 1) of a bucket''s time, at random in it.';

-- sql/core/functions/_slot_columns.sql
CREATE OR REPLACE FUNCTION pymig._slot_columns(p_source pymig.source, OUT i bigint, OUT name text, OUT value text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- All of them: a value column that does not count has to be NULL. Without its length the type would be cast, and cut, to fit.
    SELECT 0::bigint, p_source.format_column, format('f.format::%s', pymig._type_name(p_source, p_source.format_column))
    WHERE p_source.format_column IS NOT NULL
    UNION ALL
    SELECT c.i, c.name, format('CASE WHEN f.value_column = %L THEN f.value::%s END', c.name, pymig._type_name(p_source, c.name))
    FROM unnest(p_source.value_columns) WITH ORDINALITY AS c (name, i)
$$;
COMMENT ON FUNCTION pymig._slot_columns(pymig.source) IS
    'Columns of the narrow table that make up a value, and SQL expressions for them over a row f (format, value_column, value) of text.';

-- sql/core/functions/_source.sql
CREATE OR REPLACE FUNCTION pymig._source(p_source text)
RETURNS pymig.source
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_names text[] := ARRAY(SELECT s.source FROM pymig.source AS s ORDER BY s.source);
    v_source pymig.source;
BEGIN
    IF cardinality(v_names) = 0 THEN
        RAISE EXCEPTION 'no narrow table is registered'
            USING ERRCODE = 'PM001', HINT = 'Register one: CALL pymig.register_source(...), or `pymig source add`.';
    ELSIF p_source IS NULL AND cardinality(v_names) > 1 THEN
        RAISE EXCEPTION 'which source? There are %', array_to_string(v_names, ', ')
            USING ERRCODE = 'PM001', HINT = 'Name one as p_source, or --source.';
    END IF;
    SELECT s.* INTO v_source FROM pymig.source AS s WHERE s.source = coalesce(p_source, v_names[1]);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no source %', quote_literal(p_source)
            USING ERRCODE = 'PM001', HINT = 'Registered: ' || array_to_string(v_names, ', ') || '.';
    END IF;
    RETURN v_source;
END
$$;
COMMENT ON FUNCTION pymig._source(text) IS 'Row of a source; with NULL, of the only one. PM001 where that is not one.';

-- sql/core/functions/_span_sql.sql
CREATE OR REPLACE FUNCTION pymig._span_sql(p_source pymig.source, p_from text, p_to text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat(
        CASE WHEN p_from IS NOT NULL THEN format(' AND w.%I >= %L::%s', p_source.time_column, p_from, p_source.time_type) END,
        CASE WHEN p_to IS NOT NULL THEN format(' AND w.%I < %L::%s', p_source.time_column, p_to, p_source.time_type) END)
$$;
COMMENT ON FUNCTION pymig._span_sql(pymig.source, text, text) IS 'Conditions, each behind AND, for the rows w of a wide table from one time on, before another; NULL: no bound.';

-- sql/core/functions/_spans_sql.sql
CREATE OR REPLACE FUNCTION pymig._spans_sql(p_source pymig.source, p_column text, p_bucket bigint)
RETURNS text[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN min(s.spans) = 1 OR NOT p_source.reads_by_key THEN '{true}' ELSE array_agg(
        format('%s BETWEEN %L::%s AND %L::%3$s', p_column, pymig.time_text(s.first_tick, p_source.time_type),
            p_source.time_type, pymig.time_text(s.last_tick, p_source.time_type)) ORDER BY s.first_tick) END
    FROM (
        -- From where a partition begins to where the next one does, so that what is in none that is known is in a span, too.
        SELECT b.first_tick, coalesce(lead(b.first_tick) OVER (ORDER BY b.first_tick) - 1, 9223372036854775807) AS last_tick,
            count(*) OVER () AS spans
        FROM (
            SELECT (-9223372036854775808)::bigint AS first_tick
            UNION
            SELECT p.first_tick FROM pymig.partition AS p WHERE p.source = p_source.source AND p.is_leaf
            UNION
            SELECT p.last_tick + 1 FROM pymig.partition AS p
            WHERE p.source = p_source.source AND p.is_leaf AND p.last_tick <> 9223372036854775807
        ) AS b
    ) AS s
    WHERE pymig.bucket_of(s.last_tick, p_source.bucket_ticks) >= p_bucket
$$;
COMMENT ON FUNCTION pymig._spans_sql(pymig.source, text, bigint) IS
    'SQL conditions that cut all times from a bucket on into spans along the partitions, in their order; true alone where there are none.';

-- sql/core/functions/_split_chunk.sql
CREATE OR REPLACE FUNCTION pymig._split_chunk(
    p_source pymig.source, p_chunk pymig.chunk, p_last_bucket bigint, p_error text DEFAULT NULL)
RETURNS pymig.chunk
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_chunk pymig.chunk := p_chunk;
BEGIN
    IF p_last_bucket < p_chunk.last_bucket THEN
        INSERT INTO pymig.chunk (source, entity, first_bucket, last_bucket, from_time, to_time, error)
        VALUES (p_chunk.source, p_chunk.entity, p_last_bucket + 1, p_chunk.last_bucket,
            pymig._bucket_start(p_source, p_last_bucket + 1), p_chunk.to_time, p_error);
        UPDATE pymig.chunk AS c
        SET last_bucket = p_last_bucket, to_time = pymig._bucket_end(p_source, p_last_bucket), error = p_error
        WHERE c.chunk = p_chunk.chunk
        RETURNING c.* INTO v_chunk;
    END IF;
    RETURN v_chunk;
END
$$;
COMMENT ON FUNCTION pymig._split_chunk(pymig.source, pymig.chunk, bigint, text) IS
    'Ends a chunk with an earlier bucket; what is behind it becomes a planned chunk of its own. Returns the shorter one.';

-- sql/core/functions/_strategies.sql
CREATE OR REPLACE FUNCTION pymig._strategies(p_source text, p_entity text, OUT strategy text, OUT rank bigint)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- In the order the measurements of docs/explanation/pivot.md put them.
    SELECT s.strategy, row_number() OVER (ORDER BY s.rank)
    FROM (VALUES ('filter', 0), ('transpose', 1), ('json', 2), ('crosstab', 3)) AS s (strategy, rank)
    WHERE CASE s.strategy
        WHEN 'filter' THEN (SELECT count(*) FROM pymig.channel AS c WHERE c.source = p_source AND c.entity = p_entity) <= 16
        WHEN 'crosstab' THEN EXISTS (SELECT FROM pg_extension AS e WHERE e.extname = 'tablefunc')
        ELSE true END
$$;
COMMENT ON FUNCTION pymig._strategies(text, text) IS
    'Pivot strategies worth a try on an entity, the likeliest first: filter with up to 16 channels, crosstab where tablefunc is installed.';

-- sql/core/functions/_strategy_rates.sql
CREATE OR REPLACE FUNCTION pymig._strategy_rates(
    p_source text, p_entity text, OUT strategy text, OUT rows_per_second double precision, OUT chunks bigint, OUT filled double precision)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.strategy, sum(r.narrow_rows) / nullif(sum(r.seconds), 0), count(*),
        sum(r.narrow_rows)::double precision / nullif(sum(r.wide_rows) * (
            SELECT count(*) FROM pymig.channel AS c WHERE c.source = p_source AND c.entity = p_entity), 0)
    FROM (
        SELECT c.strategy, c.narrow_rows, c.wide_rows, c.seconds
        FROM pymig.chunk AS c
        WHERE c.source = p_source AND c.entity = p_entity AND c.state = 'done' AND c.narrow_rows > 0
        ORDER BY c.chunk DESC
        LIMIT 100
    ) AS r
    GROUP BY r.strategy
$$;
COMMENT ON FUNCTION pymig._strategy_rates(text, text) IS
    'Narrow rows a second that each strategy moved in the last 100 chunks of an entity, in how many of them, and the share of the channels that had a row at each time of these.';

-- sql/core/functions/_superseded_rows.sql
CREATE OR REPLACE FUNCTION pymig._superseded_rows(
    p_source pymig.source, p_entity text, p_narrow_rows bigint, p_chunk pymig.chunk)
RETURNS bigint
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_rows bigint;
BEGIN
    IF p_source.is_unique AND p_source.grain_ticks IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('SELECT count(*) FROM pymig.%I AS n WHERE n.entity = %L AND %s', p_source.source || '_cell', p_entity,
        pymig._time_condition(p_source, 'n.raw_time', p_chunk.first_bucket, p_chunk.last_bucket, NULL, p_entity)) INTO v_rows;
    RETURN v_rows - p_narrow_rows;
END
$$;
COMMENT ON FUNCTION pymig._superseded_rows(pymig.source, text, bigint, pymig.chunk) IS
    'Narrow rows of a chunk that lost the tie-break; NULL where the source can''t have any. Counted a moment after the recompute, for the record.';

-- sql/core/functions/_swap_promoted.sql
CREATE OR REPLACE FUNCTION pymig._swap_promoted(p_source pymig.source, p_entity text)
RETURNS int
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_name text := (SELECT e.wide_table FROM pymig.entity AS e WHERE e.source = p_source.source AND e.entity = p_entity);
    v_view regclass;
    v_ours regclass[];
    v_grants text[] := pymig._read_grants(p_source, p_entity);
    v_rw_grants text[];
    v_grant text;
    v_channels text[] := '{}';
    v_said text;
    r_column record;
BEGIN
    SELECT c.oid INTO v_view FROM pg_class AS c
    WHERE c.oid = to_regclass(format('%I.%I', p_source.wide_schema, v_name)) AND c.relkind = 'v';
    v_ours := v_view || ARRAY(SELECT format('%I.%I', p_source.wide_schema, v.name)::regclass FROM pymig._rw_views(p_source, p_entity) AS v WHERE v.is_there)
        || to_regclass(p_source.compat_view);
    FOR r_column IN
        SELECT m.channel, d.dependents
        FROM pymig.promotion AS m
        JOIN pymig.channel AS c USING (source, entity, channel)
        JOIN pymig.part AS p ON p.source = c.source AND p.entity = c.entity AND p.part = c.part
        CROSS JOIN LATERAL pymig._column_dependents(format('%I.%I', p_source.wide_schema, p.wide_table)::regclass, c.wide_column, v_ours) AS d (dependents)
        WHERE m.source = p_source.source AND m.entity = p_entity AND m.next_bucket IS NULL AND m.is_lossless
          AND NOT pymig._has_older_snapshots(m.filled_by)
          AND coalesce(m.retry_at, '-infinity') <= clock_timestamp()
        ORDER BY m.ord
    LOOP
        IF r_column.dependents IS NULL THEN
            v_channels := v_channels || r_column.channel;
        ELSE
            PERFORM pymig._hold_promotions(p_source.source, p_entity, ARRAY[r_column.channel], format(
                'The column of %s can''t take its new type while this depends on it: %s. Drop that, and make it again afterwards.',
                quote_literal(r_column.channel), r_column.dependents));
        END IF;
    END LOOP;
    IF v_channels = '{}' THEN
        RETURN 0;
    END IF;
    -- The values that did not fit are in the new column by now; what still does not fit is found again. They may be many: readers have no
    -- part in it, so the tables get locked after that.
    EXECUTE format(
        'WITH fitting AS (
             DELETE FROM pymig.quarantine AS q
             WHERE q.source = $1 AND q.entity = $2 AND q.channel = ANY ($3) AND q.reason = ''type_mismatch'' AND NOT q.is_kept RETURNING q.bucket)
         INSERT INTO pymig.%I (entity, bucket, times, recorded_at) SELECT DISTINCT $2, f.bucket, NULL::%s[], now() FROM fitting AS f',
        p_source.source || '_todo', p_source.time_type)
    USING p_source.source, p_entity, v_channels;
    PERFORM pymig._create_compat_view(p_source.source, p_entity, p_is_out => true);
    v_rw_grants := pymig._drop_rw_views(p_source, p_entity);
    IF v_view IS NOT NULL THEN
        EXECUTE format('DROP VIEW %s', v_view);
    END IF;
    PERFORM pymig._exchange_columns(p_source, p_entity, v_channels);
    SELECT string_agg(format('%s is %s now', quote_literal(m.channel), m.column_type), '; ' ORDER BY m.ord) INTO v_said
    FROM pymig.promotion AS m WHERE m.source = p_source.source AND m.entity = p_entity AND m.channel = ANY (v_channels);
    -- Its position stays: the view's columns keep their order.
    UPDATE pymig.channel AS c SET part = m.part, column_type = m.column_type, added_at = m.begun_at
    FROM pymig.promotion AS m
    WHERE c.source = p_source.source AND c.entity = p_entity AND c.channel = ANY (v_channels)
      AND m.source = c.source AND m.entity = c.entity AND m.channel = c.channel;
    DELETE FROM pymig.promotion AS m WHERE m.source = p_source.source AND m.entity = p_entity AND m.channel = ANY (v_channels);
    PERFORM pymig._note_columns(p_source, p_entity);
    IF v_view IS NOT NULL THEN
        PERFORM pymig._create_parts_view(p_source, p_entity);
        FOREACH v_grant IN ARRAY v_grants LOOP
            EXECUTE v_grant;
        END LOOP;
    END IF;
    PERFORM pymig._create_rw_views(p_source, p_entity, v_rw_grants);
    PERFORM pymig._create_compat_view(p_source.source, p_entity);
    PERFORM pymig._note('INFO', p_source.source, p_entity, 'columns promoted', v_said);
    RETURN cardinality(v_channels);
END
$$;
COMMENT ON FUNCTION pymig._swap_promoted(pymig.source, text) IS
    'Puts filled columns in the place of the old ones, in the tables, the view and the catalog, in one short transaction. A column something depends on is left and said. Returns how many. The caller holds the entity exclusively, so no recompute is between two columns.';

-- sql/core/functions/_table_bytes.sql
CREATE OR REPLACE FUNCTION pymig._table_bytes(p_table regclass)
RETURNS numeric
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(sum(pg_total_relation_size(t.relid)), pg_total_relation_size(p_table)) FROM pg_partition_tree(p_table) AS t
$$;
COMMENT ON FUNCTION pymig._table_bytes(regclass) IS 'Bytes of a table with its indexes, TOAST and partitions; NULL for NULL.';

-- sql/core/functions/_throttled.sql
CREATE OR REPLACE FUNCTION pymig._throttled()
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format('%s (%s %s, limit %s)', t.condition, CASE WHEN abs(t.value) < 1e15 THEN trim_scale(round(t.value::numeric, 1))::text ELSE t.value::text END, t.unit, t.max_value), ', ' ORDER BY t.condition)
    FROM pymig.throttle AS t
    WHERE t.value > t.max_value AND t.checked_at > clock_timestamp() - interval '10 seconds'
$$;
COMMENT ON FUNCTION pymig._throttled() IS 'What history waits for, as measured last; NULL: nothing.';

-- sql/core/functions/_tick_of_day.sql
CREATE OR REPLACE FUNCTION pymig._tick_of_day(p_source pymig.source, p_day date)
RETURNS bigint
LANGUAGE sql
IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE p_source.time_type
        WHEN 'date' THEN (p_day - date '2000-01-01')::bigint
        WHEN 'bigint' THEN (p_day - date '1970-01-01')::bigint * 86400 * CASE p_source.time_unit WHEN 's' THEN 1 WHEN 'ms' THEN 1000 ELSE 1000000 END
        ELSE (p_day - date '2000-01-01')::bigint * 86400000000
    END
$$;
COMMENT ON FUNCTION pymig._tick_of_day(pymig.source, date) IS 'First tick of a day (UTC).';

-- sql/core/functions/_ticks_condition.sql
CREATE OR REPLACE FUNCTION pymig._ticks_condition(p_source pymig.source, p_column text, p_first_tick numeric, p_last_tick numeric)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%s BETWEEN %L::%s AND %L::%3$s', p_column,
        pymig.time_text(p_first_tick, p_source.time_type), p_source.time_type, pymig.time_text(p_last_tick, p_source.time_type))
$$;
COMMENT ON FUNCTION pymig._ticks_condition(pymig.source, text, numeric, numeric) IS
    'SQL condition that holds for the times from one tick to another, both included.';

-- sql/core/functions/_ticks_of.sql
CREATE OR REPLACE FUNCTION pymig._ticks_of(p_interval interval, p_time_type text, p_time_unit text)
RETURNS bigint
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT greatest(1, CASE
        WHEN p_time_type = 'date' THEN ceil(extract(epoch FROM p_interval) / 86400)
        WHEN p_time_type = 'bigint' THEN
            extract(epoch FROM p_interval) * CASE p_time_unit WHEN 's' THEN 1 WHEN 'ms' THEN 1000 ELSE 1000000 END
        ELSE extract(epoch FROM p_interval) * 1000000
    END::bigint)
    WHERE p_interval IS NOT NULL
$$;
COMMENT ON FUNCTION pymig._ticks_of(interval, text, text) IS 'Length of an interval in ticks of a time type, at least 1; NULL for NULL.';

-- sql/core/functions/_time_condition.sql
CREATE OR REPLACE FUNCTION pymig._time_condition(
    p_source pymig.source, p_column text, p_first_bucket bigint, p_last_bucket bigint, p_times text DEFAULT NULL,
    p_entity text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_open text := coalesce(' AND NOT (' || pymig._closed_sql(p_source, p_entity, p_column, p_first_bucket, p_last_bucket) || ')', '');
BEGIN
    IF p_first_bucket = (-9223372036854775807) THEN
        RETURN format('%s IS NULL', p_column);
    ELSIF p_times IS NOT NULL THEN
        RETURN format('%s = ANY (%L::%s[])%s', p_column, p_times, p_source.time_type, v_open);
    END IF;
    RETURN format('%s BETWEEN %L::%s AND %L::%s%s', p_column,
        pymig._bucket_start(p_source, p_first_bucket), p_source.time_type,
        pymig._bucket_end(p_source, p_last_bucket), p_source.time_type, v_open);
END
$$;
COMMENT ON FUNCTION pymig._time_condition(pymig.source, text, bigint, bigint, text, text) IS
    'SQL condition that holds for the times of a run of buckets, or for the times given as an array literal; with p_entity, but for the ranges that are closed for it.';

-- sql/core/functions/_todo_failed.sql
CREATE OR REPLACE FUNCTION pymig._todo_failed(
    p_source pymig.source, p_entity text, p_buckets bigint[], p_sqlstate text, p_error text)
RETURNS void
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    -- So many attempts take about 10 seconds.
    c_worrying constant int := 5;
    -- Another session was in the way, not the data: that is no failed attempt. Nor is a channel that came between adding columns and recomputing.
    v_is_lock boolean := pymig._is_in_the_way(p_sqlstate) OR p_sqlstate = 'PM009';
    v_attempts int;
BEGIN
    -- Rows that another session has in hand are its own affair; two that wait for each other's would be a deadlock.
    EXECUTE format(
        'WITH free AS MATERIALIZED (
             SELECT d.ctid FROM pymig.%1$I AS d
             WHERE d.entity = $1 AND d.bucket = ANY ($2) AND coalesce(d.retry_at, ''-infinity'') <= clock_timestamp()
             FOR UPDATE SKIP LOCKED),
         failed AS (
             UPDATE pymig.%1$I AS d
             SET attempts = d.attempts + $4, error = $3,
                 retry_at = clock_timestamp() + least(0.3 * 2 ^ least(d.attempts, 10), 60) * interval ''1 second''
             FROM free AS f
             WHERE d.ctid = f.ctid
             RETURNING d.bucket, d.attempts, d.times),
         quarantined AS (
             INSERT INTO pymig.quarantine (source, entity, time, bucket, reason, detail, narrow_row)
             SELECT DISTINCT %2$L, $1, t.time::text, f.bucket, ''recompute_failed'', $3, jsonb_build_object(''entity'', $1, ''time'', t.time::text)
             FROM failed AS f LEFT JOIN LATERAL unnest(f.times) AS t (time) ON true
             WHERE f.attempts >= $5 AND NOT EXISTS (
                 SELECT FROM pymig.quarantine AS q
                 WHERE q.source = %2$L AND q.entity = $1 AND q.bucket = f.bucket AND q.reason = ''recompute_failed''
                   AND q.time IS NOT DISTINCT FROM t.time::text))
         SELECT max(f.attempts) FROM failed AS f', p_source.source || '_todo', p_source.source)
    INTO v_attempts
    USING p_entity, p_buckets, format('%s (%s)', p_error, p_sqlstate), (NOT v_is_lock)::int, c_worrying;
    UPDATE pymig.entity AS e SET last_error = format('%s (%s)', p_error, p_sqlstate)
    WHERE e.source = p_source.source AND e.entity = p_entity;
    IF v_attempts = c_worrying AND NOT v_is_lock THEN
        PERFORM pymig._note('CRITICAL', p_source.source, p_entity, 'recompute failed',
            format('Keys of bucket %s (from %s) could not be recomputed in %s attempts: %s', p_buckets[1],
                pymig._bucket_start(p_source, p_buckets[1]), c_worrying, p_error));
    END IF;
END
$$;
COMMENT ON FUNCTION pymig._todo_failed(pymig.source, text, bigint[], text, text) IS
    'After a failed recompute: the keys stay, wait with growing pauses (0.3 to 60 s), and hold nothing else up (R24). From the 5th attempt on they are in quarantine as well, with the error; the recompute that goes through takes them out. A lock that was not to be had is no failed attempt.';

-- sql/core/functions/_todo_needs_channels.sql
CREATE OR REPLACE FUNCTION pymig._todo_needs_channels(p_source pymig.source, p_entity text, p_buckets bigint[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pymig._mend_columns(p_source, p_entity);
    PERFORM pymig._add_channels(p_source, p_entity);
    PERFORM pymig._add_months(p_source, p_entity, p_buckets[1], p_buckets[cardinality(p_buckets)]);
    BEGIN
        PERFORM pymig._recompute_todo(p_source, p_entity, p_buckets);
    EXCEPTION
        WHEN OTHERS THEN
            -- Yet another channel has come meanwhile, say: the columns added for the ones before it stay.
            PERFORM pymig._todo_failed(p_source, p_entity, p_buckets, SQLSTATE, SQLERRM);
    END;
EXCEPTION
    WHEN OTHERS THEN
        PERFORM pymig._todo_failed(p_source, p_entity, p_buckets, SQLSTATE, SQLERRM);
END
$$;
COMMENT ON FUNCTION pymig._todo_needs_channels(pymig.source, text, bigint[]) IS
    'Mends the wide tables, adds the columns or partitions a recompute missed, and recomputes. What fails here (a long reader on the wide table, say) is tried again later.';

-- sql/core/functions/_try_cut_over.sql
CREATE OR REPLACE FUNCTION pymig._try_cut_over(
    p_source pymig.source, p_entity pymig.entity, p_drained_at timestamptz, p_lock_timeout interval)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_pending record;
BEGIN
    PERFORM set_config('lock_timeout', (extract(epoch FROM p_lock_timeout) * 1000)::int::text, true);
    PERFORM pymig._lock_entity(p_source.source, p_entity.entity, p_exclusive => true);
    -- Whoever rolled it back, or found a difference, has committed by now.
    PERFORM pymig._require_same_entity(p_entity);
    PERFORM set_config('lock_timeout', (extract(epoch FROM p_lock_timeout) * 1000)::int::text, true);
    PERFORM pymig._require_cuttable(p_source, pymig._entity(p_source.source, p_entity.entity));
    -- Under ingest there is always a key that has just come; what was there when the pass began is in the wide table.
    SELECT k.keys, k.oldest, k.attempts INTO v_pending FROM pymig._pending_by_entity(p_source.source) AS k WHERE k.entity = p_entity.entity;
    IF v_pending.keys IS NULL OR v_pending.oldest < p_drained_at OR v_pending.attempts > 0 OR pymig._has_lost_keys(p_source) THEN
        RETURN format('its pending keys do not drain (%s, the oldest of %s)', coalesce(v_pending.keys::text, 'many'), v_pending.oldest);
    END IF;
    UPDATE pymig.entity AS e SET state = 'cut_over', cut_over_at = now(), is_held = false, state_changed_at = now()
    WHERE e.source = p_source.source AND e.entity = p_entity.entity;
    PERFORM pymig._create_rw_views(p_source, p_entity.entity);
    PERFORM pymig._set_routing(p_source.source, p_entity.entity, 'wide');
    PERFORM pymig._note('INFO', p_source.source, p_entity.entity, 'cut over', format('Readers are routed to the wide table%s.',
        CASE WHEN p_source.grain_ticks IS NULL THEN format('; %s can be written, too', (SELECT string_agg(format('%I.%I', p_source.wide_schema, v.name), ', ')
            FROM pymig._rw_views(p_source, p_entity.entity) AS v)) ELSE '; with a time grain it can''t be written in the wide shape' END));
    RETURN NULL;
EXCEPTION
    WHEN lock_not_available OR deadlock_detected THEN
        RETURN format('a lock was not to be had in %s', p_lock_timeout);
END
$$;
COMMENT ON FUNCTION pymig._try_cut_over(pymig.source, pymig.entity, timestamptz, interval) IS
    'One attempt at the last step of a cutover, in one transaction. Returns why it is to be tried again, or NULL. p_drained_at: keys recorded before it have to be gone.';

-- sql/core/functions/_tuple_width.sql
CREATE OR REPLACE FUNCTION pymig._tuple_width(p_columns bigint, p_bytes bigint, p_narrowest int)
RETURNS bigint
LANGUAGE sql
IMMUTABLE
AS $$
    -- 23 bytes of header and the null bitmap, aligned to 8; the time's 8. The bitmap is there as soon as one cell is NULL.
    SELECT ((23 + (p_columns + 1 + 7) / 8 + 7) / 8) * 8 + 8 + p_bytes - p_narrowest
$$;
COMMENT ON FUNCTION pymig._tuple_width(bigint, bigint, int) IS
    'Worst-case size of a wide row with so many channel columns: it must not pass 8,160 bytes (MaxHeapTupleSize), the worst case being that all cells but the narrowest are filled.';

-- sql/core/functions/_type_name.sql
CREATE OR REPLACE FUNCTION pymig._type_name(p_source pymig.source, p_column text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format_type(a.atttypid, NULL) FROM pg_attribute AS a WHERE a.attrelid = p_source.narrow AND a.attname = p_column
$$;
COMMENT ON FUNCTION pymig._type_name(pymig.source, text) IS 'Type of a column of the narrow table, without length.';

-- sql/core/functions/_unreadable.sql
CREATE OR REPLACE FUNCTION pymig._unreadable(p_source pymig.source, OUT fault text, OUT advice text)
RETURNS record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT f.fault, f.advice
    FROM (VALUES
        (1, NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = p_source.narrow), 'The narrow table is gone.', 'Restore it, or unregister the source.'),
        (2, NOT has_table_privilege(p_source.narrow, 'SELECT'), format('Role %s may not read %s.', current_user, p_source.narrow),
         format('GRANT SELECT ON %s TO %I.', p_source.narrow, current_user)),
        (3, NOT has_table_privilege(to_regclass(format('pymig.%I', p_source.source || '_cell')), 'SELECT'), format('Role %s may not read pymig.%I.', current_user, p_source.source || '_cell'),
         format('GRANT SELECT ON ALL TABLES IN SCHEMA pymig TO %I.', current_user)),
        (4, row_security_active(p_source.narrow), format('Policies of row-level security apply to role %s: it would see some rows of %s only.', current_user, p_source.narrow),
         'Look as the owner, or as a role with BYPASSRLS.')
    ) AS f (ord, holds, fault, advice)
    WHERE f.holds
    ORDER BY f.ord LIMIT 1
$$;
COMMENT ON FUNCTION pymig._unreadable(pymig.source) IS 'Why the current role can''t read a narrow table by its cell view, and what helps; NULL: it can.';

-- sql/core/functions/_unverify.sql
CREATE OR REPLACE FUNCTION pymig._unverify(p_source text, p_entity text, p_reason text)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pymig._void_certificate(p_source, p_entity, p_reason);
    -- Whoever writes in the wide shape goes on: the narrow table has it all.
    UPDATE pymig.entity AS e SET
        state = CASE WHEN e.state = 'verified' THEN 'backfilled' ELSE e.state END, verified_at = NULL,
        state_changed_at = CASE WHEN e.state = 'verified' THEN now() ELSE e.state_changed_at END
    WHERE e.source = p_source AND e.entity = coalesce(p_entity, e.entity) AND e.state IN ('verified', 'cut_over', 'finalized')
$$;
COMMENT ON FUNCTION pymig._unverify(text, text, text) IS 'Takes the state verified and the certificate from an entity, or from all of a source (NULL), for a reason (no full stop). One that is cut over stays so, but is not verified.';

-- sql/core/functions/_value_slots.sql
CREATE OR REPLACE FUNCTION pymig._value_slots(
    p_source pymig.source, p_entity text, p_channels text[], p_kinds text[], p_formats text[], p_values text[],
    OUT channel text, OUT kind text, OUT format text, OUT value_column text, OUT value text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A cell stays what it is, if the new value allows it; else it becomes what its channel is.
    SELECT g.channel, s.kind, s.format, s.value_column, g.value
    FROM unnest(p_channels, p_kinds, p_formats, p_values) AS g (channel, kind, format, value)
    JOIN pymig.channel AS c ON c.source = p_source.source AND c.entity = p_entity AND c.channel = g.channel
    LEFT JOIN LATERAL (
        SELECT v.kind, v.format, v.value_column
        FROM pymig._value_columns(p_source) AS v
        CROSS JOIN LATERAL (SELECT CASE v.kind
            WHEN g.kind THEN 1
            WHEN c.kind THEN 2
            WHEN nullif(c.column_type, 'text') THEN 3
            WHEN 'text' THEN CASE WHEN c.kind IS NULL AND c.column_type = 'text' THEN 4 END
            ELSE CASE WHEN c.kind IS NULL AND c.column_type = 'text' THEN 5 END END) AS r (rank)
        WHERE r.rank IS NOT NULL AND pymig._fits_kind(g.value, v.kind)
        ORDER BY r.rank, v.format IS DISTINCT FROM g.format, v.ord
        LIMIT 1
    ) AS s ON true
$$;
COMMENT ON FUNCTION pymig._value_slots(pymig.source, text, text[], text[], text[], text[]) IS
    'Where the narrow table takes the values of these channels: value column and format. p_kinds, p_formats: of the narrow rows that are there now, NULL where there is none. kind NULL: a value that its channel can''t have.';

-- sql/core/functions/_value_tree_sql.sql
CREATE OR REPLACE FUNCTION pymig._value_tree_sql(p_ords int[], p_values text[])
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN cardinality(p_ords) <= 4 THEN
            (SELECT format('CASE c.ord %s END', string_agg(format('WHEN %s THEN %s', o.ord, o.value), ' ' ORDER BY o.ord)) FROM unnest(p_ords, p_values) AS o (ord, value))
        ELSE format('CASE WHEN c.ord <= %s THEN %s ELSE %s END', p_ords[cardinality(p_ords) / 2],
            pymig._value_tree_sql(p_ords[:cardinality(p_ords) / 2], p_values[:cardinality(p_ords) / 2]),
            pymig._value_tree_sql(p_ords[cardinality(p_ords) / 2 + 1:], p_values[cardinality(p_ords) / 2 + 1:]))
    END
$$;
COMMENT ON FUNCTION pymig._value_tree_sql(int[], text[]) IS
    'SQL expression: of ascending numbers that of c.ord, found by halving: ten comparisons for 1,000 columns, where a plain CASE takes 500.';

-- sql/core/functions/_verify_no_time_sql.sql
CREATE OR REPLACE FUNCTION pymig._verify_no_time_sql(p_source pymig.source, p_entity text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        'SELECT 0::bigint AS narrow_cells, CASE WHEN NOT EXISTS (SELECT FROM pymig.%1$I AS p WHERE p.kind <> ''key'' OR p.entity::text = %2$L AND p.time IS NULL)
             AND NOT EXISTS (SELECT FROM pymig.%3$I AS p WHERE p.entity = %2$L AND p.bucket = %4$s) THEN %5$s ELSE 0 END AS differences,
             NULL::jsonb AS sample, 0::bigint AS quarantine_off, false AS is_pending, 1::bigint AS buckets, %4$s AS bucket, 0::bigint AS cells, NULL::text AS digest',
        p_source.source || '_pending', p_entity, p_source.source || '_todo', (-9223372036854775807),
        pymig._quarantine_differences_sql(p_source, p_entity, (-9223372036854775807), (-9223372036854775807), format(
            'SELECT n.channel::text AS channel, n.time, n.fault AS reason, n.narrow_row FROM pymig.%I AS n WHERE n.entity = %L AND n.raw_time IS NULL',
            p_source.source || '_cell', p_entity)))
$$;
COMMENT ON FUNCTION pymig._verify_no_time_sql(pymig.source, text) IS
    'Like _verify_sql, for the rows that have no time: they have no wide side, only a place in quarantine.';

-- sql/core/functions/_verify_run.sql
CREATE OR REPLACE FUNCTION pymig._verify_run(p_source pymig.source, p_entity pymig.entity, p_first_bucket bigint, p_last_bucket bigint)
RETURNS boolean
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
BEGIN
    PERFORM pymig._require_read_committed();
    PERFORM pymig._require_same_entity(p_entity);
    PERFORM pymig._record_verification(c)
    FROM pymig._compare_buckets(p_source, p_entity.entity, p_first_bucket, p_last_bucket) AS c;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pymig._verify_run(pymig.source, pymig.entity, bigint, bigint) IS
    'Compares every cell of a run of buckets and records the result, if all of them are equal and nothing of them is pending. false: nothing was recorded; compare them one by one with verify_bucket.';

-- sql/core/functions/_verify_sql.sql
CREATE OR REPLACE FUNCTION pymig._verify_sql(p_source pymig.source, p_entity text, p_first_bucket bigint, p_last_bucket bigint)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_types text[] := pymig._column_types(p_source.source, p_entity);
    v_by_key boolean := p_source.reads_by_key;
    v_condition text := pymig._time_condition(p_source, 'n.raw_time', p_first_bucket, p_last_bucket, NULL, p_entity);
    v_leaves text := pymig._leaves_sql(p_source, 'n.raw_time', p_first_bucket, p_last_bucket);
    v_faults text := pymig._faults_sql(pymig._cells_sql(p_source, p_entity, v_condition, v_by_key, pymig._fault_columns(), v_leaves,
        v_by_key AND pymig._has_one_row_a_cell(p_source)));
    v_is_closed boolean := pymig._closed_sql(p_source, p_entity, 'n.raw_time', p_first_bucket, p_last_bucket) IS NOT NULL;
BEGIN
    RETURN format($sql$
        WITH %1$s, %2$s, span AS MATERIALIZED (%3$s), %4$s,
        digest AS MATERIALIZED (
            SELECT d.bucket, sum(d.filled)::bigint AS cells, md5(string_agg(d.hash, ',' ORDER BY d.ord)) AS digest
            FROM (SELECT c.ord, unnest(c.buckets) AS bucket, unnest(c.filled) AS filled, unnest(c.hashes) AS hash FROM compared AS c) AS d
            WHERE d.filled > 0 GROUP BY d.bucket
        ),
        bucket AS MATERIALIZED (SELECT DISTINCT s.bucket FROM span AS s),
        narrow_time AS MATERIALIZED (%5$s),
        difference AS MATERIALIZED (
            SELECT d.* FROM (%6$s) AS d (channel, time, narrow_value, wide_value)
            WHERE NOT EXISTS (SELECT FROM pymig.%7$I AS p WHERE p.kind <> 'key' OR p.entity::text = %9$L AND %10$s = d.time)
              AND NOT EXISTS (SELECT FROM pymig.%8$I AS p WHERE p.entity = %9$L AND p.bucket = %11$s
                  AND (p.times IS NULL OR EXISTS (SELECT FROM unnest(p.times) AS k (time) WHERE %12$s = d.time)))
        ),
        pending AS MATERIALIZED (
            SELECT EXISTS (SELECT FROM pymig.%7$I AS p WHERE p.kind <> 'key' OR p.entity::text = %9$L AND %13$s BETWEEN %14$s AND %15$s)
                OR EXISTS (SELECT FROM pymig.%8$I AS p WHERE p.entity = %9$L AND p.bucket BETWEEN %14$s AND %15$s) AS is_pending
        ),
        total AS MATERIALIZED (SELECT %16$s AS rows, coalesce(sum(g.filled), 0) AS filled, coalesce(sum(g.nulls), 0) AS nulls FROM gathered AS g)
        SELECT t.filled::bigint AS narrow_cells, (SELECT count(*) FROM difference) AS differences,
            (SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT d.* FROM difference AS d LIMIT 20) AS s) AS sample,
            (SELECT %17$s
             WHERE (t.rows <> t.filled + t.nulls%18$s OR EXISTS (
                     SELECT FROM pymig.quarantine AS q WHERE q.source = %19$L AND q.entity = %9$L AND q.bucket BETWEEN %14$s AND %15$s))
               AND NOT p.is_pending) AS quarantine_off,
            p.is_pending, count(*) OVER () AS buckets, b.bucket, coalesce(d.cells, 0) AS cells, coalesce(d.digest, md5('')) AS digest
        FROM total AS t CROSS JOIN pending AS p LEFT JOIN bucket AS b ON true LEFT JOIN digest AS d ON d.bucket = b.bucket
        $sql$,
        pymig._gathered_sql(p_source, p_entity, v_types, v_condition, v_by_key, v_leaves),
        pymig._wide_arrays_sql(p_source, p_entity, v_types, p_first_bucket, p_last_bucket),
        format('SELECT w.part, %s AS bucket, min(u.i)::int AS first, max(u.i)::int AS last, hash_array_extended(array_agg(u.time ORDER BY u.i), 0) AS hash
                FROM wide_time AS w CROSS JOIN LATERAL unnest(w.times) WITH ORDINALITY AS u (time, i) GROUP BY 1, 2', pymig._bucket_sql(p_source, 'u.time')),
        pymig._compared_sql(v_types),
        -- A channel that does not differ has the times of its part.
        CASE WHEN v_by_key THEN 'SELECT DISTINCT u.time FROM (
                SELECT DISTINCT c.narrow_times FROM compared AS c WHERE c.differs
                UNION ALL SELECT w.times FROM wide_time AS w WHERE EXISTS (SELECT FROM compared AS c WHERE c.part = w.part AND NOT c.differs)) AS g (times)
                CROSS JOIN LATERAL unnest(g.times) AS u (time)'
             ELSE 'SELECT DISTINCT x.time FROM cell AS x' END,
        pymig._differences_sql(p_source, p_entity, v_types, v_condition, v_by_key),
        p_source.source || '_pending', p_source.source || '_todo', p_entity,
        pymig._grain_sql(p_source, 'p.time'), pymig._bucket_sql(p_source, 'd.time'), pymig._grain_sql(p_source, 'k.time'),
        pymig._bucket_sql(p_source, 'p.time'), p_first_bucket, p_last_bucket,
        CASE WHEN v_by_key THEN 'coalesce(sum(g.rows), 0)' ELSE '(SELECT count(*) FROM cell AS x)' END,
        pymig._quarantine_differences_sql(p_source, p_entity, p_first_bucket, p_last_bucket, CASE WHEN v_is_closed
            THEN format('SELECT f.channel, f.time, f.reason, f.narrow_row FROM (%s) AS f UNION ALL %s',
                v_faults, pymig._closed_rows_sql(p_source, p_entity, p_first_bucket, p_last_bucket))
            ELSE v_faults END),
        CASE WHEN v_is_closed THEN ' OR true' ELSE '' END,
        p_source.source);
END
$$;
COMMENT ON FUNCTION pymig._verify_sql(pymig.source, text, bigint, bigint) IS
    'The statement that compares a run of buckets: narrow, wide and pending in one snapshot (R29), so that a difference whose key is not pending is real. It shares the cell expression with the pivots, but no pivot. Returns for the run narrow_cells, differences, a sample of them, by how many rows the quarantine is off (NULL: by none), is_pending; for each of its buckets that has wide rows: bucket, cells of the wide side, digest. At least one row.';

-- sql/core/functions/_void_certificate.sql
CREATE OR REPLACE FUNCTION pymig._void_certificate(p_source text, p_entity text, p_reason text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_entity text;
BEGIN
    FOR v_entity IN
        UPDATE pymig.certificate AS c SET voided_at = clock_timestamp(), void_reason = p_reason
        WHERE c.source = p_source AND c.entity = coalesce(p_entity, c.entity) AND c.voided_at IS NULL
        RETURNING c.entity
    LOOP
        PERFORM pymig._note('WARNING', p_source, v_entity, 'certificate void', format('Its certificate does not count any more: %s.', p_reason));
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig._void_certificate(text, text, text) IS 'Voids the certificates of an entity, or of all of a source, with an event.';

-- sql/core/functions/_wide_arrays_sql.sql
CREATE OR REPLACE FUNCTION pymig._wide_arrays_sql(p_source pymig.source, p_entity text, p_types text[], p_first_bucket bigint, p_last_bucket bigint)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH part AS (
        SELECT p.part, format('%I.%I AS w WHERE %s', p_source.wide_schema, p.wide_table,
            pymig._time_condition(p_source, format('w.%I', p_source.time_column), p_first_bucket, p_last_bucket, NULL, p_entity)) AS rows
        FROM pymig.part AS p
        WHERE p.source = p_source.source AND p.entity = p_entity
    ),
    -- The columns of a type by themselves: each is named once, and what a channel is not of is named once a type.
    turned AS (
        SELECT c.part, c.column_type, format('SELECT v.ord, %s FROM (VALUES %s) AS v (ord, cells)',
            (SELECT string_agg(CASE t.t WHEN c.column_type THEN 'v.cells' ELSE format('NULL::%s[]', t.t) END, ', ' ORDER BY t.i)
             FROM unnest(p_types) WITH ORDINALITY AS t (t, i)),
            string_agg(format('(%s, w."%1$s")', c.ord), ', ' ORDER BY c.ord)) AS query
        FROM pymig.channel AS c
        WHERE c.source = p_source.source AND c.entity = p_entity
        GROUP BY c.part, c.column_type
    )
    SELECT format(
        'wide_time AS MATERIALIZED (%s), wide AS NOT MATERIALIZED (%s)',
        string_agg(format('SELECT %s AS part, array_agg(w.%I ORDER BY w.%2$I) AS times FROM %s', p.part, p_source.time_column, p.rows), ' UNION ALL ' ORDER BY p.part),
        -- All columns of a part are one row, which nobody keeps: a copy of it would be all cells once more.
        string_agg(format('SELECT %s AS part, v.* FROM (SELECT %s FROM (SELECT w.* FROM %s ORDER BY w.%I) AS w) AS w CROSS JOIN LATERAL (%s) AS v (ord, %s)',
            p.part,
            (SELECT string_agg(format('array_agg(w.%I) AS "%s"', c.wide_column, c.ord), ', ' ORDER BY c.ord)
             FROM pymig.channel AS c WHERE c.source = p_source.source AND c.entity = p_entity AND c.part = p.part),
            p.rows, p_source.time_column,
            (SELECT string_agg(t.query, ' UNION ALL ' ORDER BY t.column_type) FROM turned AS t WHERE t.part = p.part),
            (SELECT string_agg('cells_' || t.t, ', ' ORDER BY t.i) FROM unnest(p_types) WITH ORDINALITY AS t (t, i))), ' UNION ALL ' ORDER BY p.part))
    FROM part AS p
$$;
COMMENT ON FUNCTION pymig._wide_arrays_sql(pymig.source, text, text[], bigint, bigint) IS
    'CTEs of a run of buckets: wide_time, the times of each part as an array in time order (part, times); wide, a row for each channel: part, ord and, in the column cells_<type> of its own type, its cells in the same order.';

-- sql/core/functions/_wide_leaves.sql
CREATE OR REPLACE FUNCTION pymig._wide_leaves(p_source pymig.source, p_entity text, OUT part int, OUT wide_table text, OUT leaf regclass)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.part, p.wide_table, coalesce(i.inhrelid, t.relation)::regclass
    FROM pymig.part AS p
    CROSS JOIN LATERAL (SELECT to_regclass(format('%I.%I', p_source.wide_schema, p.wide_table)) AS relation) AS t
    LEFT JOIN pg_inherits AS i ON i.inhparent = t.relation AND NOT i.inhdetachpending
    WHERE p.source = p_source.source AND p.entity = p_entity
    ORDER BY p.part, i.inhrelid
$$;
COMMENT ON FUNCTION pymig._wide_leaves(pymig.source, text) IS
    'The tables that hold the rows of an entity''s wide tables: these themselves, or their partitions.';

-- sql/core/functions/_wide_months.sql
CREATE OR REPLACE FUNCTION pymig._wide_months(
    p_source pymig.source, p_entity text, OUT wide_table text, OUT partition regclass, OUT from_sql text, OUT first_tick bigint, OUT last_tick bigint)
RETURNS SETOF record
LANGUAGE sql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
    SELECT p.wide_table, c.oid::regclass, b.bounds[1],
        pymig._bound_tick(b.bounds[1], p_source.time_type, false), pymig._bound_tick(b.bounds[2], p_source.time_type, true)
    FROM pymig.part AS p JOIN pymig.entity AS e USING (source, entity)
    -- The first part is not renamed before the second one is complete.
    JOIN pg_inherits AS i ON NOT i.inhdetachpending AND i.inhparent = coalesce(
        to_regclass(format('%I.%I', p_source.wide_schema, p.wide_table)), CASE p.part WHEN 1 THEN to_regclass(format('%I.%I', p_source.wide_schema, e.wide_table)) END)
    JOIN pg_class AS c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL (SELECT regexp_match(pg_get_expr(c.relpartbound, c.oid), '^FOR VALUES FROM \((.+)\) TO \((.+)\)$')) AS b (bounds)
    WHERE p.source = p_source.source AND p.entity = p_entity
$$;
COMMENT ON FUNCTION pymig._wide_months(pymig.source, text) IS
    'The partitions of an entity''s wide tables by month: none where they are not partitioned. from_sql: lower bound; first_tick and last_tick: inclusive.';

-- sql/core/functions/_wide_table_name.sql
CREATE OR REPLACE FUNCTION pymig._wide_table_name(p_source pymig.source, p_entity text)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Room for the suffix of a part.
    c_bytes constant int := 58;
    v_wished text := replace(replace(p_source.wide_name, '{table}', (SELECT c.relname FROM pg_class AS c WHERE c.oid = p_source.narrow)),
        '{entity}', lower(p_entity));
    v_name text;
BEGIN
    FOREACH v_name IN ARRAY ARRAY[v_wished, pymig._cut_name(v_wished, c_bytes, p_entity)] LOOP
        CONTINUE WHEN octet_length(v_name) > c_bytes;
        IF NOT EXISTS (
            SELECT FROM (
                SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = p_source.wide_schema
                UNION ALL
                SELECT e.wide_table FROM pymig.entity AS e JOIN pymig.source AS s USING (source)
                WHERE s.wide_schema = p_source.wide_schema AND e.wide_table IS NOT NULL AND (e.source, e.entity) <> (p_source.source, p_entity)
            ) AS t (name)
            WHERE t.name = v_name
                OR (starts_with(t.name, v_name || '_') AND substr(t.name, length(v_name) + 2) ~ '^[0-9]+$')
                OR (starts_with(v_name, t.name || '_') AND substr(v_name, length(t.name) + 2) ~ '^[0-9]+$'
                    AND EXISTS (SELECT FROM pymig.entity AS e WHERE e.wide_table = t.name))
        ) THEN
            RETURN v_name;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'the wide table of % would be %.%, and that name is taken', quote_literal(p_entity), p_source.wide_schema, quote_ident(v_wished)
        USING ERRCODE = 'PM014', HINT = 'Rename or drop that relation, or choose another p_wide_name or p_wide_schema for the source.';
END
$$;
COMMENT ON FUNCTION pymig._wide_table_name(pymig.source, text) IS
    'Name for an entity''s wide table: by the source''s pattern, with a hash where that is too long or taken. PM014 where both are taken.';

-- sql/core/functions/_write_cells.sql
CREATE OR REPLACE FUNCTION pymig._write_cells(
    p_source pymig.source, p_entity text, p_view regclass, p_time text, p_old json, p_new json,
    p_present text[], p_formats text[], p_channels text[], p_kinds text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_changed record;
    v_slots record;
    v_columns text := (SELECT string_agg(quote_ident(c.name), ', ' ORDER BY c.i) FROM pymig._slot_columns(p_source) AS c);
    v_values text := (SELECT string_agg(c.value, ', ' ORDER BY c.i) FROM pymig._slot_columns(p_source) AS c);
    v_sets text := (SELECT string_agg(format('%I = %s', c.name, c.value), ', ' ORDER BY c.i) FROM pymig._slot_columns(p_source) AS c);
BEGIN
    SELECT array_agg(n.channel) FILTER (WHERE n.value IS NULL) AS gone,
        array_agg(n.channel ORDER BY n.channel) FILTER (WHERE n.value IS NOT NULL) AS channels,
        array_agg(k.kind ORDER BY n.channel) FILTER (WHERE n.value IS NOT NULL) AS kinds,
        array_agg(p.format ORDER BY n.channel) FILTER (WHERE n.value IS NOT NULL) AS formats,
        array_agg(n.value ORDER BY n.channel) FILTER (WHERE n.value IS NOT NULL) AS cells
    INTO v_changed
    FROM pymig._row_cells(p_source.source, p_entity, p_new) AS n
    LEFT JOIN pymig._row_cells(p_source.source, p_entity, p_old) AS o ON o.channel = n.channel
    LEFT JOIN unnest(p_present, p_formats) AS p (channel, format) ON p.channel = n.channel
    LEFT JOIN unnest(p_channels, p_kinds) AS k (channel, kind) ON k.channel = n.channel
    WHERE n.value IS DISTINCT FROM o.value;
    IF p_old IS NULL AND v_changed.channels IS NULL THEN
        RAISE EXCEPTION 'a row of % needs at least one value', p_view
            USING ERRCODE = 'PM062', HINT = 'A time without a value is nothing the narrow table could hold.';
    END IF;
    SELECT array_agg(s.channel) AS channels, array_agg(s.format) AS formats, array_agg(s.value_column) AS value_columns, array_agg(s.value) AS cells,
        min(format('%s of %s', quote_literal(s.value), quote_literal(s.channel))) FILTER (WHERE s.kind IS NULL) AS misfit
    INTO v_slots
    FROM pymig._value_slots(p_source, p_entity, v_changed.channels, v_changed.kinds, v_changed.formats, v_changed.cells) AS s;
    IF v_slots.misfit IS NOT NULL THEN
        RAISE EXCEPTION '% can''t be a value of that channel', v_slots.misfit
            USING ERRCODE = 'PM062', HINT = 'Look up what the channel holds: SELECT * FROM pymig.channel. Values of another type go to the narrow table, by type_drift.';
    END IF;
    PERFORM pymig._delete_cells(p_source, p_entity, p_time, v_changed.gone);
    EXECUTE format('UPDATE %s AS n SET %s FROM unnest($4, $5, $6, $7) AS f (channel, format, value_column, value) WHERE %s AND n.%I::text = f.channel',
        p_source.narrow, v_sets, pymig._row_condition(p_source), p_source.channel_column)
    USING p_entity, p_time, p_present, v_slots.channels, v_slots.formats, v_slots.value_columns, v_slots.cells;
    EXECUTE format(
        'INSERT INTO %s (%I, %I, %I, %s)
         SELECT $1::%s, f.channel::%s, $2::%s, %s
         FROM unnest($4, $5, $6, $7) AS f (channel, format, value_column, value) WHERE f.channel <> ALL ($3)',
        p_source.narrow, p_source.entity_column, p_source.channel_column, p_source.time_column, v_columns,
        pymig._type_name(p_source, p_source.entity_column), pymig._type_name(p_source, p_source.channel_column), p_source.time_type, v_values)
    USING p_entity, p_time, p_present, v_slots.channels, v_slots.formats, v_slots.value_columns, v_slots.cells;
END
$$;
COMMENT ON FUNCTION pymig._write_cells(pymig.source, text, regclass, text, json, json, text[], text[], text[], text[]) IS
    'Writes what differs between two forms of a wide row to the narrow table: values are updated where their channel has a row at that time and inserted where it has none, NULL deletes it. The arrays are those of _narrow_row. PM062 for a value its channel can''t have, and for a new row without any.';

-- sql/core/functions/_write_wide.sql
CREATE OR REPLACE FUNCTION pymig._write_wide()
RETURNS trigger
LANGUAGE plpgsql
-- Whoever may write the view need not be able to write the narrow table, nor to read the catalog.
SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_source pymig.source := pymig._source(TG_ARGV[0]);
    v_entity text := TG_ARGV[1];
    v_old json := CASE WHEN TG_OP <> 'INSERT' THEN row_to_json(OLD) END;
    v_new json := CASE WHEN TG_OP <> 'DELETE' THEN row_to_json(NEW) END;
    v_time text := coalesce(v_old, v_new) ->> v_source.time_column;
    v_new_time text := coalesce(v_new, v_old) ->> v_source.time_column;
    -- A view reaches the channels it shows, and no others.
    v_channels text[] := ARRAY(SELECT c.channel FROM pymig._row_cells(v_source.source, v_entity, coalesce(v_old, v_new)) AS c);
    v_found record;
    v_is_taken boolean;
BEGIN
    PERFORM pymig._require_writable(v_source, v_entity, TG_RELID::regclass, ARRAY[v_time, v_new_time]);
    PERFORM pymig._lock_rows(v_source, v_entity, ARRAY[v_time, v_new_time]);
    v_found := pymig._narrow_row(v_source, v_entity, v_time, v_channels);
    v_is_taken := CASE WHEN TG_OP = 'INSERT' THEN v_found.present <> '{}'
                       WHEN v_new_time <> v_time THEN (pymig._narrow_row(v_source, v_entity, v_new_time, v_channels)).present <> '{}' END;
    IF v_is_taken THEN
        RAISE EXCEPTION '% already has a row at %', TG_RELID::regclass, v_new_time
            USING ERRCODE = '23505', HINT = 'Update it. If it is not to be seen there yet, its narrow rows have just been written.';
    END IF;
    IF TG_OP <> 'INSERT' AND EXISTS (
        SELECT FROM pymig._row_cells(v_source.source, v_entity, v_old) AS o
        FULL JOIN unnest(v_found.channels, v_found.cells) AS f (channel, value) ON f.channel = o.channel
        WHERE o.value IS DISTINCT FROM f.value) THEN
        RAISE EXCEPTION 'the row of % at % has changed meanwhile', TG_RELID::regclass, v_time
            USING ERRCODE = '40001', HINT = 'Read it again and repeat the transaction; sync shows the change in a moment.';
    END IF;
    IF TG_OP = 'DELETE' THEN
        PERFORM pymig._delete_cells(v_source, v_entity, v_time, v_channels);
        RETURN OLD;
    END IF;
    IF v_new_time <> v_time THEN
        PERFORM pymig._move_cells(v_source, v_entity, v_time, v_new_time, v_channels);
    END IF;
    PERFORM pymig._write_cells(v_source, v_entity, TG_RELID::regclass, v_new_time, v_old, v_new,
        v_found.present, v_found.formats, v_found.channels, v_found.kinds);
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION pymig._write_wide() FROM PUBLIC;
COMMENT ON FUNCTION pymig._write_wide() IS
    'INSTEAD OF trigger of the views that end in _rw: writes the row''s cells to the narrow table, from where sync brings them into the wide table. Arguments: source, entity. OLD is compared with what the narrow table has now: 40001 where that differs, 23505 where an inserted time is there already.';

-- sql/core/functions/analyze.sql
CREATE OR REPLACE FUNCTION pymig.analyze(
    p_entity text, p_source text DEFAULT NULL, p_column_types text DEFAULT NULL, p_sample int DEFAULT 8, p_budget interval DEFAULT '20 s',
    p_allow_scan boolean DEFAULT false, OUT entity text, OUT item text, OUT level text, OUT value text, OUT advice text, OUT detail jsonb)
RETURNS SETOF record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    -- Rows of an hour that are counted, and rows of a bucket that are looked at; 10 million take a few seconds, 100,000 less than one.
    c_counted constant bigint := 10000000;
    c_looked_at constant bigint := 100000;
    v_source pymig.source := pymig._source(p_source);
    v_began timestamptz := clock_timestamp();
    v_fault record;
    v_layout jsonb;
    v_hours jsonb;
    v_share double precision;
BEGIN
    SELECT u.* INTO v_fault FROM pymig._unreadable(v_source) AS u;
    IF v_fault.fault IS NOT NULL THEN
        RETURN QUERY SELECT p_entity, 'data', 'red', v_fault.fault, v_fault.advice, NULL::jsonb;
        RETURN;
    END IF;
    entity := pymig._canonical_entity(v_source, p_entity);
    BEGIN
        v_layout := (SELECT coalesce(jsonb_agg(to_jsonb(l)), '[]') FROM pymig._layout(v_source, entity, coalesce(p_column_types, v_source.column_types), p_allow_scan) AS l);
    EXCEPTION
        WHEN SQLSTATE 'PM010' THEN
            v_layout := NULL;
    END;
    RETURN QUERY SELECT entity, l.* FROM pymig._analyze_layout(v_source, entity, v_layout) AS l;
    FOR item, level, value, advice, detail IN
        SELECT v.* FROM pymig._analyze_volume(v_source, entity, v_layout, c_counted, v_began + p_budget / 2) AS v
    LOOP
        v_hours := coalesce(v_hours, detail -> 'hours');
        RETURN NEXT;
    END LOOP;
    v_share := (SELECT least(1, c_looked_at * pymig._ticks_of('1 hour', v_source.time_type, v_source.time_unit)::double precision
                                / (greatest(max(h.rows), 1) * v_source.bucket_ticks::double precision))
                FROM jsonb_to_recordset(v_hours) AS h (rows bigint));
    RETURN QUERY
    SELECT entity, q.*
    FROM pymig._analyze_quality(v_source, entity, v_layout, greatest(p_sample, 1), coalesce(v_share, 1), c_looked_at, v_began + p_budget) AS q;
END
$$;
COMMENT ON FUNCTION pymig.analyze(text, text, text, int, interval, boolean) IS
    'What there is to know about an entity before it is migrated: rows, times, channels, rows of each hour of the last day, growth, and, in a sample of its buckets, what would go to quarantine and why. Level as in precheck; detail: the figures. Reads only, and never the whole table. p_sample: buckets that are looked at, half of them the newest, half at random; p_budget: after this time no further hour or bucket is begun. Example: SELECT * FROM pymig.analyze(''SHIP1'')';

-- sql/core/functions/backfill_chunk.sql
CREATE OR REPLACE FUNCTION pymig.backfill_chunk(
    p_entity text, p_source text DEFAULT NULL, p_workers int DEFAULT 1, p_strategy text DEFAULT NULL, p_target interval DEFAULT NULL,
    OUT outcome text, OUT chunk bigint, OUT narrow_rows bigint, OUT seconds double precision, OUT held_up_by text)
RETURNS record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity pymig.entity := pymig._entity(v_source.source, p_entity);
    v_chunk pymig.chunk;
BEGIN
    PERFORM pymig._require_read_committed();
    IF pymig._is_backfilled(v_entity.state) THEN
        outcome := 'done';
        RETURN;
    END IF;
    held_up_by := pymig.held_up_by(p_entity, v_source.source);
    IF held_up_by IS NOT NULL THEN
        outcome := 'held';
        RETURN;
    END IF;
    SELECT c.* INTO v_chunk
    FROM pymig.chunk AS c
    WHERE c.source = v_source.source AND c.entity = p_entity AND c.state = 'planned'
      AND (c.retry_at IS NULL OR c.retry_at <= clock_timestamp())
    ORDER BY c.first_bucket
    LIMIT 1
    FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        v_chunk := pymig._move_chunk(v_source, v_entity, pymig._fit_chunk(v_source, v_chunk, p_target), p_strategy);
        outcome := CASE v_chunk.state WHEN 'done' THEN 'moved' ELSE 'retry' END;
        chunk := v_chunk.chunk;
        narrow_rows := v_chunk.narrow_rows;
        seconds := v_chunk.seconds;
    ELSIF v_entity.next_bucket IS NOT NULL THEN
        -- Whoever waited for another's deal has its chunks to take as well.
        PERFORM pymig._deal_chunks(v_source, p_entity, p_workers, p_target);
        outcome := 'dealt';
    ELSE
        outcome := pymig._finish_backfill(v_source.source, p_entity);
    END IF;
END
$$;
COMMENT ON FUNCTION pymig.backfill_chunk(text, text, int, text, interval) IS
    'Does one step of the backfill in the caller''s transaction; run it in autocommit, from as many sessions as you like. p_workers: how many they are, so that the last chunks are dealt in equal shares. p_strategy, p_target: with which strategy and how long a chunk should take, where nobody set it. outcome: moved (a chunk: its number, narrow rows, seconds), dealt (look again: new chunks, or the end), retry (a chunk failed or met a new channel, and is tried again), wait (others hold the last chunks), held (paused or throttled: held_up_by says by what), failed (chunks are left that failed for good), done. PM064 where the work was cancelled.';

-- sql/core/functions/bucket_of.sql
CREATE OR REPLACE FUNCTION pymig.bucket_of(p_tick bigint, p_bucket_ticks bigint)
RETURNS bigint
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
    -- NULL for NULL, but not STRICT, which would keep it from being inlined.
    SELECT CASE
        WHEN p_tick IN (9223372036854775807, -9223372036854775808) THEN p_tick
        ELSE p_tick / p_bucket_ticks - (p_tick % p_bucket_ticks < 0)::int
    END
$$;
COMMENT ON FUNCTION pymig.bucket_of(bigint, bigint) IS
    'Bucket of a tick: floor(tick / width). The two infinities are buckets of their own.';

-- sql/core/functions/certificate_fault.sql
CREATE OR REPLACE FUNCTION pymig.certificate_fault(p_entity text, p_source text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_certificate pymig.certificate;
BEGIN
    SELECT c.* INTO v_certificate FROM pymig.certificate AS c
    WHERE c.source = v_source.source AND c.entity = p_entity ORDER BY c.certificate DESC LIMIT 1;
    RETURN CASE
        WHEN v_certificate.certificate IS NULL THEN 'it was never certified'
        WHEN v_certificate.voided_at IS NOT NULL THEN v_certificate.void_reason
        WHEN v_certificate.certified_at < clock_timestamp() - v_source.certificate_age
            THEN format('it was certified at %s, longer ago than %s', v_certificate.certified_at, v_source.certificate_age)
        WHEN pymig._trigger_state(v_source.narrow) <> 'armed' THEN 'the triggers are not as installed, so changes may be missing'
        WHEN pymig._has_lost_keys(v_source) OR EXISTS (
            SELECT FROM pymig.entity AS e WHERE e.source = v_source.source AND e.entity = p_entity AND e.repair_from IS NOT NULL)
            THEN 'keys were lost, and the worker has not yet repaired what they stood for'
        WHEN v_certificate.code_hash <> pymig._code_hash(v_source) THEN 'the triggers or the code behind them have changed since'
    END;
END
$$;
COMMENT ON FUNCTION pymig.certificate_fault(text, text) IS
    'Why the newest certificate of an entity does not count any more, or NULL where it does: never given, voided, too old, triggers not as installed, keys lost, code changed. New rows are no reason: sync carries them, and the worker verifies their buckets again. Example: SELECT pymig.certificate_fault(''SHIP1'')';

-- sql/core/functions/controls.sql
CREATE OR REPLACE FUNCTION pymig.controls(
    p_role name DEFAULT current_user, OUT control text, OUT is_there boolean, OUT may boolean)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.control, p.oid IS NOT NULL,
        coalesce(has_schema_privilege(r.oid, 'pymig', 'USAGE') AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
            AND has_any_column_privilege(r.oid, c.relation, 'UPDATE') AND has_any_column_privilege(r.oid, 'pymig.event', 'INSERT'), false)
    FROM (VALUES ('pause', 'pymig.entity'), ('resume', 'pymig.entity'), ('cancel', 'pymig.entity'),
        ('set_workers', 'pymig.source'), ('set_chunk_target', 'pymig.source'), ('set_priority', 'pymig.entity'), ('set_throttle', 'pymig.throttle'),
        ('set_alert', 'pymig.alert')) AS c (control, relation)
    LEFT JOIN pg_proc AS p ON p.pronamespace = 'pymig'::regnamespace AND p.proname = c.control AND p.prokind = 'p'
    LEFT JOIN pg_roles AS r ON r.rolname = p_role
$$;
COMMENT ON FUNCTION pymig.controls(name) IS
    'The procedures by which a running migration is controlled: whether this version has them, and whether a role may use them. What is asked here is a hint for buttons; what is allowed the CALL itself decides. Example: SELECT * FROM pymig.controls(''operator'')';

-- sql/core/functions/discover_entities.sql
CREATE OR REPLACE FUNCTION pymig.discover_entities(
    p_source text DEFAULT NULL, p_allow_scan boolean DEFAULT false, OUT entity text)
RETURNS SETOF text
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
BEGIN
    IF pymig._leads_with(v_source.narrow, v_source.entity_column) THEN
        RETURN QUERY EXECUTE format('WITH RECURSIVE loose(value) AS (%s) SELECT l.value::text FROM loose AS l WHERE l.value IS NOT NULL',
            pymig._loose_scan_sql(v_source, 'entity', 'true'));
    ELSE
        PERFORM pymig._refuse_long_scan(v_source, p_allow_scan, 'entities');
        RETURN QUERY EXECUTE format('SELECT DISTINCT n.entity::text FROM pymig.%I AS n WHERE n.entity IS NOT NULL', v_source.source || '_cell');
    END IF;
END
$$;
COMMENT ON FUNCTION pymig.discover_entities(text, boolean) IS
    'All entities of a source, complete: by a loose index scan (milliseconds) where an index leads with the entity, else by a scan (PM010 if that takes over a minute and is not allowed).';

-- sql/core/functions/event_counts.sql
CREATE OR REPLACE FUNCTION pymig.event_counts(OUT level text, OUT events bigint)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.level, count(e.event)
    FROM unnest('{INFO,WARNING,CRITICAL}'::text[]) AS l (level) LEFT JOIN pymig.event AS e ON e.level = l.level
    GROUP BY l.level
$$;
COMMENT ON FUNCTION pymig.event_counts() IS 'How many events of each level there have been, 0 too: for counters that rise from the start.';

-- sql/core/functions/events_to_tell.sql
CREATE OR REPLACE FUNCTION pymig.events_to_tell(
    p_target text, p_level text, p_quiet interval DEFAULT '10 minutes',
    OUT source text, OUT entity text, OUT what text, OUT times bigint, OUT first_at timestamptz, OUT last_at timestamptz, OUT detail text, OUT events bigint[])
RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO pymig.alert_target (target, level) VALUES (p_target, p_level) ON CONFLICT DO NOTHING;
    DELETE FROM pymig.told AS t WHERE t.target = p_target AND t.level = p_level AND t.told_at < clock_timestamp() - interval '7 days';
    RETURN QUERY
    WITH known AS (
        SELECT e.event, e.source, e.entity, e.what, e.happened_at, e.detail, t.told_at
        FROM pymig.alert_target AS a
        JOIN pymig.event AS e ON e.level = a.level AND e.happened_at >= greatest(a.since, clock_timestamp() - interval '6 days')
        LEFT JOIN pymig.told AS t ON t.target = a.target AND t.level = a.level AND t.event = e.event
        WHERE a.target = p_target AND a.level = p_level
    )
    SELECT k.source, k.entity, k.what, count(*) FILTER (WHERE k.told_at IS NULL), min(k.happened_at) FILTER (WHERE k.told_at IS NULL),
        max(k.happened_at) FILTER (WHERE k.told_at IS NULL),
        (array_agg(k.detail ORDER BY k.event DESC) FILTER (WHERE k.told_at IS NULL))[1], array_agg(k.event) FILTER (WHERE k.told_at IS NULL)
    FROM known AS k
    GROUP BY k.source, k.entity, k.what
    -- What was told a moment ago is not told again, but counted.
    HAVING count(*) FILTER (WHERE k.told_at IS NULL) > 0 AND coalesce(max(k.told_at), '-infinity') < clock_timestamp() - p_quiet
    ORDER BY min(k.event) FILTER (WHERE k.told_at IS NULL);
END
$$;
COMMENT ON FUNCTION pymig.events_to_tell(text, text, interval) IS
    'Events of a level a target was not told yet, those of a kind and ship together: how many, the detail of the newest, their numbers. A kind it was told less than p_quiet ago waits. Asking for the first time makes the target known; it is told what happens from then on. For pymig notify, or a notifier of your own.';

-- sql/core/functions/figures.sql
CREATE OR REPLACE FUNCTION pymig.figures(
    OUT rows_done numeric, OUT bytes_done numeric, OUT pending numeric, OUT sync_lag interval, OUT sync_lag_p99 interval,
    OUT quarantined numeric, OUT failed_chunks numeric, OUT problems bigint, OUT wal_bytes numeric, OUT database_bytes bigint)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH source AS (
        SELECT s.source, pymig._table_bytes(s.narrow) / nullif(t.tuples, 0) AS row_bytes
        FROM pymig.source AS s CROSS JOIN LATERAL pymig._narrow_tuples(s.narrow) AS t
    )
    SELECT coalesce(sum(s.rows_done), 0), sum(s.rows_done * r.row_bytes), sum(s.pending), max(s.sync_lag), max(s.sync_lag_p99),
        coalesce(sum(s.quarantined), 0), coalesce(sum(s.failed_chunks), 0),
        (SELECT count(*) FROM pymig.event AS e WHERE e.level <> 'INFO'),
        pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END, '0/0'),
        pg_database_size(current_database())
    FROM pymig.status AS s JOIN source AS r USING (source)
$$;
COMMENT ON FUNCTION pymig.figures() IS
    'The figures of a database for a chart over time. rows_done, problems (WARNING and CRITICAL events) and wal_bytes (of the whole server) rise: their increase a second is a rate. bytes_done is the narrow bytes of rows_done by today''s average row; NULL without statistics. Example: SELECT * FROM pymig.figures()';

-- sql/core/functions/fleet_settings.sql
CREATE OR REPLACE FUNCTION pymig.fleet_settings(p_source text DEFAULT NULL, OUT entity text, OUT workers int, OUT held_up_by text)
RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
BEGIN
    PERFORM pymig.look_at_throttle();
    -- Whoever is cancelled does not wait: the command that asks next is to end.
    RETURN QUERY
    SELECT NULL::text, v_source.workers, CASE WHEN NOT v_source.is_cancelled THEN pymig._held_up(v_source.source, NULL) END
    UNION ALL
    SELECT e.entity, e.workers, CASE WHEN e.paused_at IS NOT NULL AND NOT (e.is_cancelled OR v_source.is_cancelled) THEN pymig._held_up(e.source, e.entity) END
    FROM pymig.entity AS e
    WHERE e.source = v_source.source AND (e.workers IS NOT NULL OR e.paused_at IS NOT NULL);
END
$$;
COMMENT ON FUNCTION pymig.fleet_settings(text) IS
    'What a command that moves many entities heeds while it runs, asked twice a second: of the source (entity NULL) and of entities for which something is set, how many workers (set_workers), and why their history has to wait. NULL: as the command was started, it need not.';

-- sql/core/functions/held_up_by.sql
CREATE OR REPLACE FUNCTION pymig.held_up_by(p_entity text, p_source text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source text := (pymig._source(p_source)).source;
BEGIN
    IF pymig._is_cancelled(v_source, p_entity) THEN
        RAISE EXCEPTION 'the work on % was %', quote_literal(p_entity), pymig._held_up(v_source, p_entity)
            USING ERRCODE = 'PM064', HINT = format('What is done stays. CALL pymig.resume(%L) takes that back; then the same command goes on where it stopped.', p_entity);
    END IF;
    RETURN pymig._has_to_wait(v_source, p_entity);
END
$$;
COMMENT ON FUNCTION pymig.held_up_by(text, text) IS
    'Why the history of an entity has to wait just now (paused, throttled), the throttle measured anew; NULL: it need not. Asked by commands before they begin with an entity, and before each chunk and bucket. PM064 where the work was cancelled. Example: SELECT pymig.held_up_by(''SHIP1'')';

-- sql/core/functions/index_statements.sql
CREATE OR REPLACE FUNCTION pymig.index_statements(p_entity text, p_channels text[] DEFAULT NULL, p_source text DEFAULT NULL, p_covering boolean DEFAULT false)
RETURNS SETOF text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity pymig.entity := pymig._entity(v_source.source, pymig._canonical_entity(v_source, p_entity));
    v_missing text;
    -- INDEX_MAX_KEYS is 32 unless the server was built otherwise, and the time is one of them.
    c_most constant int := 31;
    v_text text;
BEGIN
    IF p_channels IS NULL THEN
        RETURN QUERY
        SELECT format('REINDEX TABLE CONCURRENTLY %I.%I', v_source.wide_schema, p.wide_table)
        FROM pymig.part AS p WHERE p.source = v_source.source AND p.entity = v_entity.entity ORDER BY p.part;
        RETURN;
    END IF;
    SELECT a.channel INTO v_missing FROM unnest(p_channels) AS a (channel)
    WHERE NOT EXISTS (SELECT FROM pymig.channel AS c WHERE c.source = v_source.source AND c.entity = v_entity.entity AND c.channel = a.channel);
    IF FOUND THEN
        RAISE EXCEPTION '% has no channel %', quote_literal(v_entity.entity), quote_nullable(v_missing)
            USING ERRCODE = 'PM007', HINT = 'Its channels: SELECT channel FROM pymig.channel_map.';
    END IF;
    IF p_covering AND (SELECT max(p.channels) > c_most FROM (
        SELECT count(*) AS channels FROM pymig.channel AS c
        WHERE c.source = v_source.source AND c.entity = v_entity.entity AND c.channel = ANY (p_channels) GROUP BY c.part) AS p) THEN
        RAISE EXCEPTION 'a covering index has room for % channels', c_most
            USING ERRCODE = 'PM007', HINT = 'Name those that are read most, or make several.';
    END IF;
    SELECT c.channel INTO v_text FROM pymig.channel AS c
    WHERE p_covering AND c.source = v_source.source AND c.entity = v_entity.entity AND c.channel = ANY (p_channels) AND c.column_type NOT IN ('float8', 'int8', 'bool') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a covering index can''t hold %: its values have no fixed length', quote_literal(v_text)
            USING ERRCODE = 'PM007', HINT = 'One that is too long for the index could not be written any more. Cover channels of numbers in native columns.';
    END IF;
    RETURN QUERY
    WITH asked AS (
        SELECT c.part, c.ord, c.wide_column FROM pymig.channel AS c
        WHERE c.source = v_source.source AND c.entity = v_entity.entity AND c.channel = ANY (p_channels)),
    index AS (
        SELECT a.part, a.ord, a.wide_column AS seed, format('(%I)', a.wide_column) AS columns FROM asked AS a WHERE NOT p_covering
        UNION ALL
        SELECT a.part, min(a.ord), string_agg(quote_ident(a.wide_column), ',' ORDER BY a.ord) || ' covered',
            format('(%I) INCLUDE (%s)', v_source.time_column, string_agg(quote_ident(a.wide_column), ', ' ORDER BY a.ord))
        FROM asked AS a WHERE p_covering GROUP BY a.part),
    wanted AS (
        -- A name of its own for each, short enough to stay whole.
        SELECT i.ord, l.leaf, w.wide_table, w.is_monthly, i.columns, w.name,
            CASE WHEN w.is_monthly THEN format('%s_%s_idx', left(md5(l.leaf::text), 8), left(md5(i.seed), 12)) ELSE w.name END AS leaf_name
        FROM index AS i
        JOIN pymig._wide_leaves(v_source, v_entity.entity) AS l USING (part)
        CROSS JOIN LATERAL (
            SELECT format('%I.%I', v_source.wide_schema, l.wide_table) AS wide_table, l.leaf <> to_regclass(format('%I.%I', v_source.wide_schema, l.wide_table)) AS is_monthly,
                format('%s_%s_idx', left(md5(l.wide_table), 8), left(md5(i.seed), 12)) AS name) AS w)
    SELECT s.statement
    FROM (
        -- Of a partitioned table: its own one first, which is valid once it has that of each partition. Months to come have it from the start.
        SELECT DISTINCT w.ord, 0 AS step, '' AS leaf, format('CREATE INDEX IF NOT EXISTS %I ON ONLY %s %s', w.name, w.wide_table, w.columns) AS statement
        FROM wanted AS w WHERE w.is_monthly
        UNION ALL
        SELECT w.ord, 1, w.leaf::text, s.statement
        FROM wanted AS w
        CROSS JOIN LATERAL (
            -- What an attempt left behind that was broken off; IF NOT EXISTS would take it for done.
            SELECT 1, format('DROP INDEX CONCURRENTLY %I.%I', v_source.wide_schema, w.leaf_name)
            FROM pg_index AS i WHERE i.indexrelid = to_regclass(format('%I.%I', v_source.wide_schema, w.leaf_name)) AND NOT i.indisvalid
            UNION ALL
            SELECT 2, format('CREATE INDEX CONCURRENTLY IF NOT EXISTS %I ON %s %s', w.leaf_name, w.leaf, w.columns)
            UNION ALL
            SELECT 3, format('ALTER INDEX %1$I.%2$I ATTACH PARTITION %1$I.%3$I', v_source.wide_schema, w.name, w.leaf_name) WHERE w.is_monthly
        ) AS s (step, statement)
    ) AS s
    ORDER BY s.ord, s.step, s.leaf, s.statement LIKE 'ALTER%', s.statement LIKE 'CREATE%';
END
$$;
COMMENT ON FUNCTION pymig.index_statements(text, text[], text, boolean) IS
    'Statements that index channels of an entity''s wide tables while they are read and written, or (p_channels NULL) rebuild the indexes these have. They cannot run in a transaction, so no CALL can do it: run them with \gexec, or by pymig tune. p_covering: one index by time a part that holds these channels, up to 31 of numbers, so that their series are read from it alone. An index costs each rewritten wide row. PM007 for an unknown channel, one of text, or too many. Example: SELECT * FROM pymig.index_statements(''SHIP1'', ''{/main/temp}'') \gexec';

-- sql/core/functions/keep_trial.sql
CREATE OR REPLACE FUNCTION pymig.keep_trial(
    p_entity text, p_source text DEFAULT NULL, p_strategy text DEFAULT NULL, p_chunk_target interval DEFAULT NULL, p_workers int DEFAULT NULL,
    p_rows_per_second double precision DEFAULT 0, p_gain double precision DEFAULT 0, p_latency double precision DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pymig.trial (source, column_types, magnitude, strategy, chunk_target, workers, rows_per_second, gain, latency)
    SELECT e.source, e.column_types, pymig._channel_magnitude(e.source, e.entity), p_strategy, p_chunk_target, p_workers, p_rows_per_second, p_gain, p_latency
    FROM pymig.entity AS e
    WHERE e.source = (pymig._source(p_source)).source AND e.entity = p_entity
$$;
COMMENT ON FUNCTION pymig.keep_trial(text, text, text, interval, int, double precision, double precision, double precision) IS
    'Writes what a trial on an entity came to into pymig.trial, under its shape.';

-- sql/core/functions/known_trials.sql
CREATE OR REPLACE FUNCTION pymig.known_trials(
    p_entity text, p_source text DEFAULT NULL,
    OUT strategy text, OUT chunk_target double precision, OUT workers int,
    OUT trials bigint, OUT gain double precision, OUT rows_per_second double precision, OUT is_within boolean, OUT seconds_ago double precision)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- The newest only: servers and data change.
    SELECT t.strategy, extract(epoch FROM t.chunk_target)::float8, t.workers, count(*), avg(t.gain), avg(t.rows_per_second),
        coalesce(avg(t.latency) <= (SELECT l.max_value FROM pymig.throttle AS l WHERE l.condition = 'ingest latency'), true),
        extract(epoch FROM clock_timestamp() - max(t.measured_at))::float8
    FROM (
        SELECT t.*
        FROM pymig.entity AS e
        JOIN pymig.trial AS t USING (source, column_types)
        WHERE e.source = (pymig._source(p_source)).source AND e.entity = p_entity
          AND t.magnitude = pymig._channel_magnitude(e.source, e.entity)
        ORDER BY t.trial DESC
        LIMIT 200
    ) AS t
    GROUP BY t.strategy, t.chunk_target, t.workers
$$;
COMMENT ON FUNCTION pymig.known_trials(text, text) IS
    'What the trials of entities of this one''s shape came to, a row a setting: how often it was tried, the mean of gain and of rows a second; is_within: the mean latency is within the limit the throttle has now; seconds_ago: the newest. chunk_target is in seconds. Example: SELECT * FROM pymig.known_trials(''SHIP1'')';

-- sql/core/functions/list_alerts.sql
CREATE OR REPLACE FUNCTION pymig.list_alerts(
    OUT alert text, OUT level text, OUT source text, OUT entity text, OUT value double precision, OUT max_value double precision,
    OUT unit text, OUT lasting interval, OUT over_since timestamptz, OUT is_told boolean, OUT what_to_do text, OUT error text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.alert, a.level, s.source, s.entity, s.value, a.max_value, a.unit, a.lasting, s.over_since, s.told_value IS NOT NULL, a.what_to_do, a.error
    FROM pymig.alert AS a LEFT JOIN pymig.alert_state AS s USING (alert)
    ORDER BY a.alert, s.source, s.entity
$$;
COMMENT ON FUNCTION pymig.list_alerts() IS
    'The rules of pymig.alert with what is over their limits just now: a row each, or one without a value. is_told: an event was written.';

-- sql/core/functions/list_certificates.sql
CREATE OR REPLACE FUNCTION pymig.list_certificates(
    p_entity text DEFAULT NULL, p_source text DEFAULT NULL, p_after text[] DEFAULT NULL, p_limit int DEFAULT 50,
    OUT source text, OUT entity text, OUT fault text, OUT certified_at timestamptz, OUT certified_by text, OUT from_time text, OUT to_time text,
    OUT buckets bigint, OUT cells bigint, OUT wide_rows bigint, OUT quarantined bigint, OUT lsn text, OUT digest text, OUT wide_table text)
RETURNS SETOF record
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.source, e.entity, pymig.certificate_fault(e.entity, e.source), c.certified_at, c.certified_by, c.from_time, c.to_time,
        c.buckets, c.cells, c.wide_rows, c.quarantined, c.lsn::text, c.digest, c.wide_table
    FROM pymig.entity AS e
    CROSS JOIN LATERAL (
        SELECT n.* FROM pymig.certificate AS n WHERE n.source = e.source AND n.entity = e.entity ORDER BY n.certificate DESC LIMIT 1
    ) AS c
    WHERE (p_source IS NULL OR e.source = p_source) AND (p_entity IS NULL OR e.entity = p_entity)
      AND (p_after IS NULL OR (e.source, e.entity) > (p_after[1], p_after[2]))
    ORDER BY e.source, e.entity
    LIMIT least(p_limit, 100)
$$;
COMMENT ON FUNCTION pymig.list_certificates(text, text, text[], int) IS
    'The newest certificate of each entity that has one, and why it does not count any more (fault NULL: it does): of all, a source or an entity, after the pair of source and entity p_after, 100 at most. Example: SELECT entity, fault FROM pymig.list_certificates()';

-- sql/core/functions/list_channels.sql
CREATE OR REPLACE FUNCTION pymig.list_channels(
    p_entity text, p_source text, p_search text DEFAULT '', p_after int DEFAULT 0, p_limit int DEFAULT 100,
    OUT ord int, OUT channel text, OUT part int, OUT wide_column text, OUT column_type text, OUT kind text, OUT added_at timestamptz)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.ord, c.channel, c.part, c.wide_column, c.column_type, c.kind, c.added_at
    FROM pymig.channel AS c
    WHERE c.source = p_source AND c.entity = p_entity AND c.ord > p_after AND strpos(lower(c.channel), lower(p_search)) > 0
    ORDER BY c.ord
    LIMIT least(p_limit, 100)
$$;
COMMENT ON FUNCTION pymig.list_channels(text, text, text, int, int) IS
    'A page of the channels of an entity: those whose name has p_search in it, after number p_after, 100 at most. Example: SELECT * FROM pymig.list_channels(''SHIP1'', ''default'', ''fuel'')';

-- sql/core/functions/list_chunks.sql
CREATE OR REPLACE FUNCTION pymig.list_chunks(
    p_entity text, p_source text, p_state text DEFAULT NULL, p_before bigint DEFAULT 9223372036854775807, p_limit int DEFAULT 100,
    OUT chunk bigint, OUT from_time text, OUT to_time text, OUT state text, OUT attempts int, OUT strategy text,
    OUT narrow_rows bigint, OUT cells bigint, OUT wide_rows bigint, OUT seconds double precision, OUT error text, OUT finished_at timestamptz)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.chunk, c.from_time, c.to_time, c.state, c.attempts, c.strategy, c.narrow_rows, c.cells, c.wide_rows, c.seconds, c.error, c.finished_at
    FROM pymig.chunk AS c
    WHERE c.source = p_source AND c.entity = p_entity AND c.chunk < p_before
      AND (p_state IS NULL OR c.state = p_state OR p_state = 'error' AND c.error IS NOT NULL)
    ORDER BY c.chunk DESC
    LIMIT least(p_limit, 100)
$$;
COMMENT ON FUNCTION pymig.list_chunks(text, text, text, bigint, int) IS
    'A page of the chunks of an entity, newest first: those before number p_before, 100 at most; p_state is a state, or error: those whose last failed attempt left one. Example: SELECT * FROM pymig.list_chunks(''SHIP1'', ''default'', ''failed'')';

-- sql/core/functions/list_events.sql
CREATE OR REPLACE FUNCTION pymig.list_events(
    p_entity text DEFAULT NULL, p_source text DEFAULT NULL, p_level text DEFAULT NULL, p_before bigint DEFAULT 9223372036854775807, p_limit int DEFAULT 100,
    OUT event bigint, OUT happened_at timestamptz, OUT level text, OUT source text, OUT entity text, OUT what text, OUT detail text, OUT who text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.event, e.happened_at, e.level, e.source, e.entity, e.what, e.detail, e.who
    FROM pymig.event AS e
    WHERE (p_source IS NULL OR e.source = p_source) AND (p_entity IS NULL OR e.entity = p_entity)
      AND (p_level IS NULL OR e.level = p_level) AND e.event < p_before
    ORDER BY e.event DESC
    LIMIT least(p_limit, 100)
$$;
COMMENT ON FUNCTION pymig.list_events(text, text, text, bigint, int) IS
    'A page of the events, newest first: of all, a source, an entity or a level, before number p_before, 100 at most. Example: SELECT * FROM pymig.list_events(p_level => ''CRITICAL'')';

-- sql/core/functions/list_parts.sql
CREATE OR REPLACE FUNCTION pymig.list_parts(
    p_entity text, p_source text, OUT part int, OUT wide_table text, OUT channels bigint, OUT bytes numeric, OUT created_at timestamptz)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.part, p.wide_table, c.channels, pymig._table_bytes(to_regclass(format('%I.%I', s.wide_schema, p.wide_table))), p.created_at
    FROM pymig.part AS p
    JOIN pymig.source AS s USING (source)
    CROSS JOIN LATERAL (
        SELECT count(*) AS channels FROM pymig.channel AS c WHERE c.source = p.source AND c.entity = p.entity AND c.part = p.part
    ) AS c
    WHERE p.source = p_source AND p.entity = p_entity
    ORDER BY p.part
$$;
COMMENT ON FUNCTION pymig.list_parts(text, text) IS
    'The wide tables of an entity, with their channels and bytes (indexes and TOAST included). Example: SELECT * FROM pymig.list_parts(''SHIP1'', ''default'')';

-- sql/core/functions/list_quarantine.sql
CREATE OR REPLACE FUNCTION pymig.list_quarantine(
    p_entity text DEFAULT NULL, p_source text DEFAULT NULL, p_reason text DEFAULT NULL, p_before bigint DEFAULT 9223372036854775807, p_limit int DEFAULT 100,
    OUT quarantine bigint, OUT source text, OUT entity text, OUT channel text, OUT "time" text, OUT reason text, OUT detail text,
    OUT narrow_row jsonb, OUT is_kept boolean, OUT quarantined_at timestamptz)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT q.quarantine, q.source, q.entity, q.channel, q.time, q.reason, q.detail, q.narrow_row, q.is_kept, q.quarantined_at
    FROM pymig.quarantine AS q
    WHERE (p_source IS NULL OR q.source = p_source) AND (p_entity IS NULL OR q.entity = p_entity)
      AND (p_reason IS NULL OR q.reason = p_reason) AND q.quarantine < p_before
    ORDER BY q.quarantine DESC
    LIMIT least(p_limit, 100)
$$;
COMMENT ON FUNCTION pymig.list_quarantine(text, text, text, bigint, int) IS
    'A page of the quarantine, newest first: of all, a source, an entity or a reason, before number p_before, 100 at most. Example: SELECT * FROM pymig.list_quarantine(''SHIP1'', p_reason => ''type_mismatch'')';

-- sql/core/functions/list_verifications.sql
CREATE OR REPLACE FUNCTION pymig.list_verifications(
    p_entity text, p_source text, p_is_differing boolean DEFAULT false, p_before bigint DEFAULT 9223372036854775807, p_limit int DEFAULT 100,
    OUT bucket bigint, OUT from_time text, OUT to_time text, OUT is_equal boolean, OUT cells bigint, OUT differences bigint,
    OUT repaired boolean, OUT sample jsonb, OUT digest text, OUT seconds double precision, OUT checked_at timestamptz)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT v.bucket, v.from_time, v.to_time, v.is_equal, v.cells, v.differences, v.repaired, v.sample, v.digest, v.seconds, v.checked_at
    FROM pymig.verification AS v
    WHERE v.source = p_source AND v.entity = p_entity AND v.bucket < p_before AND (NOT p_is_differing OR v.differences > 0)
    ORDER BY v.bucket DESC
    LIMIT least(p_limit, 100)
$$;
COMMENT ON FUNCTION pymig.list_verifications(text, text, boolean, bigint, int) IS
    'A page of the compared buckets of an entity, newest time first: those before bucket p_before, 100 at most; with p_is_differing only where differences were found. Example: SELECT * FROM pymig.list_verifications(''SHIP1'', ''default'', true)';

-- sql/core/functions/look_at_alerts.sql
CREATE OR REPLACE FUNCTION pymig.look_at_alerts(p_age interval DEFAULT '5 seconds')
RETURNS bigint
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_over jsonb;
    v_error text;
    r_alert record;
BEGIN
    IF NOT EXISTS (SELECT FROM pymig.alert AS a WHERE coalesce(a.checked_at, '-infinity') <= clock_timestamp() - p_age)
        OR NOT pg_try_advisory_xact_lock(pymig._lock_key('alert', '')) THEN
        RETURN 0;
    END IF;
    -- One that somebody is just changing is left as it is: nobody waits for their COMMIT.
    FOR r_alert IN SELECT a.* FROM pymig.alert AS a ORDER BY a.alert FOR NO KEY UPDATE SKIP LOCKED LOOP
        v_over := NULL;
        v_error := NULL;
        IF r_alert.max_value IS NOT NULL THEN
            BEGIN
                EXECUTE format('SELECT jsonb_agg(m) FROM (%s) AS m (source, entity, value) WHERE m.value > $1', r_alert.measure)
                INTO v_over USING r_alert.max_value;
            EXCEPTION
                WHEN OTHERS THEN
                    v_error := format('%s (%s)', SQLERRM, SQLSTATE);
            END;
        END IF;
        UPDATE pymig.alert AS a SET checked_at = clock_timestamp(), error = v_error WHERE a.alert = r_alert.alert;
        IF v_error IS NULL THEN
            PERFORM pymig._keep_alert_state(r_alert.alert, coalesce(v_over, '[]'));
        ELSIF r_alert.error IS NULL THEN
            PERFORM pymig._note('WARNING', NULL, NULL, 'alert not measured', format('%s: %s. It tells nothing.', r_alert.alert, v_error));
        END IF;
    END LOOP;
    RETURN pymig._raise_alerts();
END
$$;
COMMENT ON FUNCTION pymig.look_at_alerts(interval) IS
    'Measures the rules of pymig.alert, unless somebody did within p_age, and writes an event for what has been over its limit for long enough: once, and again when it has doubled. Another one tells that it is over. Returns how many things are told. Workers and `pymig notify` ask. Example: SELECT pymig.look_at_alerts()';

-- sql/core/functions/look_at_throttle.sql
CREATE OR REPLACE FUNCTION pymig.look_at_throttle()
RETURNS text
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    c_age constant interval := '500 ms';
    v_was_over boolean := EXISTS (SELECT FROM pymig.throttle AS t WHERE t.is_over);
    v_now text;
    v_raw double precision;
    v_error text;
    r_condition record;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pymig.throttle AS t
        WHERE t.max_value IS NOT NULL AND t.measure IS NOT NULL AND coalesce(t.checked_at, '-infinity') < clock_timestamp() - c_age OR t.is_over AND t.max_value IS NULL)
        OR NOT pg_try_advisory_xact_lock(pymig._lock_key('throttle', '')) THEN
        RETURN pymig._throttled();
    END IF;
    -- One that somebody is just changing is left as it is: nobody waits for their COMMIT.
    FOR r_condition IN
        SELECT t.* FROM pymig.throttle AS t WHERE t.max_value IS NOT NULL AND t.measure IS NOT NULL ORDER BY t.condition FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        v_raw := NULL;
        v_error := NULL;
        BEGIN
            EXECUTE r_condition.measure INTO v_raw;
        EXCEPTION
            WHEN OTHERS THEN
                v_error := format('%s (%s)', SQLERRM, SQLSTATE);
        END;
        UPDATE pymig.throttle AS t SET
            value = CASE WHEN NOT t.is_rate THEN v_raw
                WHEN t.raw IS NOT NULL THEN (v_raw - t.raw) / extract(epoch FROM clock_timestamp() - t.checked_at) END,
            raw = CASE WHEN t.is_rate THEN v_raw END, checked_at = clock_timestamp(), error = v_error
        WHERE t.condition = r_condition.condition;
        IF v_error IS DISTINCT FROM r_condition.error AND v_error IS NOT NULL THEN
            PERFORM pymig._note('WARNING', NULL, NULL, 'throttle not measured', format('%s: %s. It holds nothing up.', r_condition.condition, v_error));
        END IF;
    END LOOP;
    v_now := pymig._throttled();
    UPDATE pymig.throttle AS t SET is_over = NOT t.is_over
    WHERE t.condition IN (SELECT l.condition FROM pymig.throttle AS l WHERE l.is_over IS DISTINCT FROM coalesce(l.value > l.max_value, false) FOR NO KEY UPDATE SKIP LOCKED);
    IF NOT v_was_over AND v_now IS NOT NULL THEN
        PERFORM pymig._note('WARNING', NULL, NULL, 'throttled', format('History waits: %s.', v_now));
    ELSIF v_was_over AND v_now IS NULL THEN
        PERFORM pymig._note('INFO', NULL, NULL, 'no longer throttled', 'History goes on.');
    END IF;
    RETURN v_now;
END
$$;
COMMENT ON FUNCTION pymig.look_at_throttle() IS
    'Measures the conditions of pymig.throttle, unless somebody did in the last half second, and returns what history has to wait for (NULL: nothing). Whoever moves or verifies history asks; changes are events.';

-- sql/core/functions/look_at_trial.sql
CREATE OR REPLACE FUNCTION pymig.look_at_trial(
    p_entity text, p_source text DEFAULT NULL, p_after bigint DEFAULT NULL,
    OUT strategy text, OUT chunk_target double precision, OUT strategies text[], OUT part_done double precision, OUT last_chunk bigint,
    OUT workers bigint, OUT rows_per_second double precision, OUT latency double precision, OUT is_over boolean, OUT free_connections int)
RETURNS record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nullif(e.strategy, 'auto'),
        extract(epoch FROM coalesce(e.chunk_target, nullif(s.chunk_target, interval '1 second')))::float8,
        CASE WHEN e.strategy <> 'auto' THEN ARRAY[e.strategy] ELSE c.strategies END,
        (SELECT p.percent / 100 FROM pymig.progress(e.entity, e.source) AS p)::float8,
        (SELECT max(k.chunk) FROM pymig.chunk AS k WHERE k.source = e.source AND k.entity = e.entity),
        w.workers, w.rows_per_second,
        l.value, coalesce(l.is_over, false), pymig._free_connections()
    FROM pymig.source AS s
    JOIN pymig.entity AS e USING (source)
    CROSS JOIN LATERAL (
        -- None before each has had its try; those that are half as fast as the best are not worth another.
        SELECT CASE WHEN bool_and(r.rows_per_second IS NOT NULL) THEN
            array_agg(c.strategy ORDER BY r.rows_per_second DESC) FILTER (WHERE r.rows_per_second >= 0.5 * r.best) END AS strategies
        FROM pymig._strategies(e.source, e.entity) AS c
        LEFT JOIN (SELECT r.*, max(r.rows_per_second) OVER () AS best FROM pymig._strategy_rates(e.source, e.entity) AS r) AS r USING (strategy)
    ) AS c
    CROSS JOIN LATERAL (
        -- A worker's time from its first chunk to its last has what is between the chunks in it, too.
        SELECT count(*) AS workers, avg(w.rows_per_second) AS rows_per_second
        FROM (
            SELECT sum(k.narrow_rows) / nullif(extract(epoch FROM max(k.finished_at) - min(k.finished_at - k.seconds * interval '1 second')), 0)::float8 AS rows_per_second
            FROM pymig.chunk AS k
            WHERE k.source = e.source AND k.entity = e.entity AND k.state = 'done' AND k.chunk > p_after
            GROUP BY k.finished_by
        ) AS w
    ) AS w
    LEFT JOIN LATERAL (
        SELECT t.value, t.value > t.max_value AS is_over FROM pymig.throttle AS t
        WHERE t.condition = 'ingest latency' AND t.max_value IS NOT NULL AND t.checked_at > clock_timestamp() - interval '10 seconds'
    ) AS l ON true
    WHERE s.source = (pymig._source(p_source)).source AND e.entity = p_entity
$$;
COMMENT ON FUNCTION pymig.look_at_trial(text, text, bigint) IS
    'What pymig migrate --tune looks at twice a second while an entity is moved. What somebody set is not tuned: strategy, chunk_target (seconds). strategies: those worth a trial, the fastest first, NULL while auto still tries them. part_done: of the history, 0 to 1. last_chunk: number of the newest; of chunks after p_after, how many workers moved some and the mean of their narrow rows a second. latency: of ingest in ms, where the throttle has a limit for it; is_over: it is greater than that. free_connections: workers more than there are take of these.';

-- sql/core/functions/outside_window.sql
CREATE OR REPLACE FUNCTION pymig.outside_window(p_from time, p_to time, p_time_zone text, p_days int[] DEFAULT '{1,2,3,4,5,6,7}')
RETURNS int
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- After midnight a window that spans it still belongs to the day it began on.
    SELECT (NOT CASE WHEN p_from <= p_to THEN l.now::time >= p_from AND l.now::time < p_to AND extract(isodow FROM l.now) = ANY (p_days)
        ELSE l.now::time >= p_from AND extract(isodow FROM l.now) = ANY (p_days)
          OR l.now::time < p_to AND extract(isodow FROM l.now - interval '1 day') = ANY (p_days) END)::int
    FROM (SELECT clock_timestamp() AT TIME ZONE p_time_zone) AS l (now)
$$;
COMMENT ON FUNCTION pymig.outside_window(time, time, text, int[]) IS
    'For the condition maintenance window of pymig.throttle: 0 from p_from until p_to (over midnight where that is earlier) on p_days (1 Monday … 7 Sunday, the day it begins), 1 otherwise. 22023 for an unknown time zone. Example: SELECT pymig.outside_window(''22:00'', ''06:00'', ''Asia/Seoul'', ''{1,2,3,4,5}'')';

-- sql/core/functions/overview.sql
CREATE OR REPLACE FUNCTION pymig.overview(p_source text DEFAULT NULL, p_events int DEFAULT 20)
RETURNS jsonb
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH ship AS MATERIALIZED (
        -- The columns of status; numbers of seconds besides, which a program need not parse.
        SELECT s.source, s.entity, to_jsonb(s) || jsonb_build_object(
            'eta_seconds', extract(epoch FROM s.eta)::float8,
            'lag_seconds', extract(epoch FROM s.sync_lag)::float8,
            'lag_p99_seconds', extract(epoch FROM s.sync_lag_p99)::float8,
            'percent_verified', CASE s.state WHEN 'backfilled' THEN (SELECT p.percent_verified FROM pymig.progress(s.entity, s.source) AS p) END,
            'is_paused', e.paused_at IS NOT NULL) AS row
        FROM pymig.status AS s JOIN pymig.entity AS e USING (source, entity)
        WHERE s.source = coalesce(p_source, s.source)
    ),
    event AS (
        SELECT e.event, to_jsonb(e) AS row FROM pymig.event AS e
        WHERE p_source IS NULL OR e.source IS NULL OR e.source = p_source
        ORDER BY e.event DESC LIMIT p_events
    )
    SELECT jsonb_build_object(
        'at', clock_timestamp(),
        'database', current_database(),
        'server', 'PostgreSQL ' || current_setting('server_version'),
        'workers_alive', pymig.workers_alive(),
        'throttled', pymig._throttled(),
        'sources', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'source', s.source, 'narrow', s.narrow::text, 'triggers', pymig._trigger_state(s.narrow), 'is_paused', s.paused_at IS NOT NULL,
                'queue_bytes', (SELECT sum(pg_relation_size(format('pymig.%I', s.source || t.name)::regclass)) FROM unnest('{_pending_1,_pending_2,_todo}'::text[]) AS t (name))
                ) ORDER BY s.source), '[]')
            FROM pymig.source AS s WHERE s.source = coalesce(p_source, s.source)),
        'ships', (SELECT coalesce(jsonb_agg(s.row ORDER BY s.source, s.entity), '[]') FROM ship AS s),
        'events', (SELECT coalesce(jsonb_agg(e.row ORDER BY e.event DESC), '[]') FROM event AS e))
$$;
COMMENT ON FUNCTION pymig.overview(text, int) IS
    'All that a screen shows, in one document: the server, workers, what work waits for, sources with the size of their queue, ships (the columns of pymig.status, durations in seconds besides) and the newest events. Example: SELECT jsonb_pretty(pymig.overview())';

-- sql/core/functions/plan.sql
CREATE OR REPLACE FUNCTION pymig.plan(
    p_entity text, p_source text DEFAULT NULL, p_column_types text DEFAULT NULL, p_allow_scan boolean DEFAULT false,
    OUT entity text, OUT item text, OUT value text, OUT is_blocker boolean)
RETURNS SETOF record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_types text := coalesce(p_column_types, v_source.column_types);
    v_layout pymig.planned_channel[];
    v_rows bigint;
    v_bounds record;
BEGIN
    entity := pymig._canonical_entity(v_source, p_entity);
    v_layout := ARRAY(SELECT ROW(l.channel, l.part, l.wide_column, l.column_type)::pymig.planned_channel
                      FROM pymig._layout(v_source, entity, v_types, p_allow_scan) AS l);
    v_rows := pymig._estimate_rows(v_source, entity);
    v_bounds := pymig._discover_bounds(v_source, entity);
    RETURN QUERY
    SELECT entity, i.item, i.value, false
    FROM (VALUES
        (1, 'state', (SELECT e.state FROM pymig.entity AS e WHERE e.source = v_source.source AND e.entity = plan.entity)),
        (2, 'wide table', (SELECT format('%I.%I', v_source.wide_schema, coalesce(e.wide_table, pymig._wide_table_name(v_source, plan.entity)))
             FROM (SELECT (SELECT e.wide_table FROM pymig.entity AS e WHERE e.source = v_source.source AND e.entity = plan.entity)) AS e (wide_table))),
        (3, 'channels', cardinality(v_layout)::text),
        (4, 'column types', (SELECT string_agg(format('%s %s', t.n, t.column_type), ', ' ORDER BY t.n DESC)
             FROM (SELECT l.column_type, count(*) AS n FROM unnest(v_layout) AS l GROUP BY 1) AS t)),
        (5, 'parts', (SELECT string_agg(format('%s channels', t.n), ' + ' ORDER BY t.part)
             FROM (SELECT l.part, count(*) AS n FROM unnest(v_layout) AS l GROUP BY 1) AS t)),
        (6, 'narrow rows (estimate)', v_rows::text),
        (7, 'first bucket', pymig._bucket_start(v_source, v_bounds.first_bucket)),
        (8, 'last bucket ends', pymig._bucket_end(v_source, v_bounds.last_bucket)),
        (9, 'expected size', pg_size_pretty(pymig._expected_bytes(v_rows, v_layout))),
        (10, 'disk needed', pg_size_pretty(2 * pymig._expected_bytes(v_rows, v_layout)) || ' (the wide table and as much write-ahead log; the free space is not visible from SQL)'),
        (11, 'strategy', CASE WHEN cardinality(v_layout) <= 16 THEN 'filter' ELSE 'transpose' END
             || ' first, then the fastest as measured on the first chunks'),
        (12, 'publications', pymig._publications(v_source.wide_schema)),
        (13, 'partitions', (SELECT format('%s, armed one by one; wide rows of one that goes: %s', count(*), v_source.retention)
             FROM pymig._partition_tree(v_source) AS t HAVING count(*) > 0)),
        (15, 'wide partitions', nullif(v_source.wide_partitions, 'none')),
        -- Half a second for its locks and triggers, and half a second a GB for the file system to drop files (0.42 s measured on ext4).
        (14, 'roll back (estimate)', (SELECT format('%s s, and the wait for readers of the wide table; ingest goes on%s',
                 ceil(0.5 + 0.5 * coalesce(w.bytes, pymig._expected_bytes(v_rows, v_layout)) / 1e9),
                 CASE WHEN w.is_finalized THEN '. Before it restore_narrow has to bring the retired rows back' END)
             FROM (SELECT sum(pymig._table_bytes(to_regclass(format('%I.%I', v_source.wide_schema, p.wide_table)))), bool_or(e.state = 'finalized')
                   FROM pymig.part AS p JOIN pymig.entity AS e USING (source, entity)
                   WHERE p.source = v_source.source AND p.entity = plan.entity) AS w (bytes, is_finalized)))
    ) AS i (ord, item, value)
    WHERE i.value IS NOT NULL
    ORDER BY i.ord;
    RETURN QUERY
    SELECT entity, 'column name', format('%s -> %s', l.channel, quote_ident(l.wide_column)), false
    FROM unnest(v_layout) AS l WHERE l.wide_column <> l.channel;
    RETURN QUERY
    SELECT entity, 'blocker', b.value, true FROM pymig._blockers(v_source, cardinality(v_layout)) AS b (value);
END
$$;
COMMENT ON FUNCTION pymig.plan(text, text, text, boolean) IS
    'What migrate would do with an entity: channels, types, parts, rows, time range, size, strategy, names that differ from the channel id, and what stands in the way (is_blocker). Reads only. Example: SELECT * FROM pymig.plan(''SHIP1'')';

-- sql/core/functions/precheck.sql
CREATE OR REPLACE FUNCTION pymig.precheck(
    p_source text DEFAULT NULL, p_free_bytes bigint DEFAULT NULL, OUT item text, OUT level text, OUT value text, OUT advice text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH source AS MATERIALIZED (SELECT pymig._source(p_source) AS s)
    SELECT c.* FROM source CROSS JOIN LATERAL pymig._precheck_source(source.s) AS c
    UNION ALL
    SELECT c.* FROM source CROSS JOIN LATERAL pymig._precheck_access(source.s) AS c
    UNION ALL
    SELECT c.* FROM pymig._precheck_backups() AS c
    UNION ALL
    SELECT c.* FROM source CROSS JOIN LATERAL pymig._precheck_server(source.s, p_free_bytes) AS c
    UNION ALL
    SELECT c.* FROM pymig._precheck_replication() AS c
    UNION ALL
    SELECT c.* FROM pymig._precheck_settings() AS c
$$;
COMMENT ON FUNCTION pymig.precheck(text, bigint) IS
    'What to look at before a migration: level green, yellow (think about it) or red (mend it first), with what to do. Reads only. p_free_bytes: free bytes where the server keeps its data, which SQL can''t see (df). Example: SELECT * FROM pymig.precheck()';

-- sql/core/functions/progress.sql
CREATE OR REPLACE FUNCTION pymig.progress(
    p_entity text, p_source text DEFAULT NULL,
    OUT rows_done bigint, OUT rows_estimated bigint, OUT percent numeric,
    OUT buckets_verified bigint, OUT buckets bigint, OUT percent_verified numeric,
    OUT buckets_retired bigint, OUT buckets_to_retire bigint)
RETURNS record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.rows, e.estimated_rows,
        CASE WHEN pymig._is_backfilled(e.state) THEN 100
             ELSE round(100 * least(1, c.buckets / nullif(e.last_bucket::numeric - e.first_bucket::numeric + 1, 0)), 1) END,
        v.buckets, greatest(c.buckets, v.buckets)::bigint,
        round(100 * least(1, v.buckets / nullif(c.buckets, 0)), 1),
        r.buckets, CASE WHEN e.state = 'finalized' THEN (
            SELECT count(*) FROM pymig.verification AS v
            WHERE v.source = e.source AND v.entity = e.entity AND v.bucket < (SELECT pymig._keep_bucket(s, e)) AND v.bucket > coalesce(r.last_bucket, v.bucket - 1)) END
    FROM pymig.source AS s
    JOIN pymig.entity AS e USING (source)
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(c.narrow_rows), 0)::bigint AS rows, coalesce(sum(c.last_bucket::numeric - c.first_bucket::numeric + 1), 0) AS buckets
        FROM pymig.chunk AS c
        WHERE c.source = e.source AND c.entity = e.entity AND c.state = 'done'
    ) AS c
    CROSS JOIN LATERAL (
        -- A pass overwrites the results of the one before, oldest first.
        SELECT count(*) AS buckets FROM pymig.verification AS v
        WHERE v.source = e.source AND v.entity = e.entity AND v.checked_at > coalesce(e.verified_at, '-infinity')
    ) AS v
    CROSS JOIN LATERAL (
        SELECT count(*) AS buckets, max(r.bucket) AS last_bucket FROM pymig.retired_bucket AS r
        WHERE r.source = e.source AND r.entity = e.entity
    ) AS r
    WHERE s.source = (pymig._source(p_source)).source AND e.entity = p_entity
$$;
COMMENT ON FUNCTION pymig.progress(text, text) IS
    'How far backfill, verification and retirement of one entity are; cheap enough to ask twice a second. Verification counts buckets since the last pass that succeeded. Of a finalized entity also, how many buckets are retired and, as far as they were verified, are still to be.';

-- sql/core/functions/read.sql
CREATE OR REPLACE FUNCTION pymig.read(
    p_entity text, p_channels text[] DEFAULT NULL, p_from text DEFAULT NULL, p_to text DEFAULT NULL, p_source text DEFAULT NULL)
RETURNS TABLE (channel text, "time" text, value text, kind text)
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    c_attempts constant int := 3;
    v_source pymig.source := pymig._source(p_source);
    v_entity pymig.entity;
BEGIN
    SELECT e.* INTO v_entity FROM pymig.entity AS e WHERE e.source = v_source.source AND e.entity = p_entity;
    IF NOT FOUND THEN
        v_entity.entity := pymig._canonical_entity(v_source, p_entity);
        v_entity.routing := 'narrow';
    END IF;
    FOR v_attempt IN 1 .. c_attempts LOOP
        BEGIN
            IF v_entity.routing = 'shadow' THEN
                RETURN QUERY SELECT s.* FROM pymig._read_both(v_source, v_entity.entity, p_channels, p_from, p_to) AS s;
            ELSIF v_entity.routing = 'wide' OR v_entity.routing = 'percent' AND pymig._routes_wide(v_entity.routing_percent) THEN
                RETURN QUERY EXECUTE pymig._read_wide_sql(v_source, v_entity.entity, p_channels, p_from, p_to);
            ELSE
                RETURN QUERY EXECUTE pymig._read_narrow_sql(v_source, v_entity.entity, p_channels, p_from, p_to);
            END IF;
            RETURN;
        EXCEPTION
            WHEN undefined_column OR undefined_table THEN
                -- A column was promoted, or the entity rolled back, after its statement was written.
                IF v_attempt = c_attempts THEN
                    RAISE;
                END IF;
                SELECT e.* INTO v_entity FROM pymig.entity AS e WHERE e.source = v_source.source AND e.entity = v_entity.entity;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pymig.read(text, text[], text, text, text) IS
    'Cells of an entity in the narrow shape, from wherever its routing says: channel, time and value as text, and the kind of value (float8, int8, bool, text, numeric, jsonb). p_channels NULL: all; p_from, p_to: from this time on, before that one; NULL: no bound. One row a cell that is not NULL, in no promised order; rows that lost the tie-break or are in quarantine are no cells. '
    'Example: SELECT * FROM pymig.read(''SHIP1'', ''{/a,/b}'', ''2024-01-01'', ''2024-01-02'')';

-- sql/core/functions/report_throttle.sql
CREATE OR REPLACE FUNCTION pymig.report_throttle(p_condition text, p_value double precision)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE pymig.throttle AS t SET value = p_value, checked_at = clock_timestamp() WHERE t.condition = p_condition AND t.measure IS NULL
$$;
COMMENT ON FUNCTION pymig.report_throttle(text, double precision) IS
    'For conditions that SQL can''t measure: the value, which counts for 10 seconds. Example: SELECT pymig.report_throttle(''disk used'', 96.5)';

-- sql/core/functions/resolve_entities.sql
CREATE OR REPLACE FUNCTION pymig.resolve_entities(
    p_entities text, p_source text DEFAULT NULL, p_allow_scan boolean DEFAULT false, OUT entity text, OUT estimated_rows bigint)
RETURNS SETOF record
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
BEGIN
    RETURN QUERY
    SELECT w.entity, pymig._estimate_rows(v_source, w.entity)
    FROM (
        SELECT d.entity FROM pymig.discover_entities(v_source.source, p_allow_scan) AS d (entity) WHERE p_entities = 'all'
        UNION
        SELECT e.entity FROM pymig.entity AS e
        WHERE p_entities = 'all' AND e.source = v_source.source AND e.wide_table IS NOT NULL
        UNION
        SELECT pymig._canonical_entity(v_source, w.name)
        FROM unnest(CASE WHEN p_entities = 'all' THEN '{}'
            -- An entity whose name has a comma is found as a whole first.
            WHEN EXISTS (SELECT FROM pymig.discover_entities(v_source.source, p_allow_scan) AS d (entity) WHERE d.entity = p_entities) THEN ARRAY[p_entities]
            WHEN p_entities = '' THEN ARRAY[p_entities]
            ELSE string_to_array(p_entities, ',') END) AS w (name)
    ) AS w
    ORDER BY coalesce((SELECT e.priority FROM pymig.entity AS e WHERE e.source = v_source.source AND e.entity = w.entity), 0) DESC, 2, 1;
END
$$;
COMMENT ON FUNCTION pymig.resolve_entities(text, text, boolean) IS
    'Entities meant by one name, a comma list or all, by priority, then the smallest first by estimate. PM002 for one that has no rows.';

-- sql/core/functions/tick_of.sql
CREATE OR REPLACE FUNCTION pymig.tick_of(p_time timestamp)
RETURNS bigint
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
    -- Not STRICT, which would keep it from being inlined.
    SELECT CASE
        WHEN p_time IS NULL THEN NULL
        -- By way of an interval: extract() from a timestamp rounds in the last 30 years before 294277.
        WHEN isfinite(p_time) THEN (extract(epoch FROM p_time - timestamp '2000-01-01') * 1000000)::bigint
        WHEN p_time > timestamp '2000-01-01' THEN 9223372036854775807
        ELSE -9223372036854775808
    END
$$;
COMMENT ON FUNCTION pymig.tick_of(timestamp) IS
    'Time -> tick: microseconds since 2000-01-01 (what PostgreSQL stores, so every timestamp fits); infinities are the ends of bigint.';

CREATE OR REPLACE FUNCTION pymig.tick_of(p_time timestamptz)
RETURNS bigint
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
    SELECT pymig.tick_of(p_time AT TIME ZONE 'UTC')
$$;
COMMENT ON FUNCTION pymig.tick_of(timestamptz) IS 'Time -> tick: microseconds since 2000-01-01 UTC.';

CREATE OR REPLACE FUNCTION pymig.tick_of(p_time date)
RETURNS bigint
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
    -- Not STRICT, which would keep it from being inlined.
    SELECT CASE
        WHEN p_time IS NULL THEN NULL
        WHEN isfinite(p_time) THEN (p_time - date '2000-01-01')::bigint
        WHEN p_time > date '2000-01-01' THEN 9223372036854775807
        ELSE -9223372036854775808
    END
$$;
COMMENT ON FUNCTION pymig.tick_of(date) IS 'Time -> tick: days since 2000-01-01.';

CREATE OR REPLACE FUNCTION pymig.tick_of(p_time bigint)
RETURNS bigint
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
    SELECT p_time
$$;
COMMENT ON FUNCTION pymig.tick_of(bigint) IS 'Time -> tick: an epoch is its own tick.';

-- sql/core/functions/time_text.sql
CREATE OR REPLACE FUNCTION pymig.time_text(p_tick numeric, p_time_type text)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET DateStyle = 'ISO, YMD'
SET TimeZone = 'UTC'
AS $$
DECLARE
    -- Julian day 0 in ticks (datatype/timestamp.h).
    c_first constant numeric := CASE p_time_type WHEN 'bigint' THEN -9223372036854775807 WHEN 'date' THEN -2451545
                                ELSE -211813488000000000 END;
    c_last constant numeric := pymig._last_tick(p_time_type);
    v_tick bigint := greatest(c_first, least(c_last, p_tick));
    v_time timestamp;
BEGIN
    IF p_time_type = 'bigint' THEN
        RETURN CASE WHEN p_tick IN (9223372036854775807, -9223372036854775808) THEN p_tick ELSE v_tick END::text;
    ELSIF p_tick IN (9223372036854775807, -9223372036854775808) THEN
        RETURN CASE WHEN p_tick > 0 THEN 'infinity' ELSE '-infinity' END;
    ELSIF p_time_type = 'date' THEN
        RETURN (date '2000-01-01' + v_tick::int)::text;
    END IF;
    -- Whole days first: interval arithmetic in one step would round through double precision.
    v_time := timestamp '2000-01-01' + make_interval(days => (v_tick / 86400000000)::int)
              + make_interval(secs => (v_tick % 86400000000) / 1e6::double precision);
    RETURN CASE p_time_type WHEN 'timestamp with time zone' THEN (v_time AT TIME ZONE 'UTC')::text ELSE v_time::text END;
END
$$;
COMMENT ON FUNCTION pymig.time_text(numeric, text) IS
    'Tick -> literal of the time type (ISO, UTC). Ticks beyond what the type holds are cut to its first or last time.';

-- sql/core/functions/verification_summary.sql
CREATE OR REPLACE FUNCTION pymig.verification_summary(
    p_entity text, p_source text, OUT buckets bigint, OUT equal bigint, OUT differing bigint, OUT changed bigint, OUT cells numeric, OUT oldest timestamptz, OUT newest timestamptz)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*), count(*) FILTER (WHERE v.is_equal), count(*) FILTER (WHERE NOT v.is_equal),
        (SELECT count(*) FROM pymig.changed_bucket AS c WHERE c.source = p_source AND c.entity = p_entity),
        coalesce(sum(v.cells), 0), min(v.checked_at), max(v.checked_at)
    FROM pymig.verification AS v
    WHERE v.source = p_source AND v.entity = p_entity
$$;
COMMENT ON FUNCTION pymig.verification_summary(text, text) IS
    'How many buckets of an entity were compared, are equal, differ, have changed since; the cells compared; first and last comparison. Example: SELECT * FROM pymig.verification_summary(''SHIP1'', ''default'')';

-- sql/core/functions/verify_bucket.sql
CREATE OR REPLACE FUNCTION pymig.verify_bucket(
    p_entity text, p_bucket bigint, p_repair boolean DEFAULT false, p_source text DEFAULT NULL)
RETURNS pymig.verification
LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_started timestamptz := clock_timestamp();
    v_partitions text := pymig._partitions_settled(v_source);
    v_found pymig.verification;
    v_now pymig.verification;
    v_constraint text;
BEGIN
    PERFORM pymig._require_read_committed();
    PERFORM pymig._require_same_entity(pymig._entity(v_source.source, p_entity));
    v_found := pymig._compare_buckets(v_source, p_entity, p_bucket, p_bucket);
    -- A partition came or went that is not queued: what it explains is no difference yet.
    IF NOT v_found.is_equal AND pymig._partitions_now(v_source.narrow) IS DISTINCT FROM v_partitions THEN
        RETURN NULL;
    END IF;
    IF NOT v_found.is_equal THEN
        PERFORM pymig._void_certificate(v_source.source, p_entity,
            format('%s differences were found from %s to %s', v_found.differences, v_found.from_time, v_found.to_time));
    END IF;
    IF NOT v_found.is_equal AND p_repair THEN
        PERFORM pymig._lock_buckets(v_source.source, p_entity, p_bucket, p_bucket);
        BEGIN
            PERFORM pymig._recompute(v_source, p_entity, 'json', p_bucket, p_bucket, NULL);
        EXCEPTION
            WHEN SQLSTATE 'PM023' THEN
                RETURN NULL;
            WHEN check_violation THEN
                -- Without a name: a row has no partition, since somebody dropped that month.
                GET STACKED DIAGNOSTICS v_constraint = CONSTRAINT_NAME;
                IF v_constraint <> '' THEN
                    RAISE;
                END IF;
                PERFORM pymig._add_months(v_source, p_entity, p_bucket, p_bucket);
                RETURN NULL;
        END;
        v_now := pymig._compare_buckets(v_source, p_entity, p_bucket, p_bucket);
        v_now.differences := v_found.differences;
        v_now.sample := v_found.sample;
        v_now.repaired := true;
        PERFORM pymig._note('WARNING', v_source.source, p_entity, 'repaired',
            format('%s differences from %s to %s were repaired.', v_found.differences, v_found.from_time, v_found.to_time));
    ELSE
        v_now := v_found;
    END IF;
    v_now.seconds := extract(epoch FROM clock_timestamp() - v_started);
    v_now.checked_at := clock_timestamp();
    PERFORM pymig._record_verification(v_now);
    RETURN v_now;
END
$$;
COMMENT ON FUNCTION pymig.verify_bucket(text, bigint, boolean, text) IS
    'Compares every cell of one bucket exactly, repairs it by a recompute if asked to, and records the result (which it returns; NULL where the partitions of the source changed meanwhile: let the worker look at them and compare again). Takes no lock that ingest would wait for.';

-- sql/core/functions/workers_alive.sql
CREATE OR REPLACE FUNCTION pymig.workers_alive()
RETURNS bigint
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) FROM pymig.worker AS w WHERE w.seen_at > clock_timestamp() - interval '10 seconds'
$$;
COMMENT ON FUNCTION pymig.workers_alive() IS 'Workers with a heartbeat in the last 10 seconds.';

-- sql/source/_aligned_sql.sql
CREATE OR REPLACE FUNCTION pymig._aligned_sql(p_types text[], p_first int, p_last int)
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- OFFSET 0: pulled up, the CASE would be planned once for each column. *= compares images, as fast as memory is read; what only looks different takes the longer way to the same cells.
    SELECT format(
        'SELECT g.ord, %s
         FROM (SELECT g.*, r.times AS grid, ROW(g.times)::record OPERATOR(pg_catalog.*=) ROW(r.base)::record AS is_base
               FROM gathered AS g CROSS JOIN grid AS r
               WHERE g.ord BETWEEN %s AND %s
               OFFSET 0) AS g
         OFFSET 0',
        string_agg(format(
            'CASE WHEN g.is_base OR g.cells_%1$s IS NULL THEN g.cells_%1$s ELSE (
                 SELECT array_agg(u.cell ORDER BY t.i)
                 FROM unnest(g.grid) WITH ORDINALITY AS t (time, i)
                 LEFT JOIN unnest(g.times, g.cells_%1$s) AS u (time, cell) ON u.time = t.time) END AS cells_%1$s', t.t), ', '),
        p_first, p_last)
    FROM unnest(p_types) AS t (t)
$$;
COMMENT ON FUNCTION pymig._aligned_sql(text[], int, int) IS
    'SELECT of the cells of each channel, from one ord to another, on the grid of all times: ord, cells_<type>. A channel with the commonest times passes straight through; they are the beginning of the grid, and unnest fills the rest with NULL.';

-- sql/source/_arm.sql
CREATE OR REPLACE FUNCTION pymig._arm(p_source pymig.source, p_relation regclass, p_lock_timeout interval)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A regclass that was dropped prints as a number.
    v_name text := (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                    WHERE c.oid = p_relation);
BEGIN
    PERFORM set_config('lock_timeout', (extract(epoch FROM p_lock_timeout) * 1000)::int::text, true);
    -- Waits for the writers in flight, so every later change is recorded; while it waits new writers wait too, hence the timeout (R5).
    -- ONLY: the lock of a partitioned table would go down to its partitions, a timeout each.
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', coalesce(v_name, 'pymig.dropped'));
    IF to_regclass(v_name) IS DISTINCT FROM p_relation THEN
        RAISE EXCEPTION '% was renamed meanwhile', v_name USING ERRCODE = 'PM023', HINT = 'It is tried again; nothing to do.';
    END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER pymig_record_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION pymig.%I()',
        p_relation, p_source.source || '_record_insert');
    EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER pymig_record_insert', p_relation);
    EXECUTE format('CREATE OR REPLACE TRIGGER pymig_record_update AFTER UPDATE ON %s REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION pymig.%I()',
        p_relation, p_source.source || '_record_update');
    EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER pymig_record_update', p_relation);
    EXECUTE format('CREATE OR REPLACE TRIGGER pymig_record_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION pymig.%I()',
        p_relation, p_source.source || '_record_delete');
    EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER pymig_record_delete', p_relation);
    EXECUTE format('CREATE OR REPLACE TRIGGER pymig_record_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION pymig.%I()',
        p_relation, p_source.source || '_record_truncate');
    EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER pymig_record_truncate', p_relation);
    -- A row trigger of a partitioned table would be cloned into all partitions, under a lock of each; they have their own instead.
    IF NOT pymig._is_partitioned(p_relation) THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER pymig_record_row AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION pymig.%I()',
            p_relation, p_source.source || '_record_row');
        EXECUTE format('ALTER TABLE ONLY %s ENABLE REPLICA TRIGGER pymig_record_row', p_relation);
    END IF;
    -- What a partition has before anything is migrated comes with the backfill; later it has to be queued.
    UPDATE pymig.partition AS p
    SET state = CASE WHEN p.is_leaf AND (pymig._has_triggers(p_source.source, p_source.narrow) OR EXISTS (
            SELECT FROM pymig.part AS w WHERE w.source = p_source.source)) THEN 'armed' ELSE 'served' END,
        attempts = 0, retry_at = NULL, error = NULL
    WHERE p.source = p_source.source AND p.relation = p_relation AND p.state = 'new';
END
$$;
COMMENT ON FUNCTION pymig._arm(pymig.source, regclass, interval) IS
    'One attempt to create the triggers of a source on one of its tables; 55P03 where a writer held it for longer than the timeout.';

-- sql/source/_array_channels.sql
CREATE OR REPLACE FUNCTION pymig._array_channels(p_source text, p_entity text, p_leaves text DEFAULT 'true')
RETURNS SETOF text
LANGUAGE sql
STABLE
ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT v.value FROM pymig._channel_values(p_source, p_entity, p_leaves) AS v (value)
$$;
COMMENT ON FUNCTION pymig._array_channels(text, text, text) IS
    'The same as _channel_values, but the planner takes it for ten rows: so a join hashes this list and not what was gathered. A hash table of that would hold a copy of all arrays.';

-- sql/source/_cell_columns.sql
CREATE OR REPLACE FUNCTION pymig._cell_columns(p_types text[])
RETURNS text[]
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY['is_null'] || ARRAY(SELECT 'as_' || t.t FROM unnest(p_types) AS t (t))
$$;
COMMENT ON FUNCTION pymig._cell_columns(text[]) IS 'Columns of the cell view that a recompute or a verification of these column types looks at.';

-- sql/source/_cell_fault_sql.sql
CREATE OR REPLACE FUNCTION pymig._cell_fault_sql(p_source pymig.source)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_values text := (SELECT string_agg(format('n.%I', c.c), ', ') FROM unnest(p_source.value_columns) AS c (c));
    v_fault text;
BEGIN
    IF p_source.format_column IS NULL THEN
        v_fault := format('WHEN num_nonnulls(%s) > 1 THEN ''several_values''', v_values);
    ELSE
        SELECT format('WHEN n.%1$I IS NULL OR n.%1$I::text NOT IN (%2$s) THEN ''unknown_format''
                       WHEN CASE n.%1$I::text %3$s END AND num_nonnulls(%4$s) > 0 THEN ''other_column''',
            p_source.format_column, string_agg(quote_literal(v.format), ', '),
            string_agg(format('WHEN %L THEN n.%I IS NULL', v.format, v.value_column), ' '), v_values)
        INTO v_fault
        FROM pymig._value_columns(p_source) AS v;
    END IF;
    RETURN format('CASE WHEN n.%I IS NULL THEN ''no_time'' WHEN n.%I IS NULL THEN ''no_channel'' %s END',
        p_source.time_column, p_source.channel_column, v_fault);
END
$$;
COMMENT ON FUNCTION pymig._cell_fault_sql(pymig.source) IS
    'SQL expression over a narrow row n: why it can''t be a cell of any type (a reason of quarantine), or NULL.';

-- sql/source/_cell_kind_sql.sql
CREATE OR REPLACE FUNCTION pymig._cell_kind_sql(p_source pymig.source)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN p_source.format_column IS NOT NULL
        THEN format('CASE n.%I::text %s END', p_source.format_column,
            string_agg(format('WHEN %L THEN %L', v.format, v.kind), ' ' ORDER BY v.ord))
        ELSE format('CASE %s END',
            string_agg(format('WHEN n.%I IS NOT NULL THEN %L', v.value_column, v.kind), ' ' ORDER BY v.ord))
    END
    FROM pymig._value_columns(p_source) AS v
$$;
COMMENT ON FUNCTION pymig._cell_kind_sql(pymig.source) IS 'SQL expression over a narrow row n: the native type of its value.';

-- sql/source/_cell_sql.sql
CREATE OR REPLACE FUNCTION pymig._cell_sql(p_source pymig.source, p_cell_type text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN count(*) = 0 THEN format('NULL::%s', p_cell_type)
        WHEN p_source.format_column IS NOT NULL THEN
            format('CASE n.%I::text %s END', p_source.format_column, string_agg(format('WHEN %L THEN %s', v.format, v.cell), ' '))
        ELSE format('CASE WHEN num_nonnulls(%s) > 1 THEN NULL %s END',
                (SELECT string_agg(format('n.%I', c.c), ', ') FROM unnest(p_source.value_columns) AS c (c)),
                string_agg(format('WHEN n.%I IS NOT NULL THEN %s', v.value_column, v.cell), ' '))
    END
    FROM (
        SELECT v.format, v.value_column, pymig._cast_sql(format('n.%I', v.value_column), v.kind, p_cell_type) AS cell
        FROM pymig._value_columns(p_source) AS v
        ORDER BY v.ord
    ) AS v
    WHERE v.cell IS NOT NULL
$$;
COMMENT ON FUNCTION pymig._cell_sql(pymig.source, text) IS 'SQL expression over a narrow row n: its cell in one type.';

-- sql/source/_cell_view_sql.sql
CREATE OR REPLACE FUNCTION pymig._cell_view_sql(p_source pymig.source)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_ties text := (SELECT string_agg(format(', %s AS tie_%s', t.tie, t.i), '')
                    FROM unnest(pymig._tie_expressions(p_source)) WITH ORDINALITY AS t (tie, i));
    v_cells text := (SELECT string_agg(format(', %s AS as_%s', pymig._cell_sql(p_source, t.cell_type), t.cell_type), '')
                     FROM unnest(ARRAY['text', 'float8', 'int8', 'bool', 'numeric', 'jsonb']) AS t (cell_type));
    v_only text := (SELECT string_agg(format(', %s AS only_%s', coalesce((
                            SELECT string_agg(format('n.%I IS NULL', v.value_column), ' AND ' ORDER BY v.ord)
                            FROM (SELECT v.value_column, min(v.ord) AS ord FROM pymig._value_columns(p_source) AS v
                                  WHERE v.kind <> t.cell_type GROUP BY v.value_column) AS v), 'true'), t.cell_type), '')
                    FROM unnest(ARRAY['text', 'float8', 'int8', 'bool', 'numeric', 'jsonb']) AS t (cell_type));
    -- Asked of every row: whether the rest is in order matters only where there is no value.
    v_null text := (SELECT string_agg(format('n.%I IS NULL AND ', c.c), '') FROM unnest(p_source.value_columns) AS c (c))
        || format('(%s) IS NULL', pymig._cell_fault_sql(p_source));
BEGIN
    RETURN format(
        'CREATE VIEW pymig.%I WITH (security_invoker = true) AS
         SELECT n.%I AS entity, n.%I AS channel, n.%I AS raw_time, %s AS time%s%s%s, %s AS kind, %s AS fault, %s AS is_null, to_jsonb(n.*) AS narrow_row
         FROM %s AS n',
        p_source.source || '_cell', p_source.entity_column, p_source.channel_column, p_source.time_column,
        pymig._grain_sql(p_source, format('n.%I', p_source.time_column)), v_ties, v_cells, v_only,
        pymig._cell_kind_sql(p_source), pymig._cell_fault_sql(p_source), v_null, p_source.narrow);
END
$$;
COMMENT ON FUNCTION pymig._cell_view_sql(pymig.source) IS
    'DDL of the view <source>_cell: the one mapping of a narrow row to a cell (R14). Backfill, sync and verify read only it. as_<type>: the cell in that type, NULL where it does not fit; only_<type>: no value column of another kind is filled; kind: its native type; fault: why it can''t be a cell; is_null: it has no value, and nothing else is wrong with it.';

-- sql/source/_cells_sql.sql
CREATE OR REPLACE FUNCTION pymig._cells_sql(
    p_source pymig.source, p_entity text, p_condition text, p_by_key boolean, p_columns text[],
    p_leaves text DEFAULT 'true', p_gather boolean DEFAULT false, p_part int DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_view text := p_source.source || '_cell';
    v_columns text := (SELECT string_agg('n.' || c.c, ', ') FROM unnest(p_columns) AS c (c));
    v_winner record;
BEGIN
    IF p_gather THEN
        RETURN format(
            'WITH channel AS MATERIALIZED (SELECT c.* FROM (%1$s) AS c%2$s)
             SELECT c.ord, c.part, c.wide_column, c.column_type, c.channel::text AS channel, n.time, %3$s
             FROM pymig.%4$I AS n JOIN channel AS c ON c.channel = n.channel
             WHERE n.entity = %5$L AND n.channel = ANY (ARRAY(SELECT c.channel FROM channel AS c)) AND %6$s',
            pymig._channel_list_sql(p_source, p_entity, p_leaves, '_array_channels'), ' WHERE c.part = ' || p_part, v_columns, v_view, p_entity, p_condition);
    END IF;
    IF p_by_key THEN
        v_winner := pymig._winner_sql(p_source, 'n.time');
        RETURN format(
            'SELECT c.ord, c.part, c.wide_column, c.column_type, c.channel::text AS channel, n.time, %2$s
             FROM (WITH channel AS MATERIALIZED (%1$s) SELECT c.* FROM channel AS c) AS c CROSS JOIN LATERAL (
                 SELECT %3$s n.time, %2$s FROM pymig.%4$I AS n WHERE n.entity = %5$L AND n.channel = c.channel AND %6$s %7$s) AS n',
            pymig._channel_list_sql(p_source, p_entity, p_leaves), v_columns, v_winner.distinct_on, v_view, p_entity, p_condition, v_winner.order_by);
    END IF;
    v_winner := pymig._winner_sql(p_source, 'n.channel, n.time');
    RETURN format(
        'SELECT c.ord, c.part, c.wide_column, c.column_type, n.channel::text AS channel, n.time, %1$s
         FROM (SELECT %2$s n.channel, n.time, %1$s FROM pymig.%3$I AS n WHERE n.entity = %4$L AND %5$s %6$s) AS n
         LEFT JOIN pymig.channel AS c ON c.source = %7$L AND c.entity = %4$L AND c.channel = n.channel::text',
        v_columns, v_winner.distinct_on, v_view, p_entity, p_condition, v_winner.order_by, p_source.source);
END
$$;
COMMENT ON FUNCTION pymig._cells_sql(pymig.source, text, text, boolean, text[], text, boolean, int) IS
    'SELECT of the narrow rows that decide the cells of an entity where a condition on n.raw_time holds: ord, part, wide_column, column_type, channel, time and columns of the cell view. Read by time, by key channel by channel, or gathered: by a unique key in one pass over the heap, for _run_gathering; then p_part may leave but one part''s channels.';

-- sql/source/_channel_bound.sql
CREATE OR REPLACE FUNCTION pymig._channel_bound(p_source text, p_entity text, p_leaves text, p_last boolean)
RETURNS text
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
    SET enable_indexscan = on
    SET enable_indexonlyscan = on
    SET enable_sort = on
    SET enable_seqscan = on
AS $$
DECLARE
    v_bound text;
BEGIN
    EXECUTE format(
        'SELECT n.channel::text FROM pymig.%I AS n WHERE n.entity = %L AND n.channel IS NOT NULL AND %s ORDER BY n.channel %s LIMIT 1',
        p_source || '_cell', p_entity, p_leaves, CASE WHEN p_last THEN 'DESC' ELSE 'ASC' END)
    INTO v_bound;
    RETURN v_bound;
END
$$;
COMMENT ON FUNCTION pymig._channel_bound(text, text, text, boolean) IS
    'The first or last channel, in the order of the key, that the narrow table has for an entity (in some partitions only, by a condition of _leaves_sql); NULL: it has none. In the snapshot of the statement that calls it, but planned apart, as _channel_values is.';

-- sql/source/_channel_list_sql.sql
CREATE OR REPLACE FUNCTION pymig._channel_list_sql(p_source pymig.source, p_entity text, p_leaves text DEFAULT 'true', p_function text DEFAULT '_channel_values')
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        'SELECT v.value::%1$s AS channel, c.ord, c.part, c.wide_column, c.column_type
         FROM pymig.%5$I(%2$L, %3$L%4$s) AS v (value)
         LEFT JOIN pymig.channel AS c ON c.source = %2$L AND c.entity = %3$L AND c.channel = v.value',
        pymig._type_name(p_source, p_source.channel_column), p_source.source, p_entity, CASE WHEN p_leaves <> 'true' THEN format(', %L', p_leaves) ELSE '' END, p_function)
$$;
COMMENT ON FUNCTION pymig._channel_list_sql(pymig.source, text, text, text) IS
    'SELECT of the channels the narrow table has for an entity at the moment it runs, with what the catalog knows of them: ord NULL means an unknown channel. p_leaves: see _leaves_sql; p_function: _channel_values, or _array_channels where arrays are joined to it.';

-- sql/source/_channel_range_sql.sql
CREATE OR REPLACE FUNCTION pymig._channel_range_sql(p_source pymig.source, p_entity text, p_leaves text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- In subqueries: the planner would ask a STABLE function for its value, and know that the range is wide.
    SELECT format('n.channel BETWEEN (SELECT pymig._channel_bound(%1$s, false)::%2$s) AND (SELECT pymig._channel_bound(%1$s, true)::%2$s)',
        format('%L, %L, %L', p_source.source, p_entity, p_leaves), pymig._type_name(p_source, p_source.channel_column))
$$;
COMMENT ON FUNCTION pymig._channel_range_sql(pymig.source, text, text) IS
    'SQL condition that holds for all rows of an entity that have a channel (p_leaves: in some partitions only). The planner takes it for one row in 200, so that a skip scan of the key is the cheapest way to them, whatever else there is (docs/explanation/pivot.md).';

-- sql/source/_channel_values.sql
CREATE OR REPLACE FUNCTION pymig._channel_values(p_source text, p_entity text, p_leaves text DEFAULT 'true')
RETURNS SETOF text
LANGUAGE plpgsql
STABLE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
    SET enable_indexscan = on
    SET enable_indexonlyscan = on
    SET enable_sort = on
    SET enable_seqscan = on
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH RECURSIVE loose(value) AS (%s) SELECT l.value::text FROM loose AS l WHERE l.value IS NOT NULL',
        pymig._loose_scan_sql(pymig._source(p_source), 'channel', format('n.entity = %L AND %s', p_entity, p_leaves)));
END
$$;
COMMENT ON FUNCTION pymig._channel_values(text, text, text) IS
    'The channels the narrow table has for an entity (in some partitions only, by a condition of _leaves_sql), as text, by a loose scan (9 ms for 1,000). STABLE: in the snapshot of the statement that calls it, but planned apart, because the settings that make gathering fast make this slow.';

-- sql/source/_column_types.sql
CREATE OR REPLACE FUNCTION pymig._column_types(p_source text, p_entity text)
RETURNS text[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(t.column_type ORDER BY t.column_type)
    FROM (SELECT DISTINCT c.column_type FROM pymig.channel AS c WHERE c.source = p_source AND c.entity = p_entity) AS t
$$;
COMMENT ON FUNCTION pymig._column_types(text, text) IS 'The column types an entity''s channels have.';

-- sql/source/_create_direct_function.sql
CREATE OR REPLACE FUNCTION pymig._create_direct_function(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := p_source.source || '_write_directly';
    -- The same expressions as of the view <source>_cell. A JSON string is no value of jsonb, so such columns have no branch.
    v_value text := (SELECT string_agg(format('WHEN %L THEN (%s)::text', t.t, pymig._cell_sql(p_source, t.t)), ' ')
                     FROM unnest(ARRAY['text', 'float8', 'int8', 'bool', 'numeric', 'jsonb']) AS t (t) WHERE t.t <> 'jsonb');
BEGIN
    EXECUTE format($f$
        CREATE OR REPLACE FUNCTION pymig.%I(p_rows %s[]) RETURNS void
        LANGUAGE plpgsql
            SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET jit = off
    SET extra_float_digits = 1
    SET DateStyle = 'ISO, YMD'
    SET IntervalStyle = 'postgres'
    SET TimeZone = 'UTC'
    SET bytea_output = 'hex'
        SET lock_timeout = '10ms'
        AS %L$f$, v_name, p_source.narrow, format($f$
        DECLARE
            v_started timestamptz := clock_timestamp();
            v_budget interval;
            r_entity record;
            r_part record;
        BEGIN
            -- A statement inside of ours (of an application's trigger, or of a function in RETURNING) may have changed our rows, and written them: are they what we were told?
            IF pymig._direct_keys() > 0 AND EXISTS (
                SELECT FROM unnest(p_rows) AS n WHERE NOT EXISTS (
                    SELECT FROM %9$s AS t WHERE t.%2$I = n.%2$I AND t.%3$I = n.%3$I AND t.%4$I = n.%4$I AND ROW(t.*)::record OPERATOR(pg_catalog.*=) ROW(n.*)::record)) THEN
                RAISE EXCEPTION 'rows have changed meanwhile' USING ERRCODE = 'PM031', HINT = 'The worker does it.';
            END IF;
            FOR r_entity IN
                SELECT n.%2$I::text AS entity, array_agg(DISTINCT pymig.tick_of(n.%4$I)) AS ticks FROM unnest(p_rows) AS n GROUP BY 1 ORDER BY 1
            LOOP
                v_budget := pymig._lock_directly(%1$L, r_entity.entity, r_entity.ticks, %5$s);
                -- A statement of its own: what others had locked until now is in its snapshot (R22).
                FOR r_part IN
                    WITH cell AS MATERIALIZED (
                        SELECT n.%4$I AS time, c.part, c.wide_column, c.column_type, CASE c.column_type %6$s END AS value,
                            %7$s IS NULL AS is_plain
                        FROM unnest(p_rows) AS n
                        LEFT JOIN (
                            SELECT c.channel, c.part, c.wide_column, c.column_type
                            FROM pymig.channel AS c
                            JOIN pymig.part AS p ON p.source = c.source AND p.entity = c.entity AND p.part = c.part
                            JOIN pg_attribute AS a ON a.attrelid = to_regclass(format('%%I.%%I', %8$L, p.wide_table))
                                AND a.attname = c.wide_column AND a.atttypid = to_regtype(c.column_type) AND NOT a.attisdropped
                            WHERE c.source = %1$L AND c.entity = r_entity.entity
                        ) AS c ON c.channel = n.%3$I::text
                        WHERE n.%2$I::text = r_entity.entity
                    )
                    SELECT p.wide_table, array_agg(t.time ORDER BY t.time) AS times, array_agg(coalesce(j.cells, '{}') ORDER BY t.time) AS cells,
                        ARRAY(SELECT DISTINCT format('%%I %%s', x.wide_column, x.column_type) FROM cell AS x WHERE x.part = p.part) AS columns,
                        (SELECT bool_and(x.is_plain AND x.value IS NOT NULL) FROM cell AS x) AS is_plain
                    FROM pymig.part AS p
                    CROSS JOIN (SELECT DISTINCT x.time FROM cell AS x) AS t
                    LEFT JOIN (SELECT x.part, x.time, json_object_agg(x.wide_column, x.value) AS cells FROM cell AS x WHERE x.part IS NOT NULL GROUP BY 1, 2) AS j
                        ON j.part = p.part AND j.time = t.time
                    WHERE p.source = %1$L AND p.entity = r_entity.entity
                    GROUP BY p.part, p.wide_table
                    ORDER BY p.part
                LOOP
                    IF NOT coalesce(r_part.is_plain, false) THEN
                        RAISE EXCEPTION 'not all of it is a value of a known column' USING ERRCODE = 'PM031', HINT = 'The worker does it.';
                    ELSIF clock_timestamp() > v_started + v_budget THEN
                        RAISE EXCEPTION 'it takes longer than its budget' USING ERRCODE = 'PM032', HINT = 'The worker does it.';
                    END IF;
                    PERFORM pymig._merge_part(%8$L, r_part.wide_table, %4$L, r_part.columns, r_part.times, r_part.cells);
                END LOOP;
                IF NOT FOUND THEN
                    RAISE EXCEPTION 'it has no wide table' USING ERRCODE = 'PM031', HINT = 'The worker does it.';
                END IF;
            END LOOP;
            IF clock_timestamp() > v_started + v_budget THEN
                PERFORM pymig._not_written(%1$L, 'PM032', 'it took longer than its budget');
            END IF;
        END
        $f$, p_source.source, p_source.entity_column, p_source.channel_column, p_source.time_column,
        p_source.bucket_ticks, v_value, pymig._cell_fault_sql(p_source), p_source.wide_schema, p_source.narrow));
    EXECUTE format('REVOKE ALL ON FUNCTION pymig.%I FROM PUBLIC', v_name);
    -- Who sets a ship direct may be another role than the trigger functions run as.
    EXECUTE format('ALTER FUNCTION pymig.%I OWNER TO %I', v_name, (
        SELECT r.rolname FROM pg_proc AS p JOIN pg_roles AS r ON r.oid = p.proowner
        WHERE p.oid = format('pymig.%I()', p_source.source || '_record_insert')::regprocedure));
    EXECUTE format('COMMENT ON FUNCTION pymig.%I IS %L', v_name,
        'Writes rows of direct entities into their wide tables, in the transaction that wrote them; an error where there is any doubt, which the trigger function catches. Waits for nothing.');
END
$$;
COMMENT ON FUNCTION pymig._create_direct_function(pymig.source) IS
    'Makes the function that the trigger functions of a source call while an entity of it is direct, in one subtransaction a statement. It only tries locks. PM031: a doubt; PM032: longer than the budget. It belongs to whom the trigger functions do.';

-- sql/source/_create_pending_view.sql
CREATE OR REPLACE FUNCTION pymig._create_pending_view(p_without text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_sources text := (
        SELECT string_agg(format(
            'UNION ALL
             SELECT %1$L, p.entity::text, p.time::text, p.kind, p.recorded_at, 0, NULL::text FROM pymig.%2$I AS p
             UNION ALL
             SELECT %1$L, d.entity, t.time::text, CASE WHEN d.times IS NULL THEN ''bucket'' ELSE ''key'' END, d.recorded_at, d.attempts, d.error
             FROM pymig.%3$I AS d LEFT JOIN LATERAL unnest(d.times) AS t (time) ON true
            ', s.source, s.source || '_pending', s.source || '_todo'), ' ')
        FROM pymig.source AS s
        WHERE s.source IS DISTINCT FROM p_without);
BEGIN
    EXECUTE 'CREATE OR REPLACE VIEW pymig.pending AS
        SELECT NULL::text AS source, NULL::text AS entity, NULL::text AS time, NULL::text AS kind,
            NULL::timestamptz AS recorded_at, NULL::int AS attempts, NULL::text AS error
        WHERE false ' || coalesce(v_sources, '');
    COMMENT ON VIEW pymig.pending IS
        'Keys that changed and still have to be recomputed, of all sources.';
    COMMENT ON COLUMN pymig.pending.source IS 'Source.';
    COMMENT ON COLUMN pymig.pending.entity IS 'Entity; NULL for a TRUNCATE.';
    COMMENT ON COLUMN pymig.pending.time IS 'Narrow time that changed.';
    COMMENT ON COLUMN pymig.pending.kind IS 'key, bucket (all of it) or truncate.';
    COMMENT ON COLUMN pymig.pending.recorded_at IS 'When the transaction that changed it began.';
    COMMENT ON COLUMN pymig.pending.attempts IS 'Recomputes of it that failed.';
    COMMENT ON COLUMN pymig.pending.error IS 'Error of the last one.';
END
$$;
COMMENT ON FUNCTION pymig._create_pending_view(text) IS 'Rebuilds the view pymig.pending over the sources there are.';

-- sql/source/_create_source_objects.sql
CREATE OR REPLACE FUNCTION pymig._create_source_objects(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_entity_type text := (SELECT format_type(a.atttypid, NULL) FROM pg_attribute AS a
                           WHERE a.attrelid = p_source.narrow AND a.attname = p_source.entity_column);
    v_table text;
BEGIN
    EXECUTE pymig._cell_view_sql(p_source);
    EXECUTE format('COMMENT ON VIEW pymig.%I IS %L', p_source.source || '_cell',
        format('Each row of %s as a cell: as_<type> is its value in that type, NULL where it does not fit; only_<type>: no value column of another kind is filled; fault says why it can''t be a cell; is_null: it has no value, and nothing else is wrong with it.', p_source.narrow));
    -- Two tables and a sequence that says which one the triggers fill: the other can be emptied without anyone waiting.
    EXECUTE format('CREATE SEQUENCE pymig.%I', p_source.source || '_turn');
    EXECUTE format('CREATE SEQUENCE pymig.%I', p_source.source || '_lost');
    EXECUTE format('CREATE SEQUENCE pymig.%I', p_source.source || '_paused');
    FOREACH v_table IN ARRAY ARRAY[p_source.source || '_pending_1', p_source.source || '_pending_2'] LOOP
        -- Keys are kept in the narrow table's own types: no cast of the trigger's can fail or depend on a setting.
        EXECUTE format(
            'CREATE TABLE pymig.%I (entity %s, time %s, kind text NOT NULL DEFAULT ''key'', recorded_at timestamptz NOT NULL DEFAULT now())',
            v_table, v_entity_type, p_source.time_type);
        EXECUTE format('ALTER TABLE pymig.%I REPLICA IDENTITY FULL', v_table);
        -- Keys live for a tenth of a second: vacuum by number, not by share, and never by a lock that ingest would meet.
        EXECUTE format('ALTER TABLE pymig.%I SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off)', v_table);
        EXECUTE format('COMMENT ON TABLE pymig.%I IS %L', v_table,
            'Keys (entity, time) that changed and were not yet seen by a worker. Append-only for the triggers, which fill one of the two.');
    END LOOP;
    EXECUTE format('CREATE VIEW pymig.%I AS SELECT p.* FROM pymig.%I AS p UNION ALL SELECT p.* FROM pymig.%I AS p',
        p_source.source || '_pending', p_source.source || '_pending_1', p_source.source || '_pending_2');
    EXECUTE format('COMMENT ON VIEW pymig.%I IS %L', p_source.source || '_pending', 'Both pending tables. Whoever reads one must read the other.');
    EXECUTE format('COMMENT ON SEQUENCE pymig.%I IS %L', p_source.source || '_turn', 'Which pending table the triggers fill: the second where it is odd.');
    EXECUTE format('COMMENT ON SEQUENCE pymig.%I IS %L', p_source.source || '_lost', 'Moves when a trigger could not record a key.');
    EXECUTE format('COMMENT ON SEQUENCE pymig.%I IS %L', p_source.source || '_paused', 'Until when no trigger writes wide rows itself (seconds since 1970).');
    EXECUTE format(
        'CREATE TABLE pymig.%1$I (entity text NOT NULL, bucket bigint NOT NULL, times %2$s[], recorded_at timestamptz NOT NULL,
             attempts int NOT NULL DEFAULT 0, retry_at timestamptz, error text)',
        p_source.source || '_todo', p_source.time_type);
    EXECUTE format('ALTER TABLE pymig.%I REPLICA IDENTITY FULL', p_source.source || '_todo');
    EXECUTE format('CREATE INDEX ON pymig.%I (entity, bucket)', p_source.source || '_todo');
    EXECUTE format('COMMENT ON TABLE pymig.%I IS %L', p_source.source || '_todo',
        'Pending keys by bucket, waiting for their recompute. times NULL: the whole bucket.');
    PERFORM pymig._create_trigger_functions(p_source);
    PERFORM pymig._create_pending_view();
END
$$;
COMMENT ON FUNCTION pymig._create_source_objects(pymig.source) IS
    'Makes what a source has in schema pymig: the cell view, the pending tables and sequences, the todo, the trigger functions.';

-- sql/source/_create_trigger_functions.sql
CREATE OR REPLACE FUNCTION pymig._create_trigger_functions(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_turn text := format('pymig.%I', p_source.source || '_turn');
    v_lost text := format('pymig.%I', p_source.source || '_lost');
    -- Limits are part of the function: nothing is looked up that an old snapshot could hide or a lock could hold.
    v_is_full text := CASE WHEN p_source.queue_limit IS NULL THEN 'false' ELSE format(
        'pg_catalog.pg_relation_size(CASE WHEN v_turn OPERATOR(pg_catalog.%%) 2 OPERATOR(pg_catalog.=) 1 THEN %L::pg_catalog.regclass ELSE %L::pg_catalog.regclass END) OPERATOR(pg_catalog.>=) %s',
        format('pymig.%I', p_source.source || '_pending_2'), format('pymig.%I', p_source.source || '_pending_1'), p_source.queue_limit) END;
    -- To ask for a size is a sixth of what a single row's trigger costs: one in a hundred asks, as if the queue had been found full,
    -- and all once one has found it so. Part of the same expression, since each that is not immutable takes a snapshot.
    v_is_watched text := CASE WHEN p_source.queue_limit IS NULL THEN ''
        ELSE ' OPERATOR(pg_catalog.+) CASE WHEN pg_catalog.random() OPERATOR(pg_catalog.<) 0.01 THEN 1099511627776 ELSE 0 END' END;
    -- Only a disk that can be full by itself is worth a subtransaction a statement (R19).
    v_handler text := CASE WHEN p_source.queue_tablespace IS NULL THEN '' ELSE format('
        EXCEPTION
            WHEN insufficient_resources OR system_error THEN
                PERFORM pg_catalog.nextval(%L);
                RETURN NULL;', v_lost) END;
    -- Only at READ COMMITTED: an older snapshot would miss wide rows.
    v_direct text[] := ARRAY(SELECT e.entity FROM pymig.entity AS e WHERE e.source = p_source.source AND e.sync = 'direct' ORDER BY e.entity);
    v_is_direct text := format('n.%I::pg_catalog.text OPERATOR(pg_catalog.=) ANY (%L::pg_catalog.text[])', p_source.entity_column, v_direct);
    v_keeps_keys text := format('NOT EXISTS (SELECT o.%1$I, o.%2$I, o.%3$I FROM old_rows AS o EXCEPT SELECT n.%1$I, n.%2$I, n.%3$I FROM new_rows AS n)',
        p_source.entity_column, p_source.channel_column, p_source.time_column);
    -- Where rows of others are among them, all keys are recorded: a recompute too many does no harm.
    v_write text := format('
            IF pg_catalog.current_setting(''transaction_isolation'') OPERATOR(pg_catalog.=) ''read committed''
                AND coalesce(pg_catalog.pg_sequence_last_value(%1$L), 0) OPERATOR(pg_catalog.<) extract(epoch FROM pg_catalog.clock_timestamp())
                AND NOT EXISTS (SELECT FROM new_rows OFFSET 20000) AND EXISTS (SELECT FROM new_rows AS n WHERE %2$s) THEN
                BEGIN
                    IF {keeps_keys} THEN
                        PERFORM pymig.%3$I(ARRAY(SELECT ROW(n.*)::%4$s FROM new_rows AS n WHERE %2$s));
                        IF NOT EXISTS (SELECT FROM new_rows AS n WHERE (%2$s) IS NOT TRUE) THEN
                            RETURN NULL;
                        END IF;
                    END IF;
                EXCEPTION
                    WHEN OTHERS THEN
                        PERFORM pymig._not_written(%5$L, SQLSTATE, SQLERRM);
                END;
            END IF;', format('pymig.%I', p_source.source || '_paused'), v_is_direct, p_source.source || '_write_directly', p_source.narrow, p_source.source);
    v_write_inserted text := CASE WHEN v_direct = '{}' THEN '' ELSE replace(v_write, '{keeps_keys}', 'true') END;
    v_write_updated text := CASE WHEN v_direct = '{}' THEN '' ELSE replace(v_write, '{keeps_keys}', v_keeps_keys) END;
BEGIN
    IF v_direct <> '{}' THEN
        PERFORM pymig._create_direct_function(p_source);
    END IF;
    -- One row needs no DISTINCT, which is a third of what its trigger costs. Of two updated rows one may have kept its key, so LIMIT
    -- would not do; and a trigger of the partition it moves to can veto a row, which then is an old one only.
    -- SECURITY DEFINER: who ingests needs no privilege of ours. Without jit = off, a session whose first statement is a huge one would
    -- have each of its later ones compiled, since its plans are kept.
        EXECUTE format(
        'CREATE OR REPLACE FUNCTION pymig.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS %L',
        p_source.source || '_record_insert', format($f$
        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value(%5$L), 0)%9$s;
            v_recorded bigint;
        BEGIN%10$s
            IF v_turn OPERATOR(pg_catalog.<) 1099511627776 THEN
                IF v_turn OPERATOR(pg_catalog.%%) 2 OPERATOR(pg_catalog.=) 1 THEN
                    INSERT INTO pymig.%2$I (entity, time)
                    SELECT n.%3$I, n.%4$I FROM new_rows AS n LIMIT 2;
                ELSE
                    INSERT INTO pymig.%1$I (entity, time)
                    SELECT n.%3$I, n.%4$I FROM new_rows AS n LIMIT 2;
                END IF;
                GET DIAGNOSTICS v_recorded = ROW_COUNT;
                IF v_recorded OPERATOR(pg_catalog.=) 1 THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF %7$s THEN
                PERFORM pg_catalog.nextval(%6$L) WHERE EXISTS (SELECT DISTINCT n.%3$I, n.%4$I FROM new_rows AS n);
                PERFORM pg_catalog.setval(%5$L, t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value(%5$L), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.%2$I (entity, time)
                SELECT DISTINCT n.%3$I, n.%4$I FROM new_rows AS n;
            ELSE
                INSERT INTO pymig.%1$I (entity, time)
                SELECT DISTINCT n.%3$I, n.%4$I FROM new_rows AS n;
            END IF;
            RETURN NULL;%8$s
        END
        $f$, p_source.source || '_pending_1', p_source.source || '_pending_2',
        p_source.entity_column, p_source.time_column, v_turn, v_lost, v_is_full, v_handler, v_is_watched, v_write_inserted));
    EXECUTE format('REVOKE ALL ON FUNCTION pymig.%I() FROM PUBLIC', p_source.source || '_record_insert');
    EXECUTE format('COMMENT ON FUNCTION pymig.%I() IS %L', p_source.source || '_record_insert',
        'Records the keys a change of the narrow table touched. Nothing else: it can neither wait nor fail for a wide table.');

        EXECUTE format(
        'CREATE OR REPLACE FUNCTION pymig.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS %L',
        p_source.source || '_record_delete', format($f$
        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value(%5$L), 0)%9$s;
            v_recorded bigint;
        BEGIN%10$s
            IF v_turn OPERATOR(pg_catalog.<) 1099511627776 THEN
                IF v_turn OPERATOR(pg_catalog.%%) 2 OPERATOR(pg_catalog.=) 1 THEN
                    INSERT INTO pymig.%2$I (entity, time)
                    SELECT o.%3$I, o.%4$I FROM old_rows AS o LIMIT 2;
                ELSE
                    INSERT INTO pymig.%1$I (entity, time)
                    SELECT o.%3$I, o.%4$I FROM old_rows AS o LIMIT 2;
                END IF;
                GET DIAGNOSTICS v_recorded = ROW_COUNT;
                IF v_recorded OPERATOR(pg_catalog.=) 1 THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF %7$s THEN
                PERFORM pg_catalog.nextval(%6$L) WHERE EXISTS (SELECT DISTINCT o.%3$I, o.%4$I FROM old_rows AS o);
                PERFORM pg_catalog.setval(%5$L, t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value(%5$L), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.%2$I (entity, time)
                SELECT DISTINCT o.%3$I, o.%4$I FROM old_rows AS o;
            ELSE
                INSERT INTO pymig.%1$I (entity, time)
                SELECT DISTINCT o.%3$I, o.%4$I FROM old_rows AS o;
            END IF;
            RETURN NULL;%8$s
        END
        $f$, p_source.source || '_pending_1', p_source.source || '_pending_2',
        p_source.entity_column, p_source.time_column, v_turn, v_lost, v_is_full, v_handler, v_is_watched, NULL));
    EXECUTE format('REVOKE ALL ON FUNCTION pymig.%I() FROM PUBLIC', p_source.source || '_record_delete');
    EXECUTE format('COMMENT ON FUNCTION pymig.%I() IS %L', p_source.source || '_record_delete',
        'Records the keys a change of the narrow table touched. Nothing else: it can neither wait nor fail for a wide table.');

        EXECUTE format(
        'CREATE OR REPLACE FUNCTION pymig.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS %L',
        p_source.source || '_record_update', format($f$
        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value(%5$L), 0)%9$s;
            v_recorded bigint;
        BEGIN%10$s
            IF v_turn OPERATOR(pg_catalog.<) 1099511627776 THEN
                IF v_turn OPERATOR(pg_catalog.%%) 2 OPERATOR(pg_catalog.=) 1 THEN
                    INSERT INTO pymig.%2$I (entity, time)
                    SELECT n.%3$I, n.%4$I FROM new_rows AS n JOIN old_rows AS o ON o.%3$I OPERATOR(pg_catalog.=) n.%3$I AND o.%4$I OPERATOR(pg_catalog.=) n.%4$I WHERE NOT EXISTS (SELECT FROM new_rows OFFSET 1) AND NOT EXISTS (SELECT FROM old_rows OFFSET 1);
                ELSE
                    INSERT INTO pymig.%1$I (entity, time)
                    SELECT n.%3$I, n.%4$I FROM new_rows AS n JOIN old_rows AS o ON o.%3$I OPERATOR(pg_catalog.=) n.%3$I AND o.%4$I OPERATOR(pg_catalog.=) n.%4$I WHERE NOT EXISTS (SELECT FROM new_rows OFFSET 1) AND NOT EXISTS (SELECT FROM old_rows OFFSET 1);
                END IF;
                GET DIAGNOSTICS v_recorded = ROW_COUNT;
                IF v_recorded OPERATOR(pg_catalog.=) 1 THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF %7$s THEN
                PERFORM pg_catalog.nextval(%6$L) WHERE EXISTS (SELECT n.%3$I, n.%4$I FROM new_rows AS n UNION SELECT o.%3$I, o.%4$I FROM old_rows AS o);
                PERFORM pg_catalog.setval(%5$L, t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value(%5$L), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.%2$I (entity, time)
                SELECT n.%3$I, n.%4$I FROM new_rows AS n UNION SELECT o.%3$I, o.%4$I FROM old_rows AS o;
            ELSE
                INSERT INTO pymig.%1$I (entity, time)
                SELECT n.%3$I, n.%4$I FROM new_rows AS n UNION SELECT o.%3$I, o.%4$I FROM old_rows AS o;
            END IF;
            RETURN NULL;%8$s
        END
        $f$, p_source.source || '_pending_1', p_source.source || '_pending_2',
        p_source.entity_column, p_source.time_column, v_turn, v_lost, v_is_full, v_handler, v_is_watched, v_write_updated));
    EXECUTE format('REVOKE ALL ON FUNCTION pymig.%I() FROM PUBLIC', p_source.source || '_record_update');
    EXECUTE format('COMMENT ON FUNCTION pymig.%I() IS %L', p_source.source || '_record_update',
        'Records the keys a change of the narrow table touched. Nothing else: it can neither wait nor fail for a wide table.');

        EXECUTE format(
        'CREATE OR REPLACE FUNCTION pymig.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS %L',
        p_source.source || '_record_truncate', format($f$
        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value(%5$L), 0);
        BEGIN%10$s
            IF %7$s THEN
                PERFORM pg_catalog.nextval(%6$L) WHERE EXISTS (VALUES (NULL, NULL, 'truncate:' OPERATOR(pg_catalog.||) TG_RELID));
                PERFORM pg_catalog.setval(%5$L, t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value(%5$L), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.%2$I (entity, time, kind)
                VALUES (NULL, NULL, 'truncate:' OPERATOR(pg_catalog.||) TG_RELID);
            ELSE
                INSERT INTO pymig.%1$I (entity, time, kind)
                VALUES (NULL, NULL, 'truncate:' OPERATOR(pg_catalog.||) TG_RELID);
            END IF;
            RETURN NULL;%8$s
        END
        $f$, p_source.source || '_pending_1', p_source.source || '_pending_2',
        p_source.entity_column, p_source.time_column, v_turn, v_lost, v_is_full, v_handler, v_is_watched, NULL));
    EXECUTE format('REVOKE ALL ON FUNCTION pymig.%I() FROM PUBLIC', p_source.source || '_record_truncate');
    EXECUTE format('COMMENT ON FUNCTION pymig.%I() IS %L', p_source.source || '_record_truncate',
        'Records the keys a change of the narrow table touched. Nothing else: it can neither wait nor fail for a wide table.');

        EXECUTE format(
        'CREATE OR REPLACE FUNCTION pymig.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS %L',
        p_source.source || '_record_row', format($f$
        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value(%5$L), 0);
        BEGIN%10$s
            IF %7$s THEN
                PERFORM pg_catalog.nextval(%6$L) WHERE EXISTS (SELECT NEW.%3$I, NEW.%4$I WHERE TG_OP OPERATOR(pg_catalog.<>) 'DELETE' UNION SELECT OLD.%3$I, OLD.%4$I WHERE TG_OP OPERATOR(pg_catalog.<>) 'INSERT');
                PERFORM pg_catalog.setval(%5$L, t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value(%5$L), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.%2$I (entity, time)
                SELECT NEW.%3$I, NEW.%4$I WHERE TG_OP OPERATOR(pg_catalog.<>) 'DELETE' UNION SELECT OLD.%3$I, OLD.%4$I WHERE TG_OP OPERATOR(pg_catalog.<>) 'INSERT';
            ELSE
                INSERT INTO pymig.%1$I (entity, time)
                SELECT NEW.%3$I, NEW.%4$I WHERE TG_OP OPERATOR(pg_catalog.<>) 'DELETE' UNION SELECT OLD.%3$I, OLD.%4$I WHERE TG_OP OPERATOR(pg_catalog.<>) 'INSERT';
            END IF;
            RETURN NULL;%8$s
        END
        $f$, p_source.source || '_pending_1', p_source.source || '_pending_2',
        p_source.entity_column, p_source.time_column, v_turn, v_lost, v_is_full, v_handler, v_is_watched, NULL));
    EXECUTE format('REVOKE ALL ON FUNCTION pymig.%I() FROM PUBLIC', p_source.source || '_record_row');
    EXECUTE format('COMMENT ON FUNCTION pymig.%I() IS %L', p_source.source || '_record_row',
        'Records the keys a change of the narrow table touched. Nothing else: it can neither wait nor fail for a wide table.');

END
$$;
COMMENT ON FUNCTION pymig._create_trigger_functions(pymig.source) IS
    'Makes the trigger functions of a source, or makes them anew with other limits or direct entities: one per event, and the row-level twin for logical replication apply, which fires no statement triggers.';

-- sql/source/_disarm.sql
CREATE OR REPLACE FUNCTION pymig._disarm(p_source pymig.source, p_lock_timeout interval)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass;
BEGIN
    IF pymig._is_migrating(p_source.source) THEN
        RETURN false;
    END IF;
    -- Wherever they are, also on partitions that were detached; first the table itself, whose triggers say that all are armed.
    SELECT t.tgrelid INTO v_relation
    FROM pg_trigger AS t
    JOIN pg_proc AS p ON p.oid = t.tgfoid AND p.pronamespace = 'pymig'::regnamespace AND p.proname = p_source.source || substr(t.tgname, 6)
    WHERE t.tgname LIKE 'pymig\_record\_%'
    ORDER BY t.tgrelid = p_source.narrow DESC, t.tgrelid
    LIMIT 1;
    IF NOT FOUND THEN
        DELETE FROM pymig.partition AS p WHERE p.source = p_source.source;
        RETURN false;
    END IF;
    PERFORM pymig._drop_triggers(p_source, v_relation, p_lock_timeout);
    RETURN true;
END
$$;
COMMENT ON FUNCTION pymig._disarm(pymig.source, interval) IS
    'One attempt to drop the triggers from one table of a source, unless an entity needs them; returns whether any was dropped, that is whether to go on; 55P03 where a reader or writer held the table for longer than the timeout.';

-- sql/source/_drop_source_objects.sql
CREATE OR REPLACE FUNCTION pymig._drop_source_objects(p_source pymig.source)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_function text;
BEGIN
    PERFORM pymig._create_pending_view(p_without => p_source.source);
    EXECUTE format('DROP VIEW IF EXISTS pymig.%I', p_source.source || '_cell');
    EXECUTE format('DROP VIEW IF EXISTS pymig.%I', p_source.source || '_pending');
    EXECUTE format('DROP TABLE IF EXISTS pymig.%I, pymig.%I, pymig.%I',
        p_source.source || '_pending_1', p_source.source || '_pending_2', p_source.source || '_todo');
    EXECUTE format('DROP SEQUENCE IF EXISTS pymig.%I, pymig.%I, pymig.%I', p_source.source || '_turn', p_source.source || '_lost', p_source.source || '_paused');
    FOREACH v_function IN ARRAY ARRAY['insert', 'update', 'delete', 'truncate', 'row'] LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS pymig.%I()', p_source.source || '_record_' || v_function);
    END LOOP;
    EXECUTE format('DROP FUNCTION IF EXISTS pymig.%I', p_source.source || '_write_directly');
END
$$;
COMMENT ON FUNCTION pymig._drop_source_objects(pymig.source) IS 'The inverse of _create_source_objects.';

-- sql/source/_gathered_at_once_sql.sql
CREATE OR REPLACE FUNCTION pymig._gathered_at_once_sql(
    p_source pymig.source, p_entity text, p_types text[], p_condition text, p_leaves text, OUT input text, OUT query text)
RETURNS record
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Its array takes every row: most rows are asked nothing, and an odd one is in its place.
    v_commonest text := (SELECT c.column_type FROM pymig.channel AS c WHERE c.source = p_source.source AND c.entity = p_entity
                         GROUP BY c.column_type ORDER BY count(*) DESC, c.column_type LIMIT 1);
    -- Exact whatever only_<type> says: both arrays are of the same rows in the same order, or one is shorter.
    v_is_whole text := (SELECT format('CASE c.column_type %s ELSE true END',
            string_agg(format('WHEN %1$L THEN cardinality(g.cells_%1$s) IS NOT DISTINCT FROM cardinality(g.times)', t.t), ' '))
        FROM unnest(p_types) AS t (t) WHERE t.t <> v_commonest HAVING count(*) > 0);
    -- Either way the planner cannot see how many channels it will be, takes them for a few, and reads the key and no other index.
    v_channels text := CASE WHEN pymig._skips_channels() THEN pymig._channel_range_sql(p_source, p_entity, p_leaves)
        ELSE format('n.channel = ANY (ARRAY(SELECT v.value::%s FROM pymig._channel_values(%L, %L, %L) AS v (value)))',
            pymig._type_name(p_source, p_source.channel_column), p_source.source, p_entity, p_leaves) END;
    c_gather constant text := '%1$s AS MATERIALIZED (
             SELECT n.channel, array_agg(n.time) AS times, count(*) FILTER (WHERE n.is_null) AS nulls, %2$s
             FROM pymig.%3$I AS n%4$s
             WHERE n.entity = %5$L AND %6$s AND %7$s
             GROUP BY n.channel), ';
BEGIN
    input := format('channel AS MATERIALIZED (SELECT k.channel, k.ord, k.column_type FROM pymig._known_channels(%L, %L) AS k), ', p_source.source, p_entity)
        || format(c_gather, 'raw',
        (SELECT string_agg(format('array_agg(n.as_%1$s)%2$s AS cells_%1$s', t.t, CASE WHEN t.t <> v_commonest THEN format(' FILTER (WHERE n.only_%s)', t.t) END), ', ')
         FROM unnest(p_types) AS t (t)),
        p_source.source || '_cell', '', p_entity, v_channels, p_condition)
        || 'unknown AS (SELECT g.channel FROM raw AS g WHERE NOT EXISTS (SELECT FROM channel AS c WHERE c.channel = g.channel::text)), ';
    query := 'SELECT g.* FROM raw AS g';
    IF v_is_whole IS NOT NULL THEN
        input := input || format(c_gather, 'again',
            (SELECT string_agg(format('array_agg(n.as_%1$s) FILTER (WHERE c.column_type = %1$L) AS cells_%1$s', t.t), ', ') FROM unnest(p_types) AS t (t)),
            p_source.source || '_cell', ' JOIN channel AS c ON c.channel = n.channel::text', p_entity,
            format('n.channel = ANY (ARRAY(SELECT g.channel FROM raw AS g JOIN channel AS c ON c.channel = g.channel::text WHERE NOT %s))', v_is_whole), p_condition);
        query := query || ' UNION ALL SELECT g.* FROM again AS g';
    END IF;
    query := format(
        'SELECT c.ord, g.times, g.nulls, %s
         FROM (%s) AS g JOIN channel AS c ON c.channel = g.channel::text
         WHERE %s',
        (SELECT string_agg(format('CASE WHEN c.column_type = %1$L THEN g.cells_%1$s END AS cells_%1$s', t.t), ', ') FROM unnest(p_types) AS t (t)),
        query, coalesce(v_is_whole, 'true'));
END
$$;
COMMENT ON FUNCTION pymig._gathered_at_once_sql(pymig.source, text, text[], text, text) IS
    'What a unique key allows: all channels of all types in one pass over the heap. A descent per channel finds the rows, a bitmap visits each page once. Of a row only the arrays that it can belong to grow: that of the commonest type, and those of types whose value columns alone are filled (only_<type>). A channel that is not whole in the array of its type (text from mixed formats) is gathered again by its type. input: the CTEs channel, raw, unknown and again, with a comma; query: ord, times, nulls, cells_<type>.';

-- sql/source/_gathered_by_channel_sql.sql
CREATE OR REPLACE FUNCTION pymig._gathered_by_channel_sql(
    p_source pymig.source, p_entity text, p_types text[], p_condition text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format(
        'SELECT c.ord, a.times, a.nulls, %1$s
         FROM channel AS c CROSS JOIN LATERAL (
             SELECT array_agg(n.time) AS times, count(*) FILTER (WHERE n.is_null) AS nulls, array_agg(n.cell) AS cells
             FROM (SELECT %2$s n.time, n.is_null, n.as_%3$s AS cell FROM pymig.%4$I AS n
                   WHERE n.entity = %5$L AND n.channel = c.channel AND %6$s %7$s) AS n) AS a
         WHERE c.column_type = %3$L AND a.times IS NOT NULL',
        (SELECT string_agg(CASE WHEN o.o = t.t THEN 'a.cells' ELSE format('NULL::%s[]', o.o) END || ' AS cells_' || o.o, ', ') FROM unnest(p_types) AS o (o)),
        w.distinct_on, t.t, p_source.source || '_cell', p_entity, p_condition, w.order_by), ' UNION ALL ')
    FROM unnest(p_types) AS t (t) CROSS JOIN pymig._winner_sql(p_source, 'n.time') AS w
$$;
COMMENT ON FUNCTION pymig._gathered_by_channel_sql(pymig.source, text, text[], text) IS
    'What gathers where several rows may be of one cell: channel by channel through the key, the latest row of each time. Returns ord, times, nulls, cells_<type>.';

-- sql/source/_gathered_by_time_sql.sql
CREATE OR REPLACE FUNCTION pymig._gathered_by_time_sql(p_types text[])
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        'SELECT x.ord, array_agg(x.time ORDER BY x.time) AS times, count(*) FILTER (WHERE x.is_null) AS nulls, %s FROM cell AS x WHERE x.ord IS NOT NULL GROUP BY x.ord',
        string_agg(format('array_agg(x.as_%1$s ORDER BY x.time) FILTER (WHERE x.column_type = %1$L) AS cells_%1$s', t.t), ', '))
    FROM unnest(p_types) AS t (t)
$$;
COMMENT ON FUNCTION pymig._gathered_by_time_sql(text[]) IS
    'What gathers where rows are read by time: groups the CTE cell by channel. Returns ord, times, nulls, cells_<type>.';

-- sql/source/_gathered_sql.sql
CREATE OR REPLACE FUNCTION pymig._gathered_sql(
    p_source pymig.source, p_entity text, p_types text[], p_condition text, p_by_key boolean, p_leaves text)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_filled text := (SELECT string_agg(replace(
        'WHEN g.% IS NOT NULL THEN CASE WHEN array_position(g.%, NULL) IS NULL THEN cardinality(g.%) ELSE cardinality(array_remove(g.%, NULL)) END',
        '%', 'cells_' || t.t), ' ') FROM unnest(p_types) AS t (t));
    v_at_once boolean := p_by_key AND pymig._has_one_row_a_cell(p_source);
    v_input text;
    v_query text;
BEGIN
    IF v_at_once THEN
        SELECT o.input, o.query INTO v_input, v_query FROM pymig._gathered_at_once_sql(p_source, p_entity, p_types, p_condition, p_leaves) AS o;
    ELSIF p_by_key THEN
        v_input := format(
            'channel AS MATERIALIZED (%s), unknown AS (
                 SELECT c.channel FROM channel AS c WHERE c.ord IS NULL AND EXISTS (
                     SELECT FROM pymig.%I AS n WHERE n.entity = %L AND n.channel = c.channel AND %s)), ',
            pymig._channel_list_sql(p_source, p_entity, p_leaves), p_source.source || '_cell', p_entity, p_condition);
        v_query := pymig._gathered_by_channel_sql(p_source, p_entity, p_types, p_condition);
    ELSE
        v_input := format(
            'cell AS MATERIALIZED (%s), unknown AS (SELECT x.channel FROM cell AS x WHERE x.ord IS NULL), ',
            pymig._cells_sql(p_source, p_entity, p_condition, false, pymig._cell_columns(p_types)));
        v_query := pymig._gathered_by_time_sql(p_types);
    END IF;
    RETURN format(
        '%sgathered AS %s (
             SELECT g.*, cardinality(g.times) AS rows, CASE %s END AS filled FROM (%s) AS g)',
        -- What was gathered at once is kept as it came.
        v_input, CASE WHEN v_at_once THEN 'NOT MATERIALIZED' ELSE 'MATERIALIZED' END, v_filled, v_query);
END
$$;
COMMENT ON FUNCTION pymig._gathered_sql(pymig.source, text, text[], text, boolean, text) IS
    'CTE gathered, and those it needs: a row for each channel that has rows. ord; its times and, in the column cells_<type> of its own type (the others are NULL), its cells, as two arrays in one order (that of the heap where the key is unique); rows, how many they are; filled, how many cells of them are not NULL; nulls, how many rows are NULL and nothing is wrong with them. Of those it needs others read unknown (channel, in the narrow table''s type: channels that have rows but no column; until it has one, other buckets go on) and, where rows are read by time, cell.';

-- sql/source/_has_one_row_a_cell.sql
CREATE OR REPLACE FUNCTION pymig._has_one_row_a_cell(p_source pymig.source)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p_source.is_unique AND p_source.grain_ticks IS NULL
$$;
COMMENT ON FUNCTION pymig._has_one_row_a_cell(pymig.source) IS
    'Can no two narrow rows be of one cell: the key is unique, and a wide row stands for one raw time. Then there is no winner to pick, and rows are gathered by the key at once.';

-- sql/source/_insert_part_sql.sql
CREATE OR REPLACE FUNCTION pymig._insert_part_sql(p_source pymig.source, p_entity text, p_part int, p_query text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('INSERT INTO %I.%I (%I, %s) %s RETURNING 1', p_source.wide_schema, p.wide_table, p_source.time_column,
        (SELECT string_agg(quote_ident(c.wide_column), ', ' ORDER BY c.ord) FROM pymig.channel AS c
         WHERE c.source = p.source AND c.entity = p.entity AND c.part = p.part),
        p_query)
    FROM pymig.part AS p
    WHERE p.source = p_source.source AND p.entity = p_entity AND p.part = p_part
$$;
COMMENT ON FUNCTION pymig._insert_part_sql(pymig.source, text, int, text) IS
    'INSERT of a pivot (time, then the part''s channels by ord) into a part.';

-- sql/source/_insert_record_sql.sql
CREATE OR REPLACE FUNCTION pymig._insert_record_sql(p_source pymig.source, p_wide_table text, p_part int)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- The row type of the table stands for its columns: a list of 1,000 names, twice, is what a single key mostly costs.
    SELECT format(
        'INSERT INTO %1$I.%2$I
         SELECT r.*
         FROM (SELECT x.time, json_object_agg(x.wide_column, x.value) FILTER (WHERE x.part = %3$s AND x.value IS NOT NULL) AS cells
               FROM cell AS x GROUP BY x.time) AS j
         CROSS JOIN LATERAL json_populate_record(
             json_populate_record(NULL::%1$I.%2$I, json_build_object(%4$L, j.time::text)), coalesce(j.cells, ''{}'')) AS r
         RETURNING 1',
        p_source.wide_schema, p_wide_table, p_part, p_source.time_column)
$$;
COMMENT ON FUNCTION pymig._insert_record_sql(pymig.source, text, int) IS
    'INSERT of the CTE cell into a part through the table''s row type: each time is a JSON object of its cells by column. 0.6 of the time of the strategy json for a single key of 1,000 channels. Only where _is_as_created: a column of another name would be passed over.';

-- sql/source/_known_channels.sql
CREATE OR REPLACE FUNCTION pymig._known_channels(p_source text, p_entity text)
RETURNS SETOF pymig.channel
LANGUAGE sql
STABLE
ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.* FROM pymig.channel AS c WHERE c.source = p_source AND c.entity = p_entity
$$;
COMMENT ON FUNCTION pymig._known_channels(text, text) IS
    'The channels of an entity that have a column. The planner takes them for ten rows: so a join hashes this list and not what was gathered. A hash table of that would hold a copy of all arrays.';

-- sql/source/_pivot_crosstab_sql.sql
CREATE OR REPLACE FUNCTION pymig._pivot_crosstab_sql(p_source pymig.source, p_entity text, p_part int, p_cells text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- crosstab runs its queries in the snapshot of the statement around it, but can't see that statement's CTEs.
    SELECT format(
        'SELECT g.time, %s FROM grid AS g LEFT JOIN %s.crosstab(%L, %L) AS t (time %s, %s) ON t.time = g.time',
        string_agg(format('t."%s"', c.ord), ', ' ORDER BY c.ord),
        (SELECT e.extnamespace::regnamespace FROM pg_extension AS e WHERE e.extname = 'tablefunc'),
        p_cells || ' ORDER BY x.time',
        format('SELECT c.ord FROM pymig.channel AS c WHERE c.source = %L AND c.entity = %L AND c.part = %s ORDER BY c.ord',
            p_source.source, p_entity, p_part),
        p_source.time_type,
        string_agg(format('"%s" %s', c.ord, c.column_type), ', ' ORDER BY c.ord))
    FROM pymig.channel AS c
    WHERE c.source = p_source.source AND c.entity = p_entity AND c.part = p_part
$$;
COMMENT ON FUNCTION pymig._pivot_crosstab_sql(pymig.source, text, int, text) IS
    'Strategy crosstab: tablefunc''s two-argument form over a part''s cells (time, ord, value), for each time of the CTE grid. Needs the extension; holds a chunk in memory.';

-- sql/source/_pivot_filter_sql.sql
CREATE OR REPLACE FUNCTION pymig._pivot_filter_sql(p_source text, p_entity text, p_part int, p_as_text boolean)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- One row per cell by now, so which aggregate picks it does not matter; array_agg where a type has no min.
    SELECT format('SELECT x.time, %s FROM cell AS x GROUP BY x.time', string_agg(
        CASE WHEN p_as_text THEN format('min(x.value) FILTER (WHERE x.ord = %s)::%s', c.ord, c.column_type)
             WHEN c.column_type = 'bool' THEN format('bool_and(x.value) FILTER (WHERE x.ord = %s)', c.ord)
             ELSE format('min(x.value) FILTER (WHERE x.ord = %s)', c.ord) END, ', ' ORDER BY c.ord))
    FROM pymig.channel AS c
    WHERE c.source = p_source AND c.entity = p_entity AND c.part = p_part
$$;
COMMENT ON FUNCTION pymig._pivot_filter_sql(text, text, int, boolean) IS
    'Strategy filter: one aggregate with FILTER per column over the CTE cell. Cost grows with rows x channels: for a few channels.';

-- sql/source/_pivot_json_sql.sql
CREATE OR REPLACE FUNCTION pymig._pivot_json_sql(p_source text, p_entity text, p_part int, p_as_text boolean)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- json_to_record stands in FROM: in the select list it would run once per column.
    SELECT format(
        'SELECT j.time, %s
         FROM (SELECT x.time, json_object_agg(x.ord, x.value) FILTER (WHERE x.part = %s AND x.value IS NOT NULL) AS cells
               FROM cell AS x GROUP BY x.time) AS j
         CROSS JOIN LATERAL json_to_record(coalesce(j.cells, ''{}'')) AS r (%s)',
        string_agg(format(CASE WHEN p_as_text THEN 'r."%s"::%s' ELSE 'r."%s"' END, c.ord, c.column_type), ', ' ORDER BY c.ord),
        p_part,
        string_agg(format('"%s" %s', c.ord, CASE WHEN p_as_text THEN 'text' ELSE c.column_type END), ', ' ORDER BY c.ord))
    FROM pymig.channel AS c
    WHERE c.source = p_source AND c.entity = p_entity AND c.part = p_part
$$;
COMMENT ON FUNCTION pymig._pivot_json_sql(text, text, int, boolean) IS
    'Strategy json: one JSON object per time over the CTE cell, spread to columns. Flat in channels, no extension; good for sparse rows and single keys.';

-- sql/source/_pivot_transpose_sql.sql
CREATE OR REPLACE FUNCTION pymig._pivot_transpose_sql(p_source text, p_entity text, p_part int)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- All channels of a type become one array, from which each column takes its place: an aggregate per column would be planned, and its filter
    -- asked for each channel. The list of ords is a subquery, so the planner takes it for ten rows and hashes it, not the arrays.
    WITH placed AS (
        SELECT c.ord, c.column_type, row_number() OVER (PARTITION BY c.column_type ORDER BY c.ord) AS place
        FROM pymig.channel AS c
        WHERE c.source = p_source AND c.entity = p_entity AND c.part = p_part)
    SELECT format(
        'SELECT unnest(r.times), %1$s
         FROM grid AS r CROSS JOIN (
             SELECT %2$s
             FROM unnest((SELECT %3$L::int[]), (SELECT %4$L::text[])) AS o (ord, column_type) LEFT JOIN (%5$s) AS a ON a.ord = o.ord) AS across',
        (SELECT string_agg(format('unnest((across.%s[%s]).cells)', p.column_type, p.place), ', ' ORDER BY p.ord) FROM placed AS p),
        (SELECT string_agg(format('pymig._array_agg(ROW(a.cells_%1$s)::pymig.cells_%1$s ORDER BY o.ord) FILTER (WHERE o.column_type = %1$L) AS %1$s', t.t), ', ') FROM unnest(o.types) AS t (t)),
        o.ords, o.of_ords, pymig._aligned_sql(o.types, o.first, o.last))
    FROM (SELECT array_agg(p.ord ORDER BY p.ord) AS ords, array_agg(p.column_type ORDER BY p.ord) AS of_ords,
              array_agg(DISTINCT p.column_type) AS types, min(p.ord) AS first, max(p.ord) AS last
          FROM placed AS p) AS o
$$;
COMMENT ON FUNCTION pymig._pivot_transpose_sql(text, text, int) IS
    'Strategy transpose, last step: channels become columns, and all arrays are unnested in parallel (set-returning functions of one select list advance together).';

-- sql/source/_recompute_by_arrays_sql.sql
CREATE OR REPLACE FUNCTION pymig._recompute_by_arrays_sql(
    p_source pymig.source, p_entity text, p_condition text, p_by_key boolean,
    p_leaves text DEFAULT 'true')
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_types text[] := pymig._column_types(p_source.source, p_entity);
    -- Those of channels whose times look other than the commonest.
    v_times text := 'SELECT u.time
         FROM (SELECT DISTINCT g.times FROM gathered AS g WHERE ROW(g.times)::record OPERATOR(pg_catalog.*<>) ROW(b.times)::record) AS c
         CROSS JOIN LATERAL unnest(c.times) AS u (time)';
    v_writes text;
BEGIN
    IF NOT p_by_key THEN
        v_times := 'SELECT x.time FROM cell AS x';
    END IF;
    SELECT string_agg(format(', written_%s AS (%s)', p.part, pymig._insert_part_sql(p_source, p_entity, p.part,
            pymig._pivot_transpose_sql(p.source, p.entity, p.part))), '' ORDER BY p.part)
    INTO v_writes
    FROM pymig.part AS p
    WHERE p.source = p_source.source AND p.entity = p_entity;
    RETURN format(
        'WITH %1$s,
         base AS MATERIALIZED (
             SELECT coalesce((SELECT g.times FROM gathered AS g WHERE g.ord = (
                 SELECT min(g.ord) FROM gathered AS g GROUP BY cardinality(g.times), g.times[1], g.times[cardinality(g.times) / 2], g.times[cardinality(g.times)]
                 ORDER BY count(*) DESC LIMIT 1)), ''{}'') AS times),
         grid AS MATERIALIZED (
             SELECT b.times AS base, b.times || ARRAY(%2$s EXCEPT SELECT u.time FROM unnest(b.times) AS u (time)) AS times
             FROM base AS b)%3$s
         SELECT %4$s, coalesce(sum(g.filled), 0)::bigint, coalesce(sum(g.nulls), 0)::bigint, (SELECT count(*) FROM written_1), (SELECT min(u.channel::text) FROM unknown AS u)
         FROM gathered AS g',
        pymig._gathered_sql(p_source, p_entity, v_types, p_condition, p_by_key, p_leaves),
        v_times,
        v_writes,
        -- Read by time, rows without a channel are among the cells too, and belong to the quarantine.
        CASE WHEN p_by_key THEN 'coalesce(sum(g.rows), 0)::bigint' ELSE '(SELECT count(*) FROM cell AS x)' END);
END
$$;
COMMENT ON FUNCTION pymig._recompute_by_arrays_sql(pymig.source, text, text, boolean, text) IS
    'Statement of the strategy transpose: gathers each channel''s times and values as arrays, aligns them on one time grid, unnests all of them side by side. Returns narrow rows, cells, NULLs, wide rows, an unknown channel.';

-- sql/source/_recompute_by_cells_sql.sql
CREATE OR REPLACE FUNCTION pymig._recompute_by_cells_sql(
    p_source pymig.source, p_entity text, p_strategy text, p_condition text, p_by_key boolean,
    p_leaves text DEFAULT 'true', p_gather boolean DEFAULT false)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_types text[] := pymig._column_types(p_source.source, p_entity);
    v_as_text boolean := cardinality(v_types) > 1 OR v_types[1] = 'jsonb';
    v_cells text := format('SELECT x.ord, x.part, x.channel, x.time, x.is_null, %s%s AS value FROM (%s) AS x',
        CASE p_strategy WHEN 'record' THEN 'x.wide_column, ' END,
        pymig._value_sql('x', v_types),
        pymig._cells_sql(p_source, p_entity, p_condition, p_by_key, pymig._cell_columns(v_types), p_leaves, p_gather));
    v_writes text;
BEGIN
    SELECT string_agg(format(', written_%s AS (%s)', p.part, CASE p_strategy
        WHEN 'record' THEN pymig._insert_record_sql(p_source, p.wide_table, p.part)
        ELSE pymig._insert_part_sql(p_source, p_entity, p.part, CASE p_strategy
                WHEN 'filter' THEN pymig._pivot_filter_sql(p.source, p.entity, p.part, v_as_text)
                ELSE pymig._pivot_json_sql(p.source, p.entity, p.part, v_as_text)
            END) END), '' ORDER BY p.part)
    INTO v_writes
    FROM pymig.part AS p
    WHERE p.source = p_source.source AND p.entity = p_entity;
    RETURN format(
        'WITH cell AS MATERIALIZED (%s)%s
         SELECT count(*), count(x.value) FILTER (WHERE x.ord IS NOT NULL), count(*) FILTER (WHERE x.is_null), (SELECT count(*) FROM written_1),
             min(x.channel) FILTER (WHERE x.ord IS NULL)
         FROM cell AS x', v_cells, v_writes);
END
$$;
COMMENT ON FUNCTION pymig._recompute_by_cells_sql(pymig.source, text, text, text, boolean, text, boolean) IS
    'Statement of the strategies filter and json, and of record, which is json through the row type: reads the cells once, writes every part from the same snapshot. Returns narrow rows, cells, NULLs, wide rows, an unknown channel.';

-- sql/source/_recompute_by_crosstab_sql.sql
CREATE OR REPLACE FUNCTION pymig._recompute_by_crosstab_sql(
    p_source pymig.source, p_entity text, p_condition text, p_by_key boolean,
    p_leaves text DEFAULT 'true', p_gather boolean DEFAULT false)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_types text[] := pymig._column_types(p_source.source, p_entity);
    v_columns text[] := pymig._cell_columns(v_types);
    v_writes text;
BEGIN
    SELECT string_agg(format(', written_%s AS (%s)', p.part, pymig._insert_part_sql(p_source, p_entity, p.part,
            pymig._pivot_crosstab_sql(p_source, p_entity, p.part, format('SELECT x.time, x.ord, %s AS value FROM (%s) AS x WHERE x.part = %s',
                pymig._value_sql('x', v_types), pymig._cells_sql(p_source, p_entity, p_condition, p_by_key, v_columns, p_leaves, p_gather, p.part), p.part)))), '' ORDER BY p.part)
    INTO v_writes
    FROM pymig.part AS p
    WHERE p.source = p_source.source AND p.entity = p_entity;
    -- Counted apart: crosstab says nothing of what it read. A part may have no cell at a time, but has a row.
    RETURN format(
        'WITH grid AS MATERIALIZED (
             SELECT x.time, count(*) AS rows, count(*) FILTER (WHERE CASE x.column_type %s END) AS cells, count(*) FILTER (WHERE x.is_null) AS nulls, min(x.channel) FILTER (WHERE x.ord IS NULL) AS unknown
             FROM (%s) AS x
             GROUP BY x.time)%s
         SELECT coalesce(sum(g.rows), 0)::bigint, coalesce(sum(g.cells), 0)::bigint, coalesce(sum(g.nulls), 0)::bigint, (SELECT count(*) FROM written_1), min(g.unknown)
         FROM grid AS g',
        (SELECT string_agg(format('WHEN %L THEN x.as_%s IS NOT NULL', t.t, t.t), ' ') FROM unnest(v_types) AS t (t)),
        pymig._cells_sql(p_source, p_entity, p_condition, p_by_key, v_columns, p_leaves, p_gather), v_writes);
END
$$;
COMMENT ON FUNCTION pymig._recompute_by_crosstab_sql(pymig.source, text, text, boolean, text, boolean) IS
    'Statement of the strategy crosstab: reads the cells of each part by itself, and all of them once more to count them, from one snapshot. Returns narrow rows, cells, NULLs, wide rows, an unknown channel.';

-- sql/source/_skips_channels.sql
CREATE OR REPLACE FUNCTION pymig._skips_channels()
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT current_setting('server_version_num')::int >= 180000
$$;
COMMENT ON FUNCTION pymig._skips_channels() IS
    'Does a B-tree on (entity, channel, time) go from channel to channel by itself for a condition on entity and time (skip scan, since PostgreSQL 18)? If not, it has to be given a list of channels; without one it reads all times of the entity.';

-- sql/source/_tie_expressions.sql
CREATE OR REPLACE FUNCTION pymig._tie_expressions(p_source pymig.source)
RETURNS text[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- The format and the values come last: between rows that are equal in all of these it does not matter which one wins.
    SELECT array_agg(CASE WHEN pymig._kind_of(a.atttypid) = 'text' THEN format('n.%I::text COLLATE "C"', t.name)
                          ELSE format('n.%I', t.name) END ORDER BY t.i)
    FROM unnest(p_source.tie_break || CASE WHEN p_source.format_column IS NULL THEN '{}' ELSE ARRAY[p_source.format_column] END
                || p_source.value_columns) WITH ORDINALITY AS t (name, i)
    JOIN pg_attribute AS a ON a.attrelid = p_source.narrow AND a.attname = t.name AND NOT a.attisdropped
$$;
COMMENT ON FUNCTION pymig._tie_expressions(pymig.source) IS
    'SQL expressions over a narrow row n whose highest values win among duplicates, in order: the source''s tie-break, its format, its values.';

-- sql/source/_trigger_state.sql
CREATE OR REPLACE FUNCTION pymig._trigger_state(p_narrow regclass)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = p_narrow AND t.tgname LIKE 'pymig\_record\_%') THEN 'none'
        WHEN pymig._has_triggers(s.source, p_narrow) AND NOT EXISTS (
            -- A new partition is no drift: the worker arms it and looks at its range. Neither is one that has just gone.
            SELECT FROM pymig.partition AS p
            WHERE p.source = s.source AND p.state IN ('armed', 'expanded', 'served')
              AND EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = p.relation)
              AND NOT pymig._has_triggers(s.source, p.relation)) THEN 'armed'
        ELSE 'drifted'
    END
    FROM (SELECT (SELECT s.source FROM pymig.source AS s WHERE s.narrow = p_narrow)) AS s (source)
$$;
COMMENT ON FUNCTION pymig._trigger_state(regclass) IS
    'armed (all triggers enabled as installed, on the narrow table and on the partitions that were armed), none, or drifted: changes may have gone unrecorded, so arm and verify again.';

-- sql/source/_value_columns.sql
CREATE OR REPLACE FUNCTION pymig._value_columns(
    p_source pymig.source, OUT ord bigint, OUT format text, OUT value_column text, OUT kind text)
RETURNS SETOF record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT row_number() OVER (ORDER BY array_position(p_source.value_columns, v.value_column), v.format),
        v.format, v.value_column, pymig._kind_of(a.atttypid)
    FROM (
        SELECT f.key, f.value FROM jsonb_each_text(p_source.formats) AS f (key, value)
        UNION ALL
        SELECT NULL, c.c FROM unnest(p_source.value_columns) AS c (c) WHERE p_source.format_column IS NULL
    ) AS v (format, value_column)
    JOIN pg_attribute AS a ON a.attrelid = p_source.narrow AND a.attname = v.value_column AND NOT a.attisdropped
$$;
COMMENT ON FUNCTION pymig._value_columns(pymig.source) IS
    'Value columns of a source, once per format that selects them, with the kind of value they hold.';

-- sql/source/_value_sql.sql
CREATE OR REPLACE FUNCTION pymig._value_sql(p_alias text, p_types text[])
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN cardinality(p_types) = 1 AND p_types[1] <> 'jsonb' THEN format('%s.as_%s', p_alias, p_types[1])
        ELSE format('CASE %s.column_type %s END', p_alias,
            (SELECT string_agg(format('WHEN %L THEN %s.as_%s::text', t.t, p_alias, t.t), ' ') FROM unnest(p_types) AS t (t)))
    END
$$;
COMMENT ON FUNCTION pymig._value_sql(text, text[]) IS
    'SQL expression: the cell of a row of _cells_sql. In its own type where all columns have one, else as text, which every type reads back without loss.';

-- sql/source/_winner_sql.sql
CREATE OR REPLACE FUNCTION pymig._winner_sql(
    p_source pymig.source, p_key text, OUT distinct_on text, OUT order_by text)
RETURNS record
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        CASE WHEN d.possible THEN format('DISTINCT ON (%s)', p_key) ELSE '' END,
        CASE WHEN d.possible THEN format('ORDER BY %s, n.raw_time DESC', p_key) || coalesce((
            SELECT string_agg(format(', n.tie_%s DESC NULLS LAST', t.i), '' ORDER BY t.i)
            FROM generate_subscripts(pymig._tie_expressions(p_source), 1) AS t (i)), '') ELSE '' END
    FROM (SELECT NOT pymig._has_one_row_a_cell(p_source) AS possible) AS d
$$;
COMMENT ON FUNCTION pymig._winner_sql(pymig.source, text) IS
    'How one narrow row per cell is chosen (R8): the latest raw time, then the highest tie-break. Empty where duplicates can''t be.';

-- sql/core/procedures/_arm_source.sql
CREATE OR REPLACE PROCEDURE pymig._arm_source(p_source text, p_arm boolean, p_lock_wait interval)
LANGUAGE plpgsql
AS $$
DECLARE
    -- The longest a new writer waits behind us, per attempt.
    c_lock_timeout constant interval := '200 ms';
    v_source pymig.source;
    v_started timestamptz := clock_timestamp();
    v_attempt int := 0;
    v_done boolean := false;
    v_relation regclass;
    v_failed boolean;
    v_changed boolean := false;
    -- Mostly they are armed already, and a look that shares is enough.
    v_exclusive boolean := NOT p_arm;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    LOOP
        v_failed := false;
        BEGIN
            -- Arming and disarming decide one at a time, or a roll-back could take the triggers from under a start.
            PERFORM set_config('lock_timeout', '10s', true);
            IF v_exclusive THEN
                PERFORM pg_advisory_xact_lock(pymig._lock_key('arm', v_source.source));
                IF p_arm THEN
                    -- One table a transaction: no lock is held while the next one is waited for.
                    IF pymig._partitions_now(v_source.narrow) <> pymig._partitions_known(v_source.source) THEN
                        PERFORM pymig._note_partitions(v_source);
                    END IF;
                    v_relation := pymig._next_unarmed(v_source);
                    v_done := v_relation IS NULL;
                    IF NOT v_done THEN
                        PERFORM pymig._arm(v_source, v_relation, c_lock_timeout);
                    END IF;
                ELSE
                    v_done := NOT pymig._disarm(v_source, c_lock_timeout);
                END IF;
                v_changed := v_changed OR NOT v_done;
            ELSE
                PERFORM pg_advisory_xact_lock_shared(pymig._lock_key('arm', v_source.source));
                v_done := pymig._trigger_state(v_source.narrow) = 'armed';
                v_exclusive := true;
            END IF;
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected THEN
                v_attempt := v_attempt + 1;
                v_failed := true;
            WHEN undefined_table OR object_not_in_prerequisite_state OR SQLSTATE 'PM023' THEN
                -- A partition was dropped or is being detached since it was noticed: look again.
                IF NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = v_source.narrow) THEN
                    RAISE;
                END IF;
                v_attempt := v_attempt + 1;
                v_failed := true;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'role % may not create triggers on %', current_user, v_source.narrow
                    USING ERRCODE = 'PM008', HINT = 'Run this as the owner of the table, or as a member of the owning role.';
        END;
        EXIT WHEN v_done;
        IF clock_timestamp() - v_started > p_lock_wait THEN
            RAISE EXCEPTION 'could not lock % for a moment in % attempts', v_source.narrow, v_attempt
                USING ERRCODE = 'PM005', DETAIL = pymig._lock_holders(v_source.narrow),
                HINT = 'Wait for these to end, or end them, and run the same command again.';
        END IF;
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        -- Growing pauses with jitter, so that ingest gets through between the attempts.
        IF v_failed THEN
            PERFORM pg_sleep(least(0.2 * 1.5 ^ v_attempt, 5) * (0.5 + random()));
        END IF;
    END LOOP;
    IF v_changed THEN
        PERFORM pymig._note('INFO', v_source.source, NULL, CASE WHEN p_arm THEN 'armed' ELSE 'disarmed' END,
            format('The triggers of %s were %s after %s waits.', v_source.narrow, CASE WHEN p_arm THEN 'created' ELSE 'dropped' END, v_attempt));
    END IF;
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
END
$$;
COMMENT ON PROCEDURE pymig._arm_source(text, boolean, interval) IS
    'Creates (or, with p_arm false, drops) the triggers of a source: attempts of 200 ms in transactions of their own, until p_lock_wait has passed (PM005 then names who holds the table).';

-- sql/core/procedures/_drain_run.sql
CREATE OR REPLACE PROCEDURE pymig._drain_run(p_source pymig.source, p_entity text, p_buckets bigint[])
LANGUAGE plpgsql
AS $$
DECLARE
    v_half int := cardinality(p_buckets) / 2;
    v_failure text;
    v_constraint text;
BEGIN
    BEGIN
        PERFORM set_config('lock_timeout', '10s', true);
        PERFORM pymig._recompute_todo(p_source, p_entity, p_buckets);
    EXCEPTION
        WHEN OTHERS THEN
            v_failure := SQLSTATE;
            -- That a row has no partition is a check violation without a name.
            GET STACKED DIAGNOSTICS v_constraint = CONSTRAINT_NAME;
            IF v_half = 0 AND v_failure = 'PM009' OR v_failure IN ('42703', '42P01', '42804') OR v_failure = '23514' AND v_constraint = '' THEN
                -- Half the buckets would miss the same table, column or partition.
                v_half := 0;
                PERFORM pymig._todo_needs_channels(p_source, p_entity, p_buckets);
            ELSIF v_half = 0 OR pymig._is_in_the_way(v_failure) THEN
                -- What another session holds, it holds for a half as well.
                PERFORM pymig._todo_failed(p_source, p_entity, p_buckets, v_failure, SQLERRM);
                v_half := 0;
            END IF;
    END;
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
    IF v_failure IS NOT NULL AND v_half > 0 THEN
        CALL pymig._drain_run(p_source, p_entity, p_buckets[:v_half]);
        CALL pymig._drain_run(p_source, p_entity, p_buckets[v_half + 1:]);
    END IF;
END
$$;
COMMENT ON PROCEDURE pymig._drain_run(pymig.source, text, bigint[]) IS
    'Recomputes a run in a transaction of its own. One that fails is halved, until what can''t be recomputed is alone (R24).';

-- sql/core/procedures/_follow_partitions.sql
CREATE OR REPLACE PROCEDURE pymig._follow_partitions(p_source text, p_wait interval DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    c_lock_timeout constant interval := '200 ms';
    v_started timestamptz := clock_timestamp();
    v_source pymig.source;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    IF NOT pymig._is_partitioned(v_source.narrow) OR NOT pymig._is_migrating(p_source) THEN
        RETURN;
    END IF;
    LOOP
        IF pymig._partitions_now(v_source.narrow) <> pymig._partitions_known(p_source)
            OR EXISTS (SELECT FROM pymig.partition AS p WHERE p.source = p_source AND p.state = 'detaching') THEN
            BEGIN
                PERFORM set_config('lock_timeout', '1s', true);
                IF pg_try_advisory_xact_lock(pymig._lock_key('arm', p_source)) THEN
                    PERFORM pymig._note_partitions(pymig._source(p_source));
                END IF;
            EXCEPTION
                WHEN OTHERS THEN
                    PERFORM pymig._note_once('WARNING', p_source, 'partitions not looked at', format('%s (%s)', SQLERRM, SQLSTATE));
            END;
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        END IF;
        -- Arm first; read what is in it in a later snapshot. The other order loses rows.
        WHILE pymig._serve_partition(v_source, c_lock_timeout) LOOP
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        END LOOP;
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        EXIT WHEN p_wait IS NULL OR pymig._partitions_settled(v_source) IS NOT NULL;
        IF clock_timestamp() - v_started > p_wait THEN
            RAISE EXCEPTION 'the partitions of % could not be armed', v_source.narrow
                USING ERRCODE = 'PM005', DETAIL = coalesce((
                    SELECT string_agg(format('%s: %s', p.name, p.error), '; ') FROM pymig.partition AS p
                    WHERE p.source = p_source AND p.error IS NOT NULL), pymig._lock_holders(v_source.narrow)),
                HINT = 'Wait for who holds them to end, and run the same command again.';
        END IF;
        PERFORM pg_sleep(0.1);
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig._follow_partitions(text, interval) IS
    'The worker''s look at the partitions of a source: notices those that came and went since the last one, arms the new, queues what they have, frees the old. A step a transaction. With p_wait until nothing is left to do (PM005).';

-- sql/core/procedures/_keep_queue.sql
CREATE OR REPLACE PROCEDURE pymig._keep_queue(p_source pymig.source)
LANGUAGE plpgsql
AS $$
BEGIN
    -- Lazily: a commit that waits for a hung standby would hold the lock of a truncated table, and a late writer with it.
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
    PERFORM pymig._rotate_pending(p_source);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
    PERFORM pymig._notice_lost(p_source);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
    PERFORM pymig._queue_repairs(p_source);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
    PERFORM pymig._compact_todo(p_source);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
    IF pymig._is_paused(p_source.source) THEN
        PERFORM pymig._note_once('WARNING', p_source.source, 'direct paused',
            'A statement that wrote wide rows itself took longer than its budget, or failed; the server''s log has the reason. For 10 seconds after each one the worker writes them.');
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
    END IF;
END
$$;
COMMENT ON PROCEDURE pymig._keep_queue(pymig.source) IS
    'What the worker does for the queue between collecting and recomputing, each in a transaction of its own: rotates it, looks for lost keys, queues repairs, compacts the todo, says that direct writes pause.';

-- sql/core/procedures/_migrate_adopted.sql
CREATE OR REPLACE PROCEDURE pymig._migrate_adopted(p_source text, INOUT p_has_more boolean)
LANGUAGE plpgsql
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity text;
    v_state text;
    v_outcome text := 'dealt';
BEGIN
    -- Whoever has failed or waits last stands behind the others.
    SELECT e.entity, e.state INTO v_entity, v_state
    FROM pymig.entity AS e
    WHERE e.source = p_source AND e.is_adopted AND e.state IN ('planned', 'syncing') AND NOT pymig._is_cancelled(e.source, e.entity)
    ORDER BY e.last_error IS NOT NULL, random()
    LIMIT 1;
    p_has_more := FOUND;
    IF NOT p_has_more THEN
        RETURN;
    END IF;
    -- The last other ship may have been rolled back, and the triggers with it.
    CALL pymig._arm_source(p_source, true, '5 seconds');
    BEGIN
        IF v_state = 'planned' THEN
            PERFORM pymig._create_entity(v_source, v_entity, true);
        ELSE
            SELECT b.outcome INTO v_outcome FROM pymig.backfill_chunk(v_entity, p_source) AS b;
        END IF;
    EXCEPTION
        WHEN SQLSTATE 'PM002' THEN
            PERFORM pymig._forget_newcomer(v_source, v_entity);
            v_outcome := 'gone';
        WHEN OTHERS THEN
            UPDATE pymig.entity AS e SET last_error = format('%s (%s)', SQLERRM, SQLSTATE)
            WHERE e.source = p_source AND e.entity = v_entity;
            v_outcome := 'error';
    END;
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    p_has_more := v_outcome IN ('moved', 'dealt', 'done');
END
$$;
COMMENT ON PROCEDURE pymig._migrate_adopted(text, boolean) IS
    'One step of the migration of one entity the worker adopted by the policy auto: its tables, or a chunk. p_has_more: whether there may be another step to do at once.';

-- sql/core/procedures/_promote.sql
CREATE OR REPLACE PROCEDURE pymig._promote(p_source text)
LANGUAGE plpgsql
AS $$
DECLARE
    -- What a pass of the worker gives to promotions: they have time, the keys of live rows have not.
    c_slice constant interval := '100 ms';
    v_source pymig.source := pymig._source(p_source);
    v_entity text;
    v_until timestamptz;
    v_goes_on boolean;
BEGIN
    FOREACH v_entity IN ARRAY pymig._due_promotions(p_source) LOOP
        v_until := clock_timestamp() + c_slice;
        LOOP
            BEGIN
                v_goes_on := pymig._promote_step(v_source, v_entity);
            EXCEPTION
                WHEN OTHERS THEN
                    PERFORM pymig._promote_failed(p_source, v_entity, SQLSTATE, SQLERRM);
                    v_goes_on := false;
            END;
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
            EXIT WHEN NOT v_goes_on OR clock_timestamp() > v_until;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig._promote(text) IS
    'Promotes drifted columns where the policy says so, a step a transaction, for a tenth of a second an entity and pass.';

-- sql/core/procedures/_register_default.sql
CREATE OR REPLACE PROCEDURE pymig._register_default(p_definition jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_narrow regclass := to_regclass(p_definition ->> 'p_narrow');
    v_value_columns text[] := ARRAY(SELECT v.v FROM jsonb_array_elements_text(p_definition -> 'p_value_columns') AS v (v));
BEGIN
    IF v_narrow IS NULL OR EXISTS (SELECT FROM pymig.source AS s WHERE s.narrow = v_narrow OR s.source = p_definition ->> 'p_source') THEN
        RETURN;
    END IF;
    CALL pymig.register_source(
        p_source => p_definition ->> 'p_source',
        p_narrow => v_narrow,
        p_entity_column => p_definition ->> 'p_entity_column',
        p_channel_column => p_definition ->> 'p_channel_column',
        p_time_column => p_definition ->> 'p_time_column',
        p_value_columns => v_value_columns,
        p_format_column => p_definition ->> 'p_format_column',
        p_formats => p_definition -> 'p_formats');
EXCEPTION
    WHEN SQLSTATE 'PM003' OR SQLSTATE 'PM008' THEN
        PERFORM pymig._note('WARNING', NULL, NULL, 'default source not registered', SQLERRM);
        RAISE WARNING 'the default source was not registered: %', SQLERRM;
END
$$;
COMMENT ON PROCEDURE pymig._register_default(jsonb) IS
    'Registers the default source (alembic/default_source.toml) where its table exists and can be served; installing goes on in any case.';

-- sql/core/procedures/_unregister_all.sql
CREATE OR REPLACE PROCEDURE pymig._unregister_all()
LANGUAGE plpgsql
AS $$
DECLARE
    v_source text;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    FOREACH v_source IN ARRAY ARRAY(SELECT s.source FROM pymig.source AS s ORDER BY s.source) LOOP
        CALL pymig.unregister_source(v_source);
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig._unregister_all() IS 'Unregisters every source: the first step of uninstalling.';

-- sql/core/procedures/_wait_while_held.sql
CREATE OR REPLACE PROCEDURE pymig._wait_while_held(p_source text, p_entity text)
LANGUAGE plpgsql
AS $$
DECLARE
    v_why text;
BEGIN
    LOOP
        v_why := pymig.held_up_by(p_entity, p_source);
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        EXIT WHEN v_why IS NULL;
        PERFORM pg_sleep(0.2);
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig._wait_while_held(text, text) IS
    'Returns once the history of an entity is neither paused nor throttled. PM064 where the work on it was cancelled.';

-- sql/core/procedures/backfill.sql
CREATE OR REPLACE PROCEDURE pymig.backfill(p_entity text, p_source text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    v_step record;
    v_source text;
    v_entity text;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := (pymig._source(p_source)).source;
    v_entity := pymig._canonical_entity(pymig._source(p_source), p_entity);
    LOOP
        v_step := pymig.backfill_chunk(v_entity, v_source);
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        EXIT WHEN v_step.outcome = 'done';
        IF v_step.outcome = 'failed' THEN
            RAISE EXCEPTION 'the backfill of % has chunks that failed for good', quote_literal(v_entity)
                USING ERRCODE = 'PM012', DETAIL = pymig._failed_chunks(v_source, v_entity),
                HINT = 'Remove the cause, then CALL pymig.start_sync(...) and backfill again: only these chunks are left.';
        ELSIF v_step.outcome IN ('wait', 'retry', 'held') THEN
            -- Without a worker nobody else looks, and a chunk waits until the partitions are known.
            CALL pymig._follow_partitions(v_source);
            PERFORM pg_sleep(0.1);
        END IF;
    END LOOP;
    CALL pymig.sync_pending(v_source);
END
$$;
COMMENT ON PROCEDURE pymig.backfill(text, text) IS
    'Moves the history of an entity chunk by chunk, each in a transaction of its own; then drains what is pending. Stop it at any moment and call it again. Several sessions may call it at once. PM012 where chunks failed for good. Example: CALL pymig.backfill(''SHIP1'')';

-- sql/core/procedures/cancel.sql
CREATE OR REPLACE PROCEDURE pymig.cancel(p_entity text DEFAULT NULL, p_source text DEFAULT NULL, p_reason text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pymig._set_paused(p_entity, p_source, true, p_reason, p_is_cancelled => true);
END
$$;
COMMENT ON PROCEDURE pymig.cancel(text, text, text) IS
    'Ends the work on the history of an entity, or (p_entity NULL) of all entities of a source: commands that move, verify or retire it finish the chunk or bucket they are at and end with PM064, also those that are paused. Nothing is undone (roll_back does that), and sync goes on. It stays so, over restarts, until resume. Example: CALL pymig.cancel(''SHIP1'')';

-- sql/core/procedures/certify.sql
CREATE OR REPLACE PROCEDURE pymig.certify(p_entity text, p_source text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    v_source pymig.source;
    v_entity pymig.entity;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    v_entity := pymig._entity(v_source.source, pymig._canonical_entity(v_source, p_entity));
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    CALL pymig.verify(v_entity.entity, v_source.source);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    PERFORM pymig._give_certificate(v_source, v_entity);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
END
$$;
COMMENT ON PROCEDURE pymig.certify(text, text) IS
    'Verifies an entity and, if every cell is equal, writes a row of pymig.certificate: what was compared, with digests, counts, position in the WAL and a hash of the code that keeps it so. PM013 where it does not verify, PM041 where something else is in the way. Example: CALL pymig.certify(''SHIP1'')';

-- sql/core/procedures/create_compat_view.sql
CREATE OR REPLACE PROCEDURE pymig.create_compat_view(p_source text DEFAULT NULL, p_name text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_view text;
BEGIN
    SELECT format('%I.%I', n.nspname, coalesce(p_name, c.relname || '_compat')) INTO v_view
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = v_source.narrow;
    IF v_source.compat_view IS NOT NULL THEN
        IF v_source.compat_view = v_view AND to_regclass(v_view) IS NOT NULL THEN
            RETURN;
        END IF;
        PERFORM pymig._drop_compat_view(v_source);
    END IF;
    IF to_regclass(v_view) IS NOT NULL THEN
        RAISE EXCEPTION 'the compat view would be %, and that name is taken', v_view
            USING ERRCODE = 'PM014', HINT = 'Rename or drop that relation, or choose another p_name.';
    END IF;
    UPDATE pymig.source AS s SET compat_view = v_view WHERE s.source = v_source.source;
    PERFORM pymig._create_compat_view(v_source.source);
    EXECUTE format('COMMENT ON VIEW %s IS %L', v_view,
        format('%s with the rows of each entity from where its routing says (pymig.routing). Read it in place of that table.', v_source.narrow));
    PERFORM pymig._grant_like_narrow(v_source, v_view);
    PERFORM pymig._note('INFO', v_source.source, NULL, 'compat view created', format('%s can be read in place of %s.', v_view, v_source.narrow));
END
$$;
COMMENT ON PROCEDURE pymig.create_compat_view(text, text) IS
    'Makes the view <narrow>_compat beside the narrow table, with the same columns: rows of entities that are routed to wide come from there, all others from the narrow table. Whoever may read the narrow table may read it. PM014 where the name is taken. Example: CALL pymig.create_compat_view()';

-- sql/core/procedures/cut_over.sql
CREATE OR REPLACE PROCEDURE pymig.cut_over(
    p_entity text, p_source text DEFAULT NULL, p_hold boolean DEFAULT false, p_lock_wait interval DEFAULT '10 minutes')
LANGUAGE plpgsql
AS $$
DECLARE
    c_lock_timeout constant interval := '80 ms';
    c_held_pause constant int := 1;
    v_source pymig.source;
    v_entity pymig.entity;
    v_started timestamptz;
    v_pass timestamptz;
    v_why text;
    v_attempt int := 0;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    v_entity := pymig._entity(v_source.source, pymig._canonical_entity(v_source, p_entity));
    PERFORM pymig._require_cuttable(v_source, v_entity);
    IF p_hold THEN
        PERFORM pymig._hold_cut_over(v_source.source, v_entity.entity, true);
    END IF;
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    LOOP
        v_pass := clock_timestamp();
        CALL pymig.sync_pending(v_source.source);
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        v_entity := pymig._entity(v_source.source, v_entity.entity);
        EXIT WHEN v_entity.state IN ('cut_over', 'finalized');
        PERFORM pymig._require_cuttable(v_source, v_entity);
        IF v_entity.is_held THEN
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
            PERFORM pg_sleep(c_held_pause);
            CONTINUE;
        END IF;
        v_started := coalesce(v_started, clock_timestamp());
        v_why := pymig._try_cut_over(v_source, v_entity, v_pass, c_lock_timeout);
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        EXIT WHEN v_why IS NULL;
        IF clock_timestamp() - v_started > p_lock_wait THEN
            RAISE EXCEPTION '% could not be cut over in %: %', quote_literal(v_entity.entity), p_lock_wait, v_why
                USING ERRCODE = 'PM061', HINT = 'Nothing has changed. Remove the cause and run the same command again.';
        END IF;
        v_attempt := v_attempt + 1;
        PERFORM pg_sleep(least(0.1 * 1.5 ^ least(v_attempt, 10), 2) * (0.5 + random()));
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig.cut_over(text, text, boolean, interval) IS
    'Makes the wide table of an entity what applications use: routes its readers there, makes the views that end in _rw, in which it can be written, and refuses other writes of the wide tables. Ingest goes on as before. Needs a fresh certificate. Drains what is pending first, then locks for 80 ms at most, in attempts for p_lock_wait. p_hold: does all of this but the last step, and waits until CALL pymig.release_cut_over(...). Run again it goes on, or does nothing. PM040, PM061. Example: CALL pymig.cut_over(''SHIP1'')';

-- sql/core/procedures/drop_compat_view.sql
CREATE OR REPLACE PROCEDURE pymig.drop_compat_view(p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pymig._drop_compat_view(pymig._source(p_source));
END
$$;
COMMENT ON PROCEDURE pymig.drop_compat_view(text) IS 'Drops the view <narrow>_compat. Example: CALL pymig.drop_compat_view()';

-- sql/core/procedures/finalize.sql
CREATE OR REPLACE PROCEDURE pymig.finalize(
    p_entity text, p_keep interval, p_source text DEFAULT NULL, p_archive boolean DEFAULT true, p_pause interval DEFAULT '0')
LANGUAGE plpgsql
AS $$
DECLARE
    v_source pymig.source;
    v_entity pymig.entity;
    v_outcome text;
    v_waits int := 0;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    v_entity := pymig._entity(v_source.source, pymig._canonical_entity(v_source, p_entity));
    PERFORM pymig._begin_finalize(v_source, v_entity, p_keep, p_archive);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    LOOP
        CALL pymig._wait_while_held(v_source.source, v_entity.entity);
        v_outcome := pymig._retire_next(v_source.source, v_entity.entity);
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        EXIT WHEN v_outcome = 'done';
        IF v_outcome = 'retired' THEN
            v_waits := 0;
            PERFORM pg_sleep(extract(epoch FROM p_pause));
        ELSE
            -- Its keys are pending: somebody corrects old rows just now.
            v_waits := v_waits + 1;
            IF v_waits > 100 THEN
                RAISE EXCEPTION 'a bucket of % can''t be retired: %', quote_literal(v_entity.entity), v_outcome
                    USING ERRCODE = 'PM061', HINT = 'What was retired stays so. Remove the cause and run the same command again; a worker goes on by itself.';
            END IF;
            CALL pymig.sync_pending(v_source.source);
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
            PERFORM pg_sleep(0.1);
        END IF;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig.finalize(text, interval, text, boolean, interval) IS
    'Makes the narrow table an inbox for an entity that is cut over and certified: rows older than p_keep (before the newest one, or now) go to <narrow>_archive, a bucket a transaction, compared once more before it goes; the wide tables keep theirs. Ingest goes on unchanged, and workers go on retiring. p_archive false: deleted instead, so that columns wide does not keep are lost. p_pause: between buckets. Run again it goes on, or changes p_keep. PM040, PM061, PM065. Example: CALL pymig.finalize(''SHIP1'', ''2 days'')';

-- sql/core/procedures/hold_cut_over.sql
CREATE OR REPLACE PROCEDURE pymig.hold_cut_over(p_entity text, p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity pymig.entity := pymig._entity(v_source.source, pymig._canonical_entity(v_source, p_entity));
BEGIN
    PERFORM pymig._hold_cut_over(v_source.source, v_entity.entity, true);
END
$$;
COMMENT ON PROCEDURE pymig.hold_cut_over(text, text) IS
    'Holds the cutover of an entity back: a cut_over that runs, or is called later, prepares everything and waits. Example: CALL pymig.hold_cut_over(''SHIP1'')';

-- sql/core/procedures/migrate.sql
CREATE OR REPLACE PROCEDURE pymig.migrate(
    p_entity text,
    p_source text DEFAULT NULL,
    p_column_types text DEFAULT NULL,
    p_strategy text DEFAULT NULL,
    p_allow_scan boolean DEFAULT false,
    p_lock_wait interval DEFAULT '10 minutes')
LANGUAGE plpgsql
AS $$
BEGIN
    CALL pymig.start_sync(p_entity, p_source, p_column_types, p_strategy, p_allow_scan, p_lock_wait);
    CALL pymig.backfill(p_entity, p_source);
    CALL pymig.verify(p_entity, p_source);
END
$$;
COMMENT ON PROCEDURE pymig.migrate(text, text, text, text, boolean, interval) IS
    'start_sync, backfill and verify in turn, by one session; the command line does the same with several. Stop it at any moment and call it again. Example: CALL pymig.migrate(''SHIP1'')';

-- sql/core/procedures/migrate_adopted.sql
CREATE OR REPLACE PROCEDURE pymig.migrate_adopted(p_source text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    v_source text;
    v_has_more boolean;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    PERFORM pymig._require_read_committed();
    FOREACH v_source IN ARRAY ARRAY(SELECT s.source FROM pymig.source AS s WHERE s.source = coalesce(p_source, s.source) ORDER BY s.source) LOOP
        LOOP
            v_has_more := false;
            CALL pymig._migrate_adopted(v_source, v_has_more);
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
            EXIT WHEN NOT v_has_more;
        END LOOP;
        CALL pymig._promote(v_source);
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig.migrate_adopted(text) IS
    'Migrates the history of the entities the worker adopted by the policy auto, chunk by chunk, until nothing is left to do at once; then promotes drifted columns by policy. `pymig worker` runs it on a second connection, so that no chunk holds up a live key. Example: CALL pymig.migrate_adopted()';

-- sql/core/procedures/pause.sql
CREATE OR REPLACE PROCEDURE pymig.pause(p_entity text DEFAULT NULL, p_source text DEFAULT NULL, p_reason text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pymig._set_paused(p_entity, p_source, true, p_reason);
END
$$;
COMMENT ON PROCEDURE pymig.pause(text, text, text) IS
    'Lets the history of an entity, or (p_entity NULL) of all entities of a source, wait: no chunk is begun, nothing is verified or retired until resume. Sync goes on, so wide stays equal as far as it is. Commands that move it wait, and go on by themselves. p_reason: for whoever finds it paused. Recorded with who and when; survives restarts. Example: CALL pymig.pause(''SHIP1'')';

-- sql/core/procedures/register_source.sql
CREATE OR REPLACE PROCEDURE pymig.register_source(
    p_source text,
    p_narrow regclass,
    p_entity_column text,
    p_channel_column text,
    p_time_column text,
    p_value_columns text[],
    p_format_column text DEFAULT NULL,
    p_formats jsonb DEFAULT NULL,
    p_tie_break text[] DEFAULT '{}',
    p_time_unit text DEFAULT NULL,
    p_time_grain interval DEFAULT NULL,
    p_bucket interval DEFAULT '1 hour',
    p_wide_schema text DEFAULT NULL,
    p_wide_name text DEFAULT '{table}_{entity}',
    p_column_types text DEFAULT 'text',
    p_new_entities text DEFAULT 'ask',
    p_dictionary regclass DEFAULT NULL,
    p_dictionary_key text DEFAULT NULL,
    p_dictionary_name text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source;
    v_published text;
BEGIN
    v_source.source := p_source;
    v_source.narrow := p_narrow;
    v_source.entity_column := p_entity_column;
    v_source.channel_column := p_channel_column;
    v_source.time_column := p_time_column;
    v_source.time_unit := p_time_unit;
    v_source.value_columns := p_value_columns;
    v_source.format_column := p_format_column;
    v_source.formats := p_formats;
    v_source.tie_break := coalesce(p_tie_break, '{}');
    v_source.wide_schema := coalesce(p_wide_schema, (
        SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = p_narrow));
    v_source.wide_name := p_wide_name;
    v_source.column_types := p_column_types;
    v_source.new_entities := p_new_entities;
    v_source.type_drift := 'quarantine';
    v_source.dictionary := p_dictionary;
    v_source.dictionary_key := p_dictionary_key;
    v_source.dictionary_name := p_dictionary_name;
    v_source.rotate_above := 8 * 1024 ^ 2;
    v_source.queue_limit := 1024 ^ 3;
    v_source.lost_seen := 0;
    v_source.lost_handled := 0;
    v_source.retention := 'drop';
    v_source.wide_partitions := 'none';
    v_source.is_cancelled := false;
    v_source.chunk_target := '1 second';
    v_source.verify_budget := 0.05;
    v_source.registered_at := now();
    v_source.registered_by := session_user;
    v_source.time_type := (
        SELECT format_type(a.atttypid, NULL) FROM pg_attribute AS a
        WHERE a.attrelid = p_narrow AND a.attname = p_time_column AND NOT a.attisdropped);
    PERFORM pymig._check_source(v_source);
    v_source.bucket_ticks := pymig._ticks_of(p_bucket, v_source.time_type, p_time_unit);
    v_source.grain_ticks := pymig._ticks_of(p_time_grain, v_source.time_type, p_time_unit);
    PERFORM pymig._check_source_spans(v_source, p_bucket, p_time_grain);
    SELECT i.reads_by_key, i.reads_by_time, i.is_unique
    INTO v_source.reads_by_key, v_source.reads_by_time, v_source.is_unique
    FROM pymig._index_paths(p_narrow, p_entity_column, p_channel_column, p_time_column) AS i;
    PERFORM pymig._check_source_indexes(v_source);
    INSERT INTO pymig.source SELECT v_source.*;
    PERFORM pymig._create_source_objects(v_source);
    PERFORM pymig._note('INFO', p_source, NULL, 'source registered', format('%s was registered as source %s', p_narrow, p_source));
    v_published := pymig._publications(v_source.wide_schema);
    IF v_published IS NOT NULL THEN
        PERFORM pymig._note('WARNING', p_source, NULL, 'published', v_published);
        RAISE WARNING '%', v_published USING HINT = 'Create the tables on the subscribers as well, or publish a list of tables.';
    END IF;
END
$$;
COMMENT ON PROCEDURE pymig.register_source IS
    'Registers a narrow table and how to read it. Refuses with PM003 what can''t be served. Changes nothing on the narrow table itself; reading and arming come with start_sync. '
    'Values: with p_format_column, p_formats maps its contents to value columns ({"Decimal": "double_v"}); without it, of several p_value_columns the non-null one counts. '
    'p_tie_break: columns whose highest value wins where rows share a cell. p_time_unit: s, ms or us for a bigint epoch. p_time_grain: samples of one grain become one wide row. '
    'Example: CALL pymig.register_source(''plant'', ''plant.samples'', ''machine'', ''sensor'', ''ts'', ''{v}'')';

-- sql/core/procedures/release_cut_over.sql
CREATE OR REPLACE PROCEDURE pymig.release_cut_over(p_entity text, p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity pymig.entity := pymig._entity(v_source.source, pymig._canonical_entity(v_source, p_entity));
BEGIN
    PERFORM pymig._hold_cut_over(v_source.source, v_entity.entity, false);
END
$$;
COMMENT ON PROCEDURE pymig.release_cut_over(text, text) IS
    'Lets the cutover of an entity go on that was held back. Example: CALL pymig.release_cut_over(''SHIP1'')';

-- sql/core/procedures/restore_narrow.sql
CREATE OR REPLACE PROCEDURE pymig.restore_narrow(p_entity text, p_source text DEFAULT NULL, p_pause interval DEFAULT '0')
LANGUAGE plpgsql
AS $$
DECLARE
    v_source pymig.source;
    v_entity pymig.entity;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    v_entity := pymig._entity(v_source.source, pymig._canonical_entity(v_source, p_entity));
    PERFORM pymig._begin_restore(v_source, v_entity);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    WHILE pymig._restore_next(v_source, v_entity) LOOP
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        PERFORM pg_sleep(extract(epoch FROM p_pause));
        CALL pymig._wait_while_held(v_source.source, v_entity.entity);
    END LOOP;
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    CALL pymig.sync_pending(v_source.source);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
END
$$;
COMMENT ON PROCEDURE pymig.restore_narrow(text, text, interval) IS
    'The inverse of finalize: brings the narrow rows of an entity back, the newest bucket first, a bucket a transaction; from the archive table, and where nothing was archived from the wide tables (then without the columns wide does not keep, rows whose value was NULL, and rows that lost the tie-break). Run again it goes on. The entity is cut_over again. Example: CALL pymig.restore_narrow(''SHIP1'')';

-- sql/core/procedures/resume.sql
CREATE OR REPLACE PROCEDURE pymig.resume(p_entity text DEFAULT NULL, p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pymig._set_paused(p_entity, p_source, false);
END
$$;
COMMENT ON PROCEDURE pymig.resume(text, text) IS
    'The opposite of pause and cancel, for the same entity, or (p_entity NULL) for the source and all its entities. What was paused goes on by itself; what was cancelled goes on with the next command. Example: CALL pymig.resume(''SHIP1'')';

-- sql/core/procedures/retire.sql
CREATE OR REPLACE PROCEDURE pymig.retire(p_source text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    c_slice constant interval := '1 second';
    v_until timestamptz := clock_timestamp() + c_slice;
    r_entity record;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    FOR r_entity IN
        SELECT e.source, e.entity FROM pymig.entity AS e
        WHERE e.state = 'finalized' AND e.source = coalesce(p_source, e.source) ORDER BY random()
    LOOP
        CONTINUE WHEN pymig._has_to_wait(r_entity.source, r_entity.entity) IS NOT NULL;
        BEGIN
            PERFORM pymig._drop_old_months(r_entity.source, r_entity.entity);
        EXCEPTION
            WHEN lock_not_available OR dependent_objects_still_exist THEN
                PERFORM pymig._note_once('WARNING', r_entity.source, 'months not dropped', format('Old months of %s stay: %s. It is tried again.', quote_literal(r_entity.entity), SQLERRM));
        END;
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        LOOP
            EXIT WHEN clock_timestamp() > v_until OR pymig._has_to_wait(r_entity.source, r_entity.entity) IS NOT NULL;
            BEGIN
                EXIT WHEN pymig._retire_next(r_entity.source, r_entity.entity) <> 'retired';
            EXCEPTION
                WHEN SQLSTATE 'PM040' OR SQLSTATE 'PM065' OR SQLSTATE 'PM004' THEN
                    PERFORM pymig._note_once('WARNING', r_entity.source, 'not retired', format('Narrow rows of %s stay: %s.', quote_literal(r_entity.entity), SQLERRM));
                    EXIT;
            END;
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        END LOOP;
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig.retire(text) IS
    'Goes on retiring narrow rows of finalized entities that have become old enough, for a second at most, and drops months of their wide tables that set_wide_partitions lets go. `pymig worker` and run_worker call it again and again. Example: CALL pymig.retire()';

-- sql/core/procedures/reverify.sql
CREATE OR REPLACE PROCEDURE pymig.reverify(p_source text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    c_shadow_reads constant int := 10000;
    c_slice constant interval := '1 second';
    v_source pymig.source;
    v_until timestamptz;
    v_due record;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
    PERFORM pymig._require_read_committed();
    -- Housekeeping, as the worker comes by: nobody needs more than the newest.
    DELETE FROM pymig.shadow_read AS r WHERE r.shadow_read <= (SELECT max(n.shadow_read) FROM pymig.shadow_read AS n) - c_shadow_reads;
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
    FOREACH v_source IN ARRAY ARRAY(SELECT s FROM pymig.source AS s WHERE s.source = coalesce(p_source, s.source) ORDER BY s.source) LOOP
        v_until := clock_timestamp() + c_slice;
        LOOP
            v_due := pymig._due_bucket(v_source);
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
            EXIT WHEN v_due.bucket IS NULL;
            PERFORM pymig._reverify_bucket(v_source, v_due.entity, v_due.bucket);
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
            EXIT WHEN clock_timestamp() > v_until;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig.reverify(text) IS
    'Verifies buckets of verified entities again, as far as the budget goes, for a second at most: those that changed, else those compared longest ago. A difference is repaired, raises an event and voids the certificate. `pymig worker` and run_worker call it again and again; sync never waits for it. Example: CALL pymig.reverify()';

-- sql/core/procedures/roll_back.sql
CREATE OR REPLACE PROCEDURE pymig.roll_back(
    p_entity text, p_source text DEFAULT NULL, p_lock_wait interval DEFAULT '10 minutes')
LANGUAGE plpgsql
AS $$
DECLARE
    c_lock_timeout constant interval := '200 ms';
    v_source pymig.source;
    v_entity text;
    v_started timestamptz := clock_timestamp();
    v_attempt int := 0;
    v_done boolean := false;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    v_entity := pymig._canonical_entity(v_source, p_entity);
    LOOP
        BEGIN
            PERFORM pymig._forget_entity(v_source, v_entity, c_lock_timeout);
            v_done := true;
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected THEN
                v_attempt := v_attempt + 1;
            WHEN dependent_objects_still_exist THEN
                RAISE EXCEPTION 'something depends on the wide table of %', quote_literal(v_entity)
                    USING ERRCODE = 'PM015', DETAIL = SQLERRM, HINT = 'Drop what depends on it (views, foreign keys), then roll back again.';
        END;
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        EXIT WHEN v_done;
        IF clock_timestamp() - v_started > p_lock_wait THEN
            RAISE EXCEPTION 'could not lock the wide table of % for a moment in % attempts', quote_literal(v_entity), v_attempt
                USING ERRCODE = 'PM005', HINT = 'Wait for its readers to end, or end them, and run the same command again.';
        END IF;
        PERFORM pg_sleep(least(0.2 * 1.5 ^ v_attempt, 5) * (0.5 + random()));
    END LOOP;
    -- Triggers that serve nobody would only fill the disk.
    CALL pymig._arm_source(v_source.source, false, p_lock_wait);
    PERFORM pymig._collect_pending(v_source);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
END
$$;
COMMENT ON PROCEDURE pymig.roll_back(text, text, interval) IS
    'Undoes the migration of an entity from any state: its wide tables, chunks, keys and results are gone, the narrow table was never changed. With the last entity the triggers go, too. Waits for readers of the wide table in attempts of 200 ms. Run again it does nothing. PM005, PM015. Example: CALL pymig.roll_back(''SHIP1'')';

-- sql/core/procedures/run_worker.sql
CREATE OR REPLACE PROCEDURE pymig.run_worker(
    p_seconds double precision DEFAULT 60, p_source text DEFAULT NULL, p_worker text DEFAULT NULL,
    p_poll interval DEFAULT '100 ms', p_adopt boolean DEFAULT true)
LANGUAGE plpgsql
AS $$
DECLARE
    v_until timestamptz := clock_timestamp() + p_seconds * interval '1 second';
    v_began timestamptz;
    v_rest interval;
BEGIN
    LOOP
        v_began := clock_timestamp();
        CALL pymig.sync_pending(p_source, p_worker, p_adopt);
        v_rest := greatest(p_poll, least(2 * (clock_timestamp() - v_began), '300 ms'));
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        IF p_adopt THEN
            CALL pymig.reverify(p_source);
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
            CALL pymig.retire(p_source);
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
            PERFORM pymig.look_at_alerts();
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        END IF;
        EXIT WHEN clock_timestamp() + v_rest >= v_until;
        PERFORM pg_sleep(extract(epoch FROM v_rest));
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig.run_worker(double precision, text, text, interval, boolean) IS
    'sync_pending and reverify again and again, with a pause between two passes of p_poll, or twice as long as the pass took up to 300 ms, for p_seconds: a worker for whoever can only start something every minute, like pg_cron. Example: CALL pymig.run_worker(59, p_worker => ''pg_cron'')';

-- sql/core/procedures/set_alert.sql
CREATE OR REPLACE PROCEDURE pymig.set_alert(
    p_alert text, p_max double precision DEFAULT NULL, p_lasting interval DEFAULT NULL, p_level text DEFAULT NULL,
    p_measure text DEFAULT NULL, p_unit text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_level NOT IN ('INFO', 'WARNING', 'CRITICAL') OR p_lasting < interval '0' THEN
        RAISE EXCEPTION 'an alert can''t have level % and last %', quote_nullable(p_level), quote_nullable(p_lasting)
            USING ERRCODE = 'PM007', HINT = 'Levels are INFO, WARNING and CRITICAL; p_lasting is an interval from 0.';
    END IF;
    -- Two statements: a role that may set limits need not be one that may say what is run to measure.
    UPDATE pymig.alert AS a SET max_value = p_max, level = coalesce(p_level, a.level), lasting = coalesce(p_lasting, a.lasting), checked_at = NULL, error = NULL
    WHERE a.alert = p_alert;
    IF FOUND THEN
        IF p_measure IS NOT NULL OR p_unit IS NOT NULL THEN
            UPDATE pymig.alert AS a SET measure = coalesce(p_measure, a.measure), unit = coalesce(p_unit, a.unit) WHERE a.alert = p_alert;
        END IF;
    ELSIF p_measure IS NULL OR p_alert IS NULL THEN
        RAISE EXCEPTION 'there is no alert %', quote_nullable(p_alert)
            USING ERRCODE = 'PM007', HINT = 'SELECT alert FROM pymig.alert; one of your own needs p_measure, a SELECT of source, entity and a number.';
    ELSE
        INSERT INTO pymig.alert (alert, level, measure, unit, max_value, lasting, what_to_do)
        VALUES (p_alert, coalesce(p_level, 'WARNING'), p_measure, coalesce(p_unit, ''), p_max, coalesce(p_lasting, '0'), 'A rule of your own.');
    END IF;
    PERFORM pymig._note('INFO', NULL, NULL, 'alert set', format('%s: %s.', p_alert, coalesce('limit ' || p_max, 'not looked at')));
END
$$;
COMMENT ON PROCEDURE pymig.set_alert(text, double precision, interval, text, text, text) IS
    'Sets the limit of a rule of pymig.alert (p_max NULL: it is not looked at), and where given how long a figure has to be greater before and the level of its events. With p_measure (a SELECT of source, entity and a number) a new rule, or another way to measure one. Recorded with who and when. PM007. Example: CALL pymig.set_alert(''sync lag'', 5, ''30 seconds'')';

-- sql/core/procedures/set_chunk_target.sql
CREATE OR REPLACE PROCEDURE pymig.set_chunk_target(p_target interval DEFAULT NULL, p_entity text DEFAULT NULL, p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity text := CASE WHEN p_entity IS NOT NULL THEN pymig._known_entity(v_source, p_entity) END;
BEGIN
    IF p_target <= interval '0' OR p_target IS NULL AND v_entity IS NULL THEN
        RAISE EXCEPTION 'a chunk can''t take %', coalesce(p_target::text, 'no time')
            USING ERRCODE = 'PM007', HINT = 'Give an interval above 0; 1 second is the default. NULL for an entity: as its source says.';
    END IF;
    IF v_entity IS NULL THEN
        UPDATE pymig.source AS s SET chunk_target = p_target WHERE s.source = v_source.source;
    ELSE
        UPDATE pymig.entity AS e SET chunk_target = p_target WHERE e.source = v_source.source AND e.entity = v_entity;
    END IF;
    PERFORM pymig._note('INFO', v_source.source, v_entity, 'chunk target set', format('A chunk should take %s.', coalesce(p_target::text, 'as long as the source says')));
END
$$;
COMMENT ON PROCEDURE pymig.set_chunk_target(interval, text, text) IS
    'How long a chunk should take, for a source or one of its entities, from the next one on: shorter ones hold up vacuum and a stop less, longer ones cost less planning. A chunk is a bucket at least and 64 at most. Recorded with who and when. PM007. Example: CALL pymig.set_chunk_target(''500 ms'')';

-- sql/core/procedures/set_new_entities.sql
CREATE OR REPLACE PROCEDURE pymig.set_new_entities(p_policy text, p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
BEGIN
    IF p_policy IS NULL OR p_policy NOT IN ('ask', 'auto') THEN
        RAISE EXCEPTION 'the policy for new entities is ask or auto, not %', quote_nullable(p_policy)
            USING ERRCODE = 'PM007', HINT = 'ask: an event tells of them. auto: the worker migrates them.';
    END IF;
    UPDATE pymig.source AS s SET new_entities = p_policy WHERE s.source = v_source.source;
    PERFORM pymig._note('INFO', v_source.source, NULL, 'policy set', format('New entities: %s.', p_policy));
END
$$;
COMMENT ON PROCEDURE pymig.set_new_entities(text, text) IS
    'What the worker does with entities that begin to send after the source was armed: ask (write an event) or auto (migrate them). Example: CALL pymig.set_new_entities(''auto'')';

-- sql/core/procedures/set_priority.sql
CREATE OR REPLACE PROCEDURE pymig.set_priority(p_entity text, p_priority int, p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity text := pymig._known_entity(v_source, p_entity);
BEGIN
    UPDATE pymig.entity AS e SET priority = coalesce(p_priority, 0) WHERE e.source = v_source.source AND e.entity = v_entity;
    PERFORM pymig._note('INFO', v_source.source, v_entity, 'priority set', format('Its priority is %s.', coalesce(p_priority, 0)));
END
$$;
COMMENT ON PROCEDURE pymig.set_priority(text, int, text) IS
    'Entities of a higher priority are migrated first by commands that are given several; among equals (all have 0) the smaller comes first. Recorded with who and when. Example: CALL pymig.set_priority(''SHIP1'', 10)';

-- sql/core/procedures/set_queue.sql
CREATE OR REPLACE PROCEDURE pymig.set_queue(
    p_source text DEFAULT NULL, p_rotate_above bigint DEFAULT NULL, p_limit bigint DEFAULT NULL, p_tablespace text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
BEGIN
    v_source.rotate_above := coalesce(p_rotate_above, v_source.rotate_above);
    v_source.queue_limit := CASE WHEN p_limit IS NULL THEN v_source.queue_limit ELSE nullif(p_limit, 0) END;
    v_source.queue_tablespace := CASE WHEN p_tablespace IS NULL THEN v_source.queue_tablespace ELSE nullif(p_tablespace, '') END;
    IF v_source.rotate_above <= 0 OR v_source.queue_limit <= v_source.rotate_above THEN
        RAISE EXCEPTION 'the queue of % cannot be rotated above % bytes with a limit of %',
            v_source.source, v_source.rotate_above, v_source.queue_limit
            USING ERRCODE = 'PM020', HINT = 'p_rotate_above must be positive, and p_limit greater than it (0: no limit).';
    ELSIF NOT coalesce((SELECT has_tablespace_privilege(t.oid, 'CREATE') FROM pg_tablespace AS t
                        WHERE t.spcname = v_source.queue_tablespace), v_source.queue_tablespace IS NULL) THEN
        RAISE EXCEPTION 'the queue of % cannot be in tablespace %', v_source.source, quote_ident(v_source.queue_tablespace)
            USING ERRCODE = 'PM021', HINT = 'Create it, and grant CREATE on it to the role that runs the worker.';
    END IF;
    UPDATE pymig.source AS s
    SET rotate_above = v_source.rotate_above, queue_limit = v_source.queue_limit, queue_tablespace = v_source.queue_tablespace
    WHERE s.source = v_source.source;
    PERFORM pymig._create_trigger_functions(v_source);
    PERFORM pymig._note('INFO', v_source.source, NULL, 'queue set', format('Rotated above %s bytes, limit %s, tablespace %s.',
        v_source.rotate_above, coalesce(v_source.queue_limit::text, 'none'), coalesce(v_source.queue_tablespace, 'of the database')));
END
$$;
COMMENT ON PROCEDURE pymig.set_queue(text, bigint, bigint, text) IS
    'How large the pending queue of a source may grow, and where it is. What is NULL stays as it is. p_rotate_above: bytes above which its two tables change turns. p_limit: bytes of one of them above which the triggers record no key; the worker then repairs everything (0: no limit). '
    'p_tablespace: a tablespace of its own (empty: that of the database), whose errors then can''t reach ingest, at the price of a subtransaction a statement; the worker moves the tables. Example: CALL pymig.set_queue(p_limit => 4294967296)';

-- sql/core/procedures/set_retention.sql
CREATE OR REPLACE PROCEDURE pymig.set_retention(p_policy text, p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
BEGIN
    IF p_policy IS NULL OR p_policy NOT IN ('drop', 'keep') THEN
        RAISE EXCEPTION 'the policy for partitions that are gone is drop or keep, not %', quote_nullable(p_policy)
            USING ERRCODE = 'PM007', HINT = 'drop: their wide rows go, too. keep: their wide rows stay as they are.';
    ELSIF p_policy = 'keep' THEN
        PERFORM pymig._check_keep(v_source);
    END IF;
    UPDATE pymig.source AS s SET retention = p_policy WHERE s.source = v_source.source;
    IF p_policy = 'drop' THEN
        PERFORM pymig._expand_range(v_source, c.entity, c.first_tick, c.last_tick)
        FROM pymig.closed_range AS c WHERE c.source = v_source.source AND c.partition_name IS NOT NULL;
        DELETE FROM pymig.closed_range AS c WHERE c.source = v_source.source AND c.partition_name IS NOT NULL;
        UPDATE pymig.quarantine AS q SET is_kept = false
        WHERE q.source = v_source.source AND q.is_kept AND NOT EXISTS (
            SELECT FROM pymig.retired_bucket AS r WHERE r.source = q.source AND r.entity = q.entity AND r.bucket = q.bucket);
    END IF;
    PERFORM pymig._note('INFO', v_source.source, NULL, 'policy set', format('Wide rows of partitions that are gone: %s.', p_policy));
END
$$;
COMMENT ON PROCEDURE pymig.set_retention(text, text) IS
    'What becomes of the wide rows when a partition of the narrow table is detached or dropped: drop (they go, too: wide stays equal to narrow) or keep (they stay as they are; narrow rows that come late in that range go to quarantine as closed_range). Back to drop, the wide tables follow the narrow one again: kept rows go, late ones come in. PM022 where keep can''t be had. Example: CALL pymig.set_retention(''keep'')';

-- sql/core/procedures/set_routing.sql
CREATE OR REPLACE PROCEDURE pymig.set_routing(
    p_entity text, p_routing text, p_percent int DEFAULT NULL, p_source text DEFAULT NULL, p_lock_wait interval DEFAULT '10 minutes')
LANGUAGE plpgsql
AS $$
DECLARE
    c_lock_timeout constant interval := '80 ms';
    v_source pymig.source;
    v_entity pymig.entity;
    v_started timestamptz := clock_timestamp();
    v_attempt int := 0;
    v_done boolean := false;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    v_entity := pymig._entity(v_source.source, pymig._canonical_entity(v_source, p_entity));
    IF p_routing IS NULL OR p_routing NOT IN ('narrow', 'percent', 'wide', 'shadow') THEN
        RAISE EXCEPTION 'routing is narrow, percent, wide or shadow, not %', quote_nullable(p_routing)
            USING ERRCODE = 'PM007', HINT = 'percent: p_percent of 100 sessions read wide. shadow: pymig.read() reads both and compares.';
    ELSIF (p_routing = 'percent') <> (p_percent IS NOT NULL) OR p_percent NOT BETWEEN 0 AND 100 THEN
        RAISE EXCEPTION 'routing % does not go with p_percent %', p_routing, quote_nullable(p_percent)
            USING ERRCODE = 'PM007', HINT = 'With percent, and only with it, give p_percent from 0 to 100.';
    END IF;
    WHILE NOT v_done LOOP
        BEGIN
            PERFORM set_config('lock_timeout', (extract(epoch FROM c_lock_timeout) * 1000)::int::text, true);
            PERFORM pymig._lock_entity(v_source.source, v_entity.entity, p_exclusive => false);
            v_entity := pymig._entity(v_source.source, v_entity.entity);
            IF p_routing <> 'narrow' AND NOT (v_entity.verified_at IS NOT NULL AND pymig._is_backfilled(v_entity.state)) THEN
                RAISE EXCEPTION '% is not verified, so it is read from narrow', quote_literal(v_entity.entity)
                    USING ERRCODE = 'PM050', HINT = format('CALL pymig.verify(%L) first.', v_entity.entity);
            END IF;
            IF v_entity.state = 'finalized' AND p_routing <> 'wide' THEN
                RAISE EXCEPTION '% is finalized: the narrow table no longer has all of it', quote_literal(v_entity.entity)
                    USING ERRCODE = 'PM050', HINT = format('CALL pymig.restore_narrow(%L) first.', v_entity.entity);
            END IF;
            PERFORM pymig._set_routing(v_source.source, v_entity.entity, p_routing, p_percent);
            v_done := true;
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected THEN
                v_attempt := v_attempt + 1;
        END;
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        IF NOT v_done AND clock_timestamp() - v_started > p_lock_wait THEN
            RAISE EXCEPTION 'could not lock the compat view for a moment in % attempts', v_attempt
                USING ERRCODE = 'PM005', HINT = 'Wait for its readers to end, or end them, and run the same command again.';
        ELSIF NOT v_done THEN
            PERFORM pg_sleep(least(0.1 * 1.5 ^ v_attempt, 2) * (0.5 + random()));
        END IF;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig.set_routing(text, text, int, text, interval) IS
    'Where pymig.read() and the compat view take an entity''s rows from, at once and for every session: narrow; wide; percent (p_percent of 100 sessions from wide, each for all of its life); shadow (read() takes both, records differences and times in pymig.shadow_read, returns narrow). All but narrow need a verified entity (PM050). Example: CALL pymig.set_routing(''SHIP1'', ''percent'', 10)';

-- sql/core/procedures/set_sync.sql
CREATE OR REPLACE PROCEDURE pymig.set_sync(
    p_entity text, p_sync text, p_source text DEFAULT NULL, p_budget interval DEFAULT '50 ms')
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity text := pymig._canonical_entity(v_source, p_entity);
    v_why text;
BEGIN
    PERFORM pymig._require_read_committed();
    -- One at a time: the trigger functions are made from what the source and all its entities have.
    SELECT s.* INTO v_source FROM pymig.source AS s WHERE s.source = v_source.source FOR NO KEY UPDATE;
    v_why := CASE
        WHEN NOT v_source.is_unique OR NOT (SELECT i.is_unique FROM pymig._index_paths(v_source.narrow, v_source.entity_column, v_source.channel_column, v_source.time_column) AS i) THEN 'it has no unique key on entity, channel and time, so several rows may be one cell'
        WHEN v_source.grain_ticks IS NOT NULL THEN 'it has a time grain, so several rows become one cell'
        WHEN (SELECT e.is_monthly FROM pymig.entity AS e WHERE e.source = v_source.source AND e.entity = v_entity) THEN 'its wide table is partitioned, and a month may have no partition yet'
        WHEN pymig._is_partitioned(v_source.narrow) THEN 'it is partitioned, and what a partition has can come and go as a whole'
    END;
    IF p_sync IS NULL OR p_sync NOT IN ('pending', 'direct') THEN
        RAISE EXCEPTION 'sync is pending or direct, not %', quote_nullable(p_sync)
            USING ERRCODE = 'PM007', HINT = 'pending: the worker writes the wide rows. direct: the statement that changes narrow rows does, where it can.';
    ELSIF p_budget IS NULL OR p_budget <= interval '0' THEN
        RAISE EXCEPTION 'the time budget of a direct write cannot be %', quote_nullable(p_budget)
            USING ERRCODE = 'PM007', HINT = 'Give a positive interval, say 50 ms.';
    ELSIF p_sync = 'direct' AND v_why IS NOT NULL THEN
        RAISE EXCEPTION '% can''t be written directly: %', v_source.narrow, v_why
            USING ERRCODE = 'PM030', HINT = 'Stay with pending, or read the narrow table where you must see your own writes.';
    END IF;
    UPDATE pymig.entity AS e SET sync = p_sync, direct_budget = p_budget WHERE e.source = v_source.source AND e.entity = v_entity;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no entity % is known in source %', quote_literal(v_entity), quote_literal(v_source.source)
            USING ERRCODE = 'PM002', HINT = 'Migrate it first.';
    END IF;
    PERFORM pymig._create_trigger_functions(v_source);
    PERFORM pymig._note('INFO', v_source.source, v_entity, 'sync set', format('Changes reach the wide table: %s%s.', p_sync,
        CASE p_sync WHEN 'direct' THEN format(', with %s a statement', p_budget) END));
END
$$;
COMMENT ON PROCEDURE pymig.set_sync(text, text, text, interval) IS
    'How changes of an entity reach its wide table. pending: the worker writes them, a moment after their commit; ingest never waits for it. direct: INSERT, and UPDATE that keeps its keys, write them in their own transaction, so that it reads what it wrote; whatever can''t be written at once goes the way of pending, and so does all of the source for 10 seconds after a statement that took longer than p_budget. '
    'PM030 for a source without unique key, with a time grain, or partitioned, and for an entity whose wide tables are. Example: CALL pymig.set_sync(''SHIP1'', ''direct'')';

-- sql/core/procedures/set_throttle.sql
CREATE OR REPLACE PROCEDURE pymig.set_throttle(
    p_condition text, p_max double precision DEFAULT NULL, p_measure text DEFAULT NULL, p_unit text DEFAULT NULL, p_is_rate boolean DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pymig.throttle AS t WHERE t.condition = p_condition) AND (p_measure IS NULL OR p_condition IS NULL) THEN
        RAISE EXCEPTION 'there is no condition %', quote_nullable(p_condition)
            USING ERRCODE = 'PM007', HINT = 'SELECT condition FROM pymig.throttle; one of your own needs p_measure, a SELECT of one number.';
    END IF;
    IF coalesce(p_measure, p_unit, p_is_rate::text) IS NULL THEN
        -- Who may set limits need not be one who may write the SQL that others run.
        UPDATE pymig.throttle AS t SET max_value = p_max, value = NULL, raw = NULL, checked_at = NULL, error = NULL WHERE t.condition = p_condition;
    ELSE
        INSERT INTO pymig.throttle AS t (condition, measure, unit, max_value, is_rate, what_to_do)
        VALUES (p_condition, p_measure, coalesce(p_unit, ''), p_max, coalesce(p_is_rate, false), 'A condition of your own.')
        ON CONFLICT (condition) DO UPDATE SET max_value = excluded.max_value, measure = coalesce(p_measure, t.measure), unit = coalesce(p_unit, t.unit),
            is_rate = coalesce(p_is_rate, t.is_rate), value = NULL, raw = NULL, checked_at = NULL, error = NULL;
    END IF;
    PERFORM pymig._note('INFO', NULL, NULL, 'throttle set', format('%s: %s.', p_condition, coalesce('limit ' || p_max, 'not looked at')));
END
$$;
COMMENT ON PROCEDURE pymig.set_throttle(text, double precision, text, text, boolean) IS
    'Sets the limit of a condition of pymig.throttle, at once for all that runs; p_max NULL: it is not looked at. With p_measure (a SELECT of one number; p_is_rate: a counter whose increase a second counts) a new condition, or another way to measure one. Recorded with who and when. PM007 for an unknown condition without p_measure. Example: CALL pymig.set_throttle(''replica lag'', 1e9)';

-- sql/core/procedures/set_type_drift.sql
CREATE OR REPLACE PROCEDURE pymig.set_type_drift(p_entity text, p_policy text, p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity text := CASE WHEN p_entity IS NOT NULL THEN pymig._canonical_entity(v_source, p_entity) END;
BEGIN
    IF p_policy IS NULL OR p_policy NOT IN ('quarantine', 'promote') THEN
        RAISE EXCEPTION 'the policy for type drift is quarantine or promote, not %', quote_nullable(p_policy)
            USING ERRCODE = 'PM007', HINT = 'quarantine: such values wait there. promote: the column gets a type that holds them.';
    END IF;
    IF v_entity IS NULL THEN
        UPDATE pymig.source AS s SET type_drift = p_policy WHERE s.source = v_source.source;
    ELSE
        INSERT INTO pymig.entity AS e (source, entity, type_drift) VALUES (v_source.source, v_entity, p_policy)
        ON CONFLICT (source, entity) DO UPDATE SET type_drift = excluded.type_drift;
    END IF;
    PERFORM pymig._note('INFO', v_source.source, v_entity, 'policy set', format('Type drift: %s.', p_policy));
END
$$;
COMMENT ON PROCEDURE pymig.set_type_drift(text, text, text) IS
    'What becomes of values that do not fit their native column: quarantine (they wait there) or promote (the worker gives the column a type that holds them without loss, in the background). p_entity NULL: the default of the source. Example: CALL pymig.set_type_drift(''SHIP1'', ''promote'')';

-- sql/core/procedures/set_verification.sql
CREATE OR REPLACE PROCEDURE pymig.set_verification(
    p_budget double precision DEFAULT 0.05, p_certificate_age interval DEFAULT NULL, p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
BEGIN
    IF p_budget IS NULL OR NOT p_budget BETWEEN 0 AND 1 THEN
        RAISE EXCEPTION 'the budget of verification is a share of a worker''s time from 0 to 1, not %', quote_nullable(p_budget)
            USING ERRCODE = 'PM007', HINT = '0.05 is one twentieth; 0 verifies nothing again.';
    ELSIF p_certificate_age <= interval '0' THEN
        RAISE EXCEPTION 'the age of a certificate cannot be %', p_certificate_age
            USING ERRCODE = 'PM007', HINT = 'Give a positive interval, say 30 days, or NULL.';
    END IF;
    UPDATE pymig.source AS s SET verify_budget = p_budget, certificate_age = p_certificate_age, verify_after = NULL
    WHERE s.source = v_source.source;
    PERFORM pymig._note('INFO', v_source.source, NULL, 'policy set', format('Verification for ever: %s of a worker''s time; certificates count for %s.',
        p_budget, coalesce(p_certificate_age::text, 'as long as nothing voids them')));
END
$$;
COMMENT ON PROCEDURE pymig.set_verification(double precision, interval, text) IS
    'How much of a worker''s time goes into verifying buckets again (p_budget, 0 to 1), and after what age a certificate no longer counts (NULL: never for its age). Example: CALL pymig.set_verification(0.02, ''30 days'')';

-- sql/core/procedures/set_wide_partitions.sql
CREATE OR REPLACE PROCEDURE pymig.set_wide_partitions(p_by text, p_keep interval DEFAULT NULL, p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
BEGIN
    IF p_by IS NULL OR p_by NOT IN ('none', 'month') THEN
        RAISE EXCEPTION 'wide tables are partitioned by month or none, not %', quote_nullable(p_by)
            USING ERRCODE = 'PM007', HINT = 'month: one partition a month (UTC) for the ships that are migrated from now on. none: one table.';
    ELSIF p_keep IS NOT NULL AND (p_by = 'none' OR p_keep <= interval '0') THEN
        RAISE EXCEPTION 'months can''t be kept for % with partitions by %', p_keep, p_by
            USING ERRCODE = 'PM007', HINT = 'Give month and an interval, say 5 years; without one all months stay.';
    END IF;
    UPDATE pymig.source AS s SET wide_partitions = p_by, keep_wide = p_keep WHERE s.source = v_source.source;
    PERFORM pymig._note('INFO', v_source.source, NULL, 'policy set', format('Partitions of wide tables: %s; months are kept %s.', p_by, coalesce('for ' || p_keep, 'for ever')));
END
$$;
COMMENT ON PROCEDURE pymig.set_wide_partitions(text, interval, text) IS
    'How the wide tables of entities that are migrated from now on are partitioned: none, or month (UTC; made as rows come, with one partition for all before 2000 and one for all after 2099). p_keep: months of finalized entities that end longer ago are dropped by the worker once their narrow rows are retired; NULL: all stay. Tables that are there stay as they are. PM007. Example: CALL pymig.set_wide_partitions(''month'', ''5 years'')';

-- sql/core/procedures/set_workers.sql
CREATE OR REPLACE PROCEDURE pymig.set_workers(p_workers int DEFAULT NULL, p_entity text DEFAULT NULL, p_source text DEFAULT NULL)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source pymig.source := pymig._source(p_source);
    v_entity text := CASE WHEN p_entity IS NOT NULL THEN pymig._known_entity(v_source, p_entity) END;
BEGIN
    IF p_workers NOT BETWEEN 1 AND 64 THEN
        RAISE EXCEPTION '% workers are not possible', p_workers
            USING ERRCODE = 'PM007', HINT = 'Between 1 and 64; NULL leaves it to the command. CALL pymig.pause() stops them all.';
    END IF;
    IF v_entity IS NULL THEN
        UPDATE pymig.source AS s SET workers = p_workers WHERE s.source = v_source.source;
    ELSE
        UPDATE pymig.entity AS e SET workers = p_workers WHERE e.source = v_source.source AND e.entity = v_entity;
    END IF;
    PERFORM pymig._note('INFO', v_source.source, v_entity, 'workers set', format('%s.', coalesce(p_workers || ' connections move history', 'As commands are started')));
END
$$;
COMMENT ON PROCEDURE pymig.set_workers(int, text, text) IS
    'How many connections each command moves the history of a source with, from now on and also while it runs; p_entity: how many of them may be at this one at once. NULL: as the command was started, and no such limit. Recorded with who and when. PM007. Example: CALL pymig.set_workers(4)';

-- sql/core/procedures/start_sync.sql
CREATE OR REPLACE PROCEDURE pymig.start_sync(
    p_entity text,
    p_source text DEFAULT NULL,
    p_column_types text DEFAULT NULL,
    p_strategy text DEFAULT NULL,
    p_allow_scan boolean DEFAULT false,
    p_lock_wait interval DEFAULT '10 minutes')
LANGUAGE plpgsql
AS $$
DECLARE
    v_source pymig.source;
    v_entity text;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    v_entity := pymig._canonical_entity(v_source, p_entity);
    PERFORM pymig._plan_entity(v_source, v_entity, p_column_types, p_strategy, p_allow_scan);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    PERFORM pymig._set_restore_point(v_source.source, v_entity);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    PERFORM pymig._mark_drift(v_source);
    CALL pymig._arm_source(v_source.source, true, p_lock_wait);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    PERFORM pymig._create_entity(v_source, v_entity, p_allow_scan);
    PERFORM pymig._retry_failed_chunks(v_source.source, v_entity);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    -- Planned for a few channels, a join of 1,000 would run in nested loops.
    ANALYZE pymig.channel;
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
END
$$;
COMMENT ON PROCEDURE pymig.start_sync(text, text, text, text, boolean, interval) IS
    'Begins to keep an entity in sync: records its row, names a restore point where it may, arms the source, then creates its wide tables. History comes with backfill. Run again it changes nothing but what is missing, and gives failed chunks another chance. '
    'p_column_types: text or native. p_strategy: auto, transpose, crosstab, json or filter. p_lock_wait: how long to try for the triggers. Example: CALL pymig.start_sync(''SHIP1'', p_column_types => ''native'')';

-- sql/core/procedures/sync_pending.sql
CREATE OR REPLACE PROCEDURE pymig.sync_pending(
    p_source text DEFAULT NULL, p_worker text DEFAULT NULL, p_adopt boolean DEFAULT true)
LANGUAGE plpgsql
AS $$
DECLARE
    -- A long list is left after so much work, or four times what looking took, to see what has arrived meanwhile.
    c_slice constant interval := '100 ms';
    c_pass constant interval := '2 s';
    c_adopted_chunks constant int := 10;
    v_started timestamptz := clock_timestamp();
    v_looked timestamptz;
    v_until timestamptz;
    v_source pymig.source;
    v_entities text[];
    v_runs text[];
    v_oldest timestamptz;
    -- Where in the ring of entities this pass is; several workers enter it at different places.
    v_place bigint := pymig._ring_place(random()::text);
    v_goes_on boolean;
    v_steps int := 0;
    v_adopting boolean;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
    PERFORM pymig._require_read_committed();
    LOOP
        PERFORM pymig._heartbeat(p_worker);
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
        v_goes_on := false;
        FOREACH v_source IN ARRAY ARRAY(SELECT s FROM pymig.source AS s WHERE s.source = coalesce(p_source, s.source) ORDER BY s.source) LOOP
            CONTINUE WHEN pymig._note_missing_source(v_source);
            CALL pymig._follow_partitions(v_source.source);
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
            v_looked := clock_timestamp();
            PERFORM pymig._collect_pending(v_source);
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
            CALL pymig._keep_queue(v_source);
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
            SELECT d.entities, d.runs, d.oldest INTO v_entities, v_runs, v_oldest FROM pymig._due_todo(v_source, v_place) AS d;
            v_until := clock_timestamp() + greatest(c_slice, 4 * (clock_timestamp() - v_looked));
            FOR v_i IN 1 .. coalesce(cardinality(v_runs), 0) LOOP
                IF v_i > 1 AND clock_timestamp() > v_until THEN
                    -- Whoever called waits for the keys that were there when the pass began, not for all that ever come.
                    v_goes_on := v_goes_on OR v_oldest <= v_started OR clock_timestamp() < v_started + c_pass;
                    EXIT;
                END IF;
                CALL pymig._drain_run(v_source, v_entities[v_i], v_runs[v_i]::bigint[]);
                v_place := pymig._ring_place(v_entities[v_i]);
                    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
            END LOOP;
            IF p_adopt AND v_steps < c_adopted_chunks THEN
                -- One chunk of one newcomer, then the others' keys are looked at again.
                v_adopting := false;
                CALL pymig._migrate_adopted(v_source.source, v_adopting);
                v_steps := v_steps + 1;
                v_goes_on := v_goes_on OR v_adopting;
                    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
            END IF;
        END LOOP;
        EXIT WHEN NOT v_goes_on;
    END LOOP;
    FOREACH v_source IN ARRAY ARRAY(SELECT s FROM pymig.source AS s WHERE p_adopt AND s.source = coalesce(p_source, s.source) ORDER BY s.source) LOOP
        CALL pymig._promote(v_source.source);
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    SET LOCAL synchronous_commit = off;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE pymig.sync_pending(text, text, boolean) IS
    'One pass of the worker: recomputes all keys that are pending, a run of buckets a transaction; adds channels; adopts new entities by policy; rotates the queue; promotes drifted columns by policy. What arrives meanwhile is looked at every 100 ms, newest first. Several sessions may run it at once; pg_cron or `pymig worker` run it again and again. p_worker: name for the heartbeat. p_adopt false: leaves promotions and the history of adopted entities to another session''s migrate_adopted(). Example: CALL pymig.sync_pending()';

-- sql/core/procedures/tell.sql
CREATE OR REPLACE PROCEDURE pymig.tell(p_target text, p_level text, p_events bigint[])
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pymig.told (target, level, event) SELECT p_target, p_level, e.e FROM unnest(p_events) AS e (e) ON CONFLICT DO NOTHING
$$;
COMMENT ON PROCEDURE pymig.tell(text, text, bigint[]) IS
    'Notes that a target was told these events. Call it once the message has left: one that is sent and not noted is sent again, none is lost. Example: CALL pymig.tell(''log'', ''INFO'', ''{17,18}'')';

-- sql/core/procedures/tune_wide.sql
CREATE OR REPLACE PROCEDURE pymig.tune_wide(p_entity text, p_source text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    v_source pymig.source;
    v_entity pymig.entity;
    r_part record;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    v_entity := pymig._entity(v_source.source, pymig._canonical_entity(v_source, p_entity));
    IF v_entity.wide_table IS NULL THEN
        RAISE EXCEPTION '% has no wide table', quote_literal(v_entity.entity) USING ERRCODE = 'PM004', HINT = 'Migrate it first.';
    END IF;
    FOR r_part IN
        SELECT t.wide_table, t.leaf FROM pymig._wide_leaves(v_source, v_entity.entity) AS t
    LOOP
        -- A table that grows at its end for years: a share of all it has ever had is too seldom, for the planner as for VACUUM.
        EXECUTE format('ALTER TABLE %s SET (autovacuum_analyze_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.01,
            autovacuum_vacuum_scale_factor = 0.02)', r_part.leaf);
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    END LOOP;
    FOR r_part IN
        SELECT p.wide_table FROM pymig.part AS p
        WHERE p.source = v_source.source AND p.entity = v_entity.entity ORDER BY p.part
    LOOP
        EXECUTE format('ANALYZE %I.%I', v_source.wide_schema, r_part.wide_table);
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    END LOOP;
    PERFORM pymig._note('INFO', v_source.source, v_entity.entity, 'tuned', 'Its wide tables are analyzed, and from now on at every hundredth of growth.');
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
END
$$;
COMMENT ON PROCEDURE pymig.tune_wide(text, text) IS
    'Prepares the wide tables of an entity for years of reading: ANALYZE, and settings of autovacuum by which it looks at them after 1 % of new rows and 2 % of rewritten ones (20 % is the default of PostgreSQL). Readers and writers do not wait. Run again it sets the same and analyzes anew. PM004 where there is no wide table. Example: CALL pymig.tune_wide(''SHIP1'')';

-- sql/core/procedures/unregister_source.sql
CREATE OR REPLACE PROCEDURE pymig.unregister_source(p_source text, p_lock_wait interval DEFAULT '10 minutes')
LANGUAGE plpgsql
AS $$
DECLARE
    v_source pymig.source;
    v_entity text;
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    FOREACH v_entity IN ARRAY ARRAY(
        SELECT e.entity FROM pymig.entity AS e
        WHERE e.source = v_source.source AND e.state NOT IN ('known', 'rolled_back') ORDER BY e.entity)
    LOOP
        CALL pymig.roll_back(v_entity, v_source.source, p_lock_wait);
    END LOOP;
    CALL pymig._arm_source(v_source.source, false, p_lock_wait);
    PERFORM pymig._drop_compat_view(v_source);
    PERFORM pymig._drop_archive(v_source);
    PERFORM pymig._drop_source_objects(v_source);
    DELETE FROM pymig.source AS s WHERE s.source = v_source.source;
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
END
$$;
COMMENT ON PROCEDURE pymig.unregister_source(text, interval) IS
    'Rolls all entities of a source back, drops its triggers and everything pymig made for it. Example: CALL pymig.unregister_source(''tbl_data_timeseries'')';

-- sql/core/procedures/verify.sql
CREATE OR REPLACE PROCEDURE pymig.verify(
    p_entity text, p_source text DEFAULT NULL, p_repair boolean DEFAULT false)
LANGUAGE plpgsql
AS $$
DECLARE
    v_source pymig.source;
    v_entity pymig.entity;
    v_started timestamptz := clock_timestamp();
    v_bucket bigint := -9223372036854775808;
    v_is_compared boolean;
    -- Shorter than a chunk: the arrays of both sides take nearly twice as much memory, up to 200 bytes a cell.
    c_run constant interval := '500 ms';
    -- Buckets of the next run; after one that was not clean the next is short.
    v_run bigint := 64;
    v_last_bucket numeric;
    v_singly_until bigint := -9223372036854775808;
    v_sentence text;
    -- How often it is asked whether history has to wait; a bucket takes milliseconds.
    c_look constant interval := '500 ms';
    v_look_at timestamptz := '-infinity';
    -- How long a partition that is new may take to be armed.
    c_partition_wait constant interval := '1 minute';
BEGIN
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    v_source := pymig._source(p_source);
    v_entity := pymig._entity(v_source.source, pymig._canonical_entity(v_source, p_entity));
    IF NOT pymig._is_backfilled(v_entity.state) THEN
        RAISE EXCEPTION '% is % and can be verified once its backfill is done', quote_literal(v_entity.entity), v_entity.state
            USING ERRCODE = 'PM004', HINT = format('CALL pymig.backfill(%L) first.', v_entity.entity);
    END IF;
    PERFORM pymig._mend_columns(v_source, v_entity.entity);
    v_sentence := pymig._part_faults(v_source, v_entity.entity);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    IF v_sentence IS NOT NULL THEN
        RAISE EXCEPTION '% cannot be verified: %', quote_literal(v_entity.entity), v_sentence
            USING ERRCODE = 'PM025', HINT = format('Undo that and migrate again, or CALL pymig.roll_back(%L) and migrate it anew.', v_entity.entity);
    END IF;
    CALL pymig._follow_partitions(v_source.source, c_partition_wait);
    CALL pymig.sync_pending(v_source.source);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    IF NOT v_source.reads_by_key THEN
        WHILE pymig.verify_bucket(v_entity.entity, (-9223372036854775807), p_repair, v_source.source) IS NULL LOOP
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
            CALL pymig._follow_partitions(v_source.source, c_partition_wait);
            CALL pymig.sync_pending(v_source.source);
        END LOOP;
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    END IF;
    -- Behind it there is infinity alone.
    v_last_bucket := pymig.bucket_of(pymig._last_tick(v_source.time_type), v_source.bucket_ticks);
    LOOP
        IF clock_timestamp() > v_look_at THEN
            CALL pymig._wait_while_held(v_source.source, v_entity.entity);
            v_look_at := clock_timestamp() + c_look;
        END IF;
        -- In every transaction anew: it may have been rolled back meanwhile (PM004).
        IF p_repair AND pymig._has_unknown_channels(v_source, v_entity.entity) THEN
            PERFORM pymig._add_channels(v_source, v_entity.entity);
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        END IF;
        PERFORM pymig._require_same_entity(v_entity);
        v_bucket := pymig._next_bucket(v_source, v_entity.entity, v_bucket);
        EXIT WHEN v_bucket IS NULL;
        IF v_bucket > v_singly_until THEN
            v_run := pymig._fit_buckets(v_source, v_entity.entity, v_bucket, least(2 * v_run, v_last_bucket - v_bucket + 1), c_run);
            IF v_run > 1 AND pymig._verify_run(v_source, v_entity, v_bucket, v_bucket + (v_run - 1)) THEN
                    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
                v_bucket := v_bucket + v_run;
                CONTINUE;
            END IF;
            v_singly_until := v_bucket + (v_run - 1);
            v_run := 1;
        END IF;
        v_is_compared := NOT pymig.verify_bucket(v_entity.entity, v_bucket, p_repair, v_source.source) IS NULL;
            COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
        IF NOT v_is_compared THEN
            CALL pymig._follow_partitions(v_source.source, c_partition_wait);
            CALL pymig.sync_pending(v_source.source);
                COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
            CONTINUE;
        END IF;
        EXIT WHEN v_bucket = 9223372036854775807;
        v_bucket := v_bucket + 1;
    END LOOP;
    PERFORM pymig._require_same_entity(v_entity);
    v_sentence := pymig._finish_verify(v_source, v_entity.entity, v_started);
        COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = pg_catalog, pg_temp;
    IF v_sentence IS NOT NULL THEN
        RAISE EXCEPTION '% does not verify: %', quote_literal(v_entity.entity), v_sentence
            USING ERRCODE = 'PM013',
            HINT = format('Look at pymig.verification; repair with CALL pymig.verify(%L, p_repair => true).', v_entity.entity);
    END IF;
END
$$;
COMMENT ON PROCEDURE pymig.verify(text, text, boolean) IS
    'Drains what is pending, then compares every cell of every bucket with the narrow table while ingest goes on; results in pymig.verification. p_repair: recompute buckets that differ. PM013 where differences are left. Example: CALL pymig.verify(''SHIP1'', p_repair => true)';

-- sql/core/views/channel_map.sql
CREATE OR REPLACE VIEW pymig.channel_map AS
SELECT c.source, c.entity, c.channel,
    format('%I.%I', s.wide_schema, p.wide_table) AS wide_table,
    c.wide_column, c.column_type
FROM pymig.channel AS c
JOIN pymig.part AS p USING (source, entity, part)
JOIN pymig.source AS s USING (source);
COMMENT ON VIEW pymig.channel_map IS 'Where the cells of a channel are. wide_table is qualified and quoted, fit for ::regclass; wide_column is the bare name.';
COMMENT ON COLUMN pymig.channel_map.source IS 'Source.';
COMMENT ON COLUMN pymig.channel_map.entity IS 'Entity.';
COMMENT ON COLUMN pymig.channel_map.channel IS 'Channel as the narrow table has it.';
COMMENT ON COLUMN pymig.channel_map.wide_table IS 'Qualified, quoted name of the part.';
COMMENT ON COLUMN pymig.channel_map.wide_column IS 'Its column.';
COMMENT ON COLUMN pymig.channel_map.column_type IS 'Its type.';

-- sql/core/views/pending.sql
-- Made by a routine, because it names the pending tables of every source.
SELECT pymig._create_pending_view();

-- sql/core/views/routing.sql
CREATE OR REPLACE VIEW pymig.routing AS
SELECT e.source, e.entity, e.state, e.routing, e.routing_percent AS percent,
    r.reads AS shadow_reads, r.differing AS shadow_differing, r.narrow_ms, r.wide_ms
FROM pymig.entity AS e
LEFT JOIN LATERAL (
    SELECT count(*) AS reads, count(*) FILTER (WHERE r.differences > 0) AS differing,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY r.narrow_ms) AS narrow_ms, percentile_cont(0.5) WITHIN GROUP (ORDER BY r.wide_ms) AS wide_ms
    FROM pymig.shadow_read AS r WHERE r.source = e.source AND r.entity = e.entity
) AS r ON true
WHERE e.wide_table IS NOT NULL;
COMMENT ON VIEW pymig.routing IS 'Where each migrated entity is read from, and what shadow reads found.';
COMMENT ON COLUMN pymig.routing.source IS 'Source.';
COMMENT ON COLUMN pymig.routing.entity IS 'Entity.';
COMMENT ON COLUMN pymig.routing.state IS 'Its state.';
COMMENT ON COLUMN pymig.routing.routing IS 'narrow, percent, wide or shadow.';
COMMENT ON COLUMN pymig.routing.percent IS 'Sessions of 100 that read wide, with percent.';
COMMENT ON COLUMN pymig.routing.shadow_reads IS 'Shadow reads that are on record.';
COMMENT ON COLUMN pymig.routing.shadow_differing IS 'Those that found a difference.';
COMMENT ON COLUMN pymig.routing.narrow_ms IS 'Median milliseconds of their narrow side.';
COMMENT ON COLUMN pymig.routing.wide_ms IS 'Median milliseconds of their wide side.';

-- sql/core/views/status.sql
CREATE OR REPLACE VIEW pymig.status AS
-- Who looks every second looks at each of these once, not once an entity.
WITH pending AS MATERIALIZED (
    SELECT s.source, k.entity, k.keys, k.oldest FROM pymig.source AS s CROSS JOIN LATERAL pymig._pending_by_entity(s.source) AS k
),
lag AS MATERIALIZED (SELECT l.source, l.entity, l.p50, l.p99 FROM pymig._lag_by_entity() AS l),
source AS MATERIALIZED (SELECT s.source, s.wide_schema, pymig._trigger_state(s.narrow) AS triggers, pymig._has_lost_keys(s) AS has_lost, pymig._is_paused(s.source) AS is_paused FROM pymig.source AS s)
SELECT e.source, e.entity, e.state,
    coalesce(c.rows, e.moved_rows, 0) AS rows_done,
    e.estimated_rows AS rows_estimated,
    CASE
        WHEN pymig._is_backfilled(e.state) THEN 100
        WHEN e.first_bucket IS NULL THEN NULL
        ELSE round(100 * least(1, coalesce(c.buckets, 0) / nullif(e.last_bucket::numeric - e.first_bucket::numeric + 1, 0)), 1)
    END AS percent,
    r.rows_per_second,
    CASE WHEN e.state = 'syncing' AND r.rows_per_second > 0 AND e.estimated_rows > coalesce(c.rows, 0)
        THEN make_interval(secs => ((e.estimated_rows - coalesce(c.rows, 0)) / r.rows_per_second)::int) END AS eta,
    CASE WHEN e.wide_table IS NOT NULL AND k.keys IS NOT NULL THEN coalesce(clock_timestamp() - k.oldest, interval '0') END AS sync_lag,
    l.p50 AS sync_lag_p50,
    l.p99 AS sync_lag_p99,
    CASE WHEN e.wide_table IS NOT NULL THEN k.keys END AS pending,
    CASE WHEN e.wide_table IS NOT NULL THEN (
        SELECT count(*) FROM pymig.quarantine AS q WHERE q.source = e.source AND q.entity = e.entity) END AS quarantined,
    (SELECT count(*) FROM pymig.chunk AS f WHERE f.source = e.source AND f.entity = e.entity AND f.state <> 'done' AND f.state = 'failed') AS failed_chunks,
    CASE WHEN e.wide_table IS NOT NULL THEN format('%I.%I', s.wide_schema, e.wide_table) END AS wide_table,
    e.verified_at,
    s.triggers,
    pymig.workers_alive() AS workers_alive,
    e.last_error,
    e.wide_table IS NOT NULL AND (e.repair_from IS NOT NULL OR s.has_lost) AS keys_lost,
    CASE WHEN e.sync = 'direct' AND s.is_paused THEN 'direct, paused' ELSE e.sync END AS sync,
    CASE WHEN e.state IN ('planned', 'syncing', 'backfilled') OR e.paused_at IS NOT NULL THEN pymig._held_up(e.source, e.entity) END AS held_up_by
FROM pymig.entity AS e
JOIN source AS s USING (source)
LEFT JOIN LATERAL (
    SELECT sum(c.narrow_rows)::bigint AS rows, sum(c.last_bucket::numeric - c.first_bucket::numeric + 1) AS buckets
    FROM pymig.chunk AS c
    WHERE c.source = e.source AND c.entity = e.entity AND c.state = 'done' AND NOT pymig._is_backfilled(e.state)
) AS c ON true
LEFT JOIN LATERAL (
    SELECT round((sum(c.narrow_rows) / nullif(extract(epoch FROM max(c.finished_at) - min(c.finished_at - c.seconds * interval '1 second')), 0))::numeric)::bigint AS rows_per_second
    FROM (
        SELECT c.narrow_rows, c.seconds, c.finished_at FROM pymig.chunk AS c
        WHERE c.source = e.source AND c.entity = e.entity AND c.state = 'done'
        ORDER BY c.chunk DESC LIMIT 20
    ) AS c
) AS r ON true
LEFT JOIN pending AS k ON k.source = e.source AND k.entity = e.entity
LEFT JOIN lag AS l ON l.source = e.source AND l.entity = e.entity;
COMMENT ON VIEW pymig.status IS 'A row per entity: how far it is and how it does.';
COMMENT ON COLUMN pymig.status.source IS 'Source.';
COMMENT ON COLUMN pymig.status.entity IS 'Entity.';
COMMENT ON COLUMN pymig.status.state IS 'known, planned, syncing, backfilled, verified, cut_over, finalized, failed or rolled_back.';
COMMENT ON COLUMN pymig.status.rows_done IS 'Narrow rows the chunks have moved.';
COMMENT ON COLUMN pymig.status.rows_estimated IS 'Narrow rows in all, by the planner''s estimate at the start.';
COMMENT ON COLUMN pymig.status.percent IS 'Share of the time range that is moved, in percent.';
COMMENT ON COLUMN pymig.status.rows_per_second IS 'Narrow rows a second over the last 20 chunks.';
COMMENT ON COLUMN pymig.status.eta IS 'Time the rest of the backfill takes at that rate.';
COMMENT ON COLUMN pymig.status.sync_lag IS 'Age of the oldest pending key, from the start of the transaction that changed it; 0 where wide is up to date. NULL: so much is pending that it was not counted.';
COMMENT ON COLUMN pymig.status.sync_lag_p50 IS 'Median age of the keys recomputed in the last 5 minutes at the moment they were in the wide table, rounded up to the next half octave; NULL: none was.';
COMMENT ON COLUMN pymig.status.sync_lag_p99 IS 'The same, 99th percentile.';
COMMENT ON COLUMN pymig.status.pending IS 'Pending keys; with very many a lower bound, or NULL.';
COMMENT ON COLUMN pymig.status.quarantined IS 'Rows in quarantine.';
COMMENT ON COLUMN pymig.status.failed_chunks IS 'Chunks that failed for good.';
COMMENT ON COLUMN pymig.status.wide_table IS 'Qualified name of the wide table, or of the view over its parts.';
COMMENT ON COLUMN pymig.status.verified_at IS 'When it last verified without a difference.';
COMMENT ON COLUMN pymig.status.triggers IS 'armed, none, or drifted: then verify again.';
COMMENT ON COLUMN pymig.status.workers_alive IS 'Workers with a heartbeat in the last 10 seconds.';
COMMENT ON COLUMN pymig.status.last_error IS 'Last error that has not gone away yet.';
COMMENT ON COLUMN pymig.status.keys_lost IS 'Changes were not recorded (the queue was full), and their repair is not queued yet. NULL: the role may not read the sequence that counts them.';
COMMENT ON COLUMN pymig.status.sync IS 'How changes reach the wide table: pending, direct, or direct, paused for up to 10 seconds because a statement took longer than its budget, or failed.';
COMMENT ON COLUMN pymig.status.held_up_by IS 'Why its history is not moved: paused or cancelled (by whom, since when, why), or throttled (by which conditions). NULL: it is.';
