"""Checks of a whole federation, to be collected by one line of a project's own tests.

from federation.testing.checks import *  # noqa: F403

Each fails with the object's name and what to do. They take the chains and federation.toml as they stand; what the kit
cannot know, a conftest.py says by the fixtures ``federation_accounts`` and ``federation_rows``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import pytest

from federation.check import check
from federation.config import Config
from federation.databases import SIDES
from federation.errors import Side
from federation.lockstep import Releases, downgrade, upgrade
from federation.testing import exposure, offline
from federation.testing.callers import Callers
from federation.testing.catalog import Catalog, differences, read_catalog
from federation.testing.databases import Databases
from federation.testing.pair import FederationPair
from federation.testing.plugin import told
from federation.testing.rows import Row

__all__ = [
    "test_check_is_clean_at_head",
    "test_each_release_up_down_and_up_leaves_the_same_catalogs",
    "test_every_view_answers",
    "test_no_table_without_policies_is_exposed",
    "test_offline_sql_makes_what_online_makes",
    "test_older_clouds_read_and_write",
    "test_the_chains_have_one_head_and_the_same_releases",
    "test_two_accounts_see_and_change_only_their_own_rows",
]

Accounts = Mapping[str, Mapping[str, Any]]
GivenRows = Mapping[str, Row]


def test_the_chains_have_one_head_and_the_same_releases(federation_toml: Config) -> None:
    """Both chains are lines of the same ids, and the two files of each release are of one phase."""
    with told():
        releases = Releases.load(federation_toml)
        for release in releases.ids:
            releases.is_contract(release)
    if not releases.ids:
        _fail('neither chain has a release — write one: federation revision -m "…"')


def test_each_release_up_down_and_up_leaves_the_same_catalogs(
    federation_databases: Databases, federation_release: str
) -> None:
    """A downgrade undoes its upgrade, on both sides, to the last privilege; PostgreSQL drops no label of an enum."""
    releases = federation_databases.releases
    before = releases.at(releases.position(federation_release) - 1) or "base"
    for side in SIDES:
        if not hasattr(releases.script(side, federation_release).module, "downgrade"):
            pytest.skip(f"{side}: {federation_release} has no downgrade()")
    with told(), federation_databases.make_pair(before) as pair:
        base = _catalogs(pair)
        upgrade(pair.config, federation_release)
        first = _catalogs(pair)
        downgrade(pair.config, before)
        last = _catalogs(pair)
        for side in SIDES:
            for name in [name for name in last[side].keys() - base[side].keys() if name.startswith("label ")]:
                del last[side][name]
        _compare(last, base, f"{federation_release}: after downgrade()", "let it undo all that upgrade() does")
        upgrade(pair.config, federation_release)
        _compare(
            _catalogs(pair), first, f"{federation_release}: after a second upgrade()", "let it make all it relies on"
        )


def test_check_is_clean_at_head(federation_databases: Databases) -> None:
    """Both databases are what the declared tables and federation.toml say."""
    with told(), federation_databases.make_pair() as pair:
        found = check(pair.config)
    if found:
        lines = [f"{one.side}: {one.mark} {one.what} {one.name} {one.detail}".rstrip() for one in found]
        _fail(f'at head {_listed(lines)} — declare it, or write a release: federation revision -m "…" --autogenerate')


def test_no_table_without_policies_is_exposed(federation_databases: Databases) -> None:
    """Whatever a caller can name has row-level security and a policy, or is a view that runs as its caller."""
    with told(), federation_databases.make_pair() as pair:
        found = list(exposure.exposed(pair))
    if found:
        _fail("; ".join(found))


def test_every_view_answers(federation_databases: Databases, federation_table: str) -> None:
    """The app's name of each table can be read, by every role that may, and by no role that is denied."""
    with told(), federation_databases.make_pair() as pair:
        found = list(exposure.unanswered(pair, federation_table))
    if found:
        _fail("; ".join(found))


