"""An identity in its folder: written whole, read back, read again while a node runs, and damage that is told."""

import base64
import json

import pytest

from zmesh.errors import ConfigError
from zmesh.identity import Identity, IdentityKey, Issuer, Profile, Revocation, State
from zmesh.identity.identity import FILES, CurveKeys

NOW = 1_800_000_000.0


@pytest.fixture
def state(tmp_path):
    return State(tmp_path / "lab")


def make(state, node_id="hub", tags=(), **profile):
    issuer = Issuer.create(state, "lab", NOW)
    key = IdentityKey.generate()
    certificate = issuer.issue(key.public, node_id, tags, NOW)
    return Identity.create(state, Profile("lab", node_id, **profile), key, certificate, issuer.trust)


def test_an_identity_is_read_as_it_was_written(state):
    made = make(state, tags=("gpu",), listen=("tcp://0.0.0.0:7323",), peers=("tcp://a:1?key=00",))
    read = Identity.load(state.folder)
    assert (read.node_id, read.mesh, read.tags) == ("hub", "lab", ("gpu",))
    assert read.profile == made.profile
    assert read.curve == made.curve
    assert read.key.public == made.key.public
    assert read.trust.authorities == made.trust.authorities
    assert sorted(state.names()) == sorted([*FILES, "issued.json"])


def test_secrets_are_for_their_user_alone_and_in_no_representation(state):
    made = make(state)
    for name in ("identity.key", "curve.key", "authority/1", "issued.json"):
        assert (state.folder / name).stat().st_mode & 0o777 == 0o600
    assert made.curve.secret.hex() not in repr(made.curve)
    (state.folder / "curve.key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"curve.key can be read by others; chmod 600"):
        Identity.load(state)


def test_an_identity_is_not_written_over(state):
    made = make(state)
    with pytest.raises(ConfigError, match="holds an identity already, and it is not overwritten"):
        Identity.create(state, made.profile, made.key, made.certificate, made.trust)
    assert Identity.load(state).key.public == made.key.public


def test_where_there_is_none_the_commands_that_make_one_are_named(state):
    with pytest.raises(ConfigError, match=r"there is no identity in .*; 'zmesh init' makes a mesh, 'zmesh join zm1"):
        Identity.load(state)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_damaged_is_named(state, name):
    make(state)
    (state.folder / name).write_bytes(b"[nonsense")
    with pytest.raises(ConfigError):
        Identity.load(state)
    (state.folder / name).unlink()
    if name not in ("policy.toml", "mesh.json"):
        with pytest.raises(ConfigError, match=rf"{name} is missing; restore it, or let this node join anew"):
            Identity.load(state)


@pytest.mark.parametrize("text", ["[]", "{", '{"mesh": 1}', '{"mesh":"a","node_id":"b","peers":[1]}'])
def test_a_profile_of_another_shape_is_damage(state, text):
    make(state)
    state.write("mesh.json", text.encode())
    with pytest.raises(ConfigError, match="is damaged"):
        Identity.load(state)


def test_a_certificate_of_another_key_or_node_is_refused(state, tmp_path):
    make(state)
    other = State(tmp_path / "other")
    make(other, "edge")
    certificate = (state.folder / "identity-cert.pub").read_bytes()
    state.write("identity-cert.pub", (other.folder / "identity-cert.pub").read_bytes())
    with pytest.raises(ConfigError, match="is for another key"):
        Identity.load(state)
    state.write("identity-cert.pub", certificate)
    fields = json.loads((state.folder / "mesh.json").read_bytes())
    state.write("mesh.json", json.dumps(fields | {"node_id": "someone"}).encode())
    with pytest.raises(ConfigError, match="is for another node or mesh"):
        Identity.load(state)


def test_permissions_and_trust_are_read_again_and_kept_if_they_can_not_be(state):
    running = make(state)
    assert not running.policy.decide("exec:run", "ops").allowed
    state.write("policy.toml", b'[allow]\n"exec:*" = ["ops"]\n')
    issuer = Issuer.load(Identity.load(state))
    issuer.revoke("edge", NOW)
    state.write("trust.json", json.dumps({}).encode())
    with pytest.raises(ConfigError):
        running.reload()
    assert not running.policy.decide("exec:run", "ops").allowed
    other = Identity(running.profile, running.key, running.certificate, running.curve, issuer.trust, state=state)
    other.save_trust()
    running.reload()
    assert running.policy.decide("exec:run", "ops").allowed
    assert [each.subject for each in running.trust.revocations] == ["edge"]


def test_a_revocation_that_could_not_be_written_outlives_a_reload(state):
    running = make(state)
    issuer = Issuer.load(Identity.load(state))
    running.trust.revoke(Revocation.sign(issuer.key, "edge", int(NOW), int(NOW) + 10))
    running.reload()
    assert [each.subject for each in running.trust.revocations] == ["edge"]


def test_another_identity_in_the_folder_is_no_reload(state, tmp_path):
    running = make(state)
    running.state = State(tmp_path / "other")
    make(running.state, "edge")
    with pytest.raises(ConfigError, match="holds another identity than this node runs with; start it anew"):
        running.reload()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("[deny]", "no table is called 'deny'"), ("allow = 3", "[allow] is a table"), ("[allow", "is not TOML")],
)
def test_permissions_that_can_not_be_read_name_their_file(state, text, complaint):
    make(state)
    state.write("policy.toml", text.encode())
    with pytest.raises(ConfigError) as caught:
        Identity.load(state)
    assert complaint in str(caught.value)
    assert "policy.toml" in str(caught.value)


