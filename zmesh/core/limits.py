"""How much of a node others may take up: every count and size that a neighbour or a member controls, by name.

The lengths of single fields and frames are limits of the wire (`zmesh.core.wire.limits`); these are limits of what a
node keeps and spends. Past one of them a request is refused as `overloaded` or a row is not taken up, and a Report says
so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one engine. Tests set them low."""

    departed_nodes: int = 1024
    """How many nodes that have left are remembered, for errors to say when that was; the first is forgotten."""


DEFAULT_LIMITS = Limits()
