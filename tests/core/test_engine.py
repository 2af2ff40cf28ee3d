import random
import re
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from zmesh.core import wire
from zmesh.core.effects import Abort, Deliver, HangUp, Report, Transmit
from zmesh.core.engine import RECONCILE_AFTER, REDIAL_REFUSED, Engine
from zmesh.core.forwarding import DRAIN, LAGGING_BYTES
from zmesh.core.links import DOUBT, DOUBT_COST, MAX_STRIKES, OPENING, SILENCE, State
from zmesh.core.message import Eof, ReplyHeader, RequestHeader, Stream
from zmesh.core.peers import ACK_DELAY, POKE_LIMIT
from zmesh.core.queues import BULK
from zmesh.core.records import COALESCE as RECORDS_GATHERED
from zmesh.core.records import KEEP_GONE
from zmesh.core.routes import COALESCE
from zmesh.core.streams import CHUNK_OVERHEAD, WINDOW
from zmesh.core.wire import (
    FLAG_EOF,
    FLAG_FIRST,
    FLAG_LAST,
    FULL_BEGIN,
    FULL_END,
    INFINITY,
    MAX_BODY,
    MAX_ENTRIES,
    MAX_HEAD,
    Entry,
    Kind,
)
from zmesh.testing.simulator import Simulator

HEADER = RequestHeader("echo:echo", 1.0, None)
ANSWER = ReplyHeader(2.0, 1)
ID = bytes(15) + b"\x01"
REQUEST, REPLIES = Stream(ID, True), Stream(ID, False)
EVENTS = set(re.findall(r"`(\w+)`", (Report.__doc__ or "").partition("With")[0])) - {"event"}


class Said(NamedTuple):
    """A frame that stays on its link, with its head read."""

    link: int
    kind: Kind
    value: object


class Routed(NamedTuple):
    """A frame that travels, with its head read."""

    link: int
    kind: Kind
    to: str
    of: str
    value: object
    body: bytes


def sealed(kind, to, of, head, body=b"", ttl=wire.MAX_TTL):
    """A frame as it comes in after some hops."""
    return (wire.encode_route(kind, to, of, ttl), *wire.seal(kind, to, of, head, body)[1:])


