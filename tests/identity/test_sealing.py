"""Sealing: against vectors, once each, for one receiver, and never for anybody on the way."""

import pytest
import zmq
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.credentials import Unsealable
from zmesh.core.wire import SEAL_HEAD_BYTES, SEAL_TAG_BYTES
from zmesh.identity.sealing import LAST_COUNTER, WINDOW, ExchangeKey, Session, cipher_of, direction_key

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


def test_chacha20_poly1305_is_that_of_rfc_8439():
    """Section 2.8.2."""
    aead = ChaCha20Poly1305(bytes(range(0x80, 0xA0)))
    nonce, route = bytes.fromhex("070000004041424344454647"), bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would"
        b" be it."
    )
    assert aead.encrypt(nonce, text, route).hex() == (
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"
    )


@pytest.mark.parametrize(("one", "other"), [(False, False), (True, False), (False, True), (True, True)])
def test_both_ends_choose_the_same_cipher_and_keys_whichever_of_them_is_slow_at_aes(one, other):
    a, b = ExchangeKey(KEY, prefers_chacha20=one), ExchangeKey(bytes(range(1, 33)), prefers_chacha20=other)
    cipher = cipher_of(a.public, b.public)
    assert cipher is cipher_of(b.public, a.public) is (ChaCha20Poly1305 if one or other else AESGCM)
    ends = (("a", 1), ("b", 2))
    assert a.shared(b.public) == b.shared(a.public)
    key = direction_key(a.shared(b.public), "lab", *ends, cipher)
    sender, receiver = Session(key, KEY, *IDS, cipher=cipher), Session(KEY, key, *reversed(IDS), cipher=cipher)
    assert receiver.open(b"route", *sender.seal(b"route", b"head", b"body")) == (b"head", b"body")
    other_cipher = AESGCM if cipher is ChaCha20Poly1305 else ChaCha20Poly1305
    assert key != direction_key(a.shared(b.public), "lab", *ends, other_cipher), "no key is used with two ciphers"


@pytest.mark.parametrize(
    "public", [bytes(32), bytes(31), b"", b"\x01" + bytes(31), *(b"\x09" * 32 + s for s in (b"\2", b"\1\1"))]
)
def test_a_key_that_gives_no_secret_is_refused(public):
    with pytest.raises(Unsealable, match="bad_key"):
        ExchangeKey(KEY).shared(public)


def test_each_direction_mesh_id_and_incarnation_has_a_key_of_its_own():
    ends = [("a", 1), ("b", 2)], [("b", 2), ("a", 1)], [("a", 2), ("b", 2)], [("a", 1), ("b", 3)], [("ab", 1), ("", 2)]
    keys = {direction_key(KEY, mesh, *pair) for mesh in ("lab", "prod") for pair in ends}
    assert len(keys) == 10
    assert {len(key) for key in keys} == {32}


IDS = b"aaaa", b"bbbb"


def pair(**options):
    """Both ends of a session."""
    one, other = bytes(range(32)), bytes(range(1, 33))
    return Session(one, other, *IDS, **options), Session(other, one, *reversed(IDS))


@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=40)), max_size=10))
def test_what_is_sealed_is_opened_once_each(packets):
    sender, receiver = pair()
    for head, body, route in packets:
        sealed = sender.seal(route, head, body)
        assert len(sealed[0]) == len(head) + SEAL_HEAD_BYTES
        assert len(sealed[1]) == (len(body) + SEAL_TAG_BYTES if body else 0)
        assert receiver.open(route, *sealed) == (head, body)
        with pytest.raises(Unsealable, match="replayed"):
            receiver.open(route, *sealed)


