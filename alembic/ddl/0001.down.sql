-- Everything revision 0001 made. Sources were unregistered before, so no trigger and no wide table is left.
DO $$
DECLARE
    v_drop text;
BEGIN
    FOR v_drop IN
        SELECT format('DROP VIEW pymig.%I CASCADE', c.relname) FROM pg_class AS c
        WHERE c.relnamespace = 'pymig'::regnamespace AND c.relkind = 'v'
        UNION ALL
        SELECT format('DROP ROUTINE %s CASCADE', p.oid::regprocedure) FROM pg_proc AS p
        WHERE p.pronamespace = 'pymig'::regnamespace
    LOOP
        EXECUTE v_drop;
    END LOOP;
END
$$;
DROP TYPE pymig.planned_channel, pymig.cells_text, pymig.cells_float8, pymig.cells_int8, pymig.cells_bool, pymig.cells_numeric, pymig.cells_jsonb;
DROP TABLE pymig.retired_bucket, pymig.shadow_read, pymig.certificate, pymig.changed_bucket, pymig.closed_range, pymig.partition, pymig.told, pymig.alert_target, pymig.alert_state, pymig.alert, pymig.event, pymig.trial, pymig.throttle, pymig.worker, pymig.lag, pymig.verification, pymig.quarantine, pymig.chunk, pymig.promotion, pymig.channel, pymig.part,
    pymig.entity, pymig.source;
