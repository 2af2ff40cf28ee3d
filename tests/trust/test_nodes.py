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


async def test_an_unknown_authority_is_reported_with_both_fingerprints(node, lines, identity, authority):
    other = TestAuthority(seed=1, begins=int(time.time()) - DAY)
    for line in await both(node, lines, identity("edge", by=other)):
        assert all(each.authority.fingerprint in line for each in (authority, other)), line


async def test_another_mesh_is_named(node, lines, identity):
    other = TestAuthority(seed=1, mesh="office", begins=int(time.time()) - DAY)
    for line in await both(node, lines, identity("edge", by=other)):
        assert "'office'" in line
        assert "'lab'" in line


async def test_an_expired_certificate_is_reported_with_the_command_that_renews_it(node, lines, identity):
    expired = identity("edge", begins=int(time.time()) - 100 * DAY, days=90)
    for line in await both(node, lines, expired):
        assert "expired" in line
        assert "edge" in line


async def test_a_node_without_a_certificate_learns_how_to_join(node, lines):
    hub = await node("hub")
    edge = await node("edge", hub.listening[0], identity_=None, listen=[])
    for line in (await refused(lines, "hub"), await refused(lines, "edge")):
        assert "zmesh invite edge" in line
    assert (hub.nodes(), edge.nodes()) == (["hub"], ["edge"])


async def test_of_two_nodes_with_certificates_for_one_id_neither_wins_until_one_key_is_revoked(
    node, lines, identity, authority
):
    """The newer certificate is no better: both keys are named at both ends, and a revocation decides."""
    hub = await node("hub")
    older = identity("edge", begins=int(time.time()) - 3 * DAY)
    newer = identity("edge", begins=int(time.time()) - 60)
    first = await node("edge", hub.listening[0], identity_=older, listen=[])
    await first.wait_for("hub", 60)
    second = await node("edge", hub.listening[0], identity_=newer, listen=[])
    await eventually(lambda: any(newer.fingerprint in line for line in lines("hub")))
    said = next(line for line in lines("hub") if newer.fingerprint in line)
    assert older.fingerprint in said
    assert "zmesh revoke the one that must go" in said
    await eventually(lambda: any(older.fingerprint in line and newer.fingerprint in line for line in lines("edge")))
    assert (await hub.request("edge", "echo:echo", "hello", timeout=60)).text() == "hello"
    assert [link.node for link in hub.links()] == ["edge"]
    assert (first.nodes(), second.nodes()) == (["edge", "hub"], ["edge"])

    engine = hub.node.engine
    assert engine.credentials.trust.revoke(authority.revoke(older.fingerprint, int(time.time()), "stolen"))
    hub.node.driver.perform(engine.trust_changed(time.monotonic()))
    await second.wait_for("hub", 120)
    await eventually(lambda: engine.identity("edge") is not None and engine.identity("edge").key == newer.fingerprint)
    assert first.nodes() == ["edge"]
    assert (await hub.request("edge", "echo:echo", "hello", timeout=60)).text() == "hello"
