"""What one neighbour can make a node keep and spend: at the limit all is heard, past it nothing but the first is."""

import pytest

from tests.core.engine_harness import Said, chunk, events, only, record, sealed
from zmesh.core import wire
from zmesh.core.effects import Deliver, HangUp, Report
from zmesh.core.limits import Limits, Rate
from zmesh.core.neighbours.links import MAX_STRIKES
from zmesh.core.routing.serials import MAX_LEAD_MS
from zmesh.core.wire import U63, Entry, Kind

FEW = Rate(1, 5)
EPOCH_MS = 1_000_000


def frames_of(*blobs):
    return wire.encode_records([*blobs])


def dropped(effects, reason):
    return [effect for effect in only(effects, Report) if effect.detail.startswith(reason)]


# --- each record by itself ----------------------------------------------------------------------------------------


def test_one_bad_record_costs_a_strike_and_none_of_the_others(linked):
    linked.advertise(1, Entry("c", 9, 1, 50, 1), Entry("d", 9, 1, 50, 1))
    for number in range(MAX_STRIKES):
        good = [wire.encode(record(name, serial=5 + number)) for name in "cd"]
        effects = linked.receive(1, *frames_of(good[0], b"garbage", good[1]))
        assert linked.engine.routing.record("c").serial == linked.engine.routing.record("d").serial == 5 + number
        assert [report.detail.partition(":")[0] for report in only(effects, Report)][:1] == ["garbage"]
    assert only(effects, HangUp) != []


def test_a_record_in_ones_own_name_with_the_highest_serial_of_all_is_not_believed_and_not_outbid(subject):
    """It was answered with a serial of 2**63, which every neighbour refused, with all that came in the same frame."""
    subject.join(1, "a")
    subject.join(2, "c")
    subject.run(0.1)
    before = subject.engine.routing.record("b").serial
    for serial in (U63, U63 - 1, EPOCH_MS + 10_000 + MAX_LEAD_MS):
        effects = subject.receive(1, *frames_of(wire.encode(record("b", serial)), wire.encode(record("a", 9, 1))))
        assert [report for report in only(effects, Report) if report.event == "record_refused"] == [
            Report("record_refused", "a", 1, "serial_ahead: 1")
        ]
    assert only(subject.run(1.0), HangUp) == []
    assert subject.engine.routing.record("b").serial == before
    assert subject.engine.routing.record("a").serial == 9


def test_a_serial_that_is_just_not_too_far_ahead_is_outbid_and_neighbours_take_that_a_moment_later(subject_of):
    forged = wire.encode(record("b", EPOCH_MS + MAX_LEAD_MS))
    ours, theirs = subject_of("b"), subject_of("a")
    ours.join(1, "a")
    theirs.join(1, "b", incarnation=2)
    for each in (ours, theirs):
        each.run(0.1)
        each.receive(1, *frames_of(forged))
    raised = [blob for _, blobs in ours.engine.routing._records.flush(1.0) for blob in blobs]
    assert theirs.engine.routing.record("b").incarnation == 9
    theirs.receive(1, *frames_of(*raised))
    assert theirs.engine.routing.record("b") == ours.engine.routing.record("b")
    assert ours.engine.routing.record("b").serial == EPOCH_MS + MAX_LEAD_MS + 1


@pytest.mark.parametrize("years", [-56, 30, 200])
def test_a_node_whose_clock_is_wrong_by_years_is_known_as_any_other(subject_of, years):
    """It starts to count where its clock is, and hears others whose clocks are right."""
    now = 56 * 365 * 86400.0
    right, wrong = subject_of("a"), subject_of("b")
    right.engine._epoch, wrong.engine._epoch = now, now + years * 365 * 86400
    serial = int(wrong.engine._epoch * 1000)
    right.join(1, "b", route=False)
    right.advertise(1, Entry("b", 1, serial, 0, 0))
    right.receive(1, *frames_of(wire.encode(record("b", serial))))
    assert right.engine.routing.route("b") is not None
    assert right.engine.routing.record("b").serial == serial
    serial = int(now * 1000)
    wrong.join(1, "a", route=False)
    wrong.advertise(1, Entry("a", 1, serial, 0, 0))
    wrong.receive(1, *frames_of(wire.encode(record("a", serial))))
    assert wrong.engine.routing.route("a") is not None
    assert wrong.engine.routing.record("a").serial == serial


