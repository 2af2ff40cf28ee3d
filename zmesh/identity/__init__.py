"""Who a node is and whom it trusts: keys, certificates of an authority, tickets, permissions, sealing of payloads.

Everything here is pure but what keeps it in a folder: `state`, `contexts`, `identity`, `invites`, `issuer`.
`cryptography` is imported here and nowhere else, and only once a name that needs it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.identity.certificates import Certificate, issue, read_certificate
    from zmesh.identity.contexts import Contexts, default_folder, named_folder
    from zmesh.identity.credentials import NodeCredentials
    from zmesh.identity.enrolment import (
        ENROL,
        RENEW,
        TRUST,
        answer,
        join_request,
        read_answer,
        refusal,
        renew_request,
        take_trust,
        trust_fields,
    )
    from zmesh.identity.identity import CurveKeys, Identity, Profile
    from zmesh.identity.invites import Invite, Invites
    from zmesh.identity.issuer import Issuer, LockedKey
    from zmesh.identity.keys import IdentityKey, fingerprint, grouped
    from zmesh.identity.policy import Decision, Policy
    from zmesh.identity.state import State, StateError
    from zmesh.identity.tickets import Ticket
    from zmesh.identity.trust import Authority, Endorsement, Revocation, TrustError, TrustStore
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "certificates": ("Certificate", "issue", "read_certificate"),
            "contexts": ("Contexts", "default_folder", "named_folder"),
            "credentials": ("NodeCredentials",),
            "enrolment": (
                "ENROL",
                "RENEW",
                "TRUST",
                "answer",
                "join_request",
                "read_answer",
                "refusal",
                "renew_request",
                "take_trust",
                "trust_fields",
            ),
            "identity": ("CurveKeys", "Identity", "Profile"),
            "invites": ("Invite", "Invites"),
            "issuer": ("Issuer", "LockedKey"),
            "keys": ("IdentityKey", "fingerprint", "grouped"),
            "policy": ("Decision", "Policy"),
            "state": ("State", "StateError"),
            "tickets": ("Ticket",),
            "trust": ("Authority", "Endorsement", "Revocation", "TrustError", "TrustStore"),
        },
    )

__all__ = [
    "ENROL",
    "RENEW",
    "TRUST",
    "Authority",
    "Certificate",
    "Contexts",
    "CurveKeys",
    "Decision",
    "Endorsement",
    "Identity",
    "IdentityKey",
    "Invite",
    "Invites",
    "Issuer",
    "LockedKey",
    "NodeCredentials",
    "Policy",
    "Profile",
    "Revocation",
    "State",
    "StateError",
    "Ticket",
    "TrustError",
    "TrustStore",
    "answer",
    "default_folder",
    "fingerprint",
    "grouped",
    "issue",
    "join_request",
    "named_folder",
    "read_answer",
    "read_certificate",
    "refusal",
    "renew_request",
    "take_trust",
    "trust_fields",
]
