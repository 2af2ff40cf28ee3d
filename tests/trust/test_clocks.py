"""The clock of a machine is wrong, or set, while its node runs: over real sockets, with a clock of the test."""

from typing import Any

import zmesh
from tests.membership.conftest import Lab
from tests.trust.clocks import set_clock, turn_clock
from tests.trust.eavesdropping import keyed

DAY = 86460.0
BEHIND = r"the clock of 'edge' is 24 h behind that of 'home'"


async def test_a_node_whose_clock_is_off_by_a_day_links_without_a_restart_as_soon_as_it_is_set(
    lab: Lab, eventually: Any, lines: Any
) -> None:
    home = lab.controller(lab.identity("home", age=3600, peers=False), listen=["tcp://127.0.0.1:0"])
    async with home:
        edge: Any = lab.controller(lab.identity("edge", age=3600, peers=False), peers=[keyed(home)])
        async with edge:
            await edge.wait_for("home", 90)
            await set_clock(edge, -DAY, eventually)
            assert any("set back by 24 h" in line for line in lines("edge"))
            await eventually(lambda: "home" not in edge.nodes())
            await eventually(lambda: any(BEHIND in line for line in lines("edge")))
            await eventually(lambda: any(BEHIND in line for line in lines("home")))
            await set_clock(edge, 0.0, eventually)
            await edge.wait_for("home", 90)
            assert (await edge.request("home", "echo:echo", "hello")).text() == "hello"


async def test_a_node_that_starts_with_a_wrong_clock_is_refused_by_name_until_it_is_set(
    lab: Lab, eventually: Any, lines: Any
) -> None:
    home: Any = lab.controller(lab.identity("home", age=3600, peers=False), listen=["tcp://127.0.0.1:0"])
    async with home:
        turn_clock(home, 400 * DAY)
        async with lab.controller(lab.identity("edge", age=3600, peers=False), peers=[keyed(home)]) as edge:
            text = "the clock of 'home' is 13 months ahead of that of 'edge'"
            await eventually(lambda: any(text in line for line in lines("edge")))
            await eventually(lambda: any(text in line for line in lines("home")))
            assert "home" not in edge.nodes()
            turn_clock(home, 0.0)
            await edge.wait_for("home", 90)


async def test_a_clock_that_is_set_is_an_event_and_what_is_due_by_it_is_done_at_once(lab: Lab, eventually: Any) -> None:
    home = lab.controller(lab.identity("home", age=3600, peers=False), listen=["tcp://127.0.0.1:0"])
    async with home, lab.controller(lab.identity("edge", age=3600, peers=False), peers=[keyed(home)]) as edge:
        events: list[Any] = []
        edge.watch(events.append)
        await edge.wait_for("home", 90)
        await set_clock(edge, 80 * DAY, eventually)
        await eventually(lambda: any(isinstance(event, zmesh.CertificateExpiring) for event in events))
    (event,) = (event for event in events if isinstance(event, zmesh.ClockSet))
    assert event.node == "edge"
    assert event.text == "the clock of this machine was set ahead by 2 months, or the machine was suspended for as long"
