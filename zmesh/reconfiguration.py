"""Changes the settings of a node while it runs: all of them, or none.

Peers, listeners, tags, permissions and limits change at once; a link whose URL is in both settings is not touched.
The others take effect when the node starts anew, and `Reloaded` names them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from zmesh.config import SETTINGS, Config, placed
from zmesh.core.limits import Limits
from zmesh.errors import AddressError, ConfigError
from zmesh.identity import Policy

if TYPE_CHECKING:
    from zmesh.connectivity import Connectivity
    from zmesh.membership import Membership, StateRead
    from zmesh.payloads import PayloadStorage
    from zmesh.requests import Requests
    from zmesh.runtime import Driver
    from zmesh.serving import Directives, Serving

AT_START = ("node_id", "identity", "heartbeat", "ephemeral", "spool_dir", "insecure", "metrics", "tracing")
"""The settings that take effect when the node starts anew; so do those of plugins that have no `reload`."""


class Reloaded(NamedTuple):
    """The settings that have changed, and those that take effect when the node starts anew; both by name, sorted."""

    changed: tuple[str, ...]
    at_restart: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of an open node that have settings."""

    driver: Driver
    directives: Directives
    requests: Requests
    serving: Serving
    storage: PayloadStorage
    membership: Membership | None
    connectivity: Connectivity
    has_own_limits: bool
    """Whether its program has set the limits of the engine."""


def check(config: Config, directives: Directives, connectivity: Connectivity) -> None:
    """Raises ConfigError, of which AddressError is one, for settings that a node could not be started with."""
    Policy(config.allow)
    origins = config.origins()
    for name, urls in (("listen", config.listen), ("peers", config.peers)):
        for url in urls:
            try:
                connectivity.check(url, dialled=name == "peers")
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


def reconfigure(
    parts: Parts, before: Config, config: Config, state: StateRead | None = None
) -> tuple[Config, Reloaded]:
    """Change the settings of a node; returns those that hold from now on, and what has changed.

    `state`: what was read of its identity just now. Raises ConfigError, and then has changed nothing.
    """
    check(config, parts.directives, parts.connectivity)
    with ExitStack() as unless_reloaded:
        parts.connectivity.add_listeners(config.listen, unless_reloaded)
        policy = Policy(config.allow)
        if parts.membership is not None:
            parts.membership.reload(policy, state)
        else:
            parts.serving.policy = policy
        unless_reloaded.pop_all()
    parts.connectivity.remove_listeners(config.listen)
    parts.connectivity.change_peers(before.peers, config.peers)
    _set_limits(parts, config)
    stay = parts.directives.reconfigure(config.plugins, config.file)
    parts.directives.report_unread(config.plugins, config.isolation, config.file, parts.serving.policy.rules())
    changed = {name for name in SETTINGS if not _same(name, getattr(before, name), getattr(config, name))}
    at_restart = sorted([*(changed & set(AT_START)), *(f"plugins.{namespace}" for namespace in stay)])
    done = sorted(changed - set(AT_START))
    now = dataclasses.replace(config, **{name: getattr(before, name) for name in AT_START})
    return now, Reloaded(tuple(done), tuple(at_restart))


def _set_limits(parts: Parts, config: Config) -> None:
    limits = None if parts.has_own_limits else Limits.serving(config.max_work, config.max_payload_bytes)
    parts.driver.engine.set_limits(limits, config.route_timeout)
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
