"""No password anywhere: not in the servers' logs, ``--sql``, error texts, ``ps``, nor in a file that stays."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING

import psutil
import pytest
from psycopg import sql

from federation.administration import bootstrap, link
from federation.databases import connect
from federation.lockstep import downgrade, upgrade
from federation.operations.user_mappings import send_mapping

if TYPE_CHECKING:
    from deployments import Deployment

    from federation.servers import Pair


def passwords(deployment: Deployment) -> list[str]:
    found = []
    for name, value in deployment.environ.items():
        if name.endswith("PASSWORD"):
            found.append(value)
        if name.endswith("_URL"):
            found.append(value.split("//")[1].split("@")[0].split(":")[1])
    assert len(found) == 6
    return found


def logs(pair: Pair) -> str:
    return pair.local.log_text() + pair.cloud.log_text()


@pytest.mark.claim("S33")
def test_no_password_is_in_the_servers_logs(deployment: Deployment) -> None:
    """With log_statement = all, every duration, and verbose errors; every command that handles one has run."""
    bootstrap.apply(deployment.config, "local")
    bootstrap.apply(deployment.config, "cloud")
    upgrade(deployment.config)
    link.apply(deployment.config)
    downgrade(deployment.config, "base")
    text = logs(deployment.pair)
    assert "COPY pg_temp.federation_secret" in text, "the servers log nothing: nothing is tested"
    assert [password for password in passwords(deployment) if password in text] == []


@pytest.mark.claim("S33")
def test_a_failing_mapping_leaves_no_password_in_the_log_either(deployment: Deployment) -> None:
    """A statement that fails is logged, as the CONTEXT of its error too."""
    upgrade(deployment.config, "0001")
    config = deployment.config
    user, password = config.link_login("link")
    with pytest.raises(Exception, match="already exists"), connect(config, "cloud") as connection:
        send_mapping(connection, "CREATE", sql.SQL("PUBLIC"), "hospital", user, password)
    text = logs(deployment.pair)
    assert "user mapping for" in text
    assert password not in text


def test_a_mapping_that_fails_when_it_takes_the_password_leaves_none(deployment: Deployment) -> None:
    """The words of an inner statement are the CONTEXT of its error: here an event trigger's."""
    upgrade(deployment.config, "0001")
    config = deployment.config
    user, password = config.link_login("link")
    deployment.look(
        "cloud",
        """
        CREATE FUNCTION public.forbid() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no changes today'; END $$;
        CREATE EVENT TRIGGER forbid ON ddl_command_end WHEN TAG IN ('ALTER USER MAPPING')
            EXECUTE FUNCTION public.forbid()
        """,
    )
    with pytest.raises(Exception, match="P0001"), connect(config, "cloud") as connection:
        send_mapping(connection, "CREATE", sql.SQL("authenticated"), "hospital", user, password)
    text = logs(deployment.pair)
    assert "no changes today" in text
    assert password not in text


def test_a_bare_statement_would_be_in_the_log(deployment: Deployment) -> None:
    """The negative control: what the tests above look for is found when it is there."""
    with deployment.superuser("cloud") as superuser:
        superuser.execute("SELECT 'planted-hunter2'")
    assert "planted-hunter2" in logs(deployment.pair)


@pytest.mark.claim("S33")
def test_no_password_is_in_ps_nor_printed(deployment: Deployment) -> None:
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for process in psutil.process_iter(["cmdline"]):
                seen.add(" ".join(process.info["cmdline"] or ()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        printed = []
        for words in (
            ("bootstrap", "local"),
            ("bootstrap", "cloud"),
            ("bootstrap", "local", "--apply"),
            ("upgrade",),
            ("link", "apply"),
            ("status", "--json"),
            ("history", "--json"),
            ("downgrade", "base", "--yes"),
        ):
            result = deployment.federation(*words)
            assert result.returncode == 0, result.stderr
            printed.append(result.stdout + result.stderr)
    finally:
        done.set()
        watcher.join()
    assert any("federation" in line for line in seen), "ps shows nothing: nothing is tested"
    text = "\n".join([*printed, *seen])
    assert [password for password in passwords(deployment) if password in text] == []


@pytest.mark.claim("S33")
def test_no_password_is_in_a_file_that_stays(deployment: Deployment) -> None:
    """Not in the servers' folders either, but for the catalogs themselves: a password is stored in user mappings."""
    upgrade(deployment.config)
    for folder in (deployment.root, deployment.pair.local.folder):
        pattern = "\n".join(passwords(deployment))
        result = subprocess.run(
            ["grep", "--recursive", "--binary-files=text", "--fixed-strings", "--files-with-matches", "--file=-", "."],
            input=pattern,
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
        )
        assert result.stdout == "", folder
