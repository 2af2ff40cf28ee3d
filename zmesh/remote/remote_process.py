"""The client's side of `exec:run`: a command at another node, used as a process of asyncio is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from zmesh.errors import Cancelled, CommandFailed, RemoteError, TimedOut
from zmesh.payloads import PayloadLike, Source, encode
from zmesh.remote.records import Decoder, Kind, Record, number_of, pack, record, terminal_size
from zmesh.remote.streams import INPUT_PIECE, Outgoing, OutputReader, StdinWriter
from zmesh.runtime import describe, must_propagate

if TYPE_CHECKING:
    from zmesh.requests import ReplyStream

PIPE = asyncio.subprocess.PIPE
STDOUT = asyncio.subprocess.STDOUT

Word: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
Open: TypeAlias = "Callable[[AsyncIterator[bytes]], ReplyStream]"


def start_record(
    command: Sequence[Word],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Word | None = None,
    user: str | None = None,
    timeout: float | None = None,
    terminal: tuple[int, int] | None = None,
    merged: bool = False,
) -> bytes:
    """The START record of a command. Raises TypeError and ValueError for a malformed command."""
    if isinstance(command, (str, bytes)) or not isinstance(command, Sequence):
        raise TypeError(f"a command is a list of its words, such as ['uname', '-a'], not {type(command).__name__}")
    words = [os.fsencode(word) for word in command]
    if not words or not words[0]:
        raise ValueError("a command has at least one word, the name of the program")
    if env is not None and not isinstance(env, Mapping):
        raise TypeError(f"env is a table of variables, such as {{'LANG': 'C'}}, not {type(env).__name__}")
    if user is not None and not isinstance(user, str):
        raise TypeError(f"user is the name of one, not {type(user).__name__}")
    environment = {os.fsencode(name): os.fsencode(value) for name, value in (env or {}).items()}
    directory = None if cwd is None else os.fsencode(cwd)
    named: dict[str, object] = {
        "words": words,
        "environment": environment or None,
        "directory": directory,
        "user": user,
        "seconds": timeout,
        "terminal": None if terminal is None else list(terminal),
        "merged": merged or None,
    }
    if any(b"\0" in text for text in (*words, *environment, *environment.values(), directory or b"")):
        raise ValueError("no word, variable or directory of a command may have a zero byte in it")
    return record(Kind.START, pack({name: value for name, value in named.items() if value is not None}))


def check_stdin(stdin: object) -> None:
    """Raises ValueError for a number that says neither PIPE nor DEVNULL, as that of a descriptor would be."""
    if isinstance(stdin, int) and stdin not in (PIPE, asyncio.subprocess.DEVNULL):
        raise ValueError(f"stdin is a payload, PIPE or DEVNULL, not {stdin!r}; a descriptor is sent as open(..., 'rb')")


class Starting:
    """The result of `mesh.run(node, command)`: await it for the RemoteProcess, or use it in `async with`.

    At the end of the block a command that still runs is stopped, and the block ends when it has.
    """

    def __init__(self, node: str, command: Sequence[Word], begin: bytes, open_: Open, stdin: PayloadLike | int) -> None:
        self._process = RemoteProcess(node, command, begin, open_, stdin)

    @property
    def waits_for_route(self) -> bool:
        """Whether the command has not been started yet because no route leads to its node."""
        return self._process.waits_for_route

    @property
    def progress(self) -> str:
        """The progress of the command and its obstacle, if any, for the text of an error."""
        return self._process.progress

    def __await__(self) -> Generator[Any, None, RemoteProcess]:
        return self._process._start().__await__()

    async def __aenter__(self) -> RemoteProcess:
        return await self._process._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._process._stop()


class RemoteProcess:
    """A command that runs at another node; made by `mesh.run`.

    `stdout` and `stderr` are asyncio.StreamReaders, `stdin` is a writer if PIPE was given for it. As with a local
    process, a command whose output is not read waits when STREAM_LIMIT bytes of it are here; `communicate` reads all.
    `node` is where it runs, `pid` its process id there, `returncode` None until it has exited and all of its output
    was received; then its exit code, or minus the signal that killed it.
    """

    def __init__(self, node: str, command: Sequence[Word], begin: bytes, open_: Open, stdin: PayloadLike | int) -> None:
        self.node = node
        self.command = [os.fsdecode(word) for word in command]
        self.pid = 0
        self.returncode: int | None = None
        self.expired = False
        """Whether it was stopped because its time was over."""
        self.stdin: StdinWriter | None = None
        self._outgoing = Outgoing(begin)
        self._given: bytes | Source | None = None
        if isinstance(stdin, int) and stdin == PIPE:
            self.stdin = StdinWriter(self._outgoing)
        else:
            self._given = encode(None if isinstance(stdin, int) else stdin)
        self._replies = open_(self._outgoing)
        self._decoder = Decoder()
        self._records: deque[Record] = deque()
        self._feeding: asyncio.Task[None] | None = None
        self._pumping: asyncio.Task[None] | None = None
        self._out: OutputReader | None = None
        self._err: OutputReader | None = None

    @property
    def waits_for_route(self) -> bool:
        """Whether it has not been started yet because no route leads to its node."""
        return not self.pid and self._replies.is_lost

    @property
    def progress(self) -> str:
        """The progress of the command and its obstacle, if any, for the text of an error."""
        if self.returncode is not None:
            return f"it has exited with {self.returncode}"
        begun = f"it runs as process {self.pid}" if self.pid else "it has not begun"
        return "; ".join(filter(None, [begun, self._replies.obstacle]))

    # -- output --------------------------------------------------------------------------------------------------

    @property
    def stdout(self) -> asyncio.StreamReader:
        """Its stdout."""
        self._pump()
        assert self._out is not None
        return self._out

    @property
    def stderr(self) -> asyncio.StreamReader:
        """Its stderr; empty if it was merged into stdout."""
        self._pump()
        assert self._err is not None
        return self._err

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Its output in the order in which it was read at the node: 1 or 2, for stdout or stderr, and bytes.

        In place of `stdout` and `stderr`: raises RuntimeError when these are being read. Ends when the command has, and
        raises as `wait` does.
        """
        if self._pumping is not None:
            raise RuntimeError("the output is being read by stdout and stderr already")
        while self.returncode is None:
            kind, body = await self._next()
            match kind:
                case Kind.STDOUT:
                    yield 1, body
                case Kind.STDERR:
                    yield 2, body
                case _:
                    self._on_record(kind, body)
        self._check()

    async def wait(self) -> int:
        """Wait until it has exited and all of its output was received; its `returncode`.

        Raises TimedOut if it was stopped because its time was over, and any ExchangeError, as if the node is lost.
        """
        self._pump()
        assert self._pumping is not None
        await asyncio.shield(self._pumping)
        self._check()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self, input: bytes | None = None) -> tuple[bytes, bytes]:
        """Send `input` and the end of stdin, and read all of its output: stdout and stderr.

        Raises ValueError for `input` without stdin=PIPE, and as `wait` does.
        """
        if input is not None and self.stdin is None:
            raise ValueError("communicate(input) needs stdin=PIPE")
        if self.stdin is not None:
            self.stdin.write(input or b"")
            self.stdin.close()
        out, err = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.wait()
        return out, err

    # -- control -------------------------------------------------------------------------------------------------

    def send_signal(self, number: int) -> None:
        """Send a signal to its process group; nothing if it has exited."""
        if self.returncode is None:
            self._outgoing.urgent(record(Kind.SIGNAL, bytes([number])))

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal."""
        self._outgoing.urgent(record(Kind.RESIZE, terminal_size(rows, columns)))

    async def cancel(self) -> None:
        """Stop it and all of its session (SIGTERM, a grace period, SIGKILL); returns when it has ended."""
        await self._stop()

    # -- inside --------------------------------------------------------------------------------------------------

    async def _start(self) -> RemoteProcess:
        self._replies.send()
        with contextlib.ExitStack() as undo:
            undo.callback(self._outgoing.close)
            while not self.pid:
                kind, body = await self._next()
                if kind == Kind.NOT_STARTED and body:
                    await self._stop()
                    text = body[1:].decode(errors="replace")
                    raise CommandFailed(
                        f"node {self.node!r}: {text}", node=self.node, returncode=body[0], not_started=True
                    )
                self._on_record(kind, body)
            undo.pop_all()
        if self.stdin is None:
            if self._given:
                self._feeding = asyncio.get_running_loop().create_task(self._feed())
            else:
                self._outgoing.end()
        return self

    async def _stop(self) -> None:
        self._outgoing.close()
        if self._feeding is not None:
            self._feeding.cancel()
        if self._pumping is not None:
            self._pumping.cancel()
            await asyncio.wait((self._pumping,))
        await self._replies.cancel()

    async def _feed(self) -> None:
        """Send what was given as stdin."""
        given, outgoing = self._given, self._outgoing
        if isinstance(given, Source):
            try:
                while data := await given.read(INPUT_PIECE):
                    outgoing.put(data)
                    await outgoing.drained()
            except BaseException as error:  # whatever the program's file or iterator raises
                if must_propagate(error):
                    raise
                self._replies.fail(Cancelled.code, f"its stdin could not be read: {describe(error)}")
                self._replies.cancel()  # or the command would wait for the rest of it
                return
            finally:
                given.close()
        elif given:
            outgoing.put(given)
        outgoing.end()

    def _pump(self) -> None:
        if self._out is None:
            self._out, self._err = OutputReader(), OutputReader()
            self._pumping = asyncio.get_running_loop().create_task(self._read_all(self._out, self._err))
            # The readers raise what it fails with; `wait`, which would as well, may never be called.
            self._pumping.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _read_all(self, out: OutputReader, err: OutputReader) -> None:
        with contextlib.ExitStack() as ends:
            for reader in (err, out):
                ends.push(reader.end)
            while self.returncode is None:
                kind, body = await self._next()
                match kind:
                    case Kind.STDOUT:
                        await out.take(body)
                    case Kind.STDERR:
                        await err.take(body)
                    case _:
                        self._on_record(kind, body)

    async def _next(self) -> Record:
        """The next record. Raises ExchangeError."""
        while not self._records:
            reply = await anext(aiter(self._replies), None)
            if reply is None:
                raise RemoteError(f"node {self.node!r} ended the command without its exit code", node=self.node)
            self._records.extend(self._decoder.feed(reply.payload.readall()))
        return self._records.popleft()

    def _on_record(self, kind: int, body: bytes) -> None:
        match kind:
            case Kind.STARTED:
                self.pid = number_of(body)
            case Kind.CREDIT:
                self._outgoing.add_credit(number_of(body))
            case Kind.EXIT | Kind.EXPIRED:
                self.expired = kind == Kind.EXPIRED
                self.returncode = number_of(body)
                self._outgoing.close()
                if self._feeding is not None:
                    self._feeding.cancel()
            case _:
                pass  # of a later version

    def _check(self) -> None:
        if self.expired:
            raise TimedOut(f"node {self.node!r}: {self.command[0]!r} was stopped, its time being over", node=self.node)


async def check_output(starting: Starting) -> bytes:
    """The stdout of a command. Raises CommandFailed if it exits with anything but 0."""
    async with starting as process:
        out, err = await process.communicate()
    if process.returncode:
        raise failed(process, out, err)
    return out


def failed(process: RemoteProcess, stdout: bytes, stderr: bytes) -> CommandFailed:
    """The error for a command that has ended in anything but 0."""
    code = process.returncode or 0
    how = f"exited with {code}" if code >= 0 else f"was killed by {_name_of(-code)}"
    last = stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return CommandFailed(
        f"node {process.node!r}: {process.command[0]!r} {how}{': ' if last else ''}{last[:200]}",
        node=process.node,
        returncode=code,
        stdout=stdout,
        stderr=stderr,
    )


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
