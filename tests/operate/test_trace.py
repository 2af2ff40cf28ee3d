"""The path from one node to another, hop by hop."""

import asyncio
import itertools

import pytest

import zmesh
from zmesh.errors import TimedOut, UnknownDirective, Unreachable
from zmesh.operate.directives import HOP
from zmesh.operate.json_form import Seconds
from zmesh.operate.paths import Hop, RouteLoss
from zmesh.operate.trace import MAX_STEPS, trace
from zmesh.testing import Mesh

WITHIN = 60.0


class Answers:
    """Nodes that answer where they send: next hops by node and destination; those that are `dumb` raise."""

    def __init__(self, routes, dumb=None, **link):
        self.routes = routes
        self.dumb = dumb or {}
        self.link = link
        self.asked = []

    async def __call__(self, node, destination, origin):
        self.asked.append((node, destination))
        if node in self.dumb:
            raise self.dumb[node]
        there, back = self.routes.get((node, destination)), self.routes.get((node, origin))
        state = "self" if node == destination else "reachable" if there else "left"
        lost = RouteLoss(Seconds(12.0), "x", 300, 3, "north", "silent for 3 s") if state == "left" else None
        return Hop(node, destination, state, there, back=back, lost=lost, heard=Seconds(0.5), **self.link)


def both_ways(*path, back=None):
    """The routes of nodes in a line, and those of the path back."""
    back = back or path[::-1]
    there = {(one, path[-1]): next_ for one, next_ in itertools.pairwise(path)}
    return there | {(one, path[0]): next_ for one, next_ in itertools.pairwise(back)}


async def steps_of(answers, origin, destination):
    return [step async for step in trace(answers, origin, destination)]


async def test_each_hop_is_asked_once_and_the_same_way_back_is_not_shown():
    answers = Answers(both_ways("a", "b", "c"))
    steps = await steps_of(answers, "a", "c")
    assert [(step.number, step.node, step.arrived, step.back) for step in steps] == [
        (1, "a", False, False),
        (2, "b", False, False),
        (3, "c", True, False),
    ]
    assert answers.asked == [("a", "c"), ("b", "c"), ("c", "c")]


async def test_a_trace_to_the_node_itself_is_one_step():
    (step,) = await steps_of(Answers({}), "a", "a")
    assert (step.node, step.arrived, step.error) == ("a", True, "")


async def test_another_way_back_is_followed_to_its_end():
    answers = Answers(both_ways("a", "b", "c", "d", back=("d", "e", "b", "a")))
    steps = await steps_of(answers, "a", "d")
    assert [(step.number, step.node) for step in steps if not step.back] == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    assert [(step.number, step.node) for step in steps if step.back] == [(1, "d"), (2, "e"), (3, "b"), (4, "a")]
    assert steps[-1].arrived


async def test_a_way_back_that_is_broken_ends_with_how():
    answers = Answers(both_ways("a", "b", "c", back=("c", "e")))
    steps = await steps_of(answers, "a", "c")
    assert steps[-1].back
    assert "'e' has no route to 'a': it left 12 s ago, last heard by 'north': silent for 3 s" in steps[-1].error


async def test_a_hop_without_a_route_ends_it_and_says_who_lost_it():
    steps = await steps_of(Answers({("a", "c"): "b"}), "a", "c")
    assert [step.node for step in steps] == ["a", "b"]
    assert steps[-1].error == "'b' has no route to 'c': it left 12 s ago, last heard by 'north': silent for 3 s"


@pytest.mark.parametrize("error", [TimedOut("no answer"), Unreachable("no route")])
@pytest.mark.parametrize(
    ("link", "text"),
    [
        ({}, "'b' has no answer, though 'a' heard it 0 s ago: it is overloaded, or its path back is broken"),
        ({"suspect": True}, "'b' has no answer: 'a' heard it 0 s ago, and its link is silent"),
        ({"queued_bytes": 7}, "'b' has no answer, though 'a' heard it 0 s ago, and 7 bytes wait for the link"),
    ],
)
async def test_a_hop_that_does_not_answer_ends_it_with_what_the_one_before_says_of_the_link(error, link, text):
    answers = Answers(both_ways("a", "b", "c"), dumb={"b": error}, **link)
    steps = await steps_of(answers, "a", "c")
    assert (steps[-1].node, steps[-1].hop) == ("b", None)
    assert steps[-1].error.startswith(text)


