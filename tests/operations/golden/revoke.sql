REVOKE SELECT, INSERT ON TABLE "public"."we""ird Täble" FROM "federation_service";

