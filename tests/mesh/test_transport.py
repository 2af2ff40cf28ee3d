"""The transport alone: addresses, links that come and go, frames that pass, and sockets that are full."""

import asyncio
import contextlib
import os
import socket
import stat

import pytest

from zmesh.errors import AddressError
from zmesh.testing import eventually
from zmesh.transport import Transport, open_transports, parse_url

FRAMES = (b"route", b"head", b"body")


class Ears:
    """Keeps what a transport tells."""

    def __init__(self):
        self.events = []
        self.links = []
        self.frames = []
        self.failures = []
        self.ready = []
        self.transport = None

    def on_link_up(self, link, *, dialled, cost):
        self.events.append(("up", link, dialled, cost))
        self.links.append(link)

    def on_link_down(self, link, reason):
        self.events.append(("down", link, reason))
        self.links.remove(link)

    def on_link_ready(self, link):
        self.ready.append(link)

    def on_link_doubtful(self, link):
        self.transport.send(link, FRAMES)

    def on_frames(self, link, frames):
        self.frames.append((link, tuple(bytes(frame) for frame in frames)))

    def on_dial_failed(self, url, reason):
        self.failures.append((url, reason))


@pytest.fixture
async def transports():
    """Makes transports; their `handler` is an Ears."""
    made = []

    def make():
        ears = Ears()
        ears.transport = Transport(ears)
        made.append(ears.transport)
        return ears.transport

    yield make
    for transport in made:
        await transport.close()
    assert open_transports() == 0


@pytest.fixture
async def listener(transports):
    return transports()


@pytest.fixture
async def dialler(transports):
    return transports()


@pytest.fixture(params=["tcp", "ipc", "inproc"])
def url(request, tmp_path):
    """A URL that can be listened on, of each kind."""
    return {"tcp": "tcp://127.0.0.1:*", "ipc": f"ipc://{tmp_path}/s", "inproc": f"inproc://{tmp_path.name}"}[
        request.param
    ]


async def joined(dialler, listener, url):
    """A link between the two: its numbers at the dialler's and at the listener's end."""
    dialler.dial(listener.listen(url))
    await eventually(lambda: dialler.handler.links)
    assert dialler.send(dialler.handler.links[0], FRAMES)
    dialler.settle()
    await eventually(lambda: listener.handler.links and listener.handler.frames)
    return dialler.handler.links[0], listener.handler.links[0]


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "*", "0.0.0.0", "[::1]"])
@pytest.mark.parametrize("port", ["*", "0"])
async def test_any_free_port_is_told_by_its_number(listener, host, port):
    if host == "[::1]" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    real = listener.listen(f"tcp://{host}:{port}")
    assert int(real.rpartition(":")[2]) > 0
    assert listener.listening == [real]


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_what_listens_on_every_address_is_reached_by_this_one(listener, dialler):
    port = listener.listen("tcp://*:*").rpartition(":")[2]
    dialler.dial(f"tcp://127.0.0.1:{port}")
    await eventually(lambda: dialler.handler.links)


async def test_rnp_is_tcp_without_encryption(listener, dialler):
    real = listener.listen("rnp://127.0.0.1:0")
    assert real.startswith("tcp://127.0.0.1:")
    dialler.dial(real.replace("tcp://", "rnp://"))
    await eventually(lambda: dialler.handler.links)


async def test_two_listeners_on_one_port_are_told_that_it_is_in_use(listener, dialler):
    real = listener.listen("tcp://127.0.0.1:*")
    with pytest.raises(AddressError, match=rf"can't listen on {real}: it is in use; another port, or \*"):
        dialler.listen(real)
    with pytest.raises(AddressError, match="in use"):
        listener.listen(real)
    assert listener.listening == [real]


async def test_a_port_that_another_program_has_is_in_use(listener):
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(AddressError, match="in use"):
        listener.listen(f"tcp://127.0.0.1:{server.getsockname()[1]}")


