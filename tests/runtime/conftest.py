"""What the tests of zmesh/runtime/ share."""

from tests.waiting import collect, eventually

__all__ = ["collect", "eventually"]
