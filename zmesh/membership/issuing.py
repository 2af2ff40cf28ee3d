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
from zmesh.serving import FailureLog

log = logging.getLogger(__name__)

PASSPHRASE = "ZMESH_PASSPHRASE"


class Issuing:
    """Signs certificates with the key that lies beside an identity; one at a time, in a thread, since it writes."""

    def __init__(self, identity: Identity) -> None:
        self._pool = ThreadPool(1, "zmesh-issuing")
        self._issuer = self.read(identity)
        self._failures = FailureLog()

    @property
    def has_key(self) -> bool:
        """Whether this node signs."""
        return self._issuer is not None

    @staticmethod
    def read(identity: Identity) -> Issuer | None:
        """The keys beside an identity, None if there are none that can be used. It blocks, and may run in another
        thread: decrypting one with its passphrase takes a tenth of a second.
        """
        if identity.state is None or not Issuer.is_at(identity.state):
            return None
        try:
            return Issuer.load(identity, os.environ.get(PASSPHRASE))
        except LockedKey as error:
            log.warning("nobody can join at this node, and no certificate is renewed by it: %s", error)
        except ConfigError as error:
            log.error("nobody can join at this node: %s", error)  # a line, and no traceback
        return None

    def use(self, issuer: Issuer | None) -> None:
        """Sign with these keys from now on."""
        self._issuer = issuer

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
            if (end := self._failures.next()) is not None:
                log.warning("a request for a certificate is refused: %s%s", error, end)
            return refusal(error)
        return answered

    def close(self) -> None:
        """End the thread."""
        self._pool.close()
