"""Who is in the mesh: a node enrols others, renews its certificate, and takes changes of its state in while it runs.

`Membership` is the part of a node with an identity; `ask_as_newcomer` is what one does that has no certificate which is
believed, to get one.
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
