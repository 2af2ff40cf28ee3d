"""What the tests of zmesh/operate/ share: all of it is what the tests of real nodes have."""

from tests.sockets import _census, _own_temporary_files, complaints, nothing_is_left
from tests.waiting import eventually

__all__ = ["_census", "_own_temporary_files", "complaints", "eventually", "nothing_is_left"]