class Subject:
    """An engine under test, checked after every stimulus; the test plays its neighbours.

    It is node `b` in its incarnation 2; its own neighbours have 1.
    """

    def __init__(self, node="b", readers=None, **options):
        self.engine = Engine(node, 2, now=0.0, epoch=1000.0, serial=100, **options)
        self.readers = readers
        self.now = 0.0
        self.done([])

    def done(self, effects):
        """The effects as they can be compared."""
        self.engine.check()
        tables = (self.engine.links, self.engine.routes, self.engine.records, self.engine.exchanges)
        soonest = min((when for table in tables if (when := table.next_deadline()) is not None), default=None)
        assert soonest is None or self.engine.next_deadline() <= soonest
        return [self.read(effect) for effect in effects]

    def read(self, effect):
        if isinstance(effect, Report):
            assert effect.event in EVENTS
        if not isinstance(effect, Transmit):
            return effect
        first, head, body = effect.frames
        route = wire.decode_route(first)
        value = self.readers[route.kind](wire.unseal(route, head, body))
        if route.kind >= wire.FIRST_ROUTED:
            return Routed(effect.link, Kind(route.kind), route.destination, route.source, value, body)
        assert body == b""
        return Said(effect.link, Kind(route.kind), value)

    # -- stimuli --

    def link_up(self, link=1, *, dialled=False, cost=100):
        return self.done(self.engine.link_up(link, self.now, dialled=dialled, cost=cost))

    def link_down(self, link=1, reason="closed"):
        return self.done(self.engine.link_down(link, self.now, reason))

    def receive(self, link, *frames):
        return self.done(self.engine.receive(link, frames, self.now))

    def hear(self, link, kind, value=()):
        """A neighbour says something on its link."""
        return self.receive(link, *wire.encode_link(kind, value))

    def arrive(self, link, kind, value, body=b"", *, to="b", of="a", ttl=255):
        """A frame that travels comes in."""
        return self.receive(link, *sealed(kind, to, of, wire.encode(value), body, ttl))

    def send(self, to="a", body=b"", id=ID, **options):
        return self.done(self.engine.send(id, to, HEADER, body, self.now, **options))

    def reply(self, body=b"", header=ANSWER, id=ID, **options):
        return self.done(self.engine.reply(id, header, body, self.now, **options))

    def tick(self):
        effects = self.done(self.engine.tick(self.now))
        deadline = self.engine.next_deadline()
        assert deadline is None or deadline > self.now
        return effects

    def run(self, seconds):
        """Tick whenever it is due; all effects."""
        until = self.now + seconds
        effects = []
        while (due := self.engine.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            effects += self.tick()
        self.now = until
        return effects

    # -- what neighbours do --

    def greet(self, link=1, node="a", incarnation=1, *, leaf=False, session=9, answers=None):
        """The other end says HELLO."""
        if answers is None:
            known = self.engine.links.get(link)
            answers = link if known is not None and known.dialled else 0
        return self.hear(link, Kind.HELLO, wire.Hello(node, incarnation, 0.0, leaf, session, answers))

    def join(self, link=1, node="a", incarnation=1, *, dialled=False, leaf=False, cost=100, route=True):
        """A neighbour's link comes up, and it tells the route to itself."""
        effects = self.link_up(link, dialled=dialled, cost=cost)
        effects += self.greet(link, node, incarnation, leaf=leaf)
        if route and not (leaf or self.engine.leaf):
            effects += self.tell(link, Entry(node, incarnation, 1, 0, 0))
        return effects

    def tell(self, link, *entries, full=0):
        """A neighbour tells routes."""
        return self.receive(link, *wire.encode_update(wire.Update(full, 1, [*entries])))

    def keep_alive(self, *links):
        for link in links:
            self.hear(link, Kind.ECHO, wire.Echo(self.now + 1))


@pytest.fixture(scope="session")
def subject_of(readers):
    """Make an engine under test."""
    return lambda node="b", **options: Subject(node, readers, **options)


@pytest.fixture
def subject(subject_of):
    """Node `b`, without any link."""
    return subject_of()


@pytest.fixture
def linked(subject):
    """Node `b` with its neighbour `a` on link 1; all has been told."""
    subject.join()
    subject.run(0.1)
    subject.keep_alive(1)
    return subject


def only(effects, *kinds):
    """The frames of these kinds, or the effects of these classes."""
    return [effect for effect in effects if getattr(effect, "kind", type(effect)) in kinds]


def events(effects):
    return [effect.event for effect in only(effects, Report)]


def chunk(sequence=0, flags=FLAG_FIRST | FLAG_LAST, *, request=True, incarnation=1, target=2, number=0, eof=None):
    header = (HEADER if request else ANSWER) if flags & FLAG_FIRST else None
    eof = eof or (Eof() if flags & FLAG_EOF else None)
    return wire.Chunk(message_id=ID, request=request, sequence=sequence, flags=flags, number=number, floor=0,
                      incarnation=incarnation, target=target, age=0, header=header, eof=eof)  # fmt: skip


# --- how a link opens ---------------------------------------------------------------------------------------------


def test_who_dials_greets_and_who_listens_waits(subject):
    assert subject.link_up(1, dialled=True) == [
        Said(1, Kind.HELLO, wire.Hello("b", 2, 1000.0, False, 1, 0)),
    ]
    assert subject.link_up(2, dialled=False) == []


def test_a_connection_is_entered_once(subject):
    subject.link_up(1, dialled=True)
    assert subject.link_up(1, dialled=True) == []


def test_a_greeting_is_answered_and_the_link_is_up(subject):
    subject.link_up(1)
    subject.now = 0.5
    effects = subject.greet(1, "a", session=9)
    own = wire.Record("b", 2, 101, (), (("a", 100),), b"")
    assert effects == [
        Said(1, Kind.HELLO, wire.Hello("b", 2, 1000.5, False, 1, 9)),
        Report("link_up", "a", 1),
        Said(1, Kind.UPDATE, wire.Update(FULL_BEGIN | FULL_END, 1, [Entry("b", 2, 100, 0, 0)])),
        Said(1, Kind.RECORD, [own]),
        Said(1, Kind.PROBE, wire.Probe(0.5, subject.engine.routes.sent(1), subject.engine.records.digest, 0.5)),
    ]


def test_an_answer_to_ones_own_greeting_opens_the_link_without_another(subject):
    subject.link_up(1, dialled=True)
    effects = subject.greet(1, "a", answers=1)
    assert [effect.kind for effect in effects if isinstance(effect, Said)] == [Kind.UPDATE, Kind.RECORD, Kind.PROBE]
    assert events(effects) == ["link_up"]


def test_an_answer_to_an_earlier_greeting_is_not_taken(subject):
    subject.link_up(7, dialled=True)
    assert subject.greet(7, "a", answers=6) == []
    assert subject.engine.links.get(7).state is State.OPENING


def test_a_link_that_is_up_is_not_opened_again(linked):
    assert linked.greet(1, "z") == []
    assert linked.engine.links.get(1).node == "a"


def test_a_dialler_that_greets_again_has_not_heard_the_answer_and_gets_another(linked):
    assert linked.greet(1, "a") == [Said(1, Kind.HELLO, wire.Hello("b", 2, 1000.1, False, 1, 9))]
    linked.join(2, "c", dialled=True)
    assert linked.greet(2, "c", answers=2) == []


def test_a_dialler_greets_every_heartbeat_until_it_is_answered_or_held(subject):
    subject.link_up(1, dialled=True)
    assert [effect.kind for effect in subject.run(2.5)] == [Kind.HELLO, Kind.HELLO]
    subject.join(2, "a", incarnation=5)
    subject.greet(1, "a", incarnation=6, answers=1)
    assert subject.engine.links.get(1).state is State.HELD
    assert [effect for effect in only(subject.run(2.5), Kind.HELLO) if effect.link == 1] == []


@pytest.mark.parametrize("kind", [Kind.PROBE, Kind.ECHO, Kind.UPDATE, Kind.RECORD, Kind.GOODBYE, Kind.RESEND])
def test_a_listener_that_hears_anything_but_a_greeting_asks_who_that_is(subject, kind):
    subject.link_up(1)
    assert subject.hear(1, kind) == [Said(1, Kind.ASK, None)]
    subject.link_up(2, dialled=True)
    assert subject.hear(2, kind) == []


def test_a_listener_that_gets_a_strangers_message_drops_it_and_asks_who_that_is(subject):
    subject.link_up(1)
    subject.link_up(2, dialled=True)
    assert subject.arrive(1, Kind.CHUNK, chunk()) == [
        Said(1, Kind.ASK, None),
        Report("frame_dropped", None, 1, "not_greeted"),
    ]
    assert subject.arrive(2, Kind.CHUNK, chunk()) == [Report("frame_dropped", None, 2, "not_greeted")]


def test_who_is_asked_greets_again(subject):
    effects = subject.link_up(1, dialled=True)
    assert subject.hear(1, Kind.ASK) == effects


def test_who_is_asked_on_a_link_that_is_up_opens_a_new_one(subject):
    subject.join(1, dialled=True)
    effects = subject.hear(1, Kind.ASK)
    assert HangUp(1, "the other end knows us no more", 0.0) in effects
    assert Report("link_lost", "a", 1, "the other end knows us no more") in effects


def test_a_listener_is_not_asked(linked):
    assert linked.hear(1, Kind.ASK) == []


def test_what_comes_on_an_unknown_link_is_not_heard(subject):
    assert subject.hear(99, Kind.ASK) == []
    assert subject.receive(99, b"garbage") == []


# --- who is refused -----------------------------------------------------------------------------------------------


def refused(link, reason, text, *reports):
    """What happens when a link is refused."""
    return [
        Said(link, Kind.REFUSE, wire.Refuse(reason, text)),
        *[Report(event, node, link, f"we refuse: {text}") for event, node in reports],
        HangUp(link, text, REDIAL_REFUSED),
    ]


@pytest.mark.parametrize(("incarnation", "whose"), [(1, "another node"), (2, "this node itself")])
def test_a_node_of_this_nodes_name_is_refused(subject, incarnation, whose):
    subject.link_up(1)
    text = f"the id 'b' is taken by the node at this end ({whose})"
    assert subject.greet(1, "b", incarnation) == refused(
        1, "own_id", text, ("link_refused", None), ("duplicate_id", "b")
    )
    assert len(subject.engine.links) == 0


def test_two_leaves_are_of_no_use_to_each_other(subject_of):
    subject = subject_of(leaf=True)
    subject.link_up(1)
    text = "both ends are ephemeral, and neither forwards"
    assert subject.greet(1, "a", leaf=True) == refused(1, "leaf", text, ("link_refused", None))


def test_a_foreign_version_is_refused(subject):
    subject.link_up(1)
    route = wire.encode((wire.VERSION + 1, int(Kind.HELLO), 255, "", ""))
    text = "protocol version 2 is not 1, which we speak"
    assert subject.receive(1, route, b"whatever that version says", b"") == refused(
        1, "version", text, ("link_refused", None)
    )


def test_a_refusal_is_reported_at_the_refused_end_and_redialled_after_a_pause(subject):
    subject.link_up(1, dialled=True)
    assert subject.hear(1, Kind.REFUSE, wire.Refuse("own_id", "taken")) == [
        Report("link_refused", None, 1, "they refuse: taken"),
        Report("duplicate_id", "b", 1, "they refuse: taken"),
        HangUp(1, "taken", REDIAL_REFUSED),
    ]
    assert len(subject.engine.links) == 0


def test_a_link_that_was_up_may_be_refused(linked):
    effects = linked.hear(1, Kind.REFUSE, wire.Refuse("version", "too old"))
    assert events(effects) == ["link_refused", "link_lost", "node_left"]


# --- two nodes of one name ----------------------------------------------------------------------------------------


def test_another_incarnation_of_a_live_neighbour_is_held_and_the_old_one_is_probed(linked):
    linked.link_up(2)
    effects = linked.greet(2, "a", incarnation=7)
    assert effects[0] == Report("link_held", "a", 2, "another incarnation of it may still be alive")
    assert [(effect.link, effect.kind) for effect in effects[1:]] == [(1, Kind.PROBE)]
    assert linked.greet(2, "a", incarnation=7) == []
    assert linked.arrive(2, Kind.CHUNK, chunk()) == [Report("frame_dropped", None, 2, "not_greeted")]
    assert linked.hear(2, Kind.PROBE, wire.Probe(0.0, 0, 0, 0.0)) == []


def test_the_second_of_one_name_is_refused_when_the_first_proves_alive(linked):
    linked.link_up(2)
    linked.greet(2, "a", incarnation=7)
    effects = []
    for _ in range(9):
        effects += linked.run(0.5)
        linked.keep_alive(1)
    text = "another node called 'a' is alive in the mesh"
    assert [effect for effect in effects if effect in refused(2, "duplicate_id", text)] == refused(
        2, "duplicate_id", text
    )
    assert Report("duplicate_id", "a", 2, f"we refuse: {text}") in effects
    assert [link.id for link in linked.engine.links.to("a")] == [1]


def test_a_restarted_neighbour_replaces_its_old_self_when_that_is_silent(linked):
    linked.link_up(2)
    linked.greet(2, "a", incarnation=7)
    effects = linked.run(SILENCE + 0.5)
    reports = [(report.event, report.link) for report in only(effects, Report)]
    assert reports.index(("link_lost", 1)) < reports.index(("link_up", 2))
    assert [link.incarnation for link in linked.engine.links.to("a")] == [7]


def test_a_restarted_neighbour_replaces_its_old_self_when_that_link_is_gone(linked):
    linked.link_up(2)
    linked.greet(2, "a", incarnation=7)
    effects = linked.link_down(1)
    assert events(effects) == ["link_lost", "node_left", "link_up"]
    assert only(effects, Kind.HELLO) == [Said(2, Kind.HELLO, wire.Hello("b", 2, 1000.1, False, 2, 9))]


def test_a_node_that_is_alive_elsewhere_in_the_mesh_is_held_until_its_route_is_gone(linked):
    linked.tell(1, Entry("c", 5, 1, 10, 1))
    linked.link_up(2)
    assert events(linked.greet(2, "c", incarnation=6)) == ["link_held"]
    effects = linked.tell(1, Entry("c", 0, 0, INFINITY, 0))
    assert events(effects) == ["node_left", "link_up"]


def test_a_node_that_stays_alive_elsewhere_in_the_mesh_is_refused(linked):
    linked.tell(1, Entry("c", 5, 1, 10, 1))
    linked.link_up(2)
    linked.greet(2, "c", incarnation=6)
    effects = []
    for _ in range(9):
        effects += linked.run(0.5)
        linked.keep_alive(1)
    assert "duplicate_id" in events(effects)
    assert linked.engine.links.get(2) is None


def test_of_two_held_links_one_comes_up_and_the_other_stays_held(linked):
    for link, incarnation in ((2, 7), (3, 8)):
        linked.link_up(link)
        linked.greet(link, "a", incarnation)
    effects = linked.link_down(1)
    assert [report.link for report in only(effects, Report) if report.event == "link_up"] == [2]
    assert [link.id for link in linked.engine.links.held()] == [3]


def test_a_tick_that_comes_late_does_not_hang_up_on_the_new_link_with_the_old(linked):
    linked.link_up(2)
    linked.greet(2, "a", incarnation=7)
    linked.now += 10.0
    effects = linked.tick()
    assert [effect.link for effect in only(effects, HangUp)] == [1]
    assert [link.id for link in linked.engine.links.to("a")] == [2]


def test_a_neighbour_can_not_be_a_leaf_and_a_node_at_once(linked):
    linked.link_up(2)
    assert events(linked.greet(2, "a", incarnation=1, leaf=True)) == ["link_held"]


def test_a_leaf_may_have_the_name_of_a_node_elsewhere_in_the_mesh(linked):
    linked.tell(1, Entry("c", 5, 1, 10, 1))
    assert events(linked.join(2, "c", incarnation=6, leaf=True)) == ["link_up"]


# --- how a link ends ----------------------------------------------------------------------------------------------


def test_a_neighbour_that_leaves_is_gone_at_once(linked):
    linked.tell(1, Entry("c", 5, 1, 10, 1))
    effects = linked.hear(1, Kind.GOODBYE, wire.Goodbye("leaving"))
    assert effects[:2] == [HangUp(1, "leaving", 0.0), Report("link_lost", "a", 1, "they left: leaving")]
    assert {report.node for report in only(effects, Report) if report.event == "node_left"} == {"a", "c"}
    assert linked.engine.nodes() == {"b"}


def test_a_link_that_the_transport_knows_to_be_down_is_lost(linked):
    assert linked.link_down(1, "reset by peer")[0] == Report("link_lost", "a", 1, "reset by peer")
    assert linked.link_down(1, "reset by peer") == []


def test_a_connection_that_never_opened_is_lost_without_a_word(subject):
    subject.link_up(1)
    assert subject.link_down(1) == []
    assert len(subject.engine.links) == 0


def test_a_silent_neighbour_is_hung_up_on(linked):
    effects = linked.run(SILENCE + 0.1)
    assert HangUp(1, "silent", 0.0) in effects
    assert Report("link_lost", "a", 1, "silent for 3 s") in effects


def test_routes_leave_a_link_that_is_silent_for_two_heartbeats_and_return_when_it_is_heard(linked):
    linked.join(2, "c")
    linked.tell(2, Entry("a", 1, 1, 50, 1))
    route = linked.engine.routes.get
    assert (route("a").link, route("a").metric) == (1, 100)
    silent_since = linked.now
    while linked.now < silent_since + DOUBT - 0.1:
        linked.run(0.1)
        linked.keep_alive(2)
    assert route("a").link == 1
    assert Report("link_doubted", "a", 1, "silent for 2 s") in linked.run(0.2)
    assert (route("a").link, route("a").metric) == (2, 150)
    linked.keep_alive(1)
    assert (route("a").link, route("a").metric) == (1, 100)
    linked.keep_alive(1)  # what was trusted already is not trusted anew
    assert "link_lost" not in events(linked.run(DOUBT - 0.1))


def test_a_link_that_is_doubted_and_the_only_way_is_used_all_the_same(linked):
    linked.run(DOUBT + 0.1)
    assert linked.engine.routes.get("a").metric == 100 + DOUBT_COST
    assert only(linked.send(), Kind.CHUNK) != []


def test_the_last_word_on_a_doubted_link_may_be_a_goodbye(linked):
    linked.run(DOUBT + 0.1)
    assert "link_lost" in events(linked.hear(1, Kind.GOODBYE, wire.Goodbye("leaving")))


def test_a_connection_without_a_greeting_is_hung_up_on(subject):
    subject.link_up(1)
    assert subject.run(OPENING) == [HangUp(1, "no greeting", 0.0)]
    assert subject.engine.next_deadline() is None


def test_a_neighbour_that_may_have_lost_its_number_is_asked_for_a_newer_one_with_the_greeting(linked):
    ask = Said(2, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("a", 2, 1)])
    linked.link_down(1)
    effects = linked.join(2, "a", incarnation=8)
    assert [effect.kind for effect in only(effects, *Kind)][:2] == [Kind.HELLO, Kind.SEQNO_REQUEST]
    assert ask in effects
    linked.tell(2, Entry("a", 8, 2, 0, 0))
    assert linked.engine.routes.get("a").incarnation == 8
    assert only(linked.join(3, "new"), Kind.SEQNO_REQUEST) == []


