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
         WHERE CASE c.column_type WHEN 'int8' THEN cardinality(g.cells_int8) IS NOT DISTINCT FROM cardinality(g.times) WHEN 'text' THEN cardinality(g.cells_text) IS NOT DISTINCT FROM cardinality(g.times) ELSE true END) AS g),
         base AS MATERIALIZED (
             SELECT coalesce((SELECT g.times FROM gathered AS g WHERE g.ord = (
                 SELECT min(g.ord) FROM gathered AS g GROUP BY cardinality(g.times), g.times[1], g.times[cardinality(g.times) / 2], g.times[cardinality(g.times)]
                 ORDER BY count(*) DESC LIMIT 1)), '{}') AS times),
         grid AS MATERIALIZED (
             SELECT b.times AS base, b.times || ARRAY(SELECT u.time
         FROM (SELECT DISTINCT g.times FROM gathered AS g WHERE ROW(g.times)::record OPERATOR(pg_catalog.*<>) ROW(b.times)::record) AS c
         CROSS JOIN LATERAL unnest(c.times) AS u (time) EXCEPT SELECT u.time FROM unnest(b.times) AS u (time)) AS times
             FROM base AS b), written_1 AS (INSERT INTO tenant.samples_ship1 (created_time, "main/engine/rpm", "main/engine/starts", "main/engine/state") SELECT unnest(r.times), unnest((across.float8[1]).cells), unnest((across.int8[1]).cells), unnest((across.text[1]).cells)
         FROM grid AS r CROSS JOIN (
             SELECT pymig._array_agg(ROW(a.cells_float8)::pymig.cells_float8 ORDER BY o.ord) FILTER (WHERE o.column_type = 'float8') AS float8, pymig._array_agg(ROW(a.cells_int8)::pymig.cells_int8 ORDER BY o.ord) FILTER (WHERE o.column_type = 'int8') AS int8, pymig._array_agg(ROW(a.cells_text)::pymig.cells_text ORDER BY o.ord) FILTER (WHERE o.column_type = 'text') AS text
             FROM unnest((SELECT '{1,2,3}'::int[]), (SELECT '{float8,int8,text}'::text[])) AS o (ord, column_type) LEFT JOIN (SELECT g.ord, CASE WHEN g.is_base OR g.cells_float8 IS NULL THEN g.cells_float8 ELSE (
                 SELECT array_agg(u.cell ORDER BY t.i)
                 FROM unnest(g.grid) WITH ORDINALITY AS t (time, i)
                 LEFT JOIN unnest(g.times, g.cells_float8) AS u (time, cell) ON u.time = t.time) END AS cells_float8, CASE WHEN g.is_base OR g.cells_int8 IS NULL THEN g.cells_int8 ELSE (
                 SELECT array_agg(u.cell ORDER BY t.i)
                 FROM unnest(g.grid) WITH ORDINALITY AS t (time, i)
                 LEFT JOIN unnest(g.times, g.cells_int8) AS u (time, cell) ON u.time = t.time) END AS cells_int8, CASE WHEN g.is_base OR g.cells_text IS NULL THEN g.cells_text ELSE (
                 SELECT array_agg(u.cell ORDER BY t.i)
                 FROM unnest(g.grid) WITH ORDINALITY AS t (time, i)
                 LEFT JOIN unnest(g.times, g.cells_text) AS u (time, cell) ON u.time = t.time) END AS cells_text
         FROM (SELECT g.*, r.times AS grid, ROW(g.times)::record OPERATOR(pg_catalog.*=) ROW(r.base)::record AS is_base
               FROM gathered AS g CROSS JOIN grid AS r
               WHERE g.ord BETWEEN 1 AND 3
               OFFSET 0) AS g
         OFFSET 0) AS a ON a.ord = o.ord) AS across RETURNING 1)
         SELECT coalesce(sum(g.rows), 0)::bigint, coalesce(sum(g.filled), 0)::bigint, coalesce(sum(g.nulls), 0)::bigint, (SELECT count(*) FROM written_1), (SELECT min(u.channel::text) FROM unknown AS u)
         FROM gathered AS g
