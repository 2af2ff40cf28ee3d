"""`zmesh run`: run a command at a node, with this command's standard streams, signals and exit code as its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from zmesh import RemoteProcess
from zmesh.errors import CommandFailed, MeshError
from zmesh_cli.exit_codes import INTERRUPTED, MESH, USAGE, Failure
from zmesh_cli.input import Input
from zmesh_cli.local_sockets import Place
from zmesh_cli.session import Session
from zmesh_cli.signals import ENDING, not_ignored
from zmesh_cli.terminal import STDERR, STDIN, STDOUT, Output, print_error, print_line

SHELL = "/bin/sh"
STOP_WITHIN = 10.0
"""Seconds to wait for the command's end when it is stopped, before this command ends without it."""
PASSED_ON = ("TERM", "COLORTERM")
"""Variables that a command in a terminal gets from here."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run, and its options."""

    words: list[str]
    environment: dict[str, str]
    directory: str | None = None
    user: str | None = None
    timeout: float | None = None
    terminal: bool = False
    stdin: bool = True

    @classmethod
    def of(
        cls, words: Sequence[str], variables: Sequence[str], *, shell: bool, terminal: bool, **options: Any
    ) -> Command:
        """The command of these arguments. Raises Failure for none, and for a variable that is not set here."""
        if not words:
            raise Failure("no command is given, such as in: zmesh run edge-7 -- uname -a", USAGE)
        environment = {}
        if terminal:
            environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        for text in variables:
            name, equals, value = text.partition("=")
            if not name or (not equals and name not in os.environ):
                raise Failure(f"--env {text!r}: give NAME=VALUE, or the NAME of a variable that is set here", USAGE)
            environment[name] = value if equals else os.environ[name]
        line = [SHELL, "-c", " ".join(words)] if shell else list(words)
        return cls(line, environment, terminal=terminal, **options)

    @property
    def shown(self) -> str:
        """The command as it could be typed."""
        return shlex.join(self.words)


async def run(place: Place, node: str, command: Command, *, route_timeout: float | None) -> int:
    """Run a command at a node; its exit code, 128 and the number for a signal, MESH if the mesh fails."""
    stdin = Input(STDIN) if command.stdin else None
    try:
        async with Session(place, node, None, route_timeout=route_timeout) as session:
            return await _Run(session, command, stdin).run()
    except CommandFailed as error:
        print_error(str(error))
        return error.returncode
    except Failure as failure:
        print_error(str(failure))
        return USAGE if failure.code == USAGE else MESH
    except MeshError as error:
        print_error(str(error))
        return MESH


def exit_code_of(returncode: int) -> int:
    """The exit status that a shell reports for a command that has ended so."""
    return returncode if returncode >= 0 else 128 - returncode


class _Run:
    """One command at one node."""

    def __init__(self, session: Session, command: Command, stdin: Input | None) -> None:
        self._session = session
        self._command = command
        self._stdin = stdin
        self._outputs = {1: Output(STDOUT), 2: Output(STDERR, "stderr")}
        self._signals: dict[int, int] = {}
        self._task = asyncio.current_task()

    async def run(self) -> int:
        """Run it to its end; the exit code."""
        command, session = self._command, self._session
        starting = session.controller.run(
            session.target,
            command.words,
            env=command.environment,
            cwd=command.directory,
            user=command.user,
            timeout=command.timeout,
            terminal=_size() if command.terminal else None,
            stdin=self._stdin,
        )
        session.has_arrived = lambda: not session.controller.stats().is_handing_over
        try:
            async with contextlib.AsyncExitStack() as undo:
                undo.push_async_callback(_stop, starting)
                with _raw_terminal() if command.terminal and self._stdin is not None else contextlib.nullcontext():
                    process = await session.unless_not_found(_wait(starting))
                    with self._passing_on(process):
                        async for stream, data in process.output():
                            await self._show(stream, data)
                for output in self._outputs.values():
                    await output.end_payload()
                undo.pop_all()
        except asyncio.CancelledError:
            return INTERRUPTED
        assert process.returncode is not None
        return exit_code_of(process.returncode)

    async def _show(self, stream: int, data: bytes) -> None:
        output = self._outputs[stream]
        if self._command.terminal:
            await output.write(data)  # the command draws on the terminal itself
        else:
            await output.payload(data)

    @contextlib.contextmanager
    def _passing_on(self, process: RemoteProcess) -> Iterator[None]:
        """Pass signals and the size of the terminal on to the command meanwhile."""
        loop = asyncio.get_running_loop()
        signals = not_ignored(signal.SIGINT, *ENDING)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal, process, number)
        if self._command.terminal:
            loop.add_signal_handler(signal.SIGWINCH, lambda: process.resize(*_size()))
            process.resize(*_size())  # it may have changed meanwhile
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
            if self._command.terminal:
                loop.remove_signal_handler(signal.SIGWINCH)

    def _on_signal(self, process: RemoteProcess, number: int) -> None:
        """Pass a signal on; the second one stops the command, and the third ends this one without waiting for that."""
        count = self._signals[number] = self._signals.get(number, 0) + 1
        if count == 1:
            process.send_signal(number)
        elif count == 2 and self._task is not None:
            print_line(f"zmesh: stopping it at {self._session.target}; once more to leave it")
            self._task.cancel()
        else:
            os._exit(INTERRUPTED)


async def _stop(starting: Any) -> None:
    await asyncio.wait((asyncio.ensure_future(starting.__aexit__(None, None, None)),), timeout=STOP_WITHIN)


async def _wait(starting: Any) -> RemoteProcess:
    process: RemoteProcess = await starting
    return process


def _size() -> tuple[int, int]:
    """The rows and columns of the terminal, of stdout or stdin, 24 and 80 without one."""
    for descriptor in (STDOUT, STDIN, STDERR):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(descriptor)
            if rows and columns:
                return rows, columns
    return 24, 80


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Let the terminal of stdin, if it is one, pass each key on as it is."""
    if not os.isatty(STDIN):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(STDIN)
    tty.setraw(STDIN)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
