"""The authority's key in ssh-agent: OpenSSH's own, and one that answers with anything."""

import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import ConfigError
from zmesh.identity import Identity, IdentityKey, Issuer, Profile, State, fingerprint
from zmesh.identity.agent import MAX_MESSAGE, Agent, AgentError, AgentPrivateKey, read_keys, read_signature
from zmesh.identity.keys import is_signed, public_to_openssh

KEY = IdentityKey.from_seed(bytes(range(32)))


@pytest.fixture
def ssh_agent(tmp_path, monkeypatch):
    """The path of a running ssh-agent without keys; and `ssh-add` for it."""
    for program in ("ssh-agent", "ssh-add"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here (openssh-client)")
    path = f"{tmp_path}/agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE)
    monkeypatch.setenv("SSH_AUTH_SOCK", path)

    def add(key, *words):
        file = tmp_path / "key"
        file.write_bytes(key.to_openssh())
        file.chmod(0o600)
        subprocess.run(["ssh-add", "-q", *words, str(file)], check=True)
        file.unlink()

    try:
        assert path.encode() in process.stdout.readline(), "it listens"
        yield add
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def test_a_key_in_ssh_agent_is_found_and_signs(ssh_agent):
    agent = Agent.of_environment()
    assert agent.ed25519_keys() == []
    with pytest.raises(AgentError, match="refuses"):
        agent.sign(KEY.public, b"data")
    ssh_agent(KEY)
    assert [each.public for each in agent.ed25519_keys()] == [KEY.public]
    assert is_signed(KEY.public, agent.sign(KEY.public, b"data"), b"data")


def test_an_authority_whose_key_lies_in_ssh_agent_issues_revokes_and_hands_over(ssh_agent, tmp_path):
    state, now = State(tmp_path / "lab"), time.time()
    with pytest.raises(AgentError, match=r"ssh-agent does not have it; ssh-add it"):
        Issuer.create(state, "lab", now, agent_key=KEY.public)
    assert not (tmp_path / "lab").exists()
    ssh_agent(KEY)
    issuer, own = Issuer.create(state, "lab", now, agent_key=KEY.public), IdentityKey.generate()
    identity = Identity.create(
        state, Profile("lab", "hub"), own, issuer.issue(own.public, "hub", (), now), issuer.trust
    )
    assert identity.certificate.authority == KEY.public
    assert sorted(state.names("authority")) == ["1.pub", "current"], "no file holds the key"
    loaded = Issuer.load(identity)
    assert loaded.issue(own.public, "edge", ("gpu",), now).tags == ("gpu",)
    assert loaded.revoke("thief", now).is_valid
    following = IdentityKey.generate()
    ssh_agent(following)
    loaded.begin_rotation(now, agent_key=following.public)
    loaded.switch()
    assert Issuer.load(identity).public == following.public
    subprocess.run(["ssh-add", "-q", "-D"], check=True)
    with pytest.raises(
        ConfigError, match=rf"{re.escape(fingerprint(following.public)[:20])}.* is not in .*authority/2"
    ):
        Issuer.load(identity)


def test_a_file_of_a_key_may_be_moved_into_ssh_agent(ssh_agent, tmp_path):
    state, now, own = State(tmp_path / "lab"), time.time(), IdentityKey.generate()
    issuer = Issuer.create(state, "lab", now, "secret")
    identity = Identity.create(
        state, Profile("lab", "hub"), own, issuer.issue(own.public, "hub", (), now), issuer.trust
    )
    ssh_agent(issuer.key)
    (tmp_path / "lab/authority/1").unlink()
    assert Issuer.load(identity).issue(own.public, "edge", (), now).authority == issuer.public
    (tmp_path / "lab/authority/1.pub").unlink()
    with pytest.raises(ConfigError, match="is missing, and so is its public key"):
        Issuer.load(identity)


def test_without_an_agent_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(AgentError, match="SSH_AUTH_SOCK is not set"):
        Agent.of_environment()
    with pytest.raises(AgentError, match="can't be used: No such file"):
        Agent(f"{tmp_path}/none").ed25519_keys()


@pytest.fixture
def answering(tmp_path):
    """Agents that answer each message with the same bytes."""
    with contextlib.ExitStack() as stack:

        def make(answer):
            path = f"{tmp_path}/{len(list(tmp_path.iterdir()))}"
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen()

            def serve():
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = listener.accept()
                        with connection:
                            connection.recv(65536)
                            connection.sendall(answer)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(lambda: listener.shutdown(socket.SHUT_RDWR))
            return Agent(path)

        yield make


def string(data):
    return len(data).to_bytes(4, "big") + data


def signature_of(key, data):
    return string(b"\x0e" + string(string(b"ssh-ed25519") + string(key.sign(data))))


def test_a_signature_of_another_key_or_text_is_not_taken(answering):
    other = IdentityKey.generate()
    assert answering(signature_of(KEY, b"data")).sign(KEY.public, b"data")
    for answer in (signature_of(other, b"data"), signature_of(KEY, b"another")):
        with pytest.raises(AgentError, match="not that of SHA256:"):
            answering(answer).sign(KEY.public, b"data")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed the connection"),
        (b"\0\0", "closed the connection"),
        (string(b""), "a message of 0 bytes"),
        ((MAX_MESSAGE + 1).to_bytes(4, "big"), f"a message of {MAX_MESSAGE + 1} bytes"),
        (string(b"\x05"), "refuses"),
        (string(b"\x0e" + string(string(b"ssh-rsa") + string(bytes(64)))), "of another kind than Ed25519"),
        (string(b"\x0e\0\0\0\x09"), "cut off"),
    ],
)
def test_an_answer_that_is_none_is_one_error(answering, answer, said):
    with pytest.raises(AgentError, match=said):
        answering(answer).sign(KEY.public, b"data")


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x0c", b"\x0e", b"\x0c\0\0\0\x01"]))
def test_garbage_raises_errors_of_the_agent_alone(data, start):
    for read in (read_keys, read_signature):
        with contextlib.suppress(AgentError):
            read(start + data)


def test_the_private_half_is_given_to_nobody(ssh_agent):
    ssh_agent(KEY)
    key = IdentityKey(AgentPrivateKey(Agent.of_environment(), KEY.public))
    assert key.public == KEY.public
    assert public_to_openssh(key.public) == public_to_openssh(KEY.public)
    with pytest.raises(AgentError, match="can't be read"):
        key.to_openssh()
