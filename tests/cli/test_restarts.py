"""A chain of four nodes, each of which dials the one before it: one is killed and restarted."""

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def chain(new_shell: Callable[[], Any]) -> Any:
    shell = new_shell()
    shell.by_name = dict(zip(NAMES, shell.chain(*NAMES), strict=True))
    shell.known = {name: {*NAMES} - {name} for name in NAMES}  # what `chain` has waited for
    return shell


def follow(shell: Any, name: str, nodes: set[str]) -> None:
    """Read the events of a node, until it has routes to these nodes and no others."""
    known = shell.known[name]
    while known != nodes:
        event = shell.by_name[name].next_event()
        if event["event"] == "node_joined":
            known.add(event["node"])
        elif event["event"] == "node_left":
            known.discard(event["node"])


def routes_of(shell: Any, name: str) -> set[str]:
    """The destinations that a node has routes to; none if the command fails."""
    done = shell.run("routes", "--json", "--peer", shell.by_name[name].url, "--timeout", "30")
    if done.returncode:
        assert done.returncode in (3, 4)
        return set()
    return {route["destination"] for route in json.loads(done.stdout)["routes"]}


def test_commands_work_across_the_whole_chain(chain: Any) -> None:
    peer = ("--peer", chain.by_name["a"].url)
    assert chain.run("send", "d", "echo:echo", "over three links", *peer).stdout == b"over three links"
    done = chain.run("ping", "d", "-c", "2", "-i", "0.01", "--json", *peer)
    assert [json.loads(line).get("hops") for line in done.stdout.splitlines()] == [4, 4, None]
    assert routes_of(chain, "a") == {"b", "c", "d"}
    assert routes_of(chain, "d") == {"a", "b", "c"}


@pytest.mark.parametrize("name", NAMES)
def test_after_a_kill_and_a_restart_the_routes_are_back(chain: Any, name: str) -> None:
    index = NAMES.index(name)
    old = chain.by_name[name]
    old.close()
    for each in NAMES:
        if each != name:
            follow(chain, each, set(NAMES[:index] if each < name else NAMES[index + 1 :]) - {each})
    end, other_end = ("a", "d") if name != "a" else ("b", "d")
    if name == "d":
        other_end = "c"
    peer = ("--peer", chain.by_name[end].url)
    for words in (("ping", name, "-c", "1", "--timeout", "0.3"), ("send", name, "echo:echo", "x", "--timeout", "0.3")):
        assert chain.run(*words, *peer).returncode in (3, 4)
    assert name not in routes_of(chain, other_end)
    dial = ["--peer", chain.by_name[NAMES[index - 1]].url] if index else []
    chain.by_name[name], chain.known[name] = chain.node(name, *dial, listen=old.url), set()
    for each in NAMES:
        follow(chain, each, {*NAMES} - {each})
    assert all(routes_of(chain, each) == {*NAMES} - {each} for each in NAMES)
    done = chain.run("send", "d", "echo:echo", "again", "--peer", chain.by_name["a"].url)
    assert (done.returncode, done.stdout) == (0, b"again")


def test_no_command_hangs_or_breaks_while_nodes_are_killed_and_restarted(
    chain: Any, eventually: Callable[..., None]
) -> None:
    """Each command ends in an answer or in one line that says why there is none, and never in a traceback."""
    file = chain.folder / "file"
    file.write_bytes(os.urandom(1 << 20) * 8)
    over = threading.Event()

    def again_and_again(at: str, *words: str) -> list[tuple[int, bytes]]:
        ends = []
        while True:
            last = over.is_set()
            done = chain.run(*words, "--peer", chain.by_name[at].url)
            ends.append((done.returncode, done.stderr))
            if last:
                return ends

    with ThreadPoolExecutor() as threads:
        running = [
            threads.submit(again_and_again, "a", "ping", "d", "-c", "5", "-i", "0.1", "--timeout", "1"),
            threads.submit(again_and_again, "a", "send", "d", "digest:sha256", f"@{file}"),
            threads.submit(again_and_again, "d", "routes", "b", "--timeout", "5"),
        ]
        try:
            for index, name in enumerate(NAMES):
                old = chain.by_name[name]
                old.close()
                dial = ["--peer", chain.by_name[NAMES[index - 1]].url] if index else []
                chain.by_name[name], chain.known[name] = chain.node(name, *dial, listen=old.url), set()
                follow(chain, name, {*NAMES} - {name})
            eventually(lambda: routes_of(chain, "a") == {"b", "c", "d"})
        finally:
            over.set()
        for each in running:
            ends = each.result()
            assert {code for code, _ in ends} <= {0, 1, 3, 4}
            assert ends[-1] == (0, b""), "all is well again"
            for code, complaint in ends:
                assert code == 0 or complaint.count(b"\n") == 1
                assert code != 1 or b"has restarted and lost the request" in complaint
