"""Tools for the event loop, threads, signals, forks and exceptions of user code, and the `Driver` of an engine.

A Driver passes stimuli to the engine and performs its effects: on a `LinkLayer` below, which is the transport, and on
the `Handle` of each exchange above. Every name loads its module when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.runtime.acceptor import EXHAUSTED, Acceptor
    from zmesh.runtime.controlled_process import ControlledProcess
    from zmesh.runtime.driver import Driver, Handle, LinkLayer
    from zmesh.runtime.eager import EagerStarter, Wakeup
    from zmesh.runtime.exceptions import (
        class_name_of,
        code_of,
        describe,
        is_a,
        limit_of,
        log_exception,
        log_line,
        must_propagate,
        text_of,
        traceback_of,
    )
    from zmesh.runtime.forks import ProcessOrigin, close_in_child, closing
    from zmesh.runtime.interrupts import close_loop, ignore_exit, raise_lost_interrupts, supervised
    from zmesh.runtime.message_ids import new_message_id
    from zmesh.runtime.node_thread import NodeThread, nodes_in_loop, refuse_in_loop_of_node
    from zmesh.runtime.orphans import OrphanReaper
    from zmesh.runtime.tasks import Tasks, abandon, described_timeout
    from zmesh.runtime.thread_pool import RELEASE_SLOT_AFTER, ThreadPool, released_slot, wait_in_thread
    from zmesh.runtime.watchdog import BLOCKED_AFTER, StackLocation, directive_frames, watchdogs
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "acceptor": ("EXHAUSTED", "Acceptor"),
            "controlled_process": ("ControlledProcess",),
            "driver": ("Driver", "Handle", "LinkLayer"),
            "eager": ("EagerStarter", "Wakeup"),
            "exceptions": (
                "class_name_of",
                "code_of",
                "describe",
                "is_a",
                "limit_of",
                "log_exception",
                "log_line",
                "must_propagate",
                "text_of",
                "traceback_of",
            ),
            "forks": ("ProcessOrigin", "close_in_child", "closing"),
            "interrupts": ("close_loop", "ignore_exit", "raise_lost_interrupts", "supervised"),
            "message_ids": ("new_message_id",),
            "node_thread": ("NodeThread", "nodes_in_loop", "refuse_in_loop_of_node"),
            "orphans": ("OrphanReaper",),
            "tasks": ("Tasks", "abandon", "described_timeout"),
            "thread_pool": ("RELEASE_SLOT_AFTER", "ThreadPool", "released_slot", "wait_in_thread"),
            "watchdog": ("BLOCKED_AFTER", "StackLocation", "directive_frames", "watchdogs"),
        },
    )

__all__ = [
    "BLOCKED_AFTER",
    "EXHAUSTED",
    "RELEASE_SLOT_AFTER",
    "Acceptor",
    "ControlledProcess",
    "Driver",
    "EagerStarter",
    "Handle",
    "LinkLayer",
    "NodeThread",
    "OrphanReaper",
    "ProcessOrigin",
    "StackLocation",
    "Tasks",
    "ThreadPool",
    "Wakeup",
    "abandon",
    "class_name_of",
    "close_in_child",
    "close_loop",
    "closing",
    "code_of",
    "describe",
    "described_timeout",
    "directive_frames",
    "ignore_exit",
    "is_a",
    "limit_of",
    "log_exception",
    "log_line",
    "must_propagate",
    "new_message_id",
    "nodes_in_loop",
    "raise_lost_interrupts",
    "refuse_in_loop_of_node",
    "released_slot",
    "supervised",
    "text_of",
    "traceback_of",
    "wait_in_thread",
    "watchdogs",
]
