-- The guard in the cloud: before the cloud needs more of the hospital it says so there, in its own transaction, and
-- reads the hospital's release in the same statement. What it needs less it tells after its commit (settle).

CREATE OR REPLACE FUNCTION federation.guard_version() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before CONSTANT text COLLATE "C" := coalesce(old.version_num, '');
    after CONSTANT text COLLATE "C" :=  -- of two rows, which an earlier version let in, the one that is left
        coalesce(new.version_num, (SELECT max(v.version_num) FROM federation.alembic_version AS v), '');
    step federation.history;
    hospital text COLLATE "C";
    refused text;
    remedy text;
BEGIN
    IF TG_OP <> 'DELETE' AND (SELECT count(*) FROM federation.alembic_version) > 1 THEN
        RAISE EXCEPTION 'federation.alembic_version would hold several releases: %',
            (SELECT string_agg(v.version_num, ', ' ORDER BY v.version_num) FROM federation.alembic_version AS v)
            USING ERRCODE = 'ZF008', HINT = 'a chain has no branches, and its version table one row: change that one';
    END IF;
    SELECT h.* INTO step FROM federation.history AS h
    WHERE h.started_at = transaction_timestamp() AND h.from_release = coalesce(nullif(before, ''), 'base')
        AND h.to_release = coalesce(nullif(after, ''), 'base')
    ORDER BY h.id DESC LIMIT 1;
    IF step.id IS NULL THEN  -- somebody's own UPDATE, which names no phase: it is judged as expand, and written down
        INSERT INTO federation.history (from_release, to_release, result, started_at, finished_at, role, client, guarded)
        VALUES (coalesce(nullif(before, ''), 'base'), coalesce(nullif(after, ''), 'base'), 'by hand',
            transaction_timestamp(), clock_timestamp(), session_user, inet_client_addr()::text, CASE WHEN after > before THEN after END)
        RETURNING * INTO step;
    END IF;
    IF step.guarded IS NULL OR to_regclass('federation_private.guard') IS NULL THEN
        RETURN NULL;  -- the cloud needs no more than before, or has no link and needs nothing
    END IF;
    BEGIN
        UPDATE federation_private.guard AS g SET cloud_release = after
        WHERE g.side = 'local' AND g.site = (SELECT s.id FROM federation_private.site AS s)
        RETURNING g.local_release INTO hospital;
        IF hospital IS NULL THEN
            refused := 'the link leads to another database than this site''s hospital';
            remedy := 'check FEDERATION_LINK_HOST, _PORT, _DBNAME and FEDERATION_SITE_ID, then run `federation link apply`';
        ELSIF after > before AND hospital < step.guarded THEN
            refused := format('release %s needs the hospital at %1$s, which is at %s',
                step.guarded, coalesce(nullif(hospital, ''), 'base'));
            remedy := format('bring it there first: federation upgrade, or alembic -n local upgrade %s', step.guarded);
        ELSIF after < before AND hospital >= step.guarded THEN
            refused := format('below release %s the cloud needs what the hospital, at %s, has removed',
                step.guarded, hospital);
            remedy := format('bring the hospital below %s first: federation downgrade, or alembic -n local downgrade',
                step.guarded);
        END IF;
    EXCEPTION
        WHEN undefined_table OR undefined_column OR insufficient_privilege THEN
            refused := format('the link leads to a database that is not a federation hospital (%s)', SQLERRM);
            remedy := 'check FEDERATION_LINK_HOST, _PORT, _DBNAME, then run `federation link apply`';
        WHEN OTHERS THEN
            IF step.override IS NULL THEN
                RAISE;
            END IF;
            refused := format('the hospital could not be asked (%s)', SQLERRM);
    END;
    IF refused IS NOT NULL THEN
        IF step.override IS NULL THEN
            RAISE EXCEPTION '%', refused USING ERRCODE = 'ZF008', HINT = remedy;
        END IF;
        RAISE WARNING 'the guard was overridden (%): %', step.override, refused;
        UPDATE federation.history AS h SET refusal = refused WHERE h.id = step.id;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION federation.guard_version() IS
    'Lets this database''s release change only where the hospital''s allows it.';

-- The lock waits for a step that is under way: its release is neither the old nor the new one until it has ended.
CREATE OR REPLACE FUNCTION federation.settle() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    release text;
BEGIN
    LOCK TABLE federation.alembic_version IN SHARE MODE;
    release := coalesce((SELECT v.version_num FROM federation.alembic_version AS v), '');
    IF to_regclass('federation_private.guard') IS NOT NULL THEN
        UPDATE federation_private.guard AS g SET cloud_release = release
        WHERE g.side = 'local' AND g.site = (SELECT s.id FROM federation_private.site AS s)
            AND g.cloud_release <> release;
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'the hospital could not be told that the cloud is at %: %',
        coalesce(nullif(release, ''), 'base'), SQLERRM
        USING HINT = 'until it is told, it keeps what the cloud needed before: see `federation status`';
END $$;
COMMENT ON FUNCTION federation.settle() IS 'Tells the hospital where the cloud is, after a step that needs less of it.';
