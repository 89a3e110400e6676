-- The cloud's half of the binding, version 1. Frozen: a change is v2.
-- The server and its mappings exist: PUBLIC is the judged link role, the callers who bypass have their own.

-- Nobody but the sender has USAGE here: callers can name nothing in it.
CREATE SCHEMA federation_private;
COMMENT ON SCHEMA federation_private IS 'What callers must not name: the binding''s private parts.';

CREATE TABLE federation_private.site (id uuid PRIMARY KEY);
COMMENT ON TABLE federation_private.site IS 'The hospital that this link leads to.';
COMMENT ON COLUMN federation_private.site.id IS 'The hospital''s id (FEDERATION_SITE_ID).';
INSERT INTO federation_private.site (id) VALUES ('00000000000000000000000000000001'::uuid);

CREATE FOREIGN TABLE federation_private.bind (sub uuid, taken boolean)
    SERVER "hospital" OPTIONS (schema_name 'federation', table_name 'bind');
ALTER FOREIGN TABLE federation_private.bind
    ALTER COLUMN sub SET STATISTICS 0, ALTER COLUMN taken SET STATISTICS 0;

-- The guard's row at the hospital, for the owner alone: before anything is imported it says whether this is the one.
CREATE FOREIGN TABLE federation_private.guard (side text, site uuid, local_release text, cloud_release text)
    SERVER "hospital" OPTIONS (schema_name 'federation', table_name 'guard');
ALTER FOREIGN TABLE federation_private.guard
    ALTER COLUMN side SET STATISTICS 0, ALTER COLUMN site SET STATISTICS 0,
    ALTER COLUMN local_release SET STATISTICS 0, ALTER COLUMN cloud_release SET STATISTICS 0;
-- Whether the link leads to this site's hospital: asked here, and by every import before it begins.
CREATE FUNCTION federation_private.require_hospital() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    site CONSTANT uuid := (SELECT s.id FROM federation_private.site AS s);
    found uuid;
BEGIN
    SELECT g.site INTO found FROM federation_private.guard AS g WHERE g.side = 'local';
    IF found IS DISTINCT FROM site THEN
        RAISE EXCEPTION 'the link leads to the hospital of site %, and this is the cloud of site %', found, site
            USING ERRCODE = 'ZF008', HINT = 'check FEDERATION_LINK_HOST, _PORT, _DBNAME and FEDERATION_SITE_ID';
    END IF;
EXCEPTION WHEN undefined_table OR undefined_column OR insufficient_privilege THEN
    RAISE EXCEPTION 'the link leads to a database that is not a federation hospital (%)', SQLERRM
        USING ERRCODE = 'ZF008', HINT = 'check FEDERATION_LINK_HOST, _PORT, _DBNAME, and that the local chain has run '
            'there: federation upgrade, or alembic -n local upgrade';
END $$;
SELECT federation_private.require_hospital();

-- Says whether the effective role is judged by row-level security in the cloud.
CREATE TABLE federation_private.probe ();
COMMENT ON TABLE federation_private.probe IS 'Empty. Tells whether row-level security applies to the caller.';
ALTER TABLE federation_private.probe ENABLE ROW LEVEL SECURITY;

-- Owned by a NOLOGIN role without a user mapping: its SELECT goes through PUBLIC's mapping, which is the very
-- session that the caller's scan will use. pg_temp is last and named, or a caller's pg_temp.jsonb would be found
-- before pg_catalog's. The mark holds the transaction's time: one that somebody left behind is of another time.
CREATE FUNCTION federation_private.send(judged boolean, writing boolean) RETURNS uuid
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    nobody CONSTANT uuid := '00000000000000000000000000000000'::uuid;
    caller uuid;
    mark text;
    taken bigint;
