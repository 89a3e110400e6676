"""A release is not bound by the timeouts that its owner's role or database has for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import chains_of_three as three
import psycopg
import pytest
from runs import joined, rewrite

if TYPE_CHECKING:
    from pathlib import Path

    from deployments import Deployment

SLOW = "SELECT pg_sleep(0.5)"


def test_a_releases_step_is_not_bound_by_the_limits_of_its_owners_role(deployment: Deployment, tmp_path: Path) -> None:
    deployment.root = three.write(tmp_path)
    slow = joined(f'op.execute("{SLOW}")', three.LOCAL["0001"][0])
    rewrite(deployment, {"local": {"0001": (slow, three.LOCAL["0001"][1])}})
    limits = ["statement_timeout"] + (["transaction_timeout"] if deployment.pair.local.binaries.major >= 17 else [])
    for limit in limits:
        deployment.look("local", f"ALTER DATABASE {deployment.local_dbname} SET {limit} = '100ms'")
    with (
        deployment.owner("local") as control,
        pytest.raises((psycopg.OperationalError, psycopg.errors.TransactionTimeout)),
    ):
        control.execute(SLOW)
    ran = deployment.federation("upgrade")
    assert ran.returncode == 0, ran.stderr
    assert deployment.alembic("cloud", "downgrade", "base").returncode == 0
    assert deployment.alembic("local", "downgrade", "base").returncode == 0
    assert deployment.alembic("local", "upgrade", "0001").returncode == 0


def test_a_limit_that_a_migration_sets_itself_counts(deployment: Deployment, tmp_path: Path) -> None:
    deployment.root = three.write(tmp_path)
    own = joined("op.execute(\"SET LOCAL statement_timeout = '100ms'\")", f'op.execute("{SLOW}")')
    rewrite(deployment, {"local": {"0003": (own, "pass")}})
    ran = deployment.federation("upgrade")
    assert ran.returncode == 1
    assert "canceling statement due to statement timeout" in ran.stderr
