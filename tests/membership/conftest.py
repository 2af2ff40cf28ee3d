"""A mesh whose authority's key lies at `hub`, and identities of it whose certificates have any age."""

import time
from pathlib import Path

import pytest

import zmesh
from tests.sockets import _census, _own_temporary_files, complaints, free_port, nothing_is_left
from tests.waiting import eventually
from zmesh.identity import Identity, IdentityKey, Issuer, Profile, State, TrustStore
from zmesh.trust import init, invite

__all__ = ["_census", "_own_temporary_files", "complaints", "eventually", "free_port", "nothing_is_left"]

DAY = 86400


class Lab:
    """The mesh `lab`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.url = f"tcp://127.0.0.1:{port}"
        self.hub = init("lab", node_id="hub", listen=(self.url,), state=folder / "hub").identity
        self.issuer = Issuer.load(self.hub)

    def ticket(self, name: str, **options: object) -> zmesh.trust.Ticket:
        """A ticket for a node."""
        return invite(Identity.load(self.folder / "hub"), name, **options)

    def identity(self, name: str, *, age: float, validity: float = 90 * DAY, peers: bool = True) -> Identity:
        """An identity whose certificate was made `age` seconds ago."""
        key, made = IdentityKey.generate(), time.time() - age
        certificate = self.issuer.issue(key.public, name, (), made, validity)
        profile = Profile("lab", name, (), (), self.hub.dial_urls() if peers else ())
        trust = TrustStore("lab", self.issuer.trust.authorities)
        return Identity.create(State(self.folder / name), profile, key, certificate, trust)

    def controller(self, identity: Identity, **settings: object) -> zmesh.Controller:
        """A node with an identity."""
        return zmesh.Controller(identity=identity, heartbeat=0.3, **settings)


@pytest.fixture
def lab(tmp_path: Path, free_port: int) -> Lab:
    return Lab(tmp_path, free_port)
