"""Who dials: until somebody answers who speaks the protocol, and again when the link is lost."""

import asyncio
import contextlib
import errno
import os
import socket
import threading

import pytest
import zmq

from tests.transport.transport_handler import FRAMES, downs, joined
from zmesh.errors import AddressError
from zmesh.testing import eventually
from zmesh.transport.dial_status import DialFailure, DialState, failed
from zmesh.transport.link_socket import HIGH_WATER
from zmesh.transport.resolver import Address, Resolver, numeric

# --- links that are lost --------------------------------------------------------------------------------------------


async def test_a_link_is_lost_at_both_ends_when_the_connection_breaks_and_is_dialled_again(listener, dialler, wire):
    line = await wire(listener.listen("tcp://127.0.0.1:*"))
    dialler.dial(line.url)
    for round in range(1, 4):
        await eventually(lambda round=round: len(dialler.handler.links) == 1 and line.connections == round)
        dialler.send(dialler.handler.links[0], FRAMES)
        dialler.settle()
        await eventually(lambda: len(listener.handler.links) == 1)
        line.cut()
        await eventually(lambda round=round: downs(dialler) == downs(listener) == round)
    numbers = [event[1] for event in dialler.handler.events if event[0] == "up"]
    assert len(numbers) == len(set(numbers)), "no number is used twice"


async def test_a_link_that_is_hung_up_is_closed_and_dialled_again_after_the_pause(listener, dialler, url):
    here, _ = await joined(dialler, listener, url)
    started = asyncio.get_running_loop().time()
    dialler.hang_up(here, 0.2)
    dialler.handler.links.remove(here)
    await eventually(lambda: dialler.handler.links)
    assert asyncio.get_running_loop().time() - started >= 0.2
    assert dialler.handler.links != [here]


# --- peers that are not there yet -----------------------------------------------------------------------------------


async def test_a_peer_that_is_not_there_is_dialled_until_it_is(dialler, listener, free_port):
    url = f"tcp://127.0.0.1:{free_port}"
    dialler.dial(url)
    await eventually(lambda: len(dialler.handler.failures) >= 3)
    assert set(dialler.handler.failures) == {(url, "connection refused")}
    listener.listen(url)
    await eventually(lambda: dialler.handler.links)


async def test_an_ipc_peer_that_is_not_there_is_dialled_until_it_is(dialler, listener, tmp_path):
    url = f"ipc://{tmp_path}/later"
    dialler.dial(url)
    await eventually(lambda: dialler.handler.failures)
    listener.listen(url)
    await eventually(lambda: dialler.handler.links)


async def test_an_inproc_peer_may_come_later(dialler, listener, tmp_path):
    dialler.dial(f"inproc://{tmp_path.name}")
    listener.listen(f"inproc://{tmp_path.name}")
    await eventually(lambda: dialler.handler.links)
    dialler.send(dialler.handler.links[0], FRAMES)
    await eventually(lambda: listener.handler.frames)


# --- names and addresses --------------------------------------------------------------------------------------------


V4, V6 = Address(socket.AF_INET, "127.0.0.1"), Address(socket.AF_INET6, "::1")


def has_ipv6():
    with socket.socket(socket.AF_INET6) as probe, contextlib.suppress(OSError):
        probe.bind(("::1", 0))
        return True
    return False


def port_of(url):
    return url.rpartition(":")[2]


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_a_name_with_an_ipv6_address_only_is_reached(listener, transports):
    port = port_of(listener.listen("tcp://[::1]:*"))
    dialler = transports(lambda host: [V6])
    dialler.dial(f"tcp://hub:{port}")
    await eventually(lambda: dialler.handler.links)
    assert dialler.handler.failures == []


@pytest.mark.parametrize("dead", [["127.0.0.2"], ["::1", "127.0.0.2", "127.0.0.3"], ["2001:db8::1"]])
async def test_of_several_addresses_the_first_that_answers_is_used(listener, transports, dead):
    """The first ones refuse, or the machine has no route to them."""
    port = port_of(listener.listen("tcp://127.0.0.1:*"))
    dialler = transports(lambda host: [*(numeric(address) for address in dead), V4])
    dialler.dial(f"tcp://hub:{port}")
    await eventually(lambda: dialler.handler.links)
    assert dialler.handler.failures == []


