"""Errors say what happened, where, and what to do; never a row's values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest

from federation import errors
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from deployments import Deployment

    from federation.servers import Pair


KINDS = [cls for cls in errors.FederationError.__subclasses__() if cls.__module__ == errors.__name__]


def test_exit_codes_are_those_of_the_interface() -> None:
    codes = {cls.__name__: cls.exit_code for cls in KINDS}
    assert codes == {
        "PendingChanges": 3,
        "ReleasesDiffer": 4,
        "LockHeld": 5,
        "Unreachable": 6,
        "VerificationFailed": 7,
        "Refused": 8,
        "PreconditionMissing": 9,
        "Interrupted": 130,
    }
    assert errors.FederationError.exit_code == 1


def test_the_hierarchy_is_drawn_in_the_docstring() -> None:
    assert errors.__doc__ is not None
    for cls in KINDS:
        line = next(line for line in errors.__doc__.splitlines() if cls.__name__ in line)
        assert f" {cls.exit_code} " in line


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("CREATE TABLE pg_catalog.x ()", errors.PreconditionMissing),
        ("CREATE SCHEMA pg_catalog", errors.FederationError),
        ("CREATE TABLE a (); CREATE TABLE a ()", errors.Refused),
        ("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = 'ZF007'; END $$", errors.VerificationFailed),
        ("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '55P03'; END $$", errors.LockHeld),
        ("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$", errors.LockHeld),
        ("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = 'HV00N'; END $$", errors.Unreachable),
        ("SELECT pg_terminate_backend(pg_backend_pid())", errors.Unreachable),
        ("SELECT 1/0", errors.FederationError),
    ],
)
def test_a_servers_error_becomes_one_of_ours(
    deployment: Deployment, statement: str, kind: type[errors.FederationError]
) -> None:
    with pytest.raises(psycopg.Error) as raised, deployment.owner("local") as owner:
        owner.execute(statement)  # type: ignore[arg-type]
    ours = errors.from_database(raised.value, side="local", release="0001")
    assert type(ours) is kind
    assert (ours.side, ours.release) == ("local", "0001")


TYPE, ROLE, EARLIER = "op.create_type", "federation bootstrap local", "an earlier one"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("SELECT NULL::no_such", {TYPE}),
        ("GRANT no_such TO CURRENT_USER", {ROLE}),
        ("CREATE TABLE a (); DROP POLICY extra ON a", {EARLIER}),
        ("CREATE TABLE a (); DROP TRIGGER extra ON a", {EARLIER}),
        (
            "DO $$ BEGIN RAISE EXCEPTION 'Typ »x« existiert nicht' USING ERRCODE = '42704'; END $$",
            {TYPE, ROLE, EARLIER},
        ),
    ],
    ids=["a type", "a role", "a policy", "a trigger", "another language"],
)
def test_the_hint_for_what_does_not_exist_is_of_its_kind(
    deployment: Deployment, statement: str, words: set[str]
) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject) as raised, deployment.owner("local") as owner:
        owner.execute(statement)  # type: ignore[arg-type]
    ours = errors.from_database(raised.value, side="local")
    assert type(ours) is errors.PreconditionMissing
    assert {word for word in (TYPE, ROLE, EARLIER) if word in str(ours.hint)} == words


def test_a_servers_hint_to_drop_a_table_is_not_repeated(federated: Deployment) -> None:
    with pytest.raises(psycopg.errors.WrongObjectType) as raised, federated.owner("local") as owner:
        owner.execute("DROP VIEW hospital_queues")
    assert raised.value.diag.message_hint == "Use DROP TABLE to remove a table."
    ours = errors.from_database(raised.value, side="cloud")
    assert "DROP TABLE" not in str(ours)
    assert "FEDERATION_CLOUD_URL" in str(ours.hint)


@pytest.mark.claim("S37")
def test_a_row_in_an_errors_detail_is_not_repeated(federated: Deployment) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation) as raised, federated.owner("local") as owner:
        owner.execute(
            "INSERT INTO hospital_queues (hospital_id, queue_number, completed_by_name) VALUES (%s, 1, 'Asha')",
            [SITE_ID],
        )
    assert "Asha" in str(raised.value), "the server's own text holds no row: nothing is tested"
    assert "Asha" not in str(errors.from_database(raised.value, side="local"))


def test_an_unreachable_server_is_one_sentence_without_the_password(pair: Pair) -> None:
    with pytest.raises(psycopg.OperationalError) as raised:
        psycopg.connect("postgresql://owner:hunter2@127.0.0.1:1/x", connect_timeout=2)
    ours = errors.from_database(raised.value, side="cloud")
    assert isinstance(ours, errors.Unreachable)
    assert "\n" not in str(ours)
    assert "hunter2" not in str(ours)
    assert "FEDERATION_CLOUD_URL" in str(ours)


def test_what_a_sessions_temporary_view_keeps_names_the_way_to_that_session(deployment: Deployment) -> None:
    with deployment.owner("local") as owner, deployment.owner("local") as caller:
        owner.execute("CREATE TABLE kept (x integer)")
        caller.execute("CREATE TEMP VIEW v AS SELECT x FROM public.kept")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist) as raised:
            owner.execute("DROP TABLE kept")
        ours = errors.from_database(raised.value, side="local")
        assert "is a session's temporary schema" in str(ours.hint)
        found = re.search(r"SELECT (pg_stat_get_backend_pid\(\d+\))", str(ours.hint))
        assert found is not None
        if owner.info.server_version >= 160000:
            assert owner.execute(f"SELECT {found[1]}").fetchone() == (caller.info.backend_pid,)  # type: ignore[arg-type]
        caller.execute("CREATE VIEW public.w AS SELECT x FROM public.kept; DROP VIEW v")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist) as raised:
            owner.execute("DROP TABLE kept")
        assert "temporary" not in str(errors.from_database(raised.value, side="local").hint), "the control"
