"""How a request is sent, as keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict


class RequestOptions(TypedDict, total=False):
    """How a request is sent.

    `timeout` are the seconds for the whole exchange, `route_timeout` those that it may be without a route.
    `content_type` says what the payload is, `metadata` maps text to text for the directive. All as `Controller.send`.
    """

    timeout: float | None
    route_timeout: float | None
    content_type: str | None
    metadata: Mapping[str, str] | None
