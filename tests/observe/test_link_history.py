"""Why links have fallen, and who was refused."""

from zmesh.core.effects import Report
from zmesh.observe.link_history import MAX_FALLS, MAX_NEIGHBOURS, MAX_REFUSALS, LinkHistory


class Bench:
    """A history with a clock, and an address for each link."""

    def __init__(self):
        self.now = 0.0
        self.history = LinkHistory(lambda: self.now)
        self.dialled = set()

    def note(self, event, node=None, link=None, detail="", **fields):
        self.history.note(Report(event, node, link, detail, **fields), lambda id: (f"tcp://{id}", id in self.dialled))

    def fall(self, node, link, reason="silent for 3 s"):
        self.note("link_up", node, link)
        self.note("link_lost", node, link, reason)


def test_a_link_is_up_since_its_report_and_its_last_falls_are_kept_latest_first():
    bench = Bench()
    bench.now = 5.0
    bench.note("link_up", "a", 1)
    assert bench.history.since(1) == 5.0
    for number in range(MAX_FALLS + 2):
        bench.now += 1.0
        bench.fall("a", 10 + number, f"reason {number}")
    assert [fall.reason for fall in bench.history.falls("a")] == [f"reason {n}" for n in (5, 4, 3, 2)]
    assert bench.history.falls("a")[0].at == 11.0
    assert bench.history.falls("other") == ()
    assert bench.history.since(10) is None


def test_a_neighbour_is_lost_with_its_last_link_until_there_is_one_again():
    bench = Bench()
    bench.dialled.add(2)
    bench.note("link_up", "a", 1)
    bench.note("link_up", "a", 2)
    bench.note("link_lost", "a", 1, "silent")
    assert bench.history.lost() == []
    bench.now = 7.0
    bench.note("link_lost", "a", 2, "silent")
    (lost,) = bench.history.lost()
    assert (lost.node, lost.where, lost.dialled, lost.fall) == ("a", "tcp://2", True, (7.0, "silent"))
    assert bench.history.peer("tcp://2") == "a"
    assert bench.history.peer("tcp://1") == ""
    bench.note("link_up", "a", 3)
    assert bench.history.lost() == []


def test_a_neighbour_that_has_said_goodbye_and_a_leaf_are_not_missed():
    bench = Bench()
    bench.fall("a", 1, "they left: leaving")
    bench.note("link_up", "cli", 2, "leaf")
    bench.note("link_lost", "cli", 2, "the connection was closed")
    bench.note("link_lost", "b", 3, "one that was never up")
    assert bench.history.lost() == []
    assert bench.history.falls("a")[0].reason == "they left: leaving"
    assert bench.history.falls("cli") == ()


def test_who_was_refused_is_kept_with_where_and_why():
    bench = Bench()
    bench.note("link_refused", "edge", 4, "we refuse: the id 'edge' is taken")
    bench.note("link_refused", None, None, "they refuse: x")
    bench.note("stranger_refused", detail="plaintext: from 10.0.0.7: it speaks plaintext")
    plain, unknown, named = bench.history.refusals()
    assert (plain.node, plain.where, plain.reason) == ("", "from 10.0.0.7", "from 10.0.0.7: it speaks plaintext")
    assert (unknown.node, unknown.where) == ("", "")
    assert (named.node, named.where, named.reason) == ("edge", "tcp://4", "we refuse: the id 'edge' is taken")


def test_every_table_is_bounded_and_drops_the_oldest():
    bench = Bench()
    for number in range(MAX_NEIGHBOURS + 3):
        bench.fall(f"n{number}", number)
        bench.note("link_refused", f"n{number}", None, "x")
    assert len(bench.history.lost()) == MAX_NEIGHBOURS
    assert bench.history.falls("n2") == ()
    assert len(bench.history.falls("n3")) == 1
    assert len(bench.history.refusals()) == MAX_REFUSALS
