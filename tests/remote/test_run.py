"""Commands at other nodes, over real sockets: `mesh.run` and `exec:run`."""

import asyncio
import hashlib
import logging
import os
import signal
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import zmesh
from tests.odd_arguments import Odd
from zmesh.errors import CommandFailed, NotAllowed, RemoteError, TimedOut
from zmesh.remote.records import Kind, pack, record
from zmesh.testing import Mesh, eventually

EVERYONE = {"exec:*": ["*"]}


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with Mesh.chain("desk", "mid", "edge", allow=EVERYONE) as mesh:
        yield mesh


async def test_a_command_is_used_as_a_local_process_is(mesh: Mesh) -> None:
    script = "read a; echo got $a; echo err >&2; exit 7"
    async with mesh["desk"].run("edge", ["sh", "-c", script], stdin=PIPE) as process:
        assert process.pid > 0
        assert process.returncode is None
        assert process.stdin is not None
        process.stdin.write(b"hello\n")
        await process.stdin.drain()
        assert await process.stdout.readline() == b"got hello\n"
        assert await process.stderr.read() == b"err\n"
        assert await process.wait() == 7 == process.returncode


async def test_the_exit_code_comes_after_all_output(mesh: Mesh) -> None:
    for _ in range(20):
        async with mesh["desk"].run("edge", ["sh", "-c", "head -c 1000000 /dev/zero; exit 7"]) as process:
            out, err = await process.communicate()
        assert (len(out), err, process.returncode) == (1_000_000, b"", 7)


async def test_a_large_output_waits_for_its_reader_and_is_whole(mesh: Mesh) -> None:
    size, digest, count = 64 * 1024 * 1024, hashlib.sha256(), 0
    command = ["sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x; exit 7"]
    async with mesh["desk"].run("edge", command) as process:
        while data := await process.stdout.read(65536):
            digest.update(data)
            count += len(data)
        assert await process.wait() == 7
    assert count == size
    assert digest.digest() == hashlib.sha256(b"x" * size).digest()


