"""The lines of a node for who operates it, without a node."""

import asyncio
import logging
import subprocess
import sys

import pytest

from tests.waiting import WITHIN
from zmesh.core.effects import Report
from zmesh.observe.journal import (
    BURST,
    MAX_REASONS,
    MAX_REMEMBERED,
    PAUSE_FIRST,
    REFILL,
    REPEAT_FIRST,
    RTT_WITHIN,
    Journal,
    Lines,
    Neighbour,
)
from zmesh.testing import eventually

HUB = "tcp://hub:7323"


class Place:
    """What the journal looks up at its node."""

    def __init__(self):
        self.links = {}
        self.witnesses = {}

    def neighbour(self, link):
        return self.links.get(link, Neighbour("", False, None))

    def last_heard_by(self, node):
        return self.witnesses.get(node)


class Log:
    """The lines of a journal, in the order of their time."""

    def __init__(self):
        self.place = Place()
        self.lines = Lines(self.place)
        self.now = 0.0

    def note(self, event, node=None, link=None, detail="", *, at=None):
        self.now = at if at is not None else self.now
        return [text for _, text, _ in self.lines.note(Report(event, node, link, detail), self.now)]

    def wait(self, seconds):
        """Tick whenever it is due."""
        until, texts = self.now + seconds, []
        while (due := self.lines.due) <= until:
            self.now = due
            texts += [text for _, text, _ in self.lines.tick(due)]
        self.now = until
        return texts

    def dialled(self, link, node, rtt=0.0007):
        self.place.links[link] = Neighbour(HUB, True, rtt)
        return self.note("link_up", node, link)

    def accepted(self, link, node, rtt=None):
        self.place.links[link] = Neighbour("10.0.0.7", False, rtt)
        return self.note("link_up", node, link)


@pytest.fixture
def log():
    return Log()


# --- what is told -------------------------------------------------------------------------------------------------


def test_a_link_is_reported_with_its_node_its_url_and_its_round_trip_time(log):
    assert log.dialled(1, "hub") == [f"linked with hub at {HUB} (0.7 ms)"]
    assert log.wait(60.0) == []


@pytest.mark.parametrize("event", ["node_joined", "route_changed"])
def test_who_was_dialled_waits_for_the_round_trip_time_to_tell(log, event):
    assert log.accepted(1, "edge") == []
    assert log.note(event, "another") == (["another joined the mesh"] if event == "node_joined" else [])
    log.place.links[1] = Neighbour("10.0.0.7", False, 0.0123)
    assert log.note(event, "edge")[0] == "linked with edge from 10.0.0.7 (12.3 ms)"


def test_a_link_without_a_round_trip_time_is_reported_a_little_later(log):
    log.accepted(1, "edge")
    assert log.note("route_changed", "edge") == []
    assert log.wait(RTT_WITHIN - 0.01) == []
    assert log.wait(0.01) == ["linked with edge from 10.0.0.7"]


def test_a_link_that_is_lost_at_once_is_reported_before_its_loss(log):
    log.accepted(1, "edge")
    assert log.note("link_lost", "edge", 1, "silent for 3 s") == [
        "linked with edge from 10.0.0.7",
        "lost the link with edge from 10.0.0.7: silent for 3 s",
    ]


def test_a_neighbour_that_comes_back_is_reported_with_how_long_it_was_away(log):
    log.dialled(1, "hub")
    assert log.note("link_lost", "hub", 1, "the connection was closed", at=10.0) == [
        f"lost the link with hub at {HUB}: the connection was closed"
    ]
    assert log.note("dial_failed", detail=f"{HUB}: connection refused", at=11.0) == [
        f"can't reach {HUB}: connection refused; still trying"
    ]
    log.now = 22.0
    assert log.dialled(2, "hub") == [f"linked again with hub at {HUB} after 12 s (0.7 ms)"]
    assert log.note("dial_failed", detail=f"{HUB}: connection refused", at=23.0) == [
        f"can't reach {HUB}: connection refused; still trying"
    ]


