"""What the app's queries cost over the link: time, rows fetched and round trips, beside other ways to ask.

Each is asked as PostgREST asks it (READ ONLY unless it writes, SET LOCAL ROLE, the claims by set_config) and planned
anew each time. Five contenders take turns, shape by shape:

\b
  direct    at the hospital itself: the link role, the account bound, the same policies, no link between
  toolkit   this repository's views at head, after `federation analyze`
  unbound   the same views with the site's id in place of the binding: nobody is judged
  tutorial  IMPORT FOREIGN SCHEMA as a role that sees all rows, views with hospital_id = auth.uid()
  barrier   the same foreign tables, security_barrier views with hospital_id = (SELECT auth.uid())

The tutorial's tables are analyzed with full statistics, which is their best case and copies patients' values into the
cloud. A delay is that of a round trip between cloud and hospital.

Rows and round trips are counted on the wire, in a pass of their own: a row fetched is one that the hospital sent, the
binding's own one too, and one that a join made there is one. A row returned is one that the caller gets: a row of the
answer, or in an embed an outer row's object and each object embedded in it, to one or to many. What was fetched and is
not in the answer counts as fetched only.
"""

# ruff: noqa: S608  what the statements are put together from stands in this file

from __future__ import annotations

import hashlib
import json
import os
import secrets
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from federation.administration import bootstrap
from federation.administration.analyze import analyze
from federation.config import Config
from federation.errors import FederationError
from federation.lockstep import upgrade
from federation.servers import Pair
from federation.servers.pair import SITE_ID
from federation.servers.proxy import Proxy, Tally

ROOT = Path(__file__).resolve().parent.parent

SCHEMA_VERSION = 1
"""Version of the JSON object."""

TABLES = ("hospital_patients", "hospital_queues", "hospital_prescriptions")

PATIENTS, QUEUES, PRESCRIPTIONS = 200_000, 1_000_000, 800_000
"""Rows at --scale 1: a busy hospital's."""

DAYS = 400

LIMIT = 10.0
"""Seconds after which a query is given up; not asked at all if its round trips alone take longer."""

SLOW = 2.0
"""Seconds; what takes longer is asked once, not in every round."""

MOST_FETCHED = 1.1, 10
"""Rows fetched, at most: so many times the rows returned, and so many more."""

MOST_TIME = 1.5
"""Times the direct query's, and the round trips of one foreign scan and of the binding."""

SCAN_TRIPS, BINDING_TRIPS = 5, 3
"""START, DECLARE, FETCH, CLOSE, COMMIT; DECLARE, FETCH, CLOSE."""

WRITE_TRIPS = {"insert": 5, "update": 3, "delete": 3}
"""START, the statement, COMMIT; an INSERT is prepared before and deallocated after."""

WIDTH = 140
"""Columns of a file that the tables are written to."""

CONTENDERS = ("direct", "toolkit", "unbound", "tutorial", "barrier")


class Failed(Exception):
    """A contender answers otherwise than the others."""


# ---- rows -----------------------------------------------------------------------------------------------------------


def _key(kind: str, number: str) -> str:
    """The id of a row, in SQL."""
    return f"md5('{kind}' || {number})::uuid"


LOADS: Mapping[str, str] = {
    "hospital_patients": f"""
        INSERT INTO hospital_patients (id, hospital_id, name, age, token_number, created_at, father_husband_name, place,
            phone, mr_number, beanhealth_id)
        SELECT {_key("patient", "n")}, %(site)s,
            (ARRAY['Asha','Ravi','Meena','Imran','Lakshmi','Suresh','Fatima','Kiran'])[1 + n %% 8] || ' '
                || (ARRAY['Sharma','Patil','Khan','Rao','Hegde','Nair','Gowda'])[1 + (n / 8) %% 7] || ' ' || n,
            n %% 90, (n %% 60)::text, timestamptz '2025-01-01 03:00Z' + n * interval '400 days' / %(patients)s,
            'Father of ' || n, (ARRAY['Hubballi','Dharwad','Gadag','Karwar'])[1 + n %% 4],
            '00000' || lpad(n::text, 6, '0'), 'MR-' || n, 'BH-' || n
        FROM generate_series(1, %(patients)s) n""",
    "hospital_queues": f"""
        INSERT INTO hospital_queues (id, hospital_id, patient_id, doctor_id, queue_number, status, created_at,
            updated_at, completed_by_actor_type, completed_by_name)
        SELECT {_key("queue", "n")}, %(site)s,
            {_key("patient", "(1 + (n::bigint * 7919) %% %(patients)s)")},
            {_key("doctor", "(n %% 5)")}, 1 + n %% (%(queues)s / 400),
            CASE WHEN n > %(queues)s - 400 THEN 'pending' WHEN n %% 17 = 0 THEN 'cancelled' ELSE 'completed' END,
            timestamptz '2025-01-01 03:00Z' + n * interval '400 days' / %(queues)s, now(), 'chief', 'Dr. ' || n %% 5
        FROM generate_series(1, %(queues)s) n""",
    "hospital_prescriptions": f"""
        INSERT INTO hospital_prescriptions (id, hospital_id, doctor_id, patient_id, queue_id, medications, notes,
            status, created_at, updated_at, metadata)
        SELECT {_key("prescription", "n")}, %(site)s, {_key("doctor", "(n %% 5)")},
            {_key("patient", "(1 + ((n + %(queues)s - %(prescriptions)s)::bigint * 7919) %% %(patients)s)")},
            {_key("queue", "(n + %(queues)s - %(prescriptions)s)")},
            (SELECT jsonb_agg(jsonb_build_object('name', 'Medicine ' || n %% 700 + m, 'dosage', '1-0-1', 'days', 5,
                'timing', 'after food', 'instructions', repeat('with water ', 6), 'batch', md5(n::text || m)))
                FROM generate_series(1, 4) m),
            'Review after a week', CASE WHEN n %% 3 = 0 THEN 'pending' ELSE 'dispensed' END,
            timestamptz '2025-01-01 03:05Z' + (n + %(queues)s - %(prescriptions)s) * interval '400 days' / %(queues)s,
            now(), jsonb_build_object('weight', n %% 90)
        FROM generate_series(1, %(prescriptions)s) n""",
}
"""Every hospital's patient comes back; the newest 400 of the queue wait; a queue row has at most one prescription."""