BEGIN
    IF writing THEN  -- two sessions commit one after the other: the second could fail with the first committed
        mark := judged || '@' || transaction_timestamp();
        IF current_setting('federation.wrote', true) = (NOT judged) || '@' || transaction_timestamp() THEN
            RAISE EXCEPTION 'callers under row-level security and callers who bypass it cannot write to the hospital '
                'in one transaction' USING ERRCODE = '0A000', HINT = 'let one of the two write, or use two transactions';
        END IF;
        PERFORM set_config('federation.wrote', mark, true);
    END IF;
    IF NOT judged THEN  -- a mapping of its own, hence a session of its own, in which nobody is bound
        RETURN (SELECT s.id FROM federation_private.site AS s);
    END IF;
    caller := nullif((nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid, nobody);
    mark := coalesce(caller, nobody) || '@' || transaction_timestamp();
    IF current_setting('federation.bound', true) IS DISTINCT FROM mark THEN
        SELECT count(b.taken) INTO taken FROM federation_private.bind AS b WHERE b.sub = caller;
        PERFORM set_config('federation.listed', (taken = 1)::text, true);
        IF taken = 0 THEN  -- an account that the hospital does not list
            SELECT count(b.taken) INTO taken FROM federation_private.bind AS b WHERE b.sub = nobody;
        END IF;
        IF taken <> 1 THEN
            RAISE EXCEPTION 'the hospital did not take the caller' USING ERRCODE = '42501';
        END IF;
        PERFORM set_config('federation.bound', mark, true);
    END IF;
    RETURN CASE WHEN current_setting('federation.listed', true) = 'true'
                THEN (SELECT s.id FROM federation_private.site AS s) END;
END $$;
-- What callers may call. Its references are bound at creation, so they need no USAGE on what it names.
CREATE FUNCTION federation.bind_claims() RETURNS uuid LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT federation_private.send(row_security_active('federation_private.probe'::regclass), false);
    END;
COMMENT ON FUNCTION federation.bind_claims() IS
    'Names the caller to the hospital, once a transaction; the site''s id, or NULL for a caller it does not list.';

CREATE FUNCTION federation.bind_to_write() RETURNS uuid LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT federation_private.send(row_security_active('federation_private.probe'::regclass), true);
    END;
COMMENT ON FUNCTION federation.bind_to_write() IS
    'The same before a write, of which one transaction makes those of one kind of caller only.';

CREATE FUNCTION federation.bind_before_write() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- As row-level security does it: a stranger's INSERT is refused, its UPDATE and DELETE find no row.
    IF federation.bind_to_write() IS NULL AND tg_op = 'INSERT' THEN
        RAISE EXCEPTION 'new row violates row-level security policy for table "%"', tg_table_name
            USING ERRCODE = '42501';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION federation.bind_before_write() IS 'Names the caller before a statement writes over the link.';

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
            FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'federation_private'
            UNION ALL
            SELECT 'TABLE', c.oid::regclass::text, c.relowner, c.relacl FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = 'federation_private'::regnamespace AND c.relkind IN ('r', 'f')
            UNION ALL
            SELECT 'FUNCTION', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
            FROM pg_catalog.pg_proc AS p
            WHERE p.pronamespace = 'federation_private'::regnamespace
                OR p.oid IN ('federation.bind_claims()'::regprocedure, 'federation.bind_to_write()'::regprocedure,
                    'federation.bind_before_write()'::regprocedure)
        ) AS o, aclexplode(o.acl) AS acl
        WHERE acl.grantee <> o.owner
    LOOP
        EXECUTE statement;
    END LOOP;
END $federation$;

GRANT USAGE ON SCHEMA federation_private TO "federation_sender";
GRANT SELECT ON federation_private.site, federation_private.bind TO "federation_sender";
GRANT EXECUTE ON FUNCTION federation_private.send(boolean, boolean) TO "authenticated", "röle ""x"" % $$";
-- An owner needs CREATE on the schema at the moment it becomes the owner, and not afterwards.
GRANT CREATE ON SCHEMA federation_private TO "federation_sender";
ALTER FUNCTION federation_private.send(boolean, boolean) OWNER TO "federation_sender";
REVOKE CREATE ON SCHEMA federation_private FROM "federation_sender";
GRANT EXECUTE ON FUNCTION federation.bind_claims(), federation.bind_to_write(), federation.bind_before_write()
    TO "authenticated", "röle ""x"" % $$";
GRANT USAGE ON SCHEMA federation TO "authenticated", "röle ""x"" % $$";

