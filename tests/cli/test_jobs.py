"""`zmesh job`: submitting, finding, following and ending jobs by command; each error is a line with the way out."""

import json
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from zmesh_cli.help import EXAMPLES

ALLOW = '{"job:*": ["*"], "exec:*": ["*"]}'
ID = re.compile(r"edge-7/[0-9a-f]{16}")


@pytest.fixture(scope="module")
def site(new_shell: Callable[[], Any]) -> Any:
    """A shell beside `hub` and `edge-7`, which keeps jobs, and commands that join at `hub`."""
    shell = new_shell()
    shell.environment["ZMESH_ALLOW"] = ALLOW
    shell.hub = shell.node("hub")
    shell.environment["ZMESH_PLUGINS"] = json.dumps({"job": {"folder": str(shell.folder / "jobs")}})
    shell.environment["ZMESH_TAGS"] = "gpu"
    shell.edge = shell.node("edge-7", "--peer", shell.hub.url)
    for name in ("ZMESH_ALLOW", "ZMESH_PLUGINS", "ZMESH_TAGS"):
        del shell.environment[name]
    shell.hub.event("node_joined")
    shell.environment["ZMESH_PEER"] = shell.hub.url
    return shell


def submitted(site: Any, *words: str, **options: Any) -> str:
    done = site.run("job", "submit", *words, **options)
    assert (done.returncode, done.stderr) == (0, b"")
    id = done.stdout.decode().strip()
    assert ID.fullmatch(id)
    return str(id)


def test_a_command_goes_on_without_its_submitter_and_is_found_again(site: Any, lines: Any) -> None:
    job = submitted(site, "edge-7", "-e", "A=b", "--shell", "--", "echo $A; cat; echo bad >&2; exit 3")
    done = site.run("job", "attach", job)
    assert (done.stdout, done.stderr, done.returncode) == (b"b\n", b"bad\n", 3)
    assert site.run("job", "attach", job, "--from", "1").stdout == b"\n"
    logs = site.run("job", "logs", job)
    assert (logs.stdout, logs.returncode) == (b"b\n", 0)
    shown = site.run("job", "show", job[:15]).stdout.decode()
    assert re.search(rf"^job: +{job}\nstate: +failed: exited with 3: bad$", shown, re.MULTILINE)
    (status,) = lines(site.run("job", "show", job, "--json"))
    assert (status["schema"], status["state"], status["returncode"]) == ("zmesh.job/1", "failed", 3)
    result = site.run("job", "result", job)
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.decode() == f"zmesh: job {job} failed: exited with 3: bad\n"
    listed = site.run("job", "ls", "edge-7").stdout.decode()
    assert re.search(rf"^{job} +failed .* exited with 3: bad$", listed, re.MULTILINE)
    assert site.run("job", "rm", job).returncode == 0
    gone = site.run("job", "show", job)
    assert gone.returncode == 1
    assert gone.stderr.decode() == (
        f"zmesh: node 'edge-7': no job {job} is kept there; 'zmesh job ls edge-7' shows those that are\n"
    )


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("echo:echo",), "as no PAYLOAD was given: '-' sends it"),
        (("--", "cat"), "as --stdin was not given: that sends it"),
    ],
)
def test_data_on_stdin_that_the_job_does_not_get_is_mentioned(site: Any, words: tuple[str, ...], advice: str) -> None:
    done = site.run("job", "submit", "edge-7", *words, stdin=b"data")
    assert (done.returncode, bool(ID.match(done.stdout.decode()))) == (0, True)
    assert done.stderr.decode() == f"zmesh: stdin has data that is not sent, {advice}, '</dev/null' silences this\n"


def test_the_replies_of_a_directive_are_its_result(site: Any) -> None:
    job = submitted(site, "edge-7", "echo:echo", "hello")
    assert site.run("job", "result", job).stdout == b"hello"
    big = bytes(300_000)
    (site.folder / "big").write_bytes(big)
    job = submitted(site, "edge-7", "echo:echo", f"@{site.folder / 'big'}")
    assert site.run("job", "result", job).stdout == big
    job = submitted(site, "edge-7", "-i", "--", "wc", "-c", stdin=big)
    assert site.run("job", "result", job).stdout == b"300000\n"


def test_one_that_runs_is_followed_left_and_cancelled(site: Any, eventually: Any) -> None:
    job = submitted(site, "edge-7", "--", "sh", "-c", "echo one; sleep 600")
    follower = site.start("job", "attach", job)
    assert follower.stdout.readline() == b"one\n"
    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=90)
    assert follower.returncode == 130
    assert said.decode() == f"zmesh: the job goes on; its output from here: zmesh job attach {job} --from 4\n"
    shown = site.run("job", "show", job).stdout.decode()
    assert re.search(r"^lease: +of run [0-9a-f]{16}, until 20\d\d-", shown, re.MULTILINE)
    running = site.run("job", "rm", job)
    assert running.returncode == 1
    assert b"cancel it first, or remove it with --force" in running.stderr
    follower = site.start("job", "logs", "-f", job, "--from", "4")
    done = site.run("job", "cancel", job)
    assert (done.returncode, done.stdout.decode()) == (0, f"{job} cancelled: by 'hub'\n")
    assert follower.communicate(timeout=90)[0] == b""
    assert follower.returncode == 0
    attached = site.run("job", "attach", job)
    assert (attached.returncode, attached.stdout) == (1, b"one\n")
    assert f"job {job} cancelled: by 'hub'" in attached.stderr.decode()
    job = submitted(site, "edge-7", "--", "sleep", "600")
    assert site.run("job", "rm", "--force", job).returncode == 0
    assert job.encode() not in site.run("job", "ls").stdout


