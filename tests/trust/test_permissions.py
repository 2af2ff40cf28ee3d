"""Who may do what is decided by what certificates say, over real sockets."""

import time

import pytest

import zmesh
from tests.membership.conftest import Lab
from tests.trust.eavesdropping import keyed
from zmesh.identity import Identity, IdentityKey, Profile, State, TrustStore


def identity(lab: Lab, name: str, *tags: str) -> Identity:
    """An identity with tags."""
    key = IdentityKey.generate()
    certificate = lab.issuer.issue(key.public, name, tags, time.time() - 60, 86400.0)
    return Identity.create(
        State(lab.folder / name),
        Profile("lab", name),
        key,
        certificate,
        TrustStore("lab", lab.issuer.trust.authorities),
    )


async def test_a_tag_of_the_certificate_allows_what_the_id_does_not(lab: Lab) -> None:
    allow = {"echo:*": ["tag:admin"]}
    edge = lab.controller(identity(lab, "edge"), listen=["tcp://127.0.0.1:0"], allow=allow)
    async with edge:
        peers = [keyed(edge)]
        admin = lab.controller(identity(lab, "ops", "admin"), peers=peers)
        other = lab.controller(identity(lab, "guest", "gpu"), peers=peers)
        async with admin, other:
            for node in (admin, other):
                await node.wait_for("edge", 90)
            reply = await admin.request("edge", "echo:echo", "hello")
            assert reply is not None
            assert reply.text() == "hello"
            with pytest.raises(zmesh.NotAllowed, match=r"does not let 'guest' \(tags: gpu\) call echo:echo"):
                await other.request("edge", "echo:echo", "hello")


async def test_a_leaf_with_a_certificate_of_its_own_does_not_act_in_the_name_of_the_node_it_dials(lab: Lab) -> None:
    """It may do what its own certificate allows, at that node and at others."""
    hub = lab.controller(identity(lab, "relay"), listen=["tcp://127.0.0.1:0"], allow={"echo:*": ["ada"]})
    async with hub:
        edge = lab.controller(identity(lab, "edge"), peers=[keyed(hub)], allow={"digest:*": ["relay"]})
        leaf = lab.controller(identity(lab, "ada"), peers=[keyed(hub)], ephemeral=True)
        async with edge, leaf:
            await hub.wait_for("edge", 90)
            reply = await leaf.request("relay", "echo:echo", "hello")
            assert reply is not None
            assert reply.text() == "hello"
            assert await leaf.request("edge", "echo:echo", "hello")
            assert await hub.request("edge", "digest:sha256", b"hello")
            with pytest.raises(zmesh.NotAllowed, match=r"does not let 'ada' call digest:sha256"):
                await leaf.request("edge", "digest:sha256", b"hello")


async def test_a_person_is_known_by_certificate_at_nodes_that_the_laptop_does_not_dial(lab: Lab) -> None:
    allow = {"echo:*": ["ada"], "digest:*": ["tag:ops"], "sleep:*": ["relay"]}
    hub = lab.controller(identity(lab, "relay"), listen=["tcp://127.0.0.1:0"])
    async with hub:
        edge = lab.controller(identity(lab, "edge"), peers=[keyed(hub)], allow=allow)
        laptop = lab.controller(identity(lab, "ada", "ops"), peers=[keyed(hub)], ephemeral=True)
        async with edge, laptop:
            await hub.wait_for("edge", 90)
            assert await laptop.request("edge", "echo:echo", "hello")
            assert await laptop.request("edge", "digest:sha256", b"hello")
            with pytest.raises(zmesh.NotAllowed, match=r"does not let 'ada' \(tags: ops\) call sleep:execute"):
                await laptop.request("edge", "sleep:execute", "0")
            for directive in ("echo:echo", "digest:sha256"):
                with pytest.raises(zmesh.NotAllowed, match="does not let 'relay'"):
                    await hub.request("edge", directive, "hello")
