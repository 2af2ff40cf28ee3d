"""Copies whose links are cut, whose nodes and commands are killed, and whose sources change: whole, or not at all."""

import asyncio
import os
from functools import partial
from pathlib import Path

import pytest

import zmesh
from zmesh.errors import CopyFailed
from zmesh.testing import Mesh, eventually
from zmesh.testing.process import Process
from zmesh.testing.proxy import Proxy

ALLOW = {"file:*": ["*"]}
SIZE = 24_000_000
RATE = 12_000_000
"""Bytes a second of a slow link, so that a copy is under way when something befalls it."""


def node(name: str, *peers: str) -> zmesh.Controller:
    listen = ["tcp://127.0.0.1:*"]  # a node that is started again may take longer than the usual time without a route
    return zmesh.Controller(
        node_id=name, listen=listen, peers=list(peers), heartbeat=0.5, allow=ALLOW, route_timeout=600.0
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    return path


def begun(folder: Path) -> int:
    """The size of the only temporary in a folder; 0 if there is none."""
    found = [each.stat().st_size for each in folder.glob(".zmesh-*.part")]
    assert len(found) <= 1
    return sum(found)


def read(path: Path) -> bytes:
    return path.read_bytes()


def is_copied(source: Path, there: Path) -> bool:
    return there.read_bytes() == source.read_bytes() and os.listdir(there.parent) == [there.name]


async def cut_until(done: asyncio.Task[object], proxy: Proxy) -> int:
    """Cut all connections whenever they have passed some bytes, until the task is done; how often."""
    cuts = 0

    def has_passed(size: int) -> bool:
        return done.done() or proxy.back.passed + proxy.forth.passed > size

    while not done.done():
        await eventually(partial(has_passed, proxy.back.passed + proxy.forth.passed + 4_000_000))
        proxy.cut(reset=cuts % 2 == 0)
        cuts += 1
    return cuts


async def test_every_byte_is_copied_under_link_cuts(source: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "back").mkdir()
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy, node("desk", proxy.url) as desk:
        await desk.wait_for("edge", 90)
        for words in ((source, f"edge:{tmp_path}/there/"), (f"edge:{tmp_path}/there/source", tmp_path / "back")):
            copying = asyncio.ensure_future(desk.copy(*words))
            assert await cut_until(copying, proxy) > 3
            assert (await copying).size == SIZE
    assert is_copied(source, tmp_path / "there" / "source")
    assert is_copied(source, tmp_path / "back" / "source")


async def test_a_tree_of_many_files_is_copied_under_link_cuts(tmp_path: Path) -> None:
    for number in range(300):
        folder = tmp_path / "tree" / f"d{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(os.urandom(number * 200))
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy, node("desk", proxy.url) as desk:
        await desk.wait_for("edge", 90)
        copying = asyncio.ensure_future(desk.copy(tmp_path / "tree", f"edge:{tmp_path}/there", recursive=True))
        assert await cut_until(copying, proxy) > 1
        assert ((await copying).files, (await copying).directories) == (300, 8)
    for path in (tmp_path / "tree").rglob("f*"):
        assert (tmp_path / "there" / path.relative_to(tmp_path / "tree")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_command_that_was_killed_goes_on_where_it_was(source: Path, tmp_path: Path, at_once: bool) -> None:
    """Also when the node has not noticed yet that it was killed."""
    there = tmp_path / "there"
    there.mkdir()
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy:
        proxy.forth.rate = RATE
        expression = f"mesh.copy({str(source)!r}, 'edge:{there}/')"
        desk = await Process.begin("desk", peers=[proxy.url], listen=[], ephemeral=True)
        desk.start(expression)
        await eventually(lambda: begun(there) > SIZE // 4)
        desk.kill()
        desk.close()
        if at_once:
            kept = 0
        else:
            await eventually(lambda: not edge.stats().serving)
            kept = begun(there)
            assert SIZE // 4 < kept < SIZE
        assert os.listdir(there) != ["source"]
        proxy.forth.rate = float("inf")
        async with zmesh.Controller(node_id="desk", peers=[proxy.url], ephemeral=True) as again:
            await again.wait_for("edge", 90)
            copied = await again.copy(source, f"edge:{there}/")
    assert copied.resumed == 1
    assert copied.sent == SIZE - kept or (at_once and copied.sent < SIZE)
    assert is_copied(source, there / "source")


async def test_a_node_that_is_killed_and_started_again_goes_on_where_it_was(source: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    edge = await Process.begin("edge", allow=ALLOW)
    async with Proxy(edge.listening[0]) as proxy, node("desk", proxy.url) as desk:
        try:
            proxy.forth.rate = RATE
            await desk.wait_for("edge", 90)
            copying = asyncio.ensure_future(desk.copy(source, f"edge:{there}/"))
            await eventually(lambda: begun(there) > SIZE // 4)
            edge.kill()
            edge.close()
            kept = begun(there)
            edge = await Process.begin("edge", allow=ALLOW)
            proxy.forth.rate = float("inf")
            proxy.aim(edge.listening[0])
            copied = await copying
        finally:
            edge.close()
    assert (copied.resumed, copied.sent) == (1, SIZE - kept)
    assert is_copied(source, there / "source")


async def test_a_client_that_is_killed_ends_a_copy_between_two_nodes_which_is_resumed(
    source: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy, node("store", proxy.url) as store:
        proxy.back.rate = RATE / 5  # until the nodes have noticed that their client is gone
        await store.wait_for("edge", 90)
        desk = await Process.begin("desk", peers=store.listening, listen=[], ephemeral=True)
        desk.start(f"mesh.copy('edge:{source}', 'store:{there}/')")
        await eventually(lambda: begun(there) > SIZE // 16)
        desk.kill()
        desk.close()
        await eventually(lambda: not edge.stats().serving and not store.stats().serving)
        kept = begun(there)
        assert SIZE // 16 < kept < SIZE
        proxy.back.rate = float("inf")
        async with zmesh.Controller(node_id="desk", peers=store.listening, ephemeral=True) as again:
            await again.wait_for("edge", 90)
            copied = await again.copy(f"edge:{source}", f"store:{there}/")
    assert (copied.resumed, copied.sent) == (1, SIZE - kept)
    assert is_copied(source, there / "source")


async def test_a_copy_between_two_nodes_goes_on_when_its_source_was_killed_and_is_back(
    source: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    edge = await Process.begin("edge", allow=ALLOW)
    async with Proxy(edge.listening[0]) as proxy, node("store", proxy.url) as store:
        async with node("desk", store.listening[0]) as desk:
            try:
                proxy.back.rate = RATE / 2
                await desk.wait_for("edge", 90)
                copying = asyncio.ensure_future(desk.copy(f"edge:{source}", f"store:{there}/"))
                await eventually(lambda: begun(there) > SIZE // 8)
                edge.kill()
                edge.close()
                await eventually(lambda: "edge" not in {link.node for link in store.links()})
                kept = begun(there)
                edge = await Process.begin("edge", allow=ALLOW)
                proxy.back.rate = float("inf")
                proxy.aim(edge.listening[0])
                copied = await copying
            finally:
                edge.close()
    assert copied.resumed == 1
    assert 0 < copied.sent <= SIZE - kept
    assert is_copied(source, there / "source")


async def test_a_copy_whose_source_stays_away_ends_with_its_name_and_the_same_copy_goes_on_later(
    source: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    words = (f"edge:{source}", f"store:{there}/")
    edge = await Process.begin("edge", allow=ALLOW)
    async with Proxy(edge.listening[0]) as proxy, node("store", proxy.url) as store:
        async with node("desk", store.listening[0]) as desk:
            try:
                proxy.back.rate = RATE / 2
                await desk.wait_for("edge", 90)
                copying = asyncio.ensure_future(desk.copy(*words, route_timeout=1.0))
                await eventually(lambda: begun(there) > SIZE // 8)
                edge.kill()
                edge.close()
                with pytest.raises((CopyFailed, zmesh.Unreachable), match="'edge'") as caught:
                    await copying
                assert "\n" not in str(caught.value)
                await eventually(lambda: not store.stats().serving)
                kept = begun(there)
                edge = await Process.begin("edge", allow=ALLOW)
                proxy.back.rate = float("inf")
                proxy.aim(edge.listening[0])
                await desk.wait_for("edge", 90)
                copied = await desk.copy(*words)
            finally:
                edge.close()
    assert (copied.resumed, copied.sent) == (1, SIZE - kept)
    assert is_copied(source, there / "source")


async def test_files_between_two_nodes_do_not_pass_through_the_client(source: Path, tmp_path: Path) -> None:
    async with node("edge") as edge, node("store", edge.listening[0]) as store, Proxy(store.listening[0]) as proxy:
        async with node("desk", proxy.url) as desk:
            await desk.wait_for("edge", 90)
            assert (await desk.copy(f"edge:{source}", f"store:{tmp_path}/there")).sent == SIZE
            assert proxy.forth.passed + proxy.back.passed < SIZE // 10
    assert read(tmp_path / "there") == read(source)


@pytest.mark.parametrize("change", ["append", "truncate", "touch", "replace", "remove"])
async def test_a_source_that_changes_is_not_copied(source: Path, tmp_path: Path, change: str) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "source").write_text("old")
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy, node("desk", proxy.url) as desk:
        proxy.forth.rate = RATE
        await desk.wait_for("edge", 90)
        copying = asyncio.ensure_future(desk.copy(source, f"edge:{there}/"))
        await eventually(lambda: begun(there) > SIZE // 8)
        proxy.forth.rate = float("inf")
        match change:
            case "append":
                os.truncate(source, SIZE + 1)
            case "truncate":
                os.truncate(source, SIZE - 1)
            case "touch":
                os.utime(source)
            case "replace":
                (tmp_path / "new").write_bytes(b"new")
                os.rename(tmp_path / "new", source)
            case "remove":
                os.unlink(source)
        if change in ("replace", "remove"):  # the file that was opened is still there, and whole
            assert (await copying).files == 1
            return
        with pytest.raises(CopyFailed, match="source' was changed while it was copied: copy it again"):
            await copying
    assert os.listdir(there) == ["source"]
    assert (there / "source").read_text() == "old"


async def test_a_source_that_is_gone_is_a_line_and_all_else_is_copied(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "first").write_bytes(os.urandom(SIZE))
    (tree / "second").write_text("second")
    order = [each.name for each in os.scandir(tree)]
    gone = order[1]
    (tree / order[0]).write_bytes(os.urandom(SIZE))
    (tree / gone).write_text("gone soon")
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy, node("desk", proxy.url) as desk:
        proxy.forth.rate = RATE
        await desk.wait_for("edge", 90)
        copying = asyncio.ensure_future(desk.copy(tree, f"edge:{tmp_path}/there", recursive=True))
        await eventually(lambda: (tmp_path / "there").is_dir() and begun(tmp_path / "there") > SIZE // 8)
        (tree / gone).unlink()
        proxy.forth.rate = float("inf")
        with pytest.raises(CopyFailed) as caught:
            await copying
    assert caught.value.failures == [f"'{tree}/{gone}': no such file or directory"]
    assert os.listdir(tmp_path / "there") == [order[0]]


async def test_where_nothing_may_be_written_that_is_one_line(source: Path) -> None:
    async with Mesh.chain("desk", "edge", allow=ALLOW) as mesh:
        with pytest.raises(CopyFailed, match=r"node 'edge': '/sys/there': (permission denied|read-only|operation not)"):
            await mesh["desk"].copy(source, "edge:/sys/there")


async def test_a_node_makes_no_more_copies_than_it_may(source: Path, tmp_path: Path) -> None:
    settings = {"plugins": {"file": {"max_transfers": 1}}}
    async with Mesh("desk", "edge", edges=(("desk", "edge"),), allow=ALLOW, **settings) as mesh:
        pipe = tmp_path / "there"
        pipe.mkdir()
        first = mesh["desk"].stream("edge", "file:write", b"", writable=True)
        async with first:
            await eventually(lambda: mesh["edge"].stats().serving)
            await mesh["desk"].copy(source, f"edge:{pipe}/")  # a request that has not said what it wants is none
        copies = [asyncio.ensure_future(mesh["desk"].copy(f"edge:{source}", tmp_path / f"c{n}")) for n in range(4)]
        ends = await asyncio.gather(*copies, return_exceptions=True)
        assert any(isinstance(each, zmesh.Copied) for each in ends)
        assert all(isinstance(each, (zmesh.Copied, zmesh.NodeOverloaded)) for each in ends)
        assert any("[file] max_transfers" in str(each) for each in ends)
