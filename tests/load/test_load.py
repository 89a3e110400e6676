"""The app at work while releases go up and down: no wrong answer, no lost write, no deadlock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from app_load import Report, under_load
from deployments import ALL, copy_root
from waiting import until

from federation.guard import storage
from federation.lockstep import run, upgrade
from federation.lockstep.ahead import StepAhead

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

ROWS = 400
CYCLES = 10 if ALL else 2
BEFORE = 300
"""Requests without a release, to compare with."""

HEAD = '''"""{message}"""

from dataclasses import replace

import sqlalchemy as sa
from alembic import op

from federation.operations.views import RLSView

revision = "{release}"
down_revision = "{before}"
phase = "{phase}"

'''
VIEW = """
DML = ("SELECT", "INSERT", "UPDATE", "DELETE")
WAS = RLSView(
    "hospital_patients",
    ("id", "hospital_id", "name", "age", "token_number", "created_at", "father_husband_name", "place", "phone",
     "mr_number", "linked_user_id", "beanhealth_id"),
    predicate="(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)",
    defaults={"id": "gen_random_uuid()", "created_at": "timezone('utc', now())"},
    grants={"authenticated": DML, "service_role": DML},
    comment="The hospital's hospital_patients: its rows are kept there, and its policies decide about them.",
)
CONTRACTED = replace(WAS, columns=tuple(name for name in WAS.columns if name != "mr_number"))
REWRITTEN = replace(
    CONTRACTED,
    columns=(*CONTRACTED.columns, "public_id"),
    defaults={**CONTRACTED.defaults, "public_id": "gen_random_uuid()"},
)
PUBLIC_ID = sa.Column("public_id", sa.Uuid(), nullable=False)
MR_NUMBER = sa.Column("mr_number", sa.Text())

"""
BODIES = {
    ("0005", "contract", "local"): (
        'op.drop_column("hospital_patients", "mr_number")',
        'op.add_column("hospital_patients", sa.Column("mr_number", sa.Text()))\n'
        '    op.create_index("hospital_patients_mr_number_idx", "hospital_patients", ["mr_number"])',
    ),
    ("0005", "contract", "cloud"): (
        "op.replace_rls_view(CONTRACTED, was=WAS)\n"
        '    op.alter_foreign_table("hospital_patients", schema="federation_link", drop=[MR_NUMBER])',
        'op.alter_foreign_table("hospital_patients", schema="federation_link", add=[MR_NUMBER])\n'
        "    op.replace_rls_view(WAS, was=CONTRACTED)",
    ),
    ("0006", "expand", "local"): (
        'op.add_column("hospital_patients", sa.Column("public_id", sa.Uuid(), nullable=False, '
        'server_default=sa.text("gen_random_uuid()")))',
        'op.drop_column("hospital_patients", "public_id")',
    ),
    ("0006", "expand", "cloud"): (
        'op.alter_foreign_table("hospital_patients", schema="federation_link", add=[PUBLIC_ID])\n'
        "    op.replace_rls_view(REWRITTEN, was=CONTRACTED)",
        "op.replace_rls_view(CONTRACTED, was=REWRITTEN)\n"
        '    op.alter_foreign_table("hospital_patients", schema="federation_link", drop=[PUBLIC_ID])',
    ),
}


def six_releases(root: Path) -> Path:
    """BeanHealth's chains with a contract release and one that rewrites the patients' table after them."""
    copy_root(root)
    for (release, phase, side), (up, down) in BODIES.items():
        head = HEAD.format(message=f"release {release}", release=release, before=f"000{int(release) - 1}", phase=phase)
        text = f"{head}{VIEW}\ndef upgrade() -> None:\n    {up}\n\n\ndef downgrade() -> None:\n    {down}\n"
        (root / "versions" / side / f"{release}_more.py").write_text(text)
    return root


@pytest.fixture
def busy(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    with deployments.at_base(six_releases(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0004")
        with deployment.superuser("local") as local:
            local.execute(
                "INSERT INTO hospital_patients (hospital_id, name, age, created_at) "
                "SELECT %s, 'Stays', 50, timezone('utc', now()) - interval '1 day' FROM generate_series(1, %s)",
                [deployment.config.site(), ROWS],
            )
            local.execute(
                "INSERT INTO hospital_queues (hospital_id, patient_id, queue_number) "
                "SELECT hospital_id, id, row_number() OVER () FROM hospital_patients"
            )
            local.execute("ANALYZE hospital_patients")
        yield deployment


def test_releases_go_up_and_down_beside_the_app(busy: Deployment) -> None:
    with under_load(busy, ROWS, seed=1) as load:
        until(lambda: load.report.requests >= BEFORE, "the app does not get to its requests")
        load.phase = "beside releases"
        for _ in range(CYCLES):
            for command in (["upgrade"], ["downgrade", "0001", "--yes"]):
                done = busy.federation(*command)
                assert done.returncode == 0, done.stderr
    report = load.report
    print(f"\nPostgreSQL {busy.pair.local.binaries.version}, {CYCLES} times up and down:\n{report}")  # noqa: T201  # pytest -rP
    assert report.wrong == []
    assert report.lost == []
    assert report.deadlocks == 0
    assert not report.errors, report.errors


def test_a_transaction_that_stays_open_holds_up_the_release_and_not_the_app(busy: Deployment) -> None:
    with (busy.root / "federation.toml").open("a") as file:
        file.write("\n[database]\nlock_attempts = 5\n")
    with busy.as_user() as idle:
        idle.execute("SET LOCAL statement_timeout = 0")
        idle.execute("SELECT count(*) FROM hospital_patients")
        with under_load(busy, ROWS, seed=3) as load:
            until(lambda: load.report.requests >= BEFORE, "the app does not get to its requests")
            load.phase = "beside a release that waits"
            done = busy.federation("upgrade")
    report = load.report
    print(f"\nPostgreSQL {busy.pair.local.binaries.version}, 5 attempts:\n{report}")  # noqa: T201  # pytest -rP
    assert done.returncode == 5, done.stderr
    assert "is held" in done.stderr
    assert (report.wrong, report.lost, dict(report.errors)) == ([], [], {})


def test_without_the_locks_in_the_cloud_a_rewrite_gives_wrong_answers(
    busy: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the ledger finds what happened before the app was kept out."""
    monkeypatch.setattr(storage, "files", lambda *_: {})
    monkeypatch.setattr(run.Ahead, "of", lambda *_: StepAhead())
    slow_rewrite(busy.root)
    assert told(busy).wrong != []


def told(deployment: Deployment) -> Report:
    """What the app is told while this process upgrades."""
    upgrade(deployment.config, "0005")
    with under_load(deployment, ROWS, seed=2) as load:
        until(lambda: load.report.requests >= BEFORE, "the app does not get to its requests")
        load.phase = "beside a release"
        upgrade(deployment.config)
    return load.report


def slow_rewrite(root: Path) -> None:
    """Let the step hold its lock until each connection waits for it, as it does where the table is large."""
    file = root / "versions" / "local" / "0006_more.py"
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = ''public.hospital_patients''::regclass"
    held = f"DO 'BEGIN FOR n IN 1..600 LOOP EXIT WHEN ({waiting}) >= 3; PERFORM pg_sleep(0.05); END LOOP; END'"
    text = file.read_text()
    file.write_text(text.replace("\n\n\ndef downgrade", f'\n    op.execute("{held}")\n\n\ndef downgrade', 1))
