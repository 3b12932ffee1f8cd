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
