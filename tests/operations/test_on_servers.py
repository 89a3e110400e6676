"""Each operation on real servers: online it sends what ``--sql`` writes, and its reverse leaves what was there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations
from operation_cases import (
    ALL,
    AMOUNT,
    AMOUNT_WAS,
    BEFORE,
    CASES,
    COUNT,
    COUNT_WAS,
    CREATE_TABLE,
    DOSE,
    FURNISHING,
    INTO,
    LINKED,
    MOOD,
    NUMBER,
    NUMBER_WAS,
    ODD_COLUMN,
    ODD_ROLE,
    PLAIN,
    SHORTER,
    VIEW,
    VIEWED,
    Case,
    Side,
    offline_sql,
    online,
)
from psycopg import sql
from sqlalchemy import event
from sqlalchemy.dialects import postgresql

from federation.databases import connect
from federation.drift.compare.grants import sequence_name
from federation.errors import Refused, VerificationFailed
from federation.operations import LINK, SERVICE
from federation.operations.foreign_tables import AlterForeignTableOp, ImportForeignSchemaOp
from federation.operations.servers import AlterForeignServerOp, CreateForeignServerOp
from federation.operations.types import CreateTypeOp
from federation.operations.user_mappings import AlterUserMappingOp
from federation.operations.views import ReplaceRLSViewOp
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from deployments import Deployment, Deployments


@contextmanager
def invoking(deployment: Deployment, side: Side) -> Iterator[Operations]:
    """One transaction of the owner."""
    with (
        connect(deployment.config, side) as connection,
        connection.begin(),
        online(connection, deployment.config) as operations,
    ):
        yield operations


def invoke(deployment: Deployment, side: Side, *ops: MigrateOperation) -> str:
    """The operations in one transaction; what was sent, as ``--sql`` spells it."""
    sent: list[str] = []
    with invoking(deployment, side) as operations:
        connection = operations.get_bind()

        @event.listens_for(connection, "before_cursor_execute")
        def _keep(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            sent.append(statement.replace("%%", "%"))

        for op in ops:
            operations.invoke(op)
    return "".join(f"{statement};\n\n" for statement in sent)


@pytest.fixture(scope="module")
def furnished(deployments: Deployments) -> Iterator[Deployment]:
    """BeanHealth's newest release, and beside it tables with odd names."""
    role = sql.Identifier(ODD_ROLE)
    with deployments.at_head() as deployment:
        with deployment.superuser("cloud") as superuser:
            superuser.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(role))
        for side in ("local", "cloud"):
            invoke(deployment, side, CreateTypeOp(MOOD), CreateTypeOp(DOSE))  # type: ignore[arg-type]
        with deployment.owner("local") as owner:
            for table in (PLAIN, LINKED, VIEWED):
                owner.execute(
                    sql.SQL(CREATE_TABLE).format(
                        table=sql.Identifier(table),
                        column=sql.Identifier(ODD_COLUMN),
                        count=sql.Identifier(COUNT.name),
                        mood=sql.Identifier(str(MOOD.name)),
                        dose=sql.Identifier(str(DOSE.name)),
                    )
                )
        for side, ops in FURNISHING.items():
            invoke(deployment, side, *ops)
        try:
            yield deployment
        finally:
            with deployment.superuser("cloud") as superuser:
                superuser.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(role, role))


@pytest.fixture(scope="module")
def dumps(furnished: Deployment) -> dict[str, str]:
    return {side: furnished.dump(side) for side in ("local", "cloud")}


@pytest.mark.parametrize("case", [case for case in CASES if not case.alone], ids=lambda case: case.name)
def test_online_sends_what_offline_writes_and_reversing_leaves_what_was(
    furnished: Deployment, dumps: dict[str, str], case: Case
) -> None:
    before = len(furnished.pair.cloud.log_text())  # the controls of test_password_logs leave passwords in it
    sent = invoke(furnished, case.side, case.op)
    if not case.name.endswith("_user_mapping") or case.name.startswith("drop"):  # those talk to the driver, by COPY
        assert sent == offline_sql(case.op, furnished.config)
    invoke(furnished, case.side, case.op.reverse())
    assert furnished.dump(case.side) == dumps[case.side]
    log = furnished.pair.cloud.log_text()[before:]
    for name, value in furnished.environ.items():
        if name in {"FEDERATION_LINK_PASSWORD", "FEDERATION_SERVICE_PASSWORD"}:
            assert (value in sent, value in log) == (False, False)


