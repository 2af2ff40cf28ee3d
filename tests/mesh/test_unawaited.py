"""Requests that are taken up where they can't be."""

import asyncio
import sys

import pytest

from zmesh.testing import Mesh


async def test_iterating_over_a_request_outside_of_a_loop_raises_and_no_destructor_complains(monkeypatch):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    async with Mesh("a") as mesh:
        request = mesh["a"].request("a", "sleep:execute", b"3600")

        def iterate():
            with pytest.raises(RuntimeError, match="no running event loop"):
                aiter(request)

        await asyncio.to_thread(iterate)
        await request.cancel()
    assert complaints == []
