"""`http:execute` makes an HTTP request from the node; needs the extra: `pip install 'zmesh-mq[http]'`.

The node keeps one client, so that connections are reused. It keeps no cookies: its requests come from many senders.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from zmesh.directives import directive
from zmesh.errors import RemoteError
from zmesh.payload import CHUNK
from zmesh.threads import Threads
from zmesh.work import Work

if TYPE_CHECKING:
    import aiohttp

CONNECT_TIMEOUT = 30.0
"""Seconds until a connection has to be there; the setting `connect_timeout` of `[plugins.http]`."""

READ_TIMEOUT = 300.0
"""Seconds that the server may be silent; the setting `read_timeout` of `[plugins.http]`."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask for; `headers` and `body` as they are sent."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


@dataclass(slots=True, eq=False)
class _Client:
    library: ModuleType
    session: aiohttp.ClientSession
    users: int = 0


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, _Client] = WeakKeyDictionary()


@directive
async def execute(work: Work) -> AsyncIterator[dict[str, object] | bytes]:
    """Make the request `{"url", "method", "headers", "body"}`, of which only `url` is needed.

    The first reply is `{"status", "reason", "url", "headers"}`, whatever the status; the body follows as it comes in,
    decompressed, in replies of up to 64 KiB. Raises ValueError for a payload that is no such request, RemoteError if
    aiohttp is not installed, and what aiohttp raises if there is no answer.
    """
    request = _request(work)
    body = None if request.body is None else request.body.encode()
    connect, silence = _setting(work, "connect_timeout", CONNECT_TIMEOUT), _setting(work, "read_timeout", READ_TIMEOUT)
    async with (
        _client() as client,
        client.session.request(
            request.method,
            request.url,
            headers=request.headers,
            data=body,
            timeout=client.library.ClientTimeout(total=None, sock_connect=connect, sock_read=silence),
        ) as response,
    ):
        yield {
            "status": response.status,
            "reason": response.reason,
            "url": str(response.url),
            "headers": {name: ", ".join(response.headers.getall(name)) for name in response.headers},
        }
        async for chunk in response.content.iter_chunked(CHUNK):
            yield chunk


async def close() -> None:
    """Close the client of this loop, unless another node in the loop is using it: then the last one to close does."""
    loop = asyncio.get_running_loop()
    client = _clients.get(loop)
    if client is not None and not client.users:
        del _clients[loop]
        await client.session.close()


@asynccontextmanager
async def _client() -> AsyncIterator[_Client]:
    """The client of this loop, held open meanwhile."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        threads = Threads(1, "zmesh-import")
        try:  # in a thread, because the import takes a good part of a second
            aiohttp = await threads.call(_import)
        finally:
            threads.close()
        if loop not in _clients:  # somebody else may have been faster
            _clients[loop] = _Client(aiohttp, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
    client = _clients[loop]
    client.users += 1
    try:
        yield client
    finally:
        client.users -= 1


def _import() -> ModuleType:
    try:
        import aiohttp
    except ImportError as error:
        raise RemoteError("this node has no HTTP client; install it there: pip install 'zmesh-mq[http]'") from error
    return aiohttp


def _request(work: Work) -> Request:
    asked = work.payload.json()
    if not isinstance(asked, dict) or not isinstance(asked.get("url"), str):
        raise ValueError('http:execute takes {"url": "http://...", "method": "GET", "headers": {}, "body": null}')
    if unknown := asked.keys() - {"url", "method", "headers", "body"}:
        raise ValueError(f"http:execute knows url, method, headers and body, not {', '.join(sorted(unknown))}")
    headers = asked.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ValueError("headers must be an object of strings")
    method, body = asked.get("method", "GET"), asked.get("body")
    if not isinstance(method, str) or not isinstance(body, (str, type(None))):
        raise ValueError("method must be a string, body a string or null")
    return Request(asked["url"], method.upper(), headers, body)


def _setting(work: Work, name: str, default: float) -> float:
    value = work.config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise ValueError(f"the setting {name} of [plugins.http] must be a number of seconds, not {value!r}")
    return value
