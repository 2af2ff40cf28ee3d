"""Each way in which a node and a command do not trust each other: a line at both ends, and exit code 6."""

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmesh
import zmesh.sync
from tests.ports import FreePorts
from zmesh.identity import Identity, IdentityKey, Invite, Invites, Issuer, Profile, State, TrustStore
from zmesh.testing.authority import DAY, TestAuthority
from zmesh.trust import init, invite

NOW = int(time.time())
FINGERPRINT = r"SHA256:[A-Za-z0-9+/]{43}"


class Hub:
    """A node of the mesh `lab` in this process, and folders of others that dial it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        made = init("lab", node_id="hub", listen=(url,), state=folder / "hub").identity
        self.identity, self.issuer = made, Issuer.load(made)
        self.lines: list[str] = []

    @property
    def dialled(self) -> str:
        """Its URL with its key."""
        return self.identity.dial_urls()[0]

    def state(self, name: str = "ada", **changes: Any) -> Path:
        """A folder with an identity, which an authority has signed as `changes` say."""
        by, mesh = changes.get("by"), changes.get("mesh", "lab")
        place, key = self.folder / f"{name}-{len(list(self.folder.iterdir()))}", IdentityKey.generate()
        trust = changes.get("trust") or TrustStore(mesh, self.issuer.trust.authorities)
        if by is not None:
            certificate = by.certificate(name, key, begins=changes.get("begins", NOW - DAY))
            trust = TrustStore(mesh, [by.authority])
        else:
            made, validity = NOW + changes.get("made", 0), changes.get("validity", 90 * DAY)
            certificate = self.issuer.issue(key.public, name, tuple(changes.get("tags", ())), made, validity)
        self.key = key
        profile = Profile(mesh, name, (), (), (self.dialled,) if changes.get("dials", True) else ())
        Identity.create(State(place), profile, key, certificate, trust)
        return place


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    ports = FreePorts()
    hub = Hub(tmp_path_factory.mktemp("lab"), f"tcp://127.0.0.1:{ports()}")
    handler = logging.Handler()
    handler.emit = lambda record: hub.lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("zmesh.observe.journal")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with zmesh.sync.Controller(zmesh.Config(identity=hub.identity, allow={"echo:*": ["tag:ops"]})):
            yield hub
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        ports.close()


def refused(shell: Any, hub: Hub, state: Path, *words: str, code: int = 6) -> str:
    """The last line of a command with that identity, which ends with that code."""
    hub.lines.clear()
    done = shell.run(*(words or ("ping", "hub", "-c", "1")), environment={"ZMESH_STATE": str(state)})
    text: str = done.stderr.decode()
    assert done.returncode == code, text
    *before, last = text.splitlines()
    assert all("is not renewed" in line for line in before), text
    return last


def at_the_hub(hub: Hub, eventually: Any) -> str:
    """The line of the hub about it."""
    eventually(lambda: any("refused" in line for line in hub.lines))
    return next(line for line in hub.lines if "refused" in line)


def test_an_unknown_authority_is_named_at_both_ends_beside_the_one_that_is_trusted(
    shell: Any, hub: Hub, eventually: Any
) -> None:
    other = TestAuthority(seed=1, begins=NOW - 9 * DAY)
    for line in (refused(shell, hub, hub.state(by=other)), at_the_hub(hub, eventually)):
        assert "'ada'" in line
        assert other.authority.fingerprint in line
        assert hub.issuer.trust.authorities[0].fingerprint in line
        assert "zmesh invite ada" in line


def test_another_mesh_is_named(shell: Any, hub: Hub, eventually: Any) -> None:
    other = TestAuthority(seed=1, mesh="office", begins=NOW - 9 * DAY)
    for line in (refused(shell, hub, hub.state(by=other, mesh="office")), at_the_hub(hub, eventually)):
        assert "'office'" in line
        assert "'lab'" in line
        assert "join this one" in line


def test_an_expired_certificate_renews_itself_before_the_command_dials(shell: Any, hub: Hub) -> None:
    state = hub.state(made=-100 * DAY, validity=30 * DAY)
    done = shell.run("ping", "hub", "-c", "1", environment={"ZMESH_STATE": str(state)})
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""


def test_an_expired_certificate_that_can_not_be_renewed_is_named_with_key_and_remedy(
    shell: Any, hub: Hub, eventually: Any
) -> None:
    """Its own authority is none of this mesh's any more."""
    other = TestAuthority(seed=3, begins=NOW - 400 * DAY)
    hub.identity.trust._authorities[other.key.public] = other.authority
    hub.issuer.trust._authorities[other.key.public] = other.authority
    state = hub.state(by=other, begins=NOW - 400 * DAY, dials=False)
    for line in (
        refused(shell, hub, state, "ping", "hub", "-c", "1", "--peer", hub.dialled),
        at_the_hub(hub, eventually),
    ):
        assert re.search(rf"'ada' \(key {FINGERPRINT}\) expired \d+ months ago", line), line
        assert "zmesh invite ada" in line


