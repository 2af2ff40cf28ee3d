"""The interface for sending requests, which the parts of a Controller are built on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.payloads import Payload, PayloadLike
    from zmesh.requests.options import RequestOptions
    from zmesh.requests.reply_stream import ReplyStream


class Requester(ABC):
    """The base class of what sends requests as a Controller does."""

    @abstractmethod
    async def request(
        self, node: str, directive: str, payload: PayloadLike = None, **options: Unpack[RequestOptions]
    ) -> Payload | None:
        """As `Controller.request`."""

    @abstractmethod
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
        """As `Controller.stream`."""
