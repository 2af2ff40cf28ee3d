"""The calls of `zmesh.sync` of `test_newer_arguments`, with the same arguments that nobody should give them."""

import asyncio
import contextlib
import inspect
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zmesh
import zmesh.sync
from tests.mesh.test_newer_arguments import CALLS, GOOD, bound, failure_of
from tests.odd_arguments import ALLOWED, SETTINGS, WITHIN, settled

BLOCKING = {name: options for name, options in CALLS.items() if hasattr(zmesh.sync.Controller, name)}
BLOCKING["run"] = {"node": CALLS["run"]["main"], **{key: CALLS["run"][key] for key in CALLS["run"] if key != "main"}}
BLOCKING["popen"] = BLOCKING["run"]
ASYNC_ALONE = {"open_connection": {"limit"}, "forward": {"max_connections"}}
ENDLESS = WITHIN * 2


@st.composite
def calls(draw):
    name = draw(st.sampled_from(tuple(BLOCKING)))
    chosen = {key: values for key, values in BLOCKING[name].items() if key not in ASYNC_ALONE.get(name, ())}
    odd = draw(st.sets(st.sampled_from(sorted(chosen)), max_size=2))
    return name, {key: draw(values) if key in odd else GOOD[key] for key, values in chosen.items()}


def call(mesh, name, arguments):
    """Make the call, and take what it gives, up to its end."""
    with contextlib.suppress(*ALLOWED):
        outcome = bound(getattr(mesh, name), arguments)()
        if hasattr(outcome, "__enter__"):
            with outcome:
                pass
        elif inspect.isgenerator(outcome) or hasattr(outcome, "__next__"):
            for _ in outcome:
                pass


@pytest.fixture
def far(tmp_path, monkeypatch):
    """A node that allows what is allowed by default, and a folder of its own for what a call may write."""
    monkeypatch.chdir(tmp_path)
    listening = zmesh.Config(node_id="far", listen=["tcp://127.0.0.1:*"], route_timeout=0.1)
    with zmesh.sync.Controller(listening) as there:
        dialling = zmesh.Config(node_id="ctl", peers=there.listening, route_timeout=0.1)
        with zmesh.sync.Controller(dialling) as here:
            here.wait_for("far", WITHIN)
            yield here


@pytest.mark.timeout(300)
def test_no_argument_of_a_newer_blocking_call_does_harm(far):
    failures = set()
    loop = far._opened().loop()

    @SETTINGS
    @given(calls())
    def drive(chosen):
        name, arguments = chosen
        timer = threading.Timer(ENDLESS, failures.add, [f"{name} does not end: {sorted(arguments)}"])
        timer.start()
        try:
            call(far, name, arguments)
        except Exception as error:
            odd = [argument for argument, value in arguments.items() if value is not GOOD[argument]]
            failures.add(failure_of(name, odd, error))
        finally:
            timer.cancel()
        assert asyncio.run_coroutine_threadsafe(settled(far._mesh), loop).result(WITHIN) == {}

    drive()
    assert failures == set()
    assert far.request("far", "echo:echo", "unharmed", timeout=WITHIN).text() == "unharmed"


def test_each_newer_verb_that_blocks_is_driven():
    newer = {name for name in CALLS if hasattr(zmesh.sync.Controller, name)}
    assert newer <= BLOCKING.keys()
    assert {"run", "popen", "copy", "submit", "forward", "events_of", "ping_many"} <= BLOCKING.keys()
