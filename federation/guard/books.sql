-- What either chain keeps its books in: the version table, which in --sql from base Alembic writes itself, and the history.
-- Default privileges may grant it to others at once. Where it is there already, the binding has granted USAGE on it.
DO $federation$
DECLARE
    statement text;
BEGIN
    IF to_regnamespace('federation') IS NOT NULL THEN
        RETURN;
    END IF;
    CREATE SCHEMA federation;
    FOR statement IN
        SELECT DISTINCT format('REVOKE ALL ON SCHEMA federation FROM %s',
            CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END)
        FROM pg_catalog.pg_namespace AS n, aclexplode(n.nspacl) AS acl
        WHERE n.nspname = 'federation' AND acl.grantee <> n.nspowner
    LOOP
        EXECUTE statement;
    END LOOP;
END $federation$;

CREATE TABLE IF NOT EXISTS federation.alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE IF NOT EXISTS federation.history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_release text NOT NULL,
    to_release text NOT NULL,
    result text NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    role text NOT NULL,
    client text,
    host text,
    file_sha256 text,
    guarded text,
    override text,
    refusal text,
    seen bigint
);
COMMENT ON TABLE federation.history IS 'One row a step, committed together with it.';
COMMENT ON COLUMN federation.history.id IS 'The row''s number, in the order of the steps.';
COMMENT ON COLUMN federation.history.from_release IS 'The release of this database before the step, or base.';
COMMENT ON COLUMN federation.history.to_release IS 'Its release after the step, or base.';
COMMENT ON COLUMN federation.history.result IS 'upgraded, downgraded, undone, stamped, repaired, or by hand.';
COMMENT ON COLUMN federation.history.started_at IS 'When the step''s transaction began, by this database''s clock.';
COMMENT ON COLUMN federation.history.finished_at IS 'When the step had done its work, before its COMMIT.';
COMMENT ON COLUMN federation.history.role IS 'The role that ran the step (session_user).';
COMMENT ON COLUMN federation.history.client IS 'The client''s address; NULL: a Unix-domain socket.';
COMMENT ON COLUMN federation.history.host IS 'The name of the client''s host; NULL: a script of --sql, or by hand.';
COMMENT ON COLUMN federation.history.file_sha256 IS 'The sha256 of the revision file; NULL: no file ran.';
COMMENT ON COLUMN federation.history.guarded IS
    'The release that the other side must have (on the way up) or must not have (down) for this step; NULL: none.';
COMMENT ON COLUMN federation.history.override IS 'Why the guard was told to let the step pass.';
COMMENT ON COLUMN federation.history.refusal IS 'What the guard would have said.';
COMMENT ON COLUMN federation.history.seen IS
    'The last row of the other side''s history when the step began, whatever the clocks said; NULL: it was not asked.';

-- Both sides keep it, so that a database that was set back is noticed: federation/guard/pair.py writes and compares it.
CREATE TABLE IF NOT EXISTS federation.pair (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    number bigint NOT NULL,
    nonce uuid NOT NULL,
    previous uuid,
    confirmed boolean NOT NULL,
    written_at timestamptz NOT NULL,
    local_seen jsonb NOT NULL,
    cloud_seen jsonb NOT NULL
);
COMMENT ON TABLE federation.pair IS
    'The last command that wrote to both databases. Where the two rows differ, one of the databases was set back.';
COMMENT ON COLUMN federation.pair.one IS 'The table has one row.';
COMMENT ON COLUMN federation.pair.number IS 'How many commands have written this row; of two rows the lower is the older.';
COMMENT ON COLUMN federation.pair.nonce IS 'Drawn by each command that writes, the same on both sides.';
COMMENT ON COLUMN federation.pair.previous IS 'The nonce that the cloud had before; a command may end between the two.';
COMMENT ON COLUMN federation.pair.confirmed IS 'At the hospital: whether the cloud has the nonce for certain.';
COMMENT ON COLUMN federation.pair.written_at IS 'When the command wrote it, by the hospital''s clock.';
COMMENT ON COLUMN federation.pair.local_seen IS
    'The hospital''s database then: system identifier, database oid, timeline.';
COMMENT ON COLUMN federation.pair.cloud_seen IS 'The same of the cloud''s database.';

-- The lock of a run. An advisory lock would be anybody's to take; this table is the owner's to lock. A run that finds
-- older books holds the lock already, and COMMENT would wait for it.
DO $federation$
BEGIN
    IF to_regclass('federation.run') IS NULL THEN
        CREATE TABLE federation.run ();
        COMMENT ON TABLE federation.run IS
            'Empty. The session that holds its EXCLUSIVE lock is the federation run under way.';
        REVOKE ALL ON federation.run FROM PUBLIC;
    END IF;
END $federation$;
