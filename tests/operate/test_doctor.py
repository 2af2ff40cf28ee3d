"""What an examination of a node finds: pure checks first, then nodes with something wrong."""

import os

import pytest

import zmesh
import zmesh.sync
from zmesh.operate import machine_checks
from zmesh.operate.diagnosis import Check, Diagnosis, compared
from zmesh.operate.examiner import KEPT
from zmesh.operate.machine_checks import LEAST_BYTES_PER_SECOND, LEAST_MTU, clocks, encryption, folder, mtu, versions
from zmesh.operate.process import process_status
from zmesh.operate.warnings import SKEW, SLOW_RTT
from zmesh.testing import Mesh

WITHIN = 60.0
ALL = {
    "identity", "clock", "peers", "dns", "version", "spool", "encryption", "descriptors", "mtu", "links",
    "duplicate_id", "memory", "work", "loop",
}  # fmt: skip


def wrong(diagnosis):
    return [(check.code, check.text) for check in diagnosis.checks if not check.ok]


# --- one check after the other ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skews", "blamed"),
    [
        ({}, []),
        ({"b": SKEW - 1, "c": -SKEW + 1}, []),
        ({"b": SKEW + 1}, ["b"]),
        ({"b": 90.0, "c": 0.0}, ["b"]),
        ({"b": 90.0, "c": 91.0}, ["a"]),
        ({"b": -90.0, "c": -91.0, "d": -90.0}, ["a"]),
        ({"b": -90.0, "c": 90.0}, ["b", "c"]),
    ],
)
def test_the_clock_is_blamed_that_differs_from_most(skews, blamed):
    checks = list(clocks("a", skews))
    assert [check.ok for check in checks] == ([False] * len(blamed) or [True])
    assert [check.remedy for check in checks if not check.ok] == [
        f"at {node}: sudo timedatectl set-ntp true" for node in blamed
    ]


def test_versions_that_differ_name_the_older_ones():
    assert versions("a", "0.2.0", {"b": "0.2.0"}).ok
    older = versions("a", "0.10.0", {"b": "0.9.1", "c": "0.10.0"})
    assert (older.ok, older.remedy) == (False, "pip install --upgrade zmesh-mq at b")
    assert versions("a", "0.9.0", {"b": "0.10.0"}).remedy == "pip install --upgrade zmesh-mq at a"


def test_slow_encryption_and_small_packets_are_named_at_their_limits():
    assert encryption(None, None).ok
    assert encryption(LEAST_BYTES_PER_SECOND, LEAST_BYTES_PER_SECOND).ok
    assert "CURVE makes 49 MB/s only" in encryption(LEAST_BYTES_PER_SECOND - 1e6, 1e9).text
    assert [check.ok for check in mtu({"10.0.0.7": LEAST_MTU})] == [True]
    assert [check.ok for check in mtu({"10.0.0.7": LEAST_MTU - 1, "10.0.0.8": 1500})] == [False]
    assert [check.ok for check in mtu({})] == [True]


def test_few_descriptors_are_named():
    process = process_status()
    assert not machine_checks.descriptors(zmesh.ProcessStatus(**_fields(process, descriptor_limit=256))).ok
    assert machine_checks.descriptors(zmesh.ProcessStatus(**_fields(process, descriptor_limit=None))).ok


def _fields(process, **others):
    return {name: getattr(process, name) for name in process.__dataclass_fields__} | others


def test_a_folder_that_is_missing_or_can_not_be_written_is_named_with_what_mends_it(tmp_path):
    assert folder("spool", "spool folder", str(tmp_path), "").ok
    missing = folder("spool", "spool folder", f"{tmp_path}/none", "set spool_dir")
    assert (missing.ok, missing.remedy) == (False, f"mkdir -p {tmp_path}/none; or set spool_dir")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/proc/sys"), reason="there is no /proc")
def test_a_folder_that_takes_no_files_is_named():
    assert not folder("spool", "spool folder", "/proc/sys", "set spool_dir").ok


