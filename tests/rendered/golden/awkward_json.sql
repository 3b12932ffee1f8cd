WITH cell AS MATERIALIZED (SELECT x.ord, x.part, x.channel, x.time, x.is_null, x.as_text AS value FROM (SELECT c.ord, c.part, c.wide_column, c.column_type, n.channel::text AS channel, n.time, n.is_null, n.as_text
         FROM (SELECT DISTINCT ON (n.channel, n.time) n.channel, n.time, n.is_null, n.as_text FROM pymig.awkward_cell AS n WHERE n.entity = E'O''Brien\\' AND n.raw_time BETWEEN '36000000'::bigint AND '43199999'::bigint ORDER BY n.channel, n.time, n.raw_time DESC, n.tie_1 DESC NULLS LAST, n.tie_2 DESC NULLS LAST) AS n
         LEFT JOIN pymig.channel AS c ON c.source = 'awkward' AND c.entity = E'O''Brien\\' AND c.channel = n.channel::text) AS x), written_1 AS (INSERT INTO "it's 1"""."%I; --_o'brien\" ("time'", _d41d8cd9, """; DROP TABLE x; --", "ééééééééééééééééééééééééééé_63925886") SELECT j.time, r."1", r."2", r."3"
         FROM (SELECT x.time, json_object_agg(x.ord, x.value) FILTER (WHERE x.part = 1 AND x.value IS NOT NULL) AS cells
               FROM cell AS x GROUP BY x.time) AS j
         CROSS JOIN LATERAL json_to_record(coalesce(j.cells, '{}')) AS r ("1" text, "2" text, "3" text) RETURNING 1)
         SELECT count(*), count(x.value) FILTER (WHERE x.ord IS NOT NULL), count(*) FILTER (WHERE x.is_null), (SELECT count(*) FROM written_1),
             min(x.channel) FILTER (WHERE x.ord IS NULL)
         FROM cell AS x
