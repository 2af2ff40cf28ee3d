"""`zmesh send`: payloads, replies, exit codes."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import WITHIN

Lines = Callable[[subprocess.CompletedProcess[bytes]], list[dict[str, Any]]]

BROKEN_PIPE = 141
UNREAD = b"zmesh: stdin has data that is not sent, as no PAYLOAD was given: '-' sends it, '</dev/null' silences this\n"
REPLY = ["schema", "message_id", "in_response_to", "sender", "serial", "code", "eof", "error", "encoding", "payload"]
REPLY += ["content_type", "metadata"]


def test_the_raw_payload_and_nothing_else_goes_to_stdout(mesh: Any) -> None:
    done = mesh.run("send", "far", "echo:echo", "hällo, wörld")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hällo, wörld".encode(), b"")


def test_with_json_each_reply_is_a_line_and_the_last_one_is_empty(mesh: Any, lines: Lines) -> None:
    done = mesh.run("send", "far", "echo:echo", "hällo", "--json")
    reply, final = lines(done)
    assert list(reply) == list(final) == REPLY
    assert reply["schema"] == "zmesh.reply/1"
    assert (reply["encoding"], reply["payload"], reply["sender"]) == ("utf-8", "hällo", "far")
    assert (reply["code"], reply["eof"], reply["error"], reply["serial"]) == (0, False, None, 1)
    assert (final["code"], final["eof"], final["error"], final["serial"]) == (0, True, None, 2)
    assert (final["payload"], final["encoding"]) == ("", "utf-8")
    assert reply["in_response_to"] == final["in_response_to"]
    assert len({reply["in_response_to"], reply["message_id"], final["message_id"]}) == 3
    assert all(len(line["message_id"]) == 32 for line in (reply, final))


@pytest.mark.parametrize(
    ("words", "stdin", "content_type"),
    [
        (["text"], None, "text/plain"),
        (["-"], b"text", "application/octet-stream"),
        (["[1, 2]", "--content-type", "application/json"], None, "application/json"),
        (["-", "--content-type", "image/png"], b"x", "image/png"),
        ([], None, "application/octet-stream"),
    ],
)
def test_the_content_type_of_the_payload_is_sent_and_shown(
    mesh: Any, lines: Lines, words: list[str], stdin: bytes | None, content_type: str
) -> None:
    done = mesh.run("send", "far", "echo:echo", *words, "--json", **({"stdin": stdin} if stdin else {}))
    reply, final = lines(done)
    assert (reply["content_type"], final["content_type"]) == (content_type, None)
    assert reply["metadata"] == final["metadata"] == {}
    assert (reply.get("value"), reply["payload"]) == (
        ([1, 2], "[1, 2]") if content_type == "application/json" else (None, reply["payload"])
    )


def test_metadata_is_sent_and_shown(mesh: Any, lines: Lines) -> None:
    reply, _ = lines(
        mesh.run("send", "far", "echo:echo", "x", "-H", "user=ada", "-H", "rule=a=b", "-H", "é=", "--json")
    )
    assert reply["metadata"] == {"user": "ada", "rule": "a=b", "é": ""}


def test_malformed_json_and_numbers_that_json_has_not_are_shown_as_text_alone(mesh: Any, lines: Lines) -> None:
    for text in ("{", "NaN"):
        done = mesh.run("send", "far", "echo:echo", text, "--content-type", "application/json", "--json")
        reply, _ = lines(done)
        assert (reply["payload"], "value" in reply) == (text, False)


def test_an_answer_in_json_is_shown_as_json(mesh: Any, lines: Lines) -> None:
    reply, _ = lines(mesh.run("send", "far", "zmesh:ping", "--json"))
    assert reply["value"]["active_work"] == []
    assert json.loads(reply["payload"]) == reply["value"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-H", "novalue"], b"'novalue' is no metadata; it must look like KEY=VALUE"),
        (["-H", "=x"], b"'=x' is no metadata; it must look like KEY=VALUE"),
        (["-H", "a=1", "-H", "a=2"], b"the metadata 'a' is given twice; a key has one value"),
        (["-H", "a=" + "v" * 8192], b"metadata is up to 8192 bytes in all, not 8193"),
        (["--content-type", "json"], b"content_type is a media type such as image/png"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_metadata_that_can_not_be_sent_is_a_usage_error(mesh: Any, words: list[str], text: bytes) -> None:
    done = mesh.run("send", "far", "echo:echo", "x", *words)
    assert done.returncode == 2
    assert text in done.stderr


def test_bytes_that_are_not_utf_8_are_base64_in_json(mesh: Any, lines: Lines) -> None:
    data = bytes(range(256))
    reply, _ = lines(mesh.run("send", "far", "echo:echo", "-", "--json", stdin=data))
    assert reply["encoding"] == "base64"
    assert base64.b64decode(reply["payload"]) == data


@contextlib.contextmanager
def stdin_of(kind: str, tmp_path: Path) -> Iterator[int]:
    """A stdin with three bytes, or none, and its other end open or closed."""
    what, _, size = kind.partition(" ")
    data = b"abc"[: int(size or 3)]
    if what == "file":
        (tmp_path / "in").write_bytes(data)
        near = far = os.open(tmp_path / "in", os.O_RDONLY)
    elif what == "socket":
        ends = socket.socketpair()
        ends[1].send(data)
        near, far = (end.detach() for end in ends)
    elif what == "terminal":
        far, near = pty.openpty()
        os.write(far, b"abc\n")
    elif what in ("pipe", "closed-pipe"):
        near, far = os.pipe()
        os.write(far, data)
        if what == "closed-pipe":
            os.close(far)
            far = near
    else:
        near = far = os.open(what, os.O_RDONLY)
    yield near
    for descriptor in {near, far}:
        os.close(descriptor)


@pytest.mark.parametrize("kind", ["pipe 3", "closed-pipe 3", "file 3", "socket 3"])
def test_data_on_stdin_without_a_payload_is_mentioned_and_left_there(mesh: Any, tmp_path: Path, kind: str) -> None:
    with stdin_of(kind, tmp_path) as stdin:
        done = mesh.run("send", "far", "echo:echo", stdin=stdin)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", UNREAD)
        assert os.read(stdin, 10) == b"abc"


KINDS = ["pipe 0", "closed-pipe 0", "file 0", "socket 0", "terminal", "/dev/null", "/dev/zero"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stdin_without_data_is_not_mentioned(mesh: Any, tmp_path: Path, kind: str) -> None:
    with stdin_of(kind, tmp_path) as stdin:
        done = mesh.run("send", "far", "echo:echo", stdin=stdin)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_data_that_comes_to_stdin_during_the_command_is_mentioned_too(shell: Any) -> None:
    hub = shell.node("hub")
    send = shell.start("send", "late", "echo:echo", "--peer", hub.url, setup=shell.young, stdin=subprocess.PIPE)
    hub.event("link_up")
    send.stdin.write(b"data")
    send.stdin.flush()
    shell.node("late", "--peer", hub.url)
    out, err = send.communicate(timeout=WITHIN)
    assert (send.returncode, out, err) == (0, b"", UNREAD)


def test_with_a_payload_stdin_is_ignored(mesh: Any) -> None:
    done = mesh.run("send", "far", "echo:echo", "x", stdin=b"not meant")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x", b"")


def test_a_loop_of_the_shell_keeps_the_lines_that_it_reads_from_a_file(mesh: Any, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("one\ntwo\nthree\n")
    script = f'while read -r word; do {shlex.join(mesh.command)} send far echo:echo; echo "$word"; done <list'
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=mesh.environment, capture_output=True, timeout=WITHIN)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\ntwo\nthree\n", b"")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ("far", os.fsdecode(b"x:\xff")),
            rb"zmesh: 'x:\\udcff' is no directive; it must look like namespace:action, .*\n",
        ),
        (("far", "echo"), rb"zmesh: 'echo' is no directive; it must look like namespace:action, .*\n"),
        (("far", "a:b c"), rb"zmesh: 'a:b c' is no directive; it must look like namespace:action, .*\n"),
        ((os.fsdecode(b"\xff"), "echo:echo"), rb"zmesh: '\\udcff' is not the id of a node: .*\n"),
        (("far", "echo:echo", "--timeout", "1e10"), rb"zmesh: timeout is from 0 to 1e\+09 seconds, .*\n"),
    ],
)
def test_what_can_not_be_sent_is_an_error_in_one_line(mesh: Any, words: tuple[str, ...], text: bytes) -> None:
    done = mesh.run("send", *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(text, done.stderr), done.stderr


def test_an_argument_that_is_not_utf_8_arrives_byte_for_byte(mesh: Any) -> None:
    done = mesh.run("send", "far", "echo:echo", os.fsdecode(b"\xff\xfe"))
    assert done.stdout == b"\xff\xfe"


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_a_file_and_stdin_arrive_whole(mesh: Any, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    file = tmp_path / "data"
    file.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest().encode()
    assert mesh.run("send", "far", "digest:sha256", f"@{file}").stdout == digest
    assert mesh.run("send", "far", "digest:sha256", "-", stdin=data).stdout == digest
    with file.open("rb") as redirected:
        assert mesh.run("send", "far", "digest:sha256", "-", stdin=redirected.fileno()).stdout == digest


def test_a_large_reply_comes_back_whole(mesh: Any) -> None:
    data = os.urandom(20_000_000)
    assert mesh.run("send", "far", "echo:echo", "-", stdin=data).stdout == data


def test_stdin_is_streamed_and_not_collected_first(mesh: Any) -> None:
    send = mesh.start("send", "far", "digest:sha256", "-", stdin=subprocess.PIPE)
    try:
        chunk = b"x" * 65536
        for _ in range(200):  # far more than the pipe and the windows of the path hold
            send.stdin.write(chunk)
        send.stdin.flush()
        status = Path(f"/proc/{send.pid}/status").read_text()
        resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
        assert resident < 100_000
        out, err = send.communicate(timeout=WITHIN)
    finally:
        send.kill()
    assert (send.returncode, err) == (0, b"")
    assert out.decode() == hashlib.sha256(chunk * 200).hexdigest()


def test_a_named_pipe_can_be_the_file(mesh: Any, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    send = mesh.start("send", "far", "echo:echo", f"@{pipe}")
    with pipe.open("wb") as writer:
        writer.write(b"through a pipe")
    out, _ = send.communicate(timeout=WITHIN)
    assert (send.returncode, out) == (0, b"through a pipe")


@pytest.mark.parametrize("path", ["@missing", "@", "@.", "@mis\x1bsing"])
def test_a_file_that_cannot_be_read_is_a_usage_error(mesh: Any, path: str) -> None:
    done = mesh.run("send", "far", "echo:echo", path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"zmesh: can't read the file ")
    assert done.stderr.count(b"\n") == 1


def test_a_file_that_fails_while_it_is_read_is_a_usage_error(mesh: Any) -> None:
    done = mesh.run("send", "far", "digest:sha256", "@/proc/self/mem")
    assert done.returncode == 2
    assert b"could not be read" in done.stderr


def test_an_unknown_directive_is_explained_by_the_other_node(mesh: Any, lines: Lines) -> None:
    done = mesh.run("send", "far", "echo:ecko", "x")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"zmesh: far: no directive 'echo:ecko'" in done.stderr
    assert b"(did you mean 'echo:echo'?)" in done.stderr
    (final,) = lines(mesh.run("send", "far", "echo:ecko", "x", "--json"))
    assert (final["code"], final["eof"], final["payload"]) == (1, True, "")
    assert "did you mean" in final["error"]


def test_a_failure_of_the_work_is_exit_code_1_and_its_text_is_escaped(mesh: Any) -> None:
    done = mesh.run("send", "far", "http:execute", json.dumps({"url": "x", "method": 3, "\x1b[31m": 1}))
    assert done.returncode == 1
    assert done.stderr.startswith(b"zmesh: far: ValueError: ")
    assert b"\x1b" not in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_malformed_directive_is_a_usage_error(mesh: Any) -> None:
    done = mesh.run("send", "far", "echo", "x")
    assert done.returncode == 2
    assert b"namespace:action" in done.stderr


def test_an_unknown_node_fails_with_the_likely_id(mesh: Any, lines: Lines) -> None:
    done = mesh.run("send", "farr", "echo:echo", "x", "--json")
    assert done.returncode == 3
    assert b"(did you mean 'far'?)" in done.stderr
    (final,) = lines(done)
    assert list(final) == REPLY
    assert (final["code"], final["eof"], final["sender"]) == (1, True, "farr")
    assert "can be reached" in final["error"]


def test_work_that_takes_too_long_times_out(mesh: Any) -> None:
    done = mesh.run_joined("send", "far", "sleep:execute", "3600", "--timeout", "0.3")
    assert done.returncode == 4
    assert done.stderr.startswith(b"zmesh: far: ")


def test_an_explicit_timeout_bounds_the_wait_for_a_node_that_is_not_there(shell: Any) -> None:
    hub = shell.node("hub")
    done = shell.run_joined("send", "nobody", "echo:echo", "x", "--timeout", "0.2", "--peer", hub.url)
    assert done.returncode in (3, 4)  # whichever of two limits of 0.2 s is noticed first
    assert b"nobody" in done.stderr


def test_work_of_a_node_that_has_left_ends_after_the_route_timeout(shell: Any) -> None:
    """And not after the time-out of the request."""
    hub, far = shell.chain("hub", "far")
    limits = ("--timeout", "600", "--route-timeout", "0.5")
    process = shell.start("send", "far", "sleep:execute", "600", *limits, "-v", "--peer", hub.url)
    assert any(b"the message id is" in line for line in process.stderr)
    far.process.kill()
    _, error = process.communicate(timeout=WITHIN)
    assert process.returncode == 3, error
    assert b"far" in error


def test_a_request_to_a_node_that_comes_up_in_time_is_answered(shell: Any) -> None:
    hub = shell.node("hub")
    send = shell.start("send", "late", "echo:echo", "hello", "--peer", hub.url, setup=shell.young)
    hub.event("link_up")
    shell.node("late", "--peer", hub.url)
    out, err = send.communicate(timeout=WITHIN)
    assert (send.returncode, out, err) == (0, b"hello", b"")


@contextlib.contextmanager
def web_server(write: Callable[[Any], None]) -> Iterator[str]:
    """A web server on the loopback address whose pages `write` writes; its URL."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                write(self.wfile)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join(WITHIN)


