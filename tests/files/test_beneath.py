"""No path leads out of the allowed directories: by `..`, by links, or while the directories are exchanged."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.files.beneath import MAX_LINKS, Outside, Spot, find, is_beneath, open_beneath


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A directory that is allowed, beside one that is not."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("secret")
    (tmp_path / "in" / "a" / "b").mkdir(parents=True)
    (tmp_path / "in" / "a" / "file").write_text("open")
    return tmp_path / "in"


def leads_to(spot: Spot) -> Path:
    """Where a spot really is."""
    parent = Path(os.readlink(f"/proc/self/fd/{spot.parent}"))
    return parent if spot.name is None else parent / os.fsdecode(spot.name)


def found(top: Path, path: str, *, follow: bool = True) -> Path:
    return leads_to(find([bytes(top)], os.fsencode(f"{top}/{path}"), follow=follow))


def test_a_path_leads_to_what_it_names_even_if_nothing_is_there(top: Path) -> None:
    assert found(top, "") == top
    assert found(top, "a/b/") == top / "a" / "b"
    assert found(top, "./a//file") == top / "a" / "file"
    assert found(top, "a/none") == top / "a" / "none"
    assert found(top, "a/b/../file") == top / "a" / "file"
    for path in ("none/x", "a/file/x"):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            found(top, path)


@pytest.mark.parametrize(
    "path",
    ["../secret/file", "a/../../secret/file", "a/b/../../../secret", "..", "../in/../secret/file", "a/../../in/a/file"],
)
def test_dots_never_lead_out(top: Path, path: str) -> None:
    with pytest.raises(Outside):
        found(top, path)


@pytest.mark.parametrize(
    ("target", "leads"),
    [
        ("a", "a"),
        ("a/b/..", "a"),
        ("./a/../a/b", "a/b"),
        ("../secret", None),
        ("/", None),
        ("{top}/a", None),
        ("a/../../secret", None),
        ("/proc/self/root", None),
        ("/proc/self/cwd", None),
    ],
)
def test_a_link_is_followed_where_it_stays_inside(top: Path, target: str, leads: str | None) -> None:
    (top / "link").symlink_to(target.format(top=top))
    (top / "to-link").symlink_to("link")
    for name in ("link", "to-link", "a/../link"):
        if leads is None:
            with pytest.raises(Outside):
                found(top, f"{name}/file")
            with pytest.raises(Outside):
                found(top, name)
        else:
            assert found(top, f"{name}/file") == top / leads / "file"
            assert found(top, name) == top / leads
        assert found(top, name, follow=False) == top / Path(name).name


def test_links_in_a_circle_end(top: Path) -> None:
    (top / "one").symlink_to("two")
    (top / "two").symlink_to("one")
    with pytest.raises(OSError, match="Too many levels"):
        found(top, "one/file")
    for number in range(MAX_LINKS + 1):
        (top / f"l{number}").symlink_to(f"l{number + 1}")
    (top / f"l{MAX_LINKS + 1}").symlink_to("a")
    assert found(top, "l2/file") == top / "a" / "file"
    with pytest.raises(OSError, match="Too many levels"):
        found(top, "l1/file")


def test_the_prefix_of_a_name_is_no_directory_above(top: Path) -> None:
    (top.parent / "inside").mkdir()
    for path in (f"{top}side/x", f"{top}/../inside", "/", "/etc/passwd"):
        with pytest.raises(Outside):
            find([bytes(top)], path.encode(), follow=True)
    assert leads_to(find([b"/usr", bytes(top)], bytes(top / "a"), follow=True)) == top / "a"
    with pytest.raises(Outside):
        find([], bytes(top), follow=True)


def test_where_all_is_allowed_a_path_leads_where_the_system_leads(top: Path) -> None:
    (top / "link").symlink_to("../secret")
    (top / "absolute").symlink_to(top.parent / "secret")
    for path in (f"{top}/link/file", f"{top}/absolute/file", f"{top}/a/../../secret/file", "/../../etc/passwd"):
        assert leads_to(find([b"/"], path.encode(), follow=True)) == Path(path).resolve()


def test_beneath_a_directory_no_link_is_followed_at_all(top: Path) -> None:
    (top / "link").symlink_to("a")
    descriptor = os.open(top, os.O_PATH)
    try:
        os.close(open_beneath(descriptor, (b"a", b"b")))
        for names in ((b"link",), (b"link", b"b"), (b"a", b"..", b"link")):
            with pytest.raises(OSError, match="Not a directory|Too many levels"):
                open_beneath(descriptor, names)
    finally:
        os.close(descriptor)


names = st.sampled_from([b"..", b"a", b"b", b"l", b"m", b"file", b".", b""])
targets = st.lists(names, min_size=1, max_size=5).map(b"/".join).filter(bool)


@given(st.lists(names, max_size=8).map(b"/".join), targets, targets)
def test_whatever_path_and_links_there_are_it_is_inside_or_refused(
    tmp_path_factory: pytest.TempPathFactory, path: bytes, first: bytes, second: bytes
) -> None:
    top = tmp_path_factory.mktemp("top") / "x" / "in"
    (top / "a" / "b").mkdir(parents=True)
    os.symlink(first, bytes(top) + b"/l")
    os.symlink(second, bytes(top) + b"/a/m")
    with suppress(Outside, OSError):
        where = leads_to(find([bytes(top)], bytes(top) + b"/" + path, follow=True))
        assert where == top or top in where.parents


@given(targets, st.integers(0, 3))
def test_a_link_that_may_be_made_stays_beneath_the_top(
    tmp_path_factory: pytest.TempPathFactory, target: bytes, depth: int
) -> None:
    top = tmp_path_factory.mktemp("top") / "in"
    folder = top.joinpath(*"abb"[:depth])
    (top / "a" / "b" / "b").mkdir(parents=True)
    if is_beneath(target, depth):
        os.symlink(target, bytes(folder) + b"/link")
        where = Path(os.path.realpath(folder / "link"))
        assert where == top or top in where.parents


def test_a_link_out_of_the_top_may_not_be_made() -> None:
    assert is_beneath(b"a/b", 0)
    assert is_beneath(b"../../a", 2)
    for target, depth in ((b"/etc", 9), (b"..", 0), (b"../..", 1), (b"a/../..", 1), (b"a/..", 0), (b"./../x", 0)):
        assert not is_beneath(target, depth)


@pytest.fixture
def exchanging(top: Path) -> Iterator[None]:
    """Meanwhile another process exchanges the directory `a/b` and a link to the outside, as fast as it goes."""
    over = threading.Event()
    (top / "a" / "link").symlink_to("../../secret")

    def exchange() -> None:
        while not over.is_set():
            for one, other in (("b", "kept"), ("link", "b"), ("b", "link"), ("kept", "b")):
                os.rename(top / "a" / one, top / "a" / other)

    thread = threading.Thread(target=exchange)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.usefixtures("exchanging")
def test_what_is_exchanged_meanwhile_never_leads_out(top: Path) -> None:
    reached = refused = 0
    descriptor = os.open(top, os.O_PATH)
    while reached < 200 or refused < 200:
        try:
            spot = find([bytes(top)], bytes(top / "a" / "b" / "file"), follow=True)
        except (Outside, OSError):
            refused += 1
        else:
            assert top in leads_to(spot).parents
            reached += 1
        with suppress(OSError):
            inner = open_beneath(descriptor, (b"a", b"b"))
            assert top in Path(os.readlink(f"/proc/self/fd/{inner}")).parents
            os.close(inner)
    os.close(descriptor)
