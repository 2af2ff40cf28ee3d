"""Checks of a node's machine and versions: folders, limits of the process, encryption, clocks, path MTUs."""

from __future__ import annotations

import errno
import os
import stat
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from zmesh.core.durations import span
from zmesh.operate.diagnosis import Check
from zmesh.operate.status import NodeStatus, ProcessStatus
from zmesh.operate.warnings import SKEW

MEBIBYTE = 1024 * 1024
LEAST_FREE_BYTES = 64 * MEBIBYTE
LEAST_FREE_SHARE = 0.05
"""A folder is nearly full when less is free than both of these."""
PROBE_BYTES = 65_536
LEAST_DESCRIPTORS = 1024
LEAST_BYTES_PER_SECOND = 50_000_000
"""The speed below which encryption is reported as slow; with AES instructions it is ten times as fast, and more."""
LEAST_MTU = 1280
"""The least MTU of a link with IPv6 (RFC 8200 section 5), in bytes."""


def folder(code: str, what: str, path: str, setting: str) -> Check:
    """Whether files can be written to a folder: it is there, has room, and lets this user write."""
    try:
        room = os.statvfs(path)
        free, size = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        why = {errno.ENOSPC: "is full", errno.EDQUOT: "has no quota left", errno.EROFS: "is on a read-only disk"}
        number = error.errno or 0
        text = f"the {what} {path} {why.get(number, f'can not be written: {(error.strerror or str(error)).lower()}')}"
        mends = {
            errno.ENOSPC: f"free room: du -xh {path} | sort -h | tail; or {setting}",
            errno.EDQUOT: f"free room: du -xh {path} | sort -h | tail; or {setting}",
            errno.ENOENT: f"mkdir -p {path}; or {setting}",
            errno.EACCES: f"chown {_user()} {path}; or {setting}",
        }
        return Check(code, False, text, mends.get(number, setting))
    if free < LEAST_FREE_BYTES and free < LEAST_FREE_SHARE * size:
        text = f"the {what} {path} has {free // 1024} KiB left of {size // MEBIBYTE} MiB"
        return Check(code, False, text, f"free room: du -xh {path} | sort -h | tail; or {setting}")
    return Check(code, True, f"the {what} {path} can be written, {free // MEBIBYTE} MiB are free")


def secrets(state: Path) -> Iterator[Check]:
    """The modes of the folder of an identity and of the keys in it: no other user may read or add keys."""
    for path in [state, *state.rglob("*.key")]:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        wrong = mode & (0o022 if path == state else 0o077)
        if wrong:
            what = "changed" if path == state else "read"
            right = "go-w" if path == state else "600"
            text = f"{path} can be {what} by other users (mode {mode:o})"
            yield Check("state", False, text, f"chmod {right} {path}")


def descriptors(process: ProcessStatus) -> Check:
    """The limit on open files."""
    limit = process.descriptor_limit
    if limit is not None and limit < LEAST_DESCRIPTORS:
        text = f"the limit on open files is {limit}; links, payloads and commands take some each"
        return Check("descriptors", False, text, "LimitNOFILE=65536 in the unit, or: ulimit -n 65536")
    return Check("descriptors", True, f"{process.descriptors} files are open, {limit or 'any number'} may be")


def memory(process: ProcessStatus) -> Check:
    """The limit on memory."""
    used = process.memory_bytes // MEBIBYTE
    limit = process.memory_limit_bytes
    return Check("memory", True, f"{used} MiB used{f' of {limit // MEBIBYTE}' if limit is not None else ''}")


def encryption(curve: float | None, aead: float | None) -> Check:
    """The speed of CURVE (links) and of sealing (payloads), in bytes per second; None where one is not used."""
    parts, slow = [], []
    for name, speed in (("CURVE", curve), ("sealing", aead)):
        if speed is None:
            continue
        parts.append(f"{name} {speed / 1e6:.0f} MB/s")
        if speed < LEAST_BYTES_PER_SECOND:
            slow.append(f"{name} makes {speed / 1e6:.0f} MB/s only")
    if slow:
        mend = "pip install --force-reinstall --only-binary :all: pyzmq cryptography (their wheels have fast ciphers)"
        return Check("encryption", False, "; ".join(slow), mend)
    return Check("encryption", True, ", ".join(parts) or "links are plaintext, on this machine alone")


def some(count: int, noun: str) -> str:
    """A count with its noun: `1 link`, `2 links`."""
    return f"{count} {noun}{'s' if count != 1 else ''}"