@given(st.binary(min_size=1, max_size=100), st.binary(max_size=100), st.data())
def test_a_bit_that_is_changed_on_the_way_is_found_and_costs_no_other_packet(head, body, draw):
    sender, receiver = pair()
    sealed = sender.seal(b"route", head, body)
    whole = bytearray(b"".join(sealed))
    whole[draw.draw(st.integers(0, len(whole) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    size = len(sealed[0])
    with pytest.raises(Unsealable):
        receiver.open(b"route", bytes(whole[:size]), bytes(whole[size:]))
    with pytest.raises(Unsealable, match="forged"):
        receiver.open(b"another route", *sealed)
    assert receiver.open(b"route", *sealed) == (head, body)


def test_a_body_is_that_of_its_head():
    sender, receiver = pair()
    one, other = sender.seal(b"", b"one", b"1"), sender.seal(b"", b"other", b"2")
    alone = sender.seal(b"", b"alone", b"")
    for head, body in ((one[0], other[1]), (one[0], b""), (alone[0], one[1])):
        with pytest.raises(Unsealable, match="forged"):
            receiver.open(b"", head, body)
    assert [receiver.open(b"", *each)[0] for each in (one, other, alone)] == [b"one", b"other", b"alone"]


def test_a_head_that_comes_back_is_opened_by_who_has_sealed_it_and_by_nobody_else():
    sender, receiver = pair()
    for body in (b"", b"body"):
        head, _ = sender.seal(b"route", b"head", body)
        assert sender.reopen(b"route", head) == b"head"
        assert sender.reopen(b"route", head) == b"head"
        for end, route, what in ((sender, b"another", head), (receiver, b"route", head), (sender, b"route", head[:9])):
            with pytest.raises(Unsealable, match="forged"):
                end.reopen(route, what)


def test_packets_may_come_in_any_order_within_the_window():
    sender, receiver = pair()
    packets = [sender.seal(b"", b"%d" % number, b"") for number in range(WINDOW + 1)]
    assert receiver.open(b"", *packets[-1])[0] == b"%d" % WINDOW
    with pytest.raises(Unsealable, match="replayed"):
        receiver.open(b"", *packets[0])
    for number in reversed(range(1, WINDOW)):
        assert receiver.open(b"", *packets[number])[0] == b"%d" % number
        with pytest.raises(Unsealable, match="replayed"):
            receiver.open(b"", *packets[number])


def test_the_memory_of_a_receiver_is_bounded():
    sender, receiver = pair()
    for _ in range(4 * WINDOW):
        receiver.open(b"", *sender.seal(b"", b"", b""))
    sender.counter = LAST_COUNTER - 1
    receiver.open(b"", *sender.seal(b"", b"", b""))
    assert receiver._seen.bit_length() <= WINDOW


def test_a_key_seals_so_many_packets_and_no_more():
    sender, receiver = pair()
    sender.counter = LAST_COUNTER - 1
    assert receiver.open(b"", *sender.seal(b"", b"last", b"")) == (b"last", b"")
    with pytest.raises(OverflowError):
        sender.seal(b"", b"one more", b"")


def test_a_session_that_goes_on_takes_and_uses_no_number_again():
    sender, receiver = pair(counter=7)
    former, packet = pair()[0].seal(b"", b"x", b""), sender.seal(b"", b"y", b"")
    assert receiver.open(b"", *packet) == (b"y", b"")
    assert receiver.highest == sender.counter == 8
    late = Session(receiver_key(1), receiver_key(0), *reversed(IDS), highest=8)
    for each in (former, packet):
        with pytest.raises(Unsealable, match="replayed"):
            late.open(b"", *each)
    assert late.open(b"", *sender.seal(b"", b"z", b"")) == (b"z", b"")


def receiver_key(start):
    return bytes(range(start, start + 32))


def test_a_packet_for_other_keys_is_refused():
    sender, _ = pair()
    with pytest.raises(Unsealable, match="forged"):
        Session(KEY, receiver_key(1), b"bbbb", b"cccc").open(b"", *sender.seal(b"", b"x", b""))


@pytest.mark.parametrize("kind", [memoryview, bytearray, zmq.Frame])
def test_a_body_need_not_be_bytes(kind):
    """ZeroMQ hands large bodies over uncopied, as a Frame: to be opened, and of a leaf to be sealed."""
    sender, receiver = pair()
    head, body = sender.seal(b"", b"head", kind(b"body" * 20_000))
    assert receiver.open(b"", head, kind(body)) == (b"head", b"body" * 20_000)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_garbage_raises_unsealable_and_nothing_else(head, body):
    _, receiver = pair()
    with pytest.raises(Unsealable):
        receiver.open(b"", head, body)
    with pytest.raises(Unsealable):
        receiver.reopen(b"", head)
