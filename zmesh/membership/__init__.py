"""Membership in the mesh: a node enrols others, renews its certificate, and takes up changes of its state.

`Membership` is the part of a node with an identity; `ask_as_newcomer` requests a certificate for a node without a valid
one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.membership.asking import Newcomer, ask_as_newcomer, renew_as_newcomer
    from zmesh.membership.issuing import Issuing
    from zmesh.membership.membership import Host, Membership, StateRead
    from zmesh.membership.schedule import Schedule, warning
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "asking": ("Newcomer", "ask_as_newcomer", "renew_as_newcomer"),
            "issuing": ("Issuing",),
            "membership": ("Host", "Membership", "StateRead"),
            "schedule": ("Schedule", "warning"),
        },
    )

__all__ = [
    "Host",
    "Issuing",
    "Membership",
    "Newcomer",
    "Schedule",
    "StateRead",
    "ask_as_newcomer",
    "renew_as_newcomer",
    "warning",
]
