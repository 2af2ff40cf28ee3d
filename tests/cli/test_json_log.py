"""The log as JSON: one object a line with the same fields everywhere, also in the journal of systemd."""

import json
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zmesh_cli.json_log import JsonFormatter

Eventually = Callable[..., None]
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def record_of(text: str, *arguments: object, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    record = logging.LogRecord("zmesh.node", level, __file__, 1, text, arguments, None)
    record.__dict__.update(extra)
    return record


def objects(text: str) -> list[dict[str, Any]]:
    """The lines of a log, each of which must be an object with the fields that all have."""
    found = [json.loads(line) for line in text.splitlines()]
    for each in found:
        assert list(each)[:4] == ["time", "level", "logger", "message"]
        assert re.fullmatch(TIME, each["time"])
        assert each.keys() <= {"time", "level", "logger", "message", "node", "event", "detail"}
    return found


def test_a_record_is_an_object_in_one_line_of_ascii() -> None:
    line = JsonFormatter().format(record_of("%s: lost \x1b[31m\u2028é", "edge", level=logging.WARNING, created=1.5))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "warning",
        "logger": "zmesh.node",
        "message": "edge: lost \x1b[31m\u2028é",
    }


def test_what_follows_the_first_line_is_the_detail() -> None:
    found = objects(JsonFormatter().format(record_of("it failed\nTraceback\n  at 1")))
    assert [(each["message"], each["detail"]) for each in found] == [("it failed", "Traceback\n  at 1")]


def test_the_traceback_of_a_record_is_its_detail() -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        record = record_of("it failed", exc_info=sys.exc_info())
    found = objects(JsonFormatter().format(record))
    assert found[0]["message"] == "it failed"
    assert found[0]["detail"].endswith("ValueError: odd")


@pytest.mark.parametrize(
    ("level", "name"),
    [(5, "debug"), (10, "debug"), (20, "info"), (25, "info"), (30, "warning"), (40, "error"), (50, "error")],
)
def test_a_level_has_one_of_four_names(level: int, name: str) -> None:
    assert objects(JsonFormatter().format(record_of("x", level=level)))[0]["level"] == name


@pytest.mark.parametrize(("level", "priority"), [(10, 7), (20, 6), (30, 4), (40, 3)])
def test_a_line_in_the_journal_of_systemd_begins_with_its_priority(level: int, priority: int) -> None:
    line = JsonFormatter(in_journal=True).format(record_of("x", level=level))
    assert line.startswith(f"<{priority}>{{")
    objects(line[3:])


def test_all_that_a_node_prints_on_stderr_is_json(shell: Any, eventually: Eventually) -> None:
    hub = shell.node("hub", "--log", "json")
    edge = shell.node("edge", "--peer", hub.url)
    eventually(lambda: "edge joined the mesh" in hub.complaints())
    eventually(lambda: "linked with edge" in hub.complaints())
    edge.end()
    eventually(lambda: "lost the link" in hub.complaints())
    hub.end()
    found = {each["event"]: each for each in objects(hub.complaints()) if "event" in each}
    assert {"linked", "joined", "lost"} <= found.keys()
    assert {each["node"] for each in found.values()} == {"hub"}
    assert {each["logger"] for each in found.values()} == {"zmesh.observe.journal"}
    assert found["lost"]["message"].startswith("hub: lost the link with edge from 127.0.0.1")


def test_the_line_that_a_node_is_ready_and_the_error_that_ends_it_are_json(shell: Any) -> None:
    taken = shell.node("hub").url
    done = shell.run("node", "--id", "b", "--listen", taken, "--log", "json")
    assert (done.returncode, done.stdout) == (2, b"")
    (error,) = objects(done.stderr.decode())
    assert (error["level"], error["logger"]) == ("error", "zmesh_cli")
    assert error["message"].startswith("zmesh: ")
    process = shell.start("node", "--id", "c", environment={"ZMESH_LOG_FORMAT": "json"})
    assert objects(process.stderr.readline().decode())[0]["message"].startswith("node c listens on ")
    process.terminate()
    process.communicate(timeout=90)


def test_a_format_that_does_not_exist_is_refused(shell: Any) -> None:
    done = shell.run("node", "--log", "xml")
    assert done.returncode == 2
    assert b"log_format must be one of text, json, not 'xml'" in done.stderr


def test_a_bad_setting_is_reported_as_json(shell: Any) -> None:
    done = shell.run("node", "--log", "json", environment={"ZMESH_HEARTBEAT": "fast"})
    assert done.returncode == 2
    assert "ZMESH_HEARTBEAT" in objects(done.stderr.decode())[0]["message"]


def test_the_format_is_taken_anew_when_the_settings_are(shell: Any, tmp_path: Path, eventually: Eventually) -> None:
    file = tmp_path / "node.toml"
    file.write_text("log_level = 'info'\n")
    node = shell.node("a", "--config", str(file))
    file.write_text("log_level = 'info'\nlog_format = 'json'\n")
    assert shell.run("reload", "a").returncode == 0
    file.write_text("log_level = 'warning'\nlog_format = 'json'\n")
    assert shell.run("reload", "a").returncode == 0
    eventually(lambda: '"event":"configuration_changed"' in node.complaints())


def test_a_node_under_systemd_says_the_priority_of_each_line(shell: Any) -> None:
    reading, writing = os.pipe()
    status = os.fstat(writing)
    environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    node = shell.start("node", "--id", "a", "--log", "json", environment=environment, stderr=writing)
    os.close(writing)
    with os.fdopen(reading) as lines:
        line = lines.readline()
        assert line.startswith("<6>")
        assert objects(line[3:])[0]["message"].startswith("node a listens on ")
        node.terminate()
        node.communicate(timeout=90)


def test_a_command_logs_json_where_the_environment_says_so(shell: Any, eventually: Eventually) -> None:
    hub = shell.node("hub")
    done = shell.run("ping", "hub", "-c", "1", "-v", "--peer", hub.url, environment={"ZMESH_LOG_FORMAT": "json"})
    assert done.returncode == 0
    objects(done.stderr.decode())
    assert done.stderr
