"""The way in for programs: send directives into the mesh and take the replies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from zmesh.answers import CANCEL, PING, read_message_id, stamp
from zmesh.config import Config
from zmesh.core.limits import Limits
from zmesh.core.message import Message, MessageId
from zmesh.core.wire import MAX_DIRECTIVE, is_address
from zmesh.directives import Directives
from zmesh.errors import ConfigError, MeshError, RemoteError
from zmesh.exchange import Exchange, Handled, Received, ResponseHandler, Unheard
from zmesh.failures import is_a, text_of
from zmesh.fanout import LIMIT, Answer, Answers, Asked, Fanout, repeatable
from zmesh.interrupts import heard
from zmesh.node import Node
from zmesh.payload import PayloadLike, encode
from zmesh.request import Request
from zmesh.source import Source
from zmesh.transport import parse_url

log = logging.getLogger(__name__)

MAX_INBOX = 10_000
PING_TIMEOUT = 5.0
CANCEL_TIMEOUT = 10.0
MAX_ROUTE_TIMEOUT = 1e9

Main = Callable[[], Coroutine[Any, Any, Any]] | Coroutine[Any, Any, Any]


class _Ids:
    """Message ids from the system's source of randomness, a page at a time: one by one, each costs a system call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._page = b""
        self._at = 0
        os.register_at_fork(after_in_child=self._turn)

    def take(self) -> MessageId:
        with self._lock:
            if self._at == len(self._page):
                self._turn()
            at, self._at = self._at, self._at + 16
            return MessageId(self._page[at : at + 16])

    def _turn(self) -> None:
        self._page, self._at = os.urandom(4096), 0


_ids = _Ids()


