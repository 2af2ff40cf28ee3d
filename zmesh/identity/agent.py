"""An authority's key that lies in ssh-agent, such as one on a security key or in a password manager.

The two messages that are needed of draft-ietf-sshm-ssh-agent: which keys there are (section 3.5), and sign this (3.6).
A message is its length in four bytes, its type in one, and its content; a string has its length before it (RFC 4251
section 5).
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from zmesh.errors import ConfigError
from zmesh.identity.keys import PUBLIC_BYTES, SIGNATURE_BYTES, IdentityKey, fingerprint, is_signed

SOCKET = "SSH_AUTH_SOCK"
ANSWER_WITHIN = 60.0
"""Seconds that an agent may take: it may ask its user to touch a key or to confirm."""
MAX_MESSAGE = 256 * 1024
"""Bytes of an answer (draft-ietf-sshm-ssh-agent section 3.1)."""
MAX_KEYS = 1024
_KIND = b"ssh-ed25519"
_REQUEST_IDENTITIES, _IDENTITIES, _SIGN, _SIGNATURE = 11, 12, 13, 14


class AgentError(ConfigError):
    """There is no ssh-agent, it does not have the key, or it does not sign with it."""


class AgentKey(NamedTuple):
    """An Ed25519 key that an agent has: its public half, 32 bytes, and the comment that `ssh-add -l` shows."""

    public: bytes
    comment: str


class Agent:
    """The ssh-agent that listens on a Unix socket; a connection for each question."""

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def of_environment(cls) -> Agent:
        """The one that SSH_AUTH_SOCK names. Raises AgentError."""
        path = os.environ.get(SOCKET)
        if not path:
            raise AgentError(f"no ssh-agent is named here: {SOCKET} is not set")
        return cls(path)

    def ed25519_keys(self) -> list[AgentKey]:
        """The Ed25519 keys that it has. Raises AgentError."""
        return read_keys(self._ask(_REQUEST_IDENTITIES, b""))

    def sign(self, public: bytes, data: bytes) -> bytes:
        """The signature of `data` by the key, 64 bytes. Raises AgentError."""
        blob = _string(_KIND) + _string(public)
        signature = read_signature(self._ask(_SIGN, _string(blob) + _string(data) + bytes(4)))
        if not is_signed(public, signature, data):
            raise AgentError(f"ssh-agent has answered with a signature that is not that of {fingerprint(public)}")
        return signature

    def _ask(self, kind: int, content: bytes) -> bytes:
        """The answer to a message: its type and content."""
        message = bytes((kind,)) + content
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(ANSWER_WITHIN)
                connection.connect(self._path)
                connection.sendall(_string(message))
                size = int.from_bytes(_exactly(connection, 4), "big")
                if not 0 < size <= MAX_MESSAGE:
                    raise AgentError(f"ssh-agent at {self._path} has sent a message of {size} bytes")
                return _exactly(connection, size)
        except TimeoutError:
            raise AgentError(f"ssh-agent at {self._path} has not answered within {ANSWER_WITHIN:g} s") from None
        except OSError as error:
            raise AgentError(f"ssh-agent at {self._path} can't be used: {error.strerror or error}") from None


class AgentPrivateKey(Ed25519PrivateKey):
    """A private key for `cryptography` whose signatures an agent makes."""

    def __init__(self, agent: Agent, public: bytes) -> None:
        self._agent = agent
        self._public = public

    def sign(self, data: Any) -> bytes:
        """The signature of `data`. Raises AgentError."""
        return self._agent.sign(self._public, bytes(data))

    def public_key(self) -> Ed25519PublicKey:
        """The public half."""
        return Ed25519PublicKey.from_public_bytes(self._public)

    def private_bytes_raw(self) -> NoReturn:
        """Raises AgentError: an agent does not hand out private keys."""
        raise AgentError("the key lies in ssh-agent, and can't be read")

    def private_bytes(self, *args: object, **options: object) -> NoReturn:
        """Raises AgentError, as `private_bytes_raw` does."""
        self.private_bytes_raw()

    def __copy__(self) -> AgentPrivateKey:
        return self

    def __deepcopy__(self, memo: object) -> AgentPrivateKey:
        return self


def key_in_agent(public: bytes, where: Path) -> IdentityKey:
    """The key with that public half, which is looked for in ssh-agent as it is not in `where`. Raises AgentError."""
    mark = fingerprint(public)
    text = f"the authority's key {mark} is not in {where}"
    try:
        agent = Agent.of_environment()
        found = agent.ed25519_keys()
    except AgentError as error:
        raise AgentError(f"{text}, and {error}") from None
    if all(each.public != public for each in found):
        raise AgentError(f"{text}, and ssh-agent does not have it; ssh-add it, or restore the file")
    return IdentityKey(AgentPrivateKey(agent, public))


def read_keys(message: bytes) -> list[AgentKey]:
    """The Ed25519 keys in an answer; others are left out. Raises AgentError."""
    reader = _Reader(message, _IDENTITIES)
    keys = []
    for _ in range(min(MAX_KEYS, reader.number())):
        blob, comment = reader.string(), reader.string()
        kind = _string(_KIND) + PUBLIC_BYTES.to_bytes(4, "big")
        if blob.startswith(kind) and len(blob) == len(kind) + PUBLIC_BYTES:
            keys.append(AgentKey(blob[len(kind) :], comment.decode(errors="replace")))
    return keys


def read_signature(message: bytes) -> bytes:
    """The signature in an answer, 64 bytes. Raises AgentError."""
    inner = _Reader(b"\0" + _Reader(message, _SIGNATURE).string(), 0)
    kind, signature = inner.string(), inner.string()
    if kind != _KIND or len(signature) != SIGNATURE_BYTES:
        raise AgentError("ssh-agent has answered with a signature of another kind than Ed25519")
    return signature


class _Reader:
    """The fields of a message. Raises AgentError where it is another, or too short."""

    def __init__(self, message: bytes, kind: int) -> None:
        if message[:1] != bytes((kind,)):
            raise AgentError("ssh-agent refuses: the key is not there, is locked, or was not confirmed")
        self._rest = message[1:]

    def number(self) -> int:
        """The next four bytes."""
        if len(self._rest) < 4:
            raise AgentError("ssh-agent has sent a message that is cut off")
        found, self._rest = int.from_bytes(self._rest[:4], "big"), self._rest[4:]
        return found

    def string(self) -> bytes:
        """The next string."""
        size = self.number()
        if len(self._rest) < size:
            raise AgentError("ssh-agent has sent a message that is cut off")
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        data = connection.recv(size - len(parts))
        if not data:
            raise AgentError("ssh-agent has closed the connection")
        parts += data
    return bytes(parts)
