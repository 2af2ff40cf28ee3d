"""The URLs that one node listens on and dials: before it is open, while it is, and when its settings change."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from zmesh.arguments import check_url
from zmesh.core.effects import Report
from zmesh.core.message import LinkId
from zmesh.errors import AddressError
from zmesh.transport import LinkSecurity, Transport, parse_url

if TYPE_CHECKING:
    from zmesh.runtime import Driver


class Connectivity:
    """The listeners and peers of one node. `listen` and `peers` are those of its settings."""

    def __init__(self, driver: Driver, security: LinkSecurity, listen: Sequence[str], peers: Sequence[str]) -> None:
        self._driver = driver
        self._security = security
        self._transport: Transport | None = None
        self._listen = listen
        self._peers = peers
        self._added_listen: list[str] = []
        self._added_peers: list[str] = []
        self._bound: dict[str, str] = {}
        """The URLs of the settings, and those that the node listens on for them."""
        self.listening: list[str] = []
        """The URLs that the node listens on."""

    def check(self, url: str, *, dialled: bool = False) -> None:
        """Raises AddressError for a malformed URL, or one that may not be listened on or dialled, and TypeError."""
        check_url(url)
        target = parse_url(url)
        self._security.to_dial(target) if dialled else self._security.to_listen(target)

    def open(self, transport: Transport) -> None:
        """Listen and dial from now on. Raises AddressError if an address can't be used."""
        self._transport = transport
        for url in self._listen:
            self._bind(transport, url)
        for url in self._added_listen:
            self.listening.append(transport.listen(url))
        for url in (*self._peers, *self._added_peers):
            transport.dial(url)

    def listen(self, url: str) -> None:
        """Listen on one more address, now or when the node opens. Raises AddressError if it can't be used."""
        if self._transport is not None:
            self.listening.append(self._transport.listen(url))
        else:
            self._added_listen.append(url)

    def dial(self, url: str) -> None:
        """Keep a link to one more peer, now or when the node opens. Raises AddressError if the URL is malformed."""
        if self._transport is not None:
            self._transport.dial(url)
        else:
            self._added_peers.append(url)

    # -- when the settings change --------------------------------------------------------------------------------

    def add_listeners(self, urls: Iterable[str], undo: ExitStack) -> None:
        """Listen on those of the new settings that are not listened on; `undo` ends that again.

        Raises AddressError if one can't be used.
        """
        for url in urls:
            if url not in self._bound:
                self._bind_new(self._opened, url)
                undo.callback(self._unbind, url)

    def remove_listeners(self, staying: Sequence[str]) -> None:
        """Stop listening on URLs of the former settings that are not in `staying`, and close the links there."""
        for url in [url for url in self._bound if url not in staying]:
            self._hang_up(self._opened.links_at(self._bound[url]), f"it listens on {_plain(url)} no more")
            self._unbind(url)

    def change_peers(self, before: Sequence[str], after: Sequence[str]) -> None:
        """Dial the peers that were added, and close the links to those that were removed."""
        transport = self._opened
        for url in dict.fromkeys(before):
            if url not in after:
                self._hang_up(transport.links_to(url), "it is no peer of it any more")
                transport.undial(url)
                self._driver.perform(self._driver.engine.dial_succeeded(url, time.monotonic()))
        for url in dict.fromkeys(after):
            if url not in before:
                transport.dial(url)

    # -- from the node -------------------------------------------------------------------------------------------

    def note(self, report: Report) -> None:
        """Report the outcome of dialling to the engine, which sets the redial delay and quotes it in errors."""
        if report.event == "link_not_greeted":
            self._driver.on_dial_failed(report.text.removeprefix("at "), report.detail)
        transport, link = self._transport, report.link
        if report.event not in ("link_up", "link_refused") or link is None or transport is None:
            return
        url, now, engine = transport.dialled_url(link), time.monotonic(), self._driver.engine
        if report.event == "link_up":
            transport.on_established(link)
        if url is not None and report.event == "link_up":
            self._driver.perform(engine.dial_succeeded(url, now))
        elif url is not None:
            reason = report.detail.replace("they refuse:", "refused this node:").replace("we refuse:", "was refused:")
            self._driver.perform(engine.dial_failed(url, reason, now))

    # -- inside --------------------------------------------------------------------------------------------------

    @property
    def _opened(self) -> Transport:
        assert self._transport is not None  # settings change while the node is open
        return self._transport

    def _bind(self, transport: Transport, url: str) -> None:
        shown = self._bound[url] = transport.listen(url)
        self.listening.append(shown)

    def _bind_new(self, transport: Transport, url: str) -> None:
        try:
            self._bind(transport, url)
        except AddressError as error:
            leaving = next((each for each in self._bound if _port(each) == _port(url)), None)
            hint = f" by this node's own {leaving}; it moves there when it is started anew" if leaving else ""
            raise AddressError(f"{error}{hint}") from None

    def _unbind(self, url: str) -> None:
        shown = self._bound.pop(url)
        self.listening.remove(shown)
        self._opened.unlisten(shown)

    def _hang_up(self, links: list[LinkId], reason: str) -> None:
        for link in links:
            self._driver.perform(self._driver.engine.hang_up(link, reason, time.monotonic()))


def _port(url: str) -> str:
    return _plain(url).rpartition(":")[2]


def _plain(url: str) -> str:
    return url.partition("?")[0]
