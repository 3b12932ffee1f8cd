-- Routines for people: schema pymig, no leading underscore, not made for one source.
-- kind, name, arguments (one a line), result, comment.
SELECT
    CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind,
    p.proname AS name,
    pg_catalog.pg_get_function_arguments(p.oid) AS arguments,
    CASE p.prokind WHEN 'p' THEN NULL ELSE pg_catalog.pg_get_function_result(p.oid) END AS result,
    pg_catalog.obj_description(p.oid, 'pg_proc') AS comment
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'pymig'::regnamespace
  AND NOT starts_with(p.proname, '_')
  AND p.prorettype <> 'trigger'::regtype
ORDER BY p.prokind DESC, p.proname COLLATE "C", pg_catalog.pg_get_function_arguments(p.oid) COLLATE "C";
