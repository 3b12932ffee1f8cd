-- plain_record_delete

        BEGIN
            INSERT INTO pymig.plain_pending (entity, time)
            SELECT DISTINCT o.ship_id, o.created_time FROM old_rows AS o;
            RETURN NULL;
        END

-- plain_record_insert

        BEGIN
            INSERT INTO pymig.plain_pending (entity, time)
            SELECT DISTINCT n.ship_id, n.created_time FROM new_rows AS n;
            RETURN NULL;
        END

-- plain_record_row

        BEGIN
            INSERT INTO pymig.plain_pending (entity, time)
            SELECT NEW.ship_id, NEW.created_time WHERE TG_OP <> 'DELETE' UNION SELECT OLD.ship_id, OLD.created_time WHERE TG_OP <> 'INSERT';
            RETURN NULL;
        END

-- plain_record_truncate

        BEGIN
            INSERT INTO pymig.plain_pending (entity, time, kind)
            VALUES (NULL, NULL, 'truncate');
            RETURN NULL;
        END

-- plain_record_update

        BEGIN
            INSERT INTO pymig.plain_pending (entity, time)
            SELECT n.ship_id, n.created_time FROM new_rows AS n UNION SELECT o.ship_id, o.created_time FROM old_rows AS o;
            RETURN NULL;
        END
