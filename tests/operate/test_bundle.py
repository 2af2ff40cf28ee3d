"""The state of nodes in a file: what is in it, what is missing, what is never in it, and its bounds."""

import gzip
import io
import json
import re
import resource
import stat
import tarfile
from pathlib import Path

import pytest

import zmesh
import zmesh.sync
from zmesh.errors import ConfigError, Unreachable
from zmesh.operate import bundle_file, bundling, read_bundle
from zmesh.testing import Mesh

WITHIN = 60.0
ALLOWED = {"zmesh:settings": ["*"], "exec:*": ["*"]}


def texts(path: Path) -> dict[str, str]:
    """The files in the archive."""
    with tarfile.open(path) as archive:
        found = {entry.name: archive.extractfile(entry) for entry in archive}
        return {name: file.read().decode() for name, file in found.items() if file is not None}


async def test_it_has_the_state_of_each_node_and_the_versions_of_all(tmp_path, eventually):
    path = tmp_path / "report.tar.gz"
    async with Mesh.chain("a", "b", "c", tcp=True, allow=ALLOWED, tags=["gpu"]) as mesh:
        summary = await mesh["a"].bundle(path, timeout=WITHIN)
        assert (summary.nodes, summary.at, dict(summary.missing), dict(summary.incomplete)) == (
            ("a", "b", "c"),
            "a",
            {},
            {},
        )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {"zmesh", "python", "libzmq", "pyzmq", "cryptography", "system"} <= summary.versions.keys()
    bundle = read_bundle(path)
    assert bundle.summary == summary
    for name, report in bundle.reports.items():
        assert (report.node, report.status.node, report.routes.node) == (name, name, name)
        assert report.status.version == zmesh.__version__
        assert [member.node for member in report.members.members] == ["a", "b", "c"]
        assert [(link.a, link.b) for link in report.graph.links] == [("a", "b"), ("b", "c")]
        assert {row.destination for row in report.routes.routes} == {"a", "b", "c"} - {name}
        assert "peers" in {check.code for check in report.diagnosis.checks}
        assert "node_started" in {event.kind for event in report.events}
        shown = {setting.name: setting for setting in report.settings.settings}
        assert (shown["node_id"].value, shown["tags"].value, shown["heartbeat"].value) == (name, ["gpu"], 1.0)
        assert report.settings.versions == summary.versions
    schemas = {name: json.loads(text)["schema"] for name, text in texts(path).items()}
    assert schemas == {
        "bundle.json": "zmesh.bundle/1",
        **{f"nodes/{node}.json": "zmesh.bundle-node/1" for node in "abc"},
    }


async def test_what_a_node_does_not_show_and_which_nodes_do_not_answer_is_said(tmp_path, eventually):
    path = tmp_path / "report.tar.gz"
    async with Mesh.star("hub", "shy", "gone", tcp=True, route_timeout=1.0) as mesh:
        hub = mesh["hub"]
        await mesh.remove("gone")
        await eventually(lambda: hub.node.router.get_nodes() == ["hub", "shy"])
        summary = await hub.bundle(path, timeout=WITHIN, examine=False)
        assert summary.nodes == ("hub", "shy")
        assert re.fullmatch(r"it left \S+ s ago", summary.missing["gone"])
        (reason,) = summary.incomplete["shy"].values()
        assert 'configuration would, with [allow] "zmesh:settings" = ["hub"]' in reason
        assert (await hub.bundle(path, "shy,nobody", timeout=WITHIN, examine=False)).missing.keys() == {"nobody"}
        before = path.read_bytes()
        with pytest.raises(Unreachable, match=r"no node of 'gone' has answered: gone: it left"):
            await hub.bundle(path, "gone")
        with pytest.raises(ConfigError, match="is no target"):
            await hub.bundle(path, "no target")
        assert path.read_bytes() == before
    report = read_bundle(path).reports["shy"]
    assert report.settings is None
    assert report.status is not None
    assert [each.name for each in tmp_path.iterdir()] == ["report.tar.gz"]


async def test_more_nodes_than_a_bundle_takes_are_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(bundling, "MAX_NODES", 2)
    async with Mesh.chain("a", "b", "c") as mesh:
        with pytest.raises(ConfigError, match=r"'\*' stands for 3 nodes, where a bundle takes 2: name those .* a,b or"):
            await mesh["a"].bundle(tmp_path / "x")
        assert (await mesh["a"].bundle(tmp_path / "x", "a,b", examine=False)).nodes == ("a", "b")


