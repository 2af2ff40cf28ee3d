"""The web application: the page, its queries, and the stream of updates."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from zmesh.core.message import is_node_id
from zmesh.dashboard.feed import Feed
from zmesh.dashboard.model import MeshModel
from zmesh.dashboard.poller import Poller
from zmesh.dashboard.queries import Busy, Queries
from zmesh.dashboard.source import Source
from zmesh.errors import MeshError, NotAllowed

STATIC = Path(__file__).parent / "static"
WITHIN = 5.0
EVENTS = 100
JOBS = 100
ROUTES = 2_000
"""Routes of one node that are shown."""


class Pages:
    """The endpoints of the page: its files and its queries."""

    def __init__(self, source: Source, model: MeshModel, poller: Poller, feed: Feed) -> None:
        self._source = source
        self._model = model
        self._poller = poller
        self._feed = feed
        self.queries = Queries()

    def application(self) -> Starlette:
        """The application, without a guard before it."""
        node = "/api/nodes/{node}"
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/api/stream", self._feed),
                Route("/api/path", self._answering("path", self._path)),
                Route(node, self._node),
                Route(f"{node}/routes", self._answering("routes", self._routes)),
                Route(f"{node}/why", self._answering("why", self._why)),
                Route(f"{node}/jobs", self._answering("jobs", self._jobs)),
                Route(f"{node}/events", self._answering("events", self._events)),
                Mount("/static", StaticFiles(directory=STATIC)),
            ]
        )

    async def _page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-store"})

    async def _node(self, request: Request) -> Response:
        """The last state of a node, and its time line; while this is asked for, it is asked more often."""
        node = request.path_params["node"]
        row = self._model.nodes.get(node)
        if row is None:
            return _error(404, "unknown_node", f"no node {node!r} is or was here")
        self._poller.watch(node)
        status = self._model.status_of(node)
        lines = [list(one) for one in self._model.lines.of(node)]
        return _json({"row": row, "status": status.to_json() if status is not None else None, "lines": lines})

    def _answering(
        self, name: str, ask: Callable[[Mapping[str, str]], Awaitable[Any]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of a query about nodes."""

        async def endpoint(request: Request) -> Response:
            asked = {**request.path_params, **request.query_params}
            asked.pop("token", None)
            for value in asked.values():
                if not is_node_id(value):
                    return _error(400, "usage", f"{value!r} is not the id of a node")
            try:
                return _json(
                    await self.queries.answer(
                        (name, *(f"{key}={value}" for key, value in sorted(asked.items()))), lambda: ask(asked)
                    )
                )
            except KeyError as error:
                return _error(400, "usage", f"{error.args[0]} is missing")
            except Busy:
                return _error(503, "node_overloaded", "too many queries wait; try again in a moment")
            except NotAllowed as error:
                return _error(403, error.code, str(error))
            except MeshError as error:
                return _error(502, error.code, str(error))
            except TimeoutError:
                return _error(504, "timed_out", f"node {asked.get('node', asked.get('from', ''))!r} does not answer")

        return endpoint

    async def _path(self, asked: Mapping[str, str]) -> Any:
        steps = []
        async with aclosing(self._source.trace(asked["to"], asked["from"], timeout=WITHIN)) as found:
            async for step in found:
                steps.append(step.to_json())
        return {"from": asked["from"], "to": asked["to"], "steps": steps}

    async def _routes(self, asked: Mapping[str, str]) -> Any:
        found = await self._source.members(asked["node"], timeout=WITHIN)
        rows = [
            {
                "node": each.node, "reachable": each.reachable, "next_hop": each.next_hop, "hops": each.hops,
                "cost": each.cost, "rtt": each.rtt,
            }
            for each in found.members
            if each.node != found.node
        ]  # fmt: skip
        return {"node": found.node, "routes": rows[:ROUTES], "omitted": max(0, len(rows) - ROUTES)}

    async def _why(self, asked: Mapping[str, str]) -> Any:
        return (await self._source.why(asked["to"], asked["node"], timeout=WITHIN)).to_json()

    async def _jobs(self, asked: Mapping[str, str]) -> Any:
        found = await self._source.jobs(asked["node"], limit=JOBS, timeout=WITHIN, route_timeout=WITHIN)
        return {"jobs": [each.to_json() for each in found[:JOBS]]}

    async def _events(self, asked: Mapping[str, str]) -> Any:
        async with aclosing(self._source.events_of(asked["node"], last=EVENTS)) as found:
            return {"events": [event.to_json() async for event in found]}


def _json(value: object) -> Response:
    text = json.dumps(value, separators=(",", ":"))
    return Response(text, media_type="application/json", headers={"cache-control": "no-store"})


def _error(status: int, code: str, text: str) -> Response:
    response = _json({"error": {"code": code, "text": text}})
    response.status_code = status
    return response
