"""Counts what a node refuses because of one of its limits."""

from __future__ import annotations

from zmesh.core.effects import Report
from zmesh.core.message import Address, NodeId
from zmesh.runtime import limit_of
from zmesh.serving.member_quota import member_of


def overload_report(error: BaseException, sender: str) -> Report | None:
    """What to count where a request of `sender` ends by `error`; None if it is no limit of this node."""
    limit = limit_of(error)
    return Report("overloaded", NodeId(Address(member_of(sender))), None, limit) if limit else None
