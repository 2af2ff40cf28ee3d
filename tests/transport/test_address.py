"""URLs: what is wrong with a bad one, and what a good one tells."""

import pytest

from zmesh.errors import AddressError
from zmesh.testing import eventually
from zmesh.transport import parse_url

BAD = [
    ("", "must begin with tcp://, ipc://, inproc://, rnp:// or rnps://"),
    ("127.0.0.1:7323", "must begin with"),
    ("http://127.0.0.1:7323", "must begin with"),
    ("udp://127.0.0.1:7323", "must begin with"),
    ("TCP//127.0.0.1:7323", "must begin with"),
    ("tcp://", "has nothing after tcp://"),
    ("ipc://", "has nothing after ipc://"),
    ("tcp://127.0.0.1", "must look like tcp://host:port"),
    ("tcp://:7323", "must look like tcp://host:port"),
    ("tcp://127.0.0.1:", "must look like tcp://host:port"),
    ("tcp://127.0.0.1:http", "must look like tcp://host:port"),
    ("tcp://127.0.0.1:65536", "from 0 to 65535"),
    ("tcp://127.0.0.1:-1", "from 0 to 65535"),
    ("tcp://127.0.0.1:7323?price=3", "only cost=N"),
    ("tcp://127.0.0.1:7323?cost=0", "only cost=N"),
    ("tcp://127.0.0.1:7323?cost=cheap", "only cost=N"),
    ("tcp://127.0.0.1:7323?cost=100001", "only cost=N"),
    (f"ipc:///{'x' * 106}", "may have 106 bytes, and this one has 107"),
]


@pytest.mark.parametrize(("url", "text"), BAD)
async def test_a_bad_url_is_refused_with_what_is_wrong_and_how_it_should_look(transports, url, text):
    transport = transports()
    for use in (parse_url, transport.listen, transport.dial):
        with pytest.raises(AddressError) as raised:
            use(url)
        assert text in str(raised.value)
        assert repr(url) in str(raised.value)


async def test_rnp_is_tcp_without_encryption(listener, dialler):
    real = listener.listen("rnp://127.0.0.1:0")
    assert real.startswith("tcp://127.0.0.1:")
    dialler.dial(real.replace("tcp://", "rnp://"))
    await eventually(lambda: dialler.handler.links)


@pytest.mark.parametrize("url", ["tcp://hub:1?cost=1", "tcp://hub:1?cost=100000", "rnp://hub:1?cost=17"])
def test_a_url_may_tell_the_cost_of_its_links(url):
    assert parse_url(url).cost == int(url.partition("=")[2])
    assert "?" not in parse_url(url).endpoint