def clocks(node: str, skews: Mapping[str, float]) -> Iterator[Check]:
    """Checks of the clocks; `skews`: by how many seconds each neighbour's clock is ahead of the one of this node."""
    wrong = {each: skew for each, skew in skews.items() if abs(skew) >= SKEW}
    if not wrong:
        text = (
            f"this clock and that of {some(len(skews), 'neighbour')} agree" if skews else "no neighbour to compare with"
        )
        yield Check("clock", True, text)
        return
    middle = statistics.median(skews.values())
    agree = [each for each, skew in skews.items() if abs(skew - middle) < SKEW]
    if len(agree) >= 2 and len(agree) == len(skews) and abs(middle) >= SKEW:
        text = f"the clock of {node} is {_off(-middle)} those of all its {len(skews)} neighbours"
        yield Check("clock", False, text, _set_clock(node))
        return
    for each, skew in sorted(wrong.items()):
        doubt = "" if len(skews) > 1 else "; one of the two is wrong"
        text = f"the clock of {each} is {_off(skew)} that of {node}{doubt}"
        yield Check("clock", False, text, _set_clock(each))


def versions(node: str, own: str, others: Mapping[str, str]) -> Check:
    """The versions of zmesh here and at the neighbours."""
    older = sorted(each for each, version in others.items() if _number(version) < _number(own))
    newest = max([own, *others.values()], key=_number)
    behind = [node] if _number(own) < _number(newest) else older
    if not behind:
        return Check(
            "version", True, f"zmesh {own}, as at {some(len(others), 'neighbour')}" if others else f"zmesh {own}"
        )
    shown = ", ".join(f"{each} {others.get(each, own)}" for each in behind[:4])
    text = f"versions differ: {shown}, where {newest} runs elsewhere"
    return Check("version", False, text, f"pip install --upgrade zmesh-mq at {', '.join(behind[:4])}")


def mtu(found: Mapping[str, int]) -> Iterator[Check]:
    """The MTU of the paths to the other ends of links, in bytes."""
    for where, size in sorted(found.items()):
        if size < LEAST_MTU:
            text = f"the path to {where} takes packets of {size} bytes only, so that large ones may be lost on it"
            yield Check("mtu", False, text, f"ip link set dev INTERFACE mtu 1500 on the path; or: tracepath {where}")
    if all(size >= LEAST_MTU for size in found.values()):
        sizes = ", ".join(map(str, sorted(set(found.values()))))
        yield Check("mtu", True, f"paths take packets of {sizes} bytes" if sizes else "no links over a network")


_REMEDIES = {
    "certificate_expired": "zmesh invite {node} where 'zmesh init' was run, then at {node}: zmesh join TICKET",
    "certificate_expiring": "start the node where 'zmesh init' was run; {node} then renews its certificate itself",
    "duplicate_id": "zmesh node --id ANOTHER at one of the two",
    "link_slow": "zmesh ping -c 20 to that node; a cost keeps traffic off it: ?cost=500 after its URL in peers",
    "link_full": "zmesh status {node}; raise the bandwidth of that link, or send less over it",
    "link_flaps": "zmesh events {node} --since 1h; look at the network between the two",
    "link_suspect": "zmesh ping to that node; look at the network between the two",
    "link_down": "zmesh events {node} --since 1h; start that node again, or take it out of the settings",
    "link_refused": "zmesh events {node} --since 1h; mend it at the other end, as the reason says",
    "descriptors": "LimitNOFILE=65536 in the unit, or: ulimit -n 65536",
    "memory": "raise the limit (MemoryMax= in the unit), or lower max_work, then: zmesh reload",
    "work": "raise max_work in the settings, then: zmesh reload",
    "loop_lag": "mark the directive in the log isolate=True, or make it a plain function; without one, see top(1)",
}
"""The remedy for each warning of a status."""
_SUBJECTS = {
    "certificate_expired": "identity",
    "certificate_expiring": "identity",
    "duplicate_id": "duplicate_id",
    "descriptors": "descriptors",
    "memory": "memory",
    "work": "work",
    "loop_lag": "loop",
}
"""The code of the check that a warning belongs to; that of others is `links`."""


def warned(status: NodeStatus, without: Sequence[str] = ()) -> list[Check]:
    """The warnings of a status as checks, but those of codes in `without`."""
    return [
        Check(_SUBJECTS.get(each.code, "links"), False, each.text, _REMEDIES[each.code].format(node=status.node))
        for each in status.warnings
        if each.code not in without and each.code in _REMEDIES
    ]


def _set_clock(node: str) -> str:
    return f"at {node}: sudo timedatectl set-ntp true"


def _off(skew: float) -> str:
    return f"{span(abs(skew))} {'ahead of' if skew > 0 else 'behind'}"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _user() -> str:
    return str(os.geteuid())
