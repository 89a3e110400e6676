ALTER TABLE "public"."we""ird Täble" ADD CONSTRAINT "we""ird Täble_site_check" CHECK ("hospital_id" = '00000000000000000000000000000001'::uuid);

