"""Jobs: work that is detached from its submitter, kept at the node that works.

`Jobs` is the part of a Controller that submits and finds them, `Job` is one of them; at the node that works,
`NodeJobs` keeps them in SQLite and runs them in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.jobs.client import Jobs, SubmitOptions
    from zmesh.jobs.job import CANCEL_WITHIN, LOST_AFTER, STATUS_WITHIN, Job, JobOutput
    from zmesh.jobs.node_jobs import NodeJobs
    from zmesh.jobs.states import JobId, JobState, JobStatus, contact_lost
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "client": ("Jobs", "SubmitOptions"),
            "job": ("CANCEL_WITHIN", "LOST_AFTER", "STATUS_WITHIN", "Job", "JobOutput"),
            "node_jobs": ("NodeJobs",),
            "states": ("JobId", "JobState", "JobStatus", "contact_lost"),
        },
    )

__all__ = [
    "CANCEL_WITHIN",
    "LOST_AFTER",
    "STATUS_WITHIN",
    "Job",
    "JobId",
    "JobOutput",
    "JobState",
    "JobStatus",
    "Jobs",
    "NodeJobs",
    "SubmitOptions",
    "contact_lost",
]
