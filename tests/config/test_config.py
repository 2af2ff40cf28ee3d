"""The configuration of a node: types and limits, and what nobody reads of it."""

import time

import pytest

from zmesh import config
from zmesh.config import Config
from zmesh.errors import ConfigError
from zmesh.identity import Contexts, Identity, IdentityKey, Issuer, Profile, State


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max_workers = 2.5", "max_workers = 2.5 is not a whole number from 1 to 4096"),
        ("max_work = true", "max_work = True is not a whole number"),
        ("heartbeat = nan", "heartbeat = nan is not a number from"),
        ("ephemeral = 'no'", "ephemeral must be true or false, not 'no'"),
        ("spool_dir = 3", "spool_dir must be the path of a folder, not 3"),
        ("peers = [3]", "peers must be a list of URLs"),
        ("listen = 'tcp://a:1'", "listen must be a list of URLs"),
        ("file = 'x'", "no setting is called 'file'"),
        ("hartbeat = 1", "no setting is called 'hartbeat' (did you mean 'heartbeat'?)"),
        ("[isolation.'a:b']\nmax_memory = 1", "no setting is called 'max_memory' (did you mean 'max_memory_bytes'?)"),
        ("[isolation.'a:b']\ngrace = 'long'", "grace = 'long' is not a number"),
        ("[plugin.http]", "no setting is called 'plugin' (did you mean 'plugins'?)"),
        ("[plugins]\nhttp = 3", "plugins must hold one table for each namespace"),
    ],
)
def test_what_a_file_can_not_say_is_an_error_that_names_the_file(tmp_path, text, complaint):
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.load(file, environ={})
    assert str(caught.value).startswith(f"{file}:1: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("# a\n\nnode_id = 'a'\nmax_work = 0", 4, "max_work = 0"),
        ("peers = [\n  'tcp://a:1',\n  3\n]", 1, "peers must be a list of URLs"),
        ('node_id = "a"\n\n[allow]\n# who\n"exec:*" = ["a b"]', 5, "'a b' is no node id"),
        ('[allow]\n"echo:*" = []\n"exec" = ["a"]', 3, "'exec' is no pattern"),
        ("[isolation.'*']\ngrace = 1\n[isolation.'a:b']\ngrace = -1", 3, "grace = -1"),
        ("[isolation]\n'a:b'.grace = 1\n'a:c'.grace = -1", 3, "grace = -1"),
        ("[plugins.exec]\nuser = 'a'\n[run]\nuser = 'b'", 3, "give either [run]"),
    ],
)
def test_what_a_file_can_not_say_is_an_error_that_names_the_line(tmp_path, text, line, complaint):
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.load(file, environ={})
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert complaint in str(caught.value)


