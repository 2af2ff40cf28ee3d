"""`zmesh bundle`: a file for a bug report, and what it says of what is missing in it."""

import json
import tarfile
from typing import Any

from zmesh.testing import load_bundle


def test_a_bundle_of_all_nodes_is_a_mesh_for_the_simulator(mesh: Any) -> None:
    file = mesh.folder / "report.tar.gz"
    done = mesh.run("bundle", "-o", str(file), "--no-doctor")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().startswith(f"{file}: ")
    assert b"without the settings of" in done.stderr
    assert b'[allow] "zmesh:settings" = ' in done.stderr
    sim = load_bundle(file)
    assert sim.settle()
    listed = mesh.run("nodes", "--json").stdout.splitlines()
    assert sorted(sim.nodes) == sorted(json.loads(line)["node"] for line in listed)


def test_what_is_missing_is_named_and_json_has_the_summary(mesh: Any) -> None:
    file = mesh.folder / "report.tar.gz"
    done = mesh.run("bundle", "far,nobody", "-o", str(file), "--no-doctor", "--timeout", "10", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["schema"], shown["nodes"], list(shown["missing"])) == ("zmesh.bundle/1", ["far"], ["nobody"])
    assert b"zmesh: without node 'nobody': " in done.stderr
    with tarfile.open(file) as archive:
        assert archive.getnames() == ["nodes/far.json", "bundle.json"]


def test_mistakes_are_one_line_and_leave_no_file(mesh: Any) -> None:
    before = sorted(mesh.folder.iterdir())
    for words, code, text in [
        (("no target",), 2, b"is no target"),
        (("-o", "/nowhere/x"), 1, b"can't write the file '/nowhere/x': No such file or directory"),
        (("-o", "/"), 2, b"can't write the file '/': Is a directory"),
        (("nobody", "--timeout", "10", "-o", str(mesh.folder / "x")), 3, b"no node of 'nobody' has answered"),
    ]:
        done = mesh.run("bundle", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
        assert text in done.stderr
    assert [path for path in sorted(mesh.folder.iterdir()) if path not in before] == []
