"""Supervisor: a small single-threaded process that forks, signals and reaps the commands that a node runs.

A node has threads, in which nothing but exec is safe after a fork, and a new session, another user and resource limits
need more than that. So the node starts this process with its first command, and orders commands from it. It imports
little, so that it starts in a hundredth of a second, and runs without zmesh.

Each command leads a session. When the node's end of the socket is closed, for whatever reason, the supervisor ends all
sessions as a cancelled command ends (SIGTERM, and SIGKILL after its grace period) and exits. A leader that has exited
is not reaped before its session has ended, so that its process id, which names the session, is not used again.

Orders are marshalled dicts, one in a packet: {id, start} with the descriptors of the command's description, stdin,
stdout and stderr; {id, signal}; {id, end} with a grace period. Reports: {id, pid}, {id, errno, stage}, {id, code}.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import resource
import select
import signal
import socket
import sys
import termios
import time
import warnings  # noqa: F401  # execvpe imports it, when the command's user may not be able to read it any more
from typing import Any, NoReturn

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
POLL = 0.02
"""Seconds between two looks at a session whose leader has exited and whose other processes have not."""
MAX_PACKET = 4096
DESCRIPTORS = 4


class Session:
    """The session of one command, led by its process."""

    def __init__(self, id: int, pid: int, grace: float) -> None:
        self.id = id
        self.pid = pid
        self.grace = grace
        self.exited = False
        self.ending = False
        self.kill_at: float | None = None
        """When the processes that are left get SIGKILL, if the session is being ended."""

    def signal(self, number: int, *, everywhere: bool = False) -> None:
        """Signal the leader's process group, or (`everywhere`) all groups of the session."""
        groups = {self.pid, *(group for _, group in session_members(self.pid))} if everywhere else {self.pid}
        for group in groups:
            try:
                os.killpg(group, number)
            except (ProcessLookupError, PermissionError):
                pass

    def end(self, grace: float) -> None:
        """Send SIGTERM to all processes of the session, and SIGKILL after `grace` seconds."""
        if not self.ending:
            self.ending = True
            self.kill_at = time.monotonic() + grace
            self.signal(signal.SIGTERM, everywhere=True)
            self.signal(signal.SIGCONT, everywhere=True)


def session_members(session: int) -> list[tuple[int, int]]:
    """The live processes of a session and their process groups (Linux; empty elsewhere)."""
    found: list[tuple[int, int]] = []
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                    state, _, group, leader = file.read(512).rpartition(b")")[2].split()[:4]
            except (OSError, ValueError):
                continue
            if int(leader) == session and state not in (b"Z", b"X"):
                found.append((int(name), int(group)))
    return found


