"""What is released: the version stands once, the text comes from CHANGELOG.md, and the wheel has what it should."""

import configparser
import importlib.util
import subprocess
import sys
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
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tests/test_x.py", "")
    assert release.complaints(wheel) == ["tests does not belong there", "tests/test_x.py does not belong there"]