def test_of_what_the_hospital_fills_no_value_is_sent(furnished: Deployment) -> None:
    wide = ImportForeignSchemaOp("public", "hospital", INTO, {PLAIN: ALL})
    grown = AlterForeignTableOp(VIEWED, INTO, add=tuple(column for column in ALL if column not in BEFORE))
    invoke(furnished, "cloud", wide, grown)
    try:
        with furnished.owner("cloud") as owner:
            for table in (sql.Identifier(INTO, PLAIN), sql.Identifier(INTO, VIEWED)):
                inserting = sql.SQL(
                    "INSERT INTO {} (id, hospital_id, amount) SELECT gen_random_uuid(), {}, 21 "
                    "FROM generate_series(1, 2) RETURNING number, {}, total, moods"
                ).format(table, SITE_ID, sql.Identifier(COUNT.name))
                assert owner.execute(inserting).fetchall() == [(1, 1, 42, None), (2, 2, 42, None)]
                found = sql.SQL("SELECT total FROM {} WHERE number = 2 AND {} > 1")
                assert owner.execute(found.format(table, sql.Identifier(COUNT.name))).fetchall() == [(42,)]
        with furnished.owner("local") as owner:
            owner.execute(sql.SQL("TRUNCATE {}, {} RESTART IDENTITY").format(*map(sql.Identifier, (PLAIN, VIEWED))))
    finally:
        invoke(furnished, "cloud", grown.reverse(), wide.reverse())


def test_a_column_becomes_one_that_the_hospital_numbers_and_back(furnished: Deployment) -> None:
    """As an ordinary column of the foreign table it is sent as NULL, which the hospital refuses."""
    ordinary = ImportForeignSchemaOp("public", "hospital", INTO, {PLAIN: (*BEFORE, NUMBER_WAS, COUNT_WAS)})
    (numbered,) = (case.op for case in CASES if case.name == "alter_columns_that_the_hospital_numbers")
    insert = sql.SQL(
        "INSERT INTO {} (id, hospital_id, amount) VALUES (gen_random_uuid(), {}, 1) RETURNING number IS NOT NULL"
    ).format(sql.Identifier(INTO, PLAIN), SITE_ID)
    invoke(furnished, "cloud", ordinary)
    try:
        before = furnished.dump("cloud")
        for _ in range(2):  # the columns' order changes
            with furnished.owner("cloud") as owner, pytest.raises(psycopg.errors.GeneratedAlways):
                owner.execute(insert)
            assert invoke(furnished, "cloud", numbered) == offline_sql(numbered, furnished.config)
            with furnished.owner("cloud") as owner:
                assert owner.execute(insert).fetchone() == (True,)
            invoke(furnished, "cloud", numbered.reverse())
            assert _lines(furnished.dump("cloud")) == _lines(before)
        unchanged = AlterForeignTableOp(PLAIN, INTO, alter=((NUMBER, NUMBER),), ask=False)
        assert invoke(furnished, "cloud", unchanged) == offline_sql(unchanged) == ""
    finally:
        invoke(furnished, "cloud", ordinary.reverse())
        with furnished.owner("local") as owner:
            owner.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(sql.Identifier(PLAIN)))


def _lines(dump: str) -> list[str]:
    return sorted(line.rstrip(",") for line in dump.splitlines())


def test_what_is_wrong_with_a_numbered_column_is_said(furnished: Deployment) -> None:
    for column, said in (
        (sa.Column("number", sa.Integer(), sa.Identity()), "is bigint NOT NULL at the hospital and declared integer"),
        (sa.Column("number", sa.BigInteger(), autoincrement=True), "and declared bigint"),
        (sa.Column("last", postgresql.JSONB(), sa.Identity()), "is jsonb at the hospital and declared jsonb NOT NULL"),
    ):
        with pytest.raises(VerificationFailed) as raised:
            invoke(furnished, "cloud", ImportForeignSchemaOp("public", "hospital", INTO, {PLAIN: (column,)}))
        assert said in raised.value.message


