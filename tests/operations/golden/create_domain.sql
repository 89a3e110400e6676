CREATE DOMAIN "public"."new ""dömain"" %" AS VARCHAR(20) COLLATE "C" DEFAULT 'it''s a \ % :x {y}	$$ €' NOT NULL CONSTRAINT "ch""eck" CHECK (VALUE <> 'it''s a \ % :x {y}	$$ €');