async def test_stdin_of_any_kind_is_sent_and_ended(mesh: Mesh, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    file = tmp_path / "data"
    file.write_bytes(data)
    wanted = hashlib.sha256(data).hexdigest().encode()
    for given in (data, file):
        assert (await mesh["desk"].check_output("edge", ["sha256sum"], stdin=given)).split()[0] == wanted
    async with mesh["desk"].run("edge", ["sha256sum"], stdin=PIPE) as process:
        assert (await process.communicate(data))[0].split()[0] == wanted
    assert await mesh["desk"].check_output("edge", ["cat"]) == b""


async def test_a_signal_does_not_wait_behind_input_that_is_not_read(mesh: Mesh) -> None:
    async with mesh["desk"].run("edge", ["sh", "-c", "echo ready; exec sleep 600"], stdin=PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(8_000_000))
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert await process.wait() == -signal.SIGINT
        assert process.stdin.is_closing()
        with pytest.raises(BrokenPipeError):
            await process.stdin.drain()


async def test_options_reach_the_command(mesh: Mesh) -> None:
    run = mesh["desk"].check_output
    assert await run("edge", ["sh", "-c", "echo $ONE; pwd"], env={"ONE": "1 x"}, cwd="/usr") == b"1 x\n/usr\n"
    assert await run("edge", ["sh", "-c", "echo 1; echo 2 >&2; echo 3"], stderr=STDOUT) == b"1\n2\n3\n"
    assert await run("edge", ["stty", "size"], terminal=(33, 111)) == b"33 111\r\n"
    assert await run("edge", [b"printf", b"%s", b"\xff\xfe"]) == b"\xff\xfe"


async def test_a_failed_command_raises_with_its_code_and_output(mesh: Mesh) -> None:
    with pytest.raises(CommandFailed, match=r"node 'edge': 'sh' exited with 3: no luck") as caught:
        await mesh["desk"].check_output("edge", ["sh", "-c", "echo out; echo no luck >&2; exit 3"])
    assert (caught.value.returncode, caught.value.stdout, caught.value.stderr) == (3, b"out\n", b"no luck\n")
    with pytest.raises(CommandFailed, match="killed by SIGKILL") as caught:
        await mesh["desk"].check_output("edge", ["sh", "-c", "kill -9 $$"])
    assert caught.value.returncode == -9
    for command, code, text in (
        (["no-such"], 127, "there is no program 'no-such' in the PATH"),
        (["/etc/passwd"], 126, "can't execute '/etc/passwd': permission denied"),
    ):
        with pytest.raises(CommandFailed, match=text) as caught:
            await mesh["desk"].run("edge", command)
        assert (caught.value.returncode, caught.value.not_started) == (code, True)
    with pytest.raises(CommandFailed, match="in the directory '/no/such': no such file"):
        await mesh["desk"].run("edge", ["true"], cwd="/no/such")


async def test_a_command_whose_time_is_over_is_stopped(mesh: Mesh) -> None:
    await mesh["desk"].check_output("edge", ["true"])  # the first one takes longer to start
    async with mesh["desk"].run("edge", ["sh", "-c", "echo ready; exec sleep 600"], timeout=3.0) as process:
        with pytest.raises(TimedOut, match="its time being over"):
            await process.wait()
        assert process.returncode == -signal.SIGTERM


async def test_leaving_the_block_stops_the_command(mesh: Mesh) -> None:
    async with mesh["desk"].run("edge", ["sh", "-c", "sleep 600 & echo $$ $!; wait"]) as process:
        pids = [int(pid) for pid in (await process.stdout.readline()).split()]
        assert len(pids) == 2
    await eventually(lambda: not any(os.path.exists(f"/proc/{pid}/cwd") for pid in pids))
    assert len(mesh["edge"].node.serving) == 0


async def test_a_command_of_a_client_that_is_gone_is_stopped(mesh: Mesh) -> None:
    client = await mesh.add("client", "desk")
    await client.wait_for("edge")
    process = await client.run("edge", ["sh", "-c", "echo $$; exec sleep 600"])
    pid = int(await process.stdout.readline())
    await mesh.remove("client")
    await eventually(lambda: not os.path.exists(f"/proc/{pid}/cwd"))


async def test_output_is_given_in_the_order_of_both_streams(mesh: Mesh) -> None:
    """Each piece is written when the one before has come: however late, none waits for one of the other stream."""
    script = "for i in 1 2 3; do echo o$i; read go; echo e$i >&2; read go; done"
    seen = []
    async with mesh["desk"].run("edge", ["sh", "-c", script], stdin=PIPE) as process:
        assert process.stdin is not None
        async for stream, data in process.output():
            seen.append((stream, data))
            process.stdin.write(b"go\n")
            await process.stdin.drain()
    assert seen == [(n, b"%s%d\n" % (s, i)) for i in (1, 2, 3) for n, s in ((1, b"o"), (2, b"e"))]


async def test_no_member_runs_commands_that_it_is_not_allowed() -> None:
    async with Mesh.chain("desk", "mid", "edge", "open") as mesh:
        for allow in ({}, {"*": ["*"]}, {"exec:*": ["mid"]}, {"exec:run": []}):
            node = await mesh.add(f"n{len(mesh.controllers)}", "edge", allow=allow)
            await mesh["desk"].wait_for(node.node_id)
            with pytest.raises(NotAllowed, match=r'its configuration would, with \[allow\] "exec:.*"desk"'):
                await mesh["desk"].run(node.node_id, ["true"])


async def test_settings_restrict_commands(caplog: pytest.LogCaptureFixture) -> None:
    settings = {"commands": ["echo ok *", "/usr/bin/id"], "directory": "/usr", "max_commands": 1, "max_seconds": 60.0}
    async with Mesh.chain("desk", "edge", allow=EVERYONE, plugins={"exec": settings}) as mesh:
        run = mesh["desk"].check_output
        assert await run("edge", ["echo", "ok"]) == b"ok\n"
        assert await run("edge", ["echo", "ok", "2", "3"], env={"LC_ALL": "C"}) == b"ok 2 3\n"
        for words, options in (
            (["echo", "no"], {}),
            (["/usr/bin/../bin/id"], {}),
            (["/usr/bin/id", "-u"], {}),
            (["sh", "-c", "echo ok"], {}),
            (["echo", "ok"], {"env": {"PATH": "/tmp"}}),
            (["echo", "ok"], {"env": {"LD_PRELOAD": "/tmp/x"}}),
        ):
            with pytest.raises(NotAllowed):
                await run("edge", words, **options)
    with pytest.raises(zmesh.ConfigError, match=r"\[run\]: no setting is called 'comands'"):
        await Mesh("edge", plugins={"exec": {"comands": []}}).__aenter__()


async def test_each_command_leaves_a_line_in_the_log(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zmesh.remote.audit")
    await mesh["desk"].check_output("edge", ["sh", "-c", "echo $1", "x", "a b"])

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "zmesh.remote.audit"]

    await eventually(lambda: len(lines()) == 2)
    assert "desk runs sh -c 'echo $1' x 'a b', process" in lines()[0]
    assert "exited with 0 after" in lines()[1]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x01\0\0\0\x01",
        record(Kind.INPUT, b"x"),
        record(Kind.START, b"\xc1"),
        record(Kind.START, pack({"words": []})),
        record(Kind.START, pack({"words": [b"a\0b"]})),
        record(Kind.START, pack({"words": ["text"]})),
        record(Kind.START, pack({"words": [b"true"], "environment": {b"A=B": b""}})),
        record(Kind.START, pack({"words": [b"true"], "seconds": -1})),
        record(Kind.START, pack({"words": [b"true"], "terminal": [1]})),
        record(Kind.START, pack({"words": [b"true"], "usr": "nobody"})),
        record(Kind.START, pack({"words": [b"sleep", b"600"]})) + record(Kind.SIGNAL, b"\xff"),
        record(Kind.START, pack({"words": [b"sleep", b"600"]})) + record(Kind.EXIT, b"\0\0\0\0"),
        b"\x01\xff\xff\xff\xff",
    ],
)
async def test_malformed_records_end_in_an_error(payload: bytes) -> None:
    async with Mesh("edge", allow=EVERYONE) as mesh:
        with pytest.raises(RemoteError):
            async with mesh["edge"].stream("edge", "exec:run", payload) as replies:
                async for _ in replies:
                    pass


