"""Resolver to addresses, whatever name servers do; here a resolver of the tests stands in their place."""

import asyncio
import os
import socket
import subprocess
import sys
import threading

import pytest

from tests import own_process
from tests.waiting import WITHIN, until
from zmesh.testing import eventually
from zmesh.transport.dial_status import DialError, DialFailure
from zmesh.transport.resolver import Address, Resolver, interleaved, numeric

HUB4 = Address(socket.AF_INET, "192.0.2.7")
HUB6 = Address(socket.AF_INET6, "2001:db8::7")


class Server:
    """A resolver that answers with `addresses`, once `answer` is set."""

    def __init__(self, *addresses):
        self.addresses = list(addresses)
        self.answer = threading.Event()
        self.asked = []

    def __call__(self, host):
        self.asked.append(host)
        self.answer.wait()
        return self.addresses


@pytest.fixture
def silent():
    """A name server that says nothing, until the test has it answer or ends."""
    server = Server(HUB4)
    yield server
    server.answer.set()


@pytest.fixture
def impatient(monkeypatch):
    """Lookups have 0.05 s, until `impatient(within)` gives them more: those that are to be answered, say."""

    def limit(within):
        monkeypatch.setattr("zmesh.transport.resolver.RESOLVE_WITHIN", within)

    limit(0.05)
    return limit


def failure_of(raised):
    return raised.value.failure


async def test_the_addresses_of_a_name_come_with_the_families_taking_turns():
    server = Server(HUB6, Address(socket.AF_INET6, "2001:db8::8"), HUB4)
    server.answer.set()
    assert await Resolver(server).addresses("hub") == [HUB6, HUB4, server.addresses[1]]


@pytest.mark.parametrize(
    "host", ["192.0.2.7", "::1", "2001:db8::7", f"fe80::1%{socket.if_indextoname(1)}", "fe80::1%1"]
)
async def test_what_is_an_address_already_is_not_looked_up(host):
    server = Server()
    names = Resolver(server)
    (address,) = await names.addresses(host)
    assert names.addresses_now(host) == [address]
    assert (address.host, address.family) == (host, socket.AF_INET6 if ":" in host else socket.AF_INET)
    assert address.scope == (1 if "%" in host else 0)
    assert server.asked == []


@pytest.mark.parametrize("host", ["hub", "hub.example", "1.2.3", "::1::", "a" * 64, "", "h\0b"])
def test_a_name_is_no_address(host):
    assert numeric(host) is None


async def test_an_address_with_an_interface_that_is_not_there_is_reported():
    with pytest.raises(DialError, match="no interface for fe80::1%nowhere") as raised:
        await Resolver(Server()).addresses("fe80::1%nowhere")
    assert failure_of(raised) is DialFailure.UNRESOLVED


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "(Name or service not known)"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "(Temporary failure"),
        (UnicodeError("label empty or too long"), "(label empty or too long)"),
        (ValueError("embedded null character"), "(embedded null"),
        (OSError(24, "Too many open files"), "(Too many open files)"),
        (None, "(it has no address)"),
    ],
)
async def test_a_name_that_does_not_resolve_is_reported_with_the_reason(error, text):
    def resolve(host):
        if error is not None:
            raise error
        return []

    names = Resolver(resolve)
    for _ in range(2):
        with pytest.raises(DialError) as raised:
            await names.addresses("nowhere.invalid")
        assert failure_of(raised) is DialFailure.UNRESOLVED
        assert "the name 'nowhere.invalid' does not resolve" in str(raised.value)
        assert text in str(raised.value)
    assert names.under_way() == 0


async def test_a_name_server_that_keeps_silent_is_waited_for_no_longer_than_the_limit(silent, impatient):
    names = Resolver(silent)
    with pytest.raises(DialError, match=r"no name server answered for 'hub' in 0.05 s") as raised:
        await names.addresses("hub")
    assert failure_of(raised) is DialFailure.RESOLVE_TIMED_OUT
    with pytest.raises(DialError):
        await asyncio.to_thread(names.addresses_now, "hub")


async def test_lookups_that_hang_pile_up_no_threads(silent, impatient):
    names = Resolver(silent)
    for _ in range(5):
        results = await asyncio.gather(*(names.addresses("hub") for _ in range(10)), return_exceptions=True)
        assert {type(result) for result in results} == {DialError}
    await eventually(lambda: silent.asked)
    assert silent.asked == ["hub"]
    assert names.under_way() == 1
    assert [each.waiters for each in names._lookups.values()] == [[]], "who has given up is not kept"


