WITH channel AS MATERIALIZED (SELECT k.channel, k.ord, k.column_type FROM pymig._known_channels('plain', 'SHIP1') AS k), raw AS MATERIALIZED (
             SELECT n.channel, array_agg(n.time) AS times, count(*) FILTER (WHERE n.is_null) AS nulls, array_agg(n.as_float8) AS cells_float8, array_agg(n.as_int8) FILTER (WHERE n.only_int8) AS cells_int8, array_agg(n.as_text) FILTER (WHERE n.only_text) AS cells_text
             FROM pymig.plain_cell AS n
             WHERE n.entity = 'SHIP1' AND n.channel BETWEEN (SELECT pymig._channel_bound('plain', 'SHIP1', 'true', false)::text) AND (SELECT pymig._channel_bound('plain', 'SHIP1', 'true', true)::text) AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone
             GROUP BY n.channel), unknown AS (SELECT g.channel FROM raw AS g WHERE NOT EXISTS (SELECT FROM channel AS c WHERE c.channel = g.channel::text)), again AS MATERIALIZED (
             SELECT n.channel, array_agg(n.time) AS times, count(*) FILTER (WHERE n.is_null) AS nulls, array_agg(n.as_float8) FILTER (WHERE c.column_type = 'float8') AS cells_float8, array_agg(n.as_int8) FILTER (WHERE c.column_type = 'int8') AS cells_int8, array_agg(n.as_text) FILTER (WHERE c.column_type = 'text') AS cells_text
             FROM pymig.plain_cell AS n JOIN channel AS c ON c.channel = n.channel::text
             WHERE n.entity = 'SHIP1' AND n.channel = ANY (ARRAY(SELECT g.channel FROM raw AS g JOIN channel AS c ON c.channel = g.channel::text WHERE NOT CASE c.column_type WHEN 'int8' THEN cardinality(g.cells_int8) IS NOT DISTINCT FROM cardinality(g.times) WHEN 'text' THEN cardinality(g.cells_text) IS NOT DISTINCT FROM cardinality(g.times) ELSE true END)) AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone
             GROUP BY n.channel), gathered AS NOT MATERIALIZED (
             SELECT g.*, cardinality(g.times) AS rows, CASE WHEN g.cells_float8 IS NOT NULL THEN CASE WHEN array_position(g.cells_float8, NULL) IS NULL THEN cardinality(g.cells_float8) ELSE cardinality(array_remove(g.cells_float8, NULL)) END WHEN g.cells_int8 IS NOT NULL THEN CASE WHEN array_position(g.cells_int8, NULL) IS NULL THEN cardinality(g.cells_int8) ELSE cardinality(array_remove(g.cells_int8, NULL)) END WHEN g.cells_text IS NOT NULL THEN CASE WHEN array_position(g.cells_text, NULL) IS NULL THEN cardinality(g.cells_text) ELSE cardinality(array_remove(g.cells_text, NULL)) END END AS filled FROM (SELECT c.ord, g.times, g.nulls, CASE WHEN c.column_type = 'float8' THEN g.cells_float8 END AS cells_float8, CASE WHEN c.column_type = 'int8' THEN g.cells_int8 END AS cells_int8, CASE WHEN c.column_type = 'text' THEN g.cells_text END AS cells_text
         FROM (SELECT g.* FROM raw AS g UNION ALL SELECT g.* FROM again AS g) AS g JOIN channel AS c ON c.channel = g.channel::text
         WHERE CASE c.column_type WHEN 'int8' THEN cardinality(g.cells_int8) IS NOT DISTINCT FROM cardinality(g.times) WHEN 'text' THEN cardinality(g.cells_text) IS NOT DISTINCT FROM cardinality(g.times) ELSE true END) AS g), wide_time AS MATERIALIZED (SELECT 1 AS part, array_agg(w.created_time ORDER BY w.created_time) AS times FROM tenant.samples_ship1 AS w WHERE w.created_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone), wide AS NOT MATERIALIZED (SELECT 1 AS part, v.* FROM (SELECT array_agg(w."main/engine/rpm") AS "1", array_agg(w."main/engine/starts") AS "2", array_agg(w."main/engine/state") AS "3" FROM (SELECT w.* FROM tenant.samples_ship1 AS w WHERE w.created_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone ORDER BY w.created_time) AS w) AS w CROSS JOIN LATERAL (SELECT v.ord, v.cells, NULL::int8[], NULL::text[] FROM (VALUES (1, w."1")) AS v (ord, cells) UNION ALL SELECT v.ord, NULL::float8[], v.cells, NULL::text[] FROM (VALUES (2, w."2")) AS v (ord, cells) UNION ALL SELECT v.ord, NULL::float8[], NULL::int8[], v.cells FROM (VALUES (3, w."3")) AS v (ord, cells)) AS v (ord, cells_float8, cells_int8, cells_text)), span AS MATERIALIZED (SELECT w.part, coalesce(pymig.bucket_of(pymig.tick_of(u.time), 3600000000), (-9223372036854775807)) AS bucket, min(u.i)::int AS first, max(u.i)::int AS last, hash_array_extended(array_agg(u.time ORDER BY u.i), 0) AS hash
                FROM wide_time AS w CROSS JOIN LATERAL unnest(w.times) WITH ORDINALITY AS u (time, i) GROUP BY 1, 2), compared AS MATERIALIZED (
             SELECT c.ord, c.part, c.differs, CASE WHEN c.differs THEN c.narrow_times END AS narrow_times, CASE WHEN c.differs THEN c.wide_times END AS wide_times, CASE WHEN c.differs THEN c.narrow_float8 END AS narrow_float8, CASE WHEN c.differs THEN c.wide_float8 END AS wide_float8, CASE WHEN c.differs THEN c.narrow_int8 END AS narrow_int8, CASE WHEN c.differs THEN c.wide_int8 END AS wide_int8, CASE WHEN c.differs THEN c.narrow_text END AS narrow_text, CASE WHEN c.differs THEN c.wide_text END AS wide_text, d.buckets, d.filled, d.hashes
             FROM (SELECT ord, w.part, g.times AS narrow_times, t.times AS wide_times, g.cells_float8 AS narrow_float8, w.cells_float8 AS wide_float8, g.cells_int8 AS narrow_int8, w.cells_int8 AS wide_int8, g.cells_text AS narrow_text, w.cells_text AS wide_text,
                       ROW(g.times, g.cells_float8, g.cells_int8, g.cells_text)::record OPERATOR(pg_catalog.*<>) ROW(t.times, w.cells_float8, w.cells_int8, w.cells_text)::record AS differs
                   FROM wide AS w FULL JOIN gathered AS g USING (ord) LEFT JOIN wide_time AS t ON t.part = w.part
                   OFFSET 0) AS c
             CROSS JOIN LATERAL (
                 SELECT array_agg(s.bucket) AS buckets, array_agg(format('%s:%s:%s', c.ord, s.hash, coalesce(hash_array_extended(s.float8, 0), hash_array_extended(s.int8, 0), hash_array_extended(s.text, 0)))) AS hashes,
                     array_agg(coalesce(CASE WHEN array_position(s.float8, NULL) IS NULL THEN cardinality(s.float8) ELSE cardinality(array_remove(s.float8, NULL)) END, CASE WHEN array_position(s.int8, NULL) IS NULL THEN cardinality(s.int8) ELSE cardinality(array_remove(s.int8, NULL)) END, CASE WHEN array_position(s.text, NULL) IS NULL THEN cardinality(s.text) ELSE cardinality(array_remove(s.text, NULL)) END)) AS filled
                 FROM (SELECT s.bucket, s.hash, c.wide_float8[s.first:s.last] AS float8, c.wide_int8[s.first:s.last] AS int8, c.wide_text[s.first:s.last] AS text FROM span AS s WHERE s.part = c.part OFFSET 0) AS s) AS d),
        digest AS MATERIALIZED (
            SELECT d.bucket, sum(d.filled)::bigint AS cells, md5(string_agg(d.hash, ',' ORDER BY d.ord)) AS digest
            FROM (SELECT c.ord, unnest(c.buckets) AS bucket, unnest(c.filled) AS filled, unnest(c.hashes) AS hash FROM compared AS c) AS d
            WHERE d.filled > 0 GROUP BY d.bucket
        ),
        bucket AS MATERIALIZED (SELECT DISTINCT s.bucket FROM span AS s),
        narrow_time AS MATERIALIZED (SELECT DISTINCT u.time FROM (
                SELECT DISTINCT c.narrow_times FROM compared AS c WHERE c.differs
                UNION ALL SELECT w.times FROM wide_time AS w WHERE EXISTS (SELECT FROM compared AS c WHERE c.part = w.part AND NOT c.differs)) AS g (times)
                CROSS JOIN LATERAL unnest(g.times) AS u (time)),
        difference AS MATERIALIZED (
            SELECT d.* FROM (SELECT (SELECT c.channel FROM pymig.channel AS c WHERE c.source = 'plain' AND c.entity = 'SHIP1' AND c.ord = u.ord), d.time, d.narrow_value, d.wide_value
             FROM compared AS u CROSS JOIN LATERAL (
                 SELECT coalesce(n.time, w.time) AS time, n.cell::text AS narrow_value, w.cell::text AS wide_value
                 -- NULL is the same as no row here, and most cells of a sparse channel are NULL.
                 FROM (SELECT n.* FROM unnest(u.narrow_times, u.narrow_float8) AS n (time, cell) WHERE n.cell IS NOT NULL) AS n
                 FULL JOIN (SELECT w.* FROM unnest(u.wide_times, u.wide_float8) AS w (time, cell) WHERE w.cell IS NOT NULL) AS w ON w.time = n.time
                 WHERE ROW(n.cell)::record OPERATOR(pg_catalog.*<>) ROW(w.cell)::record) AS d
             WHERE num_nulls(u.narrow_float8, u.wide_float8) < 2 UNION ALL SELECT (SELECT c.channel FROM pymig.channel AS c WHERE c.source = 'plain' AND c.entity = 'SHIP1' AND c.ord = u.ord), d.time, d.narrow_value, d.wide_value
             FROM compared AS u CROSS JOIN LATERAL (
                 SELECT coalesce(n.time, w.time) AS time, n.cell::text AS narrow_value, w.cell::text AS wide_value
                 -- NULL is the same as no row here, and most cells of a sparse channel are NULL.
                 FROM (SELECT n.* FROM unnest(u.narrow_times, u.narrow_int8) AS n (time, cell) WHERE n.cell IS NOT NULL) AS n
                 FULL JOIN (SELECT w.* FROM unnest(u.wide_times, u.wide_int8) AS w (time, cell) WHERE w.cell IS NOT NULL) AS w ON w.time = n.time
                 WHERE ROW(n.cell)::record OPERATOR(pg_catalog.*<>) ROW(w.cell)::record) AS d
             WHERE num_nulls(u.narrow_int8, u.wide_int8) < 2 UNION ALL SELECT (SELECT c.channel FROM pymig.channel AS c WHERE c.source = 'plain' AND c.entity = 'SHIP1' AND c.ord = u.ord), d.time, d.narrow_value, d.wide_value
             FROM compared AS u CROSS JOIN LATERAL (
                 SELECT coalesce(n.time, w.time) AS time, n.cell::text AS narrow_value, w.cell::text AS wide_value
                 -- NULL is the same as no row here, and most cells of a sparse channel are NULL.
                 FROM (SELECT n.* FROM unnest(u.narrow_times, u.narrow_text) AS n (time, cell) WHERE n.cell IS NOT NULL) AS n
                 FULL JOIN (SELECT w.* FROM unnest(u.wide_times, u.wide_text) AS w (time, cell) WHERE w.cell IS NOT NULL) AS w ON w.time = n.time
                 WHERE ROW(n.cell)::record OPERATOR(pg_catalog.*<>) ROW(w.cell)::record) AS d
             WHERE num_nulls(u.narrow_text, u.wide_text) < 2 UNION ALL SELECT NULL, time, CASE WHEN n.part IS NULL THEN 'no row' ELSE 'row' END, CASE WHEN w.part IS NULL THEN 'no row' ELSE 'row' END
        FROM (SELECT w.part, n.time FROM wide_time AS w CROSS JOIN narrow_time AS n) AS n
        FULL JOIN (SELECT w.part, u.time FROM wide_time AS w CROSS JOIN LATERAL unnest(w.times) AS u (time)) AS w USING (part, time)
        WHERE n.part IS NULL OR w.part IS NULL UNION ALL SELECT u.channel::text, n.time, n.as_text, 'no column'
             FROM unknown AS u JOIN pymig.plain_cell AS n ON n.entity = 'SHIP1' AND n.channel = u.channel AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone) AS d (channel, time, narrow_value, wide_value)
            WHERE NOT EXISTS (SELECT FROM pymig.plain_pending AS p WHERE p.kind <> 'key' OR p.entity::text = 'SHIP1' AND p.time = d.time)
              AND NOT EXISTS (SELECT FROM pymig.plain_todo AS p WHERE p.entity = 'SHIP1' AND p.bucket = coalesce(pymig.bucket_of(pymig.tick_of(d.time), 3600000000), (-9223372036854775807))
                  AND (p.times IS NULL OR EXISTS (SELECT FROM unnest(p.times) AS k (time) WHERE k.time = d.time)))
        ),
        pending AS MATERIALIZED (
            SELECT EXISTS (SELECT FROM pymig.plain_pending AS p WHERE p.kind <> 'key' OR p.entity::text = 'SHIP1' AND coalesce(pymig.bucket_of(pymig.tick_of(p.time), 3600000000), (-9223372036854775807)) BETWEEN 10 AND 11)
                OR EXISTS (SELECT FROM pymig.plain_todo AS p WHERE p.entity = 'SHIP1' AND p.bucket BETWEEN 10 AND 11) AS is_pending
        ),
        total AS MATERIALIZED (SELECT coalesce(sum(g.rows), 0) AS rows, coalesce(sum(g.filled), 0) AS filled, coalesce(sum(g.nulls), 0) AS nulls FROM gathered AS g)
        SELECT t.filled::bigint AS narrow_cells, (SELECT count(*) FROM difference) AS differences,
            (SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT d.* FROM difference AS d LIMIT 20) AS s) AS sample,
            (SELECT (WITH found AS MATERIALIZED (SELECT f.channel, f.time::text, f.reason, f.narrow_row FROM (SELECT f.* FROM (
             SELECT x.*, coalesce(x.fault, CASE WHEN CASE x.column_type
                 WHEN 'text' THEN false WHEN 'float8' THEN x.as_float8 IS NULL WHEN 'int8' THEN x.as_int8 IS NULL WHEN 'bool' THEN x.as_bool IS NULL WHEN 'numeric' THEN x.as_numeric IS NULL WHEN 'jsonb' THEN x.as_jsonb IS NULL END AND x.as_text IS NOT NULL THEN 'type_mismatch' END) AS reason
             FROM (WITH channel AS MATERIALIZED (SELECT c.* FROM (SELECT v.value::text AS channel, c.ord, c.part, c.wide_column, c.column_type
         FROM pymig._array_channels('plain', 'SHIP1') AS v (value)
         LEFT JOIN pymig.channel AS c ON c.source = 'plain' AND c.entity = 'SHIP1' AND c.channel = v.value) AS c)
             SELECT c.ord, c.part, c.wide_column, c.column_type, c.channel::text AS channel, n.time, n.fault, n.kind, n.narrow_row, n.as_text, n.as_float8, n.as_int8, n.as_bool, n.as_numeric, n.as_jsonb
             FROM pymig.plain_cell AS n JOIN channel AS c ON c.channel = n.channel
             WHERE n.entity = 'SHIP1' AND n.channel = ANY (ARRAY(SELECT c.channel FROM channel AS c)) AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone) AS x) AS f
         WHERE f.reason IS NOT NULL) AS f),
               kept AS MATERIALIZED (
                   SELECT q.channel, q.time, q.reason, q.narrow_row FROM pymig.quarantine AS q
                   WHERE q.source = 'plain' AND q.entity = 'SHIP1' AND q.bucket BETWEEN 10 AND 11 AND NOT q.is_kept)
          SELECT count(*) FROM (
              (SELECT f.* FROM found AS f EXCEPT ALL SELECT k.* FROM kept AS k)
              UNION ALL
              (SELECT k.* FROM kept AS k EXCEPT ALL SELECT f.* FROM found AS f)) AS d)
             WHERE (t.rows <> t.filled + t.nulls OR EXISTS (
                     SELECT FROM pymig.quarantine AS q WHERE q.source = 'plain' AND q.entity = 'SHIP1' AND q.bucket BETWEEN 10 AND 11))
               AND NOT p.is_pending) AS quarantine_off,
            p.is_pending, count(*) OVER () AS buckets, b.bucket, coalesce(d.cells, 0) AS cells, coalesce(d.digest, md5('')) AS digest
        FROM total AS t CROSS JOIN pending AS p LEFT JOIN bucket AS b ON true LEFT JOIN digest AS d ON d.bucket = b.bucket
