import pytest

from tests.core.engine_harness import events
from zmesh.core import wire
from zmesh.core.forwarding.dials import MAX_PEERS_SHOWN, Dials
from zmesh.core.wire import Kind

HUB = "tcp://hub:7999"


def test_a_failing_dial_is_listed_with_its_last_reason_and_the_time_of_its_first_failure():
    dials = Dials()
    assert dials.describe(0.0) == ""
    dials.fail(HUB, "the name does not resolve", 1.0)
    dials.fail(HUB, "connection refused", 5.0)
    assert dials.describe(13.0) == f"; peer {HUB}: connection refused for 12 s"
    dials.succeed(HUB)
    dials.succeed(HUB)
    assert (dials.describe(14.0), len(dials)) == ("", 0)
    dials.fail(HUB, "connection refused", 20.0)
    assert dials.describe(23.0) == f"; peer {HUB}: connection refused for 3 s"


@pytest.mark.parametrize(("more", "end"), [(0, ""), (2, "; and 2 more peers")])
def test_a_few_peers_are_named_and_the_others_counted(more, end):
    dials = Dials()
    for number in range(MAX_PEERS_SHOWN + more):
        dials.fail(f"tcp://{number}:1", "timed out", 0.0)
    text = dials.describe(0.0)
    assert text.count("peer tcp://") == MAX_PEERS_SHOWN
    assert text.endswith(f"timed out for 0 s{end}")


# --- in the engine ------------------------------------------------------------------------------------------------


def ends(effects):
    """How the requests that are over have ended."""
    return [effect.eof.error for effect in effects if getattr(effect, "eof", None) is not None]


def test_an_error_without_a_route_says_what_the_dials_are_doing(subject):
    subject.done(subject.engine.dial_failed(HUB, "connection refused", 0.0))
    subject.send("x", timeout=12.0)
    (text,) = ends(subject.run(12.0))
    assert text.endswith(f"'x' was never known to 'b'; known nodes: none; peer {HUB}: connection refused for 12 s")
    subject.done(subject.engine.dial_succeeded(HUB, subject.now))
    subject.send("x", timeout=1.0)
    (text,) = ends(subject.run(1.0))
    assert text.endswith("known nodes: none")


def test_a_leaf_without_a_link_reports_the_state_of_its_dials(subject_of):
    leaf = subject_of("cli", leaf=True)
    leaf.done(leaf.engine.dial_failed(HUB, "timed out", 0.0))
    leaf.send("x", timeout=3.0)
    (text,) = ends(leaf.run(3.0))
    assert text.endswith(f"not linked to any node; peer {HUB}: timed out for 3 s")


def test_the_hint_for_a_departed_node_lists_the_failing_dials(linked):
    linked.link_down(1)
    linked.done(linked.engine.dial_failed(HUB, "connection refused", linked.now))
    text = linked.engine.forwarding.hint("a", linked.now + 4.0)
    assert text == f"; 'a' left 4 s ago, last heard by 'b'; peer {HUB}: connection refused for 4 s"


def test_a_leaf_of_this_node_hears_of_its_dials_and_other_members_do_not(linked):
    linked.done(linked.engine.dial_failed(HUB, "connection refused", linked.now))
    linked.join(2, "cli", leaf=True)
    notes = []
    for link, of in ((2, "cli@b"), (1, "a")):
        effects = linked.arrive(link, Kind.CANCEL, wire.Cancel(bytes(16), True, 0, 0, 1, 0), to="x", of=of)
        assert events(effects) == ["frame_dropped"]
        notes.append(effects[-1].value.text)
    known = "'x' was never known to 'b'"
    assert notes == [f"{known}; peer {HUB}: connection refused for 0 s", known]


def test_a_text_that_is_longer_than_the_wire_takes_is_cut(linked):
    linked.done(linked.engine.dial_failed("tcp://" + "h" * wire.MAX_TEXT, "connection refused", linked.now))
    linked.join(2, "cli", leaf=True)
    effects = linked.arrive(2, Kind.CANCEL, wire.Cancel(bytes(16), True, 0, 0, 1, 0), to="x", of="cli@b")
    assert len(effects[-1].value.text) == wire.MAX_TEXT
