CREATE POLICY "own röws" ON "public"."we""ird Täble" AS RESTRICTIVE FOR ALL TO "federation_link", "federation_service" USING ((SELECT auth.uid()) = hospital_id);

