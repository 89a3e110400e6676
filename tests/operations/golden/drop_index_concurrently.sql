DO $federation$
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'index % is built or dropped concurrently after its step has written something', 'i"ndex % :x'
            USING ERRCODE = 'ZF008', HINT = 'move it to the beginning of its step, or into a release of its own';
    END IF;
END $federation$;

COMMIT;

DROP INDEX CONCURRENTLY IF EXISTS "public"."i""ndex % :x";

BEGIN;

