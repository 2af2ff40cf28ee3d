"""What one can do wrong with the commands for machines: one line each, which says what mends it."""

import re
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="module")
def fleet(new_shell: Callable[[], Any]) -> Any:
    """A shell beside `hub`, which allows commands, and `closed`, which does not."""
    shell = new_shell()
    shell.environment["ZMESH_ALLOW"] = '{"exec:*": ["*"]}'
    shell.hub = shell.node("hub")
    del shell.environment["ZMESH_ALLOW"]
    shell.node("closed", "--peer", shell.hub.url)
    shell.hub.event("node_joined")
    shell.environment["ZMESH_PEER"] = shell.hub.url
    return shell


TARGET = r"'tag:' is no target: give the id of a node, tag:NAME, or !NODE"
ENV = r"give NAME=VALUE, or the NAME of a variable that is set here"
USAGE = r"'zmesh run -h' has its usage"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            "run nobody -- true",
            255,
            r"no node 'nobody' can be reached from 'hub'.*; 'zmesh routes' shows those that can",
        ),
        (
            "run closed -- true",
            255,
            r"node 'closed' does not let 'hub' call exec:run .* \[allow\] \"exec:\*\" = \[\"hub\"\]",
        ),
        ("run hub -- nope", 127, r"node 'hub': there is no program 'nope' in the PATH"),
        ("run hub -- /etc", 126, r"node 'hub': can't execute '/etc': permission denied"),
        ("run hub --cwd /none -- true", 126, r"node 'hub': can't run it in the directory '/none': no such file"),
        ("run hub --user nouser -- true", 255, r"node 'hub': there is no user 'nouser' here"),
        ("run hub --timeout 0.2 -- sleep 600", 255, r"node 'hub': 'sleep' was stopped, its time being over"),
        ("run hub --timeout 0 -- true", 2, rf"Invalid value for '--timeout': it must be .* above 0; {USAGE}"),
        ("run tag: -- true", 2, TARGET),
        ("run hub, -- true", 2, r"'' in 'hub,' is no target: give the id of a node, .*"),
        ("run tag:none -- true", 2, r"no node is meant: 'zmesh nodes' lists them, with their tags"),
        ("run hub", 2, r"no command is given, such as in: zmesh run edge-7 -- uname -a"),
        ("run hub uname -a", 2, rf"No such option: -a; what is to run comes after --, as in: .* -- uname -a; {USAGE}"),
        ("run hub uname --timeout x", 2, rf"Invalid value for '--timeout': it must be a number, not 'x'; {USAGE}"),
        ("run -- true", 2, rf"give a TARGET, such as edge-7 or tag:gpu, or --all; {USAGE}"),
        ("run --all hub -- true", 2, rf"give either a TARGET or --all; .* after --; {USAGE}"),
        ("run hub --env =x -- true", 2, rf"--env '=x': {ENV}"),
        ("run hub --env NOT_SET -- true", 2, rf"--env 'NOT_SET': {ENV}"),
        ("run --all -t -- true", 2, rf"a terminal \(-t\) is for one node; {USAGE}"),
        ("run --all --max-parallel 0 -- true", 2, rf"Invalid value for '--max-parallel': it must be 1 .*; {USAGE}"),
        ("run --all --stop-after x -- true", 2, rf"Invalid value for '--stop-after': .* such as 5%, not 'x'; {USAGE}"),
        (
            "run --peer nobody hub -- true",
            2,
            r"--peer nobody: no node of yours with that id runs here.*; .* tcp://host:port",
        ),
        (
            "run --peer tcp://127.0.0.1:1 hub -- true",
            255,
            r"can't reach tcp://127.0.0.1:1: .*; is a node listening at .*",
        ),
        ("nodes tag:", 2, TARGET),
        (
            "send tag:gpu echo:echo x",
            2,
            r"'tag:gpu' is not the id of a node: .*; 'zmesh run', 'cp' and 'nodes' take .*",
        ),
        ("runn hub", 2, r"No such command 'runn'. Did you mean 'run'\?; 'zmesh -h' has its usage"),
    ],
)
def test_an_error_is_one_line_with_the_way_out(fleet: Any, words: str, code: int, said: str) -> None:
    done = fleet.run(*words.split(" "))
    assert (done.returncode, done.stdout) == (code, b"")
    assert re.fullmatch(rf"zmesh: {said}.*\n", done.stderr.decode())


def test_errors_at_several_nodes_are_a_line_each(fleet: Any) -> None:
    done = fleet.run("run", "hub,closed", "--", "nope")
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert sum("there is no program 'nope'" in line for line in lines) == 1
    assert sum("does not let 'hub' call exec:run" in line for line in lines) == 1
    assert lines[2:] == ["zmesh: 2 nodes: 2 failed", "zmesh: failed: closed, hub"]
