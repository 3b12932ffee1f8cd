-- awkward_record_delete

        DECLARE
            v_is_second boolean := coalesce(pg_sequence_last_value('pymig.awkward_turn') % 2 = 1, false);
            v_is_single boolean := NOT EXISTS (SELECT FROM old_rows OFFSET 1);
        BEGIN
            IF pg_relation_size(CASE WHEN v_is_second THEN 'pymig.awkward_pending_2'::regclass ELSE 'pymig.awkward_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.awkward_lost') WHERE EXISTS (SELECT DISTINCT o."select", o."time'" FROM old_rows AS o);
            ELSIF v_is_single AND v_is_second THEN
                INSERT INTO pymig.awkward_pending_2 (entity, time)
                SELECT r."select", r."time'" FROM old_rows AS r;
            ELSIF v_is_single THEN
                INSERT INTO pymig.awkward_pending_1 (entity, time)
                SELECT r."select", r."time'" FROM old_rows AS r;
            ELSIF v_is_second THEN
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
            v_is_second boolean := coalesce(pg_sequence_last_value('pymig.awkward_turn') % 2 = 1, false);
            v_is_single boolean := NOT EXISTS (SELECT FROM new_rows OFFSET 1);
        BEGIN
            IF pg_relation_size(CASE WHEN v_is_second THEN 'pymig.awkward_pending_2'::regclass ELSE 'pymig.awkward_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.awkward_lost') WHERE EXISTS (SELECT DISTINCT n."select", n."time'" FROM new_rows AS n);
            ELSIF v_is_single AND v_is_second THEN
                INSERT INTO pymig.awkward_pending_2 (entity, time)
                SELECT r."select", r."time'" FROM new_rows AS r;
            ELSIF v_is_single THEN
                INSERT INTO pymig.awkward_pending_1 (entity, time)
                SELECT r."select", r."time'" FROM new_rows AS r;
            ELSIF v_is_second THEN
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
            v_is_second boolean := coalesce(pg_sequence_last_value('pymig.awkward_turn') % 2 = 1, false);
        BEGIN
            IF pg_relation_size(CASE WHEN v_is_second THEN 'pymig.awkward_pending_2'::regclass ELSE 'pymig.awkward_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.awkward_lost') WHERE EXISTS (SELECT NEW."select", NEW."time'" WHERE TG_OP <> 'DELETE' UNION SELECT OLD."select", OLD."time'" WHERE TG_OP <> 'INSERT');
            ELSIF v_is_second THEN
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
            v_is_second boolean := coalesce(pg_sequence_last_value('pymig.awkward_turn') % 2 = 1, false);
        BEGIN
            IF pg_relation_size(CASE WHEN v_is_second THEN 'pymig.awkward_pending_2'::regclass ELSE 'pymig.awkward_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.awkward_lost') WHERE EXISTS (VALUES (NULL, NULL, 'truncate:' || TG_RELID));
            ELSIF v_is_second THEN
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
            v_is_second boolean := coalesce(pg_sequence_last_value('pymig.awkward_turn') % 2 = 1, false);
        BEGIN
            IF pg_relation_size(CASE WHEN v_is_second THEN 'pymig.awkward_pending_2'::regclass ELSE 'pymig.awkward_pending_1'::regclass END) >= 1073741824 THEN
                PERFORM nextval('pymig.awkward_lost') WHERE EXISTS (SELECT n."select", n."time'" FROM new_rows AS n UNION SELECT o."select", o."time'" FROM old_rows AS o);
            ELSIF v_is_second THEN
                INSERT INTO pymig.awkward_pending_2 (entity, time)
                SELECT n."select", n."time'" FROM new_rows AS n UNION SELECT o."select", o."time'" FROM old_rows AS o;
            ELSE
                INSERT INTO pymig.awkward_pending_1 (entity, time)
                SELECT n."select", n."time'" FROM new_rows AS n UNION SELECT o."select", o."time'" FROM old_rows AS o;
            END IF;
            RETURN NULL;
        END
