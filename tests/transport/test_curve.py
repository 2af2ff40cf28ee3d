"""Which links are encrypted and which are refused; keys in URLs; what both ends know of an encrypted link."""

import os

import pytest

from tests.transport.transport_handler import joined
from zmesh.errors import AddressError
from zmesh.testing import eventually
from zmesh.transport import LinkSecurity
from zmesh.transport.address import parse_url
from zmesh.transport.curve import KeyPair, key_from_text, key_to_text

SECRET = bytes(range(32))
KEYS = KeyPair.of(SECRET)
KEY = key_to_text(KEYS.public)
PLAIN = ["tcp://127.0.0.1:*", "tcp://127.9.9.9:1", "tcp://localhost:1", "tcp://[::1]:*", "tcp://[::ffff:127.0.0.1]:1"]
PLAIN += ["rnp://127.0.0.1:1", "ipc:///tmp/s", "inproc://a"]
OTHERS = ["tcp://0.0.0.0:*", "tcp://*:1", "tcp://[::]:1", "tcp://192.0.2.1:1", "tcp://hub:1", "rnp://hub:1"]
COMMANDS = ("zmesh init", "zmesh invite", "zmesh join", "--insecure")


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_public_key_follows_from_its_secret_key():
    """RFC 7748 section 5.2, the first iteration: scalar and base point are both 9."""
    secret = bytes([9]) + bytes(31)
    assert KeyPair.of(secret).public.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"


def test_a_new_pair_is_a_pair():
    pair = KeyPair.generate()
    assert KeyPair.of(pair.secret) == pair
    assert KeyPair.generate() != pair


def test_the_text_of_a_pair_has_no_secret():
    assert key_to_text(KEYS.public) in repr(KEYS)
    assert key_to_text(SECRET) not in repr(KEYS)
    assert repr(SECRET) not in repr(KEYS)


def test_a_key_in_a_url_is_read_as_it_was_printed():
    assert len(KEY) == 43
    assert key_from_text(KEY) == KEYS.public
    assert parse_url(f"tcp://hub:1?key={KEY}&cost=7").key == KEYS.public
    assert parse_url(f"rnps://hub:1?key={KEY}").key == KEYS.public
    assert parse_url("tcp://hub:1").key is None


@pytest.mark.parametrize("text", ["", "x", KEY[:-1], KEY + "A", KEY + "=", "~" + KEY[1:], KEY[:-1] + "_", "é" * 43])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(AddressError, match="is no address: a key has 43 characters of A-Z a-z 0-9 - _"):
        parse_url(f"tcp://hub:1?key={text}")


@pytest.mark.parametrize("url", ["rnp://hub:1", "ipc:///s", "inproc://s"])
def test_a_key_is_for_encrypted_links_only(url):
    with pytest.raises(AddressError, match="a key is for tcp:// and rnps://"):
        parse_url(f"{url}?key={KEY}")


# --- what is encrypted, and what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("url", PLAIN)
def test_without_an_identity_a_node_speaks_plaintext_within_its_machine(url):
    security = LinkSecurity()
    assert security.to_listen(parse_url(url)) is None
    assert security.to_dial(parse_url(url)) is None


@pytest.mark.parametrize("url", [*OTHERS, "tcp://127.0.0.1.example:1", "tcp://127.0.0.1:1?proxy=socks5://127.0.0.1"])
def test_without_an_identity_all_else_is_refused_with_the_commands_that_mend_it(url):
    security = LinkSecurity()
    for use, what in ((security.to_listen, "listen on"), (security.to_dial, "dial")):
        with pytest.raises(AddressError, match=f"can't {what} ") as raised:
            use(parse_url(url))
        assert all(command in str(raised.value) for command in COMMANDS)


@pytest.mark.parametrize("url", OTHERS)
def test_plaintext_to_other_machines_is_allowed_where_it_is_asked_for(url, caplog):
    security = LinkSecurity(insecure=True)
    for _ in range(3):
        assert security.to_listen(parse_url(url)) is None
        assert security.to_dial(parse_url(url)) is None
    assert len(caplog.records) == url.startswith("rnp:"), "it warns of what is plaintext by its name, and once"


def test_with_an_identity_a_node_listens_to_encrypted_tcp_only():
    for security in (LinkSecurity(SECRET), LinkSecurity(SECRET, insecure=True)):
        for url in ("tcp://127.0.0.1:*", "tcp://*:1", "rnps://hub:1"):
            assert security.to_listen(parse_url(url)) == KEYS
        for url in ("ipc:///tmp/s", "inproc://s", "rnp://127.0.0.1:1"):
            assert security.to_listen(parse_url(url)) is None
    with pytest.raises(AddressError, match="rnp:// is plaintext, which may not leave this machine"):
        LinkSecurity(SECRET).to_listen(parse_url("rnp://*:1"))
    assert LinkSecurity(SECRET, insecure=True).to_listen(parse_url("rnp://*:1")) is None


def test_with_an_identity_a_peer_needs_a_key():
    for url in ("tcp://127.0.0.1:1", "tcp://hub:1"):
        with pytest.raises(AddressError, match="it needs [?]key= and the peer's key after it"):
            LinkSecurity(SECRET).to_dial(parse_url(url))
        assert LinkSecurity(SECRET, insecure=True).to_dial(parse_url(url)) is None
    assert LinkSecurity(SECRET).to_dial(parse_url("ipc:///tmp/s")) is None


