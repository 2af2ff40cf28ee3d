"""The guide, second part: sending work, awaited or not, and when `run` comes back."""

import asyncio
import re
import threading
import time

import pytest

import zmesh as receptor
from zmesh.testing import eventually

MESSAGE_ID = re.compile(r"[0-9a-f]{32}\Z")


@pytest.fixture
def controller(depot):
    """A controller that knows the way to the depot and is not running yet."""
    controller = receptor.Controller(receptor.ReceptorConfig(node_id="ctl"))
    controller.add_peer(depot.url)
    yield controller
    controller.loop.close()


async def nothing():
    pass


# --- awaited or not -------------------------------------------------------------------------------------------------


def test_send_gives_the_id_that_the_replies_refer_to(controller):
    replies = []

    async def main():
        return await controller.send(
            payload={"crates": 12}, recipient="depot", directive="depot:store", response_handler=replies.append
        )

    message_id = controller.run(main)
    assert MESSAGE_ID.match(message_id)
    assert [reply.header["in_response_to"] for reply in replies] == [message_id, message_id]


def test_two_messages_have_two_ids(controller):
    async def main():
        return {await controller.send("x", "depot", "depot:store") for _ in range(100)}

    assert len(controller.run(main)) == 100


def test_what_is_sent_by_run_s_own_coroutine_arrives_awaited_or_not(controller, depot):
    async def main():
        await controller.send("awaited", "depot", "depot:store")
        controller.send("left alone", "depot", "depot:store")

    controller.run(main)
    assert sorted(depot.kept(2)) == [b"awaited", b"left alone"]


def test_what_is_sent_by_a_task_arrives_awaited_or_not(controller, depot):
    async def worker(name):
        await controller.send(f"{name} awaited", "depot", "depot:store")
        controller.send(f"{name} left alone", "depot", "depot:store")

    async def main():
        await asyncio.gather(*(asyncio.create_task(worker(name)) for name in "ab"))

    controller.run(main)
    assert sorted(depot.kept(4)) == [b"a awaited", b"a left alone", b"b awaited", b"b left alone"]


def test_what_is_sent_by_a_callback_of_the_loop_arrives(controller, depot):
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: controller.send("soon", "depot", "depot:store"))
        loop.call_later(0.02, controller.send, "later", "depot", "depot:store")
        await eventually(lambda: len(depot.stored) == 2)

    controller.run(main)
    assert sorted(depot.kept(2)) == [b"later", b"soon"]


def test_what_is_sent_by_a_plain_response_handler_arrives(controller, depot):
    def again(message):
        if message.payload:
            controller.send(b"2nd: " + message.payload.readall(), "depot", "depot:store")

    controller.run(send_one(controller, again))
    assert depot.kept(2) == [b"first", b"2nd: stored 5 bytes"]


def test_what_is_sent_by_an_async_response_handler_arrives(controller, depot):
    async def again(message):
        if message.payload:
            await asyncio.sleep(0)
            await controller.send(b"2nd: " + message.payload.readall(), "depot", "depot:store")

    controller.run(send_one(controller, again))
    assert depot.kept(2) == [b"first", b"2nd: stored 5 bytes"]


def send_one(controller, handler):
    async def main():
        controller.send("first", "depot", "depot:store", response_handler=handler)

    return main


def test_what_is_sent_by_another_thread_arrives(controller, depot):
    async def main():
        thread = threading.Thread(target=controller.send, args=("from a thread", "depot", "depot:store"))
        thread.start()
        await asyncio.to_thread(thread.join)

    controller.run(main)
    assert depot.kept(1) == [b"from a thread"]


def test_what_is_sent_before_run_arrives(controller, depot):
    controller.send("too eager", "depot", "depot:store")
    controller.run(nothing)
    assert depot.kept(1) == [b"too eager"]


def test_the_arguments_of_send_have_the_names_and_the_order_of_the_guide(controller, depot):
    replies = []

    async def main():
        controller.send("by place", "depot", "depot:store", replies.append)
        controller.send(response_handler=replies.append, directive="depot:store", recipient="depot", payload="by name")

    controller.run(main)
    assert sorted(depot.kept(2)) == [b"by name", b"by place"]
    assert len(replies) == 4


