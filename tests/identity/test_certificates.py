"""Certificates: made here and read by `ssh-keygen`, made there and read here, and refused for every reason."""

import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import SSHCertificateBuilder, SSHCertificateType
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import ConfigError
from zmesh.identity.certificates import MAX_CERTIFICATE, MAX_TAGS, issue, read_certificate
from zmesh.identity.keys import IdentityKey, fingerprint, public_to_openssh

CA = IdentityKey.from_seed(bytes(range(32)))
NODE = IdentityKey.from_seed(bytes(range(1, 33)))
needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
names = st.text("ABCxyz019._-", min_size=1, max_size=64)


def made(**changes):
    settings = {"node_id": "edge-7", "mesh": "lab", "serial": 5, "not_before": 1000, "not_after": 9000, **changes}
    return issue(CA, NODE.public, **settings)


@given(names, names, st.lists(names, max_size=5).map(tuple), st.integers(0, (1 << 64) - 1), st.integers(1, 1 << 40))
def test_a_certificate_says_what_it_was_made_for(node_id, mesh, tags, serial, length):
    times = {"not_before": 1000, "not_after": 1000 + length}
    certificate = issue(CA, NODE.public, node_id, mesh, tags=tags, serial=serial, **times)
    assert (certificate.node_id, certificate.mesh, certificate.tags) == (node_id, mesh, tags)
    assert (certificate.public, certificate.authority) == (NODE.public, CA.public)
    assert (certificate.serial, certificate.not_before, certificate.not_after) == (serial, 1000, 1000 + length)
    assert read_certificate(certificate.line) == certificate


@needs_ssh
def test_ssh_keygen_shows_a_certificate(tmp_path):
    path = tmp_path / "node-cert.pub"
    path.write_text(made(tags=("gpu",)).line + "\n")
    shown = subprocess.run(["ssh-keygen", "-L", "-f", path], check=True, capture_output=True, text=True).stdout
    for text in ("host certificate", "edge-7", "tag:gpu", "mesh@zmesh", "Serial: 5", fingerprint(CA.public)):
        assert text in shown


@needs_ssh
def test_a_certificate_of_ssh_keygen_is_read(tmp_path):
    authority, public = tmp_path / "ca", tmp_path / "node.pub"
    authority.write_bytes(CA.to_openssh())
    authority.chmod(0o600)
    public.write_text(public_to_openssh(NODE.public) + "\n")
    words = (
        "ssh-keygen -q -s ca -h -I edge-7 -n edge-7,tag:gpu,tag:lab-2 -O critical:mesh@zmesh=prod -V -1h:+90d node.pub"
    )
    subprocess.run(words.split(), check=True, cwd=tmp_path)
    certificate = read_certificate((tmp_path / "node-cert.pub").read_text())
    assert (certificate.node_id, certificate.tags, certificate.mesh) == ("edge-7", ("gpu", "lab-2"), "prod")
    assert (certificate.public, certificate.authority) == (NODE.public, CA.public)
    assert 90 * 86400 <= certificate.not_after - certificate.not_before <= 91 * 86400


def built(**changes):
    """A certificate with one thing that none of zmesh has."""
    settings = {
        "kind": SSHCertificateType.HOST,
        "principals": [b"edge-7"],
        "options": [(b"mesh@zmesh", b"lab")],
        **changes,
    }
    builder = (
        SSHCertificateBuilder()
        .public_key(Ed25519PublicKey.from_public_bytes(NODE.public))
        .serial(1)
        .type(settings["kind"])
        .key_id(b"x")
        .valid_after(0)
        .valid_before(10)
    )
    principals = settings["principals"]
    builder = builder.valid_principals(principals) if principals else builder.valid_for_all_principals()
    for name, content in settings["options"]:
        builder = builder.add_critical_option(name, content)
    return builder.sign(CA.private).public_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": SSHCertificateType.USER}, "for a user, where one for a host is needed"),
        ({"options": []}, "without a mesh's name"),
        ({"options": [(b"mesh@zmesh", b"two words")]}, "is no mesh name"),
        ({"options": [(b"force-command", b"ls"), (b"mesh@zmesh", b"lab")]}, "critical option 'force-command'"),
        ({"principals": []}, "without a principal"),
        ({"principals": [b"edge-7", b"edge-8"]}, "of two ids"),
        ({"principals": [b"edge 7"]}, "is no node id"),
        ({"principals": [b"edge-7", b"tag:a b"]}, "is no tag"),
        ({"principals": [b"edge-7", *(b"tag:t%d" % number for number in range(MAX_TAGS + 1))]}, "tags, where 32"),
    ],
)
def test_a_certificate_for_something_else_is_refused(changes, said):
    assert read_certificate(built()).node_id == "edge-7"
    with pytest.raises(ConfigError, match=said):
        read_certificate(built(**changes))


def test_a_certificate_that_was_changed_or_is_too_long_is_refused():
    kind, body = made().line.split()
    for at in range(20, len(body), 37):
        other = "A" if body[at] != "A" else "B"
        with pytest.raises(ConfigError):
            read_certificate(f"{kind} {body[:at]}{other}{body[at + 1 :]}")
    with pytest.raises(ConfigError, match="4096 are allowed"):
        read_certificate("x" * (MAX_CERTIFICATE + 1))
    with pytest.raises(ConfigError, match="a key without a certificate"):
        read_certificate(public_to_openssh(NODE.public))


@given(st.binary(max_size=200) | st.text(max_size=100))
def test_garbage_raises_config_error_and_nothing_else(data):
    with pytest.raises(ConfigError):
        read_certificate(data)


def test_how_much_of_the_validity_is_left():
    certificate = made(not_before=1000, not_after=2000)
    assert [certificate.remaining(now) for now in (0, 1000, 1500, 2000, 9999)] == [1.0, 1.0, 0.5, 0.0, 0.0]
