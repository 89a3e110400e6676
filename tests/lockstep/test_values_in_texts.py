"""No value of a row is in a text of the toolkit's: the server quotes some, and so does whoever writes RAISE."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING

import chains_of_three as three
import psycopg
import pytest
from runs import add_note, end_started, joined, rewrite

from federation.errors import FederationError, from_database
from federation.lockstep import upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

    from federation.errors import Side

VALUE = "Asha Verma"

TRIGGER = f"""
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'row of {VALUE}' USING ERRCODE = '{{state}}', HINT = 'ask {VALUE}'; END $$;
CREATE TRIGGER tell BEFORE UPDATE ON note FOR EACH ROW EXECUTE FUNCTION tell()"""

LOCALLY = {
    "a date": ("ALTER TABLE note ALTER text TYPE date USING text::date", "22007 invalid datetime format"),
    "an integer": ("ALTER TABLE note ALTER text TYPE integer USING text::integer", "22P02 invalid text representation"),
    "a uuid": ("ALTER TABLE note ALTER text TYPE uuid USING text::uuid", "22P02 invalid text representation"),
    "json": ("ALTER TABLE note ALTER text TYPE jsonb USING text::jsonb", "22P02 invalid text representation"),
    "a DO block": (
        "DO $$ DECLARE found text; BEGIN SELECT text INTO found FROM note; RAISE EXCEPTION 'row of %', found; END $$",
        "P0001 raise exception",
    ),
    "a DO block with a state of its own": (
        f"DO $$ BEGIN RAISE EXCEPTION 'row of {VALUE}' USING ERRCODE = 'XY123'; END $$",
        "XY123",
    ),
    "a DO block with the state of a missing privilege": (
        f"DO $$ BEGIN RAISE EXCEPTION 'row of {VALUE}' USING ERRCODE = '42501'; END $$",
        "42501 insufficient privilege",
    ),
    "a check": (
        "ALTER TABLE note ADD CONSTRAINT short CHECK (length(text) < 3)",
        "23514 check violation, table public.note, constraint short",
    ),
    "a unique index": (
        "INSERT INTO note SELECT * FROM note",
        "23505 unique violation, table public.note, constraint note_pkey",
    ),
}


@pytest.fixture
def tiny(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at the second, with a note whose text is the value."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0002")
        add_note(deployment, text=VALUE)
        yield deployment
        end_started()


def told_everywhere(deployment: Deployment, side: Side) -> dict[str, str]:
    """What each way to run release 0003 says when its half of ``side`` fails, and what is written down of it."""
    said = {}
    for words in (("upgrade",), ("upgrade", "--json"), ("status", "--json"), ("history", "--json"), ("history",)):
        ran = deployment.federation(*words)
        said["federation " + " ".join(words)] = ran.stdout + ran.stderr
        if words[0] == "upgrade":
            assert ran.returncode != 0
            assert "Traceback" not in ran.stderr
    if side == "cloud":
        assert deployment.alembic("local", "upgrade", "head").returncode == 0
    ran = deployment.alembic(side, "upgrade", "head")
    assert ran.returncode != 0
    assert "Traceback" not in ran.stderr
    said["alembic"] = ran.stdout + ran.stderr
    try:
        upgrade(deployment.config)
    except FederationError as error:
        said["the chained causes"] = "".join(traceback.format_exception(error))
        said["a log"] = f"{error.message} {error.hint} {error.__cause__} {error.__cause__!r}"
    return said


def without_the_value(said: dict[str, str]) -> None:
    assert "the chained causes" in said
    assert {way: text for way, text in said.items() if VALUE in text or VALUE.split()[0] in text} == {}


@pytest.mark.claim("S37")
@pytest.mark.parametrize(("statement", "named"), LOCALLY.values(), ids=LOCALLY)
def test_a_value_that_the_server_quotes_is_in_none_of_the_toolkits_texts(
    tiny: Deployment, statement: str, named: str
) -> None:
    with pytest.raises(psycopg.Error) as raised, tiny.superuser("local") as control:
        control.execute(statement)  # type: ignore[arg-type]
    assert VALUE.split()[0] in str(raised.value) or raised.value.diag.constraint_name, "nothing is tested"
    rewrite(tiny, {"local": {"0003": (f"op.execute({statement!r})", "pass")}})
    said = told_everywhere(tiny, "local")
    without_the_value(said)
    assert named in said["federation upgrade"]
    assert named in said["alembic"]
    assert named in json.loads(said["federation upgrade --json"].splitlines()[0])["message"]


def test_the_control_the_servers_own_messages_quote_it(tiny: Deployment) -> None:
    with pytest.raises(psycopg.DataError) as raised, tiny.superuser("local") as control:
        control.execute("SELECT text::date FROM note")
    assert VALUE in str(raised.value)
    ours = from_database(raised.value, side="local")
    assert VALUE not in f"{ours} {raised.value}"


@pytest.mark.claim("S37")
@pytest.mark.parametrize(
    ("state", "named"),
    [("P0001", "P0001 raise exception"), ("22000", "22000 data exception"), ("42501", "42501 insufficient privilege")],
)
def test_a_value_that_comes_over_the_link_is_in_none_either(tiny: Deployment, state: str, named: str) -> None:
    with tiny.owner("local") as owner:
        owner.execute(TRIGGER.format(state=state))  # type: ignore[arg-type]
        owner.execute("GRANT SELECT, UPDATE ON note TO federation_service")
        owner.execute("CREATE POLICY service ON note TO federation_service USING (true)")
    write = "UPDATE federation_link.note SET text = text"
    with pytest.raises(psycopg.Error) as raised, tiny.owner("cloud") as control:
        control.execute(write)  # type: ignore[arg-type]
    assert VALUE in str(raised.value)
    rewrite(tiny, {"cloud": {"0003": (f"op.execute({write!r})", "pass")}})
    said = told_everywhere(tiny, "cloud")
    without_the_value(said)
    assert named in said["federation upgrade"]
    assert named in said["alembic"]


def test_what_a_triggers_notice_says_is_not_repeated_and_the_guards_warning_is(tiny: Deployment) -> None:
    tell = f"op.execute(\"DO $$ BEGIN RAISE WARNING 'row of {VALUE}'; END $$\")"
    own = "op.execute(\"DO $$ BEGIN RAISE WARNING 'told' USING ERRCODE = 'ZF001'; END $$\")"
    rewrite(tiny, {"local": {"0003": (joined(tell, own), "pass")}})
    ran = tiny.federation("upgrade")
    assert ran.returncode == 0, ran.stderr
    assert "federation: told" in ran.stderr
    assert VALUE.split()[0] not in ran.stdout + ran.stderr


@pytest.mark.claim("S37")
@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("int(op.get_bind().exec_driver_sql('SELECT text FROM note').scalar_one())", "ValueError in 0003.py, line"),
        ("{}[op.get_bind().exec_driver_sql('SELECT text FROM note').scalar_one()]", "KeyError in 0003.py, line"),
        ("no_such_name", "NameError: name 'no_such_name' is not defined"),
    ],
)
def test_what_a_migrations_python_says_of_a_value_is_not_repeated(tiny: Deployment, line: str, named: str) -> None:
    rewrite(tiny, {"local": {"0003": (line, "pass")}})
    said = told_everywhere(tiny, "local")
    without_the_value(said)
    assert named in said["federation upgrade"]
    assert named in said["alembic"]
