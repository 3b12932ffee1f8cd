WITH grid AS MATERIALIZED (
             SELECT x.time, count(*) AS rows, count(*) FILTER (WHERE CASE x.column_type WHEN 'float8' THEN x.as_float8 IS NOT NULL WHEN 'int8' THEN x.as_int8 IS NOT NULL WHEN 'text' THEN x.as_text IS NOT NULL END) AS cells, count(*) FILTER (WHERE x.is_null) AS nulls, min(x.channel) FILTER (WHERE x.ord IS NULL) AS unknown
             FROM (WITH channel AS MATERIALIZED (SELECT c.* FROM (SELECT v.value::text AS channel, c.ord, c.part, c.wide_column, c.column_type
         FROM pymig._array_channels('plain', 'SHIP1') AS v (value)
         LEFT JOIN pymig.channel AS c ON c.source = 'plain' AND c.entity = 'SHIP1' AND c.channel = v.value) AS c)
             SELECT c.ord, c.part, c.wide_column, c.column_type, c.channel::text AS channel, n.time, n.is_null, n.as_float8, n.as_int8, n.as_text
             FROM pymig.plain_cell AS n JOIN channel AS c ON c.channel = n.channel
             WHERE n.entity = 'SHIP1' AND n.channel = ANY (ARRAY(SELECT c.channel FROM channel AS c)) AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone) AS x
             GROUP BY x.time), written_1 AS (INSERT INTO tenant.samples_ship1 (created_time, "main/engine/rpm", "main/engine/starts", "main/engine/state") SELECT g.time, t."1", t."2", t."3" FROM grid AS g LEFT JOIN public.crosstab('SELECT x.time, x.ord, CASE x.column_type WHEN ''float8'' THEN x.as_float8::text WHEN ''int8'' THEN x.as_int8::text WHEN ''text'' THEN x.as_text::text END AS value FROM (WITH channel AS MATERIALIZED (SELECT c.* FROM (SELECT v.value::text AS channel, c.ord, c.part, c.wide_column, c.column_type
         FROM pymig._array_channels(''plain'', ''SHIP1'') AS v (value)
         LEFT JOIN pymig.channel AS c ON c.source = ''plain'' AND c.entity = ''SHIP1'' AND c.channel = v.value) AS c WHERE c.part = 1)
             SELECT c.ord, c.part, c.wide_column, c.column_type, c.channel::text AS channel, n.time, n.is_null, n.as_float8, n.as_int8, n.as_text
             FROM pymig.plain_cell AS n JOIN channel AS c ON c.channel = n.channel
             WHERE n.entity = ''SHIP1'' AND n.channel = ANY (ARRAY(SELECT c.channel FROM channel AS c)) AND n.raw_time BETWEEN ''2000-01-01 10:00:00''::timestamp without time zone AND ''2000-01-01 11:59:59.999999''::timestamp without time zone) AS x WHERE x.part = 1 ORDER BY x.time', 'SELECT c.ord FROM pymig.channel AS c WHERE c.source = ''plain'' AND c.entity = ''SHIP1'' AND c.part = 1 ORDER BY c.ord') AS t (time timestamp without time zone, "1" float8, "2" int8, "3" text) ON t.time = g.time RETURNING 1)
         SELECT coalesce(sum(g.rows), 0)::bigint, coalesce(sum(g.cells), 0)::bigint, coalesce(sum(g.nulls), 0)::bigint, (SELECT count(*) FROM written_1), min(g.unknown)
         FROM grid AS g
