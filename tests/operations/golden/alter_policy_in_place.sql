ALTER POLICY "own röws" ON "public"."we""ird Täble 2 {x}" TO "federation_link" USING (hospital_id IS NOT NULL AND 'it''s a \ % :x {y}	$$ €' IS NOT NULL) WITH CHECK (true);

