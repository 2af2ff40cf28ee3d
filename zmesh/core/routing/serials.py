"""How far the numbers that order two statements may be ahead of the clock: serials of records, seqnos of routes.

Both begin with the milliseconds since 1970 at each start of a node and grow by one, so the clock outruns them. Without
a ceiling, a member that uses the highest number of all in another node's name could never be superseded, since the node
itself can't use a higher one (OSPF has to flush the statement from everywhere then, RFC 2328 section 12.1.6; IS-IS has
to be silent until it has aged, ISO 10589 section 7.3.16.1). Here a number that is more than MAX_LEAD_MS ahead of the
receiver's clock is neither accepted nor forwarded. The ceiling rises by a thousand a second, so there is always room
for the node itself to re-originate above what was accepted.

The lead is so large that a clock which is wrong by centuries is still accepted everywhere: it has to rule out only the
end of the range. Where clocks differ, a member can choose a number that some nodes accept and others do not yet; they
agree again after as long as their clocks differ, or once the node has been gone for as long as records are kept.
"""

from __future__ import annotations

from zmesh.core.wire import U63

MAX_LEAD_MS = 1 << 44
HIGHEST = U63 - 1
"""The highest number that is accepted; one is left above it, for the node that has to re-originate."""


def ceiling(epoch: float, now: float) -> int:
    """The highest number to accept at `now`, where `epoch` is the seconds since 1970 at `now` 0."""
    return min(HIGHEST, max(0, int((epoch + now) * 1000)) + MAX_LEAD_MS)
