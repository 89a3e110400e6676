DROP POLICY "own röws" ON "public"."we""ird Täble 2 {x}";

