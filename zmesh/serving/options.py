"""How a directive is offered, as keyword arguments."""

from __future__ import annotations

from typing import TypedDict


class DirectiveOptions(TypedDict, total=False):
    """How a directive is offered.

    With `stream` it starts with the first chunk of the payload. With `isolate` each call runs in a process of its own,
    which may use `max_memory_bytes`, and `max_cpu_seconds` of processor time. All as `zmesh.directive`.
    """

    stream: bool
    isolate: bool
    max_memory_bytes: int | None
    max_cpu_seconds: int | None
