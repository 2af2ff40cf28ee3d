"""The directives that every node answers itself, at once and whatever else it does: how it is, what it knows, a cancel.

They are no work: nothing of them is listed as such, no bound on work keeps them out, and no plugin is asked.
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


LIKENESS = 0.8
"""How much of an id must be right for it to be taken for a slip of the pen."""


class Builtins:
    """What one node says of itself when it is asked."""

    def __init__(self, router: Router, serving: Serving) -> None:
        self._router = router
        self._serving = serving
        serving.answer(PING, self._pong)
        serving.answer(ROUTES, lambda work: self.tables())
        serving.answer(CANCEL, self._cancel)

    def tables(self) -> dict[str, object]:
        """This node's routes and what it knows of the mesh, as JSON takes it."""
        router = self._router
        return {
            "node": router.node_id,
            "routes": [_shown(route) for route in router.routes()],
            "edges": [list(edge) for edge in router.get_edges()],
            "capabilities": router.node_capabilities(),
            "duplicates": router.duplicates(),
        }

    def _pong(self, work: Work) -> object:
        asked = work.payload.json() if work.payload else {}
        initial = asked.get("initial_time") if isinstance(asked, dict) else None
        return {
            "initial_time": initial,
            "response_time": stamp(time.time()),
            "active_work": self._serving.runner.active(),
        }

    def _cancel(self, work: Work) -> object:
        """Stop the work that the payload names; the answer comes when it has ended."""
        asked = work.payload.json()
        named = asked.get("message_id") if isinstance(asked, dict) else None
        message_id = parse_message_id(named) if isinstance(named, (str, int)) else None
        if message_id is None:
            raise ValueError(f'{CANCEL} takes {{"message_id": "32 hex digits"}}, not {asked!r}')
        answer: dict[str, object] = {"node": self._router.node_id, "message_id": message_id, "cancelled": False}
        header = self._serving.find(message_id)
        if header is None:
            return {**answer, "near": self._serving.near(message_id, LIKENESS)}
        answer |= {key: header[key] for key in ("message_id", "directive", "sender")}
        answer["cancelled"] = True
        later = asyncio.get_running_loop().create_future()

        def ended() -> None:
            if not later.done():
                later.set_result(answer)

        self._serving.cancel(str(header["message_id"]), work.sender, ended)
        return later


def stamp(seconds: float) -> dict[str, object]:
    """A time as a ping carries it; `seconds` since the epoch."""
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
