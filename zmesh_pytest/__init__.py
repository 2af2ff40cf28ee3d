"""A pytest plugin: the fixture `mesh` is an empty Mesh, whose nodes are closed when the test is over.

It is a package of its own and imports zmesh when a test asks for the fixture: pytest loads it in every run of every
project where zmesh is installed, and any module of zmesh would bring all of zmesh and ZeroMQ with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zmesh.testing import Mesh

if find_spec("pytest_asyncio") is not None:  # another plugin, which pytest imports anyway
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def mesh() -> AsyncIterator[Mesh]:
        """An empty Mesh: `await mesh.add("hub")`, `await mesh.add("edge", "hub")`, `await mesh.settle()`."""
        from zmesh.testing import Mesh

        async with Mesh() as empty:
            yield empty
