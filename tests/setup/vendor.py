"""Fetches the libraries that the dashboard's pages use from npm, each of the version and content given here.

    python tests/setup/vendor.py            replace the files in zmesh/dashboard/static/vendor
    python tests/setup/vendor.py --check    compare them with what is there, and change nothing

A new version: change it in PACKAGES, with the `dist.integrity` that `npm view NAME@VERSION` shows.
"""

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[2] / "zmesh/dashboard/static/vendor"
PACKAGES = {
    "d3@7.9.0": (
        "sha512-e1U46jVP+w7Iut8Jt8ri1YsPOvFpg46k+K8TpCb0P+zjCkjkPnV7WzfDJzMHy1LnA+wj5pLT1wjO901gLXeEhA==",
        {"dist/d3.min.js": "d3.min.js", "LICENSE": "d3.LICENSE"},
    ),
    "uplot@1.6.32": (
        "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        {
            "dist/uPlot.iife.min.js": "uPlot.iife.min.js",
            "dist/uPlot.min.css": "uPlot.min.css",
            "LICENSE": "uPlot.LICENSE",
        },
    ),
}
"""Of each package: the SHA-512 of its archive, and its files by the names that they have here."""


def files_of(package: str, integrity: str, wanted: dict[str, str]) -> dict[str, bytes]:
    """The files of a package. Exits where its content is not the one that is expected."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", package, "--silent", "--pack-destination", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).iterdir()
        content = archive.read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != integrity:
        sys.exit(f"{package} is {found}, not {integrity}")
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as members:
        for path, name in wanted.items():
            member = members.extractfile(f"package/{path}")
            assert member is not None
            files[name] = member.read()
    return files


def main() -> int:
    """Replace the files, or compare them."""
    files: dict[str, bytes] = {}
    for package, (integrity, wanted) in PACKAGES.items():
        files |= files_of(package, integrity, wanted)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    files["vendor.json"] = f"{json.dumps({'packages': list(PACKAGES), 'sha256': hashes}, indent=2)}\n".encode()
    if "--check" in sys.argv:
        wrong = [name for name, content in files.items() if (VENDOR / name).read_bytes() != content]
        print("\n".join(f"{name} differs" for name in wrong) or "all files are those of the packages")
        return len(wrong) > 0
    for name, content in files.items():
        (VENDOR / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
