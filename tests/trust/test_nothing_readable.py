"""What forwarders and the network see of a transfer over three hops: nothing of it."""

import contextlib
import re
from typing import Any

import zmesh
from tests.membership.conftest import Lab
from tests.trust.eavesdropping import Wiretap, keyed
from zmesh.core import wire
from zmesh.core.wire import FIRST_ROUTED

TEXT = b"".join(b"line %06d of a text that everybody would recognise\n" % number for number in range(20_000))
WORDS = ("recognise", "everybody", "ledger", "quarterly", "ada-lovelace", "confidential", "echo:echo", "text/ledger")
"""Parts of the payload, the metadata, the directive and the content type."""


def readable(data: bytes) -> set[str]:
    """The words that can be read in some bytes."""
    return {word for word in WORDS if word.encode() in data}


async def chain(lab: Lab, stack: contextlib.AsyncExitStack) -> tuple[list[zmesh.Controller], list[Wiretap]]:
    """Four nodes in a row, and a wiretap on each link."""
    nodes: list[zmesh.Controller] = []
    taps: list[Wiretap] = []
    for name in ("alpha", "beta", "gamma", "delta"):
        identity = lab.identity(name, age=3600, peers=False)
        peers = []
        if nodes:
            tap = await stack.enter_async_context(Wiretap(nodes[-1].listening[0]))
            taps.append(tap)
            peers.append(keyed(nodes[-1], tap.url))
        node = lab.controller(identity, listen=["tcp://127.0.0.1:0"], peers=peers)
        nodes.append(await stack.enter_async_context(node))
    return nodes, taps


async def test_nothing_of_a_transfer_over_three_hops_can_be_read_on_a_link_or_at_a_forwarder(
    lab: Lab, given: dict[str, list[list[bytes]]]
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        nodes, taps = await chain(lab, stack)
        await nodes[0].wait_for("delta", 90)
        await nodes[3].wait_for("alpha", 90)
        for seen in given.values():
            seen.clear()
        metadata = {"owner": "ada-lovelace", "quarterly": "confidential"}
        reply: Any = await nodes[0].request("delta", "echo:echo", TEXT, content_type="text/ledger", metadata=metadata)
        assert reply.readall() == TEXT
    for tap in taps:
        assert len(tap.heard) > 2 * len(TEXT)
        assert readable(tap.heard) == set()
    for forwarder in ("beta", "gamma"):
        routed = [parts for parts in given[forwarder] if parts[0][1] >= FIRST_ROUTED]
        assert sum(len(part) for parts in routed for part in parts) > 2 * len(TEXT)
        assert all(wire.decode_packet(parts).sealed for parts in routed)
        assert readable(b"".join(part for parts in routed for part in parts)) == set()
        addresses = {str(wire.decode_packet(parts).source) for parts in routed}
        assert {"alpha", "delta"} <= addresses


async def test_the_hub_of_a_laptop_reads_nothing_of_what_it_sends(
    lab: Lab, given: dict[str, list[list[bytes]]]
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        hub = lab.controller(lab.identity("relay", age=3600, peers=False), listen=["tcp://127.0.0.1:0"])
        await stack.enter_async_context(hub)
        tap = await stack.enter_async_context(Wiretap(hub.listening[0]))
        edge = lab.controller(lab.identity("edge", age=3600, peers=False), peers=[keyed(hub)])
        laptop = lab.controller(lab.identity("ada", age=3600, peers=False), peers=[keyed(hub, tap.url)], ephemeral=True)
        await stack.enter_async_context(edge)
        await stack.enter_async_context(laptop)
        await hub.wait_for("edge", 90)
        metadata = {"owner": "ada-lovelace", "quarterly": "confidential"}
        reply: Any = await laptop.request("edge", "echo:echo", TEXT, content_type="text/ledger", metadata=metadata)
        assert reply.readall() == TEXT
    assert len(tap.heard) > 2 * len(TEXT)
    assert readable(tap.heard) == set()
    passed = [parts for parts in given["relay"] if parts[0][1] >= FIRST_ROUTED]
    assert sum(len(part) for parts in passed for part in parts) > 2 * len(TEXT)
    assert readable(b"".join(part for parts in passed for part in parts)) == set()


async def test_the_same_transfer_without_identities_is_found_by_the_same_means(
    given: dict[str, list[list[bytes]]],
) -> None:
    """So that the test above can't pass because it looks in the wrong place."""
    async with (
        zmesh.Controller(node_id="beta", identity=None, listen=["tcp://127.0.0.1:0"], heartbeat=0.3) as beta,
        Wiretap(beta.listening[0]) as tap,
        zmesh.Controller(node_id="alpha", identity=None, peers=[tap.url], heartbeat=0.3) as alpha,
        zmesh.Controller(node_id="delta", identity=None, peers=[beta.listening[0]], heartbeat=0.3) as delta,
    ):
        await alpha.wait_for("delta", 90)
        await delta.wait_for("alpha", 90)
        metadata = {"owner": "ada-lovelace", "quarterly": "confidential"}
        reply: Any = await alpha.request("delta", "echo:echo", TEXT, content_type="text/ledger", metadata=metadata)
        assert reply.readall() == TEXT
    assert readable(tap.heard) >= {"recognise", "ada-lovelace", "confidential", "echo:echo", "text/ledger"}
    assert readable(b"".join(part for parts in given["beta"] for part in parts)) >= {"recognise", "ada-lovelace"}
    assert re.search(rb"line 000001 of a text", tap.heard)
