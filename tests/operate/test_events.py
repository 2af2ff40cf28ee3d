"""The events of a node: which there are, how many are kept, that they survive a restart, and who follows them."""

import asyncio
import dataclasses
import math
import sqlite3

import pytest

import zmesh
import zmesh.sync
from zmesh.core.effects import Report
from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.operate import event_log
from zmesh.operate.directives import EVENTS
from zmesh.operate.event_log import EventLog, _Follower
from zmesh.operate.event_store import FILE, EventStore
from zmesh.operate.node_event import MAX_TEXT, NodeEvent
from zmesh.serving import Directives
from zmesh.testing import Mesh
from zmesh.trust import init


def nowhere(link):
    return f"tcp://10.0.0.{link}:7323?key=x", True


def new_log(folder=None, **options):
    return EventLog("a", folder, Directives(), DEFAULT_LIMITS, **options)


def texts(log):
    return [event.text for event in log._events]


async def seen(mesh, node, **options):
    return [event async for event in mesh.events_of(node, **options)]


def kinds(events):
    return [event.kind for event in events]


# --- what is an event -------------------------------------------------------------------------------------------------


def test_a_link_names_where_it_was_when_it_came_and_when_it_went():
    log = new_log(clock=lambda: 1000.0)
    log.note(Report("link_up", "b", 1), nowhere)
    log.note(Report("link_lost", "b", 1, "silent for 3 s"), lambda link: ("", False))
    assert texts(log) == [
        "linked with b at tcp://10.0.0.1:7323",
        "lost the link with b at tcp://10.0.0.1:7323: silent for 3 s",
    ]
    assert log._events[0] == NodeEvent(1, 1000.0, "link_up", "b", "tcp://10.0.0.1:7323", texts(log)[0])


def test_leaves_and_details_are_no_events_and_a_reason_is_one_until_there_is_a_link():
    log = new_log()
    log.note(Report("link_up", "cli-1", 1, "leaf"), nowhere)
    log.note(Report("link_lost", "cli-1", 1, "they left"), nowhere)
    log.note(Report("frame_dropped", None, 1, "garbage"), nowhere)
    failure = Report("dial_failed", None, None, "tcp://10.0.0.2:7323?key=x: connection refused")
    for _ in range(3):
        log.note(failure, nowhere)
    assert texts(log) == ["can't reach tcp://10.0.0.2:7323: connection refused"]
    log.note(Report("link_up", "b", 2), nowhere)
    log.note(failure, nowhere)
    assert len(texts(log)) == 3


def test_a_flood_of_one_kind_leaves_room_for_the_others_and_is_counted():
    log = new_log()
    for number in range(3 * event_log.KEPT):
        log.note(Report("call_refused", None, None, f"refusal {number}"), nowhere)
    assert len(texts(log)) <= event_log.RATE.burst + 60 * event_log.RATE.per_second
    log.note(Report("node_joined", "b"), nowhere)
    assert texts(log)[-1] == "b joined the mesh"
    log._buckets.clear()
    log.note(Report("call_refused", None, None, "x" * 1000), nowhere)
    assert len(texts(log)[-1]) == MAX_TEXT


def test_nothing_is_kept_of_links_that_have_fallen_in_a_flood():
    log = new_log()
    for link in range(1000):
        log.note(Report("link_up", "b", link), nowhere)
        log.note(Report("link_lost", "b", link, "it flaps"), nowhere)
    assert not log._ends


def test_no_more_events_are_kept_than_the_limit():
    log = new_log()
    for number in range(event_log.KEPT + 100):
        log._buckets.clear()
        log.note(Report("node_joined", f"n{number}"), nowhere)
    assert len(log._events) == event_log.KEPT
    assert log._events[-1].number == event_log.KEPT + 100


async def test_a_slow_follower_loses_the_oldest_and_gets_their_number():
    follower = _Follower("b")
    event = NodeEvent(1, 0.0, "node_joined", "b", "", "b joined the mesh")
    fits = [follower.put(dataclasses.replace(event, number=number)) for number in range(event_log.MAX_UNREAD + 7)]
    assert fits.count(False) == follower.lost == 7
    assert (await follower.take())[0].number == 7


# --- on the disk ------------------------------------------------------------------------------------------------------


def stored(folder, kept=10):
    store = EventStore(folder, kept)
    events = store.load()
    store.close()
    return [event.number for event in events]


def written(folder, *numbers, kept=10):
    store = EventStore(folder, kept)
    store.load()
    store.write([NodeEvent(number, 1.0, "node_joined", "b", "", "b joined the mesh") for number in numbers])
    store.close()


def test_events_are_read_again_and_the_oldest_are_removed(tmp_path):
    assert stored(tmp_path) == []
    written(tmp_path, *range(1, 8))
    written(tmp_path, *range(8, 15))
    assert stored(tmp_path) == list(range(5, 15))
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_replaced(tmp_path, caplog):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    assert stored(tmp_path) == []
    assert "events are kept in memory alone" in caplog.text
    written(tmp_path, 1)
    assert stored(tmp_path) == [1]


def test_a_disk_that_fails_costs_a_line_and_nothing_else(tmp_path, caplog):
    store = EventStore(tmp_path, 10)
    store.load()
    store._connection.execute("DROP TABLE event")
    for number in (1, 2):
        store.write([NodeEvent(number, 1.0, "node_joined", "b", "", "")])
    store.close()
    assert caplog.text.count("events are kept in memory alone") == 1
    store.write([NodeEvent(3, 1.0, "node_joined", "b", "", "")])
    (tmp_path / "file").write_text("")
    assert EventStore(tmp_path / "file", 10).load() == []


