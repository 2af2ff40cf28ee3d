"""TCP connections through the mesh: `forward`, `expose` and `open_connection`.

`Tunnels` is the part of a Controller that makes them; at the node that connects, `service` is the plugin of the
namespace `tcp`. A connection is one exchange: its two streams carry the bytes of the two directions, as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.tunnel.addresses import Endpoint, RemoteEndpoint
    from zmesh.tunnel.exposed import Exposed
    from zmesh.tunnel.forward import Forward, OnError
    from zmesh.tunnel.tunnels import Tunnels
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "addresses": ("Endpoint", "RemoteEndpoint"),
            "exposed": ("Exposed",),
            "forward": ("Forward", "OnError"),
            "tunnels": ("Tunnels",),
        },
    )

__all__ = ["Endpoint", "Exposed", "Forward", "OnError", "RemoteEndpoint", "Tunnels"]
