"""What makes a directive isolated: how its process gets the function, and the limits that hold there."""

import asyncio
import functools
import os
import re
import subprocess
import sys

import pytest

import zmesh
from tests.own_process import without_blocks
from tests.payloads.kinds import function
from tests.waiting import WITHIN
from zmesh.config import Config
from zmesh.errors import ConfigError
from zmesh.payloads.streamed import StreamedPayload
from zmesh.serving.directives import Directives, directive
from zmesh.serving.isolation.limits import ProcessLimits

MIB = 1024 * 1024


# --- what can be isolated -----------------------------------------------------------------------------------------


class Counter:
    def __init__(self):
        self.count = 0

    def add(self, work):
        self.count += 1
        return self.count


async def test_methods_partials_and_callable_objects_are_copied_when_they_are_registered(bench):
    counter = Counter()
    bench.isolate("test:method", counter.add)
    bench.isolate("test:partial", functools.partial(lambda prefix, work: prefix + work.payload.text(), "<"))
    counter.count = 10
    assert [(await bench.call("test:method")).replies for _ in range(2)] == [[b"1"], [b"1"]]
    assert counter.count == 10
    assert (await bench.call("test:partial", b"x")).replies == [b"<x"]


async def test_a_function_of_the_program_itself_can_be_isolated_without_running_the_program_again(tmp_path):
    script = tmp_path / "program.py"
    script.write_text("""
import asyncio, os, zmesh

print("run by", os.getpid())
FACTOR = 3

class Maker:
    def make(self, text):
        return text * FACTOR

async def treble(work):
    return Maker().make(work.payload.text())

mesh = zmesh.Controller(zmesh.Config(node_id="it"))
mesh.register("test:treble", treble, isolate=True)

async def main():
    print((await mesh.request("it", "test:treble", "ab")).text())

mesh.run(main)
""")
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, str(script)], capture_output=True, text=True, timeout=WITHIN, check=True
    )
    assert re.fullmatch(r"run by \d+\nababab\n", done.stdout)
    assert without_blocks(done.stderr) == ""


def test_what_cannot_be_moved_is_refused_at_registration():
    lock = __import__("threading").Lock()
    directives = Directives()

    def locked(work):
        with lock:
            return "never"

    with pytest.raises(TypeError, match=r"locked.* can't be moved to a process of its own: .*lock"):
        directives.register("test:it", locked, isolate=True)
    assert directives.capabilities() == []
    directives.register("test:it", locked)


PLUGIN = """
import os
import zmesh

@zmesh.directive(isolate=True)
def pid(work):
    return os.getpid()

@zmesh.directive(name="both", isolate=True, stream=True, max_memory_bytes=64 << 20, max_cpu_seconds=7)
async def of_another_name(work):
    return len(b"".join([chunk async for chunk in work.payload]))

class Thing:
    made = 0

    def __init__(self):
        Thing.made += 1
        self.calls = 0

    @zmesh.directive(isolate=True)
    def call(self, work):
        self.calls += 1
        return [self.calls, Thing.made]

    @staticmethod
    @zmesh.directive(isolate=True)
    async def still(work):
        yield "static"

    @zmesh.directive
    def here(self, work):
        return os.getpid()

def broken(work):
    raise ImportError
"""


async def test_plugins_are_imported_in_the_process_and_a_class_is_instantiated_there(bench, install):
    points = ["part = isolated_plugin", "thing = isolated_plugin:Thing"]
    install("isolated", {"isolated_plugin.py": PLUGIN}, {"zmesh.plugins": points})
    bench.directives.discover()
    assert int((await bench.call("part:pid")).replies[0]) != os.getpid()
    assert int((await bench.call("thing:here")).replies[0]) == os.getpid()
    assert [(await bench.call("thing:call")).replies for _ in range(2)] == [[b"[1,1]"], [b"[1,1]"]]
    assert (await bench.call("thing:still")).replies == [b"static"]
    both = bench.directives.find("part:both")
    assert both.stream
    assert both.isolation.limits("part:both", {}) == ProcessLimits(64 * MIB, 7, 5.0)
    payload = StreamedPayload()
    message_id = bench.start("part:both", payload)
    payload.feed(b"abc")
    payload.finish()
    assert (await bench.end(message_id)).replies == [b"3"]


def test_the_public_mark_is_the_one_of_the_plugins():
    assert zmesh.directive is directive


# --- limits -------------------------------------------------------------------------------------------------------


def test_limits_come_from_the_setting_for_the_directive_then_the_directive_then_the_setting_for_all():
    @directive(isolate=True, max_memory_bytes=100 * MIB)
    def marked(work):
        pass

    directives = Directives()
    directives.register("test:it", marked, max_cpu_seconds=2)
    isolation = directives.find("test:it").isolation
    assert isolation.limits("test:it", {}) == ProcessLimits(100 * MIB, 2, 5.0)
    for_all = {"*": {"max_memory_bytes": 50 * MIB, "max_cpu_seconds": 1, "grace": 1.5}}
    assert isolation.limits("test:it", for_all) == ProcessLimits(100 * MIB, 2, 1.5)
    assert isolation.limits("test:it", {**for_all, "test:it": {"max_cpu_seconds": 9}}) == ProcessLimits(
        100 * MIB, 9, 1.5
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"isolate": True, "max_memory_bytes": 32 * MIB - 1}, "max_memory_bytes = 33554431 is not a number from"),
        ({"isolate": True, "max_cpu_seconds": 0}, "max_cpu_seconds = 0 is not"),
        ({"isolate": True, "max_cpu_seconds": 1.5}, "max_cpu_seconds = 1.5 is not"),
        ({"isolate": True, "max_cpu_seconds": True}, "max_cpu_seconds = True is not"),
        ({"max_cpu_seconds": 1}, "max_cpu_seconds can't be held without isolate=True"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        directive(**options)
    with pytest.raises(ValueError, match=text):
        Directives().register("test:it", function, **options)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ([{}], "isolation must hold one table for each directive"),
        ({"test:it": 3}, "isolation must hold one table for each directive"),
        ({"test": {}}, r'\[isolation."test"\] is for no directive'),
        ({"*": {"grace_": 1}}, r"no setting is called 'grace_' \(did you mean 'grace'\?\)"),
        ({"*": {"grace": -1}}, "grace = -1 is not a number from 0 to 3600"),
        ({"a:b": {"max_cpu_seconds": 0.5}}, "max_cpu_seconds = 0.5 is not a number from 1 to"),
    ],
)
def test_settings_that_make_no_sense_are_refused(table, text):
    with pytest.raises(ConfigError, match=text):
        Config(isolation=table)


def test_settings_are_read_from_the_file(tmp_path):
    file = tmp_path / "node.toml"
    file.write_text('[isolation."*"]\ngrace = 2\n[isolation."test:it"]\nmax_memory_bytes = 67108864\n')
    assert Config.load(file, environ={}).isolation == {"*": {"grace": 2}, "test:it": {"max_memory_bytes": 64 * MIB}}