@pytest.fixture
def black_hole(free_port):
    """An address, by its number, that lets a connection to `free_port` hang: its backlog is full."""
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.bind(("127.0.0.2", free_port))
        full.listen(0)
        for _ in range(4):
            caller = sockets.enter_context(socket.socket())
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(("127.0.0.2", free_port))
        yield Address(socket.AF_INET, "127.0.0.2")


async def test_an_address_that_never_answers_does_not_hold_up_the_next(
    listener, transports, free_port, black_hole, monkeypatch
):
    monkeypatch.setattr("zmesh.transport.dialler.CONNECT_WITHIN", 3600.0)
    listener.listen(f"tcp://127.0.0.1:{free_port}")
    dialler = transports(lambda host: [black_hole, V4])
    dialler.dial(f"tcp://hub:{free_port}")
    await eventually(lambda: dialler.handler.links)
    assert dialler.handler.failures == []


async def test_a_name_is_resolved_again_in_each_round(listener, transports, free_port):
    answers = [[], [V4], [V4]]
    asked = []

    def resolve(host):
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    dialler = transports(resolve)
    dialler.dial(f"tcp://hub:{free_port}")
    await eventually(lambda: len(asked) >= 4)
    reasons = [reason for _, reason in dialler.handler.failures]
    assert reasons[:2] == ["the name 'hub' does not resolve (it has no address)", "connection refused"]
    answers.append([Address(socket.AF_INET, "127.0.0.3")])  # the hub has moved
    listener.listen(f"tcp://127.0.0.3:{free_port}")
    await eventually(lambda: dialler.handler.links)
    assert set(asked) == {"hub"}


async def test_a_dead_name_server_holds_up_no_other_link(listener, transports):
    answer = threading.Event()
    try:
        dialler = transports(lambda host: answer.wait() and [])
        for number in range(8):
            dialler.dial(f"tcp://lost-{number}:7323")
        _, there = await joined(dialler, listener, "tcp://127.0.0.1:*")
        for _ in range(20):
            heard = len(dialler.handler.frames)
            listener.send(there, FRAMES)
            listener.settle()
            await eventually(lambda heard=heard: len(dialler.handler.frames) > heard)
        assert {dial.state for dial in dialler.dials()[:8]} == {DialState.RESOLVING}
        assert dialler.handler.failures == []
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, lambda: 7) == 7, "the loop's own threads are free"
        await dialler.close()
    finally:
        answer.set()


# --- what is told apart ---------------------------------------------------------------------------------------------


@pytest.fixture
async def why(transports, monkeypatch):
    """`await why(url)` is how dialling it fails the first time, and its words. Only `silent` ones have little time."""
    silences = {
        "peer": ("link_socket.HANDSHAKE_MS", 200),
        "machine": ("dialler.CONNECT_WITHIN", 0.5),
        "name server": ("resolver.RESOLVE_WITHIN", 0.2),
    }

    async def ask(url, resolve=None, silent=None):
        monkeypatch.setattr("zmesh.transport.connection.CONNECT_WITHIN", 0.5 if silent == "machine" else 60.0)
        if silent is not None:
            name, limit = silences[silent]
            monkeypatch.setattr(f"zmesh.transport.{name}", limit)
        dialler = transports(resolve)
        dialler.dial(url)
        await eventually(lambda: dialler.dials()[0].failure)
        (dial,) = dialler.dials()
        assert dialler.handler.failures[0] == (url, dial.reason)
        return dial.failure, dial.reason

    return ask


async def test_a_name_that_does_not_resolve_is_distinguished(why):
    def resolve(host):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    failure, reason = await why("tcp://hbu:7323", resolve)
    assert (failure, reason) == (DialFailure.UNRESOLVED, "the name 'hbu' does not resolve (Name or service not known)")


async def test_a_name_server_that_does_not_answer_is_distinguished(why):
    answer = threading.Event()
    failure, reason = await why("tcp://hub:7323", lambda host: answer.wait() and [], silent="name server")
    answer.set()
    assert (failure, reason) == (DialFailure.RESOLVE_TIMED_OUT, "no name server answered for 'hub' in 0.2 s")


async def test_a_port_on_which_nothing_listens_is_distinguished(why, free_port, tmp_path):
    assert await why(f"tcp://127.0.0.1:{free_port}") == (DialFailure.REFUSED, "connection refused")
    assert await why(f"ipc://{tmp_path}/none") == (DialFailure.REFUSED, "there is no such socket")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    assert await why(f"ipc://{tmp_path}/dead") == (DialFailure.REFUSED, "connection refused")


