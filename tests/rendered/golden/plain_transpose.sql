WITH channel AS MATERIALIZED (SELECT v.value::text AS channel, c.ord, c.part, c.wide_column, c.column_type
         FROM pymig._channel_values('plain', 'SHIP1') AS v (value)
         LEFT JOIN pymig.channel AS c ON c.source = 'plain' AND c.entity = 'SHIP1' AND c.channel = v.value), raw_float8 AS MATERIALIZED (
                 SELECT n.channel, array_agg(n.time) AS times, array_agg(n.as_float8) AS cells
                 FROM pymig.plain_cell AS n
                 WHERE n.entity = 'SHIP1' AND n.channel = ANY (ARRAY(SELECT c.channel FROM channel AS c WHERE c.column_type = 'float8')) AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone
                 GROUP BY n.channel),
             gathered_float8 AS NOT MATERIALIZED (
                 SELECT c.ord, g.times, g.cells, cardinality(g.times) AS rows, cardinality(array_remove(g.cells, NULL)) AS filled
                 FROM raw_float8 AS g JOIN channel AS c ON c.channel = g.channel), raw_int8 AS MATERIALIZED (
                 SELECT n.channel, array_agg(n.time) AS times, array_agg(n.as_int8) AS cells
                 FROM pymig.plain_cell AS n
                 WHERE n.entity = 'SHIP1' AND n.channel = ANY (ARRAY(SELECT c.channel FROM channel AS c WHERE c.column_type = 'int8')) AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone
                 GROUP BY n.channel),
             gathered_int8 AS NOT MATERIALIZED (
                 SELECT c.ord, g.times, g.cells, cardinality(g.times) AS rows, cardinality(array_remove(g.cells, NULL)) AS filled
                 FROM raw_int8 AS g JOIN channel AS c ON c.channel = g.channel), raw_text AS MATERIALIZED (
                 SELECT n.channel, array_agg(n.time) AS times, array_agg(n.as_text) AS cells
                 FROM pymig.plain_cell AS n
                 WHERE n.entity = 'SHIP1' AND n.channel = ANY (ARRAY(SELECT c.channel FROM channel AS c WHERE c.column_type = 'text')) AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone
                 GROUP BY n.channel),
             gathered_text AS NOT MATERIALIZED (
                 SELECT c.ord, g.times, g.cells, cardinality(g.times) AS rows, cardinality(array_remove(g.cells, NULL)) AS filled
                 FROM raw_text AS g JOIN channel AS c ON c.channel = g.channel),
         cadence AS MATERIALIZED (SELECT g.times, count(*) AS channels FROM (SELECT g.times FROM gathered_float8 AS g UNION ALL SELECT g.times FROM gathered_int8 AS g UNION ALL SELECT g.times FROM gathered_text AS g) AS g GROUP BY g.times),
         grid AS MATERIALIZED (
             SELECT b.times AS base, b.times || ARRAY(SELECT u.time FROM cadence AS c CROSS JOIN LATERAL unnest(c.times) AS u (time) EXCEPT SELECT u.time FROM unnest(b.times) AS u (time)) AS times
             FROM (SELECT c.times FROM (
                 SELECT c.times, c.channels FROM cadence AS c UNION ALL SELECT '{}', 0) AS c ORDER BY c.channels DESC LIMIT 1) AS b), aligned_float8 AS MATERIALIZED (
             SELECT g.ord, CASE WHEN g.times = r.base THEN g.cells ELSE (
                 SELECT array_agg(u.cell ORDER BY t.i)
                 FROM unnest(r.times) WITH ORDINALITY AS t (time, i)
                 LEFT JOIN unnest(g.times, g.cells) AS u (time, cell) ON u.time = t.time) END AS cells
             FROM gathered_float8 AS g CROSS JOIN grid AS r), aligned_int8 AS MATERIALIZED (
             SELECT g.ord, CASE WHEN g.times = r.base THEN g.cells ELSE (
                 SELECT array_agg(u.cell ORDER BY t.i)
                 FROM unnest(r.times) WITH ORDINALITY AS t (time, i)
                 LEFT JOIN unnest(g.times, g.cells) AS u (time, cell) ON u.time = t.time) END AS cells
             FROM gathered_int8 AS g CROSS JOIN grid AS r), aligned_text AS MATERIALIZED (
             SELECT g.ord, CASE WHEN g.times = r.base THEN g.cells ELSE (
                 SELECT array_agg(u.cell ORDER BY t.i)
                 FROM unnest(r.times) WITH ORDINALITY AS t (time, i)
                 LEFT JOIN unnest(g.times, g.cells) AS u (time, cell) ON u.time = t.time) END AS cells
             FROM gathered_text AS g CROSS JOIN grid AS r), written_1 AS (INSERT INTO tenant.samples_ship1 (created_time, "main/engine/rpm", "main/engine/starts", "main/engine/state") SELECT unnest(r.times), unnest(across_float8."1"), unnest(across_int8."2"), unnest(across_text."3") FROM grid AS r CROSS JOIN (SELECT min(a.cells) FILTER (WHERE a.ord = 1) AS "1" FROM aligned_float8 AS a) AS across_float8 CROSS JOIN (SELECT min(a.cells) FILTER (WHERE a.ord = 2) AS "2" FROM aligned_int8 AS a) AS across_int8 CROSS JOIN (SELECT min(a.cells) FILTER (WHERE a.ord = 3) AS "3" FROM aligned_text AS a) AS across_text RETURNING 1)
         SELECT (SELECT coalesce(sum(g.rows), 0)::bigint FROM (SELECT g.rows, g.filled FROM gathered_float8 AS g UNION ALL SELECT g.rows, g.filled FROM gathered_int8 AS g UNION ALL SELECT g.rows, g.filled FROM gathered_text AS g) AS g), (SELECT coalesce(sum(g.filled), 0)::bigint FROM (SELECT g.rows, g.filled FROM gathered_float8 AS g UNION ALL SELECT g.rows, g.filled FROM gathered_int8 AS g UNION ALL SELECT g.rows, g.filled FROM gathered_text AS g) AS g), (SELECT count(*) FROM written_1), (SELECT array_agg(c.channel::text) FROM channel AS c WHERE c.ord IS NULL AND EXISTS (
                     SELECT FROM pymig.plain_cell AS n WHERE n.entity = 'SHIP1' AND n.channel = c.channel AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone))
