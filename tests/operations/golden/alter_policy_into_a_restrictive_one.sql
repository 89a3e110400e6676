DROP POLICY "own röws" ON "public"."we""ird Täble 2 {x}";

CREATE POLICY "own röws" ON "public"."we""ird Täble 2 {x}" AS RESTRICTIVE FOR ALL TO "federation_link", "federation_service" USING ((SELECT auth.uid()) = hospital_id);

