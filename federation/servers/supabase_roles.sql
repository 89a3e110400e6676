-- A Supabase-like cluster: the roles, once per server, run by its superuser supabase_admin.
-- After https://github.com/supabase/postgres (migrations/db). Passwords are set afterwards, as SCRAM verifiers.

-- The app's owner: mighty, but no superuser.
create role postgres login nosuperuser createrole createdb replication bypassrls;
alter role postgres set search_path to "$user", public, extensions;

-- The API's callers, and the role that PostgREST logs in with to become one of them.
create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
-- From 16 on, CREATEROLE alone does not let postgres hand these out.
grant anon, authenticated, service_role to postgres with admin option;