# --- how much is kept ---------------------------------------------------------------------------------------------


def test_what_finds_no_room_is_reported_once_a_frame_with_its_number(subject_of):
    subject = subject_of(limits=Limits(destinations=10, nodes=5))
    subject.join(1, "a")
    effects = subject.advertise(1, *(Entry(f"n{number}", 9, 1, 50, 1) for number in range(30)))
    assert [(report.event, report.detail, report.count) for report in only(effects, Report)][-1] == (
        "route_refused", "destinations: 21", 21,
    )  # fmt: skip
    effects = subject.receive(1, *frames_of(*(wire.encode(record(f"n{number}")) for number in range(9))))
    assert "record_refused" in events(effects)
    assert len(subject.engine.nodes()) == 11
    assert subject.engine.routing.counts()["records"] == 6


def test_no_more_contested_names_are_remembered_than_the_limit(subject_of):
    subject = subject_of(limits=Limits(contested_names=3))
    subject.join(1, "a")
    for number in range(10):
        for serial, incarnation in ((1, 1), (2, 2)):
            subject.receive(1, *frames_of(wire.encode(record(f"n{number}", serial, incarnation))))
    assert subject.engine.routing.counts()["contested_ids"] == 3


# --- how much is spent --------------------------------------------------------------------------------------------


def probe(subject):
    return subject.hear(1, Kind.PROBE, wire.Probe(0.0, 0, subject.engine.routing.digest, 0.0))


FLOODS = {
    "probes": probe,
    "route_entries": lambda subject: subject.advertise(1, Entry("z", 9, 1, 50, 1)),
    "record_updates": lambda subject: subject.receive(1, *frames_of(wire.encode(record()))),
    "seqno_requests": lambda subject: subject.hear(1, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("b", 0, 0, 9)]),
    "resent_rows": lambda subject: subject.hear(1, Kind.RESEND, wire.Resend(True, True)),
    "greetings": lambda subject: subject.greet(1),
}


@pytest.mark.parametrize("limit", FLOODS)
def test_a_flood_is_heard_up_to_its_limit_and_the_link_stays_up(subject_of, limit):
    subject = subject_of(limits=Limits(**{limit: FEW}))
    subject.join(1, "a")
    for _ in range(100):
        subject.run(0.001)
        effects = FLOODS[limit](subject)
    assert len(dropped(effects, f"rate_limited: {limit}")) == 1
    assert only(effects, *Kind) == []
    assert only(effects, HangUp) == []
    assert subject.engine.neighbours.get(1).strikes == 0
    subject.run(1.5)
    for _ in range(2):  # there is something to spend again
        effects = FLOODS[limit](subject)
        if not dropped(effects, "rate_limited"):
            break
        subject.run(5.0)
        subject.keep_alive(1)
    else:
        subject.now += 200.0
        assert dropped(FLOODS[limit](subject), "rate_limited") == []


def test_frames_before_the_greeting_are_answered_so_often(subject_of):
    subject = subject_of(limits=Limits(greetings=FEW))
    subject.link_up(1)
    asked = [only(subject.hear(1, Kind.UPDATE, (0,)), Kind.ASK) for _ in range(100)]
    assert [ask for ask in asked if ask] == [[Said(1, Kind.ASK, None)]] * 5


