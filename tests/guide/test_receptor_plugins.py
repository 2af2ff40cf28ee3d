"""Plugin packages written for Receptor 1.x, installed as packages, answer through a real mesh; and `import receptor`.

The packages are those of tests/guide/plugins, which `python tests/setup/install_plugins.py` installs.
"""

import asyncio
import importlib.metadata
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import zmesh
from tests.waiting import WITHIN
from zmesh.testing import Mesh, eventually

PLUGINS = Path(__file__).parent / "plugins"
PACKAGES = {
    "receptor-shout": "receptor_shout:execute",
    "receptor-inventory": "receptor_inventory:execute",
    "receptor-wordcount": "receptor_wordcount:from_buffer",
}
WORDS = "the quick brown fox\njumps over the lazy dog\n"


@pytest.fixture
async def ctl():
    """A controller two links away from `worker`, which runs the plugins."""
    settings = {"receptor_shout": {"mark": "?"}}
    async with Mesh.chain("ctl", "hub") as mesh:
        await mesh.add("worker", "hub", plugins=settings)
        await mesh.settle()
        mesh["ctl"].worker = mesh["worker"]
        yield mesh["ctl"]


async def replies_of(controller, directive, payload):
    """The texts of all replies, and the header of the last one."""
    replies = []
    await controller.send(payload, "worker", directive, response_handler=replies.append)
    await eventually(lambda: replies and replies[-1].header["eof"])
    return [reply.payload.readall().decode() for reply in replies[:-1]], replies[-1].header


# --- the packages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACKAGES)
def test_the_packages_are_installed_and_declare_a_worker_of_the_receptor(name):
    points = importlib.metadata.distribution(name).entry_points
    assert {point.group for point in points} == {"receptor.worker"}


def test_the_packages_know_nothing_of_zmesh():
    for source in PLUGINS.rglob("*.py"):
        assert "zmesh" not in source.read_text(), source
    for name in PACKAGES:
        assert not any("zmesh" in line for line in importlib.metadata.requires(name) or ())


def test_the_three_ways_of_marking_a_function_are_among_them():
    text = "".join(source.read_text() for source in PLUGINS.rglob("*.py"))
    assert "@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)" in text
    assert "@receptor.plugin_export\n" in text
    assert "payload_type=BUFFER_PAYLOAD" in text
    assert "payload_type=FILE_PAYLOAD" in text


async def test_their_directives_are_known_in_the_whole_mesh(ctl):
    capabilities = ctl.receptor.router.node_capabilities()["worker"]
    assert set(PACKAGES.values()) <= set(capabilities)
    assert "receptor_wordcount:from_file" in capabilities
    assert "receptor_shout:quietly" not in capabilities, "it is not exported"


# --- what they reply ------------------------------------------------------------------------------------------------


async def test_a_plugin_that_takes_bytes_answers_and_sees_its_settings(ctl):
    texts, end = await replies_of(ctl, "receptor_shout:execute", WORDS)
    assert texts == ["THE QUICK BROWN FOX?", "JUMPS OVER THE LAZY DOG?"]
    assert (end["eof"], end["code"]) == (True, 0)


async def test_a_plugin_of_the_older_form_reads_the_raw_payload(ctl):
    texts, end = await replies_of(ctl, "receptor_inventory:execute", ["nut", "bolt"])
    assert [json.loads(text) for text in texts] == [{"part": "nut", "stock": 80}, {"part": "bolt", "stock": 120}]
    assert end["code"] == 0


@pytest.mark.parametrize("count", [1, 10_000])
async def test_a_plugin_that_takes_a_buffer_answers(ctl, count):
    texts, end = await replies_of(ctl, "receptor_wordcount:from_buffer", WORDS * count)
    assert [json.loads(text) for text in texts] == [{"words": 9 * count, "bytes": len(WORDS) * count}]
    assert end["code"] == 0


@pytest.mark.parametrize("count", [1, 10_000])
async def test_a_plugin_that_takes_a_file_answers_and_the_file_is_gone_afterwards(ctl, count):
    texts, end = await replies_of(ctl, "receptor_wordcount:from_file", WORDS * count)
    answer = json.loads(texts[0])
    assert (answer["words"], answer["bytes"]) == (9 * count, len(WORDS) * count)
    assert end["code"] == 0
    await eventually(lambda: not Path(answer["path"]).exists())


async def test_an_empty_payload_is_fine(ctl):
    assert (await replies_of(ctl, "receptor_shout:execute", ""))[0] == []
    texts, _ = await replies_of(ctl, "receptor_wordcount:from_buffer", "")
    assert json.loads(texts[0]) == {"words": 0, "bytes": 0}


