"""The requests under way at a node by message id, and by the id of each of their replies.

The engine brings chunks and cancels straight to their request. This serves those who name one by its id: the directive
`zmesh:cancel`, closing, and effects that the engine emitted before it had the request's handle.

The id of a reply is that of its request plus its serial number, so requests are also found by the upper bits of the id,
which all replies share with it (or the next higher ones, after a carry).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Generic, Protocol, TypeVar

from zmesh.core.message import MessageId

SERIAL_BITS = 32
BUCKET_COMPARED = 8
"""Requests of the same upper bits that are looked at; ids are chosen by senders, who may make them alike."""

SIMILAR_COMPARED = 1_000
DIGITS = 32
_LOWEST = int("1" * DIGITS, 16)


class Numbered(Protocol):
    """A request as the index needs it: `serial` is the number of its last reply."""

    id: MessageId
    serial: int


R = TypeVar("R", bound=Numbered)


class RequestIndex(Generic[R]):
    """The index of one node."""

    __slots__ = ("_alike", "_requests")

    def __init__(self) -> None:
        self._requests: dict[MessageId, R] = {}
        self._alike: dict[bytes, list[R]] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[R]:
        return iter(list(self._requests.values()))

    def add(self, request: R) -> R:
        """Add a request, in place of one of the same id."""
        self.pop(request.id)
        self._requests[request.id] = request
        self._alike.setdefault(_upper(request.id), []).append(request)
        return request

    def get(self, id: MessageId) -> R | None:
        """The request of that id; None if it is not under way."""
        return self._requests.get(id)

    def pop(self, id: MessageId) -> R | None:
        """Remove the request of that id, and return it; None if it is not there."""
        request = self._requests.pop(id, None)
        if request is not None:
            upper = _upper(id)
            alike = self._alike[upper]
            if len(alike) == 1:
                del self._alike[upper]
            else:
                alike.remove(request)
        return request

    def find(self, number: int) -> R | None:
        """The request with that id, or with a reply of that id, read as a number of 128 bits; None if there is none."""
        request = self._requests.get(MessageId(number.to_bytes(16, "big")))
        if request is not None:
            return request
        upper = number >> SERIAL_BITS
        for each in (upper, upper - 1):
            for request in self._alike.get(each.to_bytes(12, "big", signed=each < 0), ())[-BUCKET_COMPARED:]:
                if 0 <= number - int.from_bytes(request.id, "big") <= request.serial:
                    return request
        return None

    def most_similar(self, number: int, similarity: float) -> MessageId | None:
        """The id, among the latest SIMILAR_COMPARED, that agrees with `number` in the most hex digits.

        None if it agrees in fewer than the share `similarity` of them.
        """
        closest: MessageId | None = None
        fewest = DIGITS * (1 - similarity)
        for id in islice(reversed(self._requests), SIMILAR_COMPARED):
            wrong = int.from_bytes(id, "big") ^ number
            wrong |= wrong >> 2
            count = ((wrong | wrong >> 1) & _LOWEST).bit_count()
            if count <= fewest:
                closest, fewest = id, count
        return closest


def _upper(id: MessageId) -> bytes:
    return id[: 16 - SERIAL_BITS // 8]
