"""Who a node is and whom it trusts: keys, certificates of an authority, tickets, permissions, sealing of payloads.

Everything here is pure but `state`, which keeps it in a folder; `cryptography` is imported here and nowhere else.
"""

from zmesh.identity.certificates import Certificate, issue, read_certificate
from zmesh.identity.credentials import NodeCredentials
from zmesh.identity.keys import IdentityKey, fingerprint
from zmesh.identity.policy import Decision, Policy
from zmesh.identity.tickets import Ticket
from zmesh.identity.trust import Authority, Revocation, TrustError, TrustStore

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
