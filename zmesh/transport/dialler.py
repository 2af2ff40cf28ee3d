"""Keeps a connection to one peer: resolves its name, tries its addresses, and begins anew when that fails or is lost.

Each try is a round: the name is resolved anew, and its addresses take their turns (`happy_eyeballs`). The only address
of a peer is given to ZeroMQ at once; after it has failed, a plain connection goes ahead, which says why. So the other
end sees one connection for each link, and a plain one before it where there are several addresses or one has failed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from typing import TYPE_CHECKING

import zmq

from zmesh.core.message import LinkId
from zmesh.runtime import abandon, log_line, supervised
from zmesh.transport.address import Target, is_loopback
from zmesh.transport.connection import CONNECT_WITHIN, ENCRYPTED, PLAINTEXT, Connection, Ended
from zmesh.transport.curve import Dialled
from zmesh.transport.dial_status import NOT_TRUSTED, DialError, DialFailure, DialState, DialStatus, failed
from zmesh.transport.greeting import CURVE, NULL, spoken_mechanism
from zmesh.transport.happy_eyeballs import Candidate, connect_first
from zmesh.transport.resolver import Resolver

if TYPE_CHECKING:
    from zmesh.transport.transport import Transport

log = logging.getLogger(__name__)

REDIAL_FIRST = 0.05
"""Seconds before the second try; the pause doubles with each, and up to half of it is added at random."""
REDIAL_ABSENT = 1.0
"""The longest pause while nothing answers at the address."""
REDIAL_LAST = 10.0
"""The longest pause otherwise."""
REDIAL_NOT_TRUSTED = 5.0
"""The shortest pause after a failure of NOT_TRUSTED."""
GREETED_WITHIN = 2.0
"""Seconds for the greeting of a peer that has reset a connection, which may say why."""

_UNEXPLAINED = frozenset((DialFailure.CLOSED, DialFailure.WRONG_KEY))
_ANSWERED = NOT_TRUSTED | {DialFailure.NOT_ZEROMQ, DialFailure.CLOSED}


class Dialler:
    """Keeps a connection to the peer of `target`, dialling again for ever, in a task of its own; `keys` encrypt it."""

    def __init__(self, transport: Transport, target: Target, resolver: Resolver, keys: Dialled | None = None) -> None:
        self._transport = transport
        self._keys = keys
        self._target = target
        self._resolver = resolver
        self._connection: Connection | None = None
        self._state = DialState.CONNECTING
        self._why: DialError | None = None
        self._since = time.monotonic()
        self._tries = 0
        self._pause = REDIAL_FIRST
        self._absent = False
        self.task = transport.loop.create_task(supervised(self._live(), f"zmesh dial {target.url}"))

    @property
    def dial(self) -> DialStatus:
        """How dialling this peer stands."""
        failure, reason = (None, "") if self._why is None else (self._why.failure, self._why.reason)
        return DialStatus(self._target.url, self._state, failure, reason, self._since, self._tries)

    @property
    def link(self) -> LinkId | None:
        """The link to the peer, if there is one."""
        return self._connection.link if self._connection is not None else None

    def close(self) -> None:
        """Close the connection and dial no more; `task` ends soon."""
        abandon(self.task)
        if self._connection is not None:
            self._connection.close()

    async def _live(self) -> None:
        while True:
            least = 0.0
            try:
                least = await self._round()
            except DialError as failure:
                self._failed(failure)
                least = REDIAL_NOT_TRUSTED if failure.failure in NOT_TRUSTED else 0.0
            except (OSError, zmq.ZMQError) as error:
                self._failed(failed(error))
            except Exception as error:  # noqa: BLE001  # whatever it is, the peer is dialled again
                if self._transport.closed:
                    return
                log_line(log, logging.ERROR, "dialling %s failed", self._target.url, exc_info=True)
                self._failed(DialError(DialFailure.OTHER, f"{type(error).__name__}"))
            self._state = DialState.WAITING
            most = REDIAL_ABSENT if self._absent else REDIAL_LAST
            delay = max(least, min(most, self._pause)) * random.uniform(1.0, 1.5)
            self._pause = min(REDIAL_LAST, self._pause * 2)
            await asyncio.sleep(delay)

    async def _round(self) -> float:
        """Try once, and wait for the end of the link if that succeeds. Returns the least pause before the next try.

        Raises DialError, OSError and ZMQError if there was no link.
        """
        if self._target.proxy is not None:
            ended = await self._through_proxy()
        else:
            candidates = await self._candidates(self._target.host, self._target.port)
            self._state = DialState.CONNECTING
            if len(candidates) == 1 and not self._absent:
                ended = await self._explained(candidates[0], await self._use(candidates[0].endpoint))
            else:
                ended = await self._ask_and_use(candidates)
            if not ended.linked and ended.failure is None:
                self._absent = True
                ended = await self._ask_and_use(candidates)
        if ended.linked:
            return ended.pause
        raise ended.failure or DialError(DialFailure.OTHER, "a connection can be made, but not by ZeroMQ")

    async def _candidates(self, host: str, port: int | None) -> list[Candidate]:
        scheme, _, rest = self._target.endpoint.partition("://")
        if scheme == "ipc":
            path = "\0" + rest[1:] if rest.startswith("@") else rest
            return [Candidate(socket.AF_UNIX, path, self._target.endpoint)]
        if scheme == "inproc":
            return [Candidate(socket.AF_UNSPEC, "", self._target.endpoint)]
        self._state = DialState.RESOLVING
        found = await self._resolver.addresses(host)
        if is_loopback(host):
            found = [each for each in found if is_loopback(each.host)]
        number = port or 0
        return [Candidate(each.family, each.socket_address(number), each.endpoint(number)) for each in found]

    async def _ask_and_use(self, candidates: list[Candidate]) -> Ended:
        """Give ZeroMQ the first of the addresses that a plain connection can be made to."""
        there, sock = await connect_first(candidates, CONNECT_WITHIN)
        sock.close()
        return await self._explained(there, await self._use(there.endpoint))

    async def _explained(self, candidate: Candidate, ended: Ended) -> Ended:
        """How a connection has ended; if it was reset before ZeroMQ had read what is spoken there, by that."""
        why = ended.failure
        if ended.linked or why is None or why.failure not in _UNEXPLAINED or candidate.family == socket.AF_UNIX:
            return ended
        wanted, instead = (NULL, ENCRYPTED) if self._keys is None else (CURVE, PLAINTEXT)
        mechanism = await spoken_mechanism(candidate, GREETED_WITHIN)
        return ended._replace(failure=DialError(*instead)) if mechanism not in (wanted, b"") else ended

    async def _through_proxy(self) -> Ended:
        from zmesh.transport.socks import SocksTunnel  # here: few peers are behind a proxy

        proxy, port = self._target.proxy, self._target.port
        assert proxy is not None  # `_round` and
        assert port is not None  # `parse_peer` have seen to it
        candidates = await self._candidates(proxy.host, proxy.port)
        self._state = DialState.CONNECTING
        try:
            _, sock = await connect_first(candidates, CONNECT_WITHIN)
        except DialError as failure:
            raise DialError(failure.failure, f"its proxy {proxy.host}:{proxy.port}: {failure.reason}") from None
        async with SocksTunnel(sock, proxy, self._target.host, port) as tunnel:
            return await self._use(tunnel.endpoint)

    async def _use(self, endpoint: str) -> Ended:
        """Have ZeroMQ connect to an endpoint, and wait until that is over."""
        target = self._target
        connection = self._connection = Connection(
            self._transport, endpoint, target, self._linked, self._on_established, self._keys
        )
        try:
            return await connection.ended
        finally:
            if self._state is DialState.LINKED:
                self._since = time.monotonic()
                self._state = DialState.WAITING
            self._connection = None
            connection.close()

    def _linked(self) -> None:
        self._state, self._why, self._tries = DialState.LINKED, None, 0
        self._since = time.monotonic()
        self._absent = False

    def _on_established(self) -> None:
        self._pause = REDIAL_FIRST

    def _failed(self, why: DialError) -> None:
        self._why = why
        self._tries += 1
        self._absent = why.failure not in _ANSWERED
        self._transport.handler.on_dial_failed(self._target.url, why.reason, why.failure.value)