@pytest.mark.parametrize(
    ("directive", "payload", "texts", "error"),
    [
        ("receptor_wordcount:fail", "12 or so", ["before it fails"], "ValueError: invalid literal for int()"),
        ("receptor_inventory:execute", ["nut", "cog"], ['{"part": "nut", "stock": 80}'], "KeyError: 'cog'"),
        ("receptor_inventory:execute", "no JSON", [], "JSONDecodeError"),
    ],
)
async def test_a_plugin_that_raises_ends_with_its_error_after_its_replies(ctl, directive, payload, texts, error):
    got, end = await replies_of(ctl, directive, payload)
    assert got == texts
    assert (end["eof"], end["code"], end["reason"]) == (True, 1, "remote")
    assert error in end["error"]


async def test_a_function_that_is_not_exported_may_not_be_called(ctl):
    texts, end = await replies_of(ctl, "receptor_shout:quietly", WORDS)
    assert texts == []
    assert (end["code"], end["reason"]) == (1, "not_allowed")


async def test_they_run_in_threads_so_that_many_run_at_a_time(ctl):
    """Each of the plugins blocks its thread while its replies go out; the loop goes on."""
    requests = [ctl.request("worker", "receptor_wordcount:from_buffer", WORDS * number) for number in range(30)]
    payloads = await asyncio.gather(*requests)
    assert [payload.json()["words"] for payload in payloads] == [9 * number for number in range(30)]
    assert any(thread.name.startswith("zmesh-work") for thread in threading.enumerate())


async def test_the_modern_way_in_works_with_them_as_well(ctl):
    async with ctl.stream("worker", "receptor_shout:execute", WORDS) as stream:
        replies = [reply.payload.text() async for reply in stream]
    assert replies == ["THE QUICK BROWN FOX?", "JUMPS OVER THE LAZY DOG?"]
    with pytest.raises(zmesh.RemoteError, match="KeyError"):
        await ctl.request("worker", "receptor_inventory:execute", ["cog"])


# --- `import receptor` ----------------------------------------------------------------------------------------------


def python(code, *, path=None):
    """What a fresh interpreter prints for this code, with a folder on its path or without."""
    insert = f"import sys; sys.path.insert(0, {str(path)!r}); " if path else ""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", insert + code], capture_output=True, text=True, timeout=WITHIN
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


DISCOVER = "import zmesh.serving.directives; zmesh.serving.directives.Directives().discover(); "


def test_nothing_is_called_receptor_until_a_node_looks_for_plugins():
    code = "import importlib.util, zmesh; print(importlib.util.find_spec('receptor'))"
    assert python(code) == "None"


def test_import_receptor_gives_a_stand_in_where_no_such_package_is_installed():
    code = DISCOVER + (
        "import receptor, receptor.plugin_utils as utils, zmesh; "
        "print(receptor.plugin_export is utils.plugin_export is zmesh.plugin_export, "
        "receptor.BYTES_PAYLOAD, utils.BUFFER_PAYLOAD, receptor.FILE_PAYLOAD, "
        "receptor.Controller is zmesh.Controller, receptor.ReceptorConfig is zmesh.Config)"
    )
    assert python(code) == "True bytes buffer file True True"


def test_the_stand_in_says_what_it_is_and_does_not_pretend_to_have_more():
    code = DISCOVER + (
        "import receptor\n"
        "print(receptor.__doc__)\n"
        "try:\n    import receptor.node\nexcept ImportError as error:\n    print(type(error).__name__)\n"
        "print(hasattr(receptor, 'Node'))"
    )
    text, *rest = python(code).splitlines()
    assert "stand-in" in text
    assert rest == ["ModuleNotFoundError", "False"]


def test_a_package_called_receptor_that_is_installed_wins(tmp_path):
    (tmp_path / "receptor").mkdir()
    (tmp_path / "receptor" / "__init__.py").write_text(
        "def plugin_export(payload_type=None):\n"
        "    return lambda function: function\n"
        "BYTES_PAYLOAD = BUFFER_PAYLOAD = FILE_PAYLOAD = 'theirs'\n"
    )
    code = DISCOVER + "import receptor; print(receptor.BYTES_PAYLOAD, receptor.__file__)"
    assert python(code, path=tmp_path) == f"theirs {tmp_path / 'receptor' / '__init__.py'}"


def test_the_submodule_of_an_installed_receptor_is_not_ours_either(tmp_path):
    (tmp_path / "receptor").mkdir()
    (tmp_path / "receptor" / "__init__.py").write_text("")
    code = DISCOVER + (
        "import receptor\n"
        "try:\n    import receptor.plugin_utils\nexcept ImportError as error:\n    print(type(error).__name__)"
    )
    assert python(code, path=tmp_path) == "ModuleNotFoundError"
