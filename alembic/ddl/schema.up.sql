-- Before any revision: Alembic keeps its own table beside pymig's.
CREATE SCHEMA IF NOT EXISTS pymig;
COMMENT ON SCHEMA pymig IS 'pymig: migrates narrow time-series tables online into wide ones.';
