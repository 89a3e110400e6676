-- Whether this is the database that the cloud's chain is for; looks only at what is there.
DO $federation$
DECLARE
    found uuid;
BEGIN
    IF to_regclass('federation.guard') IS NOT NULL THEN
        RAISE EXCEPTION 'this is a hospital''s database, and the step is for a cloud''s'
            USING ERRCODE = 'ZF008', HINT = 'check FEDERATION_CLOUD_URL; nothing was changed';
    ELSIF to_regclass('federation_private.site') IS NOT NULL THEN
        SELECT s.id INTO found FROM federation_private.site AS s;
        IF found <> {site} THEN
            RAISE EXCEPTION 'this is the cloud of site %, and FEDERATION_SITE_ID is %', found, {site}
                USING ERRCODE = 'ZF008', HINT = 'check FEDERATION_CLOUD_URL and FEDERATION_SITE_ID; nothing was changed';
        END IF;
    END IF;
END $federation$
