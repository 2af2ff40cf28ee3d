"""`exec:run` runs a command at this node; its streams, signals and exit code travel as records (`records.py`).

Output is read as the client takes it. The exit code follows all output. When the request is cancelled, or its client is
gone, the command's session is ended: SIGTERM, a grace period, SIGKILL.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import pwd
import shlex
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from zmesh.core.durations import exact
from zmesh.errors import NodeOverloaded, NotAllowed, RemoteError
from zmesh.remote.process import STDOUT, CommandLine, NotStarted, Process, Processes
from zmesh.remote.records import (
    INPUT_WINDOW,
    Kind,
    Record,
    check_keys,
    number,
    record,
    records_of,
    size_of_terminal,
    unpack,
)
from zmesh.remote.settings import RunSettings
from zmesh.runtime import ThreadPool
from zmesh.serving import MemberQuota, Work, directive, member_of

if TYPE_CHECKING:
    pass

audit = logging.getLogger("zmesh.remote.audit")
"""A line when a command starts, and one when it has ended."""

SHOWN = 200
"""Characters of a command line that the log shows."""
_KEYS = ("words", "environment", "directory", "user", "seconds", "terminal", "merged")
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""The exit codes of shells for a command that can't be executed."""


@dataclass(frozen=True, slots=True)
class Request:
    """The request of a client, checked; `seconds` is its timeout, `terminal` rows and columns."""

    words: list[bytes]
    environment: dict[bytes, bytes]
    directory: bytes | None
    user: str | None
    seconds: float | None
    terminal: tuple[int, int] | None
    merged: bool


class Exec:
    """The commands of one node."""

    settings = RunSettings

    def __init__(self) -> None:
        self._settings = RunSettings()
        self._processes = Processes()
        self._running = MemberQuota("run", "max_commands", "commands")

    async def start(self, settings: RunSettings) -> None:
        """Take the settings."""
        self._settings = settings

    def reload(self, settings: RunSettings) -> None:
        """Take other settings, for the commands that start from now on."""
        self._settings = settings

    async def close(self) -> None:
        """End the process that supervises the commands."""
        await self._processes.close()

    @directive(stream=True)
    async def run(self, work: Work) -> AsyncGenerator[bytes, None]:
        """Run the command of the START record with what follows as its input; the replies are records.

        Raises NotAllowed for what `[run]` does not allow, NodeOverloaded, and RemoteError for malformed records.
        """
        settings = self._settings
        async with aclosing(records_of(work.payload)) as records:
            first = await anext(records, None)
            if first is None or first.kind != Kind.START:
                raise RemoteError("exec:run takes records, of which the first is the command")
            request = read_request(first.body)
            line = await _Resolver(settings).resolve(request)
            counted = self._running.one_more(
                work.header["recipient"],
                member_of(work.sender),
                settings.max_commands,
                settings.max_commands_per_node,
            )
            with counted:
                try:
                    process = await self._processes.start(line)
                except NotStarted as error:
                    yield record(Kind.NOT_STARTED, _why_not(error, line))
                    return
                except OSError as error:
                    reason = os.strerror(error.errno or 0).lower()
                    text = f"the node has nothing left to run commands with: {reason}"
                    raise NodeOverloaded(text, limit="system_resources") from None
                running = _Running(work, line, process, _shorter(request.seconds, settings.max_seconds))
                async with aclosing(running.replies(records)) as replies:
                    async for reply in replies:
                        yield reply


