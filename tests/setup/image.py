"""Build the image of the Containerfile, run it as a container, and check what docs/guides/service.md says of it.

    python tests/setup/image.py [--base FOLDER] [--mount FOLDER ...]

It needs root, podman, and crun with version 2 of cgroups. `--base` takes a root file system for the base image, where
no registry is reachable (debootstrap with python3 and python3-venv, and a link /usr/local/bin/python); `--mount` shows
folders of this machine to the build, such as the settings of pip. The storage is a temporary one; nothing is left.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.13-slim"
RUN = ("--read-only", "--tmpfs=/tmp", "--tmpfs=/run/zmesh", "--volume=zmesh:/var/lib/zmesh", "--network=none")
LIMITED = ("--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
"""What lets a container run where this program has few rights itself."""


class Podman:
    """Runs podman with a storage of its own."""

    def __init__(self, folder: str) -> None:
        self._options = [f"--root={folder}/storage", f"--runroot={folder}/run", "--cgroup-manager=cgroupfs"]

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run a command, which must end with that exit code; its output."""
        line = ["podman", *self._options, "--runtime=crun", *words]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
        if done.returncode != code:
            raise SystemExit(f"podman {' '.join(words)}: {done.returncode}: {done.stdout[-2000:]}")
        return done.stdout

    def import_base(self, folder: str) -> None:
        """Make the base image of a root file system."""
        with subprocess.Popen(["tar", "--create", f"--directory={folder}", "."], stdout=subprocess.PIPE) as tar:
            line = ["podman", *self._options, "import", "-", BASE]
            subprocess.run(line, stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True)


def check(podman: Podman) -> None:
    """Run a node in a container, and look at it."""
    config = json.loads(podman("image", "inspect", "zmesh"))[0]
    expect("user", config["User"], "10001:10001")
    expect("health check", config["Healthcheck"]["Test"], ["CMD", "zmesh", "doctor", "--quiet"])
    podman("run", "--detach", "--name=node", *RUN, *LIMITED, "zmesh", "node", "--id", "one")
    inside = ("exec", "node", "sh", "-c")
    ready = "until zmesh status >/dev/null 2>&1; do sleep 0.2; done; echo ready"
    expect("a node that answers", podman(*inside, ready).strip(), "ready")
    command = podman(*inside, "tr '\\0' ' ' </proc/1/cmdline").split()
    expect("process 1", command[-3:], ["node", "--id", "one"])
    expect("its user", podman(*inside, "id -u").strip(), "10001")
    expect("owner and mode of its state", podman(*inside, "stat -c '%u %a' /var/lib/zmesh").strip(), "10001 700")
    podman(*inside, "touch /file", code=1)
    podman(*inside, "for i in 1 2 3; do (sleep 0.1 & exec true) & done")
    reaped = "while cat /proc/[0-9]*/stat | cut -d' ' -f3 | grep -q Z; do sleep 0.2; done; echo reaped"
    expect("orphans", podman(*inside, reaped).strip(), "reaped")
    podman("healthcheck", "run", "node")
    podman("stop", "--time=20", "node")
    expect("exit code after SIGTERM", podman("inspect", "node", "--format={{.State.ExitCode}}").strip(), "0")


def expect(what: str, found: object, wanted: object) -> None:
    """Print a fact, and end if it is not the one that is wanted."""
    if found != wanted:
        raise SystemExit(f"{what}: {found!r}, not {wanted!r}")
    print(f"{what}: {found}")


@contextlib.contextmanager
def storage() -> Iterator[Podman]:
    """A storage that is gone at the end, with its containers."""
    with tempfile.TemporaryDirectory(prefix="zmesh-image-", dir="/var/tmp") as folder:
        podman = Podman(folder)
        try:
            yield podman
        finally:
            podman("rm", "--all", "--force")
            podman("rmi", "--all", "--force")


def main() -> int:
    """Build and check."""
    parser = argparse.ArgumentParser(prog="python tests/setup/image.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--base", metavar="FOLDER", help="a root file system for the base image")
    parser.add_argument("--mount", metavar="FOLDER", action="append", default=[], help="show a folder to the build")
    options = parser.parse_args()
    with storage() as podman:
        if options.base:
            podman.import_base(options.base)
        volumes = [f"--volume={folder}:{folder}:ro" for folder in options.mount]
        words = ["--isolation=chroot", "--format=docker", "--layers=false", *volumes, "--tag=zmesh", str(ROOT)]
        podman("build", "--pull=never" if options.base else "--pull", *words)
        check(podman)
    print("the image is as docs/guides/service.md says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