async def test_an_address_of_another_machine_can_not_be_listened_on(listener):
    with pytest.raises(AddressError, match="this machine has no such address"):
        listener.listen("tcp://192.0.2.1:*")


@pytest.mark.parametrize("url", ["tcp://nowhere.invalid:*", "ipc:///nowhere/at/all/socket"])
async def test_what_can_not_be_listened_on_is_told_with_its_url(listener, url):
    with pytest.raises(AddressError) as raised:
        listener.listen(url)
    assert f"can't listen on {url}: " in str(raised.value)


BAD = [
    ("", "must begin with tcp://, ipc://, inproc:// or rnp://"),
    ("127.0.0.1:7323", "must begin with"),
    ("http://127.0.0.1:7323", "must begin with"),
    ("udp://127.0.0.1:7323", "must begin with"),
    ("TCP//127.0.0.1:7323", "must begin with"),
    ("tcp://", "has nothing after tcp://"),
    ("ipc://", "has nothing after ipc://"),
    ("tcp://127.0.0.1", "must look like tcp://host:port"),
    ("tcp://:7323", "must look like tcp://host:port"),
    ("tcp://127.0.0.1:", "must look like tcp://host:port"),
    ("tcp://127.0.0.1:http", "must look like tcp://host:port"),
    ("tcp://127.0.0.1:65536", "from 0 to 65535"),
    ("tcp://127.0.0.1:-1", "from 0 to 65535"),
    ("tcp://127.0.0.1:7323?price=3", "only cost=N"),
    ("tcp://127.0.0.1:7323?cost=0", "only cost=N"),
    ("tcp://127.0.0.1:7323?cost=cheap", "only cost=N"),
    ("tcp://127.0.0.1:7323?cost=100001", "only cost=N"),
    (f"ipc:///{'x' * 106}", "may have 106 bytes, and this one has 107"),
]


@pytest.mark.parametrize(("url", "text"), BAD)
async def test_a_bad_url_is_refused_with_what_is_wrong_and_how_it_should_look(transports, url, text):
    transport = transports()
    for use in (parse_url, transport.listen, transport.dial):
        with pytest.raises(AddressError) as raised:
            use(url)
        assert text in str(raised.value)
        assert repr(url) in str(raised.value)


async def test_rnps_is_refused_as_long_as_there_are_no_keys(transports):
    transport = transports()
    for use in (transport.listen, transport.dial):
        with pytest.raises(AddressError, match="'rnps://hub:7323' asks for encryption, and this node has no key"):
            use("rnps://hub:7323")


@pytest.mark.parametrize("url", ["tcp://hub:1?cost=1", "tcp://hub:1?cost=100000", "rnp://hub:1?cost=17"])
def test_a_url_may_tell_the_cost_of_its_links(url):
    assert parse_url(url).cost == int(url.partition("=")[2])
    assert "?" not in parse_url(url).endpoint


async def test_the_cost_of_a_link_is_told_at_both_ends(listener, dialler):
    real = listener.listen("tcp://127.0.0.1:*?cost=7")
    dialler.dial(f"{real}?cost=9")
    await eventually(lambda: dialler.handler.links)
    dialler.send(dialler.handler.links[0], FRAMES)
    await eventually(lambda: listener.handler.links)
    assert dialler.handler.events[0][2:4] == (True, 9)
    assert listener.handler.events[0][2:4] == (False, 7)


# --- ipc ------------------------------------------------------------------------------------------------------------


async def test_an_ipc_socket_is_for_this_user_only_whatever_the_umask(listener, tmp_path):
    before = os.umask(0)
    try:
        listener.listen(f"ipc://{tmp_path}/socket")
    finally:
        assert os.umask(before) == 0, "the umask is as it was"
    mode = os.stat(tmp_path / "socket").st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_a_live_ipc_socket_is_not_taken_away_from_its_node(listener, dialler, transports, tmp_path):
    url = f"ipc://{tmp_path}/socket"
    listener.listen(url)
    with pytest.raises(AddressError, match="in use"):
        transports().listen(url)
    dialler.dial(url)
    await eventually(lambda: dialler.handler.links)
    dialler.send(dialler.handler.links[0], FRAMES)
    await eventually(lambda: listener.handler.frames)


