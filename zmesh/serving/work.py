"""The request object passed to the function of a directive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Protocol

from zmesh.arguments import check_reset_code
from zmesh.core.message import NO_METADATA
from zmesh.errors import Cancelled
from zmesh.payloads import Outgoing, Payload

if TYPE_CHECKING:
    from contextvars import Context

    from zmesh.payloads import OutboundWriter


class ReplySink(Protocol):
    """The receiver of the replies of work: the client of a request, or the record of a job."""

    async def reply(self, outgoing: Outgoing) -> None:
        """Take one reply; waits while there is no room for it."""

    def finish(
        self,
        outgoing: Outgoing | None = None,
        *,
        reason: str | None = None,
        error: str | None = None,
        reset_code: int | None = None,
    ) -> None:
        """Take the end of the work, and one more reply before it, if given.

        `reason` is a code of zmesh.errors, None for success, and `error` its text; `reset_code` as in Work.reset.
        """


class WorkReset(Exception):
    """Raised by `Work.reset`; work that lets it pass ends with its code."""

    def __init__(self, text: str, reset_code: int) -> None:
        super().__init__(text)
        self.reset_code = reset_code


@dataclass(slots=True, eq=False)
class Work:
    """A request, as passed to the function of its directive.

    `message_id` is 32 hex digits, `sender` a node id or `leaf@node`. `config` is the section of the node's settings for
    the directive's namespace, `deadline` the loop's time (seconds) at which the client stops waiting, None without a
    timeout. The payload is closed when the work has ended. `metadata` is what the client sent beside it, text to text.

    `await work.read()`, `async for piece in work` and, in a thread, `for piece in work` take the payload in pieces; in
    a directive with `stream=True` as they come, also while it replies.
    """

    message_id: str
    directive: str
    sender: str
    header: Mapping[str, object]
    payload: Payload
    config: Mapping[str, object]
    cancelled: bool = False
    """True once the request was cancelled or its deadline passed; functions in threads poll it."""
    deadline: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    reset_code: int = 0
    """The code with which the client has reset the request; 0 if it did not, or cancelled it. Not known to isolated
    directives."""
    _pieces: AsyncIterator[bytes] | None = field(default=None, init=False, repr=False)
    _open_reply: Callable[[str, Mapping[str, str]], OutboundWriter] | None = field(default=None, init=False, repr=False)

    _context: Context | None = field(default=None, init=False, repr=False)
    """The context that a worker thread runs this work in; None: that of the thread."""

    async def read(self) -> bytes:
        """The next piece of the payload, as soon as it is there; b"" at the end. For async directives.

        Pieces are not messages: writes of the client may be joined or divided. Raises what has ended the payload early.
        """
        if self._pieces is None:
            self._pieces = aiter(self.payload)
        return await anext(self._pieces, b"")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self.payload)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.payload)

    def open_reply(self, content_type: str = "", metadata: Mapping[str, str] = NO_METADATA) -> OutboundWriter:
        """Open the only reply at once; the writer that is returned writes its payload while the work goes on.

        For async directives that return None, after the `end` of the writer; not for isolated ones.
        """
        assert self._open_reply is not None, "isolated work has no stream of its own"
        return self._open_reply(content_type, metadata)

    def reset(self, code: int, text: str = "") -> NoReturn:
        """End the request at once with a code of the program's own, from 0 to 2**32 - 1.

        Raises WorkReset, to be let pass. Replies that were not sent yet are dropped. The client's error is a Cancelled
        with that `reset_code`. Raises TypeError and ConfigError for what can't be a code.
        """
        check_reset_code(code)
        raise WorkReset(text or f"{self.directive} has reset the request with code {code}", code)

    def raise_if_cancelled(self) -> None:
        """Raises Cancelled if the request was cancelled or its deadline passed."""
        if self.cancelled:
            raise self.cancellation()

    def cancellation(self) -> Cancelled:
        """The error to raise after cancellation."""
        return Cancelled(f"{self.directive} was cancelled", message_id=self.message_id, reset_code=self.reset_code)
