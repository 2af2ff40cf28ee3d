"""The ZAP handler fails closed: nobody gets in while it is gone or stuck, or has no such domain."""

import asyncio
import os
import threading

import pytest
import zmq

from tests.transport.test_curve import SECRET
from tests.waiting import WITHIN
from zmesh.testing import eventually
from zmesh.transport import LinkSecurity
from zmesh.transport.zap import ENDPOINT, ZapHandler, shared


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr("zmesh.transport.link_socket.HANDSHAKE_MS", 300)
    monkeypatch.setattr("zmesh.transport.dialler.REDIAL_NOT_TRUSTED", 0.05)
    monkeypatch.setattr("zmesh.transport.dialler.REDIAL_LAST", 0.2)


@pytest.fixture
async def hub(transports):
    """A transport with an encrypted listener."""
    made = transports(security=LinkSecurity(SECRET))
    made.listen("tcp://127.0.0.1:*")
    return made


async def nobody_gets_in(hub, dialler, tries=3):
    """Dial it: each try fails, and nothing reaches the listener."""
    dialler.dial(hub.listening[0])
    await eventually(lambda: len(dialler.handler.failures) >= tries, timeout=60)
    assert dialler.handler.links == []
    assert hub.handler.links == []


async def gets_in(hub, dialler):
    await eventually(lambda: dialler.handler.links, timeout=60)
    dialler.send(dialler.handler.links[0], (b"hello", b"world"))
    dialler.settle()
    await eventually(lambda: hub.handler.frames, timeout=60)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "zmesh zap"]


async def test_nobody_gets_in_while_the_handler_is_gone(hub, dialler):
    assert shared._join()
    assert threads() == []
    await nobody_gets_in(hub, dialler)


async def test_another_listener_brings_a_handler_back_that_was_gone(hub, dialler, transports):
    shared._join()
    await nobody_gets_in(hub, dialler)
    transports(security=LinkSecurity(SECRET)).listen("tcp://127.0.0.1:*")
    await gets_in(hub, dialler)


async def test_nobody_gets_in_while_the_handler_is_killed_by_an_error(hub, dialler, monkeypatch):
    """The thread ends with the error, and its endpoint is free: which is what `absent` means to libzmq."""
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    monkeypatch.setattr(ZapHandler, "_answer", lambda self, request: 1 / 0)
    await nobody_gets_in(hub, dialler)
    await eventually(lambda: threads() == [])
    assert [hook.exc_type for hook in seen] == [ZeroDivisionError]


async def test_nobody_gets_in_while_the_handler_does_not_answer(hub, dialler, monkeypatch):
    monkeypatch.setattr(ZapHandler, "_answer", lambda self, request: None)
    await nobody_gets_in(hub, dialler)
    monkeypatch.undo()
    await gets_in(hub, dialler)


async def test_nobody_gets_in_before_a_slow_handler_has_answered(hub, dialler, monkeypatch):
    monkeypatch.setattr("zmesh.transport.link_socket.HANDSHAKE_MS", 30_000)
    answer, real, asked = threading.Event(), ZapHandler._answer, threading.Event()

    def slow(self, request):
        asked.set()
        assert answer.wait(60)
        return real(self, request)

    monkeypatch.setattr(ZapHandler, "_answer", slow)
    dialler.dial(hub.listening[0])
    await eventually(asked.is_set)
    await asyncio.sleep(0.2)
    assert dialler.handler.links == []
    answer.set()
    await gets_in(hub, dialler)


async def test_nobody_gets_into_a_domain_that_is_closed(hub, dialler):
    """As in the moment in which a node closes while another of its process stays."""
    kept = shared.open(hub.context)
    shared._domains = frozenset({kept})
    await nobody_gets_in(hub, dialler)
    assert {code for code, _ in hub.handler.strangers} <= {"no_handshake", "not_admitted"}
    shared.close(kept)


@pytest.mark.parametrize(
    "request_",
    [
        [],
        [b"route"],
        [b"route", b"", b"2.0", b"1", b"domain", b"127.0.0.1", b"", b"CURVE", bytes(32)],
        [b"route", b"", b"1.0", b"1", b"domain", b"127.0.0.1", b""],
    ],
)
def test_what_is_no_request_gets_no_reply(request_):
    assert ZapHandler()._answer(request_) is None


