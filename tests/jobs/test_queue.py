"""Which job runs next, and what the end of an attempt means; a random history keeps every bound."""

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zmesh.errors import ConfigError
from zmesh.jobs.queue import Bounds, Finish, Outcome, Queue, Requeue, Start, Stop, Unfinished, runs_again
from zmesh.jobs.states import JobId, JobState, Restart

DONE = Outcome(JobState.DONE)
FAILED = Outcome(JobState.FAILED, "remote", "no")
STOPPED = Outcome(JobState.FAILED, "node_restarted", "node stopped", interrupted=True)
CANCELLED = Outcome(JobState.CANCELLED, "cancelled", "by 'ada'")
NEVER, ON_RESTART, TWICE = Restart.of("never"), Restart.of("on-restart"), Restart.of("2")


def queue(running: int = 2, per_owner: int = 2, queued: int = 10, queued_per_owner: int = 10) -> Queue:
    return Queue(Bounds(running, per_owner, queued, queued_per_owner), 5)


def job(number: str, owner: str = "ada", priority: int = 0, sequence: int = 0, restart: Restart = NEVER) -> Unfinished:
    return Unfinished(number, owner, priority, sequence, restart)


def test_the_highest_priority_starts_first_and_the_oldest_among_equals() -> None:
    jobs = queue(running=1)
    assert jobs.add(job("a", sequence=1)) == [Start("a")]
    for number, priority, sequence in (("b", 0, 2), ("c", 5, 3), ("d", 5, 4), ("e", -1, 5)):
        assert jobs.add(job(number, priority=priority, sequence=sequence)) == []
    order = []
    number = "a"
    while len(jobs):
        instructions = jobs.ended(number, DONE, 0.0)
        assert instructions[0] == Finish(number, DONE)
        for each in instructions[1:]:
            assert isinstance(each, Start)
            number = each.number
            order.append(number)
    assert order == ["c", "d", "b", "e"]


def test_an_owner_with_its_share_is_passed_over() -> None:
    jobs = queue(running=3, per_owner=2)
    started = [each for number in "abc" for each in jobs.add(job(number, sequence=ord(number), priority=9))]
    assert started == [Start("a"), Start("b")]
    assert jobs.add(job("x", owner="bob", sequence=999)) == [Start("x")]
    assert jobs.ended("x", DONE, 0.0) == [Finish("x", DONE)]
    assert jobs.ended("a", DONE, 0.0) == [Finish("a", DONE), Start("c")]


def test_a_limit_that_is_reached_is_named() -> None:
    jobs = queue(queued=3, queued_per_owner=2)
    assert jobs.reserve("ada") is None
    assert jobs.reserve("ada") is None
    assert jobs.reserve("ada") == ("max_queued_per_owner", "2 jobs of 'ada' wait or run there already")
    assert jobs.reserve("bob") is None
    assert jobs.reserve("bob") == ("max_queued", "3 jobs wait or run there already")
    jobs.release("ada")
    assert jobs.reserve("bob") is None


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_when_it_has_ended() -> None:
    jobs = queue(running=1)
    jobs.add(job("a"))
    jobs.add(job("b"))
    assert jobs.cancel("b", "by 'ada'") == [Finish("b", CANCELLED)]
    assert jobs.cancel("a", "by 'ada'") == [Stop("a")]
    assert jobs.cancel("a", "by 'ada'") == []
    assert jobs.ended("a", CANCELLED, 0.0) == [Finish("a", CANCELLED)]
    assert jobs.cancel("a", "by 'ada'") == []


def test_jobs_that_are_submitted_and_cancelled_leave_nothing_behind() -> None:
    jobs = queue(running=1, per_owner=1)
    jobs.add(job("runs"))
    for number in range(10_000):
        jobs.add(job(str(number), sequence=number))
        jobs.cancel(str(number), "by 'ada'")
        if number % 1000 == 0:
            jobs.check()
    jobs.check()
    assert len(jobs) == 1


def test_a_failure_is_tried_again_after_a_pause_that_doubles() -> None:
    jobs = queue()
    jobs.add(job("a", restart=TWICE))
    assert jobs.ended("a", FAILED, 10.0) == [Requeue("a", FAILED)]
    assert jobs.next_deadline() == 11.0
    assert jobs.wake(10.9) == []
    assert jobs.wake(11.0) == [Start("a")]
    assert jobs.ended("a", FAILED, 20.0) == [Requeue("a", FAILED)]
    assert jobs.wake(21.9) == []
    assert jobs.wake(22.0) == [Start("a")]
    assert jobs.ended("a", FAILED, 30.0) == [Finish("a", FAILED)]


