"""The Unix sockets of this user's nodes: every `zmesh node` listens on one, and commands join the mesh there.

They are in `$XDG_RUNTIME_DIR/zmesh`, or in `/tmp/zmesh-<uid>` where there is none, a folder of mode 0700. A connection
is opened to distinguish the socket of a running node from one that a killed node has left behind. Root finds also the
nodes that are units of the system, whose folders are `/run/UNIT/zmesh` (RuntimeDirectory= in `units`).
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from glob import glob
from typing import NamedTuple

from zmesh import is_node_id
from zmesh_cli.exit_codes import UNREACHABLE, USAGE, Failure

MAX_PATH = 106
"""Bytes that the path of a Unix socket may have."""

SUFFIX = ".sock"
OF_UNITS = "/run/*/zmesh"
"""The folders of nodes that are units of the system, as root finds them; only root can make a folder in /run."""
CHOICES_SHOWN = 8


class Local(NamedTuple):
    """A node of this user on this machine: the name of its socket, and its URL."""

    name: str
    url: str


def folder() -> str:
    """The folder of this user's sockets; it need not exist."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        return os.path.join(runtime, "zmesh")
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"zmesh-{os.geteuid()}")


def prepare() -> str:
    """The folder, made if it does not exist. Raises Failure if it can't be made or trusted."""
    path = folder()
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise Failure(f"can't make the folder {path} for local sockets: {error.strerror}", USAGE) from None
    _check(path, os.geteuid())
    return path


def url_of(node_id: str) -> str:
    """The URL of the local socket of a node, in the folder of `prepare`. Raises Failure if its path is too long."""
    paths = _paths(prepare(), node_id)
    name = next(paths)
    if len(os.fsencode(name)) > MAX_PATH:
        name = next(paths)
    if len(os.fsencode(name)) > MAX_PATH or "?" in name or "#" in name:
        raise Failure(f"the path {name} is too long for a socket, or has a ? or # in it; set XDG_RUNTIME_DIR", USAGE)
    return f"ipc://{name}"


def alive() -> list[Local]:
    """The nodes of this user that run on this machine. Raises Failure if the folder can't be trusted."""
    found = []
    for path in _folders():
        try:
            names = sorted(os.listdir(path))
        except FileNotFoundError:
            continue
        for name in names:
            where = os.path.join(path, name)
            if name.endswith(SUFFIX) and _answers(where):
                found.append(Local(name.removesuffix(SUFFIX), f"ipc://{where}"))
    return found


def _folders() -> list[str]:
    """The folders with sockets that may be trusted. Raises Failure if that of this user may not."""
    own, of_units = folder(), sorted(glob(OF_UNITS)) if os.geteuid() == 0 else []
    found = []
    for path in dict.fromkeys([own, *of_units]):
        try:
            _check(path, os.geteuid() if path not in of_units else os.stat(os.path.dirname(path)).st_uid)
        except FileNotFoundError:
            continue
        except Failure:
            if path not in of_units:
                raise
        else:
            found.append(path)
    return found


class Place(NamedTuple):
    """Place to join the mesh: at a URL, or (None) where the identity says. `own`: with the command's own identity.

    A node of this user vouches for the commands at its local socket, which need no identity. `insecure` allows a
    plaintext link to another machine.
    """

    url: str | None
    own: bool
    insecure: bool = False


def choose(peer: str | None, target: str | None = None, *, insecure: bool = False) -> Place:
    """Choose where to join: at `peer`, else at the local node that is or hosts `target`, else at the only local node,
    else at the local node that has the identity of the current context, else where that identity says.

    `peer` is a URL, or the name of a local node. Raises Failure if there is none (3) or several are meant (2).
    """
    if peer and ("://" in peer or not is_node_id(peer)):
        return Place(peer, not peer.startswith(("ipc://", "inproc://")), insecure)
    local = alive()
    if peer:
        if (url := _named(local, peer)) is None:
            running = f"; running are {', '.join(each.name for each in local[:CHOICES_SHOWN])}" if local else ""
            raise Failure(
                f"--peer {peer}: no node of yours with that id runs here{running}; give one that does, or a URL, "
                "such as tcp://host:port",
                USAGE,
            )
        return Place(url, False, insecure)
    if target is not None and local[1:] and (url := _named(local, target.rpartition("@")[2])) is not None:
        return Place(url, False)
    if local and not local[1:]:
        return Place(local[0].url, False)
    from zmesh.trust import default_folder, load  # here: most commands find a local node

    if default_folder() is not None:
        url = _named(local, load().node_id) if local else None
        return Place(url, url is None, insecure)
    if not local:
        raise Failure(
            f"no node of this user runs here (looked in {folder()}), and there is no identity; start a node with "
            "'zmesh node', join a mesh with 'zmesh join', or name a node elsewhere with --peer tcp://host:port or "
            "ZMESH_PEER",
            UNREACHABLE,
        )
    shown = ", ".join(each.name for each in local[:CHOICES_SHOWN])
    more = ", ..." if len(local) > CHOICES_SHOWN else ""
    raise Failure(
        f"{len(local)} nodes run here: {shown}{more}; name the one to join the mesh at, such as --peer {local[0].name}",
        USAGE,
    )


def named(node_id: str) -> str | None:
    """The URL of the local socket of the node of that id, if it runs here."""
    return _named(alive(), node_id)


def _named(local: list[Local], node_id: str) -> str | None:
    """The URL of the local node of that id, if it is among these."""
    for name in map(os.path.basename, _paths("", node_id)):
        for node in local:
            if node.url.endswith(f"/{name}"):
                return node.url
    return None


def _paths(folder: str, node_id: str) -> Iterator[str]:
    """The paths that the socket of a node may have: named by its id or, if that is too long, by a digest of it."""
    yield os.path.join(folder, node_id + SUFFIX)
    from hashlib import sha256  # here: few nodes have such a long name

    yield os.path.join(folder, sha256(node_id.encode()).hexdigest()[:16] + SUFFIX)


def _check(path: str, owner: int) -> None:
    """Raise Failure unless it is a folder that `owner` owns and no other user may enter. Raises FileNotFoundError."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        problem = "is not a folder"
    elif status.st_uid != owner:
        problem = "belongs to another user"
    elif status.st_mode & 0o077:
        problem = f"is open to others (mode {stat.S_IMODE(status.st_mode):o})"
    else:
        return
    raise Failure(f"{path} {problem}, so no socket in it can be trusted; remove it, or set XDG_RUNTIME_DIR", USAGE)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # alive, and busy
            return True
        except OSError:
            return False
        return True