def test_a_renewed_certificate_is_written_and_one_for_another_key_is_not(state):
    running = make(state)
    issuer = Issuer.load(Identity.load(state))
    renewed = issuer.issue(running.key.public, "hub", ("gpu",), NOW + 10)
    running.renewed(renewed)
    assert Identity.load(state).tags == ("gpu",)
    with pytest.raises(ConfigError, match="for another key"):
        running.renewed(issuer.issue(IdentityKey.generate().public, "hub", (), NOW))
    assert running.certificate == renewed


def test_renewal_is_due_at_two_thirds_and_not_for_all_at_once(state):
    running = make(state)
    certificate = running.certificate
    length = certificate.not_after - certificate.not_before
    times = set()
    for _ in range(8):
        key = IdentityKey.generate()
        issued = Issuer.load(running).issue(key.public, "hub", (), NOW)
        times.add(Identity(running.profile, key, issued, running.curve, running.trust).renews_at)
    assert len(times) == 8
    assert all(0.6 < (each - certificate.not_before) / length < 0.73 for each in times)


def test_a_curve_key_is_that_of_libzmq():
    import zmq
    from zmq.utils import z85

    keys = CurveKeys.generate()
    assert zmq.curve_public(z85.encode(keys.secret)) == z85.encode(keys.public)
    assert CurveKeys.from_secret(keys.secret) == keys


def test_a_hub_dials_itself_and_others_their_peers(state, tmp_path):
    hub = make(state, urls=("tcp://10.0.0.1:7323",))
    key = base64.urlsafe_b64encode(hub.curve.public).decode().rstrip("=")
    assert hub.dial_urls() == (f"tcp://10.0.0.1:7323?key={key}",)
    assert hub.keyed("tcp://10.0.0.1:7323?cost=5") == f"tcp://10.0.0.1:7323?cost=5&key={key}"
    for other in ("tcp://10.0.0.2:7323", "ipc:///a", "tcp://10.0.0.1:7323?key=mine"):
        assert hub.keyed(other) == other
    edge = make(State(tmp_path / "edge"), "edge", peers=("tcp://hub:1?key=00",))
    assert edge.dial_urls() == ("tcp://hub:1?key=00",)
    assert edge.keyed("tcp://hub:1") == "tcp://hub:1?key=00"
