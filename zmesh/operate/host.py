"""The parts of a node that the readers of its state need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from zmesh.config import Config, Origin
    from zmesh.core.engine import Engine
    from zmesh.identity import Identity
    from zmesh.observe import Telemetry
    from zmesh.requests import Requests
    from zmesh.runtime import Tasks
    from zmesh.serving import Directives, Serving
    from zmesh.transport import Transport


class Host(Protocol):
    """A node whose state is shown."""

    config: Config
    directives: Directives
    engine: Engine
    identity: Identity | None
    listening: list[str]
    loop: asyncio.AbstractEventLoop | None
    requests: Requests
    serving: Serving
    tasks: Tasks
    started: float
    telemetry: Telemetry

    def settings(self) -> Iterable[tuple[str, object, Origin]]:
        """The settings without secrets: name, value as JSON has it, and where it comes from."""

    @property
    def job_counts(self) -> tuple[int, int]:
        """How many jobs run, and how many wait."""

    @property
    def transport(self) -> Transport | None:
        """The sockets, while the node is open."""