async def test_a_machine_that_does_not_answer_is_distinguished(why, free_port, black_hole):
    timed_out = (DialFailure.TIMED_OUT, "the connection timed out")
    again, hub = [black_hole, Address(socket.AF_INET, "127.0.0.3")], f"tcp://hub:{free_port}"
    assert await why(f"tcp://{black_hole.host}:{free_port}", silent="machine") == timed_out
    assert await why(hub, lambda host: again[:1] * 2, silent="machine") == timed_out
    assert (await why(hub, lambda host: again, silent="machine"))[0] is DialFailure.REFUSED, "the more telling one"


@pytest.mark.parametrize(
    ("error", "failure", "reason"),
    [
        (errno.ENETUNREACH, DialFailure.NO_ROUTE, "the network is unreachable"),
        (errno.EHOSTUNREACH, DialFailure.NO_ROUTE, "no route to the host"),
        (errno.ETIMEDOUT, DialFailure.TIMED_OUT, "the connection timed out"),
        (errno.EACCES, DialFailure.OTHER, "permission denied"),
        (errno.EMFILE, DialFailure.RESOURCES, "this machine has no more to give: too many open files"),
        (errno.ENFILE, DialFailure.RESOURCES, "this machine has no more to give: too many open files in system"),
        (errno.ENOBUFS, DialFailure.RESOURCES, "this machine has no more to give: no buffer space available"),
        (errno.ENOMEM, DialFailure.RESOURCES, "this machine has no more to give: cannot allocate memory"),
        (
            errno.EADDRNOTAVAIL,
            DialFailure.RESOURCES,
            "this machine has no more to give: cannot assign requested address",
        ),
        (errno.EXDEV, DialFailure.OTHER, "invalid cross-device link"),
    ],
)
@pytest.mark.parametrize("kind", [OSError, zmq.ZMQError])
def test_what_the_system_says_is_put_into_words(kind, error, failure, reason):
    raised = failed(kind(error, os.strerror(error)) if kind is OSError else kind(error))
    assert (raised.failure, raised.reason) == (failure, reason)


async def test_a_server_of_another_kind_is_distinguished(why, server):
    url = await server(sends_a_banner_and_waits)
    assert await why(url, silent="peer") == (DialFailure.NOT_ZEROMQ, "what answers there does not speak ZeroMQ")


async def test_a_connection_that_is_closed_during_the_handshake_is_distinguished(why, server):
    url = await server(closes_after_the_greeting)
    assert await why(url) == (DialFailure.CLOSED, "the connection was closed while it was being set up")


async def test_a_peer_that_is_there_sees_one_connection_for_each_link(listener, dialler, wire):
    line = await wire(listener.listen("tcp://127.0.0.1:*"))
    dialler.dial(line.url)
    await eventually(lambda: dialler.handler.links)
    assert line.connections == 1


async def test_whatever_goes_wrong_in_a_try_the_peer_is_dialled_again(listener, transports, free_port, caplog):
    failures = iter([OSError(errno.ENOBUFS, "No buffer space available"), zmq.ZMQError(errno.EMFILE), KeyError("bug")])

    class Odd(Resolver):
        async def addresses(self, host):
            if (failure := next(failures, None)) is not None:
                raise failure
            return [V4]

    dialler = transports()
    dialler.resolver = Odd()
    dialler.dial(f"tcp://hub:{free_port}")
    listener.listen(f"tcp://127.0.0.1:{free_port}")
    await eventually(lambda: dialler.handler.links)
    assert [reason for _, reason in dialler.handler.failures] == [
        "this machine has no more to give: no buffer space available",
        "this machine has no more to give: too many open files",
        "KeyError",
    ]
    assert [record.getMessage() for record in caplog.records] == [f"dialling tcp://hub:{free_port} failed"]


@pytest.mark.parametrize("url", ["tcp://*:7323", "tcp://hub:*", "tcp://hub:0", "tcp://0.0.0.0:*"])
async def test_what_stands_for_any_host_or_port_can_not_be_dialled(dialler, url):
    with pytest.raises(AddressError, match="one host and one port"):
        dialler.dial(url)


# --- servers of another kind ----------------------------------------------------------------------------------------

PAGE = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nno\n"
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00"


async def closes_at_once(reader, writer):
    pass


async def closes_after_the_greeting(reader, writer):
    await reader.read(10)


async def sends_a_page_and_closes(reader, writer):
    await reader.read(10)
    writer.write(PAGE)
    await writer.drain()


