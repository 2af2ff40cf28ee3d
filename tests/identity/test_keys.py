"""Keys: against the vectors of RFC 8032, and against what `ssh-keygen` makes and reads."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import ConfigError
from zmesh.identity.keys import (
    IdentityKey,
    fingerprint,
    grouped,
    is_signed,
    public_from_openssh,
    public_to_openssh,
)

needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")

# RFC 8032 section 7.1, TEST 1 to 3: secret, public, message, signature
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_keys_and_signatures_are_those_of_rfc_8032(secret, public, message, signature):
    key = IdentityKey.from_seed(bytes.fromhex(secret))
    assert key.public.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert is_signed(key.public, bytes.fromhex(signature), bytes.fromhex(message))


@given(st.binary(max_size=40), st.binary(max_size=70), st.binary(max_size=40))
def test_what_is_no_signature_or_no_key_is_not_signed(public, signature, data):
    assert not is_signed(public, signature, data)


def test_a_signature_holds_for_its_data_and_key_alone():
    key, other = IdentityKey.generate(), IdentityKey.generate()
    signature = key.sign(b"data")
    assert is_signed(key.public, signature, b"data")
    assert not is_signed(other.public, signature, b"data")
    assert not is_signed(key.public, signature, b"date")


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_private_key_is_read_as_it_was_written(passphrase):
    key = IdentityKey.generate()
    data = key.to_openssh(passphrase)
    assert data.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert IdentityKey.from_openssh(data, passphrase).public == key.public


def test_a_wrong_or_missing_passphrase_is_said():
    data = IdentityKey.generate().to_openssh("right")
    for wrong in ("wrong", None):
        with pytest.raises(ConfigError, match="not a private key that can be read"):
            IdentityKey.from_openssh(data, wrong)


@given(st.binary(max_size=200))
def test_what_is_no_key_raises_config_error_and_nothing_else(data):
    for read in (IdentityKey.from_openssh, public_from_openssh):
        with pytest.raises(ConfigError):
            read(data)


@needs_ssh
def test_ssh_keygen_and_this_read_each_other_s_keys(tmp_path):
    made = tmp_path / "made"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", made], check=True)
    key = IdentityKey.from_openssh(made.read_bytes())
    assert public_from_openssh((tmp_path / "made.pub").read_text()) == key.public
    shown = subprocess.run(["ssh-keygen", "-l", "-f", made], check=True, capture_output=True, text=True).stdout
    assert shown.split()[1] == fingerprint(key.public)
    ours = tmp_path / "ours"
    ours.write_bytes(IdentityKey.from_seed(bytes(32)).to_openssh())
    ours.chmod(0o600)
    read = subprocess.run(["ssh-keygen", "-y", "-f", ours], check=True, capture_output=True, text=True).stdout
    assert public_from_openssh(read) == IdentityKey.from_seed(bytes(32)).public


@needs_ssh
def test_a_key_of_another_kind_is_refused(tmp_path):
    made = tmp_path / "made"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", made], check=True)
    with pytest.raises(ConfigError, match="an Ed25519 key is needed"):
        IdentityKey.from_openssh(made.read_bytes())
    with pytest.raises(ConfigError, match="an Ed25519 key is needed"):
        public_from_openssh((tmp_path / "made.pub").read_bytes())


def test_a_public_key_is_a_line_and_its_fingerprint_is_shown_in_groups():
    public = IdentityKey.from_seed(bytes(32)).public
    line = public_to_openssh(public, "edge-7")
    assert line.startswith("ssh-ed25519 AAAA")
    assert line.endswith(" edge-7")
    assert public_from_openssh(line) == public
    assert grouped("SHA256:abcdefghij") == "SHA256: abcd efgh ij"
