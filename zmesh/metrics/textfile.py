"""The file for node_exporter's textfile collector: written anew every few seconds, and put in place by a rename."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from glob import escape, glob

log = logging.getLogger(__name__)


class Textfile:
    """Writes metrics to a file every `interval` seconds, by `write` in a thread of its own; writes are counted."""

    def __init__(self, path: str, interval: float, write: Callable[[str], None], scrapes: Counter[str]) -> None:
        self._path = path
        self._interval = interval
        self._write = write
        self._scrapes = scrapes
        self._ended = threading.Event()
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="zmesh metrics file", daemon=True)

    def start(self) -> None:
        """Write it now, and every `interval` seconds. Raises OSError if it can't be written."""
        for left in glob(f"{escape(self._path)}.*.*"):  # of a node that was killed while it wrote
            os.unlink(left)
        self._write(self._path)
        self._thread.start()

    def close(self) -> None:
        """Write no more, and remove the file, so that no old numbers are taken for new ones."""
        self._ended.set()
        with suppress(OSError):
            os.unlink(self._path)

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            try:
                self._write(self._path)
            except (OSError, TimeoutError, RuntimeError) as error:  # a full disk, a blocked loop, one that is closed
                self._scrapes["unwritten"] += 1
                if str(error) != self._failure:
                    self._failure = str(error)
                    log.warning("the metrics can't be written to %s: %s", self._path, error)
            else:
                self._failure = ""
                if self._ended.is_set():
                    self.close()
