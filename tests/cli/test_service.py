"""`zmesh reload` and `zmesh config`: settings of a node, where they come from, and how they change while it runs."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TABLES = """
[allow]
"echo:*" = ["hub"]

[plugins.http]
read_timeout = 60
"""


@pytest.fixture
def file(shell: Any) -> Path:
    """The file of settings `node.toml`."""
    return Path(shell.folder) / "node.toml"


# --- config -----------------------------------------------------------------------------------------------------------


def test_settings_are_shown_with_their_origin_and_without_secrets(shell: Any, file: Path, lines: Any) -> None:
    file.write_text(
        'node_id = "a"\npeers = ["tcp://127.0.0.1:1?proxy=socks5://ada:secret@127.0.0.1:2"]\nmax_work = 5\n' + TABLES
    )
    environment = {"ZMESH_MAX_WORK": "6"}
    words = ["config", "show", "--config", str(file), "--listen", "tcp://127.0.0.1:*"]
    done = shell.run(*words, "--json", environment=environment)
    found = {each["setting"]: (each["value"], each["where"] or each["origin"]) for each in lines(done)}
    assert found["node_id"] == ("a", f"{file}:1")
    assert found["peers"] == (["tcp://127.0.0.1:1?proxy=socks5://ada:***@127.0.0.1:2"], f"{file}:2")
    assert found["max_work"] == (6, "ZMESH_MAX_WORK")
    assert found["listen"] == (["tcp://127.0.0.1:*"], "command line")
    assert found["heartbeat"] == (1.0, "default")
    assert found["allow.echo:*"] == (["hub"], f"{file}:6")
    assert found["plugins.http.read_timeout"] == (60, f"{file}:9")
    text = shell.run(*words, environment=environment).stdout.decode()
    assert f"max_work                   6      {'':52}ZMESH_MAX_WORK".split() in [
        row.split() for row in text.splitlines()
    ]
    assert "secret" not in text


def test_settings_of_an_identity_are_shown_as_its_own(shell: Any, lines: Any) -> None:
    shell.run("init", "--name", "lab", "--id", "hub", "--listen", "tcp://127.0.0.1:7323")
    folder = Path(shell.folder) / "config/zmesh/lab"
    (folder / "policy.toml").write_text('[allow]\n"echo:*" = ["tag:gpu"]\n')
    found = {each["setting"]: each for each in lines(shell.run("config", "show", "--json"))}
    assert (found["node_id"]["value"], found["node_id"]["origin"]) == ("hub", "identity")
    assert found["listen"]["where"] == str(folder)
    assert (found["allow.echo:*"]["value"], found["allow.echo:*"]["where"]) == (["tag:gpu"], f"{folder}/policy.toml:2")


def test_settings_that_can_be_used_are_one_line_and_what_nobody_reads_is_another(shell: Any, file: Path) -> None:
    file.write_text(
        'node_id = "a"\nlisten = ["tcp://127.0.0.1:7323"]\n[plugins.nope]\nx = 1\n[allow]\n"exce:*" = ["hub"]\n'
    )
    done = shell.run("config", "check", "--config", str(file), environment={"ZMESH_LISTN": "x"})
    assert done.returncode == 0
    assert done.stdout.decode() == f"{file}: node a listens on tcp://127.0.0.1:7323, dials 0 peers\n"
    misspelt, unknown, permission = done.stderr.decode().splitlines()
    assert "nothing reads the environment variable ZMESH_LISTN (did you mean ZMESH_LISTEN?)" in misspelt
    assert "[plugins.nope] is for no plugin that is installed here" in unknown
    assert "[allow] \"exce:*\" is for no directive that is here (did you mean 'exec:*'?)" in permission


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("max_wrk = 5", 1, "no setting is called 'max_wrk' (did you mean 'max_work'?)"),
        ("\npeers = ['tcp://203.0.113.7:1']", 2, "without an identity a node uses loopback"),
        ("\n[allow]\n'exec' = ['a']", 3, "'exec' is no pattern"),
        (
            "\n\n[plugins.http]\nread_timeout = -1",
            3,
            "[plugins.http]: read_timeout must be a number of seconds above 0",
        ),
        ("\n[run]\ngrace = 'long'", 2, "[run]: grace must be a number"),
        ("\n[metrics]\nadress = ':9464'", 2, "[metrics] has no key 'adress' (did you mean 'address'?)"),
    ],
)
def test_settings_that_can_not_be_used_are_one_line_with_its_place(
    shell: Any, file: Path, text: str, line: int, complaint: str
) -> None:
    file.write_text(text)
    done = shell.run("config", "check", "--config", str(file))
    assert done.returncode == 2
    (said,) = done.stderr.decode().splitlines()
    assert said.startswith(f"zmesh: {file}:{line}: ")
    assert complaint in said


# --- reload -----------------------------------------------------------------------------------------------------------


def test_a_node_without_an_identity_reloads_its_file_and_keeps_the_link_that_stays(
    shell: Any, file: Path, lines: Any, eventually: Callable[..., None]
) -> None:
    hub = shell.node("hub")
    file.write_text(f"peers = ['{hub.url}']\n")
    edge = shell.node("edge", "--config", str(file))
    hub.event("link_up")
    file.write_text(f"peers = ['{hub.url}']\ntags = ['gpu']\nheartbeat = 5.0\n[allow]\n'ecoh:*' = []\n")
    assert shell.run("reload", "edge").stdout == b"edge: changed allow, tags; at its next start: heartbeat\n"
    eventually(lambda: '[allow] "ecoh:*" is for no directive that is here' in edge.complaints())

    def tagged() -> list[str]:  # as the hub has learned it
        return [
            each["node"] for each in lines(shell.run("nodes", "tag:gpu", "--json", "--peer", "hub")) if "node" in each
        ]

    eventually(lambda: tagged() == ["edge"])
    event = edge.event("configuration_changed")
    assert event["detail"] == "allow, tags; at the next start: heartbeat"
    (answer,) = lines(shell.run("reload", "edge", "--json"))
    assert answer == {"schema": "zmesh.reload/1", "node": "edge", "changed": [], "at_restart": ["heartbeat"]}
    assert [link for link in edge.complaints().splitlines() if "lost the link" in link] == []


def test_metrics_and_tracing_that_are_turned_on_begin_at_the_next_start_and_reload_says_so(
    shell: Any, file: Path
) -> None:
    file.write_text("heartbeat = 5.0\n")
    edge = shell.node("edge", "--config", str(file))
    file.write_text("heartbeat = 5.0\ntracing = true\n[metrics]\naddress = '127.0.0.1:*'\n")
    assert shell.run("reload", "edge").stdout == b"edge: nothing changes now; at its next start: metrics, tracing\n"
    assert edge.event("configuration_changed")["detail"] == "none yet; at the next start: metrics, tracing"
    file.write_text("heartbeat = 5.0\n[metrics]\naddress = '127.0.0.1:*'\nintervall = 2\n")
    refused = shell.run("reload", "edge")
    assert refused.returncode == 2
    assert refused.stderr.decode() == (
        f"zmesh: edge: nothing is reloaded: {file}:2: [metrics] has no key 'intervall' (did you mean 'interval'?)\n"
    )
    file.write_text("heartbeat = 5.0\n")
    assert shell.run("reload", "edge").stdout == b"edge: nothing has changed\n"


def test_a_file_that_can_not_be_used_changes_nothing_and_is_one_line(shell: Any, file: Path) -> None:
    file.write_text("tags = ['one']\n")
    shell.node("a", "--config", str(file))
    file.write_text("tags = ['two']\nmax_work = 0\n")
    done = shell.run("reload")
    assert done.returncode == 2
    assert done.stderr.decode() == (
        f"zmesh: a: nothing is reloaded: {file}:2: max_work = 0 is not a whole number from 1 to 1e+06\n"
    )
    file.write_text("tags = ['one']\n")
    assert shell.run("reload").stdout == b"a: nothing has changed\n"


def test_sighup_changes_the_log_level(shell: Any, file: Path, eventually: Callable[..., None]) -> None:
    file.write_text("log_level = 'error'\n")
    node = shell.node("a", "--config", str(file), start_new_session=True)
    shell.node("b", "--peer", node.url).event("link_up")
    assert node.complaints() == ""
    file.write_text("log_level = 'debug'\n")
    node.send(signal.SIGHUP)
    node.event("configuration_changed")
    shell.run("send", "a", "echo:echo", "x", "--peer", node.url)
    eventually(lambda: "DEBUG" in node.complaints())
    file.write_text("log_level = 'loud'\n")
    node.send(signal.SIGHUP)
    eventually(lambda: f"nothing is reloaded: {file}:1: log_level must be one of" in node.complaints())


def test_reload_says_which_node_it_does_not_find(shell: Any) -> None:
    done = shell.run("reload")
    assert (done.returncode, done.stderr) == (3, b"zmesh: no node of this user runs here\n")
    done = shell.run("reload", "nobody")
    assert (done.returncode, done.stderr) == (2, b"zmesh: no node 'nobody' of this user runs here\n")
    for name in ("a", "b"):
        shell.node(name)
    done = shell.run("reload")
    assert (done.returncode, done.stderr) == (2, b"zmesh: 2 nodes run here: a, b; name one: zmesh reload a\n")
