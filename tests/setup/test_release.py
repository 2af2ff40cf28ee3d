"""What is released: the version stands once, the text comes from CHANGELOG.md, and the wheel has what it should."""

import configparser
import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import zmesh

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("release", Path(__file__).parent / "release.py")
assert SPEC is not None
assert SPEC.loader is not None
release = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(release)


def test_the_version_stands_once() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["version"] == "attr: zmesh.version.__version__"
    assert release.version() == zmesh.__version__


def test_the_text_of_a_release_is_its_section_of_the_changelog() -> None:
    changelog = "# Changelog\n\n## [Unreleased]\n\n- new\n\n## [1.0.0] - 2026-11-28\n\n### Added\n\n- old\n"
    assert release.release_text(changelog, "1.0.0") == "### Added\n\n- old\n"
    assert release.release_text(changelog, "1.1.0") == "- new\n"
    with pytest.raises(SystemExit, match=r"says nothing about 1\.1\.0"):
        release.release_text("## [Unreleased]\n\n## [1.0.0]\n\n- old\n", "1.1.0")
    assert release.release_text((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), zmesh.__version__)


def test_a_wheel_has_all_packages_and_nothing_else(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    done = subprocess.run([*line, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"zmesh_mq-{zmesh.__version__}-")
    assert release.complaints(wheel) == []
    script = "zmesh/dashboard/static/vendor/d3.min.js"
    cut = tmp_path / "cut.whl"
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(cut, "w") as archive:
        for name in whole.namelist():
            if name != script:
                archive.writestr(name, whole.read(name))
        archive.writestr("tests/test_x.py", "")
    assert release.complaints(cut) == [
        "tests does not belong there",
        f"{script} is missing",
        "tests/test_x.py does not belong there",
    ]


def test_an_sdist_has_the_files_that_the_packages_need(tmp_path: Path) -> None:
    names = list(release.data_files().values())
    assert {"zmesh/py.typed", "zmesh/dashboard/static/index.html"} < set(names)
    whole, cut = tmp_path / "whole.tar.gz", tmp_path / "cut.tar.gz"
    for path, kept in ((whole, names), (cut, names[1:])):
        with tarfile.open(path, "w:gz") as archive:
            for name in kept:
                archive.add(ROOT / name, f"zmesh_mq-1.0/{name}")
    assert release.missing_in_sdist(whole) == []
    assert release.missing_in_sdist(cut) == [f"{names[0]} is missing"]


def test_pipx_runs_the_command_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "tiny-9.9-py3-none-any.whl"
    metadata = {
        "METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 9.9\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": "[console_scripts]\nzmesh = tiny:main\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "def main():\n    print('zmesh 9.9')\n")
        for name, text in metadata.items():
            archive.writestr(f"tiny-9.9.dist-info/{name}", text)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIPX_DISABLE_SHARED_LIBS_AUTO_UPGRADE", "1")
    answer = release.run_with_pipx(wheel)
    assert answer == "zmesh 9.9\n"
    with pytest.raises(SystemExit, match=rf"{wheel.name} is 'zmesh 9\.9', and not zmesh {release.version()}"):
        release.expect(answer, wheel)
