"""Every Python snippet and every command of the documentation runs.

The blocks of one page run in order, in a process and an empty folder of their own, as `run_page.py` says. A block that
can't run here stands under `<!-- no-test -->`; the commands and options in it must exist all the same. A block under
`<!-- file: NAME -->` is what the page lets its reader write to that file.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts)])
SECONDS = 480.0
COLLECTION = Path(sysconfig.get_path("purelib"), "ansible_collections", "zmesh")
"""Where Ansible finds the collection by itself, unless zmesh is installed as editable."""
KINDS = {"python": "python", "bash": "console", "console": "console"}

Block = tuple[str, int, str]

BLOCK = re.compile(
    r"""
    (?: ^[ ]* <!-- \s* (?P<mark> no-test | file:\s*\S+ ) \s* --> \s*? \n (?:[ ]*\n)* )?
    ^ (?P<indent> [ ]*) ``` [ ]* (?P<language> \w+) [^\n]* \n
    (?P<code> .*?)
    ^ [ ]* ``` [ ]* $
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)


def all_blocks_of(text: str) -> Iterator[tuple[str, Block]]:
    """All blocks that have a language, each with its mark, if any, and the number of lines above it."""
    for match in BLOCK.finditer(text):
        mark = match["mark"] or ""
        kind = f"file:{mark[5:].strip()}" if mark.startswith("file:") else KINDS.get(match["language"], "")
        code = re.sub(f"(?m)^{match['indent']}", "", match["code"])
        yield mark, (kind, text.count("\n", 0, match.start("code")), code)


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page that are to be run, or written."""
    return [block for mark, block in all_blocks_of(text) if block[0] and mark != "no-test"]


def run(page: str, blocks: list[Block], folder: Path) -> None:
    """Run the blocks as run_page.py says; what they started is ended with them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZMESH_")}
    environment |= {"NO_COLOR": "1", "PYTHONWARNINGS": "error"}
    if not COLLECTION.is_dir():
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT)
    environment["PYTEST_ADDOPTS"] = "-p no:cacheprovider -o asyncio_default_fixture_loop_scope=function"
    with (
        tempfile.TemporaryDirectory(prefix="zmesh-", dir="/tmp") as runtime,  # short: sockets have short paths
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("run_page.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**environment, "XDG_RUNTIME_DIR": runtime},
            start_new_session=True,
        ) as process,
    ):
        try:
            output, _ = process.communicate(json.dumps([page, blocks]), timeout=SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the snippets of {page} did not end within {SECONDS:g} s")
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    assert process.returncode == 0, output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_snippets_of_a_page_run(page: Path, tmp_path: Path) -> None:
    run(str(page), blocks_of(page.read_text(encoding="utf-8")), tmp_path)


# --- the command line -------------------------------------------------------------------------------------------------

INLINE = re.compile(r"`(zmesh [^`\n]*)`")


def options_of() -> dict[str, set[str]]:
    """Each command of `zmesh`, and the options that it or its subcommands have; "" is `zmesh` itself."""
    from typer.main import get_command

    from zmesh_cli.commands import app

    group: Any = get_command(app)
    return {
        name: {
            "-h",
            "--help",
            *(option for each in (command, *subcommands_of(name, command)) for it in each.params for option in it.opts),
        }
        for name, command in [("", group), *group.commands.items()]
    }


def subcommands_of(name: str, command: Any) -> list[Any]:
    return list(command.commands.values()) if name and hasattr(command, "commands") else []


def calls_in(text: str) -> Iterator[list[str]]:
    """The arguments of each call of `zmesh` on a page, in console blocks (marked or not) and in running text."""
    commands = [match[1] for match in INLINE.finditer(text)]
    for _, (kind, _, code) in all_blocks_of(text):
        if kind == "console":
            commands += [line[2:] for line in code.replace("\\\n", " ").splitlines() if line.startswith("$ ")]
    for command in commands:
        words = shlex.shlex(command, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        call: list[str] | None = None
        for word in words:
            if word == "zmesh" and call is None:
                call = []
            elif set(word) <= set("();<>|&"):
                if call is not None:
                    yield call
                call = None
            elif call is not None:
                call.append(word)
        if call is not None:
            yield call


def faults_in(text: str, options: dict[str, set[str]]) -> list[str]:
    """What a page calls that does not exist."""
    faults = []
    for call in calls_in(text):
        name = next((word for word in call if not word.startswith("-")), "")
        if name not in options:
            faults.append(f"no command {name!r}")
            continue
        its_own = call[: call.index("--")] if "--" in call else call
        used = {word.partition("=")[0] for word in its_own if word.startswith("-") and word != "-"}
        faults += [f"no option {option!r} of zmesh {name}" for option in sorted(used - options[name])]
    return faults


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_on_a_page_exists(page: Path) -> None:
    assert faults_in(page.read_text(encoding="utf-8"), options_of()) == []


# --- these tests themselves -------------------------------------------------------------------------------------------

SHARED = """
```python
import asyncio
x = 1
```
- in a list:
  ```python
  await asyncio.sleep(0)
  assert x == 1
  ```
"""
MARKED = """
<!-- no-test -->
```python
a
```
```python
b
```
```text
c
```
<!-- no-test -->

```python
d
```
<!-- file: e.txt -->
```text
e
```
"""
WRITTEN = """
<!-- file: greeting.py -->
```python
text = "hello"
```
<!-- file: pyproject.toml -->
```toml
[project]
name = "greeting"
version = "1.0"

[project.entry-points."zmesh.plugins"]
greet = "greeting"
```
```python
from importlib.metadata import entry_points

assert [point.load().text for point in entry_points(group="zmesh.plugins", name="greet")] == ["hello"]
```
"""
SHOWN = """
```console
$ export WHO=world
$ echo "hello $WHO" \\
  in 7.5 s
hello ... in 3 s
```
"""


def test_the_blocks_of_a_page_share_their_names_and_may_await(tmp_path: Path) -> None:
    assert [line for _, line, _ in blocks_of(SHARED)] == [2, 7]
    run("page.md", blocks_of(SHARED), tmp_path)


def test_a_snippet_that_raises_is_reported_with_its_page_and_line(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r'File "page.md", line 4'):
        run("page.md", blocks_of("# Page\n\n```python\n1 / 0\n```\n"), tmp_path)


def test_marked_blocks_and_other_languages_are_left_out() -> None:
    assert [(kind, code) for kind, _, code in blocks_of(MARKED)] == [("python", "b\n"), ("file:e.txt", "e\n")]


def test_files_of_a_page_are_written_and_its_plugins_are_found(tmp_path: Path) -> None:
    run("page.md", blocks_of(WRITTEN), tmp_path)


def test_commands_run_and_their_output_is_compared_numbers_aside(tmp_path: Path) -> None:
    run("page.md", blocks_of(SHOWN), tmp_path)
    with pytest.raises(AssertionError, match=r"page\.md, line 2: echo"):
        run("page.md", blocks_of(SHOWN.replace("hello ...", "goodbye ...")), tmp_path)


def test_a_command_that_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"page\.md, line 1: zmesh ping nobody"):
        run("page.md", blocks_of("```console\n$ zmesh ping nobody\n```\n"), tmp_path)


def test_calls_that_do_not_exist_are_found() -> None:
    options = {"": {"--version"}, "send": {"--peer"}}
    good = "`zmesh --version`\n```bash\n$ tar c x | zmesh send a b:c - --peer=tcp://h:1; zmesh --version\n```\n"
    assert faults_in(good, options) == []
    bad = "`zmesh fly`\n<!-- no-test -->\n```console\n$ zmesh send --slowly a b:c\n```\n"
    assert faults_in(bad, options) == ["no command 'fly'", "no option '--slowly' of zmesh send"]
