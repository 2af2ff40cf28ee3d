"""Entries of routes, and how a node that is under test hears, tells and asks of them."""

from zmesh.core.wire import INFINITY, MAX_TTL, Entry, SeqnoRequest


def entry(destination="z", metric=10, seqno=5, hops=1, incarnation=9, excess=0):
    return Entry(destination, incarnation, seqno, metric, hops, excess)


def retraction(destination="z"):
    return Entry(destination, 0, 0, INFINITY, 0)


def hear(routes, link, *entries, now=0.0, full=0, number=1):
    """Take in what a neighbour tells, and choose."""
    routes.update(link, full, number, [tuple(entry) for entry in entries])
    changes = routes.select(now)
    routes.check()
    return changes


def told(routes, now):
    """What is told at that time: to whom, which part of a whole table it is, and what."""
    return [
        (advertisement.links, advertisement.full, sorted(advertisement.entries)) for advertisement in routes.flush(now)
    ]


def request(seqno=5, distance=150, destination="z", hops_left=MAX_TTL):
    return SeqnoRequest(destination, seqno, distance, hops_left)


def asked(routes, now):
    """The questions at that time, as (link, question)."""
    return [(link, question) for link, questions in routes.requests(now).items() for question in questions]
