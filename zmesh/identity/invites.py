"""Invites: the tickets that are out, at the node of the authority. Of each token its hash is kept, bound to a node id.

The holder of a token redeems it with a key of its own. The same key may do so again, as after a reply that was lost;
another key is refused, and so is another node id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from zmesh.core.durations import span
from zmesh.identity.identity import read_json, whole
from zmesh.identity.keys import fingerprint
from zmesh.identity.state import State, StateError
from zmesh.identity.tickets import hash_of
from zmesh.identity.trust import TrustError

INVITES = "invites.json"
MAX_INVITES = 10_000
KEPT = 86400
"""Seconds that an invite is kept after it has expired, to say that it has, and for its key to redeem it again."""


@dataclass(frozen=True, slots=True)
class Invite:
    """An invitation of `node_id`, redeemed by the key of the fingerprint `used_by`; times in seconds since 1970."""

    node_id: str
    tags: tuple[str, ...]
    token_hash: bytes
    created: int
    expires: int
    used_by: str = ""
    used_at: int = 0

    def status(self, now: float) -> str:
        """In a word: `open`, `used` or `expired`."""
        if self.used_by:
            return "used"
        return "open" if now < self.expires else "expired"


class Invites:
    """The invites of one authority, as they lie in its state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def all(self) -> list[Invite]:
        """Every invite that is kept, the oldest first. Raises StateError."""
        return self._read()

    def add(self, invite: Invite) -> None:
        """Keep one more. Raises StateError, also if MAX_INVITES are out."""
        with self._state.locked():
            kept = self._kept(invite.created)
            if len(kept) >= MAX_INVITES:
                raise StateError(f"{len(kept)} invites are out, which is all that are kept; zmesh invites rm ID")
            self._write([*kept, invite])

    def remove(self, node_id: str) -> int:
        """Take back the invites of a node id; how many there were. Raises StateError."""
        with self._state.locked():
            before = self._read()
            after = [each for each in before if each.node_id != node_id]
            if len(after) < len(before):
                self._write(after)
        return len(before) - len(after)

    def check(self, token: bytes, node_id: str, public: bytes, now: float) -> Invite:
        """The invite that this token redeems. Raises TrustError with the reason if it redeems none, StateError."""
        invite = next((each for each in self._read() if each.token_hash == hash_of(token)), None)
        key = fingerprint(public)
        mend = f"; zmesh invite {node_id} makes another ticket"
        if invite is None:
            raise _refused(node_id, key, f"the token is not known here: taken back, or made at another hub{mend}")
        if invite.node_id != node_id:
            raise _refused(node_id, key, f"the token is for another name, {invite.node_id!r}{mend}")
        if invite.used_by and invite.used_by != key:
            ago = span(now - invite.used_at)
            raise _refused(node_id, key, f"the token was used {ago} ago by another key, {invite.used_by}{mend}")
        if not invite.used_by and now >= invite.expires:
            raise _refused(node_id, key, f"the token expired {span(now - invite.expires)} ago{mend}")
        return invite

    def use(self, invite: Invite, public: bytes, now: float) -> None:
        """Note which key has redeemed an invite. Raises TrustError if another has meanwhile, StateError."""
        key = fingerprint(public)
        with self._state.locked():
            kept = self._kept(now)
            for index, each in enumerate(kept):
                if each.token_hash != invite.token_hash:
                    continue
                if each.used_by not in ("", key):
                    raise _refused(invite.node_id, key, f"the token was used by another key, {each.used_by}")
                kept[index] = replace(each, used_by=key, used_at=each.used_at or int(now))
                self._write(kept)
                return
        raise _refused(invite.node_id, key, "the token was taken back")

    def _kept(self, now: float) -> list[Invite]:
        return [each for each in self._read() if each.expires + KEPT > now]

    def _read(self) -> list[Invite]:
        data = self._state.read_secret(INVITES)
        if data is None:
            return []
        where = str(self._state.folder / INVITES)
        try:
            return [_invite(each) for each in read_json(data, where)["invites"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"{where} is damaged: {error!r}") from None

    def _write(self, invites: Iterable[Invite]) -> None:
        fields = [
            {
                "node_id": each.node_id,
                "tags": each.tags,
                "token_hash": each.token_hash.hex(),
                "created": each.created,
                "expires": each.expires,
                "used_by": each.used_by,
                "used_at": each.used_at,
            }
            for each in invites
        ]
        data = json.dumps({"version": 1, "invites": fields}, indent=1).encode() + b"\n"
        self._state.write(INVITES, data, secret=True)


def _invite(fields: Mapping[str, Any]) -> Invite:
    """An invite from JSON values. Raises KeyError, TypeError, ValueError."""
    return Invite(
        str(fields["node_id"]),
        tuple(map(str, fields["tags"])),
        bytes.fromhex(fields["token_hash"]),
        whole(fields["created"]),
        whole(fields["expires"]),
        str(fields["used_by"]),
        whole(fields["used_at"]),
    )


def _refused(node_id: str, key: str, why: str) -> TrustError:
    return TrustError("token", f"{node_id!r} (key {key}) may not join: {why}", node=node_id)
