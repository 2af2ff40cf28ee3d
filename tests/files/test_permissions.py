"""What `[allow]` and `[file]` let a member do at a node is exactly that, whatever it asks for."""

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import zmesh
from zmesh.errors import ConfigError, CopyFailed, NotAllowed, RemoteError
from zmesh.files.records import Kind, record
from zmesh.files.settings import FileSettings
from zmesh.remote import pack
from zmesh.testing import Mesh


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Directories to read from and to write to, and a secret beside them."""
    for name in ("out", "in", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "out" / "way-out").symlink_to("../secret")
    (tmp_path / "out" / "absolute").symlink_to(tmp_path / "secret" / "file")
    (tmp_path / "in" / "way-out").symlink_to(tmp_path / "secret")
    (tmp_path / "source").write_text("source")
    return tmp_path


@pytest.fixture
async def mesh(places: Path) -> AsyncIterator[Mesh]:
    table = {"read": [str(places / "out")], "write": [str(places / "in")], "directory": str(places / "in")}
    async with Mesh("desk") as mesh:
        await mesh.add("edge", "desk", allow={"file:*": ["desk"]}, plugins={"file": table})
        await mesh.settle()
        yield mesh


def contents(folder: Path) -> dict[Path, str]:
    return {each: each.read_text() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize(
    "path",
    ["secret/file", "in/file", "out/../secret/file", "out/way-out/file", "out/absolute", "outside", "/etc/passwd",
     "../../../../../../etc/passwd", "out/way-out", "out/../out/../secret"],
)  # fmt: skip
async def test_nothing_else_can_be_read(mesh: Mesh, places: Path, path: str) -> None:
    with pytest.raises((NotAllowed, CopyFailed)) as caught:
        await mesh["desk"].copy(f"edge:{places}/{path}" if not path.startswith("/") else f"edge:{path}", places / "got")
    assert isinstance(caught.value, NotAllowed) or path == "out/way-out"
    assert not (places / "got").exists()
    assert "[file] read allows" in str(caught.value) or "directory" in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["secret/file", "out/file", "in/../secret/file", "in/way-out/file", "in/way-out/", "in/way-out", "new", "/tmp/new",
     "in/../new", ".", ""],
)  # fmt: skip
async def test_nothing_else_can_be_written(mesh: Mesh, places: Path, path: str) -> None:
    before, place = contents(places), f"{places}/{path}" if not path.startswith("/") else path
    with pytest.raises(NotAllowed, match=r"\[file\] write allows .*/in here, and .* leads elsewhere"):
        await mesh["desk"].copy(places / "source", f"edge:{place}")
    assert contents(places) == before


async def test_what_is_allowed_works_by_each_of_its_paths(mesh: Mesh, places: Path) -> None:
    desk = mesh["desk"]
    for number, path in enumerate((f"{places}/in/x", f"{places}/in/../in/y", "z", "./sub/../w")):
        (places / "in" / "sub").mkdir(exist_ok=True)
        if number == 1:
            with pytest.raises(NotAllowed):  # `..` leads above the top on the way
                await desk.copy(places / "source", f"edge:{path}")
            continue
        assert (await desk.copy(places / "source", f"edge:{path}")).files == 1
    assert sorted(os.listdir(places / "in")) == ["file", "sub", "w", "way-out", "x", "z"]
    assert (await desk.copy(f"edge:{places}/out/file", places / "got")).files == 1


async def test_a_tree_takes_its_links_along_as_links_and_none_that_lead_out(mesh: Mesh, places: Path) -> None:
    desk = mesh["desk"]
    await desk.copy(f"edge:{places}/out", places / "got", recursive=True)
    assert (places / "got" / "way-out").is_symlink()
    assert sorted(os.listdir(places / "got")) == ["absolute", "file", "way-out"]
    with pytest.raises(CopyFailed) as caught:
        await desk.copy(places / "got", f"edge:{places}/in/tree", recursive=True)
    assert caught.value.failed == 1
    assert "would lead out of the directories of [file] write" in str(caught.value)
    assert sorted(os.listdir(places / "in" / "tree")) == ["file", "way-out"]
    assert (places / "in" / "tree" / "way-out").readlink() == Path("../secret")  # in/secret there


async def test_each_direction_is_allowed_by_itself(places: Path) -> None:
    async with Mesh("desk") as mesh:
        await mesh.add("edge", "desk", allow={"file:write": ["desk"]})
        await mesh.settle()
        await mesh["desk"].copy(places / "source", f"edge:{places}/there")
        with pytest.raises(NotAllowed, match="call file:read"):
            await mesh["desk"].copy(f"edge:{places}/secret/file", places / "got")
        assert not (places / "got").exists()


@pytest.mark.parametrize(
    "start",
    [{}, {"paths": []}, {"paths": [b""]}, {"paths": [b"a\0b"]}, {"paths": [b"x" * 4097]}, {"paths": ["text"]},
     {"paths": [b"a"] * 1025}, {"path": "text"}, {"path": b""}, {"path": b"a\0b"}],
)  # fmt: skip
async def test_a_request_that_is_malformed_is_refused(mesh: Mesh, start: dict[str, object]) -> None:
    for directive in ("file:read", "file:write"):
        with pytest.raises(RemoteError, match="path"):
            await mesh["desk"].request("edge", directive, record(Kind.START, pack(start)))
    for begin in (b"", b"\1", record(Kind.FINISH), record(Kind.START, b"\xc1"), record(Kind.START, b"\7")):
        with pytest.raises(RemoteError):
            await mesh["desk"].request("edge", "file:write", begin)


async def test_the_log_says_who_has_copied_what(mesh: Mesh, places: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "zmesh.remote.audit"):
        await mesh["desk"].copy(places / "source", f"edge:{places}/in/there")
        await mesh["desk"].copy(f"edge:{places}/out/file", places / "got")
    lines = [each.getMessage() for each in caplog.records if each.name == "zmesh.remote.audit"]
    assert lines[0] == f"desk writes '{places}/in/there'"
    assert lines[1].startswith(f"desk writes '{places}/in/there': done, 1 files, 6 bytes in ")
    assert lines[2] == f"desk reads '{places}/out/file'"
    assert lines[3].startswith(f"desk reads '{places}/out/file': done, 1 files, 3 bytes in ")


def test_settings_that_mean_nothing_are_refused() -> None:
    for wrong in (
        {"read": ("relative",)}, {"write": ("/a/../b",)}, {"read": ("/a\0",)}, {"directory": "relative"},
        {"max_transfers": 0}, {"max_file_bytes": -1}, {"keep_partial": -1.0},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FileSettings(**wrong)  # type: ignore[arg-type]


async def test_a_table_that_is_wrong_keeps_the_node_from_opening() -> None:
    with pytest.raises(ConfigError, match=r"\[file\].*read"):
        async with zmesh.Controller(node_id="edge", plugins={"file": {"read": "/tmp"}}):
            pass