def test_a_peer_that_answers_at_last_is_reported_with_how_long_it_took(log):
    log.note("dial_failed", detail=f"{HUB}: connection refused", at=1.0)
    log.now = 4.0
    assert log.dialled(1, "hub") == [f"linked with hub at {HUB} after 3 s (0.7 ms)"]


def test_the_end_that_refuses_and_the_one_that_is_refused_say_so(log):
    log.place.links = {1: Neighbour("10.0.0.7", False, None), 2: Neighbour(HUB, True, None)}
    assert log.note("link_refused", "twin", 1, "we refuse: the id is taken") == [
        "refused twin from 10.0.0.7: the id is taken"
    ]
    assert log.note("link_refused", None, 1, "we refuse: protocol version 2") == [
        "refused a node from 10.0.0.7: protocol version 2"
    ]
    assert log.note("link_refused", None, 2, "they refuse: the id is taken") == [
        f"refused by the node at {HUB}: the id is taken"
    ]
    assert log.note("link_refused", "hub", 2, "they refuse: the id is taken") == [
        f"refused by hub at {HUB}: the id is taken"
    ]


def test_nodes_that_join_and_leave_are_reported_and_who_heard_them_last(log):
    assert log.note("node_joined", "edge") == ["edge joined the mesh"]
    assert log.note("node_left", "edge") == ["edge left the mesh"]
    log.place.witnesses["edge"] = "north"
    assert log.note("node_left", "edge") == ["edge left the mesh, last heard by north"]


def test_a_duplicate_is_reported_where_it_is_unless_the_line_of_the_refusal_says_it(log):
    assert log.note("duplicate_id", "a", None, "two nodes called 'a'") == ["two nodes called 'a'"]
    assert log.note("duplicate_id", "a", 1, "we refuse: taken") == []
    assert log.note("id_taken", "a", 1, "another one is alive") == [
        "the id a is taken: another one is alive; this node was started later, and should end"
    ]


def test_commands_that_come_and_go_are_not_reported(log):
    assert log.note("link_up", "cli-1", 1, "leaf") == []
    assert log.note("link_lost", "cli-1", 1, "they left: leaving") == []
    assert log.wait(60.0) == []
    assert log.lines._leaves == set()


@pytest.mark.parametrize(
    ("report", "level"),
    [
        (Report("link_lost", "a", 1, "they left: leaving"), logging.INFO),
        (Report("link_lost", "a", 1, "silent for 3 s"), logging.WARNING),
        (Report("link_refused", "a", 1, "we refuse: no"), logging.WARNING),
        (Report("dial_failed", None, None, f"{HUB}: no"), logging.WARNING),
        (Report("duplicate_id", "a", None, "two nodes"), logging.WARNING),
        (Report("record_cut", "a", None, "too many"), logging.WARNING),
        (Report("id_taken", "a", 1, "another node"), logging.WARNING),
        (Report("node_joined", "a"), logging.INFO),
        (Report("node_left", "a"), logging.INFO),
    ],
)
def test_what_needs_somebody_is_a_warning(log, report, level):
    assert [found for found, _, _ in log.lines.note(report, 0.0)] == [level]


@pytest.mark.parametrize("event", ["link_suspect", "frame_dropped", "unreachable", "expired", "link_synced"])
def test_details_are_not_reported(log, event):
    assert log.note(event, "a", 1, "x") == []


# --- how often ----------------------------------------------------------------------------------------------------


def test_a_failure_that_lasts_is_reported_at_pauses_that_double(log):
    told = []
    for tenth in range(2000):
        told += log.note("dial_failed", detail=f"{HUB}: connection refused", at=tenth / 10)
    lasting = [f" for {seconds}" for seconds in ("10 s", "30 s", "70 s", "2 min")]
    assert told == [f"can't reach {HUB}: connection refused{length}; still trying" for length in ("", *lasting)]


def test_another_failure_of_the_same_peer_is_reported_at_once_but_once(log):
    told = []
    for number in range(20):
        reason = ("connection refused", "timed out")[number % 2]
        told += log.note("dial_failed", detail=f"{HUB}: {reason}", at=number / 10)
    assert told == [
        f"can't reach {HUB}: connection refused; still trying", f"can't reach {HUB}: timed out; still trying"
    ]  # fmt: skip