@pytest.mark.parametrize(
    ("payload", "recipient", "directive", "error"),
    [
        (object(), "depot", "depot:store", TypeError),
        ({"a": object()}, "depot", "depot:store", TypeError),
        ("x", "", "depot:store", receptor.ConfigError),
        ("x", "depot", "store", receptor.ConfigError),
    ],
)
def test_what_can_not_be_sent_is_reported_at_once_and_does_no_harm(
    controller, depot, payload, recipient, directive, error
):
    async def main():
        with pytest.raises(error):
            controller.send(payload, recipient, directive)
        controller.send("after it", "depot", "depot:store")

    controller.run(main)
    assert depot.kept(1) == [b"after it"]


def test_nothing_can_be_sent_once_run_is_over(controller):
    controller.run(nothing)
    with pytest.raises(receptor.Closed):
        controller.send("too late", "depot", "depot:store")


# --- nothing is lost when `run(main)` returns -----------------------------------------------------------------------


def test_a_main_that_never_awaits_loses_nothing(controller, depot):
    async def main():
        for number in range(500):
            controller.send(str(number), "depot", "depot:store")

    controller.run(main)
    assert sorted(map(int, depot.kept(500))) == list(range(500))


def test_a_main_that_never_awaits_gets_all_its_replies(controller):
    replies, ends = [], []

    def keep(message):
        (ends if message.header["eof"] else replies).append(message.payload.readall())

    async def main():
        for number in range(200):
            controller.send(b"x" * number, "depot", "depot:store", response_handler=keep)

    controller.run(main)
    assert sorted(replies) == sorted(b"stored %d bytes" % number for number in range(200))
    assert ends == [b""] * 200


def test_a_large_payload_that_nobody_awaits_is_handed_over_whole(controller, depot, tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 20_000)

    async def main():
        controller.send(path, "depot", "depot:store")
        controller.send((b"%1000d" % number for number in range(1000)), "depot", "depot:store")

    controller.run(main)
    assert sorted(map(len, depot.kept(2))) == [1_000_000, 5_120_000]
    assert path.read_bytes() in depot.stored


def test_what_was_sent_waits_for_a_node_that_is_not_there_yet(elsewhere, free_port):
    """Even when `main` is long over."""
    controller = receptor.Controller(receptor.ReceptorConfig())
    controller.add_peer(f"rnp://127.0.0.1:{free_port}")
    late = []

    def start_later(report):
        if report.event == "dial_failed" and not late:
            late.append(threading.Thread(target=lambda: late.append(elsewhere("late", listen=url))))
            late[0].start()

    url = f"tcp://127.0.0.1:{free_port}"
    controller.receptor.watch(start_later)

    async def main():
        controller.send("patience", "late", "depot:store")

    controller.run(main)
    late[0].join()
    assert late[1].kept(1) == [b"patience"]


@pytest.mark.parametrize("options", [{}, {"expect_response": False}])
def test_work_that_was_handed_over_goes_on_when_run_is_over(controller, depot, options):
    """Nobody waits for its replies; but it was sent to be done."""

    async def main():
        controller.send("a long job", "depot", "depot:store_later", **options)

    controller.run(main)
    depot.eventually(lambda: depot.controller.receptor.router.get_nodes() == ["depot"])
    depot.call(depot.go_on.set)
    assert depot.kept(1) == [b"a long job"]


@pytest.mark.parametrize("options", [{}, {"expect_response": False}])
def test_work_that_was_handed_over_goes_on_however_long_its_sender_has_been_gone(elsewhere, options):
    depot = elsewhere("depot", route_timeout=0.1)
    controller = receptor.Controller(receptor.ReceptorConfig())
    controller.add_peer(depot.url)

    async def main():
        controller.send("a very long job", "depot", "depot:store_later", **options)

    controller.run(main)
    engine = depot.controller.node.engine
    depot.eventually(lambda: engine.stats()["requests_received"] == 0, timeout=60.0)  # it has given the sender up
    depot.call(depot.go_on.set)
    assert depot.kept(1) == [b"a very long job"]


# --- when `run` comes back ------------------------------------------------------------------------------------------