def test_a_neighbour_whose_life_is_known_is_not_asked(linked):
    assert only(linked.join(2, "a", route=False), Kind.SEQNO_REQUEST) == []  # by its route
    linked.link_down(2)
    linked.receive(1, *wire.encode_records([wire.encode(wire.Record("a", 1, 5, (), (), b""))]))
    linked.link_down(1)
    assert only(linked.join(3, "a"), Kind.SEQNO_REQUEST) == []  # by its record


def test_of_two_links_to_one_neighbour_one_stands_by(subject):
    subject.join(1)
    subject.join(2)
    assert events(subject.link_down(1)) == ["link_lost", "route_changed"]
    assert subject.engine.nodes() == {"a", "b"}


def test_a_node_that_closes_says_goodbye_on_every_link(subject):
    subject.join(1, "a")
    subject.join(2, "c", leaf=True)
    subject.link_up(3)
    effects = subject.done(subject.engine.close(subject.now, "done"))
    assert effects == [Said(link, Kind.GOODBYE, wire.Goodbye("done")) for link in (1, 2)]
    assert subject.link_up(4, dialled=True) == []
    assert subject.engine.links.get(4) is None


def test_a_node_that_closes_acknowledges_what_has_come_first(linked):
    linked.send("a")
    linked.arrive(1, Kind.CHUNK, chunk(request=False, flags=wire.FLAG_EOF))
    ack, goodbye = linked.done(linked.engine.close(linked.now))
    assert (ack.kind, ack.to, goodbye.kind) == (Kind.ACK, "a", Kind.GOODBYE)
    assert ack.value.acks == (wire.AckItem(ID, False, 1, WINDOW),)


# --- garbage ------------------------------------------------------------------------------------------------------

ROUTE, PROBE, _ = wire.encode_link(Kind.PROBE, wire.Probe(0.0, 0, 0, 0.0))
LARGEST = wire.seal(Kind.PROBE, "", "", wire.encode(wire.Probe(0.0, 0, 0, 0.0)), bytes(MAX_BODY))


def test_three_bad_frames_in_a_row_hang_up_the_link(linked):
    first = linked.receive(1, b"x", b"y", b"z")
    assert [(effect.event, effect.node, effect.link) for effect in first] == [("frame_dropped", "a", 1)]
    assert first[0].detail.startswith("garbage: ")
    linked.receive(1, b"x", b"y", b"z")
    effects = linked.receive(1, b"x", b"y", b"z")
    assert effects[1] == HangUp(1, "3 bad frames in a row", REDIAL_REFUSED)
    assert events(effects) == ["frame_dropped", "link_lost", "node_left"]


def test_a_good_frame_in_between_lets_bygones_be_bygones(linked):
    for _ in range(3):
        for _ in range(MAX_STRIKES - 1):
            linked.receive(1, b"x", b"y", b"z")
        linked.receive(1, ROUTE, PROBE, b"")
    assert linked.engine.links.get(1) is not None


def test_a_stranger_that_sends_garbage_is_hung_up_on_too(subject):
    subject.link_up(1)
    effects = [effect for _ in range(MAX_STRIKES) for effect in subject.receive(1, b"GET / HTTP/1.1")]
    assert [effect.event for effect in effects[:3]] == ["frame_dropped"] * 3
    assert (effects[0].node, effects[3:]) == (None, [HangUp(1, "3 bad frames in a row", REDIAL_REFUSED)])


@pytest.mark.parametrize(
    ("frames", "good"),
    [
        ((ROUTE, PROBE, b""), True),
        ((ROUTE, PROBE), False),
        ((ROUTE, PROBE, b"", b""), False),
        ((), False),
        (LARGEST, True),
        ((ROUTE, PROBE, bytes(MAX_BODY + 1)), False),
        ((wire.encode_route(Kind.CHUNK, "a", "c"), bytes(MAX_HEAD), b""), True),
        ((wire.encode_route(Kind.CHUNK, "a", "c"), bytes(MAX_HEAD + 1), b""), False),
    ],
    ids=["good", "two parts", "four parts", "no part", "MAX_BODY", "MAX_BODY + 1", "MAX_HEAD", "MAX_HEAD + 1"],
)
def test_a_frame_has_three_parts_and_none_too_long(linked, frames, good):
    effects = only(linked.engine.receive(1, frames, linked.now), Report)
    assert any("garbage" in report.detail for report in effects) is not good


def test_a_neighbour_is_not_hung_up_on_for_what_it_only_passed_on(linked):
    for _ in range(2 * MAX_STRIKES):
        linked.receive(1, wire.encode_route(Kind.CHUNK, "b", "far"), b"garbage", b"")
    assert linked.engine.links.get(1) is not None


def test_a_frame_that_was_spoilt_on_the_way_is_counted_and_dropped_and_nobody_is_blamed(linked):
    route, head, body = sealed(Kind.CHUNK, "b", "a", wire.encode(chunk()), b"payload")
    for spoilt in ((route, head, b"paxload"), (route, head[:-1] + bytes((head[-1] ^ 1,)), body)):
        for _ in range(MAX_STRIKES):
            effects = linked.receive(1, *spoilt)
            assert effects == [Report("frame_dropped", "a", None, "checksum: its checksum does not fit")]
    assert only(linked.receive(1, route, head, body), Deliver)


def test_a_frame_for_another_node_that_was_turned_to_this_one_is_not_taken(linked):
    _, head, body = sealed(Kind.CHUNK, "c", "a", wire.encode(chunk()), b"payload")
    assert only(linked.receive(1, wire.encode_route(Kind.CHUNK, "b", "a"), head, body), Deliver) == []
    assert only(linked.receive(1, wire.encode_route(Kind.CHUNK, "c", "a"), head, body), Deliver) == []


