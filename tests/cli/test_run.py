"""`zmesh run`: exit codes, streams, signals and terminals of a command at another node."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pexpect
import pytest

ALLOW = '{"exec:*": ["*"]}'
READY = "echo ready; "


@pytest.fixture(scope="module")
def machines(new_shell: Callable[[], Any]) -> Any:
    """A shell beside three nodes that allow commands, and one that does not, whose commands join at `hub`."""
    shell = new_shell()
    shell.environment["ZMESH_ALLOW"] = ALLOW
    shell.hub, shell.mid, shell.far = shell.chain("hub", "mid", "far")
    del shell.environment["ZMESH_ALLOW"]
    shell.closed = shell.node("closed", "--peer", shell.hub.url)
    shell.hub.event("node_joined")
    shell.environment["ZMESH_PEER"] = shell.hub.url
    return shell


def test_streams_and_exit_code_are_those_of_the_command(machines: Any) -> None:
    done = machines.run("run", "far", "--", "sh", "-c", "echo out; cat; echo err >&2; exit 7", stdin=b"given\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\ngiven\n", b"err\n", 7)
    assert machines.run("run", "far", "--", "true").returncode == 0
    assert machines.run("run", "far", "--", "sh", "-c", "kill -9 $$").returncode == 128 + 9


def test_a_large_output_is_whole_and_the_exit_code_follows(machines: Any) -> None:
    done = machines.run("run", "far", "--", "sh", "-c", "head -c 20000000 /dev/zero; exit 7")
    assert (len(done.stdout), done.returncode) == (20_000_000, 7)


def test_options(machines: Any) -> None:
    environment = {"FROM_HERE": "1"}
    words = ("run", "far", "--env", "A=b c", "-e", "FROM_HERE", "--cwd", "/usr", "--shell", "--")
    done = machines.run(*words, "echo $A $FROM_HERE; pwd", environment=environment)
    assert done.stdout == b"b c 1\n/usr\n"
    assert machines.run("run", "far", "-n", "--", "cat", stdin=b"not sent").stdout == b""
    if os.getuid() == 0:
        assert machines.run("run", "far", "--user", "nobody", "--", "id", "-un").stdout == b"nobody\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("far", "--", "no-such-program"), 127, "zmesh: node 'far': there is no program 'no-such-program' in the PATH"),
        (("far", "--", "/etc/passwd"), 126, "zmesh: node 'far': can't execute '/etc/passwd': permission denied"),
        (("far", "--cwd", "/no", "--", "true"), 126, "zmesh: node 'far': can't run it in the directory '/no': no such"),
        (("fra", "--", "true"), 255, "(did you mean 'far'?)"),
        (("closed", "--", "true"), 255, '[allow] "exec:*" = ["hub"]'),
        (("far", "--timeout", "0.2", "--", "sleep", "60"), 255, "'sleep' was stopped, its time being over"),
        (("far",), 2, "zmesh: no command is given, such as in: zmesh run edge-7 -- uname -a"),
        (("far", "-e", "NO_SUCH_NAME", "--", "true"), 2, "zmesh: --env 'NO_SUCH_NAME': give NAME=VALUE"),
        (("far", "--user", "no-such-user", "--", "true"), 255, "there is no user 'no-such-user' here"),
    ],
)
def test_each_error_is_one_line_and_has_its_exit_code(machines: Any, words: Any, code: int, said: str) -> None:
    done = machines.run("run", *words)
    assert done.returncode == code
    assert said in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_passed_on(machines: Any, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got {name}; exit 9' {name}; {READY} while :; do sleep 0.02; done"
    with machines.start("run", "far", "--", "sh", "-c", script) as run:
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(number)
        assert run.communicate(timeout=90)[0] == f"got {name}\n".encode()
    assert run.returncode == 9


def test_a_second_signal_stops_a_command_that_ignores_it(machines: Any, eventually: Callable[..., None]) -> None:
    script = f"trap '' INT; echo $$; {READY} sleep 600"
    with machines.start("run", "far", "--", "sh", "-c", script) as run:
        pid = int(run.stdout.readline())
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(signal.SIGINT)
        run.send_signal(signal.SIGTERM)
        eventually(lambda: run.poll() is not None)
        assert run.returncode == 128 + signal.SIGTERM
    eventually(lambda: not os.path.exists(f"/proc/{pid}/cwd"))
    with machines.start("run", "far", "--", "sh", "-c", script) as run:
        pid = int(run.stdout.readline())
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(signal.SIGINT)
        machines.run("ping", "far", "-c", "1")
        run.send_signal(signal.SIGINT)
        assert b"zmesh: stopping it at far; once more to leave it\n" in run.communicate(timeout=90)[1]
        assert run.returncode == 130
    eventually(lambda: not os.path.exists(f"/proc/{pid}/cwd"))


def test_the_command_ends_with_a_client_that_is_killed(machines: Any, eventually: Callable[..., None]) -> None:
    with machines.start("run", "far", "--", "sh", "-c", "echo $$; exec sleep 600") as run:
        pid = int(run.stdout.readline())
        run.kill()
    eventually(lambda: not os.path.exists(f"/proc/{pid}/cwd"))


def test_an_output_without_a_reader_ends_the_command(machines: Any, eventually: Callable[..., None]) -> None:
    line = 'set -o pipefail; "$@" | head -1'
    command = ["bash", "-c", line, "-", *machines.command, "run", "far", "--", "sh", "-c", "echo $$; exec yes"]
    done = subprocess.run(command, env=machines.environment, capture_output=True, timeout=90)
    assert (done.returncode, done.stderr) == (141, b"")
    eventually(lambda: not os.path.exists(f"/proc/{int(done.stdout)}/cwd"))


def test_a_node_logs_who_ran_what(new_shell: Callable[[], Any], eventually: Callable[..., None]) -> None:
    shell = new_shell()
    shell.environment["ZMESH_ALLOW"] = ALLOW
    node = shell.node("solo")
    assert shell.run("run", "solo", "--", "echo", "a b").stdout == b"a b\n"
    eventually(lambda: "exited with 0 after" in node.complaints())
    assert "@solo runs echo 'a b', process " in node.complaints()


# --- terminals --------------------------------------------------------------------------------------------------------


def terminal(machines: Any, *words: str, rows: int = 30, columns: int = 100) -> Any:
    environment = machines.environment | {"TERM": "xterm"}
    command = [*machines.command, "run", *words]
    return pexpect.spawn(command[0], command[1:], env=environment, dimensions=(rows, columns), timeout=90)


def test_a_terminal_has_the_size_of_this_one_and_follows_it(machines: Any) -> None:
    script = f"stty size; echo $TERM; trap 'stty size; exit 3' WINCH; {READY} while :; do sleep 0.02; done"
    child = terminal(machines, "far", "-t", "--", "sh", "-c", script)
    child.expect_exact("30 100\r\nxterm\r\nready\r\n")
    child.setwinsize(40, 120)
    child.expect_exact("40 120\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3


def test_keys_reach_a_program_in_a_terminal_one_by_one(machines: Any) -> None:
    program = (
        "import sys, tty, os; tty.setraw(0); print('ready', end='', flush=True); "
        "print(repr(os.read(0, 1)), repr(os.read(0, 1)), end='', flush=True)"
    )
    child = terminal(machines, "far", "-t", "--", sys.executable, "-S", "-c", program)
    child.expect_exact("ready")
    child.send("\x03")
    child.send("q")
    child.expect_exact("b'\\x03' b'q'")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_ctrl_c_and_ctrl_d_work_in_a_shell_in_a_terminal(machines: Any) -> None:
    child = terminal(machines, "far", "-t", "-e", "PS1=here> ", "--", "sh", "-i")
    child.expect_exact("here> ")
    child.sendline("""sh -c 'echo be""gun; exec sleep 600'""")
    child.expect_exact("begun\r\n")
    child.sendintr()
    child.expect_exact("here> ")
    child.sendline("echo $((40 + 2))")
    child.expect_exact("42\r\n")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus is not None


@pytest.mark.skipif(shutil.which("top") is None, reason="there is no top here")
def test_top_shows_its_screen_and_ends_at_its_key(machines: Any) -> None:
    child = terminal(machines, "far", "-t", "--", "top")
    child.expect_exact("PID USER")
    child.send("q")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.skipif(shutil.which("vi") is None, reason="there is no vi here")
def test_a_file_is_edited_in_an_editor(machines: Any) -> None:
    file = machines.folder / "edited"
    child = terminal(machines, "far", "-t", "--", "vi", "-u", "NONE", str(file))
    child.expect_exact("edited")
    child.send("ihello\x1b:wq\r")
    child.expect(pexpect.EOF)
    child.close()
    assert (file.read_text(), child.exitstatus) == ("hello\n", 0)


def test_without_a_terminal_ctrl_c_interrupts_the_command(machines: Any) -> None:
    child = terminal(machines, "far", "--", "sh", "-c", f"{READY} exec sleep 600")
    child.expect_exact("ready\r\n")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


def test_the_terminal_is_as_before_when_the_command_has_ended(machines: Any) -> None:
    run = f"{' '.join(machines.command)} run far -t -- true"
    line = f"stty -a >before; {run}; stty -a >after; cmp before after && echo same"
    child = pexpect.spawn("bash", ["-c", line], env=machines.environment, cwd=str(machines.folder), timeout=90)
    child.expect_exact("same")
    child.close()