def test_every_setting_has_an_origin(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text(
        'node_id = "a"\nmax_work = 5\nmax_workers = 5\n[run]\nuser = "x"\n[allow]\n"exec:*" = [\n"hub"\n]\n'
    )
    loaded = Config.load(file, {"ZMESH_MAX_WORK": "6", "ZMESH_TAGS": ""}, max_workers=7, tags=None)
    found = {name: str(origin) for name, origin in loaded.origins().items()}
    assert found.keys() >= set(config.SETTINGS)
    assert {name: origin for name, origin in found.items() if origin != "default"} == {
        "node_id": f"{file}:1",
        "max_work": "ZMESH_MAX_WORK",
        "max_workers": "command line",
        "plugins.exec": f"{file}:4",
        "plugins.exec.user": f"{file}:5",
        "allow": f"{file}:6",
        "allow.exec:*": f"{file}:7",
    }
    assert {str(origin) for origin in Config(node_id="a").origins().values()} == {"program"}


def test_a_table_by_the_environment_takes_the_place_of_that_of_the_file(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text('[allow]\n"exec:*" = ["hub"]\n')
    found = Config.load(file, {"ZMESH_ALLOW": '{"file:*": ["hub"]}'}).origins()
    assert str(found["allow"]) == "ZMESH_ALLOW"
    assert "allow.exec:*" not in found


def test_settings_are_read_anew_from_where_they_came_from(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text("max_work = 5")
    loaded = Config.load(file, environ={}, node_id="a")
    file.write_text("max_work = 6")
    assert (loaded.again().max_work, loaded.again().node_id) == (6, "a")
    file.write_text("max_work = -1")
    with pytest.raises(ConfigError, match=rf"^{file}:1: max_work"):
        loaded.again()
    made = Config(node_id="a")
    assert made.again() is made


def test_tables_of_a_file_that_are_those_of_plugins(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text("[run]\nuser = 'x'\n[plugins.http]\nread_timeout = 5")
    assert Config.load(file, environ={}).plugins == {"exec": {"user": "x"}, "http": {"read_timeout": 5}}
    file.write_text("[run]\nuser = 'x'\n[plugins.exec]\nuser = 'y'")
    with pytest.raises(ConfigError, match=r"give either \[run\] or \[plugins.exec\]"):
        Config.load(file, environ={})


def test_a_configuration_knows_its_file_and_is_equal_without_it(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text("node_id = 'a'")
    config = Config.load(file, environ={})
    assert config.file == str(file)
    assert config == Config(node_id="a")


def test_an_error_of_a_flag_or_variable_does_not_blame_the_file(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text("node_id = 'a'")
    with pytest.raises(ConfigError, match=r"^heartbeat = -1 is"):
        Config.load(file, environ={}, heartbeat=-1)
    with pytest.raises(ConfigError, match=r"^ZMESH_NODE_ID: node_id 'b c' is"):
        Config.load(file, environ={"ZMESH_NODE_ID": "b c"})


def test_variables_that_nothing_reads_are_logged_with_the_likely_name(caplog):
    service = {"ZMESH_SERVICE_HOST": "10.0.0.1", "ZMESH_PORT_7323_TCP_ADDR": "10.0.0.1", "ZMESH_HUB_SERVICE_PORT": "1"}
    known = {"ZMESH_NODE_ID": "a", "ZMESH_PEER": "tcp://a:1", "ZMESH_DEBUG": "1", "HOME": "/"}
    Config.load(environ={**service, **known, "ZMESH_LISTN": "tcp://a:1", "ZMESH_X": ""})
    assert [record.getMessage() for record in caplog.records] == [
        "nothing reads the environment variable ZMESH_LISTN (did you mean ZMESH_LISTEN?)",
        "nothing reads the environment variable ZMESH_X",
    ]


# --- environment ----------------------------------------------------------------------------------------------------

GIVEN = {
    "node_id": ("edge-7", "edge-7"),
    "identity": ("/etc/zmesh", "/etc/zmesh"),
    "listen": ("tcp://127.0.0.1:1, tcp://127.0.0.1:2", ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")),
    "peers": ("tcp://hub:7323,", ("tcp://hub:7323",)),
    "heartbeat": ("2.5", 2.5),
    "max_workers": ("3", 3),
    "max_work": ("17", 17),
    "route_timeout": ("0", 0.0),
    "max_waiting_bytes": ("100000", 100_000),
    "max_payload_bytes": ("100000", 100_000),
    "spool_dir": ("/var/tmp", "/var/tmp"),
    "ephemeral": ("true", True),
    "insecure": ("1", True),
    "tags": ("gpu, site-3", ("gpu", "site-3")),
    "max_processes": ("2", 2),
    "isolation": ('{"*": {"grace": 2}}', {"*": {"grace": 2}}),
    "allow": ('{"exec:*": ["hub"]}', {"exec:*": ["hub"]}),
    "plugins": ('{"http": {"read_timeout": 5}}', {"http": {"read_timeout": 5}}),
    "log_level": ("info", "info"),
    "log_format": ("json", "json"),
    "tracing": ("true", True),
    "metrics": ("127.0.0.1:9464", {"address": "127.0.0.1:9464"}),
}
WRONG = {
    "node_id": "b c",
    "identity": "/etc\udcff",
    "listen": "tcp://a b:1",
    "peers": "tcp://a\x07:1",
    "heartbeat": "fast",
    "max_workers": "2.5",
    "max_work": "0",
    "route_timeout": "nan",
    "max_waiting_bytes": "9" * 5000,
    "max_payload_bytes": "1e9",
    "spool_dir": "/tmp\udcff",
    "ephemeral": "perhaps",
    "insecure": "2",
    "tags": "g p u",
    "max_processes": "-1",
    "isolation": "[]",
    "allow": "[]",
    "plugins": "{",
    "log_level": "loud",
    "log_format": "xml",
    "metrics": "[]",
    "tracing": "some",
}


def test_every_setting_has_a_variable():
    assert GIVEN.keys() == WRONG.keys() == set(config.SETTINGS)
    variables = [config.variable_of(name) for name in config.SETTINGS]
    assert variables == [*config.VARIABLES[:-3]]
    assert {*variables} == {f"ZMESH_{name.upper()}" for name in config.SETTINGS} - {"ZMESH_IDENTITY"} | {"ZMESH_STATE"}


@pytest.mark.parametrize("name", GIVEN)
def test_a_setting_is_taken_from_its_variable(tmp_path, name):
    text, value = GIVEN[name]
    assert getattr(Config.load(environ={config.variable_of(name): text}), name) == value


@pytest.mark.parametrize("name", WRONG)
def test_a_variable_that_its_setting_does_not_take_is_named_in_the_error(name):
    variable = config.variable_of(name)
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={variable: WRONG[name]})
    assert str(caught.value).startswith(f"{variable}: ")
    assert len(str(caught.value)) < 500


def test_flags_count_more_than_the_environment_and_that_more_than_the_file(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text("max_work = 1\nmax_workers = 1\nmax_processes = 1")
    environ = {"ZMESH_MAX_WORK": "2", "ZMESH_MAX_WORKERS": "2"}
    settings = Config.load(file, environ, max_work=3)
    assert (settings.max_work, settings.max_workers, settings.max_processes) == (3, 2, 1)


def test_an_empty_variable_counts_as_none():
    assert Config.load(environ={"ZMESH_HEARTBEAT": "", "ZMESH_PEERS": ""}).heartbeat == 1.0


# --- identity -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path):
    """The folder of an identity of `hub`, which listens and dials."""
    issuer = Issuer.create(State(tmp_path / "hub"), "lab", time.time())
    key = IdentityKey.generate()
    certificate = issuer.issue(key.public, "hub", (), time.time())
    profile = Profile("lab", "hub", ("tcp://127.0.0.1:1",), ("tcp://127.0.0.1:1",), ("tcp://127.0.0.1:2?cost=5",))
    return Identity.create(State(tmp_path / "hub"), profile, key, certificate, issuer.trust).state.folder


def test_an_identity_gives_the_id_and_the_addresses_that_are_not_given(hub):
    found = config.resolved(Config(identity=hub))
    assert isinstance(found.identity, Identity)
    assert (found.node_id, found.listen, found.peers) == ("hub", ("tcp://127.0.0.1:1",), ("tcp://127.0.0.1:2?cost=5",))
    given = Config(identity=found.identity, node_id="hub", listen=["ipc:///a"], peers=["tcp://b:1"])
    found = config.resolved(given)
    assert (found.node_id, found.listen, found.peers) == ("hub", ("ipc:///a",), ("tcp://b:1",))


def test_a_leaf_with_an_identity_has_its_name_and_listens_nowhere(hub):
    names = {config.resolved(Config(identity=hub, ephemeral=True)).node_id for _ in range(4)}
    assert len(names) == 4
    assert all(name.startswith("hub.") for name in names)
    found = config.resolved(Config(identity=hub, ephemeral=True, node_id="hub.mine"))
    assert (found.node_id, found.listen, found.peers) == ("hub.mine", (), ("tcp://127.0.0.1:2?cost=5",))


@pytest.mark.parametrize("ephemeral", [False, True])
def test_another_id_than_that_of_the_identity_is_an_error_that_says_what_to_do(hub, ephemeral):
    with pytest.raises(ConfigError, match=r"'edge' is not that of the identity in .*, 'hub'; leave node_id out, name"):
        config.resolved(Config(identity=hub, node_id="edge", ephemeral=ephemeral))


def test_without_an_identity_a_node_has_none(monkeypatch, tmp_path):
    for none in ("none", None, "auto"):
        assert config.resolved(Config(identity=none)).identity is None
    monkeypatch.setenv("ZMESH_STATE", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no identity in"):
        config.resolved(Config())


def test_that_of_the_current_context_is_taken_unless_another_is_named(monkeypatch, hub):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(hub.parent / "config"))
    assert config.resolved(Config()).identity is None
    place = hub.parent / "config/zmesh/lab"
    place.parent.mkdir(parents=True)
    hub.rename(place)
    Contexts(place.parent).use("lab")
    assert config.resolved(Config()).node_id == "hub"
    assert config.resolved(Config(identity=None)).identity is None


@pytest.mark.parametrize("value", [3, b"x", [], "", "a\0b", object()])
def test_what_is_no_identity_is_an_error(value):
    with pytest.raises(ConfigError, match="identity must be a folder of state"):
        Config(identity=value)
