"""What running nodes do about certificates and trust, over real sockets."""

import asyncio
import logging
import time
from typing import Any

import pytest

import zmesh
from tests.membership.conftest import DAY, Lab
from zmesh import trust
from zmesh.identity import (
    ENROL,
    RENEW,
    Authority,
    Identity,
    IdentityKey,
    Issuer,
    TrustError,
    join_request,
    renew_request,
)
from zmesh.membership import ask_as_newcomer
from zmesh.membership.issuing import Issuing
from zmesh.node import Node
from zmesh.serving.failure_log import FAILURES, FailureLog


def newcomer(config: zmesh.Config) -> Node:
    return Node(config, enrolling=True)


def seen(controller: zmesh.Controller) -> list[Any]:
    events: list[Any] = []
    controller.watch(events.append)
    return events


def of(kind: type, events: list[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


async def test_a_certificate_is_renewed_after_two_thirds_and_no_link_is_lost(lab: Lab, eventually: Any) -> None:
    identity = lab.identity("edge", age=70 * DAY)
    before = identity.certificate
    async with lab.controller(lab.hub) as hub, lab.controller(identity) as edge:
        events = seen(edge)
        await eventually(lambda: identity.certificate is not before)
        assert identity.certificate.not_after > time.time() + 89 * DAY
        assert Identity.load(identity.state).certificate == identity.certificate
        await eventually(lambda: of(zmesh.CertificateRenewed, events))
        await edge.wait_for("hub", 90)
        assert (await hub.request("edge", "echo:echo", "hello")).text() == "hello"
        assert not of(zmesh.LinkLost, events)


async def test_one_that_has_expired_renews_itself_and_links_then(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    identity = lab.identity("edge", age=200 * DAY)
    async with lab.controller(lab.hub) as hub, lab.controller(identity) as edge:
        await edge.wait_for("hub", 60)
        assert (await edge.request("hub", "echo:echo", "hello")).text() == "hello"
        await hub.wait_for("edge", 60)


async def test_one_that_was_revoked_is_not_renewed(lab: Lab, eventually: Any) -> None:
    identity = lab.identity("edge", age=200 * DAY)
    trust.revoke(lab.issuer, lab.hub, "edge", "stolen")
    before = identity.certificate
    async with lab.controller(lab.hub), lab.controller(identity) as edge:
        events = seen(edge)
        with pytest.raises(TrustError, match=r"node 'edge' .* was revoked \d+ s ago \(stolen\) by the authority"):
            await trust.renew(identity)
        await eventually(lambda: of(zmesh.CertificateExpiring, events) or of(zmesh.LinkRefused, events))
    assert identity.certificate is before


async def test_a_node_whose_issuer_is_gone_warns_and_goes_on(
    lab: Lab, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    identity = lab.identity("edge", age=85 * DAY)
    edge = lab.controller(identity)
    events = seen(edge)
    async with edge:
        await eventually(lambda: of(zmesh.CertificateExpiring, events))
        (warned,) = of(zmesh.CertificateExpiring, events)
        assert warned.text.startswith("less than a tenth of the validity of the certificate of 'edge' is left, 5 d")
        assert "no node can be reached: tcp://127.0.0.1:" in warned.text
        await eventually(lambda: warned.text in caplog.text)


async def test_a_node_without_a_certificate_may_enrol_and_do_nothing_else(lab: Lab) -> None:
    async with lab.controller(lab.hub):
        urls = lab.hub.dial_urls()
        for directive in ("echo:echo", "zmesh:routes", "zmesh:reload", "zmesh:cancel"):
            with pytest.raises(zmesh.NotAllowed, match="nothing but enrol, as it has no certificate"):
                await ask_as_newcomer(newcomer, "new", urls, directive, {})
        refused = await ask_as_newcomer(newcomer, "new", urls, ENROL, {"node_id": "new"})
        assert refused["refused"]["reason"] == "signature"


async def test_what_is_no_request_is_refused_with_a_reason(lab: Lab) -> None:
    ticket = lab.ticket("edge")
    asked = join_request(ticket, IdentityKey.generate())
    other = IdentityKey.generate()
    identity = lab.identity("late", age=0)
    wrong = [
        (ENROL, None, "a request to enrol that can't be read"),
        (ENROL, {**asked, "node_id": "hub"}, "does not hold the key"),
        (ENROL, {**asked, "mesh": "other"}, "has a ticket for the mesh 'other', and this one is 'lab'"),
        (ENROL, {**asked, "token": "00" * 16}, "does not hold the key"),
        (ENROL, join_request(ticket._replace(token=bytes(16)), other), "the token is not known here"),
        (ENROL, join_request(ticket._replace(node_id="hub"), other), "the token is for another name, 'edge'"),
        (RENEW, renew_request(identity.certificate, other), "does not hold the key"),
    ]
    async with lab.controller(lab.hub):
        for directive, request, text in wrong:
            answer = await ask_as_newcomer(newcomer, "new", lab.hub.dial_urls(), directive, request)
            assert text in answer["refused"]["text"], request


async def test_a_revocation_reaches_running_nodes_and_is_kept_by_them(lab: Lab, eventually: Any) -> None:
    edge, far = lab.identity("edge", age=0), lab.identity("far", age=0)
    async with lab.controller(lab.hub) as hub, lab.controller(edge) as one, lab.controller(far) as two:
        await one.wait_for("far", 60)
        events = seen(two)
        identity = Identity.load(lab.folder / "hub")  # as a command has it, beside the node
        trust.revoke(Issuer.load(identity), identity, "edge", "sold")
        hub.reload()
        await eventually(lambda: "edge" not in hub.nodes() and "edge" not in two.nodes())
        await eventually(lambda: of(zmesh.TrustChanged, events))
        await eventually(lambda: "edge" in {each.subject for each in Identity.load(far.state).trust.revocations})
        await asyncio.wait_for(hub.wait_for("far"), 60)


async def test_the_next_authority_is_learned_by_those_who_are_up_and_by_those_who_were_not(
    lab: Lab, eventually: Any
) -> None:
    edge, late = lab.identity("edge", age=0), lab.identity("late", age=0)
    async with lab.controller(lab.hub) as hub, lab.controller(edge) as up:
        await up.wait_for("hub", 60)
        identity = Identity.load(lab.folder / "hub")
        issuer = Issuer.load(identity)
        made: Authority = trust.begin_rotation(issuer, identity)
        hub.reload()
        await eventually(lambda: made in edge.trust.authorities)
        trust.finish_rotation(issuer)
        hub.reload()
        ticket = lab.ticket("new")
        joined = await trust.join(ticket, state=lab.folder / "new")
        assert joined.identity.certificate.authority == made.public
        async with lab.controller(joined.identity) as new, lab.controller(late) as woken:
            await new.wait_for("edge", 60)
            await woken.wait_for("new", 60)
            await eventually(lambda: made in late.trust.authorities)


async def test_permissions_are_those_of_the_settings_then_of_the_identity(lab: Lab) -> None:
    (lab.folder / "hub" / "policy.toml").write_text('[allow]\n"echo:*" = ["ops"]\n"text:*" = ["ops"]\n')
    hub = Identity.load(lab.folder / "hub")
    edge = lab.identity("edge", age=0)
    async with lab.controller(hub, allow={"echo:*": ["edge"]}) as node, lab.controller(edge) as mesh:
        node.register("text:shout", lambda work: work.payload.text().upper())
        await mesh.wait_for("hub", 60)
        assert (await mesh.request("hub", "echo:echo", "x")).text() == "x"
        with pytest.raises(zmesh.NotAllowed, match=r'"text:\*" = \["edge", "ops"\]'):
            await mesh.request("hub", "text:shout", "x")


async def test_nobody_joins_at_a_node_whose_authority_is_locked(
    lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    locked = trust.init("other", node_id="box", listen=(lab.url,), passphrase="x", state=lab.folder / "box").identity
    ticket = trust.invite(locked, "edge")
    async with lab.controller(locked):
        assert "authority/1 has a passphrase; give it in ZMESH_PASSPHRASE" in caplog.text
        with pytest.raises(zmesh.RemoteError, match="'box' reaches no node with the authority's key"):
            await trust.join(ticket, state=lab.folder / "edge")
    monkeypatch.setenv("ZMESH_PASSPHRASE", "x")
    async with lab.controller(Identity.load(locked.state)):
        joined = await trust.join(ticket, state=lab.folder / "edge")
    assert joined.identity.node_id == "edge"


async def test_a_transfer_goes_on_while_a_certificate_is_renewed_and_the_authority_changes(lab: Lab) -> None:
    identity = lab.identity("edge", age=0)
    async with lab.controller(lab.hub) as hub, lab.controller(identity) as edge:
        await edge.wait_for("hub", 60)
        events = seen(edge)
        blocks, count = 1024, 0

        def change() -> None:
            """What commands do beside the nodes."""
            command = Identity.load(lab.folder / "hub")
            issuer = Issuer.load(command)
            trust.begin_rotation(issuer, command)
            trust.finish_rotation(issuer)
            hub.reload()
            other = Identity.load(lab.folder / "edge")
            other.renewed(lab.issuer.issue(identity.key.public, "edge", (), time.time(), 80 * DAY))
            edge.reload()

        async def noise() -> Any:
            for number in range(blocks):
                if number == 200:
                    change()
                yield b"x" * 65536

        async with edge.stream("hub", "echo:echo", noise(), buffered=False, timeout=120) as replies:
            async for reply in replies:
                async for part in reply.payload:
                    count += len(part)
        assert count == blocks * 65536
        assert not of(zmesh.LinkLost, events)
        assert identity.certificate.not_after < time.time() + 81 * DAY


async def test_requests_that_are_refused_without_end_are_logged_at_a_bounded_rate(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has no certificate may make them."""
    issuing = Issuing(lab.hub)
    issuing._failures = FailureLog(lambda: 0.0)
    try:
        for _ in range(int(FAILURES.burst) + 10):
            await issuing.answer({})
    finally:
        issuing.close()
    said = [record for record in caplog.records if record.name == "zmesh.membership.issuing"]
    assert len(said) == FAILURES.burst