def test_keys_that_others_can_read_are_named(tmp_path):
    (tmp_path / "authority").mkdir()
    for name in ("identity.key", "authority/authority.key"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o600)
    tmp_path.chmod(0o700)
    assert list(machine_checks.secrets(tmp_path)) == []
    (tmp_path / "authority/authority.key").chmod(0o640)
    tmp_path.chmod(0o770)
    assert [check.remedy for check in machine_checks.secrets(tmp_path)] == [
        f"chmod go-w {tmp_path}",
        f"chmod 600 {tmp_path}/authority/authority.key",
    ]


def test_every_warning_of_a_status_has_a_remedy():
    import re
    from pathlib import Path

    from zmesh.operate import warnings

    codes = set(re.findall(r'yield "(\w+)"', Path(warnings.__file__).read_text()))
    assert codes == {*machine_checks._REMEDIES, "clock_skew"}


def test_a_clock_is_compared_with_the_one_of_who_asks():
    well = Check("clock", True, "no neighbour to compare with")
    diagnosis = Diagnosis("a", "1", 1000.0, (well,))
    assert compared(diagnosis, 1000.0 + SKEW - 1) is diagnosis
    found = compared(diagnosis, 1000.0 + 90)
    assert (found.ok, found.checks[0].text) == (False, "the clock of a is 90 s behind the one here")
    wrong = Diagnosis("a", "1", 1000.0, (Check("clock", False, "known"),))
    assert compared(wrong, 2000.0) is wrong


# --- nodes ------------------------------------------------------------------------------------------------------------


async def test_a_node_that_is_well_says_so_of_everything(tmp_path, eventually):
    async with Mesh.chain("a", "b", "c", tcp=True, spool_dir=str(tmp_path)) as mesh:
        await eventually(lambda: all(link.rtt < SLOW_RTT for link in mesh["c"].node.engine.links()))
        found = await mesh["a"].doctor("c", timeout=WITHIN)
        assert (found.node, found.version, wrong(found), found.ok) == ("c", zmesh.__version__, [], True)
        assert {check.code for check in found.checks} == ALL
        assert all(not check.remedy for check in found.checks)


async def test_peers_that_can_not_be_reached_are_named_with_their_reason(eventually, tmp_path):
    peers = ("tcp://127.0.0.1:1", "ipc://" + str(tmp_path / "none"))
    async with zmesh.Controller(node_id="a", peers=peers, spool_dir=str(tmp_path / "gone")) as mesh:
        await eventually(lambda: all(dial.tries for dial in mesh.node.transport.dials()))
        found = await mesh.doctor(timeout=WITHIN)
    texts = dict(wrong(found))
    assert set(texts) == {"peers", "spool"}
    first, *_ = (check for check in found.checks if check.code == "peers")
    assert first.text.startswith("can't reach tcp://127.0.0.1:1 for ")
    assert "connection refused" in first.text
    assert "zmesh node --listen tcp://127.0.0.1:1" in first.remedy
    assert texts["spool"].endswith("can not be written: no such file or directory")


async def test_many_who_ask_get_one_examination(tmp_path):
    async with Mesh("a", spool_dir=str(tmp_path)) as mesh:
        count = 0
        examiner = mesh["a"].node.components.inspection.examiner
        examine = examiner.examine

        async def counted():
            nonlocal count
            count += 1
            return await examine()

        examiner.examine = counted
        import asyncio

        answers = await asyncio.gather(*(mesh["a"].doctor(timeout=WITHIN) for _ in range(20)))
        assert {answer.checks for answer in answers} == {answers[0].checks}
        assert count == 1
        examiner._ended -= KEPT
        await mesh["a"].doctor(timeout=WITHIN)
        assert count == 2


async def test_who_may_not_ask_is_refused():
    async with Mesh.chain("a", "b", allow={"zmesh:doctor": ["nobody"]}) as mesh:
        with pytest.raises(zmesh.NotAllowed):
            await mesh["a"].doctor("b", timeout=WITHIN)


def test_a_program_without_asyncio_finds_what_is_wrong(tmp_path):
    with zmesh.sync.Controller(node_id="a", spool_dir=str(tmp_path / "gone")) as mesh:
        assert [code for code, _ in wrong(mesh.doctor(timeout=WITHIN))] == ["spool"]
