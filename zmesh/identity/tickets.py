"""Tickets: one line of text that lets one node join, with where the hub is, its keys, and a token.

A ticket is `zm1` and the base64url of a MessagePack array and its CRC-32. The token is a secret; the node that redeems
the ticket sends it over an encrypted link to the hub, whose CURVE key is in the ticket. The hub knows its hash only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import zlib
from typing import NamedTuple, Self

import msgpack

from zmesh.errors import ConfigError

PREFIX = "zm1"
MAX_TICKET = 4096
MAX_URLS = 8
KEY_BYTES = 32
TOKEN_BYTES = 16
_FIELDS = 7


class BadTicket(ConfigError):
    """A text that is no ticket, or not all of one."""


class Ticket(NamedTuple):
    """An invitation of `node_id` to a mesh. `authority` is the SHA-256 of the authority's public key, `curve` the hub's
    CURVE public key, both of 32 bytes; `token` is 16 random bytes; `expires` in seconds since 1970.
    """

    mesh: str
    node_id: str
    urls: tuple[str, ...]
    authority: bytes
    curve: bytes
    token: bytes
    expires: int

    def __str__(self) -> str:
        data = msgpack.packb(tuple(self))
        data += zlib.crc32(data).to_bytes(4, "big")
        return PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")

    def __repr__(self) -> str:
        return f"Ticket(mesh={self.mesh!r}, node_id={self.node_id!r}, urls={self.urls!r}, expires={self.expires})"

    def dial_urls(self) -> tuple[str, ...]:
        """The URLs with the hub's key, to be dialled."""
        return tuple(with_key(url, self.curve) for url in self.urls)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a ticket. Raises ConfigError that says what is wrong with it."""
        word = text.strip()
        if not word.startswith(PREFIX):
            raise BadTicket(f"a ticket begins with {PREFIX}; zmesh invite prints one")
        if len(word) > MAX_TICKET:
            raise BadTicket(f"a ticket of {len(word)} characters, where {MAX_TICKET} are allowed")
        body = word[len(PREFIX) :]
        try:
            data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise BadTicket("a ticket with characters that no ticket has; copy all of it again") from None
        if len(data) < 5 or zlib.crc32(data[:-4]).to_bytes(4, "big") != data[-4:]:
            raise BadTicket("a ticket that is not complete, or was changed; copy all of it again")
        try:
            fields = msgpack.unpackb(data[:-4], use_list=False, max_map_len=0, max_ext_len=0)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise BadTicket(f"a ticket that can't be read: {error}") from None
        return cls._checked(fields)

    @classmethod
    def _checked(cls, fields: object) -> Self:
        if type(fields) is not tuple or len(fields) != _FIELDS:
            raise BadTicket("a ticket of another version of zmesh")
        mesh, node_id, urls, authority, curve, token, expires = fields
        if not (
            all(type(text) is str and 0 < len(text) <= 64 for text in (mesh, node_id))
            and type(urls) is tuple
            and 0 < len(urls) <= MAX_URLS
            and all(type(url) is str and len(url) <= 1024 for url in urls)
            and type(authority) is type(curve) is type(token) is bytes
            and (len(authority), len(curve), len(token)) == (KEY_BYTES, KEY_BYTES, TOKEN_BYTES)
            and type(expires) is int
            and 0 <= expires < 1 << 62
        ):
            raise BadTicket("a ticket with a field of the wrong kind")
        return cls(mesh, node_id, urls, authority, curve, token, expires)

    @property
    def token_hash(self) -> bytes:
        """The SHA-256 of the token, which the hub keeps in its place."""
        return hash_of(self.token)


def hash_of(token: bytes) -> bytes:
    """The SHA-256 of a token."""
    return hashlib.sha256(token).digest()


def with_key(url: str, curve: bytes) -> str:
    """A URL to dial with that CURVE key of the listener (32 bytes), in place of the one that it may have."""
    base, _, query = url.partition("?")
    rest = [each for each in query.split("&") if each and not each.startswith("key=")]
    key = base64.urlsafe_b64encode(curve).decode().rstrip("=")
    return f"{base}?{'&'.join([*rest, f'key={key}'])}"


def without_key(url: str) -> str:
    """A URL without the CURVE key that it may have."""
    base, _, query = url.partition("?")
    rest = [each for each in query.split("&") if each and not each.startswith("key=")]
    return f"{base}?{'&'.join(rest)}" if rest else base


def key_from_text(text: str) -> bytes:
    """The CURVE key, 32 bytes, that stands in a URL. Raises BadTicket."""
    try:
        key = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise BadTicket(f"{text!r} is no key: 43 characters of A-Z a-z 0-9 - _")
    return key


def new_token() -> bytes:
    """A random token of 16 bytes."""
    return os.urandom(TOKEN_BYTES)


def key_of(url: str) -> str | None:
    """The CURVE key in a URL, as it stands there."""
    found = [each for each in url.partition("?")[2].split("&") if each.startswith("key=")]
    return found[0].removeprefix("key=") if found else None
