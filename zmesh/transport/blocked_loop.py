"""Keepalives for a node whose event loop is blocked, sent from the watchdog's thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from zmesh.core import wire
from zmesh.core.effects import Report
from zmesh.core.engine import Engine
from zmesh.core.wire import Kind
from zmesh.runtime import BLOCKED_AFTER, StackLocation, log_line
from zmesh.transport.transport import Transport

log = logging.getLogger(__name__)

STILL_BLOCKED_AFTER = 5.0
"""Seconds after which the log says so even though the loop does not go on."""

LINKS_KEPT = 30.0
"""Seconds of a block for which links are kept alive. After that GOODBYE is sent to the neighbours, with the reason."""


class BlockedLoopKeepalive:
    """Sends keepalives on the links of one node while its event loop is blocked, and reports the block."""

    def __init__(self, engine: Engine, transport: Transport, note: Callable[[Report], None]) -> None:
        self._engine = engine
        self._transport = transport
        self._note = note
        self._kept = 0.0
        self._logged = False
        self._let_go = False

    def while_blocked(self, seconds: float, where: StackLocation) -> None:
        """Show the neighbours that the node is there; after LINKS_KEPT say goodbye to them."""
        heartbeat, now = self._engine.heartbeat, time.monotonic()
        if seconds >= heartbeat / 2 and now - self._kept >= heartbeat / 2 and not self._let_go:
            text = f"its event loop has been blocked for {seconds:.0f} s in {where.text[:1000]}"
            frames = wire.encode_keepalive(text)  # needs no table of the engine
            if seconds > LINKS_KEPT:
                frames = wire.encode_link(Kind.GOODBYE, wire.Goodbye(text))
            links = [link.id for link in self._engine.links()]
            if self._transport.send_from_thread(links, frames):
                self._kept = now
                self._let_go = seconds > LINKS_KEPT
        if seconds >= STILL_BLOCKED_AFTER and not self._logged and not where.logging:
            self._logged = True
            text = "%s: event loop blocked for %.1f s so far in %s"
            log_line(log, logging.WARNING, text, self._engine.node, seconds, where.text)

    def after_block(self, seconds: float, where: StackLocation) -> None:
        """Poll all sockets, and report the block if it was long."""
        self._logged = self._let_go = False
        self._transport.poll_all()
        if seconds >= BLOCKED_AFTER:
            text = f"event loop blocked for {seconds:.1f} s in {where.text}"
            log_line(log, logging.WARNING, "%s: %s", self._engine.node, text)
            self._note(Report("loop_blocked", None, None, text))
