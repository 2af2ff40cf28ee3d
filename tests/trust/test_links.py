"""Links that fail in their handshake: one line at each end says who, which key, why, and what mends it."""

import asyncio
import contextlib
import os
import time

import pytest

import zmesh
from zmesh.testing import eventually
from zmesh.transport.curve import KeyPair, key_to_text
from zmesh.transport.dialler import REDIAL_NOT_TRUSTED


def at(mesh, key=None):
    """The URL of a node without its key, or with another one."""
    url = mesh.listening[0].partition("?")[0]
    return url if key is None else f"{url}?key={key}"


def key_of(mesh):
    return mesh.listening[0].partition("?key=")[2]


def another_key():
    return key_to_text(KeyPair.generate().public)


async def line(lines, node_id, start, part=""):
    """The first line of a node that begins so, and has that part.

    A dialler may learn less at first, where the connection is reset before it has read what the other end speaks.
    """

    def found():
        return [each for each in lines(node_id) if each.startswith(start) and part in each]

    await eventually(found)
    return found()[0]


async def test_two_nodes_of_one_mesh_are_linked_encrypted(node):
    hub = await node("hub")
    edge = await node("edge", hub.listening[0])
    assert len(key_of(hub)) == 43
    await edge.wait_for("hub", 60)
    assert (await edge.request("hub", "echo:echo", "hello", timeout=60)).text() == "hello"


@pytest.mark.parametrize("size", [0, 1, 20_000, 3_000_000])
async def test_payloads_of_any_size_pass_a_forwarder_there_and_back(node, size):
    hub = await node("hub")
    left, right = await node("left", hub.listening[0]), await node("right", hub.listening[0])
    await left.wait_for("right", 60)
    await right.wait_for("left", 60)
    payload = os.urandom(size)
    assert (await left.request("right", "echo:echo", payload, timeout=60)).readall() == payload


async def test_a_wrong_pinned_key_is_reported_at_both_ends_and_may_be_a_crash(node, lines):
    hub, wrong = await node("hub"), another_key()
    edge = await node("edge", at(hub, wrong))
    failed = await line(lines, "edge", f"can't reach {at(hub)}")
    assert f"its key is not {wrong}, or it has just stopped" in failed
    assert "'zmesh node' there prints its URL with its key" in failed
    refused = await line(lines, "hub", "refused a connection from")
    assert f"it dials with another key than this address has; the URL that it dials needs ?key={key_of(hub)}" in refused
    assert hub.stats().counters["stranger_refused:wrong_key"] >= 1
    assert (hub.nodes(), edge.nodes()) == (["hub"], ["edge"])


async def test_a_listener_that_stops_in_the_handshake_is_reported_as_one_with_another_key(node, lines, free_port):
    async def stop(reader, writer):
        await reader.read(1)
        writer.transport.abort()

    async with await asyncio.start_server(stop, "127.0.0.1", free_port):
        await node("edge", f"tcp://127.0.0.1:{free_port}?key={another_key()}")
        assert "or it has just stopped" in await line(lines, "edge", "can't reach")


async def test_a_peer_that_speaks_plaintext_is_reported_at_both_ends(node, lines):
    hub = await node("hub", identity_=None)
    await node("edge", at(hub, another_key()))
    failed = await line(lines, "edge", "can't reach", "speaks plaintext")
    assert "it speaks plaintext, and this URL has a key; take ?key= out of it, or let that node 'zmesh init'" in failed
    refused = await line(lines, "hub", "refused a connection from")
    assert "it dials with a key, and this address is plaintext; 'zmesh init' or 'zmesh join' gives this node" in refused
    assert hub.stats().counters["stranger_refused:encrypted"] >= 1


async def test_a_peer_that_demands_encryption_is_reported_at_both_ends(node, lines):
    hub = await node("hub")
    await node("edge", at(hub), identity_=None)
    failed = await line(lines, "edge", "can't reach", "no plaintext")
    assert "it takes no plaintext links; its URL needs ?key= and its key after it, as 'zmesh node' there" in failed
    refused = await line(lines, "hub", "refused a connection from")
    assert f"this address takes encrypted links only; the URL that it dials needs ?key={key_of(hub)}" in refused
    assert hub.stats().counters["stranger_refused:plaintext"] >= 1


@pytest.mark.parametrize("how", ["wrong key", "plaintext"])
async def test_a_refused_peer_redials_at_most_once_in_five_seconds_and_logs_few_lines(node, lines, how):
    hub = await node("hub")
    edge = await node("edge", at(hub, another_key()) if how == "wrong key" else at(hub), insecure=how == "plaintext")
    times = []
    edge.watch(lambda event: times.append(time.monotonic()) if isinstance(event, zmesh.DialFailed) else None)
    await eventually(lambda: len(times) >= 2)
    assert times[-1] - times[-2] >= REDIAL_NOT_TRUSTED
    assert len([each for each in lines("edge") if each.startswith("can't reach")]) <= 2
    assert len([each for each in lines("hub") if each.startswith("refused")]) <= 2


async def test_a_hundred_refused_connections_are_few_lines_and_all_are_counted(node, lines):
    """From one address: what is logged does not grow with them."""
    hub = await node("hub")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    for _ in range(100):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(at(hub).rpartition(":")[2]))
        with contextlib.suppress(ConnectionError):
            writer.write(greeting)
            while await reader.read(64):
                pass
        writer.transport.abort()
    await eventually(lambda: hub.stats().counters.get("stranger_refused:plaintext", 0) == 100)
    assert len([each for each in lines("hub") if each.startswith("refused")]) <= 10
