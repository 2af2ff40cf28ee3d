"""The table `[jobs]` of the configuration: how many jobs a node runs and keeps, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from zmesh.jobs.states import MAX_RESTARTS

MIB = 1024 * 1024

_LEAST: dict[str, float] = {
    "max_running": 1,
    "max_running_per_owner": 1,
    "max_queued": 1,
    "max_queued_per_owner": 1,
    "max_kept": 1,
    "max_payload_bytes": 1024,
    "max_output_bytes": 1024,
    "keep_bytes": MIB,
    "keep_seconds": 1,
    "max_restarts": 0,
    "max_readers": 1,
    "max_readers_per_owner": 1,
}


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The table `[jobs]`. Raises ValueError for a value out of its limits."""

    folder: str = ""
    """The folder of the jobs, an absolute path or one beside the file; `jobs` in that of the identity if empty."""
    max_running: int = 16
    """Jobs that run at a time."""
    max_running_per_owner: int = 8
    """Of those, jobs of one submitter."""
    max_queued: int = 50_000
    """Jobs that wait or run."""
    max_queued_per_owner: int = 20_000
    """Of those, jobs of one submitter."""
    max_kept: int = 100_000
    """Jobs that are kept, those that wait and run among them; what has ended first is removed first."""
    keep_seconds: float = 7 * 86_400.0
    """Seconds that a job is kept after its end."""
    keep_bytes: int = 1024 * MIB
    """Bytes of the payloads and the output of all jobs; what has ended first is removed first."""
    max_payload_bytes: int = 64 * MIB
    """Bytes of the payload of one job."""
    max_output_bytes: int = 256 * MIB
    """Bytes of the output of one job that are kept."""
    max_seconds: float | None = None
    """Seconds that one attempt of a job may run; None: without limit."""
    max_restarts: int = 100
    """How often a job may run again, whatever its submitter wants."""
    max_readers: int = 1000
    """Requests at a time that follow the output or the state of a job."""
    max_readers_per_owner: int = 750
    """Of those, requests of one member."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be {least:g} or more")
        if self.max_restarts > MAX_RESTARTS:
            raise ValueError(f"max_restarts must be {MAX_RESTARTS} or less")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError("max_seconds must be a number above 0")
