-- Whether this is the database that the local chain is for; looks only at what is there.
DO $federation$
DECLARE
    found uuid;
    release text;
BEGIN
    IF to_regclass('federation.guard') IS NOT NULL THEN
        SELECT g.site INTO found FROM federation.guard AS g;
        IF found IS NULL THEN
            SELECT coalesce(max(v.version_num), '') INTO release FROM federation.alembic_version AS v;
            RAISE EXCEPTION 'federation.guard has lost its row'
                USING ERRCODE = 'ZF008', HINT = format('put it back: INSERT INTO federation.guard '
                    '(site, local_release, cloud_release) VALUES (%L, %L, %L); then `federation upgrade %s` sets the last '
                    'of them to where the cloud is', {site}, release, release, nullif(release, ''));
        ELSIF found <> {site} THEN
            RAISE EXCEPTION 'this is the database of site %, and FEDERATION_SITE_ID is %', found, {site}
                USING ERRCODE = 'ZF008', HINT = 'check FEDERATION_LOCAL_URL and FEDERATION_SITE_ID; nothing was changed';
        END IF;
    ELSIF to_regprocedure('federation.settle()') IS NOT NULL THEN
        RAISE EXCEPTION 'this is a cloud''s database, and the step is for a hospital''s'
            USING ERRCODE = 'ZF008', HINT = 'check FEDERATION_LOCAL_URL; nothing was changed';
    END IF;
END $federation$
