DO $federation$
BEGIN
    IF to_regprocedure('federation_private.require_hospital()') IS NOT NULL THEN
        PERFORM federation_private.require_hospital();
    END IF;
END $federation$;

IMPORT FOREIGN SCHEMA "public" LIMIT TO ("we""ird Täble") FROM SERVER "hospital" INTO "federation_link" OPTIONS ("import_default" 'false');

DO $federation$
DECLARE
    arrived CONSTANT regclass := to_regclass(format('%I.%I', 'federation_link', 'we"ird Täble'));
    wrong text;
BEGIN
    IF arrived IS NULL THEN
        RAISE EXCEPTION 'the hospital has no table %', 'we"ird Täble'
            USING ERRCODE = 'ZF007', HINT = 'the hospital goes first: federation upgrade, on the way down federation downgrade';
    END IF;
    EXECUTE 'CREATE TEMPORARY TABLE federation_declared (' || '"id" UUID NOT NULL, "hospital_id" UUID NOT NULL, "Größe ""%"" :x {y}" TEXT COLLATE "C", "amount" NUMERIC(10, 2) NOT NULL, "tags" VARCHAR(20)[], "mood" public."mo""od %", "moods" public."mo""od %"[], "dose" public."Dösis ""%""", "seen" TIMESTAMP(3) WITH TIME ZONE, "total" NUMERIC(12, 2), "number" BIGINT NOT NULL, """count"" % :x" INTEGER NOT NULL, "last" JSONB' || ') ON COMMIT DROP';
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
        CASE WHEN a.attname IS NULL THEN format('column %s.%s is missing at the hospital', 'we"ird Täble', d.attname)
             ELSE format('column %s.%s is %s at the hospital and declared %s',
                'we"ird Täble', d.attname, a.spelling, d.spelling)
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

DO $federation$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('ALTER FOREIGN TABLE %s DROP COLUMN %I', attrelid::regclass, attname)
        FROM pg_catalog.pg_attribute
        WHERE attrelid = to_regclass(format('%I.%I', 'federation_link', 'we"ird Täble')) AND attnum > 0 AND NOT attisdropped
            AND attname <> ALL ( E'{id,hospital_id,"Größe \\"%\\" :x {y}",amount,tags,mood,moods,dose,seen,last}'::text[])
        ORDER BY attgenerated = '', attnum
    LOOP
        EXECUTE statement;
    END LOOP;
END $federation$;

ALTER FOREIGN TABLE "federation_link"."we""ird Täble" ALTER COLUMN "id" SET STATISTICS 0, ALTER COLUMN "hospital_id" SET STATISTICS 0, ALTER COLUMN "Größe ""%"" :x {y}" SET STATISTICS 0, ALTER COLUMN "amount" SET STATISTICS 0, ALTER COLUMN "tags" SET STATISTICS 0, ALTER COLUMN "mood" SET STATISTICS 0, ALTER COLUMN "moods" SET STATISTICS 0, ALTER COLUMN "dose" SET STATISTICS 0, ALTER COLUMN "seen" SET STATISTICS 0, ALTER COLUMN "last" SET STATISTICS 0, ADD COLUMN "total" NUMERIC(12, 2) GENERATED ALWAYS AS (COALESCE(NULL::NUMERIC(12, 2))) STORED, ALTER COLUMN "total" OPTIONS (ADD column_name 'total'), ALTER COLUMN "total" SET STATISTICS 0, ADD COLUMN "number" BIGINT NOT NULL GENERATED ALWAYS AS (NULL::BIGINT) STORED, ALTER COLUMN "number" OPTIONS (ADD column_name 'number'), ALTER COLUMN "number" SET STATISTICS 0, ADD COLUMN """count"" % :x" INTEGER NOT NULL GENERATED ALWAYS AS (NULL::INTEGER) STORED, ALTER COLUMN """count"" % :x" OPTIONS (ADD column_name '"count" % :x'), ALTER COLUMN """count"" % :x" SET STATISTICS 0;

DO $federation$
BEGIN
    EXECUTE 'ANALYZE "federation_link"."we""ird Täble"';
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'no row count: %', SQLERRM USING ERRCODE = 'ZF001';
END $federation$;

DO $federation$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT DISTINCT format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
            CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END)
        FROM (
            SELECT 'TABLE' AS kind, c.oid::regclass::text AS name, c.relowner AS owner, c.relacl AS acl
            FROM pg_catalog.pg_class AS c WHERE c.oid = ANY ( E'{"\\"federation_link\\".\\"we\\"\\"ird Täble\\""}'::regclass[])
            UNION ALL
            SELECT 'SCHEMA', quote_ident(n.nspname), n.nspowner, n.nspacl
            FROM pg_catalog.pg_namespace AS n
            WHERE n.nspname = 'federation_link' AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                WHERE c.relnamespace = n.oid AND c.oid <> ALL ( E'{"\\"federation_link\\".\\"we\\"\\"ird Täble\\""}'::regclass[]))
        ) AS o, aclexplode(o.acl) AS acl
        WHERE acl.grantee <> o.owner
    LOOP
        EXECUTE statement;
    END LOOP;
END $federation$;

