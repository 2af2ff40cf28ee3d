"""What the tests of zmesh/dashboard/ share: what the tests of real nodes have, and a mesh that answers by itself."""

import pytest

from tests.dashboard.fixed_mesh import FixedMesh
from tests.sockets import _census, _own_temporary_files, complaints, nothing_is_left
from tests.waiting import eventually

__all__ = ["_census", "_own_temporary_files", "complaints", "eventually", "nothing_is_left"]


@pytest.fixture
def fixed_mesh():
    """A hub with the nodes a, b and c."""
    return FixedMesh("hub", "a", "b", "c")
