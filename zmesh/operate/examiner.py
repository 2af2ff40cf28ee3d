"""Examines one node for faults: its state, machine and peers, and the statuses of its neighbours.

An examination takes up to some seconds, and asks up to MAX_NEIGHBOURS neighbours for their status. There is one at a
time, and requests within KEPT seconds get the last one, so that requests do not keep a node busy.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from zmesh.core.durations import span
from zmesh.core.message import MessageId
from zmesh.errors import MeshError, NodeOverloaded
from zmesh.operate import machine_checks
from zmesh.operate.diagnosis import Check, Diagnosis
from zmesh.operate.directives import DOCTOR, STATUS
from zmesh.operate.json_form import read_answer
from zmesh.operate.status import NodeStatus
from zmesh.requests import ReplyStream
from zmesh.runtime import ThreadPool
from zmesh.transport import DialError, DialFailure, curve_speed, parse_url, path_mtu
from zmesh.version import __version__

if TYPE_CHECKING:
    from zmesh.operate.host import Host
    from zmesh.serving import Work
    from zmesh.transport import DialStatus

KEPT = 5.0
"""Seconds for which the result of an examination answers further requests."""
MAX_NEIGHBOURS = 16
"""Neighbours that are asked for their status."""
ANSWER_WITHIN = 3.0
MACHINE_WITHIN = 10.0
"""Seconds for the checks of the machine: folders and measurements."""
MAX_WAITING = 256
"""Requests that wait for the result of one examination."""
SLOW_NAMES = 1.0
"""Seconds of a name lookup from which on it is reported as slow."""
_OWN = ("link_down", "clock_skew")
"""Warnings of the status that an examination finds in more detail."""


class Examiner:
    """The examinations of one node; `status` gives its state."""

    def __init__(self, host: Host, status: Callable[[], NodeStatus]) -> None:
        self._host = host
        self._status = status
        self._last: Diagnosis | None = None
        self._ended = 0.0
        self._waiting: list[asyncio.Future[object]] = []
        self._is_examining = False
        self._measuring: asyncio.Future[list[Check]] | None = None

    def answer(self, work: Work) -> asyncio.Future[object]:
        """The answer to a request for an examination, once there is one. Raises NodeOverloaded past MAX_WAITING."""
        later: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if self._last is not None and time.monotonic() - self._ended < KEPT:
            later.set_result(_answer(self._last))
            return later
        self._waiting = [each for each in self._waiting if not each.done()]
        if len(self._waiting) >= MAX_WAITING:
            text = f"{MAX_WAITING} requests wait for an examination of this node; try again in a while"
            raise NodeOverloaded(text, limit="examinations")
        self._waiting.append(later)
        if not self._is_examining:
            self._is_examining = True
            self._host.tasks.spawn(self._examine(), "zmesh doctor")
        return later

    async def _examine(self) -> None:
        answer: object = None
        try:
            self._last = await self.examine()
            self._ended = time.monotonic()
            answer = _answer(self._last)
        finally:
            self._is_examining = False
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                if not each.done():
                    each.set_result(answer)

    async def examine(self) -> Diagnosis:
        """Examine the node now."""
        status = self._status()
        machine, names, neighbours = await asyncio.gather(
            self._machine_within(status), self._names(), self._neighbours(status)
        )
        checks = [
            *self._identity(status),
            *self._clocks(neighbours),
            *machine_checks.warned(status, _OWN),
            *self._peers(status),
            *names,
            machine_checks.versions(status.node, __version__, {each.node: each.version for each, _ in neighbours}),
            *machine,
        ]
        mended = {check.code for check in checks if not check.ok}
        checks += [check for check in _well(status) if check.code not in mended]
        kept = [check for check in checks if not (check.ok and check.code in mended)]
        return Diagnosis(status.node, __version__, time.time(), tuple(kept))

    # -- the parts -----------------------------------------------------------------------------------------------

    async def _machine_within(self, status: NodeStatus) -> list[Check]:
        """As `_machine`; a thread that a disk keeps is not joined by another one."""
        if self._measuring is None or self._measuring.done():
            threads = ThreadPool(1, "zmesh-doctor")
            try:
                self._measuring = threads.submit(lambda: self._machine(status))
            finally:
                threads.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(MACHINE_WITHIN):
                return await asyncio.shield(self._measuring)
        return [_stuck(status.node)]

    def _machine(self, status: NodeStatus) -> list[Check]:
        """The slow checks, run in a thread: files are written, and encryption is measured."""
        config, identity = self._host.config, self._host.identity
        spool = os.path.abspath(config.spool_dir or tempfile.gettempdir())
        found = [machine_checks.folder("spool", "spool folder", spool, "set spool_dir to another folder")]
        aead = None
        if identity is not None:
            from zmesh.identity import sealing_speed  # here: few nodes are examined

            aead = sealing_speed()
            if identity.state is not None:
                place = str(identity.state.folder)
                found.append(machine_checks.folder("state", "state folder", place, "move it: ZMESH_STATE=DIR"))
                found += machine_checks.secrets(identity.state.folder)
        encrypted = aead is not None or any("key=" in url for url in config.peers)
        found.append(machine_checks.encryption(curve_speed() if encrypted else None, aead))
        sizes = {host: size for host in _hosts(status) if (size := path_mtu(host)) is not None}
        return [*found, machine_checks.descriptors(status.process), *machine_checks.mtu(sizes)]

    async def _names(self) -> list[Check]:
        """Whether the names of peers resolve, and how long that takes."""
        found, slowest = [], 0.0
        hosts = {target.host for url in self._host.config.peers if (target := parse_url(url)).host}
        transport = self._host.transport
        if transport is None:
            return []
        for host in sorted(hosts)[:MAX_NEIGHBOURS]:
            began = time.monotonic()
            try:
                await transport.resolver.addresses(host)
            except DialError as error:
                remedy = f"at {self._host.config.node_id}: getent hosts {host}; or give the peer by address"
                found.append(Check("dns", False, error.reason, remedy))
            slowest = max(slowest, time.monotonic() - began)
        if not found and slowest > SLOW_NAMES:
            text = f"a name took {slowest:.1f} s to resolve"
            found.append(Check("dns", False, text, "resolvectl status; or give peers by address"))
        text = f"the names of {len(hosts)} peers resolve" if len(hosts) > 1 else "the name of the peer resolves"
        return found or [Check("dns", True, text if hosts else "no name of a peer has to be resolved")]

    async def _neighbours(self, status: NodeStatus) -> list[tuple[NodeStatus, float]]:
        """The status of neighbours, and by how much (seconds) the clock of each is ahead of this one."""
        nodes = sorted({link.node for link in status.links if link.state == "up"})[:MAX_NEIGHBOURS]
        answers = await asyncio.gather(*map(self._ask, nodes))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, node: str) -> tuple[NodeStatus, float] | None:
        requests, began = self._host.requests, time.time()

        def start(exchange: ReplyStream) -> None:
            requests.send(exchange, STATUS, b"", ANSWER_WITHIN)

        request = ReplyStream(requests, MessageId(os.urandom(16)), node, start)
        try:
            request.send()
            answer = read_answer(NodeStatus, await request.only_payload(), node, STATUS)
        except MeshError:  # too old, busy, gone, or it does not allow that
            return None
        return answer, answer.time - (began + time.time()) / 2

    def _clocks(self, neighbours: list[tuple[NodeStatus, float]]) -> Iterator[Check]:
        yield from machine_checks.clocks(self._host.config.node_id, {each.node: skew for each, skew in neighbours})

    def _identity(self, status: NodeStatus) -> Iterator[Check]:
        identity = status.identity
        if identity is None:
            yield Check("identity", True, "none: links are plaintext, on this machine alone")
        elif identity.expires > 0:
            yield Check("identity", True, f"the certificate is valid for {span(identity.expires)}")

    def _peers(self, status: NodeStatus) -> Iterator[Check]:
        """How dialling each peer stands, and which neighbours that have dialled this node are gone."""
        transport = self._host.transport
        dials = transport.dials() if transport is not None else ()
        linked = 0
        for dial in dials:
            if dial.state == "linked":
                linked += 1
            elif dial.tries or time.monotonic() - dial.since > ANSWER_WITHIN:
                yield _unreached(dial, status.node)
        for link in status.links:
            if link.state == "down" and not link.dialled:
                text = f"no link with {link.node} for {span(link.since)}: {link.reason}"
                yield Check("links", False, text, f"start {link.node} again; it dials this node")
        if linked == len(dials):
            yield Check(
                "peers", True, f"linked with {machine_checks.some(linked, 'peer')}" if dials else "none is dialled"
            )


def _stuck(node: str) -> Check:
    text = f"its folders and ciphers could not be examined within {MACHINE_WITHIN:g} s: a disk stands still"
    return Check("state", False, text, f"at {node}: dmesg | tail; mount; or move the folders to another disk")


def _unreached(dial: DialStatus, node: str) -> Check:
    """The checks of a peer that can't be dialled."""
    url = dial.url.partition("?")[0]
    address = url.partition("://")[2]
    host, _, port = address.rpartition(":")
    reason = dial.reason or "no answer yet"
    text = f"can't reach {url} for {span(time.monotonic() - dial.since)}: {reason}"
    match dial.failure:
        case DialFailure.UNRESOLVED | DialFailure.RESOLVE_TIMED_OUT:
            remedy = f"at {node}: getent hosts {host}; or give the peer by address"
        case DialFailure.REFUSED:
            remedy = f"start the node there: zmesh node --listen {url}; a firewall may refuse port {port}, too"
        case DialFailure.TIMED_OUT | DialFailure.NO_ROUTE:
            remedy = f"at {node}: nc -vz {host} {port}; open port {port} in the firewalls on the path"
        case DialFailure.ENCRYPTED | DialFailure.PLAINTEXT | DialFailure.WRONG_KEY | DialFailure.NOT_ADMITTED:
            remedy = "take the URL that 'zmesh node' prints there, with its ?key=, then: zmesh reload"
        case DialFailure.RESOURCES:
            remedy = "LimitNOFILE=65536 in the unit, or: ulimit -n 65536"
        case _:
            remedy = f"at {node}: nc -vz {host} {port}; then: zmesh events {node} --since 1h"
    return Check("peers", False, text, remedy)


