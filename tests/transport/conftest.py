"""The transport alone: two of them, and what one of them can listen on."""

import pytest

from tests.sockets import (
    _census,
    _own_temporary_files,
    complaints,
    free_port,
    nothing_is_left,
    process,
    reports,
    server,
    wire,
    zmq_socket,
)
from tests.transport.transport_handler import RecordingHandler
from tests.waiting import eventually
from zmesh.transport import LinkSecurity, Transport
from zmesh.transport.context import open_transports
from zmesh.transport.resolver import Resolver, shared


@pytest.fixture
async def transports():
    """Makes transports with a RecordingHandler; `resolve` looks their names up if it is given.

    They may speak plaintext to other machines, unless `security` says otherwise.
    """
    made = []

    def make(resolve=None, security=None):
        ears = RecordingHandler()
        resolver = Resolver(resolve) if resolve is not None else shared
        ears.transport = Transport(ears, resolver, security or LinkSecurity(insecure=True))
        made.append(ears.transport)
        return ears.transport

    yield make
    for transport in made:
        await transport.close()
    assert open_transports() == 0


@pytest.fixture
async def listener(transports):
    return transports()


@pytest.fixture
async def dialler(transports):
    return transports()


@pytest.fixture(params=["tcp", "ipc", "inproc"])
def url(request, tmp_path):
    """A URL that can be listened on, of each kind."""
    return {"tcp": "tcp://127.0.0.1:*", "ipc": f"ipc://{tmp_path}/s", "inproc": f"inproc://{tmp_path.name}"}[
        request.param
    ]


__all__ = [
    "_census",
    "_own_temporary_files",
    "complaints",
    "eventually",
    "free_port",
    "nothing_is_left",
    "process",
    "reports",
    "server",
    "wire",
    "zmq_socket",
]
