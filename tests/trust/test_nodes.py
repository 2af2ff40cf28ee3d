"""Nodes that are not believed: a line at each end says who, which key, why, and what mends it."""

import time

from zmesh.testing import eventually
from zmesh.testing.authority import DAY, TestAuthority


async def refused(lines, node_id):
    """The first line of a node about a link that was refused."""
    await eventually(lambda: any(line.startswith("refused") for line in lines(node_id)))
    return next(line for line in lines(node_id) if line.startswith("refused"))


async def both(node, lines, theirs):
    """What hub and edge log where edge has that identity."""
    hub = await node("hub")
    edge = await node("edge", hub.listening[0], identity_=theirs, listen=[])
    said = await refused(lines, "hub"), await refused(lines, "edge")
    assert (hub.nodes(), edge.nodes()) == (["hub"], ["edge"])
    assert hub.stats().counters["link_refused"] >= 1
    return said


async def test_an_unknown_authority_is_told_with_both_fingerprints(node, lines, identity, authority):
    other = TestAuthority(seed=1, begins=int(time.time()) - DAY)
    for line in await both(node, lines, identity("edge", by=other)):
        assert all(each.authority.fingerprint in line for each in (authority, other)), line


async def test_another_mesh_is_named(node, lines, identity):
    other = TestAuthority(seed=1, mesh="office", begins=int(time.time()) - DAY)
    for line in await both(node, lines, identity("edge", by=other)):
        assert "'office'" in line
        assert "'lab'" in line


async def test_an_expired_certificate_is_told_with_the_command_that_renews_it(node, lines, identity):
    expired = identity("edge", begins=int(time.time()) - 100 * DAY, days=90)
    for line in await both(node, lines, expired):
        assert "expired" in line
        assert "edge" in line


async def test_a_node_without_a_certificate_is_told_how_to_join(node, lines):
    hub = await node("hub")
    edge = await node("edge", hub.listening[0], identity_=None, listen=[])
    for line in (await refused(lines, "hub"), await refused(lines, "edge")):
        assert "zmesh invite edge" in line
    assert (hub.nodes(), edge.nodes()) == (["hub"], ["edge"])
