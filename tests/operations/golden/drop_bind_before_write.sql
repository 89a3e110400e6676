DROP TRIGGER bind_before_write ON "federation_link"."we""ird Täble 3 %s :x";

