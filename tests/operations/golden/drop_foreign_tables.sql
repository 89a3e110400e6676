DROP FOREIGN TABLE "federation_link"."we""ird Täble 2 {x}";

