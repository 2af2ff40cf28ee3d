"""CURVE on links (CurveZMQ, ZeroMQ RFC 26): keys, and which links of a node are encrypted.

A listener's key pair is long-lived, and who dials it names its public key in the URL (`?key=`). A dialler's key pair is
made when its transport starts, and identifies nothing: which node is at the other end, its HELLO says. TCP between
machines is encrypted, or refused; `ipc://` (a file of mode 0600), `inproc://` and, where a node has no identity,
loopback stay plaintext.
"""

from __future__ import annotations

import base64
import binascii
import logging
from typing import TYPE_CHECKING, NamedTuple

import zmq
from zmq.utils import z85

from zmesh.errors import AddressError

if TYPE_CHECKING:
    from zmesh.transport.address import Target

log = logging.getLogger(__name__)

KEY_BYTES = 32
OLDEST_LIBZMQ = (4, 3, 3)
"""Before it, a stranger could exhaust the memory of a CURVE server (CVE-2020-15166)."""

WAY_OUT = (
    "`zmesh init` makes a mesh, and `zmesh invite NAME` at a member of one and `zmesh join TICKET` here make this node"
    " a member; --insecure (ZMESH_INSECURE=1, Config(insecure=True)) is for a network that you trust"
)


class KeyPair(NamedTuple):
    """A CURVE key pair, 32 bytes each (Curve25519)."""

    public: bytes
    secret: bytes

    @classmethod
    def generate(cls) -> KeyPair:
        """A new key pair."""
        public, secret = zmq.curve_keypair()
        return cls(z85.decode(public), z85.decode(secret))

    @classmethod
    def of(cls, secret: bytes) -> KeyPair:
        """The key pair of a secret key of 32 bytes."""
        return cls(z85.decode(zmq.curve_public(z85.encode(secret))), secret)

    def __repr__(self) -> str:
        return f"KeyPair({key_to_text(self.public)})"


class Dialled(NamedTuple):
    """The keys of a connection that is dialled: the own pair, and the public key of the listener."""

    own: KeyPair
    listener: bytes

    @property
    def channel(self) -> bytes:
        """The identifier of the connection at both ends: both public keys, 64 bytes."""
        return self.own.public + self.listener


def key_to_text(public: bytes) -> str:
    """A public key as it stands in URLs: base64url (RFC 4648 section 5) without padding, 43 characters."""
    return base64.urlsafe_b64encode(public).decode().rstrip("=")


def key_from_text(text: str) -> bytes:
    """The public key of a URL. Raises ValueError."""
    try:
        key = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES or key_to_text(key) != text:
        raise ValueError("a key has 43 characters of A-Z a-z 0-9 - _, as the other node prints it")
    return key


class LinkSecurity:
    """Which links of one node are encrypted, with which keys, and which are refused.

    `secret` is the secret CURVE key of its listeners, if it has an identity. `insecure` allows plaintext over TCP
    between machines.
    """

    def __init__(self, secret: bytes | None = None, *, insecure: bool = False) -> None:
        self.listener = KeyPair.of(secret) if secret is not None else None
        self._insecure = insecure
        self._dialler: KeyPair | None = None
        self._warned: set[str] = set()

    def to_listen(self, target: Target) -> KeyPair | None:
        """The keys for listening on an address; None for plaintext. Raises AddressError where that is refused."""
        what = f"can't listen on {target.url}"
        if target.key is not None:
            raise AddressError(f"{what}: a key is for peers that are dialled")
        if target.scheme == "rnps" or (target.scheme == "tcp" and self.listener is not None):
            if self.listener is None:
                raise AddressError(f"{what}: encryption needs an identity; {WAY_OUT}")
            _check_libzmq(what)
            return self.listener
        if not (target.is_local or self._insecure):
            raise AddressError(f"{what}: {self._why_refused(target)}; {WAY_OUT}")
        self._warn(target)
        return None

    def to_dial(self, target: Target) -> Dialled | None:
        """The keys for dialling a peer; None for plaintext. Raises AddressError where that is refused."""
        what = f"can't dial {target.url}"
        if target.key is not None:
            _check_libzmq(what)
            if self._dialler is None:
                self._dialler = KeyPair.generate()
            return Dialled(self._dialler, target.key)
        if target.scheme == "rnps":
            raise AddressError(f"{what}: encryption needs ?key= and the peer's key after it, as that node prints it")
        if target.scheme == "tcp" and self.listener is not None and not self._insecure:
            raise AddressError(
                f"{what}: it needs ?key= and the peer's key after it, as that node prints it; --insecure is for a peer"
                " that speaks plaintext, on a network that you trust"
            )
        if not (target.is_local or self._insecure):
            raise AddressError(f"{what}: {self._why_refused(target)}; {WAY_OUT}")
        self._warn(target)
        return None

    def _why_refused(self, target: Target) -> str:
        if target.scheme == "rnp":
            return "rnp:// is plaintext, which may not leave this machine"
        return "without an identity a node uses loopback, ipc:// and inproc:// only"

    def _warn(self, target: Target) -> None:
        if target.scheme == "rnp" and not target.is_local and target.url not in self._warned:
            self._warned.add(target.url)
            log.warning("%s is plaintext: who is on the network can read and change what goes over it", target.url)


def _check_libzmq(what: str) -> None:
    if zmq.zmq_version_info() < OLDEST_LIBZMQ or not zmq.has("curve"):
        oldest = ".".join(map(str, OLDEST_LIBZMQ))
        raise AddressError(
            f"{what}: encryption needs libzmq {oldest} or later with CURVE, and this is {zmq.zmq_version()}; the wheels"
            " of pyzmq have one"
        )
