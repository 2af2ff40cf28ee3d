"""The grant of a node for its leaf: what is signed, who may sign it, for how long."""

import dataclasses

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.credentials import Disbelieved
from zmesh.identity import Grant, IdentityKey, LeafKey, TrustError
from zmesh.identity.grant import LIFETIME, MAX_GRANT, read_given, read_shown
from zmesh.testing.authority import TestAuthority

NOW = 1_800_000_000
KEY = IdentityKey.from_seed(bytes(range(32)))


@pytest.fixture(scope="module")
def authority():
    return TestAuthority(begins=NOW - 86400)


@pytest.fixture(scope="module")
def home(authority):
    return authority.credentials("home")


@pytest.fixture(scope="module")
def other(authority):
    return authority.credentials("other")


def made(by, **changes):
    """A grant of `home` that `by` signs, with other fields, signed all the same."""
    grant = Grant.sign(by.key, "lab", "home", "cli", KEY.public, NOW, 1)
    changed = dataclasses.replace(grant, **changes)
    return dataclasses.replace(changed, signature=by.key.sign(b"zmesh grant 1\0" + msgpack.packb(changed._signed())))


def shown(grant, by):
    return msgpack.packb((grant.encode(), by.own.data))


def test_it_names_the_leaf_its_key_and_one_hour(home, other):
    leaf_key = LeafKey(lambda size: bytes(size))
    data = home.grant("cli", leaf_key.public, NOW)
    credentials = leaf_key.accept(data, "cli", "home", NOW)
    certified = other.read_grant(credentials.own.data, "cli", "home")
    assert certified.public == leaf_key.public
    assert certified.identity == home.own.identity
    assert certified.valid_until == NOW + LIFETIME
    assert other.is_signed(certified, credentials.sign(b"what it says"), b"what it says")
    other.check(certified, "home", NOW)
    other.check(certified, "home", NOW - LIFETIME)
    other.check(certified, "home", NOW + LIFETIME - 1)


def test_out_of_its_time_it_is_refused_and_the_clocks_are_named(home, other):
    certified = other.read_grant(shown(made(home), home), "cli", "home")
    late = NOW + LIFETIME
    with pytest.raises(Disbelieved, match=r"'cli' by node 'home' expired 0 s ago; a command gets another") as expired:
        other.check(certified, "home", late)
    with pytest.raises(Disbelieved, match=r"expired 23 h ago; the clock of 'other' is 24 h ahead of that of 'home'"):
        other.check(certified, "home", NOW + 86400, NOW)
    with pytest.raises(Disbelieved, match=r"is valid in 60 s only; which clock is wrong\?") as early:
        other.check(certified, "home", NOW - LIFETIME - 60)
    assert (expired.value.reason, early.value.reason) == ("expired", "not_yet_valid")


def test_each_grant_of_a_node_has_a_higher_serial_whatever_the_clock_does(home):
    serials = [read_shown(read_given(home.grant("cli", KEY.public, at))[2])[0].serial for at in (NOW, NOW, NOW - 9)]
    assert serials == sorted(set(serials))


def test_a_node_vouches_for_leaves_below_itself_only(home, other):
    grant = made(home)
    for leaf, node, by, reason in (
        ("cli", "home", other, "id"),
        ("other", "home", home, "id"),
        ("cli", "other", other, "id"),
        ("cli", "other", home, "id"),
    ):
        with pytest.raises(Disbelieved, match="a node grants names to its own leaves only") as refused:
            other.read_grant(shown(grant, by), leaf, node)
        assert refused.value.reason == reason
    with pytest.raises(Disbelieved, match="of the mesh 'prod', and this one is 'lab'"):
        other.read_grant(shown(made(home, mesh="prod"), home), "cli", "home")


def test_who_holds_the_certificate_of_a_node_and_not_its_key_grants_nothing(home, other):
    forged = made(other)
    with pytest.raises(Disbelieved, match=r"'home' \(key SHA256:.*\) has not signed.*zmesh revoke home") as refused:
        other.read_grant(shown(forged, home), "cli", "home")
    assert refused.value.reason == "signature"


def test_no_node_can_make_one_for_longer(home, other):
    with pytest.raises(Disbelieved, match="or for more than 3600 s"):
        other.read_grant(shown(made(home, not_after=NOW + 1 + LIFETIME), home), "cli", "home")


@pytest.mark.parametrize(
    "changes",
    [
        {"leaf": "ada.1"}, {"leaf": ""}, {"leaf": "x" * 65}, {"leaf": "a b"}, {"home": ""}, {"key": bytes(31)},
        {"not_before": NOW + 2 * LIFETIME}, {"serial": -1}, {"not_after": 1 << 62},
    ],
)  # fmt: skip
def test_what_is_out_of_its_limits_is_not_read(home, changes):
    with pytest.raises(TrustError, match="out of its limits"):
        Grant.decode(made(home, **changes).encode())


def test_a_leaf_takes_a_grant_for_its_own_name_and_key_only(home):
    key = LeafKey(lambda size: bytes(size))
    with pytest.raises(Disbelieved, match="for another key"):
        key.accept(home.grant("cli", KEY.public, NOW), "cli", "home", NOW)
    with pytest.raises(Disbelieved, match="shows a grant for 'else'"):
        key.accept(home.grant("else", key.public, NOW), "cli", "home", NOW)
    with pytest.raises(Disbelieved, match="expired"):
        key.accept(home.grant("cli", key.public, NOW - 2 * LIFETIME), "cli", "home", NOW)


def test_a_grant_is_no_certificate_and_a_certificate_no_grant(home, other):
    """Else a leaf could greet in the place of its node."""
    with pytest.raises(Disbelieved):
        other.read(shown(made(home), home))
    with pytest.raises(Disbelieved):
        other.read_grant(home.own.data, "cli", "home")


def test_bytes_are_counted_before_they_are_read():
    with pytest.raises(TrustError, match=f"{MAX_GRANT + 1} bytes, where {MAX_GRANT} are allowed"):
        Grant.decode(bytes(MAX_GRANT + 1))
    with pytest.raises(TrustError, match="0 authorities"):
        read_given(msgpack.packb(("lab", (), b"")))
    for rows in ((1,), ((b"", 1, 2),), ((bytes(32), b"", 2),)):
        with pytest.raises(TrustError, match="wrong kind"):
            read_given(msgpack.packb(("lab", rows, b"")))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=70) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.binary(max_size=600) | values.map(msgpack.packb))
def test_whatever_comes_is_read_or_refused_with_the_own_error(data):
    for read in (Grant.decode, read_given, read_shown):
        try:
            read(data)
        except TrustError:
            continue


@given(st.data())
def test_a_grant_in_which_any_byte_was_changed_is_refused(home, other, data):
    sound = shown(made(home), home)
    at = data.draw(st.integers(0, len(sound) - 1))
    changed = bytearray(sound)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Disbelieved):
        other.check(other.read_grant(bytes(changed), "cli", "home"), "home", NOW)
