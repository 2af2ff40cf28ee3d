"""Hides secrets in texts: passwords in URLs, tickets, private keys, and what is assigned to a name such as `token`.

What zmesh itself shows of a node has no secrets; this is for texts that came from elsewhere, such as errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

HIDDEN = "***"
SECRET_NAME = re.compile(r"pass|secret|token|credential|private|api_?key|(\b|_)key(\b|_)", re.IGNORECASE)
"""Matches the name of a setting whose value is hidden."""
MAX_DEPTH = 32
_PATTERNS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"\bzm1[A-Za-z0-9_=-]{16,}"), f"zm1{HIDDEN}"),
    (re.compile(r"(://[^\s/:@'\"]*):[^\s/@'\"]+@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"(?i)\b((?:proxy-)?authorization\s*[:=]\s*)(?:(bearer|basic)\s+)?\S+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"(?i)((?:passwd|password|passphrase|secret|token|api[_-]?key|private[_-]?key)[\w-]{0,40}[\"']?\s?[=:]\s?)"
            r"(\"[^\"]*\"|'[^']*'|[^\s,;&]+)"
        ),
        rf"\1{HIDDEN}",
    ),
)


def redacted_text(text: str) -> str:
    """The text without secrets."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redacted(value: object, depth: int = 0) -> object:
    """A JSON value whose texts have no secrets; what is nested deeper than MAX_DEPTH is hidden as a whole."""
    if isinstance(value, str):
        return redacted_text(value)
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if depth >= MAX_DEPTH:
        return HIDDEN
    if isinstance(value, Mapping):
        return {redacted_text(str(key)): redacted(each, depth + 1) for key, each in value.items()}
    return [redacted(each, depth + 1) for each in value]


def without_secrets(name: str, value: object, depth: int = 0) -> object:
    """The value of a setting: hidden where its name is that of a secret, in tables within it as well."""
    if SECRET_NAME.search(name):
        return HIDDEN
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {str(key): without_secrets(str(key), each, depth + 1) for key, each in value.items()}
    if depth < MAX_DEPTH and isinstance(value, (list, tuple)):
        return [without_secrets("", each, depth + 1) for each in value]
    return redacted(value, depth)
