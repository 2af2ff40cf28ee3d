"""The membership of one node that has an identity: it answers requests to enrol, renews its certificate, stores
statements of authorities, and takes up what commands have changed in its state.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from zmesh.core.effects import Report
from zmesh.core.message import Address, NodeId
from zmesh.errors import ConfigError, MeshError
from zmesh.identity import ENROL, RENEW, Certificate, Identity, Issuer, NodeCredentials, Policy, renew_request
from zmesh.membership.asking import ASK_WITHIN, Newcomer, ask, renew_as_newcomer, take_renewal
from zmesh.membership.issuing import Issuing
from zmesh.membership.schedule import Schedule, warning
from zmesh.runtime import ThreadPool

if TYPE_CHECKING:
    from zmesh.config import Config
    from zmesh.observe import Router
    from zmesh.requests import Requests
    from zmesh.runtime import Driver, Tasks
    from zmesh.serving import Serving, Work

log = logging.getLogger(__name__)


class Host(Protocol):
    """The node as its membership uses it."""

    serving: Serving
    requests: Requests
    router: Router
    tasks: Tasks

    def note(self, report: Report) -> None:
        """Count, log and pass on a report."""

    def advertise(self) -> None:
        """Advertise the directives anew, which may have changed."""

    def newcomer(self, config: Config) -> Newcomer:
        """A node that requests a certificate, where that of this one has expired."""


class StateRead(NamedTuple):
    """A node's state as it was read, and the certificate that the node had `before`."""

    identity: Identity | None
    issuer: Issuer | None
    before: Certificate


