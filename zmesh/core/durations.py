"""Durations in the texts of errors and log lines."""

from __future__ import annotations


def span(seconds: float) -> str:
    """A duration in the largest unit of which there are two: `12 s`, `5 min`, `3 h`, `4 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
