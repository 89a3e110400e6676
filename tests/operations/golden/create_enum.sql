CREATE TYPE "public"."new ""%"" :x" AS ENUM ('a',  E'it''s a \\ % :x {y}	$$ €');

