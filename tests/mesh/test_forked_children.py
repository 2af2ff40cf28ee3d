"""A forked child of a process with a node: what it has inherited keeps nothing of its parent's open, or locked."""

import signal
import socket
import subprocess
import sys

import pytest

from tests import own_process

SETTING = """
import asyncio, gc, os, socket, sqlite3, subprocess, sys, warnings
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
import zmesh, zmesh.sync

ALLOW = {"job:*": ["*"], "exec:*": ["*"], "tcp:*": ["*"], "file:*": ["*"]}
FOLDER = sys.argv[1]

def metrics_of(mesh):
    return mesh._mesh.node.metrics_url.removeprefix("http://").removesuffix("/metrics")

def config(**more):
    settings = {"node_id": "edge", "listen": ["tcp://127.0.0.1:*", f"ipc://{FOLDER}/edge"], "allow": ALLOW,
                "plugins": {"job": {"folder": f"{FOLDER}/jobs"}}, "metrics": {"address": "127.0.0.1:0"}}
    return zmesh.Config(**{**settings, **more})

def child(ends):
    "A fork that lives until `end` is called, and then ends as programs do."
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        ends()
        gc.collect()
        sys.exit(7)
    os.close(reader)
    def end():
        os.close(writer)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    return end

def echo_server():
    server = socket.create_server(("127.0.0.1", 0))
    return server, server.getsockname()[1]

def all_of(connection):
    got = b""
    while data := connection.recv(65536):
        got += data
    return got
"""


def run(folder, code):
    own_process.run(f"{SETTING}\n{code}", folder)


@pytest.mark.timeout(120)
def test_what_a_node_has_opened_is_free_when_it_has_closed_though_a_child_runs(tmp_path):
    """Its ports, its Unix socket, and the lock on its jobs: the next run of the node takes all of them."""
    run(
        tmp_path,
        """
mesh = zmesh.sync.Controller(config())
mesh.open()
forward = mesh.forward(0, "edge:9")
assert mesh.submit("edge", "echo:echo", "one").wait(60).state == "done"
listening, port, metrics = mesh.listening, forward.port, metrics_of(mesh)
end = child(lambda: globals().pop("mesh"))
mesh.close()
with zmesh.sync.Controller(config(listen=listening, metrics={"address": metrics})) as again:
    assert again.listening == listening, (again.listening, listening)
    with again.forward(port, "edge:9"):
        assert [job.state for job in again.jobs("edge")] == ["done"]
        assert again.submit("edge", "echo:echo", "two").wait(60).state == "done"
        end()
        assert again.submit("edge", "echo:echo", "three").wait(60).state == "done"
        assert again.request("edge", "echo:echo", "well", timeout=60).text() == "well"
with sqlite3.connect(f"{FOLDER}/jobs/jobs.db") as found:
    assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert found.execute("SELECT count(*) FROM job WHERE state = 'done'").fetchall() == [(3,)]
found.close()
""",
    )


@pytest.mark.timeout(120)
def test_the_ends_of_streams_arrive_though_a_child_has_copies_of_their_descriptors(tmp_path):
    """A command sees the end of its input, and both ends of a connection that the other has closed it."""
    run(
        tmp_path,
        """
server, port = echo_server()
with zmesh.sync.Controller(config()) as mesh, mesh.forward(0, f"edge:{port}") as forward:
    command = mesh.popen("edge", ["cat"], stdin=subprocess.PIPE)
    near = socket.create_connection(("127.0.0.1", forward.port))
    far, _ = server.accept()
    near.sendall(b"before")
    assert far.recv(6) == b"before"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # these are the test's own
        for mine in (near, far, server):
            mine.close()
        os.close(writer)
        os.read(reader, 1)
        os._exit(7)
    os.close(reader)
    for sock in (near, far):
        sock.settimeout(60)
    far.close()
    assert all_of(near) == b""
    near.close()
    assert command.communicate(b"input") == (b"input", b"")
    assert command.wait() == 0
    command.close()
    os.close(writer)
    os.waitpid(pid, 0)
server.close()
""",
    )


@pytest.mark.timeout(120)
def test_commands_end_with_a_node_that_was_killed_though_a_child_of_it_runs(tmp_path):
    """Their supervisor learns of it by the end of a socket, of which the child must have no copy."""
    program = f"""{SETTING}
mesh = zmesh.sync.Controller(config())
mesh.open()
command = mesh.popen("edge", ["sleep", "1000"])
print(command.pid, flush=True)
pid = os.fork()
if pid == 0:
    os.close(1)
    os.read(0, 1)
    os._exit(7)
print(pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        command = int(process.stdout.readline())
        process.stdout.readline()
        watch = _watch(command)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with watch:
            assert _ends(watch, 60)
        process.stdin.close()


@pytest.mark.timeout(120)
def test_what_was_locked_while_a_child_was_forked_is_free_though_the_child_runs(tmp_path):
    """The state of an identity, and the temporary of a copy: a renewal, and the next attempt, want to lock them."""
    run(
        tmp_path,
        """
import zmesh.identity.state
from zmesh.files.partial import Partial, clean

zmesh.identity.state.LOCKED_WITHIN = 0.0
state = zmesh.identity.state.State(FOLDER)
with state.locked():
    end = child(lambda: None)
with state.locked():
    pass
end()

def partial():
    return Partial.open(os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY), bytes(16))

begun = partial()
begun.write([b"x" * 1_000_000])
end = child(lambda: None)
assert begun.keep()
resumed = partial()
assert resumed.size == 1_000_000, "it is another one"
assert resumed.keep()
assert clean(os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY), -1.0) == (1, 0)
end()
""",
    )


def _watch(pid):
    """A file that is readable when the process has ended (pidfd_open(2))."""
    import os

    return os.fdopen(os.pidfd_open(pid), "rb", buffering=0)


def _ends(watch, within):
    import select

    poll = select.poll()
    poll.register(watch, select.POLLIN)
    return bool(poll.poll(within * 1000))


def test_a_socket_and_a_descriptor_are_closed_in_a_child_until_they_are_closed_here():
    import os

    from zmesh.runtime.forks import close_in_child, closing

    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    kept, given_back = os.pipe()
    with ours, theirs:
        for what in (ours, writer, kept):
            close_in_child(what)
        closing(kept)
        answers, answer = os.pipe()
        pid = os.fork()
        if pid == 0:
            there = [os.path.exists(f"/proc/self/fd/{each}") for each in (theirs.fileno(), writer, kept, reader)]
            os.write(answer, f"{ours.fileno()} {there}".encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(answers, 100).decode() == "-1 [True, False, True, True]"
        assert os.path.exists(f"/proc/self/fd/{writer}")
    closing(writer)
    for each in (reader, writer, kept, given_back, answers, answer):
        os.close(each)
