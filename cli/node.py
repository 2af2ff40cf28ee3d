"""`zmesh node`: a node of the mesh as a process, from the line that says it is ready to a clean leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator

from zmesh.config import Config
from zmesh.controller import Controller
from zmesh.core.effects import Report
from zmesh.errors import AddressError
from zmesh.node import Node
from zmesh_cli.exit_codes import DONE, INTERRUPTED, USAGE, Failure
from zmesh_cli.local_sockets import url_of
from zmesh_cli.logs import set_up_logging
from zmesh_cli.signals import ENDING, has_terminal, heeded
from zmesh_cli.terminal import ATOMIC, STDIN, STDOUT, Output, print_error, print_line, record

log = logging.getLogger(__name__)

FINISH_WITHIN = 5.0
"""Seconds that running work gets to finish when the node is told to stop."""

TAKE_WITHIN = 1.0
"""Seconds that those who asked get to take the last replies."""

CLOSE_WITHIN = 1.0
"""Seconds that closing may take when it is told so twice."""

LOOK_AGAIN = 0.02

EVENTS = ("link_up", "link_lost", "link_refused", "duplicate_id", "id_taken", "node_joined", "node_left")
"""What a node tells with --json after it is ready, besides `dial_failed`."""

MAX_REASONS = 16
"""For each peer, the failures to dial it that are told before there is a link."""


async def run_node(
    file: str | None,
    node_id: str | None,
    listen: list[str] | None,
    peers: list[str] | None,
    *,
    as_json: bool,
    verbose: int,
    until_eof: bool,
) -> int:
    """Run a node until a signal (or, with `until_eof`, the end of stdin) tells it to stop; the exit code."""
    set_up_logging(verbose, node=True)
    config = Config.load(file, node_id=node_id, listen=listen or None, peers=peers or None)
    controller = Controller(config)
    events = _Events(controller.node)
    if as_json:
        controller.node.watch(events.note)
    local = None
    with _stops(until_eof, controller.node.directives.hurry) as stops:
        taken = _Taken(stops)
        controller.node.watch(taken.note)
        try:
            with _unsaid("zmesh.controller"):  # an error in opening is raised as well, and told once is enough
                await controller.open()
            local = _open_local_socket(controller)
            await events.ready(controller, local, as_json=as_json)
            code = await stops.get()
            if taken.text is not None:
                print_error(f"{taken.text}; choose another id with --id, or end the other node")
                _close_at_once(USAGE)
            elif code is not None:
                again = asyncio.ensure_future(stops.get())
                await _finish(controller, again)
                if again.done():
                    _close_at_once(code)
                again.cancel()
        finally:
            _remove(local)
            await controller.close()
    return DONE if code is None else code


class _Taken:
    """Has the node end when another one of its name was started earlier: the two get in each other's way."""

    def __init__(self, stops: asyncio.Queue[int | None]) -> None:
        self._stops = stops
        self.text: str | None = None

    def note(self, report: Report) -> None:
        """One report of the node."""
        if report.event == "id_taken" and self.text is None:
            self.text = f"the id {report.node!r} is taken: {report.detail}"
            self._stops.put_nowait(USAGE)


