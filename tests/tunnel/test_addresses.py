"""What `[HOST:]PORT`, `NODE:[HOST:]PORT` and `NODE:NAME` mean."""

import pytest

from zmesh.errors import ConfigError
from zmesh.tunnel.addresses import Endpoint, RemoteEndpoint


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("80", "localhost", 80),
        (443, "localhost", 443),
        ("db.internal:5432", "db.internal", 5432),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:22", "fe80::1%eth0", 22),
    ],
)
def test_an_endpoint_is_read_and_shown_again(text: str | int, host: str, port: int) -> None:
    endpoint = Endpoint.of(text)
    assert endpoint == (host, port)
    assert Endpoint.of(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "0",
        "65536",
        "-1",
        "http",
        "a:b:80",
        "::1:80",
        "[::1]",
        "[x:y]:80",
        "a b:80",
        ":80",
        "a:",
        "٣",
        "x" * 256 + ":80",
    ],
)
def test_what_is_no_endpoint_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        Endpoint.of(text)


def test_port_zero_is_for_listening_alone() -> None:
    assert Endpoint.of(0, zero=True) == ("localhost", 0)


@pytest.mark.parametrize("given", [True, None, 1.5, b"80"])
def test_what_is_neither_text_nor_number_is_a_type_error(given: object) -> None:
    with pytest.raises(TypeError):
        Endpoint.of(given)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        RemoteEndpoint.of(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "node", "endpoint", "service"),
    [
        ("edge-7:80", "edge-7", ("localhost", 80), ""),
        ("edge-7:db.internal:5432", "edge-7", ("db.internal", 5432), ""),
        ("edge-7:[::1]:80", "edge-7", ("::1", 80), ""),
        ("cli-4f2a@hub:80", "cli-4f2a@hub", ("localhost", 80), ""),
        ("edge-7:web", "edge-7", None, "web"),
        ("edge-7:3d-printer", "edge-7", None, "3d-printer"),
    ],
)
def test_the_other_end_is_a_port_or_a_service_of_a_node(
    text: str, node: str, endpoint: tuple[str, int] | None, service: str
) -> None:
    remote = RemoteEndpoint.of(text)
    assert remote == (node, endpoint, service)
    assert RemoteEndpoint.of(str(remote)) == remote


@pytest.mark.parametrize(
    "text", ["", "edge-7", "edge-7:", ":80", "edge-7:Web", "edge-7:-x", "no node:80", "edge-7:connect"]
)
def test_what_is_no_other_end_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        RemoteEndpoint.of(text)
