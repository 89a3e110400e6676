CREATE TRIGGER bind_before_write BEFORE INSERT OR UPDATE OR DELETE ON "federation_link"."we""ird Täble 2 {x}" FOR EACH STATEMENT EXECUTE FUNCTION federation.bind_before_write();