class _Events:
    """What happens to the node, told on stdout as JSON; people are told by its log."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._output = Output()
        self._waiting: list[str] | None = []
        self._unanswered: dict[str, set[str]] = {}
        self._untold = 0

    async def ready(self, controller: Controller, local: str | None, *, as_json: bool) -> None:
        """The node listens: tell where, and what has happened before."""
        node_id = controller.node_id
        listening = [url for url in controller.listening if url != local]
        if as_json:
            await self._output.text(_event("ready", node_id=node_id, listening=listening))
        else:
            where = ", ".join(listening) or "no address"
            print_line(f"node {node_id} listens on {where}; Ctrl-C stops it")
        waiting, self._waiting = self._waiting or [], None
        for line in waiting:
            self._write(line)

    def note(self, report: Report) -> None:
        """One report of the node."""
        event, where = report.event, None
        if event == "dial_failed":
            where, _, reason = report.detail.partition(": ")
            told = self._unanswered.setdefault(where, set())
            if reason in told or len(told) >= MAX_REASONS:
                return
            told.add(reason)  # said once until there is a link, and not at every try
        elif event not in EVENTS:
            return
        elif event in ("link_up", "link_refused") and report.link is not None:
            where = self._node.neighbour(report.link).where
            if event == "link_up":
                self._unanswered.pop(where, None)
        line = _event(event, node=report.node, detail=report.detail, where=where)
        if self._waiting is not None:
            self._waiting.append(line)
        else:
            self._write(line)

    def _write(self, line: str) -> None:
        """A line, if the reader of stdout keeps up; a node waits for nobody, and goes on when nobody reads."""
        if self._untold:
            line = _event("events_left_out", count=self._untold) + line
        data = line.encode()
        try:
            if self._output.ready() and (len(data) <= ATOMIC or not self._output.waits):
                os.write(STDOUT, data)
                self._untold = 0
                return
        except OSError:
            pass
        self._untold += 1


def _event(name: str, **fields: object) -> str:
    """One line of JSON; `time` in seconds since 1970."""
    return record("zmesh.node/1", event=name, **fields, time=round(time.time(), 3))


@contextlib.contextmanager
def _stops(until_eof: bool, hurry: Callable[[], None]) -> Iterator[asyncio.Queue[int | None]]:
    """A queue of what tells the node to stop: an exit code for a signal, None for the end of stdin.

    `hurry` is called as well, so that a node which is still being opened comes to look at the queue.
    SIGHUP tells it so if the node was started from a terminal, which is gone then. A daemon is left running: to those
    the signal means that their settings have changed.
    """
    loop = asyncio.get_running_loop()
    signals, at_terminal = heeded(signal.SIGINT, *ENDING), has_terminal()
    stops: asyncio.Queue[int | None] = asyncio.Queue()

    def stop(code: int | None) -> None:
        stops.put_nowait(code)
        hurry()

    for number in signals:
        if number == signal.SIGHUP and not at_terminal:
            loop.add_signal_handler(number, log.warning, "SIGHUP does nothing to a node without a terminal")
        else:
            loop.add_signal_handler(number, stop, DONE if number == signal.SIGTERM else INTERRUPTED)

    def on_stdin() -> None:
        if not os.read(STDIN, 4096):
            loop.remove_reader(STDIN)
            stop(None)

    if until_eof:
        loop.add_reader(STDIN, on_stdin)
    try:
        yield stops
    finally:
        if until_eof:
            loop.remove_reader(STDIN)
        for number in signals:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _unsaid(name: str) -> Iterator[None]:
    """Keep one logger quiet meanwhile."""
    logger = logging.getLogger(name)
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def _open_local_socket(controller: Controller) -> str | None:
    """Let the commands of this user find the node; its URL, or None if that can't be, which is no reason not to run."""
    try:
        controller.enable_server([url_of(controller.node_id)])
    except (AddressError, Failure) as error:
        print_error(f"commands will need --peer to find this node: {error}")
        return None
    return controller.listening[-1]


def _remove(local: str | None) -> None:
    """Delete the local socket, which ZeroMQ leaves behind; while it is open, so that it is not another node's."""
    if local is not None:
        with contextlib.suppress(OSError):
            os.unlink(local.removeprefix("ipc://"))


async def _finish(controller: Controller, again: asyncio.Future[int | None]) -> None:
    """Let running work end and its replies be taken, or until told to stop again."""
    node = controller.node
    await _until(lambda: not len(node.serving), again, FINISH_WITHIN)
    await _until(lambda: not node.engine.stats()["services"], again, TAKE_WITHIN)


async def _until(done: Callable[[], bool], again: asyncio.Future[int | None], within: float) -> None:
    loop = asyncio.get_running_loop()
    over = loop.time() + within
    while not done() and loop.time() < over and not again.done():
        await asyncio.wait((again,), timeout=LOOK_AGAIN)


def _close_at_once(code: int) -> None:
    """Let closing take CLOSE_WITHIN, and not longer."""
    asyncio.get_running_loop().call_later(CLOSE_WITHIN, os._exit, code)
