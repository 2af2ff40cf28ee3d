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

    def send(self, link, frames):
        """Sent to nobody."""
        return True

    def remote_address(self, link):
        """Of a link that the test has made."""
        return "tcp://192.0.2.1:1"


class Ended:
    """The handle of a request that adds its name to a list when it ends."""

    def __init__(self, name, ended):
        self.name, self.ended = name, ended

    def on_chunk(self, chunk):
        self.ended.append((self.name, chunk.eof.reason))


@pytest.fixture
def reports():
    return []


@pytest.fixture
def driver(reports):
    driver = Driver(Engine("a", 1, now=time.monotonic()), 1.0, reports.append)
    yield driver
    driver.close()


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2)])
async def test_each_request_ends_at_its_deadline_whichever_was_set_first(driver, eventually, order):
    """In an hour, or now: those that are due at the same time may end in any order."""
    ended = []
    driver.start(NoLinks())
    limits = {1: 0.1, 2: 0.2, 3: 3600.0}
    for number in order:
        now, header, handle = time.monotonic(), RequestHeader("echo:echo", 0.0), Ended(number, ended)
        driver.perform(
            driver.engine.send(bytes([number]) * 16, "b", header, b"", now, timeout=limits[number], handle=handle)
        )
    await eventually(lambda: len(ended) == 2)
    assert sorted(ended) == [(number, "timed_out") for number in (1, 2)]


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


class Clock:
    """The machine's clock, which is `ahead` of the right one; each reading takes `takes` seconds."""

    def __init__(self):
        self.ahead = self.takes = 0.0

    def __call__(self):
        time.sleep(self.takes)
        return time.time() + self.ahead


@pytest.fixture
async def clock(driver):
    driver.wall_clock = Clock()
    driver.engine.clock_set(time.time() - time.monotonic(), time.monotonic())
    driver.start(NoLinks())
    return driver.wall_clock


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (-86460.0, "the clock of this machine was set back by 24 h"),
        (3.01 * 86400.0, "the clock of this machine was set ahead by 3 days, or the machine was suspended for as long"),
        (30.2, "the clock of this machine was set ahead by 30 s, or the machine was suspended for as long"),
    ],
)
async def test_a_clock_that_is_set_is_followed_at_the_next_link(driver, clock, reports, ahead, text):
    clock.ahead = ahead
    driver.on_link_up(1, dialled=False, cost=1)
    assert [report.detail for report in reports if report.event == "clock_set"] == [text]
    assert driver.engine.epoch == pytest.approx(time.time() - time.monotonic() + ahead, abs=1)
    driver.on_link_up(2, dialled=False, cost=1)
    assert [report.event for report in reports].count("clock_set") == 1


async def test_a_clock_that_is_corrected_by_less_than_a_second_was_not_set(driver, clock, reports):
    clock.ahead = 0.5
    driver.on_link_up(1, dialled=False, cost=1)
    assert "clock_set" not in [report.event for report in reports]


async def test_a_thread_that_is_interrupted_while_it_reads_the_clock_waits_for_the_next_time(driver, clock, reports):
    clock.ahead, clock.takes = 600.0, 0.15
    driver.on_link_up(1, dialled=False, cost=1)
    assert "clock_set" not in [report.event for report in reports]
    clock.takes = 0.0
    driver.on_link_up(2, dialled=False, cost=1)
    assert [report.event for report in reports].count("clock_set") == 1