class Membership:
    """The membership of one node; permissions of its settings take precedence over those of its identity."""

    def __init__(self, identity: Identity, credentials: NodeCredentials, host: Host) -> None:
        self._identity = identity
        self._credentials = credentials
        self._host = host
        self._serving = serving = host.serving
        self._requests = host.requests
        self._policy = serving.policy
        self._issuing = Issuing(identity)
        self._schedule = Schedule()
        self._failure = ""
        self._saving = self._unsaved = False
        self._woken = asyncio.Event()
        """Set when the machine's clock was set, so that a renewal may be due."""
        for directive, function in ((ENROL, self._enrol), (RENEW, self._renew)):
            serving.add_builtin(directive, function)
        serving.policy = self._policy.over(identity.policy)

    @property
    def _driver(self) -> Driver:
        return self._requests.driver

    def capabilities(self) -> list[str]:
        """The directives to advertise: by `zmesh:enrol` others find nodes that sign certificates."""
        return [ENROL] if self._issuing.has_key else []

    def start(self) -> None:
        """Renew the certificate when it is time, from now on."""
        self._host.tasks.spawn(self._run(), "zmesh certificate")

    def close(self) -> None:
        """End its thread."""
        self._issuing.close()

    def note(self, report: Report) -> None:
        """Take a report: write what has changed in the trust, and check the certificate when the clock was set."""
        if report.event == "trust_changed":
            self._unsaved = True
            if not self._saving:
                self._saving = True
                self._host.tasks.spawn(self._save(), "zmesh trust")
        elif report.event == "clock_set":
            self._woken.set()

    def read(self) -> StateRead:
        """The state as it is now, for `reload`; it blocks, and may run in another thread. Raises ConfigError."""
        before = self._identity.certificate
        identity = self._identity.read()
        return StateRead(identity, Issuing.read(identity or self._identity), before)

    def is_current(self, read: StateRead) -> bool:
        """Whether the certificate is that of when this was read, and was not renewed meanwhile."""
        return read.before is self._identity.certificate

    def reload(self, own: Policy | None = None, read: StateRead | None = None) -> None:
        """Take up the state that was `read` (None: read it now); `own` are the permissions of the settings.

        Raises ConfigError, and then has changed nothing.
        """
        read = self.read() if read is None else read
        self._identity.reload(read.identity)
        if own is not None:
            self._policy = own
        self._take()
        self._issuing.use(read.issuer)
        self._host.advertise()

    # -- inside --------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Have the engine use what the identity holds now."""
        credentials, identity = self._credentials, self._identity
        credentials.trust = identity.trust
        credentials.renew(identity.certificate)
        self._serving.policy = self._policy.over(identity.policy)
        self._driver.perform(self._driver.engine.trust_changed(time.monotonic()))

    async def _save(self) -> None:
        """Write what is trusted, in a thread, as a disk may be slow and another process may keep the state locked."""
        threads = ThreadPool(1, "zmesh-state")
        try:
            while self._unsaved:
                self._unsaved = False
                self._identity.merge(await threads.call(self._identity.saving_trust()))
        except ConfigError as error:
            log.warning("what was learned about trust is not kept: %s", error)
        finally:
            self._saving = False
            threads.close()

    # -- the directives ------------------------------------------------------------------------------------------

    def _enrol(self, work: Work) -> object:
        return self._answer(ENROL, work.payload.json() if work.payload else None)

    def _renew(self, work: Work) -> object:
        return self._answer(RENEW, work.payload.json() if work.payload else None)

    def _answer(self, directive: str, request: object) -> asyncio.Future[object]:
        later: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        async def answer() -> None:
            try:
                result = await self._answered(directive, request)
            except Exception as error:  # noqa: BLE001  # the answer, whatever it is
                if not later.done():
                    later.set_exception(error)
            else:
                if not later.done():
                    later.set_result(result)

        self._host.tasks.spawn(answer(), f"zmesh {directive}")
        return later

    async def _answered(self, directive: str, request: object) -> object:
        if self._issuing.has_key:
            return await self._issuing.answer(request)
        holder = self._holder()
        if holder is None:
            here = self._requests.node_id
            raise MeshError(
                f"{here!r} reaches no node with the authority's key; is that up where 'zmesh init' was run?"
            )
        return await ask(self._requests, holder, directive, request, ASK_WITHIN)

    def _holder(self) -> str | None:
        """A node that signs certificates."""
        for node, capabilities in sorted(self._host.router.node_capabilities().items()):
            if ENROL in capabilities and node != self._requests.node_id:
                return node
        return None

    # -- the certificate -----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        schedule, identity = self._schedule, self._identity
        while True:
            self._driver.follow_clock(time.monotonic())
            now = self._driver.wall_clock()
            if schedule.is_due(identity.renews_at, now):
                await self._try_to_renew()
            now = self._driver.wall_clock()
            certificate = identity.certificate
            remaining = certificate.remaining(now)
            if schedule.warns(remaining, now):
                text = warning(identity.node_id, remaining, certificate.not_after - now, self._failure)
                self._host.note(Report("certificate_expiring", NodeId(Address(identity.node_id)), None, text))
            with suppress(TimeoutError):
                async with asyncio.timeout(schedule.wait(identity.renews_at, now)):
                    await self._woken.wait()
            self._woken.clear()

    async def _try_to_renew(self) -> None:
        identity = self._identity
        before = identity.certificate
        try:
            await self._renew_certificate()
        except MeshError as error:
            self._failure = str(error)
            self._schedule.failed(self._driver.wall_clock())
            log.info("the certificate of %s is not renewed yet: %s", identity.node_id, error)
            return
        self._failure = ""
        if identity.certificate is before:  # the authority did not find it due, as its clock is another
            self._schedule.failed(self._driver.wall_clock())
            return
        self._schedule.renewed()
        self._take()
        text = time.strftime("the certificate is valid until %Y-%m-%d now", time.gmtime(identity.certificate.not_after))
        self._host.note(Report("certificate_renewed", NodeId(Address(identity.node_id)), None, text))

    async def _renew_certificate(self) -> None:
        """At this node, at one that signs, or, where no certificate is believed that has expired, at a peer's."""
        identity = self._identity
        asked = renew_request(identity.certificate, identity.key)
        if self._issuing.has_key:
            await take_renewal(identity, await self._issuing.answer(asked))
        elif (holder := self._holder()) is not None:
            await take_renewal(identity, await ask(self._requests, holder, RENEW, asked, ASK_WITHIN))
        else:
            await renew_as_newcomer(self._host.newcomer, identity)
