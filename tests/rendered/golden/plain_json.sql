WITH cell AS MATERIALIZED (SELECT x.ord, x.part, x.channel, x.time, x.is_null, CASE x.column_type WHEN 'float8' THEN x.as_float8::text WHEN 'int8' THEN x.as_int8::text WHEN 'text' THEN x.as_text::text END AS value FROM (WITH channel AS MATERIALIZED (SELECT c.* FROM (SELECT v.value::text AS channel, c.ord, c.part, c.wide_column, c.column_type
         FROM pymig._array_channels('plain', 'SHIP1') AS v (value)
         LEFT JOIN pymig.channel AS c ON c.source = 'plain' AND c.entity = 'SHIP1' AND c.channel = v.value) AS c)
             SELECT c.ord, c.part, c.wide_column, c.column_type, c.channel::text AS channel, n.time, n.is_null, n.as_float8, n.as_int8, n.as_text
             FROM pymig.plain_cell AS n JOIN channel AS c ON c.channel = n.channel
             WHERE n.entity = 'SHIP1' AND n.channel = ANY (ARRAY(SELECT c.channel FROM channel AS c)) AND n.raw_time BETWEEN '2000-01-01 10:00:00'::timestamp without time zone AND '2000-01-01 11:59:59.999999'::timestamp without time zone) AS x), written_1 AS (INSERT INTO tenant.samples_ship1 (created_time, "main/engine/rpm", "main/engine/starts", "main/engine/state") SELECT j.time, r."1"::float8, r."2"::int8, r."3"::text
         FROM (SELECT x.time, json_object_agg(x.ord, x.value) FILTER (WHERE x.part = 1 AND x.value IS NOT NULL) AS cells
               FROM cell AS x GROUP BY x.time) AS j
         CROSS JOIN LATERAL json_to_record(coalesce(j.cells, '{}')) AS r ("1" text, "2" text, "3" text) RETURNING 1)
         SELECT count(*), count(x.value) FILTER (WHERE x.ord IS NOT NULL), count(*) FILTER (WHERE x.is_null), (SELECT count(*) FROM written_1),
             min(x.channel) FILTER (WHERE x.ord IS NULL)
         FROM cell AS x
