"""A process that has no descriptor left: nothing ends for good, and all is well when there are some again."""

import pytest

from tests.own_process import run_coroutine

SETTING = """
import asyncio, contextlib, errno, os, resource, socket, sys
from tests.own_process import no_descriptors
from tests.transport.transport_handler import FRAMES, RecordingHandler
from zmesh.testing import eventually
from zmesh.transport import DialState, DialFailure, Transport
from zmesh.errors import AddressError
import zmesh.transport.link_socket

import zmesh.transport.accepted

zmesh.transport.link_socket.HANDSHAKE_MS = 500
zmesh.transport.accepted.GREET_WITHIN = 1_000_000

def transport():
    ears = RecordingHandler()
    ears.transport = Transport(ears)
    return ears.transport

def free_port(keeper):  # as long as the keeper is open nobody else is given it
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    return keeper.getsockname()[1]

def arrived(dialler, listener):  # sent on each link there is, since the first one may be ended at once
    for link in dialler.handler.links:
        dialler.send(link, FRAMES)
    return listener.handler.frames
"""


def test_a_peer_is_dialled_again_after_there_was_no_descriptor_left():
    """At each step of a try: its first socket, that socket's own descriptor, its monitor, and the connection."""
    run_coroutine(
        SETTING,
        """
dialler, listener = transport(), transport()
listener.listen("tcp://127.0.0.1:*")
for spare in range(6):
    with socket.socket() as keeper:
        links = len(dialler.handler.links)
        url = f"tcp://127.0.0.1:{free_port(keeper)}"
        dialler.dial(url)
        await eventually(lambda: dialler.dials()[-1].failure is DialFailure.REFUSED)
        tries = len(dialler.handler.failures)
        with no_descriptors(spare):
            await eventually(lambda: len(dialler.handler.failures) >= tries + 2)
            if spare == 0:
                assert dialler.dials()[-1].failure is DialFailure.RESOURCES, dialler.dials()
        listener.listen(url)
        await eventually(lambda: len(dialler.handler.links) > links)
await dialler.close()
await listener.close()
""",
    )


def test_a_link_that_is_lost_while_there_is_no_descriptor_is_dialled_again():
    run_coroutine(
        SETTING,
        """
dialler, listener = transport(), transport()
dialler.dial(listener.listen("tcp://127.0.0.1:*"))
await eventually(lambda: dialler.handler.links)
def happened():  # a link that comes up may be ended at once, by the listener, to keep descriptors for others
    return len(dialler.handler.failures) + len(dialler.handler.events)
for spare in range(6):
    dialler.on_established(dialler.handler.links[0])
    with no_descriptors(spare):
        dialler.hang_up(dialler.handler.links.pop(), 0.0)
        before = happened()
        await eventually(lambda: happened() > before)
    await eventually(lambda: dialler.handler.links)
await eventually(lambda: arrived(dialler, listener))
await dialler.close()
await listener.close()
""",
    )


@pytest.mark.parametrize("kind", ["tcp", "ipc"])
def test_listening_without_a_descriptor_is_an_error_that_leaves_nothing(kind, tmp_path):
    """Left to libzmq, it would end the process."""
    url = "tcp://127.0.0.1:*" if kind == "tcp" else f"ipc://{tmp_path}/s"
    run_coroutine(
        SETTING,
        f"""
keeper = transport()
keeper.listen("tcp://127.0.0.1:*")
await asyncio.sleep(0)
failures = 0
for spare in range(9):
    listener, dialler = transport(), transport()
    before = len(os.listdir("/proc/self/fd"))
    with no_descriptors(spare):
        try:
            listener.listen({url!r})
        except AddressError as error:
            failures += 1
            assert "too many open files" in str(error).lower(), error
            assert listener.listening == []
    if not listener.listening:
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
        listener.listen({url!r})
    dialler.dial(listener.listening[-1])
    await eventually(lambda: dialler.handler.links)
    await dialler.close()
    await listener.close()
assert 2 <= failures < 9, failures
await keeper.close()
""",
    )


def test_a_listener_keeps_descriptors_for_others_by_ending_connections_that_have_not_greeted():
    """So that it never comes to libzmq trying in vain, without pause, to accept one more."""
    run_coroutine(
        SETTING,
        """
zmesh.transport.link_socket.HANDSHAKE_MS = 3_600_000  # libzmq ends none of them, however slowly they come
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
listener, dialler = transport(), transport()
host, port = listener.listen("tcp://127.0.0.1:*").removeprefix("tcp://").split(":")
code = (f"import resource, socket, sys;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2);"
        f"kept = [socket.create_connection(('127.0.0.1', {port})) for _ in range(600)];"
        "print('connected', flush=True); sys.stdin.read()")
child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=-1, stdout=-1)
assert await child.stdout.readline() == b"connected\\n"
await eventually(lambda: len(listener.handler.shut) >= 300)
assert set(listener.handler.shut) == {"too few descriptors left"}
def left():
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/fd")) < 256 - 32
await eventually(left)
dialler.dial(listener.listening[0])
await eventually(lambda: dialler.handler.links)
await eventually(lambda: arrived(dialler, listener))
child.stdin.close()
await child.wait()
await dialler.close()
await listener.close()
""",
    )
