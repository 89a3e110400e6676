DROP POLICY "own röws" ON "public"."we""ird Täble 2 {x}";

CREATE POLICY "own röws" ON "public"."we""ird Täble 2 {x}" FOR SELECT TO PUBLIC USING ((SELECT auth.uid()) = hospital_id);

