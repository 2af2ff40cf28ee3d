"""What of a node's state needs attention."""

import dataclasses

import pytest

from zmesh.operate.json_form import Seconds
from zmesh.operate.status import (
    IdentityStatus,
    LinkFall,
    LinkReport,
    LoopStatus,
    NodeStatus,
    ProcessStatus,
    RefusedLink,
    WorkStatus,
)
from zmesh.operate.warnings import warnings_of

DAY = 86400
UP = LinkReport("b", "tcp://b:1", True, "up", Seconds(60.0), Seconds(0.1), 100, Seconds(0.001))
PROCESS = ProcessStatus(1, "host", "3.11", 40_000_000, None, 20, 1024, 2, Seconds(1.0))
WORK = WorkStatus(0, 100, {}, 0, 0, 0)
LOOP = LoopStatus(Seconds(0.0), Seconds(0.01), 0)
IDENTITY = IdentityStatus("lab", "SHA256:x", (), 1e9, Seconds(60 * DAY), Seconds(30 * DAY))
WELL = NodeStatus("a", "0.1.0", "0" * 16, 1e9, Seconds(60.0), (), (), 2, 0, (UP,), 0, 0, WORK, PROCESS, LOOP, IDENTITY)


def changed(**fields):
    return dataclasses.replace(WELL, **fields)


def link(**fields):
    return changed(links=(dataclasses.replace(UP, **fields),))


def falls(*ages):
    return tuple(LinkFall(Seconds(age), "silent for 3 s") for age in ages)


def identity(expires, renews):
    return changed(identity=dataclasses.replace(IDENTITY, expires=Seconds(expires), renews=Seconds(renews)))


def test_a_node_that_is_well_has_none():
    assert warnings_of(WELL) == ()
    assert warnings_of(changed(identity=None, links=())) == ()


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (identity(-2 * DAY, -32 * DAY), "certificate_expired", "the certificate expired 2 d ago"),
        (identity(3 * DAY, -DAY), "certificate_expiring", "the certificate expires in 3 d and was not renewed"),
        (changed(duplicates=("c",)), "duplicate_id", "two live nodes are called c: give one of them another id"),
        (
            changed(duplicates=("c",), refused=(RefusedLink(Seconds(1.0), "c", "10.0.0.7", "taken"),)),
            "duplicate_id",
            "two live nodes are called c, one at 10.0.0.7",
        ),
        (
            link(state="down", since=Seconds(12.0), reason="connection refused"),
            "link_down",
            "no link with b at tcp://b:1 for 12 s: connection refused",
        ),
        (link(node="", state="down", reason="x"), "link_down", "no link with tcp://b:1 for 60 s: x"),
        (link(state="suspect", heard=Seconds(2.4)), "link_suspect", "b has been silent for 2 s"),
        (link(rtt=Seconds(0.12)), "link_slow", "the link with b takes 120 ms"),
        (link(queued_bytes=3 << 20), "link_full", "3 MiB wait for the link with b"),
        (link(skew=Seconds(-90.0)), "clock_skew", "the clock of b is 90 s behind this node's"),
        (link(skew=Seconds(5.0)), "clock_skew", "the clock of b is 5 s ahead of this node's"),
        (link(falls=falls(1.0, 60.0, 599.0)), "link_flaps", "the link with b fell 3 times in 10 min: silent for 3 s"),
        (
            changed(refused=(RefusedLink(Seconds(30.0), "", "10.0.0.7", "it is plaintext"),)),
            "link_refused",
            "a connection at 10.0.0.7 refused 30 s ago: it is plaintext",
        ),
        (
            changed(process=dataclasses.replace(PROCESS, descriptors=820)),
            "descriptors",
            "820 of 1024 file descriptors are open",
        ),
        (
            changed(process=dataclasses.replace(PROCESS, memory_limit_bytes=50_000_000)),
            "memory",
            "38 of 47 MiB of memory are used",
        ),
        (changed(work=dataclasses.replace(WORK, running=80)), "work", "80 of 100 requests run"),
        (changed(loop=LoopStatus(Seconds(0.0), Seconds(2.0), 0)), "loop_lag", "the event loop was 2.0 s late"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_each_fault_has_its_warning(status, code, text):
    (warning,) = warnings_of(status)
    assert warning.code == code
    assert warning.text.startswith(text)


@pytest.mark.parametrize(
    "status",
    [
        identity(20 * DAY, -1800),
        link(rtt=Seconds(0.119), queued_bytes=(1 << 20) - 1, skew=Seconds(4.9)),
        link(falls=falls(1.0, 60.0, 601.0)),
        changed(refused=(RefusedLink(Seconds(601.0), "", "10.0.0.7", "it is plaintext"),)),
        changed(process=dataclasses.replace(PROCESS, descriptors=819, descriptor_limit=1024)),
        changed(process=dataclasses.replace(PROCESS, descriptors=10_000, descriptor_limit=None)),
        changed(work=dataclasses.replace(WORK, running=79)),
    ],
)
def test_just_below_the_limit_there_is_none(status):
    assert warnings_of(status) == ()


def test_an_expired_certificate_comes_before_links_and_resources():
    status = dataclasses.replace(
        identity(-1.0, -30 * DAY),
        links=(dataclasses.replace(UP, state="down", reason="x"),),
        work=dataclasses.replace(WORK, running=100),
    )
    assert [warning.code for warning in warnings_of(status)] == ["certificate_expired", "link_down", "work"]


def test_of_many_refusals_the_last_four_are_shown():
    refused = tuple(RefusedLink(Seconds(float(age)), "", f"10.0.0.{age}", "x") for age in range(16))
    assert len(warnings_of(changed(refused=refused))) == 4
