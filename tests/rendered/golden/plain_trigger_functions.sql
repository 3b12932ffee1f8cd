-- plain_record_delete

        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_turn'), 0) OPERATOR(pg_catalog.+) CASE WHEN pg_catalog.random() OPERATOR(pg_catalog.<) 0.01 THEN 1099511627776 ELSE 0 END;
            v_recorded bigint;
        BEGIN
            IF v_turn OPERATOR(pg_catalog.<) 1099511627776 THEN
                IF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                    INSERT INTO pymig.plain_pending_2 (entity, time)
                    SELECT o.ship_id, o.created_time FROM old_rows AS o LIMIT 2;
                ELSE
                    INSERT INTO pymig.plain_pending_1 (entity, time)
                    SELECT o.ship_id, o.created_time FROM old_rows AS o LIMIT 2;
                END IF;
                GET DIAGNOSTICS v_recorded = ROW_COUNT;
                IF v_recorded OPERATOR(pg_catalog.=) 1 THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF pg_catalog.pg_relation_size(CASE WHEN v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN 'pymig.plain_pending_2'::pg_catalog.regclass ELSE 'pymig.plain_pending_1'::pg_catalog.regclass END) OPERATOR(pg_catalog.>=) 1073741824 THEN
                PERFORM pg_catalog.nextval('pymig.plain_lost') WHERE EXISTS (SELECT DISTINCT o.ship_id, o.created_time FROM old_rows AS o);
                PERFORM pg_catalog.setval('pymig.plain_turn', t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_turn'), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.plain_pending_2 (entity, time)
                SELECT DISTINCT o.ship_id, o.created_time FROM old_rows AS o;
            ELSE
                INSERT INTO pymig.plain_pending_1 (entity, time)
                SELECT DISTINCT o.ship_id, o.created_time FROM old_rows AS o;
            END IF;
            RETURN NULL;
        END

-- plain_record_insert

        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_turn'), 0) OPERATOR(pg_catalog.+) CASE WHEN pg_catalog.random() OPERATOR(pg_catalog.<) 0.01 THEN 1099511627776 ELSE 0 END;
            v_recorded bigint;
        BEGIN
            IF pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed'
                AND coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_paused'), 0) OPERATOR(pg_catalog.<) extract(epoch FROM pg_catalog.clock_timestamp())
                AND NOT EXISTS (SELECT FROM new_rows OFFSET 20000) AND EXISTS (SELECT FROM new_rows AS n WHERE n.ship_id::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{SHIP1}'::pg_catalog.text[])) THEN
                BEGIN
                    IF true THEN
                        PERFORM pymig.plain_write_directly(ARRAY(SELECT ROW(n.*)::tenant.samples FROM new_rows AS n WHERE n.ship_id::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{SHIP1}'::pg_catalog.text[])));
                        IF NOT EXISTS (SELECT FROM new_rows AS n WHERE (n.ship_id::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{SHIP1}'::pg_catalog.text[])) IS NOT TRUE) THEN
                            RETURN NULL;
                        END IF;
                    END IF;
                EXCEPTION
                    WHEN OTHERS THEN
                        PERFORM pymig._not_written('plain', SQLSTATE, SQLERRM);
                END;
            END IF;
            IF v_turn OPERATOR(pg_catalog.<) 1099511627776 THEN
                IF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                    INSERT INTO pymig.plain_pending_2 (entity, time)
                    SELECT n.ship_id, n.created_time FROM new_rows AS n LIMIT 2;
                ELSE
                    INSERT INTO pymig.plain_pending_1 (entity, time)
                    SELECT n.ship_id, n.created_time FROM new_rows AS n LIMIT 2;
                END IF;
                GET DIAGNOSTICS v_recorded = ROW_COUNT;
                IF v_recorded OPERATOR(pg_catalog.=) 1 THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF pg_catalog.pg_relation_size(CASE WHEN v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN 'pymig.plain_pending_2'::pg_catalog.regclass ELSE 'pymig.plain_pending_1'::pg_catalog.regclass END) OPERATOR(pg_catalog.>=) 1073741824 THEN
                PERFORM pg_catalog.nextval('pymig.plain_lost') WHERE EXISTS (SELECT DISTINCT n.ship_id, n.created_time FROM new_rows AS n);
                PERFORM pg_catalog.setval('pymig.plain_turn', t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_turn'), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.plain_pending_2 (entity, time)
                SELECT DISTINCT n.ship_id, n.created_time FROM new_rows AS n;
            ELSE
                INSERT INTO pymig.plain_pending_1 (entity, time)
                SELECT DISTINCT n.ship_id, n.created_time FROM new_rows AS n;
            END IF;
            RETURN NULL;
        END

-- plain_record_row

        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_turn'), 0);
        BEGIN
            IF pg_catalog.pg_relation_size(CASE WHEN v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN 'pymig.plain_pending_2'::pg_catalog.regclass ELSE 'pymig.plain_pending_1'::pg_catalog.regclass END) OPERATOR(pg_catalog.>=) 1073741824 THEN
                PERFORM pg_catalog.nextval('pymig.plain_lost') WHERE EXISTS (SELECT NEW.ship_id, NEW.created_time WHERE TG_OP OPERATOR(pg_catalog.<>) 'DELETE' UNION SELECT OLD.ship_id, OLD.created_time WHERE TG_OP OPERATOR(pg_catalog.<>) 'INSERT');
                PERFORM pg_catalog.setval('pymig.plain_turn', t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_turn'), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.plain_pending_2 (entity, time)
                SELECT NEW.ship_id, NEW.created_time WHERE TG_OP OPERATOR(pg_catalog.<>) 'DELETE' UNION SELECT OLD.ship_id, OLD.created_time WHERE TG_OP OPERATOR(pg_catalog.<>) 'INSERT';
            ELSE
                INSERT INTO pymig.plain_pending_1 (entity, time)
                SELECT NEW.ship_id, NEW.created_time WHERE TG_OP OPERATOR(pg_catalog.<>) 'DELETE' UNION SELECT OLD.ship_id, OLD.created_time WHERE TG_OP OPERATOR(pg_catalog.<>) 'INSERT';
            END IF;
            RETURN NULL;
        END

-- plain_record_truncate

        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_turn'), 0);
        BEGIN
            IF pg_catalog.pg_relation_size(CASE WHEN v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN 'pymig.plain_pending_2'::pg_catalog.regclass ELSE 'pymig.plain_pending_1'::pg_catalog.regclass END) OPERATOR(pg_catalog.>=) 1073741824 THEN
                PERFORM pg_catalog.nextval('pymig.plain_lost') WHERE EXISTS (VALUES (NULL, NULL, 'truncate:' OPERATOR(pg_catalog.||) TG_RELID));
                PERFORM pg_catalog.setval('pymig.plain_turn', t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_turn'), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.plain_pending_2 (entity, time, kind)
                VALUES (NULL, NULL, 'truncate:' OPERATOR(pg_catalog.||) TG_RELID);
            ELSE
                INSERT INTO pymig.plain_pending_1 (entity, time, kind)
                VALUES (NULL, NULL, 'truncate:' OPERATOR(pg_catalog.||) TG_RELID);
            END IF;
            RETURN NULL;
        END

-- plain_record_update

        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_turn'), 0) OPERATOR(pg_catalog.+) CASE WHEN pg_catalog.random() OPERATOR(pg_catalog.<) 0.01 THEN 1099511627776 ELSE 0 END;
            v_recorded bigint;
        BEGIN
            IF pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed'
                AND coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_paused'), 0) OPERATOR(pg_catalog.<) extract(epoch FROM pg_catalog.clock_timestamp())
                AND NOT EXISTS (SELECT FROM new_rows OFFSET 20000) AND EXISTS (SELECT FROM new_rows AS n WHERE n.ship_id::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{SHIP1}'::pg_catalog.text[])) THEN
                BEGIN
                    IF NOT EXISTS (SELECT o.ship_id, o.channel_id, o.created_time FROM old_rows AS o EXCEPT SELECT n.ship_id, n.channel_id, n.created_time FROM new_rows AS n) THEN
                        PERFORM pymig.plain_write_directly(ARRAY(SELECT ROW(n.*)::tenant.samples FROM new_rows AS n WHERE n.ship_id::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{SHIP1}'::pg_catalog.text[])));
                        IF NOT EXISTS (SELECT FROM new_rows AS n WHERE (n.ship_id::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{SHIP1}'::pg_catalog.text[])) IS NOT TRUE) THEN
                            RETURN NULL;
                        END IF;
                    END IF;
                EXCEPTION
                    WHEN OTHERS THEN
                        PERFORM pymig._not_written('plain', SQLSTATE, SQLERRM);
                END;
            END IF;
            IF v_turn OPERATOR(pg_catalog.<) 1099511627776 THEN
                IF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                    INSERT INTO pymig.plain_pending_2 (entity, time)
                    SELECT n.ship_id, n.created_time FROM new_rows AS n JOIN old_rows AS o ON o.ship_id OPERATOR(pg_catalog.=) n.ship_id AND o.created_time OPERATOR(pg_catalog.=) n.created_time WHERE NOT EXISTS (SELECT FROM new_rows OFFSET 1) AND NOT EXISTS (SELECT FROM old_rows OFFSET 1);
                ELSE
                    INSERT INTO pymig.plain_pending_1 (entity, time)
                    SELECT n.ship_id, n.created_time FROM new_rows AS n JOIN old_rows AS o ON o.ship_id OPERATOR(pg_catalog.=) n.ship_id AND o.created_time OPERATOR(pg_catalog.=) n.created_time WHERE NOT EXISTS (SELECT FROM new_rows OFFSET 1) AND NOT EXISTS (SELECT FROM old_rows OFFSET 1);
                END IF;
                GET DIAGNOSTICS v_recorded = ROW_COUNT;
                IF v_recorded OPERATOR(pg_catalog.=) 1 THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF pg_catalog.pg_relation_size(CASE WHEN v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN 'pymig.plain_pending_2'::pg_catalog.regclass ELSE 'pymig.plain_pending_1'::pg_catalog.regclass END) OPERATOR(pg_catalog.>=) 1073741824 THEN
                PERFORM pg_catalog.nextval('pymig.plain_lost') WHERE EXISTS (SELECT n.ship_id, n.created_time FROM new_rows AS n UNION SELECT o.ship_id, o.created_time FROM old_rows AS o);
                PERFORM pg_catalog.setval('pymig.plain_turn', t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value('pymig.plain_turn'), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.plain_pending_2 (entity, time)
                SELECT n.ship_id, n.created_time FROM new_rows AS n UNION SELECT o.ship_id, o.created_time FROM old_rows AS o;
            ELSE
                INSERT INTO pymig.plain_pending_1 (entity, time)
                SELECT n.ship_id, n.created_time FROM new_rows AS n UNION SELECT o.ship_id, o.created_time FROM old_rows AS o;
            END IF;
            RETURN NULL;
        END

-- plain_write_directly

        DECLARE
            v_started timestamptz := clock_timestamp();
            v_budget interval;
            r_entity record;
            r_part record;
        BEGIN
            -- A statement inside of ours (of an application's trigger, or of a function in RETURNING) may have changed our rows, and written them: are they what we were told?
            IF pymig._direct_keys() > 0 AND EXISTS (
                SELECT FROM unnest(p_rows) AS n WHERE NOT EXISTS (
                    SELECT FROM tenant.samples AS t WHERE t.ship_id = n.ship_id AND t.channel_id = n.channel_id AND t.created_time = n.created_time AND ROW(t.*)::record OPERATOR(pg_catalog.*=) ROW(n.*)::record)) THEN
                RAISE EXCEPTION 'rows have changed meanwhile' USING ERRCODE = 'PM031', HINT = 'The worker does it.';
            END IF;
            FOR r_entity IN
                SELECT n.ship_id::text AS entity, array_agg(DISTINCT pymig.tick_of(n.created_time)) AS ticks FROM unnest(p_rows) AS n GROUP BY 1 ORDER BY 1
            LOOP
                v_budget := pymig._lock_directly('plain', r_entity.entity, r_entity.ticks, 3600000000);
                -- A statement of its own: what others had locked until now is in its snapshot (R22).
                FOR r_part IN
                    WITH cell AS MATERIALIZED (
                        SELECT n.created_time AS time, c.part, c.wide_column, c.column_type, CASE c.column_type WHEN 'text' THEN (CASE n.value_format::text WHEN 'Decimal' THEN (n.double_v)::text COLLATE "C" WHEN 'Integer' THEN (n.long_v)::text COLLATE "C" WHEN 'String' THEN (n.str_v)::text COLLATE "C" END)::text WHEN 'float8' THEN (CASE n.value_format::text WHEN 'Decimal' THEN (n.double_v)::float8 WHEN 'Integer' THEN CASE WHEN n.long_v BETWEEN -9007199254740992 AND 9007199254740992 THEN (n.long_v)::float8 END END)::text WHEN 'int8' THEN (CASE n.value_format::text WHEN 'Integer' THEN (n.long_v)::int8 END)::text WHEN 'bool' THEN (NULL::bool)::text WHEN 'numeric' THEN (CASE n.value_format::text WHEN 'Integer' THEN (n.long_v)::numeric END)::text END AS value,
                            CASE WHEN n.created_time IS NULL THEN 'no_time' WHEN n.channel_id IS NULL THEN 'no_channel' WHEN n.value_format IS NULL OR n.value_format::text NOT IN ('Decimal', 'Integer', 'String') THEN 'unknown_format'
                       WHEN CASE n.value_format::text WHEN 'Decimal' THEN n.double_v IS NULL WHEN 'Integer' THEN n.long_v IS NULL WHEN 'String' THEN n.str_v IS NULL END AND num_nonnulls(n.double_v, n.long_v, n.str_v) > 0 THEN 'other_column' END IS NULL AS is_plain
                        FROM unnest(p_rows) AS n
                        LEFT JOIN (
                            SELECT c.channel, c.part, c.wide_column, c.column_type
                            FROM pymig.channel AS c
                            JOIN pymig.part AS p ON p.source = c.source AND p.entity = c.entity AND p.part = c.part
                            JOIN pg_attribute AS a ON a.attrelid = to_regclass(format('%I.%I', 'tenant', p.wide_table))
                                AND a.attname = c.wide_column AND a.atttypid = to_regtype(c.column_type) AND NOT a.attisdropped
                            WHERE c.source = 'plain' AND c.entity = r_entity.entity
                        ) AS c ON c.channel = n.channel_id::text
                        WHERE n.ship_id::text = r_entity.entity
                    )
                    SELECT p.wide_table, array_agg(t.time ORDER BY t.time) AS times, array_agg(coalesce(j.cells, '{}') ORDER BY t.time) AS cells,
                        ARRAY(SELECT DISTINCT format('%I %s', x.wide_column, x.column_type) FROM cell AS x WHERE x.part = p.part) AS columns,
                        (SELECT bool_and(x.is_plain AND x.value IS NOT NULL) FROM cell AS x) AS is_plain
                    FROM pymig.part AS p
                    CROSS JOIN (SELECT DISTINCT x.time FROM cell AS x) AS t
                    LEFT JOIN (SELECT x.part, x.time, json_object_agg(x.wide_column, x.value) AS cells FROM cell AS x WHERE x.part IS NOT NULL GROUP BY 1, 2) AS j
                        ON j.part = p.part AND j.time = t.time
                    WHERE p.source = 'plain' AND p.entity = r_entity.entity
                    GROUP BY p.part, p.wide_table
                    ORDER BY p.part
                LOOP
                    IF NOT coalesce(r_part.is_plain, false) THEN
                        RAISE EXCEPTION 'not all of it is a value of a known column' USING ERRCODE = 'PM031', HINT = 'The worker does it.';
                    ELSIF clock_timestamp() > v_started + v_budget THEN
                        RAISE EXCEPTION 'it takes longer than its budget' USING ERRCODE = 'PM032', HINT = 'The worker does it.';
                    END IF;
                    PERFORM pymig._merge_part('tenant', r_part.wide_table, 'created_time', r_part.columns, r_part.times, r_part.cells);
                END LOOP;
                IF NOT FOUND THEN
                    RAISE EXCEPTION 'it has no wide table' USING ERRCODE = 'PM031', HINT = 'The worker does it.';
                END IF;
            END LOOP;
            IF clock_timestamp() > v_started + v_budget THEN
                PERFORM pymig._not_written('plain', 'PM032', 'it took longer than its budget');
            END IF;
        END
