"""Random tables, a random change of them: what autogenerate writes runs, suffices, and can be undone.

``FEDERATION_EXAMPLES=2000 pytest tests/drift/test_property.py`` runs so many, over all versions together, each time
others, and makes what fails as small as it can be, which takes minutes. `make test-all` runs 200 and `make test` 20,
always the same, and neither does.

Not generated, because Alembic or SQLAlchemy does not do it:

- a renamed column is dropped and added; renamed tables, changed expressions of generated columns, changed identities,
  changed enums and domains, and checks are not compared;
- partitions of a partitioned table (no table of the metadata), so no row goes into one; a ``%`` in its key
  (``postgresql_partition_by`` reaches the driver as a placeholder);
- table names with ``'`` or a backslash (``create_table_comment`` is written with bare quotes), with ``.`` (a foreign
  key is written "table.column"), and ``(``, ``)``, ``,`` in the names of columns that refer to another table (they
  are read back by a regular expression);
- another type for a column with a default: PostgreSQL keeps the default with a cast, and does not lose the cast on
  the way back.

A table that is no longer declared is not managed, so none is taken away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import chains_of_three
import psycopg
import pytest
import random_tables
from deployments import ALL
from hypothesis import HealthCheck, Phase, example, given, settings
from psycopg import sql

from federation.check import check
from federation.config import Config, PolicyConfig
from federation.lockstep import downgrade, upgrade
from federation.scaffold import revision
from federation.servers import find_binaries

if TYPE_CHECKING:
    from deployments import Deployment, Deployments

MODULE = "federation_random_tables"
SUITE = "FEDERATION_EXAMPLES" not in os.environ
EXAMPLES = int(os.environ.get("FEDERATION_EXAMPLES", "200" if ALL else "10")) // len(find_binaries())

LOCAL_LINK = ('op.create_local_binding("v1")', 'op.drop_local_binding("v1")')
CLOUD_LINK = (
    """op.execute("CREATE SCHEMA federation_link")
    op.create_foreign_server("hospital")
    op.create_user_mapping("public", "hospital", LINK)
    op.create_user_mapping("current_user", "hospital", SERVICE)
    op.create_user_mapping("service_role", "hospital", SERVICE)
    op.create_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))""",
    """op.drop_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))
    op.drop_user_mapping("service_role", "hospital", SERVICE)
    op.drop_user_mapping("current_user", "hospital", SERVICE)
    op.drop_user_mapping("public", "hospital", LINK)
    op.drop_foreign_server("hospital")
    op.execute("DROP SCHEMA federation_link")""",
)

CATALOG = """
    WITH chosen AS (
        SELECT c.* FROM pg_class AS c WHERE c.relnamespace::regnamespace::text IN ('public', 'federation_link')
    )
    SELECT 'relation', relnamespace::regnamespace::text, relname, jsonb_build_array(relkind, relrowsecurity,
        relforcerowsecurity, relowner::regrole, reloptions, obj_description(oid, 'pg_class'),
        CASE relkind WHEN 'v' THEN pg_get_viewdef(oid) WHEN 'i' THEN pg_get_indexdef(oid)
            WHEN 'I' THEN pg_get_indexdef(oid) WHEN 'p' THEN pg_get_partkeydef(oid) END,
        (SELECT jsonb_build_array(ftserver, ftoptions) FROM pg_foreign_table WHERE ftrelid = oid))::text
    FROM chosen
    UNION ALL SELECT 'privilege', relnamespace::regnamespace::text, relname,
        jsonb_build_array(acl.grantee::regrole, acl.privilege_type, acl.is_grantable)::text
    FROM chosen, aclexplode(relacl) AS acl WHERE acl.grantee <> relowner
    UNION ALL SELECT 'column', c.relnamespace::regnamespace::text, c.relname, jsonb_build_array(a.attname,
        format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attgenerated,
        a.attidentity, a.attcollation::regcollation, coalesce(a.attstattarget, -1), a.attfdwoptions,
        col_description(c.oid, a.attnum), a.attacl)::text
    FROM chosen AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relkind IN ('r', 'p', 'f', 'v')
    UNION ALL SELECT 'constraint', c.relnamespace::regnamespace::text, c.relname,
        jsonb_build_array(k.conname, pg_get_constraintdef(k.oid), k.convalidated)::text
    FROM chosen AS c JOIN pg_constraint AS k ON k.conrelid = c.oid
    UNION ALL SELECT 'policy', schemaname, tablename,
        jsonb_build_array(policyname, permissive, roles, cmd, qual, with_check)::text FROM pg_policies
    UNION ALL SELECT 'trigger', c.relnamespace::regnamespace::text, c.relname, pg_get_triggerdef(t.oid)
    FROM chosen AS c JOIN pg_trigger AS t ON t.tgrelid = c.oid AND NOT t.tgisinternal
    UNION ALL SELECT 'type', t.typnamespace::regnamespace::text, t.typname, jsonb_build_array(t.typtype,
        ARRAY(SELECT e.enumlabel FROM pg_enum AS e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
        ARRAY(SELECT pg_get_constraintdef(k.oid) FROM pg_constraint AS k WHERE k.contypid = t.oid),
        format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault)::text
    FROM pg_type AS t WHERE t.typtype IN ('e', 'd') AND t.typnamespace = 'public'::regnamespace
    UNION ALL SELECT 'server', NULL, srvname, srvoptions::text FROM pg_foreign_server
    UNION ALL SELECT 'mapping', NULL, usename, NULL FROM pg_user_mappings
    UNION ALL SELECT 'schema', NULL, nspname, nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
"""

Catalogs = dict[str, frozenset[Any]]


class Playground:
    """One federation, at its first release, which links the two databases and has no table yet."""

    def __init__(self, deployments: Deployments, root: Path) -> None:
        self.deployments = deployments
        self.root = chains_of_three.write(root, local={"0001": LOCAL_LINK}, cloud={"0001": CLOUD_LINK})
        ini = root / "alembic.ini"  # a path put before sys.path at each run would be there thousands of times
        ini.write_text(ini.read_text().replace("prepend_sys_path = %(here)s\n", ""))
        (root / "federation.toml").write_text("")
        self.module = sys.modules[MODULE] = ModuleType(MODULE)
        self.open = ExitStack()
        self.deployment: Deployment | None = None
        self.sessions: dict[str, psycopg.Connection[Any]] = {}
        self.first: Catalogs = {}

    def enter(self) -> Deployment:
        """The deployment, made anew when an example has failed in it."""
        if self.deployment is None:
            self.deployment = self.open.enter_context(self.deployments.at_base(self.root))
            upgrade(self.deployment.config)
            for side in ("local", "cloud"):
                self.sessions[side] = self.open.enter_context(self.deployment.superuser(side))
            self.first = self.catalogs()
        return self.deployment

    def leave(self) -> None:
        """Forget the databases and the releases that an example has written."""
        self.open.close()
        self.deployment = None
        self.remove_releases()

    def remove_releases(self) -> None:
        for path in self.root.glob("versions/*/*.py"):
            if path.stem != "0001":
                path.unlink()

    def declare(self, declared: random_tables.Declaration) -> Config:
        """Put the declared tables where the environments import them from."""
        assert self.deployment is not None
        self.module.metadata = declared.metadata()  # type: ignore[attr-defined]
        config, chosen = self.deployment.config, declared.settings
        tables = config.tables.model_copy(
            update={
                "exported": declared.names,
                "metadata": f"{MODULE}:metadata",
                "view_grants": dict(chosen.view_grants),
                "link_grants": dict(chosen.link_grants),
                "comments": chosen.comments,
                "policies": (
                    PolicyConfig(name="own rows", using=chosen.own_rows),
                    PolicyConfig(name="service", using="true", with_check="true", roles=("@service",)),
                ),
            }
        )
        return config.model_copy(update={"tables": tables})

    def catalogs(self) -> Catalogs:
        """What both databases hold. A table's columns have no order: one that comes back comes last."""
        return {side: frozenset(session.execute(CATALOG).fetchall()) for side, session in self.sessions.items()}

    def write_and_read(self, declared: random_tables.Declaration) -> None:
        """A row into each table through its view, and as it would come in at the hospital: equal, defaults too."""
        assert self.deployment is not None
        shown = declared.writable
        with self.sessions["local"].transaction(force_rollback=True):
            keys: dict[str, str] = {}
            there = [_insert(self.sessions["local"].cursor(), table, keys) for table in shown]
        with self.deployment.as_user() as cursor:
            keys = {}
            here = [_insert(cursor, table, keys) for table in shown]
            for table in declared.tables:
                cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier("public", table.name)))
                assert len(cursor.fetchall()) == (table in shown)
                names = [table.key, *(column.name for column in table.columns)]
                assert sorted(column.name for column in cursor.description or ()) == sorted(names)
            for table in shown:
                name, key = sql.Identifier("public", table.name), sql.Identifier(table.key)
                found = sql.SQL("SELECT FROM {} WHERE {} = {}").format(name, key, sql.SQL(keys[table.name]))
                assert cursor.execute(found).rowcount == 1
            cursor.connection.rollback()
        assert here == there


