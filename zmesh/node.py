"""A node: the engine, the sockets and the clock, put together.

Everything a node does runs in one task, `run`, and in the task group that it opens. What comes in is handed to the
engine, what the engine wants is done, in order and to the end, before anything else is: a stimulus that arises while
effects are being performed waits its turn. The node decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never
from weakref import WeakKeyDictionary

from zmesh.arguments import check_node, check_timeout
from zmesh.config import Config
from zmesh.core.effects import Abort, Deliver, Effect, HangUp, Pull, Report, StreamOver, Transmit
from zmesh.core.engine import Engine
from zmesh.core.limits import Limits
from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId, ReplyHeader, RequestHeader, Stream
from zmesh.errors import Cancelled, RemoteError, TimedOut, Unreachable
from zmesh.observe import Router, Telemetry
from zmesh.payloads import DISK_THREADS, Source, send_source
from zmesh.requests.admission import Admission
from zmesh.requests.exchange import Exchange, WithHandler
from zmesh.requests.reply_stream import ReplyStream
from zmesh.runtime import Tasks, ThreadPool, abandon, describe, log_exception, must_propagate, watchdogs
from zmesh.serving.builtins import PING, Builtins
from zmesh.serving.directives import Directives
from zmesh.serving.serving import Serving
from zmesh.transport import BlockedLoopKeepalive, Transport

if TYPE_CHECKING:
    from zmesh.observe import Event, Events, Journal, LinkStatus, Neighbour, Stats
    from zmesh.runtime import OrphanReaper

log = logging.getLogger(__name__)

PLUGINS_START_WITHIN = 30.0
"""Seconds that each plugin may take to start; the node listens when all have."""

HANDLERS_END_WITHIN = 1.0
"""Seconds that closing waits for handlers that are still at work, and for payloads that are being read."""


_nodes_in_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
"""How many nodes live in each loop."""


def hosts_node(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a node lives in this loop."""
    return _nodes_in_loop.get(loop, 0) > 0


