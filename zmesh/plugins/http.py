"""`http:execute` makes an HTTP request from the node; needs the extra: `pip install 'zmesh-mq[http]'`.

The node keeps one client, so that connections are reused. It keeps no cookies: its requests come from many senders.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

from zmesh.errors import RemoteError
from zmesh.payloads import CHUNK
from zmesh.runtime import ThreadPool
from zmesh.serving import Work, directive

if TYPE_CHECKING:
    import aiohttp


@dataclass(frozen=True, slots=True)
class Request:
    """The HTTP request to make; `headers` and `body` as they are sent."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The table `[plugins.http]`. Raises ValueError for a time that is not above 0."""

    connect_timeout: float = 30.0
    """Seconds until a connection has to be there."""
    read_timeout: float = 300.0
    """Seconds that the server may be silent."""

    def __post_init__(self) -> None:
        for name in ("connect_timeout", "read_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be a number of seconds above 0")


class Http:
    """The client of one node."""

    settings = Settings

    def __init__(self) -> None:
        self._settings = Settings()
        self._library: ModuleType | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self, settings: Settings) -> None:
        """Take the settings; the client is made when it is first used."""
        self._settings = settings

    async def close(self) -> None:
        """Close the client."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @directive
    async def execute(self, work: Work) -> AsyncIterator[dict[str, object] | bytes]:
        """Make the request `{"url", "method", "headers", "body"}`, of which only `url` is needed.

        The first reply is `{"status", "reason", "url", "headers"}`, whatever the status; the body follows as it comes
        in, decompressed, in replies of up to 64 KiB. Raises ValueError for a payload that is no such request,
        RemoteError if aiohttp is not installed, and what aiohttp raises if there is no answer.
        """
        request = _request(work)
        body = None if request.body is None else request.body.encode()
        library, session = await self._client()
        connect, silence = self._settings.connect_timeout, self._settings.read_timeout
        async with session.request(
            request.method,
            request.url,
            headers=request.headers,
            data=body,
            timeout=library.ClientTimeout(total=None, sock_connect=connect, sock_read=silence),
        ) as response:
            yield {
                "status": response.status,
                "reason": response.reason,
                "url": str(response.url),
                "headers": {name: ", ".join(response.headers.getall(name)) for name in response.headers},
            }
            async for chunk in response.content.iter_chunked(CHUNK):
                yield chunk

    async def _client(self) -> tuple[ModuleType, aiohttp.ClientSession]:
        """aiohttp, and the node's session, both of which are there from the first request on."""
        if self._library is None:
            threads = ThreadPool(1, "zmesh-import")
            try:  # in a thread, because the import takes a good part of a second
                self._library = await threads.call(_import)
            finally:
                threads.close()
        if self._session is None:  # nor has another request made it meanwhile
            self._session = self._library.ClientSession(cookie_jar=self._library.DummyCookieJar())
        return self._library, self._session


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
