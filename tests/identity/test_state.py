"""The folder of a node's identity: whole files or none, and secrets for their user alone."""

import errno
import os

import pytest

from zmesh.errors import ConfigError
from zmesh.identity.state import State


@pytest.fixture
def state(tmp_path):
    return State(tmp_path / "deep" / "state")


def test_a_file_is_read_as_it_was_written(state):
    assert state.read("mesh.json") is None
    assert "mesh.json" not in state
    state.write("mesh.json", b"{}")
    state.write("invites/a", b"1")
    assert state.read("mesh.json") == b"{}"
    assert state.names("invites") == ["a"]
    assert state.names("nothing") == []
    assert state.remove("mesh.json")
    assert not state.remove("mesh.json")


def test_a_secret_is_for_its_user_alone(state):
    state.write("identity", b"secret", secret=True)
    path = state.folder / "identity"
    assert path.stat().st_mode & 0o777 == 0o600
    assert state.folder.stat().st_mode & 0o777 == 0o700
    assert state.read_secret("identity") == b"secret"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        state.read_secret("identity")
    assert state.read_secret("nothing") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write what another user owns")
def test_what_root_writes_belongs_to_the_owner_of_the_folder_but_nothing_that_was_there_before(state, tmp_path):
    other = tmp_path / "of-root"
    other.write_text("")
    state.write("mesh.json", b"{}")
    os.chown(state.folder, 12345, 12346)
    state.write("invites.json", b"{}", secret=True)
    state.write("authority/1", b"1", secret=True)
    with state.locked():
        pass
    for name in ("invites.json", "authority", "authority/1", ".lock"):
        status = (state.folder / name).stat()
        assert (status.st_uid, status.st_gid) == (12345, 12346), name
    (state.folder / ".lock").unlink()
    (state.folder / ".lock").symlink_to(other)
    with state.locked():
        pass
    assert (state.folder / "mesh.json").stat().st_uid == other.stat().st_uid == 0


def test_a_second_one_is_not_written_over(state):
    state.create("authority", b"first", secret=True)
    with pytest.raises(ConfigError, match="is there already, and is not overwritten"):
        state.create("authority", b"second", secret=True)
    assert state.read("authority") == b"first"


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "the disk is read-only"), (errno.EIO, "error")],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_takes_nothing_is_said_and_changes_nothing(state, monkeypatch, call, number, said):
    state.write("mesh.json", b"before")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ConfigError, match=rf"{said}.*nothing was changed \(another folder: --state DIR\)"):
        state.write("mesh.json", b"after")
    monkeypatch.undo()
    assert state.read("mesh.json") == b"before"
    assert os.listdir(state.folder) == ["mesh.json"]


def test_a_folder_that_can_t_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be written"):
        State(tmp_path / "file" / "state").write("a", b"")
    with pytest.raises(ConfigError, match="can't be read"):
        State(tmp_path / "file").read("a")


def test_what_is_no_file_or_too_large_is_refused(state, monkeypatch):
    (state.folder / "folder").mkdir(parents=True)
    with pytest.raises(ConfigError):
        state.read("folder")
    monkeypatch.setattr("zmesh.identity.state.MAX_FILE", 3)
    state.write("large", b"1234")
    with pytest.raises(ConfigError, match="larger than 3 bytes"):
        state.read("large")


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/passwd"])
def test_a_name_does_not_lead_out_of_the_folder(state, name):
    with pytest.raises(ConfigError, match="is outside of"):
        state.write(name, b"")


def test_what_was_written_before_an_error_is_removed_again(state):
    for there in (False, True):
        if there:
            state.folder.mkdir(parents=True)
            (state.folder / "other").write_bytes(b"1")
        with pytest.raises(OSError, match="full"), state.all_or_nothing("a", "deep/b", "deep"):
            with state.locked():
                state.write("a", b"1")
            state.write("deep/b", b"1")
            raise OSError("full")
        left = [path.name for path in state.folder.rglob("*")] if there else state.folder.exists()
        assert left == (["other"] if there else False)


def test_a_state_that_another_process_keeps_locked_is_waited_for_so_long_and_no_longer(state, monkeypatch):
    monkeypatch.setattr("zmesh.identity.state.LOCKED_WITHIN", 0.2)
    with state.locked():
        with pytest.raises(ConfigError, match=r"another process has kept .*/\.lock locked for 0\.2 s; end it"):
            with state.locked():
                pass
    with state.locked():
        state.write("mesh.json", b"{}")