def test_what_a_neighbour_says_counts_as_bad_if_it_was_spoilt(linked):
    route, head, body = wire.encode_update(wire.Update(0, 1, [Entry("far", 1, 1, 100, 1)]))
    spoilt = bytearray(head)
    spoilt[-1] ^= 1
    effects = linked.receive(1, route, bytes(spoilt), body)
    assert effects == [Report("frame_dropped", "a", 1, "checksum: its checksum does not fit")]
    assert linked.engine.links.get(1).strikes == 1
    assert "far" not in linked.engine.routes.table()


# --- what neighbours tell -----------------------------------------------------------------------------------------


def test_a_probe_is_echoed_and_the_first_one_tells_that_the_link_is_in_step(linked):
    routes, records = linked.engine.routes.received(1), linked.engine.records.digest
    probe = wire.Probe(5.5, routes, records, 1.0)
    assert linked.hear(1, Kind.PROBE, probe) == [
        Said(1, Kind.ECHO, wire.Echo(5.5)),
        Report("link_synced", "a", 1),
    ]
    assert linked.hear(1, Kind.PROBE, probe) == [Said(1, Kind.ECHO, wire.Echo(5.5))]


def test_routes_that_differ_are_asked_for_at_once_and_records_a_little_later(linked):
    routes, records = linked.engine.routes.received(1), linked.engine.records.digest
    linked.hear(1, Kind.PROBE, wire.Probe(0.0, routes, records, 0.0))
    ask = [Said(1, Kind.ECHO, wire.Echo(0.0)), Said(1, Kind.RESEND, wire.Resend(True, False))]
    assert linked.hear(1, Kind.PROBE, wire.Probe(0.0, routes ^ 1, records, 0.0)) == ask
    differ = wire.Probe(0.0, routes, records ^ 1, 0.0)
    for _ in range(2):
        for _ in range(RECONCILE_AFTER - 1):
            assert only(linked.hear(1, Kind.PROBE, differ), Kind.RESEND) == []
        assert only(linked.hear(1, Kind.PROBE, differ), Kind.RESEND) == [Said(1, Kind.RESEND, wire.Resend(False, True))]
    linked.hear(1, Kind.PROBE, differ)
    linked.hear(1, Kind.PROBE, wire.Probe(0.0, routes, records, 0.0))
    assert only(linked.hear(1, Kind.PROBE, differ), Kind.RESEND) == []


@pytest.mark.parametrize(("routes", "records"), [(True, False), (False, True), (True, True), (False, False)])
def test_a_neighbour_that_asks_is_told_its_tables_again(linked, routes, records):
    number = linked.engine.routes.sent(1) + 1
    effects = linked.hear(1, Kind.RESEND, wire.Resend(routes, records)) + linked.run(0.0)
    table = [Entry("b", 2, 100, 0, 0), Entry("a", 1, 1, 100, 1)]
    assert only(effects, Kind.UPDATE) == [
        Said(1, Kind.UPDATE, wire.Update(FULL_BEGIN | FULL_END, number, table))
    ] * routes  # fmt: skip
    assert [effect.value[0].node for effect in only(effects, Kind.RECORD)] == ["b"] * records


def test_an_echo_measures_the_link_and_a_slow_one_costs_more(subject):
    subject.join(1)
    subject.run(0.05)
    subject.now = 0.5
    effects = subject.hear(1, Kind.ECHO, wire.Echo(0.3))
    assert events(effects) == []
    assert subject.engine.links.get(1).cost == 250
    assert subject.engine.routes.get("a").metric == 250
    (record,) = only(subject.run(RECORDS_GATHERED), Kind.RECORD)
    assert record.value[0].neighbours == (("a", 250),)


@pytest.mark.parametrize("token", [0.6, -3600.0, 1e17, -1e17])
def test_an_echo_of_what_was_never_sent_measures_nothing(subject, token):
    subject.join(1)
    subject.now = 0.5
    assert subject.hear(1, Kind.ECHO, wire.Echo(token)) == []
    assert subject.engine.links.get(1).rtt is None


def test_the_cost_of_a_link_to_a_leaf_is_told_to_nobody(subject):
    subject.join(1, "cli", leaf=True)
    subject.now = 0.5
    assert subject.hear(1, Kind.ECHO, wire.Echo(0.0)) == []
    assert subject.engine.links.get(1).cost == 250


def test_a_route_that_is_told_is_reported_and_told_on(subject):
    subject.join(1, "a")
    subject.join(2, "c")
    subject.run(0.1)
    subject.now = 0.2
    assert subject.tell(1, Entry("z", 9, 1, 50, 1)) == [
        Report("node_joined", "z"),
        Report("route_changed", "z", 1, "metric 150, 2 hops"),
    ]
    news = wire.Update(0, 0, [Entry("z", 9, 1, 150, 2)])
    assert subject.run(COALESCE) == [Said(1, Kind.UPDATE, news), Said(2, Kind.UPDATE, news)]
    assert subject.engine.nodes() == {"a", "b", "c", "z"}
    assert subject.engine.settled(5.2) == pytest.approx(5.0)


def test_a_better_metric_over_the_same_link_is_not_worth_a_report(linked):
    linked.tell(1, Entry("z", 9, 1, 50, 1))
    assert linked.tell(1, Entry("z", 9, 1, 40, 1)) == []


def test_a_whole_table_in_parts_replaces_the_one_before(linked):
    linked.tell(1, Entry("y", 9, 1, 50, 1), Entry("z", 9, 1, 50, 1))
    linked.tell(1, Entry("a", 1, 1, 0, 0), full=FULL_BEGIN)
    effects = linked.tell(1, Entry("z", 9, 1, 50, 1), full=FULL_END)
    assert effects == [Report("node_left", "y")]


def test_a_large_table_goes_out_in_parts(linked):
    entries = [Entry(f"n{number}", 9, 1, 50, 1) for number in range(MAX_ENTRIES)]
    linked.tell(1, *entries)
    effects = linked.join(2, "c", route=False)
    updates = [effect.value for effect in only(effects, Kind.UPDATE) if effect.link == 2]
    assert [(update.full, len(update.entries)) for update in updates] == [(FULL_BEGIN, MAX_ENTRIES), (FULL_END, 2)]


def test_a_starving_node_asks_its_neighbours_for_a_newer_number(subject):
    subject.join(1, "a")
    subject.join(2, "c")
    subject.tell(1, Entry("z", 9, 1, 50, 1))
    subject.tell(2, Entry("z", 9, 1, 5000, 1))
    effects = subject.tell(1, Entry("z", 0, 0, INFINITY, 0))
    assert only(effects, Kind.SEQNO_REQUEST) == [Said(2, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("z", 2, 255)])]


def test_a_node_that_is_asked_for_a_newer_number_gives_it(linked):
    assert linked.hear(1, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("b", 103, 9)]) == [
        Said(1, Kind.UPDATE, wire.Update(0, 0, [Entry("b", 2, 103, 0, 0)]))
    ]


def record(node="c", serial=5, incarnation=9):
    return wire.Record(node, incarnation, serial, ("x:y",), (), b"")


def test_a_node_that_comes_back_has_joined_again_and_one_whose_path_changes_has_not(linked):
    linked.join(2, "c")
    events = []
    for link, metric in ((1, 50), (1, INFINITY), (1, 50), (2, 20)):
        effects = linked.tell(link, Entry("z", 9, 1, metric, 1))
        events += [effect.event for effect in only(effects, Report)]
    assert events == [
        "node_joined", "route_changed", "node_left", "node_joined", "route_changed", "route_changed"
    ]  # fmt: skip


def test_a_record_is_passed_on_once(subject):
    subject.join(1, "a")
    subject.join(2, "d")
    subject.run(0.1)
    frames = wire.encode_records([wire.encode(record()), wire.encode(record("e"))])
    assert subject.receive(1, *frames) == []
    assert subject.run(RECORDS_GATHERED) == [Said(2, Kind.RECORD, [record(), record("e")])]
    assert subject.receive(1, *wire.encode_records([wire.encode(record(serial=6))])) == []


def outbid(subject, name, mine, *, rounds=6, incarnation=9):
    """Another life speaks in a name again and again, each time above what was said last; what is reported of it."""
    reports = []
    for _ in range(rounds):
        serial = subject.engine.records.get(name).serial + 1
        neighbours = (("far", 100), *((f"n{number}", 100) for number in range(4)))
        blob = wire.encode(wire.Record(name, incarnation, serial, (), neighbours, b""))
        reports += only(subject.receive(1, *wire.encode_records([blob])), Report)
        if mine is None:
            reports += only(subject.run(2.0), Report)
            subject.keep_alive(1)
        else:
            blob = wire.encode(wire.Record(name, mine, serial + 1, (), (), b""))
            reports += only(subject.receive(1, *wire.encode_records([blob])), Report)
    return [report for report in reports if report.event == "duplicate_id"]


def test_two_nodes_of_one_name_that_are_far_away_are_found_out(linked):
    linked.receive(1, *wire.encode_records([wire.encode(record("x"))]))
    text = "two nodes called 'x' are alive, one linked to far, n0, n1, n2, ..., one linked to nobody; one of the two"
    (report,) = outbid(linked, "x", 5)
    assert (report.node, report.detail[: len(text)]) == ("x", text)
    assert linked.engine.duplicates.names() == ["x"]