def write_for_ever(file: Any) -> None:
    while True:
        file.write(b"x" * 65536)


def active_work(shell: Any, lines: Lines, node: str, *peer: str) -> list[Any]:
    return list(lines(shell.run("ping", node, "-c", "1", "--json", *peer))[0]["active_work"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_work_at_the_other_node(
    mesh: Any, lines: Lines, eventually: Callable[..., None], number: int
) -> None:
    send = mesh.start("send", "mid", "sleep:execute", "3600")
    eventually(lambda: active_work(mesh, lines, "mid"))
    send.send_signal(number)
    out, err = send.communicate(timeout=WITHIN)
    assert (send.returncode, out, err) == (130, b"", b"")
    assert active_work(mesh, lines, "mid") == []


def test_without_a_reader_of_stdout_the_work_and_the_command_end_in_silence(
    mesh: Any, lines: Lines, eventually: Callable[..., None]
) -> None:
    with web_server(write_for_ever) as url:
        send = mesh.start("send", "mid", "http:execute", json.dumps({"url": url}))
        assert send.stdout.read(100_000)
        send.stdout.close()
        assert send.wait(WITHIN) == BROKEN_PIPE
        assert send.stderr.read() == b""
        send.stderr.close()
    eventually(lambda: active_work(mesh, lines, "mid") == [])


def test_a_slow_reader_of_stdout_does_not_cost_the_link(shell: Any) -> None:
    quick = shell.folder / "quick.toml"
    quick.write_text("heartbeat = 1.0\n")
    hub = shell.node("hub", "--config", str(quick))
    data = os.urandom(3_000_000)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        send = shell.start("send", "hub", "echo:echo", "-", "--peer", hub.url, stdin=cat.stdout)
        writer = threading.Thread(target=feed, args=(cat.stdin, data))
        writer.start()
        hub.event("link_up")
        with pytest.raises(AssertionError, match="no link_lost"):
            hub.event("link_lost", within=4.0)  # longer than a link may be silent
        out, err = send.communicate(timeout=WITHIN)
        writer.join(WITHIN)
    assert (send.returncode, err) == (0, b"")
    assert out == data


def feed(stdin: Any, data: bytes) -> None:
    stdin.write(data)
    stdin.close()


def test_a_failure_before_stdin_has_ended_does_not_wait_for_it(mesh: Any) -> None:
    reading, writing = os.pipe()
    try:
        done = mesh.run("send", "far", "no:such", "-", stdin=reading)  # nothing is ever written
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 1
    assert b"no directive" in done.stderr


def test_replies_of_a_plugin_come_one_by_one_in_order(mesh: Any, lines: Lines) -> None:
    with web_server(lambda file: file.write(b"one page")) as url:
        *replies, final = lines(mesh.run("send", "far", "http:execute", json.dumps({"url": url}), "--json"))
    assert json.loads(replies[0]["payload"])["status"] == 200
    assert "".join(reply["payload"] for reply in replies[1:]) == "one page"
    assert [line["serial"] for line in (*replies, final)] == list(range(1, len(replies) + 2))
