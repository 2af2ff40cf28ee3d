"""What the tests of zmesh/payloads/ share."""

from tests.waiting import collect, eventually

__all__ = ["collect", "eventually"]