async def sends_a_page_and_waits(reader, writer):
    writer.write(PAGE)
    await reader.read()
    await asyncio.Event().wait()


async def sends_a_banner_and_waits(reader, writer):
    writer.write(b"SSH-2.0-Strange_1.0\r\n")
    await asyncio.Event().wait()


async def says_nothing(reader, writer):
    await asyncio.Event().wait()


async def wants_a_password(reader, writer):
    writer.write(GREETING + b"PLAIN".ljust(20, b"\0") + b"\1" + bytes(31))
    await asyncio.Event().wait()


async def greets_and_sends_garbage(reader, writer):
    writer.write(GREETING + b"NULL".ljust(20, b"\0") + bytes(32))
    await reader.read(64)
    writer.write(b"\xee" * 1000)
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "talk",
    [
        closes_at_once,
        closes_after_the_greeting,
        sends_a_page_and_closes,
        sends_a_page_and_waits,
        sends_a_banner_and_waits,
        says_nothing,
        wants_a_password,
        greets_and_sends_garbage,
    ],
)
async def test_a_server_of_another_kind_is_reported_and_dialled_until_there_is_a_node(
    dialler, listener, server, monkeypatch, talk
):
    monkeypatch.setattr("zmesh.transport.link_socket.HANDSHAKE_MS", 200)
    monkeypatch.setattr("zmesh.transport.dialler.REDIAL_LAST", 0.2)
    url = await server(talk)
    dialler.dial(url)
    await eventually(lambda: dialler.handler.failures, timeout=60)
    assert dialler.handler.failures[0][0] == url
    assert dialler.handler.failures[0][1] in (
        "what answers there does not speak ZeroMQ",
        "the connection was closed while it was being set up",
        "it takes no plaintext links; its URL needs ?key= and its key after it, as 'zmesh node' there prints it",
    )
    assert dialler.handler.links == []
    await server(None)
    listener.listen(url)
    await eventually(lambda: dialler.handler.links, timeout=60)


READY = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"ROUTER"


async def test_a_peer_that_breaks_the_protocol_later_is_dialled_again_as_well(dialler, listener, server, monkeypatch):
    monkeypatch.setattr("zmesh.transport.link_socket.HANDSHAKE_MS", 200)
    monkeypatch.setattr("zmesh.transport.dialler.REDIAL_LAST", 0.2)
    broken = asyncio.Event()

    async def breaks(reader, writer):
        writer.write(GREETING + b"NULL".ljust(20, b"\0") + bytes(32) + b"\x04" + bytes([len(READY)]) + READY)
        await reader.read(64)
        await broken.wait()
        writer.write(b"\x02" + (1 << 40).to_bytes(8, "big"))  # a frame that is far too large
        await asyncio.Event().wait()

    url = await server(breaks)
    dialler.dial(url)
    await eventually(lambda: dialler.handler.links, timeout=60)
    broken.set()
    await eventually(lambda: downs(dialler) >= 1, timeout=60)
    await server(None)
    listener.listen(url)

    def arrived():  # the first link may be one more to the server that is gone
        return any(dialler.send(link, FRAMES) for link in dialler.handler.links) and listener.handler.frames

    await eventually(arrived)


@pytest.mark.parametrize("kind", ["tcp", "ipc"])
async def test_what_a_listener_sent_before_it_closed_is_read_before_the_link_of_the_dialler_ends(
    transports, dialler, tmp_path, kind, monkeypatch
):
    """Such as goodbye. The monitor may report the end first, when the loop was busy meanwhile.

    They are fewer than the high-water mark: libzmq would not read on, and so not find the end of the connection.
    """
    monkeypatch.setattr("zmesh.transport.link_socket.BATCH", 16)
    peer = transports()
    url = {"tcp": "tcp://127.0.0.1:*", "ipc": f"ipc://{tmp_path}/s"}[kind]
    here, there = await joined(dialler, peer, url)
    (sock,) = dialler.links.values()
    dialler.loop.remove_reader(sock._fd)  # so that the monitor comes first
    for number in range(HIGH_WATER - 4):
        assert peer.send(there, (b"route", b"head", b"%d" % number))
    await peer.close()
    await eventually(lambda: not dialler.handler.links)
    read = [frames[2] for link, frames in dialler.handler.frames if link == here]
    assert read == [b"%d" % number for number in range(HIGH_WATER - 4)]