@pytest.mark.parametrize(
    ("restart", "restarts", "outcome", "again"),
    [
        (NEVER, 0, STOPPED, False),
        (NEVER, 0, FAILED, False),
        (ON_RESTART, 4, STOPPED, True),
        (ON_RESTART, 5, STOPPED, False),
        (ON_RESTART, 0, FAILED, False),
        (TWICE, 1, STOPPED, True),
        (TWICE, 1, FAILED, True),
        (TWICE, 2, FAILED, False),
        (TWICE, 0, CANCELLED, False),
        (TWICE, 0, DONE, False),
    ],
)
def test_what_runs_again(restart: Restart, restarts: int, outcome: Outcome, again: bool) -> None:
    assert runs_again(restart, restarts, outcome, 5) is again


def test_ids_and_restarts_are_read_as_they_are_written() -> None:
    assert str(JobId.of("edge-7/3f9a")) == "edge-7/3f9a"
    assert [str(Restart.of(text)) for text in ("never", "on-restart", "3", 3)] == ["never", "on-restart", "3", "3"]
    for text in ("edge-7", "edge-7/", "edge-7/3f", "edge-7/3F9A", "/3f9a", "edge 7/3f9a", "e/3f9a8b0c4d5e6f701"):
        with pytest.raises(ConfigError, match="edge-7/3f9a8b0c"):
            JobId.of(text)
    for wrong in ("", "0", "often", "-1", 0, 1001, True):
        with pytest.raises(ConfigError, match="on-restart"):
            Restart.of(wrong)


class AnyHistory(RuleBasedStateMachine):
    """Jobs come, run, fail, are cancelled and end in any order; each ends once, and no bound is passed."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue(running=3, per_owner=2, queued=8, queued_per_owner=5)
        self.now = 0.0
        self.count = 0
        self.running: set[str] = set()
        self.finished: set[str] = set()
        self.known: dict[str, str] = {}

    def obey(self, instructions: list[object]) -> None:
        for each in instructions:
            match each:
                case Start(number):
                    assert number not in self.running | self.finished
                    self.running.add(number)
                case Stop(number):
                    assert number in self.running
                case Requeue(number, _):
                    assert number not in self.running | self.finished
                case Finish(number, _):
                    assert number not in self.running | self.finished
                    self.finished.add(number)

    @rule(
        owner=st.sampled_from("abc"), priority=st.integers(-2, 2), restart=st.sampled_from((NEVER, ON_RESTART, TWICE))
    )
    def submit(self, owner: str, priority: int, restart: Restart) -> None:
        owned = sum(1 for number in self.known if self.known[number] == owner and number not in self.finished)
        full = len(self.known) - len(self.finished) >= 8 or owned >= 5
        refusal = self.queue.reserve(owner)
        assert (refusal is not None) == full
        if refusal is None:
            self.queue.release(owner)
            self.count += 1
            number = f"{self.count:016x}"
            self.known[number] = owner
            self.obey(self.queue.add(job(number, owner, priority, self.count, restart)))

    @rule(pick=st.integers(0, 99), outcome=st.sampled_from((DONE, FAILED, CANCELLED)))
    def end(self, pick: int, outcome: Outcome) -> None:
        if self.running:
            number = sorted(self.running)[pick % len(self.running)]
            self.running.discard(number)
            self.obey(self.queue.ended(number, outcome, self.now))

    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        if self.known:
            self.obey(self.queue.cancel(sorted(self.known)[pick % len(self.known)], "by 'ada'"))

    @rule(seconds=st.floats(0.1, 100.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.obey(self.queue.wake(self.now))

    @invariant()
    def holds(self) -> None:
        self.queue.check()
        assert {each.number for each in self.queue} == set(self.known) - self.finished
        assert {each.number for each in self.queue if each.running} == self.running

    def teardown(self) -> None:
        for _ in range(200):
            if not len(self.queue):
                break
            self.now += 100.0
            self.obey(self.queue.wake(self.now))
            for number in sorted(self.running):
                self.running.discard(number)
                self.obey(self.queue.ended(number, DONE, self.now))
        assert self.finished == set(self.known)


TestAnyHistory = AnyHistory.TestCase
