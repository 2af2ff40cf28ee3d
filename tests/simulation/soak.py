"""Runs the random meshes by the thousand, on all cores; a seed that fails is printed with the command that replays it.

python -m tests.simulation.soak                     20,000 seeds of routes and delivery, and 100,000 requests
python -m tests.simulation.soak routes --seeds 500 --first 3000
python -m tests.simulation.soak routes --seed 1234  one seed again, with its traceback
"""

import argparse
import contextlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator

from zmesh.testing.scenario import run_routes
from zmesh.testing.traffic import run_delivery, run_requests

Job = tuple[str, int]

SENTENCES: dict[str, Callable[[int], object]] = {
    "routes": run_routes,
    "delivery": run_delivery,
    "requests": run_requests,
}
ONCE = {"requests"}
"""Long by themselves, so one seed is enough."""
SEEDS = 20_000
REPORT_EVERY = 10.0
ENOUGH = 20


def run(job: Job) -> tuple[Job, str]:
    """Run one seed; the text of what failed, or an empty one."""
    sentence, seed = job
    try:
        SENTENCES[sentence](seed)
    except Exception as error:
        return job, f"{type(error).__name__}: {error}"
    return job, ""


def jobs(sentences: list[str], first: int, count: int) -> Iterator[Job]:
    """All seeds, the sentences in turn."""
    for seed in range(first, first + count):
        for sentence in sentences:
            if seed == first or sentence not in ONCE:
                yield sentence, seed


def soak(sentences: list[str], first: int, count: int, processes: int) -> int:
    """Run all; the number of seeds that failed."""
    began = reported = time.monotonic()
    total, done, failed = sum(1 if sentence in ONCE else count for sentence in sentences), 0, 0
    with multiprocessing.Pool(processes) if processes > 1 else contextlib.nullcontext() as pool:
        every = jobs(sentences, first, count)
        for (sentence, seed), text in pool.imap_unordered(run, every, chunksize=8) if pool else map(run, every):
            done += 1
            if text:
                failed += 1
                print(f"FAILED {sentence} seed {seed}: {text}")
                print(f"  replay: python -m tests.simulation.soak {sentence} --seed {seed}", flush=True)
                if failed == ENOUGH:
                    print(f"stopped after {ENOUGH} failures")
                    break
            now = time.monotonic()
            if now - reported >= REPORT_EVERY:
                reported = now
                left = (now - began) / done * (total - done)
                print(f"{done} of {total}, {failed} failed, {left:.0f} s to go", flush=True)
    print(f"{done} of {total} runs in {time.monotonic() - began:.0f} s, {failed} failed")
    return failed


def main() -> int:
    """The command line; exits 1 if a seed failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.soak", description="Random meshes in the simulator."
    )
    parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help=f"of: {', '.join(SENTENCES)} (default: all)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds of each sentence (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (%(default)s)")
    parser.add_argument("--seed", type=int, help="run this one seed, and show where it fails")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (%(default)s)")
    arguments = parser.parse_args()
    sentences = arguments.sentences or list(SENTENCES)
    if unknown := set(sentences) - set(SENTENCES):
        parser.error(f"no sentence is called {', '.join(sorted(unknown))}")
    if arguments.seed is None:
        return 1 if soak(sentences, arguments.first, arguments.seeds, arguments.jobs) else 0
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
