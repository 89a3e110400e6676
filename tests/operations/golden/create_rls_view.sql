CREATE VIEW public."we""ird Täble 2 {x}" WITH (security_invoker = true, check_option = cascaded) AS SELECT federation_link."we""ird Täble 2 {x}".id, federation_link."we""ird Täble 2 {x}".hospital_id, federation_link."we""ird Täble 2 {x}"."Größe ""%"" :x {y}", federation_link."we""ird Täble 2 {x}".amount 
FROM federation_link."we""ird Täble 2 {x}" 
WHERE (hospital_id = (SELECT federation.bind_claims()) AND "Größe ""%"" :x {y}" IS DISTINCT FROM 'it''s a \ % :x {y}	$$ €');

DO $federation$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT DISTINCT format('REVOKE ALL ON %s FROM %s', c.oid::regclass,
            CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END)
        FROM pg_catalog.pg_class AS c, aclexplode(c.relacl) AS acl
        WHERE c.oid IN ('"public"."we""ird Täble 2 {x}"'::regclass, '"federation_link"."we""ird Täble 2 {x}"'::regclass) AND acl.grantee <> c.relowner
    LOOP
        EXECUTE statement;
    END LOOP;
END $federation$;

ALTER VIEW "public"."we""ird Täble 2 {x}" ALTER COLUMN "id" SET DEFAULT gen_random_uuid();

ALTER VIEW "public"."we""ird Täble 2 {x}" ALTER COLUMN "Größe ""%"" :x {y}" SET DEFAULT 'it''s a \ % :x {y}	$$ €';

GRANT SELECT, INSERT ON "public"."we""ird Täble 2 {x}", "federation_link"."we""ird Täble 2 {x}" TO "authenticated";

GRANT SELECT ON "public"."we""ird Täble 2 {x}", "federation_link"."we""ird Täble 2 {x}" TO "röle ""x"" % $$";

COMMENT ON VIEW "public"."we""ird Täble 2 {x}" IS  E'it''s a \\ % :x {y}	$$ €';

