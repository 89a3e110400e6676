"""The app's load: requests as PostgREST sends them, over a few connections, with a ledger of what was acknowledged.

A request is right when it shows what its caller has written and was told; wrong answers are collected, errors counted
by SQLSTATE, and at the end the hospital's rows are compared with the ledger.
"""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from deployments import Deployment

CONNECTIONS = 4
STRANGER = "00000000-0000-0000-0000-0000000000ff"

_BEGIN = """
    SELECT set_config('search_path', '"public", "extensions"', true), set_config('role', %s, true),
        set_config('request.jwt.claims', %s, true), set_config('request.method', %s, true)
"""
_READ = """
    WITH pgrst_source AS ({query})
    SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total,
        coalesce(json_agg(_postgrest_t), '[]')::text AS body FROM (SELECT * FROM pgrst_source) _postgrest_t
"""
_WRITE = """
    WITH pgrst_source AS ({query} RETURNING "public"."hospital_patients"."id")
    SELECT '' AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total,
        coalesce(json_agg(_postgrest_t), '[]')::text AS body FROM (SELECT * FROM pgrst_source) _postgrest_t
"""
_PATIENTS = 'SELECT "public"."hospital_patients".* FROM "public"."hospital_patients"'
LATEST = _READ.format(query=f'{_PATIENTS} ORDER BY "public"."hospital_patients"."created_at" DESC LIMIT 50')
GET = _READ.format(query=f'{_PATIENTS} WHERE "public"."hospital_patients"."id" = %s')
COUNT = 'SELECT pg_catalog.count(*) FROM "public"."hospital_patients" WHERE "public"."hospital_patients"."name" = %s'
JOINED = _READ.format(
    query="""SELECT q.id, q.status, row_to_json(p.*) AS patient FROM "public"."hospital_queues" AS q
    INNER JOIN LATERAL (SELECT p1.id, p1.name FROM "public"."hospital_patients" AS p1 WHERE p1.id = q.patient_id) AS p
    ON TRUE ORDER BY q.created_at DESC LIMIT 20"""
)
INSERT = _WRITE.format(
    query="""INSERT INTO "public"."hospital_patients" ("age", "hospital_id", "id", "name")
    SELECT "pgrst_body"."age", "pgrst_body"."hospital_id", "pgrst_body"."id", "pgrst_body"."name"
    FROM (SELECT %s::json AS json_data) pgrst_payload,
    LATERAL (SELECT "age", "hospital_id", "id", "name" FROM json_to_record(pgrst_payload.json_data)
        AS _ ("age" integer, "hospital_id" uuid, "id" uuid, "name" text)) pgrst_body"""
)
UPDATE = _WRITE.format(
    query="""UPDATE "public"."hospital_patients" SET "age" = "pgrst_body"."age"
    FROM (SELECT %s::json AS json_data) pgrst_payload,
    LATERAL (SELECT "age" FROM json_to_record(pgrst_payload.json_data) AS _ ("age" integer)) pgrst_body
    WHERE "public"."hospital_patients"."id" = %s"""
)
DELETE = _WRITE.format(query='DELETE FROM "public"."hospital_patients" WHERE "public"."hospital_patients"."id" = %s')

KINDS = {
    "list": 4,
    "get": 4,
    "count": 1,
    "joined": 2,
    "insert": 4,
    "update": 4,
    "delete": 2,
    "stranger's list": 1,
    "stranger's insert": 1,
    "service list": 2,
}
"""How often each kind is asked."""


@dataclass
class Report:
    """What the app was told. ``milliseconds`` by phase, ``errors`` by kind and SQLSTATE."""

    wrong: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: list[str] = field(default_factory=list)
    acknowledged: int = 0

    @property
    def requests(self) -> int:
        return sum(map(len, self.milliseconds.values()))

    @property
    def deadlocks(self) -> int:
        return sum(number for error, number in self.errors.items() if error.endswith("40P01"))

    def __str__(self) -> str:
        lines = [
            f"{self.requests} requests, {len(self.wrong)} wrong answers, {self.acknowledged} acknowledged writes, "
            f"{len(self.lost)} lost, errors {dict(self.errors) or 'none'}"
        ]
        for phase, times in self.milliseconds.items():
            ordered = sorted(times)
            lines.append(
                f"  {phase}: {len(times)} requests, p50 {statistics.median(ordered):.0f} ms, "
                f"p99 {ordered[int(len(ordered) * 0.99)]:.0f} ms, longest {ordered[-1]:.0f} ms"
            )
        return "\n".join([*lines, *(f"  wrong: {text}" for text in self.wrong[:10])])


