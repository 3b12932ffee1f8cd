WITH cell AS MATERIALIZED (SELECT c.ord, c.part, c.wide_column, c.column_type, n.channel::text AS channel, n.time, n.is_null, n.as_text
         FROM (SELECT DISTINCT ON (n.channel, n.time) n.channel, n.time, n.is_null, n.as_text FROM pymig.awkward_cell AS n WHERE n.entity = E'O''Brien\\' AND n.raw_time BETWEEN '36000000'::bigint AND '43199999'::bigint ORDER BY n.channel, n.time, n.raw_time DESC, n.tie_1 DESC NULLS LAST, n.tie_2 DESC NULLS LAST) AS n
         LEFT JOIN pymig.channel AS c ON c.source = 'awkward' AND c.entity = E'O''Brien\\' AND c.channel = n.channel::text), unknown AS (SELECT x.channel FROM cell AS x WHERE x.ord IS NULL), gathered AS MATERIALIZED (
             SELECT g.*, cardinality(g.times) AS rows, CASE WHEN g.cells_text IS NOT NULL THEN CASE WHEN array_position(g.cells_text, NULL) IS NULL THEN cardinality(g.cells_text) ELSE cardinality(array_remove(g.cells_text, NULL)) END END AS filled FROM (SELECT x.ord, array_agg(x.time ORDER BY x.time) AS times, count(*) FILTER (WHERE x.is_null) AS nulls, array_agg(x.as_text ORDER BY x.time) FILTER (WHERE x.column_type = 'text') AS cells_text FROM cell AS x WHERE x.ord IS NOT NULL GROUP BY x.ord) AS g),
         base AS MATERIALIZED (
             SELECT coalesce((SELECT g.times FROM gathered AS g WHERE g.ord = (
                 SELECT min(g.ord) FROM gathered AS g GROUP BY cardinality(g.times), g.times[1], g.times[cardinality(g.times) / 2], g.times[cardinality(g.times)]
                 ORDER BY count(*) DESC LIMIT 1)), '{}') AS times),
         grid AS MATERIALIZED (
             SELECT b.times AS base, b.times || ARRAY(SELECT x.time FROM cell AS x EXCEPT SELECT u.time FROM unnest(b.times) AS u (time)) AS times
             FROM base AS b), written_1 AS (INSERT INTO "it's 1"""."%I; --_o'brien\" ("time'", _d41d8cd9, """; DROP TABLE x; --", "ééééééééééééééééééééééééééé_63925886") SELECT unnest(r.times), unnest((across.text[1]).cells), unnest((across.text[2]).cells), unnest((across.text[3]).cells)
         FROM grid AS r CROSS JOIN (
             SELECT pymig._array_agg(ROW(a.cells_text)::pymig.cells_text ORDER BY o.ord) FILTER (WHERE o.column_type = 'text') AS text
             FROM unnest((SELECT '{1,2,3}'::int[]), (SELECT '{text,text,text}'::text[])) AS o (ord, column_type) LEFT JOIN (SELECT g.ord, CASE WHEN g.is_base OR g.cells_text IS NULL THEN g.cells_text ELSE (
                 SELECT array_agg(u.cell ORDER BY t.i)
                 FROM unnest(g.grid) WITH ORDINALITY AS t (time, i)
                 LEFT JOIN unnest(g.times, g.cells_text) AS u (time, cell) ON u.time = t.time) END AS cells_text
         FROM (SELECT g.*, r.times AS grid, ROW(g.times)::record OPERATOR(pg_catalog.*=) ROW(r.base)::record AS is_base
               FROM gathered AS g CROSS JOIN grid AS r
               WHERE g.ord BETWEEN 1 AND 3
               OFFSET 0) AS g
         OFFSET 0) AS a ON a.ord = o.ord) AS across RETURNING 1)
         SELECT (SELECT count(*) FROM cell AS x), coalesce(sum(g.filled), 0)::bigint, coalesce(sum(g.nulls), 0)::bigint, (SELECT count(*) FROM written_1), (SELECT min(u.channel::text) FROM unknown AS u)
         FROM gathered AS g
