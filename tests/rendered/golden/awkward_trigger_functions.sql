-- awkward_record_delete

        BEGIN
            INSERT INTO pymig.awkward_pending (entity, time)
            SELECT DISTINCT o."select", o."time'" FROM old_rows AS o;
            RETURN NULL;
        END

-- awkward_record_insert

        BEGIN
            INSERT INTO pymig.awkward_pending (entity, time)
            SELECT DISTINCT n."select", n."time'" FROM new_rows AS n;
            RETURN NULL;
        END

-- awkward_record_row

        BEGIN
            INSERT INTO pymig.awkward_pending (entity, time)
            SELECT NEW."select", NEW."time'" WHERE TG_OP <> 'DELETE' UNION SELECT OLD."select", OLD."time'" WHERE TG_OP <> 'INSERT';
            RETURN NULL;
        END

-- awkward_record_truncate

        BEGIN
            INSERT INTO pymig.awkward_pending (entity, time, kind)
            VALUES (NULL, NULL, 'truncate');
            RETURN NULL;
        END

-- awkward_record_update

        BEGIN
            INSERT INTO pymig.awkward_pending (entity, time)
            SELECT n."select", n."time'" FROM new_rows AS n UNION SELECT o."select", o."time'" FROM old_rows AS o;
            RETURN NULL;
        END