async def test_only_so_many_names_are_looked_up_at_a_time(silent, impatient, monkeypatch):
    monkeypatch.setattr("zmesh.transport.resolver.MAX_LOOKUPS", 3)
    names = Resolver(silent)
    for number in range(3):
        with pytest.raises(DialError):
            await names.addresses(f"hub-{number}")
    with pytest.raises(DialError, match="3 other names are being looked up") as raised:
        await names.addresses("hub-3")
    assert failure_of(raised) is DialFailure.RESOURCES
    silent.answer.set()
    await eventually(lambda: names.under_way() == 0)
    impatient(WITHIN)
    assert await names.addresses("hub-3") == [HUB4]


async def test_an_answer_that_comes_too_late_is_there_for_who_asks_next_and_only_once(silent, impatient):
    names = Resolver(silent)
    with pytest.raises(DialError):
        await names.addresses("hub")
    silent.answer.set()
    await eventually(lambda: names.under_way() == 0)
    assert await names.addresses("hub") == [HUB4]
    assert silent.asked == ["hub"]
    silent.addresses = [HUB6]
    impatient(WITHIN)
    assert await names.addresses("hub") == [HUB6]
    assert silent.asked == ["hub", "hub"]


async def test_an_answer_that_nobody_has_taken_for_long_is_not_used(silent, impatient, monkeypatch):
    names = Resolver(silent)
    with pytest.raises(DialError):
        await names.addresses("hub")
    silent.answer.set()
    await eventually(lambda: names.under_way() == 0)
    monkeypatch.setattr("zmesh.transport.resolver.LATE_KEPT", -1.0)
    impatient(WITHIN)
    silent.addresses = [HUB6]
    assert await names.addresses("hub") == [HUB6]


async def test_a_caller_that_is_cancelled_leaves_the_others_their_answer(silent):
    names = Resolver(silent)
    leaves, stays = (asyncio.create_task(names.addresses("hub")) for _ in range(2))
    await eventually(lambda: silent.asked)
    leaves.cancel()
    silent.answer.set()
    assert await stays == [HUB4]
    assert leaves.cancelled()


async def test_a_thread_that_can_not_start_is_reported_and_the_next_try_works(monkeypatch):
    server = Server(HUB4)
    server.answer.set()
    names = Resolver(server)

    def start(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched, pytest.raises(DialError, match="no thread could be started") as raised:
        patched.setattr(threading.Thread, "start", start)
        await names.addresses("hub")
    assert failure_of(raised) is DialFailure.RESOURCES
    assert await names.addresses("hub") == [HUB4]


def test_a_forked_child_waits_for_no_lookup_of_its_parent(silent, impatient):
    names = Resolver(silent)
    with pytest.raises(DialError):
        names.addresses_now("hub")
    child = Resolver(silent)
    child._lookups, child._lock = names._lookups, names._lock
    child.forget()
    until(lambda: silent.asked == ["hub"])
    silent.answer.set()
    impatient(WITHIN)
    assert child.addresses_now("hub") == [HUB4]
    assert silent.asked == ["hub", "hub"]


def test_no_address_interleaves_with_none():
    assert interleaved([]) == []


ENDS = """
import asyncio, time
from zmesh.transport import LinkSecurity, Transport
from zmesh.transport.resolver import Resolver

class TransportHandler:
    def on_dial_failed(self, url, reason, code):
        raise AssertionError(reason)

async def main():
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    def resolve(host):
        loop.call_soon_threadsafe(asked.set)
        time.sleep(1_000_000)
    transport = Transport(TransportHandler(), Resolver(resolve), LinkSecurity(insecure=True))
    transport.dial("tcp://hub:7323")
    await asked.wait()
    await transport.close()
    print("closed", flush=True)

asyncio.run(main())
"""


def test_a_lookup_that_hangs_keeps_neither_the_node_from_closing_nor_the_program_from_ending():
    assert own_process.run(ENDS) == ("closed\n", "")


def test_the_names_of_the_process_are_forgotten_by_a_forked_child():
    code = (
        "import os, threading; from zmesh.transport.resolver import shared; shared._lookups['hub'] = None;"
        "shared._lock.acquire(); child = os.fork();"
        "(os._exit(bool(shared._lookups) + 2 * shared._lock.locked()) if not child else"
        " exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == os.EX_OK
