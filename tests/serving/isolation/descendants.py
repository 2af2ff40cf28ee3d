"""The processes that this one has started, as the system knows them."""

import os
from pathlib import Path

from tests.forked import servers


def descendants(of=None):
    """Every process that this one has started, directly or not, with the state that it is in."""
    parents, states = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        parents[int(folder.name)], states[int(folder.name)] = int(parent), state
    found = {of or os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: states[pid] for pid in found - {of or os.getpid()} - servers()}


def is_gone(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"  # left to a sleepy init
