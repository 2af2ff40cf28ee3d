"""Observation of one node: its reports are counted, logged, kept and passed on; its links and counts are read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from zmesh.core.effects import Report
from zmesh.core.message import Address, LinkId, NodeId
from zmesh.runtime import log_exception, must_propagate

if TYPE_CHECKING:
    from zmesh.core.engine import Engine
    from zmesh.observe.events import Event, Events
    from zmesh.observe.journal import Journal, Neighbour
    from zmesh.observe.link_history import LinkHistory
    from zmesh.observe.router import Router
    from zmesh.observe.stats import LinkStatus
    from zmesh.observe.telemetry import Telemetry

log = logging.getLogger(__name__)


class Addresses(Protocol):
    """The addresses of the other ends of links."""

    def remote_address(self, link: LinkId) -> str:
        """The address of the other end of a link; "" if the link is closed."""

    def dialled_url(self, link: LinkId) -> str | None:
        """The URL that a link was dialled at; None for one that was accepted."""


class Observation:
    """The observers of one node, and what they are shown. Reports of the engine are handed to `note`."""

    def __init__(self, node_id: str, engine: Engine, router: Router, telemetry: Telemetry) -> None:
        self._node_id = node_id
        self._engine = engine
        self._router = router
        self._telemetry = telemetry
        self._observers: list[Callable[[Report], None]] = []
        self._events: set[Events] = set()
        self._journal: Journal | None = None
        self._ended = False
        self.addresses: Addresses | None = None
        """The transport, once the node is open."""
        self.history: LinkHistory | None = None
        """The history of the links; None at an ephemeral node."""

    def keep_history(self) -> LinkHistory:
        """Keep a history of the links from now on."""
        from zmesh.observe.link_history import LinkHistory  # here: no command keeps one

        self.history = LinkHistory()
        return self.history

    def start_journal(self, loop: asyncio.AbstractEventLoop) -> None:
        """Log events for operators from now on."""
        from zmesh.observe.journal import Journal  # here: commands need not load it

        self._journal = Journal(self._node_id, self, loop)

    def end(self) -> None:
        """End the streams of events."""
        self._ended = True
        for events in self._events:
            events.end()

    def close(self) -> None:
        """Log the lines that wait, and end the journal."""
        if self._journal is not None:
            self._journal.close()

    # -- reports -------------------------------------------------------------------------------------------------

    def note(self, report: Report) -> None:
        """Count, keep and log a report of the engine or of another part of the node."""
        self._telemetry.note(report)
        if self.history is not None:
            self.history.note(report, self.end_of)
        if self._journal is not None:
            self._journal.note(report)

    def publish(self, report: Report) -> None:
        """Pass a report on to observers and streams of events; what an observer raises is logged."""
        for observer in self._observers:
            try:
                observer(report)
            except BaseException as error:
                if must_propagate(error):
                    raise
                log_exception(log, "an observer of the events of %s raised", self._node_id, error=error)
        for events in self._events:
            events.note(report)

    def watch(self, observer: Callable[[Report], None]) -> None:
        """Have each report given to `observer`."""
        self._observers.append(observer)

    def watch_events(self, observer: Callable[[Event], None]) -> None:
        """Call `observer` with each event."""
        from zmesh.observe.events import event_of

        def note(report: Report) -> None:
            if (event := event_of(report, self._router, self.remote_address)) is not None:
                observer(event)

        self.watch(note)

    def events(self, check: Callable[[], None]) -> Events:
        """The events from now on; waiting for one first calls `check`, which raises Closed if none can come."""
        from zmesh.observe.events import Events  # its nine classes take long to make, and no command needs them

        events = Events(self._router, self.remote_address, self._events.discard, check)
        if self._ended:
            events.end()
        else:
            self._events.add(events)
        return events

    # -- links ---------------------------------------------------------------------------------------------------

    def remote_address(self, link: LinkId) -> str:
        """The URL that a link was dialled at, or the address that it was accepted from; "" if the link is closed."""
        return self.addresses.remote_address(link) if self.addresses is not None else ""

    def end_of(self, link: LinkId) -> tuple[str, bool]:
        """The address of the other end of a link, and whether this node has dialled it."""
        url = self.addresses.dialled_url(link) if self.addresses is not None else None
        return (url, True) if url is not None else (self.remote_address(link), False)

    def neighbour(self, link: LinkId) -> Neighbour:
        """The other end of a link: its address, whether this end dialled, and the round-trip time."""
        from zmesh.observe.journal import Neighbour

        return Neighbour(*self.end_of(link), self._engine.rtt(link))

    def links(self) -> list[LinkStatus]:
        """The links that are up, sorted by neighbour."""
        from zmesh.observe.stats import links_of

        return links_of(self._engine, self.remote_address)

    def last_heard_by(self, node: str) -> str | None:
        """The other node that was linked last to one that has left; None if unknown."""
        witness = self._engine.last_heard_by(NodeId(Address(node)))
        return witness if witness != self._node_id else None
