"""Accounts with rows of their own, and what each of them sees and changes: through the cloud, and at the hospital."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

from federation.administration import accounts as listed
from federation.errors import FederationError, PreconditionMissing, Side
from federation.testing.pair import FederationPair
from federation.testing.rows import Row, equal, insert_into

_READABLE = """
    SELECT c.relname FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace(%s) AND c.relname = ANY (%s) AND has_table_privilege(%s, c.oid, 'SELECT')
"""

_PRIVILEGES = "SELECT p FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) AS p WHERE has_table_privilege(%s, %s, p)"

# Row-level security refuses a command of which no permissive policy is about the role, whatever the row.
_ADMITTED = """
    SELECT verb FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS v (verb, n)
    WHERE NOT row_security_active(%(table)s) OR EXISTS (
        SELECT FROM pg_policy AS p
        WHERE p.polrelid = %(table)s::regclass AND p.polpermissive AND p.polcmd IN ('*', ('{a,w,d}'::"char"[])[n])
            AND EXISTS (SELECT FROM unnest(p.polroles) AS role WHERE role = 0 OR pg_has_role(role, 'USAGE')))
"""

WRITES = frozenset({"INSERT", "UPDATE", "DELETE"})

_REFUSALS = (psycopg.errors.InsufficientPrivilege, psycopg.errors.WithCheckOptionViolation)
"""By privileges and policies, and by a view's check option."""

_TAKEN = (psycopg.errors.UniqueViolation, psycopg.errors.ExclusionViolation)

_OWNERS = {"uuid", "text", "varchar"}
"""Types of columns that may name the account a row belongs to."""

_WITHOUT_EQUALITY = {"json", "xml"}


