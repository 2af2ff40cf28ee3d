"""What the tests with real sockets share."""

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
