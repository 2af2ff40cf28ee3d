"""Fuzz the decoders with atheris (libFuzzer): `make fuzz`, or `python -m tests.fuzz.run --help`.

Each target runs in a process of its own, guided by which branches of zmesh an input reaches. Inputs that reach new ones
are kept in --work; a crash is written there as `crash-*` and ends the run with an error. Copy one to
`tests/fuzz/corpus/TARGET/`, where tests/fuzz/test_corpus.py replays it from then on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def main() -> int:
    """The exit code: 0, or 1 if a target has crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="names of targets; all of them without")
    parser.add_argument("--runs", type=int, default=10_000_000, help="inputs, over all targets (%(default)s)")
    parser.add_argument("--seconds", type=int, default=0, help="seconds for each target at most; 0: no limit")
    parser.add_argument("--work", type=Path, default=Path("build/fuzz"), help="where found inputs go (%(default)s)")
    parser.add_argument("--merge", action="store_true", help="keep of the found inputs those that the corpus lacks")
    if sys.argv[1:2] == ["--target"]:  # what `run` starts
        return fuzz(sys.argv[2], sys.argv[3:])
    given = parser.parse_args()
    from tests.fuzz.targets import TARGETS

    names = given.targets or [*TARGETS]
    unknown = set(names) - set(TARGETS)
    if unknown:
        parser.error(f"no target is called {sorted(unknown)[0]!r}; there are {', '.join(TARGETS)}")
    failed = [name for name in names if not run(name, given.runs // len(names), given)]
    print(f"crashed: {', '.join(failed)}" if failed else "no crash", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, runs: int, given: argparse.Namespace) -> bool:
    """Fuzz one target in a process of its own; whether it has not crashed."""
    found, corpus = given.work / name, CORPUS / name
    for folder in (found, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.run", "--target", name]
    if given.merge:
        command += ["-merge=1", str(corpus), str(found)]
    else:
        command += [f"-runs={runs}", f"-max_total_time={given.seconds}", f"-artifact_prefix={found}/"]
        command += ["-max_len=4096", "-rss_limit_mb=2048", "-timeout=20", str(found), str(corpus)]
    print(f"== {name}: {runs} inputs", file=sys.stderr, flush=True)
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": os.getcwd()}, check=False).returncode == 0


def fuzz(name: str, options: list[str]) -> int:
    """Run libFuzzer in this process; it exits by itself."""
    import atheris

    with atheris.instrument_imports(include=["zmesh"]):
        from tests.fuzz.seeds import seeds
        from tests.fuzz.targets import TARGETS

    if not any(option.startswith("-merge") for option in options):
        folder = Path(options[-2])
        for number, seed in enumerate(seeds()[name]):
            (folder / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