async def test_an_option_that_is_not_known_is_refused_and_never_left_out(tmp_path: Path) -> None:
    """The command would run as another user than the one that was meant, the copy take less than was meant."""
    asked = [
        (
            "exec:run",
            {"words": [b"touch", bytes(tmp_path / "run")], "usr": "nobody"},
            r"no 'usr' \(did you mean 'user'\?\)",
        ),
        ("file:read", {"paths": [b"/etc"], "recursve": True}, r"no 'recursve' \(did you mean 'recursive'\?\)"),
        ("file:read", {"paths": [b"/etc"], "recursive": 1}, "recursive must be true or false"),
        ("file:write", {"path": bytes(tmp_path), "sync": True}, "no 'sync'; it takes path, into, contents, from"),
        ("file:granted", {"token": b"x", "paths": []}, "no 'paths'; it takes token"),
    ]
    async with Mesh.chain("desk", "edge", allow={**EVERYONE, "file:*": ["*"]}) as mesh:
        for directive, start, text in asked:
            with pytest.raises(RemoteError, match=text):
                await mesh["desk"].request("edge", directive, record(Kind.START, pack(start)))
        with pytest.raises(RemoteError, match="zmesh:events takes no 'lst'; it takes since, last, follow"):
            await mesh["desk"].request("edge", "zmesh:events", {"lst": 1})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stdin", [0, 7, True, -2])
async def test_a_number_as_stdin_is_refused_and_never_taken_for_nothing(mesh: Mesh, stdin: int) -> None:
    """A local process would take it for the number of a descriptor."""
    for call in (mesh["desk"].run, mesh["desk"].check_output, mesh["desk"].run_many):
        with pytest.raises(
            ValueError, match=r"stdin is a payload, PIPE or DEVNULL, not .*; a descriptor is sent as open"
        ):
            call(["edge"] if call == mesh["desk"].run_many else "edge", ["cat"], stdin=stdin)
    assert await mesh["desk"].check_output("edge", ["cat"], stdin=asyncio.subprocess.DEVNULL) == b""


async def test_what_can_not_even_be_compared_is_refused_as_stdin_and_stderr(mesh: Mesh) -> None:
    for call in (mesh["desk"].run, mesh["desk"].check_output):
        with pytest.raises(TypeError, match="Odd"):
            call("edge", ["cat"], stdin=Odd())
    with pytest.raises(ValueError, match="stderr is PIPE, or STDOUT"):
        mesh["desk"].run("edge", ["cat"], stderr=Odd())


async def test_cancelling_whoever_waits_stops_the_command(mesh: Mesh) -> None:
    async def wait() -> None:
        async with mesh["desk"].run("edge", ["sleep", "600"]) as process:
            await process.communicate()

    task = asyncio.create_task(wait())
    await eventually(lambda: len(mesh["edge"].node.serving))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not len(mesh["edge"].node.serving))