def test_asking_for_all_tables_is_answered_by_what_they_weigh(subject_of):
    """Sixty bytes ask for everything that a node knows."""
    subject = subject_of(limits=Limits(resent_rows=Rate(100, 1000)))
    subject.join(1, "a")
    subject.advertise(1, *(Entry(f"n{number}", 9, 1, 50, 1) for number in range(299)))
    subject.join(2, "c")
    subject.run(0.1)
    sent = 0
    for _ in range(200):
        subject.run(0.05)
        effects = subject.hear(2, Kind.RESEND, wire.Resend(True, False)) + subject.run(0.0)
        sent += sum(len(effect.value.entries) for effect in only(effects, Kind.UPDATE) if effect.link == 2)
        subject.keep_alive(1, 2)
    assert 1000 <= sent <= 1000 + 100 * 10 + 2 * 301


def test_questions_count_as_often_as_they_are_passed_on(subject_of):
    subject = subject_of(limits=Limits(seqno_requests=Rate(1, 60)))
    for link in range(1, 12):
        subject.join(link, f"n{link}")
        subject.advertise(link, Entry("z", 9, 1, 50 * link, 1))
    passed_on = 0
    for number in range(200):
        effects = subject.hear(1, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("z", 1, 1 + number % 7, 9)])
        passed_on += len(only(effects, Kind.SEQNO_REQUEST))
        subject.now += 0.001
    assert passed_on <= 70


def test_links_that_come_all_at_once_are_admitted_in_the_course_of_time(subject_of):
    """Each gets all routes and all records; a neighbour that is not admitted sends HELLO again."""
    subject = subject_of(limits=Limits(admissions=Rate(2, 3)))
    for link in range(1, 8):
        subject.link_up(link)
    for _ in range(10):
        for link in range(1, 8):
            if subject.engine.neighbours.get(link) is not None:
                subject.greet(link, f"n{link}")
        assert len(subject.engine.links()) <= 3 + 2 * subject.now + 1
        subject.run(1.0)
        subject.keep_alive(*(link.id for link in subject.engine.links()))
    assert len(subject.engine.links()) == 7


def test_notes_about_what_cannot_be_passed_on_are_bounded_and_all_that_is_dropped_is_counted(subject_of):
    subject = subject_of(limits=Limits(error_frames=FEW))
    subject.join(1, "a")
    notes = reports = 0
    for number in range(50):
        effects = subject.receive(1, *sealed(Kind.CHUNK, f"nobody{number}", "a", wire.encode(chunk())))
        notes += len(only(effects, Kind.UNREACHABLE))
        reports += len(dropped(effects, "no_route"))
    assert (notes, reports) == (5, 50)


# --- drops are reported ---------------------------------------------------------------------------------------------


def test_more_neighbours_than_a_record_holds_are_reported(subject, monkeypatch):
    monkeypatch.setattr("zmesh.core.routing.records.MAX_NEIGHBOURS", 2)
    reports = []
    for link in range(1, 6):
        reports += [report.detail for report in only(subject.join(link, f"n{link}"), Report)
                    if report.event == "record_cut"]  # fmt: skip
    assert reports == [f"{count} neighbours are there, and the mesh hears of 2" for count in (3, 4, 5)]


# --- limits that change ---------------------------------------------------------------------------------------------


def test_other_limits_apply_to_the_exchanges_that_are_opened_from_then_on(linked):
    linked.arrive(1, Kind.CHUNK, chunk())
    assert linked.engine.delivery.counts()["requests_received"] == 1
    linked.engine.set_limits(Limits(services=1), 5.0)
    (refused,) = only(
        linked.arrive(1, Kind.CHUNK, chunk(number=1)._replace(message_id=bytes(15) + b"\x02")), Kind.CHUNK
    )
    assert refused.value.eof.reason == "overloaded"
    assert "services is 1" in refused.value.eof.error
    assert linked.engine.delivery.counts()["requests_received"] == 1


def test_another_route_timeout_applies_to_the_requests_that_are_sent_from_then_on(subject):
    subject.engine.set_limits(None, 5.0)
    subject.send("x")
    (final,) = only(subject.run(6.0), Deliver)
    assert final.eof.reason == "unreachable"
    assert "after 5 s" in final.eof.error
