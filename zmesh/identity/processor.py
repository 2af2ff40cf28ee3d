"""Whether this machine's processor has AES instructions; without them ChaCha20-Poly1305 is several times as fast."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

CPUINFO = Path("/proc/cpuinfo")
_SAMPLE_BYTES = 64 * 1024
_ROUNDS = 5


@cache
def is_slow_at_aes() -> bool:
    """Whether ChaCha20-Poly1305 is preferred here: by what Linux says of the processor, else by measuring both."""
    try:
        has_aes = read_cpuinfo(CPUINFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:  # no Linux, or a sandbox without /proc
        has_aes = None
    return measured_slow() if has_aes is None else not has_aes


def read_cpuinfo(text: str) -> bool | None:
    """Whether /proc/cpuinfo (proc_cpuinfo(5)) lists `aes`: in `flags` on x86, `Features` on ARM; None: in neither."""
    for line in text.splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return "aes" in values.split()
    return None


def measured_slow() -> bool:
    """Whether sealing with AES-256-GCM takes more than twice as long here; some milliseconds."""
    return _least(AESGCM(bytes(32))) > 2 * _least(ChaCha20Poly1305(bytes(32)))


def _least(cipher: AESGCM | ChaCha20Poly1305) -> float:
    sample, spent = bytes(_SAMPLE_BYTES), []
    for number in range(_ROUNDS):
        begun = time.perf_counter()
        cipher.encrypt(number.to_bytes(12, "big"), sample, None)
        spent.append(time.perf_counter() - begun)
    return min(spent)


def sealing_speed() -> float:
    """Bytes per second that one core seals here with the cipher that this machine prefers; some milliseconds."""
    cipher = ChaCha20Poly1305(bytes(32)) if is_slow_at_aes() else AESGCM(bytes(32))
    return _SAMPLE_BYTES / _least(cipher)
