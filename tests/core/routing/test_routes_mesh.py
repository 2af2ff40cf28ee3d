"""The routes of several nodes, and the links between them: every path the shortest, and none a circle."""

import itertools
import random

import networkx
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zmesh.core.routing.routes import Routes
from zmesh.core.timers import Alarm
from zmesh.core.wire import SeqnoRequest


class Net:
    """Several nodes' routes, and between them FIFO links whose messages arrive whenever the test lets them."""

    def __init__(self, names):
        self.now = 0.0
        self.incarnations = dict.fromkeys(names, 0)
        self.nodes = {}
        self.ends = {}
        self.up = set()
        self.costs = {}
        self.queues = {}
        self.count = 0
        for name in names:
            self.start(name)

    def start(self, name, seqno=None):
        """A new incarnation of a node that has no links."""
        self.incarnations[name] += 1
        seqno = int(self.now * 1000) + 1 if seqno is None else seqno
        self.nodes[name] = Routes(name, self.incarnations[name], seqno, Alarm())

    def connect(self, a, b, cost, back=None):
        self.count += 1
        link = self.count
        self.ends[link] = (a, b)
        self.up.add(link)
        for here, there, each in ((a, b, cost), (b, a, cost if back is None else back)):
            self.costs[link, here] = each
            self.queues[link, there] = []
            self.nodes[here].link_up(link, each, self.now)
        return link

    def set_cost(self, link, name, cost):
        self.costs[link, name] = cost
        self.nodes[name].set_cost(link, cost)
        self.work(name)

    def cut(self, link):
        ends = self.ends[link]
        self.up.remove(link)
        for name in ends:
            del self.queues[link, name], self.costs[link, name]
        for name in ends:
            self.nodes[name].link_down(link)
            self.work(name)

    def other(self, link, name):
        a, b = self.ends[link]
        return b if name == a else a

    def work(self, name, *, timely=False):
        """What the engine does after an event."""
        node = self.nodes[name]
        if timely:
            node.expire(self.now)
        if node.dirty or node.advertiser.urgent or node.seqno_requests.outgoing or timely:
            node.select(self.now)
            for advertisement in node.flush(self.now):
                for link in advertisement.links:
                    self.say(link, name, advertisement)
            for link, questions in node.requests(self.now).items():
                for question in questions:
                    self.say(link, name, question)
        self.check()

    def say(self, link, name, message):
        if link in self.up:
            self.queues[link, self.other(link, name)].append(message)

    def deliver(self, link, name):
        message = self.queues[link, name].pop(0)
        if isinstance(message, SeqnoRequest):
            self.nodes[name].request(link, message, self.now)
        else:
            self.nodes[name].update(link, *message[1:])
        self.work(name)

    def pass_time(self, until):
        """Have every node do what is due until then."""
        while True:
            due = [(when, name) for name, node in self.nodes.items() if (when := node.next_deadline()) is not None]
            if not due or min(due)[0] > until:
                break
            when, name = min(due)
            self.now = max(self.now, when)
            self.work(name, timely=True)
            assert (self.nodes[name].next_deadline() or until + 1) > self.now
        self.now = until

    def deliver_all(self):
        while waiting := [queue for queue, messages in self.queues.items() if messages]:
            for queue in waiting:
                self.deliver(*queue)

    def heal(self):
        """Have sent again what differs, as the counts in the probes do."""
        differ = False
        for link in self.up:
            for here, there in itertools.permutations(self.ends[link]):
                if self.nodes[here].sent(link) != self.nodes[there].received(link):
                    self.nodes[here].resend(link, self.now)
                    differ = True
        return differ

    def settle(self):
        """Deliver every UPDATE, and send full updates where some were lost."""
        quiet = 0
        for _ in range(200):
            self.pass_time(self.now + 0.5)
            self.deliver_all()
            quiet = 0 if self.heal() or any(self.queues.values()) else quiet + 1
            if quiet > 20:
                return
        raise AssertionError("the routes never settle")

    def graph(self):
        graph = networkx.DiGraph()
        graph.add_nodes_from(self.nodes)
        for (link, name), cost in self.costs.items():
            other = self.other(link, name)
            if cost < graph.get_edge_data(name, other, {"weight": cost + 1})["weight"]:
                graph.add_edge(name, other, weight=cost)
        return graph

    def check(self):
        """No loop and falling distances along every path, whatever is in flight."""
        for name, node in self.nodes.items():
            if not node.dirty:
                node.check()
            for destination, selected in node.table().items():
                following = self.other(selected.link, name)
                seqno, metric = node.distance(destination)
                if following == destination or selected.link not in self.up:
                    continue
                distance = self.nodes[following].distance(destination)
                assert distance is not None
                assert (-distance[0], distance[1]) < (-seqno, metric), (name, following, destination)
        for destination in self.nodes:
            for name in self.nodes:
                seen = set()
                while name != destination:
                    assert name not in seen, f"a loop on the path to {destination}: {seen}"
                    seen.add(name)
                    selected = self.nodes[name].get(destination)
                    if selected is None or selected.link not in self.up:
                        break
                    name = self.other(selected.link, name)

    def assert_shortest(self):
        graph = self.graph()
        for name, node in self.nodes.items():
            lengths = networkx.single_source_dijkstra_path_length(graph, name)
            del lengths[name]
            assert {to: selected.metric for to, selected in node.table().items()} == lengths
            for to, selected in node.table().items():
                assert selected.incarnation == self.incarnations[to]