def test_another_node_of_this_one_s_name_is_found_out_however_far_away_it_is(linked):
    (report,) = outbid(linked, "b", None)
    assert report.node == "b"
    assert report.detail == (
        "another node called 'b' is alive in the mesh, linked to far, n0, n1, n2, ...; "
        "one of the two must get another id"
    )


def test_the_calls_of_a_node_whose_name_is_taken_end_and_say_why(linked):
    linked.send("a", id=b"1" * 16)
    outbid(linked, "b", None)
    linked.send("a", id=b"2" * 16)
    ends = []
    for _ in range(400):
        ends += [piece.eof for piece in only(linked.run(0.1), Deliver)]
        linked.keep_alive(1)
    assert [eof.reason for eof in ends] == ["unreachable", "unreachable"]
    assert "another node is called 'b' as well" in ends[0].error


def test_a_name_is_one_s_own_again_when_the_other_has_been_silent_for_long(linked):
    outbid(linked, "b", None)
    assert linked.engine.exchanges.calls.contested
    for _ in range(200):
        linked.run(1.0)
        linked.keep_alive(1)
    assert linked.engine.duplicates.names() == []
    assert not linked.engine.exchanges.calls.contested


def test_the_record_of_a_node_that_stays_out_of_reach_is_forgotten(subject):
    subject.join(1)
    subject.receive(1, *wire.encode_records([wire.encode(record())]))
    subject.link_down(1)
    assert Report("node_forgotten", "c") in subject.run(KEEP_GONE + 1)
    assert subject.engine.records.get("c") is None


def test_a_node_tells_what_it_can_do(linked):
    assert linked.done(linked.engine.describe(["x:y"], linked.now)) == []
    (said,) = only(linked.run(RECORDS_GATHERED), Kind.RECORD)
    assert said.value[0].capabilities == ("x:y",)


def test_a_directive_whose_name_is_no_valid_text_is_told_with_a_mark_in_its_place(linked):
    linked.done(linked.engine.describe(["x:\udce9"], linked.now))
    (said,) = only(linked.run(RECORDS_GATHERED), Kind.RECORD)
    assert said.value[0].capabilities == ("x:?",)


def test_a_node_that_can_do_more_than_may_be_told_tells_as_much_as_it_may(linked):
    linked.engine.describe([f"x:y{number}" for number in range(wire.MAX_CAPABILITIES + 1)], linked.now)
    assert only(linked.run(RECORDS_GATHERED), Kind.RECORD)


# --- messages -----------------------------------------------------------------------------------------------------


def test_a_request_goes_out_on_the_link_to_its_recipient(linked):
    (frame,) = linked.send("a", b"hello")
    assert frame[:4] == (1, Kind.CHUNK, "a", "b")
    assert (frame.value.header, frame.body) == (HEADER, b"hello")


def test_a_message_for_this_node_is_delivered_with_the_number_of_links_it_crossed(linked):
    assert linked.arrive(1, Kind.CHUNK, chunk(), b"hello", ttl=253) == [
        Deliver(REQUEST, "a", HEADER, b"hello", True, None, 5 + CHUNK_OVERHEAD, 3)
    ]


def test_a_reply_is_delivered_and_ends_the_exchange(linked):
    linked.send("a", b"hello")
    (piece,) = linked.arrive(1, Kind.CHUNK, chunk(request=False, flags=FLAG_FIRST | FLAG_LAST | FLAG_EOF), b"world")
    assert (piece.stream, piece.header, piece.body, piece.eof) == (REPLIES, ANSWER, b"world", Eof())
    assert linked.engine.exchanges.counts()["calls"] == 0


def test_an_answer_leaves_on_the_way_to_the_caller(linked):
    linked.arrive(1, Kind.CHUNK, chunk(), b"hello")
    (frame,) = linked.reply(b"world", eof=Eof())
    assert frame[:4] == (1, Kind.CHUNK, "a", "b")
    assert linked.arrive(1, Kind.ACK, wire.Ack(1, 2, (wire.AckItem(*REPLIES, 1, WINDOW),))) == []
    assert linked.engine.exchanges.counts()["services"] == 0


def test_a_node_that_calls_itself_takes_the_same_road(subject):
    (piece,) = subject.send("b", b"hello")
    assert piece == Deliver(REQUEST, "b", HEADER, b"hello", True, None, 5 + CHUNK_OVERHEAD, 0)
    (piece,) = subject.reply(b"world", eof=Eof())
    assert piece == Deliver(REPLIES, "b", ANSWER, b"world", True, Eof(), 5 + CHUNK_OVERHEAD, 0)
    subject.run(ACK_DELAY)
    counts = subject.engine.exchanges.counts()
    assert (counts["calls"], counts["services"]) == (0, 0)


def test_a_large_payload_is_fed_and_read_piece_by_piece(subject):
    body = bytes(range(256)) * 40_000
    effects = subject.send("b", body[:1_000_000], last=False)
    received, fed = b"", 1_000_000
    while effects:
        effect = effects.pop(0)
        if isinstance(effect, Deliver):
            received += effect.body
            effects += subject.done(subject.engine.consumed(effect.stream, effect.weight, subject.now))
        if not effects and fed < len(body):
            room = subject.engine.exchanges.room(REQUEST)
            assert room > 0
            piece = body[fed : fed + room]
            fed += len(piece)
            effects += subject.done(subject.engine.feed(REQUEST, piece, subject.now, last=fed == len(body)))
    assert received == body


def test_cancelling_reaches_the_recipient(linked):
    linked.send("a")
    (frame,) = linked.done(linked.engine.cancel(ID, linked.now))
    assert (frame.kind, frame.value.message_id) == (Kind.CANCEL, ID)


def test_work_that_the_caller_cancels_is_aborted(linked):
    linked.arrive(1, Kind.CHUNK, chunk())
    assert linked.arrive(1, Kind.CANCEL, wire.Cancel(ID, True, 0, 0, 1, 2)) == [Abort(ID, "cancelled")]


def test_a_message_for_an_earlier_life_of_this_node_is_sent_back(linked):
    (frame,) = linked.arrive(1, Kind.CHUNK, chunk(target=77))
    assert frame[:4] == (1, Kind.UNREACHABLE, "a", "b")
    assert (frame.value.reason, frame.value.near) == ("restarted", ())
    assert wire.decode_chunk(frame.body) == chunk(target=77)


def test_a_message_of_an_earlier_life_of_its_sender_is_dropped(linked):
    linked.arrive(1, Kind.CHUNK, chunk())
    assert linked.arrive(1, Kind.CHUNK, chunk(incarnation=77)) == [Report("frame_dropped", "a", None, "stale")]


def test_a_frame_that_expired_on_its_way_is_reported(linked):
    note = wire.Expired(Kind.CHUNK, "m", "far")
    assert linked.arrive(1, Kind.EXPIRED, note, b"head") == [Report("expired", "m", None, "far")]


def unreachable(reason="no_route", kind=Kind.CHUNK, to="far"):
    return wire.Unreachable(kind, reason, "a", to, (), 3.0)


def test_a_request_that_came_back_is_told_to_its_exchange(linked):
    linked.tell(1, Entry("far", 9, 1, 50, 1))
    (frame,) = linked.send("far")
    effects = linked.arrive(1, Kind.UNREACHABLE, unreachable(), wire.encode(frame.value))
    assert effects == [Report("unreachable", "far", None, "no_route", (), 3.0)]


def test_a_cancel_that_came_back_is_told_to_its_exchange(linked):
    linked.tell(1, Entry("far", 9, 1, 50, 1))
    linked.send("far")
    (frame,) = linked.done(linked.engine.cancel(ID, linked.now))
    effects = linked.arrive(1, Kind.UNREACHABLE, unreachable(kind=Kind.CANCEL), wire.encode(frame.value))
    assert events(effects) == ["unreachable"]


def test_what_an_earlier_life_of_this_node_had_sent_is_not_told_to_anyone(linked):
    linked.send("a")
    old = chunk(incarnation=77)
    assert linked.arrive(1, Kind.UNREACHABLE, unreachable(to="a"), wire.encode(old)) == []


def test_an_acknowledgement_that_came_back_because_a_leaf_is_gone_starts_its_grace(linked):
    linked.arrive(1, Kind.CHUNK, chunk(), of="cli@a")
    linked.reply(b"x")
    told = wire.encode(wire.Ack(2, 1, (wire.AckItem(ID, True, 1, WINDOW),)))
    assert linked.arrive(1, Kind.UNREACHABLE, unreachable("no_route", Kind.ACK, "cli@a"), told) == []
    assert linked.arrive(1, Kind.UNREACHABLE, unreachable("gone", Kind.ACK, "cli@a"), b"") == []
    effects = []
    for _ in range(8):
        effects += linked.run(1.0)
        linked.keep_alive(1)
    assert Abort(ID, "unreachable") in effects


def test_a_question_that_came_back_tells_that_there_is_no_way(linked):
    linked.send()
    assert not linked.engine.exchanges.is_lost(ID)
    asked = wire.encode(wire.Ack(2, 1, (wire.AckItem(ID, False, 0, POKE_LIMIT),)))
    effects = linked.arrive(1, Kind.UNREACHABLE, unreachable("no_route", Kind.ACK, "a"), asked)
    assert events(effects) == ["unreachable"]
    assert linked.engine.exchanges.is_lost(ID)


