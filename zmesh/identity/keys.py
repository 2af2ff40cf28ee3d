"""Ed25519 keys of nodes and authorities, in OpenSSH's formats, so that `ssh-keygen` reads and makes them as well."""

from __future__ import annotations

import base64
import hashlib
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from zmesh.errors import ConfigError

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
_SSH_PREFIX = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"
"""Prefix of the key in OpenSSH's encoding (RFC 8709 section 4), of which the fingerprint is the hash."""


class BadKey(ConfigError):
    """A file that holds no usable Ed25519 key, or a passphrase that does not fit."""


class IdentityKey:
    """An Ed25519 private key (RFC 8032): that of a node, or of an authority."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: bytes = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        """The public key, 32 bytes."""

    @classmethod
    def generate(cls) -> Self:
        """A new key from the system's source of randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key of these 32 bytes, which are the whole secret (RFC 8032 section 5.1.5)."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_openssh(cls, data: bytes, passphrase: str | None = None) -> Self:
        """Read a private key file of OpenSSH. Raises ConfigError for another kind of file or a wrong passphrase."""
        try:
            key = load_ssh_private_key(data, None if passphrase is None else passphrase.encode())
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadKey(f"not a private key that can be read: {error}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise BadKey(f"an Ed25519 key is needed, and this is a {type(key).__name__}")
        return cls(key)

    def to_openssh(self, passphrase: str | None = None) -> bytes:
        """The key as a private key file of OpenSSH, encrypted if there is a passphrase."""
        cover: KeySerializationEncryption = NoEncryption()
        if passphrase is not None:
            cover = BestAvailableEncryption(passphrase.encode())
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, cover)

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes."""
        return self._key.sign(data)

    @property
    def private(self) -> Ed25519PrivateKey:
        """The key as `cryptography` has it, for making certificates."""
        return self._key


def is_signed(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether `signature` is that of `data` by the key. False for a key that is none as well."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_to_openssh(public: bytes, comment: str = "") -> str:
    """A public key as a line of OpenSSH, such as for `ssh-keygen -s`."""
    line = f"ssh-ed25519 {base64.b64encode(_SSH_PREFIX + public).decode()}"
    return f"{line} {comment}" if comment else line


def public_from_openssh(line: str | bytes) -> bytes:
    """The Ed25519 public key, 32 bytes, of a line of OpenSSH. Raises ConfigError."""
    try:
        key = load_ssh_public_key(line.encode() if isinstance(line, str) else line)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"not a public key that can be read: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise BadKey(f"an Ed25519 key is needed, and this is a {type(key).__name__}")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def fingerprint(public: bytes) -> str:
    """The fingerprint of a public key as `ssh-keygen -l` shows it: SHA256 and base64 without padding."""
    digest = hashlib.sha256(_SSH_PREFIX + public).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def grouped(fingerprint: str) -> str:
    """A fingerprint in groups of four characters, to be compared by eye."""
    name, _, text = fingerprint.partition(":")
    return f"{name}: " + " ".join(text[at : at + 4] for at in range(0, len(text), 4))