def test_of_failures_that_are_always_new_as_many_as_the_limit_are_reported_at_once(log):
    for number in range(MAX_REASONS + 5):
        log.note("dial_failed", detail=f"{HUB}: failure {number}", at=number / 100)
    assert len(log.lines._failing[HUB].reasons) == MAX_REASONS
    assert log.note("dial_failed", detail=f"{HUB}: failure 999", at=1.0) == []
    assert log.note("dial_failed", detail=f"{HUB}: failure 999", at=REPEAT_FIRST + 1.0) == []  # it waits with others
    assert log.wait(1.0) == [f"can't reach {HUB}: failure 999 for 11 s; still trying, and 6 more"]


def test_a_thousand_nodes_that_join_are_some_lines_and_a_number(log):
    told = [line for number in range(1000) for line in log.note("node_joined", f"n{number}")]
    assert told == [f"n{number} joined the mesh" for number in range(BURST)]
    assert log.wait(PAUSE_FIRST) == ["n999 joined the mesh, and 989 more"]
    assert log.wait(3600.0) == []


def test_a_link_that_flaps_for_hours_is_reported_less_and_less_often(log):
    told = []
    for second in range(4 * 3600):
        log.now = float(second)
        told += log.dialled(second, "hub") + log.note("link_lost", "hub", second, "silent") + log.wait(0.9)
    assert len(told) < 120
    assert any(line.endswith("more") for line in told)
    assert log.lines._ends == log.lines._fresh == {}


def test_kinds_of_lines_do_not_take_each_other_s_place(log):
    for number in range(100):
        log.note("node_joined", f"n{number}")
    assert log.note("node_left", "n0") == ["n0 left the mesh"]


def test_after_a_calm_all_is_reported_at_once_again(log):
    for number in range(BURST + 3):
        log.note("node_joined", f"n{number}")
    assert log.wait(REFILL * BURST + PAUSE_FIRST) == [f"n{BURST + 2} joined the mesh, and 2 more"]
    told = [line for number in range(BURST) for line in log.note("node_joined", f"m{number}")]
    assert len(told) == BURST
    log.note("node_joined", "last")
    assert log.wait(PAUSE_FIRST) == ["last joined the mesh"]


def test_neighbours_that_never_come_back_are_forgotten_in_the_end(log):
    for number in range(MAX_REMEMBERED + 1):
        log.note("link_lost", f"n{number}", number, "silent")
    assert len(log.lines._lost) == MAX_REMEMBERED


def test_what_waits_is_reported_at_the_end(log):
    log.accepted(1, "edge")
    for number in range(BURST + 2):
        log.note("node_joined", f"n{number}")
    assert [text for _, text, _ in log.lines.close(log.now)] == [
        "linked with edge from 10.0.0.7", f"n{BURST + 1} joined the mesh, and 1 more"
    ]  # fmt: skip


# --- in the log ---------------------------------------------------------------------------------------------------


async def test_a_journal_logs_under_the_name_of_its_node_and_tells_later_what_waits(caplog):
    caplog.set_level(logging.INFO, "zmesh.observe.journal")
    journal = Journal("hub", Place(), asyncio.get_running_loop())
    for number in range(BURST + 2):
        journal.note(Report("node_joined", f"n{number}"))
    assert caplog.messages[0] == "hub: n0 joined the mesh"
    await eventually(lambda: caplog.messages[-1] == f"hub: n{BURST + 1} joined the mesh, and 1 more")
    journal.note(Report("link_up", "edge", 1))
    journal.close()
    assert caplog.messages[-1] == "hub: linked with edge from "


def test_a_program_that_does_not_configure_logging_is_shown_nothing():
    script = """
import asyncio, zmesh
from zmesh.observe.events import DialFailed

async def main():
    async with zmesh.Controller(zmesh.Config(node_id="a", peers=["ipc:///no/such/peer"])) as controller:
        async for event in controller.events():
            if isinstance(event, DialFailed):
                return

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=WITHIN, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
