"""Sealing: against vectors, once each, for one receiver, and never for anybody on the way."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from zmesh.identity.sealing import (
    LAST_COUNTER,
    OVERHEAD,
    WINDOW,
    ExchangeKey,
    Opener,
    Sealer,
    Unsealable,
    direction_key,
)

KEY = bytes(range(32))


# RFC 7748 section 6.1
ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def test_the_shared_secret_is_that_of_rfc_7748():
    alice, bob = ExchangeKey(bytes.fromhex(ALICE)), ExchangeKey(bytes.fromhex(BOB))
    assert (alice.public.hex(), bob.public.hex()) == (ALICE_PUBLIC, BOB_PUBLIC)
    assert alice.shared(bob.public).hex() == bob.shared(alice.public).hex() == SHARED


def test_hkdf_is_that_of_rfc_5869():
    derived = HKDF(SHA256(), 42, salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA))).derive(b"\x0b" * 22)
    assert derived.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_aes_gcm_is_that_of_its_specification():
    """McGrew and Viega, The Galois/Counter Mode of Operation, test cases 13 and 14."""
    aead = AESGCM(bytes(32))
    assert aead.encrypt(bytes(12), b"", b"").hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    sealed = aead.encrypt(bytes(12), bytes(16), b"")
    assert sealed.hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"


@pytest.mark.parametrize("public", [bytes(32), bytes(31), b"", b"\x01" + bytes(31)])
def test_a_key_that_gives_no_secret_is_refused(public):
    with pytest.raises(Unsealable, match="bad_key"):
        ExchangeKey(KEY).shared(public)


def test_each_direction_mesh_id_and_incarnation_has_a_key_of_its_own():
    ends = [("a", 1), ("b", 2)], [("b", 2), ("a", 1)], [("a", 2), ("b", 2)], [("a", 1), ("b", 3)], [("ab", 1), ("", 2)]
    keys = {direction_key(KEY, mesh, *pair) for mesh in ("lab", "prod") for pair in ends}
    assert len(keys) == 10
    assert {len(key) for key in keys} == {32}


@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=40)), max_size=10))
def test_what_is_sealed_is_opened_once_each(frames):
    sealer, opener = Sealer(KEY), Opener(KEY)
    for data, route in frames:
        sealed = sealer.seal(data, route)
        assert len(sealed) == len(data) + OVERHEAD
        assert opener.open(sealed, route) == data
        with pytest.raises(Unsealable, match="replayed"):
            opener.open(sealed, route)


@given(st.binary(min_size=1, max_size=100), st.data())
def test_a_bit_that_is_changed_on_the_way_is_found_and_costs_no_other_frame(data, draw):
    sealer, opener = Sealer(KEY), Opener(KEY)
    sealed = sealer.seal(data, b"route")
    changed = bytearray(sealed)
    changed[draw.draw(st.integers(0, len(sealed) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(Unsealable):
        opener.open(bytes(changed), b"route")
    with pytest.raises(Unsealable, match="forged"):
        opener.open(sealed, b"another route")
    assert opener.open(sealed, b"route") == data


def test_frames_may_come_in_any_order_within_the_window():
    sealer, opener = Sealer(KEY), Opener(KEY)
    frames = [sealer.seal(b"%d" % number, b"") for number in range(WINDOW + 1)]
    assert opener.open(frames[-1], b"") == b"%d" % WINDOW
    with pytest.raises(Unsealable, match="replayed"):
        opener.open(frames[0], b"")
    for number in reversed(range(1, WINDOW)):
        assert opener.open(frames[number], b"") == b"%d" % number
        with pytest.raises(Unsealable, match="replayed"):
            opener.open(frames[number], b"")


def test_the_memory_of_a_receiver_is_bounded():
    sealer, opener = Sealer(KEY), Opener(KEY)
    for _ in range(4 * WINDOW):
        opener.open(sealer.seal(b"", b""), b"")
    assert opener._seen.bit_length() <= WINDOW


def test_a_key_seals_so_many_frames_and_no_more():
    sealer, opener = Sealer(KEY), Opener(KEY)
    sealer.counter = LAST_COUNTER - 1
    assert opener.open(sealer.seal(b"last", b""), b"") == b"last"
    assert sealer.is_used_up
    with pytest.raises(OverflowError):
        sealer.seal(b"one more", b"")


@given(st.binary(max_size=80))
def test_garbage_raises_unsealable_and_nothing_else(data):
    with pytest.raises(Unsealable):
        Opener(KEY).open(data, b"")
