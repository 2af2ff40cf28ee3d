"""Who a node is and whom it trusts: keys, certificates of an authority, tickets, permissions, sealing of payloads.

Everything here is pure but `state`, which keeps it in a folder; `cryptography` is imported here and nowhere else. Every
name loads its module when it is first used, so that a node without an identity does not pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.identity.certificates import Certificate, issue, read_certificate
    from zmesh.identity.credentials import NodeCredentials
    from zmesh.identity.keys import IdentityKey, fingerprint
    from zmesh.identity.policy import Decision, Policy
    from zmesh.identity.tickets import Ticket
    from zmesh.identity.trust import Authority, Revocation, TrustError, TrustStore
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "certificates": ("Certificate", "issue", "read_certificate"),
            "credentials": ("NodeCredentials",),
            "keys": ("IdentityKey", "fingerprint"),
            "policy": ("Decision", "Policy"),
            "tickets": ("Ticket",),
            "trust": ("Authority", "Revocation", "TrustError", "TrustStore"),
        },
    )

__all__ = [
    "Authority",
    "Certificate",
    "Decision",
    "IdentityKey",
    "NodeCredentials",
    "Policy",
    "Revocation",
    "Ticket",
    "TrustError",
    "TrustStore",
    "fingerprint",
    "issue",
    "read_certificate",
]
