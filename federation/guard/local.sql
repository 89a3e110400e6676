-- The guard at the hospital. One row says where both sides are; whoever moves writes it before reading the other's
-- release from it, so of two moves that contradict each other the second waits for the first, and sees it or fails.

CREATE TABLE IF NOT EXISTS federation.guard (
    side text PRIMARY KEY DEFAULT 'local' CHECK (side = 'local'),
    site uuid NOT NULL,
    -- The link's service role may write the mark: a release's id, and no text of its own.
    local_release text COLLATE "C" NOT NULL CHECK (local_release ~ '^[0-9A-Za-z_]{{0,32}}$'),
    cloud_release text COLLATE "C" NOT NULL CHECK (cloud_release ~ '^[0-9A-Za-z_]{{0,32}}$')
);
COMMENT ON TABLE federation.guard IS
    'This database''s release and the cloud''s (the mark), as each side''s steps keep them; empty is base.';
COMMENT ON COLUMN federation.guard.side IS 'Always local: the cloud finds the row by it.';
COMMENT ON COLUMN federation.guard.site IS 'The hospital that this database belongs to.';
COMMENT ON COLUMN federation.guard.local_release IS 'The release of this database.';
COMMENT ON COLUMN federation.guard.cloud_release IS
    'The mark: the cloud raises it before it needs more of this database, and lowers it when it needs less.';
INSERT INTO federation.guard (site, local_release, cloud_release)
    SELECT {site}, coalesce((SELECT max(v.version_num) FROM federation.alembic_version AS v), ''), ''
    ON CONFLICT (side) DO NOTHING;

CREATE TABLE IF NOT EXISTS federation.storage (
    exported name PRIMARY KEY,
    files text NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE federation.storage IS
    'In which files each exported table''s rows were after the last step: another one means that it was rewritten.';
COMMENT ON COLUMN federation.storage.exported IS 'The table''s name.';
COMMENT ON COLUMN federation.storage.files IS 'Its pg_class.relfilenode, and those of its partitions by name.';
COMMENT ON COLUMN federation.storage.noted_at IS 'When they were noted.';

CREATE OR REPLACE FUNCTION federation.guard_version() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before CONSTANT text COLLATE "C" := coalesce(old.version_num, '');
    after CONSTANT text COLLATE "C" :=  -- of two rows, which an earlier version let in, the one that is left
        coalesce(new.version_num, (SELECT max(v.version_num) FROM federation.alembic_version AS v), '');
    step federation.history;
    by_hand boolean := false;
    cloud text COLLATE "C";
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
        by_hand := true;
        INSERT INTO federation.history (from_release, to_release, result, started_at, finished_at, role, client, guarded)
        VALUES (coalesce(nullif(before, ''), 'base'), coalesce(nullif(after, ''), 'base'), 'by hand',
            transaction_timestamp(), clock_timestamp(), session_user, inet_client_addr()::text, NULL)
        RETURNING * INTO step;
    END IF;
    UPDATE federation.guard AS g SET local_release = after RETURNING g.cloud_release INTO cloud;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'federation.guard has lost its row'
            USING ERRCODE = 'ZF008', HINT = 'put it back: alembic -n local upgrade or downgrade says how';
    END IF;
    IF after > before AND cloud < step.guarded THEN
        refused := format('release %s removes what the cloud, at %s, still needs',
            step.guarded, coalesce(nullif(cloud, ''), 'base'));
        remedy := format('bring the cloud to %s first: federation upgrade, or alembic -n cloud upgrade %1$s', step.guarded);
    ELSIF after < before AND (cloud >= step.guarded OR by_hand AND cloud > after) THEN
        refused := format('the cloud is at %s and needs release %s here', cloud, coalesce(step.guarded, before));
        remedy := format('bring the cloud below %s first: federation downgrade, or alembic -n cloud downgrade; '
            'if it is there already, `federation status` says how to lower its mark', coalesce(step.guarded, before));
    END IF;
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
    'Lets this database''s release change only where the cloud''s allows it.';
