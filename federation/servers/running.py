"""A PostgreSQL server that runs, whoever started it: its superuser's connections and databases."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow


class RunningServer:
    """Where a server listens, and its superuser with ``password``."""

    def __init__(self, host: str, port: int, superuser: str, password: str) -> None:
        self.host, self.port = host, port
        self.superuser, self.password = superuser, password

    def url(self, user: str | None = None, password: str | None = None, dbname: str = "postgres") -> str:
        """Return a ``postgresql://`` URL: the superuser's, or that of ``user`` with ``password`` if given."""
        if user is None:
            user, password = self.superuser, self.password
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password is not None else "")
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(dbname, safe='')}"

    def connect(
        self, dbname: str = "postgres", *, autocommit: bool = True, **parameters: Any
    ) -> psycopg.Connection[TupleRow]:
        """Open a connection of the superuser; ``parameters`` are psycopg's, and libpq's ``user``, ``password``, …."""
        return psycopg.connect(self.url(dbname=dbname), autocommit=autocommit, **parameters)

    def create_database(self, name: str, owner: str | None = None, template: str | None = None) -> None:
        """Create the database ``name``; nobody may be connected to the ``template``."""
        command = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        for keyword, value in ((sql.SQL("OWNER"), owner), (sql.SQL("TEMPLATE"), template)):
            if value is not None:
                command += sql.SQL(" {} {}").format(keyword, sql.Identifier(value))
        with self.connect() as connection:
            connection.execute(command)

    def drop_database(self, name: str) -> None:
        """Drop the database ``name`` if there is one, whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def set_password(self, role: str, password: str) -> None:
        """Give ``role`` a password of random characters. Only its verifier is sent, so the log cannot hold it."""
        with self.connect() as connection:
            command = sql.SQL("ALTER ROLE {} PASSWORD {}")
            connection.execute(command.format(sql.Identifier(role), sql.Literal(_verifier(password))))


def _verifier(password: str) -> str:
    """SCRAM's, with one iteration: more would keep a password from being guessed, and these cannot be.

    https://www.rfc-editor.org/rfc/rfc5803
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_, stored_, server_ = (b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256$1:{salt_}${stored_}:{server_}"
