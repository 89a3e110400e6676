ALTER TYPE "public"."mo""od %" ADD VALUE IF NOT EXISTS  E'it''s a \\ % :x {y}	$$ € 2' AFTER  E'it''s a \\ % :x {y}	$$ €';

