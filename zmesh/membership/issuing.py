"""The authority's side of enrolment: a node beside whose identity the authority's key lies answers requests for
certificates, and one without passes them on to such a node.
"""

from __future__ import annotations

import logging
import os
import time

from zmesh.errors import ConfigError
from zmesh.identity import Identity, Issuer, LockedKey, TrustError, answer, refusal
from zmesh.runtime import ThreadPool

log = logging.getLogger(__name__)

PASSPHRASE = "ZMESH_PASSPHRASE"


class Issuing:
    """Signs certificates with the key that lies beside an identity; one at a time, in a thread, since it writes."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._pool = ThreadPool(1, "zmesh-issuing")
        self._issuer: Issuer | None = None
        self._has_key = False
        self.reload()

    @property
    def has_key(self) -> bool:
        """Whether this node signs."""
        return self._has_key

    def reload(self) -> None:
        """Read the keys anew before the next certificate is signed."""
        state = self._identity.state
        self._issuer = None
        self._has_key = state is not None and Issuer.is_at(state)
        if self._has_key:
            try:
                self._issuer = Issuer.load(self._identity, os.environ.get(PASSPHRASE))
            except LockedKey as error:
                self._has_key = False
                log.warning("nobody can join at this node, and no certificate is renewed by it: %s", error)
            except ConfigError as error:
                self._has_key = False
                log.error("nobody can join at this node: %s", error)  # a line, and no traceback

    async def answer(self, request: object) -> dict[str, object]:
        """The answer to a request for a certificate, which may be a refusal."""
        return await self._pool.call(lambda: self._answer(request))

    def _answer(self, request: object) -> dict[str, object]:
        issuer = self._issuer
        if issuer is None:
            return refusal(ConfigError("the authority's key does not lie here"))
        try:
            answered = answer(issuer, request, time.time())
        except (TrustError, ConfigError) as error:
            log.warning("a request for a certificate is refused: %s", error)
            return refusal(error)
        return answered

    def close(self) -> None:
        """End the thread."""
        self._pool.close()
