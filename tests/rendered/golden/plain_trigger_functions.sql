-- plain_record_delete

        DECLARE
            v_is_second boolean := coalesce(pg_sequence_last_value('pymig.plain_turn') % 2 = 1, false);
            v_is_single boolean := NOT EXISTS (SELECT FROM old_rows OFFSET 1);
        BEGIN
            IF pg_relation_size(CASE WHEN v_is_second THEN 'pymig.plain_pending_2'::regclass ELSE 'pymig.plain_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.plain_lost') WHERE EXISTS (SELECT DISTINCT o.ship_id, o.created_time FROM old_rows AS o);
            ELSIF v_is_single AND v_is_second THEN
                INSERT INTO pymig.plain_pending_2 (entity, time)
                SELECT r.ship_id, r.created_time FROM old_rows AS r;
            ELSIF v_is_single THEN
                INSERT INTO pymig.plain_pending_1 (entity, time)
                SELECT r.ship_id, r.created_time FROM old_rows AS r;
            ELSIF v_is_second THEN
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
            v_is_second boolean := coalesce(pg_sequence_last_value('pymig.plain_turn') % 2 = 1, false);
            v_is_single boolean := NOT EXISTS (SELECT FROM new_rows OFFSET 1);
        BEGIN
            IF pg_relation_size(CASE WHEN v_is_second THEN 'pymig.plain_pending_2'::regclass ELSE 'pymig.plain_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.plain_lost') WHERE EXISTS (SELECT DISTINCT n.ship_id, n.created_time FROM new_rows AS n);
            ELSIF v_is_single AND v_is_second THEN
                INSERT INTO pymig.plain_pending_2 (entity, time)
                SELECT r.ship_id, r.created_time FROM new_rows AS r;
            ELSIF v_is_single THEN
                INSERT INTO pymig.plain_pending_1 (entity, time)
                SELECT r.ship_id, r.created_time FROM new_rows AS r;
            ELSIF v_is_second THEN
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
            v_is_second boolean := coalesce(pg_sequence_last_value('pymig.plain_turn') % 2 = 1, false);
        BEGIN
            IF pg_relation_size(CASE WHEN v_is_second THEN 'pymig.plain_pending_2'::regclass ELSE 'pymig.plain_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.plain_lost') WHERE EXISTS (SELECT NEW.ship_id, NEW.created_time WHERE TG_OP <> 'DELETE' UNION SELECT OLD.ship_id, OLD.created_time WHERE TG_OP <> 'INSERT');
            ELSIF v_is_second THEN
                INSERT INTO pymig.plain_pending_2 (entity, time)
                SELECT NEW.ship_id, NEW.created_time WHERE TG_OP <> 'DELETE' UNION SELECT OLD.ship_id, OLD.created_time WHERE TG_OP <> 'INSERT';
            ELSE
                INSERT INTO pymig.plain_pending_1 (entity, time)
                SELECT NEW.ship_id, NEW.created_time WHERE TG_OP <> 'DELETE' UNION SELECT OLD.ship_id, OLD.created_time WHERE TG_OP <> 'INSERT';
            END IF;
            RETURN NULL;
        END

-- plain_record_truncate

        DECLARE
            v_is_second boolean := coalesce(pg_sequence_last_value('pymig.plain_turn') % 2 = 1, false);
        BEGIN
            IF pg_relation_size(CASE WHEN v_is_second THEN 'pymig.plain_pending_2'::regclass ELSE 'pymig.plain_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.plain_lost') WHERE EXISTS (VALUES (NULL, NULL, 'truncate:' || TG_RELID));
            ELSIF v_is_second THEN
                INSERT INTO pymig.plain_pending_2 (entity, time, kind)
                VALUES (NULL, NULL, 'truncate:' || TG_RELID);
            ELSE
                INSERT INTO pymig.plain_pending_1 (entity, time, kind)
                VALUES (NULL, NULL, 'truncate:' || TG_RELID);
            END IF;
            RETURN NULL;
        END

-- plain_record_update

        DECLARE
            v_is_second boolean := coalesce(pg_sequence_last_value('pymig.plain_turn') % 2 = 1, false);
        BEGIN
            IF pg_relation_size(CASE WHEN v_is_second THEN 'pymig.plain_pending_2'::regclass ELSE 'pymig.plain_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.plain_lost') WHERE EXISTS (SELECT n.ship_id, n.created_time FROM new_rows AS n UNION SELECT o.ship_id, o.created_time FROM old_rows AS o);
            ELSIF v_is_second THEN
                INSERT INTO pymig.plain_pending_2 (entity, time)
                SELECT n.ship_id, n.created_time FROM new_rows AS n UNION SELECT o.ship_id, o.created_time FROM old_rows AS o;
            ELSE
                INSERT INTO pymig.plain_pending_1 (entity, time)
                SELECT n.ship_id, n.created_time FROM new_rows AS n UNION SELECT o.ship_id, o.created_time FROM old_rows AS o;
            END IF;
            RETURN NULL;
        END
