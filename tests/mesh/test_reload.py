"""Settings that change while a node runs: what changes at once, what stays, and what a bad file leaves as it was."""

import asyncio
import contextlib
import dataclasses

import pytest

import zmesh
import zmesh.sync
from zmesh.testing import Mesh, eventually

ANY = "tcp://127.0.0.1:*"


@pytest.fixture
async def nodes():
    """A node `a` whose settings are in `a.config`; `b` and `c` listen, `a` dials `b`."""
    async with Mesh("b", "c", tcp=True, heartbeat=0.25) as mesh:
        await mesh.add("a", peers=mesh["b"].listening)
        await eventually(lambda: mesh["a"].links() and "a" in mesh["b"].tags())
        yield mesh


def changed(node, **settings):
    """Reload a node with these settings in place of those that it has."""
    return node.reload(dataclasses.replace(node.config, **settings))


def links(node):
    return {(link.node, link.link) for link in node.links()}


async def test_a_new_peer_is_dialled_and_the_link_that_stays_is_not_touched(nodes, reports):
    a, (b,), (c,) = nodes["a"], nodes["b"].listening, nodes["c"].listening
    before, seen = links(a), reports(a.node)
    assert changed(a, peers=(c, b)) == zmesh.Reloaded(("peers",), ())
    await eventually(lambda: len(links(a)) == 2)
    assert before < links(a)
    assert [report for report in seen if report.event == "link_lost"] == []


async def test_a_peer_that_is_taken_out_gets_a_goodbye_and_is_dialled_no_more(nodes, reports):
    a, seen = nodes["a"], reports(nodes["b"].node)
    changed(a, peers=nodes["c"].listening)
    await eventually(lambda: [link.node for link in a.links()] == ["c"])
    await eventually(lambda: [r.detail for r in seen if r.event == "link_lost"])
    assert [r.detail for r in seen if r.event == "link_lost"] == ["they left: it is no peer of it any more"]
    assert [dial.url for dial in a.node._transport.dials()] == nodes["c"].listening


async def test_a_peer_that_never_answered_is_forgotten(nodes, free_port):
    a, dead = nodes["a"], f"tcp://127.0.0.1:{free_port}"
    changed(a, peers=(*a.config.peers, dead))
    await eventually(lambda: dead in str(a.node.engine.hint("x", 0.0)))
    changed(a, peers=a.config.peers[:1])
    assert dead not in str(a.node.engine.hint("x", 0.0))


async def test_addresses_to_listen_on_come_and_go(nodes):
    a = nodes["a"]
    changed(a, listen=(*a.config.listen, "inproc://reload-a"))
    assert "inproc://reload-a" in a.listening
    nodes["c"].add_peer("inproc://reload-a")
    await eventually(lambda: len(a.links()) == 2)
    first = links(a) - {each for each in links(a) if each[0] == "c"}
    changed(a, listen=a.config.listen[:1])
    await eventually(lambda: links(a) == first)
    assert "inproc://reload-a" not in a.listening


async def test_an_address_that_the_program_has_added_stays():
    async with zmesh.Controller(node_id="a", listen=["inproc://reload-first"]) as a:
        a.enable_server("inproc://reload-later")
        changed(a, listen=())
        assert a.listening == ["inproc://reload-later"]
    b = zmesh.Controller(node_id="b")
    b.enable_server("inproc://reload-before")
    async with b:
        changed(b, listen=["inproc://reload-new"])
        assert b.listening == ["inproc://reload-before", "inproc://reload-new"]


async def test_an_address_that_is_taken_changes_nothing(nodes):
    a, taken = nodes["a"], nodes["b"].listening[0]
    before = a.config, list(a.listening), links(a)
    with pytest.raises(zmesh.AddressError, match="it is in use"):
        changed(a, listen=(ANY, "inproc://reload-b", taken), peers=(), tags=("gpu",), max_work=1)
    assert (a.config, a.listening, links(a)) == before

    def listens() -> bool:  # ZeroMQ frees an address a moment after its socket was closed
        with contextlib.suppress(zmesh.AddressError):
            return bool(changed(a, listen=(*a.config.listen, "inproc://reload-b")))
        return False

    await eventually(listens)


@pytest.mark.parametrize(
    "wrong",
    [
        {"allow": {"exec": ["a"]}},
        {"peers": ("tcp://203.0.113.7:1",)},
        {"listen": ("rnps://127.0.0.1:*",)},
        {"plugins": {"exec": {"user": 3}}},
        {"plugins": {"http": {"read_timeout": -1}}},
    ],
)
async def test_settings_that_can_not_be_used_change_nothing(nodes, wrong):
    a = nodes["a"]
    before, seen = a.config, links(a)
    with pytest.raises(zmesh.ConfigError):
        changed(a, **({"tags": ("gpu",), "peers": ()} | wrong))
    assert a.config == before
    assert links(a) == seen
    assert nodes["b"].tags()["a"].own == ()


