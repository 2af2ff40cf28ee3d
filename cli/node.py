"""`zmesh node`: a node of the mesh as a process, from the line that says it is ready to its goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

from zmesh import (
    CertificateExpiring,
    CertificateRenewed,
    ClockSet,
    ConfigurationChanged,
    Controller,
    DialFailed,
    DuplicateId,
    Event,
    IdTaken,
    LinkLost,
    LinkRefused,
    LinkUp,
    NodeJoined,
    NodeLeft,
    TrustChanged,
)
from zmesh.errors import AddressError, Closed, ConfigError
from zmesh_cli.exit_codes import DONE, INTERRUPTED, USAGE, Failure
from zmesh_cli.local_sockets import url_of
from zmesh_cli.logs import in_journal, set_format, set_level, set_up_logging
from zmesh_cli.notification import Notification
from zmesh_cli.parameters import NodeSettings
from zmesh_cli.signals import ENDING, has_terminal, not_ignored
from zmesh_cli.terminal import ATOMIC, STDIN, STDOUT, Output, print_error, print_line, record

log = logging.getLogger(__name__)

FINISH_WITHIN = 5.0
"""Seconds that running work gets to finish when the node is stopped."""

DELIVER_WITHIN = 1.0
"""Seconds for the last replies to be acknowledged after that."""

CLOSE_WITHIN = 1.0
"""Seconds that closing may take after a second signal."""

LOOK_AGAIN = 0.02

MAX_REASONS = 16
"""For each peer, the failures to dial it that are printed before there is a link."""


async def run_node(
    settings: NodeSettings,
    *,
    as_json: bool,
    verbose: int,
    until_eof: bool,
) -> int:
    """Run a node until a signal (or, with `until_eof`, the end of stdin) stops it; the exit code."""
    set_up_logging(verbose, node=True, log_format=settings.log_format)
    config = settings.load()
    set_format(config.log_format)
    controller = Controller(config)
    own_level = not (verbose or os.environ.get("ZMESH_DEBUG"))
    if own_level:
        set_level(config.log_level)
    controller.watch(partial(_set_log, controller, own_level))
    printer = _EventPrinter()
    systemd = Notification()
    if as_json:
        controller.watch(printer.on_event)
    local = None
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        reloads.add(task := asyncio.ensure_future(_reload(controller, systemd)))
        task.add_done_callback(reloads.discard)

    with _stops(until_eof, reload) as stops:
        taken = _IdTakenStop(stops)
        controller.watch(taken.on_event)
        next_stop = asyncio.ensure_future(stops.get())
        try:
            with _logger_disabled("zmesh.controller"):  # open raises its errors too, and once is enough
                await _open_until(controller, next_stop)
            if not next_stop.done():
                local = _open_local_socket(controller)
                await printer.ready(controller, local, as_json=as_json)
                systemd.ready(f"node {controller.node_id}")
                _freeze()
            code = await next_stop
            systemd.stopping()
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
            next_stop.cancel()
            _remove(local)
            await controller.close()
            systemd.close()
    return DONE if code is None else code


def _freeze() -> None:
    """Take what a node has when it has started, its modules above all, out of collections of garbage: each that looks
    at all objects takes 18 ms less, in which the node does nothing else.
    """
    gc.collect()
    gc.freeze()


async def _open_until(controller: Controller, stop: asyncio.Future[int | None]) -> None:
    """Open the node; a stop meanwhile, while a plugin takes long to start, ends that. Raises what `open` raises."""
    opening = asyncio.ensure_future(controller.open())
    await asyncio.wait((opening, stop), return_when=asyncio.FIRST_COMPLETED)
    if opening.done():
        opening.result()
        return
    controller.stop()
    with contextlib.suppress(Closed):
        await opening


class _IdTakenStop:
    """Stops the node when its id is in use by a node that was started earlier."""

    def __init__(self, stops: asyncio.Queue[int | None]) -> None:
        self._stops = stops
        self.text: str | None = None

    def on_event(self, event: Event) -> None:
        """Take an event of the node."""
        if isinstance(event, IdTaken) and self.text is None:
            self.text = f"the id {event.node!r} is taken: {event.text}"
            self._stops.put_nowait(USAGE)


class _EventPrinter:
    """Prints the events of the node on stdout as JSON; the log has them for people."""

    def __init__(self) -> None:
        self._output = Output()
        self._waiting: list[str] | None = []
        """Lines that wait for the one that says that the node is ready."""
        self._dial_failures: dict[str, set[str]] = {}
        self._left_out = 0

    async def ready(self, controller: Controller, local: str | None, *, as_json: bool) -> None:
        """Print that the node listens and where, and the events before that."""
        node_id = controller.node_id
        listening = [url for url in controller.listening if url != local]
        if as_json:
            await self._output.text(_line("ready", node_id=node_id, listening=listening))
        else:
            where = ", ".join(listening) or "no address"
            print_line(f"node {node_id} listens on {where}{'' if in_journal() else '; Ctrl-C stops it'}")
        waiting, self._waiting = self._waiting or [], None
        for line in waiting:
            self._write(line)

    def on_event(self, event: Event) -> None:
        """Take an event of the node."""
        match event:
            case DialFailed():
                printed = self._dial_failures.setdefault(event.url, set())
                if event.reason in printed or len(printed) >= MAX_REASONS:
                    return  # a reason is printed once until there is a link, and not at every try
                printed.add(event.reason)
            case LinkUp():
                self._dial_failures.pop(event.where, None)
        line = _line_of(event)
        if line is None:
            return
        if self._waiting is not None:
            self._waiting.append(line)
        else:
            self._write(line)

    def _write(self, line: str) -> None:
        """Print a line, if the reader of stdout keeps up; the node neither waits for it nor ends without it."""
        if self._left_out:
            line = _line("events_left_out", count=self._left_out) + line
        data = line.encode()
        try:
            if self._output.ready() and (len(data) <= ATOMIC or not self._output.waits):
                os.write(STDOUT, data)
                self._left_out = 0
                return
        except OSError:
            pass
        self._left_out += 1


def _line_of(event: Event) -> str | None:
    """An event as a line of JSON; None for one that is not printed."""
    match event:
        case LinkUp():
            detail = "leaf" if event.ephemeral else ""
            return _line("link_up", node=event.node, detail=detail, where=event.where)
        case LinkLost():
            return _line("link_lost", node=event.node, detail=event.reason, where=None)
        case LinkRefused():
            return _line("link_refused", node=event.node, detail=event.reason, where=event.where)
        case DialFailed():
            detail = f"{event.url}: {event.reason}"
            return _line("dial_failed", node=None, detail=detail, where=event.url, code=event.code)
        case DuplicateId():
            return _line("duplicate_id", node=event.node, detail=event.text, where=None)
        case IdTaken():
            return _line("id_taken", node=event.node, detail=event.text, where=None)
        case CertificateExpiring():
            return _line("certificate_expiring", node=event.node, detail=event.text, where=None)
        case CertificateRenewed():
            return _line("certificate_renewed", node=event.node, detail=event.text, where=None)
        case TrustChanged():
            return _line("trust_changed", node=event.node, detail=event.text, where=None)
        case ClockSet():
            return _line("clock_set", node=event.node, detail=event.text, where=None)
        case ConfigurationChanged():
            later = f"; at the next start: {', '.join(event.at_restart)}" if event.at_restart else ""
            changed = ", ".join(event.changed) or "none yet"
            return _line("configuration_changed", node=event.node, detail=changed + later, where=None)
        case NodeJoined():
            return _line("node_joined", node=event.node, detail="", where=None)
        case NodeLeft():
            return _line("node_left", node=event.node, detail="", where=None)
        case _:
            return None


def _line(name: str, **fields: object) -> str:
    """A line of JSON; `time` in seconds since 1970."""
    return record("zmesh.node/1", event=name, **fields, time=round(time.time(), 3))


@contextlib.contextmanager
def _stops(until_eof: bool, reload: Callable[[], None]) -> Iterator[asyncio.Queue[int | None]]:
    """A queue of requests to stop the node: an exit code for a signal, None for the end of stdin.

    SIGHUP is one if the node was started from a terminal, which is gone then. To a daemon it commonly means that its
    settings have changed, so a node without a terminal calls `reload`.
    """
    loop = asyncio.get_running_loop()
    signals, at_terminal = not_ignored(signal.SIGINT, *ENDING), has_terminal()
    stops: asyncio.Queue[int | None] = asyncio.Queue()
    for number in signals:
        if number == signal.SIGHUP and not at_terminal:
            loop.add_signal_handler(number, reload)
        else:
            loop.add_signal_handler(number, stops.put_nowait, DONE if number == signal.SIGTERM else INTERRUPTED)

    def on_stdin() -> None:
        if not os.read(STDIN, 4096):
            loop.remove_reader(STDIN)
            stops.put_nowait(None)

    if until_eof:
        loop.add_reader(STDIN, on_stdin)
    try:
        yield stops
    finally:
        if until_eof:
            loop.remove_reader(STDIN)
        for number in signals:
            loop.remove_signal_handler(number)


async def _reload(controller: Controller, systemd: Notification) -> None:
    """Have the node read its settings and its identity anew; it goes on with those it has if they are bad."""
    systemd.reloading()
    try:
        reloaded = await controller.node.reload_in_thread()
    except Closed:
        pass
    except ConfigError as error:
        log.error("nothing is reloaded: %s", error)
    else:
        if not any(reloaded):
            log.info("reloaded; no setting has changed")
    systemd.ready(f"node {controller.node_id}")


def _set_log(controller: Controller, own_level: bool, event: Event) -> None:
    """Log at another level, or in another format, if that is what has changed; `own_level`: no option sets it."""
    if not isinstance(event, ConfigurationChanged):
        return
    if "log_format" in event.changed:
        set_format(controller.config.log_format)
    if "log_level" in event.changed and own_level:
        set_level(controller.config.log_level)


@contextlib.contextmanager
def _logger_disabled(name: str) -> Iterator[None]:
    """Disable one logger meanwhile."""
    logger = logging.getLogger(name)
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def _open_local_socket(controller: Controller) -> str | None:
    """Listen for the commands of this user; the URL, or None if that fails, which is no reason not to run."""
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
    """Wait for running work to end and its replies to be acknowledged, or for another request to stop."""
    await _until(lambda: not controller.stats().serving, again, FINISH_WITHIN)
    await _until(lambda: not controller.stats().replying, again, DELIVER_WITHIN)


async def _until(done: Callable[[], bool], again: asyncio.Future[int | None], within: float) -> None:
    loop = asyncio.get_running_loop()
    over = loop.time() + within
    while not done() and loop.time() < over and not again.done():
        await asyncio.wait((again,), timeout=LOOK_AGAIN)


def _close_at_once(code: int) -> None:
    """Let closing take at most CLOSE_WITHIN."""
    asyncio.get_running_loop().call_later(CLOSE_WITHIN, os._exit, code)
