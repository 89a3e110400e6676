DO $federation$
BEGIN
    IF to_regprocedure('federation_private.require_hospital()') IS NOT NULL THEN
        PERFORM federation_private.require_hospital();
    END IF;
END $federation$;

DO $federation$
DECLARE
    origin record;
BEGIN
    SELECT s.srvname AS server,
        (SELECT o.option_value FROM pg_options_to_table(t.ftoptions) AS o
         WHERE o.option_name = 'schema_name') AS schema,
        (SELECT o.option_value FROM pg_options_to_table(t.ftoptions) AS o
         WHERE o.option_name = 'table_name') AS name
    INTO STRICT origin
    FROM pg_catalog.pg_foreign_table AS t JOIN pg_catalog.pg_foreign_server AS s ON s.oid = t.ftserver
    WHERE t.ftrelid = format('%I.%I', 'federation_link', 'we"ird Täble 2 {x}')::regclass;
    CREATE SCHEMA federation_import;
    EXECUTE format('IMPORT FOREIGN SCHEMA %I LIMIT TO (%I) FROM SERVER %I INTO federation_import',
        origin.schema, origin.name, origin.server) || '';
END $federation$;

DO $federation$
DECLARE
    arrived CONSTANT regclass := to_regclass(format('%I.%I', 'federation_import', 'we"ird Täble 2 {x}'));
    wrong text;
BEGIN
    IF arrived IS NULL THEN
        RAISE EXCEPTION 'the hospital has no table %', 'we"ird Täble 2 {x}'
            USING ERRCODE = 'ZF007', HINT = 'the hospital goes first: federation upgrade, on the way down federation downgrade';
    END IF;
    EXECUTE 'CREATE TEMPORARY TABLE federation_declared (' || '"tags" VARCHAR(20)[], "mood" public."mo""od %", "moods" public."mo""od %"[], "dose" public."Dösis ""%""", "seen" TIMESTAMP(3) WITH TIME ZONE, "total" NUMERIC(12, 2), "number" BIGINT NOT NULL, """count"" % :x" INTEGER NOT NULL' || ') ON COMMIT DROP';
    WITH side AS (
        SELECT a.attrelid = arrived AS hospital, a.attname, a.attnum,
            format_type(a.atttypid, a.atttypmod)
            || CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END
            || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
            || CASE WHEN CASE WHEN a.attrelid = arrived THEN a.attgenerated <> ''
                              ELSE a.attname = ANY ('{total}'::text[]) END THEN ' GENERATED' ELSE '' END AS spelling
        FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid IN (arrived, 'pg_temp.federation_declared'::regclass) AND a.attnum > 0 AND NOT a.attisdropped
    )
    SELECT string_agg(
        CASE WHEN a.attname IS NULL THEN format('column %s.%s is missing at the hospital', 'we"ird Täble 2 {x}', d.attname)
             ELSE format('column %s.%s is %s at the hospital and declared %s',
                'we"ird Täble 2 {x}', d.attname, a.spelling, d.spelling)
        END, '; ' ORDER BY d.attnum)
    INTO wrong
    FROM side AS d LEFT JOIN side AS a ON a.hospital AND a.attname = d.attname
    WHERE NOT d.hospital AND a.spelling IS DISTINCT FROM d.spelling;
    DROP TABLE pg_temp.federation_declared;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong
            USING ERRCODE = 'ZF007', HINT = 'the hospital goes first: federation upgrade, on the way down federation downgrade';
    END IF;
END $federation$;

DROP SCHEMA federation_import CASCADE;

DO $federation$
DECLARE
    reader regclass;
BEGIN
    FOR reader IN
        SELECT DISTINCT v.oid FROM pg_catalog.pg_class AS v
        JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = v.oid
        JOIN pg_catalog.pg_depend AS l ON l.classid = 'pg_rewrite'::regclass AND l.objid = w.oid
            AND l.refclassid = 'pg_class'::regclass AND l.refobjid <> v.oid
        WHERE v.relkind = 'v' AND pg_has_role(v.relowner, 'USAGE') AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend AS other
            JOIN pg_catalog.pg_class AS c ON c.oid = other.refobjid AND c.relkind <> 'f' AND c.oid <> v.oid
            WHERE other.classid = 'pg_rewrite'::regclass AND other.objid = w.oid
                AND other.refclassid = 'pg_class'::regclass) AND l.refobjid = '"federation_link"."we""ird Täble 2 {x}"'::regclass
        ORDER BY 1
    LOOP
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', reader);
    END LOOP;
END $federation$;

ALTER FOREIGN TABLE "federation_link"."we""ird Täble 2 {x}" DROP COLUMN "last", ADD COLUMN "tags" VARCHAR(20)[], ALTER COLUMN "tags" OPTIONS (ADD column_name 'tags'), ALTER COLUMN "tags" SET STATISTICS 0, ADD COLUMN "mood" public."mo""od %", ALTER COLUMN "mood" OPTIONS (ADD column_name 'mood'), ALTER COLUMN "mood" SET STATISTICS 0, ADD COLUMN "moods" public."mo""od %"[], ALTER COLUMN "moods" OPTIONS (ADD column_name 'moods'), ALTER COLUMN "moods" SET STATISTICS 0, ADD COLUMN "dose" public."Dösis ""%""", ALTER COLUMN "dose" OPTIONS (ADD column_name 'dose'), ALTER COLUMN "dose" SET STATISTICS 0, ADD COLUMN "seen" TIMESTAMP(3) WITH TIME ZONE, ALTER COLUMN "seen" OPTIONS (ADD column_name 'seen'), ALTER COLUMN "seen" SET STATISTICS 0, ADD COLUMN "total" NUMERIC(12, 2) GENERATED ALWAYS AS (amount * 2) STORED, ALTER COLUMN "total" OPTIONS (ADD column_name 'total'), ALTER COLUMN "total" SET STATISTICS 0, ADD COLUMN "number" BIGINT NOT NULL GENERATED ALWAYS AS (NULL::BIGINT) STORED, ALTER COLUMN "number" OPTIONS (ADD column_name 'number'), ALTER COLUMN "number" SET STATISTICS 0, ADD COLUMN """count"" % :x" INTEGER NOT NULL GENERATED ALWAYS AS (NULL::INTEGER) STORED, ALTER COLUMN """count"" % :x" OPTIONS (ADD column_name '"count" % :x'), ALTER COLUMN """count"" % :x" SET STATISTICS 0;

