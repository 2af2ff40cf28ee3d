import importlib
import json
import os
import subprocess
import sys

import pytest

from tests.waiting import WITHIN
from zmesh.config import Config
from zmesh.payloads.buffered import BufferedPayload
from zmesh.serving import receptor_plugins

PLUGIN = """
import io, json, os, threading
import receptor
from receptor.plugin_utils import BYTES_PAYLOAD

seen = []
release = threading.Event()

@receptor.plugin_export(payload_type=BYTES_PAYLOAD)
def as_bytes(message, config, result_queue):
    seen.append(type(message))
    config["changed"] = True
    result_queue.put(message + b"!")
    result_queue.put_nowait(f"text {config['key']}")
    result_queue.put({"dict": 1})
    return "not sent"

@receptor.plugin_export(receptor.BUFFER_PAYLOAD)
def as_buffer(message, config, result_queue):
    seen.append(message)
    first = message.read(4)
    whole = message.readall()
    assert message.read() == whole[4:]
    message.seek(0)
    assert len(message) == message.length == len(whole)
    assert message.readline() == whole.splitlines(True)[0]
    message.seek(-2, os.SEEK_END)
    assert message.read(10) == whole[-2:]
    message.seek(0)
    assert [line for line in message] == whole.splitlines(True)
    with open(message.name, "rb") as file:
        assert file.read() == whole
    message.seek(0)
    text = io.TextIOWrapper(message)
    assert text.read() == whole.decode()
    text.detach()
    result_queue.put(first + b"..." + whole[-4:])

@receptor.plugin_export(payload_type=receptor.FILE_PAYLOAD)
def as_file(message, config, result_queue):
    seen.append(message)
    assert isinstance(message, str)
    with open(message, "rb") as file:
        result_queue.put(file.read()[:10])
    if config.get("fail"):
        raise ValueError("after reading")

@receptor.plugin_export
def bare(message, config, result_queue):
    seen.append(message)
    result_queue.put(json.dumps({
        "type": type(message.raw_payload).__name__,
        "same": message.payload.readall() in (message.raw_payload, str(message.raw_payload).encode()),
        "sender": message.sender, "recipient": message.recipient, "directive": message.directive,
        "header": dict(message.header), "id": message.msg_id == int(message.message_id, 16),
    }))

@receptor.plugin_export()
def default(message, config, result_queue):
    result_queue.put(message)

@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def endless(message, config, result_queue):
    try:
        while True:
            result_queue.put("again")
    except Exception as error:
        seen.append(type(error).__name__)
        result_queue.put("and once more")

@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def wrong(message, config, result_queue):
    try:
        result_queue.put(object())
    except TypeError as error:
        result_queue.put(str(error)[:26])

@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def in_threads(message, config, result_queue):
    threads = [threading.Thread(target=result_queue.put, args=(str(i),), kwargs={"timeout": 60}) for i in range(10)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()

@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def too_late(message, config, result_queue):
    def put():
        release.wait(60)
        try:
            result_queue.put("too late")
        except RuntimeError as error:
            seen.append(str(error))
    thread = threading.Thread(target=put)
    thread.start()
    seen.append(thread)

def unmarked(message, config, result_queue):
    result_queue.put("no")
"""


@pytest.fixture
def plugin(install, bench):
    install("old-plugin", {"old_plugin.py": PLUGIN}, {"receptor.worker": ["old = old_plugin"]})
    bench.directives.discover()
    return importlib.import_module("old_plugin")


async def test_marked_functions_are_directives_and_others_are_not(bench, plugin):
    names = [name for name in bench.directives.capabilities() if name.startswith("old:")]
    actions = ["as_buffer", "as_bytes", "as_file", "bare", "default", "endless", "in_threads", "too_late", "wrong"]
    assert names == [f"old:{action}" for action in actions]
    assert (await bench.call("old:unmarked")).reason == "not_allowed"
    assert (await bench.call("old:missing")).reason == "unknown_directive"


async def test_a_plugin_for_bytes_gets_bytes_and_its_own_copy_of_its_settings(bench, plugin):
    config = {"key": "value"}
    exchange = await bench.call("old:as_bytes", b"abc", config=config)
    assert exchange.replies == [b"abc!", b"text value", b'{"dict":1}']
    assert exchange.reason is None
    assert plugin.seen == [bytes]
    assert config == {"key": "value"}
    assert (await bench.call("old:default", b"abc")).replies == [b"abc"]