class Sent:
    """What `send` and `ping` give back: await it for the message id, or leave it; the message is under way."""

    __slots__ = ("message_id",)

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id

    def __await__(self) -> Generator[None, None, str]:
        yield from ()
        return self.message_id

    def __repr__(self) -> str:
        return f"Sent({self.message_id!r})"


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to one ping: `rtt` in seconds, `hops` in links, the work that runs there."""

    node: str
    rtt: float
    hops: int
    active_work: list[dict[str, Any]]


class Controller:
    """A node inside a program.

    `Controller(config)` is used with `run(main)` or `async with`. With `loop`, the node lives in that loop as soon as
    it runs, and `run` may be left out. All methods may be called from the loop's thread; `send` and `ping` from any.
    `limits` are what others may have the node keep and spend.
    """

    def __init__(
        self,
        config: Config | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits | None = None,
    ) -> None:
        self.config = config if config is not None else Config()
        self.node = Node(self.config, Directives(), limits)
        self._loop = loop
        self._own_loop = False
        self._life: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._told = False
        """Whether the program knows already what has ended the node before its time."""
        self._inbox: deque[Message] = deque()
        self._inbox_waiter: asyncio.Future[None] | None = None
        if loop is not None:
            self._begin(loop)

    # -- set-up --------------------------------------------------------------------------------------------------

    @property
    def receptor(self) -> Node:
        """The node, by the name that programs for the Receptor know it by."""
        return self.node

    @property
    def node_id(self) -> str:
        """This node's id."""
        return self.node.node_id

    @property
    def listening(self) -> list[str]:
        """The URLs that the node really listens on; empty while it is not open."""
        return list(self.node.listening)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the node lives in, or will."""
        if self._loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                self._loop = asyncio.new_event_loop()
                self._own_loop = True
        return self._loop

    def enable_server(self, listen_urls: Iterable[str]) -> None:
        """Listen on these URLs once the node runs (now, if it does).

        Raises AddressError at once for a malformed URL; one that turns out to be taken makes `run` raise it.
        """
        urls = [listen_urls] if isinstance(listen_urls, str) else list(listen_urls)
        for url in urls:
            parse_url(url)
        for url in urls:
            self.node.listen(url)

    def add_peer(self, peer: str) -> None:
        """Keep a link to the node at this URL, whether or not it is up yet. Raises AddressError if malformed."""
        parse_url(peer)
        self.node.dial(peer)

    def register(
        self,
        name: str,
        function: Callable[..., object],
        *,
        stream: bool = False,
        isolate: bool = False,
        max_memory_bytes: int | None = None,
        max_cpu_seconds: int | None = None,
    ) -> None:
        """Offer `namespace:action` at this node; `function` takes a Work and returns or yields its replies.

        The options are those of `zmesh.directive`. Raises ValueError for a name that is taken or is none, and TypeError
        for an isolated function that can't be moved to another process.
        """
        self.node.register(
            name,
            function,
            stream=stream,
            isolate=isolate,
            max_memory_bytes=max_memory_bytes,
            max_cpu_seconds=max_cpu_seconds,
        )

    # -- sending -------------------------------------------------------------------------------------------------

    def send(
        self,
        payload: PayloadLike = None,
        recipient: str = "",
        directive: str = "",
        response_handler: ResponseHandler | None = None,
        expect_response: bool = True,
        timeout: float | None = None,
        *,
        route_timeout: float | None = None,
    ) -> Sent:
        """Send a directive; the message is under way when this returns, also if nobody awaits the result.

        Replies go to `response_handler` (plain or async), the last one with `eof`; without a handler they are kept for
        `recv`, or dropped if `expect_response` is False. `timeout` in seconds is for the whole exchange; without one it
        lasts as long as the recipient can be reached. `route_timeout` in seconds is for how long it may be without a
        route to the recipient before it ends as Unreachable; by default that of the node.

        Raises Closed, Overloaded, TypeError for a payload that can't be sent, ConfigError for an impossible directive.
        """
        id = _ids.take()
        exchange: Exchange
        if response_handler is not None:
            exchange = Handled(self.node, id, recipient, response_handler)
        elif expect_response:
            exchange = Received(self.node, id, recipient, self._receive)
        else:
            exchange = Unheard(self.node, id, recipient)
        exchange.route_timeout = _checked(route_timeout)
        self._start(exchange, directive, payload, timeout)
        return Sent(exchange.message_id)

    def ping(
        self,
        node: str,
        response_handler: ResponseHandler | None = None,
        expect_response: bool = True,
        timeout: float | None = None,
    ) -> Sent:
        """Ask a node for the time and its running work; the reply's payload is JSON."""
        return self.send({"initial_time": stamp(time.time())}, node, PING, response_handler, expect_response, timeout)

    def request(
        self,
        recipient: str,
        directive: str,
        payload: PayloadLike = None,
        *,
        timeout: float | None = None,
        route_timeout: float | None = None,
        stream: bool = False,
    ) -> Request:
        """Send a directive; await what this returns for the one payload, or iterate over it for the replies.

        With `stream`, each reply is given as soon as it begins, and its payload is read (`async for`) while the rest is
        still under way, until the next reply is asked for; nothing of it goes to disk. Raises as `send` does.
        """
        exchange = Request(self.node, _ids.take(), recipient, stream=stream)
        exchange.route_timeout = _checked(route_timeout)
        self._start(exchange, directive, payload, timeout)
        return exchange

    def request_many(
        self,
        nodes: Iterable[str],
        directive: str,
        payload: PayloadLike = None,
        *,
        timeout: float | None = None,
        route_timeout: float | None = None,
        limit: int = LIMIT,
    ) -> Answers:
        """Send a directive to many nodes; iterate over what this returns for an Answer of each, as they come.

        What goes wrong with one node is in its Answer, and keeps none of the others waiting. A node that is named
        twice is asked once. At most `limit` requests are at work at a time; those whose node can't be reached wait
        beside them. `timeout` in seconds is for each from its sending, `route_timeout` as with `send`.

        Raises TypeError for a payload that can't be read anew for each node, ConfigError for an impossible directive
        or node, ValueError for an impossible limit, OSError if a path can't be opened.
        """
        if isinstance(nodes, str):
            raise TypeError(f"request_many takes a list of nodes, not {nodes!r}; for one node use request")
        if limit < 1:
            raise ValueError(f"limit is how many nodes are asked at a time, 1 or more, not {limit!r}")
        wanted = list(dict.fromkeys(nodes))
        _check_directive(directive)
        for node in wanted:
            _check_node(node)
        patience = _checked(route_timeout)
        again = repeatable(payload)

        def start(node: str, done: Callable[[Asked, Answer], None]) -> Asked:
            asked = Asked(self.node, _ids.take(), node, done)
            asked.route_timeout = patience
            self._start(asked, directive, again(), timeout)
            return asked

        return Answers(Fanout(wanted, limit, start, self.node.is_lost, self.node.cancel))

    async def ping_once(
        self, node: str, timeout: float | None = PING_TIMEOUT, *, route_timeout: float | None = None
    ) -> Pong:
        """Ping a node and wait for the answer. Raises TimedOut or Unreachable; `route_timeout` as with `send`."""
        started = time.perf_counter()
        asked = {"initial_time": stamp(time.time())}
        request = self.request(node, PING, asked, timeout=timeout, route_timeout=route_timeout)
        payload = await request
        rtt = time.perf_counter() - started
        try:
            active_work = payload.json().get("active_work", []) if payload is not None else []
        except (ValueError, AttributeError):
            raise RemoteError(f"node {node!r} answers a ping with something else", node=node) from None
        return Pong(node, rtt, request.hops, active_work if isinstance(active_work, list) else [])

    def cancel(self, message_id: str) -> None:
        """Stop a request of this node by its message id. Harmless if it is over."""
        self.node.cancel(message_id)

    async def cancel_at(self, node: str, message_id: str | int, timeout: float | None = CANCEL_TIMEOUT) -> bool:
        """Stop the work for this message id at `node`, whoever asked for it; True once it has ended.

        False if no such work runs there. `message_id` is that of the request, or the number that a ping lists. Raises
        TimedOut if the work does not end in time, Unreachable, and ConfigError for what is no id.
        """
        named = read_message_id(message_id)
        if named is None:
            raise ConfigError(f"{message_id!r} is no message id: 32 hex digits, or the number that a ping lists")
        payload = await self.request(node, CANCEL, {"message_id": named}, timeout=timeout)
        try:
            return payload is not None and bool(payload.json()["cancelled"])
        except (ValueError, TypeError, KeyError):
            raise RemoteError(f"node {node!r} answers a cancel with something else", node=node) from None

    def recv(self) -> Replies:
        """The replies that have no handler: await this for the next one, or iterate over it for all to come."""
        return Replies(self)

    def _start(self, exchange: Exchange, directive: str, payload: PayloadLike, timeout: float | None) -> None:
        _check_directive(directive)
        _check_node(exchange.recipient)
        body = encode(payload)
        try:
            if self.node.loop is not None and self.node.thread != threading.get_ident():
                self.node.post(exchange, directive, body, timeout)
            else:
                self.node.send(exchange, directive, body, timeout)
        except MeshError as error:
            error.message_id = exchange.message_id
            if isinstance(body, Source):
                body.close()
            raise

    def _receive(self, message: Message) -> None:
        if len(self._inbox) >= MAX_INBOX:
            self._inbox.popleft()
            self.node.telemetry.counts["reply_dropped:nobody_receives"] += 1
        self._inbox.append(message)
        if self._inbox_waiter is not None and not self._inbox_waiter.done():
            self._inbox_waiter.set_result(None)

    async def _next(self) -> Message:
        while not self._inbox:
            if self._inbox_waiter is None or self._inbox_waiter.done():
                self._inbox_waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._inbox_waiter)
        return self._inbox.popleft()

    # -- life ----------------------------------------------------------------------------------------------------

    def run(self, main: Main | None = None) -> Any:
        """Run the node until `main` (a coroutine function) is done, or without one until `stop` or Ctrl-C.

        After `main`, all that was sent is handed over first, and every reply that a handler expects is waited for.
        Ctrl-C ends it at once, as KeyboardInterrupt, and so does `sys.exit` wherever it is called. Returns what `main`
        returns, and raises what it raises.
        """
        loop = self.loop
        task = loop.create_task(self._run(main), name="zmesh run")
        try:
            with heard(loop):
                return loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit):
            if self._own_loop:
                loop.set_exception_handler(_after_interrupt)
            self._abort()
            if not task.done():  # else it was main that was interrupted, and the node has been closed already
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    loop.run_until_complete(task)
            raise
        finally:
            if self._own_loop:
                _close_loop(loop)

    async def _run(self, main: Main | None) -> Any:
        try:
            await self.open()
            if main is None:
                assert self._life is not None
                await asyncio.shield(self._life)
                return None
            result = await (main() if callable(main) else main)
            await self.node.drain()
            return result
        except (KeyboardInterrupt, SystemExit):
            self._abort()
            raise
        finally:
            await self.close()

    def _abort(self) -> None:
        """End the node at once: nothing goes before what ends the program, which may have struck anywhere."""
        self.node.abort()
        self._told = True

    def stop(self) -> None:
        """Let `run` without a main function come to its end."""
        self.node.stop()

    async def open(self) -> None:
        """Open the node in the running loop; returns once it listens. Raises AddressError."""
        life = self._begin(asyncio.get_running_loop())
        ready = self._ready
        assert ready is not None
        await asyncio.wait((ready, life), return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            self._told = True
            life.result()

    async def close(self) -> None:
        """Close the node and wait until nothing of it is left. Harmless when it is closed.

        Raises what has ended the node before its time, unless `open` or an earlier `close` has raised it.
        """
        self.node.stop()
        if self._life is None:
            return
        await asyncio.wait((self._life,))
        if not self._told:
            self._told = True
            self._life.result()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        if self._life is None:
            self._loop = loop
            self._ready = loop.create_future()
            self._life = loop.create_task(self.node.live(self._ready), name=f"zmesh {self.node_id}")
            self._life.add_done_callback(self._ended)
        return self._life

    def _ended(self, life: asyncio.Task[None]) -> None:
        if not life.cancelled() and (error := life.exception()) is not None:
            log.error("node %s: %s", self.node_id, text_of(error), exc_info=None if is_a(error, MeshError) else error)


def _check_directive(directive: str) -> None:
    if ":" not in directive or len(directive) > MAX_DIRECTIVE:
        raise ConfigError(
            f"{directive!r} is no directive; it must look like namespace:action, in up to {MAX_DIRECTIVE} characters"
        )


def _check_node(node: str) -> None:
    if not is_address(node):
        raise ConfigError(f"{node!r} is no node id: 1 to 64 characters of A-Z a-z 0-9 . _ -", node=node)


class Replies:
    """What `recv` gives back: an awaitable of one message, and an async iterator of all."""

    __slots__ = ("_controller",)

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def __await__(self) -> Generator[Any, None, Message]:
        return self._controller._next().__await__()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        return await self._controller._next()


def _after_interrupt(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say nothing of the task that ran when Ctrl-C came, or that called `sys.exit`: `run` raises that already."""
    if not isinstance(context.get("exception"), (KeyboardInterrupt, SystemExit)):
        loop.default_exception_handler(context)


def _close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left in a loop of our own, and close it."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def _checked(route_timeout: float | None) -> float | None:
    """A route timeout that can be kept. Raises TypeError or ConfigError."""
    if route_timeout is None:
        return None
    if not isinstance(route_timeout, (int, float)) or isinstance(route_timeout, bool):
        raise TypeError(f"route_timeout is a number of seconds or None, not {route_timeout!r}")
    if not 0 <= route_timeout <= MAX_ROUTE_TIMEOUT:
        raise ConfigError(f"route_timeout is from 0 to {MAX_ROUTE_TIMEOUT:g} seconds, not {route_timeout!r}")
    return route_timeout
