"""Work on machines for programs without asyncio: commands at one node or at many."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from zmesh.sync.blocking_node import BlockingNode
from zmesh.sync.iteration import Iteration, in_the_loop
from zmesh.sync.popen import Popen

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.remote import FleetOptions, Outcome, RemoteProcess, RunOptions, Starting, Word


class Machines(BlockingNode):
    """The part of a Controller that runs commands at nodes."""

    def run(
        self, node: str, command: Sequence[Word], /, **options: Unpack[RunOptions]
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command at a node, as subprocess.run does here: its exit code, stdout and stderr.

        Raises CommandFailed if it can't be executed, and as `zmesh.Controller.run` in all else.
        """

        async def run() -> subprocess.CompletedProcess[bytes]:
            async with self._mesh.run(node, command, **options) as process:
                out, err = await process.communicate()
                return subprocess.CompletedProcess(process.command, process.returncode or 0, out, err)

        return self._do(run)

    def popen(self, node: str, command: Sequence[Word], /, **options: Unpack[RunOptions]) -> Popen:
        """Start a command at a node, as subprocess.Popen does here; returns when it runs there.

        Raises CommandFailed if it can't be executed, and as `zmesh.Controller.run` in all else.
        """

        async def start() -> tuple[RemoteProcess, Starting]:
            starting = self._mesh.run(node, command, **options)
            async with AsyncExitStack() as unless_started:
                unless_started.push_async_exit(starting)
                process = await starting
                unless_started.pop_all()
            return process, starting

        process, starting = self._do(start)
        return self._iterating(Popen(self._opened(), process, starting))

    def check_output(self, node: str, command: Sequence[Word], /, **options: Unpack[RunOptions]) -> bytes:
        """The stdout of a command at a node. Raises CommandFailed if it exits with anything but 0."""
        return self._do(lambda: self._mesh.check_output(node, command, **options))

    def run_many(
        self,
        nodes: Iterable[str] | str,
        command: Sequence[Word],
        /,
        **options: Unpack[FleetOptions],
    ) -> Iteration[Outcome]:
        """Run a command at many nodes; iterate over what this returns for an Outcome of each, as they come.

        As `zmesh.Controller.run_many` in all else.
        """
        mesh, node_thread = self._mesh, self._opened()
        outcomes = node_thread.do(in_the_loop(lambda: mesh.run_many(nodes, command, **options)))
        return self._iterating(Iteration(node_thread, aiter(outcomes), outcomes.aclose))
