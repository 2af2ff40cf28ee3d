"""The result of `send` and `ping`."""

from __future__ import annotations

from collections.abc import Generator


class Sent:
    """A message that is under way: its `message_id`, which awaiting this gives too."""

    __slots__ = ("message_id",)

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id

    def __await__(self) -> Generator[None, None, str]:
        yield from ()
        return self.message_id

    def __repr__(self) -> str:
        return f"Sent({self.message_id!r})"
