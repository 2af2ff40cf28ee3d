"""What docs/compatibility.md promises is as it was.

`python tests/docs/test_compatibility.py` writes public_api.txt anew, with what is promised from the next release on.
"""

import configparser
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import zmesh
import zmesh.sync
from zmesh import files, jobs, remote, requests, serving
from zmesh.core import wire

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")
OPTIONS = (files, jobs, remote, requests, serving)
"""The packages with keyword arguments of methods."""
GOLDEN = Path(__file__).parent / "public_api.txt"


def public_api() -> Iterator[str]:
    """The public names, and the parameters of the methods that programs call, a line each."""
    yield from (f"zmesh.{name}" for name in zmesh.__all__)
    for kind in (zmesh.Controller, zmesh.sync.Controller):
        for name, method in inspect.getmembers(kind):
            if name.startswith("_"):
                continue
            parameters = ""
            if callable(method):
                parameters = f"({', '.join(parameters_of(method))})"
            yield f"{kind.__module__.removesuffix('.controller')}.Controller.{name}{parameters}"


def parameters_of(method: Callable[..., object]) -> Iterator[str]:
    """Their names, with those of the TypedDict that the keyword arguments are unpacked from."""
    for name, parameter in inspect.signature(method).parameters.items():
        unpacked = re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation))
        if unpacked and unpacked[1] != "Settings":  # which is for type checkers alone, and has a page of its own
            (options,) = (getattr(module, unpacked[1]) for module in OPTIONS if hasattr(module, unpacked[1]))
            yield from options.__annotations__
        elif name != "self":
            yield name


def test_no_public_name_or_parameter_is_gone() -> None:
    known, found = GOLDEN.read_text(encoding="utf-8").splitlines(), list(public_api())
    gone = [line for line in known if line not in found]
    assert gone == [], "what programs use is gone, or has other parameters; see docs/compatibility.md"


def test_the_page_has_the_exit_codes() -> None:
    from zmesh_cli import exit_codes

    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    (row,) = re.findall(r"^\| exit codes \| (.*?) mean", PAGE, re.M)
    assert {int(number) for number in re.findall(r"\d+", row)} == codes


def test_the_page_has_the_versions_of_the_wire_and_of_python() -> None:
    assert f"(now {wire.LOWEST_VERSION} and {wire.VERSION})" in PAGE
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    versions = re.findall(r":: (3\.\d+)$", setup["metadata"]["classifiers"], re.M)
    assert f"security fixes: {', '.join(versions[:-1])} and {versions[-1]}." in PAGE


if __name__ == "__main__":
    GOLDEN.write_text("".join(f"{line}\n" for line in public_api()), encoding="utf-8")
