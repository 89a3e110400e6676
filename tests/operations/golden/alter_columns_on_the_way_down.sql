ALTER FOREIGN TABLE "federation_link"."we""ird Täble 2 {x}" ALTER COLUMN "amount" TYPE NUMERIC(8, 1), ALTER COLUMN "amount" DROP NOT NULL;

