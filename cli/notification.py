"""Notifications of a node to systemd (sd_notify(3)): that it is ready, reloads, stops, and is not blocked.

Without NOTIFY_SOCKET in the environment nothing is sent. Processes that the node starts do not get the variables.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time

SOCKET, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class Notification:
    """The socket of systemd. Used on the event loop of the node, so that a loop that is blocked is not alive."""

    def __init__(self) -> None:
        self._address = os.environ.pop(SOCKET, "")
        interval, pid = os.environ.pop(WATCHDOG, ""), os.environ.pop(WATCHDOG_PID, "")
        meant = not pid or pid == str(os.getpid())
        self._interval = int(interval) / 2e6 if interval.isdecimal() and meant else 0.0
        self._timer: asyncio.TimerHandle | None = None

    def ready(self, status: str) -> None:
        """The node listens; from now on the watchdog is fed."""
        self._send(f"READY=1\nSTATUS={status}")
        if self._interval and self._timer is None:
            self._feed()

    def reloading(self) -> None:
        """The node reads its settings anew; `ready` ends that."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The node stops; the watchdog goes on to be fed until it has."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Feed the watchdog no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _feed(self) -> None:
        self._send("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._feed)

    def _send(self, text: str) -> None:
        """Send a datagram; who does not listen, or is not there, is left out."""
        if not self._address.startswith(("/", "@")):
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(text.encode(), address)
            except OSError:
                pass