async def test_a_live_socket_of_another_program_is_not_taken_away_either(listener, tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "socket"))
        other.listen()
        with pytest.raises(AddressError, match="in use"):
            listener.listen(f"ipc://{tmp_path}/socket")
        other.settimeout(5.0)
        accepted, _ = other.accept()  # the one who asked whether somebody is there
        accepted.close()


async def test_a_live_socket_that_is_too_busy_to_answer_is_not_taken_away_either(listener, tmp_path):
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as waiting:
        busy.bind(str(tmp_path / "socket"))
        busy.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                caller = waiting.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(tmp_path / "socket"))
        with pytest.raises(AddressError, match="in use"):
            listener.listen(f"ipc://{tmp_path}/socket")


async def test_an_ipc_socket_that_nobody_listens_on_any_more_is_replaced(listener, dialler, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "socket"))
    url = f"ipc://{tmp_path}/socket"
    listener.listen(url)
    dialler.dial(url)
    await eventually(lambda: dialler.handler.links)


async def test_a_file_is_not_replaced_by_an_ipc_socket(listener, tmp_path):
    (tmp_path / "precious").write_text("keep me")
    with pytest.raises(AddressError):
        listener.listen(f"ipc://{tmp_path}/precious")
    assert (tmp_path / "precious").read_text() == "keep me"


async def test_an_ipc_socket_is_gone_when_its_transport_is_closed(listener, tmp_path):
    listener.listen(f"ipc://{tmp_path}/socket")
    await listener.close()
    assert not (tmp_path / "socket").exists()


# --- links ----------------------------------------------------------------------------------------------------------


async def test_a_link_is_told_at_both_ends_and_frames_pass_both_ways(listener, dialler, url):
    here, there = await joined(dialler, listener, url)
    assert listener.handler.frames == [(there, FRAMES)]
    assert listener.send(there, (b"r", b"", b""))
    listener.settle()
    await eventually(lambda: dialler.handler.frames)
    assert dialler.handler.frames == [(here, (b"r", b"", b""))]
    assert dialler.handler.events[0][:3] == ("up", here, True)
    assert listener.handler.events[0][:3] == ("up", there, False)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 16 * 1024 - 1, 16 * 1024, 64 * 1024, 256 * 1024])
async def test_frames_of_any_size_pass_unchanged(listener, dialler, url, size):
    here, there = await joined(dialler, listener, url)
    frames = (b"route", bytes(size), os.urandom(size))
    dialler.send(here, frames)
    dialler.settle()
    await eventually(lambda: len(listener.handler.frames) == 2)
    assert listener.handler.frames[1] == (there, frames)


async def test_frames_come_in_the_order_in_which_they_were_sent_and_none_is_lost(listener, dialler, url):
    here, _ = await joined(dialler, listener, url)
    sent = 0
    while sent < 20_000:
        if dialler.send(here, (b"%d" % sent, b"", bytes(sent % 300))):
            sent += 1
        else:
            dialler.settle()
            await eventually(lambda: not dialler.is_full(here), timeout=2.0)
    dialler.settle()
    await eventually(lambda: len(listener.handler.frames) == 20_001)
    assert [int(frames[0]) for _, frames in listener.handler.frames[1:]] == list(range(20_000))


