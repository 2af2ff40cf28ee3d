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
from tests.transport.transport_handler import Ears
from zmesh.transport import Transport, open_transports
from zmesh.transport.names import Names


@pytest.fixture
async def transports():
    """Makes transports; their `handler` is an Ears, and their names are looked up by `resolve` if it is given."""
    made = []

    def make(resolve=None):
        ears = Ears()
        ears.transport = Transport(ears) if resolve is None else Transport(ears, Names(resolve))
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
    "free_port",
    "nothing_is_left",
    "process",
    "reports",
    "server",
    "wire",
    "zmq_socket",
]
