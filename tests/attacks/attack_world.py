"""Where the attacks are made: accounts that share a hospital's server, and beside the link a naive one.

The site's CHECK is dropped and a policy per user takes the place of the app's, so that the server holds what it would
not hold otherwise: another account's rows, and another hospital's. Whatever belongs to the victim is recognisable.
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from federation.administration import accounts
from federation.administration.analyze import analyze
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from deployments import Deployment

OTHER_HOSPITAL = "00000000-0000-0000-0000-0000000000ee"


@dataclass(frozen=True)
class Caller:
    """Somebody who asks the API. ``mark`` is how the ids of their rows begin."""

    name: str
    sub: str | None
    role: str = "authenticated"
    rows: int = 0
    mark: str = "-"

    @property
    def claims(self) -> str:
        return json.dumps({"role": self.role} | ({"sub": self.sub} if self.sub else {}))


A = Caller("A", "00000000-0000-0000-0000-00000000000a", rows=300, mark="a0a0a0a0")
B = Caller("B", "00000000-0000-0000-0000-00000000000b", rows=311, mark="b0b0b0b0")
PATIENT = Caller("patient", "00000000-0000-0000-0000-00000000000c", rows=1, mark="c0c0c0c0")
STRANGER = Caller("stranger", "00000000-0000-0000-0000-0000000000ff")
ANON = Caller("anon", None, "anon")
SERVICE = Caller("service_role", None, "service_role")
ATTACKERS = (A, PATIENT, STRANGER, ANON)

ABROAD = 23
"""The victim's rows at another hospital, planted on the same server: even the victim does not get them from here."""

EVERYBODYS = A.rows + B.rows + PATIENT.rows
COUNTS = {B.rows, B.rows + ABROAD, EVERYBODYS, EVERYBODYS + ABROAD, EVERYBODYS + ABROAD - A.rows}
OF_THE_VICTIM = re.compile(
    rf"{B.mark}|Bhanu|Bhopal|555-0177|(?<![\w.-])({'|'.join(map(str, sorted(COUNTS)))})(\.00)?(?![\w.-])"
)
"""An id, a name, a place, a telephone number, or a count that includes the victim's rows (635.00 in EXPLAIN of 18)."""


@dataclass(frozen=True)
class Names:
    """What an attack's {patients}, … stand for."""

    patients: str
    queues: str = "naive.hospital_queues"
    server: str = "naive"
    foreign_patients: str = "naive.hospital_patients"
    function: str = "naive.patients_of_claims"
    owners_view: str = "naive.everybody"

    def fill(self, statement: str) -> str:
        """``statement`` with the names in it. Not by str.format: function bodies and JSON hold braces of their own."""
        return re.sub(r"\{([a-z_]+)\}", lambda match: str(getattr(self, match[1])), statement)


OURS = Names(
    "public.hospital_patients",
    "public.hospital_queues",
    "hospital",
    "federation_link.hospital_patients",
    "public.patients_of_claims",
    "public.patients_of_the_app",
)
AT_THE_HOSPITAL = Names("public.hospital_patients", "public.hospital_queues")
NAIVE = Names("naive.mine")
OPEN = Names("naive.hospital_patients")
OPEN_VIEW = Names("naive.everybody")
BY_SETTING = Names("naive.by_setting")
BY_TABLE = Names("naive.mine", function="naive.patients_of_caller")
IMMUTABLE = Names("naive.by_immutable")
"""Us, and naive ways: a filter in a view, the tutorial itself, a view over it, a filter by a setting, by an IMMUTABLE
function."""

VICTIMS = f"""
    SELECT (SELECT count(*) || ' ' || md5(string_agg(p::text, ',' ORDER BY id)) FROM {{patients}} AS p
            WHERE linked_user_id = '{B.sub}'),
           (SELECT count(*) || ' ' || md5(string_agg(q::text, ',' ORDER BY id)) FROM {{queues}} AS q
            WHERE doctor_id = '{B.sub}')
"""
"""How many rows the victim has, and a sum of them: whatever is written to one of them changes it."""


def marks(output: str) -> set[str]:
    """Whose rows are in it."""
    return {caller.name for caller in (A, B, PATIENT) if caller.mark in output}


def own(caller: Caller) -> set[str]:
    """Whose rows ``caller`` may see."""
    return {"A", "B", "patient"} if caller is SERVICE else ({caller.name} if caller.rows else set())