async def test_events_survive_a_restart_of_the_node_with_their_numbers(tmp_path):
    init("lab", node_id="a", state=tmp_path / "a")
    for _ in range(2):
        async with zmesh.Controller(identity=tmp_path / "a") as mesh:
            mesh.reload(dataclasses.replace(mesh.config, tags=("gpu",)))
            found = await seen(mesh, "a")
    run = ["node_started", "configuration_changed", "node_stopped"]
    assert kinds(found) == [*run, *run[:2]]
    assert [event.number for event in found] == [1, 2, 3, 4, 5]
    with sqlite3.connect(tmp_path / "a" / FILE) as connection:
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (6,)
    connection.close()


# --- over the mesh ----------------------------------------------------------------------------------------------------


async def test_a_node_shows_links_nodes_refusals_and_settings_over_any_number_of_hops(eventually):
    async with Mesh.chain("a", "b", "c", tcp=True, allow={"echo:*": ["nobody"]}) as mesh:
        with pytest.raises(zmesh.NotAllowed):
            await mesh["a"].request("c", "echo:echo", b"")
        mesh["c"].reload(dataclasses.replace(mesh["c"].config, tags=("gpu",)))
        found = await seen(mesh["a"], "c")
        assert {"node_started", "link_up", "node_joined", "call_refused", "configuration_changed"} <= set(kinds(found))
        (refused,) = [event.text for event in found if event.kind == "call_refused"]
        assert '"echo:*" = ["a", "nobody"]' in refused
        assert kinds(await seen(mesh["a"], "c", last=1)) == ["configuration_changed"]
        assert await seen(mesh["a"], "c", since=0.0) == []
        assert len(await seen(mesh["a"], "c", since=3600.0)) == len(found)
        assert EVENTS not in mesh["a"].capabilities()["c"]


async def test_who_follows_a_node_gets_what_happens_until_it_leaves(eventually):
    async with Mesh.star("hub", "a", tcp=True) as mesh:
        events = mesh["a"].events_of("hub", last=0, follow=True)
        first = asyncio.ensure_future(anext(events))
        log = mesh["hub"].node.components.inspection.events
        await eventually(lambda: log._followers)
        mesh["hub"].reload(dataclasses.replace(mesh["hub"].config, tags=("gpu",)))
        assert (await first).text == "settings changed: tags"
        await events.aclose()
        await eventually(lambda: not log._followers)


async def test_more_followers_than_the_limit_are_refused(monkeypatch, eventually):
    monkeypatch.setattr(event_log, "MAX_FOLLOWERS", 1)
    async with Mesh("a") as mesh:
        events = mesh["a"].events_of("a", follow=True)
        await anext(events)
        with pytest.raises(zmesh.NodeOverloaded, match="1 requests follow 'a' already"):
            await seen(mesh["a"], "a", follow=True)
        assert await seen(mesh["a"], "a")
        await events.aclose()


@pytest.mark.parametrize(
    "since", [math.nan, math.inf, -1.0, 10**4300, "1h"], ids=["nan", "inf", "negative", "huge", "text"]
)
async def test_an_age_that_is_none_is_refused_before_anything_is_asked(since):
    async with Mesh("a") as mesh:
        with pytest.raises((zmesh.ConfigError, TypeError), match="since is "):
            await seen(mesh["a"], "a", since=since)


async def test_followers_at_one_node_leave_room_for_one_at_another(monkeypatch):
    monkeypatch.setattr(event_log, "MAX_FOLLOWERS_PER_NODE", 1)
    async with Mesh.star("hub", "a", "b") as mesh:
        following = [mesh[node].events_of("hub", follow=True) for node in ("a", "b")]
        await anext(following[0])
        with pytest.raises(zmesh.NodeOverloaded, match="1 requests of 'a' follow 'hub' already"):
            await seen(mesh["a"], "hub", follow=True)
        await anext(following[1])
        for each in following:
            await each.aclose()


@pytest.mark.parametrize(
    "asked",
    [
        b"[]",
        b'{"since": "x"}',
        b'{"since": NaN}',
        b'{"since": 1' + b"0" * 400 + b"}",
        b'{"last": -1}',
        b'{"last": true}',
        b'{"follow": 1}',
        b"{",
    ],
)
async def test_what_asks_for_something_else_is_an_error(asked):
    async with Mesh("a") as mesh:
        with pytest.raises(zmesh.RemoteError):
            await mesh["a"].request("a", EVENTS, asked)
        with pytest.raises(zmesh.RemoteError, match="bytes at most"):
            await mesh["a"].request("a", EVENTS, bytes(event_log.MAX_ASKED + 1))


async def test_what_happens_to_jobs_is_an_event(tmp_path, eventually):
    init("lab", node_id="a", state=tmp_path / "a")
    async with zmesh.Controller(identity=tmp_path / "a") as mesh:
        job = await mesh.submit("a", "echo:echo", b"x")
        await job.result()
        await eventually(lambda: any("done" in text for text in texts(mesh.node.components.inspection.events)))
        jobs = [event.text for event in await seen(mesh, "a") if event.kind == "job_changed"]
    assert [text.split()[:2] for text in jobs] == [["a", "submits"], ["job", job.id], ["job", job.id]]


def test_a_program_without_asyncio_reads_events():
    with zmesh.sync.Controller(node_id="a") as mesh:
        assert [event.kind for event in mesh.events_of("a")] == ["node_started"]
