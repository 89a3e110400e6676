-- Who holds what on the objects of these schemas and on these servers: (kind, object, grantee, privilege).
-- The owner is left out; PUBLIC's EXECUTE on functions counts where nobody has revoked it.
WITH named AS (
    SELECT 'SCHEMA' AS kind, n.oid::regnamespace::text AS name, n.nspowner AS owner, n.nspacl AS acl
    FROM pg_catalog.pg_namespace AS n WHERE n.nspname = ANY (:schemas)
    UNION ALL
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text, c.relowner, c.relacl
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY (:contents) AND c.relkind IN ('r', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'COLUMN', format('%s.%I', c.oid::regclass, a.attname), c.relowner, a.attacl
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
    WHERE n.nspname = ANY (:contents) AND c.relkind IN ('r', 'v', 'm', 'f')
    UNION ALL
    SELECT 'FUNCTION', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = ANY (:contents)
    UNION ALL
    SELECT 'FOREIGN SERVER', quote_ident(s.srvname), s.srvowner, s.srvacl
    FROM pg_catalog.pg_foreign_server AS s WHERE s.srvname = ANY (:servers)
)
SELECT n.kind, n.name, CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(acl.grantee)::text END,
    acl.privilege_type || CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM named AS n, aclexplode(n.acl) AS acl WHERE acl.grantee <> n.owner
