"""The payloads of requests in temporary files: how many of one sender, of one neighbour and of all, and how large."""

import asyncio

import pytest

import zmesh
from zmesh import Overloaded
from zmesh.core.limits import Limits
from zmesh.serving.spool_quota import SpoolQuota
from zmesh.testing import Mesh, eventually


def id_of(number):
    return number.to_bytes(16, "big")


@pytest.mark.parametrize("limit", ["spooled_payloads", "spooled_payloads_per_neighbour", "spooled_payloads_per_peer"])
def test_one_payload_more_than_the_limit_is_refused_until_another_is_over(limit):
    quota = SpoolQuota("a", Limits(**{limit: 2}))
    quota.grow(id_of(1), "b", 10, "n")
    quota.grow(id_of(2), "b", 10, "n")
    quota.grow(id_of(2), "b", 20, "n")
    with pytest.raises(Overloaded, match=rf"node 'a' keeps no more .* \({limit} is 2\)") as refused:
        quota.grow(id_of(3), "b", 10, "n")
    assert (refused.value.limit, refused.value.node, refused.value.code) == (limit, "a", "overloaded")
    quota.end(id_of(1))
    quota.grow(id_of(3), "b", 10, "n")
    assert (len(quota), quota.size_bytes) == (2, 30)


def test_a_sender_at_its_limit_leaves_room_for_others():
    quota = SpoolQuota("a", Limits(spooled_payloads_per_peer=1))
    quota.grow(id_of(1), "b", 10, "n")
    with pytest.raises(Overloaded):
        quota.grow(id_of(2), "b", 10, "n")
    quota.grow(id_of(2), "c", 10, "n")


def test_forged_senders_behind_one_neighbour_leave_room_for_those_behind_another():
    quota = SpoolQuota("a", Limits(spooled_payloads_per_neighbour=2))
    quota.grow(id_of(1), "forged-1", 10, "n")
    quota.grow(id_of(2), "forged-2", 10, "n")
    with pytest.raises(Overloaded):
        quota.grow(id_of(3), "forged-3", 10, "n")
    quota.grow(id_of(3), "honest", 10, "m")
    quota.grow(id_of(4), "a", 10, None)


@pytest.mark.parametrize("limit", ["spooled_bytes", "spooled_bytes_per_neighbour"])
def test_as_many_bytes_as_the_limit_and_not_one_more(limit):
    quota = SpoolQuota("a", Limits(**{limit: 100}))
    quota.grow(id_of(1), "b", 60, "n")
    quota.grow(id_of(2), "c", 40, "n")
    with pytest.raises(Overloaded, match=rf"\({limit} is 100\)"):
        quota.grow(id_of(1), "b", 61, "n")
    quota.end(id_of(2))
    quota.grow(id_of(1), "b", 100, "n")
    quota.end(id_of(1))
    quota.end(id_of(1))
    assert (len(quota), quota.size_bytes) == (0, 0)


def test_the_bytes_of_one_neighbour_leave_room_for_those_of_another_and_of_the_node_itself():
    quota = SpoolQuota("a", Limits(spooled_bytes_per_neighbour=100))
    quota.grow(id_of(1), "b", 100, "n")
    quota.grow(id_of(2), "c", 100, "m")
    quota.grow(id_of(3), "a", 1000, None)
    for number in (1, 2, 3):
        quota.end(id_of(number))
    quota.grow(id_of(1), "b", 100, "n")
    assert quota.size_bytes == 100


def test_a_node_that_takes_large_payloads_has_room_for_one_of_a_neighbour():
    size_bytes = 1 << 40
    limits = Limits.serving(10, size_bytes)
    assert size_bytes < limits.spooled_bytes_per_neighbour < limits.spooled_bytes
    SpoolQuota("a", limits).grow(id_of(1), "b", size_bytes, "n")


async def test_the_request_whose_payload_is_one_file_too_many_ends_as_overloaded(monkeypatch):
    monkeypatch.setattr("zmesh.payloads.buffered.SPOOL_AFTER", 100_000)
    async with Mesh.chain("a", "b", limits=Limits(spooled_payloads=1)) as mesh:

        async def first():
            yield bytes(200_000)
            await gate.wait()

        gate = asyncio.Event()
        slow = mesh["a"].stream("b", "echo:echo", first()).send()
        await eventually(lambda: len(mesh["b"].node.serving.spool_quota) == 1)
        with pytest.raises(zmesh.NodeOverloaded, match="node 'b' .*spooled_payloads is 1"):
            await mesh["a"].request("b", "echo:echo", bytes(300_000))
        assert mesh["b"].node.telemetry.counts["overloaded:spooled_payloads"] == 1
        gate.set()
        assert len(await slow.only_payload()) == 200_000
        assert len(await mesh["a"].request("b", "echo:echo", bytes(300_000))) == 300_000
        await eventually(lambda: len(mesh["b"].node.serving.spool_quota) == 0)


async def test_the_clients_behind_one_neighbour_leave_temporary_files_for_those_behind_another(monkeypatch):
    monkeypatch.setattr("zmesh.payloads.buffered.SPOOL_AFTER", 100_000)
    async with Mesh.chain("far", "mid", "b", "other", limits=Limits(spooled_payloads_per_neighbour=1)) as mesh:

        async def first():
            yield bytes(200_000)
            await gate.wait()

        gate = asyncio.Event()
        slow = mesh["far"].stream("b", "echo:echo", first()).send()
        await eventually(lambda: len(mesh["b"].node.serving.spool_quota) == 1)
        with pytest.raises(zmesh.NodeOverloaded, match="node 'b' .*spooled_payloads_per_neighbour is 1"):
            await mesh["mid"].request("b", "echo:echo", bytes(300_000))
        assert mesh["b"].node.telemetry.counts["overloaded:spooled_payloads_per_neighbour"] == 1
        assert len(await mesh["other"].request("b", "echo:echo", bytes(300_000))) == 300_000
        gate.set()
        assert len(await slow.only_payload()) == 200_000
        await eventually(lambda: len(mesh["b"].node.serving.spool_quota) == 0)
