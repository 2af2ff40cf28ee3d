"""Contexts: which state a command uses, and where it lies."""

import os
import sys
from pathlib import Path

import pytest

from zmesh.errors import ConfigError
from zmesh.identity.contexts import Contexts, default_folder, named_folder, user_folder


@pytest.fixture
def contexts(tmp_path):
    for name in ("lab", "prod"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mesh.json").write_text("{}")
    (tmp_path / "unfinished").mkdir()
    return Contexts(tmp_path)


def test_a_context_is_a_folder_with_an_identity(contexts):
    assert contexts.names() == ["lab", "prod"]
    assert contexts.current is None
    assert contexts.current_folder() is None
    contexts.use("lab")
    assert contexts.current == "lab"
    assert contexts.current_folder() == contexts.folder / "lab"


def test_one_that_is_not_there_can_not_be_used_or_removed(contexts):
    for call in (contexts.use, contexts.remove):
        with pytest.raises(ConfigError, match=r"no context is called 'prd' \(did you mean 'prod'\?\)"):
            call("prd")
        with pytest.raises(ConfigError, match="there are lab, prod"):
            call("xyz")


def test_a_removed_context_is_the_current_one_no_more(contexts):
    contexts.use("lab")
    contexts.remove("prod")
    assert contexts.current == "lab"
    contexts.remove("lab")
    assert contexts.current is None
    assert contexts.names() == []


@pytest.mark.parametrize("name", ["", ".", "..", "../lab", "a/b", "context", "a b"])
def test_a_name_is_one_folder(contexts, name):
    with pytest.raises(ConfigError, match="is no name of a context"):
        contexts.folder_of(name)


def test_a_file_that_names_nonsense_names_no_context(contexts):
    for text in (b"\xff", b"../../etc", b"unfinished", b""):
        (contexts.folder / "context").write_bytes(text)
        assert contexts.current is None


def test_the_environment_goes_before_contexts(contexts):
    assert named_folder({"ZMESH_STATE": "/a", "STATE_DIRECTORY": "/b"}) == Path("/a")
    assert named_folder({"STATE_DIRECTORY": "/b:/c"}) == Path("/b")
    assert named_folder({"ZMESH_STATE": "~/x"}) == Path.home() / "x"
    assert named_folder({}) is None
    place = contexts.folder.rename(contexts.folder.parent / "zmesh")
    Contexts(place).use("lab")
    assert default_folder({"XDG_CONFIG_HOME": str(place.parent)}) == place / "lab"
    assert default_folder({"XDG_CONFIG_HOME": str(place.parent), "ZMESH_STATE": "/a"}) == Path("/a")
    assert default_folder({"XDG_CONFIG_HOME": str(place / "nowhere")}) is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere platformdirs is asked itself")
@pytest.mark.parametrize("base", ["/somewhere", "", "relative"])
def test_the_folder_of_the_user_is_where_platformdirs_says(monkeypatch, base):
    import platformdirs

    monkeypatch.setenv("XDG_CONFIG_HOME", base)
    if os.path.isabs(base) or not base:
        assert user_folder() == Path(platformdirs.user_config_dir("zmesh", appauthor=False))
    else:
        assert user_folder() == Path.home() / ".config" / "zmesh"  # the specification has relative paths ignored
