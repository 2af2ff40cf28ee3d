"""The client's side of an exchange: requests, their replies, and fan-out to many nodes.

A Controller makes one exchange for each request; `Requests` is the table of those that are open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.requests.exchange import Exchange, FireAndForget, Inboxed, Reply, ResponseHandler, WithHandler
    from zmesh.requests.fanout import Answer, Answers, Fanout, FanoutRequest, repeatable
    from zmesh.requests.inbox import Inbox, Replies
    from zmesh.requests.options import RequestOptions
    from zmesh.requests.ping import ActiveWork, Pong, read_pong
    from zmesh.requests.reachability import answer_of, route_to
    from zmesh.requests.reply_stream import ReplyStream
    from zmesh.requests.requester import Requester
    from zmesh.requests.requests import Requests
    from zmesh.requests.sent import Sent
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "exchange": ("Exchange", "FireAndForget", "Inboxed", "Reply", "ResponseHandler", "WithHandler"),
            "fanout": ("Answer", "Answers", "Fanout", "FanoutRequest", "repeatable"),
            "inbox": ("Inbox", "Replies"),
            "options": ("RequestOptions",),
            "ping": ("ActiveWork", "Pong", "read_pong"),
            "reachability": ("answer_of", "route_to"),
            "reply_stream": ("ReplyStream",),
            "requester": ("Requester",),
            "requests": ("Requests",),
            "sent": ("Sent",),
        },
    )

LIMIT = 100
"""Nodes of a fan-out that are asked at a time, unless the program says otherwise."""

__all__ = [
    "LIMIT",
    "ActiveWork",
    "Answer",
    "Answers",
    "Exchange",
    "Fanout",
    "FanoutRequest",
    "FireAndForget",
    "Inbox",
    "Inboxed",
    "Pong",
    "Replies",
    "Reply",
    "ReplyStream",
    "RequestOptions",
    "Requester",
    "Requests",
    "ResponseHandler",
    "Sent",
    "WithHandler",
    "answer_of",
    "read_pong",
    "repeatable",
    "route_to",
]
