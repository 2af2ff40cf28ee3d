import logging
import re
from pathlib import Path

import pytest

from zmesh.core.effects import Report
from zmesh.observe.telemetry import LINES, MAX_KEYS, Telemetry


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def telemetry(clock):
    return Telemetry("b", clock)


@pytest.mark.parametrize("event", ["unreachable", "frame_dropped", "route_refused", "record_refused"])
def test_reasons_that_others_make_up_do_not_make_counters_without_end(telemetry, event):
    for number in range(10 * MAX_KEYS):
        telemetry.note(Report(event, None, None, f"made up {number}"))
    assert len(telemetry.counts) <= MAX_KEYS + 1
    assert telemetry.counts.total() == 10 * MAX_KEYS
    assert telemetry.counts[f"{event}:other"] > 0


PROTOCOL = (Path(__file__).parents[2] / "docs/protocol.md").read_text(encoding="utf-8")
REASONS = re.findall(r"`(\w+)`", PROTOCOL.partition("`reason` is")[2].partition("With a reason")[0])
"""Those of an UNREACHABLE."""


def test_a_reason_that_another_node_makes_up_never_takes_the_place_of_one_that_there_is(telemetry):
    for number in range(10 * MAX_KEYS):
        telemetry.note(Report("unreachable", None, None, f"made up {number}"))
    assert {"no_route", "not_trusted"} < set(REASONS)
    for reason in REASONS:
        telemetry.note(Report("unreachable", None, None, reason))
        assert telemetry.counts[f"unreachable:{reason}"] == 1
    telemetry.note(Report("frame_dropped", None, None, "queue_full"))
    assert telemetry.counts["frame_dropped:queue_full"] == 1
    assert telemetry.counts["unreachable:other"] == 10 * MAX_KEYS


def test_a_reason_is_the_text_before_the_first_colon_and_counts_as_often_as_it_says(telemetry):
    telemetry.note(Report("frame_dropped", "c", 1, "garbage: not an array"))
    telemetry.note(Report("route_refused", "c", 1, "destinations: 512", count=512))
    telemetry.note(Report("link_up", "c", 1))
    assert telemetry.counts == {"frame_dropped:garbage": 1, "route_refused:destinations": 512, "link_up": 1}


@pytest.mark.parametrize("event", ["link_suspect", "frame_dropped"])
def test_lines_that_others_cause_are_reported_so_often_and_the_rest_as_a_number(telemetry, clock, caplog, event):
    caplog.set_level(logging.DEBUG, logger="zmesh.observe.telemetry")
    for _ in range(1000):
        telemetry.note(Report(event, "c", 1, "why"))
    assert len(caplog.messages) == LINES.burst
    assert telemetry.counts.total() == 1000
    telemetry.note(Report("link_quarantined", "d", 2))
    assert caplog.messages[-1] == "b: link quarantined d (link 2)"
    clock.now += 2 / LINES.per_second
    telemetry.note(Report(event, "c", 1, "why"))
    assert caplog.messages[-1].endswith(f": why, and {1000 - LINES.burst} more like it")
    telemetry.note(Report(event, "c", 1, "why"))
    assert caplog.messages[-1].endswith(": why")


def test_lines_that_nobody_reads_are_not_counted_as_left_out(telemetry, caplog):
    caplog.set_level(logging.WARNING, logger="zmesh.observe.telemetry")
    for _ in range(1000):
        telemetry.note(Report("frame_dropped", "c", 1, "why"))
    assert telemetry._left_out == {}