@dataclass
class Load:
    """Connections that ask one request after the other until they are told to stop."""

    deployment: Deployment
    rows: int
    report: Report = field(default_factory=Report)
    phase: str = "without a release"
    stopping: threading.Event = field(default_factory=threading.Event)
    ledger: dict[str, int | None] = field(default_factory=dict)
    """By id, the age that was acknowledged last; None is deleted."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        own: dict[str, int] = {}
        url = self.deployment.pair.authenticator_url(self.deployment.cloud_dbname)
        with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
            connection.execute("SET statement_timeout = '60s'")
            while not self.stopping.is_set():
                (kind,) = chance.choices(list(KINDS), list(KINDS.values()))
                phase, began = self.phase, time.perf_counter()
                try:
                    self.ask(connection, kind, own, chance)
                except psycopg.Error as error:
                    refused = kind == "stranger's insert" and error.sqlstate == "42501"
                    if not refused:
                        with self.lock:
                            self.report.errors[f"{kind} {error.sqlstate}"] += 1
                with self.lock:
                    self.report.milliseconds[phase].append((time.perf_counter() - began) * 1000)

    @contextmanager
    def request(
        self, connection: psycopg.Connection[Any], role: str, sub: str | None, *, read_only: bool = True
    ) -> Iterator[psycopg.Cursor[Any]]:
        claims = {"role": role} | ({"sub": sub} if sub else {})
        with connection.transaction(), connection.cursor() as cursor:
            if read_only:
                cursor.execute("SET TRANSACTION READ ONLY")
            cursor.execute(_BEGIN, [role, json.dumps(claims), "GET" if read_only else "POST"])
            yield cursor

    def ask(self, connection: psycopg.Connection[Any], kind: str, own: dict[str, int], chance: random.Random) -> None:
        """One request, and what is wrong with its answer. What COMMIT has answered is in the ledger."""
        site = ("authenticated", SITE_ID)
        known = chance.choice(list(own)) if own else None
        match kind:
            case "list" | "service list":
                role = site if kind == "list" else ("service_role", None)
                with self.request(connection, *role) as cursor:
                    self.expect(kind, self.page(cursor, LATEST), 50)
            case "get" if known is not None:
                with self.request(connection, *site) as cursor:
                    cursor.execute(GET, [known])
                    found = [row["age"] for row in json.loads(cursor.fetchone()[2])]  # type: ignore[index]
                self.expect(kind, found, [own[known]])
            case "count":
                with self.request(connection, *site) as cursor:
                    cursor.execute(COUNT, ["Stays"])
                    self.expect(kind, cursor.fetchone()[0], self.rows)  # type: ignore[index]
            case "joined":
                with self.request(connection, *site) as cursor:
                    self.expect(kind, self.page(cursor, JOINED), 20)
            case "insert":
                key, age = str(uuid.UUID(int=chance.getrandbits(128))), chance.randrange(100)
                row = {"id": key, "hospital_id": SITE_ID, "name": "Written", "age": age}
                with self.request(connection, *site, read_only=False) as cursor:
                    self.expect(kind, self.page(cursor, INSERT, json.dumps(row)), 1)
                own[key] = age
                self.acknowledge(key, age)
            case "update" if known is not None:
                age = chance.randrange(100)
                with self.request(connection, *site, read_only=False) as cursor:
                    touched = self.page(cursor, UPDATE, json.dumps({"age": age}), known)
                self.expect(kind, touched, 1)
                own[known] = age
                self.acknowledge(known, age)
            case "delete" if known is not None:
                with self.request(connection, *site, read_only=False) as cursor:
                    touched = self.page(cursor, DELETE, known)
                self.expect(kind, touched, 1)
                del own[known]
                self.acknowledge(known, None)
            case "stranger's list":
                with self.request(connection, "authenticated", STRANGER) as cursor:
                    self.expect(kind, self.page(cursor, LATEST), 0)
            case "stranger's insert":
                row = {"id": str(uuid.uuid4()), "hospital_id": SITE_ID, "name": "Foreign", "age": 1}
                with self.request(connection, "authenticated", STRANGER, read_only=False) as cursor:
                    self.page(cursor, INSERT, json.dumps(row))
                self.expect(kind, "acknowledged", "refused")

    @staticmethod
    def page(cursor: psycopg.Cursor[Any], statement: str, *values: str) -> int:
        """How many rows the answer holds."""
        cursor.execute(statement, values)  # type: ignore[arg-type]
        return int(cursor.fetchone()[1])  # type: ignore[index]

    def expect(self, kind: str, found: object, wanted: object) -> None:
        if found != wanted:
            with self.lock:
                self.report.wrong.append(f"{self.phase}: {kind} gave {found} for {wanted}")

    def acknowledge(self, key: str, age: int | None) -> None:
        with self.lock:
            self.report.acknowledged += 1
            self.ledger[key] = age

    def compare(self) -> None:
        """What was acknowledged against what the hospital holds."""
        held = dict(self.deployment.look("local", "SELECT id::text, age FROM hospital_patients WHERE name = 'Written'"))
        for key, age in self.ledger.items():
            if held.get(key) != age:
                self.report.lost.append(f"{key}: {held.get(key)} for {age}")


@contextmanager
def under_load(deployment: Deployment, rows: int, seed: int) -> Iterator[Load]:
    """Four connections at work while the block runs; its report is whole after it."""
    load = Load(deployment, rows)
    threads = [threading.Thread(target=load.work, args=[seed + n]) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stopping.set()
        for thread in threads:
            thread.join()
    load.compare()
