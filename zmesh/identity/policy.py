"""Permissions: which node may call which directive here.

The table `[allow]` maps directive patterns to subjects: a node id, `tag:NAME`, or `*` for every member. A pattern is
a directive (`inventory:facts`), all of a namespace (`exec:*`), or `*`. The most specific pattern that matches decides,
and it alone. Without a match any member may call a directive, but for those of DANGEROUS namespaces, which take over
the machine, and those of GUARDED, which show who may do so: they are off until they are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from zmesh.errors import ConfigError

DANGEROUS = frozenset({"exec", "file", "job", "job-admin", "tcp"})
"""Namespaces whose directives are off until they are allowed."""
GUARDED = frozenset({"zmesh:settings"})
"""Directives of other namespaces that are off until they are allowed."""
BY_GRANT = frozenset({"file:granted"})
"""Directives of DANGEROUS namespaces that any member may call, as they require a token that they have given out."""
EVERYONE = "*"
ENROL = "zmesh:enrol"
"""The directive that redeems a ticket."""
RENEW = "zmesh:renew"
"""The directive that renews a certificate."""
FOR_NEWCOMERS = frozenset({ENROL, RENEW})
"""The only directives that a node without a valid certificate may call."""
MAX_RULES = 1024
MAX_SUBJECTS = 4096
_PATTERN = re.compile(r"\*\Z|[^\s:*]+:(\*|[^\s*]+)\Z")
_SUBJECT = re.compile(r"\*\Z|(tag:)?[A-Za-z0-9._-]{1,64}\Z")


class Decision(NamedTuple):
    """Whether a call is allowed, and by which rule; `remedy` is the line of the configuration that would allow it."""

    allowed: bool
    rule: str
    remedy: str = ""


_OFF = (*(f"{namespace}:" for namespace in sorted(DANGEROUS)), *GUARDED)
_ANYBODY = Decision(True, "no rule: any member may")
_BY_GRANT = Decision(True, "whoever has been granted it")


class Policy:
    """The permissions of one node."""

    __slots__ = ("_rules",)

    def __init__(self, allow: Mapping[str, Iterable[str] | str] | None = None) -> None:
        """`allow`: subjects by pattern. Raises ConfigError for a malformed pattern or subject."""
        self._rules: dict[str, frozenset[str]] = {}
        for pattern, subjects in (allow or {}).items():
            self._rules[_checked_pattern(pattern)] = _checked_subjects(pattern, subjects)
        if len(self._rules) > MAX_RULES:
            raise ConfigError(f"[allow] has {len(self._rules)} patterns, where {MAX_RULES} are allowed")

    def over(self, other: Policy) -> Policy:
        """These permissions and, for patterns that they do not have, those of `other`."""
        joined = Policy()
        joined._rules = {**other._rules, **self._rules}
        return joined

    def rules(self) -> Mapping[str, frozenset[str]]:
        """The subjects by pattern."""
        return self._rules

    def __len__(self) -> int:
        return len(self._rules)

    def offers(self, directive: str) -> bool:
        """Whether any node may call the directive, so that it is worth advertising."""
        if directive in BY_GRANT:
            return False
        namespace = directive.partition(":")[0]
        off = _is_off(directive, namespace)
        for pattern in (directive, f"{namespace}:*", EVERYONE):
            subjects = self._rules.get(pattern)
            if subjects is not None and not (pattern == EVERYONE and off):
                return bool(subjects)
        return not off

    def allows_all(self, directive: str) -> bool:
        """Whether every member may call the directive because there are no rules at all; asked for each request."""
        return not self._rules and not directive.startswith(_OFF)

    def decide(self, directive: str, node_id: str, tags: Iterable[str] = ()) -> Decision:
        """Whether that node, which holds those tags, may call the directive."""
        namespace = directive.partition(":")[0]
        if directive in BY_GRANT and directive not in self._rules:
            return _BY_GRANT
        off = _is_off(directive, namespace)
        if not self._rules and not off:
            return _ANYBODY
        for pattern in (directive, f"{namespace}:*", EVERYONE):
            subjects = self._rules.get(pattern)
            if subjects is None or (pattern == EVERYONE and off):
                continue
            held = (EVERYONE, node_id, *(f"tag:{tag}" for tag in tags))
            allowed = not subjects.isdisjoint(held)
            return Decision(allowed, _shown(pattern, subjects), "" if allowed else _remedy(pattern, subjects, node_id))
        if off:
            pattern = directive if directive in GUARDED else f"{namespace}:*"
            return Decision(False, f"{pattern} is off until it is allowed", _remedy(pattern, (), node_id))
        return _ANYBODY


def _is_off(directive: str, namespace: str) -> bool:
    """Whether no node may call it before a rule says so."""
    return namespace in DANGEROUS or directive in GUARDED


def _text(value: object) -> str:
    """The value for an error; of what is no text its type, since its own text may raise."""
    return repr(value) if isinstance(value, str) else type(value).__name__


def _checked_pattern(pattern: object) -> str:
    if not isinstance(pattern, str) or not _PATTERN.match(pattern):
        raise ConfigError(f"[allow] {_text(pattern)} is no pattern: namespace:action, namespace:* or *")
    return pattern


def _checked_subjects(pattern: str, subjects: object) -> frozenset[str]:
    if isinstance(subjects, str):
        subjects = [subjects]
    if not isinstance(subjects, Iterable) or isinstance(subjects, (bytes, Mapping)):
        raise ConfigError(f"[allow] {pattern!r} takes a list of node ids and tags, not {_text(subjects)}")
    found = list(subjects)
    if len(found) > MAX_SUBJECTS:
        raise ConfigError(f"[allow] {pattern!r} names {len(found)} subjects, where {MAX_SUBJECTS} are allowed")
    for subject in found:
        if not isinstance(subject, str) or not _SUBJECT.match(subject):
            raise ConfigError(f"[allow] {pattern!r}: {_text(subject)} is no node id, tag:NAME or *")
    return frozenset(found)


def _shown(pattern: str, subjects: Iterable[str]) -> str:
    names = ", ".join(f'"{subject}"' for subject in sorted(subjects))
    return f'"{pattern}" = [{names}]'


def _remedy(pattern: str, subjects: Iterable[str], node_id: str) -> str:
    return f"[allow] {_shown(pattern, {*subjects, node_id})}"
