CREATE POLICY "p""ölicy % :x" ON "public"."we""ird Täble" FOR ALL TO "federation_link" USING (hospital_id IS NOT NULL AND 'it''s a \ % :x {y}	$$ €' IS NOT NULL) WITH CHECK (true);

