GRANT UPDATE, DELETE ON TABLE "public"."we""ird Täble" TO "federation_link", "federation_service";

