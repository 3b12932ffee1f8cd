-- awkward_record_delete

        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value('pymig.awkward_turn'), 0) OPERATOR(pg_catalog.+) CASE WHEN pg_catalog.random() OPERATOR(pg_catalog.<) 0.01 THEN 1099511627776 ELSE 0 END;
            v_recorded bigint;
        BEGIN
            IF v_turn OPERATOR(pg_catalog.<) 1099511627776 THEN
                IF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                    INSERT INTO pymig.awkward_pending_2 (entity, time)
                    SELECT o."select", o."time'" FROM old_rows AS o LIMIT 2;
                ELSE
                    INSERT INTO pymig.awkward_pending_1 (entity, time)
                    SELECT o."select", o."time'" FROM old_rows AS o LIMIT 2;
                END IF;
                GET DIAGNOSTICS v_recorded = ROW_COUNT;
                IF v_recorded OPERATOR(pg_catalog.=) 1 THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF pg_catalog.pg_relation_size(CASE WHEN v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN 'pymig.awkward_pending_2'::pg_catalog.regclass ELSE 'pymig.awkward_pending_1'::pg_catalog.regclass END) OPERATOR(pg_catalog.>=) 1073741824 THEN
                PERFORM pg_catalog.nextval('pymig.awkward_lost') WHERE EXISTS (SELECT DISTINCT o."select", o."time'" FROM old_rows AS o);
                PERFORM pg_catalog.setval('pymig.awkward_turn', t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value('pymig.awkward_turn'), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
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
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value('pymig.awkward_turn'), 0) OPERATOR(pg_catalog.+) CASE WHEN pg_catalog.random() OPERATOR(pg_catalog.<) 0.01 THEN 1099511627776 ELSE 0 END;
            v_recorded bigint;
        BEGIN
            IF v_turn OPERATOR(pg_catalog.<) 1099511627776 THEN
                IF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                    INSERT INTO pymig.awkward_pending_2 (entity, time)
                    SELECT n."select", n."time'" FROM new_rows AS n LIMIT 2;
                ELSE
                    INSERT INTO pymig.awkward_pending_1 (entity, time)
                    SELECT n."select", n."time'" FROM new_rows AS n LIMIT 2;
                END IF;
                GET DIAGNOSTICS v_recorded = ROW_COUNT;
                IF v_recorded OPERATOR(pg_catalog.=) 1 THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF pg_catalog.pg_relation_size(CASE WHEN v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN 'pymig.awkward_pending_2'::pg_catalog.regclass ELSE 'pymig.awkward_pending_1'::pg_catalog.regclass END) OPERATOR(pg_catalog.>=) 1073741824 THEN
                PERFORM pg_catalog.nextval('pymig.awkward_lost') WHERE EXISTS (SELECT DISTINCT n."select", n."time'" FROM new_rows AS n);
                PERFORM pg_catalog.setval('pymig.awkward_turn', t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value('pymig.awkward_turn'), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
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
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value('pymig.awkward_turn'), 0);
        BEGIN
            IF pg_catalog.pg_relation_size(CASE WHEN v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN 'pymig.awkward_pending_2'::pg_catalog.regclass ELSE 'pymig.awkward_pending_1'::pg_catalog.regclass END) OPERATOR(pg_catalog.>=) 1073741824 THEN
                PERFORM pg_catalog.nextval('pymig.awkward_lost') WHERE EXISTS (SELECT NEW."select", NEW."time'" WHERE TG_OP OPERATOR(pg_catalog.<>) 'DELETE' UNION SELECT OLD."select", OLD."time'" WHERE TG_OP OPERATOR(pg_catalog.<>) 'INSERT');
                PERFORM pg_catalog.setval('pymig.awkward_turn', t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value('pymig.awkward_turn'), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.awkward_pending_2 (entity, time)
                SELECT NEW."select", NEW."time'" WHERE TG_OP OPERATOR(pg_catalog.<>) 'DELETE' UNION SELECT OLD."select", OLD."time'" WHERE TG_OP OPERATOR(pg_catalog.<>) 'INSERT';
            ELSE
                INSERT INTO pymig.awkward_pending_1 (entity, time)
                SELECT NEW."select", NEW."time'" WHERE TG_OP OPERATOR(pg_catalog.<>) 'DELETE' UNION SELECT OLD."select", OLD."time'" WHERE TG_OP OPERATOR(pg_catalog.<>) 'INSERT';
            END IF;
            RETURN NULL;
        END

-- awkward_record_truncate

        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value('pymig.awkward_turn'), 0);
        BEGIN
            IF pg_catalog.pg_relation_size(CASE WHEN v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN 'pymig.awkward_pending_2'::pg_catalog.regclass ELSE 'pymig.awkward_pending_1'::pg_catalog.regclass END) OPERATOR(pg_catalog.>=) 1073741824 THEN
                PERFORM pg_catalog.nextval('pymig.awkward_lost') WHERE EXISTS (VALUES (NULL, NULL, 'truncate:' OPERATOR(pg_catalog.||) TG_RELID));
                PERFORM pg_catalog.setval('pymig.awkward_turn', t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value('pymig.awkward_turn'), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.awkward_pending_2 (entity, time, kind)
                VALUES (NULL, NULL, 'truncate:' OPERATOR(pg_catalog.||) TG_RELID);
            ELSE
                INSERT INTO pymig.awkward_pending_1 (entity, time, kind)
                VALUES (NULL, NULL, 'truncate:' OPERATOR(pg_catalog.||) TG_RELID);
            END IF;
            RETURN NULL;
        END

-- awkward_record_update

        DECLARE
            v_turn bigint := coalesce(pg_catalog.pg_sequence_last_value('pymig.awkward_turn'), 0) OPERATOR(pg_catalog.+) CASE WHEN pg_catalog.random() OPERATOR(pg_catalog.<) 0.01 THEN 1099511627776 ELSE 0 END;
            v_recorded bigint;
        BEGIN
            IF v_turn OPERATOR(pg_catalog.<) 1099511627776 THEN
                IF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                    INSERT INTO pymig.awkward_pending_2 (entity, time)
                    SELECT n."select", n."time'" FROM new_rows AS n JOIN old_rows AS o ON o."select" OPERATOR(pg_catalog.=) n."select" AND o."time'" OPERATOR(pg_catalog.=) n."time'" WHERE NOT EXISTS (SELECT FROM new_rows OFFSET 1) AND NOT EXISTS (SELECT FROM old_rows OFFSET 1);
                ELSE
                    INSERT INTO pymig.awkward_pending_1 (entity, time)
                    SELECT n."select", n."time'" FROM new_rows AS n JOIN old_rows AS o ON o."select" OPERATOR(pg_catalog.=) n."select" AND o."time'" OPERATOR(pg_catalog.=) n."time'" WHERE NOT EXISTS (SELECT FROM new_rows OFFSET 1) AND NOT EXISTS (SELECT FROM old_rows OFFSET 1);
                END IF;
                GET DIAGNOSTICS v_recorded = ROW_COUNT;
                IF v_recorded OPERATOR(pg_catalog.=) 1 THEN
                    RETURN NULL;
                END IF;
            END IF;
            IF pg_catalog.pg_relation_size(CASE WHEN v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN 'pymig.awkward_pending_2'::pg_catalog.regclass ELSE 'pymig.awkward_pending_1'::pg_catalog.regclass END) OPERATOR(pg_catalog.>=) 1073741824 THEN
                PERFORM pg_catalog.nextval('pymig.awkward_lost') WHERE EXISTS (SELECT n."select", n."time'" FROM new_rows AS n UNION SELECT o."select", o."time'" FROM old_rows AS o);
                PERFORM pg_catalog.setval('pymig.awkward_turn', t.turn OPERATOR(pg_catalog.+) 1099511627776)
                FROM (SELECT coalesce(pg_catalog.pg_sequence_last_value('pymig.awkward_turn'), 0)) AS t (turn) WHERE t.turn OPERATOR(pg_catalog.<) 1099511627776;
            ELSIF v_turn OPERATOR(pg_catalog.%) 2 OPERATOR(pg_catalog.=) 1 THEN
                INSERT INTO pymig.awkward_pending_2 (entity, time)
                SELECT n."select", n."time'" FROM new_rows AS n UNION SELECT o."select", o."time'" FROM old_rows AS o;
            ELSE
                INSERT INTO pymig.awkward_pending_1 (entity, time)
                SELECT n."select", n."time'" FROM new_rows AS n UNION SELECT o."select", o."time'" FROM old_rows AS o;
            END IF;
            RETURN NULL;
        END
