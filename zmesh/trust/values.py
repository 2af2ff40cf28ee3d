"""The values that the functions of zmesh.trust take and return."""

from __future__ import annotations

from zmesh.identity import Identity, Issuer, LockedKey, Ticket, TrustError, fingerprint, grouped

__all__ = ["Identity", "Issuer", "LockedKey", "Ticket", "TrustError", "fingerprint", "grouped"]
