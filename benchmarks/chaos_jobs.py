"""Jobs among the work of `benchmarks.chaos`: left at nodes that die, and judged by what the nodes have written down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import zmesh
from zmesh import JobState

JOB = "chaos:job"
PAUSE = 0.15
SECONDS_MOST = 3.0
ANSWER_WITHIN = 3.0
TRIES = 8
RESTARTS = ("never", "never", "on-restart")


def serve_jobs(controller: zmesh.Controller, log: Path) -> None:
    """Register the directive of the jobs at a node; `log` is the file that says what it did."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def job(work: zmesh.Work) -> str:
        key, seconds = work.payload.json()
        os.write(descriptor, f"begun {key}\n".encode())
        await asyncio.sleep(seconds)
        os.write(descriptor, f"ended {key}\n".encode())
        return str(key)

    controller.register(JOB, job)


class Submitter:
    """A client that leaves jobs, and keeps those that nodes have accepted."""

    def __init__(self, mesh: zmesh.Controller, seed: int, nodes: Sequence[str]) -> None:
        self._mesh = mesh
        self._random = random.Random(f"jobs {seed}")
        self._nodes = nodes
        self._watching: set[asyncio.Task[None]] = set()
        self.jobs: dict[str, tuple[zmesh.Job, str]] = {}
        """By its key, each job that was accepted, and when it may run again."""
        self._cancelled: set[str] = set()

    async def work(self, seconds: float) -> None:
        """Submit for so long."""
        until, number = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            number += 1
            task = asyncio.create_task(self._one(f"job-{number}", self._random.choice(self._nodes)))
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)
            await asyncio.sleep(self._random.uniform(0.0, 2 * PAUSE))
        if self._watching:
            await asyncio.wait(self._watching)

    async def _one(self, key: str, node: str) -> None:
        lasts, restart = self._random.uniform(0.0, SECONDS_MOST), self._random.choice(RESTARTS)
        ends_early = self._random.random() < 0.2
        job = None
        for _ in range(TRIES):
            with contextlib.suppress(zmesh.MeshError):  # it may have been accepted all the same: hence the key
                job = await self._mesh.submit(
                    node, JOB, [key, lasts], key=key, restart=restart, route_timeout=ANSWER_WITHIN
                )
                break
        if job is None:
            return
        self.jobs[key] = (job, restart)
        with contextlib.suppress(zmesh.MeshError):
            await asyncio.sleep(self._random.uniform(0.0, lasts))
            await job.status(ANSWER_WITHIN)
            if ends_early:
                self._cancelled.add(key)
                await job.cancel(ANSWER_WITHIN)

    async def lies(self, folder: Path, within: float) -> list[str]:
        """A line for each state that is not what the machine did, once all jobs have had the time to end."""
        found = []
        for key, (job, restart) in self.jobs.items():
            try:
                status = await job.wait(within, lost_after=within)
            except zmesh.MeshError as error:
                found.append(f"{key} at {job.node} has no end: {error}")
            else:
                did = did_at(folder, job.node)
                if lie := judged(key, status, restart, did, cancelled=key in self._cancelled):
                    found.append(f"{key} at {job.node} is {status.shown}, but {lie}")
        return found


def did_at(folder: Path, node: str) -> Counter[str]:
    """How often each line stands in what a node has written down."""
    path = folder / f"{node}.did"
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


def judged(key: str, status: zmesh.JobStatus, restart: str, did: Counter[str], *, cancelled: bool) -> str:
    """What contradicts the state of a job; empty if nothing does.

    One that has failed with its node may have done its work before that could be stored; no other may.
    """
    begun, ended = did[f"begun {key}"], did[f"ended {key}"]
    if restart == "never" and begun > 1:
        return f"it began {begun} times"
    if begun > status.attempts:
        return f"it began {begun} times in {status.attempts} attempts"
    match status.state:
        case JobState.DONE if not ended:
            return "it never ended"
        case JobState.CANCELLED if not cancelled:
            return "nobody cancelled it"
        case JobState.CANCELLED if ended > begun - 1 and ended:
            return "it ended by itself"
        case JobState.FAILED if status.code != "node_restarted":
            return "nothing failed"
        case JobState.FAILED if restart != "never":
            return "it may run again"
        case JobState.LOST:
            return "nothing was lost"
    return ""
