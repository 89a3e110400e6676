-- Undoes v1/cloud.sql, and fails while a view or a trigger still depends on it.
DROP FUNCTION federation.bind_before_write();
DROP FUNCTION federation.bind_to_write();
DROP FUNCTION federation.bind_claims();
DROP FUNCTION federation_private.send(boolean, boolean);
DROP TABLE federation_private.probe;
DROP FOREIGN TABLE federation_private.bind;
DROP TABLE federation_private.site;
DROP SCHEMA federation_private;
REVOKE USAGE ON SCHEMA federation FROM {callers};
