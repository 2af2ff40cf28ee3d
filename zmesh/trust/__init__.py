"""What a person does about trust, as functions: make a mesh, invite and join nodes, revoke them, renew, rotate.

    made = zmesh.trust.init("lab", listen=("tcp://0.0.0.0:7323",))
    print(zmesh.trust.invite("edge-7", tags=("gpu",)))

The commands `zmesh init`, `invite`, `join`, `identity`, `authority`, `revoke` and `context` are these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.trust.addresses import is_loopback, reachable_urls
    from zmesh.trust.contexts import Contexts, default_folder, named_folder
    from zmesh.trust.setup import Made, holds_authority, init, load, open_state
    from zmesh.trust.values import Identity, Issuer, LockedKey, Ticket, TrustError, fingerprint, grouped
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "addresses": ("is_loopback", "reachable_urls"),
            "contexts": ("Contexts", "default_folder", "named_folder"),
            "setup": ("Made", "holds_authority", "init", "load", "open_state"),
            "values": ("Identity", "Issuer", "LockedKey", "Ticket", "TrustError", "fingerprint", "grouped"),
        },
    )

__all__ = [
    "Contexts",
    "Identity",
    "Issuer",
    "LockedKey",
    "Made",
    "Ticket",
    "TrustError",
    "default_folder",
    "fingerprint",
    "grouped",
    "holds_authority",
    "init",
    "is_loopback",
    "load",
    "named_folder",
    "open_state",
    "reachable_urls",
]