async def test_a_link_that_is_full_says_so_and_says_when_it_has_room_again(listener, dialler, wire, tmp_path):
    slow = await wire(listener.listen("tcp://127.0.0.1:*"))
    dialler.dial(slow.url)
    await eventually(lambda: dialler.handler.links)
    (here,) = dialler.handler.links
    slow.freeze()
    sent = 0
    body = bytes(64 * 1024)
    while dialler.send(here, (b"%d" % sent, b"", body)):
        sent += 1
        dialler.settle()
        await asyncio.sleep(0)
        assert sent < 5_000
    assert dialler.is_full(here)
    assert not dialler.send(here, FRAMES), "as long as it is full"
    assert dialler.handler.ready == []
    slow.thaw()
    await eventually(lambda: dialler.handler.ready)
    assert not dialler.is_full(here)
    await eventually(lambda: len(listener.handler.frames) == sent)


async def test_a_full_link_of_a_listener_holds_up_no_other_one(listener, dialler, transports, wire):
    slow = await wire(listener.listen("tcp://127.0.0.1:*"))
    dialler.dial(slow.url)
    quick = transports()
    quick.dial(listener.listening[0])
    for each in (dialler, quick):
        await eventually(lambda each=each: each.handler.links)
        each.send(each.handler.links[0], FRAMES)
    await eventually(lambda: len(listener.handler.links) == 2)
    slow.freeze()
    full, free = listener.handler.links
    for _ in range(1_000):
        if not listener.send(full, (b"", b"", bytes(64 * 1024))):
            break
        listener.settle()
        await asyncio.sleep(0)
    if not listener.is_full(full):
        full, free = free, full
        while listener.send(full, (b"", b"", bytes(64 * 1024))):
            listener.settle()
            await asyncio.sleep(0)
    assert listener.send(free, FRAMES)
    listener.settle()
    slow.thaw()
    await eventually(lambda: listener.handler.ready == [full])


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


def downs(transport):
    return sum(event[0] == "down" for event in transport.handler.events)


async def test_frames_for_a_link_that_is_gone_go_nowhere(listener, dialler):
    here, there = await joined(dialler, listener, "tcp://127.0.0.1:*")
    await dialler.close()
    await eventually(lambda: listener.handler.links == [])
    assert listener.send(there, FRAMES)
    assert dialler.send(here, FRAMES)
    assert not listener.is_full(there)


async def test_a_link_that_is_hung_up_is_closed_and_dialled_again_after_the_pause(listener, dialler, url):
    here, _ = await joined(dialler, listener, url)
    started = asyncio.get_running_loop().time()
    dialler.hang_up(here, 0.2)
    dialler.handler.links.remove(here)
    await eventually(lambda: dialler.handler.links)
    assert asyncio.get_running_loop().time() - started >= 0.2
    assert dialler.handler.links != [here]


async def test_a_listener_that_hangs_up_hears_no_more_of_the_link(listener, dialler):
    here, there = await joined(dialler, listener, "tcp://127.0.0.1:*")
    listener.hang_up(there, 0.0)
    for _ in range(5):
        dialler.send(here, FRAMES)
    dialler.dial(listener.listening[0])  # another link, by which we see that those have been read
    await eventually(lambda: len(dialler.handler.links) == 2)
    dialler.send(dialler.handler.links[1], FRAMES)
    await eventually(lambda: len(listener.handler.events) == 2)
    assert len(listener.handler.frames) == 2


@pytest.mark.parametrize("parts", [[b""], [b"a"], [b"a", b"b"], [b"a", b"b", b"c", b"d"], [b"x"] * 100])
async def test_messages_of_another_shape_are_handed_over_in_few_parts(listener, parts, zmq_socket):
    """How many parts there should be is the engine's business; but nobody can fill our memory with them."""
    sock = zmq_socket("DEALER", listener.listen("tcp://127.0.0.1:*"))
    sock.send_multipart(parts)
    await eventually(lambda: listener.handler.frames)
    assert listener.handler.frames[0][1] == tuple(parts[: len(listener.handler.frames[0][1])])
    assert len(listener.handler.frames[0][1]) == min(len(parts), 5) or len(listener.handler.frames[0][1]) == 4


