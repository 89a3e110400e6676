-- The books are the owner's: what functions give to PUBLIC, and default privileges to anybody, is taken back.
DO $federation$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT DISTINCT format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
            CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END)
        FROM (
            SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::regclass::text AS name,
                c.relowner AS owner, c.relacl AS acl
            FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = to_regnamespace('federation') AND c.relname = ANY ({names})
            UNION ALL
            SELECT 'FUNCTION', p.oid::regprocedure::text, p.proowner,
                coalesce(p.proacl, acldefault('f', p.proowner))
            FROM pg_catalog.pg_proc AS p
            WHERE p.pronamespace = to_regnamespace('federation') AND p.proname = ANY ({names})
        ) AS o, aclexplode(o.acl) AS acl
        WHERE acl.grantee <> o.owner
    LOOP
        EXECUTE statement;
    END LOOP;
END $federation$;