class Callers:
    """``accounts`` (claims by sub; the first two are meant) and what a row of the first one holds, by table (``rows``).

    The accounts are admitted at the hospital. ``tables`` are the exported ones that callers may read in the cloud.
    """

    def __init__(
        self, pair: FederationPair, accounts: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Row]
    ) -> None:
        self.pair, self.given = pair, rows
        self.config = pair.config
        self.first, self.second = list(accounts)[:2]
        self.roles = {sub: self._role(sub, claims) for sub, claims in accounts.items()}
        self.role = self.roles[self.first]
        self.accounts = {
            sub: {name: value for name, value in claims.items() if name not in {"sub", "role"}}
            for sub, claims in accounts.items()
        }
        self.rows = pair.new_rows()
        self.cloud = pair.superuser("cloud")
        found = self.cloud.execute(
            _READABLE, [self.config.tables.schema_, list(self.config.tables.exported), self.role]
        ).fetchall()
        self.tables = [table for table in self.config.tables.exported if (table,) in found]
        self._owned: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._holding: dict[tuple[str, str], Row] = {}
        for sub, claims in accounts.items() if self.tables else ():
            if claims or UUID(sub) != self.config.site_id:
                listed.add(self.config, UUID(sub), {**claims, "role": self.roles[sub]})

    def admitted(self, table: str) -> frozenset[str]:
        """Which of WRITES the hospital's policies may admit from the first account, whatever the row holds."""
        with self._bound(self.first):
            name = self._view(table).as_string(None)
            found = self.rows.connection.execute(_ADMITTED, {"table": name}).fetchall()
        return frozenset(verb for (verb,) in found)

    def works(self, table: str, writes: frozenset[str] = WRITES) -> Iterator[str]:
        """What is wrong where the first account reads, changes, adds and deletes a row of its own in the cloud.

        What is not among ``writes`` may also be refused, or find nothing.
        """
        row = self.row_of(self.first, table)
        if row is None:
            yield self._nobodys(table)
            return
        view, columns = self._view(table), self._columns(table)
        may = {privilege for (privilege,) in self.cloud.execute(_PRIVILEGES, [self.role, view.as_string(None)])}
        key = {name: row[name] for name in self._key(table)}
        changed = self._changed(table)
        new = {name: value for name, value in self._another(table).items() if name in columns}
        work = {
            "SELECT": sql.SQL("SELECT FROM {} WHERE {}").format(view, equal(key)),
            "UPDATE": _update(view, changed, key),
            "INSERT": insert_into(view, new),
            "DELETE": sql.SQL("DELETE FROM {} WHERE {}").format(view, equal(key)),
        }
        for verb, command in work.items():
            if verb != "SELECT" and verb not in may:
                continue
            try:
                count = self._try(self.first, table, command, new if verb == "INSERT" else key, key)
            except psycopg.errors.ForeignKeyViolation as error:
                if verb != "DELETE":  # which has come to the row: others still point at it
                    yield self._broken(verb, table, error)
            except psycopg.Error as error:
                if verb in {*writes, "SELECT"} or not isinstance(error, _REFUSALS):
                    yield self._broken(verb, table, error)
            else:
                if count != 1 and (verb in {*writes, "SELECT"} or count):
                    yield f"{verb} on {self._name(table)} finds {count} rows and not the account's one"

    def _broken(self, verb: str, table: str, error: psycopg.Error) -> str:
        hint = "let the hospital take what a cloud of this release sends"
        if isinstance(error, psycopg.errors.NotNullViolation):
            hint = "what this cloud does not name must have a default or be NULL at the hospital"
        return f"{verb} on {self._name(table)} fails as {self.role} ({error.diag.message_primary}) — {hint}"

    def _try(self, sub: str, table: str, command: sql.Composed, values: Row, own: Row) -> int:
        """How many rows ``command`` finds as ``sub`` in the cloud; rolled back. psycopg.Error where it fails.

        Where the first account's row (``own`` is its key) is in the way, it is tried without.
        """

        def attempt() -> int:
            with self.pair.as_user(sub, self.roles[sub], **self.accounts[sub]) as caller:
                count = caller.execute(command, list(values.values())).rowcount
                caller.connection.rollback()
                return count

        try:
            return attempt()
        except _TAKEN:
            with self.rows.without(table, own):
                return attempt()

    def leaks(self, table: str, *, shared: bool) -> Iterator[str]:
        """What one account can do to another's rows of ``table``; reading is no leak where they are ``shared``."""
        row = self.row_of(self.first, table)
        if row is None:
            yield self._nobodys(table)
            return
        self.row_of(self.second, table)
        stranger = str(uuid4())
        name = self._name(table)
        seen = self._seen_in_cloud(table, [self.first, self.second, stranger])
        for sub in (self.first, self.second):
            if surplus := seen[sub] - self._seen_at_hospital(table, sub):
                yield (
                    f"{name} shows {len(surplus)} rows to account {sub} that the hospital's policies refuse — "
                    "is the foreign table read past the link role?"
                )
        if not seen[self.first]:
            yield f"{name} does not show account {self.first} its own row — see the view's predicate"
        if not shared:
            for sub in (self.second, stranger):
                if common := seen[self.first] & seen[sub]:
                    whom = f"account {sub}" if sub == self.second else "an account that is not listed"
                    yield (
                        f"{name} shows {len(common)} rows of account {self.first} to {whom} — narrow the policies of "
                        f"the hospital's table, or name {table} in the ini setting federation_shared if all may read it"
                    )
            if self._link_role_sees(table):
                yield f"the link role itself reads {name} with no caller bound — let each policy ask for auth.uid()"
        yield from self._changes(table, row)

    def row_of(self, sub: str, table: str) -> dict[str, Any] | None:
        """A new row that ``sub`` sees at the hospital, the same one when asked again; None where none was found."""
        if (sub, table) not in self._owned:
            for _, parent, _ in self.rows.tables[table].parents:
                if parent != table and parent in self.tables:
                    self.row_of(sub, parent)
            held = self._held(sub, table)
            self._owned[sub, table] = None
            if held is not None:
                self._holding[sub, table] = held
                self._owned[sub, table] = self.rows.insert(table, held, self._rows_of(sub))
        return self._owned[sub, table]

    def _rows_of(self, sub: str) -> dict[str, Row]:
        """Those that there are, by table: a row's foreign keys point at the same account's."""
        return {table: row for (owner, table), row in self._owned.items() if owner == sub and row is not None}

    def _held(self, sub: str, table: str) -> Row | None:
        """What a row must hold for ``sub`` to see it: given, nothing, what its claims say, or its id in a column."""
        columns = self.rows.tables[table].columns
        claims = {name: value for name, value in self.accounts[sub].items() if name in columns}
        candidates: list[Row] = [claims] if claims else []
        candidates.append({})
        taken = {name for names, *_ in self.rows.tables[table].parents for name in names}
        taken |= {*self.rows.tables[table].key, self.config.tables.site_column or ""}
        candidates += [{name: sub} for name, column in columns.items() if column.type in _OWNERS and name not in taken]
        if sub == self.first and table in self.given:
            candidates = [self.given[table]]
        before = len(self._seen_at_hospital(table, sub))
        for candidate in candidates:
            try:
                with self.rows.trial():
                    self.rows.insert(table, candidate, self._rows_of(sub))
                    if len(self._seen_at_hospital(table, sub)) > before:
                        return candidate
            except FederationError:
                if table in self.given:
                    raise
        return None

    def _seen_at_hospital(self, table: str, sub: str) -> set[str]:
        """The keys of the rows that the policies show to ``sub``: as the link role, bound as over the link."""
        query = sql.SQL("SELECT {} FROM {}").format(self._row(table), self._view(table))
        try:
            with self._bound(sub):
                return {key for (key,) in self.rows.connection.execute(query)}
        except psycopg.Error as error:
            raise _unreadable(error, self._name(table), "local") from error

    @contextmanager
    def _bound(self, sub: str) -> Iterator[None]:
        """In the block the hospital's connection is the link role's, with ``sub`` bound."""
        local = self.rows.connection
        user, _ = self.config.link_login("link")
        with local.transaction(force_rollback=True):
            local.execute(sql.SQL("SET LOCAL SESSION AUTHORIZATION {}").format(sql.Identifier(user)))
            local.execute("SELECT taken FROM federation.bind WHERE sub = %s", [sub])
            yield

    def _seen_in_cloud(self, table: str, subs: list[str]) -> dict[str, set[str]]:
        """The same through the cloud: one caller after the other on one connection, as PostgREST's pool has it.

        All but the first claim what the first is.
        """
        query = sql.SQL("SELECT {} FROM {}").format(self._row(table), self._view(table))
        seen = {}
        with psycopg.connect(self.pair.authenticator_url) as connection:
            for sub in subs:
                role = self.roles.get(sub, self.role)
                claims = json.dumps({**self.accounts[self.first], "sub": sub, "role": role})
                with connection.transaction():
                    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
                    connection.execute("SELECT set_config('request.jwt.claims', %s, true)", [claims])
                    try:
                        seen[sub] = {key for (key,) in connection.execute(query)}
                    except psycopg.Error as error:
                        raise _unreadable(error, self._name(table), "cloud") from error
        return seen

    def _link_role_sees(self, table: str) -> bool:
        link = self.pair.link_role()
        try:
            return bool(link.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(self._view(table))).rowcount)
        except psycopg.errors.InsufficientPrivilege:
            return False
        finally:
            link.rollback()

    def _changes(self, table: str, row: dict[str, Any]) -> Iterator[str]:
        """What the second account does to the first one's row, or in its name; all of it is rolled back."""
        view, columns, name = self._view(table), self._columns(table), self._name(table)
        key = {column: row[column] for column in self._key(table)}
        changed = self._changed(table)
        new = {column: value for column, value in self._another(table).items() if column in columns}
        attempts: dict[str, tuple[sql.Composed, Row]] = {
            "change": (_update(view, changed, key), key),
            "delete": (sql.SQL("DELETE FROM {} WHERE {}").format(view, equal(key)), key),
            "add": (insert_into(view, new), new),
        }
        for verb, (statement, values) in attempts.items():
            try:
                count = self._try(self.second, table, statement, values, key)
            except _REFUSALS:
                continue
            except psycopg.Error as error:  # no policy has refused it
                yield (
                    f"{name}: whether account {self.second} can {verb} rows of account {self.first} is not tested "
                    f"({error.diag.message_primary}) — only SQLSTATE 42501 is a refusal: let the account's own {verb} "
                    "work first, and triggers refuse with that code"
                )
                continue
            if count:
                yield (
                    f"{name}: account {self.second} can {verb} rows of account {self.first} — narrow USING and "
                    "WITH CHECK of the hospital's policies"
                )

    def _role(self, sub: str, claims: Row) -> str:
        """The one that its claims name, else the first of callers."""
        callers = self.config.roles.callers
        role = claims.get("role", callers[0])
        if role not in callers:
            raise PreconditionMissing(
                f"account {sub} of federation_accounts has the role {role}, and accounts act as {', '.join(callers)}",
                hint="let its claims name one of roles.callers in federation.toml, or no role",
            )
        return str(role)

    def _another(self, table: str) -> dict[str, object]:
        """A row of the first account that is not there yet."""
        return self.rows.complete(table, self._holding[self.first, table], self._rows_of(self.first))

    def _columns(self, table: str) -> list[str]:
        """The view's."""
        found = self.cloud.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
            "ORDER BY attnum",
            [self._view(table).as_string(None)],
        )
        return [name for (name,) in found.fetchall()]

    def _key(self, table: str) -> tuple[str, ...]:
        """What tells its rows apart on both sides: the primary key, or all that a view without it shows."""
        key, columns = self.rows.tables[table].key, self.rows.tables[table].columns
        shown = [name for name in self._columns(table) if name in columns]
        if key and set(key) <= set(shown):
            return key
        return tuple(name for name in shown if columns[name].type not in _WITHOUT_EQUALITY)

    def _changed(self, table: str) -> str:
        """A column of the view that an UPDATE may set; no key if there is another."""
        key, columns = self._key(table), self.rows.tables[table].columns
        shown = [name for name in self._columns(table) if name in columns and not columns[name].is_generated]
        return next((name for name in shown if name not in key), shown[0])

    def _row(self, table: str) -> sql.Composable:
        """The key as one text."""
        return sql.SQL("ROW({})::text").format(sql.SQL(", ").join(map(sql.Identifier, self._key(table))))

    def _view(self, table: str) -> sql.Identifier:
        """Of the same name on both sides."""
        return sql.Identifier(self.config.tables.schema_, table)

    def _name(self, table: str) -> str:
        return f"{self.config.tables.schema_}.{table}"

    def _nobodys(self, table: str) -> str:
        return (
            f"no row of {self._name(table)} could be made that account {self.first} sees, so nothing is tested — "
            "say in a fixture federation_rows what its rows hold, and in federation_accounts its claims"
        )


def _update(view: sql.Composable, column: str, key: Row) -> sql.Composed:
    """Write an UPDATE that sets ``column`` of the row with ``key`` to what it is."""
    name = sql.Identifier(column)
    return sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(view, name, name, equal(key))


def _unreadable(error: psycopg.Error, name: str, side: Side) -> FederationError:
    return FederationError(
        f"{name} cannot be read by an account ({error.diag.message_primary})",
        side=side,
        hint="grant what the link roles and the callers need, in a release",
    )
