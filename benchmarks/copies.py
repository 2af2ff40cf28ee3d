"""Copies of one large file to a node and from it, beside `digest:sha256` of the same file, scp and rsync.

Used by `benchmarks.remote`. All take turns, so that the load of the machine meets all alike; each is a whole command,
from the start of its process to its end. The file lies in memory (FOLDER) where there is such a folder, so that no disk
is measured. scp and rsync need a host that ssh leads to, and are left out where they are not installed.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

FOLDER = "/dev/shm"
LIMIT = 0.8
"""The least rate of a copy, as a share of that of the digest."""
MIB = 1024 * 1024
COMMAND = (sys.executable, "-P", "-m", "zmesh_cli")


class Copies(TypedDict):
    """Rates in MB/s, medians; the shares are medians of the shares of each turn. None: not measured."""

    mib: int
    digest_mb_s: float
    to_mb_s: float
    from_mb_s: float
    to_share: float
    from_share: float
    scp_mb_s: float | None
    rsync_mb_s: float | None


def measure(node: str, environment: Mapping[str, str], mib: int, rounds: int, host: str | None) -> Copies:
    """Copy a file of so many MiB to a node and back, in so many turns."""
    where = FOLDER if os.access(FOLDER, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="zmesh-copies-", dir=where) as name:
        folder = Path(name)
        with open(folder / "source", "wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
        programs: dict[str, Sequence[str]] = {
            "digest": (*COMMAND, "send", node, "digest:sha256", f"@{folder}/source"),
            "to": (*COMMAND, "cp", f"{folder}/source", f"{node}:{folder}/there"),
            "from": (*COMMAND, "cp", f"{node}:{folder}/source", f"{folder}/back"),
        }
        if host and shutil.which("scp"):
            programs["scp"] = ("scp", "-q", f"{folder}/source", f"{host}:{folder}/scp")
        if host and shutil.which("rsync"):
            programs["rsync"] = ("rsync", "-a", f"{folder}/source", f"{host}:{folder}/rsync")
        seconds: dict[str, list[float]] = defaultdict(list)
        for turn in range(rounds + 1):
            for program, words in programs.items():
                began = time.perf_counter()
                subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
                if turn:  # the first one loads the pages of all that takes part
                    seconds[program].append(time.perf_counter() - began)
            for copy in ("there", "back", "scp", "rsync"):
                (folder / copy).unlink(missing_ok=True)
    rates = {program: mib * MIB / 1e6 / statistics.median(found) for program, found in seconds.items()}

    def share(program: str) -> float:
        turns = zip(seconds["digest"], seconds[program], strict=True)
        return round(statistics.median(digest / copy for digest, copy in turns), 2)

    return {
        "mib": mib,
        "digest_mb_s": round(rates["digest"], 1),
        "to_mb_s": round(rates["to"], 1),
        "from_mb_s": round(rates["from"], 1),
        "to_share": share("to"),
        "from_share": share("from"),
        "scp_mb_s": round(rates["scp"], 1) if "scp" in rates else None,
        "rsync_mb_s": round(rates["rsync"], 1) if "rsync" in rates else None,
    }


def lines(found: Copies) -> list[str]:
    """The rates for people."""
    there, back = f"{found['to_mb_s']:.0f} MB/s ({found['to_share']:.2f})", f"{found['from_mb_s']:.0f} MB/s"
    text = [f"{found['mib']} MiB: digest:sha256 {found['digest_mb_s']:.0f} MB/s, cp there {there}, back {back}"]
    text[0] += f" ({found['from_share']:.2f})"
    for name, rate in (("scp", found["scp_mb_s"]), ("rsync", found["rsync_mb_s"])):
        if rate is not None:
            text.append(f"{name} {rate:.0f} MB/s")
    return text
