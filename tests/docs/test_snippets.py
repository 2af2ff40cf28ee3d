"""Every Python snippet of the documentation runs.

The ```python blocks of one page run in order, in one namespace, in a process and an empty folder of their own. `await`
is allowed at the top level, as in `python -m asyncio`. A block that can't run here stands under `<!-- no-test -->`.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts)])
SECONDS = 45.0

BLOCK = re.compile(
    r"""
    (?P<skip> ^[ ]* <!-- \s* no-test \s* --> \s*? \n (?:[ ]*\n)* )?
    ^ (?P<indent> [ ]*) ``` [ ]* python [^\n]* \n
    (?P<code> .*?)
    ^ [ ]* ``` [ ]* $
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)

RUN = """
import ast, asyncio, inspect, json, sys
page, blocks = json.load(sys.stdin)
names = {"__name__": "__main__"}
with asyncio.Runner() as runner:
    for line, code in blocks:
        code = compile("\\n" * line + code, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            async def block():
                await eval(code, names)
            runner.run(block())
        else:
            exec(code, names)
"""


def blocks_of(text: str) -> list[tuple[int, str]]:
    """The Python blocks of a page that are to be run, each with the number of lines above it."""
    return [
        (text.count("\n", 0, match.start("code")), re.sub(f"(?m)^{match['indent']}", "", match["code"]))
        for match in BLOCK.finditer(text)
        if match["skip"] is None
    ]


def run(page: str, blocks: list[tuple[int, str]], folder: Path) -> None:
    """Run the blocks as the module docstring says; what they started is ended with them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZMESH_")}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as process:
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
```bash
c
```
<!-- no-test -->

```python
d
```
"""


def test_the_blocks_of_a_page_share_their_names_and_may_await(tmp_path: Path) -> None:
    assert [line for line, _ in blocks_of(SHARED)] == [2, 7]
    run("page.md", blocks_of(SHARED), tmp_path)


def test_a_snippet_that_raises_is_told_with_its_page_and_line(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r'File "page.md", line 4'):
        run("page.md", blocks_of("# Page\n\n```python\n1 / 0\n```\n"), tmp_path)


def test_marked_blocks_and_other_languages_are_left_out() -> None:
    assert [code for _, code in blocks_of(MARKED)] == ["b\n"]