# --- dialling -------------------------------------------------------------------------------------------------------


async def test_a_peer_that_is_not_there_is_dialled_until_it_is(dialler, listener, free_port):
    url = f"tcp://127.0.0.1:{free_port}"
    dialler.dial(url)
    await eventually(lambda: len(dialler.handler.failures) >= 3)
    assert set(dialler.handler.failures) == {(url, "nothing answers there")}
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
async def test_a_server_of_another_kind_is_told_and_dialled_until_there_is_a_node(
    dialler, listener, server, monkeypatch, talk
):
    for name in ("port.HANDSHAKE_MS", "dialler.CONNECT_MS", "dialler.REDIAL_LAST_MS"):
        monkeypatch.setattr(f"zmesh.transport.{name}", 200)
    url = await server(talk)
    dialler.dial(url)
    await eventually(lambda: dialler.handler.failures, timeout=3.0)
    assert dialler.handler.failures[0][0] == url
    assert dialler.handler.failures[0][1] in (
        "what answers there does not speak ZeroMQ",
        "the connection was closed while it was being set up",
    )
    assert dialler.handler.links == []
    await server(None)
    listener.listen(url)
    await eventually(lambda: dialler.handler.links, timeout=5.0)


READY = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"ROUTER"


async def test_a_peer_that_breaks_the_protocol_later_is_dialled_again_as_well(dialler, listener, server, monkeypatch):
    for name in ("port.HANDSHAKE_MS", "dialler.CONNECT_MS", "dialler.REDIAL_LAST_MS"):
        monkeypatch.setattr(f"zmesh.transport.{name}", 200)
    broken = asyncio.Event()

    async def breaks(reader, writer):
        writer.write(GREETING + b"NULL".ljust(20, b"\0") + bytes(32) + b"\x04" + bytes([len(READY)]) + READY)
        await reader.read(64)
        await broken.wait()
        writer.write(b"\x02" + (1 << 40).to_bytes(8, "big"))  # a frame that is far too large
        await asyncio.Event().wait()

    url = await server(breaks)
    dialler.dial(url)
    await eventually(lambda: dialler.handler.links, timeout=3.0)
    broken.set()
    await eventually(lambda: downs(dialler) >= 1, timeout=3.0)
    await server(None)
    listener.listen(url)
    await eventually(lambda: dialler.handler.links, timeout=5.0)
    dialler.send(dialler.handler.links[0], FRAMES)
    await eventually(lambda: listener.handler.frames)


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


async def test_the_context_is_there_as_long_as_any_transport_is(transports):
    first, second = transports(), transports()
    assert open_transports() == 2
    assert first.context is second.context
    await first.close()
    assert open_transports() == 1
    second.listen("tcp://127.0.0.1:*")
    await second.close()
    assert open_transports() == 0
    assert transports().context is not first.context


async def test_closing_does_not_wait_for_a_peer_that_takes_nothing(listener, dialler, wire):
    line = await wire(listener.listen("tcp://127.0.0.1:*"))
    dialler.dial(line.url)
    await eventually(lambda: dialler.handler.links)
    line.freeze()
    while dialler.send(dialler.handler.links[0], (b"", b"", bytes(64 * 1024))):
        dialler.settle()
        await asyncio.sleep(0)
    started = asyncio.get_running_loop().time()
    await dialler.close()
    await listener.close()
    assert asyncio.get_running_loop().time() - started < 3.0


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
async def test_an_address_is_free_again_when_its_transport_is_closed(transports, tmp_path, free_port, scheme):
    """Also while other transports of the process are open, which keep the context."""
    transports()
    url = f"tcp://127.0.0.1:{free_port}" if scheme == "tcp" else f"ipc://{tmp_path}/socket"
    taken = 0
    for _ in range(300):
        again = transports()
        try:
            again.listen(url)
        except AddressError:
            taken += 1
        await again.close()
    assert taken == 0
