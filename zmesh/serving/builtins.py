"""The built-in directives, which every node answers itself: `zmesh:ping`, `zmesh:routes` and `zmesh:cancel`.

They are not work: they are not listed as such, do not count against `max_work`, and run on the loop at once.
"""

from __future__ import annotations

import asyncio
import time

from zmesh.arguments import parse_message_id
from zmesh.observe import Route, Router
from zmesh.serving.serving import Serving
from zmesh.serving.work import Work

PING = "zmesh:ping"
ROUTES = "zmesh:routes"
CANCEL = "zmesh:cancel"

SIMILARITY = 0.8
"""The share of its digits in which an unknown message id must agree with another one for that to be suggested."""

MAX_LISTED_WORK = 1_000
"""Maximum number of requests in the answer to a ping, in order of start; the others are only counted."""


class Builtins:
    """The built-in directives of one node."""

    def __init__(self, router: Router, serving: Serving) -> None:
        self._router = router
        self._serving = serving
        serving.add_builtin(PING, self._pong)
        serving.add_builtin(ROUTES, lambda work: self.tables())
        serving.add_builtin(CANCEL, self._cancel)

    def tables(self) -> dict[str, object]:
        """This node's routes, and the edges, capabilities, duplicate ids and tags that it knows of, as JSON values."""
        router = self._router
        return {
            "node": router.node_id,
            "routes": [_shown(route) for route in router.routes()],
            "edges": [list(edge) for edge in router.get_edges()],
            "capabilities": router.node_capabilities(),
            "duplicates": router.duplicates(),
            "tags": {
                node: {"certified": list(tags.certified), "own": list(tags.own)} for node, tags in router.tags().items()
            },
        }

    def _pong(self, work: Work) -> object:
        asked = work.payload.json() if work.payload else {}
        initial = asked.get("initial_time") if isinstance(asked, dict) else None
        runner = self._serving.runner
        answer = {
            "initial_time": initial,
            "response_time": stamp(time.time()),
            "active_work": runner.active(MAX_LISTED_WORK),
        }
        if len(runner) > MAX_LISTED_WORK:
            answer["active_work_omitted"] = len(runner) - MAX_LISTED_WORK
        return answer

    def _cancel(self, work: Work) -> object:
        """Cancel the request that the payload names; the answer is sent when its work has ended."""
        asked = work.payload.json()
        named = asked.get("message_id") if isinstance(asked, dict) else None
        message_id = parse_message_id(named) if isinstance(named, (str, int)) else None
        if message_id is None:
            raise ValueError(f'{CANCEL} takes {{"message_id": "32 hex digits"}}, not {asked!r}')
        answer: dict[str, object] = {"node": self._router.node_id, "message_id": message_id, "cancelled": False}
        request = self._serving.find(int(message_id, 16))
        if request is None:
            return {**answer, "near": self._serving.similar_ids(int(message_id, 16), SIMILARITY)}
        answer |= {"message_id": request.message_id, "directive": request.directive, "sender": request.sender}
        answer["cancelled"] = True
        later = asyncio.get_running_loop().create_future()

        def ended() -> None:
            if not later.done():
                later.set_result(answer)

        self._serving.cancel(request, work.sender, ended)
        return later


def stamp(seconds: float) -> dict[str, object]:
    """A time as the answer to a ping carries it, in Receptor's form; `seconds` since 1970."""
    return {"_type": "datetime.datetime", "value": seconds}


def _shown(route: Route) -> dict[str, object]:
    return {
        "destination": route.destination,
        "next_hop": route.next_hop,
        "metric": route.metric,
        "hops": route.hops,
        "rtt_ms": None if route.rtt is None else round(1000 * route.rtt, 3),
        "age_s": round(route.age, 3),
        "why": route.why,
    }
