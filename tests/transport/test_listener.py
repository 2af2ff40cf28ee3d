"""Who listens: what can be listened on, and links that others have dialled."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
import threading

import pytest

from tests.transport.transport_handler import FRAMES, joined
from zmesh.errors import AddressError
from zmesh.testing import eventually
from zmesh.transport.resolver import numeric


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "*", "0.0.0.0", "[::1]"])
@pytest.mark.parametrize("port", ["*", "0"])
async def test_any_free_port_is_reported_by_its_number(listener, host, port):
    if host == "[::1]" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    real = listener.listen(f"tcp://{host}:{port}")
    assert int(real.rpartition(":")[2]) > 0
    assert listener.listening == [real]


async def test_what_listens_on_every_address_is_reached_by_this_one(listener, dialler):
    port = listener.listen("tcp://*:*").rpartition(":")[2]
    dialler.dial(f"tcp://127.0.0.1:{port}")
    await eventually(lambda: dialler.handler.links)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_what_listens_on_every_address_is_reached_over_both_families(listener, dialler):
    real = listener.listen("tcp://*:*")
    port = real.rpartition(":")[2]
    assert real == f"tcp://[::]:{port}"
    for number, host in enumerate(["127.0.0.1", "[::1]"], 1):
        dialler.dial(f"tcp://{host}:{port}")
        await eventually(lambda number=number: len(dialler.handler.links) == number)


async def test_where_there_is_no_ipv6_every_address_is_those_of_ipv4(listener, dialler, monkeypatch):
    """As with `ipv6.disable=1`: the kernel makes no such socket."""
    make = socket.socket

    def without_ipv6(family=socket.AF_INET, *args, **kwargs):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return make(family, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", without_ipv6)
        real = listener.listen("tcp://*:*")
    assert real.startswith("tcp://0.0.0.0:")
    dialler.dial(real.replace("0.0.0.0", "127.0.0.1"))
    await eventually(lambda: dialler.handler.links)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_one_family_alone_can_be_listened_on(listener, dialler):
    port = listener.listen("tcp://[::1]:*").rpartition(":")[2]
    dialler.listen(f"tcp://127.0.0.1:{port}")
    assert dialler.listening == [f"tcp://127.0.0.1:{port}"]


async def test_a_name_is_listened_on_at_the_first_of_its_addresses_that_this_machine_has(transports, dialler):
    addresses = [numeric("2001:db8::1"), numeric("192.0.2.77"), numeric("127.0.0.3")]
    listener = transports(lambda host: addresses)
    real = listener.listen("tcp://hub:*")
    assert real.startswith("tcp://127.0.0.3:") or not has_ipv6()
    dialler.dial(real)
    await eventually(lambda: dialler.handler.links)


async def test_a_name_server_that_keeps_silent_holds_listening_up_no_longer_than_the_limit(transports, monkeypatch):
    monkeypatch.setattr("zmesh.transport.resolver.RESOLVE_WITHIN", 0.1)
    answer = threading.Event()
    listener = transports(lambda host: answer.wait() and [])
    with pytest.raises(AddressError, match=r"can't listen on tcp://hub:\*: no name server answered for 'hub' in 0.1 s"):
        listener.listen("tcp://hub:*")
    answer.set()


async def test_an_interface_can_be_listened_on_by_its_name(listener, dialler):
    """That of the loopback, whatever this system calls it."""
    name = socket.if_indextoname(1)
    real = listener.listen(f"tcp://{name}:*")
    assert real.startswith("tcp://127.0.0.1:")
    dialler.dial(real)
    await eventually(lambda: dialler.handler.links)


async def test_a_second_listener_on_a_port_learns_that_it_is_in_use(listener, dialler):
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
async def test_what_can_not_be_listened_on_is_reported_with_its_url(listener, url):
    with pytest.raises(AddressError) as raised:
        listener.listen(url)
    assert f"can't listen on {url}: " in str(raised.value)


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


# --- ipc ------------------------------------------------------------------------------------------------------------


async def test_an_ipc_socket_is_for_this_user_only_whatever_the_umask(listener, tmp_path):
    for umask in (0o777, 0o077, 0):
        before = os.umask(umask)
        try:
            listener.listen(f"ipc://{tmp_path}/socket-{umask}")
        finally:
            assert os.umask(before) == umask, "the umask is as it was"
        mode = os.stat(tmp_path / f"socket-{umask}").st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600


async def test_listening_on_an_ipc_socket_leaves_the_umask_of_the_process_alone(listener, tmp_path, monkeypatch):
    """It is that of all threads, which may be making files meanwhile."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
    listener.listen(f"ipc://{tmp_path}/socket")


async def test_nobody_can_connect_to_an_ipc_socket_before_its_mode_is_right(listener, tmp_path, monkeypatch):
    path, chmod, refused = str(tmp_path / "socket"), os.chmod, []

    def slow_chmod(*args):
        with socket.socket(socket.AF_UNIX) as early:
            refused.append(early.connect_ex(path))
        chmod(*args)

    monkeypatch.setattr(os, "chmod", slow_chmod)
    listener.listen(f"ipc://{path}")
    assert refused == [errno.ECONNREFUSED]


async def test_an_ipc_socket_that_can_not_be_made_leaves_no_file(listener, tmp_path, monkeypatch):
    def failing(*args):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patched, pytest.raises(AddressError, match="Operation not permitted"):
        patched.setattr(os, "chmod", failing)
        listener.listen(f"ipc://{tmp_path}/socket")
    assert list(tmp_path.iterdir()) == []
    listener.listen(f"ipc://{tmp_path}/socket")


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
        other.settimeout(90.0)
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


async def test_what_a_peer_said_before_it_closed_is_heard_before_its_end(listener, zmq_socket):
    """Such as goodbye. The monitor may tell of the end first, when the loop was busy meanwhile."""
    sock = zmq_socket("DEALER", listener.listen("tcp://127.0.0.1:*"))
    sock.send_multipart(FRAMES)
    await eventually(lambda: listener.handler.links)
    (port,) = listener._listeners.values()
    sock.linger = 1000
    sock.send_multipart(FRAMES)
    sock.close()
    assert port._monitor.poll(60_000)  # the loop is busy meanwhile
    port._drain_monitor()
    await eventually(lambda: not listener.handler.links)
    assert len(listener.handler.frames) == 2
