"""`zmesh demo`: its output, and that it leaves nothing behind, however it ends."""

import glob
import os
import pty
import re
import select
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.terminals import read_until

ONLY = """
from zmesh_cli.demo import _Tour

async def nothing(tour, *arguments):
    pass

for step in {{"_ping", "_http", "_file", "_command", "_files", "_job"}} - {{"{step}"}}:
    setattr(_Tour, step, nothing)
"""
"""Has the demo leave out the steps that no other needs, but for one."""


@pytest.fixture
def clean(shell: Any, eventually: Callable[..., None]) -> Any:
    """A shell for a demo, which must leave no process and no file."""
    yield shell
    eventually(lambda: not shell.left())
    eventually(lambda: not os.listdir(shell.folder))


def test_the_demo_shows_everything_and_leaves_nothing(clean: Any) -> None:
    demo = clean.start("demo")
    out, err = demo.communicate(timeout=240)
    shown = out.decode()
    assert (demo.returncode, err) == (0, b""), shown
    assert clean.left() == []
    assert os.listdir(clean.folder) == []
    headings = re.findall(r"^(\d+)\. ", shown, re.MULTILINE)
    assert headings == [str(number) for number in range(1, 12)]
    assert "\x1b" not in shown
    assert len(re.findall(r"^  \$ zmesh node --id ", shown, re.MULTILINE)) == 5
    assert re.search(r"^    tail +(north|south) +\d+ +3 .* (as cheap|the cheapest|the only)", shown, re.MULTILINE)
    assert "5 sent, 5 received, 0 % lost" in shown
    assert "=> status 200" in shown
    assert re.search(r"^  tail: (all is well|\d warning)", shown, re.MULTILINE)
    assert "  and back over " in shown
    assert "  home sends to tail over " in shown
    digest = re.search(r"^  ([0-9a-f]{64})$", shown, re.MULTILINE)
    assert digest is not None
    assert re.search(r"=> the same digest as here; .* \d+ MB/s", shown)
    assert "zmesh: 4 nodes: 4 done\n  => the same file at 4 nodes" in shown
    assert "--- away, home, north, south, tail (5): done" in shown
    assert "=> done at all 5 nodes" in shown
    paths = re.findall(r"^  path: (.*)$", shown, re.MULTILINE)
    assert sorted(paths) == ["home > north > away > tail", "home > south > away > tail"]
    assert re.search(
        r"^  line 1\n  \(killed\)\n  \$ zmesh job attach .* --from 7 .*\n  line 2\n  line 3$", shown, re.MULTILINE
    )
    assert "/ is the page: Hello from a web server" in shown
    assert "=> the connection to the web page is still up" in shown
    victim = paths[0].split(" > ")[1]
    assert re.search(rf"=> '{victim}' is gone; 'tail' answers over the new path after \d+ ms", shown)


@pytest.mark.parametrize(
    ("step", "moment", "number"),
    [
        ("_start", "1. Five", signal.SIGINT),
        ("_http", "An HTTP", signal.SIGKILL),
        ("_file", "A file", signal.SIGTERM),
        ("_file", "@big.bin", signal.SIGKILL),
        ("_job", "zmesh job attach", signal.SIGKILL),
        ("_forwarding", "zmesh forward", signal.SIGKILL),
        ("_forwarding", "is the page", signal.SIGTERM),
        ("_command", "zmesh run", signal.SIGTERM),
        ("_kill", "kill -9", signal.SIGINT),
    ],
)
def test_wherever_it_is_interrupted_nothing_is_left(clean: Any, step: str, moment: str, number: int) -> None:
    demo = clean.start("demo", setup=ONLY.format(step=step))
    shown = b""
    while moment.encode() not in shown:
        assert select.select([demo.stdout], [], [], 240)[0]
        data = os.read(demo.stdout.fileno(), 65536)
        assert data
        shown += data
    demo.send_signal(number)
    _, err = demo.communicate(timeout=240)
    if number != signal.SIGKILL:
        assert demo.returncode == 130
        assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("made", "number"), [(".", signal.SIGINT), ("*", signal.SIGTERM), ("*", signal.SIGKILL), ("*/*.log", signal.SIGINT)]
)
def test_interrupted_before_its_first_step_it_leaves_nothing(
    clean: Any, eventually: Callable[..., None], made: str, number: int
) -> None:
    demo = clean.start("demo")
    eventually(lambda: glob.glob(made, root_dir=clean.folder))
    demo.send_signal(number)
    demo.communicate(timeout=240)


def test_ctrl_c_in_a_terminal_which_reaches_every_process_leaves_nothing(clean: Any) -> None:
    demo = clean.start("demo", start_new_session=True)
    shown = b""
    while b"tail -c 5" not in shown:
        assert select.select([demo.stdout], [], [], 240)[0]
        shown += os.read(demo.stdout.fileno(), 65536)
    os.killpg(demo.pid, signal.SIGINT)
    _, err = demo.communicate(timeout=240)
    assert demo.returncode == 130
    assert err == b""
    assert clean.left() == []
    assert os.listdir(clean.folder) == []


def test_the_demo_ends_when_its_output_has_no_reader(clean: Any) -> None:
    demo = clean.start("demo")
    assert demo.stdout.readline()
    demo.stdout.close()
    with demo.stderr:
        assert demo.stderr.read() == b""
    assert demo.wait(240) == 141


@pytest.mark.parametrize("colour", [True, False])
def test_the_demo_is_in_colour_on_a_terminal_unless_no_color_is_set(clean: Any, colour: bool) -> None:
    if not colour:
        clean.environment["NO_COLOR"] = "1"
    clean.environment["TERM"] = "xterm"
    ours, theirs = pty.openpty()
    demo = clean.start("demo", stdout=theirs)
    os.close(theirs)
    shown = read_until(ours, lambda shown: b"1. Five" in shown)
    demo.send_signal(signal.SIGINT)
    os.close(ours)
    demo.stderr.close()
    assert demo.wait(240) in (130, 1)
    assert (b"\x1b[1m" in shown) is colour
