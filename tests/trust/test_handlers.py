"""The ZAP handler at a node: without it nobody is let in, and who is in stays."""

import pytest

import zmesh
from zmesh.testing import eventually
from zmesh.transport.zap import ZapHandler, shared


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr("zmesh.transport.link_socket.HANDSHAKE_MS", 300)
    monkeypatch.setattr("zmesh.transport.dialler.REDIAL_NOT_TRUSTED", 0.05)
    monkeypatch.setattr("zmesh.transport.dialler.REDIAL_LAST", 0.2)


def killed(monkeypatch):
    """Its thread ends, as after an error."""
    assert shared._join()


def slow(monkeypatch):
    """It answers nothing in time."""
    monkeypatch.setattr(ZapHandler, "_answer", lambda self, request: None)


def absent(monkeypatch):
    """It runs, and knows nothing of this node."""
    shared._domains = frozenset()


@pytest.mark.parametrize("state", [killed, slow, absent])
async def test_without_the_handler_nobody_gets_in_and_who_is_in_stays(node, state, monkeypatch):
    hub = await node("hub")
    edge = await node("edge", hub.listening[0])
    await edge.wait_for("hub", 60)
    state(monkeypatch)
    late = await node("late", hub.listening[0], listen=[])  # a listener of its own would start the handler
    tries = []
    late.watch(lambda event: tries.append(event) if isinstance(event, zmesh.DialFailed) else None)
    await eventually(lambda: len(tries) >= 3)
    assert late.nodes() == ["late"]
    assert (await edge.request("hub", "echo:echo", "hello", timeout=60)).text() == "hello"
    assert hub.nodes() == ["edge", "hub"]
    assert hub.stats().counters.get("link_lost", 0) == 0
