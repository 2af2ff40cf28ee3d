"""Revocations and endorsements that a node floods, and what it believes of those that come."""

import pytest

from zmesh.core import wire
from zmesh.core.routing.statements import Statements
from zmesh.core.wire import Kind
from zmesh.testing.authority import DAY, YEAR, TestAuthority

NOW = 1_800_000_000


@pytest.fixture
def authority():
    return TestAuthority(3, begins=NOW - DAY)


@pytest.fixture
def credentials(authority):
    return authority.credentials("a")


@pytest.fixture
def statements(credentials):
    statements = Statements(credentials)
    for link in (1, 2, 3):
        statements.link_up(link)
    return statements


def revocation(authority, subject, reason=""):
    return b"r" + authority.revoke(subject, NOW, reason).encode()


def sent(statements):
    frames = [(link, wire.read_packet(parts)) for link, parts in statements.flush()]
    assert not statements.has_work
    assert {packet.kind for _, packet in frames} <= {Kind.STATEMENT}
    return [(link, wire.decode_statements(packet.head)) for link, packet in frames]


def test_a_revocation_is_believed_and_flooded_on_all_other_links(authority, credentials, statements):
    data = revocation(authority, "edge", "stolen")
    assert statements.accept(1, [data, data]) == (["edge was revoked (stolen)"], {})
    assert statements.has_work
    assert sent(statements) == [(2, [data]), (3, [data])]
    assert [each.subject for each in credentials.trust.revocations] == ["edge"]
    assert len(statements) == 1


def test_what_is_known_goes_nowhere(authority, statements):
    data = revocation(authority, "edge")
    statements.accept(1, [data])
    sent(statements)
    assert statements.accept(2, [data]) == ([], {})
    assert sent(statements) == []


def test_the_digest_is_the_same_in_whatever_order_statements_came(authority, statements):
    other = Statements(authority.credentials("b"))
    assert statements.digest == other.digest == 0
    both = [revocation(authority, "edge"), revocation(authority, "hub")]
    statements.accept(1, both)
    other.accept(1, both[1:])
    assert statements.digest != other.digest
    other.accept(1, both[:1])
    assert statements.digest == other.digest != 0


def test_a_later_revocation_of_the_same_node_takes_the_place_of_the_former(authority, statements):
    first = b"r" + authority.revoke("edge", NOW).encode()
    later = b"r" + authority.revoke("edge", NOW + DAY).encode()
    for order in ([first, later], [later, first]):
        node = Statements(authority.credentials("b"))
        node.accept(1, order)
        assert len(node) == 1
        assert node.digest == wire.digest(later)


def test_two_revocations_of_one_node_to_the_same_end_are_one_everywhere(authority):
    one, two = (b"r" + authority.revoke("edge", NOW, why).encode() for why in ("stolen", "lost"))
    digests = set()
    for order in ([one, two], [two, one]):
        node = Statements(authority.credentials("b"))
        node.accept(1, order)
        digests.add(node.digest)
    assert len(digests) == 1


def test_statements_of_strangers_garbage_and_forgeries_are_refused_by_reason(authority, statements):
    stranger = TestAuthority(9, begins=NOW - DAY)
    forged = bytearray(revocation(authority, "edge"))
    forged[-1] ^= 1
    endorsement = b"e" + stranger.endorse(stranger).encode()
    said = [revocation(stranger, "a"), endorsement, bytes(forged), b"r", b"e", b"x", b"?" + bytes(40)]
    assert statements.accept(1, said) == ([], {"authority": 2, "signature": 3, "statement": 2})
    assert sent(statements) == []
    assert statements.digest == 0


def test_an_endorsed_authority_is_trusted_and_its_revocations_are_too(authority, credentials, statements):
    successor = TestAuthority(9, begins=NOW - DAY)
    data, revoked = b"e" + authority.endorse(successor).encode(), revocation(successor, "edge")
    assert statements.accept(1, [revoked]) == ([], {"authority": 1})
    news, refused = statements.accept(1, [data, revoked])
    assert news == [f"authority {successor.authority.fingerprint}", "edge was revoked"]
    assert refused == {}
    assert statements.accept(2, [data]) == ([], {})
    assert {each.public for each in credentials.trust.authorities} == {authority.key.public, successor.key.public}


def test_what_a_revoked_authority_has_signed_is_neither_believed_nor_passed_on(authority, credentials, statements):
    successor = TestAuthority(9, begins=NOW - DAY)
    data = b"e" + authority.endorse(successor).encode()
    statements.accept(1, [data])
    statements.accept(1, [b"r" + successor.revoke(authority.authority.fingerprint, NOW).encode()])
    assert statements.accept(1, [revocation(authority, "edge")]) == ([], {"authority": 1})
    assert len(statements) == 1


def test_what_the_program_has_learned_is_flooded_on_all_links(authority, credentials, statements):
    credentials.trust.revoke(authority.revoke("edge", NOW))
    statements.update()
    data = revocation(authority, "edge")
    assert sent(statements) == [(1, [data]), (2, [data]), (3, [data])]
    statements.update()
    assert sent(statements) == []


def test_all_are_sent_again_to_who_asks_and_to_nobody_whose_link_is_down(authority, statements):
    both = sorted([revocation(authority, "edge"), revocation(authority, "hub")])
    statements.accept(1, both)
    sent(statements)
    assert statements.resend(1) == 2
    assert sent(statements) == [(1, both)]
    statements.link_down(1)
    statements.link_down(1)
    assert statements.resend(1) == 2
    assert not statements.has_work
    assert sent(statements) == []


def test_no_more_are_kept_than_a_store_takes(authority, credentials, statements, monkeypatch):
    monkeypatch.setattr("zmesh.identity.trust.MAX_REVOCATIONS", 2)
    said = [revocation(authority, f"edge-{number}") for number in range(3)]
    news, refused = statements.accept(1, said)
    assert (len(news), refused, len(statements)) == (2, {}, 2)


def test_a_revocation_is_kept_as_long_as_what_it_revokes_may_be_valid(authority, credentials):
    credentials.trust.revoke(authority.revoke("edge", NOW))
    credentials.trust.expire(NOW + YEAR - 1)
    assert len(Statements(credentials)) == 1
