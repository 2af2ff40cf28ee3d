"""End-to-end delivery: each request ends exactly once, its work runs at most once, and its replies come in order.

An exchange has a client's and a server's side with two streams between them, which this package numbers, acknowledges,
retransmits, and bounds by flow control, congestion control and quotas; forwarding sends the frames that it makes.

Others use the `Delivery` of a node. `PROBE_INTERVAL` and `PEER_IDLE_TIMEOUT` say how long its tables may take to empty,
and an ack with the limit `PROBE_LIMIT` is a probe.
"""

from zmesh.core.delivery.delivery import Delivery
from zmesh.core.delivery.peers import PEER_IDLE_TIMEOUT, PROBE_LIMIT
from zmesh.core.delivery.sender import PROBE_INTERVAL

__all__ = ["PEER_IDLE_TIMEOUT", "PROBE_INTERVAL", "PROBE_LIMIT", "Delivery"]
