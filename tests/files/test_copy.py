"""Copies between nodes and this machine, over real sockets: `mesh.copy`, `file:read` and `file:write`."""

import contextlib
import gc
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import zmesh
from zmesh.errors import ConfigError, CopyFailed, NotAllowed
from zmesh.files.records import Kind, record
from zmesh.remote import pack
from zmesh.testing import Mesh, eventually

EVERYONE = {"file:*": ["*"]}


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with Mesh.chain("desk", "mid", "edge", allow=EVERYONE) as mesh:
        yield mesh


def written(path: Path, size: int, mode: int = 0o640) -> Path:
    path.write_bytes(os.urandom(size))
    path.chmod(mode)
    os.utime(path, ns=(1_000_000_007, 1_500_000_000_123_456_789))
    return path


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


def same(first: Path, second: Path) -> bool:
    a, b = first.lstat(), second.lstat()
    return (a.st_mode, a.st_mtime_ns, a.st_size) == (b.st_mode, b.st_mtime_ns, b.st_size) and (
        hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    )


@pytest.mark.parametrize("size", [0, 1, 65536, 1_044_480, 1_044_481, 5_000_000])
async def test_a_file_of_any_size_is_copied_there_and_back(mesh: Mesh, tmp_path: Path, size: int) -> None:
    source, there, back = written(tmp_path / "source", size), tmp_path / "there", tmp_path / "back"
    copied = await mesh["desk"].copy(source, f"edge:{there}")
    assert (copied.files, copied.size, copied.sent) == (1, size, size)
    assert same(source, there)
    copied = await mesh["desk"].copy(f"edge:{there}", back)
    assert (copied.files, copied.size, copied.sent) == (1, size, size)
    assert same(source, back)
    assert names(tmp_path) == ["back", "source", "there"]


async def test_a_copy_into_a_directory_keeps_the_name(mesh: Mesh, tmp_path: Path) -> None:
    source = written(tmp_path / "source", 1000)
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    await mesh["desk"].copy(source, f"edge:{tmp_path}/link")
    assert same(source, tmp_path / "there" / "source")
    assert (tmp_path / "link").is_symlink()


async def test_what_is_there_with_the_same_size_mode_and_time_is_left(mesh: Mesh, tmp_path: Path) -> None:
    source, there = written(tmp_path / "source", 1000), tmp_path / "there"
    await mesh["desk"].copy(source, f"edge:{there}")
    inode = there.stat().st_ino
    copied = await mesh["desk"].copy(source, f"edge:{there}")
    assert (copied.files, copied.skipped, copied.sent) == (0, 1, 0)
    assert there.stat().st_ino == inode
    source.write_bytes(b"new")
    assert (await mesh["desk"].copy(source, f"edge:{there}")).files == 1
    assert there.read_bytes() == b"new"


async def test_what_does_not_work_is_one_error_that_names_the_path(mesh: Mesh, tmp_path: Path) -> None:
    source = written(tmp_path / "source", 1000)
    desk = mesh["desk"]
    with pytest.raises(CopyFailed, match="no such file or directory"):
        await desk.copy(tmp_path / "none", "edge:/tmp")
    with pytest.raises(CopyFailed, match=r"node 'edge': .*/none': no such file or directory"):
        await desk.copy(f"edge:{tmp_path}/none", tmp_path)
    with pytest.raises(CopyFailed, match=r"node 'edge': .*/none/there': no such file or directory"):
        await desk.copy(source, f"edge:{tmp_path}/none/there")
    with pytest.raises(CopyFailed, match="there is no such directory"):
        await desk.copy(source, f"edge:{tmp_path}/there/")
    with pytest.raises(CopyFailed, match="recursive"):
        await desk.copy(tmp_path, f"edge:{tmp_path}/there")
    with pytest.raises(ConfigError, match="NODE:PATH"):
        await desk.copy(source, tmp_path / "there")
    assert names(tmp_path) == ["source"]


async def test_no_member_copies_that_is_not_allowed(tmp_path: Path) -> None:
    source = written(tmp_path / "source", 1000)
    async with Mesh.chain("desk", "edge") as mesh:
        with pytest.raises(NotAllowed, match=r'\[allow\] "file:\*" = \["desk"\]'):
            await mesh["desk"].copy(source, f"edge:{tmp_path}/there")
        with pytest.raises(NotAllowed):
            await mesh["desk"].copy(f"edge:{source}", tmp_path / "there")
    assert names(tmp_path) == ["source"]


def test_a_place_has_a_node_before_the_first_colon_or_none() -> None:
    assert zmesh.NodePath("edge", "/a:b") == zmesh.NodePath("edge", b"/a:b")
    assert str(zmesh.NodePath("edge", b"/\xff")) == "edge:/\udcff"
    with pytest.raises(ConfigError):
        zmesh.NodePath("no node", "/a")


def test_a_program_without_asyncio_copies_too(tmp_path: Path) -> None:
    source, back = written(tmp_path / "source", 1000), tmp_path / "back"
    settings = {"listen": ["tcp://127.0.0.1:*"], "allow": EVERYONE}
    with zmesh.sync.Controller(node_id="edge", **settings) as edge:
        with zmesh.sync.Controller(node_id="desk", peers=edge.listening, ephemeral=True) as desk:
            assert desk.copy([source], zmesh.NodePath("edge", tmp_path / "there")).files == 1
            assert desk.copy(zmesh.NodePath("edge", tmp_path / "there"), back).files == 1
    assert same(source, back)


