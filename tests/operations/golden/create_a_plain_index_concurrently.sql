DO $federation$
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'index % is built concurrently after its step has written something', 'plain'
            USING ERRCODE = 'ZF008', HINT = 'move it to the beginning of its step, or into a release of its own';
    END IF;
END $federation$;

COMMIT;

SELECT format('DROP INDEX CONCURRENTLY %I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid AND c.relkind = 'i'
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relname = 'plain' AND NOT i.indisvalid AND i.indrelid = '"public"."hospital_patients"'::regclass
\gexec

DO $federation$
DECLARE
    found CONSTANT regclass := to_regclass(format('%I.%I', 'public', 'plain'));
    same boolean;
BEGIN
    IF found IS NULL THEN
        RETURN;
    END IF;
    EXECUTE 'CREATE TEMPORARY TABLE federation_index (LIKE "public"."hospital_patients") ON COMMIT DROP';
    EXECUTE 'CREATE INDEX federation_wanted ON "pg_temp"."federation_index" ("name")';
    SELECT count(*) = 2 AND 1 = count(DISTINCT (i.indisunique, substr(pg_get_indexdef(i.indexrelid),
        CASE WHEN i.indexrelid = found THEN length(format('CREATE %sINDEX %I ON %I.%I ',
            CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname, n.nspname, t.relname)) + 1
        ELSE strpos(pg_get_indexdef(i.indexrelid), ' USING ') + 1 END)))
    INTO same
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
    WHERE i.indrelid = 'pg_temp.federation_index'::regclass
        OR (i.indexrelid = found AND i.indrelid = '"public"."hospital_patients"'::regclass AND i.indisvalid);
    DROP TABLE pg_temp.federation_index;
    IF NOT same THEN
        RAISE EXCEPTION '% is there and is not the index of % that the release declares', found, '"public"."hospital_patients"'
            USING ERRCODE = 'ZF008', HINT = 'move it away (ALTER … RENAME TO …), then run the command again';
    END IF;
END $federation$;

CREATE INDEX CONCURRENTLY IF NOT EXISTS "plain" ON "public"."hospital_patients" ("name");

BEGIN;