@pytest.mark.parametrize(
    ("domain", "mechanism", "credentials", "status"),
    [
        (b"ours", b"CURVE", [bytes(32)], b"200"),
        (b"another", b"CURVE", [bytes(32)], b"300"),
        (b"", b"CURVE", [bytes(32)], b"300"),
        (b"ours", b"NULL", [], b"300"),
        (b"ours", b"PLAIN", [b"user", b"password"], b"300"),
        (b"ours", b"CURVE", [bytes(31)], b"300"),
        (b"ours", b"CURVE", [], b"300"),
        (b"ours", b"CURVE", [bytes(32), b"more"], b"300"),
    ],
)
def test_a_key_of_curve_in_an_open_domain_is_admitted_and_nothing_else(domain, mechanism, credentials, status):
    handler = ZapHandler()
    handler._domains = frozenset({b"ours"})
    request = [b"route", b"", b"1.0", b"7", domain, b"127.0.0.1", b"id", mechanism, *credentials]
    reply = handler._answer(request)
    assert reply[:5] == [b"route", b"", b"1.0", b"7", status]
    assert reply[6] == (bytes(32).hex().encode() if status == b"200" else b"")
    assert len(reply) == 8


async def test_one_handler_serves_all_transports_of_a_process_and_ends_with_the_last(transports):
    assert threads() == []
    hubs = [transports(security=LinkSecurity(SECRET)) for _ in range(3)]
    for hub in hubs:
        hub.listen("tcp://127.0.0.1:*")
        hub.listen("tcp://127.0.0.1:*")
    assert len(threads()) == 1
    assert len({hub.zap_domain() for hub in hubs}) == 3
    for hub in hubs:
        dialler = transports()
        dialler.dial(hub.listening[1])
        await gets_in(hub, dialler)
    for hub in hubs[:2]:
        await hub.close()
    assert len(threads()) == 1
    hubs[2].close_now()
    assert threads() == []


async def test_a_transport_without_an_encrypted_listener_needs_no_handler(listener):
    listener.listen("tcp://127.0.0.1:*")
    assert threads() == []


async def test_a_blocked_loop_keeps_no_other_node_of_its_process_from_being_linked_to(transports):
    """The hub of another loop, in another thread, is linked to while this loop stands still."""
    here = transports(security=LinkSecurity(SECRET))
    here.listen("tcp://127.0.0.1:*")
    linked, ends, failed = threading.Event(), threading.Event(), []

    async def elsewhere():
        from tests.transport.transport_handler import RecordingHandler
        from zmesh.transport import Transport

        hub, leaf = RecordingHandler(), RecordingHandler()
        hub.transport, leaf.transport = Transport(hub, security=LinkSecurity(SECRET)), Transport(leaf)
        leaf.transport.dial(hub.transport.listen("tcp://127.0.0.1:*"))
        await gets_in(hub.transport, leaf.transport)
        linked.set()
        await eventually(ends.is_set)
        await leaf.transport.close()
        await hub.transport.close()

    def run():
        try:
            asyncio.run(elsewhere())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert linked.wait(60), failed  # this loop is blocked meanwhile
    ends.set()
    await asyncio.to_thread(thread.join)
    assert failed == []


async def test_the_handler_of_a_parent_is_not_the_childs(hub, transports):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if shared._thread is None and shared._domains == frozenset() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222
    dialler = transports()
    dialler.dial(hub.listening[0])
    await gets_in(hub, dialler)


async def test_an_endpoint_that_is_taken_leaves_nothing_behind(transports):
    transport = transports(security=LinkSecurity(SECRET))
    taken = transport.context.socket(zmq.ROUTER, socket_class=zmq.Socket)
    taken.bind(ENDPOINT)
    from zmesh.errors import AddressError

    with pytest.raises(AddressError, match="can't listen on tcp://127.0.0.1"):
        transport.listen("tcp://127.0.0.1:*")
    taken.close(0)
    assert threads() == []


async def test_a_handler_that_can_not_be_ended_keeps_its_context(transports, monkeypatch):
    """As when the interpreter ends, and its daemon threads stand still: ending the context would take for ever."""
    from zmesh.transport.context import shared as contexts

    monkeypatch.setattr("zmesh.transport.zap.STOP_WITHIN", 0.05)
    asked, goes_on, real = threading.Event(), threading.Event(), ZapHandler._answer

    def stuck(self, request):
        asked.set()
        assert goes_on.wait(WITHIN)
        return real(self, request)

    monkeypatch.setattr(ZapHandler, "_answer", stuck)
    hub, dialler = transports(security=LinkSecurity(SECRET)), transports()
    dialler.dial(hub.listen("tcp://127.0.0.1:*"))
    await eventually(asked.is_set)
    kept = len(contexts._kept)
    await dialler.close()
    async with asyncio.timeout(WITHIN):
        await hub.close()
    assert len(contexts._kept) == kept + 1
    goes_on.set()
    await eventually(lambda: threads() == [])
    contexts._kept.pop().term()
