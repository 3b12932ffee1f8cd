-- Columns of the tables and views of schema pymig, with their comments, in column order.
SELECT
    CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END AS kind,
    c.relname AS relation,
    pg_catalog.obj_description(c.oid, 'pg_class') AS relation_comment,
    a.attname AS name,
    pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
    a.attnotnull AS is_not_null,
    pg_catalog.col_description(c.oid, a.attnum) AS comment
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'pymig'::regnamespace
  AND c.relkind IN ('r', 'v')
  AND c.relname <> 'alembic_version'
ORDER BY c.relname COLLATE "C", a.attnum;
