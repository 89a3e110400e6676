-- A Supabase-like cluster: the roles, run by its superuser supabase_admin; those that are there stay as they are.
-- After https://github.com/supabase/postgres (migrations/db). Passwords are set afterwards, as SCRAM verifiers.

do $$ begin
  -- The app's owner: mighty, but no superuser.
  if to_regrole('postgres') is null then
    create role postgres login nosuperuser createrole createdb replication bypassrls;
  end if;
  alter role postgres set search_path to "$user", public, extensions;

  -- The API's callers, and the role that PostgREST logs in with to become one of them.
  if to_regrole('anon') is null then create role anon nologin; end if;
  if to_regrole('authenticated') is null then create role authenticated nologin; end if;
  if to_regrole('service_role') is null then create role service_role nologin bypassrls; end if;
  if to_regrole('authenticator') is null then create role authenticator login noinherit; end if;
  grant anon, authenticated, service_role to authenticator;
  -- From 16 on, CREATEROLE alone does not let postgres hand these out.
  grant anon, authenticated, service_role to postgres with admin option;
end $$;
