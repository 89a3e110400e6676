CREATE OR REPLACE VIEW public."we""ird Täble 3 %s :x" WITH (security_invoker = true, check_option = cascaded) AS SELECT federation_link."we""ird Täble 3 %s :x".id, federation_link."we""ird Täble 3 %s :x".hospital_id, federation_link."we""ird Täble 3 %s :x"."Größe ""%"" :x {y}", federation_link."we""ird Täble 3 %s :x".amount, federation_link."we""ird Täble 3 %s :x".last 
FROM federation_link."we""ird Täble 3 %s :x" 
WHERE (hospital_id = (SELECT federation.bind_claims()) AND "Größe ""%"" :x {y}" IS DISTINCT FROM 'it''s a \ % :x {y}	$$ €');

ALTER VIEW "public"."we""ird Täble 3 %s :x" ALTER COLUMN "id" DROP DEFAULT;

COMMENT ON VIEW "public"."we""ird Täble 3 %s :x" IS NULL;

ALTER VIEW "public"."we""ird Täble 3 %s :x" ALTER COLUMN "Größe ""%"" :x {y}" SET DEFAULT 'it''s a \ % :x {y}	$$ €';

GRANT SELECT, INSERT ON "public"."we""ird Täble 3 %s :x", "federation_link"."we""ird Täble 3 %s :x" TO "authenticated";

GRANT SELECT ON "public"."we""ird Täble 3 %s :x", "federation_link"."we""ird Täble 3 %s :x" TO "röle ""x"" % $$";

