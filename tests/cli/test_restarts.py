"""A chain of four nodes of which each listens only to the next: what happens when one is killed and comes back."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

NAMES = ("a", "b", "c", "d")
BACK_WITHIN = 3.0


@pytest.fixture(scope="module")
def chain(new_shell: Callable[[], Any]) -> Any:
    shell = new_shell()
    shell.by_name = dict(zip(NAMES, shell.chain(*NAMES), strict=True))
    return shell


def routes_of(shell: Any, name: str) -> set[str]:
    """The destinations that a node has routes to; none if it can't be asked."""
    done = shell.run("routes", "--json", "--peer", shell.by_name[name].url, "--timeout", "2")
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
def test_after_a_kill_and_a_restart_the_routes_are_back_within_3_seconds(
    chain: Any, name: str, eventually: Callable[..., None]
) -> None:
    index = NAMES.index(name)
    old = chain.by_name[name]
    old.close()
    end, other_end = ("a", "d") if name != "a" else ("b", "d")
    if name == "d":
        other_end = "c"
    peer = ("--peer", chain.by_name[end].url)
    for words in (("ping", name, "-c", "1", "--timeout", "0.3"), ("send", name, "echo:echo", "x", "--timeout", "0.3")):
        assert chain.run(*words, *peer).returncode in (3, 4)
    assert name not in routes_of(chain, other_end)
    dial = ["--peer", chain.by_name[NAMES[index - 1]].url] if index else []
    chain.by_name[name] = chain.node(name, *dial, listen=old.url)
    began = time.monotonic()
    others = set(NAMES)
    eventually(lambda: all(routes_of(chain, each) == others - {each} for each in NAMES))
    assert time.monotonic() - began < BACK_WITHIN
    done = chain.run("send", "d", "echo:echo", "again", "--peer", chain.by_name["a"].url)
    assert (done.returncode, done.stdout) == (0, b"again")
