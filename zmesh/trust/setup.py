"""Setting a mesh up: the authority and the first node, and where their state lies."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path
from typing import NamedTuple

from zmesh.errors import ConfigError
from zmesh.identity import (
    Contexts,
    Identity,
    IdentityKey,
    Issuer,
    Profile,
    State,
    StateError,
    default_folder,
    named_folder,
    public_from_openssh,
)
from zmesh.trust.addresses import check_urls, reachable_urls

DEFAULT_NAME = "mesh"


class Made(NamedTuple):
    """An identity that was made, and the name of its context; None for one in a folder that was named."""

    identity: Identity
    context: str | None


def open_state(folder: str | os.PathLike[str] | None = None) -> State:
    """The state in a folder, or (None) the one in use: ZMESH_STATE, STATE_DIRECTORY, the current context.

    Raises StateError if there is none.
    """
    chosen = Path(folder).expanduser() if folder is not None else default_folder()
    if chosen is None:
        raise StateError("there is no identity here; 'zmesh init' makes a mesh, 'zmesh join zm1...' joins one")
    return State(chosen)


def load(folder: str | os.PathLike[str] | None = None) -> Identity:
    """The identity in a folder, or the one in use. Raises ConfigError."""
    return Identity.load(open_state(folder))


def new_state(name: str, folder: str | os.PathLike[str] | None = None) -> tuple[State, str | None]:
    """The folder for a new identity, and the name of its context; None where the folder was named by itself."""
    chosen = Path(folder).expanduser() if folder is not None else named_folder()
    if chosen is not None:
        return State(chosen), None
    return State(Contexts().folder_of(name)), name


def init(
    name: str = DEFAULT_NAME,
    *,
    node_id: str | None = None,
    listen: tuple[str, ...] = (),
    urls: tuple[str, ...] = (),
    passphrase: str | None = None,
    agent_key: str | None = None,
    state: str | os.PathLike[str] | None = None,
) -> Made:
    """Make a mesh: its authority, and the identity of this node. `urls`: where others reach it, if not at `listen`.

    `agent_key`: a line of OpenSSH, the public half of a key in ssh-agent that is to be the authority's.

    Raises ConfigError for what can't be a name or URL and for an `agent_key` that is malformed or not in the agent, and
    StateError if there is an identity already or the folder can't be written; nothing is left behind then.
    """
    check_urls(listen, urls)
    place, context = new_state(name, state)
    own_id = host_id() if node_id is None else node_id
    if any(file in place for file in ("mesh.json", "authority/current")):
        raise StateError(
            f"{place.folder} holds an identity already, and it is not overwritten; another mesh: --name NAME, another "
            "folder: --state DIR"
        )
    profile = Profile(name, own_id, listen, urls or reachable_urls(listen), ())
    now = time.time()
    with place.all_or_nothing("authority/1", "authority/1.pub", "authority/current", "issued.json", "authority"):
        public = public_from_openssh(agent_key) if agent_key is not None else None
        issuer = Issuer.create(place, name, now, passphrase, public)
        key = IdentityKey.generate()
        identity = Identity.create(place, profile, key, issuer.issue(key.public, own_id, (), now), issuer.trust)
    select(context)
    return Made(identity, context)


def holds_authority(identity: Identity) -> bool:
    """Whether the authority's key lies beside this identity."""
    return identity.state is not None and Issuer.is_at(identity.state)


def select(context: str | None) -> None:
    """Make a context the current one; None: there is nothing to do."""
    if context is not None:
        Contexts().use(context)


def host_id() -> str:
    """A node id for this machine: the first part of its host name. Raises ConfigError if it has none."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname().partition(".")[0])[:64]
    if not name:
        raise ConfigError("this machine has no host name to call the node by; give one with --id")
    return name
