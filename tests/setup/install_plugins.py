"""Installs the plugin packages of tests/guide/plugins into the environment of this interpreter, as a user would.

They are built with the setuptools of this environment, from a copy, so that nothing is fetched for it and no build
folder stays behind in the tree.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PLUGINS = Path(__file__).parents[1] / "guide" / "plugins"
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
AS_THEY_ARE = ["--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall"]


def main() -> int:
    """Install them all, and tell how that went as an exit code."""
    if not PLUGINS.is_dir():
        return 0  # the tests that want them will say so
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(PLUGINS, Path(folder, "plugins"))
        packages = sorted({path.parent for name in ("setup.py", "pyproject.toml") for path in copy.glob(f"*/{name}")})
        return subprocess.call([*PIP, *AS_THEY_ARE, *packages])


if __name__ == "__main__":
    sys.exit(main())
