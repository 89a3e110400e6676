ALTER FOREIGN TABLE "federation_link"."we""ird Täble 2 {x}" OPTIONS (ADD "fetch_size" '100', ADD "async_capable" 'false');

