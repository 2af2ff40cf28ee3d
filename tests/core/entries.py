"""Entries of routes, and how a node that is under test hears of them."""

from zmesh.core.wire import INFINITY, Entry


def entry(destination="z", metric=10, seqno=5, hops=1, incarnation=9):
    return Entry(destination, incarnation, seqno, metric, hops)


def retraction(destination="z"):
    return Entry(destination, 0, 0, INFINITY, 0)


def hear(routes, link, *entries, now=0.0, full=0, number=1):
    """Take in what a neighbour tells, and choose."""
    routes.update(link, full, number, [tuple(entry) for entry in entries])
    changes = routes.select(now)
    routes.check()
    return changes
