"""`federation revision`: a pair of files that run, or none."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from deployments import copy_root

from federation import scaffold
from federation.check import check
from federation.cli import main
from federation.errors import PendingChanges, Refused
from federation.lockstep import Releases, downgrade, upgrade
from federation.scaffold import revision

if TYPE_CHECKING:
    from pathlib import Path

    from deployments import Deployment


def declare(deployment: Deployment, *pairs: tuple[str, str]) -> None:
    """Change versions/models.py, before anything imports it."""
    models = deployment.root / "versions" / "models.py"
    text = models.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    models.write_text(text)


def generate(deployment: Deployment, message: str) -> list[dict[str, Any]]:
    return [written.to_dict() for written in revision(deployment.config, message, autogenerate=True)]


def files(deployment: Deployment) -> list[str]:
    return sorted(str(file) for file in deployment.root.rglob("*.py"))


def body(file: str, function: str = "upgrade") -> list[str]:
    """The operations that a half calls, or ``pass``."""
    with open(file, encoding="utf-8") as source:  # noqa: PTH123
        module = ast.parse(source.read())
    (found,) = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == function]
    calls = [node.value.func for node in found.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    return [call.attr for call in calls if isinstance(call, ast.Attribute)] or ["pass"]


def phase(file: str) -> str:
    with open(file, encoding="utf-8") as source:  # noqa: PTH123
        (line,) = [line for line in source if line.startswith("phase")]
    return str(ast.literal_eval(line.partition("=")[2].strip()))


ALLERGIES = (
    '    sa.Column("phone", sa.Text()),\n',
    '    sa.Column("phone", sa.Text()),\n    sa.Column("allergies", sa.Text()),\n',
)
NO_PLACE = ('    sa.Column("place", sa.Text()),\n', "")


def assert_it_runs(deployment: Deployment) -> None:
    """Up, as declared, down to where it began and up again."""
    before = [deployment.dump(side) for side in ("local", "cloud")]
    upgrade(deployment.config)
    downgrade(deployment.config, "0004")
    assert [deployment.dump(side) for side in ("local", "cloud")] == before
    upgrade(deployment.config)
    assert check(deployment.config) == []


def test_a_pair_without_autogenerate_needs_no_database(declaring: Deployment) -> None:
    nowhere = "postgresql://nobody@localhost:1/nothing"
    result = declaring.federation(
        "revision",
        "-m",
        "Reviews by phone",
        "--json",
        FEDERATION_LOCAL_URL=nowhere,
        FEDERATION_CLOUD_URL=nowhere,
    )
    assert result.returncode == 0, result.stderr
    (written,) = json.loads(result.stdout)["releases"]
    assert (written["release"], written["phase"]) == ("0005", "expand")
    for side in ("local", "cloud"):
        assert written[side] == str(declaring.root / "versions" / side / "0005_reviews_by_phone.py")
        assert body(written[side]) == body(written[side], "downgrade") == ["pass"]
    assert Releases.load(declaring.config).ids[-1] == "0005"
    upgrade(declaring.config)


def test_nothing_differs_so_no_file_is_written(declaring: Deployment) -> None:
    before = files(declaring)
    assert revision(declaring.config, "nothing", autogenerate=True) == []
    words = ["revision", "--config", str(declaring.root / "federation.toml"), "-m", "nothing", "--autogenerate"]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.stdout) == (0, "nothing differs from the declarations: no file was written\n")
    assert files(declaring) == before


def test_a_change_of_one_side_leaves_the_other_half_empty(declaring: Deployment) -> None:
    with declaring.owner("local") as owner:
        owner.execute("DROP POLICY own_rows ON hospital_patients")
    (written,) = revision(declaring.config, "policies again", autogenerate=True)
    assert (body(str(written.local)), body(str(written.cloud))) == (["create_policy"], ["pass"])
    upgrade(declaring.config)  # which would find that the trigger is missing
    with declaring.owner("cloud") as owner:
        owner.execute("DROP TRIGGER bind_before_write ON federation_link.hospital_patients")
    (written,) = revision(declaring.config, "triggers again", autogenerate=True)
    assert (body(str(written.local)), body(str(written.cloud))) == (["pass"], ["bind_before_write"])
    upgrade(declaring.config)


def test_a_restrictive_policy_that_a_release_drops_comes_back_restrictive(declaring: Deployment) -> None:
    with declaring.owner("local") as owner:
        owner.execute("CREATE POLICY mfa ON hospital_patients AS RESTRICTIVE USING (auth.jwt() ->> 'aal' = 'aal2')")
    (written,) = revision(declaring.config, "no mfa", autogenerate=True)
    assert (body(str(written.local)), body(str(written.local), "downgrade")) == (["drop_policy"], ["create_policy"])
    assert_it_runs(declaring)


def test_an_empty_default_is_shown(declaring: Deployment) -> None:
    declare(declaring, ('sa.Column("place", sa.Text())', 'sa.Column("place", sa.Text(), server_default="")'))
    details = {item.detail for item in check(declaring.config) if item.name == "hospital_patients.place"}
    assert details == {"default is none and should be ''"}


def test_a_new_column_is_both_halves_of_an_expand_release(declaring: Deployment) -> None:
    declare(declaring, ALLERGIES)
    (written,) = generate(declaring, "Allergies")
    assert (written["release"], written["phase"], phase(written["local"]), phase(written["cloud"])) == (
        "0005",
        "expand",
        "expand",
        "expand",
    )
    assert body(written["local"]) == ["add_column"]
    assert body(written["cloud"]) == ["alter_foreign_table", "replace_rls_view"]
    assert_it_runs(declaring)


def test_a_dropped_column_is_a_contract_release(declaring: Deployment) -> None:
    declare(declaring, NO_PLACE)
    (written,) = generate(declaring, "No place")
    assert (written["phase"], phase(written["local"]), phase(written["cloud"])) == ("contract",) * 3
    assert body(written["local"]) == ["drop_column"]
    assert body(written["cloud"]) == ["replace_rls_view", "alter_foreign_table"]
    assert Releases.load(declaring.config).is_contract("0005")
    assert [step.side for step, _ in upgrade(declaring.config).steps] == ["cloud", "local"]
    assert check(declaring.config) == []


def test_a_change_of_both_kinds_is_two_releases(declaring: Deployment) -> None:
    declare(declaring, ALLERGIES, NO_PLACE)
    expand, contract = generate(declaring, "Allergies and no place")
    assert [(item["release"], item["phase"]) for item in (expand, contract)] == [
        ("0005", "expand"),
        ("0006", "contract"),
    ]
    assert contract["local"].endswith("0006_allergies_and_no_place_contract.py")
    assert (body(expand["local"]), body(contract["local"])) == (["add_column"], ["drop_column"])
    upgrade(declaring.config, "0005")
    with declaring.as_user(read_only=True) as caller:
        caller.execute("SELECT place, allergies FROM hospital_patients")
    upgrade(declaring.config)
    assert check(declaring.config) == []


def test_databases_that_are_not_at_the_newest_release_are_not_compared(deployment: Deployment, tmp_path: Path) -> None:
    deployment.root = copy_root(tmp_path)
    before = files(deployment)
    upgrade(deployment.config, "0003")
    with pytest.raises(PendingChanges, match="no release can be written") as raised:
        revision(deployment.config, "x", autogenerate=True)
    assert (raised.value.side, raised.value.hint) == ("local", "federation upgrade, then again")
    assert files(deployment) == before


def test_a_failure_half_way_leaves_no_file(declaring: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    before, write = files(declaring), scaffold._alembic_revision

    def fail(config: Any, side: str, *arguments: Any, **keywords: Any) -> Any:
        written = write(config, side, *arguments, **keywords)
        if side == "cloud":
            raise OSError("no space")
        return written

    monkeypatch.setattr(scaffold, "_alembic_revision", fail)
    with pytest.raises(OSError, match="no space"):
        revision(declaring.config, "x")
    assert files(declaring) == before


def test_chains_whose_ids_are_no_numbers_cannot_be_numbered_on(declaring: Deployment) -> None:
    for side in ("local", "cloud"):
        (file,) = (declaring.root / "versions" / side).glob("0004_*.py")
        file.write_text(file.read_text().replace('revision = "0004"', 'revision = "autumn"', 1))
    with pytest.raises(Refused, match="release autumn has no number"):
        revision(declaring.config, "x")


def test_a_release_that_changes_several_tables_locks_parents_first(declaring: Deployment) -> None:
    declare(
        declaring,
        ALLERGIES,
        (
            '    sa.Column("next_review_date", sa.Date()),\n',
            '    sa.Column("next_review_date", sa.Date()),\n    sa.Column("urgent", sa.Boolean()),\n',
        ),
    )
    (written,) = generate(declaring, "Allergies and urgent reviews")
    for side in ("local", "cloud"):
        for function in ("upgrade", "downgrade"):
            assert body(written[side], function)[0] == "lock_tables"
        with open(written[side], encoding="utf-8") as file:  # noqa: PTH123
            assert "op.lock_tables('hospital_patients', 'hospital_prescriptions')" in file.read()
    assert_it_runs(declaring)


def test_a_release_that_changes_one_table_needs_no_lock_of_its_own(declaring: Deployment) -> None:
    declare(declaring, ALLERGIES)
    (written,) = generate(declaring, "Allergies")
    assert [body(written[side])[0] for side in ("local", "cloud")] == ["add_column", "alter_foreign_table"]


def test_it_says_what_it_wrote(declaring: Deployment) -> None:
    declare(declaring, ALLERGIES, NO_PLACE)
    result = declaring.federation("revision", "-m", "allergies", "--autogenerate")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    expand, contract = lines.index("0005 expand"), lines.index("0006 contract")
    assert "  + local column hospital_patients.allergies" in lines[expand:contract]
    assert "  + cloud foreign column federation_link.hospital_patients.allergies" in lines[expand:contract]
    assert "  - local column hospital_patients.place" in lines[contract:]


def test_a_difference_that_no_release_closes_is_told_and_no_file_is_written(declaring: Deployment) -> None:
    with declaring.owner("cloud") as owner:
        owner.execute("CREATE VIEW v AS SELECT * FROM federation_link.hospital_patients; GRANT SELECT ON v TO anon")
    before = files(declaring)
    result = declaring.federation("revision", "-m", "nothing", "--autogenerate")
    assert result.returncode == 0, result.stderr
    assert files(declaring) == before
    head, left, *found = result.stdout.splitlines()
    assert (head, left) == ("nothing differs that a release could change: no file was written", "no release closes:")
    assert any("public.v" in line for line in found)
    as_json = declaring.federation("revision", "-m", "nothing", "--autogenerate", "--json")
    assert json.loads(as_json.stdout)["releases"] == []
    assert json.loads(as_json.stdout)["left"]
    declare(declaring, ALLERGIES)
    (written,) = generate(declaring, "allergies")
    assert (body(written["local"]), body(written["cloud"])) == (
        ["add_column"],
        ["alter_foreign_table", "replace_rls_view"],
    )
