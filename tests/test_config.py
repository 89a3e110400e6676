"""federation.toml and the environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from federation.config import Config, is_loopback
from federation.errors import PreconditionMissing

LOCAL = "postgresql://owner:secret@10.1.2.3:6000/hospital"


def load(tmp_path: Path, toml: str = "", **environ: str) -> Config:
    file = tmp_path / "federation.toml"
    file.write_text(toml)
    return Config.load(file, environ)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, '[link]\nhost = "a"\nport = 1', FEDERATION_LINK_HOST="b")
    assert (config.link.host, config.link.port) == ("b", 1)


def test_an_empty_variable_is_no_setting(tmp_path: Path) -> None:
    assert load(tmp_path, '[link]\nhost = "a"', FEDERATION_LINK_HOST="").link.host == "a"


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    config = load(tmp_path, FEDERATION_LINK_PASSWORD_FILE=str(secret))
    assert config.link_login("link") == ("federation_link", "s3cret")


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreconditionMissing, match="FEDERATION_LINK_PASSWORD and FEDERATION_LINK_PASSWORD_FILE"):
        load(tmp_path, FEDERATION_LINK_PASSWORD="x", FEDERATION_LINK_PASSWORD_FILE="y")


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreconditionMissing, match="FEDERATION_LINK_PASSWORD_FILE names /nowhere"):
        load(tmp_path, FEDERATION_LINK_PASSWORD_FILE="/nowhere")


@pytest.mark.claim("S35")
@pytest.mark.parametrize("toml", ['[link]\npassword = "x"', f'local_url = "{LOCAL}"'])
def test_secrets_in_the_file_are_refused(tmp_path: Path, toml: str) -> None:
    with pytest.raises(PreconditionMissing, match="secrets do not belong in a file"):
        load(tmp_path, toml)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("[tables.options.nothing]", "options.nothing: nothing is not in tables.exported"),
        ('[tables.options.t]\ntable_name = "x"', "options.t.table_name is set by the import"),
    ],
)
def test_options_of_a_table_that_are_none_are_named(tmp_path: Path, options: str, words: str) -> None:
    with pytest.raises(PreconditionMissing, match=words):
        load(tmp_path, f'[tables]\nexported = ["t"]\n{options}\n')


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            '[[tables.policies]]\nname = "own rows"\nusing = "true"\ntables = ["t", "visit_item"]',
            "policies: 'own rows' is of visit_item, which is no exported table",
        ),
        ('[tables.comments]\nvisit_item = "x"', "comments.visit_item: visit_item is not in tables.exported"),
    ],
)
def test_policies_and_comments_of_tables_that_are_not_exported_are_refused(
    tmp_path: Path, section: str, words: str
) -> None:
    exported = '[tables]\nexported = ["t"{}]\n{}\n'
    assert load(tmp_path, exported.format(', "visit_item"', section)).tables.exported == ("t", "visit_item")
    with pytest.raises(PreconditionMissing, match=re.escape(words)):
        load(tmp_path, exported.format("", section))


def test_statistics_of_no_site_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PreconditionMissing, match="site_statistics are of site_column"):
        load(tmp_path, "[tables]\nsite_statistics = true\n")


def test_a_misspelt_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreconditionMissing, match=r"link\.hosst"):
        load(tmp_path, '[link]\nhosst = "x"')


def test_a_malformed_value_is_named_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(PreconditionMissing, match="FEDERATION_SITE_ID") as error:
        load(tmp_path, FEDERATION_SITE_ID="hunter2")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("value", ["hunter2", "mysql://a:hunter2@b/c", "postgresql://a:hunter2@b", "://hunter2"])
def test_a_url_that_is_none_is_refused_without_being_shown(tmp_path: Path, value: str) -> None:
    with pytest.raises(PreconditionMissing, match="FEDERATION_LOCAL_URL is not a PostgreSQL URL") as error:
        load(tmp_path, FEDERATION_LOCAL_URL=value).url("local")
    assert "hunter2" not in str(error.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    config = load(tmp_path)
    with pytest.raises(PreconditionMissing, match="FEDERATION_CLOUD_URL is not set"):
        config.url("cloud")
    with pytest.raises(PreconditionMissing, match="FEDERATION_SITE_ID is not set"):
        config.site()
    with pytest.raises(PreconditionMissing, match="FEDERATION_SERVICE_PASSWORD is not set"):
        config.link_login("service")


def test_the_link_goes_where_the_local_url_goes(tmp_path: Path) -> None:
    address = load(tmp_path, FEDERATION_LOCAL_URL=LOCAL).link_address()
    assert (address.host, address.port, address.dbname) == ("10.1.2.3", 6000, "hospital")
    options = address.options()
    assert (options["sslmode"], options["channel_binding"]) == ("require", "require")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", ""])
def test_a_loopback_address_must_be_said_on_purpose(tmp_path: Path, host: str) -> None:
    local = f"postgresql://owner:secret@{host}:6000/hospital"
    with pytest.raises(PreconditionMissing, match="FEDERATION_LINK_HOST"):
        load(tmp_path, FEDERATION_LOCAL_URL=local).link_address()
    address = load(tmp_path, FEDERATION_LOCAL_URL=local, FEDERATION_LINK_HOST="127.0.0.1").link_address()
    assert (address.host, address.port, address.dbname) == ("127.0.0.1", 6000, "hospital")
    assert address.sslmode == "prefer", "what does not leave the machine needs no TLS"


def test_no_secret_is_in_the_configurations_repr(tmp_path: Path) -> None:
    config = load(tmp_path, FEDERATION_LOCAL_URL=LOCAL, FEDERATION_LINK_PASSWORD="hunter2")
    assert "hunter2" not in repr(config)
    assert "secret@" not in repr(config)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.9", True), ("::1", True), ("/var/run", True), ("LOCALHOST", True), ("10.0.0.1", False), ("db", False)],
)
def test_loopback_hosts_are_known(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    "url",
    ["postgresql://owner:s3cr:et@pw@127.0.0.1/hospital", "postgresql://owner:se@cret/pw@127.0.0.1:5432/hospital"],
)
def test_a_password_that_is_not_percent_encoded_is_refused_and_no_part_of_it_is_quoted(
    tmp_path: Path, url: str
) -> None:
    read = make_url(url)
    assert "@" in f"{read.host}{read.database}", "the control: the URL is read wrongly"
    for variable, side in (("FEDERATION_LOCAL_URL", "local"), ("FEDERATION_CLOUD_URL", "cloud")):
        with pytest.raises(PreconditionMissing, match="percent-encode the password") as raised:
            load(tmp_path, **{variable: url}).url(side)
        assert not any(part in str(raised.value) for part in ("s3cr", "cret", "pw@", "127.0.0.1"))


def test_a_percent_encoded_password_is_what_it_was(tmp_path: Path) -> None:
    url = load(tmp_path, FEDERATION_LOCAL_URL="postgresql://owner:s3cr%3Aet%40p%2Fw@127.0.0.1/hospital").url("local")
    assert (url.password, url.host, url.database) == ("s3cr:et@p/w", "127.0.0.1", "hospital")


def test_the_file_of_a_folder_above_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "versions" / "local"
    below.mkdir(parents=True)
    (tmp_path / "federation.toml").write_text('[link]\nserver = "above"\n')
    monkeypatch.chdir(below)
    config = Config.load(environ={})
    assert (config.link.server, config.root) == ("above", tmp_path)
    (below / "federation.toml").write_text("")
    assert Config.load(environ={}).root == below
    with pytest.raises(PreconditionMissing):  # a file that is named is not looked for
        Config.load(Path("nothing.toml"), {})


def test_a_env_file_gives_what_the_environment_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDERATION_LINK_HOST", "from.environment")
    monkeypatch.setenv("FEDERATION_LINK_PASSWORD", "given")
    for name in ("FEDERATION_LINK_USER", "FEDERATION_SERVICE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "federation.toml").write_text('[link]\nuser = "of_toml"\n')
    (tmp_path / ".env").write_text(
        "# comment\nFEDERATION_LINK_HOST=from.file\nexport FEDERATION_LINK_USER='a b'\n"
        'FEDERATION_SERVICE_PASSWORD="x#y"\nFEDERATION_LINK_PASSWORD_FILE=/nothing\nOTHER=1\n'
    )
    config = Config.load(tmp_path / "federation.toml")
    assert (config.link.host, config.link.user, config.link_login("service")[1]) == ("from.environment", "a b", "x#y")
    assert config.link_login("link")[1] == "given"
    assert config.env_file == tmp_path / ".env"
    assert Config.load(tmp_path / "federation.toml", {}).link.user == "of_toml"
