-- awkward_record_delete

        DECLARE
            v_turn bigint := coalesce(pg_sequence_last_value('pymig.awkward_turn'), 0);
        BEGIN
            IF v_turn < 1099511627776 AND random() > 0.01 THEN
                IF v_turn % 2 = 1 THEN
                    INSERT INTO pymig.awkward_pending_2 (entity, time)
                    SELECT o."select", o."time'" FROM old_rows AS o WHERE NOT EXISTS (SELECT FROM old_rows OFFSET 1);
                ELSE
                    INSERT INTO pymig.awkward_pending_1 (entity, time)
                    SELECT o."select", o."time'" FROM old_rows AS o WHERE NOT EXISTS (SELECT FROM old_rows OFFSET 1);
                END IF;
                IF FOUND THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF pg_relation_size(CASE WHEN v_turn % 2 = 1 THEN 'pymig.awkward_pending_2'::regclass ELSE 'pymig.awkward_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.awkward_lost') WHERE EXISTS (SELECT DISTINCT o."select", o."time'" FROM old_rows AS o);
                IF v_turn < 1099511627776 THEN
                    PERFORM setval('pymig.awkward_turn', v_turn + 1099511627776);
                END IF;
            ELSIF v_turn % 2 = 1 THEN
                INSERT INTO pymig.awkward_pending_2 (entity, time)
                SELECT DISTINCT o."select", o."time'" FROM old_rows AS o;
            ELSE
                INSERT INTO pymig.awkward_pending_1 (entity, time)
                SELECT DISTINCT o."select", o."time'" FROM old_rows AS o;
            END IF;
            RETURN NULL;
        END

-- awkward_record_insert

        DECLARE
            v_turn bigint := coalesce(pg_sequence_last_value('pymig.awkward_turn'), 0);
        BEGIN
            IF v_turn < 1099511627776 AND random() > 0.01 THEN
                IF v_turn % 2 = 1 THEN
                    INSERT INTO pymig.awkward_pending_2 (entity, time)
                    SELECT n."select", n."time'" FROM new_rows AS n WHERE NOT EXISTS (SELECT FROM new_rows OFFSET 1);
                ELSE
                    INSERT INTO pymig.awkward_pending_1 (entity, time)
                    SELECT n."select", n."time'" FROM new_rows AS n WHERE NOT EXISTS (SELECT FROM new_rows OFFSET 1);
                END IF;
                IF FOUND THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF pg_relation_size(CASE WHEN v_turn % 2 = 1 THEN 'pymig.awkward_pending_2'::regclass ELSE 'pymig.awkward_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.awkward_lost') WHERE EXISTS (SELECT DISTINCT n."select", n."time'" FROM new_rows AS n);
                IF v_turn < 1099511627776 THEN
                    PERFORM setval('pymig.awkward_turn', v_turn + 1099511627776);
                END IF;
            ELSIF v_turn % 2 = 1 THEN
                INSERT INTO pymig.awkward_pending_2 (entity, time)
                SELECT DISTINCT n."select", n."time'" FROM new_rows AS n;
            ELSE
                INSERT INTO pymig.awkward_pending_1 (entity, time)
                SELECT DISTINCT n."select", n."time'" FROM new_rows AS n;
            END IF;
            RETURN NULL;
        END

-- awkward_record_row

        DECLARE
            v_turn bigint := coalesce(pg_sequence_last_value('pymig.awkward_turn'), 0);
        BEGIN
            IF pg_relation_size(CASE WHEN v_turn % 2 = 1 THEN 'pymig.awkward_pending_2'::regclass ELSE 'pymig.awkward_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.awkward_lost') WHERE EXISTS (SELECT NEW."select", NEW."time'" WHERE TG_OP <> 'DELETE' UNION SELECT OLD."select", OLD."time'" WHERE TG_OP <> 'INSERT');
                IF v_turn < 1099511627776 THEN
                    PERFORM setval('pymig.awkward_turn', v_turn + 1099511627776);
                END IF;
            ELSIF v_turn % 2 = 1 THEN
                INSERT INTO pymig.awkward_pending_2 (entity, time)
                SELECT NEW."select", NEW."time'" WHERE TG_OP <> 'DELETE' UNION SELECT OLD."select", OLD."time'" WHERE TG_OP <> 'INSERT';
            ELSE
                INSERT INTO pymig.awkward_pending_1 (entity, time)
                SELECT NEW."select", NEW."time'" WHERE TG_OP <> 'DELETE' UNION SELECT OLD."select", OLD."time'" WHERE TG_OP <> 'INSERT';
            END IF;
            RETURN NULL;
        END

