"""Identity and trust of a node: keys, certificates of an authority, tickets, permissions, sealing of payloads.

Everything here is pure but the modules that read and write a folder: `state`, `contexts`, `identity`, `invites`,
`issuer`.
`cryptography` is imported here and nowhere else, and only once a name that needs it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.identity.certificates import (
        Certificate,
        check_names,
        issue,
        read_certificate,
    )
    from zmesh.identity.contexts import Contexts, default_folder, named_folder
    from zmesh.identity.credentials import NodeCredentials
    from zmesh.identity.enrolment import (
        Answer,
        answer,
        join_request,
        read_answer,
        read_renewal,
        read_signed,
        refusal,
        renew_request,
        signed_fields,
        take_trust,
        trust_fields,
    )
    from zmesh.identity.grant import Grant
    from zmesh.identity.identity import (
        CurveKeys,
        Identity,
        Profile,
        read_json,
    )
    from zmesh.identity.invites import Invite, Invites
    from zmesh.identity.issuer import (
        Issued,
        Issuer,
        LockedKey,
        new_authority,
    )
    from zmesh.identity.keys import (
        IdentityKey,
        fingerprint,
        grouped,
        public_from_openssh,
        public_to_openssh,
    )
    from zmesh.identity.leaf_key import LeafKey
    from zmesh.identity.policy import ENROL, FOR_NEWCOMERS, RENEW, Decision, Policy
    from zmesh.identity.processor import sealing_speed
    from zmesh.identity.state import State, StateError
    from zmesh.identity.tickets import (
        Ticket,
        key_from_text,
        key_of,
        new_token,
        without_key,
    )
    from zmesh.identity.trust import Authority, Endorsement, Revocation, TrustError, TrustStore
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "certificates": (
                "Certificate",
                "issue",
                "read_certificate",
                "check_names",
            ),
            "contexts": ("Contexts", "default_folder", "named_folder"),
            "credentials": ("NodeCredentials",),
            "enrolment": (
                "answer",
                "join_request",
                "read_answer",
                "read_renewal",
                "refusal",
                "renew_request",
                "take_trust",
                "trust_fields",
                "read_signed",
                "signed_fields",
                "Answer",
            ),
            "identity": (
                "CurveKeys",
                "Identity",
                "Profile",
                "read_json",
            ),
            "invites": ("Invite", "Invites"),
            "issuer": (
                "Issuer",
                "LockedKey",
                "Issued",
                "new_authority",
            ),
            "grant": ("Grant",),
            "leaf_key": ("LeafKey",),
            "keys": (
                "IdentityKey",
                "fingerprint",
                "grouped",
                "public_from_openssh",
                "public_to_openssh",
            ),
            "policy": ("ENROL", "FOR_NEWCOMERS", "RENEW", "Decision", "Policy"),
            "processor": ("sealing_speed",),
            "state": ("State", "StateError"),
            "tickets": (
                "Ticket",
                "key_from_text",
                "key_of",
                "new_token",
                "without_key",
            ),
            "trust": ("Authority", "Endorsement", "Revocation", "TrustError", "TrustStore"),
        },
    )

__all__ = [
    "ENROL",
    "FOR_NEWCOMERS",
    "RENEW",
    "Answer",
    "Authority",
    "Certificate",
    "Contexts",
    "CurveKeys",
    "Decision",
    "Endorsement",
    "Grant",
    "Identity",
    "IdentityKey",
    "Invite",
    "Invites",
    "Issued",
    "Issuer",
    "LeafKey",
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
    "check_names",
    "default_folder",
    "fingerprint",
    "grouped",
    "issue",
    "join_request",
    "key_from_text",
    "key_of",
    "named_folder",
    "new_authority",
    "new_token",
    "public_from_openssh",
    "public_to_openssh",
    "read_answer",
    "read_certificate",
    "read_json",
    "read_renewal",
    "read_signed",
    "refusal",
    "renew_request",
    "sealing_speed",
    "signed_fields",
    "take_trust",
    "trust_fields",
    "without_key",
]
