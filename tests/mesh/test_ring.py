"""Six node processes in a ring, each pinging the one across every 50 ms: whatever fails, the pings flow again.

How long they miss is measured by `python -m benchmarks.outages --check`.
"""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def outages(monkeypatch):
    """The benchmark that has the ring and its faults."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.outages")


@pytest.mark.parametrize("fault", ["death", "hang"])
async def test_after_a_node_has_failed_all_pings_are_answered_and_no_frame_runs_in_circles(outages, fault):
    async with outages.ring() as mesh:
        for number in (0, 1):
            assert set(await getattr(mesh, fault)(number)) == set(outages.others(number))
    assert mesh.expired == 0


async def test_after_a_link_has_fallen_silent_all_pings_are_answered_and_no_frame_runs_in_circles(outages):
    async with outages.ring(proxied=True) as mesh:
        for number in (0, 1):
            assert set(await mesh.silence(number)) == set(range(outages.NODES))
    assert mesh.expired == 0
