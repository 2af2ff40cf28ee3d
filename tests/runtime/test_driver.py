"""The driver's timer beside an engine without links, whose requests end at their deadlines."""

import time

import pytest

from zmesh.core.engine import Engine
from zmesh.core.message import RequestHeader
from zmesh.runtime import Driver


class NoLinks:
    """The links of a node that has none."""

    def settle(self):
        """Nothing was sent."""


class Ended:
    """The handle of a request that adds its name to a list when it ends."""

    def __init__(self, name, ended):
        self.name, self.ended = name, ended

    def on_chunk(self, chunk):
        self.ended.append((self.name, chunk.eof.reason))


@pytest.fixture
def driver():
    driver = Driver(Engine("a", 1, now=time.monotonic()), 1.0, lambda report: None)
    yield driver
    driver.close()


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2)])
async def test_each_request_ends_at_its_deadline_whichever_was_set_first(driver, eventually, order):
    ended = []
    driver.start(NoLinks())
    for number in order:
        now = time.monotonic()
        header = RequestHeader("echo:echo", 0.0)
        handle = Ended(number, ended)
        driver.perform(
            driver.engine.send(bytes([number]) * 16, "b", header, b"", now, timeout=0.1 * number, handle=handle)
        )
    await eventually(lambda: len(ended) == len(order))
    assert ended == [(number, "timed_out") for number in (1, 2, 3)]


async def test_no_timer_goes_off_after_the_driver_was_closed(driver, eventually):
    ended = []
    driver.start(NoLinks())
    for number in (2, 1):
        header, handle = RequestHeader("echo:echo", 0.0), Ended(number, ended)
        effects = driver.engine.send(
            bytes([number]) * 16, "b", header, b"", time.monotonic(), timeout=0.05 * number, handle=handle
        )
        driver.perform(effects)
    driver.close()
    until = time.monotonic() + 0.15
    await eventually(lambda: time.monotonic() > until)
    assert ended == []
