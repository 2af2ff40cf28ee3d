"""A command that runs at another node, for programs without asyncio."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from zmesh.sync.iteration import Iteration, in_the_loop

if TYPE_CHECKING:
    from zmesh.remote import RemoteProcess, Starting, StdinWriter
    from zmesh.runtime import NodeThread


class Stdin:
    """The stdin of a command."""

    def __init__(self, node_thread: NodeThread, writer: StdinWriter) -> None:
        self._node_thread = node_thread
        self._writer = writer

    def write(self, data: bytes) -> None:
        """Send data; it is queued here until the command takes it. Ignored when the command has exited."""
        self._node_thread.do(in_the_loop(lambda: self._writer.write(data)))

    def drain(self) -> None:
        """Wait until little of the data is queued here. Raises BrokenPipeError if the command has exited."""
        self._node_thread.do(self._writer.drain)

    def close(self) -> None:
        """End stdin, after what was written."""
        self._node_thread.do(in_the_loop(self._writer.close))


class Popen(Iteration[tuple[int, bytes]]):
    """A command that runs at another node; made by `mesh.popen`, and used as one of subprocess is.

    Iterate over it for its output as it comes: 1 or 2, for stdout or stderr, and bytes; or call `communicate` for all
    of it. Both raise as `wait` does. `close`, or leaving the `with` block, stops a command that still runs, and all
    that it has started. `stdin` is a writer if PIPE was given for it.
    """

    def __init__(self, node_thread: NodeThread, process: RemoteProcess, starting: Starting) -> None:
        super().__init__(node_thread, process.output(), lambda: starting.__aexit__(None, None, None))
        self._process = process
        self.args = process.command
        self.node = process.node
        self.stdin = None if process.stdin is None else Stdin(node_thread, process.stdin)

    @property
    def pid(self) -> int:
        """Its process id at its node."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that killed it; None until it has exited and all output was received."""
        return self._process.returncode

    def wait(self) -> int:
        """Wait until it has exited and all of its output was received; its `returncode`.

        Raises TimedOut if it was stopped because its time was over, and any ExchangeError, as if the node is lost. As
        with subprocess, a command whose output is not read waits when much of it is here.
        """
        return self._node_thread.do(self._process.wait)

    def communicate(self, input: bytes | None = None) -> tuple[bytes, bytes]:
        """Send `input` and the end of stdin, and read all of its output: stdout and stderr. Raises as `wait` does."""
        return self._node_thread.do(lambda: self._process.communicate(input))

    def send_signal(self, number: int) -> None:
        """Send a signal to its process group; nothing if it has exited."""
        self._node_thread.do(in_the_loop(lambda: self._process.send_signal(number)))

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal."""
        self._node_thread.do(in_the_loop(lambda: self._process.resize(rows, columns)))
