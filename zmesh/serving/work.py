"""The request object passed to the function of a directive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zmesh.errors import Cancelled
from zmesh.payloads import Payload


@dataclass(slots=True, eq=False)
class Work:
    """A request, as passed to the function of its directive.

    `config` is the section of the node's settings for the directive's namespace, `deadline` the loop's time (seconds)
    at which the client stops waiting. The payload is closed when the work has ended. `metadata` is what the client sent
    beside it, text to text.
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

    def raise_if_cancelled(self) -> None:
        """Raises Cancelled if the request was cancelled or its deadline passed."""
        if self.cancelled:
            raise self.cancellation()

    def cancellation(self) -> Cancelled:
        """The error to raise after cancellation."""
        return Cancelled(f"{self.directive} was cancelled", message_id=self.message_id)
