"""The diagnosis of a node, as `zmesh:doctor` answers it: checks, their results, and remedies."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zmesh.core.durations import span
from zmesh.operate.json_form import JsonForm
from zmesh.operate.warnings import SKEW


@dataclass(frozen=True, slots=True)
class Check(JsonForm):
    """The result of one check: a stable `code`, whether it is `ok`, and a line of text.

    `remedy` is the remedy of a fault, a command where there is one; empty if it is `ok`.
    """

    code: str
    ok: bool
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis(JsonForm):
    """The checks of one node at one moment (`time`, its clock, in seconds since 1970)."""

    node: str
    version: str
    time: float
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether all checks are."""
        return all(check.ok for check in self.checks)


def compared(diagnosis: Diagnosis, now: float) -> Diagnosis:
    """The same, with a check of that node's clock against `now`, which a node without neighbours can't know."""
    skew = diagnosis.time - now
    if abs(skew) < SKEW or any(check.code == "clock" and not check.ok for check in diagnosis.checks):
        return diagnosis
    text = f"the clock of {diagnosis.node} is {span(abs(skew))} {'ahead of' if skew > 0 else 'behind'} the one here"
    wrong = Check("clock", False, text, f"at {diagnosis.node}: sudo timedatectl set-ntp true")
    return replace(diagnosis, checks=(wrong, *(check for check in diagnosis.checks if check.code != "clock")))
