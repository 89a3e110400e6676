"""What the releases make and somebody has dropped is found and named, and the named command makes it again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import chains_of_three as three
import psycopg
import pytest
from runs import add_note, catalogs, rewrite

from federation.errors import VerificationFailed
from federation.lockstep import downgrade, upgrade
from federation.lockstep.expected import Expected
from federation.lockstep.release import Releases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

    from federation.errors import Side


@pytest.fixture
def triple(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at the newest, with a row of the site's."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        upgrade(deployment.config)
        add_note(deployment, text="x")
        yield deployment


@dataclass(frozen=True)
class Loss:
    """What somebody drops, as the superuser, and what is missing then."""

    statement: str
    missing: tuple[str, ...]
    side: Side = "cloud"


VIEW, TABLE = "view public.note", "foreign table federation_link.note"
TRIGGER = "trigger bind_before_write on federation_link.note"
MAPPINGS = ("user mapping for public on server hospital", "user mapping for current_user on server hospital")
LINKED = ("binding part federation_private.bind", "binding part federation_private.guard")

LOSSES = {
    "a view": Loss("DROP VIEW public.note", (VIEW,)),
    "a trigger": Loss("DROP TRIGGER bind_before_write ON federation_link.note", (TRIGGER,)),
    "a foreign table": Loss("DROP FOREIGN TABLE federation_link.note CASCADE", (TABLE, TRIGGER, VIEW)),
    "the schema": Loss("DROP SCHEMA federation_link CASCADE", ("schema federation_link", TABLE, TRIGGER, VIEW)),
    "a user mapping": Loss("DROP USER MAPPING FOR PUBLIC SERVER hospital", MAPPINGS[:1]),
    "the server": Loss("DROP SERVER hospital CASCADE", ("server hospital", *MAPPINGS, *LINKED, TABLE, TRIGGER, VIEW)),
    "the extension": Loss(
        "DROP EXTENSION postgres_fdw CASCADE; CREATE EXTENSION postgres_fdw; "
        "GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO postgres",
        ("server hospital", *MAPPINGS, *LINKED, TABLE, TRIGGER, VIEW),
    ),
    "a part of the binding": Loss(
        "DROP FUNCTION federation.bind_claims() CASCADE", ("binding part federation.bind_claims()", VIEW)
    ),
    "the private schema": Loss(
        "DROP SCHEMA federation_private CASCADE",
        (
            "binding part federation_private.site",
            *LINKED,
            "binding part federation_private.require_hospital()",
            "binding part federation_private.probe",
            "binding part federation_private.send(boolean, boolean)",
            "binding part federation.bind_claims()",
            "binding part federation.bind_to_write()",
            VIEW,
        ),
    ),
    "a function at the hospital": Loss("DROP FUNCTION auth.role()", ("binding part auth.role()",), side="local"),
}
CHECKED = {
    "a view": {"rls view"},
    "a trigger": {"trigger"},
    "a foreign table": {"foreign schema"},
    "the schema": {"foreign schema"},
    "a user mapping": {"user mapping"},
    "the server": {"server"},
    "the extension": {"server"},
    "a part of the binding": {"binding part"},
    "the private schema": {"binding part"},
    "a function at the hospital": {"binding"},
}
"""What `check` calls it."""

each = pytest.mark.parametrize("what", LOSSES)


def lose(deployment: Deployment, what: str) -> Loss:
    loss = LOSSES[what]
    with deployment.superuser(loss.side) as superuser:
        superuser.execute(loss.statement)  # type: ignore[call-overload]
    return loss


def federation(deployment: Deployment, *words: str, code: int = 0) -> str:
    result = deployment.federation(*words)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def as_json(deployment: Deployment, *words: str, code: int = 0) -> dict[str, Any]:
    result = deployment.federation(*words, "--json")
    assert result.returncode == code, result.stdout + result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def texts(deployment: Deployment) -> list[tuple[Any, ...]]:
    """What the app reads and may write."""
    with deployment.as_user() as caller:
        caller.execute(
            "INSERT INTO note (id, site, text) VALUES (gen_random_uuid(), (SELECT site FROM note LIMIT 1), 'y')"
        )
        return caller.execute("SELECT DISTINCT text FROM note ORDER BY 1").fetchall()


@each
def test_a_loss_is_found_and_named_and_repair_ends_it(triple: Deployment, what: str) -> None:
    before = catalogs(triple)
    loss = lose(triple, what)
    status = as_json(triple, "status", code=7)
    expected = [{"side": loss.side, "object": name} for name in loss.missing]
    assert sorted(map(str, status["missing"])) == sorted(map(str, expected))
    assert (status["state"], status["next"]) == ("whole", "federation repair")
    for words in (["upgrade"], ["downgrade", "-1", "--yes"]):
        said = federation(triple, *words, code=7)
        assert all(name in said for name in loss.missing)
        assert "`federation repair`" in said
    made = as_json(triple, "repair")["made"]
    assert made == status["missing"]
    status = as_json(triple, "status")
    assert (status["missing"], status["next"]) == ([], None)
    federation(triple, "upgrade")
    assert texts(triple) == [("x",), ("y",)]
    steps = triple.look(loss.side, "SELECT result, from_release, to_release FROM federation.history ORDER BY id")
    assert steps[-1] == ("repaired", "0003", "0003")
    # What a release says in SQL of its own is not made again: here the comment of the view.
    with triple.owner("cloud") as owner:
        owner.execute("COMMENT ON VIEW note IS 'x'")
    assert what == "the extension" or catalogs(triple) == before  # that one is the superuser's to make


@each
def test_going_back_to_base_ends_it_too(triple: Deployment, what: str) -> None:
    lose(triple, what)
    federation(triple, "downgrade", "base", "--yes")
    status = as_json(triple, "status")
    assert (status["local"], status["cloud"], status["mark"]) == ("base",) * 3
    federation(triple, "forget")
    upgrade(triple.config)


@each
def test_check_finds_it(federated: Deployment, what: str) -> None:
    loss = LOSSES[what]
    with federated.superuser(loss.side) as superuser:
        statement = loss.statement.replace("federation_link.note", "federation_link.hospital_patients")
        superuser.execute(statement.replace("public.note", "public.hospital_patients"))  # type: ignore[call-overload]
    found = as_json(federated, "check", code=3)["differences"]
    whats = {row["what"] for row in found if row["mark"] == "+" or "is missing" in row["detail"]}
    assert whats & CHECKED[what], found


def test_without_what_the_chain_tells_nothing_is_found(triple: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: verification looked at the views that are there."""
    lose(triple, "the schema")
    with pytest.raises(VerificationFailed):
        upgrade(triple.config)
    monkeypatch.setattr(Expected, "missing", lambda *_: [])
    upgrade(triple.config)