def _insert(cursor: psycopg.Cursor[Any], table: random_tables.TableSpec, keys: dict[str, str]) -> Any:
    """A row of ``table``, without what no two of them share; its key is put among ``keys``, as SQL."""
    given_: dict[str, str] = {} if table.numbered else {table.key: random_tables.KINDS["uuid"].value}
    seen = []
    for column in table.columns:
        if column.references is not None:
            given_[column.name] = keys.get(column.references) or given_.get(table.key, "NULL")
        elif column.generated is None and not column.identity and column.default is None:
            given_[column.name] = random_tables.KINDS[column.kind].value
        if not (
            column.identity
            or column.references is not None
            or (column.generated is not None and table.numbered)
            or column.default in random_tables.VOLATILE
        ):
            seen.append(column.name)
    if not given_:
        given_[table.key] = "DEFAULT"
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING {}").format(
        sql.Identifier("public", table.name),
        sql.SQL(", ").join(map(sql.Identifier, given_)),
        sql.SQL(", ").join(map(sql.SQL, given_.values())),
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in (table.key, *seen)),
    )
    key, *values = cursor.execute(statement).fetchone() or ()
    keys[table.name] = f"'{key}'"
    return values


@pytest.fixture(scope="module")
def playground(deployments: Deployments, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a file's name is soon another file's
    playground = Playground(deployments, tmp_path_factory.mktemp("random"))
    try:
        yield playground
    finally:
        playground.leave()
        del sys.modules[MODULE]
        sys.dont_write_bytecode = writes_bytecode


def expect(found: Catalogs, expected: Catalogs) -> None:
    """Fail with what is on one side of the comparison only."""
    differences = [
        f"{side} {mark} {row}"
        for side in expected
        for mark, rows in (("+", found[side] - expected[side]), ("-", expected[side] - found[side]))
        for row in sorted(rows, key=str)
    ]
    assert not differences, "\n".join(differences)


def removes(before: random_tables.Declaration, after: random_tables.Declaration) -> bool:
    """Whether a column goes away."""
    left = {(table.name, column.name) for table in after.tables for column in table.columns}
    return any((table.name, column.name) not in left for table in before.tables for column in table.columns)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=SUITE,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    phases=[Phase.explicit, Phase.generate] + [Phase.shrink] * (not SUITE),
    print_blob=False,
)
@given(history=random_tables.histories())
@example(random_tables.ODD_EXPRESSIONS)
@example(random_tables.PRIVILEGES_AND_COLUMNS)
@example(random_tables.GENERIC_ENUM)
@example(random_tables.FEWER_ARGUMENTS)
@example(random_tables.NUMBERED_KEYS)
def test_what_autogenerate_writes_runs_suffices_and_is_undone(
    playground: Playground, history: random_tables.History
) -> None:
    try:
        go_through(playground, history)
    except BaseException:
        playground.leave()
        raise


def go_through(playground: Playground, history: random_tables.History) -> None:
    playground.enter()
    seen: list[Catalogs] = [playground.first]
    config = playground.declare(history.before)
    for declared in (history.before, history.after):
        config = playground.declare(declared)
        written = revision(config, "example", autogenerate=True)
        expect(playground.catalogs(), seen[-1])  # autogenerate changes nothing
        if declared is history.after:
            assert any(w.phase == "contract" for w in written) == removes(history.before, history.after)
        for release in written:
            upgrade(config, release.release)
            seen.append(playground.catalogs())
        assert check(config) == []
        if declared is history.after:
            assert revision(config, "again", autogenerate=True) == []
        playground.write_and_read(declared)
    while seen.pop() is not playground.first:
        downgrade(config, "-1")
        expect(playground.catalogs(), seen[-1])
    playground.remove_releases()
