"""One member that lies, one kind of lie at a time: the others stay consistent, and forget it."""

import pytest

from zmesh.core.routing import KEEP_DISTANCE
from zmesh.testing.scenario import Scenario
from zmesh.testing.simliar import LIES, SEALED_LIES
from zmesh.testing.traffic import Traffic, run_liars


def ring(kinds, *, trust=False):
    """Five nodes in a ring, two of which a liar is linked to."""
    mesh = Scenario(1, count=5, shape="ring", audit=16, trust=trust)
    mesh.settle()
    traffic = Traffic(mesh)
    mesh.liar(mesh.nodes[1:3], 1e9, kinds)
    (liar,) = mesh.liars
    assert mesh.sim.run_until(lambda: len(liar.engine.links()) == 2, 5)
    return mesh, traffic, liar


@pytest.mark.parametrize(
    ("kind", "trust"), [*((kind, False) for kind in LIES), *((kind, True) for kind in SEALED_LIES)]
)
def test_a_lie_spoils_no_table_loops_no_packet_and_is_forgotten_when_the_liar_has_left(kind, trust):
    mesh, traffic, _liar = ring([kind], trust=trust)
    for number in range(20):
        sender, recipient = mesh.nodes[number % 5], mesh.nodes[(number + 2) % 5]
        traffic.send(sender, str(recipient.id), "work:echo", b"%d" % number, 10.0)
        mesh.sim.run(0.5)
    mesh.mend()
    traffic.finish()
    mesh.settle()
    tally = traffic.judge()
    assert sum(tally.values()) == 20
    mesh.sim.run(1.1 * KEEP_DISTANCE)
    assert mesh.traces() == ""


def test_what_a_liar_does_not_touch_is_answered_as_ever():
    mesh, traffic, liar = ring(["garbage", "probes", "resends", "requests"])
    for number in range(20):
        sender, recipient = mesh.nodes[number % 5], mesh.nodes[(number + 2) % 5]
        traffic.send(sender, str(recipient.id), "work:echo", b"%d" % number, 10.0)
        mesh.sim.run(0.2)
    mesh.sim.run(10)
    assert traffic.judge() == {"eof": 20}
    assert liar.alive


def test_made_up_destinations_are_believed_while_the_liar_is_there():
    mesh, _traffic, liar = ring(["destinations"])
    mesh.sim.run(5)
    known = {str(name) for node in mesh.nodes for name in node.engine.nodes()}
    assert liar.id in known
    assert any(name.startswith("ghost-") for name in known)


def test_garbage_is_dropped_and_reported():
    mesh, _traffic, _liar = ring(["garbage"])
    mesh.sim.run(5)
    reports = {(report.event, report.detail.partition(":")[0]) for node in mesh.nodes for report in node.reports}
    assert {("frame_dropped", "garbage"), ("frame_dropped", "checksum")} <= reports


def test_traces_that_a_liar_has_left_in_a_mesh_are_listed():
    mesh, _traffic, _liar = ring(["destinations"])
    mesh.sim.run(5)
    assert "still knows ghost-" in mesh.traces() or "still knows liar-" in mesh.traces()


TOLD = {
    "names": {"frame_dropped: unsealable: not_sealed"},
    "records": {"record_refused: unsigned"},
    "replays": {"frame_dropped: unsealable: replayed"},
    "changes": {"frame_dropped: unsealable: forged"},
    "redirections": {"frame_dropped: unsealable: forged", "frame_dropped: unsealable: restarted"},
    "statements": {"record_refused: authority", "record_refused: statement"},
}
"""What the others report of a liar with a certificate, at the least."""


@pytest.mark.parametrize("kind", TOLD)
def test_where_nodes_have_identities_a_lie_is_found_and_counted_and_believed_by_nobody(kind):
    mesh, traffic, liar = ring([kind, "metrics"], trust=True)  # the metrics bring it packets of others
    for number in range(60):
        sender, recipient = mesh.nodes[number % 5], mesh.nodes[(number + 2) % 5]
        traffic.send(sender, str(recipient.id), "work:echo", b"%d" % number, 10.0)
        mesh.sim.run(0.2)
    mesh.sim.run(15)
    assert sum(traffic.judge().values()) == 60
    told = {f"{report.event}: {report.detail.split(' (')[0]}" for node in mesh.nodes for report in node.reports}
    assert all(any(line.startswith(wanted) for line in told) for wanted in TOLD[kind]), sorted(told)
    assert liar.alive


def test_a_route_for_somebody_else_leads_to_nobody_who_can_open_what_comes():
    mesh, traffic, liar = ring(["metrics", "incarnations", "numbers"], trust=True)
    for number in range(20):
        sender, recipient = mesh.nodes[number % 5], mesh.nodes[(number + 2) % 5]
        traffic.send(sender, str(recipient.id), "work:echo", b"%d" % number, 10.0)
        mesh.sim.run(0.5)
    mesh.sim.run(15)
    tally = traffic.judge()
    assert sum(tally.values()) == 20
    assert "restarted" not in tally
    assert not liar.jobs


def test_a_liar_may_take_up_a_frame_that_another_one_has_changed():
    """What it can't decode it can't twist either; seed found by the soak."""
    run_liars(102416)
