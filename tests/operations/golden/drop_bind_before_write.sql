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
                AND other.refclassid = 'pg_class'::regclass) AND l.refobjid = '"federation_link"."we""ird Täble 3 %s :x"'::regclass
        ORDER BY 1
    LOOP
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', reader);
    END LOOP;
END $federation$;

DROP TRIGGER bind_before_write ON "federation_link"."we""ird Täble 3 %s :x";