@pytest.mark.parametrize("security", [LinkSecurity(), LinkSecurity(SECRET), LinkSecurity(insecure=True)])
def test_a_peer_with_a_key_is_dialled_encrypted(security):
    for url in (f"tcp://hub:1?key={KEY}", f"rnps://hub:1?key={KEY}", f"tcp://127.0.0.1:1?key={KEY}"):
        dialled = security.to_dial(parse_url(url))
        assert dialled.listener == KEYS.public
        assert dialled.own == security.to_dial(parse_url(url)).own, "one key for each start"
        assert dialled.channel == dialled.own.public + KEYS.public


def test_rnps_means_encryption():
    with pytest.raises(AddressError, match="encryption needs an identity"):
        LinkSecurity(insecure=True).to_listen(parse_url("rnps://127.0.0.1:1"))
    with pytest.raises(AddressError, match="encryption needs [?]key="):
        LinkSecurity(insecure=True).to_dial(parse_url("rnps://127.0.0.1:1"))


def test_a_key_says_nothing_where_a_node_listens():
    with pytest.raises(AddressError, match="a key is for peers that are dialled"):
        LinkSecurity(SECRET).to_listen(parse_url(f"tcp://127.0.0.1:1?key={KEY}"))


def test_a_libzmq_whose_curve_can_be_exhausted_is_refused(monkeypatch):
    monkeypatch.setattr("zmq.zmq_version_info", lambda: (4, 3, 2))
    with pytest.raises(AddressError, match="encryption needs libzmq 4.3.3 or later"):
        LinkSecurity(SECRET).to_listen(parse_url("tcp://127.0.0.1:1"))
    with pytest.raises(AddressError, match="encryption needs libzmq 4.3.3 or later"):
        LinkSecurity().to_dial(parse_url(f"tcp://127.0.0.1:1?key={KEY}"))


async def test_localhost_is_never_another_machine(transports):
    """A resolver that leads it elsewhere gets no plaintext."""
    import socket

    from zmesh.transport.resolver import Address

    transport = transports(lambda host: [Address(socket.AF_INET, "192.0.2.1")], LinkSecurity())
    with pytest.raises(AddressError, match="localhost is not loopback on this machine"):
        transport.listen("tcp://localhost:*")
    transport.dial("tcp://localhost:7323")
    await eventually(lambda: transport.handler.failures)
    assert transport.handler.failures[0] == ("tcp://localhost:7323", "it has no address")


# --- encrypted links ------------------------------------------------------------------------------------------------


async def test_both_ends_of_an_encrypted_link_know_the_same_keys(transports):
    listener, first, second = transports(security=LinkSecurity(SECRET)), transports(), transports()
    url = listener.listen("tcp://127.0.0.1:*")
    assert url.endswith(f"?key={KEY}")
    for dialler in (first, second):
        dialler.dial(url)
        await eventually(lambda dialler=dialler: dialler.handler.links)
        dialler.send(dialler.handler.links[0], (b"one", b"two"))
        dialler.settle()
    await eventually(lambda: len(listener.handler.frames) == 2)
    theirs = {dialler.handler.channels[dialler.handler.links[0]] for dialler in (first, second)}
    assert set(listener.handler.channels.values()) == theirs
    assert all(len(channel) == 64 and channel.endswith(KEYS.public) for channel in theirs)
    assert len(theirs) == 2
    assert listener.remote_address(listener.handler.links[0]) == "127.0.0.1"


@pytest.mark.parametrize("size", [0, 1, 100_000])
async def test_frames_pass_an_encrypted_link_unchanged(transports, size):
    listener, dialler = transports(security=LinkSecurity(SECRET)), transports()
    dialler.dial(listener.listen("rnps://127.0.0.1:0").replace("tcp://", "rnps://"))
    await eventually(lambda: dialler.handler.links)
    frames = (b"head", bytes(size))
    dialler.send(dialler.handler.links[0], frames)
    dialler.settle()
    await eventually(lambda: listener.handler.frames)
    assert listener.handler.frames[0][1] == frames
    listener.send(listener.handler.links[0], frames)
    listener.settle()
    await eventually(lambda: dialler.handler.frames)
    assert dialler.handler.frames[0][1] == frames


async def test_a_plaintext_link_has_no_keys(listener, dialler, url):
    dialler.dial(listener.listen(url))
    await eventually(lambda: dialler.handler.links)
    dialler.send(dialler.handler.links[0], (b"hello",))
    dialler.settle()
    await eventually(lambda: listener.handler.links)
    assert {**dialler.handler.channels, **listener.handler.channels} == {1: b""}


@pytest.mark.parametrize(
    ("url", "private"),
    [("tcp://127.0.0.1:*", False), ("ipc://@zmesh-{}", False), ("ipc:///tmp/zmesh-{}", True), ("inproc://z-{}", True)],
)
async def test_both_ends_know_whether_others_can_dial_that_address(listener, dialler, url, private):
    await joined(dialler, listener, url.format(os.urandom(6).hex()))
    assert (listener.handler.locals, dialler.handler.locals) == ([private], [private])


async def test_an_encrypted_link_comes_back_with_the_same_keys(transports, wire):
    listener, dialler = transports(security=LinkSecurity(SECRET)), transports()
    url, _, key = listener.listen("tcp://127.0.0.1:*").partition("?")
    between = await wire(url)
    dialler.dial(f"{between.url}?{key}")
    await eventually(lambda: dialler.handler.links)
    between.cut()
    await eventually(lambda: len(dialler.handler.channels) == 2)
    assert len(set(dialler.handler.channels.values())) == 1