class _Running:
    """A command that has been started, up to its exit."""

    def __init__(self, work: Work, line: CommandLine, process: Process, seconds: float | None) -> None:
        self._work = work
        self._process = process
        self._seconds = seconds
        self._expired = False
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._input_ended = False
        self._more = asyncio.Event()
        self._credit = 0
        self._failure: BaseException | None = None
        self._shown = _shown(line.words)

    async def replies(self, records: AsyncGenerator[Record, None]) -> AsyncGenerator[bytes, None]:
        """The records for the client."""
        process, started = self._process, time.monotonic()
        sender = self._work.sender
        audit.info("%s runs %s, process %d", sender, self._shown, process.pid)
        tasks = [asyncio.create_task(self._receive(records)), asyncio.create_task(self._write())]
        if self._seconds is not None:
            tasks.append(asyncio.create_task(self._expire(self._seconds)))
        how = "was ended"
        try:
            yield record(Kind.STARTED, number(process.pid))
            async with aclosing(process.output()) as output:
                async for stream, data in output:
                    if self._failure is not None:
                        raise self._failure
                    reply = self._take_credit()
                    if data:
                        reply += record(Kind.STDOUT if stream == STDOUT else Kind.STDERR, data)
                    if reply:
                        yield reply
            code = process.exited.result()
            if code is None:
                raise RemoteError("the process that supervises commands was killed, and this command with it")
            how = f"exited with {code}" if code >= 0 else f"was killed by signal {-code}"
            if self._expired:
                how += f", its {self._seconds:g} s being over"
            yield record(Kind.EXPIRED if self._expired else Kind.EXIT, number(code))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.shield(asyncio.ensure_future(self._end(tasks, how, started)))

    async def _end(self, tasks: list[asyncio.Task[None]], how: str, started: float) -> None:
        await asyncio.wait(tasks)
        await self._process.end()
        audit.info(
            "%s of %s, process %d, %s after %s",
            self._shown,
            self._work.sender,
            self._process.pid,
            how,
            exact(time.monotonic() - started),
        )

    def _take_credit(self) -> bytes:
        credit, self._credit = self._credit, 0
        return record(Kind.CREDIT, number(credit)) if credit else b""

    async def _receive(self, records: AsyncGenerator[Record, None]) -> None:
        """Take what the client sends."""
        try:
            async for kind, body in records:
                match kind:
                    case Kind.INPUT:
                        self._waiting_bytes += len(body)
                        if self._waiting_bytes > INPUT_WINDOW:
                            raise RemoteError(f"more than {INPUT_WINDOW} bytes of input were sent without credit")
                        self._waiting.append(body)
                        self._more.set()
                    case Kind.INPUT_END:
                        self._input_ended = True
                        self._more.set()
                    case Kind.SIGNAL:
                        if len(body) != 1 or not 1 <= body[0] <= 64:
                            raise RemoteError("a signal is a number from 1 to 64, in one byte")
                        self._process.send_signal(body[0])
                    case Kind.RESIZE:
                        self._process.resize(*size_of_terminal(body))
                    case _:
                        raise RemoteError(f"exec:run takes no record of kind {kind}")
            self._input_ended = True
            self._more.set()
        except Exception as error:  # noqa: BLE001  # whatever the payload fails with ends the command
            self._failure = error
            self._process.wake()

    async def _write(self) -> None:
        """Write the input to the command as it reads, and give the client credit for it."""
        while True:
            while self._waiting:
                data = self._waiting.popleft()
                await self._process.write(data)
                self._waiting_bytes -= len(data)
                self._credit += len(data)
                if self._credit >= INPUT_WINDOW // 4:
                    self._process.wake()
            if self._input_ended:
                self._process.close_input()
                return
            self._more.clear()
            await self._more.wait()

    async def _expire(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._expired = True
        await self._process.stop()


class _Resolver:
    """Turns a request into a command line, as the settings allow it."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings

    async def resolve(self, request: Request) -> CommandLine:
        """The command line. Raises NotAllowed."""
        settings = self._settings
        if not settings.allows(request.words):
            raise NotAllowed(f"[run] commands has no pattern for {_shown(request.words)} here")
        refused = sorted(name for name in map(os.fsdecode, request.environment) if not settings.allows_variable(name))
        if refused:
            raise NotAllowed(f"[run] client_environment does not let a client set {', '.join(refused)} here")
        if request.user is not None and not settings.allows_user(request.user):
            raise NotAllowed(f"[run] users does not let a client run commands as {request.user!r} here")
        threads = ThreadPool(1, "zmesh-users")
        try:  # in a thread, because a user may be in a directory service, and a home on a server of files
            found = await threads.call(lambda: _run_as(request.user or settings.user))
        finally:
            threads.close()
        environment = settings.kept(os.environb)
        user = found.user
        if user is not None:
            environment |= {
                b"HOME": os.fsencode(user.pw_dir),
                b"USER": os.fsencode(user.pw_name),
                b"LOGNAME": os.fsencode(user.pw_name),
                b"SHELL": os.fsencode(user.pw_shell or "/bin/sh"),
            }
        directory = request.directory or os.fsencode(settings.directory)
        return CommandLine(
            request.words,
            environment | request.environment,
            directory=os.path.join(found.home, directory),
            user=None if user is None else (user.pw_uid, user.pw_gid, found.groups),
            limits=settings.limits(),
            grace=settings.grace,
            terminal=request.terminal,
            merged=request.merged,
        )


def read_request(body: bytes) -> Request:
    """The request in a START record. Raises RemoteError, which names what is wrong."""
    asked = unpack(body)
    check_keys(asked, _KEYS, "exec:run")
    words, environment = asked.get("words"), asked.get("environment") or {}
    if not isinstance(words, list) or not words or not all(_is_word(word) for word in words) or not words[0]:
        raise RemoteError("words must be a list of bytes without zeros, the first of which is not empty")
    if not isinstance(environment, dict) or not all(
        isinstance(name, bytes) and name and b"=" not in name and b"\0" not in name and _is_word(value)
        for name, value in environment.items()
    ):
        raise RemoteError("environment must be a table of bytes, without = in its names and without zeros")
    directory, user, seconds = asked.get("directory"), asked.get("user"), asked.get("seconds")
    if directory is not None and not _is_word(directory):
        raise RemoteError("directory must be bytes without zeros")
    if user is not None and (not isinstance(user, str) or not user or "\0" in user):
        raise RemoteError("user must be a name")
    if seconds is not None and (not isinstance(seconds, (int, float)) or not 0 < seconds < 1e9):
        raise RemoteError("seconds must be a number above 0")
    return Request(
        words,
        environment,
        directory or None,
        user,
        seconds,
        _terminal(asked.get("terminal")),
        bool(asked.get("merged")),
    )


def _terminal(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and 0 <= n <= 65535 for n in value):
        return value[0], value[1]
    raise RemoteError("terminal must be two numbers: rows and columns")


def _is_word(value: object) -> bool:
    return isinstance(value, bytes) and b"\0" not in value


class _RunAs(NamedTuple):
    """The identity that a command runs with: another user and its groups, or None; and the home that it begins in."""

    user: pwd.struct_passwd | None
    groups: list[int]
    home: bytes


def _run_as(name: str) -> _RunAs:
    """Look up the user of that name. Blocks. Raises NotAllowed and RemoteError."""
    own, user = _users(name)
    if user is None or user.pw_uid == os.geteuid():
        return _RunAs(None, [], _home(own))
    if os.geteuid() != 0:
        raise NotAllowed(f"this node runs as {_name(own)!r}, and only root can run commands as {user.pw_name!r}")
    return _RunAs(user, os.getgrouplist(user.pw_name, user.pw_gid), _home(user))


def _users(name: str) -> tuple[pwd.struct_passwd | None, pwd.struct_passwd | None]:
    """The node's own user, and the one of that name."""
    own = None
    try:
        own = pwd.getpwuid(os.geteuid())
    except KeyError:
        pass
    if not name:
        return own, None
    try:
        return own, pwd.getpwnam(name)
    except KeyError:
        raise RemoteError(f"there is no user {name!r} here") from None


def _home(user: pwd.struct_passwd | None) -> bytes:
    return os.fsencode(user.pw_dir) if user is not None and os.path.isdir(user.pw_dir) else b"/"


def _name(user: pwd.struct_passwd | None) -> str:
    return str(os.geteuid()) if user is None else user.pw_name


def _shorter(first: float | None, second: float | None) -> float | None:
    given = [each for each in (first, second) if each is not None]
    return min(given) if given else None


def _shown(words: list[bytes] | Any) -> str:
    """A command line for the log and for errors, as one would type it in a shell."""
    text = shlex.join(word.decode(errors="backslashreplace") for word in words)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _why_not(error: NotStarted, line: CommandLine) -> bytes:
    """The body of NOT_STARTED."""
    program = line.words[0].decode(errors="backslashreplace")
    reason = os.strerror(error.errno).lower()
    code = NOT_EXECUTABLE
    match error.stage:
        case "execute" if error.errno == errno.ENOENT:
            code = NOT_FOUND
            text = f"there is no program {program!r}" + ("" if "/" in program else " in the PATH")
        case "execute":
            text = f"can't execute {program!r}: {reason}"
        case "directory":
            text = f"can't run it in the directory {os.fsdecode(line.directory)!r}: {reason}"
        case stage:
            text = f"can't start {program!r}: {reason} ({stage})"
    return bytes([code]) + text.encode(errors="backslashreplace")
