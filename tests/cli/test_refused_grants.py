"""A command at its node's own socket whose grant is refused: exit code 6, the node's name and the way out."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmesh
import zmesh.sync
from tests.cli.test_untrusted import DAY, FINGERPRINT, Hub
from tests.waiting import WITHIN
from zmesh.identity import Identity, IdentityKey

HOUR = 3600.0


class Home:
    """A hub, and a node beside it with a socket of its own, both in this process."""

    def __init__(self, folder: Path, hub: Hub, of_hub: Any, node: Any) -> None:
        self.hub, self.of_hub, self.node = hub, of_hub._mesh.node, node._mesh.node
        self.peer = f"ipc://{folder}/home.sock"
        self.state = folder / "nobody"

    def refuses(self, shell: Any, *words: str) -> str:
        """What a command at the node's own socket prints, which ends with exit code 6."""
        done = shell.run(*words, "--peer", self.peer, environment={"ZMESH_STATE": str(self.state)})
        text: str = done.stderr.decode()
        assert done.returncode == 6, text
        assert text.count("\n") == 1
        return text


@pytest.fixture
def home(shell: Any, tmp_path: Path) -> Iterator[Home]:
    hub = Hub(tmp_path, shell.free_url())
    identity = Identity.load(hub.state("home", made=-DAY))
    socket = f"ipc://{tmp_path}/home.sock"
    with (
        zmesh.sync.Controller(identity=hub.identity, heartbeat=0.3) as of_hub,
        zmesh.sync.Controller(identity=identity, listen=[socket], heartbeat=0.3) as node,
    ):
        node.wait_for("hub", WITHIN)
        yield Home(tmp_path, hub, of_hub, node)


def test_one_that_has_expired_by_the_clock_of_the_other_node_names_both_and_how_far_they_differ(
    shell: Any, home: Home, eventually: Any
) -> None:
    home.of_hub.driver.wall_clock = lambda: time.time() + 3 * HOUR + 60
    eventually(lambda: home.of_hub.engine.epoch + time.monotonic() > time.time() + HOUR)
    text = home.refuses(shell, "ping", "hub", "-c", "1")
    assert re.search(r"the grant of leaf '\S+' by node 'home' expired", text), text
    assert "the clock of 'hub' is 3 h ahead of that of 'home': set the one that is wrong" in text


def test_one_that_its_node_has_not_signed_names_the_node_its_key_and_the_commands(shell: Any, home: Home) -> None:
    home.node.engine.credentials.key = IdentityKey.generate()
    text = home.refuses(shell, "send", "hub", "echo:echo", "hello")
    assert re.search(rf"a grant that node 'home' \(key {FINGERPRINT}\) has not signed", text), text
    assert "zmesh revoke home, and zmesh invite it anew" in text
