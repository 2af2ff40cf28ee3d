"""The way in for programs: send directives into the mesh and take the replies."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from zmesh.arguments import check_directive, check_handler, check_limit, check_node, check_timeout, check_url
from zmesh.config import Config
from zmesh.core.limits import Limits
from zmesh.errors import AddressError, Closed, ConfigError, MeshError, RemoteError
from zmesh.node import Node
from zmesh.payloads.payload import Payload, PayloadLike, encode
from zmesh.payloads.source import Source
from zmesh.requests.exchange import Exchange, FireAndForget, Inboxed, ResponseHandler, WithHandler
from zmesh.requests.fanout import LIMIT, Answer, Answers, Fanout, FanoutRequest, repeatable
from zmesh.requests.inbox import Inbox, Replies
from zmesh.requests.reply_stream import ReplyStream
from zmesh.runtime.exceptions import is_a, text_of
from zmesh.runtime.interrupts import close_loop, ignore_exit, raise_lost_interrupts
from zmesh.runtime.message_ids import new_message_id
from zmesh.serving.builtins import CANCEL, PING, check_message_id, stamp
from zmesh.serving.directives import Directives
from zmesh.transport import parse_url

if TYPE_CHECKING:
    from zmesh.observe.events import Event, Events
    from zmesh.observe.router import Route
    from zmesh.observe.stats import LinkStatus, Stats

log = logging.getLogger(__name__)

PING_TIMEOUT = 5.0
CANCEL_TIMEOUT = 10.0

Main = Callable[[], Coroutine[Any, Any, Any]] | Coroutine[Any, Any, Any]


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

    What is sent before the node is open goes out when it is: anything with `loop`, and what `send` sends without a
    handler. Whatever else would wait for an answer raises Closed at once, as all does when the node is closed, and in
    a forked child, which makes a Controller of its own.
    """

    def __init__(
        self,
        config: Config | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits | None = None,
    ) -> None:
        if config is not None and not isinstance(config, Config):
            raise TypeError(f"a Controller takes a Config, not {type(config).__name__}")
        if loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop is an event loop of asyncio, not {type(loop).__name__}")
        if loop is not None and loop.is_closed():
            raise ConfigError("the event loop that the Controller is to live in is closed")
        if limits is not None and not isinstance(limits, Limits):
            raise TypeError(f"limits are a Limits, not {type(limits).__name__}")
        self.config = config if config is not None else Config()
        self._node = Node(self.config, Directives(), limits)
        self._loop = loop
        self._own_loop = False
        self._life: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._leaves = False
        """Whether `run` is about to cancel what else runs in its loop."""
        self._told = False
        """Whether the program knows already what has ended the node before its time."""
        self._inbox = Inbox(self._check_receiving, self._drop_reply)
        if loop is not None:
            self._begin(loop)

    # -- set-up --------------------------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        """The node itself. Programs may use its `router`, `events` and `reachable`; the rest is internal.

        Raises Closed in a fork of its process.
        """
        self._node.check_process()
        return self._node

    @property
    def receptor(self) -> Node:
        """The node, by the name that programs for the Receptor know it by."""
        return self.node

    @property
    def node_id(self) -> str:
        """This node's id."""
        return self._node.node_id

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
        node = self._unclosed()
        urls = [listen_urls] if isinstance(listen_urls, str) else list(listen_urls)
        for url in urls:
            _check_address(url)
        for url in urls:
            node.listen(url)

    def add_peer(self, peer: str) -> None:
        """Keep a link to the node at this URL, whether or not it is up yet. Raises AddressError if malformed."""
        node = self._unclosed()
        _check_address(peer)
        node.dial(peer)

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
        for a function that can't be called with the Work alone, or is isolated and can't be moved to another process.
        """
        self._unclosed().register(
            name,
            function,
            stream=stream,
            isolate=isolate,
            max_memory_bytes=max_memory_bytes,
            max_cpu_seconds=max_cpu_seconds,
        )

    # -- the mesh ------------------------------------------------------------------------------------------------

    def nodes(self) -> list[str]:
        """The ids of all nodes that can be reached, this one's among them, sorted.

        As `routes`, `edges`, `capabilities` and `duplicates`, this is the state of the moment, and raises ConfigError
        at an ephemeral node, which keeps no tables of the mesh.
        """
        return self.node.router.get_nodes()

    def routes(self) -> list[Route]:
        """The routes in use, sorted by destination."""
        return self.node.router.routes()

    def edges(self) -> list[tuple[str, str, int]]:
        """The links of the mesh as (node, node, cost), each once; the cost is the higher one of its two ends."""
        return self.node.router.get_edges()

    def capabilities(self) -> dict[str, list[str]]:
        """For each node that can be reached, the directives that it offers; `name:!Error` is a plugin that failed."""
        return self.node.router.node_capabilities()

    def duplicates(self) -> list[str]:
        """The ids that two live nodes use, sorted, also if one of them was refused."""
        return self.node.router.duplicates()

    def links(self) -> list[LinkStatus]:
        """The links of this node that are up, sorted by neighbour."""
        return self.node.links()

    def stats(self) -> Stats:
        """Counts of this moment: requests under way, bytes that wait, and how often each event has happened."""
        return self.node.stats()

    def events(self) -> Events:
        """The events of this node's links and of the nodes that it can reach, from now on, until it closes.

        Waiting for the first one raises Closed while the node is not open yet.
        """
        return self.node.events()

    def watch(self, observer: Callable[[Event], None]) -> None:
        """Call `observer` with each event, on the node's loop and as it happens, before anything else is done."""
        self.node.watch_events(observer)

    async def wait_for(self, node: str, timeout: float | None = None) -> None:
        """Wait until there is a route to `node`; at an ephemeral node, until `node` answers a ping.

        Raises Unreachable after `timeout` seconds, with the nodes that can be reached, and Closed when this node is not
        open, or is closed meanwhile.
        """
        await self.node.reachable(node, timeout)

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

        Before the node is open, what has no handler waits for it, and what has one raises Closed.

        Raises Closed, Overloaded, TypeError for what can't be a payload or an argument, ConfigError for an impossible
        directive, node or time-out.
        """
        check_handler(response_handler)
        check_timeout(route_timeout, "route_timeout")
        if response_handler is not None:
            self._node.check_begun()
        id = new_message_id()
        exchange: Exchange
        if response_handler is not None:
            exchange = WithHandler(self.node, id, recipient, response_handler)
        elif expect_response:
            exchange = Inboxed(self.node, id, recipient, self._inbox.put)
        else:
            exchange = FireAndForget(self.node, id, recipient)
        exchange.route_timeout = route_timeout
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

    async def request(
        self,
        node: str,
        directive: str,
        payload: PayloadLike = None,
        *,
        timeout: float | None = None,
        route_timeout: float | None = None,
    ) -> Payload | None:
        """Send a directive to a node and wait for the one payload that it replies; None if it replies none.

        Cancelling the task that waits cancels the work. Nothing is sent, and no error is raised, before this is awaited
        or a task is made of it. Raises as `send` does; an ExchangeError if the work fails, TimedOut after `timeout`
        seconds among them; and TooManyReplies if there is a second reply, for which there is `stream`.
        """
        replies = self.stream(node, directive, payload, timeout=timeout, route_timeout=route_timeout)
        replies.send()
        return await replies.only_payload()

    def stream(
        self,
        node: str,
        directive: str,
        payload: PayloadLike = None,
        *,
        timeout: float | None = None,
        route_timeout: float | None = None,
        buffered: bool = True,
    ) -> ReplyStream:
        """Send a directive to a node and take its replies: `async with mesh.stream(...) as replies`.

        Arguments are checked here, and the request is sent when the block is entered, which raises as `send` does.
        `async for reply in replies` gives the replies, each when it is complete. Leaving the block early cancels the
        work, and the block ends when the work has.

        With `buffered=False`, each reply is given as soon as it begins, and its payload is read (`async for`) while the
        rest arrives, until the next reply is asked for; nothing of it is written to disk.
        """
        check_directive(directive)
        check_node(node)
        check_timeout(timeout)
        check_timeout(route_timeout, "route_timeout")
        own = self.node
        body = encode(payload)

        def start(replies: ReplyStream) -> None:
            self._send(replies, directive, body, timeout, awaited=True)

        replies = ReplyStream(own, new_message_id(), node, start, buffered=buffered)
        replies.route_timeout = route_timeout
        return replies

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

        Raises TypeError for a payload that can't be read anew for each node, ConfigError for an impossible directive,
        node, limit or time-out, OSError if a path can't be opened, and Closed.
        """
        if isinstance(nodes, str):
            raise TypeError(f"request_many takes a list of nodes, not {nodes!r}; for one node use request")
        check_limit(limit)
        check_timeout(timeout)
        check_timeout(route_timeout, "route_timeout")
        check_directive(directive)
        wanted: dict[str, None] = {}
        for node in nodes:
            check_node(node)
            wanted[node] = None
        again = repeatable(payload)
        self._node.check_begun()
        self._node.check_loop()

        def start(node: str, done: Callable[[FanoutRequest, Answer], None]) -> FanoutRequest:
            asked = FanoutRequest(self.node, new_message_id(), node, done)
            asked.route_timeout = route_timeout
            self._start(asked, directive, again(), timeout)
            return asked

        return Answers(Fanout(wanted, limit, start, self.node.is_lost, self.node.cancel))

    async def ping_once(
        self, node: str, timeout: float | None = PING_TIMEOUT, *, route_timeout: float | None = None
    ) -> Pong:
        """Ping a node and wait for the answer. Raises TimedOut or Unreachable; `route_timeout` as with `send`."""
        started = time.perf_counter()
        asked = {"initial_time": stamp(time.time())}
        request = self.stream(node, PING, asked, timeout=timeout, route_timeout=route_timeout)
        request.send()
        payload = await request.only_payload()
        rtt = time.perf_counter() - started
        try:
            active_work = payload.json().get("active_work", []) if payload is not None else []
        except (ValueError, AttributeError):
            raise RemoteError(f"node {node!r} answers a ping with something else", node=node) from None
        return Pong(node, rtt, request.hops, active_work if isinstance(active_work, list) else [])

    def cancel(self, message_id: str) -> None:
        """Stop a request of this node by its message id. Harmless if it is over. Raises ConfigError for no id."""
        self.node.cancel(check_message_id(message_id))

    async def cancel_at(self, node: str, message_id: str | int, timeout: float | None = CANCEL_TIMEOUT) -> bool:
        """Stop the work for this message id at `node`, whoever asked for it; True once it has ended.

        False if no such work runs there. `message_id` is that of the request, or the number that a ping lists. Raises
        TimedOut if the work does not end in time, Unreachable, and ConfigError for what is no id.
        """
        named = check_message_id(message_id)
        payload = await self.request(node, CANCEL, {"message_id": named}, timeout=timeout)
        try:
            return payload is not None and bool(payload.json()["cancelled"])
        except (ValueError, TypeError, KeyError):
            raise RemoteError(f"node {node!r} answers a cancel with something else", node=node) from None

    def recv(self) -> Replies:
        """The replies that have no handler: await this for the next one, or iterate over it for all to come.

        Awaiting raises Closed when the node is closed, or is closed meanwhile, and nothing is left to be received; an
        iteration that has begun ends then.
        """
        return Replies(self._inbox)

    def _start(self, exchange: Exchange, directive: str, payload: PayloadLike, timeout: float | None) -> None:
        check_directive(directive)
        check_node(exchange.recipient)
        check_timeout(timeout)
        self._send(exchange, directive, encode(payload), timeout)

    def _send(
        self, exchange: Exchange, directive: str, body: bytes | Source, timeout: float | None, *, awaited: bool = False
    ) -> None:
        node = self._node
        try:
            if awaited:
                node.check_begun()
                node.check_loop()
            if node.loop is not None and node.thread != threading.get_ident():
                node.post(exchange, directive, body, timeout)
            else:
                node.send(exchange, directive, body, timeout)
        except (MeshError, RuntimeError) as error:
            if isinstance(error, MeshError):
                error.message_id = exchange.message_id
            if isinstance(body, Source):
                body.close()
            raise

    def _drop_reply(self) -> None:
        self._node.telemetry.counts["reply_dropped:nobody_receives"] += 1

    # -- what keeps a call from being made -----------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        """Whether the node was open, and nothing will come any more."""
        return self._life is not None and self._life.done()

    def _check_receiving(self) -> None:
        """Raises what keeps a reply from ever coming."""
        self._node.check_begun()
        self._node.check_loop()
        if self._is_over:
            raise self._closed()

    def _unclosed(self) -> Node:
        """The node, to be changed. Raises Closed when it is closed."""
        node = self.node
        if self._is_over:
            raise self._closed()
        return node

    def _closed(self) -> Closed:
        node = self.node_id
        return Closed(f"node {node!r} is closed; a Controller is opened once: make another", node=node)

    # -- life ----------------------------------------------------------------------------------------------------

    def run(self, main: Main | None = None) -> Any:
        """Run the node until `main` (a coroutine function) is done, or without one until `stop` or Ctrl-C.

        After `main`, all that was sent is handed over first, and every reply that a handler expects is waited for.
        Ctrl-C ends it at once, as KeyboardInterrupt, and so does `sys.exit` wherever it is called. Returns what `main`
        returns, and raises what it raises.
        """
        with contextlib.ExitStack() as unless_run:
            if inspect.iscoroutine(main):
                unless_run.callback(main.close)
            loop = self._loop_to_run(main)
            unless_run.pop_all()
        self._begin(loop)  # before the tasks that the program has made there already, which may send
        task = loop.create_task(self._run(main), name="zmesh run")
        try:
            with raise_lost_interrupts(loop):
                return loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit):
            if self._own_loop:
                loop.set_exception_handler(ignore_exit)
            self._abort()
            if not task.done():  # else it was main that was interrupted, and the node has been closed already
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    loop.run_until_complete(task)
            raise
        finally:
            if self._own_loop and self._node.is_here:
                close_loop(loop)

    def _loop_to_run(self, main: Main | None) -> asyncio.AbstractEventLoop:
        if main is not None and not callable(main) and not inspect.isawaitable(main):
            raise TypeError(f"run takes a coroutine function, not {type(main).__name__}")
        self._unclosed()
        loop = self.loop
        if loop.is_running():
            raise RuntimeError("run starts the event loop, but it runs already; use `async with Controller(...)` there")
        if loop.is_closed():
            raise self._closed()
        return loop

    async def _run(self, main: Main | None) -> Any:
        try:
            await self.open()
            if main is None:
                assert self._life is not None
                await asyncio.shield(self._life)
                return None
            work = main() if callable(main) else main
            if not inspect.isawaitable(work):
                raise TypeError(f"run takes a coroutine function, and {main!r} is none: it gave {type(work).__name__}")
            result = await work
            await self.node.drain()
            return result
        except (KeyboardInterrupt, SystemExit):
            self._abort()
            raise
        finally:
            self._leaves = self._own_loop
            await self.close()

    def _abort(self) -> None:
        """End the node at once: nothing goes before what ends the program, which may have struck anywhere."""
        self._node.abort()
        self._told = True

    def stop(self) -> None:
        """Let `run` without a main function come to its end."""
        self._node.stop()

    async def open(self) -> None:
        """Open the node in the running loop; returns once it listens. Raises AddressError, Closed if it was open."""
        self._node.check_process()
        if self._life is not None:
            self._node.check_loop()
            if self._life.done() and self._told:
                raise self._closed()
        life = self._begin(asyncio.get_running_loop())
        ready = self._ready
        assert ready is not None
        await asyncio.wait((ready, life), return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            self._told = True
            life.result()
            if not ready.done():
                raise self._closed()

    async def close(self) -> None:
        """Close the node and wait until nothing of it is left. Harmless when it is closed, and in a forked child.

        Raises what has ended the node before its time, unless `open` or an earlier `close` has raised it.
        """
        if not self._node.is_here:
            return
        self._node.stop()
        if self._life is None:
            return
        self._node.check_loop()
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
            self._life = loop.create_task(self._node.run(self._ready), name=f"zmesh {self.node_id}")
            self._node.assigned_loop = loop
            self._life.add_done_callback(self._ended)
        return self._life

    def _ended(self, life: asyncio.Task[None]) -> None:
        if not self._leaves:
            self._inbox.wake()
        if not life.cancelled() and (error := life.exception()) is not None:
            log.error("node %s: %s", self.node_id, text_of(error), exc_info=None if is_a(error, MeshError) else error)


def _check_address(url: str) -> None:
    """Raises AddressError for what is no URL of a node, and TypeError."""
    check_url(url)
    try:
        parse_url(url)
    except AddressError:
        raise
    except ValueError as error:
        raise AddressError(f"{url!r} is no address: {error}") from None
