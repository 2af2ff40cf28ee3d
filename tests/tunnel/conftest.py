"""What the tests of zmesh/tunnel/ share with those of real nodes."""

from tests.sockets import free_ports

__all__ = ["free_ports"]