def test_run_waits_for_every_reply_that_a_handler_expects(controller):
    ends = []

    async def main():
        for seconds in ("0.05", "0.4", "0.2"):
            controller.send(seconds, "depot", "sleep:execute", response_handler=ends.append)

    started = time.monotonic()
    controller.run(main)
    assert time.monotonic() - started >= 0.4
    assert [message.payload.json()["seconds"] for message in ends if not message.header["eof"]] == [0.05, 0.2, 0.4]
    assert sum(message.header["eof"] for message in ends) == 3


def test_run_waits_until_an_async_handler_has_done_its_work(controller):
    done = []

    async def slow(message):
        await asyncio.sleep(0.1)
        done.append(message.header["eof"])

    controller.run(send_one(controller, slow))
    assert done == [False, True]


def test_run_waits_for_what_a_handler_sends_in_turn(controller, depot):
    def next_one(message):
        if message.header["eof"] and len(depot.stored) < 5:
            controller.send("more", "depot", "depot:store", response_handler=next_one)

    controller.run(send_one(controller, next_one))
    assert depot.kept(5) == [b"first", *[b"more"] * 4]


def test_run_waits_for_an_expected_reply_no_longer_than_its_timeout(controller):
    ends = []

    async def main():
        controller.send("3600", "depot", "sleep:execute", response_handler=ends.append, timeout=0.3)

    started = time.monotonic()
    controller.run(main)
    assert time.monotonic() - started >= 0.3
    assert [(end.header["eof"], end.header["code"], end.header["reason"]) for end in ends] == [(True, 1, "timed_out")]


def test_run_does_not_wait_for_a_node_that_nobody_has_heard_of_for_ever(depot):
    controller = receptor.Controller(receptor.ReceptorConfig(route_timeout=0.5))
    controller.add_peer(depot.url)
    ends = []

    async def main():
        controller.send("hello?", "depto", "depot:store", response_handler=ends.append)

    started = time.monotonic()
    controller.run(main)
    assert time.monotonic() - started >= 0.5
    assert [end.header["reason"] for end in ends] == ["unreachable"]
    assert "did you mean 'depot'?" in ends[0].header["error"]


@pytest.mark.parametrize("options", [{}, {"expect_response": False}])
def test_run_does_not_wait_for_replies_that_no_handler_expects(controller, depot, options):
    async def main():
        controller.send("3600", "depot", "sleep:execute", **options)

    controller.run(main)
    depot.eventually(lambda: depot.controller.node.telemetry.counts["link_lost"])


def test_replies_without_a_handler_wait_for_recv(controller):
    async def main():
        sent = [await controller.send(text, "depot", "depot:store") for text in ("a", "bb")]
        got = {}
        async for message in controller.recv():
            got.setdefault(message.header["in_response_to"], []).append(message.payload.readall())
            if sum(map(len, got.values())) == 4:
                break
        return sent, got

    sent, got = controller.run(main)
    assert got == {sent[0]: [b"stored 1 bytes", b""], sent[1]: [b"stored 2 bytes", b""]}


# --- tasks made before `run`, and a `run` that goes on --------------------------------------------------------------


def test_run_goes_on_when_the_tasks_that_were_made_before_it_are_done(controller, depot):
    done = []

    async def relay(name):
        await controller.send(name, "depot", "depot:store")
        done.append(name)

    async def watcher(tasks):
        await asyncio.wait(tasks)
        await eventually(lambda: len(depot.stored) == 2)
        await controller.ping_once("depot")  # nothing has ended with them
        done.append("watcher")
        controller.stop()

    tasks = [controller.loop.create_task(relay("one")), controller.loop.create_task(relay("two"))]
    controller.loop.create_task(watcher(tasks))
    controller.run()
    assert done == ["one", "two", "watcher"]
    assert sorted(depot.kept(2)) == [b"one", b"two"]


def test_tasks_that_are_left_when_run_is_over_are_cancelled(controller):
    ended = []

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("left behind")

    controller.loop.create_task(forever())
    controller.run(nothing)
    assert ended == ["left behind"]


def test_run_may_be_given_a_coroutine_as_well(controller, depot):
    async def main(text):
        await controller.send(text, "depot", "depot:store")

    controller.run(main("as it is"))
    assert depot.kept(1) == [b"as it is"]
