"""The checksum of packets."""

import runpy
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.wire import checksum


@given(st.binary(max_size=3000), st.integers(0, 2**32 - 1))
def test_it_is_that_of_zlib(data: bytes, start: int) -> None:
    assert checksum.crc32(data, start) == zlib.crc32(data, start)


def test_it_has_the_check_value_of_crc_32() -> None:
    assert checksum.crc32(b"123456789") == 0xCBF43926


def test_where_zlib_ng_is_missing_that_of_python_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
    assert runpy.run_path(checksum.__file__)["crc32"] is zlib.crc32
