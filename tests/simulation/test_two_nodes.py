"""Two engines, and all that may happen between them."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from zmesh.core.message import Eof, Stream
from zmesh.testing.simulator import Simulator

STREAM = "work:stream"


def send_back(node, job, part):
    """The program of requests that are written bit by bit: send each part back as it comes."""
    if job.directive == STREAM and part:
        job.serial += 1
        node.reply(job, part, job.serial)


class TwoNodes(RuleBasedStateMachine):
    """Two linked engines whose programs call each other, over a link that loses, stalls, fills up and breaks.

    Some requests are written while their replies come, and end or are reset at either end first.
    """

    outcomes = Bundle("outcomes")
    written = Bundle("written")

    @initialize(seed=st.integers(0, 1 << 32), room=st.sampled_from([3, 1 << 30]), leaf=st.just(False))
    def begin(self, seed, room, leaf):
        self.sim = Simulator(seed)
        self.nodes = [*self.sim.add("a"), *self.sim.add("b", leaf=leaf)]
        self.link = self.sim.connect("b", "a", room=room)
        self.senders = {}
        self.sent = {}
        for node in self.nodes:
            node.plugin = lambda node, job: None
            node.listener = send_back
        assert self.sim.run_until(lambda: None not in self.link.ids, 5)
        for number in (0, 0, 1, 1):
            self.call(number, patient=True)

    def call(self, number, *, patient):
        node, other = self.nodes[number], self.nodes[1 - number]
        payload = self.sim.random.randbytes(self.sim.random.choice([0, 1, 5000, 65_536, 200_000, 2_000_000]))
        recipient = other.engine.address if number == 0 else "a"
        outcome = node.send(recipient, payload, timeout=None if patient else self.sim.random.choice([0.5, 20.0]))
        self.senders[outcome.message_id] = (node, node.engine)
        self.sent[outcome.message_id] = payload
        return outcome

    @rule(target=outcomes, count=st.integers(1, 5), number=st.integers(0, 1), patient=st.booleans())
    def send(self, count, number, patient):
        return multiple(*[self.call(number, patient=patient) for _ in range(count)])

    @rule(target=written, number=st.integers(0, 1))
    def open(self, number):
        node, other = self.nodes[number], self.nodes[1 - number]
        outcome = node.open(other.engine.address if number == 0 else "a", STREAM)
        self.senders[outcome.message_id] = (node, node.engine)
        self.sent[outcome.message_id] = outcome.written
        return outcome

    @rule(outcome=written, sizes=st.lists(st.sampled_from([1, 10, 3000, 65_536]), max_size=8), last=st.booleans())
    def write(self, outcome, sizes, last):
        node, engine = self.senders[outcome.message_id]
        if node.engine is engine:
            for size in sizes:
                node.write(outcome, self.sim.random.randbytes(size))
            if last:
                node.write(outcome, b"", last=True)

    @rule(outcome=outcomes | written, code=st.sampled_from([0, 7]))
    def cancel(self, outcome, code):
        node, engine = self.senders[outcome.message_id]
        if node.engine is engine:
            node.cancel(outcome, code)

    @rule(how=st.sampled_from(["end", "reset", "stop"]))
    def end_early(self, how):
        for node in self.nodes:
            for job in [job for job in node.jobs.values() if job.directive == STREAM and not job.ended]:
                if how == "end":
                    node.reply(job, None, eof=Eof())
                elif how == "reset":
                    node.reset(job, 9)
                else:
                    node.stop_sending(job)

    @rule(replies=st.integers(0, 3), reason=st.sampled_from(["", "remote"]))
    def answer(self, replies, reason):
        for node in self.nodes:
            for job in node.jobs.values():
                if job.complete and not job.ended:
                    for serial in range(1, replies + 1) if job.directive != STREAM else ():
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
                if outcome.written:
                    assert outcome.written.startswith(b"".join(outcome.replies))
                    assert (
                        outcome.stopped or not outcome.eofs or not node.engine.is_open(Stream(outcome.message_id, True))
                    )
                else:
                    assert all(reply == self.sent[outcome.message_id] for reply in outcome.replies)
                assert outcome.eof is None or outcome.eof.reset_code in (0, 9)

    def teardown(self):
        if not hasattr(self, "sim"):
            return
        self.link.loss, self.link.silent = 0.0, False
        for id, (node, engine) in self.senders.items():
            if node.engine is engine and (node.outcomes[id].stopped or node.engine.is_open(Stream(id, True))):
                node.cancel(node.outcomes[id], 7)
        for _ in range(60):
            self.sim.run(2.0)
            self.answer(1, "")
        for id, (node, engine) in self.senders.items():
            if node.engine is engine:
                assert len(node.outcomes[id].eofs) == 1
        for node in self.nodes:
            counts = node.engine.stats()
            assert counts == dict.fromkeys(counts, 0)
        self.nothing_comes_twice()


TwoNodes.TestCase.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=30)
TestTwoNodes = TwoNodes.TestCase
