"""Directives in processes of their own: a table of work to run them, of which nothing is left after each test.

That closing leaves no task and no thread is checked by the fixture of the folder above.
"""

import os
import tempfile

import pytest

from tests.serving.isolation.descendants import descendants


@pytest.fixture(autouse=True)
async def nothing_is_left(tmp_path, monkeypatch, eventually):
    """After each test its processes, descriptors and temporary files are gone."""
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    before = len(os.listdir("/proc/self/fd"))
    yield
    await eventually(lambda: not descendants())
    await eventually(lambda: not list(spool.iterdir()))
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


@pytest.fixture
async def bench(nothing_is_left, benches):
    """Depends on the census, so that the table is closed before that is taken."""
    bench = benches(max_processes=4)
    yield bench
    await bench.runner.close()
