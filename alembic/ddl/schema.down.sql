-- After the last revision: nothing of pymig stays.
DROP SCHEMA IF EXISTS pymig CASCADE;