async def test_the_one_before_may_have_lost_the_hop_or_found_another_by_the_time_it_is_asked_again():
    class Changing(Answers):
        async def __call__(self, node, destination, origin):
            if ("b", destination) in self.asked:
                self.routes = self.later
            return await super().__call__(node, destination, origin)

    for later, text in (
        ({}, "'b' has no answer, and 'a' has no route to 'c': it left 12 s ago"),
        ({("a", "c"): "d"}, "'b' has no answer, and 'a' sends to 'd' by now"),
    ):
        answers = Changing(both_ways("a", "b", "c"), dumb={"b": TimedOut("no answer")})
        answers.later = later
        assert (await steps_of(answers, "a", "c"))[-1].error.startswith(text)
    answers = Answers({}, dumb={"a": TimedOut("no answer from 'a'")})
    assert (await steps_of(answers, "a", "c"))[-1].error == "no answer from 'a'"


async def test_an_older_node_ends_it_with_the_reason():
    answers = Answers(both_ways("a", "b", "c"), dumb={"b": UnknownDirective("no directive 'zmesh:hop' here")})
    assert (await steps_of(answers, "a", "c"))[-1].error == "'b' runs an older zmesh, which does not say where it sends"


@pytest.mark.parametrize("loop", [{("a", "c"): "a"}, {("a", "c"): "b", ("b", "c"): "a"}])
async def test_a_loop_ends_it(loop):
    steps = await steps_of(Answers(loop), "a", "c")
    assert "sends it back to 'a': routes are changing" in steps[-1].error
    assert len(steps) == len(loop)


async def test_nodes_that_make_up_new_hops_for_ever_end_at_the_limit():
    class Liar(Answers):
        async def __call__(self, node, destination, origin):
            return Hop(node, destination, "reachable", f"n{len(self.asked)}-{node[-8:]}" + str(self.asked.append(node)))

    steps = await steps_of(Liar({}), "a", "c")
    assert len(steps) == MAX_STEPS
    assert steps[-1].error == f"{MAX_STEPS} hops and no end"


async def test_over_real_links_each_hop_has_its_link_and_comes_before_the_next_is_asked():
    async with Mesh.chain("a", "b", "c", tcp=True) as mesh:
        steps = []
        async for step in mesh["a"].trace("c", timeout=WITHIN):
            steps.append(step)
            assert mesh["c"].node.telemetry.counts.total() >= 0
        first, second, third = steps
        assert (first.node, first.hop.next_hop, first.hop.cost, first.hop.hops) == ("a", "b", first.hop.cost, 2)
        assert first.hop.link_cost >= 100
        assert first.hop.rtt > 0
        assert first.hop.where == "127.0.0.1"
        assert second.hop.where == "127.0.0.1"
        assert (third.node, third.arrived, third.hop.state) == ("c", True, "self")
        assert [step.node async for step in mesh["c"].trace("a", "b", timeout=WITHIN)] == ["b", "a"]


async def test_routes_of_different_ways_there_and_back_are_seen_as_they_are(eventually):
    async with Mesh("a", "b", "c", "d", tcp=True) as mesh:
        url = {name: mesh[name].listening[0] for name in "abcd"}
        mesh["a"].add_peer(url["b"])
        mesh["b"].add_peer(url["d"])
        mesh["a"].add_peer(url["c"])
        mesh["c"].add_peer(url["d"])
        await mesh.settle()
        engine = mesh["d"].node.engine
        for link in engine.neighbours.to("b"):  # what d says of this link alone
            link.cost = link.base_cost = 900
            engine.routing.set_cost(link.id, 900)
        mesh["d"].node.driver.perform(engine.tick(asyncio.get_running_loop().time()))
        await eventually(lambda: mesh["d"].node.router.next_hop("a") == "c")
        engine = mesh["a"].node.engine
        for link in engine.neighbours.to("c"):
            link.cost = link.base_cost = 900
            engine.routing.set_cost(link.id, 900)
        mesh["a"].node.driver.perform(engine.tick(asyncio.get_running_loop().time()))
        await eventually(lambda: mesh["a"].node.router.next_hop("d") == "b")
        steps = [step async for step in mesh["a"].trace("d", timeout=WITHIN)]
        assert [step.node for step in steps if not step.back] == ["a", "b", "d"]
        assert [step.node for step in steps if step.back] == ["d", "c", "a"]


async def test_a_hop_that_does_not_let_the_tracer_ask_is_named():
    async with Mesh.chain("a", "b", "c", allow={HOP: ["b"]}) as mesh:
        steps = [step async for step in mesh["a"].trace("c", "b", timeout=WITHIN)]
        assert "node 'b' does not let 'a' call zmesh:hop" in steps[0].error
        with pytest.raises(zmesh.ConfigError):
            await anext(mesh["a"].trace("no id", timeout=WITHIN))