@pytest.mark.parametrize(
    ("table", "column"), [("visit", "id"), ("t" * 40, "c" * 40), ("ä" * 31, "c" * 10), ("t" * 3, "ß" * 30)]
)
def test_the_sequence_of_a_serial_column_is_called_what_the_server_calls_it(
    furnished: Deployment, table: str, column: str
) -> None:
    with furnished.superuser("local") as superuser, superuser.transaction(force_rollback=True):
        names = sql.Identifier(table), sql.Identifier(column)
        superuser.execute(sql.SQL("CREATE TABLE public.{} ({} serial)").format(*names))
        found = superuser.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace "
            "ORDER BY oid DESC LIMIT 1"
        ).fetchone()
    assert found == (sequence_name(table, column),)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (
            sa.Column("amount", sa.Numeric(12, 2), nullable=False),
            "is numeric(10,2) NOT NULL at the hospital and declared",
        ),
        (sa.Column("amount", sa.Numeric(10, 2)), "and declared numeric(10,2)"),
        (
            sa.Column("amount", sa.Numeric(10, 2), sa.Computed("1"), nullable=False),
            "declared numeric(10,2) NOT NULL GEN",
        ),
        (sa.Column("total", sa.Numeric(12, 2)), "is numeric(12,2) GENERATED at the hospital"),
        (sa.Column(ODD_COLUMN, sa.Text()), 'is text COLLATE "C" at the hospital and declared text'),
        (sa.Column("missing", sa.Text()), "is missing at the hospital"),
    ],
    ids=["type", "nullability", "generated", "not generated", "collation", "missing"],
)
def test_a_column_that_arrives_otherwise_than_declared_is_said(
    furnished: Deployment, column: sa.Column[Any], said: str
) -> None:
    for op in (
        ImportForeignSchemaOp("public", "hospital", INTO, {PLAIN: (column,)}),
        AlterForeignTableOp(LINKED, INTO, add=(column,)),
        AlterForeignTableOp(LINKED, INTO, alter=((column, column),)),
    ):
        with pytest.raises(VerificationFailed) as raised:
            invoke(furnished, "cloud", op)
        assert said in raised.value.message
        assert column.name in raised.value.message


def test_retyping_a_column_that_a_view_reads_is_refused_naming_the_view(furnished: Deployment) -> None:
    with pytest.raises(Refused) as raised:
        invoke(furnished, "cloud", AlterForeignTableOp(VIEWED, INTO, alter=((AMOUNT, AMOUNT_WAS),), ask=False))
    assert VIEWED.replace('"', '""') in raised.value.message
    assert "amount" in raised.value.message
    dropping = AlterForeignTableOp(VIEWED, INTO, drop=(AMOUNT,))
    with pytest.raises(Refused, match="view"):
        invoke(furnished, "cloud", dropping)


def test_what_a_view_reads_may_become_nullable(furnished: Deployment) -> None:
    loose = AlterForeignTableOp(VIEWED, INTO, alter=((AMOUNT, sa.Column("amount", AMOUNT.type)),), ask=False)
    invoke(furnished, "cloud", loose)
    invoke(furnished, "cloud", loose.reverse())


def test_a_mapping_is_altered_and_no_log_holds_the_password(furnished: Deployment) -> None:
    op = AlterUserMappingOp("service_role", "hospital", LINK)
    options = "SELECT umoptions::text FROM pg_user_mappings WHERE usename = 'service_role'"
    with furnished.superuser("cloud") as superuser:
        before = superuser.execute(options).fetchone()
        invoke(furnished, "cloud", op)
        after = superuser.execute(options).fetchone()
        assert before is not None
        assert after is not None
        assert furnished.config.link.user in after[0]
        assert furnished.environ["FEDERATION_LINK_PASSWORD"] in after[0]
        superuser.execute("SELECT 'the log is read'")
    log = furnished.pair.cloud.log_text()
    assert "the log is read" in log
    assert furnished.environ["FEDERATION_LINK_PASSWORD"] not in log
    invoke(furnished, "cloud", AlterUserMappingOp("service_role", "hospital", SERVICE))


@pytest.mark.parametrize("key", ["host", "port", "dbname", "options", "sslrootcert"])
def test_the_deployments_options_are_not_the_migrations(furnished: Deployment, key: str) -> None:
    for op in (
        CreateForeignServerOp("other", {key: "x"}),
        AlterForeignServerOp("hospital", set={key: "x"}),
        AlterForeignServerOp("hospital", drop=(key,)),
    ):
        with pytest.raises(Refused, match=key):
            offline_sql(op, furnished.config)


def test_grants_of_others_survive_a_rebuild_and_withdrawn_ones_do_not(furnished: Deployment) -> None:
    view = sql.Identifier("public", VIEWED)
    privileges = (
        "SELECT grantee::text, privilege_type::text FROM information_schema.table_privileges "
        "WHERE table_schema = 'public' AND table_name = %s AND grantee <> 'postgres' ORDER BY 1, 2"
    )
    with furnished.owner("cloud") as owner:
        owner.execute(sql.SQL("GRANT DELETE ON {} TO anon").format(view))
        invoke(furnished, "cloud", ReplaceRLSViewOp(SHORTER, VIEW))
        assert owner.execute(privileges, [VIEWED]).fetchall() == [("anon", "DELETE"), ("authenticated", "SELECT")]
        invoke(furnished, "cloud", ReplaceRLSViewOp(VIEW, SHORTER))
        owner.execute(sql.SQL("REVOKE DELETE ON {} FROM anon").format(view))
        assert owner.execute(privileges, [VIEWED]).fetchall() == [
            ("authenticated", "INSERT"),
            ("authenticated", "SELECT"),
            (ODD_ROLE, "SELECT"),
        ]