async def test_tags_and_permissions_change_at_once(nodes):
    a, b = nodes["a"], nodes["b"]
    changed(a, tags=("gpu",), allow={"echo:*": []})
    with pytest.raises(zmesh.NotAllowed):
        await b.request("a", "echo:echo", b"")
    await eventually(lambda: b.nodes(tag="gpu") == ["a"])
    await eventually(lambda: "echo:echo" not in b.capabilities()["a"])
    changed(a, tags=(), allow={})
    assert (await b.request("a", "echo:echo", "again")).text() == "again"


async def test_limits_change_for_the_work_that_begins(nodes):
    a, b = nodes["a"], nodes["b"]
    changed(a, max_work=1)
    async with b.stream("a", "sleep:execute", "30"):
        await eventually(lambda: a.stats().serving == 1)
        with pytest.raises(zmesh.NodeOverloaded, match="1 requests already"):
            await b.request("a", "echo:echo", b"")
        changed(a, max_work=2, max_payload_bytes=65_536, max_waiting_bytes=65_536, route_timeout=0.1)
        await b.request("a", "echo:echo", b"")
        with pytest.raises(zmesh.MeshError, match="max_payload_bytes"):
            await b.request("a", "echo:echo", bytes(70_000))
    with pytest.raises(zmesh.Unreachable, match=r"after 0\.1"):
        await a.request("nobody", "echo:echo", b"")


async def test_a_plugin_that_takes_other_settings_has_them_at_once(nodes):
    a, b = nodes["a"], nodes["b"]
    allow = {"exec:run": ["b"]}
    assert changed(a, allow=allow, plugins={"exec": {"commands": ["true"]}}) == (("allow", "plugins"), ())
    assert await b.check_output("a", ["true"]) == b""
    with pytest.raises(zmesh.NotAllowed):
        await b.check_output("a", ["echo", "x"])
    changed(a, plugins={"exec": {"commands": ["echo *"]}})
    assert await b.check_output("a", ["echo", "x"]) == b"x\n"


async def test_settings_that_need_another_start_are_named_and_keep_their_value(nodes):
    a = nodes["a"]
    seen = []
    a.watch(seen.append)
    plugins = {"http": {"read_timeout": 5}}
    reloaded = changed(a, node_id="z", heartbeat=9.0, tags=("gpu",), plugins=plugins)
    assert reloaded == (("plugins", "tags"), ("heartbeat", "node_id", "plugins.http"))
    assert (a.node_id, a.config.node_id, a.config.heartbeat) == ("a", "a", 0.25)
    assert seen == [zmesh.ConfigurationChanged("a", reloaded.changed, reloaded.at_restart)]


async def test_a_node_reads_its_settings_anew_from_where_they_were(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text(f'node_id = "a"\nlisten = ["{ANY}"]\ntags = ["one"]\n')
    async with zmesh.Controller(zmesh.Config.load(file, environ={})) as a:
        file.write_text(f'node_id = "a"\nlisten = ["{ANY}"]\ntags = ["two"]\nmax_work = 0\n')
        with pytest.raises(zmesh.ConfigError, match=rf"{file}:4: max_work"):
            a.reload()
        assert a.config.tags == ("one",)
        file.write_text(f'listen = ["{ANY}"]\ntags = ["two"]\n')
        assert a.reload() == (("tags",), ())
        assert (a.node_id, a.tags()["a"].own) == ("a", ("two",))
        with pytest.raises(zmesh.RemoteError, match="NotAllowed: .* on the machine of 'a' alone"):
            await a.request("a", "zmesh:reload")
    with pytest.raises(zmesh.Closed):
        a.reload()


def test_a_program_without_asyncio_changes_settings(tmp_path):
    with zmesh.sync.Controller(node_id="a") as mesh:
        assert mesh.reload(zmesh.Config(node_id="a", tags=("gpu",))) == (("tags",), ())
        assert mesh.nodes(tag="gpu") == ["a"]


async def test_a_transfer_over_a_link_that_stays_goes_on_through_many_reloads(nodes):
    a, (b,), (c,) = nodes["a"], nodes["b"].listening, nodes["c"].listening
    transfer = asyncio.ensure_future(a.request("b", "digest:sha256", bytes(64 * 1024 * 1024)))
    for peers in ((b, c), (b,)) * 5:
        changed(a, peers=peers)
        await eventually(lambda peers=peers: len(a.links()) == len(peers))
    assert len((await transfer).text()) == 64