-- awkward_record_truncate

        DECLARE
            v_turn bigint := coalesce(pg_sequence_last_value('pymig.awkward_turn'), 0);
        BEGIN
            IF pg_relation_size(CASE WHEN v_turn % 2 = 1 THEN 'pymig.awkward_pending_2'::regclass ELSE 'pymig.awkward_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.awkward_lost') WHERE EXISTS (VALUES (NULL, NULL, 'truncate:' || TG_RELID));
                IF v_turn < 1099511627776 THEN
                    PERFORM setval('pymig.awkward_turn', v_turn + 1099511627776);
                END IF;
            ELSIF v_turn % 2 = 1 THEN
                INSERT INTO pymig.awkward_pending_2 (entity, time, kind)
                VALUES (NULL, NULL, 'truncate:' || TG_RELID);
            ELSE
                INSERT INTO pymig.awkward_pending_1 (entity, time, kind)
                VALUES (NULL, NULL, 'truncate:' || TG_RELID);
            END IF;
            RETURN NULL;
        END

-- awkward_record_update

        DECLARE
            v_turn bigint := coalesce(pg_sequence_last_value('pymig.awkward_turn'), 0);
        BEGIN
            IF v_turn < 1099511627776 AND random() > 0.01 THEN
                IF v_turn % 2 = 1 THEN
                    INSERT INTO pymig.awkward_pending_2 (entity, time)
                    SELECT n."select", n."time'" FROM new_rows AS n JOIN old_rows AS o ON o."select" = n."select" AND o."time'" = n."time'" WHERE NOT EXISTS (SELECT FROM new_rows OFFSET 1);
                ELSE
                    INSERT INTO pymig.awkward_pending_1 (entity, time)
                    SELECT n."select", n."time'" FROM new_rows AS n JOIN old_rows AS o ON o."select" = n."select" AND o."time'" = n."time'" WHERE NOT EXISTS (SELECT FROM new_rows OFFSET 1);
                END IF;
                IF FOUND THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF pg_relation_size(CASE WHEN v_turn % 2 = 1 THEN 'pymig.awkward_pending_2'::regclass ELSE 'pymig.awkward_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.awkward_lost') WHERE EXISTS (SELECT n."select", n."time'" FROM new_rows AS n UNION SELECT o."select", o."time'" FROM old_rows AS o);
                IF v_turn < 1099511627776 THEN
                    PERFORM setval('pymig.awkward_turn', v_turn + 1099511627776);
                END IF;
            ELSIF v_turn % 2 = 1 THEN
                INSERT INTO pymig.awkward_pending_2 (entity, time)
                SELECT n."select", n."time'" FROM new_rows AS n UNION SELECT o."select", o."time'" FROM old_rows AS o;
            ELSE
                INSERT INTO pymig.awkward_pending_1 (entity, time)
                SELECT n."select", n."time'" FROM new_rows AS n UNION SELECT o."select", o."time'" FROM old_rows AS o;
            END IF;
            RETURN NULL;
        END

