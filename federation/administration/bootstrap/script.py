"""The statements as a script for psql."""

from __future__ import annotations

import re

from psycopg import sql

from federation.administration.bootstrap.owners import who_owns
from federation.administration.bootstrap.statement import Database, Statement, dollar_quoted, groups
from federation.config import Config
from federation.errors import Side


def written(config: Config, side: Side, todo: list[Statement]) -> str:
    """Return the statements as a commented script, without its last line break."""
    owner, database = who_owns(config, side)
    admin = "a superuser" if side == "local" else "a superuser (on Supabase: postgres)"
    lines = [
        *_comment(f"federation bootstrap {side}: makes what the owner {owner} of database {database} needs."),
        *_comment(f"Run it once, as {admin}: psql --file FILE 'postgresql://ADMIN@HOST/postgres'"),
        *_comment("A second run changes nothing but passwords and settings; verifiers are in here, no passwords."),
        "",
        "\\set ON_ERROR_STOP on",
    ]
    current: Database = "maintenance"
    for (where, transactional), group in groups(todo):
        if where != current:
            current = where
            lines += ["", f"\\connect -reuse-previous=on {_conninfo(database)}"]
        block = [line for statement in group for line in ("", *_printed(statement))]
        lines += ["", "BEGIN;", *block, "", "COMMIT;"] if transactional else block
    return "\n".join([*lines, "", *_notes(config, side)]).rstrip()


def _printed(statement: Statement) -> list[str]:
    """Return it for psql. If there is a condition, it is a query whose result ``\\gexec`` runs."""
    comment = _comment(statement.why)
    if statement.unless is None:
        return [*comment, f"{statement.command.as_string(None)};"]
    return [
        *comment,
        f"SELECT {dollar_quoted(statement.command).as_string(None)}",
        f"WHERE NOT EXISTS ({statement.unless.as_string(None)}) \\gexec",
    ]


def _notes(config: Config, side: Side) -> list[str]:
    """Return the comments on what no statement can do."""
    _, database = who_owns(config, side)
    if side == "cloud":
        return _comment(
            "If the app's callers make no temporary tables, take that right away, too:\n"
            + sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC;").format(sql.Identifier(database)).as_string(None)
        )
    users = ",".join(map(_hba_name, (config.link.user, config.link.service_user)))
    return [
        *_comment(
            "pg_hba.conf, above its other lines; then SELECT pg_reload_conf(). The link roles come from the cloud's"
        ),
        *_comment(
            "address, over TLS, with a password, and from nowhere else; with trust the cloud refuses to connect."
        ),
        *_comment(f"hostssl  {_hba_name(database)}  {users}  <the cloud's address>/32  scram-sha-256"),
        *_comment(f"host     all  {users}  all  reject"),
        *_comment(f"local    all  {users}  reject"),
    ]


def _hba_name(name: str) -> str:
    """https://www.postgresql.org/docs/current/auth-pg-hba-conf.html: quoted, a name has no special meaning."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _comment(text: str) -> list[str]:
    """Comment out every line: a line break in a name must not end the comment."""
    return [f"-- {line}".rstrip() for line in text.splitlines()]


def _conninfo(database: str) -> str:
    """The database as psql's ``\\connect`` reads it, whatever it is called; as pg_dump writes it."""
    value = database.replace("\\", "\\\\").replace("'", "\\'")
    return '"' + f"dbname='{value}'".replace('"', '""') + '"'
