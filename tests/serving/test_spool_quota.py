"""The payloads of requests in temporary files: so many of one sender, so many of all, and so many bytes."""

import asyncio

import pytest

import zmesh
from zmesh.core.limits import Limits
from zmesh.serving.spool_quota import SpoolQuota
from zmesh.testing import Mesh, eventually


def id_of(number):
    return number.to_bytes(16, "big")


@pytest.mark.parametrize("limit", ["spooled_payloads", "spooled_payloads_per_peer"])
def test_one_payload_more_than_the_limit_is_refused_until_another_is_over(limit):
    quota = SpoolQuota("a", Limits(**{limit: 2}))
    quota.grow(id_of(1), "b", 10)
    quota.grow(id_of(2), "b", 10)
    quota.grow(id_of(2), "b", 20)
    with pytest.raises(zmesh.Overloaded, match=rf"node 'a' keeps no more .* \({limit} is 2\)"):
        quota.grow(id_of(3), "b", 10)
    quota.end(id_of(1))
    quota.grow(id_of(3), "b", 10)
    assert (len(quota), quota.size_bytes) == (2, 30)


def test_a_sender_at_its_limit_leaves_room_for_others():
    quota = SpoolQuota("a", Limits(spooled_payloads_per_peer=1))
    quota.grow(id_of(1), "b", 10)
    with pytest.raises(zmesh.Overloaded):
        quota.grow(id_of(2), "b", 10)
    quota.grow(id_of(2), "c", 10)


def test_as_many_bytes_as_the_limit_and_not_one_more():
    quota = SpoolQuota("a", Limits(spooled_bytes=100))
    quota.grow(id_of(1), "b", 60)
    quota.grow(id_of(2), "c", 40)
    with pytest.raises(zmesh.Overloaded, match=r"\(spooled_bytes is 100\)"):
        quota.grow(id_of(1), "b", 61)
    quota.end(id_of(2))
    quota.grow(id_of(1), "b", 100)
    quota.end(id_of(1))
    quota.end(id_of(1))
    assert (len(quota), quota.size_bytes) == (0, 0)


async def test_the_request_whose_payload_is_one_file_too_many_ends_as_overloaded(monkeypatch):
    monkeypatch.setattr("zmesh.payloads.buffered.SPOOL_AFTER", 100_000)
    async with Mesh.chain("a", "b", limits=Limits(spooled_payloads=1)) as mesh:

        async def first():
            yield bytes(200_000)
            await gate.wait()

        gate = asyncio.Event()
        slow = mesh["a"].stream("b", "echo:echo", first()).send()
        await eventually(lambda: len(mesh["b"].node.serving.spool_quota) == 1)
        with pytest.raises(zmesh.NodeOverloaded, match="spooled_payloads is 1"):
            await mesh["a"].request("b", "echo:echo", bytes(300_000))
        gate.set()
        assert len(await slow.only_payload()) == 200_000
        assert len(await mesh["a"].request("b", "echo:echo", bytes(300_000))) == 300_000
        assert len(mesh["b"].node.serving.spool_quota) == 0
