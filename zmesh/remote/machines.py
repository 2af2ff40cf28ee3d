"""Work on machines as a program calls it: `run` and `check_output`, which a Controller inherits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, overload

from zmesh import requests
from zmesh.arguments import check_timeout
from zmesh.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Unpack

    from zmesh.payloads import PayloadLike
    from zmesh.remote.fleet import OnOutput, Outcomes
    from zmesh.remote.remote_process import Starting, Word
    from zmesh.requests import ReplyStream

RUN = "exec:run"


class RunOptions(TypedDict, total=False):
    """How a command runs.

    `env` are variables beside those that the node keeps, `cwd` a directory of the node, `user` a user of it, `timeout`
    the seconds after which the command is stopped. `stdin` is a payload, PIPE for a writer, or DEVNULL for nothing, as
    by default. With `stderr=STDOUT` both outputs are one. `terminal` are the rows and columns of a terminal to run in.
    `route_timeout` is that of `stream`.
    """

    env: Mapping[str, str] | None
    cwd: Word | None
    user: str | None
    timeout: float | None
    stdin: PayloadLike | int
    stderr: int | None
    terminal: tuple[int, int] | None
    route_timeout: float | None


class FleetOptions(RunOptions, total=False):
    """How a command runs at many nodes.

    At most `max_parallel` (50) run it at a time. With `canary`, so many run it first, and the others only if all of
    those are done. After `stop_after` nodes, or a share of them such as `"5%"`, that have failed, were unreachable or
    timed out, no more are started. `per_node_timeout` are the seconds for each node, from the request to the exit.
    `on_output(node, stream, data)`, a coroutine function, takes the output as it comes: 1 is stdout, 2 stderr.
    """

    max_parallel: int
    canary: int
    stop_after: int | str | None
    per_node_timeout: float | None
    on_output: OnOutput | None


class Machines(requests.Requester):
    """The part of a Controller that works on machines."""

    @staticmethod
    def _nodes_of(target: str, known: Mapping[str, Container[str]]) -> list[str]:
        """The nodes that a target stands for. Raises ConfigError."""
        from zmesh.remote.targets import Target

        return Target.of(target).nodes(known)

    @staticmethod
    def _resolved(target: str, known: Callable[[], Mapping[str, Container[str]]]) -> list[str]:
        """The nodes that a target stands for; `known` is called unless it names all of them. Raises ConfigError."""
        from zmesh.remote.targets import Target

        wanted = Target.of(target)
        return wanted.nodes({} if wanted.names_nodes else known())

    def _ids(self, nodes: Iterable[str] | str | None, tag: str | None = None) -> list[str]:
        """The ids that a method for many nodes is given, as a list, as a target or as a tag. Raises ConfigError."""
        if nodes is None or tag is not None:
            if nodes is not None or tag is None:
                raise ConfigError("give either nodes, as ids or as a target such as 'tag:gpu,!edge-9', or tag")
            return self.nodes(tag=tag)
        return self.nodes(nodes) if isinstance(nodes, str) else list(nodes)

    @abstractmethod
    def nodes(self, target: str | None = None, *, tag: str | None = None) -> list[str]:
        """As `Controller.nodes`."""

    @abstractmethod
    def _run_node(self, main: Any) -> Any:
        """Run the node until `main` is done."""

    @overload
    def run(self, main: Any = None) -> Any: ...
    @overload
    def run(self, node: str, command: Sequence[Word], /, **options: Unpack[RunOptions]) -> Starting: ...
    def run(self, main: Any = None, command: Sequence[Word] | None = None, **options: Any) -> Any:
        """Run the node itself, or a command at another node.

        `run(main)` runs the node until `main` (a coroutine function) is done, or without one until `stop` or Ctrl-C.
        After `main`, all that was sent is handed over first, and every reply that a handler expects is waited for.
        Ctrl-C ends it at once, as KeyboardInterrupt, and so does `sys.exit` wherever it is called. Returns what `main`
        returns, and raises what it raises.

        `run(node, ["uname", "-a"])` is a command there: `async with mesh.run(...) as process`, or `await` it for the
        process, which is used as one of asyncio.subprocess. The node must allow `exec:run`. Options are those of
        RunOptions. Raises CommandFailed if the command can't be executed, NotAllowed, TypeError and ValueError for a
        malformed command or option, and as `stream` does.
        """
        if command is None and not options and not isinstance(main, str):
            return self._run_node(main)
        if command is None:
            raise TypeError("run(node, command) takes a command as a list of its words, such as ['uname', '-a']")
        return self._starting(main, command, **options)

    def check_output(
        self, node: str, command: Sequence[Word], /, **options: Unpack[RunOptions]
    ) -> Coroutine[Any, Any, bytes]:
        """The stdout of a command at a node, as bytes.

        Raises CommandFailed if it exits with anything but 0, and as `run` does. Options are those of RunOptions.
        """
        from zmesh.remote import remote_process

        return remote_process.check_output(self._starting(node, command, **options))

    def run_many(
        self,
        nodes: Iterable[str] | str,
        command: Sequence[Word],
        /,
        **options: Unpack[FleetOptions],
    ) -> Outcomes:
        """Run a command at many nodes; iterate over what this returns for an Outcome of each, as they come.

        `nodes` are ids, or a target as `nodes` takes. An error at one is in its Outcome, and delays none of the others.
        Options are those of FleetOptions, and of RunOptions for each node.

        Raises ConfigError for a malformed target or number, TypeError for stdin that can be read only once, ValueError
        for stdin=PIPE, and TypeError and ValueError for a malformed command.
        """
        from zmesh.remote import fleet  # here: few programs run commands
        from zmesh.remote.remote_process import start_record

        shared: dict[str, Any] = dict(options)
        rules, on_output = fleet.rules_in(shared)
        stdin = requests.repeatable(shared.pop("stdin", None))
        start_record(command)  # raises for a malformed command
        ids = self._ids(nodes)

        def start(node: str) -> Starting:
            return self._starting(node, command, stdin=stdin(), **shared)

        return fleet.CommandOutcomes(ids, start, rules, on_output)

    def _starting(
        self,
        node: str,
        command: Sequence[Word],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Word | None = None,
        user: str | None = None,
        timeout: float | None = None,
        stdin: PayloadLike | int = None,
        stderr: int | None = None,
        terminal: tuple[int, int] | None = None,
        route_timeout: float | None = None,
    ) -> Starting:
        from zmesh.remote.remote_process import (  # here: few programs run commands
            PIPE,
            STDOUT,
            Starting,
            check_stdin,
            start_record,
        )

        check_timeout(timeout)
        if stderr is not None and not (isinstance(stderr, int) and stderr in (PIPE, STDOUT)):
            raise ValueError("stderr is PIPE, or STDOUT for one stream of both")
        check_stdin(stdin)
        merged = stderr == STDOUT
        begin = start_record(command, env=env, cwd=cwd, user=user, timeout=timeout, terminal=terminal, merged=merged)

        def send(payload: AsyncIterator[bytes]) -> ReplyStream:
            return self.stream(node, RUN, payload, route_timeout=route_timeout)

        return Starting(node, command, begin, send, stdin)
