"""Commands as processes of a node, without a mesh: output, exit, signals, terminals, ends."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from zmesh.errors import Closed
from zmesh.remote.process import STDERR, STDOUT, CommandLine, NotStarted, Process, Processes
from zmesh.remote.supervisor import session_members
from zmesh.testing import eventually

ENVIRONMENT = {b"PATH": os.fsencode(os.environ["PATH"]), b"LANG": b"C.UTF-8"}

Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    found = Processes()
    yield found
    await found.close()


@pytest.fixture
def start(processes: Processes) -> Start:
    async def begin(*words: str, **options: object) -> Process:
        options.setdefault("environment", ENVIRONMENT)
        return await processes.start(CommandLine([os.fsencode(word) for word in words], **options))

    return begin


async def shell(start: Start, text: str, **options: object) -> Process:
    return await start("/bin/sh", "-c", text, **options)


async def everything(process: Process) -> tuple[bytes, bytes, int | None]:
    """All of its output, and its exit code."""
    parts: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
    async for stream, data in process.output():
        parts[stream].append(data)
    code = await process.exited
    process.close()
    return b"".join(parts[STDOUT]), b"".join(parts[STDERR]), code


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


async def test_stdout_and_stderr_come_apart_and_the_exit_code_after_them(start: Start) -> None:
    assert await everything(await shell(start, "echo out; echo err >&2; exit 7")) == (b"out\n", b"err\n", 7)


async def test_all_of_a_large_output_comes_before_the_exit_code(start: Start) -> None:
    for _ in range(3):
        out, _, code = await everything(await shell(start, "head -c 3000000 /dev/zero; exit 7"))
        assert (len(out), code) == (3_000_000, 7)


async def test_a_merged_stderr_keeps_its_order_among_the_lines_of_stdout(start: Start) -> None:
    process = await shell(start, "echo 1; echo 2 >&2; echo 3", merged=True)
    assert await everything(process) == (b"1\n2\n3\n", b"", 0)


async def test_stdin_is_written_and_ended(start: Start) -> None:
    process = await start("cat")
    data = os.urandom(1_000_000)

    async def feed() -> None:
        assert await process.write(data)
        process.close_input()

    feeding = asyncio.create_task(feed())
    assert await everything(process) == (data, b"", 0)
    await feeding


async def test_input_of_a_command_that_does_not_read_is_dropped(start: Start) -> None:
    process = await shell(start, "exec <&-; echo ready; sleep 600")
    async for _ in process.output():
        break
    assert not await process.write(bytes(1_000_000))
    await process.end()


async def test_a_signal_reaches_all_of_a_pipeline(start: Start) -> None:
    process = await shell(
        start, "(trap 'echo inner; exit 0' INT; echo ready; while :; do sleep 0.01; done) | cat; exit 3"
    )
    seen = b""
    async for _, data in process.output():
        seen += data
        if b"ready" in data:
            process.send_signal(signal.SIGINT)
    assert await process.exited == -signal.SIGINT
    process.close()


async def test_a_command_that_a_signal_kills_ends_with_its_negative_number(start: Start) -> None:
    assert (await everything(await shell(start, "kill -9 $$")))[2] == -signal.SIGKILL


async def test_what_can_not_be_executed_is_distinguished(start: Start) -> None:
    for words, options, stage in (
        (["no-such-program"], {}, "execute"),
        (["/etc"], {}, "execute"),
        (["true"], {"directory": b"/no/such"}, "directory"),
    ):
        with pytest.raises(NotStarted) as caught:
            await start(*words, **options)
        assert caught.value.stage == stage
    assert await everything(await start("true")) == (b"", b"", 0)


async def test_environment_directory_and_limits_are_those_asked_for(start: Start) -> None:
    process = await shell(
        start,
        "echo $LANG $HOME; pwd; ulimit -t; ulimit -n",
        directory=b"/usr",
        limits={resource.RLIMIT_CPU: (77, 78)},
    )
    out = (await everything(process))[0].decode().split("\n")
    assert out[:3] == ["C.UTF-8", "/usr", "77"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
async def test_it_runs_as_another_user(start: Start) -> None:
    assert (await everything(await start("id", "-u", user=(65534, 65534, [65534]))))[0] == b"65534\n"


async def test_it_has_no_descriptor_of_the_node_and_default_signals(start: Start) -> None:
    program = "import os, signal; print(os.listdir('/proc/self/fd')[:-1], signal.getsignal(signal.SIGINT).__name__)"
    waiting = await shell(start, "sleep 600")
    out = (await everything(await start(sys.executable, "-S", "-c", program)))[0]
    assert out == b"['0', '1', '2'] default_int_handler\n"
    await waiting.end()


async def test_ending_ends_the_whole_session_with_its_grace(start: Start) -> None:
    script = "(trap '' TERM; sleep 600) & (trap 'sleep 0.1; exit' TERM; echo ready; sleep 600 & wait) & wait"
    process = await shell(start, script)
    async for _ in process.output():
        break
    await process.end(0.5)
    assert await process.exited == -signal.SIGTERM
    await eventually(lambda: not session_members(process.pid))


async def test_one_that_ignores_sigterm_is_killed(start: Start) -> None:
    process = await shell(start, "trap '' TERM; echo ready; while :; do sleep 600; done")
    async for _ in process.output():
        break
    await process.end(0.05)
    assert process.exited.result() == -signal.SIGKILL


async def test_output_of_a_process_left_behind_does_not_hold_up_the_end(start: Start) -> None:
    process = await shell(start, "sleep 600 & echo $!; exit 4")
    out, _, code = await everything(process)
    assert code == 4
    os.kill(int(out), signal.SIGKILL)


async def test_output_that_follows_the_exit_within_a_moment_is_kept(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zmesh.remote.process.LINGER", 60.0)
    out, _, code = await everything(await shell(start, "(sleep 0.1; echo late) & exit 4"))
    assert (out, code) == (b"late\n", 4)


async def test_a_terminal_has_a_size_that_can_change_and_an_end_of_input(start: Start) -> None:
    script = "test -t 0 && test -t 1 && stty size; trap 'stty size; exit 9' WINCH; echo ready; cat"
    process = await shell(start, script, terminal=(30, 100))
    seen = b""
    async for stream, data in process.output():
        assert stream == STDOUT
        seen += data
        if seen.endswith(b"ready\r\n"):
            process.resize(40, 120)
            process.close_input()
    assert seen.startswith(b"30 100\r\n")
    assert seen.endswith(b"40 120\r\n")
    assert await process.exited == 9
    process.close()


async def test_ctrl_c_in_a_terminal_interrupts_the_command(start: Start) -> None:
    process = await shell(start, "echo ready; exec sleep 600", terminal=(24, 80))
    async for _, data in process.output():
        if b"ready" in data:
            await process.write(b"\x03")
    assert await process.exited == -signal.SIGINT
    process.close()


async def test_closing_the_node_ends_commands_and_refuses_new_ones(processes: Processes, start: Start) -> None:
    process = await shell(start, "sleep 600")
    await processes.close()
    await eventually(lambda: not is_alive(process.pid))
    with pytest.raises(Closed):
        await start("true")
    process.close()


async def test_commands_end_with_a_node_that_is_killed() -> None:
    program = """
