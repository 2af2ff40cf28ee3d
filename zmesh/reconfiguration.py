"""Takes other settings into a node while it runs: all of them, or none.

Peers, listeners, tags, permissions and limits change at once; a link whose URL is in both settings is not touched.
The others take effect when the node starts anew, and `Reloaded` names them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Protocol

from zmesh.config import SETTINGS, Config, placed
from zmesh.core.engine import Engine
from zmesh.core.limits import Limits
from zmesh.core.message import LinkId
from zmesh.errors import AddressError, ConfigError
from zmesh.identity import Policy

if TYPE_CHECKING:
    from zmesh.payloads import PayloadStorage
    from zmesh.requests import Requests
    from zmesh.runtime import Driver
    from zmesh.serving import Directives, Serving
    from zmesh.transport import Transport

AT_START = ("node_id", "identity", "heartbeat", "ephemeral", "spool_dir", "insecure", "metrics", "tracing")
"""The settings that take effect when the node starts anew; so do those of plugins that have no `reload`."""


class Reloaded(NamedTuple):
    """The settings that have changed, and those that take effect when the node starts anew; both by name, sorted."""

    changed: tuple[str, ...]
    at_restart: tuple[str, ...]


class Membership(Protocol):
    """What is reloaded of a node's identity."""

    def reload(self, own: Policy | None = None) -> None:
        """Read the identity anew; `own` are the permissions of the settings."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of an open node that have settings, and what to call at the node itself."""

    engine: Engine
    driver: Driver
    directives: Directives
    requests: Requests
    serving: Serving
    storage: PayloadStorage
    membership: Membership | None
    transport: Transport
    listening: list[str]
    """The URLs that it listens on."""
    bound: dict[str, str]
    """Those of its settings, and the URLs that it listens on for them."""
    has_own_limits: bool
    """Whether its program has set the limits of the engine."""
    check_address: CheckAddress


class CheckAddress(Protocol):
    """Raises AddressError for a URL that may not be listened on, or dialled."""

    def __call__(self, url: str, *, dialled: bool = False) -> None:
        """Check one."""


def check(config: Config, directives: Directives, check_address: CheckAddress) -> None:
    """Raises ConfigError, of which AddressError is one, for settings that a node could not be started with."""
    Policy(config.allow)
    origins = config.origins()
    for name, urls in (("listen", config.listen), ("peers", config.peers)):
        for url in urls:
            try:
                check_address(url, dialled=name == "peers")
            except AddressError as error:
                raise AddressError(placed(str(error), origins.get(name), config.file)) from None
    for namespace, table in config.plugins.items():
        try:
            directives.check(namespace, table, config.file)
        except ConfigError as error:
            raise ConfigError(placed(str(error), origins.get(f"plugins.{namespace}"), config.file)) from None
    _check_observers(config)


def _check_observers(config: Config) -> None:
    """Metrics and tracing begin at the next start, which must not fail for them."""
    if config.metrics:
        from zmesh.metrics import checked_settings  # here, as below: few nodes have them

        checked_settings(config)
    if config.tracing:
        from zmesh.tracing import Tracing

        Tracing(config.node_id)


def reconfigure(parts: Parts, before: Config, config: Config) -> tuple[Config, Reloaded]:
    """Change the settings of a node; those that it has then. Raises ConfigError, and then has changed nothing."""
    check(config, parts.directives, parts.check_address)
    with ExitStack() as unless_reloaded:
        for url in config.listen:
            if url not in parts.bound:
                _listen(parts, url, unless_reloaded)
        policy = Policy(config.allow)
        if parts.membership is not None:
            parts.membership.reload(policy)
        else:
            parts.serving.policy = policy
        unless_reloaded.pop_all()
    _leave_addresses(parts, config)
    _change_peers(parts, before, config)
    _set_limits(parts, config)
    stay = parts.directives.reconfigure(config.plugins, config.file)
    changed = {name for name in SETTINGS if not _same(name, getattr(before, name), getattr(config, name))}
    at_restart = sorted([*(changed & set(AT_START)), *(f"plugins.{namespace}" for namespace in stay)])
    done = sorted(changed - set(AT_START))
    now = dataclasses.replace(config, **{name: getattr(before, name) for name in AT_START})
    return now, Reloaded(tuple(done), tuple(at_restart))


def _listen(parts: Parts, url: str, unless_reloaded: ExitStack) -> None:
    try:
        shown = parts.transport.listen(url)
    except AddressError as error:
        leaving = next((each for each in parts.bound if _port(each) == _port(url)), None)
        hint = f" by this node's own {leaving}; it moves there when it is started anew" if leaving else ""
        raise AddressError(f"{error}{hint}") from None
    unless_reloaded.callback(_stop_listening, parts, url)
    parts.bound[url] = shown
    parts.listening.append(shown)


def _stop_listening(parts: Parts, url: str) -> None:
    shown = parts.bound.pop(url)
    parts.listening.remove(shown)
    parts.transport.unlisten(shown)


def _leave_addresses(parts: Parts, config: Config) -> None:
    for url in [url for url in parts.bound if url not in config.listen]:
        _hang_up(parts, parts.transport.links_at(parts.bound[url]), f"it listens on {_plain(url)} no more")
        _stop_listening(parts, url)


def _change_peers(parts: Parts, before: Config, config: Config) -> None:
    for url in dict.fromkeys(before.peers):
        if url not in config.peers:
            _hang_up(parts, parts.transport.links_to(url), "it is no peer of it any more")
            parts.transport.undial(url)
            parts.driver.perform(parts.engine.dial_succeeded(url, time.monotonic()))
    for url in dict.fromkeys(config.peers):
        if url not in before.peers:
            parts.transport.dial(url)


def _hang_up(parts: Parts, links: list[LinkId], reason: str) -> None:
    for link in links:
        parts.driver.perform(parts.engine.hang_up(link, reason, time.monotonic()))


def _set_limits(parts: Parts, config: Config) -> None:
    limits = None if parts.has_own_limits else Limits.serving(config.max_work, config.max_payload_bytes)
    parts.engine.set_limits(limits, config.route_timeout)
    parts.serving.configure(
        config.plugins,
        max_workers=config.max_workers,
        max_work=config.max_work,
        max_processes=config.max_processes,
        isolation=config.isolation,
        limits=limits,
    )
    parts.storage.max_bytes = config.max_payload_bytes
    parts.requests.admission.max_waiting_bytes = config.max_waiting_bytes


def _same(name: str, before: object, after: object) -> bool:
    if name == "identity":
        one, other = (getattr(each, "where", each) for each in (before, after))
        return one == other
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return dict(before) == dict(after)
    return before == after


def _port(url: str) -> str:
    return _plain(url).rpartition(":")[2]


def _plain(url: str) -> str:
    return url.partition("?")[0]
