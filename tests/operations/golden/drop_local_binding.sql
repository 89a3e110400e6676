-- Undoes v1/local.sql, and fails while a policy or a function still depends on it.
DROP FUNCTION auth.role();
DROP FUNCTION auth.uid();
DROP FUNCTION auth.jwt();
DROP SCHEMA auth;
DROP VIEW federation.bind;
DROP FUNCTION federation.take(uuid, text);
DROP TABLE federation.account;
REVOKE USAGE ON SCHEMA federation FROM "federation_link";

