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
    CREATE_TABLE,
    DOSE,
    FURNISHING,
    INTO,
    LINKED,
    MOOD,
    ODD_COLUMN,
    ODD_ROLE,
    PLAIN,
    VIEWED,
    Case,
    Side,
    offline_sql,
    online,
)
from psycopg import sql
from sqlalchemy import event

from federation.databases import connect
from federation.errors import PreconditionMissing, Refused, VerificationFailed, from_database
from federation.operations import LINK
from federation.operations.foreign_tables import AlterForeignTableOp, ImportForeignSchemaOp
from federation.operations.servers import AlterForeignServerOp, CreateForeignServerOp
from federation.operations.types import CreateTypeOp
from federation.operations.user_mappings import AlterUserMappingOp
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from deployments import Deployment, Deployments


@contextmanager
def invoking(deployment: Deployment, side: Side) -> Iterator[Operations]:
    """One transaction of the owner."""
    with connect(deployment.config, side) as connection, connection.begin():
        with online(connection, deployment.config) as operations:
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
    sent = invoke(furnished, case.side, case.op)
    if not case.name.endswith("_user_mapping") or case.name.startswith("drop"):  # those talk to the driver, by COPY
        assert sent == offline_sql(case.op, furnished.config)
    invoke(furnished, case.side, case.op.reverse())
    assert furnished.dump(case.side) == dumps[case.side]
    log = furnished.pair.cloud.log_text()
    for name, value in furnished.environ.items():
        if name in {"FEDERATION_LINK_PASSWORD", "FEDERATION_SERVICE_PASSWORD"}:
            assert value not in sent + log
