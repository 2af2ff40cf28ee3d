"""Records that their nodes sign, and the certificates that they are verified with."""

import pytest

from zmesh.core import wire
from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.routing import Routing
from zmesh.core.routing.certificates import REQUEST_TIMEOUT, SPARE, Certificates
from zmesh.core.timers import Alarm, WallClock
from zmesh.core.wire import SIGNATURE, Kind
from zmesh.testing.authority import DAY, TestAuthority

NOW = 1_800_000_000.0
LIMIT = 2000


class Links:
    def neighbour(self, id):
        return f"n{id}"

    def neighbours(self):
        return ()

    def routing_cost(self, id):
        return 100


@pytest.fixture
def authority():
    return TestAuthority(3, begins=int(NOW) - DAY)


@pytest.fixture
def reports():
    return []


def make(id, credentials, reports, **options):
    options = {"epoch": NOW, "now": 0.0} | options
    return Routing(id, 7, 100, Links(), reports.append, Alarm(), credentials=credentials, **options)


@pytest.fixture
def routing(authority, reports):
    routing = make("a", authority.credentials("a"), reports, limits=DEFAULT_LIMITS._replace(held_record_bytes=LIMIT))
    for link in (1, 2):
        routing.link_up(link, f"n{link}", 100, 0.0)
    routing.flush(0.0)
    return routing


class Other:
    """Another node, which makes records."""

    def __init__(self, authority, id="z", incarnation=9, **options):
        self.credentials = authority.credentials(id, **options)
        self.certificates = Certificates(self.credentials, WallClock(NOW), Alarm())
        self.plain = wire.Record(id, incarnation, 500, ("x:y",), (("n1", 100),), b"", 1.0)

    def record(self, **fields):
        return self.certificates.sign(self.plain._replace(**fields))

    @property
    def certificate(self):
        return self.credentials.own.data


def hear(routing, link, *records, now=0.0):
    result = routing.on_records(link, [(record, wire.encode(record)) for record in records], now)
    routing.report_refused()
    routing.check()
    return result


def sent(routing, kind, now=0.0):
    return [(link, wire.read_packet(parts).head) for link, parts in routing.flush(now)
            if wire.read_packet(parts).kind == kind]  # fmt: skip


def refusals(reports):
    return [report.detail for report in reports if report.event == "record_refused"]


def test_the_own_record_is_signed_and_names_the_key_of_its_incarnation(routing, authority):
    record = routing.record("a")
    digest, signature = wire.decode_signature(record.extensions[SIGNATURE])
    credentials = routing._certificates._credentials
    assert record.public_key == credentials.exchange_key
    assert digest == credentials.own.digest
    assert credentials.is_signed(credentials.own, signature, wire.signed_record("lab", record, digest))
    routing.describe(["c:c"], 1.0)
    assert routing.record("a").extensions != record.extensions
    assert routing.certified("a") == credentials.own
    routing.describe(["c:c"], 2.0, ("gpu",))
    assert wire.tags_of(routing.record("a")) == ("gpu",)


def test_a_record_waits_for_the_certificate_which_is_requested_once_from_who_sent_it(routing, authority, reports):
    other = Other(authority)
    hear(routing, 1, other.record())
    hear(routing, 2, other.record(serial=501))
    assert routing.record("z") is None
    assert routing.has_work
    assert routing.is_urgent
    ((link, head),) = sent(routing, Kind.CERTIFICATE_REQUEST)
    assert (link, wire.decode_certificate_requests(head)) == (1, [other.credentials.own.digest])
    assert sent(routing, Kind.CERTIFICATE_REQUEST) == []
    assert routing.on_certificate(1, other.certificate, 0.0) is False
    assert routing.record("z") == other.record(serial=501)
    assert routing.certified("z").identity == ("z", (), other.credentials.own.identity.key)
    assert refusals(reports) == []
    routing.check()
    assert routing.on_certificate_requests([other.credentials.own.digest, bytes(16)]) == [other.certificate]


