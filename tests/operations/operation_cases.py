"""Every operation once, with names and values that a careless quoting would not survive."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import alembic.op
import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.drift.compare.grants import sequence_name
from federation.operations import LINK, SERVICE
from federation.operations.bindings import (
    BindBeforeWriteOp,
    CreateCloudBindingOp,
    CreateLocalBindingOp,
    CreateSiteCheckOp,
    DropBindBeforeWriteOp,
    DropSiteCheckOp,
)
from federation.operations.foreign_tables import (
    AlterForeignTableOp,
    DropForeignTablesOp,
    ImportForeignSchemaOp,
    SetForeignTableOptionsOp,
    SetStatisticsTargetOp,
)
from federation.operations.grants import GrantOp, RevokeOp
from federation.operations.indexes import CreateIndexConcurrentlyOp
from federation.operations.locking import LockTablesOp
from federation.operations.policies import (
    AlterPolicyOp,
    CreatePolicyOp,
    DisableRowLevelSecurityOp,
    EnableRowLevelSecurityOp,
)
from federation.operations.run import OPTION, Run
from federation.operations.servers import AlterForeignServerOp, CreateForeignServerOp, DropForeignServerOp
from federation.operations.types import AddEnumValueOp, CreateTypeOp, DropTypeOp
from federation.operations.user_mappings import AlterUserMappingOp, CreateUserMappingOp, DropUserMappingOp
from federation.operations.views import CreateRLSViewOp, DropRLSViewOp, ReplaceRLSViewOp, RLSView

Side = Literal["local", "cloud"]

PLAIN, LINKED, VIEWED = ('we"ird Täble', 'we"ird Täble 2 {x}', 'we"ird Täble 3 %s :x')
"""Three tables of one shape: one that nothing is done to yet, one with a foreign table, one with a view too."""
ODD_COLUMN = 'Größe "%" :x {y}'
ODD_ROLE = 'röle "x" % $$'
VALUE = "it's a \\ % :x {y}\t$$ €"
QUOTED = "'it''s a \\ % :x {y}\t$$ €'"
INTO = "federation_link"

MOOD = sa.Enum("calm", VALUE, name='mo"od %', schema="public", create_type=False)
DOSE = postgresql.DOMAIN(
    'Dösis "%"', sa.Numeric(6, 2), schema="public", check=f"VALUE > 0 AND VALUE::text <> {QUOTED}", create_type=False
)
NEW_TYPE = postgresql.ENUM("a", VALUE, name='new "%" :x', schema="public", create_type=False)
NEW_DOMAIN = postgresql.DOMAIN(
    'new "dömain" %',
    sa.String(20),
    schema="public",
    collation="C",
    default=sa.text(QUOTED.replace(":", r"\:")),
    not_null=True,
    constraint_name='ch"eck',
    check=f"VALUE <> {QUOTED}",
    create_type=False,
)

KEYS = (sa.Column("id", sa.Uuid(), nullable=False), sa.Column("hospital_id", sa.Uuid(), nullable=False))
NAME = sa.Column(ODD_COLUMN, sa.Text(collation="C"))
AMOUNT = sa.Column("amount", sa.Numeric(10, 2), nullable=False)
AMOUNT_WAS = sa.Column("amount", sa.Numeric(8, 1))
MORE = (
    sa.Column("tags", postgresql.ARRAY(sa.String(20))),
    sa.Column("mood", MOOD),
    sa.Column("moods", postgresql.ARRAY(MOOD)),
    sa.Column("dose", DOSE),
    sa.Column("seen", postgresql.TIMESTAMP(timezone=True, precision=3)),
    sa.Column("total", sa.Numeric(12, 2), sa.Computed("amount * 2", persisted=True)),
)
NUMBER = sa.Column("number", sa.BigInteger(), sa.Identity())
COUNT = sa.Column('"count" % :x', sa.Integer(), autoincrement=True, nullable=False)
NUMBER_WAS, COUNT_WAS = (sa.Column(column.name, column.type, nullable=False) for column in (NUMBER, COUNT))
LAST = sa.Column("last", postgresql.JSONB())
ALL = (*KEYS, NAME, AMOUNT, *MORE, NUMBER, COUNT, LAST)
BEFORE = (*KEYS, NAME, AMOUNT, LAST)

CREATE_TABLE = """
    CREATE TABLE public.{table} (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), hospital_id uuid NOT NULL, {column} text COLLATE "C",
        amount numeric(10, 2) NOT NULL, tags varchar(20)[], mood public.{mood}, moods public.{mood}[],
        dose public.{dose}, seen timestamptz(3), total numeric(12, 2) GENERATED ALWAYS AS (amount * 2) STORED,
        number bigint GENERATED ALWAYS AS IDENTITY, {count} serial, last jsonb
    )
