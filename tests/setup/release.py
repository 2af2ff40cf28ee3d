"""What `make dist` does: build a release, check it, and try it in bare environments.

    python tests/setup/release.py

builds the sdist and the wheel into dist/, has twine look at both, compares them with setup.cfg and the packages here,
installs each in an environment of its own and the wheel with pipx, asks `zmesh --version` there, and writes the text of
the release, which is the section of CHANGELOG.md, to dist/RELEASE.md. It publishes nothing.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"


def version() -> str:
    """The version, which stands in zmesh/version.py alone."""
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "zmesh/version.py").read_text(encoding="utf-8"), re.M)
    assert found is not None
    return found[1]


def release_text(changelog: str, version: str) -> str:
    """The section of a version, without its heading; for one that has none yet that of what is unreleased."""
    sections = re.split(r"^## \[(.+?)\].*$", changelog, flags=re.M)
    by_name = dict(zip(sections[1::2], sections[2::2], strict=True))
    text = by_name.get(version, by_name.get("Unreleased", "")).strip()
    if not text:
        raise SystemExit(f"CHANGELOG.md says nothing about {version}")
    return text + "\n"


def settings() -> configparser.ConfigParser:
    """setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return setup


def data_files() -> dict[str, str]:
    """The files beside the modules of the packages: their names in the sdist by those in the wheel."""
    found = {}
    for package in settings()["options"]["packages"].split():
        here = "cli" if package == "zmesh_cli" else package.replace(".", "/")
        for path in (ROOT / here).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                name = path.relative_to(ROOT).as_posix()
                found[package.replace(".", "/") + name.removeprefix(here)] = name
    return found


def missing_in_sdist(sdist: Path) -> list[str]:
    """The files of the packages that an sdist lacks, though the wheel that is built from it needs them."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    return [f"{name} is missing" for name in sorted(data_files().values()) if name not in names]


def complaints(wheel: Path) -> list[str]:
    """What is wrong with the contents of a wheel."""
    setup = settings()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    files = {name.rpartition("/")[0].replace("/", ".") for name in names}
    folders = {name.rpartition("/")[0].replace("/", ".") for name in names if name.endswith(".py")}
    packages = set(setup["options"]["packages"].split())
    info = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    found = [f"{package} is missing" for package in sorted(packages - files)]
    found += [f"{folder} does not belong there" for folder in sorted(folders - packages)]
    found += [f"{name} is missing" for name in sorted(data_files()) if name not in names]
    found += [f"{name} does not belong there" for name in names if re.match(r"(tests|docs|benchmarks)/", name)]
    for needed in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        if not any(f"{folder}/{needed}" in names for folder in info):
            found.append(f"{needed} is missing")
    return found


def run(*words: str | Path, **variables: str) -> str:
    """Run a program with more variables of the environment; what it prints. Ends this one if it fails."""
    line, environment = [str(word) for word in words], {**os.environ, **variables}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} has failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def try_out(package: Path) -> None:
    """Install a package in a bare environment, and ask for its version there."""
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "venv", folder)
        run(f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package)
        expect(run(f"{folder}/bin/zmesh", "--version"), package)


def run_with_pipx(wheel: Path) -> str:
    """What `zmesh --version` prints where pipx runs it from a wheel, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        words = (sys.executable, "-m", "pipx", "run", "--spec", wheel, "zmesh", "--version")
        return run(*words, PIPX_HOME=folder)


def expect(answer: str, package: Path) -> None:
    """Raise SystemExit unless that is the version."""
    if answer.strip() != f"zmesh {version()}":
        raise SystemExit(f"{package.name} is {answer.strip()!r}, and not zmesh {version()}")


def main() -> None:
    """Build and check."""
    text = release_text((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version())
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    for package, wrong in ((wheel, complaints(wheel)), (sdist, missing_in_sdist(sdist))):
        if wrong:
            raise SystemExit(f"{package.name}: {'; '.join(wrong)}")
    for package in (wheel, sdist):
        try_out(package)
    expect(run_with_pipx(wheel), wheel)
    (DIST / "RELEASE.md").write_text(text, encoding="utf-8")
    print(f"{wheel.name} and {sdist.name} are in dist/, with the text of the release in RELEASE.md")


if __name__ == "__main__":
    main()
