"""Rows of routes, and how a node under test receives, advertises and requests them."""

from zmesh.core.wire import INFINITY, MAX_TTL, Entry, SeqnoRequest


def entry(destination="z", metric=10, seqno=5, hops=1, incarnation=9, excess=0):
    return Entry(destination, incarnation, seqno, metric, hops, excess)


def retraction(destination="z"):
    return Entry(destination, 0, 0, INFINITY, 0)


def hear(routes, link, *entries, now=0.0, full=0, number=1):
    """Process an UPDATE of a neighbour, and select all that it has changed."""
    routes.update(link, full, number, [tuple(entry) for entry in entries])
    return select_all(routes, now)


def select_all(routes, now=0.0):
    """Select until no destination is dirty."""
    changes = routes.select(now)
    routes.check()
    while routes.dirty:
        changes += routes.select(now)
        routes.check()
    return changes


def advertised(routes, now):
    """The UPDATEs at that time: the links, the part of a full update that each is, and the rows."""
    return [
        (advertisement.links, advertisement.full, sorted(advertisement.entries)) for advertisement in routes.flush(now)
    ]


def request(seqno=5, distance=150, destination="z", hops_left=MAX_TTL):
    return SeqnoRequest(destination, seqno, distance, hops_left)


def asked(routes, now):
    """The seqno requests at that time, as (link, request)."""
    return [(link, question) for link, questions in routes.requests(now).items() for question in questions]
