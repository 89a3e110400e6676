ALTER TABLE "public"."we""ird Täble 2 {x}" DISABLE ROW LEVEL SECURITY;

