"""The state of one running request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from zmesh.serving.directives import RegisteredDirective
from zmesh.serving.work import ReplySink, Work


class RunningWork:
    """State of one running request. `claim`, for threads only, is taken by the thread or by an early cancel."""

    __slots__ = (
        "by",
        "claim",
        "entry",
        "handing",
        "reason",
        "request",
        "started",
        "task",
        "thread",
        "timer",
        "watchers",
        "work",
    )

    def __init__(self, work: Work, request: ReplySink, entry: RegisteredDirective) -> None:
        self.work = work
        self.request = request
        self.entry = entry
        self.task: asyncio.Task[None] | None = None
        self.started = False
        self.claim: threading.Lock | None = None
        self.thread: str | None = None
        self.handing: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.reason: str | None = None
        self.by: str | None = None
        self.watchers: list[Callable[[], None]] = []
