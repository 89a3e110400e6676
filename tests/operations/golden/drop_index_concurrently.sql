DO $federation$
DECLARE
    found CONSTANT regclass := to_regclass(format('%I.%I', 'public', 'i"ndex % :x'));
BEGIN
    IF found IS NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
        WHERE i.indexrelid = found AND c.relkind = 'i' AND NOT c.relispartition AND i.indrelid = '"public"."we""ird Täble"'::regclass
    ) OR EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conindid = found) THEN
        RAISE EXCEPTION '% is no index of % that can be dropped concurrently', found, '"public"."we""ird Täble"'
            USING ERRCODE = 'ZF008', HINT = 'use op.drop_constraint, or op.drop_index';
    END IF;
    EXECUTE format('ALTER INDEX %s RENAME TO %I', found, 'federation_dropped_' || found::oid);
END $federation$;

