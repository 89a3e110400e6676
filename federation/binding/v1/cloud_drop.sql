-- Undoes v1/cloud.sql, and fails while a view or a trigger still depends on it.
-- With the link goes the way to tell the hospital that nothing is needed any more, so that is told here; who has another
-- way there (the runner), or found that it does not answer, says so in federation.keep_mark.
DO $$
BEGIN
    IF current_setting('federation.keep_mark', true) IS DISTINCT FROM 'on' THEN
        UPDATE federation_private.guard AS g SET cloud_release = ''
        WHERE g.side = 'local' AND g.site = (SELECT s.id FROM federation_private.site AS s);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'the hospital could not be told that the cloud needs nothing any more: %', SQLERRM
        USING ERRCODE = 'ZF001', HINT = 'until it is told, it keeps what the cloud needed before: see `federation status`';
END $$;
DROP FUNCTION federation.bind_before_write();
DROP FUNCTION federation.bind_to_write();
DROP FUNCTION federation.bind_claims();
DROP FUNCTION federation_private.send(boolean, boolean);
DROP TABLE federation_private.probe;
DROP FUNCTION federation_private.require_hospital();
DROP FOREIGN TABLE federation_private.guard;
DROP FOREIGN TABLE federation_private.bind;
DROP TABLE federation_private.site;
DROP SCHEMA federation_private;
REVOKE USAGE ON SCHEMA federation FROM {callers};
