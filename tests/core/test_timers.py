import gc
import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zmesh.core.timers import Alarm, Timeouts, Timers

keys = st.integers(0, 9)
times = st.integers(0, 40).map(lambda tenths: tenths / 10)


class AgainstAList(RuleBasedStateMachine):
    """Timers beside a plain list of (deadline, order of setting, key)."""

    def __init__(self):
        super().__init__()
        self.alarm = Alarm()
        self.timers = Timers(self.alarm)
        self.list = []
        self.count = 0
        self.rung = math.inf

    def deadline(self, key):
        return next((when for when, _, known in self.list if known == key), None)

    def place(self, key, when):
        self.count += 1
        self.list = sorted([item for item in self.list if item[2] != key] + [(when, self.count, key)])
        self.rung = min(self.rung, when)

    @rule(key=keys, when=times)
    def set(self, key, when):
        self.timers.set(key, when)
        self.place(key, when)

    @rule(key=keys, one=times, other=times)
    def move_to_and_fro(self, key, one, other):
        for when in [one, other] * 40:
            self.timers.set(key, when)
        self.place(key, one)
        self.place(key, other)

    @rule(key=keys, when=times)
    def set_default(self, key, when):
        self.timers.set_default(key, when)
        if self.deadline(key) is None:
            self.place(key, when)

    @rule(key=keys, when=times)
    def set_sooner(self, key, when):
        self.timers.set_sooner(key, when)
        if self.deadline(key) is None or when < self.deadline(key):
            self.place(key, when)

    @rule(key=keys)
    def cancel(self, key):
        self.timers.cancel(key)
        self.list = [item for item in self.list if item[2] != key]

    @rule(now=times)
    def expire(self, now):
        assert self.timers.expire(now) == [key for when, _, key in self.list if when <= now]
        self.list = [item for item in self.list if item[0] > now]

    @invariant()
    def holds_what_the_list_holds(self):
        assert len(self.timers) == len(self.list)
        assert all((key in self.timers) is (self.deadline(key) is not None) for key in range(10))
        assert self.timers.next_deadline() == (self.list[0][0] if self.list else None)

    @invariant()
    def the_alarm_rings_at_the_earliest_that_was_ever_set(self):
        assert self.alarm.soonest == self.rung


TestTimers = AgainstAList.TestCase


class TimeoutsAgainstADict(RuleBasedStateMachine):
    """Timeouts beside a plain dict of deadlines; time goes on with each rule."""

    def __init__(self):
        super().__init__()
        self.alarm = Alarm()
        self.timeouts = Timeouts(self.alarm)
        self.deadlines = {}
        self.lengths = {}
        self.now = 0.0

    @rule(key=keys, length=times, pause=times)
    def start(self, key, length, pause):
        self.now += pause
        if key not in self.deadlines:
            self.timeouts.start(key, length, self.now)
            self.deadlines[key], self.lengths[key] = self.now + length, length

    @rule(lengths=st.sets(times, min_size=20, max_size=30))
    def start_and_cancel(self, lengths):
        for length in lengths:
            self.timeouts.start("other", length, self.now)
            self.timeouts.cancel("other", length)

    @rule(key=keys)
    def cancel(self, key):
        self.timeouts.cancel(key, self.lengths.get(key, 1.0))
        self.deadlines.pop(key, None)

    @rule(pause=times)
    def expire(self, pause):
        self.now += pause
        due = [key for key, deadline in self.deadlines.items() if deadline <= self.now]
        expired = self.timeouts.expire(self.now)
        assert sorted(expired) == sorted(due)
        for length in set(self.lengths.values()):
            of_length = [key for key in expired if self.lengths[key] == length]
            assert of_length == sorted(of_length, key=self.deadlines.get)
        for key in due:
            del self.deadlines[key]

    @invariant()
    def the_next_deadline_and_the_alarm_are_never_too_late(self):
        if self.deadlines:
            earliest = min(self.deadlines.values())
            assert self.timeouts.next_deadline() <= earliest
            assert self.alarm.soonest <= earliest


TestTimeouts = TimeoutsAgainstADict.TestCase


class Key:
    """A key that can be counted."""


def alive(kind):
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


def test_what_was_cancelled_takes_no_memory_for_long():
    timers = Timers(Alarm())
    for _ in range(5000):
        key = Key()
        timers.set(key, 1.0)
        timers.cancel(key)
    assert alive(Key) < 100


def test_timeouts_that_were_cancelled_take_no_memory_whatever_their_lengths():
    timeouts = Timeouts(Alarm())
    for number in range(5000):
        timeouts.start(Key(), 1e9, 0.0)
        key = Key()
        timeouts.start(key, number / 7, 0.0)
        timeouts.cancel(key, number / 7)
    assert len(timeouts._by_length) < 20
    assert len(timeouts._first._heap) < 100
    assert alive(Key) < 5002


def test_a_key_has_one_deadline_the_last_that_was_set():
    timers = Timers(Alarm())
    timers.set("a", 5.0)
    timers.set("b", 3.0)
    timers.set("a", 2.0)
    assert len(timers) == 2
    assert timers.expire(2.0) == ["a"]
    assert len(timers) == 1
    assert timers.expire(9.0) == ["b"]


def test_an_alarm_rings_at_the_earliest_of_all_tables_that_share_it():
    alarm = Alarm()
    one, other = Timers(alarm), Timers(alarm)
    assert alarm.soonest == math.inf
    one.set("a", 5.0)
    other.set("b", 3.0)
    alarm.at(4.0)
    assert alarm.soonest == 3.0
    alarm.at(2.0)
    assert alarm.soonest == 2.0


def test_the_alarm_of_the_node_goes_off_with_the_first_of_its_tables():
    node = Alarm()
    one, other = Alarm(node), Alarm(node)
    Timers(one).set("a", 5.0)
    Timers(other).set("b", 3.0)
    other.at(4.0)
    assert (node.soonest, one.soonest, other.soonest) == (3.0, 5.0, 3.0)
