"""The state of a node: the answers to `zmesh:status` and `zmesh:load`, from tables that it has anyway."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from typing import TYPE_CHECKING

from zmesh.core.message import LinkId
from zmesh.core.view import ActiveLink
from zmesh.operate.json_form import Seconds
from zmesh.operate.process import memory_bytes, process_status
from zmesh.operate.status import (
    IdentityStatus,
    LinkFall,
    LinkReport,
    LoopStatus,
    NodeLoad,
    NodeStatus,
    RefusedLink,
    RequestsTaken,
    WorkStatus,
)
from zmesh.operate.warnings import warnings_of
from zmesh.runtime import watchdogs
from zmesh.version import __version__

if TYPE_CHECKING:
    from zmesh.observe import LinkHistory
    from zmesh.operate.host import Host

MAX_DIRECTIVES = 32
"""Names of running directives that are shown; the others are counted as `other`."""
MAX_LINKS = 1000
"""Links in the answer of `zmesh:status`; those that need attention come first."""


class NodeReader:
    """Reads the state of one node."""

    def __init__(self, host: Host, history: LinkHistory) -> None:
        self._host = host
        self._history = history

    def status(self) -> NodeStatus:
        """The state of this node."""
        host, engine = self._host, self._host.engine
        active = engine.links()
        transport = host.transport
        traffic = transport.traffic.total() if transport is not None else None
        status = NodeStatus(
            node=engine.node,
            version=__version__,
            incarnation=f"{engine.incarnation:016x}",
            time=time.time(),
            uptime=Seconds(time.monotonic() - host.started),
            listening=tuple(url.partition("?")[0] for url in host.listening),
            own_tags=tuple(host.config.tags),
            nodes=len(engine.nodes()),
            leaves=sum(link.leaf for link in active),
            links=tuple(self._links([link for link in active if not link.leaf])),
            bytes_in=traffic.bytes_in if traffic is not None else 0,
            bytes_out=traffic.bytes_out if traffic is not None else 0,
            work=self._work(),
            process=process_status(),
            loop=self._loop(),
            identity=self._identity(),
            refused=self._refused(),
            duplicates=tuple(sorted(engine.duplicates())),
            counters=dict(host.telemetry.counts),
        )
        return dataclasses.replace(status, warnings=warnings_of(status))

    def load(self) -> NodeLoad:
        """The load of this node, as counters and gauges; cheap."""
        host, engine = self._host, self._host.engine
        traffic = host.transport.traffic.total() if host.transport is not None else None
        loop = self._loop()
        return NodeLoad(
            node=engine.node,
            uptime=Seconds(time.monotonic() - host.started),
            served=host.serving.served,
            running=len(host.serving.runner),
            bytes_in=traffic.bytes_in if traffic is not None else 0,
            bytes_out=traffic.bytes_out if traffic is not None else 0,
            queued_bytes=engine.queued_bytes,
            lag=loop.worst_lag,
            cpu=Seconds(time.process_time()),
            memory_bytes=memory_bytes(),
        )

    # -- links ---------------------------------------------------------------------------------------------------

    def _links(self, active: list[ActiveLink]) -> list[LinkReport]:
        """The links, those that need attention first, then by neighbour."""
        now = time.monotonic()
        links = [self._link(link, now) for link in active]
        linked = {(link.node, link.where) for link in links if link.dialled}
        links += [missing for missing in self._missing(now) if (missing.node, missing.where) not in linked]
        links.sort(key=lambda link: (link.state == "up", link.node, link.where))
        return links[:MAX_LINKS]

    def _link(self, link: ActiveLink, now: float) -> LinkReport:
        transport = self._host.transport
        traffic = transport.traffic.by_link.get(link.id) if transport is not None else None
        since = self._history.since(link.id)
        return LinkReport(
            node=link.node,
            where=self.where(link.id),
            dialled=link.dialled,
            state="suspect" if link.suspect else "up",
            since=Seconds(now - since if since is not None else 0.0),
            heard=Seconds(now - link.heard),
            cost=link.cost,
            rtt=Seconds(link.rtt) if link.rtt is not None else None,
            bytes_in=traffic.bytes_in if traffic is not None else 0,
            bytes_out=traffic.bytes_out if traffic is not None else 0,
            messages_in=traffic.messages_in if traffic is not None else 0,
            messages_out=traffic.messages_out if traffic is not None else 0,
            queued_bytes=link.queued_bytes,
            skew=Seconds(link.skew) if link.skew is not None else None,
            falls=self.falls(link.node, now),
        )

    def _missing(self, now: float) -> list[LinkReport]:
        """The peers that can't be dialled, and the neighbours that dialled this node and are gone."""
        transport = self._host.transport
        missing = []
        for dial in transport.dials() if transport is not None else ():
            if dial.state == "linked":
                continue
            url = dial.url.partition("?")[0]
            node = self._history.peer(dial.url)
            falls = self.falls(node, now)
            reason = dial.reason or (falls[0].reason if falls else "not linked yet")
            missing.append(
                LinkReport(
                    node=node, where=url, dialled=True, state="down", since=Seconds(now - dial.since), reason=reason,
                    tries=dial.tries, falls=falls,
                )
            )  # fmt: skip
        for lost in self._history.lost():
            if not lost.dialled:
                falls = self.falls(lost.node, now)
                since, reason = Seconds(now - lost.fall.at), lost.fall.reason
                missing.append(
                    LinkReport(
                        node=lost.node, where=lost.where, dialled=False, state="down", since=since, reason=reason,
                        falls=falls,
                    )
                )  # fmt: skip
        return missing

    def dialling(self, node: str) -> str:
        """The reason why a neighbour can't be dialled; "" if it is linked, or not dialled from here."""
        transport = self._host.transport
        for dial in transport.dials() if transport is not None else ():
            if dial.state != "linked" and self._history.peer(dial.url) == node:
                return f"{dial.url.partition('?')[0]}: {dial.reason or 'being dialled'}"
        return ""

    def where(self, link: LinkId) -> str:
        """The address of the other end of a link, without its key."""
        transport = self._host.transport
        return transport.remote_address(link).partition("?")[0] if transport is not None else ""

    def falls(self, node: str, now: float) -> tuple[LinkFall, ...]:
        """The last falls of links with a neighbour, with their reasons."""
        return tuple(LinkFall(Seconds(now - fall.at), fall.reason) for fall in self._history.falls(node))

    def _refused(self) -> tuple[RefusedLink, ...]:
        now = time.monotonic()
        return tuple(
            RefusedLink(Seconds(now - each.at), each.node, each.where.partition("?")[0], each.reason)
            for each in self._history.refusals()
        )

    # -- the rest ------------------------------------------------------------------------------------------------

    def _identity(self) -> IdentityStatus | None:
        identity = self._host.identity
        if identity is None:
            return None
        now, until = time.time(), float(identity.certificate.not_after)
        expires, renews = Seconds(until - now), Seconds(identity.renews_at - now)
        return IdentityStatus(identity.mesh, identity.fingerprint, tuple(identity.tags), until, expires, renews)

    def _work(self) -> WorkStatus:
        host, serving = self._host, self._host.serving
        names, jobs = Counter(serving.runner.directives()), host.job_counts
        shown = dict(names.most_common(MAX_DIRECTIVES))
        if len(names) > MAX_DIRECTIVES:
            shown["other"] = names.total() - sum(shown.values())
        return WorkStatus(
            running=len(serving.runner),
            max_running=host.config.max_work,
            directives=shown,
            served=serving.served,
            requested=len(host.requests),
            waiting_bytes=host.engine.waiting_bytes,
            jobs_running=jobs[0],
            jobs_waiting=jobs[1],
            requests=tuple(RequestsTaken(*each) for each in serving.counts),
        )

    def _loop(self) -> LoopStatus:
        lag = watchdogs.lag(self._host.loop) if self._host.loop is not None else None
        blocked = self._host.telemetry.counts["loop_blocked"]
        if lag is None:
            return LoopStatus(Seconds(0.0), Seconds(0.0), blocked)
        return LoopStatus(Seconds(lag.last), Seconds(lag.worst), blocked)
