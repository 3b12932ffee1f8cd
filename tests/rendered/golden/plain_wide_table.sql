CREATE TABLE samples_ship1 ("main/engine/rpm" float8, "main/engine/starts" int8, "main/engine/state" text)
