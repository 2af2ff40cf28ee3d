"""The management of trust, as functions: make a mesh, invite and join nodes, revoke them, renew, rotate.

    made = zmesh.trust.init("lab", listen=("tcp://0.0.0.0:7323",))
    print(zmesh.trust.invite("edge-7", tags=("gpu",)))

The commands `zmesh init`, `invite`, `join`, `identity`, `authority`, `revoke` and `context` are these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.trust.addresses import is_loopback, reachable_urls
    from zmesh.trust.authority import (
        INVITE_FOR,
        Standing,
        begin_rotation,
        finish_rotation,
        holders,
        invite,
        invites,
        public_line,
        remove_invites,
        revoke,
        sign,
        standings,
    )
    from zmesh.trust.contexts import Contexts, default_folder, named_folder
    from zmesh.trust.joining import begin_offline, finish_offline, join, keep_valid, renew
    from zmesh.trust.setup import Made, holds_authority, init, load, open_state
    from zmesh.trust.values import Identity, Issuer, LockedKey, Ticket, TrustError, fingerprint, grouped
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "addresses": ("is_loopback", "reachable_urls"),
            "authority": (
                "INVITE_FOR",
                "Standing",
                "begin_rotation",
                "finish_rotation",
                "holders",
                "invite",
                "invites",
                "public_line",
                "remove_invites",
                "revoke",
                "sign",
                "standings",
            ),
            "contexts": ("Contexts", "default_folder", "named_folder"),
            "joining": ("begin_offline", "finish_offline", "join", "keep_valid", "renew"),
            "setup": ("Made", "holds_authority", "init", "load", "open_state"),
            "values": ("Identity", "Issuer", "LockedKey", "Ticket", "TrustError", "fingerprint", "grouped"),
        },
    )

__all__ = [
    "INVITE_FOR",
    "Contexts",
    "Identity",
    "Issuer",
    "LockedKey",
    "Made",
    "Standing",
    "Ticket",
    "TrustError",
    "begin_offline",
    "begin_rotation",
    "default_folder",
    "fingerprint",
    "finish_offline",
    "finish_rotation",
    "grouped",
    "holders",
    "holds_authority",
    "init",
    "invite",
    "invites",
    "is_loopback",
    "join",
    "keep_valid",
    "load",
    "named_folder",
    "open_state",
    "public_line",
    "reachable_urls",
    "remove_invites",
    "renew",
    "revoke",
    "sign",
    "standings",
]