@dataclass
class World:
    """The deployment, and what must not come out of it."""

    deployment: Deployment
    passwords: tuple[str, ...] = field(repr=False, default=())

    @contextmanager
    def pooled(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection of PostgREST's pool: the authenticator's, for one caller after the other."""
        url = self.deployment.pair.authenticator_url(self.deployment.cloud_dbname)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            yield connection

    @contextmanager
    def remotely(self, statement: str, undo: str) -> Iterator[None]:
        """The hospital with something changed by its owner."""
        with self.deployment.owner("local") as owner:
            owner.execute(statement)  # type: ignore[arg-type]
            try:
                yield
            finally:
                owner.execute(undo)  # type: ignore[arg-type]

    def victims_rows(self) -> object:
        """A sum of the victim's rows as they are at the hospital."""
        with self.deployment.superuser("local") as superuser:
            return superuser.execute(AT_THE_HOSPITAL.fill(VICTIMS)).fetchone()  # type: ignore[arg-type]

    @contextmanager
    def undone(self) -> Iterator[None]:
        """The hospital's rows afterwards as they were, in the same order, whatever was committed meanwhile."""
        tables = ("hospital_patients", "hospital_queues")
        with self.deployment.superuser("local") as superuser:
            for table in tables:
                superuser.execute(f"CREATE TEMP TABLE kept_{table} AS SELECT * FROM public.{table}")  # type: ignore[arg-type]
            try:
                yield
            finally:
                superuser.execute("TRUNCATE public.hospital_patients CASCADE")
                for table in tables:
                    superuser.execute(f"INSERT INTO public.{table} SELECT * FROM kept_{table}")  # type: ignore[arg-type]

    def leaks(self, output: str) -> list[str]:
        """What of the victim's, or of the link's secrets, is in ``output``."""
        found = [match.group() for match in OF_THE_VICTIM.finditer(output)]
        return found + ["a password" for password in self.passwords if password in output]


def begin(connection: psycopg.Connection[Any], caller: Caller, *, read_only: bool = True) -> None:
    """As PostgREST begins a request."""
    connection.execute("BEGIN READ ONLY" if read_only else "BEGIN")
    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(caller.role)))
    connection.execute("SELECT set_config('request.jwt.claims', %s, true)", [caller.claims])


def told(error: psycopg.Error) -> str:
    """All that an error tells its reader."""
    parts = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint, error.diag.context)
    return " | ".join(["ERROR", error.sqlstate or "", *(part for part in parts if part)])


@contextmanager
def noticing(connection: psycopg.Connection[Any]) -> Iterator[list[str]]:
    """What the server notices meanwhile, in a list that may take in more."""
    seen: list[str] = []

    def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        seen.append(f"{diagnostic.severity} {diagnostic.message_primary} {diagnostic.message_detail}")

    connection.add_notice_handler(notice)
    try:
        yield seen
    finally:
        connection.remove_notice_handler(notice)


def ask(connection: psycopg.Connection[Any], statement: str) -> str:
    """Everything that comes back: rows, how many, notices and errors. Raises nothing of the server's."""
    with noticing(connection) as seen:
        try:
            _ask(connection, statement, seen)
        except psycopg.Error as error:
            seen.append(told(error))
    return "\n".join(seen)


def _ask(connection: psycopg.Connection[Any], statement: str, seen: list[str]) -> None:
    with connection.cursor() as cursor:
        if statement.startswith("COPY") and "TO STDOUT" in statement:
            with cursor.copy(statement) as copy:  # type: ignore[arg-type]
                seen += [bytes(data).decode() for data in copy]
        elif statement.startswith("COPY"):
            with cursor.copy(statement) as copy:  # type: ignore[arg-type]
                copy.write(f"{uuid.uuid4()}\t{SITE_ID}\tBy copy\t{B.sub}\n")
        else:
            cursor.execute(statement)  # type: ignore[arg-type]
            while True:
                seen.append(cursor.statusmessage or "")
                if cursor.description:
                    seen += [" ".join(map(str, row)) for row in cursor]
                if not cursor.nextset():
                    break


