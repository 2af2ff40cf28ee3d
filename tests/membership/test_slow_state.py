"""A state that another process keeps locked, or a disk that stands still: the node goes on meanwhile."""

import asyncio
import subprocess
import sys
import time

import zmesh
from zmesh.core.effects import Report
from zmesh.identity import State

LOCKING = """
import sys
from zmesh.identity import State
with State(sys.argv[1]).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


async def test_a_node_goes_on_while_a_command_that_changes_its_state_is_frozen(lab, eventually):
    """`zmesh revoke` that was stopped (Ctrl-Z) has the lock; what the node learns about trust waits for it."""
    async with zmesh.Controller(identity=lab.folder / "hub") as hub:
        membership = hub.node.components.membership
        with subprocess.Popen(
            [sys.executable, "-c", LOCKING, str(lab.folder / "hub")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as command:  # fmt: skip
            assert command.stdout.readline() == "locked\n"
            for _ in range(3):
                membership.note(Report("trust_changed", None, None))
            await eventually(lambda: membership._saving)
            before = State(lab.folder / "hub").read("trust.json")
            turns = 0
            until = time.monotonic() + 0.2
            while time.monotonic() < until:
                await hub.ping_once("hub", timeout=60)
                turns += 1
            assert turns > 3
            assert membership._saving
            command.stdin.close()
            await asyncio.to_thread(command.wait)
        await eventually(lambda: not membership._saving)
        assert State(lab.folder / "hub").read("trust.json") == before