def _well(status: NodeStatus) -> Iterator[Check]:
    """The checks of things that no warning is about."""
    up = [link for link in status.links if link.state == "up"]
    rtts = [link.rtt for link in up if link.rtt is not None]
    rtt = f", {1000 * statistics.median(rtts):.1f} ms in the middle" if rtts else ""
    yield Check("links", True, f"{machine_checks.some(len(up), 'link')} up{rtt}")
    yield Check("duplicate_id", True, f"no id is used twice among {machine_checks.some(status.nodes, 'node')}")
    yield machine_checks.memory(status.process)
    yield Check("work", True, f"{status.work.running} of {status.work.max_running} requests run")
    yield Check("loop", True, f"the event loop is {1000 * status.loop.worst_lag:.0f} ms late at worst")


def _hosts(status: NodeStatus) -> set[str]:
    """The hosts at the other ends of links over a network."""
    found = set()
    for link in status.links:
        if link.state == "up" and link.where.startswith("tcp://"):
            found.add(link.where.removeprefix("tcp://").rpartition(":")[0].strip("[]"))
        elif link.state == "up" and "://" not in link.where and link.where:
            found.add(link.where)
    return found


def _answer(diagnosis: Diagnosis) -> dict[str, object]:
    return {"schema": f"{DOCTOR.replace(':', '.')}/1", **diagnosis.to_json(), "time": time.time()}
