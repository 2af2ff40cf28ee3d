"""Measurements of this machine and its network: the speed of CURVE, and the MTU of the path to an address."""

from __future__ import annotations

import socket
import time

import zmq

from zmesh.transport.resolver import numeric

SAMPLE_BYTES = 64 * 1024
SAMPLES = 16
WITHIN_MS = 2000
IP_MTU, IPV6_MTU = 14, 24
"""The options of Linux, which the module socket does not name (ip(7), ipv6(7))."""


def curve_speed() -> float | None:
    """Bytes per second through an encrypted connection of this process to itself; None if it can't be measured.

    Blocks, for some tens of milliseconds, and WITHIN_MS at most.
    """
    if not zmq.has("curve"):
        return None
    public, secret = zmq.curve_keypair()
    own_public, own_secret = zmq.curve_keypair()
    context = zmq.Context()
    try:
        receiver, sender = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        for sock in (receiver, sender):
            sock.set(zmq.LINGER, 0)
            sock.set(zmq.RCVTIMEO, WITHIN_MS)
            sock.set(zmq.SNDTIMEO, WITHIN_MS)
        receiver.set(zmq.CURVE_SERVER, 1)
        receiver.set(zmq.CURVE_SECRETKEY, secret)
        receiver.bind("tcp://127.0.0.1:*")
        sender.set(zmq.CURVE_SERVERKEY, public)
        sender.set(zmq.CURVE_PUBLICKEY, own_public)
        sender.set(zmq.CURVE_SECRETKEY, own_secret)
        sender.connect(receiver.get_string(zmq.LAST_ENDPOINT))
        sample = bytes(SAMPLE_BYTES)
        sender.send(b"")
        receiver.recv()  # the handshake is over
        began = time.perf_counter()
        for _ in range(SAMPLES):
            sender.send(sample)
        for _ in range(SAMPLES):
            receiver.recv()
        return SAMPLES * SAMPLE_BYTES / (time.perf_counter() - began)
    except zmq.ZMQError:
        return None
    finally:
        context.destroy(linger=0)


def path_mtu(host: str) -> int | None:
    """The size of the largest packet to a numeric address that the kernel knows to pass; None if it is unknown.

    Sends nothing: the kernel has it from its interface and from what routers have reported (RFC 1191).
    """
    try:
        address = numeric(host)
        if address is None:
            return None
        with socket.socket(address.family, socket.SOCK_DGRAM) as probe:
            probe.connect(address.socket_address(9))
            if address.family == socket.AF_INET6:
                return probe.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
            return probe.getsockopt(socket.IPPROTO_IP, IP_MTU)
    except OSError:
        return None