def ask_at_once(connection: psycopg.Connection[Any], message: str) -> str:
    """The same of statements sent as one message: what those said that came before one that failed comes back too."""
    with noticing(connection) as seen:
        connection.pgconn.send_query(message.encode())
        while result := connection.pgconn.get_result():
            if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
                seen.append(told(psycopg.errors.error_from_result(result)))
                continue
            seen.append((result.command_status or b"").decode())
            for row in range(result.ntuples):
                values = (result.get_value(row, column) for column in range(result.nfields))
                seen.append(" ".join((value or b"").decode() for value in values))
    return "\n".join(seen)


def request(
    connection: psycopg.Connection[Any],
    caller: Caller,
    statements: Sequence[str],
    *,
    read_only: bool = True,
    savepoints: bool = False,
    commit: bool = False,
) -> str:
    """One transaction of ``caller``, and all that came out of it; with ``savepoints`` it goes on after an error."""
    seen: list[str] = []
    begin(connection, caller, read_only=read_only)
    for statement in statements:
        if savepoints:
            connection.execute("SAVEPOINT before")
        seen.append(ask(connection, statement))
        failed = connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        if failed and not savepoints:
            break
        if savepoints:
            connection.execute("ROLLBACK TO before" if failed else "RELEASE before")
    seen.append(ask(connection, "COMMIT" if commit else "ROLLBACK"))
    return "\n".join(seen)


@contextmanager
def build(deployment: Deployment) -> Iterator[World]:
    for side, dbname in (("local", deployment.local_dbname), ("cloud", deployment.cloud_dbname)):
        with deployment.superuser(side) as superuser:  # thousands of statements that nobody will look up
            for setting in ("log_statement = none", "log_min_duration_statement = -1"):
                superuser.execute(sql.SQL("ALTER DATABASE {} SET ").format(sql.Identifier(dbname)) + sql.SQL(setting))
    for caller in (A, B, PATIENT):
        accounts.add(deployment.config, uuid.UUID(caller.sub), {})
    _plant(deployment)
    analyze(deployment.config)
    password = secrets.token_urlsafe()
    with _naive_role(deployment, password):
        _naive_link(deployment, password)
        environ = deployment.environ
        yield World(
            deployment,
            (password, environ["FEDERATION_LINK_PASSWORD"], environ["FEDERATION_SERVICE_PASSWORD"]),
        )


def _plant(deployment: Deployment) -> None:
    """The victim's rows first, so that an error in the first row that is looked at is about the victim's."""
    with deployment.owner("local") as owner:
        for table in deployment.config.tables.exported:
            owner.execute(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                    sql.Identifier(table), sql.Identifier(f"{table}_site_check")
                )
            )
            column = "linked_user_id" if table == "hospital_patients" else "doctor_id"
            owner.execute(
                sql.SQL("ALTER POLICY own_rows ON {} USING ((SELECT auth.uid()) = {})").format(
                    sql.Identifier(table), sql.Identifier(column)
                )
            )
        for caller, name, age, place, rows, hospital in (
            (B, "Bhanu", 77, "Bhopal", B.rows, SITE_ID),
            (B, "Bhanu", 77, "Bhopal", ABROAD, OTHER_HOSPITAL),
            (A, "Asha", 30, "Agra", A.rows, SITE_ID),
            (PATIENT, "Chitra", 40, "Cuttack", PATIENT.rows, SITE_ID),
        ):
            owner.execute(
                "INSERT INTO hospital_patients (id, hospital_id, name, age, place, phone, linked_user_id) "
                "SELECT (%s || substr(gen_random_uuid()::text, 9))::uuid, %s, %s || ' ' || n, %s, %s, "
                "       CASE WHEN %s = 77 THEN '555-0177' ELSE '555-0100' END, %s "
                "FROM generate_series(1, %s) AS n",
                [caller.mark, hospital, name, age, place, age, caller.sub, rows],
            )
        owner.execute(
            "INSERT INTO hospital_queues (id, hospital_id, patient_id, doctor_id, queue_number) "
            "SELECT (left(id::text, 8) || substr(gen_random_uuid()::text, 9))::uuid, hospital_id, id, "
            "       linked_user_id, 1 FROM hospital_patients"
        )