def test_a_frame_for_another_node_is_passed_on(subject):
    subject.join(1, "a")
    subject.join(2, "c")
    (frame,) = subject.arrive(1, Kind.CHUNK, chunk(), b"hello", to="c")
    assert frame[:4] == (2, Kind.CHUNK, "c", "a")


def test_exchanges_hear_of_routes_that_come_and_go(linked):
    assert linked.send("far") == []
    effects = linked.tell(1, Entry("far", 9, 1, 50, 1))
    assert [type(effect) for effect in effects] == [Report, Report, Routed]
    effects = linked.tell(1, Entry("far", 10, 2, 50, 1))
    assert effects[-1].eof.reason == "node_restarted"


def test_an_error_that_is_too_long_to_be_told_ends_the_call_all_the_same(linked, subject_of):
    linked.arrive(1, Kind.CHUNK, chunk())
    (frame,) = linked.reply(eof=Eof(1, "remote", "x" * (wire.MAX_TEXT + 1)))
    assert frame.value.eof.error.startswith("xxx")


def test_an_error_that_is_too_long_to_be_told_ends_a_call_to_oneself_too(subject):
    subject.send("b")
    (piece,) = subject.reply(eof=Eof(1, "remote", "x" * (wire.MAX_TEXT + 1)))
    assert piece.eof.code == 1


@pytest.mark.parametrize("recipient", ["a", "b"], ids=["to another node", "to oneself"])
def test_an_error_with_what_can_not_be_written_as_utf_8_ends_the_call_all_the_same(linked, recipient):
    if recipient == "a":
        linked.arrive(1, Kind.CHUNK, chunk())
    else:
        linked.send("b")
    (effect,) = linked.reply(eof=Eof(1, "remote", "no such file: caf\udce9"))
    eof = effect.eof if recipient == "b" else effect.value.eof
    assert eof.error.startswith("no such file: caf")


# --- full links ---------------------------------------------------------------------------------------------------


def transmit(subject, effects):
    """The frames of effects, before they are read."""
    return [effect for effect in effects if isinstance(effect, Transmit)]


def test_what_a_full_link_did_not_take_is_sent_first_when_it_is_ready(linked):
    engine, now = linked.engine, linked.now
    (first,) = engine.send(ID, "a", HEADER, b"1", now)
    assert engine.link_full(1, first.frames, now) == []
    assert engine.send(bytes(16), "a", HEADER, b"2", now) == []
    engine.check()
    effects = engine.link_ready(1, now)
    assert effects[0] == first
    assert [effect.frames[2] for effect in effects] == [b"1", b"2"]
    assert engine.link_ready(1, now) == []
    assert len(engine.send(bytes(15) + b"\x02", "a", HEADER, b"3", now)) == 1


def test_a_stream_whose_link_lags_waits_and_goes_on_when_it_is_ready(linked):
    engine, now = linked.engine, linked.now
    (first,) = engine.send(ID, "a", HEADER, b"1", now)
    engine.link_full(1, first.frames, now)
    body = bytes(MAX_BODY)
    for number in range(2, 22):
        assert engine.send(bytes([number]) * 16, "a", HEADER, body, now) == []
    engine.check()
    assert LAGGING_BYTES <= engine.out.queues[1].size_bytes < LAGGING_BYTES + MAX_BODY + 1000
    sent = []
    while effects := engine.link_ready(1, now):
        engine.check()
        sent += effects
    assert [len(effect.frames[2]) for effect in sent] == [1] + [MAX_BODY] * 20


def test_a_link_may_still_lag_when_it_is_ready(linked):
    engine, now = linked.engine, linked.now
    (first,) = engine.send(ID, "a", HEADER, b"1", now)
    engine.link_full(1, first.frames, now)
    frames = (wire.encode_route(Kind.CHUNK, "a", "x"), b"", bytes(MAX_BODY))
    for _ in range(DRAIN + 10):
        engine.out.put(1, frames, ("x", "a", True))
    waiting = engine.send(bytes(16), "a", HEADER, b"2", now)
    assert waiting == []
    assert len(engine.link_ready(1, now)) == DRAIN
    assert b"2" not in [effect.frames[2] for effect in engine.link_ready(1, now)[:-1]]


def test_small_messages_pass_large_ones_on_a_full_link(linked):
    engine, now = linked.engine, linked.now
    (first, *rest) = engine.send(ID, "a", HEADER, bytes(3 * MAX_BODY), now)
    for effect in (first, *rest):
        engine.link_full(1, effect.frames, now)
    for number, body in enumerate([bytes(BULK), bytes(BULK), b"small"]):
        engine.send(bytes([number]) * 16, "a", HEADER, body, now)
    sizes = [len(effect.frames[2]) for effect in engine.link_ready(1, now)]
    assert sizes == [MAX_BODY] * 3 + [BULK, 5, BULK]


def test_an_unknown_link_can_be_neither_full_nor_ready(subject):
    assert subject.done(subject.engine.link_full(9, (b"", b"", b""), 0.0)) == []
    assert subject.done(subject.engine.link_ready(9, 0.0)) == []


# --- doubt --------------------------------------------------------------------------------------------------------


def test_a_link_in_doubt_is_probed_or_asked(linked):
    (probe,) = linked.done(linked.engine.doubt(1, linked.now))
    assert (probe.link, probe.kind) == (1, Kind.PROBE)
    linked.link_up(2, dialled=False)
    assert linked.done(linked.engine.doubt(2, linked.now)) == [Said(2, Kind.ASK, None)]
    assert linked.done(linked.engine.doubt(3, linked.now)) == []


# --- leaves -------------------------------------------------------------------------------------------------------


@pytest.fixture
def leaf(subject_of):
    """The leaf `b`, without any link."""
    return subject_of(leaf=True)


def test_a_leaf_tells_nothing_and_hangs_on_its_first_neighbour(leaf):
    effects = leaf.join(1, dialled=True)
    assert [effect.kind for effect in effects if isinstance(effect, Said)] == [Kind.HELLO, Kind.PROBE]
    assert effects[0].value.leaf
    assert effects[-1] == Said(1, Kind.PROBE, wire.Probe(0.0, 0, 0, 0.0))
    assert leaf.engine.out.address == "b@a"
    assert leaf.join(2, "c", dialled=True)
    assert leaf.engine.out.address == "b@a"


def test_a_leaf_sends_what_it_has_when_it_finds_a_home(leaf):
    leaf.send("far")
    effects = leaf.join(1, dialled=True)
    (frame,) = only(effects, Kind.CHUNK)
    assert frame[:4] == (1, Kind.CHUNK, "far", "b@a")


def test_a_leaf_that_loses_its_home_takes_the_next(leaf):
    leaf.join(1, "a", dialled=True)
    leaf.join(2, "c", dialled=True)
    leaf.send("far")
    assert only(leaf.link_down(2), Kind.CHUNK) == []
    leaf.join(3, "d", dialled=True)
    (question,) = only(leaf.link_down(1), Kind.ACK)
    assert question[:4] == (3, Kind.ACK, "far", "b@d")
    leaf.link_down(3)
    assert (leaf.engine.out.home, leaf.engine.out.address) == (None, "b")
    leaf.join(4, "a", dialled=True)
    assert leaf.engine.out.address == "b@a"


def test_a_leaf_takes_what_is_sent_to_its_address(leaf):
    leaf.join(1, dialled=True)
    (piece,) = leaf.arrive(1, Kind.CHUNK, chunk(), to="b@a")
    assert leaf.arrive(1, Kind.CHUNK, chunk(), to="b@former")[0].kind is Kind.ACK  # a copy
    assert piece.stream == REQUEST
    assert leaf.arrive(1, Kind.CHUNK, chunk(), to="b") == [Report("frame_dropped", "a", 1, "leaf_forwards_nothing")]


@pytest.mark.parametrize("kind", ["update", "record", "request", "probe"])
def test_a_leaf_takes_no_tables(leaf, kind):
    leaf.join(1, dialled=True)
    told = {
        "update": lambda: leaf.tell(1, Entry("z", 9, 1, 50, 1)),
        "record": lambda: leaf.receive(1, *wire.encode_records([wire.encode(record())])),
        "request": lambda: leaf.hear(1, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("b", 500, 9)]),
        "probe": lambda: only(leaf.hear(1, Kind.PROBE, wire.Probe(0.0, 1, 1, 0.0)), Kind.RESEND),
    }[kind]
    assert told() == []
    assert leaf.engine.nodes() == {"b"}
    assert leaf.done(leaf.engine.describe(["x:y"], 0.0)) == []


@pytest.mark.parametrize("kind", ["update", "record", "request", "probe"])
def test_nothing_is_believed_of_what_a_leaf_tells(subject, kind):
    subject.join(1, "cli", leaf=True)
    told = {
        "update": lambda: subject.tell(1, Entry("z", 9, 1, 50, 1)),
        "record": lambda: subject.receive(1, *wire.encode_records([wire.encode(record())])),
        "request": lambda: subject.hear(1, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("b", 500, 9)]),
        "probe": lambda: only(subject.hear(1, Kind.PROBE, wire.Probe(0.0, 1, 1, 0.0)), Kind.RESEND),
    }[kind]
    assert told() == []
    assert (subject.engine.nodes(), subject.engine.routes.seqno) == ({"b"}, 100)


