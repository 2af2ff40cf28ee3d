"""The file of a bundle: a tar archive, compressed by gzip, of `bundle.json` and a `nodes/ID.json` for each node.

A file gets its name when it is complete, and only its owner may read it. It holds MAX_BYTES uncompressed at most; a
file that is read is not trusted.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import secrets
import tarfile
import zlib
from typing import TYPE_CHECKING

from zmesh.core.message import is_node_id
from zmesh.operate.bundle import MAX_NODES, Bundle, BundleSummary, NodeReport
from zmesh.operate.json_form import from_json
from zmesh.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 256 * 1024 * 1024
MAX_NODE_BYTES = 32 * 1024 * 1024
"""Bytes of JSON of one node."""
_HEAD = "bundle.json"
_FOLDER = "nodes/"
_HEAD_SCHEMA, _NODE_SCHEMA = "zmesh.bundle/1", "zmesh.bundle-node/1"


class BundleWriter:
    """Writes the file `path`. As a context manager, it removes what is unfinished. Raises OSError."""

    def __init__(self, path: str | os.PathLike[str], now: float) -> None:
        self._path = os.path.realpath(path)
        if os.path.isdir(self._path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._path)
        folder, name = os.path.split(self._path)
        self._part: str | None = os.path.join(folder, f".{name[:200]}.{secrets.token_hex(4)}.part")
        self._now = int(now)
        self._left = MAX_BYTES
        with contextlib.ExitStack() as unless_opened:
            descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            unless_opened.callback(os.unlink, self._part)
            self._file = unless_opened.enter_context(open(descriptor, "wb"))
            self._archive = tarfile.open(fileobj=self._file, mode="w:gz")
            unless_opened.pop_all()

    def add(self, report: NodeReport) -> str:
        """Write the report of a node, without secrets; "" or the reason why it does not fit. Raises OSError."""
        text = _text(_NODE_SCHEMA, report.to_json())
        if len(text) > min(MAX_NODE_BYTES, self._left):
            return f"its state of {len(text)} bytes does not fit into a bundle; name fewer nodes"
        self._write(f"{_FOLDER}{report.node}.json", text)
        return ""

    def finish(self, summary: BundleSummary) -> None:
        """Write the summary, and give the file its name. Raises OSError."""
        self._write(_HEAD, _text(_HEAD_SCHEMA, summary.to_json()))
        self._archive.close()
        self._file.close()
        assert self._part is not None
        os.replace(self._part, self._path)
        self._part = None

    def close(self) -> None:
        """Remove the file, unless it is finished."""
        if self._part is not None:
            part, self._part = self._part, None
            with contextlib.ExitStack() as steps:
                steps.callback(os.unlink, part)
                for opened in (self._file, self._archive):  # closed in reverse: the archive writes its end first
                    steps.enter_context(contextlib.suppress(OSError))  # for which a full disk may have no room
                    steps.callback(opened.close)

    def _write(self, name: str, text: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime, entry.mode = len(text), self._now, 0o600
        self._left -= len(text)
        self._archive.addfile(entry, io.BytesIO(text))


def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """The bundle in a file. Raises ValueError for a malformed one, and OSError."""
    reports, summary = {}, None
    try:
        for name, text in _entries(path):
            if name == _HEAD:
                summary = from_json(BundleSummary, json.loads(text))
            elif name.startswith(_FOLDER) and is_node_id(name.removeprefix(_FOLDER).removesuffix(".json")):
                report = from_json(NodeReport, json.loads(text))
                reports[report.node] = report
    except (tarfile.TarError, EOFError, zlib.error, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)!r} is no bundle of zmesh: {error}") from None
    if summary is None:
        raise ValueError(f"{os.fspath(path)!r} is no bundle of zmesh: it has no {_HEAD}")
    return Bundle(summary, reports)


def _entries(path: str | os.PathLike[str]) -> Iterator[tuple[str, bytes]]:
    left = MAX_BYTES
    with tarfile.open(path, "r|gz") as archive:
        for count, entry in enumerate(archive):
            left -= entry.size
            if count > MAX_NODES or not entry.isreg() or entry.size > MAX_NODE_BYTES or left < 0:
                raise ValueError(f"{os.fspath(path)!r} is no bundle of zmesh, or larger than one")
            file = archive.extractfile(entry)
            assert file is not None  # it is a regular file
            yield entry.name, file.read(MAX_NODE_BYTES)


def _text(schema: str, shown: dict[str, object]) -> bytes:
    return json.dumps(redacted({"schema": schema, **shown}), indent=1, allow_nan=False).encode()
