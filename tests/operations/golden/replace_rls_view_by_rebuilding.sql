DO $federation$
DECLARE
    given text[];
    statement text;
BEGIN
    SELECT array_agg(format('GRANT %s ON %s TO %s%s', acl.privilege_type, '"public"."we""ird Täble 3 %s :x"',
        CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END,
        CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END))
    INTO given
    FROM pg_catalog.pg_class AS c, aclexplode(c.relacl) AS acl
    WHERE c.oid = '"public"."we""ird Täble 3 %s :x"'::regclass AND acl.grantee <> c.relowner;
    EXECUTE 'DROP VIEW "public"."we""ird Täble 3 %s :x"';
    EXECUTE  E'CREATE VIEW public."we""ird Täble 3 %s :x" WITH (security_invoker = true, check_option = cascaded) AS SELECT federation_link."we""ird Täble 3 %s :x".id, federation_link."we""ird Täble 3 %s :x".hospital_id, federation_link."we""ird Täble 3 %s :x"."Größe ""%"" :x {y}" 
FROM federation_link."we""ird Täble 3 %s :x" 
WHERE (hospital_id = (SELECT federation.bind_claims()) AND "Größe ""%"" :x {y}" IS DISTINCT FROM ''it''''s a \\ % :x {y}	$$ €'')';
    FOR statement IN
        SELECT format('REVOKE ALL ON %s FROM %s', '"public"."we""ird Täble 3 %s :x"',
            CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END)
        FROM pg_catalog.pg_class AS c, aclexplode(c.relacl) AS acl
        WHERE c.oid = '"public"."we""ird Täble 3 %s :x"'::regclass AND acl.grantee <> c.relowner
    LOOP
        EXECUTE statement;
    END LOOP;
    FOREACH statement IN ARRAY coalesce(given, ARRAY[]::text[]) LOOP
        EXECUTE statement;
    END LOOP;
END $federation$;

REVOKE INSERT ON "public"."we""ird Täble 3 %s :x", "federation_link"."we""ird Täble 3 %s :x" FROM "authenticated";

REVOKE SELECT ON "public"."we""ird Täble 3 %s :x", "federation_link"."we""ird Täble 3 %s :x" FROM "röle ""x"" % $$";

ALTER VIEW "public"."we""ird Täble 3 %s :x" ALTER COLUMN "id" SET DEFAULT gen_random_uuid();

ALTER VIEW "public"."we""ird Täble 3 %s :x" ALTER COLUMN "Größe ""%"" :x {y}" SET DEFAULT 'it''s a \ % :x {y}	$$ €';

GRANT SELECT ON "public"."we""ird Täble 3 %s :x", "federation_link"."we""ird Täble 3 %s :x" TO "authenticated";

COMMENT ON VIEW "public"."we""ird Täble 3 %s :x" IS  E'it''s a \\ % :x {y}	$$ €';

