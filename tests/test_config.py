"""The configuration of a node: types and limits, and what nobody reads of it."""

import pytest

from zmesh.config import Config
from zmesh.errors import ConfigError


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
    assert str(caught.value).startswith(f"{file}: ")
    assert complaint in str(caught.value)


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
    with pytest.raises(ConfigError, match=r"^node_id 'b c' is"):
        Config.load(file, environ={"ZMESH_NODE_ID": "b c"})


def test_variables_that_nothing_reads_are_logged_with_the_likely_name(caplog):
    service = {"ZMESH_SERVICE_HOST": "10.0.0.1", "ZMESH_PORT_7323_TCP_ADDR": "10.0.0.1", "ZMESH_HUB_SERVICE_PORT": "1"}
    known = {"ZMESH_NODE_ID": "a", "ZMESH_PEER": "tcp://a:1", "ZMESH_DEBUG": "1", "HOME": "/"}
    Config.load(environ={**service, **known, "ZMESH_LISTN": "tcp://a:1", "ZMESH_X": ""})
    assert [record.getMessage() for record in caplog.records] == [
        "nothing reads the environment variable ZMESH_LISTN (did you mean ZMESH_LISTEN?)",
        "nothing reads the environment variable ZMESH_X",
    ]