def test_one_that_is_not_valid_yet_names_the_clocks(shell: Any, hub: Hub, eventually: Any) -> None:
    line = refused(shell, hub, hub.state(made=40 * DAY))
    assert re.search(r"is valid in \d+ (days|months) only", line), line
    assert "which clock is wrong" in line


def test_a_revoked_key_is_named_with_when_why_and_by_whom(shell: Any, hub: Hub, eventually: Any) -> None:
    state = hub.state("thief")
    hub.issuer.revoke("thief", NOW + 5, "stolen from the van")
    for line in (refused(shell, hub, state), at_the_hub(hub, eventually)):
        assert re.search(rf"'thief' \(key {FINGERPRINT}\) was revoked .* ago \(stolen from the van\)", line), line
        assert hub.issuer.trust.authorities[0].fingerprint in line
        assert "zmesh invite thief" in line


def test_a_certificate_for_another_id_is_not_used(shell: Any, hub: Hub) -> None:
    """Its own command finds that before it dials; that a node refuses one is for the tests of the core."""
    state = hub.state()
    mesh = (state / "mesh.json").read_text()
    (state / "mesh.json").write_text(mesh.replace('"ada"', '"ops"'))
    assert "is for another node or mesh" in refused(shell, hub, state, code=2)


def test_a_command_refuses_a_hub_that_it_does_not_trust(shell: Any, hub: Hub, eventually: Any) -> None:
    stranger = TestAuthority(seed=2, begins=NOW - DAY)
    state = hub.state(trust=TrustStore("lab", [stranger.authority]))
    line = refused(shell, hub, state)
    assert "'hub' shows a certificate of the authority" in line
    assert stranger.authority.fingerprint in line
    assert "refused by ada." in at_the_hub(hub, eventually)


def test_a_command_without_identity_learns_how_to_join(shell: Any, hub: Hub, eventually: Any) -> None:
    done = shell.run("ping", "hub", "-c", "1", "--peer", hub.dialled)
    assert done.returncode == 6
    assert b"zmesh invite" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_peer_that_takes_encrypted_links_only_says_that_the_url_needs_its_key(shell: Any, hub: Hub) -> None:
    done = shell.run("ping", "hub", "-c", "1", "--peer", hub.url)
    assert done.returncode == 6
    assert b"its URL needs ?key=" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_directive_that_is_not_allowed_names_the_rule_the_tags_and_the_line(shell: Any, hub: Hub) -> None:
    line = refused(shell, hub, hub.state(tags=("gpu",)), "send", "hub", "echo:echo", "x")
    assert "does not let 'ada' (tags: gpu) call echo:echo" in line
    assert '"echo:*" = ["tag:ops"]' in line
    assert '[allow] "echo:*" = ["ada", "tag:ops"]' in line


@pytest.mark.parametrize("how", ["expired", "another name", "another key", "another mesh", "taken back"])
def test_a_ticket_that_is_not_good_names_the_reason_and_the_command(shell: Any, hub: Hub, how: str) -> None:
    ticket = invite(hub.identity, "edge")
    invites = Invites(hub.identity.state)  # type: ignore[arg-type]
    (kept,) = [each for each in invites.all() if each.token_hash == ticket.token_hash]
    said = f"zmesh invite {'other' if how == 'another name' else 'edge'}"
    match how:
        case "expired":
            invites.remove("edge")
            invites.add(Invite("edge", (), kept.token_hash, NOW - 7200, NOW - 3600))
            why = "the token expired "
        case "another name":
            ticket, why = ticket._replace(node_id="other"), "the token is for another name, 'edge'"
        case "another key":
            invites.use(kept, IdentityKey.generate().public, NOW)
            why = "the token was used"
        case "another mesh":
            ticket, why = ticket._replace(mesh="office"), "has a ticket for the mesh 'office', and this one is 'lab'"
        case _:
            invites.remove("edge")
            why = "the token is not known here: taken back"
    done = shell.run("join", str(ticket), "--state", str(hub.folder / f"joins-{how.replace(' ', '-')}"))
    text = done.stderr.decode()
    assert done.returncode == 6, text
    assert why in text
    assert said in text
    assert re.search(FINGERPRINT, text), "which key"
    assert text.count("\n") == 1


def test_a_ticket_whose_authority_was_changed_on_its_way_is_refused_by_who_joins(shell: Any, hub: Hub) -> None:
    ticket = invite(hub.identity, "edge")._replace(authority=bytes(32))
    done = shell.run("join", str(ticket), "--state", str(hub.folder / "misled"))
    assert done.returncode == 6
    assert b"another authority than the ticket names" in done.stderr