def test_what_is_there_is_not_made_again(triple: Deployment) -> None:
    before, history = catalogs(triple), triple.look("cloud", "SELECT count(*) FROM federation.history")
    assert federation(triple, "repair") == "nothing is missing\n"
    assert (catalogs(triple), triple.look("cloud", "SELECT count(*) FROM federation.history")) == (before, history)


def test_a_loss_at_an_older_release_is_made_as_it_was_there(triple: Deployment) -> None:
    downgrade(triple.config, "0001")
    lose(triple, "the schema")
    federation(triple, "repair")
    assert triple.look(
        "cloud", "SELECT attname FROM pg_attribute WHERE attrelid = 'note'::regclass AND attnum > 0"
    ) == [
        ("id",),
        ("site",),
    ]
    upgrade(triple.config)
    assert texts(triple)


def test_a_release_that_makes_it_anew_can_be_undone_with_all_below(triple: Deployment) -> None:
    """What revision --autogenerate writes: its downgrade drops the view, which those below it change."""
    lose(triple, "a view")
    view = three.NOTE.format(more=', "text"')
    up, down = f"op.create_rls_view({view})", f"op.drop_rls_view({view})"
    chains = {
        "local": {**three.LOCAL, "0004": ("pass", "pass")},
        "cloud": {**three.CLOUD, "0004": (up, down)},
    }
    rewrite(triple, chains)
    federation(triple, "upgrade")
    federation(triple, "downgrade", "base", "--yes")
    assert as_json(triple, "status")["cloud"] == "base"


