"""Completes the settings of a node with those of its identity."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from zmesh.config.config import AUTO, NONE, SETTINGS, Config, DefaultId
from zmesh.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from zmesh.config.config import Settings
    from zmesh.identity import Identity


def config_of(config: Config | None, settings: Settings) -> Config:
    """The Config that a Controller is given, or one of the settings that it is given by name, with its identity read.

    Raises TypeError if it is given both, or a setting that does not exist, and ConfigError as `resolved` does.
    """
    if config is not None and not isinstance(config, Config):
        raise TypeError(f"a Controller takes a Config, not {type(config).__name__}")
    if config is not None and settings:
        raise TypeError(f"give a Controller either a Config or settings such as {next(iter(settings))}=..., not both")
    for name in settings:
        if name not in SETTINGS:
            raise TypeError(f"no setting is called {name!r}{did_you_mean(name, SETTINGS)}")
    return resolved(config if config is not None else Config(**settings))


def identity_of(config: Config) -> Identity | None:
    """The identity of a Config that `resolved` has returned; None if it has none."""
    given = config.identity
    return None if isinstance(given, (str, os.PathLike)) else given


def resolved(config: Config) -> Config:
    """The Config with its identity read, and with what that says where nothing was given: node id, `listen`, `peers`.

    An ephemeral node listens nowhere; it dials the peers of the identity or, where those of a hub are none, the hub.
    Several may run with one identity, so that each has the id with some random characters after it.

    Raises ConfigError for an identity that can't be read, or is that of another node.
    """
    given = config.identity
    if given is None or given == NONE:
        return dataclasses.replace(config, identity=None) if given is not None else config
    if isinstance(given, (str, os.PathLike)):
        from zmesh.identity import State, default_folder  # here: most programs have no identity

        folder = default_folder() if given == AUTO else given
        if folder is None:
            return dataclasses.replace(config, identity=None)
        from zmesh.identity import Identity

        identity = Identity.load(State(os.path.expanduser(folder)))
    else:
        identity = given
    changes: dict[str, object] = {"identity": identity}
    named = not isinstance(config.node_id, DefaultId)
    if not named:
        changes["node_id"] = f"{identity.node_id}.{os.urandom(4).hex()}" if config.ephemeral else identity.node_id
    elif not (
        config.node_id.startswith(f"{identity.node_id}.") if config.ephemeral else config.node_id == identity.node_id
    ):
        raise ConfigError(
            f"node_id {config.node_id!r} is not that of the identity in {identity.where}, {identity.node_id!r}; leave "
            "node_id out, name another identity (ZMESH_STATE), or none: identity=None"
        )
    if not config.listen and not config.ephemeral:
        changes["listen"] = identity.profile.listen
    if config.peers:
        changes["peers"] = tuple(map(identity.keyed, config.peers))
    else:
        changes["peers"] = identity.dial_urls() if config.ephemeral else identity.profile.peers
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]  # __post_init__ checks every value
