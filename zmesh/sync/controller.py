"""The Controller for programs without asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from zmesh.arguments import check_directive, check_timeout
from zmesh.config import Config
from zmesh.controller import Function
from zmesh.core.message import Message
from zmesh.errors import TimedOut
from zmesh.messaging import CANCEL_TIMEOUT, PING_TIMEOUT
from zmesh.payloads import Payload, PayloadLike
from zmesh.requests import LIMIT, Answer, Pong, RequestOptions, ResponseHandler
from zmesh.sync.diagnosing import Diagnosing
from zmesh.sync.files import Files
from zmesh.sync.iteration import Iteration, ReplyStream, in_the_loop
from zmesh.sync.jobs import Jobs
from zmesh.sync.machines import Machines
from zmesh.sync.tunnels import Tunnels

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.observe import Event, LinkStatus, Route, Stats, Tags
    from zmesh.reconfiguration import Reloaded
    from zmesh.serving import DirectiveOptions


class Controller(Machines, Files, Jobs, Diagnosing, Tunnels):
    """A node for a program without asyncio; `with Controller(...) as mesh` opens it, and closes it at the end.

    It takes a Config, or settings by name, as `zmesh.Controller` does.

    At the end of a block that did not fail, all that was sent is handed over first, and every reply that a handler
    expects is waited for. Ctrl-C while a call waits cancels that call's work, and is raised.

    All calls may come from any thread but one whose event loop runs a node of zmesh, a handler's among them: there
    RuntimeError is raised, since waiting would stop that node. Any other loop, such as a notebook's, is stopped for as
    long as a call waits. In a process that was forked off, calls raise Closed.
    """

    # -- set-up --------------------------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """The settings."""
        return self._mesh.config

    @property
    def listening(self) -> list[str]:
        """The URLs that the node really listens on; empty while it is not open."""
        return self._mesh.listening

    def enable_server(self, listen_urls: Iterable[str]) -> None:
        """Listen on these URLs, now or when the node opens. Raises AddressError."""
        self._set_up(lambda: self._mesh.enable_server(listen_urls))

    def add_peer(self, peer: str) -> None:
        """Keep a link to the node at this URL, whether or not it is up yet. Raises AddressError if malformed."""
        self._set_up(lambda: self._mesh.add_peer(peer))

    def reload(self, config: Config | None = None) -> Reloaded:
        """Change the settings while the node runs; by default they are read anew from where `Config.load` read them.

        Raises ConfigError, and then has changed nothing, and Closed.
        """

        async def reload() -> Reloaded:
            return await self._mesh.node.reload_in_thread(config)

        return self._do(reload)

    def register(
        self,
        name: str,
        function: Callable[..., object],
        **options: Unpack[DirectiveOptions],
    ) -> None:
        """Offer `namespace:action` at this node; `function`, if it is a plain one, runs in a thread.

        Options are those of DirectiveOptions.
        """
        self._set_up(lambda: self._mesh.register(name, function, **options))

    def directive(self, name: str, **options: Unpack[DirectiveOptions]) -> Callable[[Function], Function]:
        """Offer the function below as `namespace:action` at this node: `@mesh.directive("text:shout")`.

        Options are those of DirectiveOptions.
        """
        check_directive(name)

        def offer(function: Function) -> Function:
            self.register(name, function, **options)
            return function

        return offer

    # -- the mesh ------------------------------------------------------------------------------------------------

    def nodes(self, target: str | None = None, *, tag: str | None = None) -> list[str]:
        """The ids of all nodes that can be reached, sorted, this one's among them; with `tag`, those that have it.

        With a `target`, such as `tag:gpu,!edge-9`, those that it stands for.
        """
        return self._do(in_the_loop(lambda: self._mesh.nodes(target, tag=tag)))

    def routes(self) -> list[Route]:
        """The routes in use, sorted by destination."""
        return self._do(in_the_loop(self._mesh.routes))

    def edges(self) -> list[tuple[str, str, int]]:
        """The links of the mesh as (node, node, cost), each once."""
        return self._do(in_the_loop(self._mesh.edges))

    def capabilities(self) -> dict[str, list[str]]:
        """For each node that can be reached, the directives that it offers."""
        return self._do(in_the_loop(self._mesh.capabilities))

    def tags(self) -> dict[str, Tags]:
        """For each node that can be reached, its tags."""
        return self._do(in_the_loop(self._mesh.tags))

    def duplicates(self) -> list[str]:
        """The ids that two live nodes use, sorted."""
        return self._do(in_the_loop(self._mesh.duplicates))

    def links(self) -> list[LinkStatus]:
        """The links of this node that are up, sorted by neighbour."""
        return self._do(in_the_loop(self._mesh.links))

    def stats(self) -> Stats:
        """The counters and gauges of this moment: open requests, queued bytes, and counts of events."""
        return self._do(in_the_loop(self._mesh.stats))

    def events(self) -> Iteration[Event]:
        """The events of this node's links and of the nodes that it can reach, from now on, until it closes."""
        node_thread = self._opened()
        events = node_thread.do(in_the_loop(self._mesh.events))
        return self._iterating(Iteration(node_thread, aiter(events), lambda: events.__aexit__(None, None, None)))

    def wait_for(self, node: str, timeout: float | None = None) -> None:
        """Wait until there is a route to `node`. Raises Unreachable after `timeout` seconds, and Closed."""
        self._do(lambda: self._mesh.wait_for(node, timeout))

    # -- sending -------------------------------------------------------------------------------------------------

    def request(
        self,
        node: str,
        directive: str,
        payload: PayloadLike = None,
        **options: Unpack[RequestOptions],
    ) -> Payload | None:
        """Send a directive to a node and wait for the one payload that it replies; None if it replies none.

        Options are those of RequestOptions. Raises an ExchangeError if the work fails, and TooManyReplies if there is a
        second reply.
        """
        return self._do(lambda: self._mesh.request(node, directive, payload, **options))

    def stream(
        self,
        node: str,
        directive: str,
        payload: PayloadLike = None,
        *,
        buffered: bool = True,
        writable: bool = False,
        **options: Unpack[RequestOptions],
    ) -> ReplyStream:
        """Send a directive to a node and take its replies: `with mesh.stream(...) as replies: for reply in replies`.

        With `buffered=False`, each reply is given as soon as it begins, and `for chunk in reply.payload` waits for the
        rest. With `writable=True`, the request stays open for `write` and `end`, which another thread may call. As
        `zmesh.Controller.stream` in all else.
        """
        node_thread = self._opened()
        node_thread.loop()
        replies = self._mesh.stream(node, directive, payload, buffered=buffered, writable=writable, **options)
        return self._iterating(ReplyStream(node_thread, replies))

    def request_many(
        self,
        nodes: Iterable[str] | str | None = None,
        directive: str = "",
        payload: PayloadLike = None,
        *,
        tag: str | None = None,
        limit: int = LIMIT,
        **options: Unpack[RequestOptions],
    ) -> Iteration[Answer]:
        """Send a directive to many nodes; iterate over what this returns for an Answer of each, as they come.

        As `zmesh.Controller.request_many` in all else.
        """
        mesh, node_thread = self._mesh, self._opened()
        wanted = nodes if nodes is None or isinstance(nodes, str) else list(nodes)
        begin = in_the_loop(lambda: mesh.request_many(wanted, directive, payload, tag=tag, limit=limit, **options))
        answers = node_thread.do(begin)
        return self._iterating(Iteration(node_thread, aiter(answers), answers.aclose))

    # -- messages ------------------------------------------------------------------------------------------------

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
    ) -> str:
        """Send a directive and don't wait; its message id. A handler is called in the node's thread."""
        node_thread = self._opened()
        node_thread.check()
        sent = self._mesh.send(
            payload,
            recipient,
            directive,
            response_handler,
            expect_response,
            timeout,
            route_timeout=route_timeout,
            content_type=content_type,
            metadata=metadata,
        )
        return sent.message_id

    def ping(
        self,
        node: str,
        response_handler: ResponseHandler | None = None,
        expect_response: bool = True,
        timeout: float | None = None,
    ) -> str:
        """Ping a node and don't wait; the message id. The reply's payload is JSON."""
        node_thread = self._opened()
        node_thread.check()
        return self._mesh.ping(node, response_handler, expect_response, timeout).message_id

    def ping_once(self, node: str, timeout: float | None = PING_TIMEOUT, *, route_timeout: float | None = None) -> Pong:
        """Ping a node and wait for the answer. Raises TimedOut after `timeout` seconds, or Unreachable."""
        return self._do(lambda: self._mesh.ping_once(node, timeout, route_timeout=route_timeout))

    def recv(self, timeout: float | None = None) -> Message:
        """The next reply that has no handler. Raises TimedOut after `timeout` seconds, and Closed."""
        check_timeout(timeout)

        async def receive() -> Message:
            try:
                async with asyncio.timeout(timeout):
                    return await self._mesh.recv()
            except TimeoutError:
                raise TimedOut(f"no reply has come to {self.node_id!r} within {timeout} s", node=self.node_id) from None

        return self._do(receive)

    def cancel(self, message_id: str) -> None:
        """Stop a request of this node by its message id, 32 hex digits. Harmless if it is over.

        Raises ConfigError and TypeError for what can't be one.
        """
        self._do(in_the_loop(lambda: self._mesh.cancel(message_id)))

    def cancel_at(self, node: str, message_id: str | int, timeout: float | None = CANCEL_TIMEOUT) -> bool:
        """Stop the work for this message id at `node`, whichever node sent it; True once it has ended.

        `timeout` is in seconds. As `zmesh.Controller.cancel_at` in all else.
        """
        return self._do(lambda: self._mesh.cancel_at(node, message_id, timeout))
