"""The files of the page: the libraries that come with it, and what they may not do."""

import hashlib
import json
import re
from importlib.resources import files

import pytest

STATIC = files("zmesh.dashboard") / "static"
MODULES = [each.name for each in STATIC.iterdir() if each.name.endswith(".js")]


def test_each_library_is_the_file_of_its_package_and_has_its_licence():
    vendor = STATIC / "vendor"
    hashes = json.loads((vendor / "vendor.json").read_text())["sha256"]
    assert {each.name for each in vendor.iterdir()} == {*hashes, "vendor.json"}
    for name, expected in hashes.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == expected
    assert {"d3.LICENSE", "uPlot.LICENSE"} <= set(hashes)


@pytest.mark.parametrize("name", [*MODULES, "index.html", "style.css"])
def test_the_page_names_no_other_host_and_has_no_script_or_style_inline(name):
    text = (STATIC / name).read_text()
    assert not re.search(r"(?:https?:)?//\w+\.\w+", text.replace("http://www.w3.org/2000/svg", ""))
    assert not re.search(
        r"\bstyle=|<style|\bon\w+=\"|javascript:|\beval\(|new Function|\.innerHTML =(?!=)|insertAdjacentHTML", text
    )


@pytest.mark.parametrize("name", MODULES)
def test_every_module_that_is_imported_is_there(name):
    for other in re.findall(r'from "\./([^"]+)"', (STATIC / name).read_text()):
        assert (STATIC / other).is_file()
