"""Requests for a certificate by a node that has none yet, or an expired one: over a link of its own, as a leaf.

The link is CURVE to the key that the URL pins, so that the token of a ticket is read by that node alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from zmesh.config import Config
from zmesh.core.credentials import REASONS
from zmesh.core.effects import Report
from zmesh.core.message import MessageId
from zmesh.errors import ConfigError, NotTrusted, RemoteError, TimedOut, Unreachable
from zmesh.identity import RENEW, Certificate, Identity, read_renewal, renew_request
from zmesh.requests import ReplyStream, Requests
from zmesh.runtime import ThreadPool

ASK_WITHIN = 15.0
"""Seconds for the link and the answer."""


class Newcomer(Protocol):
    """The node that requests a certificate: an ephemeral one without identity."""

    requests: Requests

    async def run(self, ready: asyncio.Future[None] | None = None) -> None:
        """Open it, and run it until `stop`."""

    def stop(self) -> None:
        """Have `run` return."""

    def watch(self, observer: Callable[[Report], None]) -> None:
        """Have reports given to `observer`."""


MakeNewcomer = Callable[[Config], Newcomer]


async def ask_as_newcomer(
    make: MakeNewcomer,
    name: str,
    urls: Sequence[str],
    directive: str,
    payload: object,
    within: float = ASK_WITHIN,
) -> object:
    """The answer (JSON values) of the node that listens at one of these URLs. `make` makes the node that asks.

    Link and answer have `within` seconds. Raises Unreachable if there is no such node, NotTrusted if it refuses the
    link, TimedOut, RemoteError.
    """
    shown = " or ".join(url.partition("?")[0] for url in urls)
    config = Config(node_id=f"{name[:50]}.{os.urandom(4).hex()}", identity=None, peers=urls, ephemeral=True)
    node = make(config)
    loop = asyncio.get_running_loop()
    linked: asyncio.Future[str] = loop.create_future()
    failed: dict[str, str] = {}

    def on_report(report: Report) -> None:
        if linked.done():
            return
        if report.event == "link_up":
            linked.set_result(str(report.node))
        elif report.event == "link_refused":
            kind = NotTrusted if report.text in REASONS else Unreachable
            linked.set_exception(kind(f"the link to {shown} is refused: {report.detail}", node=report.node))
        elif report.event == "dial_failed":
            url, _, reason = report.detail.partition(": ")
            failed[url.partition("?")[0]] = reason
            if len(failed) >= len({each.partition("?")[0] for each in urls}):
                reasons = "; ".join(f"{url}: {reason}" for url, reason in failed.items())
                linked.set_exception(Unreachable(f"no node can be reached: {reasons}"))

    node.watch(on_report)
    running = loop.create_task(node.run(), name=f"zmesh {config.node_id}")
    try:
        async with asyncio.timeout(within):
            await asyncio.wait((linked, running), return_when=asyncio.FIRST_COMPLETED)
            if not linked.done():
                running.result()
                raise Unreachable(f"the node that was to dial {shown} has ended")
            return await ask(node.requests, linked.result(), directive, payload, within)
    except TimeoutError as error:
        if isinstance(error, TimedOut):
            raise
        raise Unreachable(f"no node answers at {shown} within {within:g} s; is that the URL of a node?") from None
    finally:
        if linked.done() and not linked.cancelled():
            linked.exception()
        node.stop()
        await asyncio.wait((running,))


async def ask(requests: Requests, node: str, directive: str, payload: object, within: float) -> object:
    """Send a directive with JSON values, and return those of its answer, which has `within` seconds.

    Raises ExchangeError.
    """
    body = json.dumps(payload).encode()

    def start(request: ReplyStream) -> None:
        requests.send(request, directive, body, within)

    request = ReplyStream(requests, MessageId(os.urandom(16)), node, start)
    request.send()
    answered = await request.only_payload()
    try:
        return json.loads(answered.readall()) if answered is not None else None
    except (ValueError, RecursionError):
        raise RemoteError(f"node {node!r} sent an answer that is no JSON", node=node) from None


async def renew_as_newcomer(make: MakeNewcomer, identity: Identity, within: float = ASK_WITHIN) -> Certificate:
    """Renew the certificate of an identity, which may have expired, at one of its peers; the new one, which is written.

    Raises ConfigError if it has no peer to dial or can't be written, and what `ask_as_newcomer` raises.
    """
    urls = identity.profile.peers
    if not urls:
        raise ConfigError(f"the identity in {identity.where} names no node to dial")
    asked = renew_request(identity.certificate, identity.key)
    fields = await ask_as_newcomer(make, identity.node_id, urls, RENEW, asked, within)
    return await take_renewal(identity, fields)


async def take_renewal(identity: Identity, fields: object) -> Certificate:
    """Take the answer to a request to renew, and write what it changes. Raises TrustError, ConfigError."""
    certificate = read_renewal(identity, fields, time.time())
    threads = ThreadPool(1, "zmesh-state")
    try:  # a disk may be slow, and another process may keep the state locked
        identity.merge(await threads.call(identity.saving_trust()))
        if certificate.line != identity.certificate.line:
            await threads.call(lambda: identity.renewed(certificate))
    finally:
        threads.close()
    return certificate
