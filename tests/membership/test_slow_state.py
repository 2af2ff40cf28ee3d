"""A state that another process keeps locked, or a disk that stands still: the node goes on meanwhile."""

import asyncio
import subprocess
import sys
import threading
import time

import zmesh
from zmesh.core.effects import Report
from zmesh.identity import Identity, State

LOCKING = """
import sys
from zmesh.identity import Identity, State
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
            for _ in range(50):
                await hub.ping_once("hub", timeout=60)
            assert membership._saving
            command.stdin.close()
            await asyncio.to_thread(command.wait)
        await eventually(lambda: not membership._saving)
        assert State(lab.folder / "hub").read("trust.json") == before


def noting(really, readers):
    """Reads a file as `really` does, and notes in which thread."""

    def read(state, file):
        readers.setdefault(file, set()).add(threading.get_ident())
        return really(state, file)

    return read


async def test_a_reload_reads_the_state_and_the_authoritys_key_in_a_thread(lab, monkeypatch):
    """A key with a passphrase takes a tenth of a second to decrypt, and a thousand revocations more to verify."""
    async with zmesh.Controller(identity=lab.folder / "hub") as hub:
        readers = {}
        for name in ("read", "read_secret"):
            monkeypatch.setattr(State, name, noting(getattr(State, name), readers))
        await asyncio.gather(hub.node.reload_in_thread(), hub.node.reload_in_thread())
        assert {"trust.json", "authority/1"} <= readers.keys()
        assert all(threading.get_ident() not in threads for threads in readers.values())
        await hub.ping_once("hub", timeout=60)


async def test_a_certificate_that_is_renewed_while_the_state_is_read_is_kept(lab, monkeypatch):
    async with zmesh.Controller(identity=lab.folder / "hub") as hub:
        identity = hub.node.identity
        newer = lab.issuer.issue(identity.key.public, "hub", (), time.time(), 1_000_000)
        read, calls = Identity.read, []

        def renew_meanwhile(self):
            found = read(self)
            if not calls:
                identity.renewed(newer)
            calls.append(found)
            return found

        monkeypatch.setattr(Identity, "read", renew_meanwhile)
        await hub.node.reload_in_thread()
        assert len(calls) == 2
        assert identity.certificate.line == newer.line
