"""Joining a mesh: with a ticket over the network, or with two files where there is none."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zmesh.config import Config
from zmesh.errors import ConfigError, MeshError, NotTrusted
from zmesh.identity import (
    ENROL,
    Answer,
    Authority,
    Certificate,
    Contexts,
    Identity,
    IdentityKey,
    Profile,
    State,
    StateError,
    Ticket,
    TrustError,
    TrustStore,
    check_names,
    join_request,
    new_authority,
    public_from_openssh,
    public_to_openssh,
    read_answer,
    read_certificate,
    read_json,
    read_signed,
)
from zmesh.membership import ask_as_newcomer, renew_as_newcomer
from zmesh.node import Node
from zmesh.trust.addresses import check_urls
from zmesh.trust.setup import Made, new_state, select

KEY = "identity.key"
JOINING = ".joining"
MAX_FILE = 1 << 20
JOIN_WITHIN = 20.0
"""Seconds that enrolment may take."""
KEEP_VALID_WITHIN = 5.0
"""Seconds that a command waits for the renewal of a certificate that is due."""


class Signed(NamedTuple):
    """The file for a node that joins offline: its certificate, the authorities to trust, and the URLs to dial."""

    certificate: Certificate
    trust: TrustStore
    peers: tuple[str, ...]


async def join(
    ticket: Ticket,
    *,
    state: str | os.PathLike[str] | None = None,
    listen: Sequence[str] = (),
    urls: Sequence[str] = (),
    within: float = JOIN_WITHIN,
) -> Made:
    """Redeem a ticket at the node that it names, within `within` seconds, and write the identity that results.

    The key is made here and does not leave this machine. It is written before the ticket is redeemed: should the answer
    be lost, the same ticket works again. Raises TrustError if the ticket is refused, NotTrusted, Unreachable or
    TimedOut if no node answers, ConfigError for a malformed URL, and StateError if there is an identity already or
    the folder can't be written.
    """
    check_urls(listen, urls)
    place, context = new_state(ticket.mesh, state)
    _check_empty(place)
    now = time.time()
    if now >= ticket.expires + 86400:
        raise TrustError("token", f"the ticket has expired; zmesh invite {ticket.node_id} makes another")
    key = _pending_key(place)
    profile = Profile(ticket.mesh, ticket.node_id, tuple(listen), tuple(urls), ticket.dial_urls())
    try:
        fields = await ask_as_newcomer(
            _newcomer, ticket.node_id, ticket.dial_urls(), ENROL, join_request(ticket, key), within
        )
        answer = read_answer(fields, key, ticket.node_id, ticket.mesh, ticket.authority, time.time())
    except NotTrusted:
        _forget_pending(place)
        raise
    return Made(_write(place, profile, key, answer), _selected(context))


async def renew(identity: Identity, within: float = JOIN_WITHIN) -> Certificate:
    """Renew the certificate of an identity whose node does not run here, such as a person's; the new one.

    It has `within` seconds. Raises ConfigError if it names no node to dial, NotTrusted, Unreachable, TimedOut.
    """
    return await renew_as_newcomer(_newcomer, identity, within)


async def keep_valid(identity: Identity) -> str:
    """Renew the certificate of an identity if it is due; "" or the reason why it could not be renewed."""
    if time.time() < identity.renews_at or not identity.profile.peers:
        return ""
    try:
        await renew(identity, KEEP_VALID_WITHIN)
    except MeshError as error:
        return str(error)
    return ""


# -- by files ------------------------------------------------------------------------------------------------------


def begin_offline(node_id: str, *, state: str | os.PathLike[str] | None = None) -> str:
    """Make the key of a node that will join by files; the line of its public key, to be signed elsewhere.

    Raises ConfigError for what can't be a node id, StateError if there is an identity already or the folder can't be
    written.
    """
    check_names(node_id, "mesh", ())
    place = _pending_place(node_id, state)
    _check_empty(place)
    return public_to_openssh(_pending_key(place).public, node_id)


def finish_offline(
    text: str,
    *,
    authorities: str | None = None,
    peers: Sequence[str] = (),
    listen: Sequence[str] = (),
    urls: Sequence[str] = (),
    state: str | os.PathLike[str] | None = None,
) -> Made:
    """Join with what `zmesh authority sign` has written, or with a certificate of an SSH authority.

    For the latter, `authorities` has the lines of the public keys to trust. A newer certificate for the key of the
    identity that is there takes the place of its certificate. Raises StateError if the key was not made here,
    TrustError for a certificate that is not believed, ConfigError for a malformed file.
    """
    check_urls(listen, (*peers, *urls))
    signed = _read_signed(text, authorities)
    certificate, node_id = signed.certificate, signed.certificate.node_id
    place, context = new_state(certificate.mesh, state)
    if (renewed := _renewed_offline(place, signed)) is not None:
        return Made(renewed, _selected(context))
    pending = _pending_place(node_id, state)
    data = pending.read_secret(KEY)
    key = IdentityKey.from_openssh(data) if data is not None else None
    if key is None or key.public != certificate.public:
        raise StateError(f"the key of this certificate was not made here: zmesh join --offline {node_id} makes one")
    signed.trust.check(certificate, time.time(), node_id)
    _check_empty(place)
    profile = Profile(certificate.mesh, node_id, tuple(listen), tuple(urls), tuple(peers) or signed.peers)
    made = Made(_write(place, profile, key, Answer(certificate, signed.trust)), _selected(context))
    if pending.folder != place.folder:
        shutil.rmtree(pending.folder, ignore_errors=True)
    return made


def _renewed_offline(place: State, signed: Signed) -> Identity | None:
    """The identity in that folder with the new certificate, if it is for its key; None if it is for another."""
    if "mesh.json" not in place:
        return None
    identity = Identity.load(place)
    if identity.key.public != signed.certificate.public:
        return None
    identity.trust.check(signed.certificate, time.time(), identity.node_id)
    identity.renewed(signed.certificate)
    return identity


def _read_signed(text: str, authorities: str | None) -> Signed:
    if text.lstrip().startswith("{"):
        fields: Any = read_json(text.encode(), "the signed file")
        return Signed(*read_signed(fields))
    certificate = read_certificate(text)
    if authorities is None:
        raise ConfigError("a certificate alone does not say whom to trust: --authority FILE, with its public key")
    lines = [line for line in authorities.splitlines() if line.strip() and not line.startswith("#")]
    trusted: list[Authority] = [new_authority(public_from_openssh(line), time.time()) for line in lines]
    return Signed(certificate, TrustStore(certificate.mesh, trusted), ())


# -- inside --------------------------------------------------------------------------------------------------------


def _newcomer(config: Config) -> Node:
    return Node(config, enrolling=True)


def _check_empty(place: State) -> None:
    if "mesh.json" in place:
        raise StateError(
            f"{place.folder} holds an identity already, and it is not overwritten; another folder: --state DIR, and "
            "'zmesh context rm NAME' deletes one"
        )


def _pending_place(node_id: str, state: str | os.PathLike[str] | None) -> State:
    """The folder of the key before the mesh is known: the one that was named, or one beside the contexts."""
    place, context = new_state("mesh", state)
    if context is None:
        return place
    return State(Contexts().folder / JOINING / Path(node_id).name)


def _pending_key(place: State) -> IdentityKey:
    """The key of an attempt before this one, whose answer was lost, or a new one, which is written."""
    data = place.read_secret(KEY)
    if data is not None:
        return IdentityKey.from_openssh(data)
    key = IdentityKey.generate()
    place.create(KEY, key.to_openssh(), secret=True)
    return key


def _forget_pending(place: State) -> None:
    place.remove(KEY)
    try:
        place.folder.rmdir()
    except OSError:
        return  # there is something else in it


def _write(place: State, profile: Profile, key: IdentityKey, answer: Answer) -> Identity:
    return Identity.create(place, profile, key, answer.certificate, answer.trust)


def _selected(context: str | None) -> str | None:
    select(context)
    return context
