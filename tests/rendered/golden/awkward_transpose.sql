WITH cell AS MATERIALIZED (SELECT c.ord, c.part, c.wide_column, c.column_type, n.channel::text AS channel, n.time, n.as_text
         FROM (SELECT DISTINCT ON (n.channel, n.time) n.channel, n.time, n.as_text FROM pymig.awkward_cell AS n WHERE n.entity = E'O''Brien\\' AND n.raw_time BETWEEN '36000000'::bigint AND '43199999'::bigint ORDER BY n.channel, n.time, n.raw_time DESC, n.tie_1 DESC NULLS LAST, n.tie_2 DESC NULLS LAST) AS n
         LEFT JOIN pymig.channel AS c ON c.source = 'awkward' AND c.entity = E'O''Brien\\' AND c.channel = n.channel::text), gathered_text AS MATERIALIZED (
                 SELECT x.ord, array_agg(x.time ORDER BY x.time) AS times, array_agg(x.as_text ORDER BY x.time) AS cells,
                     count(*) AS rows, count(x.as_text) AS filled
                 FROM cell AS x WHERE x.column_type = 'text' GROUP BY x.ord),
         base AS MATERIALIZED (
             SELECT coalesce((SELECT g.times FROM (SELECT g.ord, g.times FROM gathered_text AS g) AS g WHERE g.ord = (
                 SELECT min(g.ord) FROM (SELECT g.ord, g.times FROM gathered_text AS g) AS g GROUP BY cardinality(g.times), g.times[1], g.times[cardinality(g.times) / 2], g.times[cardinality(g.times)]
                 ORDER BY count(*) DESC LIMIT 1)), '{}') AS times),
         grid AS MATERIALIZED (
             SELECT b.times AS base, b.times || ARRAY(SELECT x.time FROM cell AS x EXCEPT SELECT u.time FROM unnest(b.times) AS u (time)) AS times
             FROM base AS b), written_1 AS (INSERT INTO "it's 1"""."%I; --_o'brien\" ("time'", _d41d8cd9, """; DROP TABLE x; --", "ééééééééééééééééééééééééééé_63925886") SELECT unnest(r.times), unnest((across_text.channels[1]).cells), unnest((across_text.channels[2]).cells), unnest((across_text.channels[3]).cells) FROM grid AS r CROSS JOIN (
                 SELECT array_agg(ROW(a.cells)::pymig.cells_text ORDER BY o.ord) AS channels
                 FROM unnest((SELECT '{1,2,3}'::int[])) AS o (ord) LEFT JOIN (SELECT g.ord, CASE WHEN ROW(g.times)::record OPERATOR(pg_catalog.*=) ROW(r.base)::record THEN g.cells ELSE (
             SELECT array_agg(u.cell ORDER BY t.i)
             FROM unnest(r.times) WITH ORDINALITY AS t (time, i)
             LEFT JOIN unnest(g.times, g.cells) AS u (time, cell) ON u.time = t.time) END AS cells
         FROM gathered_text AS g CROSS JOIN grid AS r
         WHERE g.ord BETWEEN 1 AND 3
         OFFSET 0) AS a ON a.ord = o.ord) AS across_text RETURNING 1)
         SELECT (SELECT count(*) FROM cell AS x), (SELECT coalesce(sum(g.filled), 0)::bigint FROM (SELECT g.rows, g.filled FROM gathered_text AS g) AS g), (SELECT count(*) FROM written_1), (SELECT min(x.channel) FROM cell AS x WHERE x.ord IS NULL)
