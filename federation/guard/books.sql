-- What either chain keeps its books in: the version table, which in --sql from base Alembic writes itself, and the history.
CREATE SCHEMA IF NOT EXISTS federation;

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
    refusal text
);
COMMENT ON TABLE federation.history IS 'One row a step, committed together with it.';
COMMENT ON COLUMN federation.history.guarded IS
    'The release that the other side must have (on the way up) or must not have (down) for this step; NULL: none.';
COMMENT ON COLUMN federation.history.override IS 'Why the guard was told to let the step pass.';
COMMENT ON COLUMN federation.history.refusal IS 'What the guard would have said.';
