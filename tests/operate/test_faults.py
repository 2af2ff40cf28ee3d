"""The faults of the prepared mesh are found by `zmesh doctor`, which says what mends them."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.operate.faulty_mesh import FAULTS, MAY_MOUNT, FaultyMesh, faulty_mesh
from tests.waiting import WITHIN


@pytest.fixture(scope="module")
def mesh() -> Iterator[FaultyMesh]:
    with faulty_mesh(*FAULTS) as mesh:
        yield mesh


def wrong(mesh: FaultyMesh, node: str, code: str) -> list[dict[str, Any]]:
    """What doctor finds wrong with a node, of one kind; until it has found something, as a mesh needs to form."""
    until = time.monotonic() + WITHIN
    while True:
        done = mesh.zmesh("doctor", node, "--json")
        found = json.loads(done.stdout) if done.stdout else {"checks": []}
        wrong = [check for check in found["checks"] if not check["ok"] and check["code"] == code]
        if wrong or time.monotonic() > until:
            assert done.returncode == 1, done.stderr
            return wrong


@pytest.mark.parametrize("node", ["late", "hub"])
def test_a_wrong_clock_is_found_at_the_node_and_at_its_neighbour(mesh: FaultyMesh, node: str) -> None:
    (clock,) = wrong(mesh, node, "clock")
    if node == "hub":
        assert clock["text"].startswith("the clock of late is ")
        assert clock["remedy"] == "at late: sudo timedatectl set-ntp true"
    else:
        assert clock["text"].startswith("the clock of hub is ")
        assert "timedatectl set-ntp true" in clock["remedy"]


def test_a_certificate_that_expires_is_found_with_what_would_renew_it(mesh: FaultyMesh) -> None:
    (identity,) = wrong(mesh, "old", "identity")
    assert identity["text"].startswith("the certificate expires in ")
    assert "where 'zmesh init' was run" in identity["remedy"]


@pytest.mark.skipif(not MAY_MOUNT, reason="this user may mount no disk")
def test_a_full_disk_is_found(mesh: FaultyMesh) -> None:
    (spool,) = wrong(mesh, "full", "spool")
    assert spool["text"] == f"the spool folder {mesh.folder}/disk is full"
    assert spool["remedy"].startswith(f"free room: du -xh {mesh.folder}/disk")


def test_what_is_wrong_comes_first_for_people_and_quiet_says_nothing(mesh: FaultyMesh) -> None:
    wrong(mesh, "old", "identity")
    done = mesh.zmesh("doctor", "old")
    first, second, *_ = lines = done.stdout.decode().splitlines()
    found = [
        line for line in lines if line.startswith("  ! ")
    ]  # on a busy machine, that its event loop is late as well
    assert first == ("old: 1 thing to mend" if found == [second] else f"old: {len(found)} things to mend")
    assert any(line.startswith("  ! the certificate expires in ") for line in found)
    assert "\n    -> start the node where 'zmesh init' was run" in done.stdout.decode()
    done = mesh.zmesh("doctor", "old", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
