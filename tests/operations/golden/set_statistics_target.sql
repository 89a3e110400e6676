ALTER FOREIGN TABLE "federation_link"."we""ird Täble 2 {x}" ALTER COLUMN "id" SET STATISTICS 100, ALTER COLUMN "Größe ""%"" :x {y}" SET STATISTICS 100;