def test_a_step_that_needs_what_is_missing_names_it(triple: Deployment) -> None:
    downgrade(triple.config, "0001")
    lose(triple, "a foreign table")
    said = federation(triple, "upgrade", code=7)
    assert "foreign table federation_link.note" in said
    assert "both databases are at 0001" in said
    assert "`federation repair`" in said
    federation(triple, "repair")
    federation(triple, "upgrade")


def test_a_cloud_that_is_behind_is_repaired_before_it_follows(triple: Deployment) -> None:
    downgrade(triple.config, "0001")
    assert triple.alembic("local", "upgrade", "0003").returncode == 0
    lose(triple, "the schema")
    status = as_json(triple, "status", code=4)
    assert (status["state"], status["next"]) == ("local_ahead", "federation repair")
    federation(triple, "repair")
    assert as_json(triple, "status", code=4)["next"] == "federation upgrade 0003"
    federation(triple, "upgrade")
    assert texts(triple)


def test_repair_is_refused_where_the_hospital_lacks_what_the_cloud_needs(triple: Deployment) -> None:
    lose(triple, "a view")
    alembic = triple.alembic("local", "-x", "override=to be apart", "downgrade", "0001")
    assert alembic.returncode == 0, alembic.stderr
    said = federation(triple, "repair", code=4)
    assert "local is at 0001 and lacks what the cloud, at 0003, needs — federation upgrade 0003" in said
    federation(triple, "upgrade", "0003", code=7)
    federation(triple, "repair")
    assert as_json(triple, "status")["next"] is None


def test_repair_names_what_an_administrator_must_do_first(triple: Deployment) -> None:
    """What a failed pg_restore of the cloud leaves: no extension, no server, no view."""
    with triple.superuser("cloud") as superuser:
        superuser.execute("DROP EXTENSION postgres_fdw CASCADE")
        superuser.execute("DROP SCHEMA federation_link CASCADE")
    assert as_json(triple, "status", code=7)["next"] == "federation repair"
    federation(triple, "upgrade", code=7)
    said = federation(triple, "repair", code=9)
    assert "extension postgres_fdw is not installed" in said
    assert "`federation bootstrap cloud`" in said
    federation(triple, "bootstrap", "cloud", "--apply")
    federation(triple, "repair")
    assert texts(triple)


def test_a_table_that_has_taken_the_views_name_is_not_touched(triple: Deployment) -> None:
    lose(triple, "a view")
    with triple.owner("cloud") as owner:
        owner.execute("CREATE TABLE public.note (kept text)")
    said = federation(triple, "repair", code=8)
    assert 'relation "note" already exists' in said
    assert triple.look("cloud", "SELECT relkind::text FROM pg_class WHERE oid = 'public.note'::regclass") == [("r",)]


def test_a_chain_that_asks_its_database_is_not_guessed(triple: Deployment) -> None:
    """Its releases may have made and dropped anything."""
    asks = "op.get_bind().exec_driver_sql('SELECT 1').scalar_one()"
    rewrite(triple, {"cloud": {"0002": (f"{asks}; {three.CLOUD['0002'][0]}", three.CLOUD["0002"][1])}})
    expected = Expected(triple.config, Releases.load(triple.config))
    assert [expected.at("cloud", n) is None for n in range(4)] == [False, False, True, True]
    assert [expected.at("local", n) is None for n in range(4)] == [False] * 4
    lose(triple, "a view")
    assert as_json(triple, "status")["missing"] == []


def test_the_app_is_refused_meanwhile(triple: Deployment) -> None:
    """The control of what a loss means."""
    lose(triple, "the schema")
    with pytest.raises(psycopg.errors.UndefinedTable):
        texts(triple)