@contextmanager
def _naive_role(deployment: Deployment, password: str) -> Iterator[None]:
    """What the tutorial's mapping logs in as: a role that sees all."""
    with deployment.superuser("local") as superuser:
        superuser.execute("CREATE ROLE naive_link LOGIN BYPASSRLS")
        deployment.pair.local.set_password("naive_link", password)
        superuser.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO naive_link")
        superuser.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO naive_link").format(sql.Identifier(deployment.local_dbname))
        )
    try:
        yield
    finally:
        with deployment.superuser("local") as superuser:
            superuser.execute("DROP OWNED BY naive_link")
            superuser.execute("DROP ROLE naive_link")


def _naive_link(deployment: Deployment, password: str) -> None:
    """The usual tutorial, and the repairs that it is usually given: a filter in a view, a function, a setting."""
    local = deployment.pair.local
    with deployment.owner("cloud") as owner:
        owner.execute(
            sql.SQL(
                "CREATE SERVER naive FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host {}, port {}, dbname {})"
            ).format(sql.Literal(local.host), sql.Literal(str(local.port)), sql.Literal(deployment.local_dbname))
        )
        for role in ("PUBLIC", "authenticated"):
            owner.execute(
                sql.SQL("CREATE USER MAPPING FOR {} SERVER naive OPTIONS (user 'naive_link', password {})").format(
                    sql.SQL(role), sql.Literal(password)
                )
            )
        owner.execute(_NAIVE.format(site=SITE_ID))  # type: ignore[arg-type]
        owner.execute(_OURS)


_NAIVE = """
    GRANT USAGE ON FOREIGN SERVER naive TO authenticated;
    CREATE SCHEMA naive;
    IMPORT FOREIGN SCHEMA public LIMIT TO (hospital_patients, hospital_queues) FROM SERVER naive INTO naive;
    ANALYZE naive.hospital_patients;
    CREATE VIEW naive.mine AS SELECT * FROM naive.hospital_patients WHERE linked_user_id = auth.uid();
    CREATE VIEW naive.by_setting AS SELECT * FROM naive.hospital_patients
        WHERE linked_user_id::text = current_setting('federation.account', true);
    CREATE FUNCTION naive.account() RETURNS uuid LANGUAGE sql IMMUTABLE AS 'SELECT auth.uid()';
    CREATE VIEW naive.by_immutable AS SELECT * FROM naive.hospital_patients WHERE linked_user_id = naive.account();
    CREATE VIEW naive.everybody AS SELECT * FROM naive.hospital_patients;
    CREATE FUNCTION naive.patients_of_claims() RETURNS SETOF text
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
        BEGIN
            RETURN QUERY SELECT p.id::text || p.name FROM naive.hospital_patients AS p
                WHERE p.linked_user_id = (current_setting('request.jwt.claims')::jsonb ->> 'sub')::uuid;
        END $$;
    CREATE VIEW naive.caller AS SELECT auth.uid() AS sub;
    CREATE FUNCTION naive.patients_of_caller() RETURNS SETOF text
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = naive AS $$
        BEGIN
            RETURN QUERY SELECT p.id::text || p.name FROM hospital_patients AS p
                WHERE p.linked_user_id = (SELECT c.sub FROM caller AS c);
        END $$;
    GRANT USAGE ON SCHEMA naive TO anon, authenticated, service_role;
    GRANT ALL ON ALL TABLES IN SCHEMA naive TO anon, authenticated, service_role;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA naive TO anon, authenticated, service_role;
"""

# The app's own functions and view over the same tables: one function asks as its caller, the others as the owner, who
# sees all.
_OURS = """
    CREATE FUNCTION public.patients_of_claims() RETURNS SETOF text
        LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN RETURN QUERY SELECT p.id::text || p.name FROM public.hospital_patients AS p; END $$;
    CREATE FUNCTION public.how_many() RETURNS bigint
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
        'SELECT count(*) * 1000 FROM public.hospital_patients';
    CREATE FUNCTION public.fetch_from(opened refcursor) RETURNS SETOF text
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        DECLARE fetched record;
        BEGIN
            LOOP FETCH opened INTO fetched; EXIT WHEN NOT FOUND; RETURN NEXT fetched::text; END LOOP;
        END $$;
    CREATE FUNCTION public.admit(hospital uuid) RETURNS void
        LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
        $$ INSERT INTO public.hospital_patients (hospital_id, name) VALUES (hospital, 'Admitted') $$;
    CREATE VIEW public.patients_of_the_app AS SELECT * FROM public.hospital_patients;
    GRANT ALL ON public.patients_of_the_app TO anon, authenticated;
"""
