"""Access control of the dashboard: only a browser on this machine that has the token, and a policy for its pages."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_BYTES = 24
HOSTS = frozenset(("127.0.0.1", "localhost", "[::1]"))
"""Names that a browser may know this server by; any other is a name that was pointed here (DNS rebinding)."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
_PUBLIC = "/static/"
"""The paths that are served without the token: they show nothing of the mesh."""


class Guard:
    """Lets requests through to an application, or refuses them; `refused` counts those."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.refused = 0
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http":
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, secured)
            return
        self.refused += 1
        status, text = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
        await secured({"type": "http.response.start", "status": status, "headers": headers})
        await secured({"type": "http.response.body", "body": f"{text}\n".encode()})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason of a refusal; None for what is let through."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in HOSTS:
            return 421, f"the dashboard is not at {name!r}: open it as http://127.0.0.1"
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "the dashboard shows, and changes nothing: GET alone"
        if headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin") and scope["path"] != "/":
            return 403, "another page asks for this"
        if scope["path"].startswith(_PUBLIC) or self._has_token(scope, headers):
            return None
        return 403, "no token, or a wrong one: open the URL that 'zmesh dashboard' has printed"

    def _has_token(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0].encode()
        if not given:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            given = given if scheme.lower() == b"bearer" else b""
        return secrets.compare_digest(given, self._token)
