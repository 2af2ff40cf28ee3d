"""Requests as a program sends them: `request`, `stream`, `send` and the like, which a Controller inherits."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

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
from zmesh.errors import RemoteError
from zmesh.requests import LIMIT, Requester
from zmesh.runtime import new_message_id

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.node import Node
    from zmesh.payloads import Payload, PayloadLike
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

PING_TIMEOUT = 5.0
CANCEL_TIMEOUT = 10.0


class Messaging(Requester):
    """The part of a Controller that sends requests and receives replies."""

    _node: Node
    _inbox: requests.Inbox

    @property
    @abstractmethod
    def node(self) -> Node:
        """The node itself. Raises Closed in a fork of its process."""

    @abstractmethod
    def _ids(self, nodes: Iterable[str] | str | None, tag: str | None = None) -> list[str]:
        """The ids of the nodes that these or a tag stand for."""

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

        Before the node is open, a message without a handler waits for it, and one with a handler raises Closed.

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
        `mesh.request_many(directive="inventory:facts", tag="gpu")`. The error of a node is in its Answer, and
        delays no other. A node that is named twice gets one request. At most `limit` requests
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
        TimedOut if the work does not end in time, Unreachable, and ConfigError for a malformed id.
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
