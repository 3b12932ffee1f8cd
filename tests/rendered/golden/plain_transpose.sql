WITH channel AS MATERIALIZED (SELECT v.value::text AS channel, c.ord, c.part, c.wide_column, c.column_type
         FROM pymig._array_channels('plain', 'SHIP1') AS v (value)
         LEFT JOIN pymig.channel AS c ON c.source = 'plain' AND c.entity = 'SHIP1' AND c.channel = v.value), raw_float8 AS MATERIALIZED (
                 SELECT n.channel, array_agg(n.time) AS times, array_agg(n.as_float8) AS cells
                 FROM pymig.plain_cell AS n
                 WHERE n.entity = 'SHIP1' AND n.channel = ANY (ARRAY(SELECT c.channel FROM channel AS c WHERE c.column_type = 'float8')) AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone
                 GROUP BY n.channel),
             gathered_float8 AS NOT MATERIALIZED (
                 SELECT c.ord, g.times, g.cells, cardinality(g.times) AS rows, CASE WHEN array_position(g.cells, NULL) IS NULL THEN cardinality(g.cells) ELSE cardinality(array_remove(g.cells, NULL)) END AS filled
                 FROM raw_float8 AS g JOIN channel AS c ON c.channel = g.channel), raw_int8 AS MATERIALIZED (
                 SELECT n.channel, array_agg(n.time) AS times, array_agg(n.as_int8) AS cells
                 FROM pymig.plain_cell AS n
                 WHERE n.entity = 'SHIP1' AND n.channel = ANY (ARRAY(SELECT c.channel FROM channel AS c WHERE c.column_type = 'int8')) AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone
                 GROUP BY n.channel),
             gathered_int8 AS NOT MATERIALIZED (
                 SELECT c.ord, g.times, g.cells, cardinality(g.times) AS rows, CASE WHEN array_position(g.cells, NULL) IS NULL THEN cardinality(g.cells) ELSE cardinality(array_remove(g.cells, NULL)) END AS filled
                 FROM raw_int8 AS g JOIN channel AS c ON c.channel = g.channel), raw_text AS MATERIALIZED (
                 SELECT n.channel, array_agg(n.time) AS times, array_agg(n.as_text) AS cells
                 FROM pymig.plain_cell AS n
                 WHERE n.entity = 'SHIP1' AND n.channel = ANY (ARRAY(SELECT c.channel FROM channel AS c WHERE c.column_type = 'text')) AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone
                 GROUP BY n.channel),
             gathered_text AS NOT MATERIALIZED (
                 SELECT c.ord, g.times, g.cells, cardinality(g.times) AS rows, CASE WHEN array_position(g.cells, NULL) IS NULL THEN cardinality(g.cells) ELSE cardinality(array_remove(g.cells, NULL)) END AS filled
                 FROM raw_text AS g JOIN channel AS c ON c.channel = g.channel),
         base AS MATERIALIZED (
             SELECT coalesce((SELECT g.times FROM (SELECT g.ord, g.times FROM gathered_float8 AS g UNION ALL SELECT g.ord, g.times FROM gathered_int8 AS g UNION ALL SELECT g.ord, g.times FROM gathered_text AS g) AS g WHERE g.ord = (
                 SELECT min(g.ord) FROM (SELECT g.ord, g.times FROM gathered_float8 AS g UNION ALL SELECT g.ord, g.times FROM gathered_int8 AS g UNION ALL SELECT g.ord, g.times FROM gathered_text AS g) AS g GROUP BY cardinality(g.times), g.times[1], g.times[cardinality(g.times) / 2], g.times[cardinality(g.times)]
                 ORDER BY count(*) DESC LIMIT 1)), '{}') AS times),
         grid AS MATERIALIZED (
             SELECT b.times AS base, b.times || ARRAY(SELECT u.time
         FROM (SELECT DISTINCT g.times FROM (SELECT g.ord, g.times FROM gathered_float8 AS g UNION ALL SELECT g.ord, g.times FROM gathered_int8 AS g UNION ALL SELECT g.ord, g.times FROM gathered_text AS g) AS g WHERE ROW(g.times)::record OPERATOR(pg_catalog.*<>) ROW(b.times)::record) AS c
         CROSS JOIN LATERAL unnest(c.times) AS u (time) EXCEPT SELECT u.time FROM unnest(b.times) AS u (time)) AS times
             FROM base AS b), written_1 AS (INSERT INTO tenant.samples_ship1 (created_time, "main/engine/rpm", "main/engine/starts", "main/engine/state") SELECT unnest(r.times), unnest((across_float8.channels[1]).cells), unnest((across_int8.channels[1]).cells), unnest((across_text.channels[1]).cells) FROM grid AS r CROSS JOIN (
                 SELECT array_agg(ROW(a.cells)::pymig.cells_float8 ORDER BY o.ord) AS channels
                 FROM unnest((SELECT '{1}'::int[])) AS o (ord) LEFT JOIN (SELECT g.ord, CASE WHEN ROW(g.times)::record OPERATOR(pg_catalog.*=) ROW(r.base)::record THEN g.cells ELSE (
             SELECT array_agg(u.cell ORDER BY t.i)
             FROM unnest(r.times) WITH ORDINALITY AS t (time, i)
             LEFT JOIN unnest(g.times, g.cells) AS u (time, cell) ON u.time = t.time) END AS cells
         FROM gathered_float8 AS g CROSS JOIN grid AS r
         WHERE g.ord BETWEEN 1 AND 1
         OFFSET 0) AS a ON a.ord = o.ord) AS across_float8 CROSS JOIN (
                 SELECT array_agg(ROW(a.cells)::pymig.cells_int8 ORDER BY o.ord) AS channels
                 FROM unnest((SELECT '{2}'::int[])) AS o (ord) LEFT JOIN (SELECT g.ord, CASE WHEN ROW(g.times)::record OPERATOR(pg_catalog.*=) ROW(r.base)::record THEN g.cells ELSE (
             SELECT array_agg(u.cell ORDER BY t.i)
             FROM unnest(r.times) WITH ORDINALITY AS t (time, i)
             LEFT JOIN unnest(g.times, g.cells) AS u (time, cell) ON u.time = t.time) END AS cells
         FROM gathered_int8 AS g CROSS JOIN grid AS r
         WHERE g.ord BETWEEN 2 AND 2
         OFFSET 0) AS a ON a.ord = o.ord) AS across_int8 CROSS JOIN (
                 SELECT array_agg(ROW(a.cells)::pymig.cells_text ORDER BY o.ord) AS channels
                 FROM unnest((SELECT '{3}'::int[])) AS o (ord) LEFT JOIN (SELECT g.ord, CASE WHEN ROW(g.times)::record OPERATOR(pg_catalog.*=) ROW(r.base)::record THEN g.cells ELSE (
             SELECT array_agg(u.cell ORDER BY t.i)
             FROM unnest(r.times) WITH ORDINALITY AS t (time, i)
             LEFT JOIN unnest(g.times, g.cells) AS u (time, cell) ON u.time = t.time) END AS cells
         FROM gathered_text AS g CROSS JOIN grid AS r
         WHERE g.ord BETWEEN 3 AND 3
         OFFSET 0) AS a ON a.ord = o.ord) AS across_text RETURNING 1)
         SELECT (SELECT coalesce(sum(g.rows), 0)::bigint FROM (SELECT g.rows, g.filled FROM gathered_float8 AS g UNION ALL SELECT g.rows, g.filled FROM gathered_int8 AS g UNION ALL SELECT g.rows, g.filled FROM gathered_text AS g) AS g), (SELECT coalesce(sum(g.filled), 0)::bigint FROM (SELECT g.rows, g.filled FROM gathered_float8 AS g UNION ALL SELECT g.rows, g.filled FROM gathered_int8 AS g UNION ALL SELECT g.rows, g.filled FROM gathered_text AS g) AS g), (SELECT count(*) FROM written_1), (SELECT min(c.channel::text) FROM channel AS c WHERE c.ord IS NULL AND EXISTS (
                     SELECT FROM pymig.plain_cell AS n WHERE n.entity = 'SHIP1' AND n.channel = c.channel AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone))