@pytest.mark.parametrize("large", [False, True])
async def test_a_plugin_for_a_buffer_gets_a_file_object_that_is_closed_afterwards(bench, plugin, large, tmp_path):
    content = b"line one\nline two\n" * (600_000 if large else 1)
    payload = BufferedPayload(spool_dir=str(tmp_path))
    payload.feed(content)
    payload.finish()
    exchange = await bench.call("old:as_buffer", payload)
    assert (exchange.replies, exchange.error) == ([b"line...two\n"], None)
    assert plugin.seen[0].closed
    assert not list(tmp_path.glob("zmesh-*"))


@pytest.mark.parametrize("fail", [False, True])
async def test_a_plugin_for_a_file_gets_a_path_that_is_gone_afterwards(bench, plugin, fail):
    exchange = await bench.call("old:as_file", b"content", config={"fail": fail})
    assert exchange.replies == [b"content"]
    assert exchange.error == ("ValueError: after reading" if fail else None)
    with pytest.raises(FileNotFoundError):
        os.stat(plugin.seen[0])


@pytest.mark.parametrize(("content", "kind"), [(b"text", "str"), (b"", "str"), (b"\xff\x00", "bytes")])
async def test_the_older_form_gets_a_message_with_its_raw_payload(bench, plugin, content, kind):
    (reply,) = (await bench.call("old:bare", content)).replies
    assert json.loads(reply) == {
        "type": kind,
        "same": True,
        "sender": "ctl",
        "recipient": "here",
        "directive": "old:bare",
        "header": {"recipient": "here", "timestamp": 1.5},
        "id": True,
    }


async def test_putting_waits_for_room_and_raises_when_cancelled(bench, plugin, eventually):
    bench.sink.room.clear()
    message_id = bench.start("old:endless")
    await eventually(lambda: bench.sink[message_id].handing_over)
    assert bench.sink[message_id].replies == []
    bench.runner.cancel(message_id)
    assert (await bench.end(message_id)).reason == "cancelled"
    assert plugin.seen == ["Cancelled"]


async def test_what_cannot_be_sent_raises_where_it_is_put(bench, plugin):
    assert (await bench.call("old:wrong")).replies == [b"a payload can't be object;"]


async def test_a_plugin_may_put_from_threads_of_its_own(bench, plugin):
    replies = (await bench.call("old:in_threads")).replies
    assert sorted(replies) == [b"%d" % number for number in range(10)]


async def test_putting_after_the_plugin_has_returned_is_an_error(bench, plugin, eventually):
    exchange = await bench.call("old:too_late")
    plugin.release.set()
    await eventually(lambda: len(plugin.seen) == 2)
    plugin.seen[0].join(90)
    assert plugin.seen[1] == "the result queue is closed: the plugin has returned"
    assert exchange.replies == []


def test_a_mark_with_an_unknown_payload_type_is_refused():
    with pytest.raises(ValueError, match="bytes, buffer, file, not 'stream'"):
        receptor_plugins.plugin_export(payload_type="stream")


# --- `import receptor` --------------------------------------------------------------------------------------------


@pytest.fixture
def no_receptor(monkeypatch):
    for name in ("receptor", "receptor.plugin_utils"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(
        sys, "meta_path", [f for f in sys.meta_path if type(f).__module__ != "zmesh.serving.receptor_plugins"]
    )


def test_the_stand_in_has_what_plugins_and_controllers_use(no_receptor):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("receptor")
    receptor_plugins.install()
    receptor_plugins.install()
    assert len([finder for finder in sys.meta_path if type(finder).__module__ == "zmesh.serving.receptor_plugins"]) == 1
    receptor = importlib.import_module("receptor")
    assert receptor.plugin_export is receptor_plugins.plugin_export
    assert (receptor.BYTES_PAYLOAD, receptor.BUFFER_PAYLOAD, receptor.FILE_PAYLOAD) == ("bytes", "buffer", "file")
    assert receptor.ReceptorConfig is Config
    assert receptor.plugin_utils.plugin_export is receptor_plugins.plugin_export
    assert importlib.import_module("receptor.plugin_utils") is receptor.plugin_utils
    with pytest.raises(AttributeError, match="the stand-in for 'receptor' has no 'Router'"):
        _ = receptor.Router
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("receptor.router")


def test_a_package_of_that_name_that_is_installed_wins(no_receptor, install):
    install("real", {"receptor.py": "plugin_export = 'the real one'"}, {})
    receptor_plugins.install()
    assert importlib.import_module("receptor").plugin_export == "the real one"
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("receptor.plugin_utils")


def test_importing_zmesh_alone_provides_no_stand_in():
    program = "import zmesh.serving.runner, importlib.util; print(importlib.util.find_spec('receptor'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WITHIN, check=True)
    assert done.stdout == "None\n"
