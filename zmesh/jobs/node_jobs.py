"""The jobs of one node, put together from its settings: what the node opens, stops and closes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zmesh.jobs.directives import JobDirectives
from zmesh.jobs.running import Attempts
from zmesh.jobs.service import JobService
from zmesh.jobs.settings import JobSettings
from zmesh.payloads import PayloadStorage
from zmesh.serving import Directives, Place, Serving, read_settings


class NodeJobs:
    """The jobs of one node. `table` is `[jobs]` of its configuration, read from `file`; `state` the folder of its
    state; `incarnation` its run, 16 hex digits.

    Raises ConfigError for a malformed table.
    """

    def __init__(
        self,
        table: Mapping[str, object],
        file: str | None,
        state: Path | None,
        serving: Serving,
        storage: PayloadStorage,
        directives: Directives,
        *,
        incarnation: str,
    ) -> None:
        settings = read_settings(JobSettings, table, Place("jobs", file))
        folder = state / "jobs" if state is not None else None
        if settings.folder:
            folder = Path(file).parent / settings.folder if file is not None else Path(settings.folder)
            if not folder.is_absolute() and file is None:
                raise Place("jobs").error("folder must be an absolute path, where no file says what it is beside")
        attempts = Attempts(serving, storage, settings.max_seconds, settings.max_output_bytes)
        self._service = JobService(serving.node_id, settings, folder, attempts, serving.note, incarnation=incarnation)
        JobDirectives(self._service, serving, directives)

    @property
    def counts(self) -> tuple[int, int]:
        """How many jobs run, and how many wait."""
        return self._service.counts

    async def open(self) -> None:
        """Take over what the last run of the node has left."""
        await self._service.open()

    def stop(self) -> None:
        """Start no more jobs; to be called before the node's work is cancelled."""
        self._service.stop()

    async def close(self) -> None:
        """Store how jobs have ended, and close the database."""
        await self._service.close()

    def close_now(self) -> None:
        """Close without waiting."""
        self._service.close_now()
