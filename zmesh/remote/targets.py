"""Targets: a set of nodes as one text.

A target has terms with commas between them: a node id, `tag:NAME` for all nodes that have the tag, `*` for all nodes;
a term with `!` before it is excluded. A target of exclusions alone stands for all others.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from zmesh.arguments import shown
from zmesh.core.message import is_address, is_node_id
from zmesh.errors import ConfigError

TAG = "tag:"
EVERYONE = "*"
EXCEPT = "!"


@dataclass(frozen=True, slots=True)
class Target:
    """A target that was read; `included` and `excluded` are its terms."""

    included: tuple[str, ...]
    excluded: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Target:
        """Read a target. Raises ConfigError, which names the malformed term, and TypeError."""
        if not isinstance(text, str):
            raise TypeError(f"a target is a str such as edge-7 or tag:gpu, not {shown(text)}")
        terms = [term.strip() for term in text.split(",")]
        for term in terms:
            name = term.removeprefix(EXCEPT)
            if name.startswith(TAG) and is_node_id(name.removeprefix(TAG)):
                continue
            if name != EVERYONE and not is_address(name):
                where = f" in {shown(text)}" if len(terms) > 1 else ""
                raise ConfigError(f"{shown(term)}{where} is no target: give the id of a node, tag:NAME, or !NODE")
        included = tuple(term for term in terms if not term.startswith(EXCEPT))
        excluded = tuple(term.removeprefix(EXCEPT) for term in terms if term.startswith(EXCEPT))
        return cls(included or (EVERYONE,), excluded)

    @property
    def node(self) -> str | None:
        """The id of the one node that it names; None if it may be for several."""
        term = self.included[0]
        is_one = len(self.included) == 1 and not self.excluded and term != EVERYONE and not term.startswith(TAG)
        return term if is_one else None

    @property
    def names_nodes(self) -> bool:
        """Whether it names each of its nodes, so that it can be resolved without the tables of the mesh."""
        return not any(term == EVERYONE or term.startswith(TAG) for term in (*self.included, *self.excluded))

    def nodes(self, known: Mapping[str, Container[str]]) -> list[str]:
        """The nodes that it stands for, without repetitions, in its order, and those of one term sorted.

        `known` maps the nodes that can be reached to their tags. A node that is named need not be among them.
        """
        left_out = {node for term in self.excluded for node in _nodes_of(term, known)}
        found = (node for term in self.included for node in _nodes_of(term, known))
        return [node for node in dict.fromkeys(found) if node not in left_out]


def _nodes_of(term: str, known: Mapping[str, Container[str]]) -> list[str]:
    if term == EVERYONE:
        return sorted(known)
    if term.startswith(TAG):
        tag = term.removeprefix(TAG)
        return sorted(node for node, tags in known.items() if tag in tags)
    return [term]