def test_older_clouds_read_and_write(
    federation_databases: Databases,
    federation_release: str,
    federation_accounts: Accounts,
    federation_rows: GivenRows,
    pytestconfig: pytest.Config,
) -> None:
    """A cloud at this release works with each later release of the hospital that it may meet.

    Writes that the policies of the cloud's own release admit must work; those of shared tables may be refused. Releases
    from the first whose local file gives ``breaks_older_clouds`` a reason are left out.
    """
    releases = federation_databases.releases
    cloud = releases.position(federation_release)
    shared = pytestconfig.getini("federation_shared")
    with told(), federation_databases.make_pair(federation_release) as pair:
        callers = Callers(pair, federation_accounts, federation_rows)
        writes = {table: frozenset() if table in shared else callers.admitted(table) for table in callers.tables}
    for local in range(max(cloud - 1, 0), len(releases.ids) + 1):
        if not releases.fit(local, cloud):
            continue
        at = releases.at(local) or "base"
        if local > cloud and _breaks_older_clouds(releases, at):
            break
        with told(), federation_databases.make_pair(federation_release, local=at) as pair:
            callers = Callers(pair, federation_accounts, federation_rows)
            for table in callers.tables:
                for problem in callers.works(table, writes[table]):
                    _fail(f"cloud at {federation_release}, local at {at}: {problem}")


def test_two_accounts_see_and_change_only_their_own_rows(
    federation_databases: Databases,
    federation_table: str,
    federation_accounts: Accounts,
    federation_rows: GivenRows,
    pytestconfig: pytest.Config,
) -> None:
    """What one account has, another neither sees nor changes, through the cloud or as the link role itself."""
    with told(), federation_databases.make_pair() as pair:
        callers = Callers(pair, federation_accounts, federation_rows)
        if federation_table not in callers.tables:
            pytest.skip(f"no caller may read {federation_table}")
        shared = federation_table in pytestconfig.getini("federation_shared")
        found = list(callers.leaks(federation_table, shared=shared))
    if found:
        _fail("; ".join(found))


def test_offline_sql_makes_what_online_makes(federation_databases: Databases, federation_release: str) -> None:
    """``alembic upgrade --sql``, run by psql, leaves the catalogs of the same release run online."""
    psql = offline.find_psql(federation_databases)
    if psql is None:
        pytest.skip("there is no psql on this machine")
    releases = federation_databases.releases
    before = releases.at(releases.position(federation_release) - 1) or "base"
    with told(), federation_databases.make_pair(federation_release) as online:
        expected = _catalogs(online)
    with told(), federation_databases.make_pair(before) as pair:
        for side in releases.order(federation_release):
            if problem := offline.upgrade(pair, side, before, federation_release, psql):
                _fail(f"{side}: {federation_release}: {problem}")
        hint = "let the file ask the database nothing: offline, a query has no result"
        _compare(_catalogs(pair), expected, f"{federation_release}: with --sql", hint)


def _breaks_older_clouds(releases: Releases, release: str) -> bool:
    """Whether the release's local file says so, with its reason. Fails where the reason is not a text."""
    reason = getattr(releases.script("local", release).module, "breaks_older_clouds", None)
    if reason is not None and not (isinstance(reason, str) and reason.strip()):
        _fail(f'local: {release}: breaks_older_clouds has no reason — write breaks_older_clouds = "why"')
    return reason is not None


def _catalogs(pair: FederationPair) -> dict[Side, Catalog]:
    return {side: read_catalog(pair.superuser(side)) for side in SIDES}


def _compare(found: dict[Side, Catalog], expected: dict[Side, Catalog], when: str, hint: str) -> None:
    for side in SIDES:
        if odd := list(differences(found[side], expected[side])):
            _fail(f"{side}: {when} {_listed(odd)} — {hint}")


def _listed(problems: list[str], most: int = 5) -> str:
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more


def _fail(sentence: str) -> NoReturn:
    pytest.fail(sentence, pytrace=False)
