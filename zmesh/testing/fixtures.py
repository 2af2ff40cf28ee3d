"""A pytest plugin: the fixture `mesh` is an empty Mesh, whose nodes are closed when the test is over.

pytest loads this in every run of every project where zmesh is installed, so it imports nothing of zmesh, nor ZeroMQ,
before a test asks for the fixture.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zmesh.testing.mesh import Mesh

if importlib.util.find_spec("pytest_asyncio") is not None:
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def mesh() -> AsyncIterator[Mesh]:
        """An empty Mesh: `await mesh.add("hub")`, `await mesh.add("edge", "hub")`, `await mesh.settle()`."""
        from zmesh.testing.mesh import Mesh

        async with Mesh() as empty:
            yield empty