def test_a_leaf_at_this_node_is_served_and_the_mesh_hears_nothing_of_it(subject):
    subject.join(1, "a")
    subject.run(0.1)
    effects = subject.join(2, "cli", leaf=True)
    assert {effect.link for effect in effects if isinstance(effect, Said)} == {2}
    assert Report("link_up", "cli", 2, "leaf") in effects
    (frame,) = subject.arrive(2, Kind.CHUNK, chunk(), of="cli@b", to="a")
    assert frame[:4] == (1, Kind.CHUNK, "a", "cli@b")
    (frame,) = subject.arrive(1, Kind.CHUNK, chunk(request=False), to="cli@b")
    assert frame[:4] == (2, Kind.CHUNK, "cli@b", "a")


@pytest.mark.parametrize("source", ["a", "cli", "cli@a", "other@b", "b"])
def test_a_leaf_speaks_for_itself_only(subject, source):
    subject.join(2, "cli", leaf=True)
    (report,) = subject.arrive(2, Kind.CHUNK, chunk(), of=source)
    assert report.detail == "garbage: a leaf speaks for another node"


def test_the_work_of_a_leaf_that_stays_away_is_stopped_and_that_of_one_that_returns_goes_on(subject):
    subject.join(1, "cli", leaf=True)
    subject.arrive(1, Kind.CHUNK, chunk(), of="cli@b")
    subject.run(ACK_DELAY)
    assert events(subject.link_down(1)) == ["link_lost"]
    assert only(subject.run(4.0), Abort) == []
    effects = subject.join(2, "cli", leaf=True)
    assert len(only(effects, Kind.ACK)) == 1
    subject.arrive(2, Kind.ACK, wire.Ack(1, 2, (wire.AckItem(*REPLIES, 0, WINDOW),)), of="cli@b")
    subject.link_down(2)
    assert only(subject.run(6.0), Abort) == [Abort(ID, "unreachable")]


def test_a_leaf_with_two_links_that_loses_one_is_still_there(subject):
    subject.join(1, "cli", leaf=True)
    subject.arrive(1, Kind.CHUNK, chunk(), of="cli@b")
    subject.join(2, "cli", leaf=True)
    subject.link_down(1)
    effects = []
    for _ in range(20):
        effects += subject.run(0.5)
        subject.keep_alive(2)
    assert only(effects, Abort) == []


@pytest.mark.parametrize("seconds", [2.0, 5.0, 20.0])
def test_a_request_of_a_leaf_waits_for_a_node_that_is_not_up_yet(seconds):
    sim = Simulator()
    sim.add("hub")
    (leaf,) = sim.add("cli", leaf=True)
    sim.connect("cli", "hub")
    sim.run(1.0)
    outcome = leaf.send("late", b"hello")
    sim.run(seconds)
    sim.add("late")
    sim.connect("late", "hub")
    assert sim.run_until(lambda: outcome.eof is not None, 15)
    assert outcome.replies == [b"hello"]


def test_a_request_of_a_leaf_is_not_run_again_by_a_node_that_restarts_quickly():
    sim = Simulator()
    (node,) = sim.add("a")
    (leaf,) = sim.add("cli", leaf=True)
    sim.connect("cli", "a")
    sim.run(1.0)
    node.plugin = lambda node, job: None
    outcome = leaf.send("a", b"work")
    assert sim.run_until(lambda: outcome.message_id in node.runs, 1)
    node.kill()
    sim.run(0.1)
    node.restart()
    sim.run(10.0)
    assert node.runs[outcome.message_id] == 1
    assert outcome.eof is not None
    assert outcome.eof.reason == "node_restarted"


def test_the_call_of_a_leaf_fails_when_the_recipient_has_restarted():
    sim = Simulator()
    _, far = sim.chain("hub", "far")
    (leaf,) = sim.add("cli", leaf=True)
    sim.connect("cli", "hub")
    assert sim.settle()
    far.plugin = lambda node, job: None
    outcome = leaf.send("far", b"work")
    sim.run(2.0)
    assert outcome.message_id in far.jobs
    far.restart()
    assert sim.run_until(lambda: outcome.eof is not None, 60)
    assert outcome.eof.reason == "node_restarted"


def test_the_work_of_a_leaf_that_has_restarted_under_its_name_is_stopped():
    sim = Simulator()
    _, far = sim.chain("hub", "far")
    (leaf,) = sim.add("cli", leaf=True)
    sim.connect("cli", "hub")
    assert sim.settle()
    jobs = []
    far.plugin = lambda node, job: jobs.append(job)
    leaf.send("far", b"work")
    assert sim.run_until(lambda: bool(jobs), 5)
    leaf.restart()
    assert sim.run_until(lambda: bool(jobs[0].aborted), 60)


# --- time ---------------------------------------------------------------------------------------------------------


def test_a_node_without_anything_to_do_asks_for_no_tick(subject):
    subject.tick()
    assert subject.engine.next_deadline() is None


def test_a_tick_before_its_time_does_nothing(linked):
    linked.tick()
    due = linked.engine.next_deadline()
    linked.now = due - 0.001
    assert linked.tick() == []
    assert linked.engine.next_deadline() == due


def test_a_link_is_probed_when_it_is_time(linked):
    linked.run(0.0)
    effects = linked.run(1.2)
    assert [(effect.link, effect.kind) for effect in effects] == [(1, Kind.PROBE)]


def test_a_settled_pair_says_nothing_but_probes(linked):
    seen = set()
    for _ in range(60):
        for effect in linked.run(0.5):
            if isinstance(effect, Said):
                seen.add(effect.kind)
        probe = wire.Probe(linked.now, linked.engine.routes.received(1), linked.engine.records.digest, 0.0)
        linked.hear(1, Kind.PROBE, probe)
    assert seen == {Kind.PROBE}


# --- whatever comes ------------------------------------------------------------------------------------------------

NAMES = ["a", "a", "b", "b", "c", "d", "cli@b", "b@a"]
PLAIN = ["a", "b", "c", "cli"]
FEW = [0, 1, 2, 2, 3, 100, (1 << 63) - 1]
TIMES = [-1e17, -1.0, 0.0, 0.5, 5.0, 1e17]
REASONS = ["", "no_route", "gone", "restarted", "own_id", "version"]
IDS = [ID, bytes(16), b"\xff" * 16]


class Noise:
    """Frames of every kind with fields that may mean something to a node `b`, from a seed."""

    def __init__(self, rng):
        self.rng = rng
        self.any = rng.choice

    def flag(self):
        return self.rng.random() < 0.5

    def some(self, make, most=3):
        return tuple(make() for _ in range(self.rng.randint(0, most)))

    def chunk(self):
        request = self.flag()
        header = self.any([None, HEADER if request else ANSWER])
        eof = self.any([None, Eof(), Eof(1, "remote", "oh")])
        bits = self.any([0, 2, 8, 10]) | (FLAG_FIRST if header else 0) | (FLAG_EOF if eof else 0)
        return wire.Chunk(
            message_id=self.any(IDS),
            request=request,
            sequence=self.any([0, 0, 1, 2]),
            flags=bits,
            number=self.any(FEW),
            floor=self.any(FEW),
            incarnation=self.any(FEW),
            target=self.any([0, 2, 2, 3]),
            age=self.any([0, 0, 10**9]),
            header=header,
            eof=eof,
        )

    def entry(self):
        metric = self.any([0, 1, 50, 900, INFINITY - 1, INFINITY])
        return Entry(self.any(PLAIN), self.any(FEW), self.any(FEW), metric, self.rng.randint(0, 3))

    def record(self):
        return wire.encode(wire.Record(self.any(PLAIN), self.any(FEW), self.any(FEW), (), (), b""))

    def item(self):
        following = self.any([0, 1, 2, 100, wire.CLOSED])
        return wire.AckItem(self.any(IDS), self.flag(), following, self.any([0, WINDOW, 10 * WINDOW]))

    def cancel(self):
        return wire.Cancel(
            self.any(IDS), self.flag(), self.any(FEW), self.any(FEW), self.any(FEW), self.any([0, 2, 2, 3])
        )

    def head(self, kind):
        match kind:
            case Kind.HELLO:
                return wire.Hello(self.any(PLAIN), self.any(FEW), 0.0, self.flag(), self.any(FEW), self.any(FEW))
            case Kind.REFUSE:
                return wire.Refuse(self.any(REASONS), "text")
            case Kind.GOODBYE:
                return wire.Goodbye("leaving")
            case Kind.PROBE:
                return wire.Probe(self.any(TIMES), self.any(FEW), self.any(FEW), self.any(TIMES))
            case Kind.ECHO:
                return wire.Echo(self.any(TIMES))
            case Kind.UPDATE:
                columns = list(zip(*self.some(self.entry), strict=True)) or [()] * 5
                return (self.rng.randint(0, 3), self.any(FEW), *columns)
            case Kind.RECORD:
                return self.some(self.record)
            case Kind.SEQNO_REQUEST:
                return [wire.SeqnoRequest(self.any(PLAIN), self.any(FEW), self.any([0, 1, 2, 255]))]
            case Kind.RESEND:
                return wire.Resend(self.flag(), self.flag())
            case Kind.CHUNK:
                return self.chunk()
            case Kind.ACK:
                return wire.Ack(self.any(FEW), self.any([0, 2, 2, 3]), self.some(self.item))
            case Kind.CANCEL:
                return self.cancel()
            case Kind.UNREACHABLE:
                kind = self.any([Kind.CHUNK, Kind.CANCEL, Kind.ACK, 0])
                return wire.Unreachable(kind, self.any(REASONS), self.any(PLAIN), self.any(NAMES), (), 1.0)
            case Kind.EXPIRED:
                return wire.Expired(Kind.CHUNK, self.any(PLAIN), self.any(NAMES))
        return ()

    def frames(self, kind=None):
        kind = kind or self.any(list(Kind))
        head = wire.encode(self.head(kind))
        if self.rng.random() < 0.2:
            head = self.spoilt(head)
        if kind < wire.FIRST_ROUTED:
            return wire.seal(kind, "", "", head, b"")
        body = self.any([b"", wire.encode(self.any([self.chunk, self.cancel])()), b"garbage"])
        return sealed(kind, self.any(NAMES), self.any(NAMES), head, body, self.any([0, 1, 2, 255]))

    def spoilt(self, frame):
        frame = bytearray(frame)
        frame[self.rng.randrange(len(frame))] = self.rng.randrange(256)
        return bytes(frame)

    def mutated(self):
        route, head, body = self.frames()
        return self.any([(self.spoilt(route), head, body), (route, self.spoilt(head), body)])

    def garbage(self):
        return self.some(lambda: self.rng.randbytes(self.rng.randrange(40)), 5)


