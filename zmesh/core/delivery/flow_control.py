"""Flow control: the credit that a receiver gives to a sender (RFC 9000, section 4.1).

Credit is counted in bytes from the start of a stream, so that a lost or late acknowledgement does no harm. A chunk
takes up the size of its body and CHUNK_OVERHEAD; one that ends the exchange and has no body takes none, so that the
end, a reset above all, does not wait for a reader. A receiver's limit is one window above what its reader has read.
"""

from __future__ import annotations

from zmesh.core.delivery.congestion import INITIAL_WINDOW
from zmesh.core.wire import FLAG_EOF

WINDOW = INITIAL_WINDOW
"""Credit of a new stream."""

CHUNK_OVERHEAD = 512
ACK_EVERY = WINDOW // 4
"""Credit that is received, or read, before an acknowledgement is due at once."""


def credit_of(flags: int, size_bytes: int) -> int:
    """The credit that a chunk with a body of that size takes up."""
    return size_bytes + CHUNK_OVERHEAD if size_bytes or not flags & FLAG_EOF else 0


class FlowControlError(Exception):
    """A chunk exceeds the limit that its sender was given."""
