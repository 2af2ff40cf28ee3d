"""What the measuring programs share: their options, how they print a result, and the exit status."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

INTERRUPTED = 130


def parser(name: str, about: str, schema: str, check: str) -> argparse.ArgumentParser:
    """A parser with `--json` and `--check` for the program `python -m name`; `check` says what fails, in plain text."""
    parsing = argparse.ArgumentParser(f"python -m {name}", description=about)
    parsing.add_argument("--json", action="store_true", help=f"print one object of schema {schema}")
    parsing.add_argument("--check", action="store_true", help=f"status 1 if {check.replace('%', '%%')}")
    return parsing


def conclude(result: object, arguments: argparse.Namespace, text: str, missed: Iterable[str]) -> int:
    """Print a result, as JSON or as `text`, and with `--check` the goals that are missed; the exit status."""
    print(json.dumps(result) if arguments.json else text)
    goals = list(missed)
    if arguments.check and goals:
        print(f"missed: {'; '.join(goals)}", file=sys.stderr)
        return 1
    return 0


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with the status that `main` returns, or with that of an interrupted program."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