def load(pair: Pair, dbname: str, scale: float) -> None:
    """Fill the hospital's tables as its superuser, without triggers, each index built once."""
    counts = {
        "patients": round(PATIENTS * scale),
        "queues": round(QUEUES * scale),
        "prescriptions": round(PRESCRIPTIONS * scale),
        "site": SITE_ID,
    }

    def fill(table: str) -> None:
        with pair.local.connect(dbname) as connection, psycopg.ClientCursor(connection) as cursor:
            cursor.execute("SET session_replication_role = replica; SET maintenance_work_mem = '256MB'")
            found = cursor.execute(
                "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index i WHERE indrelid = "
                "%s::regclass AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid) ORDER BY 1",
                [table],
            ).fetchall()
            for name, _ in found:
                cursor.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
            cursor.execute(LOADS[table].encode(), counts)
            for _, definition in found:
                cursor.execute(definition.encode())
            cursor.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, reversed(TABLES)))


# ---- what is asked --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A statement of the app; ``embeds``: the one row that comes back holds a JSON array of rows."""

    name: str
    sql: str
    embeds: bool = False
    writes: bool = False

    def returned(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """Rows of tables that were answered: embedded ones count too."""
        if not self.embeds:
            return len(rows)
        found = 0
        for row in rows[0][0]:
            found += 1
            for value in row.values():
                if isinstance(value, list) and value and isinstance(value[0], dict) and "hospital_id" in value[0]:
                    found += len(value)
                elif isinstance(value, dict) and "hospital_id" in value:
                    found += 1
        return found


def embed(selects: str, join: str, rest: str) -> str:
    """A request with an embed, as PostgREST 13 sends it."""
    return (
        "WITH pgrst_source AS (SELECT hospital_queues.*, "
        f"{selects} FROM hospital_queues {join} {rest}) "
        "SELECT coalesce(json_agg(_postgrest_t), '[]') AS body FROM (SELECT * FROM pgrst_source) _postgrest_t"
    )


def to_one(kind: str, source: str, rest: str) -> str:
    """``patient:hospital_patients(*)`` of the queue: ``kind`` is LEFT, or INNER for ``!inner``."""
    return embed("row_to_json(x.*) AS patient", f"{kind} JOIN LATERAL (SELECT p_1.* FROM {source}) AS x ON TRUE", rest)


PATIENTS_BY_KEY = "hospital_patients AS p_1 WHERE p_1.id = hospital_queues.patient_id"
LATEST = "ORDER BY hospital_queues.created_at DESC LIMIT {}"
MIDNIGHT = "2026-02-04 00:00Z"
DOCTOR = hashlib.md5(b"doctor2", usedforsecurity=False).hexdigest()
PATIENT = hashlib.md5(b"patient4711", usedforsecurity=False).hexdigest()

SHAPES = (
    Shape("single row", f"SELECT * FROM hospital_patients WHERE id = '{PATIENT}'"),
    Shape("latest 50", "SELECT * FROM hospital_queues ORDER BY created_at DESC LIMIT 50"),
    Shape(
        "filtered list",
        f"SELECT * FROM hospital_queues WHERE doctor_id = '{DOCTOR}' AND created_at >= '{MIDNIGHT}' "
        "AND status = 'pending' ORDER BY queue_number LIMIT 1000",
    ),
    Shape("ILIKE", "SELECT * FROM hospital_patients WHERE name ILIKE '%meena k%' ORDER BY created_at DESC LIMIT 50"),
    Shape(
        "pending, latest 50",
        "SELECT * FROM hospital_prescriptions WHERE status = 'pending' ORDER BY created_at DESC LIMIT 50",
    ),
    Shape(
        "pending, of the site",
        f"SELECT * FROM hospital_prescriptions WHERE hospital_id = '{SITE_ID}' AND status = 'pending' "
        "ORDER BY created_at DESC LIMIT 50",
    ),
    Shape("count", "SELECT count(*) FROM hospital_prescriptions"),
    Shape(
        "two tables",
        "SELECT q.*, p.name, p.phone FROM hospital_queues q JOIN hospital_patients p ON p.id = q.patient_id "
        "ORDER BY q.created_at DESC LIMIT 50",
    ),
    Shape(
        "two tables, of the site",
        "SELECT q.*, p.name, p.phone FROM hospital_queues q JOIN hospital_patients p ON p.id = q.patient_id "
        f"WHERE q.hospital_id = '{SITE_ID}' ORDER BY q.created_at DESC LIMIT 50",
    ),
    Shape(
        "three tables",
        "SELECT q.queue_number, p.name, r.medications FROM hospital_queues q "
        "JOIN hospital_patients p ON p.id = q.patient_id JOIN hospital_prescriptions r ON r.queue_id = q.id "
        "ORDER BY q.created_at DESC LIMIT 50",
    ),
    Shape("embed one, !inner", to_one("INNER", PATIENTS_BY_KEY, LATEST.format(50)), embeds=True),
    Shape("embed one", to_one("LEFT", PATIENTS_BY_KEY, LATEST.format(50)), embeds=True),
    Shape(
        "embed many",
        embed(
            "coalesce(x.x, '[]') AS prescriptions",
            "LEFT JOIN LATERAL (SELECT json_agg(x) AS x FROM (SELECT r_1.* FROM hospital_prescriptions AS r_1 "
            "WHERE r_1.queue_id = hospital_queues.id) AS x) AS x ON TRUE",
            LATEST.format(50),
        ),
        embeds=True,
    ),
    Shape(
        "insert",
        f"INSERT INTO hospital_patients (id, hospital_id, name) VALUES (%(id)s, '{SITE_ID}', 'Asha') RETURNING *",
        writes=True,
    ),
    Shape("update", "UPDATE hospital_patients SET name = 'Asha K' WHERE id = %(id)s RETURNING id, name", writes=True),
    Shape("delete", "DELETE FROM hospital_patients WHERE id = %(id)s RETURNING id", writes=True),
)


# ---- who asks -------------------------------------------------------------------------------------------------------


class Deployment:
    """A pair of servers at head with a delay proxy between, and the other contenders' objects in the cloud."""

    names = ("hospital", "app")

    def __init__(self, pair: Pair, proxy: Proxy, scale: float, say: Callable[[str], None]) -> None:
        self.pair, self.proxy, self.scale = pair, proxy, scale
        pair.cloud.create_database(self.names[1])
        pair.prepare_cloud_database(self.names[1])
        self.environ = pair.environment(*self.names)
        self.config = Config.load(ROOT / "federation.toml", self.environ)
        for side in ("local", "cloud"):
            bootstrap.apply(self.config, side)
        upgrade(self.config)
        say("loading")
        load(pair, self.names[0], scale)
        say("analyzing")
        analyze(self.config)
        self._make_others()

    @contextmanager
    def owner(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.environ["FEDERATION_CLOUD_URL"], autocommit=True) as connection:
            yield connection

    def lead(self, *, delay: int, counting: bool = False) -> float:
        """Every link goes through the proxy if that is needed; ``delay`` in ms. Returns a round trip's real seconds."""
        self.proxy.delay, self.proxy.counting = delay / 1000, counting
        port = self.proxy.port if delay or counting else self.pair.local.port
        with self.owner() as owner:
            for server in ("hospital", "unbound", "tutorial"):
                command = sql.SQL("ALTER SERVER {} OPTIONS (SET port {})")
                owner.execute(command.format(sql.Identifier(server), sql.Literal(str(port))))
        with self.pair.local.connect(self.names[0], port=port) as connection:
            return statistics.median(_seconds(lambda: connection.execute("SELECT")) for _ in range(20))

    def set_fetch_size(self, size: int) -> None:
        with self.owner() as owner:
            owner.execute(sql.SQL("ALTER SERVER hospital OPTIONS (SET fetch_size {})").format(sql.Literal(str(size))))

    def connect(self, contender: str) -> psycopg.Connection[Any]:
        """A session that will be used again and again, as a pool's."""
        if contender == "direct":
            user, password = self.config.link_login("link")
            url = self.pair.local.url(user, password, self.names[0])
        else:
            url = self.pair.authenticator_url(self.names[1])
        return psycopg.connect(url, prepare_threshold=None)

    def _make_others(self) -> None:
        password = secrets.token_urlsafe()
        with self.pair.local.connect(self.names[0]) as admin:
            admin.execute("CREATE ROLE tutorial LOGIN BYPASSRLS")
            admin.execute("GRANT CONNECT ON DATABASE hospital TO tutorial; GRANT USAGE ON SCHEMA public TO tutorial")
            admin.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO tutorial")
        self.pair.local.set_password("tutorial", password)
        service = self.config.link_login("service")
        with self.owner() as owner:
            options = dict(
                owner.execute(
                    "SELECT o.* FROM pg_foreign_server, pg_options_to_table(srvoptions) o WHERE srvname = 'hospital'"
                ).fetchall()
            )
            plain = {name: options[name] for name in ("host", "port", "dbname")}
            self._link(owner, "unbound", options, *service, statistics=False)
            self._link(owner, "tutorial", plain, "tutorial", password, statistics=True)
            invoker, barrier = "WITH (security_invoker)", "WITH (security_barrier)"
            self._views(owner, "unbound", "unbound_link", invoker, f"hospital_id = '{SITE_ID}'")
            self._views(owner, "tutorial", "tutorial_link", "", "hospital_id = auth.uid()")
            self._views(owner, "barrier", "tutorial_link", barrier, "hospital_id = (SELECT auth.uid())")

    @staticmethod
    def _link(
        owner: psycopg.Connection[Any],
        server: str,
        options: Mapping[str, str],
        user: str,
        password: str,
        *,
        statistics: bool,
    ) -> None:
        """A server, PUBLIC's mapping and the three foreign tables, analyzed."""
        name, schema = sql.Identifier(server), sql.Identifier(f"{server}_link")
        given = [sql.SQL("{} {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in options.items()]
        owner.execute(
            sql.SQL("CREATE SERVER {} FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({})").format(
                name, sql.SQL(", ").join(given)
            )
        )
        owner.execute(
            sql.SQL("CREATE USER MAPPING FOR PUBLIC SERVER {} OPTIONS (user {}, password {})").format(
                name, sql.Literal(user), sql.Literal(password)
            )
        )
        owner.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
        owner.execute(
            sql.SQL("IMPORT FOREIGN SCHEMA public LIMIT TO ({}) FROM SERVER {} INTO {}").format(
                sql.SQL(", ").join(map(sql.Identifier, TABLES)), name, schema
            )
        )
        owner.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO authenticated").format(schema))
        for table in TABLES:
            foreign = sql.Identifier(f"{server}_link", table)
            if not statistics:
                no_statistics(owner, foreign)
            owner.execute(sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO authenticated").format(foreign))
            owner.execute(sql.SQL("ANALYZE {}").format(foreign))

    @staticmethod
    def _views(owner: psycopg.Connection[Any], schema: str, source: str, options: str, predicate: str) -> None:
        owner.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        owner.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO authenticated").format(sql.Identifier(schema)))
        for table in TABLES:
            view, foreign = sql.Identifier(schema, table), sql.Identifier(source, table)
            command = sql.SQL("CREATE VIEW {} {} AS SELECT * FROM {} WHERE {}")
            owner.execute(command.format(view, sql.SQL(options), foreign, sql.SQL(predicate)))
            owner.execute(sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO authenticated").format(view))


def no_statistics(owner: psycopg.Connection[Any], table: sql.Identifier) -> None:
    """As the toolkit imports a foreign table: ANALYZE will keep its row count and no value."""
    columns = owner.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [table.as_string()],
    ).fetchall()
    for (column,) in columns:
        command = sql.SQL("ALTER FOREIGN TABLE {} ALTER COLUMN {} SET STATISTICS 0")
        owner.execute(command.format(table, sql.Identifier(column)))


class Session:
    """One contender's connection, on which it asks one transaction after another."""

    claims = json.dumps({"sub": SITE_ID, "role": "authenticated"})

    def __init__(self, deployment: Deployment, contender: str) -> None:
        self.contender = contender
        self._connection = deployment.connect(contender)

    def close(self) -> None:
        self._connection.close()

    def ask(
        self, query: str, parameters: Mapping[str, object] | None = None, *, writes: bool = False
    ) -> tuple[float, list[tuple[Any, ...]]]:
        """Seconds of a whole transaction, and the rows. QueryCanceled after LIMIT seconds."""
        self._connection.read_only = not writes
        started = time.perf_counter()
        with self._connection.transaction(), self._connection.cursor() as cursor:
            if self.contender == "direct":
                cursor.execute("SELECT set_config('search_path', 'public', true)")
                cursor.execute("SELECT count(taken) FROM federation.bind WHERE sub = %s", [SITE_ID])
            else:
                schema = "public" if self.contender == "toolkit" else self.contender
                cursor.execute("SET LOCAL ROLE authenticated")
                cursor.execute(
                    "SELECT set_config('search_path', %s, true), set_config('request.jwt.claims', %s, true), "
                    "set_config('statement_timeout', %s, true)",
                    [schema, self.claims, str(round(LIMIT * 1000))],
                )
            rows = cursor.execute(query.encode(), parameters).fetchall()
        return time.perf_counter() - started, rows


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


# ---- measuring ------------------------------------------------------------------------------------------------------


@dataclass
class Cell:
    """One contender's figures for one shape: seconds by delay (in ms), rows and round trips over the link."""

    contender: str
    returned: int = 0
    fetched: int | None = None
    round_trips: int | None = None
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def waits(self, delay: int) -> float:
        """Seconds that its round trips alone take; endless for one that was given up without a delay."""
        if self.contender == "direct":
            return 0.0
        return float("inf") if self.round_trips is None else self.round_trips * delay / 1000

    def median(self, delay: int) -> float | None:
        """None: given up."""
        return statistics.median(self.seconds[delay]) if self.seconds.get(delay) else None

    def to_dict(self) -> dict[str, object]:
        return {
            "contender": self.contender,
            "returned": self.returned,
            "fetched": self.fetched,
            "round_trips": self.round_trips,
            "seconds": {
                str(delay): [round(seconds, 5) for seconds in measured] for delay, measured in self.seconds.items()
            },
        }


@dataclass
class Row:
    """A shape, and what each contender needed for it."""

    shape: Shape
    cells: dict[str, Cell]

    @property
    def most_fetched(self) -> float:
        times, more = MOST_FETCHED
        return self.cells["direct"].returned * times + more

    def most_seconds(self, trip: float) -> float:
        """Where a round trip takes ``trip`` seconds."""
        trips = WRITE_TRIPS.get(self.shape.name, SCAN_TRIPS) + BINDING_TRIPS
        return MOST_TIME * (self.cells["direct"].median(0) or LIMIT) + trips * trip

    def kept(self, trips: Mapping[int, float]) -> dict[str, bool]:
        """Whether the toolkit keeps each target: rows, and time by delay. One that was given up keeps none."""
        toolkit = self.cells["toolkit"]
        fetched = float("inf") if toolkit.fetched is None else toolkit.fetched
        kept = {} if self.shape.writes else {"rows": fetched <= self.most_fetched}
        for delay, trip in trips.items():
            median = toolkit.median(delay)
            kept[f"{delay} ms"] = median is not None and median <= self.most_seconds(trip)
        return kept


@dataclass(frozen=True)
class Timing:
    """One way to read ``rows`` outer rows: median seconds (None: given up), and what went over the link."""

    way: str
    rows: int
    delay: int
    seconds: float | None
    fetched: int
    round_trips: int

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass
class Result:
    """The whole run; ``trips`` are seconds that a round trip over the link really takes, by delay."""

    version: str
    scale: float
    rounds: int
    trips: dict[int, float]
    rows: list[Row]
    embeds: list[Timing] = field(default_factory=list)
    batches: list[Timing] = field(default_factory=list)
    site_statistics: list[Timing] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        return {
            "schema_version": SCHEMA_VERSION,
            "postgresql": self.version,
            "processors": os.cpu_count(),
            "scale": self.scale,
            "rounds": self.rounds,
            "round_trips": {str(delay): round(seconds, 5) for delay, seconds in self.trips.items()},
            "shapes": [
                {
                    "shape": row.shape.name,
                    "contenders": [cell.to_dict() for cell in row.cells.values()],
                    "targets": row.kept(self.trips),
                }
                for row in self.rows
            ],
            "embeds": [timing.to_dict() for timing in self.embeds],
            "fetch_size": [timing.to_dict() for timing in self.batches],
            "site_statistics": [timing.to_dict() for timing in self.site_statistics],
        }


@contextmanager
def sessions(deployment: Deployment, contenders: Sequence[str] = CONTENDERS) -> Iterator[dict[str, Session]]:
    with ExitStack() as stack:
        yield {contender: stack.enter_context(closing(Session(deployment, contender))) for contender in contenders}


def count(
    deployment: Deployment, session: Session, shape: Shape, parameters: Mapping[str, object] | None = None
) -> tuple[Cell, float, object]:
    """Rows and round trips of one run on a link that is open; its seconds; and the answer."""
    deployment.proxy.tally = tally = Tally()
    seconds, rows = session.ask(shape.sql, parameters, writes=shape.writes)
    cell = Cell(session.contender, shape.returned(rows))
    if session.contender != "direct":
        # The binding's one row and its trips are in it: what it costs is the toolkit's.
        cell.fetched, cell.round_trips = tally.rows, tally.round_trips
    return cell, seconds, rows


def compare(
    deployment: Deployment, rounds: int, delays: Sequence[int], say: Callable[[str], None]
) -> tuple[list[Row], dict[int, float]]:
    """Every shape, by every contender, and a round trip's seconds by delay. What counts goes through the proxy."""
    rows: list[Row] = []
    slow: set[tuple[str, str]] = set()
    trips: dict[int, float] = {}
    deployment.lead(delay=0, counting=True)
    with sessions(deployment) as asking:
        for session in asking.values():
            session.ask("SELECT count(*) FROM (SELECT 1 FROM hospital_patients LIMIT 1) t")
        ids = {contender: uuid.uuid4() for contender in CONTENDERS}
        for shape in SHAPES:
            say(f"counting: {shape.name}")
            cells: dict[str, Cell] = {}
            answers = {}
            for contender, session in asking.items():
                parameters = {"id": ids[contender]} if shape.writes else None
                try:
                    cells[contender], seconds, answers[contender] = count(deployment, session, shape, parameters)
                except psycopg.errors.QueryCanceled:
                    cells[contender], seconds = Cell(contender), LIMIT
                if seconds > SLOW:
                    slow.add((contender, shape.name))
            if not shape.writes and any(answer != answers["direct"] for answer in answers.values()):
                raise Failed(f"{shape.name}: the contenders' answers differ")
            rows.append(Row(shape, cells))
    for delay in delays:
        trips[delay] = deployment.lead(delay=delay)
        with sessions(deployment) as asking:
            for n in range(rounds + 1):
                say(f"{delay} ms, round {n} of {rounds}" if n else f"{delay} ms, a first round, not counted")
                ids = {contender: uuid.uuid4() for contender in CONTENDERS}
                turn = n % len(CONTENDERS)
                for row in rows:
                    for contender in CONTENDERS[turn:] + CONTENDERS[:turn]:
                        if contender == "direct" and delay:  # it has no link
                            continue
                        cell = row.cells[contender]
                        measured = cell.seconds.setdefault(delay, [])
                        once = (contender, row.shape.name) in slow or bool(delay and cell.waits(delay) > SLOW)
                        if cell.waits(delay) > LIMIT or (once and n != 1):
                            continue
                        parameters = {"id": ids[contender]} if row.shape.writes else None
                        with suppress(psycopg.errors.QueryCanceled):
                            seconds, _ = asking[contender].ask(row.shape.sql, parameters, writes=row.shape.writes)
                            if n:
                                measured.append(seconds)
    return rows, trips


EMBED_FUNCTION = """
    CREATE FUNCTION public.{name}(public.hospital_queues) RETURNS SETOF public.hospital_patients ROWS 1
    LANGUAGE {language} STABLE {settings} AS $${body}$$
"""
BY_KEY = "SELECT p.* FROM public.hospital_patients AS p WHERE p.id = $1.patient_id"
PINNED = "SET search_path = pg_catalog, pg_temp"
FUNCTIONS = {
    "inlined": ("sql", "", BY_KEY),
    "by_row": ("sql", "", f"{BY_KEY} OFFSET 0"),
    # Planned without the row until PostgreSQL 18: the field of a row is not sent, and every call reads every patient.
    "called": ("sql", PINNED, BY_KEY),
    "plpgsql": (
        "plpgsql",
        PINNED,
        "DECLARE key CONSTANT uuid := $1.patient_id; "
        "BEGIN RETURN QUERY SELECT p.* FROM public.hospital_patients AS p WHERE p.id = key; END",
    ),
    "materialized": (
        "sql",
        "",
        "WITH p AS MATERIALIZED (SELECT * FROM public.hospital_patients) SELECT p.* FROM p WHERE p.id = $1.patient_id",
    ),
}
"""Computed relationships by name: language, settings, body. PostgREST calls one with the outer row."""

HOSPITAL_VIEW = """
    CREATE VIEW queues_with_patient WITH (security_invoker) AS
    SELECT q.*, row_to_json(p.*) AS patient FROM hospital_queues q LEFT JOIN hospital_patients p ON p.id = q.patient_id;
    GRANT SELECT ON queues_with_patient TO federation_link, federation_service, authenticated;
"""
CLOUD_VIEW = """
    IMPORT FOREIGN SCHEMA public LIMIT TO (queues_with_patient) FROM SERVER hospital INTO federation_link;
    CREATE VIEW public.queues_with_patient WITH (security_invoker) AS
    SELECT * FROM federation_link.queues_with_patient
    WHERE (hospital_id = (SELECT federation.bind_claims())) = (SELECT true);
    GRANT SELECT ON federation_link.queues_with_patient, public.queues_with_patient TO authenticated;
"""


def embeds(rows: int) -> Iterator[tuple[str, str]]:
    """Ways to get queue rows with their patients, and their SQL."""
    latest, called = LATEST.format(rows), "public.{}(hospital_queues) AS p_1"
    yield "LEFT over the views", to_one("LEFT", PATIENTS_BY_KEY, latest)
    yield "LEFT, function inlined", to_one("LEFT", called.format("inlined"), latest)
    yield "LEFT, function inlined, OFFSET 0", to_one("LEFT", called.format("by_row"), latest)
    if rows <= 50:
        yield "LEFT, function inlined, materialized CTE", to_one("LEFT", called.format("materialized"), latest)
        yield "LEFT, SQL function called", to_one("LEFT", called.format("called"), latest)
    yield "LEFT, plpgsql function called", to_one("LEFT", called.format("plpgsql"), latest)
    yield (
        "spread, columns named",
        embed(
            "x.name, x.phone",
            "LEFT JOIN LATERAL (SELECT p_1.name, p_1.phone FROM public.inlined(hospital_queues) AS p_1) AS x ON TRUE",
            latest,
        ),
    )
    yield "!inner, function inlined", to_one("INNER", called.format("inlined"), latest)
    yield (
        "a view at the hospital",
        f"SELECT coalesce(json_agg(t), '[]') FROM (SELECT * FROM queues_with_patient AS hospital_queues {latest}) AS t",
    )


def try_embeds(deployment: Deployment, delays: Sequence[int], say: Callable[[str], None]) -> list[Timing]:
    """All ways for 50 and for 1000 rows."""
    with deployment.pair.local.connect(deployment.names[0]) as admin, deployment.owner() as owner:
        admin.execute(HOSPITAL_VIEW)
        owner.execute(CLOUD_VIEW)
        for name, (language, settings, body) in FUNCTIONS.items():
            command = EMBED_FUNCTION.format(name=name, language=language, settings=settings, body=body)
            owner.execute(command.encode())
        table = sql.Identifier("federation_link", "queues_with_patient")
        no_statistics(owner, table)
        owner.execute(sql.SQL("ANALYZE {}").format(table))
    tries = [(way, rows, query) for rows in (50, 1000) for way, query in embeds(rows)]
    return _try(deployment, tries, delays, say)


def try_fetch_sizes(deployment: Deployment, delays: Sequence[int], say: Callable[[str], None]) -> list[Timing]:
    """A page of PostgREST's usual size, and 20,000 rows, with each of five sizes of a batch."""
    found: list[Timing] = []
    for size in (100, 1000, 2000, 5000, 10_000):
        deployment.set_fetch_size(size)
        tries = [
            (f"fetch_size {size:,}", rows, f"SELECT * FROM hospital_queues ORDER BY created_at DESC LIMIT {rows}")
            for rows in (1000, 20_000)
        ]
        found += _try(deployment, tries, delays, say)
    return found


def try_site_statistics(deployment: Deployment, delays: Sequence[int], say: Callable[[str], None]) -> list[Timing]:
    """Shapes with ``hospital_id=eq.…``, while the planner does not know the site and once it does."""
    found: list[Timing] = []
    shapes = [shape for shape in SHAPES if f"hospital_id = '{SITE_ID}'" in shape.sql and not shape.writes]
    for known in (False, True):
        tables = deployment.config.tables.model_copy(update={"site_statistics": known})
        analyze(deployment.config.model_copy(update={"tables": tables}))
        tries = [(f"{shape.name}, {'known' if known else 'unknown'}", 50, shape.sql) for shape in shapes]
        found += _try(deployment, tries, delays, say)
    return found


def _try(
    deployment: Deployment,
    tries: Sequence[tuple[str, int, str]],
    delays: Sequence[int],
    say: Callable[[str], None],
) -> list[Timing]:
    """The toolkit's reader asks each query: counted once, then timed three times a delay, or once if it is slow."""
    found = []
    tallies: dict[tuple[str, int], Tally] = {}
    given_up: set[tuple[str, int]] = set()
    deployment.lead(delay=0, counting=True)
    with sessions(deployment, ["toolkit"]) as asking:
        asking["toolkit"].ask("SELECT 1 FROM hospital_patients LIMIT 1")
        for way, rows, query in tries:
            say(f"counting: {way}, {rows} rows")
            deployment.proxy.tally = tallies[way, rows] = Tally()
            try:
                asking["toolkit"].ask(query)
            except psycopg.errors.QueryCanceled:
                given_up.add((way, rows))
    for delay in delays:
        deployment.lead(delay=delay)
        with sessions(deployment, ["toolkit"]) as asking:
            asking["toolkit"].ask("SELECT 1 FROM hospital_patients LIMIT 1")
            for way, rows, query in tries:
                tally = tallies[way, rows]
                measured: list[float] = []
                say(f"{delay} ms: {way}, {rows} rows")
                in_time = (way, rows) not in given_up and tally.round_trips * delay / 1000 < LIMIT
                with suppress(psycopg.errors.QueryCanceled):
                    while in_time and len(measured) < 3 and sum(measured) < SLOW:
                        measured.append(asking["toolkit"].ask(query)[0])
                median = statistics.median(measured) if measured else None
                found.append(Timing(way, rows, delay, median, tally.rows, tally.round_trips))
    return found


def measure(
    scale: float, rounds: int, delays: Sequence[int], parts: Sequence[str], say: Callable[[str], None]
) -> Result:
    """Run the named parts. Raises Failed, or a FederationError when the servers do not start."""
    with Pair() as pair, Proxy(pair.local.port) as proxy:
        deployment = Deployment(pair, proxy, scale, say)
        rows, trips = compare(deployment, rounds, delays, say) if "shapes" in parts else ([], {})
        result = Result(pair.local.binaries.version, scale, rounds, trips, rows)
        if "embeds" in parts:
            result.embeds = try_embeds(deployment, delays, say)
        if "fetch-size" in parts:
            result.batches = try_fetch_sizes(deployment, delays, say)
        if "site-statistics" in parts:
            result.site_statistics = try_site_statistics(deployment, delays, say)
        return result


# ---- printing -------------------------------------------------------------------------------------------------------


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return f"> {LIMIT * 1000:,.0f}"
    return f"{seconds * 1000:,.1f}" if seconds < 0.1 else f"{seconds * 1000:,.0f}"


def show(result: Result, console: Console) -> None:
    """A table of medians for each delay, one of rows and round trips, the targets; then what else was tried."""
    console.print(
        f"PostgreSQL {result.version}, {os.cpu_count()} processors, {round(PATIENTS * result.scale):,} patients, "
        f"{round(QUEUES * result.scale):,} queue rows, {round(PRESCRIPTIONS * result.scale):,} prescriptions, "
        f"{result.rounds} rounds"
    )
    linked = CONTENDERS[1:]
    for delay, trip in result.trips.items():
        table = Table("", title=f"ms at {delay} ms of delay (a round trip: {trip * 1000:.2f} ms)", title_justify="left")
        for contender in CONTENDERS:
            table.add_column(contender if contender != "direct" or not delay else "direct, 0 ms", justify="right")
        table.add_column("limit", justify="right")
        table.add_column("")
        for row in result.rows:
            times = [row.cells["direct"].median(0), *(row.cells[contender].median(delay) for contender in linked)]
            kept = "[green]met[/]" if row.kept(result.trips)[f"{delay} ms"] else "[yellow]missed[/]"
            table.add_row(row.shape.name, *map(_ms, times), _ms(row.most_seconds(trip)), kept)
        console.print(table)
    if result.rows:
        table = Table("", "returned", title="rows fetched / round trips over the link", title_justify="left")
        table.columns[1].justify = "right"
        for contender in linked:
            table.add_column(contender, justify="right")
        table.add_column("limit", justify="right")
        table.add_column("")
        for row in result.rows:
            figures = [
                "?" if cell.fetched is None else f"{cell.fetched:,} / {cell.round_trips:,}"
                for cell in (row.cells[contender] for contender in linked)
            ]
            verdict = {True: "[green]met[/]", False: "[yellow]missed[/]", None: ""}[row.kept({}).get("rows")]
            limit = "" if row.shape.writes else f"{row.most_fetched:,.0f}"
            table.add_row(row.shape.name, f"{row.cells['direct'].returned:,}", *figures, limit, verdict)
        console.print(table)
    for title, timings in (
        ("ways to embed, ms", result.embeds),
        ("sizes of a batch, ms", result.batches),
        ("site_statistics, ms", result.site_statistics),
    ):
        if timings:
            console.print(_timings(title, timings))


def _timings(title: str, timings: Sequence[Timing]) -> Table:
    delays = list(dict.fromkeys(timing.delay for timing in timings))
    table = Table("", title=title, title_justify="left")
    for name in ("rows", "fetched", "round trips", *(f"at {delay} ms" for delay in delays)):
        table.add_column(name, justify="right")
    by_key = {(timing.way, timing.rows, timing.delay): timing for timing in timings}
    for way, rows in dict.fromkeys((timing.way, timing.rows) for timing in timings):
        first = by_key[way, rows, delays[0]]
        times = [_ms(by_key[way, rows, delay].seconds) for delay in delays]
        table.add_row(way, f"{rows:,}", f"{first.fetched:,}", f"{first.round_trips:,}", *times)
    return table


PARTS = ("shapes", "embeds", "fetch-size", "site-statistics")


@click.command(help=__doc__)
@click.option("--scale", type=click.FloatRange(min=0.01), default=1.0, show_default=True, help="Of the rows.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="How many are counted.")
@click.option("--delay", "delays", default="0,20", show_default=True, help="Milliseconds of a round trip; 0 first.")
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, default=PARTS, help="Default: all.")
@click.option("--pg-bin", type=click.Path(exists=True, file_okay=False), help="As FEDERATION_PG_BIN.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(
    scale: float,
    rounds: int,
    delays: str,
    parts: tuple[str, ...],
    pg_bin: str | None,
    *,
    as_json: bool,
) -> None:
    try:
        milliseconds = [int(delay) for delay in delays.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{delays} is no list of milliseconds", param_hint="--delay") from error
    if milliseconds[0] != 0:
        raise click.BadParameter("0 comes first: what is asked directly has no delay", param_hint="--delay")
    if pg_bin is not None:
        os.environ["FEDERATION_PG_BIN"] = pg_bin
    progress = Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        progress.print(text, style="dim")

    try:
        result = measure(scale, rounds, milliseconds, parts, say)
    except (Failed, FederationError) as error:
        progress.print(str(error), style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    if as_json:
        print(json.dumps(result.to_dict(), ensure_ascii=False))
    else:
        console = Console(highlight=False)
        show(result, console if console.is_terminal else Console(highlight=False, width=WIDTH))


if __name__ == "__main__":
    main()
