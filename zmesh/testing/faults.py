"""The faults that may strike a mesh, by name, each with the numbers that a seed draws for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from zmesh.testing.scenario import Scenario
    from zmesh.testing.simwire import Wire

T = TypeVar("T")

COSTS = (1, 50, 100, 100, 300)
SECONDS = (0.02, 0.2, 1.0, 2.5, 6.0, 12.0)
LAGS = (0.0, 0.01, 0.1, 1.0)
BANDWIDTHS = (5_000.0, 50_000.0, 500_000.0)
DRIFTS = (0.0, 0.0001, -0.0002, 0.01, -0.01)
JUMPS = (0.1, 1.0, 2.5, 4.0, 40.0, 200.0)
WALL_JUMPS = (-1e8, -3600.0, -1.0, 1.0, 3600.0, 1e8)

Fault = Callable[["Scenario", random.Random], object]


def _wire(mesh: Scenario, rng: random.Random) -> Wire:
    return rng.choice(mesh.wires)


def _direction(rng: random.Random) -> int | None:
    return rng.choice((None, None, 0, 1))


FAULTS: dict[str, Fault] = {
    "cut": lambda mesh, rng: mesh.cut(_wire(mesh, rng)),
    "cut late": lambda mesh, rng: mesh.cut(_wire(mesh, rng), (rng.choice(LAGS), rng.choice(LAGS))),
    "reconnect": lambda mesh, rng: mesh.reconnect(_wire(mesh, rng), rng.choice(LAGS)),
    "swallow": lambda mesh, rng: mesh.swallow(_wire(mesh, rng), rng.choice(SECONDS)),
    "down": lambda mesh, rng: mesh.down(_wire(mesh, rng), rng.choice(SECONDS)),
    "flap": lambda mesh, rng: mesh.flap(_wire(mesh, rng), rng.randint(2, 6), rng.choice((0.1, 0.3, 0.5, 1.2))),
    "lossy": lambda mesh, rng: mesh.lossy(_wire(mesh, rng), rng.choice(SECONDS), direction=_direction(rng)),
    "silent": lambda mesh, rng: mesh.silent(_wire(mesh, rng), rng.choice(SECONDS), direction=_direction(rng)),
    "late": lambda mesh, rng: mesh.late(_wire(mesh, rng), rng.choice(SECONDS), direction=_direction(rng)),
    "narrow": lambda mesh, rng: mesh.narrow(
        _wire(mesh, rng), rng.choice(SECONDS), rng.choice(BANDWIDTHS), direction=_direction(rng)
    ),
    "copied": lambda mesh, rng: mesh.copied(_wire(mesh, rng), rng.choice(SECONDS)),
    "slower": lambda mesh, rng: mesh.slower(_wire(mesh, rng), mesh._delay()),
    "reprice": lambda mesh, rng: mesh.reprice(_wire(mesh, rng), rng.choice(COSTS)),
    "part": lambda mesh, rng: mesh.part(
        {str(each.id) for each in mesh.nodes if rng.random() < 0.5}, rng.choice(SECONDS)
    ),
    "storm": lambda mesh, rng: mesh.storm(rng.choice(mesh.nodes), rng.choice(SECONDS)),
    "restart": lambda mesh, rng: mesh.restart(rng.choice(mesh.everybody), forgetful=rng.random() < 0.5),
    "kill": lambda mesh, rng: mesh.kill(rng.choice(mesh.everybody), rng.choice(SECONDS), forgetful=rng.random() < 0.5),
    "lose power": lambda mesh, rng: mesh.kill(rng.choice(mesh.everybody), rng.choice(SECONDS), power=False),
    "blackout": lambda mesh, rng: mesh.blackout(rng.choice(mesh.nodes), rng.choice(SECONDS)),
    "leave": lambda mesh, rng: mesh.leave(rng.choice(mesh.everybody), rng.choice(SECONDS)),
    "hang": lambda mesh, rng: mesh.hang(rng.choice(mesh.everybody), rng.choice(SECONDS)),
    "freeze": lambda mesh, rng: mesh.freeze(rng.choice(mesh.everybody), rng.choice(SECONDS), first=rng.random() < 0.5),
    "suspend": lambda mesh, rng: mesh.freeze(
        rng.choice(mesh.everybody), rng.choice(SECONDS), suspend=True, first=rng.random() < 0.5
    ),
    "set forward": lambda mesh, rng: mesh.set_forward(rng.choice(mesh.everybody), rng.choice(JUMPS)),
    "set wall": lambda mesh, rng: mesh.set_wall(rng.choice(mesh.everybody), rng.choice(WALL_JUMPS)),
    "drift": lambda mesh, rng: mesh.drift(rng.choice(mesh.everybody), rng.choice(DRIFTS)),
    "leaf": lambda mesh, rng: mesh.leaf(rng.choice(mesh.nodes), rng.choice(SECONDS)),
    "twin": lambda mesh, rng: (
        mesh.twin(rng.choice(mesh.nodes), rng.choice(mesh.nodes), rng.choice(SECONDS)) if mesh.twins else None
    ),
    "liar": lambda mesh, rng: mesh.liar(
        rng.sample(mesh.nodes, rng.randint(1, min(3, len(mesh.nodes)))), rng.choice(SECONDS), some(mesh.lies, rng)
    ),
}
"""The faults by name, with the numbers that the seed draws."""


def some(all: Collection[T], rng: random.Random) -> list[T]:
    """Some of these, or one at least; all of them now and then."""
    if rng.random() < 0.1:
        return list(all)
    return [each for each in all if rng.random() < 0.5] or [rng.choice(list(all))]