async def test_a_tree_is_copied_there_and_back(mesh: Mesh, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep" / "deeper").mkdir(parents=True)
    (tree / "empty").mkdir(mode=0o750)
    written(tree / "file", 3_000_000)
    written(tree / "deep" / "deeper" / "file", 10)
    (tree / "link").symlink_to("deep/deeper")
    os.utime(tree / "deep", ns=(1, 1_400_000_000_000_000_001))
    for source, there in ((tree, f"edge:{tmp_path}/there"), (f"edge:{tmp_path}/there", tmp_path / "back")):
        copied = await mesh["desk"].copy(source, there, recursive=True)
        assert (copied.files, copied.directories, copied.links, copied.size) == (2, 4, 1, 3_000_010)
    for path in sorted(tree.rglob("*")):
        there = tmp_path / "back" / path.relative_to(tree)
        assert (there.lstat().st_mode, there.lstat().st_mtime_ns) == (path.lstat().st_mode, path.lstat().st_mtime_ns)
    assert (tmp_path / "back" / "link").readlink() == Path("deep/deeper")
    assert same(tree / "file", tmp_path / "back" / "file")


async def test_files_go_from_node_to_node(mesh: Mesh, tmp_path: Path) -> None:
    source, there = written(tmp_path / "source", 3_000_000), tmp_path / "there"
    reports: list[int] = []
    copied = await mesh["desk"].copy(
        f"edge:{source}", f"mid:{there}", on_progress=lambda progress: reports.append(progress.done)
    )
    assert (copied.files, copied.size, copied.sent) == (1, 3_000_000, 3_000_000)
    assert same(source, there)
    assert reports[-1] == 3_000_000
    with pytest.raises(CopyFailed, match="node 'edge': '/none': no such file or directory"):
        await mesh["desk"].copy("edge:/none", f"mid:{there}")


async def test_nodes_without_a_route_take_no_place_of_those_that_can_be_copied_to(mesh: Mesh, tmp_path: Path) -> None:
    source = written(tmp_path / "source", 1000)
    nodes = [*(f"dead-{number}" for number in range(20)), "mid", "edge"]
    async with mesh["desk"].copy_many(source, nodes, tmp_path / "there", max_parallel=1, route_timeout=600) as outcomes:
        found = [await anext(outcomes) for _ in range(2)]
        assert {each.node: each.state for each in found} == {"mid": zmesh.State.DONE, "edge": zmesh.State.DONE}
        outcomes.give_up("dead-3", "it is gone")
        assert (await anext(outcomes)).state == zmesh.State.UNREACHABLE


async def test_a_copy_that_takes_too_long_is_said_to_be_how_far(mesh: Mesh, tmp_path: Path) -> None:
    source = written(tmp_path / "source", 1000)
    outcomes = mesh["desk"].copy_many(source, ["dead"], tmp_path / "there", route_timeout=600, per_node_timeout=0.3)
    (error,) = [str(outcome.error) async for outcome in outcomes]
    assert error.startswith("node 'dead': not done within 0.3 s; nothing of it was copied; no route to 'dead' after ")


async def test_a_copy_to_many_nodes_has_an_outcome_for_each(mesh: Mesh, tmp_path: Path) -> None:
    source = written(tmp_path / "source", 1000)
    outcomes = mesh["desk"].copy_many(source, ["mid", "edge", "dead"], tmp_path / "there", route_timeout=0.2)
    found = {outcome.node: outcome.state async for outcome in outcomes}
    assert found == {"mid": zmesh.State.DONE, "edge": zmesh.State.DONE, "dead": zmesh.State.UNREACHABLE}
    assert outcomes.copied.keys() == {"mid", "edge"}
    assert same(source, tmp_path / "there")
    with pytest.raises(ConfigError):
        mesh["desk"].copy_many(source, ["mid"], tmp_path / "there", max_parallel=0)


# --- descriptors ----------------------------------------------------------------------------------------------------


def directories() -> Counter[str]:
    """The directories that this process has open."""
    found: Counter[str] = Counter()
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # it is closed again
            if os.path.isdir(link := f"/proc/self/fd/{each}"):
                found[os.readlink(link)] += 1
    return found


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Garbage that is in reference cycles stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("sources", "destination"),
    [
        ("missing", "edge:{folder}/there"),
        (["present", "missing"], "edge:{folder}/there"),
        ("present", "nobody:/there"),
        ("present", "edge:{folder}/no/such/folder/there"),
        ("nobody:/present", "{folder}/there"),
        ("edge:{folder}/missing", "{folder}/there"),
        (["edge:{folder}/present", "edge:{folder}/missing"], "{folder}"),
        ("edge:{folder}/missing", "mid:{folder}/there"),
        ("edge:{folder}/present", "nobody:{folder}/there"),
    ],
)
async def test_a_copy_that_fails_leaves_no_directory_open_even_before_garbage_is_collected(
    mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_collection: None, sources: Any, destination: str
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "present", 10)
    before = directories()
    placed = [sources] if isinstance(sources, str) else sources
    with pytest.raises(zmesh.MeshError):
        await mesh["desk"].copy(
            [each.format(folder=tmp_path) for each in placed], destination.format(folder=tmp_path), route_timeout=0.05
        )
    await eventually(lambda: not directories() - before)


async def test_a_malformed_copy_leaves_no_directory_open(mesh: Mesh, tmp_path: Path, no_collection: None) -> None:
    before = directories()
    for source in ({}, 1, {"node": "mid", "token": "text"}, {"node": "mid", "token": b"", "route_timeout": -1}):
        start = record(Kind.START, pack({"path": os.fsencode(tmp_path / "there"), "from": source}))
        with pytest.raises(zmesh.MeshError, match="from must be|route_timeout must be"):
            await mesh["desk"].request("edge", "file:write", start)
    await eventually(lambda: not directories() - before)
