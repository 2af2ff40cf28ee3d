"""Tables and lists at a given width."""

import fcntl
import os
import pty
import select
import struct
import termios
from collections.abc import Callable
from typing import Any

import pytest

from zmesh_cli.tables import UNLIMITED, groups, shortened, table

HEAD = ("DESTINATION", "NEXT HOP", "COST", "HOPS", "RTT", "AGE", "WHY")
ROW = ("edge", "hub", "100", "1", "0.732 ms", "12 s", "the only one offered")


def test_a_long_name_keeps_its_start_and_its_end() -> None:
    assert shortened("edge-7", 6) == "edge-7"
    assert shortened("build-machine-3f9a2c", 12) == "build…3f9a2c"
    assert shortened("build-machine-3f9a2c", 11) == "build…f9a2c"


def test_a_table_that_fits_has_its_prose_in_the_last_column() -> None:
    head, row = table(HEAD, [ROW], 80, names=2, note=True)
    assert head == "  DESTINATION  NEXT HOP  COST  HOPS  RTT       AGE   WHY"
    assert row == "  edge         hub        100     1  0.732 ms  12 s  the only one offered"


def test_where_the_prose_does_not_fit_it_follows_below_each_row() -> None:
    head, row, why = table(HEAD, [ROW], 60, names=2, note=True)
    assert head == "  DESTINATION  NEXT HOP  COST  HOPS  RTT       AGE"
    assert row == "  edge         hub        100     1  0.732 ms  12 s"
    assert why == "    the only one offered"


def test_names_share_what_the_other_columns_leave() -> None:
    long = "build-machine-in-the-cellar-3f9a2c"
    lines = list(table(HEAD, [(long, "hub", *ROW[2:]), ("hub", "hub", *ROW[2:])], 60, names=2, note=True))
    assert lines[1].startswith("  build-mac…lar-3f9a2c  hub        100 ")
    assert max(map(len, lines)) <= 60
    lines = list(table(HEAD, [(long, long, *ROW[2:])], 60, names=2, note=True))
    assert lines[1].startswith("  build-…-3f9a2c  build-…-3f9a2c   100 ")
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize("width", range(60, 140, 7))
@pytest.mark.parametrize("length", [1, 8, 20, 64])
def test_no_line_of_a_table_is_wider_than_its_limit(width: int, length: int) -> None:
    name = "n" * length
    why = f"over {name} it would be 123456, but that could be a loop until {name} has confirmed it"
    lines = list(table(HEAD, [(name, name, "123456", "12", "1.2e+03 ms", "59 min", why)], width, names=2, note=True))
    assert max(map(len, lines)) <= width
    lines = list(groups({name: [f"{name}:echo", "a:b"], "other": []}, width))
    assert max(map(len, lines)) <= width


def test_without_a_limit_nothing_is_shortened_or_wrapped() -> None:
    name = "n" * 64
    _, row = table(("NODE", "NODE", "COST"), [(name, name, "100")], UNLIMITED, names=2)
    assert row == f"  {name}  {name}   100"
    assert len(list(groups({name: [f"{'d' * 60}:{n}" for n in range(100)]}, UNLIMITED))) == 1


def test_nodes_with_equal_lists_are_one_paragraph() -> None:
    assert list(groups({"a": ["x:y", "z:z"]}, 60)) == ["  a: x:y, z:z"]
    assert list(groups({node: ["x:y", "z:z"] for node in "abcde"}, 60)) == ["  all 5 nodes: x:y, z:z"]
    assert list(groups({"a": ["x:y"], "b": [], "c": ["x:y"]}, 60)) == ["  b: none", "  a, c: x:y"]


def test_a_majority_of_nodes_with_equal_lists_comes_last_and_is_counted() -> None:
    lists = {f"n{number}": ["x:y"] for number in range(40)} | {"n7": ["gpu:run"], "n9": ["gpu:run"]}
    assert list(groups(lists, 60)) == ["  n7, n9: gpu:run", "  the other 38 nodes: x:y"]


def test_a_list_is_wrapped_with_an_indentation() -> None:
    assert list(groups({node: ["digest:sha256", "echo:echo", "http:execute"] for node in "ab"}, 44)) == [
        "  all 2 nodes: digest:sha256, echo:echo,",
        "    http:execute",
    ]


def test_control_characters_in_names_are_escaped() -> None:
    assert list(groups({"a\x1b": ["b\n:c"]}, 60)) == ["  a\\x1b: b\\n:c"]


# -- zmesh routes at 60 columns ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(new_shell: Callable[[], Any]) -> Any:
    """A shell beside two nodes with names of 40 and 64 characters."""
    shell = new_shell()
    hub = shell.chain("hub-" + "h" * 36, "edge-" + "e" * 59)[0]
    shell.environment["ZMESH_PEER"] = hub.url
    return shell


def in_a_terminal(shell: Any, columns: int, *words: str) -> str:
    """The output of a command on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    command = shell.start(*words, stdout=theirs)
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 90)[0]:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the command has closed its end
            break
        shown += data
    os.close(ours)
    _, err = command.communicate(timeout=90)
    assert (command.returncode, err) == (0, b"")
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("words", [("routes",), ("routes", "edge-" + "e" * 59)])
def test_on_a_terminal_of_60_columns_and_in_a_pipe_for_one_every_line_fits(wide: Any, words: tuple[str, ...]) -> None:
    piped = wide.run(*words, environment={"COLUMNS": "60"}).stdout.decode()
    for shown in (in_a_terminal(wide, 60, *words), piped):
        assert max(map(len, shown.splitlines()[1:])) <= 60
        assert "…" in shown
        assert "\n    the only one offered\n" in shown
        assert "\n  all 2 nodes: digest:sha256, echo:echo, echo:stream,\n" in shown


def test_in_a_pipe_without_a_width_names_are_whole(wide: Any) -> None:
    shown = wide.run("routes").stdout.decode()
    assert "…" not in shown
    assert "e" * 59 in shown
    assert "\n  all 2 nodes: digest:sha256, echo:echo, echo:stream, " in shown