class Anything:
    """One engine that obeys as its shell would, and neighbours that say anything at all."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.noise = Noise(self.rng)
        self.engine = Engine("b", 2, now=0.0, leaf=self.rng.random() < 0.2)
        self.now = 0.0
        self.links = 0

    def obey(self, effects):
        for effect in effects:
            match effect:
                case HangUp(link):
                    assert self.engine.links.get(link) is None
                case Transmit(link, frames):
                    assert len(frames) == 3
                    wire.decode_route(frames[0])
                    if self.rng.random() < 0.02:
                        self.obey(self.engine.link_full(link, frames, self.now))
                case Abort(message_id, reason):
                    eof = Eof(1, reason, "stopped")
                    self.obey(self.engine.reply(message_id, None, b"", self.now, last=False, eof=eof))
                case Deliver(stream, weight=weight):
                    self.obey(self.engine.consumed(stream, weight, self.now))
                case Report(event):
                    assert event in EVENTS

    def link(self):
        """One of the links, most often one that is up; there is always one."""
        up = [link.id for link in self.engine.links.up()]
        if not up:
            self.links += 1
            self.obey(self.engine.link_up(self.links, self.now, dialled=self.rng.random() < 0.5))
            hello = wire.Hello(self.rng.choice("aac"), 1, 0.0, False, 5, self.links)
            self.obey(self.engine.receive(self.links, wire.encode_link(Kind.HELLO, hello), self.now))
        return self.rng.choice([*up, *up, *up, *[link.id for link in self.engine.links]])

    def step(self):
        rng, engine = self.rng, self.engine
        link, id = self.link(), rng.choice(IDS)
        match rng.randrange(16):
            case 0:
                self.links += 1
                effects = engine.link_up(self.links, self.now, dialled=rng.random() < 0.3)
            case 1:
                effects = engine.receive(link, list(self.noise.garbage()), self.now)
            case 2:
                effects = engine.receive(link, self.noise.mutated(), self.now)
            case 3:
                effects = engine.receive(link, self.noise.frames(Kind.HELLO), self.now)
            case 4 if rng.random() < 0.3:
                effects = engine.link_down(link, self.now, "closed")
            case 5:
                effects = engine.link_ready(link, self.now)
            case 6:
                effects = engine.doubt(link, self.now)
            case 7 if not engine.exchanges.is_open(Stream(id, True)):
                body, timeout = bytes(rng.choice([0, 10, 70_000])), rng.choice([None, 1.0])
                effects = engine.send(id, rng.choice(NAMES), HEADER, body, self.now, timeout=timeout)
            case 8:
                effects = engine.reply(id, ANSWER, b"x", self.now, eof=rng.choice([None, Eof()]))
            case 9 if rng.random() < 0.3:
                effects = engine.cancel(id, self.now)
            case 10:
                effects = self.wait(rng.choice([0.0, 0.01, 0.5, 3.0, 40.0]))
            case _:
                effects = engine.receive(link, self.noise.frames(), self.now)
        self.obey(effects)

    def wait(self, seconds):
        until = self.now + seconds
        while (due := self.engine.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.obey(self.engine.tick(self.now))
            assert (self.engine.next_deadline() or until + 1) > self.now
        self.now = until
        return []

    def assert_sound(self):
        self.engine.check()
        tables = (self.engine.links, self.engine.routes, self.engine.records, self.engine.exchanges)
        soonest = min((when for table in tables if (when := table.next_deadline()) is not None), default=None)
        assert soonest is None or self.engine.next_deadline() <= soonest


@given(st.integers(0, 1 << 32))
def test_an_engine_stays_sound_whatever_its_neighbours_say(seed):
    anything = Anything(seed)
    for _ in range(100):
        anything.step()
        anything.assert_sound()


# --- two nodes and all that may happen between them ----------------------------------------------------------------


class TwoNodes(RuleBasedStateMachine):
    """Two linked engines whose programs call each other, over a link that loses, stalls, fills up and breaks."""

    outcomes = Bundle("outcomes")

    @initialize(seed=st.integers(0, 1 << 32), room=st.sampled_from([3, 1 << 30]), leaf=st.just(False))
    def begin(self, seed, room, leaf):
        self.sim = Simulator(seed)
        self.nodes = [*self.sim.add("a"), *self.sim.add("b", leaf=leaf)]
        self.link = self.sim.connect("b", "a", room=room)
        self.lives = {}
        self.sent = {}
        for node in self.nodes:
            node.plugin = lambda node, job: None
        assert self.sim.run_until(lambda: None not in self.link.ids, 5)
        for number in (0, 0, 1, 1):
            self.call(number, patient=True)

    def call(self, number, *, patient):
        node, other = self.nodes[number], self.nodes[1 - number]
        payload = self.sim.random.randbytes(self.sim.random.choice([0, 1, 5000, 65_536, 200_000, 2_000_000]))
        recipient = other.engine.out.address if number == 0 else "a"
        outcome = node.send(recipient, payload, timeout=None if patient else self.sim.random.choice([0.5, 20.0]))
        self.lives[outcome.message_id] = (node, node.engine)
        self.sent[outcome.message_id] = payload
        return outcome

    @rule(target=outcomes, count=st.integers(1, 5), number=st.integers(0, 1), patient=st.booleans())
    def send(self, count, number, patient):
        return multiple(*[self.call(number, patient=patient) for _ in range(count)])

    @rule(outcome=outcomes)
    def cancel(self, outcome):
        node, engine = self.lives[outcome.message_id]
        if node.engine is engine:
            node.cancel(outcome)

    @rule(replies=st.integers(0, 3), reason=st.sampled_from(["", "remote"]))
    def answer(self, replies, reason):
        for node in self.nodes:
            for job in node.jobs.values():
                if job.complete and not job.ended:
                    for serial in range(1, replies + 1):
                        node.reply(job, bytes(job.payload), serial)
                    node.reply(job, None, eof=Eof(1, reason, "oh") if reason else Eof())

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.003, 0.05, 0.5, 2.0, 10.0]))
    def wait(self, seconds):
        self.sim.run(seconds)

    @rule(loss=st.sampled_from([0.0, 0.2, 0.7]))
    def lose(self, loss):
        self.link.loss = loss

    @rule(silent=st.booleans())
    def fall_silent(self, silent):
        self.link.silent = silent

    @rule(notice=st.booleans())
    def cut(self, notice):
        self.link.cut(notice=notice)

    @rule(number=st.integers(0, 1))
    def restart(self, number):
        self.nodes[number].restart()

    @invariant()
    def nothing_comes_twice(self):
        if not hasattr(self, "sim"):
            return
        for node in self.nodes:
            assert all(count == 1 for count in node.runs.values())
            for id, job in node.jobs.items():
                assert self.sent[id].startswith(bytes(job.payload))
            for outcome in node.outcomes.values():
                assert len(outcome.eofs) <= 1
                assert outcome.serials == list(range(1, len(outcome.serials) + 1))
                assert all(reply == self.sent[outcome.message_id] for reply in outcome.replies)

    def teardown(self):
        if not hasattr(self, "sim"):
            return
        self.link.loss, self.link.silent = 0.0, False
        for _ in range(60):
            self.sim.run(2.0)
            self.answer(1, "")
        for id, (node, engine) in self.lives.items():
            if node.engine is engine:
                assert len(node.outcomes[id].eofs) == 1
        for node in self.nodes:
            counts = node.engine.exchanges.counts()
            assert counts == dict.fromkeys(counts, 0)
        self.nothing_comes_twice()


TwoNodes.TestCase.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=30)
TestTwoNodes = TwoNodes.TestCase
