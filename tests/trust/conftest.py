"""What the tests of trust between real nodes share: identities of one authority, nodes that have them, their logs."""

import logging
import time
from contextlib import AsyncExitStack

import pytest

import zmesh
from tests.membership.conftest import lab
from tests.sockets import _census, _own_temporary_files, complaints, free_port, nothing_is_left, process, zmq_socket
from tests.trust.eavesdropping import given
from tests.waiting import eventually
from zmesh.identity import Identity, Profile
from zmesh.identity.identity import CurveKeys
from zmesh.testing.authority import DAY, TestAuthority


@pytest.fixture
def authority():
    """The authority of the mesh `lab`."""
    return TestAuthority(begins=int(time.time()) - DAY)


@pytest.fixture
def identity(authority):
    """Makes identities: `identity("hub")`, with other settings of a certificate if they are given."""

    def make(node_id, by=None, state=None, **certified):
        by = by or authority
        key = by.key_of(node_id)
        certificate = by.certificate(node_id, key, **certified)
        profile = Profile(by.mesh, node_id)
        if state is not None:
            return Identity.create(state, profile, key, certificate, by.trust())
        return Identity(profile, key, certificate, CurveKeys.generate(), by.trust())

    return make


@pytest.fixture
async def node(identity):
    """Opens nodes that listen on loopback: `await node("hub", *peers)`, with an identity; with None without one."""
    async with AsyncExitStack() as stack:

        async def start(node_id, *peers, identity_="made", **settings):
            given = identity(node_id) if identity_ == "made" else identity_
            settings = {"listen": ["tcp://127.0.0.1:*"], **settings}
            mesh = zmesh.Controller(zmesh.Config(node_id=node_id, identity=given, peers=peers, **settings))
            return await stack.enter_async_context(mesh)

        yield start


@pytest.fixture
def lines(caplog):
    """`lines("hub")` are the lines that a node has logged for its operator."""
    caplog.set_level(logging.INFO, "zmesh.observe.journal")

    def of(node_id):
        logged = (record.getMessage() for record in caplog.records if record.name == "zmesh.observe.journal")
        return [line.removeprefix(f"{node_id}: ") for line in logged if line.startswith(f"{node_id}: ")]

    return of


__all__ = [
    "_census",
    "_own_temporary_files",
    "complaints",
    "eventually",
    "free_port",
    "given",
    "lab",
    "nothing_is_left",
    "process",
    "zmq_socket",
]
