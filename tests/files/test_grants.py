"""Copies from node to node: what is granted to one node is read by that node alone, while the client is there."""

from pathlib import Path

import pytest

from zmesh.errors import Cancelled, NotAllowed
from zmesh.files.grants import Grant, Grants
from zmesh.files.records import Kind, record
from zmesh.files.session import GRANTED, READ, session
from zmesh.remote import pack
from zmesh.testing import Mesh


def test_a_token_is_for_one_node_and_for_as_long_as_it_is_given() -> None:
    grants, grant = Grants(), Grant("mid", (b"/a",), False, "desk")
    with grants.given(grant) as token:
        assert grants.find(token, "mid") is grant
        for wrong, reader in ((token, "edge"), (b"", "mid"), (None, "mid"), ("text", "mid")):
            with pytest.raises(NotAllowed):
                grants.find(wrong, reader)
    with pytest.raises(NotAllowed):
        grants.find(token, "mid")


async def test_each_node_decides_by_its_own_permissions_what_the_client_may(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"secret")
    async with Mesh("desk", "mid") as mesh:
        await mesh.add("edge", "mid", allow={"file:read": ["desk"]})
        await mesh.add("store", "mid", allow={"file:write": ["desk"]})
        await mesh.connect("desk", "mid")
        await mesh.settle()
        await mesh["desk"].copy(f"edge:{tmp_path}/source", f"store:{tmp_path}/there")
        assert (tmp_path / "there").read_bytes() == b"secret"
        with pytest.raises(NotAllowed, match=r"node 'store' does not let 'desk' call file:read"):
            await mesh["desk"].copy(f"store:{tmp_path}/source", f"edge:{tmp_path}/other")
        with pytest.raises(NotAllowed, match=r"node 'edge' does not let 'mid' call file:read"):
            await mesh["mid"].copy(f"edge:{tmp_path}/source", f"store:{tmp_path}/other")
        with pytest.raises(NotAllowed, match=r"node 'edge' does not let 'desk' call file:write"):
            await mesh["desk"].copy(f"edge:{tmp_path}/source", f"edge:{tmp_path}/other")
        assert not (tmp_path / "other").exists()


async def test_nobody_but_the_reader_can_use_a_token(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"secret")
    async with Mesh.chain("desk", "mid", "edge", allow={"file:read": ["desk"]}) as mesh:
        start = {"paths": [bytes(tmp_path / "source")], "reader": "mid"}
        async with session(mesh["desk"].stream, "edge", READ, start, None) as (records, _):
            granted = await records.next()
            assert granted is not None
            assert granted.kind == Kind.GRANT
            for node in ("desk", "edge"):
                with pytest.raises(NotAllowed, match="nothing is granted"):
                    async with session(mesh[node].stream, "edge", GRANTED, {"token": granted.body}, None):
                        raise AssertionError
            token = {"token": granted.body}
            with pytest.raises(Cancelled):
                async with session(mesh["mid"].stream, "edge", GRANTED, token, None) as (reading, replies):
                    entry = await reading.next()
                    assert entry is not None
                    assert entry.kind == Kind.ENTRY
                    replies.cancel()
        with pytest.raises(NotAllowed, match="not any more"):
            async with session(mesh["mid"].stream, "edge", GRANTED, {"token": granted.body}, None):
                raise AssertionError


async def test_a_write_from_another_node_needs_a_node_and_a_token(tmp_path: Path) -> None:
    async with Mesh.chain("desk", "edge", allow={"file:write": ["desk"]}) as mesh:
        for source in ({}, {"node": "desk"}, {"node": "no node", "token": b""}, {"node": "desk", "token": "text"}, 7):
            begin = record(Kind.START, pack({"path": bytes(tmp_path), "from": source}))
            with pytest.raises(Exception, match="from must be a table"):
                await mesh["desk"].request("edge", "file:write", begin)
