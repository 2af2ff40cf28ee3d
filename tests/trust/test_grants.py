"""A command at its node's own socket seals for itself, by a grant of that node, over real sockets."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

import zmesh
from tests.membership.conftest import Lab
from tests.trust.clocks import set_clock
from tests.trust.eavesdropping import keyed
from tests.trust.test_nothing_readable import TEXT, readable
from zmesh.core import wire
from zmesh.core.wire import FIRST_ROUTED
from zmesh.identity.credentials import NodeCredentials

HOUR = 3600.0


class Command:
    """A mesh of the nodes `home` and `edge`, and a command at the socket of `home`."""

    def __init__(self, lab: Lab, folder: Path, **of_edge: object) -> None:
        self.lab, self.folder, self.of_edge = lab, folder, of_edge
        self.stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Command":
        lab, socket = self.lab, f"ipc://{self.folder}/home.sock"
        home = lab.controller(lab.identity("home", age=3600, peers=False), listen=["tcp://127.0.0.1:0", socket])
        self.home = await self.stack.enter_async_context(home)
        edge = lab.controller(lab.identity("edge", age=3600, peers=False), peers=[keyed(home)], **self.of_edge)
        self.edge = await self.stack.enter_async_context(edge)
        await home.wait_for("edge", 90)
        self.leaf = await self.stack.enter_async_context(
            zmesh.Controller(node_id="cli-1", identity=None, peers=[socket], ephemeral=True, heartbeat=0.3)
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stack.aclose()


async def test_its_node_reads_nothing_of_what_a_command_sends_to_others(
    lab: Lab, tmp_path: Path, given: dict[str, list[list[bytes]]]
) -> None:
    async with Command(lab, tmp_path) as mesh:
        metadata = {"owner": "ada-lovelace", "quarterly": "confidential"}
        reply: Any = await mesh.leaf.request("edge", "echo:echo", TEXT, content_type="text/ledger", metadata=metadata)
        assert reply.readall() == TEXT
    passed = [parts for parts in given["home"] if parts[0][1] >= FIRST_ROUTED]
    assert sum(len(part) for parts in passed for part in parts) > 2 * len(TEXT)
    assert readable(b"".join(part for parts in passed for part in parts)) == set()
    sources = {str(wire.decode_packet(parts).source) for parts in passed if parts[0][1] == wire.Kind.KEY_EXCHANGE}
    assert sources == {"cli-1@home", "edge"}


async def test_permissions_are_those_of_its_node(lab: Lab, tmp_path: Path) -> None:
    async with Command(lab, tmp_path, allow={"echo:*": ["home"], "digest:*": ["tag:admin"]}) as mesh:
        reply: Any = await mesh.leaf.request("edge", "echo:echo", "hello")
        assert reply.text() == "hello"
        with pytest.raises(zmesh.NotAllowed, match=r"does not let 'home' call digest:sha256"):
            await mesh.leaf.request("edge", "digest:sha256", b"hello")


async def test_an_expired_grant_is_refused_with_one_line_at_both_ends(
    lab: Lab, tmp_path: Path, lines: Any, eventually: Any
) -> None:
    async with Command(lab, tmp_path) as mesh:
        await set_clock(mesh.edge, 3 * HOUR, eventually)
        with pytest.raises(zmesh.NotTrusted, match=r"'cli-1' by node 'home' expired .* ago; the clock of 'edge' is"):
            await mesh.leaf.request("edge", "echo:echo", "hello", timeout=90)
        (line,) = [line for line in lines("edge") if "refused a leaf" in line]
        assert line.startswith("refused a leaf of home: the grant of leaf 'cli-1' by node 'home' expired")
        counted = mesh.edge.stats().counters
        assert counted["frame_dropped:key_exchange"] >= 1


async def test_a_grant_that_its_node_has_not_signed_is_refused_with_the_way_out(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Command(lab, tmp_path) as mesh:
        home: Any = mesh.home
        credentials: NodeCredentials = home._node.engine.credentials
        monkeypatch.setattr(credentials, "key", lab.identity("other", age=60).key)
        with pytest.raises(zmesh.NotTrusted, match=r"node 'home' \(key SHA256:.*\) has not signed.*zmesh revoke home"):
            await mesh.leaf.request("edge", "echo:echo", "hello", timeout=90)


async def test_a_command_without_anything_to_seal_asks_for_no_grant(lab: Lab, tmp_path: Path) -> None:
    async with Command(lab, tmp_path) as mesh:
        reply: Any = await mesh.leaf.request("home", "echo:echo", "hello")
        assert reply.text() == "hello"
        leaf: Any = mesh.leaf
        assert not leaf._node.engine.forwarding.key_exchanges.has_credentials