def random_net(rng):
    """A few nodes and some links between them; not all need be connected."""
    net = Net([f"n{i}" for i in range(rng.randint(2, 6))])
    for _ in range(rng.randint(1, 10)):
        a, b = rng.sample(list(net.nodes), 2)
        net.connect(a, b, rng.choice([1, 50, 100, 100, 250]), rng.choice([None, None, 100, 400]))
    return net


@given(st.integers(0, 1 << 32))
def test_every_route_is_the_shortest_once_the_table_has_settled(seed):
    net = random_net(random.Random(seed))
    net.settle()
    net.assert_shortest()


def disturb(net, rng):
    """One thing that may happen to a mesh."""
    links = sorted(net.up)
    match rng.randrange(9):
        case 0 | 1 | 2:
            waiting = [queue for queue, messages in net.queues.items() if messages]
            for queue in rng.sample(waiting, min(len(waiting), rng.randint(1, 4))):
                net.deliver(*queue)
        case 3 | 4:
            net.pass_time(net.now + rng.choice([0.001, 0.02, 0.3]))
        case 5:
            a, b = rng.sample(list(net.nodes), 2)
            net.connect(a, b, rng.choice([1, 50, 100, 250]))
        case 6 if links:
            net.cut(rng.choice(links))
        case 7 if links:
            link = rng.choice(links)
            net.set_cost(link, rng.choice(net.ends[link]), rng.choice([1, 50, 100, 250, 1000]))
        case 8 if rng.random() < 0.3:
            name = rng.choice(list(net.nodes))
            for link in [link for link in links if name in net.ends[link]]:
                net.cut(link)
            net.start(name, rng.choice([None, None, 1]))


@settings(max_examples=settings().max_examples // 2)
@given(st.integers(0, 1 << 32))
@example(704)  # two nodes shrank their distances in turn, and asked each other for less each time
def test_no_route_is_ever_a_circle_while_the_mesh_changes(seed):
    rng = random.Random(seed)
    net = random_net(rng)
    for _ in range(60):
        disturb(net, rng)
        if rng.random() < 0.1 and (waiting := [messages for messages in net.queues.values() if messages]):
            messages = rng.choice(waiting)
            messages.pop(rng.randrange(len(messages)))
    net.settle()
    net.assert_shortest()


def test_a_destination_out_of_reach_is_given_up_without_counting_to_infinity():
    net = Net("abcd")
    for a, b in ("ab", "bc", "ca", "cd"):
        net.connect(a, b, 100)
    net.settle()
    before = net.now
    net.cut(4)
    net.settle()
    assert all("d" not in net.nodes[name].table() for name in "abc")
    assert all((node.distance("d") or (0, 0))[1] <= 300 for node in net.nodes.values())
    assert net.now - before < 15
