"""Runs the random meshes by the thousand, on all cores; a seed that fails is printed with the command that replays it.

python -m tests.simulation.soak                     20,000 seeds of each sentence, and 100,000 requests
python -m tests.simulation.soak routes --seeds 500 --first 3000
python -m tests.simulation.soak --state soak.json   go on where an earlier soak with that file was ended
python -m tests.simulation.soak routes --seed 1234  one seed again, with its traceback

A census counts in how many seeds each rare branch was reached (`zmesh.testing.census`). A soak of CENSUS_FROM seeds or
more fails if there is one that none has reached.
"""

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from zmesh.testing.census import Census, expected
from zmesh.testing.scenario import run_routes
from zmesh.testing.traffic import run_delivery, run_liars, run_mixed, run_requests, run_trusted

Job = tuple[str, int]

SENTENCES: dict[str, Callable[[int], object]] = {
    "routes": run_routes,
    "delivery": run_delivery,
    "liars": run_liars,
    "trusted": run_trusted,
    "mixed": run_mixed,
    "requests": run_requests,
}
ONCE = {"requests"}
"""Long by themselves, so one seed is enough."""
SEEDS = 20_000
CENSUS_FROM = 5_000
REPORT_EVERY = 10.0
ENOUGH = 20

census = Census()


def run(job: Job) -> tuple[Job, str, set[str]]:
    """Run one seed; the text of what failed, or an empty one, and which points of the census were reached."""
    sentence, seed = job
    census.take()
    text = ""
    try:
        SENTENCES[sentence](seed)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    return job, text, census.take()


def jobs(sentences: list[str], first: int, count: int) -> Iterator[Job]:
    """All seeds, the sentences in turn."""
    for seed in range(first, first + count):
        for sentence in sentences:
            if seed == first or sentence not in ONCE:
                yield sentence, seed


class Progress:
    """What was run so far, of which the file `state` keeps a copy, if there is one."""

    def __init__(self, sentences: list[str], first: int, count: int, state: Path | None = None) -> None:
        self.what = {"sentences": sentences, "first": first, "seeds": count}
        self.state = state
        self.done: set[Job] = set()
        self.failed: list[Job] = []
        self.reached: dict[str, collections.Counter[str]] = {sentence: collections.Counter() for sentence in sentences}
        if state is not None and state.exists():
            self._load(json.loads(state.read_text()))

    def note(self, job: Job, text: str, reached: set[str]) -> None:
        """A seed was run."""
        self.done.add(job)
        self.reached[job[0]].update(reached)
        if text:
            self.failed.append(job)

    def missing(self) -> list[str]:
        """The points that no seed of a sentence has reached, if there were enough of them."""
        runs = collections.Counter(sentence for sentence, _ in self.done)
        return [
            f"{sentence}: {name}"
            for sentence, reached in self.reached.items()
            if runs[sentence] >= CENSUS_FROM
            for name in sorted(expected(sentence) - reached.keys())
        ]

    def save(self) -> None:
        """Write the file."""
        if self.state is None:
            return
        text = json.dumps(
            {
                **self.what,
                "done": sorted(self.done),
                "failed": self.failed,
                "reached": {sentence: dict(counts.most_common()) for sentence, counts in self.reached.items()},
            }
        )
        beside = self.state.with_name(f"{self.state.name}.new")
        beside.write_text(text)
        beside.replace(self.state)

    def _load(self, known: dict[str, object]) -> None:
        if {key: known[key] for key in self.what} != self.what:
            raise SystemExit(
                f"{self.state} is of another soak: {', '.join(f'{key} {known[key]}' for key in self.what)}"
            )
        self.done = {(sentence, seed) for sentence, seed in known["done"]}
        self.failed = [(sentence, seed) for sentence, seed in known["failed"]]
        self.reached = {sentence: collections.Counter(counts) for sentence, counts in known["reached"].items()}


def soak(
    sentences: list[str],
    first: int,
    count: int,
    processes: int,
    state: Path | None = None,
    *,
    show: bool = False,
) -> int:
    """Run all that `state` does not know as done; the number of seeds that failed and of points never reached.

    `show`: print in how many seeds each point was reached.
    """
    began = reported = time.monotonic()
    progress = Progress(sentences, first, count, state)
    left = [job for job in jobs(sentences, first, count) if job not in progress.done]
    total, done = len(progress.done) + len(left), 0
    with contextlib.ExitStack() as stack:
        if processes > 1:
            pool = stack.enter_context(multiprocessing.Pool(processes, initializer=census.open))
            results = pool.imap_unordered(run, left, chunksize=8)
        else:
            stack.enter_context(census)
            results = map(run, left)
        for job, text, reached in results:
            progress.note(job, text, reached)
            done += 1
            if text:
                sentence, seed = job
                print(f"FAILED {sentence} seed {seed}: {text}")
                print(f"  replay: python -m tests.simulation.soak {sentence} --seed {seed}", flush=True)
                if len(progress.failed) == ENOUGH:
                    print(f"stopped after {ENOUGH} failures")
                    break
            now = time.monotonic()
            if now - reported >= REPORT_EVERY:
                reported = now
                progress.save()
                rate = done / (now - began)
                print(
                    f"{len(progress.done)} of {total}, {len(progress.failed)} failed, {rate:.1f} seeds/s, "
                    f"{(len(left) - done) / rate:.0f} s to go",
                    flush=True,
                )
    progress.save()
    took = time.monotonic() - began
    missing = progress.missing()
    for sentence, reached in progress.reached.items() if show else ():
        for name in sorted(expected(sentence), key=lambda name: reached[name]):
            print(f"{sentence}: {reached[name]} {name}")
    for name in missing:
        print(f"NEVER REACHED {name}")
    print(
        f"{len(progress.done)} of {total} runs in {took:.0f} s ({done / max(took, 1e-9):.1f} seeds/s), "
        f"{len(progress.failed)} failed, {len(missing)} points never reached"
    )
    return len(progress.failed) + len(missing)


def main() -> int:
    """The command line; exits 1 if a seed failed, or a point of the census was never reached."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.soak", description="Random meshes in the simulator."
    )
    parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help=f"of: {', '.join(SENTENCES)} (default: all)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds of each sentence (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (%(default)s)")
    parser.add_argument("--seed", type=int, help="run this one seed, and show where it fails")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (%(default)s)")
    parser.add_argument("--state", type=Path, help="a file that keeps what was run, and to go on from if it is there")
    parser.add_argument("--census", action="store_true", help="show in how many seeds each point was reached")
    arguments = parser.parse_args()
    sentences = arguments.sentences or list(SENTENCES)
    if unknown := set(sentences) - set(SENTENCES):
        parser.error(f"no sentence is called {', '.join(sorted(unknown))}")
    if arguments.seed is None:
        wrong = soak(
            sentences, arguments.first, arguments.seeds, arguments.jobs, arguments.state, show=arguments.census
        )
        return 1 if wrong else 0
    failed = 0
    for sentence in sentences:
        try:
            SENTENCES[sentence](arguments.seed)
            print(f"{sentence} seed {arguments.seed}: all is well")
        except Exception:
            failed = 1
            traceback.print_exc()
    return failed


if __name__ == "__main__":
    sys.exit(main())
