"""A node: the engine, the sockets and the clock, put together.

Everything a node does runs in one task, `run`, and in the task group that it opens. What comes in is handed to the
engine, what the engine wants is done, in order and to the end, before anything else is: a stimulus that arises while
effects are being performed waits its turn. The node decides nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from zmesh.arguments import check_node, check_timeout
from zmesh.components import Components
from zmesh.config import Config, DefaultId, identity_of, resolved
from zmesh.connectivity import Connectivity
from zmesh.core.effects import Report
from zmesh.core.engine import Engine
from zmesh.core.limits import Limits
from zmesh.core.message import Address, MessageId, NodeId
from zmesh.errors import NotAllowed
from zmesh.identity import LeafKey, Policy
from zmesh.observe import Observation, Router, Telemetry
from zmesh.payloads import PayloadStorage
from zmesh.requests import Requests, answer_of, route_to
from zmesh.runtime import Driver, Tasks, ThreadPool, abandon, log_line, nodes_in_loop, watchdogs
from zmesh.serving import PING, Builtins, Directives, Serving
from zmesh.transport import BlockedLoopKeepalive, LinkSecurity, Transport
from zmesh.version import __version__

if TYPE_CHECKING:
    from zmesh.disclosure import Setting
    from zmesh.membership import StateRead
    from zmesh.observe import Events, Stats
    from zmesh.reconfiguration import Reloaded
    from zmesh.runtime import OrphanReaper
    from zmesh.serving import Work

log = logging.getLogger(__name__)

RELOAD = "zmesh:reload"
"""The directive by which commands on this machine have a node read its settings anew."""

PLUGINS_START_WITHIN = 30.0
"""Seconds that each plugin may take to start; the node listens when all have started or failed."""

HANDLERS_END_WITHIN = 1.0
"""Seconds that closing waits for handlers that are still at work, and for payloads that are being read."""


class Node:
    """One member of the mesh. Use it through a Controller, or `run` it in a task.

    `limits`: the resource limits of its engine; None: the defaults, raised for what `config` admits. `enrolling`: a
    leaf without identity that requests a certificate. Raises ConfigError for settings that can't be used.
    """

    def __init__(
        self,
        config: Config,
        directives: Directives | None = None,
        limits: Limits | None = None,
        *,
        enrolling: bool = False,
    ) -> None:
        self.config = config
        self.node_id = config.node_id
        self._has_own_limits = limits is not None
        if limits is None:
            limits = Limits.serving(config.max_work, config.max_payload_bytes)
        now, identity = time.monotonic(), identity_of(config)
        self._credentials = credentials = identity.credentials() if identity is not None else None
        self.engine = Engine(
            NodeId(Address(config.node_id)),
            int.from_bytes(os.urandom(8)) | 1,
            now=now,
            epoch=time.time() - now,
            serial=time.time_ns() // 1_000_000,
            heartbeat=config.heartbeat,
            route_timeout=config.route_timeout,
            leaf=config.ephemeral,
            limits=limits,
            credentials=credentials,
            leaf_key=LeafKey(os.urandom) if config.ephemeral and identity is None and not enrolling else None,
            enrolling=enrolling,
        )
        self.router = Router(self.engine)
        self.telemetry = Telemetry(config.node_id)
        self.observation = Observation(config.node_id, self.engine, self.router, self.telemetry)
        self.directives = directives if directives is not None else Directives()
        self.driver = Driver(self.engine, config.heartbeat, self.note)
        self.tasks = Tasks()
        self._reloading = asyncio.Lock()
        self._storage = PayloadStorage(config.spool_dir, config.max_payload_bytes)
        self.requests = Requests(config.node_id, self.driver, self.tasks, self._storage, config.max_waiting_bytes)
        self.serving = Serving(
            config.node_id,
            self.driver,
            self.tasks,
            self._storage,
            self.directives,
            config.plugins,
            self.note,
            max_workers=config.max_workers,
            max_work=config.max_work,
            max_processes=config.max_processes,
            isolation=config.isolation,
            limits=limits,
            policy=Policy(config.allow),
        )
        self.builtins = Builtins(self.router, self.serving)
        self.started, self.identity = now, identity
        self.serving.add_builtin(RELOAD, self._on_reload)
        self.components = Components(self, self.observation, self._storage, limits, credentials)
        self._security = LinkSecurity(identity.curve.secret if identity else None, insecure=config.insecure)
        self.connectivity = Connectivity(self.driver, self._security, config.listen, config.peers)
        self.listening = self.connectivity.listening
        self.admission = self.requests.admission
        self.loop: asyncio.AbstractEventLoop | None = None
        self._transport: Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop: asyncio.Event | None = None
        self._guard: BlockedLoopKeepalive | None = None
        self._reaper: OrphanReaper | None = None
        self._aborted = False
        self._released = False
        """Whether everything is closed."""
        self.closed = False

    @property
    def job_counts(self) -> tuple[int, int]:
        """How many jobs run at this node, and how many wait."""
        return self.components.job_counts

    def settings(self) -> list[Setting]:
        """As `Controller.settings`."""
        from zmesh.disclosure import settings_of

        return list(settings_of(self.config))

    # -- open and close ------------------------------------------------------------------------------------------

    async def run(self, ready: asyncio.Future[None] | None = None) -> None:
        """Open the sockets, run until `stop`, close everything. `ready` is resolved once the node listens.

        Raises AddressError if an address can't be used.
        """
        self.loop = self.admission.loop = asyncio.get_running_loop()
        nodes_in_loop[self.loop] = nodes_in_loop.get(self.loop, 0) + 1
        self.admission.thread = threading.get_ident()
        self._task = asyncio.current_task()
        self._stop = asyncio.Event()
        if self.admission.shut:
            self._stop.set()
        try:
            await self._prepare_plugins()
            self._open()
            await self.components.start()
            if ready is not None and not ready.done():
                ready.set_result(None)
            await self._stop.wait()
        except GeneratorExit:  # the loop ended before this task, which is collected as garbage and can't await
            self.close_now()
            raise
        finally:
            if not self._released:
                await self._close()
            with suppress(KeyError):  # the loop is being collected as garbage, and this coroutine with it
                nodes_in_loop[self.loop] -= 1

    def stop(self) -> None:
        """Have `run` close everything and return."""
        self.admission.shut = True
        self.directives.hurry()
        if self._stop is not None:
            self._stop.set()

    def abort(self, *, loop_ends: bool = False) -> None:
        """Have `run` return at once: no handler is called, and nothing is waited for.

        Tasks that wait for replies get Cancelled, unless their loop ends too and is about to cancel them.
        """
        self.requests.forget(None if loop_ends else self.loop)
        self._aborted = True
        self.stop()

    async def _prepare_plugins(self) -> None:
        """Load, configure and start the plugins; what is sent meanwhile goes out afterwards."""
        if self.config.ephemeral:
            return  # a leaf advertises no directives, and loading plugins would slow commands down
        self.directives.discover()
        self._configure_plugins()
        self.directives.attach_node(self)
        await self.components.open_events()
        await self.directives.start(PLUGINS_START_WITHIN)
        await self.components.open_jobs()

    def _open(self) -> None:
        identity = identity_of(self.config)
        if identity is not None and self._credentials is not None:
            self._credentials.renew(identity.certificate)  # a command has renewed it before it opens its node
        self._transport = Transport(self.driver, security=self._security)
        self.observation.addresses = self._transport
        if not self.config.ephemeral or logging.getLogger("zmesh.observe.journal").isEnabledFor(logging.INFO):
            assert self.loop is not None
            self.observation.start_journal(self.loop)
        self._guard = BlockedLoopKeepalive(self.engine, self._transport, self.note)
        watchdogs.add(self._guard, self.config.heartbeat)
        self.driver.start(self._transport)
        self.tasks.start()
        self.connectivity.open(self._transport)
        if not self.config.ephemeral:
            from zmesh.runtime import OrphanReaper  # here: no command needs it

            self._reaper = OrphanReaper()
        self.advertise()

    def advertise(self) -> None:
        """Advertise the directives that all nodes may call."""
        offered = [each for each in self.directives.capabilities() if self.serving.policy.offers(each)]
        offered += self.components.capabilities()
        self.driver.perform(self.engine.describe(offered, time.monotonic(), tuple(self.config.tags), __version__))

    def newcomer(self, config: Config) -> Node:
        """A node that requests a certificate, where that of this one has expired."""
        return Node(config, enrolling=True)

    def check(self) -> None:
        """Raises ConfigError for settings that the node could not be opened with, as far as that is known before."""
        from zmesh.reconfiguration import check

        self.directives.discover()
        check(self.config, self.directives, self.connectivity)
        self._configure_plugins()

    def _configure_plugins(self) -> None:
        config = self.config
        self.directives.configure(config.plugins, config.isolation, config.file, self.serving.policy.rules())

    def reload(self, config: Config | None = None) -> Reloaded:
        """Change the settings while the node runs; by default they are read anew from where they came from.

        Raises ConfigError, and then has changed nothing, and Closed. It reads files, and so blocks the loop.
        """
        self.admission.check_open()
        return self._change(*self._read(config))

    async def reload_in_thread(self, config: Config | None = None) -> Reloaded:
        """As `reload`, but a thread reads the files; concurrent calls take turns. Raises ConfigError and Closed."""
        self.admission.check_open()
        async with self._reloading:
            threads = ThreadPool(1, "zmesh-reload")
            try:
                while True:
                    new, state = await threads.call(lambda: self._read(config))
                    membership = self.components.membership
                    if membership is None or state is None or membership.is_current(state):
                        break
            finally:
                threads.close()
            self.admission.check_open()
            return self._change(new, state)

    def _read(self, config: Config | None) -> tuple[Config, StateRead | None]:
        """The settings as they are now, and the state of the identity. Raises ConfigError."""
        new = resolved(self.config.again() if config is None else config)
        membership = self.components.membership
        return new, membership.read() if membership is not None else None

    def _change(self, new: Config, state: StateRead | None) -> Reloaded:
        from zmesh.reconfiguration import Parts, reconfigure  # here: few nodes do it

        if isinstance(new.node_id, DefaultId):
            new = dataclasses.replace(new, node_id=self.config.node_id)
        parts = Parts(
            driver=self.driver,
            directives=self.directives,
            requests=self.requests,
            serving=self.serving,
            storage=self._storage,
            membership=self.components.membership,
            connectivity=self.connectivity,
            has_own_limits=self._has_own_limits,
        )
        self.config, reloaded = reconfigure(parts, self.config, new, state)
        self.advertise()
        if any(reloaded):
            detail, later = ", ".join(reloaded.changed), ", ".join(reloaded.at_restart)
            self.note(Report("configuration_changed", NodeId(Address(self.node_id)), None, detail, text=later))
        return reloaded

    def _on_reload(self, work: Work) -> object:
        if not self.engine.is_local(Address(work.sender)):
            raise NotAllowed(f"{RELOAD} is for commands on the machine of {self.node_id!r} alone")

        async def reload() -> object:
            reloaded = await self.reload_in_thread()
            return {"node": self.node_id, "changed": reloaded.changed, "at_restart": reloaded.at_restart}

        return asyncio.ensure_future(reload())

    async def _close(self) -> None:
        """Stop the work, end what is open, say goodbye, close the sockets; nothing is left."""
        if self.admission.is_foreign:  # a fork of this process unwinds; sockets, work and descriptors are the parent's
            return
        try:
            with ExitStack() as steps:
                steps.push(self._is_dropped)
                self.components.stop()
                await self.serving.close()
                await self.components.close_jobs()
                self.requests.close()
                self._leave()
        except GeneratorExit:
            self.close_now()
            raise
        finally:
            if not self._released:
                await self._shut()

    def _is_dropped(self, kind: object, error: BaseException | None, at: object) -> bool:
        """Whether an error of closing is dropped: after Ctrl-C amid the engine, its tables contradict each other."""
        if not self._aborted or not isinstance(error, Exception):
            return False
        log.debug("node %s could not take its leave", self.node_id, exc_info=error)
        return True

    async def _shut(self) -> None:
        self.closed = self.admission.shut = True
        self.driver.close()
        self.requests.end_drain()
        self.observation.end()
        await self.tasks.wind_down(0.0 if self._aborted else HANDLERS_END_WITHIN)
        self._unwatch()
        if self._transport is not None:  # first, or neighbours would be linked anew meanwhile
            await self._transport.close()
        await self.components.close()
        self._release()
        self._storage.join(1.0)
        self.observation.close()
        self._released = True
        await self.tasks.join()

    def _unwatch(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            watchdogs.remove(guard, self.loop)
        if self._reaper is not None:
            self._reaper.close()

    def _release(self) -> None:
        """Release the resources that can be released without the loop."""
        self._unwatch()
        self.components.release()
        self._storage.close()
        self.listening.clear()

    def close_now(self) -> bool:
        """Close the node at once, in any state and without its loop; True if it was open, which is logged then.

        For a program that ends without having closed it: the loop may be closed, or never run again. Work is cancelled
        and its clients learn of that, the neighbours get a goodbye, and sockets, threads and processes end. Nothing
        is awaited and no handler is called; a plugin's `close` does not run. To be called on the node's thread, or
        when no other runs its loop. Blocks for half a second at most, while ZeroMQ sends what is left, and for as long
        as the processes of isolated work take to be killed. Harmless when the node is closed, and in a forked child.
        """
        if self._released or self.admission.is_foreign:
            return False
        self._released = self.closed = self.admission.shut = True
        was_open = self._transport is not None
        self.driver.close()
        with ExitStack() as steps:  # each is taken, also after one that raises
            if self._task is not None:
                steps.callback(abandon, self._task)
            steps.callback(self.observation.close)
            if self._transport is not None:
                steps.callback(self._transport.close_now)
            steps.callback(self.observation.end)
            steps.callback(self.requests.end_drain)
            steps.callback(self.tasks.close_now)
            steps.callback(self._release)
            steps.callback(self._leave)
            steps.callback(self.components.close_jobs_now)
            steps.callback(self.serving.close_now)
            steps.callback(self.requests.close_now, self.loop)
        if was_open:
            log_line(
                log,
                logging.WARNING,
                "node %r was not closed before its program ended; use `async with Controller(...)`, `run` or `close`",
                self.node_id,
            )
        return was_open

    def _leave(self) -> None:
        self.driver.perform(self.engine.close(time.monotonic()))

    def watch(self, observer: Callable[[Report], None]) -> None:
        """Have each report of the engine (and of failed dialling, as `dial_failed`) given to `observer`."""
        self.observation.watch(observer)

    @property
    def metrics_url(self) -> str | None:
        """The URL at which the metrics of this node are served; None if they are not."""
        return self.components.metrics_url

    @property
    def transport(self) -> Transport | None:
        """The sockets, while the node is open."""
        return self._transport

    def stats(self) -> Stats:
        """The counters and gauges of the node at this moment."""
        from zmesh.observe import stats_of

        return stats_of(self.engine, len(self.requests), len(self.serving), self.telemetry.counts)

    def events(self) -> Events:
        """The events of this node's links and of the nodes that it can reach, from now on.

        Waiting for an event raises Closed while this node is not open yet.
        """
        self.admission.check_process()
        return self.observation.events(self.admission.check_begun)

    async def reachable(self, node: str, timeout: float | None = None) -> None:
        """Wait until there is a route to `node`; on an ephemeral node, until `node` answers a ping.

        Raises Unreachable after `timeout` seconds (None: no limit), with the nodes that can be reached, and Closed if
        this node is closed, or not open yet.
        """
        check_node(node)
        check_timeout(timeout)
        self.admission.check_open()
        self.admission.check_loop()
        if self.config.ephemeral:
            await answer_of(self.requests, node, PING, timeout)
        else:
            await route_to(self.requests, self.events, node, timeout)

    def register(self, name: str, function: Callable[..., object], **options: Any) -> None:
        """Register a directive of this program, and advertise it. `options` are those of Directives.register."""
        self.directives.register(name, function, **options)
        if self._transport is not None:
            self.advertise()

    def unregister(self, name: str) -> None:
        """Remove a directive that was registered. Harmless if it was not, or if the node is closed."""
        self.directives.unregister(name)
        if self._transport is not None and not self.closed:
            self.advertise()

    # -- requests ------------------------------------------------------------------------------------------------

    def cancel(self, message_id: str) -> None:
        """Cancel a request of this node by its message id, 32 hex digits. Harmless if it is over."""
        self.requests.cancel(MessageId(bytes.fromhex(message_id)))

    async def drain(self) -> None:
        """Wait until all messages have been delivered and every expected reply has arrived."""
        await self.requests.drain()

    # -- reports -------------------------------------------------------------------------------------------------

    def note(self, report: Report) -> None:
        """Count, log and pass on a report of the engine or of a part of this node."""
        self.observation.note(report)
        self.components.note(report)
        self.connectivity.note(report)
        self.observation.publish(report)