class Supervisor:
    """Runs commands on the orders of the node at the other end of `control`."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._sessions: dict[int, Session] = {}
        self._starting: dict[int, int] = {}
        """The id of the command that has not been executed yet, by the descriptor that will say why not."""
        self._node_is_gone = False
        self._woken, self._waker = socket.socketpair()
        self._poll = select.poll()

    def run(self) -> None:
        """Serve the node until it closes the socket, and then until all commands have ended."""
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, at: None)
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)
        while self._sessions or not self._node_is_gone:
            for descriptor, _ in self._poll.poll(self._timeout()):
                self._on_ready(descriptor)
            self._reap()

    def _timeout(self) -> float | None:
        """Milliseconds until something is due by time alone."""
        now = time.monotonic()
        due = [
            min(POLL, each.kill_at - now) if each.exited else each.kill_at - now
            for each in self._sessions.values()
            if each.kill_at is not None
        ]
        return max(0.0, min(due)) * 1000 + 1 if due else None

    def _on_ready(self, descriptor: int) -> None:
        if descriptor == self._woken.fileno():
            try:
                self._woken.recv(4096)
            except BlockingIOError:
                pass
        elif descriptor == self._control.fileno():
            self._on_order()
        else:
            self._on_executed(descriptor)

    def _on_order(self) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._control, MAX_PACKET, DESCRIPTORS)
        except ConnectionError:
            packet, descriptors = b"", []
        if not packet:
            self._poll.unregister(self._control)
            self._node_is_gone = True
            for session in self._sessions.values():
                session.end(session.grace)
            return
        order = marshal.loads(packet)
        ordered = self._sessions.get(order["id"])
        if "start" in order:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            try:
                self._start(order["id"], descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        elif ordered is not None and "signal" in order:
            ordered.signal(order["signal"])
        elif ordered is not None:
            ordered.end(order["end"])

    def _start(self, id: int, descriptors: list[int]) -> None:
        try:
            if len(descriptors) < DESCRIPTORS:  # the kernel drops those for which there is no room (unix(7))
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            size = os.fstat(descriptors[0]).st_size
            command: dict[str, Any] = marshal.loads(os.pread(descriptors[0], size, 0))
            outcome, failed = os.pipe()
        except OSError as error:
            self._report({"id": id, "errno": error.errno, "stage": "descriptors"})
            return
        try:
            pid = os.fork()
        except OSError as error:
            os.close(outcome)
            self._report({"id": id, "errno": error.errno, "stage": "fork"})
            return
        else:
            if pid == 0:
                execute(command, descriptors[1:], failed)
            self._sessions[id] = Session(id, pid, command["grace"])
            self._starting[outcome] = id
            self._poll.register(outcome, select.POLLIN)
        finally:
            os.close(failed)

    def _on_executed(self, outcome: int) -> None:
        """The command is executed, or it is said why it can't be."""
        text = os.read(outcome, 64)
        self._poll.unregister(outcome)
        os.close(outcome)
        id = self._starting.pop(outcome)
        session = self._sessions[id]
        if not text:
            self._report({"id": id, "pid": session.pid})
            return
        number, _, stage = text.decode().partition(" ")
        os.waitpid(session.pid, 0)
        del self._sessions[id]
        self._report({"id": id, "errno": int(number), "stage": stage})

    def _reap(self) -> None:
        starting = set(self._starting.values())
        for session in list(self._sessions.values()):
            if session.id in starting:
                continue
            if not session.exited:
                session.exited = os.waitid(os.P_PID, session.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
            due = session.kill_at is not None and time.monotonic() >= session.kill_at
            if due:
                session.kill_at = None
                session.signal(signal.SIGKILL, everywhere=True)
            if session.exited and (session.kill_at is None or not session_members(session.pid)):
                _, status = os.waitpid(session.pid, 0)
                del self._sessions[session.id]
                self._report({"id": session.id, "code": os.waitstatus_to_exitcode(status)})

    def _report(self, report: dict[str, Any]) -> None:
        if not self._node_is_gone:
            try:
                self._control.send(marshal.dumps(report))
            except OSError:
                pass  # the node is gone, as the next order will say


def execute(command: dict[str, Any], streams: list[int], failed: int) -> NoReturn:
    """In the child: become the command. Writes an errno and what failed to `failed` if it can't."""
    stage = "prepare"
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        if command["terminal"]:
            stage = "terminal"
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.set_wakeup_fd(-1)
        for number in (*IGNORED, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        stage = "limits"
        for which, (soft, hard) in command["limits"].items():
            _, highest = resource.getrlimit(which)
            if highest != resource.RLIM_INFINITY:
                soft, hard = min(soft, highest), min(hard, highest)
            resource.setrlimit(which, (soft, hard))
        if command["user"] is not None:
            stage = "user"
            uid, gid, groups = command["user"]
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
        stage = "directory"
        os.chdir(command["directory"])
        stage = "execute"
        words, environment = command["words"], command["environment"]
        os.execvpe(words[0], words, environment)
    except OSError as error:
        os.write(failed, f"{error.errno} {stage}".encode())
    except ValueError:
        os.write(failed, f"22 {stage}".encode())
    finally:
        os._exit(127)


def serve(descriptor: int) -> None:
    """Run the supervisor on its end of the socket to the node."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)  # the node closes the socket to end this process
    os.chdir("/")
    with socket.socket(fileno=descriptor) as control:
        control.set_inheritable(False)
        Supervisor(control).run()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