-- awkward_write_directly

        DECLARE
            v_started timestamptz := clock_timestamp();
            v_budget interval;
            r_entity record;
            r_part record;
        BEGIN
            -- A statement inside of ours (of an application's trigger, or of a function in RETURNING) may have changed our rows, and written them: are they what we were told?
            IF pymig._direct_keys() > 0 AND EXISTS (
                SELECT FROM unnest(p_rows) AS n WHERE NOT EXISTS (
                    SELECT FROM "it's 1"""."%I; --" AS t WHERE t."select" = n."select" AND t."%1$s" = n."%1$s" AND t."time'" = n."time'" AND ROW(t.*)::record OPERATOR(pg_catalog.*=) ROW(n.*)::record)) THEN
                RAISE EXCEPTION 'rows have changed meanwhile' USING ERRCODE = 'PM031', HINT = 'The worker does it.';
            END IF;
            FOR r_entity IN
                SELECT n."select"::text AS entity, array_agg(DISTINCT pymig.tick_of(n."time'")) AS ticks FROM unnest(p_rows) AS n GROUP BY 1 ORDER BY 1
            LOOP
                v_budget := pymig._lock_directly('awkward', r_entity.entity, r_entity.ticks, 3600000);
                -- A statement of its own: what others had locked until now is in its snapshot (R22).
                FOR r_part IN
                    WITH cell AS MATERIALIZED (
                        SELECT n."time'" AS time, c.part, c.wide_column, c.column_type, CASE c.column_type WHEN 'text' THEN (CASE WHEN num_nonnulls(n."{v}") > 1 THEN NULL WHEN n."{v}" IS NOT NULL THEN (n."{v}")::text COLLATE "C" END)::text WHEN 'float8' THEN (NULL::float8)::text WHEN 'int8' THEN (NULL::int8)::text WHEN 'bool' THEN (NULL::bool)::text WHEN 'numeric' THEN (CASE WHEN num_nonnulls(n."{v}") > 1 THEN NULL WHEN n."{v}" IS NOT NULL THEN (n."{v}")::numeric END)::text END AS value,
                            CASE WHEN n."time'" IS NULL THEN 'no_time' WHEN n."%1$s" IS NULL THEN 'no_channel' WHEN num_nonnulls(n."{v}") > 1 THEN 'several_values' END IS NULL AS is_plain
                        FROM unnest(p_rows) AS n
                        LEFT JOIN (
                            SELECT c.channel, c.part, c.wide_column, c.column_type
                            FROM pymig.channel AS c
                            JOIN pymig.part AS p ON p.source = c.source AND p.entity = c.entity AND p.part = c.part
                            JOIN pg_attribute AS a ON a.attrelid = to_regclass(format('%I.%I', 'it''s 1"', p.wide_table))
                                AND a.attname = c.wide_column AND a.atttypid = to_regtype(c.column_type) AND NOT a.attisdropped
                            WHERE c.source = 'awkward' AND c.entity = r_entity.entity
                        ) AS c ON c.channel = n."%1$s"::text
                        WHERE n."select"::text = r_entity.entity
                    )
                    SELECT p.wide_table, array_agg(t.time ORDER BY t.time) AS times, array_agg(coalesce(j.cells, '{}') ORDER BY t.time) AS cells,
                        ARRAY(SELECT DISTINCT format('%I %s', x.wide_column, x.column_type) FROM cell AS x WHERE x.part = p.part) AS columns,
                        (SELECT bool_and(x.is_plain AND x.value IS NOT NULL) FROM cell AS x) AS is_plain
                    FROM pymig.part AS p
                    CROSS JOIN (SELECT DISTINCT x.time FROM cell AS x) AS t
                    LEFT JOIN (SELECT x.part, x.time, json_object_agg(x.wide_column, x.value) AS cells FROM cell AS x WHERE x.part IS NOT NULL GROUP BY 1, 2) AS j
                        ON j.part = p.part AND j.time = t.time
                    WHERE p.source = 'awkward' AND p.entity = r_entity.entity
                    GROUP BY p.part, p.wide_table
                    ORDER BY p.part
                LOOP
                    IF NOT coalesce(r_part.is_plain, false) THEN
                        RAISE EXCEPTION 'not all of it is a value of a known column' USING ERRCODE = 'PM031', HINT = 'The worker does it.';
                    ELSIF clock_timestamp() > v_started + v_budget THEN
                        RAISE EXCEPTION 'it takes longer than its budget' USING ERRCODE = 'PM032', HINT = 'The worker does it.';
                    END IF;
                    PERFORM pymig._merge_part('it''s 1"', r_part.wide_table, 'time''', r_part.columns, r_part.times, r_part.cells);
                END LOOP;
                IF NOT FOUND THEN
                    RAISE EXCEPTION 'it has no wide table' USING ERRCODE = 'PM031', HINT = 'The worker does it.';
                END IF;
            END LOOP;
            IF clock_timestamp() > v_started + v_budget THEN
                PERFORM pymig._not_written('awkward', 'PM032', 'it took longer than its budget');
            END IF;
        END
