"""A node inside a program: requests, replies, directives, and the mesh as the node sees it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from zmesh import payloads, requests, serving  # each loads its modules when they are first used
from zmesh.arguments import (
    check_content_type,
    check_directive,
    check_handler,
    check_limit,
    check_message_id,
    check_metadata,
    check_node,
    check_timeout,
)
from zmesh.errors import ConfigError, MeshError, RemoteError
from zmesh.files import Files
from zmesh.jobs import Jobs
from zmesh.lifecycle import Lifecycle, Main
from zmesh.observe import MeshView
from zmesh.operate import Diagnosing
from zmesh.remote import Machines
from zmesh.requests import LIMIT
from zmesh.runtime import is_a, new_message_id, text_of
from zmesh.tunnel import Tunnels

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.config import Config, Settings
    from zmesh.core.limits import Limits
    from zmesh.disclosure import Setting
    from zmesh.node import Node
    from zmesh.payloads import Payload, PayloadLike
    from zmesh.reconfiguration import Reloaded
    from zmesh.requests import (
        Answer,
        Answers,
        Exchange,
        Pong,
        Replies,
        ReplyStream,
        RequestOptions,
        ResponseHandler,
        Sent,
    )
    from zmesh.serving import DirectiveOptions

log = logging.getLogger(__name__)

PING_TIMEOUT = 5.0
CANCEL_TIMEOUT = 10.0

Function = TypeVar("Function", bound=Callable[..., object])


class Controller(MeshView, Machines, Files, Jobs, Diagnosing, Tunnels):
    """A node inside a program.

    `Controller(node_id="edge", peers=["tcp://hub:7323"])` takes the settings of a Config by name;
    `Controller(Config(...))` takes a Config. It is used with `run(main)` or `async with`. With `loop`, the node runs in
    that loop as soon as the loop runs, and `run` may be left out. All methods may be called from the loop's thread;
    `send` and `ping` from any. `limits` are what others may have the node keep and spend.

    What is sent before the node is open goes out when it is: anything with `loop`, and what `send` sends without a
    handler. Whatever else would wait for an answer raises Closed at once, as all does when the node is closed, and in
    a forked child, which makes a Controller of its own.

    Raises TypeError for an argument of the wrong type, for both a Config and settings, and for a setting that does not
    exist; ConfigError for a setting out of its limits.
    """

    def __init__(
        self,
        config: Config | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        if loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop is an event loop of asyncio, not {type(loop).__name__}")
        if loop is not None and loop.is_closed():
            raise ConfigError("the event loop that the Controller is to run in is closed")
        from zmesh.config import config_of  # these here: what only names the class does not pay for the engine
        from zmesh.core.limits import Limits
        from zmesh.node import Node

        if limits is not None and not isinstance(limits, Limits):
            raise TypeError(f"limits are a Limits, not {type(limits).__name__}")
        directives = serving.Directives()
        directives.attach(self.stream)
        self._node = Node(config_of(config, settings), directives, limits)
        self._lifecycle = Lifecycle(self._node, loop, self._on_end)
        self._inbox = requests.Inbox(self._check_receiving, self._drop_reply)
        if loop is not None:
            self._lifecycle.begin(loop)

    # -- set-up --------------------------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        """The node itself. Programs may use its `router`, `events` and `reachable`; the rest is internal.

        Raises Closed in a fork of its process.
        """
        self._node.admission.check_process()
        return self._node

    @property
    def receptor(self) -> Node:
        """The node, by the name that programs for the Receptor know it by."""
        return self.node

    @property
    def config(self) -> Config:
        """The settings that the node has now."""
        return self._node.config

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
        """The event loop that the node runs in, or will."""
        return self._lifecycle.loop

    def enable_server(self, listen_urls: Iterable[str]) -> None:
        """Listen on these URLs once the node runs (now, if it does).

        Raises AddressError at once for a malformed URL, and for one that would let other machines in without an
        identity; one that turns out to be taken makes `run` raise it.
        """
        connectivity = self._unclosed().connectivity
        urls = [listen_urls] if isinstance(listen_urls, str) else list(listen_urls)
        for url in urls:
            connectivity.check(url)
        for url in urls:
            connectivity.listen(url)

    def add_peer(self, peer: str) -> None:
        """Keep a link to the node at this URL, whether or not it is up yet.

        Raises AddressError for a malformed URL, and for one that would be plaintext to another machine.
        """
        connectivity = self._unclosed().connectivity
        connectivity.check(peer, dialled=True)
        connectivity.dial(peer)

    def check(self) -> None:
        """Raises ConfigError for settings that the node could not be opened with, as far as that is known before.

        It loads the plugins, and opens nothing.
        """
        self._unclosed().check()

    def settings(self) -> list[Setting]:
        """The settings that the node has, each with where it comes from, and without secrets."""
        from zmesh.disclosure import settings_of

        return list(settings_of(self.config))

    def reload(self, config: Config | None = None) -> Reloaded:
        """Change the settings while the node runs; by default they are read anew from where `Config.load` read them.

        Certificate, trust and permissions of its identity are read anew as well. Links whose URL stays are kept.
        Returns which settings have changed, and which take effect at the next start. Raises ConfigError for settings
        that can't be used, which changes nothing.
        """
        return self.node.reload(config)

    def register(self, name: str, function: Callable[..., object], **options: Unpack[DirectiveOptions]) -> None:
        """Offer `namespace:action` at this node; `function` takes a Work and returns or yields its replies.

        Options are those of DirectiveOptions. Raises ValueError for a name that is taken or is none, and TypeError for
        a function that can't be called with the Work alone, or is isolated and can't be moved to another process.
        """
        self._unclosed().register(name, function, **options)

    def directive(self, name: str, **options: Unpack[DirectiveOptions]) -> Callable[[Function], Function]:
        """Offer the function below as `namespace:action` at this node: `@mesh.directive("text:shout")`.

        The options, and what is raised, are those of `register`.
        """
        check_directive(name)

        def offer(function: Function) -> Function:
            self.register(name, function, **options)
            return function

        return offer

    # -- the mesh ------------------------------------------------------------------------------------------------

    def nodes(self, target: str | None = None, *, tag: str | None = None) -> list[str]:
        """The ids of all nodes that can be reached, this one's among them, sorted; with `tag`, of those that have it.

        With a `target`, such as `tag:gpu,!edge-9`, those that it stands for; one that it names need not be reachable.

        As `routes`, `edges`, `capabilities`, `tags` and `duplicates`, this is the state of the moment, and raises
        ConfigError at an ephemeral node, which keeps no tables of the mesh.
        """
        if target is None and tag is None:
            return self.node.router.get_nodes()
        return self._resolved(target if target is not None else f"tag:{tag}", self.node.router.tags)

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
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Sent:
        """Send a directive; the message is under way when this returns, whether or not the result is awaited.

        Replies go to `response_handler` (plain or async), the last one with `eof`; without a handler they are kept for
        `recv`, or dropped if `expect_response` is False. `timeout` in seconds is for the whole exchange; without one it
        lasts as long as the recipient can be reached. `route_timeout` in seconds is for how long it may be without a
        route to the recipient before it ends as Unreachable; by default that of the node.

        `content_type` says what the payload is, and by default follows from its type: `application/json`, `text/plain`
        or `application/octet-stream`. `metadata` maps text to text, up to 8192 bytes in all, for the directive.

        Before the node is open, what has no handler waits for it, and what has one raises Closed.

        Raises Closed, Overloaded, TypeError for what can't be a payload or an argument, ConfigError for an impossible
        directive, node or time-out.
        """
        check_handler(response_handler)
        check_timeout(route_timeout, "route_timeout")
        check_content_type(content_type)
        described = check_metadata(metadata)
        if response_handler is not None:
            self._node.admission.check_begun()
        id = new_message_id()
        exchange: Exchange
        if response_handler is not None:
            exchange = requests.WithHandler(self.node.requests, id, recipient, response_handler)
        elif expect_response:
            exchange = requests.Inboxed(self.node.requests, id, recipient, self._inbox.put)
        else:
            exchange = requests.FireAndForget(self.node.requests, id, recipient)
        exchange.route_timeout = route_timeout
        exchange.content_type = payloads.content_type_of(payload) if content_type is None else content_type
        exchange.metadata = described
        self._start(exchange, directive, payload, timeout)
        return requests.Sent(exchange.message_id)

    def ping(
        self,
        node: str,
        response_handler: ResponseHandler | None = None,
        expect_response: bool = True,
        timeout: float | None = None,
    ) -> Sent:
        """Ask a node for the time and its running work; the reply's payload is JSON."""
        return self.send(
            {"initial_time": serving.stamp(time.time())}, node, serving.PING, response_handler, expect_response, timeout
        )

    async def request(
        self, node: str, directive: str, payload: PayloadLike = None, **options: Unpack[RequestOptions]
    ) -> Payload | None:
        """Send a directive to a node and wait for the one payload that it replies; None if it replies none.

        Options are those of RequestOptions. The content type and metadata of the reply are attributes of its payload,
        and the payload's `value()` gives a dict, list, number or str as it was returned there.

        Cancelling the task that waits cancels the work. Nothing is sent, and no error is raised, before this is awaited
        or a task is made of it. Raises as `send` does; an ExchangeError if the work fails, TimedOut after `timeout`
        seconds among them; and TooManyReplies if there is a second reply, for which there is `stream`.
        """
        replies = self.stream(node, directive, payload, **options)
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
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        buffered: bool = True,
        writable: bool = False,
    ) -> ReplyStream:
        """Send a directive to a node and take its replies: `async with mesh.stream(...) as replies`.

        Arguments are checked here, and the request is sent when the block is entered, which raises as `send` does.
        `async for reply in replies` gives the replies, each when it is complete. Leaving the block early cancels the
        work, and the block ends when the work has. `content_type` and `metadata` are as with `send`.

        With `buffered=False`, each reply is given as soon as it begins, and its payload is read (`async for`) while the
        rest arrives, until the next reply is asked for; nothing of it is written to disk.

        With `writable=True`, the request stays open: `write` what follows the payload, while replies come, and `end`.
        """
        check_directive(directive)
        check_node(node)
        check_timeout(timeout)
        check_timeout(route_timeout, "route_timeout")
        check_content_type(content_type)
        described = check_metadata(metadata)
        own = self.node
        body = payloads.encode(payload)

        def start(replies: ReplyStream) -> None:
            own.requests.start(replies, directive, body, timeout, awaited=True)

        replies = requests.ReplyStream(
            own.requests, new_message_id(), node, start, buffered=buffered, writable=writable
        )
        replies.route_timeout = route_timeout
        replies.content_type = payloads.content_type_of(payload) if content_type is None else content_type
        replies.metadata = described
        return replies

    def request_many(
        self,
        nodes: Iterable[str] | str | None = None,
        directive: str = "",
        payload: PayloadLike = None,
        *,
        tag: str | None = None,
        timeout: float | None = None,
        route_timeout: float | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = LIMIT,
    ) -> Answers:
        """Send a directive to many nodes; iterate over what this returns for an Answer of each, as they come.

        `nodes` are ids, or a target as `nodes` takes, such as `tag:gpu`; in their place `tag` is for all that have it:
        `mesh.request_many(directive="inventory:facts", tag="gpu")`. What goes wrong with one node is in its
        Answer, and keeps none of the others waiting. A node that is named twice is asked once. At most `limit` requests
        are at work at a time; those whose node can't be reached wait beside them. `timeout` in seconds is for each from
        its sending; `route_timeout`, `content_type` and `metadata` are as with `send`.

        Raises TypeError for a payload that can't be read anew for each node, ConfigError for an impossible directive,
        target, limit or time-out, OSError if a path can't be opened, and Closed.
        """
        check_limit(limit)
        check_timeout(timeout)
        check_timeout(route_timeout, "route_timeout")
        check_directive(directive)
        check_content_type(content_type)
        described = check_metadata(metadata)
        wanted: dict[str, None] = {}
        for node in self._ids(nodes, tag):
            check_node(node)
            wanted[node] = None
        again = requests.repeatable(payload)
        kind = payloads.content_type_of(payload) if content_type is None else content_type
        self._node.admission.check_begun()
        self._node.admission.check_loop()

        def start(node: str, done: Callable[[requests.FanoutRequest, Answer], None]) -> requests.FanoutRequest:
            asked = requests.FanoutRequest(self.node.requests, new_message_id(), node, done)
            asked.route_timeout = route_timeout
            asked.content_type, asked.metadata = kind, described
            self._start(asked, directive, again(), timeout)
            return asked

        return requests.Answers(requests.Fanout(wanted, limit, start))

    async def ping_once(
        self, node: str, timeout: float | None = PING_TIMEOUT, *, route_timeout: float | None = None
    ) -> Pong:
        """Ping a node and wait for the answer. Raises TimedOut or Unreachable; `route_timeout` as with `send`."""
        started = time.perf_counter()
        asked = {"initial_time": serving.stamp(time.time())}
        request = self.stream(node, serving.PING, asked, timeout=timeout, route_timeout=route_timeout)
        request.send()
        payload = await request.only_payload()
        rtt = time.perf_counter() - started
        return requests.read_pong(payload, node, rtt, request.hops)

    def cancel(self, message_id: str) -> None:
        """Stop a request of this node by its message id. Harmless if it is over. Raises ConfigError for no id."""
        self.node.cancel(check_message_id(message_id))

    async def cancel_at(self, node: str, message_id: str | int, timeout: float | None = CANCEL_TIMEOUT) -> bool:
        """Stop the work for this message id at `node`, whichever node sent it; True once it has ended.

        False if no such work runs there. `message_id` is that of the request, or the number that a ping lists. Raises
        TimedOut if the work does not end in time, Unreachable, and ConfigError for what is no id.
        """
        named = check_message_id(message_id)
        payload = await self.request(node, serving.CANCEL, {"message_id": named}, timeout=timeout)
        try:
            return payload is not None and bool(payload.json()["cancelled"])
        except (ValueError, TypeError, KeyError):
            raise RemoteError(f"node {node!r} answers a cancel with something else", node=node) from None

    def recv(self) -> Replies:
        """The replies that have no handler: await this for the next one, or iterate over it for all to come.

        Awaiting raises Closed when the node is closed, or is closed meanwhile, and nothing is left to be received; an
        iteration that has begun ends then.
        """
        return requests.Replies(self._inbox)

    def _start(self, exchange: Exchange, directive: str, payload: PayloadLike, timeout: float | None) -> None:
        check_directive(directive)
        check_node(exchange.recipient)
        check_timeout(timeout)
        self._node.requests.start(exchange, directive, payloads.encode(payload), timeout)

    def _drop_reply(self) -> None:
        self._node.telemetry.counts["reply_dropped:nobody_receives"] += 1

    @property
    def _host(self) -> Node:
        return self._unclosed()

    @property
    def _requests(self) -> requests.Requests:
        return self.node.requests

    def _check_receiving(self) -> None:
        """Raises what keeps a reply from ever coming."""
        self._node.admission.check_begun()
        self._node.admission.check_loop()
        if self._lifecycle.is_over:
            raise self._lifecycle.closed()

    def _unclosed(self) -> Node:
        """The node, to be changed. Raises Closed when it is closed."""
        node = self.node
        if self._lifecycle.is_over:
            raise self._lifecycle.closed()
        return node

    # -- opening and closing -------------------------------------------------------------------------------------

    def _node_with_tables(self) -> str:
        return self.node.engine.uplink or self.node_id

    def _run_node(self, main: Main | None) -> Any:
        return self._lifecycle.run(main)

    def stop(self) -> None:
        """Let `run` without a main function come to its end."""
        self._node.stop()

    async def open(self) -> None:
        """Open the node in the running loop; returns once it listens. Raises AddressError, Closed if it was open."""
        await self._lifecycle.open()

    async def close(self) -> None:
        """Close the node and wait until nothing of it is left. Harmless when it is closed, and in a forked child.

        Raises what has ended the node before its time, unless `open` or an earlier `close` has raised it.
        """
        await self._lifecycle.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is GeneratorExit and asyncio._get_running_loop() is None:  # this coroutine is garbage, and can't await
            self._node.close_now()
        else:
            await self.close()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not self._lifecycle.is_leaving:
            self._inbox.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("node %s: %s", self.node_id, text_of(error), exc_info=None if is_a(error, MeshError) else error)
