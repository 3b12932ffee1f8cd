WITH cell AS MATERIALIZED (SELECT c.ord, c.part, c.wide_column, c.column_type, n.channel::text AS channel, n.time, n.is_null, n.as_text
         FROM (SELECT DISTINCT ON (n.channel, n.time) n.channel, n.time, n.is_null, n.as_text FROM pymig.awkward_cell AS n WHERE n.entity = E'O''Brien\\' AND n.raw_time BETWEEN '36000000'::bigint AND '43199999'::bigint ORDER BY n.channel, n.time, n.raw_time DESC, n.tie_1 DESC NULLS LAST, n.tie_2 DESC NULLS LAST) AS n
         LEFT JOIN pymig.channel AS c ON c.source = 'awkward' AND c.entity = E'O''Brien\\' AND c.channel = n.channel::text), unknown AS (SELECT x.channel FROM cell AS x WHERE x.ord IS NULL), gathered AS MATERIALIZED (
             SELECT g.*, cardinality(g.times) AS rows, CASE WHEN g.cells_text IS NOT NULL THEN CASE WHEN array_position(g.cells_text, NULL) IS NULL THEN cardinality(g.cells_text) ELSE cardinality(array_remove(g.cells_text, NULL)) END END AS filled FROM (SELECT x.ord, array_agg(x.time ORDER BY x.time) AS times, count(*) FILTER (WHERE x.is_null) AS nulls, array_agg(x.as_text ORDER BY x.time) FILTER (WHERE x.column_type = 'text') AS cells_text FROM cell AS x WHERE x.ord IS NOT NULL GROUP BY x.ord) AS g), wide_time AS MATERIALIZED (SELECT 1 AS part, array_agg(w."time'" ORDER BY w."time'") AS times FROM "it's 1"""."%I; --_o'brien\" AS w WHERE w."time'" BETWEEN '36000000'::bigint AND '43199999'::bigint), wide AS NOT MATERIALIZED (SELECT 1 AS part, v.* FROM (SELECT array_agg(w._d41d8cd9) AS "1", array_agg(w."""; DROP TABLE x; --") AS "2", array_agg(w."ééééééééééééééééééééééééééé_63925886") AS "3" FROM (SELECT w.* FROM "it's 1"""."%I; --_o'brien\" AS w WHERE w."time'" BETWEEN '36000000'::bigint AND '43199999'::bigint ORDER BY w."time'") AS w) AS w CROSS JOIN LATERAL (SELECT v.ord, v.cells FROM (VALUES (1, w."1"), (2, w."2"), (3, w."3")) AS v (ord, cells)) AS v (ord, cells_text)), span AS MATERIALIZED (SELECT w.part, coalesce(pymig.bucket_of(pymig.tick_of(u.time), 3600000), (-9223372036854775807)) AS bucket, min(u.i)::int AS first, max(u.i)::int AS last, hash_array_extended(array_agg(u.time ORDER BY u.i), 0) AS hash
                FROM wide_time AS w CROSS JOIN LATERAL unnest(w.times) WITH ORDINALITY AS u (time, i) GROUP BY 1, 2), compared AS MATERIALIZED (
             SELECT c.ord, c.part, c.differs, CASE WHEN c.differs THEN c.narrow_times END AS narrow_times, CASE WHEN c.differs THEN c.wide_times END AS wide_times, CASE WHEN c.differs THEN c.narrow_text END AS narrow_text, CASE WHEN c.differs THEN c.wide_text END AS wide_text, d.buckets, d.filled, d.hashes
             FROM (SELECT ord, w.part, g.times AS narrow_times, t.times AS wide_times, g.cells_text AS narrow_text, w.cells_text AS wide_text,
                       ROW(g.times, g.cells_text)::record OPERATOR(pg_catalog.*<>) ROW(t.times, w.cells_text)::record AS differs
                   FROM wide AS w FULL JOIN gathered AS g USING (ord) LEFT JOIN wide_time AS t ON t.part = w.part
                   OFFSET 0) AS c
             CROSS JOIN LATERAL (
                 SELECT array_agg(s.bucket) AS buckets, array_agg(format('%s:%s:%s', c.ord, s.hash, coalesce(hash_array_extended(s.text, 0)))) AS hashes,
                     array_agg(coalesce(CASE WHEN array_position(s.text, NULL) IS NULL THEN cardinality(s.text) ELSE cardinality(array_remove(s.text, NULL)) END)) AS filled
                 FROM (SELECT s.bucket, s.hash, c.wide_text[s.first:s.last] AS text FROM span AS s WHERE s.part = c.part OFFSET 0) AS s) AS d),
        digest AS MATERIALIZED (
            SELECT d.bucket, sum(d.filled)::bigint AS cells, md5(string_agg(d.hash, ',' ORDER BY d.ord)) AS digest
            FROM (SELECT c.ord, unnest(c.buckets) AS bucket, unnest(c.filled) AS filled, unnest(c.hashes) AS hash FROM compared AS c) AS d
            WHERE d.filled > 0 GROUP BY d.bucket
        ),
        bucket AS MATERIALIZED (SELECT DISTINCT s.bucket FROM span AS s),
        narrow_time AS MATERIALIZED (SELECT DISTINCT x.time FROM cell AS x),
        difference AS MATERIALIZED (
            SELECT d.* FROM (SELECT (SELECT c.channel FROM pymig.channel AS c WHERE c.source = 'awkward' AND c.entity = E'O''Brien\\' AND c.ord = u.ord), d.time, d.narrow_value, d.wide_value
             FROM compared AS u CROSS JOIN LATERAL (
                 SELECT coalesce(n.time, w.time) AS time, n.cell::text AS narrow_value, w.cell::text AS wide_value
                 -- NULL is the same as no row here, and most cells of a sparse channel are NULL.
                 FROM (SELECT n.* FROM unnest(u.narrow_times, u.narrow_text) AS n (time, cell) WHERE n.cell IS NOT NULL) AS n
                 FULL JOIN (SELECT w.* FROM unnest(u.wide_times, u.wide_text) AS w (time, cell) WHERE w.cell IS NOT NULL) AS w ON w.time = n.time
                 WHERE ROW(n.cell)::record OPERATOR(pg_catalog.*<>) ROW(w.cell)::record) AS d
             WHERE num_nulls(u.narrow_text, u.wide_text) < 2 UNION ALL SELECT NULL, time, CASE WHEN n.part IS NULL THEN 'no row' ELSE 'row' END, CASE WHEN w.part IS NULL THEN 'no row' ELSE 'row' END
        FROM (SELECT w.part, n.time FROM wide_time AS w CROSS JOIN narrow_time AS n) AS n
        FULL JOIN (SELECT w.part, u.time FROM wide_time AS w CROSS JOIN LATERAL unnest(w.times) AS u (time)) AS w USING (part, time)
        WHERE n.part IS NULL OR w.part IS NULL UNION ALL SELECT x.channel, x.time, NULL, 'no column' FROM cell AS x WHERE x.ord IS NULL AND x.channel IS NOT NULL) AS d (channel, time, narrow_value, wide_value)
            WHERE NOT EXISTS (SELECT FROM pymig.awkward_pending AS p WHERE p.kind <> 'key' OR p.entity::text = E'O''Brien\\' AND ((p.time) / 1000 - ((p.time) % 1000 < 0)::int) * 1000 = d.time)
              AND NOT EXISTS (SELECT FROM pymig.awkward_todo AS p WHERE p.entity = E'O''Brien\\' AND p.bucket = coalesce(pymig.bucket_of(pymig.tick_of(d.time), 3600000), (-9223372036854775807))
                  AND (p.times IS NULL OR EXISTS (SELECT FROM unnest(p.times) AS k (time) WHERE ((k.time) / 1000 - ((k.time) % 1000 < 0)::int) * 1000 = d.time)))
        ),
        pending AS MATERIALIZED (
            SELECT EXISTS (SELECT FROM pymig.awkward_pending AS p WHERE p.kind <> 'key' OR p.entity::text = E'O''Brien\\' AND coalesce(pymig.bucket_of(pymig.tick_of(p.time), 3600000), (-9223372036854775807)) BETWEEN 10 AND 11)
                OR EXISTS (SELECT FROM pymig.awkward_todo AS p WHERE p.entity = E'O''Brien\\' AND p.bucket BETWEEN 10 AND 11) AS is_pending
        ),
        total AS MATERIALIZED (SELECT (SELECT count(*) FROM cell AS x) AS rows, coalesce(sum(g.filled), 0) AS filled, coalesce(sum(g.nulls), 0) AS nulls FROM gathered AS g)
        SELECT t.filled::bigint AS narrow_cells, (SELECT count(*) FROM difference) AS differences,
            (SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT d.* FROM difference AS d LIMIT 20) AS s) AS sample,
            (SELECT (WITH found AS MATERIALIZED (SELECT f.channel, f.time::text, f.reason, f.narrow_row FROM (SELECT f.* FROM (
             SELECT x.*, coalesce(x.fault, CASE WHEN CASE x.column_type
                 WHEN 'text' THEN false WHEN 'float8' THEN x.as_float8 IS NULL WHEN 'int8' THEN x.as_int8 IS NULL WHEN 'bool' THEN x.as_bool IS NULL WHEN 'numeric' THEN x.as_numeric IS NULL WHEN 'jsonb' THEN x.as_jsonb IS NULL END AND x.as_text IS NOT NULL THEN 'type_mismatch' END) AS reason
             FROM (SELECT c.ord, c.part, c.wide_column, c.column_type, n.channel::text AS channel, n.time, n.fault, n.kind, n.narrow_row, n.as_text, n.as_float8, n.as_int8, n.as_bool, n.as_numeric, n.as_jsonb
         FROM (SELECT DISTINCT ON (n.channel, n.time) n.channel, n.time, n.fault, n.kind, n.narrow_row, n.as_text, n.as_float8, n.as_int8, n.as_bool, n.as_numeric, n.as_jsonb FROM pymig.awkward_cell AS n WHERE n.entity = E'O''Brien\\' AND n.raw_time BETWEEN '36000000'::bigint AND '43199999'::bigint ORDER BY n.channel, n.time, n.raw_time DESC, n.tie_1 DESC NULLS LAST, n.tie_2 DESC NULLS LAST) AS n
         LEFT JOIN pymig.channel AS c ON c.source = 'awkward' AND c.entity = E'O''Brien\\' AND c.channel = n.channel::text) AS x) AS f
         WHERE f.reason IS NOT NULL) AS f),
               kept AS MATERIALIZED (
                   SELECT q.channel, q.time, q.reason, q.narrow_row FROM pymig.quarantine AS q
                   WHERE q.source = 'awkward' AND q.entity = E'O''Brien\\' AND q.bucket BETWEEN 10 AND 11 AND NOT q.is_kept)
          SELECT count(*) FROM (
              (SELECT f.* FROM found AS f EXCEPT ALL SELECT k.* FROM kept AS k)
              UNION ALL
              (SELECT k.* FROM kept AS k EXCEPT ALL SELECT f.* FROM found AS f)) AS d)
             WHERE (t.rows <> t.filled + t.nulls OR EXISTS (
                     SELECT FROM pymig.quarantine AS q WHERE q.source = 'awkward' AND q.entity = E'O''Brien\\' AND q.bucket BETWEEN 10 AND 11))
               AND NOT p.is_pending) AS quarantine_off,
            p.is_pending, count(*) OVER () AS buckets, b.bucket, coalesce(d.cells, 0) AS cells, coalesce(d.digest, md5('')) AS digest
        FROM total AS t CROSS JOIN pending AS p LEFT JOIN bucket AS b ON true LEFT JOIN digest AS d ON d.bucket = b.bucket