"""

VIEW = RLSView(
    VIEWED,
    ("id", "hospital_id", ODD_COLUMN, "amount"),
    predicate=f'hospital_id = (SELECT federation.bind_claims()) AND "{ODD_COLUMN.replace(chr(34), chr(34) * 2)}" '
    f"IS DISTINCT FROM {QUOTED}",
    defaults={"id": "gen_random_uuid()", ODD_COLUMN: QUOTED},
    grants={"authenticated": ("SELECT", "INSERT"), ODD_ROLE: ("SELECT",)},
    comment=VALUE,
)
LONGER = replace(VIEW, columns=(*VIEW.columns, "last"), defaults={ODD_COLUMN: QUOTED}, comment=None)
SHORTER = replace(VIEW, columns=VIEW.columns[:3], grants={"authenticated": ("SELECT",)})

POLICY = CreatePolicyOp("own röws", LINKED, "(SELECT auth.uid()) = hospital_id", roles=(LINK, SERVICE))
CHECKED = replace(POLICY, using=f"hospital_id IS NOT NULL AND {QUOTED} IS NOT NULL", with_check="true", roles=(LINK,))
READING = replace(POLICY, command="SELECT", roles=("public",))
RESTRICTIVE = replace(POLICY, restrictive=True)

INDEX = CreateIndexConcurrentlyOp(
    'i"ndex % :x',
    PLAIN,
    (ODD_COLUMN, "amount"),
    unique=True,
    where=f"\"hospital_id\" IS NOT NULL OR {QUOTED} = '%'",
    using="btree",
)

SERVER = CreateForeignServerOp('we"ird sërver %', {"fetch_size": "10", "application_name": VALUE})
IMPORT = ImportForeignSchemaOp("public", "hospital", INTO, {LINKED: BEFORE, VIEWED: BEFORE})

FURNISHING: dict[Side, list[MigrateOperation]] = {
    "local": [
        EnableRowLevelSecurityOp(LINKED),
        POLICY,
        CreateSiteCheckOp(LINKED, "hospital_id"),
        *(GrantOp(("SELECT", "INSERT"), table, (LINK, SERVICE)) for table in (PLAIN, LINKED, VIEWED)),
        *(
            GrantOp(("USAGE",), sequence_name(table, COUNT.name), (LINK, SERVICE), "SEQUENCE")
            for table in (PLAIN, VIEWED)
        ),
    ],
    "cloud": [
        SERVER,
        IMPORT,
        BindBeforeWriteOp(VIEWED, INTO),
        CreateRLSViewOp(VIEW),
    ],
}
"""What there is before each case, made by operations too."""


@dataclass(frozen=True)
class Case:
    """An operation on one side; ``alone`` when a database that has what it needs is the chains' to make."""

    name: str
    side: Side
    op: MigrateOperation
    alone: bool = False


