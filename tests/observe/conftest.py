"""What the tests of zmesh/observe/ share."""

from tests.waiting import collect, eventually

__all__ = ["collect", "eventually"]
