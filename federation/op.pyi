"""Everything of ``alembic.op``, and federation's operations with their types.

Written by ``python tests/operations/write_stub.py``: not to be edited.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from alembic.op import *
from sqlalchemy import Column

from federation.operations.deployment import LinkRole, Role
from federation.operations.grants import ObjectKind, Privilege
from federation.operations.policies import Command, PolicyWas
from federation.operations.types import NamedType
from federation.operations.views import RLSView

def add_enum_value(
    type_name: str,
    value: str,
    *,
    schema: str | None = None,
    before: str | None = None,
    after: str | None = None,
) -> None:
    """Add the label ``value`` to an enum, beside another one or at the end; one that is there stays where it is.

    Rows, defaults and policies of the same release cannot use it: PostgreSQL wants it committed first.

        op.add_enum_value("queue_status", "postponed", schema="public", after="pending")

    https://www.postgresql.org/docs/current/sql-altertype.html
    """

def alter_foreign_server(
    name: str,
    *,
    add: Mapping[str, str] = {},
    set: Mapping[str, str] = {},
    drop: Sequence[str] = (),
    was: Mapping[str, str] = {},
) -> None:
    """Change the options of the foreign server ``name``; ``was`` is what reversing needs.

    Raises Refused for an option that is the deployment's: `federation link apply` sets those.

        op.alter_foreign_server("hospital", set={"fetch_size": "5000"}, was={"fetch_size": "1000"})

    https://www.postgresql.org/docs/current/sql-alterserver.html
    """

def alter_foreign_table(
    table: str,
    *,
    schema: str,
    add: Sequence[Column[Any]] = (),
    drop: Sequence[Column[Any]] = (),
    alter: Sequence[tuple[Column[Any], Column[Any]]] = (),
    ask: bool = True,
    options: Mapping[str, str] = {},
) -> None:
    """Add, drop and alter (old column, new column) columns of a foreign table.

    Adding and altering ask the hospital, dropping does not; where the cloud goes first (the downgrade of an
    altered column) ``ask=False``. ``options`` are IMPORT's own, since that is how it is asked. The database
    raises ZF007 (exit code 7), naming table and column, when the hospital does not have a column as declared; a
    column whose type a view depends on, or one that becomes ``sa.Identity()`` or stops being it, is refused (exit
    code 8), naming the dependents: drop the view, alter, and create the view again.

        op.alter_foreign_table("hospital_patients", schema="federation_link", add=[sa.Column("phone", sa.Text)])
        op.alter_foreign_table("hospital_patients", schema="federation_link",
                               alter=[(sa.Column("age", sa.Integer), sa.Column("age", sa.SmallInteger))])

    https://www.postgresql.org/docs/current/sql-alterforeigntable.html
    """

def alter_policy(
    name: str,
    table: str,
    *,
    was: PolicyWas,
    using: str | None = None,
    with_check: str | None = None,
    command: Command = "ALL",
    roles: tuple[Role, ...] = ("public",),
    schema: str = "public",
    restrictive: bool = False,
) -> None:
    """Change a policy to what create_policy would make of the same arguments; ``was`` says what it is now.

    ALTER POLICY can neither change the command, nor make a policy restrictive or permissive, nor take an
    expression away: such a policy is made anew.

        op.alter_policy("own rows", "hospital_patients", using="(SELECT auth.uid()) = hospital_id",
                        was={"using": "auth.uid() = hospital_id"})

    https://www.postgresql.org/docs/current/sql-alterpolicy.html
    """

def alter_user_mapping(
    cloud_role: str,
    server: str,
    link_role: LinkRole,
    *,
    was: LinkRole | None = None,
) -> None:
    """Give the mapping of ``cloud_role`` another link role, user and password; ``was`` is what reversing needs.

    A changed password needs no migration: `federation link apply` sends it.

        op.alter_user_mapping("service_role", "hospital", SERVICE, was=LINK)

    https://www.postgresql.org/docs/current/sql-alterusermapping.html
    """

def bind_before_write(
    table: str,
    *,
    schema: str,
) -> None:
    """Name the caller before writes to a foreign table; the trigger goes with the table when that is dropped.

    op.bind_before_write("hospital_patients", schema="federation_link")

    https://www.postgresql.org/docs/current/sql-createtrigger.html
    """

def create_cloud_binding(
    version: str,
    *,
    server: str,
    callers: tuple[Role, ...],
) -> None:
    """Create the cloud's half, frozen ``version``; ``callers`` are the roles that may ask through ``server``.

    op.create_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))

    Source: federation/binding/<version>/cloud.sql
    """

def create_foreign_server(
    name: str,
    **options: str,
) -> None:
    """Create the foreign server ``name`` with ``options`` of postgres_fdw.

    Raises Refused for an option that is the deployment's (host, port, dbname, timeouts, …).

        op.create_foreign_server("hospital", fetch_size="1000")

    https://www.postgresql.org/docs/current/sql-createserver.html
    """

def create_index_concurrently(
    name: str,
    table: str,
    columns: Sequence[str],
    *,
    schema: str = "public",
    unique: bool = False,
    where: str | None = None,
    using: str | None = None,
) -> None:
    """Create an index of ``columns`` (names) without locking out writes; ``where`` is an SQL expression.

    It comes before anything else that its step writes, and only in the local chain: foreign tables have no
    indexes. The database raises ZF008 (exit code 8) when the step has written already, or when something else of
    that name is there; an invalid index left by a killed run is dropped and built again. It waits for
    transactions older than itself, up to ``lock_timeout``, and can then be run again.

        op.create_index_concurrently("hospital_patients_name_idx", "hospital_patients", ["name"])

    https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY
    """

def create_local_binding(
    version: str,
    *,
    callers: tuple[Role, ...] = (),
) -> None:
    """Create the hospital's half, frozen ``version``; the site's own account is listed from the start.

    An account whose role is one of ``callers`` takes that role at the hospital, as PostgREST takes it in the cloud,
    so that policies written ``TO authenticated`` hold there; the role needs privileges on the tables then.

    op.create_local_binding("v1", callers=("authenticated",))

    Source: federation/binding/<version>/local.sql
    """

def create_policy(
    name: str,
    table: str,
    *,
    using: str | None = None,
    with_check: str | None = None,
    command: Command = "ALL",
    roles: tuple[Role, ...] = ("public",),
    schema: str = "public",
    restrictive: bool = False,
) -> None:
    """Create a policy; ``using`` and ``with_check`` are SQL expressions over the table's columns.

    A row needs one of the permissive policies and all of the restrictive ones.

        op.create_policy("own rows", "hospital_patients", using="(SELECT auth.uid()) = hospital_id")

    https://www.postgresql.org/docs/current/sql-createpolicy.html
    """

def create_rls_view(
    view: RLSView,
) -> None:
    """Create ``view``; refused when something of that name is in the way.

    op.create_rls_view(RLSView("hospital_patients", ("id", "hospital_id", "name"),
                               "(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)"))

    https://www.postgresql.org/docs/current/sql-createview.html
    """

def create_site_check(
    table: str,
    column: str,
    *,
    schema: str = "public",
) -> None:
    """Add ``CHECK (column = <this site>)`` as ``<table>_site_check``.

    op.create_site_check("hospital_patients", "hospital_id")

    https://www.postgresql.org/docs/current/ddl-constraints.html
    """

def create_type(
    type_: NamedType,
) -> None:
    """Create the enum or domain ``type_``; refused when something of that name is in the way.

        op.create_type(sa.Enum("pending", "done", name="queue_status", schema="public", create_type=False))

    https://www.postgresql.org/docs/current/sql-createtype.html
    https://www.postgresql.org/docs/current/sql-createdomain.html
    """

def create_user_mapping(
    cloud_role: str,
    server: str,
    link_role: LinkRole,
) -> None:
    """Map ``cloud_role`` (a name, ``"public"`` or ``"current_user"``) to LINK or SERVICE on ``server``.

    Raises PreconditionMissing when the deployment has no password for it.

        op.create_user_mapping("public", "hospital", LINK)

    https://www.postgresql.org/docs/current/sql-createusermapping.html
    """

def disable_row_level_security(
    table: str,
    *,
    schema: str = "public",
) -> None:
    """Disable row-level security of ``table``.

    op.disable_row_level_security("hospital_patients")

    https://www.postgresql.org/docs/current/ddl-rowsecurity.html
    """

def drop_bind_before_write(
    table: str,
    *,
    schema: str,
) -> None:
    """Drop the trigger that bind_before_write made.

    op.drop_bind_before_write("hospital_patients", schema="federation_link")

    https://www.postgresql.org/docs/current/sql-droptrigger.html
    """

def drop_cloud_binding(
    version: str,
    *,
    server: str,
    callers: tuple[Role, ...],
) -> None:
    """Drop the cloud's half, frozen ``version``.

    op.drop_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))

    Source: federation/binding/<version>/cloud_drop.sql
    """

def drop_foreign_server(
    name: str,
    **options: str,
) -> None:
    """Drop the foreign server ``name``; PostgreSQL refuses while anything depends on it.

    ``options`` are what reversing needs.

        op.drop_foreign_server("hospital", fetch_size="1000")

    https://www.postgresql.org/docs/current/sql-dropserver.html
    """

def drop_foreign_tables(
    schema: str,
    *tables: str,
) -> None:
    """Drop foreign tables of ``schema``; PostgreSQL refuses while a view reads one.

    op.drop_foreign_tables("federation_link", "hospital_patients")

    https://www.postgresql.org/docs/current/sql-dropforeigntable.html
    """

def drop_index_concurrently(
    name: str,
    table: str,
    columns: Sequence[str],
    *,
    schema: str = "public",
    unique: bool = False,
    where: str | None = None,
    using: str | None = None,
) -> None:
    """Drop an index without locking out anyone; the arguments are those that created it, for reversing.

    Only in the local chain. Within its step the index gets another name; it is dropped after the COMMIT, or by the
    next run when that fails, and until then a unique one refuses duplicates. An index that is gone already is no
    error. The database raises ZF008 (exit code 8) when something else of that name is there, a constraint stands
    on the index, or its table is partitioned.

        op.drop_index_concurrently("hospital_patients_name_idx", "hospital_patients", ["name"])

    https://www.postgresql.org/docs/current/sql-dropindex.html
    """

def drop_local_binding(
    version: str,
    *,
    callers: tuple[Role, ...] = (),
) -> None:
    """Drop the hospital's half, frozen ``version``.

    op.drop_local_binding("v1", callers=("authenticated",))

    Source: federation/binding/<version>/local_drop.sql
    """

def drop_policy(
    name: str,
    table: str,
    *,
    schema: str = "public",
) -> None:
    """Drop a policy.

    op.drop_policy("own rows", "hospital_patients")

    https://www.postgresql.org/docs/current/sql-droppolicy.html
    """

def drop_rls_view(
    view: RLSView,
) -> None:
    """Drop ``view``; PostgreSQL refuses while anything depends on it.

    op.drop_rls_view(RLSView("hospital_patients", ("id", "hospital_id", "name"),
                             "(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)"))

    https://www.postgresql.org/docs/current/sql-dropview.html
    """

def drop_site_check(
    table: str,
    column: str,
    *,
    schema: str = "public",
) -> None:
    """Drop the constraint that create_site_check made; ``column`` is what reversing needs.

    op.drop_site_check("hospital_patients", "hospital_id")

    https://www.postgresql.org/docs/current/sql-altertable.html
    """

def drop_type(
    type_: NamedType,
) -> None:
    """Drop the enum or domain ``type_``; PostgreSQL refuses while a column is of it.

        op.drop_type(sa.Enum("pending", "done", name="queue_status", schema="public", create_type=False))

    https://www.postgresql.org/docs/current/sql-droptype.html
    https://www.postgresql.org/docs/current/sql-dropdomain.html
    """

def drop_user_mapping(
    cloud_role: str,
    server: str,
    link_role: LinkRole,
) -> None:
    """Drop the mapping of ``cloud_role``; ``link_role`` is what reversing needs.

    op.drop_user_mapping("public", "hospital", LINK)

    https://www.postgresql.org/docs/current/sql-dropusermapping.html
    """

def enable_row_level_security(
    table: str,
    *,
    schema: str = "public",
) -> None:
    """Enable row-level security of ``table``.

    op.enable_row_level_security("hospital_patients")

    https://www.postgresql.org/docs/current/ddl-rowsecurity.html
    """

def grant(
    privileges: tuple[Privilege, ...],
    name: str,
    *,
    to: tuple[Role, ...],
    kind: ObjectKind = "TABLE",
    schema: str = "public",
) -> None:
    """Grant ``privileges`` on ``name``; ``schema`` is that of a table or sequence.

    Who inserts into a table with a serial column needs USAGE on its sequence; an identity column needs nothing.

        op.grant(("SELECT",), "hospital_patients", to=(LINK,))
        op.grant(("USAGE",), "visits_id_seq", to=(LINK,), kind="SEQUENCE")

    https://www.postgresql.org/docs/current/sql-grant.html
    """

def import_foreign_schema(
    remote_schema: str,
    *,
    server: str,
    into: str,
    tables: Mapping[str, Sequence[Column[Any]]],
    options: Mapping[str, str] = {},
) -> None:
    """Import ``tables`` (name to columns) of ``remote_schema`` into the schema ``into``.

    A column with ``sa.Identity()``, or ``autoincrement=True`` for a serial one, is the hospital's to fill: an
    INSERT leaves it out and RETURNING brings its number; to give one is an error (428C9). ``options`` are IMPORT's
    own (``import_collate``: ``"false"`` where the cloud lacks a collation). Every statistics target is 0, ANALYZE
    brings the row count, and nobody is granted anything. The database raises ZF007 (exit code 7), naming table and
    column, when the hospital lacks one or has it with another type, collation or nullability.

        op.import_foreign_schema("public", server="hospital", into="federation_link",
                                 tables={"hospital_patients": [sa.Column("id", sa.UUID, nullable=False)]})

    https://www.postgresql.org/docs/current/sql-importforeignschema.html
    """

def keep_enum_value(
    type_name: str,
    value: str,
    *,
    schema: str | None = None,
    before: str | None = None,
    after: str | None = None,
) -> None:
    """Do nothing: the way down of ``op.add_enum_value``, since PostgreSQL cannot drop a label.

    It goes with its type. Until then it is unused, and the next way up finds it there.

        op.keep_enum_value("queue_status", "postponed", schema="public", after="pending")

    https://www.postgresql.org/docs/current/sql-altertype.html
    """

def lock_tables(
    *tables: str,
    schema: str = "public",
) -> None:
    """Lock tables or views in ACCESS EXCLUSIVE mode, parents before children, within ``lock_timeout`` altogether.

    The first statement of a step that changes several tables. The database raises 55P03 (exit code 5) when it does
    not get all of them in time.

        op.lock_tables("hospital_patients", "hospital_queues")

    https://www.postgresql.org/docs/current/sql-lock.html
    """

def replace_rls_view(
    view: RLSView,
    *,
    was: RLSView,
) -> None:
    """Turn ``was`` into ``view``. In place, what depends on the view stays; a rebuild is refused if anything does.

    Grants that others made on the view survive a rebuild too; one that ``was`` declares and ``view`` does not is
    taken back.

        op.replace_rls_view(replace(PATIENTS, columns=(*PATIENTS.columns, "phone")), was=PATIENTS)

    https://www.postgresql.org/docs/current/sql-createview.html
    """

def revoke(
    privileges: tuple[Privilege, ...],
    name: str,
    *,
    from_: tuple[Role, ...],
    kind: ObjectKind = "TABLE",
    schema: str = "public",
) -> None:
    """Revoke ``privileges`` on ``name``.

    op.revoke(("DELETE",), "hospital_patients", from_=(SERVICE,))

    https://www.postgresql.org/docs/current/sql-revoke.html
    """

def set_foreign_table_options(
    table: str,
    options: Mapping[str, str],
    *,
    schema: str,
    was: Mapping[str, str] = {},
) -> None:
    """Set the options of a foreign table to ``options``; ``was`` is what they were.

    ``schema_name`` and ``table_name`` are the import's: ValueError. With ``use_remote_estimate`` a caller's plan
    says how many rows of others there are.

        op.set_foreign_table_options("hospital_prescriptions", {"fetch_size": "200"}, schema="federation_link")

    https://www.postgresql.org/docs/current/postgres-fdw.html#POSTGRES-FDW-OPTIONS
    """

def set_statistics_target(
    table: str,
    columns: Sequence[str],
    *,
    schema: str,
    target: int = 0,
    was: int = -1,
) -> None:
    """Set the statistics target of ``columns``; ``was`` is what reversing needs.

    Above 0, ANALYZE of a foreign table copies sample values (patients' names) into the cloud's pg_statistic.

        op.set_statistics_target("hospital_patients", ["name"], schema="federation_link")

    https://www.postgresql.org/docs/current/sql-alterforeigntable.html
    """