CASES = [
    Case("lock_tables", "local", LockTablesOp((PLAIN, LINKED))),
    Case("create_foreign_server", "cloud", replace(SERVER, name='anöther "server"')),
    Case(
        "alter_foreign_server",
        "cloud",
        AlterForeignServerOp(
            "hospital",
            add={"application_name": VALUE},
            set={"fetch_size": "5000"},
            drop=("use_remote_estimate",),
            was={"fetch_size": "2000", "use_remote_estimate": "false"},
        ),
    ),
    Case("drop_foreign_server", "cloud", DropForeignServerOp(SERVER.name, SERVER.options)),
    Case("create_user_mapping", "cloud", CreateUserMappingOp(ODD_ROLE, SERVER.name, LINK)),
    Case("alter_user_mapping", "cloud", AlterUserMappingOp("service_role", "hospital", LINK, SERVICE)),
    Case("drop_user_mapping", "cloud", DropUserMappingOp("current_user", "hospital", SERVICE)),
    Case(
        "import_foreign_schema",
        "cloud",
        ImportForeignSchemaOp("public", "hospital", INTO, {PLAIN: ALL}, {"import_default": "false"}),
    ),
    Case(
        "drop_foreign_tables",
        "cloud",
        DropForeignTablesOp(INTO, (LINKED,), replace(IMPORT, tables={LINKED: BEFORE})),
    ),
    Case("add_and_drop_columns", "cloud", AlterForeignTableOp(LINKED, INTO, add=(*MORE, NUMBER, COUNT), drop=(LAST,))),
    Case(
        "alter_columns_that_the_hospital_numbers",
        "cloud",
        AlterForeignTableOp(PLAIN, INTO, alter=((NUMBER_WAS, NUMBER), (COUNT_WAS, COUNT))),
        alone=True,
    ),
    Case(
        "alter_columns_on_the_way_up",
        "cloud",
        AlterForeignTableOp(VIEWED, INTO, alter=((AMOUNT_WAS, AMOUNT),), options={"import_collate": "true"}),
        alone=True,
    ),
    Case(
        "alter_columns_on_the_way_down",
        "cloud",
        AlterForeignTableOp(LINKED, INTO, alter=((AMOUNT, AMOUNT_WAS),), ask=False),
    ),
    Case("set_statistics_target", "cloud", SetStatisticsTargetOp(LINKED, INTO, ("id", ODD_COLUMN), 100, 0)),
    Case(
        "set_foreign_table_options",
        "cloud",
        SetForeignTableOptionsOp(LINKED, INTO, {"fetch_size": "100", "async_capable": "false"}),
    ),
    Case("bind_before_write", "cloud", BindBeforeWriteOp(LINKED, INTO)),
    Case("drop_bind_before_write", "cloud", DropBindBeforeWriteOp(VIEWED, INTO)),
    Case("create_rls_view", "cloud", CreateRLSViewOp(replace(VIEW, name=LINKED))),
    Case("replace_rls_view_in_place", "cloud", ReplaceRLSViewOp(LONGER, VIEW)),
    Case("replace_rls_view_by_rebuilding", "cloud", ReplaceRLSViewOp(SHORTER, VIEW)),
    Case("drop_rls_view", "cloud", DropRLSViewOp(VIEW)),
    Case("grant_on_a_schema", "cloud", GrantOp(("USAGE",), INTO, (ODD_ROLE, "public"), "SCHEMA")),
    Case("revoke_from_a_view", "cloud", RevokeOp(("SELECT",), VIEWED, (ODD_ROLE,))),
    Case("create_enum", "cloud", CreateTypeOp(NEW_TYPE)),
    Case("create_domain", "cloud", CreateTypeOp(NEW_DOMAIN)),
    Case("add_enum_value", "cloud", AddEnumValueOp(str(MOOD.name), f"{VALUE} 2", "public", after=VALUE), alone=True),
    Case("add_first_enum_value", "cloud", AddEnumValueOp(str(MOOD.name), "", before="calm"), alone=True),
    Case(
        "keep_enum_value",
        "cloud",
        AddEnumValueOp(str(MOOD.name), f"{VALUE} 2", "public", after=VALUE).reverse(),
        alone=True,
    ),
    Case("drop_enum", "cloud", DropTypeOp(MOOD)),
    Case("drop_domain", "cloud", DropTypeOp(DOSE)),
    Case(
        "create_cloud_binding", "cloud", CreateCloudBindingOp("v1", "hospital", ("authenticated", ODD_ROLE)), alone=True
    ),
    Case(
        "drop_cloud_binding",
        "cloud",
        CreateCloudBindingOp("v1", "hospital", ("authenticated", ODD_ROLE)).reverse(),
        alone=True,
    ),
    Case("create_local_binding", "local", CreateLocalBindingOp("v1"), alone=True),
    Case("drop_local_binding", "local", CreateLocalBindingOp("v1").reverse(), alone=True),
    Case("enable_row_level_security", "local", EnableRowLevelSecurityOp(PLAIN)),
    Case("disable_row_level_security", "local", DisableRowLevelSecurityOp(LINKED)),
    Case("create_policy", "local", replace(CHECKED, name='p"ölicy % :x', table=PLAIN)),
    Case("alter_policy_in_place", "local", AlterPolicyOp(CHECKED, replace(POLICY, roles=(LINK, SERVICE)))),
    Case("alter_policy_by_making_it_anew", "local", AlterPolicyOp(READING, POLICY)),
    Case("create_restrictive_policy", "local", replace(RESTRICTIVE, table=PLAIN)),
    Case("alter_policy_into_a_restrictive_one", "local", AlterPolicyOp(RESTRICTIVE, POLICY)),
    Case("drop_policy", "local", POLICY.reverse()),
    Case("create_site_check", "local", CreateSiteCheckOp(PLAIN, "hospital_id")),
    Case("drop_site_check", "local", DropSiteCheckOp(LINKED, "hospital_id")),
    Case("grant", "local", GrantOp(("UPDATE", "DELETE"), PLAIN, (LINK, SERVICE))),
    Case("grant_on_a_sequence", "local", GrantOp(("USAGE",), sequence_name(LINKED, COUNT.name), (LINK,), "SEQUENCE")),
    Case("create_index_concurrently", "local", INDEX, alone=True),
    Case(
        "create_a_plain_index_concurrently",
        "local",
        CreateIndexConcurrentlyOp("plain", "hospital_patients", ("name",)),
        alone=True,
    ),
    Case("drop_index_concurrently", "local", INDEX.reverse(), alone=True),
    Case("revoke", "local", RevokeOp(("SELECT", "INSERT"), PLAIN, (SERVICE,))),
]