async def test_a_node_whose_state_is_too_large_is_left_out_and_named(tmp_path, monkeypatch):
    async with Mesh.chain("a", "b") as mesh:
        monkeypatch.setattr(bundle_file, "MAX_NODE_BYTES", 100)
        with pytest.raises(Unreachable, match="does not fit into a bundle; name fewer nodes"):
            await mesh["a"].bundle(tmp_path / "x", examine=False)
        assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_not_there_and_a_full_disk_leave_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with Mesh("a") as mesh:
        with pytest.raises(FileNotFoundError):
            await mesh["a"].bundle(tmp_path / "no" / "x")
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (256, limits[1]))
            with pytest.raises(OSError, match="File too large"):
                await mesh["a"].bundle(tmp_path / "x", examine=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(tmp_path.iterdir()) == []


SECRETS = [
    f"s3cr3t-{name}-0123456789" for name in ("proxy", "plugin", "nested", "dsn", "payload", "meta", "arg", "env")
]
TICKET = "zm1" + "QUJD" * 12


async def test_no_secret_is_in_it_wherever_it_was_planted(tmp_path, eventually, monkeypatch):
    proxy, plugin, nested, dsn, payload, meta, argument, variable = SECRETS
    monkeypatch.setenv("PLANTED", variable)
    path = tmp_path / "report.tar.gz"
    tables = {"http": {"token": plugin, "deep": [{"password": nested}], "dsn": f"postgres://me:{dsn}@db/x"}}
    async with Mesh.chain("a", "b", tcp=True, allow=ALLOWED, insecure=True) as mesh:

        @mesh["b"].directive("text:fails")
        async def fails(work):
            raise ValueError(f"password={payload} and {TICKET}")

        mesh["b"].node.config = zmesh.Config(**{**_settings(mesh["b"].config), "plugins": tables})
        mesh["b"].add_peer(f"tcp://127.0.0.1:1?proxy=socks5://me:{proxy}@127.0.0.1:1")
        with pytest.raises(zmesh.MeshError):
            await mesh["a"].request("b", "text:fails", payload, metadata={"token": meta})
        with pytest.raises(zmesh.MeshError):
            await mesh["a"].request("b", f"exec:{TICKET}", argument)
        process = await mesh["a"].run("b", ["sh", "-c", f"true {argument}"], env={"TOKEN": variable})
        assert await process.wait() == 0
        await eventually(
            lambda: any(link.reason for link in mesh["b"].node.components.inspection.examiner._status().links)
        )
        summary = await mesh["a"].bundle(path, timeout=WITHIN)
        assert summary.nodes == ("a", "b")
        assert not summary.incomplete
    whole = "\n".join(texts(path).values())
    assert "tcp://127.0.0.1:1" in whole
    assert '"plugins.http.dsn"' in whole
    assert [secret for secret in [*SECRETS, TICKET] if secret in whole or secret.encode() in path.read_bytes()] == []


def _settings(config: zmesh.Config) -> dict[str, object]:
    return {"node_id": config.node_id, "identity": None, "listen": config.listen, "allow": config.allow}


def archive(*entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    """An archive of these files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as made:
        for name, data in entries:
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = len(data), kind
            made.addfile(entry, io.BytesIO(data))
    return file.getvalue()


HEAD = json.dumps({"time": 0.0, "at": "a", "nodes": [], "missing": {}, "incomplete": {}, "versions": {}}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        gzip.compress(b"text"),
        archive(),
        archive(("bundle.json", HEAD))[:80],
        archive(("bundle.json", b"[]")),
        archive(("bundle.json", b"\xff")),
        archive(("bundle.json", b"[" * 100_000)),
        archive(("bundle.json", HEAD), ("nodes/a.json", b"{}")),
        archive(("bundle.json", HEAD), ("nodes/a.json", b'{"node": 7}')),
        archive(("bundle.json", b""), kind=tarfile.SYMTYPE),
        archive(("bundle.json", HEAD), *((f"nodes/{number}.json", b"{}") for number in range(257))),
        archive(("bundle.json", HEAD), ("large", bytes(bundle_file.MAX_NODE_BYTES + 1))),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_a_file_that_is_no_bundle_is_a_value_error(data, tmp_path):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match=r"."):
        read_bundle(tmp_path / "x")
    (tmp_path / "x").write_bytes(archive(("bundle.json", HEAD)))
    assert read_bundle(tmp_path / "x").reports == {}


def test_programs_without_asyncio_write_one_too(tmp_path):
    with zmesh.sync.Controller(node_id="a", identity=None) as mesh:
        assert mesh.bundle(tmp_path / "x", examine=False).nodes == ("a",)
    assert read_bundle(tmp_path / "x").reports["a"].settings is not None
