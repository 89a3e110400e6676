-- The hospital's half of the binding, version 1. Frozen: a change is v2.

-- Who may be bound, and with which claims: the hospital's own list. The cloud can only name a row of it.
CREATE TABLE federation.account (
    sub uuid PRIMARY KEY,
    claims jsonb NOT NULL,
    synced boolean NOT NULL DEFAULT false,
    added_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT account_claims_name_their_account CHECK (
        jsonb_typeof(claims) = 'object' AND (claims ->> 'sub') IS NOT DISTINCT FROM nullif(sub, {nobody})::text)
);
COMMENT ON TABLE federation.account IS 'The callers that this site admits, and their claims.';
COMMENT ON COLUMN federation.account.sub IS 'The caller''s id, auth.uid() of the app.';
COMMENT ON COLUMN federation.account.claims IS 'What auth.jwt() answers for the caller; its role decides which policies apply.';
COMMENT ON COLUMN federation.account.synced IS 'Whether the row came from the cloud by `federation account sync`.';
COMMENT ON COLUMN federation.account.added_at IS 'When the row was added.';
INSERT INTO federation.account (sub, claims) VALUES
    ({site}, jsonb_build_object('sub', {site}::text, 'role', 'authenticated')),
    ({nobody}, jsonb_build_object('role', 'nobody'));

-- One caller a transaction: a second one is refused, since an open cursor would change hands between two batches.
-- The settings end with the transaction and are undone with a savepoint, like the cloud's mark of it. The role is set
-- as PostgREST sets it in the cloud, so that policies written TO a role decide here too.
CREATE FUNCTION federation.take(account uuid, account_role text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound text := nullif(current_setting('federation.account', true), '');
BEGIN
    IF bound IS NOT NULL AND bound <> account::text THEN
        RAISE EXCEPTION 'another caller is bound in this transaction' USING ERRCODE = '42501';
    END IF;
    PERFORM set_config('federation.account', account::text, true);
    IF account_role = ANY ({caller_names}) THEN
        PERFORM set_config('role', account_role, true);
    END IF;
    RETURN true;
END $$;
COMMENT ON FUNCTION federation.take(uuid, text) IS 'Binds an account to this transaction; refuses a second one.';

-- Selecting a row binds it: the one thing that a READ ONLY transaction of the cloud can do.
CREATE VIEW federation.bind WITH (security_barrier) AS
    SELECT sub, federation.take(sub, claims ->> 'role') AS taken FROM federation.account;
COMMENT ON VIEW federation.bind IS 'Selecting the row of an account binds that account.';

CREATE SCHEMA auth;
COMMENT ON SCHEMA auth IS 'The functions that the app''s policies call, answered from the bound account.';

-- The claims come from the list, never from the session: whoever holds the link''s password can name an account
-- that is listed and nothing else. Nobody bound is an error on the judged link, never an empty list.
CREATE FUNCTION auth.jwt() RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound uuid := nullif(current_setting('federation.account', true), '')::uuid;
BEGIN
    IF bound IS NULL AND session_user = {link_user} THEN
        RAISE EXCEPTION 'no caller is bound' USING ERRCODE = '42501';
    END IF;
    RETURN (SELECT a.claims FROM federation.account AS a WHERE a.sub = bound);
END $$;
CREATE FUNCTION auth.uid() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
    $$ SELECT (auth.jwt() ->> 'sub')::uuid $$;
CREATE FUNCTION auth.role() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
    $$ SELECT auth.jwt() ->> 'role' $$;

-- What functions give to PUBLIC, and default privileges to anybody, is taken back.
DO $federation$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT DISTINCT format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
            CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END)
        FROM (
            SELECT 'SCHEMA' AS kind, n.oid::regnamespace::text AS name, n.nspowner AS owner, n.nspacl AS acl
            FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'auth'
            UNION ALL
            SELECT 'TABLE', c.oid::regclass::text, c.relowner, c.relacl FROM pg_catalog.pg_class AS c
            WHERE c.oid IN ('federation.account'::regclass, 'federation.bind'::regclass)
            UNION ALL
            SELECT 'FUNCTION', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
            FROM pg_catalog.pg_proc AS p
            WHERE p.oid IN ('federation.take(uuid, text)'::regprocedure, 'auth.jwt()'::regprocedure,
                'auth.uid()'::regprocedure, 'auth.role()'::regprocedure)
        ) AS o, aclexplode(o.acl) AS acl
        WHERE acl.grantee <> o.owner
    LOOP
        EXECUTE statement;
    END LOOP;
END $federation$;

GRANT EXECUTE ON FUNCTION auth.jwt(), auth.uid(), auth.role() TO {callers}, {service};
GRANT EXECUTE ON FUNCTION federation.take(uuid, text) TO {callers};
GRANT USAGE ON SCHEMA auth TO {callers}, {service};
GRANT USAGE ON SCHEMA federation TO {callers};
GRANT SELECT ON federation.bind TO {callers};
