ALTER TABLE "public"."we""ird Täble 2 {x}" DROP CONSTRAINT "we""ird Täble 2 {x}_site_check";