ROOT = Path(__file__).parent.parent.parent
SECRETS = {"FEDERATION_LINK_PASSWORD": "link-secret-1", "FEDERATION_SERVICE_PASSWORD": "service-secret-2"}
CONFIG = Config.load(
    ROOT / "federation.toml",
    {
        "FEDERATION_LOCAL_URL": "postgresql://owner@hospital.example/hospital",
        "FEDERATION_CLOUD_URL": "postgresql://owner@cloud.example/app",
        "FEDERATION_LINK_HOST": "hospital.example",
        "FEDERATION_LINK_PORT": "5432",
        "FEDERATION_LINK_DBNAME": "hospital",
        "FEDERATION_SITE_ID": "00000000-0000-0000-0000-000000000001",
        **SECRETS,
    },
)


@contextmanager
def online(connection: Connection, config: Config) -> Iterator[Operations]:
    """Operations on a connection, installed as ``alembic.op``."""
    context = MigrationContext.configure(connection, opts={OPTION: Run(config, "local")})
    with Operations.context(context) as operations:
        yield operations


@contextmanager
def offline(config: Config) -> Iterator[tuple[Operations, io.StringIO]]:
    """Operations as in ``--sql``, installed as ``alembic.op``, and what they write."""
    written = io.StringIO()
    opts = {OPTION: Run(config, "local"), "as_sql": True, "output_buffer": written, "literal_binds": True}
    context = MigrationContext.configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, opts=opts)
    with Operations.context(context) as operations:
        yield operations, written


def offline_sql(op: MigrateOperation, config: Config = CONFIG) -> str:
    with offline(config) as (operations, written):
        operations.invoke(op)
    return written.getvalue()


def autogenerating(**opts: object) -> AutogenContext:
    """What renderers are handed, with Alembic's own defaults."""
    defaults = {"sqlalchemy_module_prefix": "sa.", "alembic_module_prefix": "op.", "user_module_prefix": None}
    return AutogenContext(MigrationContext.configure(dialect_name="postgresql"), opts={**defaults, **opts})


def code(op: MigrateOperation) -> str:
    """What autogenerate writes: the imports, and the call."""
    context = autogenerating()
    rendered = renderers.dispatch(op)(context, op)
    assert isinstance(rendered, str)
    imports = {"from alembic import op", *context.imports}
    if "sa." in rendered:
        imports.add("import sqlalchemy as sa")
    return "\n".join(sorted(imports)) + "\n\n" + rendered + "\n"


def executed_offline(text: str, config: Config = CONFIG) -> str:
    """The SQL of rendered code."""
    assert alembic.op is not None
    with offline(config) as (_, written):
        exec(text, {})  # noqa: S102
    return written.getvalue()
