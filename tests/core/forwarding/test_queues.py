import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zmesh.core.forwarding.queues import FRAME_OVERHEAD, MAX_QUEUED_BYTES, Queue, weigh


def frame(number, size=0):
    return (str(number).encode(), bytes(size))


def flow(name):
    return (name, "far", False)


def drained(queue):
    frames = []
    while (taken := queue.pop()) is not None:
        frames.append(taken)
        queue.check()
    return frames


def test_a_frame_weighs_its_head_its_body_and_something_for_itself():
    assert weigh((b"",)) == FRAME_OVERHEAD
    assert weigh((bytes(100),)) == FRAME_OVERHEAD + 100
    assert weigh((bytes(100), bytes(1000))) == FRAME_OVERHEAD + 1100


def test_a_new_queue_is_empty_and_false():
    queue = Queue()
    assert not queue
    assert queue.pop() is None
    assert queue.size_bytes == 0


def test_what_the_socket_gave_back_goes_first_then_control_then_payload():
    queue = Queue()
    assert queue.push(frame(3), flow("a")) == []
    assert queue.push(frame(2), None) == []
    queue.give_back(frame(0))
    queue.give_back(frame(1))
    assert queue
    assert drained(queue) == [frame(0), frame(1), frame(2), frame(3)]


def test_a_full_link_is_true_even_with_nothing_queued():
    queue = Queue()
    queue.give_back(frame(0))
    assert queue.full
    drained(queue)
    assert queue
    queue.full = False
    assert not queue


def test_flows_take_turns_so_that_a_small_message_passes_a_large_one():
    queue = Queue()
    for number in range(4):
        queue.push(frame(f"large {number}", 1000), ("a", "c", True))
    queue.push(frame("small"), ("a", "c", False))
    queue.push(frame("other"), ("b", "c", False))
    assert [head for head, _ in drained(queue)] == [
        b"large 0", b"small", b"other", b"large 1", b"large 2", b"large 3",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [None, flow("a")], ids=["control", "payload"])
def test_a_queue_takes_as_many_bytes_as_it_may_and_not_one_more(kind):
    queue = Queue()
    whole = MAX_QUEUED_BYTES - FRAME_OVERHEAD
    too_large = (b"", bytes(whole + 1))
    assert queue.push(too_large, kind) == [too_large]
    assert queue.push((b"", bytes(whole)), kind) == []
    assert queue.size_bytes == MAX_QUEUED_BYTES
    assert queue.push(frame(1), kind) == [frame(1)]
    queue.check()
    queue.pop()
    assert queue.push(frame(1), kind) == []