def test_a_key_names_one_job(site: Any) -> None:
    first = submitted(site, "edge-7", "--key", "mine", "echo:echo", "a")
    assert submitted(site, "edge-7", "--key", "mine", "echo:echo", "a") == first
    done = site.run("job", "submit", "edge-7", "--key", "mine", "echo:echo", "b")
    assert done.returncode == 1
    assert b"the key 'mine' is that of job" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("submit", "edge-7"), 2, "give a DIRECTIVE, such as echo:echo, or a command after --"),
        (("submit", "edge-7", "echo:echo", "--", "true"), 2, "give either a DIRECTIVE, or a command"),
        (("submit", "edge-7", "echo:echo", "--cwd", "/"), 2, "are for a command, after --"),
        (("submit", "edge-7", "echo"), 2, "is no directive; it must look like namespace:action"),
        (("submit", "edge-7", "echo:eco", "a"), 1, "(did you mean 'echo:echo'?)"),
        (("submit", "edge-7", "echo:echo", "--priority", "x"), 2, "a whole number, not 'x'; 'zmesh job submit -h' has"),
        (
            ("submit", "edge-7", "echo:echo", "--pri", "1"),
            2,
            "--pri (Possible options: --peer, --priority);",
        ),
        (("submit", "edge-7", "make", "-j"), 2, "-j; what is to run comes after --, as in: zmesh job submit edge-7 --"),
        (("submit", "hub", "--", "true"), 1, "node 'hub' keeps no jobs"),
        (("submit", "edge-8", "--", "true"), 3, "(did you mean 'edge-7'?)"),
        (("show", "edge-7"), 2, "is no id of a job, which is a node and a number such as edge-7/3f9a"),
        (("show", "edge-7/3f"), 2, "first 4 digits or more"),
        (("show", "edge-7/abcdef"), 1, "no job edge-7/abcdef is kept there; 'zmesh job ls edge-7'"),
        (("logs", "edge-7/abcdef"), 1, "no job edge-7/abcdef is kept there"),
        (("cancel", "edge-7/abcdef"), 1, "no job edge-7/abcdef is kept there"),
        (("rm", "edge-7/abcdef"), 1, "no job edge-7/abcdef is kept there"),
    ],
)
def test_an_error_is_one_line_with_the_way_out(site: Any, words: tuple[str, ...], code: int, said: str) -> None:
    done = site.run("job", *words)
    text = " ".join(done.stderr.decode().split())
    assert said in text
    assert done.returncode == code
    if code != 2:
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("verb", ["attach", "logs"])
def test_an_offset_past_the_end_of_the_output_is_mentioned(site: Any, verb: str) -> None:
    job = submitted(site, "edge-7", "--", "printf", "four")
    assert site.run("job", "result", job).stdout == b"four"
    done = site.run("job", verb, job, "--from", "5")
    assert (done.returncode, done.stdout) == (0, b"")
    assert f"job {job} has 4 bytes of output; --from 5 is past their end" in done.stderr.decode()
    assert site.run("job", verb, job, "--from", "4").stderr == b""


def test_a_node_that_is_gone_is_lost_contact_and_never_running(site: Any, eventually: Any, new_shell: Any) -> None:
    shell = new_shell()
    shell.environment["ZMESH_ALLOW"] = ALLOW
    hub = shell.node("hub")
    shell.environment["ZMESH_PLUGINS"] = json.dumps({"job": {"folder": str(shell.folder / "jobs")}})
    edge = shell.node("edge-7", "--peer", hub.url)
    hub.event("node_joined")
    shell.environment["ZMESH_PEER"] = hub.url
    job = submitted(shell, "edge-7", "--", "sleep", "600")
    assert b"failed" not in shell.run("job", "show", job).stdout
    edge.end(signal.SIGKILL)
    hub.event("node_left")
    for verb in ("show", "attach", "logs", "result", "cancel", "rm"):
        done = shell.run("job", verb, job)
        assert done.returncode == 3
        assert re.fullmatch(rf"zmesh: job {job}: lost contact \d+ s ago\n", done.stderr.decode()), done.stderr
        assert done.stdout == b""
    listed = shell.run("job", "ls", "edge-7")
    assert (listed.returncode, listed.stdout) == (3, b"")
    assert b"lost contact" in listed.stderr
    again = shell.node("edge-7", "--peer", hub.url)
    hub.event("node_joined")
    assert b"failed: node restarted" in shell.run("job", "show", job).stdout
    again.end()


@pytest.mark.parametrize(
    "line", [line for path, each in EXAMPLES.items() if path.startswith("zmesh job") for _, line in each]
)
def test_each_example_of_the_help_runs(site: Any, line: str) -> None:
    job = submitted(site, "edge-7", "--", "true")
    if "rm " in line and "--force" not in line:
        assert site.run("job", "attach", job).returncode == 0
    line = re.sub(r"edge-7/3f9a8b0c\w*", job, line).replace("4096", "0")  # bytes, of which this job has none
    words = line.removesuffix(" >out").replace("'", "").split(" ")
    if "--shell" in words:
        at = words.index("--")
        words = [*words[: at + 1], " ".join(words[at + 1 :])]
    done = site.run(*words[1:])
    quiet = b"zmesh: hub does not let you list jobs; 'zmesh job ls hub' says what would\n"
    assert (done.returncode, done.stderr.replace(quiet, b"")) == (0, b"")
    if words[2] == "submit":
        for each in done.stdout.decode().split():
            site.run("job", "rm", "--force", each)