def test_the_certificate_of_a_neighbour_needs_no_request(routing, authority):
    other = Other(authority)
    routing.add_certificate(other.credentials.own)
    hear(routing, 1, other.record())
    assert routing.record("z") == other.record()


def test_another_serial_and_other_costs_need_no_new_signature(routing, authority):
    other = Other(authority)
    routing.add_certificate(other.credentials.own)
    hear(routing, 1, other.record())
    later = other.record()._replace(serial=600, neighbours=(("n2", 5),))
    hear(routing, 2, later)
    assert routing.record("z") == later


@pytest.mark.parametrize(
    "fields",
    [
        {"capabilities": ("exec:run",)},
        {"incarnation": 10},
        {"public_key": bytes(32)},
        {"started": 5.0},
        {"extensions": {SIGNATURE: bytes(80)[:-1]}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_forged_record_is_dropped_and_counted(routing, authority, reports, fields):
    other = Other(authority)
    routing.add_certificate(other.credentials.own)
    hear(routing, 1, other.record())
    hear(routing, 1, other.record()._replace(serial=501, **fields))
    assert routing.record("z") == other.record()
    assert refusals(reports) == ["signature: 1"]


def test_a_record_that_another_node_has_signed_is_dropped(routing, authority, reports):
    other, liar = Other(authority), Other(authority, "liar")
    routing.add_certificate(liar.credentials.own)
    routing.add_certificate(other.credentials.own)
    hear(routing, 1, liar.record(node="z"))
    hear(routing, 1, wire.Record("z", 9, 500, (), (), b""))
    assert routing.record("z") is None
    assert refusals(reports) == ["id: 1", "unsigned: 1"]


def test_a_forged_record_of_this_node_is_not_answered(routing, authority, reports):
    liar = Other(authority, "liar")
    routing.add_certificate(liar.credentials.own)
    serial = routing.record("a").serial
    hear(routing, 1, routing.record("a")._replace(serial=serial + 50, capabilities=("lie:lie",)))
    assert routing.record("a").serial == serial
    assert refusals(reports) == ["signature: 1"]


def test_an_old_record_is_dropped_before_its_signature_is_looked_at(routing, authority, reports):
    other = Other(authority)
    routing.add_certificate(other.credentials.own)
    hear(routing, 1, other.record())
    hear(routing, 1, other.record(serial=400)._replace(capabilities=("lie:lie",)))
    assert refusals(reports) == []


def test_a_certificate_that_nothing_waits_for_is_dropped_and_counted(routing, authority, reports):
    assert routing.on_certificate(1, Other(authority).certificate, 0.0) is False
    assert routing.on_certificate(1, b"garbage", 0.0) is False
    routing.report_refused()
    assert refusals(reports) == ["unrequested: 1", "certificate: 1"]


def test_held_records_are_bounded_and_end_with_time_or_their_link(routing, authority, reports):
    others = [Other(authority, f"z{number}") for number in range(20)]
    hear(routing, 1, *(other.record() for other in others))
    size = len(wire.encode(others[0].record()))
    assert LIMIT - size < routing._certificates.held_bytes <= LIMIT
    (text,) = refusals(reports)
    assert text.startswith("held_record_bytes: ")
    assert routing.next_deadline() <= REQUEST_TIMEOUT
    routing.expire(REQUEST_TIMEOUT)
    assert routing._certificates.held_bytes == 0
    hear(routing, 2, others[0].record(), now=6.0)
    hear(routing, 1, others[1].record(), now=6.0)
    routing.link_down(1, 6.0)
    routing.check()
    assert [link for link, _ in sent(routing, Kind.CERTIFICATE_REQUEST, 6.0)] == [2]
    routing.link_down(2, 6.0)
    assert routing._certificates.held_bytes == 0


def test_certificates_that_no_record_names_are_forgotten(routing, authority):
    other = Other(authority)
    routing.add_certificate(other.credentials.own)
    hear(routing, 1, other.record())
    for number in range(SPARE + 10):
        routing.add_certificate(other.credentials.own._replace(digest=number.to_bytes(16, "big")))
    routing.expire(1.0)
    assert list(routing._certificates._known) == [other.credentials.own.digest]


def test_the_records_of_nodes_that_are_believed_no_more_are_dropped(routing, authority, reports):
    others = [Other(authority, id, days=days) for id, days in (("x", 90), ("y", 90), ("z", 2))]
    for other in others:
        routing.add_certificate(other.credentials.own)
        hear(routing, 1, other.record())
    assert routing.check_trust(0.0, in_full=True) == []
    routing._certificates._credentials.trust.revoke(authority.revoke("x", int(NOW)))
    assert routing.check_trust(0.0, in_full=False) == []
    assert routing.check_trust(0.0, in_full=True) == ["x"]
    assert routing.check_trust(DAY + 1.0, in_full=False) == ["z"]
    assert routing.record("y") is not None
    routing.report_refused()
    assert refusals(reports) == ["revoked: 1", "expired: 1"]
    routing.check()


def test_a_node_with_another_key_is_refused_while_the_former_one_is_alive(routing, authority, reports):
    former, other = Other(authority), Other(authority, incarnation=10)
    for each in (former, other):
        routing.add_certificate(each.credentials.own)
    hear(routing, 1, former.record())
    routing.on_update(1, wire.Update(0, 1, [("z", 9, 5, 10, 1, 0)]), 0.0)
    routing.select(0.0)
    hear(routing, 2, other.record(serial=700))
    assert routing.record("z") == former.record()
    (report,) = [report for report in reports if report.event == "duplicate_id"]
    assert former.credentials.own.identity.key in report.detail
    assert other.credentials.own.identity.key in report.detail
    assert "zmesh revoke" in report.detail
    routing.on_update(1, wire.Update(0, 2, [("z", 9, 6, wire.INFINITY, 1, 0)]), 0.0)
    routing.on_update(2, wire.Update(0, 1, [("z", 10, 6, 10, 1, 0)]), 0.0)
    routing.select(0.0)
    hear(routing, 2, other.record(serial=700))
    assert routing.record("z") == other.record(serial=700)


def test_a_renewed_certificate_is_in_the_next_record(routing, authority):
    credentials = routing._certificates._credentials
    before = routing.record("a")
    credentials.renew(authority.certificate("a", credentials.key, days=180))
    routing.check_trust(0.0, in_full=True)
    after = routing.record("a")
    assert after.serial > before.serial
    assert wire.decode_signature(after.extensions[SIGNATURE])[0] == credentials.own.digest


def test_without_credentials_records_are_not_signed_and_certificates_not_asked_for(authority, reports):
    routing = make("a", None, reports)
    routing.link_up(1, "n1", 100, 0.0)
    other = Other(authority)
    hear(routing, 1, other.record())
    assert routing.record("z") == other.record()
    assert routing.record("a").extensions == {}
    routing.add_certificate(other.credentials.own)
    assert routing.certified("z") is None
    assert routing.on_certificate_requests([bytes(16)]) == []
    assert routing.on_certificate(1, other.certificate, 0.0) is False
    assert routing.check_trust(0.0, in_full=True) == []
    assert reports == []


def test_another_live_node_with_this_nodes_id_is_detected_by_its_signed_records(routing, authority, reports):
    other = Other(authority, "a", incarnation=3)
    routing.add_certificate(other.credentials.own)
    proven = []
    for now in range(0, 240, 40):
        proven.append(hear(routing, 1, other.record(serial=routing.record("a").serial + 5), now=float(now)))
        routing.expire(now + 20.0)
    assert True in proven
    assert routing.record("a").incarnation == 7


def test_a_record_without_a_certificate_is_not_believed_and_a_wrong_count_is_seen(routing, authority):
    certificates = routing._certificates
    assert certificates.disbelief(Other(authority).plain, 0.0, in_full=False) == "unsigned"
    certificates.held_bytes += 1
    with pytest.raises(AssertionError, match="count"):
        certificates.check()
    certificates.held_bytes -= 1
    hear(routing, 1, Other(authority).record())
    certificates._timeouts.expire(100.0)
    with pytest.raises(AssertionError, match="time-out"):
        certificates.check()