class Node:
    """One member of the mesh. Use it through a Controller, or `run` in a task of yours.

    `limits`: what others may have it keep and spend; None: the usual ones, and room for what `config` admits.
    """

    def __init__(self, config: Config, directives: Directives | None = None, limits: Limits | None = None) -> None:
        self.config = config
        self.node_id = config.node_id
        self.spool_dir = config.spool_dir
        self.disk = ThreadPool(DISK_THREADS, "zmesh-disk")
        self.max_payload_bytes = config.max_payload_bytes
        if limits is None:
            limits = Limits.serving(config.max_work, config.max_payload_bytes)
        now = time.monotonic()
        self.engine = Engine(
            NodeId(Address(config.node_id)),
            int.from_bytes(os.urandom(8)) | 1,
            now=now,
            epoch=time.time() - now,
            serial=time.time_ns() // 1_000_000,
            heartbeat=config.heartbeat,
            route_timeout=config.route_timeout,
            leaf=config.ephemeral,
            limits=limits,
        )
        self.router = Router(self.engine)
        self.telemetry = Telemetry(config.node_id)
        self.directives = directives if directives is not None else Directives()
        self.serving = Serving(
            self,
            self.directives,
            config.plugins,
            max_workers=config.max_workers,
            max_work=config.max_work,
            max_payload_bytes=config.max_payload_bytes,
            spool_dir=config.spool_dir,
            max_processes=config.max_processes,
            isolation=config.isolation,
            limits=limits,
        )
        self.builtins = Builtins(self.router, self.serving)
        self.listening: list[str] = []
        self._listen = list(config.listen)
        self._peers = list(config.peers)
        self._exchanges: dict[MessageId, Exchange] = {}
        self._admission = Admission(config.node_id, self.engine, config.max_waiting_bytes)
        self._pending: deque[Effect] = deque()
        self._performing = False
        self._rooms: dict[Stream, asyncio.Future[None]] = {}
        self._feeding: dict[Stream, asyncio.Task[None]] = {}
        """The tasks that read a source for a stream."""
        self._tasks = Tasks()
        self._observers: list[Callable[[Report], None]] = []
        self._events: set[Events] = set()
        self._journal: Journal | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = 0
        self._transport: Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop: asyncio.Event | None = None
        self._drained: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = float("inf")
        self._catches_up = False
        self._guard: BlockedLoopKeepalive | None = None
        self._reaper: OrphanReaper | None = None
        self._aborted = False
        self._released = False
        """Whether nothing is left to be closed."""
        self.assigned_loop: asyncio.AbstractEventLoop | None = None
        """The loop that `run` runs in, or will as soon as that loop runs."""
        self.closed = False

    # -- life ----------------------------------------------------------------------------------------------------

    async def run(self, ready: asyncio.Future[None] | None = None) -> None:
        """Open the sockets, run until `stop`, close everything. `ready` is resolved once the node listens.

        Raises AddressError if an address can't be used.
        """
        self.loop = self.assigned_loop = asyncio.get_running_loop()
        _nodes_in_loop[self.loop] = _nodes_in_loop.get(self.loop, 0) + 1
        self.thread = threading.get_ident()
        self._task = asyncio.current_task()
        self._stop = asyncio.Event()
        if self._admission.shut:
            self._stop.set()
        try:
            await self._prepare_plugins()
            self._open()
            if ready is not None and not ready.done():
                ready.set_result(None)
            await self._stop.wait()
        except GeneratorExit:  # the loop ended before this task, which is collected as garbage and can't await
            self.close_now()
            raise
        finally:
            if not self._released:
                await self._close()
            with suppress(KeyError):  # the loop is being collected as garbage, and this coroutine with it
                _nodes_in_loop[self.loop] -= 1

    def stop(self) -> None:
        """Let `run` come to its end."""
        self._admission.shut = True
        self.directives.hurry()
        if self._stop is not None:
            self._stop.set()

    def abort(self, *, loop_ends: bool = False) -> None:
        """Let `run` come to its end at once: no handler is called, and nothing is waited for.

        Tasks that wait for replies get Cancelled, unless their loop ends too and is about to cancel them.
        """
        if not loop_ends:
            self._abandon_soon()
        self._exchanges.clear()
        self._aborted = True
        self.stop()

    def _abandon_soon(self) -> None:
        """End the requests that tasks wait for in the next turn of the loop: this may be amid anything."""
        for exchange in self._exchanges.values():
            if exchange.expected and not isinstance(exchange, WithHandler) and self.loop is not None:
                text = f"node {self.node_id!r} was closed before the final reply of {exchange.recipient!r} came"
                with suppress(RuntimeError):  # the loop is closed
                    self.loop.call_soon_threadsafe(exchange.abandon, Cancelled.code, text)

    async def _prepare_plugins(self) -> None:
        """Load, configure and start the plugins; what is sent meanwhile goes out afterwards."""
        if self.config.ephemeral:
            return  # nobody can see what a leaf offers, and looking costs a command its speed
        self.directives.discover()
        self.directives.configure(self.config.plugins, self.config.isolation, self.config.file)
        self._performing = True
        try:
            await self.directives.start(PLUGINS_START_WITHIN)
        finally:
            self._performing = False

    def _open(self) -> None:
        self._transport = Transport(self)
        self._open_journal()
        self._guard = BlockedLoopKeepalive(self.engine, self._transport, self._note)
        watchdogs.add(self._guard, self.config.heartbeat)
        self._tasks.start()
        for url in self._listen:
            self.listening.append(self._transport.listen(url))
        for url in self._peers:
            self._transport.dial(url)
        if not self.config.ephemeral:
            from zmesh.runtime import (
                OrphanReaper,  # here, because no command needs it, and it would cost its speed
            )

            self._reaper = OrphanReaper()
        self._perform(self.engine.describe(self.directives.capabilities(), time.monotonic()))

    async def _close(self) -> None:
        """Stop the work, end what is open, say goodbye, close the sockets; nothing is left."""
        if self._admission.is_foreign:  # a fork of this process unwinds; sockets, work and descriptors are the parent's
            return
        try:
            await self.serving.close()
            self._leave()
        except GeneratorExit:
            self.close_now()
            raise
        except Exception:
            # Ctrl-C can strike in the middle of the engine, and then its tables contradict each other.
            if not self._aborted:
                raise
            log.debug("node %s could not take its leave", self.node_id, exc_info=True)
        finally:
            if not self._released:
                await self._shut()

    def _leave(self) -> None:
        now = time.monotonic()
        for exchange in list(self._exchanges.values()):
            if exchange.expected:
                self._perform(self.engine.cancel(exchange.id, now))
            text = f"node {self.node_id!r} was closed before the final reply of {exchange.recipient!r} came"
            exchange.abandon(Cancelled.code, text)
        self._perform(self.engine.close(now))

    async def _shut(self) -> None:
        self.closed = True
        self._admission.shut = True
        self._wake_drain()
        for events in self._events:
            events.end()
        await self._tasks.wind_down(0.0 if self._aborted else HANDLERS_END_WITHIN)
        for waiter in self._rooms.values():
            if not waiter.done():
                waiter.set_result(None)
        self._rooms.clear()
        self._release()
        if self._transport is not None:
            await self._transport.close()
        self.disk.join(1.0)  # they are idle, unless a disk hangs
        if self._journal is not None:
            self._journal.close()
        self._released = True
        await self._tasks.join()

    def _release(self) -> None:
        """Give back what does not need the loop to be given back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._guard is not None:
            watchdogs.remove(self._guard, self.loop)
        if self._reaper is not None:
            self._reaper.close()
        self.disk.close()
        self.listening.clear()

    def close_now(self) -> bool:
        """Close the node at once, in any state and without its loop; True if it was open, which is logged then.

        For a program that ends without having closed it: the loop may be closed, or never run again. Work is cancelled
        and its clients learn of that, the neighbours get a goodbye, and sockets, threads and processes end. Nothing
        is awaited and no handler is called; a plugin's `close` does not run. To be called on the node's thread, or
        when no other runs its loop. Blocks for half a second at most, while ZeroMQ sends what is left, and for as long
        as the processes of isolated work take to be killed. Harmless when the node is closed, and in a forked child.
        """
        if self._released or not self.is_here:
            return False
        self._released = self.closed = self._admission.shut = True
        was_open = self._transport is not None
        ours = [exchange.id for exchange in self._exchanges.values() if exchange.expected]
        self._abandon_soon()
        self._exchanges.clear()  # so that nothing is delivered any more
        steps: list[Callable[[], object]] = [self.serving.close_now, partial(self._leave_now, ours), self._release]
        steps += [self._tasks.close_now, self._wake_drain, *(events.end for events in self._events)]
        if self._transport is not None:
            steps.append(self._transport.close_now)
        if self._journal is not None:
            steps.append(self._journal.close)
        for step in steps:
            try:
                step()
            except Exception:
                log.debug("node %s could not be closed properly", self.node_id, exc_info=True)
        if self._task is not None:
            abandon(self._task)
        if was_open:
            log.warning(
                "node %r was not closed before its program ended; use `async with Controller(...)`, `run` or `close`",
                self.node_id,
            )
        return was_open

    def _leave_now(self, ours: list[MessageId]) -> None:
        now = time.monotonic()
        for message_id in ours:
            self._perform(self.engine.cancel(message_id, now))
        self._perform(self.engine.close(now))

    def _open_journal(self) -> None:
        """Have an operator told what happens to this node; nobody operates a command, unless it is to say more."""
        if not self.config.ephemeral or logging.getLogger("zmesh.observe.journal").isEnabledFor(logging.INFO):
            from zmesh.observe import Journal  # which commands need not load

            assert self.loop is not None
            self._journal = Journal(self.node_id, self, self.loop)

    def listen(self, url: str) -> None:
        """Listen on one more address, now or when the node opens. Raises AddressError if it can't be used."""
        if self._transport is not None:
            self.listening.append(self._transport.listen(url))
        else:
            self._listen.append(url)

    def dial(self, url: str) -> None:
        """Keep a link to one more peer, now or when the node opens. Raises AddressError if the URL is malformed."""
        if self._transport is not None:
            self._transport.dial(url)
        else:
            self._peers.append(url)

    def watch(self, observer: Callable[[Report], None]) -> None:
        """Have each report of the engine (and of failed dialling, as `dial_failed`) given to `observer`."""
        self._observers.append(observer)

    def remote_address(self, link: LinkId) -> str:
        """The URL that a link was dialled at, or the address that it was accepted from; "" if the link is closed."""
        return self._transport.remote_address(link) if self._transport is not None else ""

    def watch_events(self, observer: Callable[[Event], None]) -> None:
        """Call `observer` with each event of this node."""
        from zmesh.observe import event_of

        def note(report: Report) -> None:
            if (event := event_of(report, self.router, self.remote_address)) is not None:
                observer(event)

        self.watch(note)

    def neighbour(self, link: LinkId) -> Neighbour:
        """The other end of a link: where it is, which end dialled, and the round-trip time."""
        from zmesh.observe import Neighbour

        dialled = self._transport is not None and self._transport.dialled_url(link) is not None
        return Neighbour(self.remote_address(link), dialled, self.engine.rtt(link))

    def links(self) -> list[LinkStatus]:
        """The links that are up, sorted by neighbour."""
        from zmesh.observe import LinkStatus

        return sorted(
            (
                LinkStatus(
                    link.node, link.id, self.remote_address(link.id), link.dialled, link.rtt, link.cost, link.leaf
                )
                for link in self.engine.links()
            ),
            key=lambda link: (link.node, link.link),
        )

    def stats(self) -> Stats:
        """Counts of this moment."""
        from zmesh.observe import Stats

        counts = self.engine.stats()
        return Stats(
            requests=len(self._exchanges),
            serving=len(self.serving),
            replying=counts["requests_received"],
            waiting_bytes=self.engine.waiting_bytes,
            waiting_streams=self.engine.waiting_streams,
            is_handing_over=self.engine.is_handing_over,
            counters=dict(self.telemetry.counts),
        )

    def last_heard_by(self, node: str) -> str | None:
        """The other node that heard last of one that has left, if that is known."""
        witness = self.engine.last_heard_by(NodeId(Address(node)))
        return witness if witness != self.node_id else None

    @property
    def is_here(self) -> bool:
        """Whether this is the node's process, and not a fork of it."""
        return not self._admission.is_foreign

    def check_process(self) -> None:
        """Raises Closed in a fork of the node's process."""
        self._admission.check_process()

    def check_open(self) -> None:
        """Raises Closed if the node is not open yet, not any more, or not in this process."""
        self.check_begun()
        if self._admission.shut:
            raise self._admission.closed()

    def check_begun(self) -> None:
        """Raises Closed if the node is not open yet, or not in this process."""
        self._admission.check_process()
        if self.assigned_loop is None:
            raise self._admission.unopened()

    def check_loop(self) -> None:
        """Raises RuntimeError in another loop than the node's, where nothing that is waited for would come."""
        running = asyncio._get_running_loop()
        if running is not None and running is not self.assigned_loop:
            raise RuntimeError(f"node {self.node_id!r} lives in another event loop than the one that runs here")

    def events(self) -> Events:
        """What happens to this node's links and to the nodes that it can reach, from now on.

        Waiting for an event raises Closed while this node is not open yet.
        """
        self._admission.check_process()
        from zmesh.observe import Events  # its nine classes take long to make, and no command needs them

        events = Events(self.router, self.remote_address, self._events.discard, self.check_begun)
        if self.closed:
            events.end()
        else:
            self._events.add(events)
        return events

    async def reachable(self, node: str, timeout: float | None = None) -> None:
        """Wait until there is a route to `node`; on an ephemeral node, until `node` answers a ping.

        Raises Unreachable after `timeout` seconds, with the nodes that can be reached, and Closed if this node is, or
        is not open yet.
        """
        check_node(node)
        check_timeout(timeout)
        self.check_open()
        self.check_loop()
        if self.config.ephemeral:
            await self._answer_of(node, timeout)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._route_to(node)
                return
        hint = self.engine.hint(Address(node), time.monotonic())
        raise Unreachable(f"no route to {node!r} after {timeout} s{hint}", node=node)

    async def _route_to(self, node: str) -> None:
        async with self.events() as events:
            while node not in self.engine.nodes():
                if await anext(events, None) is None:
                    raise self._admission.closed()

    async def _answer_of(self, node: str, timeout: float | None) -> None:
        def start(request: ReplyStream) -> None:
            self.send(request, PING, b"", timeout)

        request = ReplyStream(self, MessageId(os.urandom(16)), node, start)
        request.send()
        try:
            await request.only_payload()
        except TimedOut as error:
            raise Unreachable(str(error), node=node, message_id=error.message_id) from None

    def register(self, name: str, function: Callable[..., object], **options: Any) -> None:
        """Offer a directive of this program, and let the mesh know. `options` are those of Directives.register."""
        self.directives.register(name, function, **options)
        if self._transport is not None:
            self._perform(self.engine.describe(self.directives.capabilities(), time.monotonic()))

    # -- asking --------------------------------------------------------------------------------------------------

    def send(self, exchange: Exchange, directive: str, payload: bytes | Source, timeout: float | None) -> None:
        """Start an exchange. `timeout` in seconds. Raises Closed, and Overloaded if too much is waiting already."""
        self._admission.check()
        self._begin(exchange, directive, payload, timeout)

    def post(self, exchange: Exchange, directive: str, payload: bytes | Source, timeout: float | None) -> None:
        """What `send` does, from another thread than the node's. Raises the same."""
        size = self._admission.reserve(len(payload) if isinstance(payload, bytes) else 0)
        try:
            assert self.loop is not None
            self.loop.call_soon_threadsafe(self._take_posted, exchange, directive, payload, timeout, size)
        except RuntimeError:
            raise self._admission.closed() from None

    def _take_posted(
        self, exchange: Exchange, directive: str, payload: bytes | Source, timeout: float | None, size: int
    ) -> None:
        self._admission.release(size)
        if self._admission.shut:
            exchange.abandon(Cancelled.code, str(self._admission.closed()))
            if isinstance(payload, Source):
                payload.close()
        else:
            self._begin(exchange, directive, payload, timeout)

    def _begin(self, exchange: Exchange, directive: str, payload: bytes | Source, timeout: float | None) -> None:
        header = RequestHeader(directive, time.time(), timeout, exchange.detached)
        recipient, now = Address(exchange.recipient), time.monotonic()
        whole = isinstance(payload, bytes)
        body = payload if isinstance(payload, bytes) else b""
        effects = self.engine.send(
            exchange.id,
            recipient,
            header,
            body,
            now,
            last=whole,
            timeout=timeout,
            route_timeout=exchange.route_timeout,
        )
        self._exchanges[exchange.id] = exchange
        exchange.on_end = self.done
        self._perform(effects)
        if not isinstance(payload, bytes):
            feeding = self._feed_request(exchange, payload)
            self.spawn(feeding, f"zmesh payload {exchange.message_id}", Stream(exchange.id, True))

    async def _feed_request(self, exchange: Exchange, source: Source) -> None:
        try:
            await send_source(self, Stream(exchange.id, True), source)
        except BaseException as error:  # whatever the program's own file or iterator raises
            if must_propagate(error):
                raise
            text = f"the payload for {exchange.recipient!r} could not be read: {describe(error)}"
            exchange.fail(Cancelled.code, text)
            self.cancel(exchange.message_id)

    def is_lost(self, exchange: Exchange) -> bool:
        """Whether no way leads to the recipient of this request at the moment, as far as is known."""
        return self.engine.is_lost(exchange.id)

    def cancel(self, message_id: str) -> None:
        """Stop a request of this node. Harmless if it is over."""
        self._perform(self.engine.cancel(MessageId(bytes.fromhex(message_id)), time.monotonic()))

    def done(self, exchange: Exchange) -> None:
        """An exchange has had its final reply, or its handler is through with it."""
        if exchange.ended and not exchange.expected:
            self._exchanges.pop(exchange.id, None)
            self._wake_drain()

    async def drain(self) -> None:
        """Wait until all that was sent has been handed over and every expected reply has come."""
        while not self._is_drained():
            if self._drained is None or self._drained.done():
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def _wake_drain(self) -> None:
        if self._drained is not None and not self._drained.done() and self._is_drained():
            self._drained.set_result(None)

    def _is_drained(self) -> bool:
        if self.closed:
            return True
        return not self.engine.is_handing_over and not any(x.expected for x in self._exchanges.values())

    # -- what exchanges and serving need (their Desk) ------------------------------------------------------------

    def reply(
        self, id: MessageId, header: ReplyHeader | None, body: bytes, *, last: bool = True, eof: Eof | None = None
    ) -> None:
        """Answer a request."""
        self._perform(self.engine.reply(id, header, body, time.monotonic(), last=last, eof=eof))

    def feed(self, stream: Stream, body: bytes, *, last: bool) -> None:
        """More of the message under way on a stream."""
        self._perform(self.engine.feed(stream, body, time.monotonic(), last=last))

    def release_credit(self, stream: Stream, credit: int) -> None:
        """A delivered piece has been read."""
        self._perform(self.engine.release_credit(stream, credit, time.monotonic()))

    def room(self, stream: Stream) -> int:
        """How many bytes the stream takes now."""
        return self.engine.room(stream)

    def is_open(self, stream: Stream) -> bool:
        """Whether the stream may take more."""
        return not self.closed and self.engine.is_open(stream)

    async def room_for(self, stream: Stream) -> int:
        """Wait until the stream takes more; 0 if it is over."""
        while self.is_open(stream):
            room = self.engine.room(stream)
            if room:
                return room
            waiter = self._rooms.get(stream)
            if waiter is None:
                waiter = self._rooms[stream] = asyncio.get_running_loop().create_future()
            await asyncio.wait((waiter,))
        return 0

    def spawn(self, coroutine: Coroutine[object, object, None], name: str, feeds: Stream | None = None) -> None:
        """Run something in the node's task group; what feeds a stream is cancelled when that is over.

        Its failure is logged, and ends nothing else.
        """
        if feeds is None:
            self._tasks.spawn(coroutine, name)
        else:
            self._tasks.spawn(coroutine, name, partial(self._feed_by, feeds))

    def _feed_by(self, stream: Stream, task: asyncio.Task[None]) -> None:
        self._feeding[stream] = task
        task.add_done_callback(lambda _: self._feeding.pop(stream, None))

    # -- events of the transport (TransportHandler) --------------------------------------------------------------------

    def on_link_up(self, link: LinkId, *, dialled: bool, cost: int) -> None:
        """A connection is there."""
        where = self.remote_address(link)
        where = f"at {where}" if dialled else f"from {where}"
        self._perform(self.engine.link_up(link, time.monotonic(), dialled=dialled, cost=cost, where=where))

    def on_link_down(self, link: LinkId, reason: str) -> None:
        """A connection is gone."""
        self._perform(self.engine.link_down(link, time.monotonic(), reason))

    def on_link_suspect(self, link: LinkId) -> None:
        """A connection may be gone."""
        self._perform(self.engine.probe(link, time.monotonic()))

    def on_frames(self, link: LinkId, frames: list[bytes]) -> None:
        """A message has come."""
        self._perform(self.engine.receive(link, frames, time.monotonic()))

    def on_link_ready(self, link: LinkId) -> None:
        """A full link may take more: one frame is tried first, so that no more than that comes back."""
        transport = self._transport
        effects = self.engine.link_ready(link, time.monotonic(), most=1)
        while effects:
            self._perform(effects)
            if transport is None or transport.is_full(link):
                break
            effects = self.engine.link_ready(link, time.monotonic())

    def on_dial_failed(self, url: str, reason: str) -> None:
        """A peer does not answer; it is dialled again."""
        self._perform(self.engine.dial_failed(url, reason, time.monotonic()))
        self._note(Report("dial_failed", None, None, f"{url}: {reason}"))

    def on_frames_lost(self, link: LinkId | None, reason: str) -> None:
        """A message was thrown away, of a link that is gone or was hung up."""
        self._note(Report("frame_dropped", None, link, reason))

    def on_connection_shut(self, reason: str) -> None:
        """A connection was ended that no link had been made of."""
        self._note(Report("connection_shut", None, None, reason))

    # -- performing ----------------------------------------------------------------------------------------------

    def _perform(self, effects: list[Effect]) -> None:
        """Do what the engine wants, in order; effects of a stimulus that arises meanwhile come after.

        Frames that nothing waits ahead of go out at once even then, so that a reply is on its way before all that led
        to it has returned.
        """
        pending = self._pending
        if self._performing or self.loop is None:
            for effect in effects:
                if pending or self.loop is None or not isinstance(effect, Transmit):
                    pending.append(effect)
                else:
                    self._do(effect)
            return
        self._performing = True
        pending.extend(effects)
        try:
            while pending:
                self._do(pending.popleft())
        finally:
            self._performing = False
        if self._transport is not None and not self.closed:
            self._transport.settle()
        if self.engine.deadline < self._wake_at:
            self._arm()
        if self._drained is not None:
            self._wake_drain()

    def _do(self, effect: Effect) -> None:
        if isinstance(effect, Transmit):  # by far the most are these two, and a class pattern takes four times as long
            link, frames = effect
            if self._transport is not None and not self._transport.send(link, frames):
                self._pending.extend(self.engine.link_full(link, frames, time.monotonic()))
        elif isinstance(effect, Deliver):
            self._deliver(effect)
        else:
            self._do_rarely(effect)

    def _deliver(self, piece: Deliver) -> None:
        if type(piece.body) is not bytes:  # large frames come from ZeroMQ uncopied, as what only it knows
            piece = piece._replace(body=bytes(piece.body))
        try:
            if piece.stream.request:
                self.serving.piece(piece)
            else:
                exchange = self._exchanges.get(piece.stream.message_id)
                if exchange is not None:
                    exchange.piece(piece)
        except BaseException as error:
            if must_propagate(error):
                raise
            self._fail(piece, error)

    def _fail(self, piece: Deliver, error: BaseException) -> None:
        """End one exchange that could not be gone on with, and nothing else: other frames wait behind this one."""
        id, text = piece.stream.message_id, f"node {self.node_id!r} failed to take it in: {describe(error)}"
        log_exception(
            log, "%s failed to take in a frame of %s", self.node_id, id.hex(), error=error, level=logging.ERROR
        )
        if piece.stream.request:
            self.serving.finish(id.hex(), reason=RemoteError.code, error=text)
        elif (exchange := self._exchanges.get(id)) is not None:
            self.cancel(exchange.message_id)
            exchange.abandon(RemoteError.code, text)

    def _do_rarely(self, effect: Pull | StreamOver | Abort | HangUp | Report) -> None:
        match effect:
            case Pull(stream):
                waiter = self._rooms.pop(stream, None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
            case StreamOver(stream):
                waiter = self._rooms.pop(stream, None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
                self._stop_feeding(stream)
            case Abort(message_id, reason):
                self.serving.abort(message_id, reason)
                self._stop_feeding(Stream(message_id, False))
            case HangUp(link, _, pause):
                if self._transport is not None:
                    self._transport.hang_up(link, pause)
            case Report():
                self._note(effect)
            case _:
                assert_never(effect)

    def _stop_feeding(self, stream: Stream) -> None:
        feeding = self._feeding.pop(stream, None)
        if feeding is not None and self.loop is not None:
            self.loop.call_soon(feeding.cancel)  # after its first step, so that it has its source to close

    def _note(self, report: Report) -> None:
        self.telemetry.note(report)
        if self._journal is not None:
            self._journal.note(report)
        if report.event in ("link_up", "link_refused") and report.link is not None and self._transport is not None:
            self._note_dial(report, report.link, self._transport)
        elif report.event == "link_not_greeted":
            self.on_dial_failed(report.text.removeprefix("at "), report.detail)
        for observer in self._observers:
            try:
                observer(report)
            except BaseException as error:
                if must_propagate(error):
                    raise
                log_exception(log, "an observer of the events of %s raised", self.node_id, error=error)
        for events in self._events:
            events.note(report)

    def _note_dial(self, report: Report, link: LinkId, transport: Transport) -> None:
        """What has become of a link that this node may have dialled: errors tell, and the next pause depends on it."""
        url, now = transport.dialled_url(link), time.monotonic()
        if report.event == "link_up":
            transport.on_established(link)
        if url is not None and report.event == "link_up":
            self._perform(self.engine.dial_succeeded(url, now))
        elif url is not None:
            reason = report.detail.replace("they refuse:", "refused this node:").replace("we refuse:", "was refused:")
            self._perform(self.engine.dial_failed(url, reason, now))

    def _arm(self) -> None:
        """Have `tick` called when the engine is due next."""
        deadline = self.engine.deadline
        if self.closed or self.loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wake_at = deadline
        self._timer = self.loop.call_later(max(0.0, deadline - time.monotonic()), self._tick)

    def _tick(self) -> None:
        now, timer, self._timer = time.monotonic(), self._timer, None
        late = self.loop.time() - timer.when() if self.loop is not None and timer is not None else 0.0
        self._wake_at = float("inf")
        if late > self.config.heartbeat and not self._catches_up and self.loop is not None:
            # The loop was blocked. What has come meanwhile is read first, lest its lateness be taken for silence.
            self._catches_up = True
            self._timer = self.loop.call_later(0.0, self._tick)
            self._wake_at = now
            self._perform(self.engine.resume(late, now))
            return
        self._catches_up = False
        self._perform(self.engine.tick(now))
