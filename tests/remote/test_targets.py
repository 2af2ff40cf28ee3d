"""Targets: which nodes a text stands for, and the tags of nodes that it is about."""

import pytest

import zmesh
import zmesh.sync
from zmesh.testing import Mesh, eventually

KNOWN = {"edge-7": {"gpu", "lab"}, "edge-8": {"gpu"}, "edge-9": {"gpu"}, "hub": set()}


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("edge-7", ["edge-7"]),
        ("leaf@hub", ["leaf@hub"]),
        ("hub, edge-7,dead,hub", ["hub", "edge-7", "dead"]),
        ("tag:gpu", ["edge-7", "edge-8", "edge-9"]),
        ("tag:none", []),
        ("tag:gpu,!edge-9", ["edge-7", "edge-8"]),
        ("!edge-9,tag:gpu,hub", ["edge-7", "edge-8", "hub"]),
        ("tag:gpu,!tag:lab", ["edge-8", "edge-9"]),
        ("*", ["edge-7", "edge-8", "edge-9", "hub"]),
        ("!tag:gpu", ["hub"]),
        ("hub,!*", []),
    ],
)
def test_a_target_stands_for_nodes(text, nodes):
    assert zmesh.Target.of(text).nodes(KNOWN) == nodes


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("", "''"),
        ("a,,b", "'' in 'a,,b'"),
        ("tag:", "'tag:'"),
        ("tag:a b", "'tag:a b'"),
        ("!!a", "'!!a'"),
        ("a/b", "'a/b'"),
    ],
)
def test_what_is_no_target_is_named(text, term):
    with pytest.raises(zmesh.ConfigError, match=f"{term} is no target|{term}.* is no target"):
        zmesh.Target.of(text)


@pytest.mark.parametrize(
    ("text", "node"),
    [("a", "a"), ("a@b", "a@b"), ("a,b", None), ("tag:a", None), ("*", None), ("a,!b", None), ("!a", None)],
)
def test_a_target_of_one_node_is_distinguished_from_others(text, node):
    assert zmesh.Target.of(text).node == node


def test_only_tags_and_wildcards_need_the_tables_of_the_mesh():
    assert zmesh.Target.of("a,b,!c").names_nodes
    assert not any(zmesh.Target.of(text).names_nodes for text in ("tag:a", "a,!tag:b", "*", "!a"))


async def test_tags_of_the_configuration_are_known_to_all_nodes():
    async with (
        zmesh.Controller(node_id="hub", listen=["tcp://127.0.0.1:*"]) as hub,
        zmesh.Controller(node_id="edge-7", peers=hub.listening, tags=["gpu", "lab"]) as edge,
        zmesh.Controller(node_id="edge-8", peers=hub.listening, tags=["gpu"]),
    ):
        await eventually(lambda: len(edge.tags()) == 3)
        assert edge.tags() == hub.tags()
        assert hub.tags()["edge-7"] == zmesh.Tags((), ("gpu", "lab"))
        assert "lab" in hub.tags()["edge-7"]
        assert edge.nodes(tag="gpu") == ["edge-7", "edge-8"]
        assert edge.nodes("tag:gpu,!edge-8,dead") == ["edge-7", "dead"]
        assert edge.nodes() == ["edge-7", "edge-8", "hub"]
        with pytest.raises(zmesh.ConfigError, match="no target"):
            edge.nodes(tag="g p u")


def test_without_asyncio_tags_are_the_same():
    with zmesh.sync.Controller(node_id="solo", tags=["gpu"]) as mesh:
        assert mesh.tags() == {"solo": zmesh.Tags((), ("gpu",))}
        assert (mesh.nodes(tag="gpu"), mesh.nodes("!tag:gpu")) == (["solo"], [])


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("gpu", "must be a list"),
        (["g p u"], "which is not 1 to 64"),
        ([7], "which is not"),
        ([f"t{n}" for n in range(33)], "33 tags"),
    ],
)
def test_what_is_no_list_of_tags_is_refused(tags, said):
    with pytest.raises(zmesh.ConfigError, match=said):
        zmesh.Config(tags=tags)


async def test_a_request_goes_to_the_nodes_of_a_target():
    async with Mesh.chain("a", "b", "c") as mesh:
        await mesh.add("d", "a", tags=("gpu",))
        await mesh.settle()
        for target, nodes in (("tag:gpu,b", {"b", "d"}), ("!a,!b", {"c", "d"}), ("c", {"c"}), ("tag:none", set())):
            assert {answer.node async for answer in mesh["a"].request_many(target, "echo:echo")} == nodes
        tagged = {answer.node async for answer in mesh["a"].request_many(directive="echo:echo", tag="gpu")}
        assert tagged == set(mesh["a"].nodes(tag="gpu")) == {"d"}
        for both in ({"nodes": ["b"], "tag": "gpu"}, {}):
            with pytest.raises(zmesh.ConfigError, match="give either nodes"):
                mesh["a"].request_many(directive="echo:echo", **both)
        with pytest.raises(zmesh.ConfigError, match="is no target"):
            mesh["a"].request_many("tag:", "echo:echo")


async def test_an_ephemeral_node_knows_the_nodes_that_a_target_names_but_no_tags():
    async with Mesh("hub", tcp=True) as mesh:
        config = zmesh.Config(node_id="leaf", peers=mesh["hub"].listening, ephemeral=True)
        async with zmesh.Controller(config) as leaf:
            assert leaf.nodes("hub,edge") == ["hub", "edge"]
            assert [answer.node async for answer in leaf.request_many("hub", "echo:echo")] == ["hub"]
            with pytest.raises(zmesh.ConfigError):
                leaf.request_many("tag:gpu", "echo:echo")
