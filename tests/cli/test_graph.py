"""`zmesh graph`: drawings of the mesh."""

import json
import math
import random
import xml.etree.ElementTree as ET
from typing import Any

import networkx
import pytest

from zmesh import GraphLink, GraphNode, MeshGraph
from zmesh_cli.graph import dot, svg
from zmesh_cli.graph_layout import layout


def of(graph: "networkx.Graph[int]", root: str = "n0") -> MeshGraph:
    """A graph as a node shows it."""
    hops = networkx.single_source_shortest_path_length(graph, int(root[1:]))
    nodes = tuple(GraphNode(f"n{node}", hops.get(node, 0), "", ()) for node in sorted(graph))
    links = tuple(GraphLink(f"n{min(pair)}", f"n{max(pair)}", 100, 130) for pair in sorted(map(sorted, graph.edges)))
    return MeshGraph(root, nodes, links)


def test_the_distance_from_the_middle_grows_with_the_hops() -> None:
    graph = networkx.balanced_tree(3, 3)
    places = layout(of(graph))
    hops = networkx.single_source_shortest_path_length(graph, 0)
    radii: dict[int, set[float]] = {}
    for node, distance in hops.items():
        radii.setdefault(distance, set()).add(round(math.hypot(*places[f"n{node}"]), 6))
    assert [len(ring) for ring in radii.values()] == [1, 1, 1, 1]
    in_order = [min(radii[distance]) for distance in sorted(radii)]
    assert in_order == sorted(in_order)
    assert in_order[0] == 0


def test_a_thousand_nodes_are_placed_apart_from_each_other_and_drawn() -> None:
    graph = networkx.random_regular_graph(4, 1000, seed=1)
    found = of(graph)
    places = layout(found)
    assert len(places) == 1000
    assert len({(round(x), round(y)) for x, y in places.values()}) == 1000
    assert len([*svg(found), *dot(found)]) > 8000


@pytest.mark.parametrize("seed", range(20))
def test_every_node_has_a_place_whatever_the_links(seed: int) -> None:
    rng = random.Random(seed)
    graph = networkx.gnp_random_graph(rng.randint(1, 30), rng.choice([0.0, 0.05, 0.2]), seed=seed)
    found = of(graph)
    places = layout(found)
    assert places.keys() == {node.node for node in found.nodes}
    assert all(math.isfinite(x) and math.isfinite(y) for x, y in places.values())


def test_names_of_others_are_escaped_and_half_links_are_dashed() -> None:
    nodes = (GraphNode("a", 0, "", ()), GraphNode('b"<&\x1b', 1, "", ()))
    found = MeshGraph("a", nodes, (GraphLink("a", nodes[1].node, 100, None), GraphLink("a", "gone", None, 5)))
    text = "".join(svg(found))
    root = ET.fromstring(text)
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["100", "5", "a", 'b"<&\\x1b', "gone"]
    assert 'class="half"' in text
    assert '  "a" -- "b\\"<&\\\\x1b" [label="100", style=dashed]' in dot(found)


def test_each_format_is_printed_for_a_real_mesh(mesh: Any) -> None:
    done = mesh.run("graph")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b'graph mesh {\n  "hub" [style=bold]\n  "far"\n  "mid"\n  "far" -- "mid" [label="')
    assert ET.fromstring(mesh.run("graph", "--format", "svg").stdout).tag.endswith("svg")
    shown = json.loads(mesh.run("graph", "--format", "json", "--at", "far").stdout)
    assert (shown["schema"], shown["node"], len(shown["links"])) == ("zmesh.graph/1", "far", 2)
    done = mesh.run("graph", "--format", "png")
    assert (done.returncode, done.stderr) == (2, b"zmesh: --format takes one of dot, svg, json, not 'png'\n")