import asyncio
from zmesh.remote.process import CommandLine, Processes

async def main():
    process = await Processes().start(CommandLine([b"/bin/sh", b"-c", b"sleep 600 & echo $!; wait"], {}))
    async for _, data in process.output():
        print(process.pid, data.decode(), flush=True)

asyncio.run(main())
"""
    node = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert node.stdout is not None
    pids = [int(pid) for pid in (await node.stdout.readline()).split()]
    assert all(map(is_alive, pids))
    node.kill()
    await node.wait()
    await eventually(lambda: not any(map(is_alive, pids)))


async def test_a_killed_supervisor_ends_the_commands_and_is_replaced(start: Start) -> None:
    process = await shell(start, "sleep 600")
    os.kill(parent_of(process.pid), signal.SIGKILL)
    assert (await everything(process))[2] is None
    await eventually(lambda: not is_alive(process.pid))
    assert (await everything(await shell(start, "exit 5")))[2] == 5


async def test_starting_is_quick_enough_to_be_cancelled_at_any_moment(start: Start) -> None:
    await everything(await start("true"))
    for step in range(20):
        starting = asyncio.ensure_future(shell(start, "sleep 600"))
        for _ in range(step):
            await asyncio.sleep(0)
        if starting.cancel():
            with pytest.raises(asyncio.CancelledError):
                await starting
        else:
            await (await starting).end()
