"""A transport as its node uses it: links by their numbers, and closing."""

import asyncio

import pytest

from tests.transport.transport_handler import FRAMES, joined
from zmesh.core.effects import Transmit
from zmesh.testing import Mesh, eventually
from zmesh.transport import DialFailure, DialState
from zmesh.transport.context import open_transports

# --- links ----------------------------------------------------------------------------------------------------------


async def test_the_cost_of_a_link_is_reported_at_both_ends(listener, dialler):
    real = listener.listen("tcp://127.0.0.1:*?cost=7")
    dialler.dial(f"{real}?cost=9")
    await eventually(lambda: dialler.handler.links)
    dialler.send(dialler.handler.links[0], FRAMES)
    await eventually(lambda: listener.handler.links)
    assert dialler.handler.events[0][2:4] == (True, 9)
    assert listener.handler.events[0][2:4] == (False, 7)


async def test_frames_for_a_link_that_is_gone_go_nowhere(listener, dialler):
    here, there = await joined(dialler, listener, "tcp://127.0.0.1:*")
    await dialler.close()
    await eventually(lambda: listener.handler.links == [])
    assert listener.send(there, FRAMES)
    assert dialler.send(here, FRAMES)
    assert not listener.is_full(there)
    assert (there, "link_gone") in listener.handler.lost, "which is told"
    assert dialler.handler.lost == [(here, "link_gone")]


async def test_frames_that_meet_the_end_of_a_connection_are_reported(listener, zmq_socket):
    """Until sending has told, the listener does not know that a connection is gone."""
    peer = zmq_socket("DEALER", listener.listen("tcp://127.0.0.1:*"))
    peer.send_multipart(FRAMES)
    await eventually(lambda: listener.handler.links)
    (link,) = listener.handler.links
    listener.handler.on_link_suspect = lambda link: None
    peer.close()
    await eventually(lambda: listener.send(link, FRAMES) and listener.handler.lost)
    assert listener.handler.lost[0] == (link, "link_gone")
    await eventually(lambda: listener.handler.links == [])


async def test_a_node_counts_the_frames_of_links_that_are_gone():
    async with Mesh.chain("a", "b", tcp=True) as mesh:
        node = mesh["a"].node
        node.driver.perform([Transmit(999, FRAMES)])
        assert node.telemetry.counts["frame_dropped:link_gone"] == 1


@pytest.mark.parametrize("kind", ["tcp", "ipc", "inproc"])
async def test_each_end_tells_where_the_other_is(dialler, listener, tmp_path, kind):
    url = {"tcp": "tcp://127.0.0.1:*", "ipc": f"ipc://{tmp_path}/a", "inproc": "inproc://where"}[kind]
    here, there = await joined(dialler, listener, url)
    assert dialler.remote_address(here) == dialler.dialled_url(here) == listener.listening[0]
    assert listener.remote_address(there) == ("127.0.0.1" if kind == "tcp" else listener.listening[0])
    assert listener.dialled_url(there) is None
    listener.hang_up(there, 0.0)
    assert listener.remote_address(there) == ""


# --- how dialling stands --------------------------------------------------------------------------------------------


async def test_each_dial_tells_its_state_and_why_and_since_when_it_fails(dialler, listener, free_port):
    url = f"tcp://127.0.0.1:{free_port}"
    dialler.dial(url)
    dialler.dial(listener.listen("tcp://127.0.0.1:*"))
    await eventually(lambda: dialler.handler.links and len(dialler.handler.failures) >= 2)
    lost, linked = dialler.dials()
    assert lost.url == url
    assert lost.state in (DialState.CONNECTING, DialState.WAITING)
    assert lost.failure is DialFailure.REFUSED
    assert lost.reason == dialler.handler.failures[0][1]
    assert lost.tries >= 2
    assert (linked.url, linked.state, linked.failure, linked.reason, linked.tries) == (
        listener.listening[0], DialState.LINKED, None, "", 0,
    )  # fmt: skip
    listener.listen(url)
    await eventually(lambda: dialler.dials()[0].state is DialState.LINKED)
    assert dialler.dials()[0].failure is None
    assert dialler.dials()[0].since > lost.since
    await listener.close()
    await eventually(lambda: {dial.failure for dial in dialler.dials()} == {DialFailure.REFUSED})
    assert all(dial.since > linked.since for dial in dialler.dials())


# --- closing --------------------------------------------------------------------------------------------------------


async def test_what_was_sent_just_before_closing_arrives(listener, dialler):
    here, _ = await joined(dialler, listener, "tcp://127.0.0.1:*")
    for number in range(50):
        assert dialler.send(here, (b"%d" % number, b"", b""))
    await dialler.close()
    await eventually(lambda: len(listener.handler.frames) == 51)


async def test_closing_twice_is_closing_once(listener):
    listener.listen("tcp://127.0.0.1:*")
    await listener.close()
    await listener.close()
    assert open_transports() == 0


async def test_closing_does_not_wait_for_a_peer_that_takes_nothing(listener, dialler, wire):
    line = await wire(listener.listen("tcp://127.0.0.1:*"))
    dialler.dial(line.url)
    await eventually(lambda: dialler.handler.links)
    line.freeze()
    while dialler.send(dialler.handler.links[0], (b"", b"", bytes(64 * 1024))):
        dialler.settle()
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await dialler.close()
        await listener.close()