def test_the_flow_with_the_most_queued_bytes_is_dropped_for_others():
    queue = Queue()
    for number in range(3):
        queue.push(frame(number, MAX_QUEUED_BYTES // 3 - FRAME_OVERHEAD - 1), flow("large"))
    left = MAX_QUEUED_BYTES - queue.size_bytes
    assert left < FRAME_OVERHEAD
    assert [head for head, _ in queue.push(frame("other", 1000), flow("other"))] == [b"2"]
    queue.check()
    assert [head for head, _ in drained(queue)] == [b"0", b"other", b"1"]


def test_control_takes_the_place_of_payload_but_payload_never_that_of_control():
    queue = Queue()
    queue.push(frame("bulk", MAX_QUEUED_BYTES - FRAME_OVERHEAD - 4), flow("a"))
    assert [head for head, _ in queue.push(frame("control"), None)] == [b"bulk"]
    queue.push(frame("more", MAX_QUEUED_BYTES - queue.size_bytes - FRAME_OVERHEAD - 4), None)
    assert queue.push(frame("late"), flow("a")) == [frame("late")]
    queue.check()


def test_a_flow_does_not_push_aside_one_that_has_less():
    queue = Queue()
    half = MAX_QUEUED_BYTES // 2
    queue.push(frame(0, half), flow("large"))
    queue.push(frame(1, half - 2 * FRAME_OVERHEAD - 2), flow("small"))
    assert queue.push(frame(2), flow("large")) == [frame(2)]
    queue.check()


def test_what_the_socket_gave_back_is_kept_whatever_its_size():
    queue = Queue()
    assert queue.push((b"", bytes(MAX_QUEUED_BYTES - FRAME_OVERHEAD)), None) == []
    queue.give_back(frame(0))
    queue.check()
    assert queue.pop() == frame(0)


@given(st.lists(st.tuples(st.sampled_from(["push", "pop", "control"]), st.integers(0, 9), st.integers(0, 3000))))
def test_it_is_always_the_largest_flow_that_is_dropped(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zmesh.core.forwarding.queues.MAX_QUEUED_BYTES", 8_000)
        queue = Queue()
        for step, name, size in steps:
            if step == "pop":
                queue.pop()
                continue
            sizes = {known[0]: waiting.size_bytes for known, waiting in queue._flows.items()}
            frames = (str(name).encode(), bytes(size))
            refused = queue.push(frames, None if step == "control" else flow(str(name)))
            for named, body in refused:
                given_up = named.decode()
                if body is not frames[1]:
                    assert sizes[given_up] == max(sizes.values())
                    sizes[given_up] -= FRAME_OVERHEAD + len(named) + len(body)
            queue.check()


def test_sizes_that_are_out_of_date_do_not_pile_up():
    queue = Queue()
    for number in range(1_000):
        queue.push(frame(number), flow("a"))
    assert len(queue._sizes) < 100
    queue.check()


def test_control_that_finds_no_flow_to_take_the_place_of_is_refused_though_there_was_one():
    queue = Queue()
    queue.push(frame(1), flow("gone"))
    queue.pop()
    queue.push((b"", bytes(MAX_QUEUED_BYTES - FRAME_OVERHEAD)), None)
    assert queue.push(frame(2), None) == [frame(2)]


def test_a_flow_that_has_shrunk_is_found_by_the_size_that_it_has_now():
    queue = Queue()
    quarter = MAX_QUEUED_BYTES // 4 - 2 * FRAME_OVERHEAD
    for number in range(3):
        queue.push(frame(number, quarter), flow("first"))
    queue.push(frame(3, quarter // 2), flow("second"))
    assert queue.pop() == frame(0, quarter)
    assert queue.push((b"", bytes(2 * quarter)), None) == [frame(2, quarter)]
    queue.check()


def test_a_full_queue_takes_no_more_steps_for_a_frame_when_there_are_more_flows():
    def steps(flows, pushes=500):
        queue = Queue()
        size = MAX_QUEUED_BYTES // flows - FRAME_OVERHEAD - 10
        for number in range(flows):
            queue.push(frame(number, size), flow(f"source {number}"))
        count = 0

        def trace(code, event, argument):
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for number in range(pushes):
                queue.push(frame(number, 2000), flow(f"other {number % 50}"))
        finally:
            sys.settrace(before)
        queue.check()
        return count / pushes

    assert steps(4_000) < 3 * steps(40)


def test_a_wrong_count_of_a_flow_is_found():
    queue = Queue()
    queue.push(frame(0), flow("a"))
    queue._flows[flow("a")].size_bytes += 1
    with pytest.raises(AssertionError, match="flow"):
        queue.check()


def test_a_flow_whose_size_is_not_noted_is_found():
    queue = Queue()
    queue.push(frame(0), flow("a"))
    queue._sizes.clear()
    with pytest.raises(AssertionError, match="would not be found"):
        queue.check()


def test_a_wrong_count_of_bytes_is_found():
    queue = Queue()
    queue.push(frame(0), None)
    queue.size_bytes += 1
    with pytest.raises(AssertionError, match="size"):
        queue.check()


class AgainstLists(RuleBasedStateMachine):
    """A queue beside three plain lists: given back, control, and payload by flow in order of turn."""

    def __init__(self):
        super().__init__()
        self.queue = Queue()
        self.returned, self.control, self.flows = [], [], []
        self.count = 0
        self.part_taken = False

    def new(self, size):
        self.count += 1
        return frame(self.count, size)

    @precondition(lambda self: not self.part_taken)
    @rule(size=st.integers(0, 3000))
    def give_back(self, size):
        frames = self.new(size)
        self.queue.give_back(frames)
        self.returned.append(frames)

    @rule(size=st.integers(0, 3000))
    def push_control(self, size):
        frames = self.new(size)
        assert self.queue.push(frames, None) == []
        self.control.append(frames)

    @rule(size=st.integers(0, 3000), name=st.sampled_from("abc"))
    def push_payload(self, size, name):
        frames = self.new(size)
        assert self.queue.push(frames, flow(name)) == []
        for known, waiting in self.flows:
            if known == name:
                waiting.append(frames)
                break
        else:
            self.flows.append((name, [frames]))

    @rule(count=st.integers(1, 5))
    def pop(self, count):
        for _ in range(count):
            assert self.queue.pop() == self.expected()

    def expected(self):
        if self.returned:
            self.part_taken = len(self.returned) > 1
            return self.returned.pop(0)
        if self.control:
            return self.control.pop(0)
        if not self.flows:
            return None
        name, waiting = self.flows.pop(0)
        frames = waiting.pop(0)
        if waiting:
            self.flows.append((name, waiting))
        return frames

    @invariant()
    def counts_what_it_holds(self):
        self.queue.check()
        kept = [*self.returned, *self.control, *(frames for _, waiting in self.flows for frames in waiting)]
        assert self.queue.size_bytes == sum(weigh(frames) for frames in kept)
        assert bool(self.queue) is (self.queue.full or bool(kept))


TestQueue = AgainstLists.TestCase
