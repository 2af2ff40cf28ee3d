"""Counting requests by directive and ending, and the table [metrics], without a node."""

from typing import Any

import pytest

from zmesh.core.message import NO_METADATA
from zmesh.errors import ConfigError
from zmesh.metrics.meter import BUCKETS, ENDINGS, MAX_DIRECTIVES, RequestMeter
from zmesh.metrics.settings import read_settings


class Request:
    recipient = sender = "edge"
    metadata = NO_METADATA
    context = None
    message_id = "0" * 32

    def __init__(self, directive: str = "text:shout") -> None:
        self.directive = directive


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> RequestMeter:
    return RequestMeter(clock)


def test_a_request_is_counted_at_its_end_by_side_directive_and_ending(meter: RequestMeter) -> None:
    ended = meter.sending(Request(), "text:shout")
    assert not meter.client.ended
    ended("", "")
    meter.sending(Request(), "text:shout")("timed_out", "late")
    meter.accepted(Request())("remote", "boom")
    assert meter.client.ended == {("text:shout", "ok"): 1, ("text:shout", "timed_out"): 1}
    assert meter.server.ended == {("text:shout", "remote"): 1}


def test_a_code_of_a_plugin_is_counted_as_other(meter: RequestMeter) -> None:
    meter.accepted(Request())("quota_of_ada", "no more")
    assert meter.server.ended == {("text:shout", "other"): 1}
    assert "unknown_directive" in ENDINGS


def test_directives_past_the_limit_are_counted_together(meter: RequestMeter) -> None:
    for number in range(MAX_DIRECTIVES + 50):
        meter.sending(Request(), f"text:d{number}")("", "")
    assert len(meter.client.durations) == MAX_DIRECTIVES + 1
    assert meter.client.ended["other", "ok"] == 50


@pytest.mark.parametrize("code", ["unknown_directive", "not_allowed"])
def test_names_that_strangers_make_up_take_no_place(meter: RequestMeter, code: str) -> None:
    for number in range(1000):
        meter.accepted(Request(f"x:{number}"))(code, "no")
    assert meter.server.ended == {("other", code): 1000}


def test_durations_are_cumulated_in_buckets(meter: RequestMeter, clock: Clock) -> None:
    for seconds in (0.0, 0.001, 0.003, 7.0, 1000.0):
        ended = meter.accepted(Request())
        clock.now += seconds
        ended("", "")
    ((name, buckets, total),) = meter.server.cumulated()
    counts = dict(buckets)
    assert (name, total) == ("text:shout", pytest.approx(1007.004))
    assert (counts["0.001"], counts["0.005"], counts["5.0"], counts["10.0"]) == (2, 3, 3, 4)
    assert (counts["300.0"], counts["+Inf"]) == (4, 5)
    assert len(buckets) == len(BUCKETS) + 1


@pytest.mark.parametrize(
    ("table", "address"),
    [
        ({"address": "127.0.0.1:9464"}, ("127.0.0.1", 9464)),
        ({"address": "[::1]:9464"}, ("::1", 9464)),
        ({"address": ":*"}, ("127.0.0.1", 0)),
        ({"address": "localhost:1"}, ("127.0.0.1", 1)),
        ({"address": "10.0.0.7:9464", "insecure": True}, ("10.0.0.7", 9464)),
    ],
)
def test_an_address_is_an_ip_and_a_port(table: dict[str, Any], address: tuple[str, int]) -> None:
    assert read_settings(table, insecure=False).address == address


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"adress": "127.0.0.1:1"}, r"no key 'adress' .did you mean 'address'"),
        ({"interval": 15}, "needs address"),
        ({"address": "hub:9464"}, "IP:PORT"),
        ({"address": "127.0.0.1"}, "IP:PORT"),
        ({"address": "127.0.0.1:65536"}, "IP:PORT"),
        ({"address": 9464}, "IP:PORT"),
        ({"address": "0.0.0.0:9464"}, "plaintext to other machines.*zmesh forward"),
        ({"address": "[::]:9464", "insecure": "yes"}, "true or false"),
        ({"textfile": "/tmp/zmesh.txt"}, r"NAME\.prom"),
        ({"textfile": 7}, r"NAME\.prom"),
        ({"textfile": "/tmp/a.prom", "interval": 0.5}, "from 1 to 3600"),
        ({"textfile": "/tmp/a.prom", "interval": True}, "from 1 to 3600"),
    ],
)
def test_a_table_that_can_not_be_used_says_why(table: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        read_settings(table, insecure=False)
