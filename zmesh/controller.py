"""A node inside a program: requests, replies, directives, and the mesh as the node sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from zmesh import requests, serving  # each loads its modules when they are first used
from zmesh.arguments import (
    check_directive,
)
from zmesh.errors import ConfigError, MeshError
from zmesh.files import Files
from zmesh.jobs import Jobs
from zmesh.lifecycle import Lifecycle, Main
from zmesh.messaging import Messaging
from zmesh.observe import MeshView
from zmesh.operate import Diagnosing
from zmesh.remote import Machines
from zmesh.runtime import is_a, text_of
from zmesh.tunnel import Tunnels

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.config import Config, Settings
    from zmesh.core.limits import Limits
    from zmesh.disclosure import Setting
    from zmesh.node import Node
    from zmesh.reconfiguration import Reloaded
    from zmesh.serving import DirectiveOptions

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., object])


class Controller(MeshView, Machines, Messaging, Files, Jobs, Diagnosing, Tunnels):
    """A node inside a program.

    `Controller(node_id="edge", peers=["tcp://hub:7323"])` takes the settings of a Config by name;
    `Controller(Config(...))` takes a Config. It is used with `run(main)` or `async with`. With `loop`, the node runs in
    that loop as soon as the loop runs, and `run` may be left out. All methods may be called from the loop's thread;
    `send` and `ping` from any. `limits` bound the state and the work that other nodes can cause here.

    Before the node is open, messages wait for it: all with `loop`, else those of `send` without a handler. Other calls
    raise Closed at once, as all do when the node is closed, and in a forked child, which makes a Controller of its own.

    Raises TypeError for an argument of the wrong type, for both a Config and settings, and for a setting that does not
    exist; ConfigError for a setting out of its limits.
    """

    def __init__(
        self,
        config: Config | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        if loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop is an event loop of asyncio, not {type(loop).__name__}")
        if loop is not None and loop.is_closed():
            raise ConfigError("the event loop that the Controller is to run in is closed")
        from zmesh.config import config_of  # these here: what only names the class does not pay for the engine
        from zmesh.core.limits import Limits
        from zmesh.node import Node

        if limits is not None and not isinstance(limits, Limits):
            raise TypeError(f"limits are a Limits, not {type(limits).__name__}")
        directives = serving.Directives()
        directives.attach(self.stream)
        self._node = Node(config_of(config, settings), directives, limits)
        self._lifecycle = Lifecycle(self._node, loop, self._on_end)
        self._inbox = requests.Inbox(self._check_receiving, self._drop_reply)
        if loop is not None:
            self._lifecycle.begin(loop)

    # -- set-up --------------------------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        """The node itself. Programs may use its `router`, `events` and `reachable`; the rest is internal.

        Raises Closed in a fork of its process.
        """
        self._node.admission.check_process()
        return self._node

    @property
    def receptor(self) -> Node:
        """The node, under its name in programs for Receptor."""
        return self.node

    @property
    def config(self) -> Config:
        """The settings that the node has now."""
        return self._node.config

    @property
    def node_id(self) -> str:
        """This node's id."""
        return self._node.node_id

    @property
    def listening(self) -> list[str]:
        """The URLs that the node really listens on; empty while it is not open."""
        return list(self.node.listening)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the node runs in, or will."""
        return self._lifecycle.loop

    def enable_server(self, listen_urls: Iterable[str]) -> None:
        """Listen on these URLs once the node runs (now, if it does).

        Raises AddressError at once for a malformed URL, and for one that would let other machines in without an
        identity; one that turns out to be taken makes `run` raise it.
        """
        connectivity = self._unclosed().connectivity
        urls = [listen_urls] if isinstance(listen_urls, str) else list(listen_urls)
        for url in urls:
            connectivity.check(url)
        for url in urls:
            connectivity.listen(url)

    def add_peer(self, peer: str) -> None:
        """Keep a link to the node at this URL, whether or not it is up yet.

        Raises AddressError for a malformed URL, and for one that would be plaintext to another machine.
        """
        connectivity = self._unclosed().connectivity
        connectivity.check(peer, dialled=True)
        connectivity.dial(peer)

    def check(self) -> None:
        """Check the settings without opening anything; loads the plugins.

        Raises ConfigError for settings that the node can't be opened with, as far as that is known before it is.
        """
        self._unclosed().check()

    def settings(self) -> list[Setting]:
        """The settings that the node has, each with its origin, and without secrets."""
        from zmesh.disclosure import settings_of

        return list(settings_of(self.config))

    def reload(self, config: Config | None = None) -> Reloaded:
        """Change the settings while the node runs; by default they are read again from the sources of `Config.load`.

        Certificate, trust and permissions of its identity are read again as well. Links whose URL stays are kept.
        Returns which settings have changed, and which take effect at the next start. Raises ConfigError for settings
        that can't be used, which changes nothing. The files are read on the event loop, which waits for them; `zmesh
        reload` has a thread read them.
        """
        return self.node.reload(config)

    def register(self, name: str, function: Callable[..., object], **options: Unpack[DirectiveOptions]) -> None:
        """Offer `namespace:action` at this node; `function` takes a Work and returns or yields its replies.

        Options are those of DirectiveOptions. Raises ValueError for a name that is taken or is none, and TypeError for
        a function that can't be called with the Work alone, or is isolated and can't be moved to another process.
        """
        self._unclosed().register(name, function, **options)

    def directive(self, name: str, **options: Unpack[DirectiveOptions]) -> Callable[[Function], Function]:
        """Register the decorated function as `namespace:action` at this node: `@mesh.directive("text:shout")`.

        The options, and what is raised, are those of `register`.
        """
        check_directive(name)

        def offer(function: Function) -> Function:
            self.register(name, function, **options)
            return function

        return offer

    # -- the mesh ------------------------------------------------------------------------------------------------

    def nodes(self, target: str | None = None, *, tag: str | None = None) -> list[str]:
        """The ids of all nodes that can be reached, this one's among them, sorted; with `tag`, of those that have it.

        With a `target`, such as `tag:gpu,!edge-9`, those that it stands for; one that it names need not be reachable.

        As `routes`, `edges`, `capabilities`, `tags` and `duplicates`, this is the state of the moment, and raises
        ConfigError at an ephemeral node, which keeps no tables of the mesh.
        """
        for name, given in (("target", target), ("tag", tag)):
            if given is not None and not isinstance(given, str):
                raise TypeError(f"{name} is a text, not {type(given).__name__}")
        if target is None and tag is None:
            return self.node.router.get_nodes()
        return self._resolved(target if target is not None else f"tag:{tag}", self.node.router.tags)

    @property
    def _host(self) -> Node:
        return self._unclosed()

    @property
    def _requests(self) -> requests.Requests:
        return self.node.requests

    def _check_receiving(self) -> None:
        """Raises what keeps a reply from ever coming."""
        self._node.admission.check_begun()
        self._node.admission.check_loop()
        if self._lifecycle.is_over:
            raise self._lifecycle.closed()

    def _unclosed(self) -> Node:
        """The node, to be changed. Raises Closed when it is closed."""
        node = self.node
        if self._lifecycle.is_over:
            raise self._lifecycle.closed()
        return node

    # -- opening and closing -------------------------------------------------------------------------------------

    def _node_with_tables(self) -> str:
        return self.node.engine.uplink or self.node_id

    def _run_node(self, main: Main | None) -> Any:
        return self._lifecycle.run(main)

    def stop(self) -> None:
        """End a `run` without a main function."""
        self._node.stop()

    async def open(self) -> None:
        """Open the node in the running loop; returns once it listens. Raises AddressError, Closed if it was open."""
        await self._lifecycle.open()

    async def close(self) -> None:
        """Close the node and wait until nothing of it is left. Harmless when it is closed, and in a forked child.

        Raises the error that has ended the node, unless `open` or an earlier `close` has raised it.
        """
        await self._lifecycle.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is GeneratorExit and asyncio._get_running_loop() is None:  # this coroutine is garbage, and can't await
            self._node.close_now()
        else:
            await self.close()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not self._lifecycle.is_leaving:
            self._inbox.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("node %s: %s", self.node_id, text_of(error), exc_info=None if is_a(error, MeshError) else error)
