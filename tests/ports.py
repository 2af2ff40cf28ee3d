"""TCP ports of loopback that are told before anybody listens on them."""

import socket


class FreePorts:
    """Each call is a port on which nobody listens, and which the system gives to nobody else until `close`."""

    def __init__(self) -> None:
        self._keepers: list[socket.socket] = []

    def __call__(self) -> int:
        keeper = socket.socket()
        self._keepers.append(keeper)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, so that they can bind it too
        keeper.bind(("127.0.0.1", 0))
        return int(keeper.getsockname()[1])

    def close(self) -> None:
        """Give the ports back."""
        for keeper in self._keepers:
            keeper.close()
