"""The parts that a node has or not by its settings: jobs, membership, inspection, metrics and traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zmesh.core.effects import Report
    from zmesh.core.limits import Limits
    from zmesh.identity import NodeCredentials
    from zmesh.jobs import NodeJobs
    from zmesh.membership import Host as MemberHost
    from zmesh.membership import Membership
    from zmesh.metrics import Exporter
    from zmesh.observe import Observation
    from zmesh.operate import Host as InspectedHost
    from zmesh.operate import Inspection
    from zmesh.payloads import PayloadStorage

    class Host(InspectedHost, MemberHost, Protocol):
        """A node with such parts."""


class Components:
    """The components of one node; an ephemeral one has traces at most. Raises ConfigError for unusable settings."""

    def __init__(
        self,
        host: Host,
        observation: Observation,
        storage: PayloadStorage,
        limits: Limits,
        credentials: NodeCredentials | None,
    ) -> None:
        self._observation = observation
        self.inspection: Inspection | None = None
        self.membership: Membership | None = None
        self.exporter: Exporter | None = None
        self._jobs: NodeJobs | None = None
        config, identity = host.config, host.identity
        if config.tracing:
            from zmesh.tracing import Tracing  # here, as below: what few programs have costs the others no import

            tracing = Tracing(config.node_id)
            host.requests.observers.append(tracing)
            host.serving.observers.append(tracing)
        if config.ephemeral:
            return
        from zmesh.jobs import NodeJobs
        from zmesh.operate import Inspection

        history = observation.keep_history()
        self.inspection = Inspection(host, history, limits)
        if config.metrics:
            from zmesh.metrics import Exporter

            self.exporter = Exporter(host, history)
        if identity is not None and credentials is not None:
            from zmesh.membership import Membership

            self.membership = Membership(identity, credentials, host)
        state = identity.state.folder if identity is not None and identity.state is not None else None
        table = config.plugins.get("job", {})
        run = f"{host.engine.incarnation:016x}"
        self._jobs = NodeJobs(table, config.file, state, host.serving, storage, host.directives, incarnation=run)

    @property
    def job_counts(self) -> tuple[int, int]:
        """How many jobs run, and how many wait."""
        return self._jobs.counts if self._jobs is not None else (0, 0)

    @property
    def metrics_url(self) -> str | None:
        """The URL at which metrics are served; None if they are not."""
        return self.exporter.url if self.exporter is not None else None

    def capabilities(self) -> list[str]:
        """The directives to advertise beside those of plugins and of the program."""
        return self.membership.capabilities() if self.membership is not None else []

    def note(self, report: Report) -> None:
        """Keep a report in the event log, and what it says about trust."""
        if self.inspection is not None:
            self.inspection.events.note(report, self._observation.end_of)
        if self.membership is not None:
            self.membership.note(report)

    async def open_events(self) -> None:
        """Open the event log."""
        if self.inspection is not None:
            await self.inspection.events.open()

    async def open_jobs(self) -> None:
        """Take over the jobs of the last run; to be called when the plugins have started."""
        if self._jobs is not None:
            await self._jobs.open()

    async def start(self) -> None:
        """Renew the certificate in time and serve metrics; to be called when the node listens. Raises ConfigError."""
        if self.membership is not None:
            self.membership.start()
        if self.exporter is not None:
            await self.exporter.start()

    def stop(self) -> None:
        """Start no more jobs; to be called before the node's work is cancelled."""
        if self._jobs is not None:
            self._jobs.stop()

    async def close_jobs(self) -> None:
        """Store how jobs have ended; to be called when the node's work has ended."""
        if self._jobs is not None:
            await self._jobs.close()

    def close_jobs_now(self) -> None:
        """Close the jobs without waiting."""
        if self._jobs is not None:
            self._jobs.close_now()

    async def close(self) -> None:
        """Close the metrics and the event log, without blocking the loop."""
        if self.exporter is not None:
            await self.exporter.close()
        if self.inspection is not None:
            await self.inspection.events.close()

    def release(self) -> None:
        """Release files, threads and sockets; blocks for a second or two where `close` was not called before."""
        if self.exporter is not None:
            self.exporter.close_now()
        if self.membership is not None:
            self.membership.close()
        if self.inspection is not None:
            self.inspection.events.close_now()
            self.inspection.close()
