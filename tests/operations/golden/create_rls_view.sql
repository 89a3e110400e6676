CREATE VIEW public."we""ird Täble 2 {x}" WITH (security_invoker = true, check_option = cascaded) AS SELECT federation_link."we""ird Täble 2 {x}".id, federation_link."we""ird Täble 2 {x}".hospital_id, federation_link."we""ird Täble 2 {x}"."Größe ""%"" :x {y}", federation_link."we""ird Täble 2 {x}".amount 
FROM federation_link."we""ird Täble 2 {x}" 
WHERE (hospital_id = (SELECT federation.bind_claims()) AND "Größe ""%"" :x {y}" IS DISTINCT FROM 'it''s a \ % :x {y}	$$ €');

DO $federation$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT DISTINCT format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
            CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END)
        FROM (
            SELECT 'TABLE' AS kind, c.oid::regclass::text AS name, c.relowner AS owner, c.relacl AS acl
            FROM pg_catalog.pg_class AS c WHERE c.oid = ANY ( E'{"\\"public\\".\\"we\\"\\"ird Täble 2 {x}\\"","\\"federation_link\\".\\"we\\"\\"ird Täble 2 {x}\\""}'::regclass[])
            UNION ALL
            SELECT 'SCHEMA', quote_ident(n.nspname), n.nspowner, n.nspacl
            FROM pg_catalog.pg_namespace AS n
            WHERE n.nspname = NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                WHERE c.relnamespace = n.oid AND c.oid <> ALL ( E'{"\\"public\\".\\"we\\"\\"ird Täble 2 {x}\\"","\\"federation_link\\".\\"we\\"\\"ird Täble 2 {x}\\""}'::regclass[]))
        ) AS o, aclexplode(o.acl) AS acl
        WHERE acl.grantee <> o.owner
    LOOP
        EXECUTE statement;
    END LOOP;
END $federation$;

ALTER VIEW "public"."we""ird Täble 2 {x}" ALTER COLUMN "id" SET DEFAULT gen_random_uuid();

ALTER VIEW "public"."we""ird Täble 2 {x}" ALTER COLUMN "Größe ""%"" :x {y}" SET DEFAULT 'it''s a \ % :x {y}	$$ €';

GRANT SELECT, INSERT ON "public"."we""ird Täble 2 {x}", "federation_link"."we""ird Täble 2 {x}" TO "authenticated";

GRANT SELECT ON "public"."we""ird Täble 2 {x}", "federation_link"."we""ird Täble 2 {x}" TO "röle ""x"" % $$";

COMMENT ON VIEW "public"."we""ird Täble 2 {x}" IS  E'it''s a \\ % :x {y}	$$ €';

