"""The table `[tcp]`: which hosts and ports a node connects to, and within which limits."""

import socket

import pytest

from zmesh.errors import ConnectFailed, HostNotFound, NotAllowed
from zmesh.serving.directives import Directives
from zmesh.tunnel.addresses import Endpoint
from zmesh.tunnel.dialling import addresses, dial
from zmesh.tunnel.settings import TcpSettings


@pytest.mark.parametrize(
    ("target", "address", "port", "allowed"),
    [
        ("loopback:*", "127.0.0.1", 80, True),
        ("loopback:*", "127.9.9.9", 80, True),
        ("loopback:*", "::1", 80, True),
        ("loopback:*", "::ffff:127.0.0.1", 80, True),
        ("loopback:*", "0.0.0.0", 80, False),
        ("loopback:*", "192.0.2.1", 80, False),
        ("loopback:22", "127.0.0.1", 23, False),
        ("10.0.0.0/8:443", "10.1.2.3", 443, True),
        ("10.0.0.0/8:443", "11.1.2.3", 443, False),
        ("10.0.0.0/8:443", "::ffff:10.1.2.3", 443, True),
        ("[fd00::/8]:8000-8010", "fd00::1", 8010, True),
        ("[fd00::/8]:8000-8010", "fd00::1", 8011, False),
        ("[fe80::/10]:22", "fe80::1%eth0", 22, True),
        ("192.0.2.1:80", "192.0.2.1", 80, True),
        ("*.internal:80", "127.0.0.1", 80, False),
    ],
)
def test_a_pattern_of_addresses(target: str, address: str, port: int, allowed: bool) -> None:
    assert TcpSettings(targets=(target,)).allows_address(address, port) is allowed


@pytest.mark.parametrize(
    ("target", "host", "port", "allowed"),
    [
        ("*.internal:5432", "db.internal", 5432, True),
        ("*.internal:5432", "DB.Internal.", 5432, True),
        ("*.internal:5432", "db.internal", 5433, False),
        ("*.internal:5432", "db.internal.example", 5432, False),
        ("*:443", "example.com", 443, True),
        ("loopback:*", "localhost", 80, False),
        ("10.0.0.0/8:*", "10.0.0.1", 80, False),
    ],
)
def test_a_pattern_of_names(target: str, host: str, port: int, allowed: bool) -> None:
    assert TcpSettings(targets=(target,)).allows_name(Endpoint(host, port)) is allowed


@pytest.mark.parametrize(
    "target", ["", "loopback", "loopback:", "loopback:0", "a:9-1", "a:x", "a b:80", "10.0.0.0/33:80", "::1:80"]
)
def test_what_is_no_pattern_is_named(target: str) -> None:
    with pytest.raises(ValueError, match="in targets"):
        TcpSettings(targets=(target,))


def test_limits_are_positive_and_names_of_services_differ() -> None:
    for name in ("max_connections", "max_connections_per_node", "max_services", "connect_timeout"):
        with pytest.raises(ValueError, match=name):
            TcpSettings(**{name: 0})  # type: ignore[arg-type]


async def test_a_name_that_resolves_to_another_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(NotAllowed, match="connects to no rebound.example:80"):
        await addresses(Endpoint("rebound.example", 80), TcpSettings(), "edge")


async def test_only_those_addresses_of_a_name_are_tried_that_are_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("192.0.2.8", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    candidates = await addresses(Endpoint("mixed.example", 80), TcpSettings(), "edge")
    assert [candidate.address for candidate in candidates] == [("127.0.0.1", 80)]


async def test_a_name_that_does_not_resolve_is_said_only_where_it_is_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(NotAllowed):
        await dial(Endpoint("absent.example", 80), TcpSettings(), "edge")
    with pytest.raises(HostNotFound, match="node 'edge' can't connect to absent.example:80: the name"):
        await dial(Endpoint("absent.example", 80), TcpSettings(targets=("*.example:80",)), "edge")


async def test_a_host_that_does_not_answer_is_an_error_of_its_own() -> None:
    with pytest.raises(ConnectFailed) as caught:  # which of them, the routes of this machine decide
        await dial(Endpoint("192.0.2.1", 80), TcpSettings(targets=("*:80",), connect_timeout=0.05), "edge")
    assert caught.value.code in ("connect_timed_out", "host_unreachable", "connect_refused", "connect_failed")


def test_the_table_is_read_as_that_of_any_plugin() -> None:
    directives = Directives()
    directives.discover()
    table = {
        "targets": ["loopback:22"],
        "expose": [{"name": "web", "port": 80}],
        "forward": [{"listen": 1, "to": "a:1"}],
    }
    directives.configure({"tcp": table})
    for wrong in (
        {"targets": ["x"]},
        {"expose": [{"name": "80", "port": 80}]},
        {"forward": [{"listen": 1, "to": "a"}]},
    ):
        with pytest.raises(ValueError, match=r"\[tcp"):
            directives.configure({"tcp": wrong})
