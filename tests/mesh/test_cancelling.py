"""Whoever stops waiting for work stops the work, however he does it, and can hear that it has ended."""

import asyncio
import gc
import threading
import time

import pytest

import zmesh
from tests.waiting import nothing_is_kept
from zmesh.arguments import parse_message_id
from zmesh.testing import Mesh, eventually


@pytest.fixture
async def chain():
    """Three nodes; the directives of the last one run until they are stopped, and `ended` lists those that ended."""
    async with Mesh.chain("a", "b", "z", tcp=True) as mesh:
        mesh.ended = ended = []
        mesh.polling = threading.Event()
        mesh.hold = asyncio.Event()

        async def waits(work):
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(work.message_id)

        async def tidies_up(work):
            try:
                await asyncio.Event().wait()
            finally:
                await mesh.hold.wait()
                ended.append(work.message_id)

        async def ticks(work):
            try:
                while True:
                    yield bytes(50_000)
            finally:
                ended.append(work.message_id)

        def polls(work):
            mesh.polling.set()
            while not work.cancelled:
                time.sleep(0.001)
            ended.append(work.message_id)

        for function in (waits, tidies_up, ticks, polls):
            mesh["z"].register(f"z:{function.__name__}", function)
        yield mesh


def at_work(mesh):
    return mesh["z"].node.serving.runner.active()


async def under_way(mesh):
    await eventually(lambda: at_work(mesh))


# --- each way out ---------------------------------------------------------------------------------------------------


async def leave_the_loop(request, started):
    async with request:
        await started()
        async for _ in request:
            break


async def raise_in_the_loop(request, started):
    with pytest.raises(LookupError):
        async with request:
            await started()
            async for _ in request:
                raise LookupError


async def cancel_the_task(request, started):
    task = asyncio.ensure_future(leave_the_loop(request, started))
    await started()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def run_out_of_time(request, started):
    request.send()
    await started()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await request.only_payload()


async def wait_for(request, started):
    request.send()
    await started()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(request.only_payload(), 0.05)


async def say_so(request, started):
    request.send()
    await started()
    request.cancel()


async def leave_the_block(request, started):
    async with request:
        await started()


WAYS = [leave_the_loop, raise_in_the_loop, cancel_the_task, run_out_of_time, wait_for, say_so, leave_the_block]


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_to_stop_waiting_ends_the_work_and_the_canceller_hears_of_it(chain, way):
    quiet = way in (cancel_the_task, run_out_of_time, wait_for)
    request = chain["a"].stream("z", "z:waits" if quiet else "z:ticks")
    await way(request, lambda: under_way(chain))
    error = await request.cancel()
    assert isinstance(error, zmesh.Cancelled)
    assert (error.node, error.message_id) == ("z", request.message_id)
    assert chain.ended == [request.message_id], "it had ended when the canceller heard of it"
    assert at_work(chain) == []
    await nothing_is_kept(chain)


async def ticks(chain):
    async with chain["a"].stream("z", "z:ticks") as replies:
        async for reply in replies:
            yield reply


async def test_a_request_whose_task_is_cancelled_ends_the_work(chain):
    task = asyncio.create_task(chain["a"].request("z", "z:waits"))
    await under_way(chain)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: chain.ended)
    await nothing_is_kept(chain)


async def test_a_request_that_is_dropped_while_it_waits_is_cancelled(chain):
    waiting = chain["a"].request("z", "z:waits")
    waiting.send(None)
    await under_way(chain)
    waiting.close()
    await eventually(lambda: chain.ended)
    await nothing_is_kept(chain)


async def test_a_stream_that_is_dropped_in_the_middle_of_its_replies_is_cancelled(chain):
    replies = ticks(chain)
    await anext(replies)
    del replies
    gc.collect()
    await eventually(lambda: chain.ended)
    await nothing_is_kept(chain)


async def test_replies_that_another_thread_drops_are_cancelled_too(chain):
    replies = [ticks(chain)]
    await anext(replies[0])
    thread = threading.Thread(target=replies.clear)
    thread.start()
    await asyncio.to_thread(thread.join)
    await eventually(lambda: chain.ended)
    await nothing_is_kept(chain)


async def test_closing_a_generator_over_the_replies_waits_for_the_end(chain):
    replies = ticks(chain)
    await anext(replies)
    await replies.aclose()
    assert len(chain.ended) == 1
    await replies.aclose()


async def test_a_block_ends_when_the_work_has(chain):
    async with chain["a"].stream("z", "z:tidies_up") as request:
        await under_way(chain)
        left = asyncio.ensure_future(request.__aexit__(None, None, None))
        await eventually(lambda: next(iter(chain["z"].node.serving.runner._active.values())).work.cancelled)
        await chain["a"].ping_once("z")
        assert not left.done()
        chain.hold.set()
        await left
        assert chain.ended == [request.message_id]


async def test_a_block_whose_request_was_taken_to_its_end_cancels_nothing(chain):
    async with chain["a"].stream("z", "echo:echo", b"x") as request:
        assert [reply.payload.text() async for reply in request] == ["x"]
    assert await request.cancel() is None


async def test_replies_that_were_not_taken_do_not_keep_the_end_from_coming(chain):
    """The window is shut and the queues are full when the request is cancelled; the final word comes behind them."""
    request = chain["a"].stream("z", "z:ticks").send()
    await under_way(chain)
    service = chain["z"].node.engine.delivery.server.get(bytes.fromhex(request.message_id))
    await eventually(lambda: service.outbound.unsent_bytes > 100_000)
    async with asyncio.timeout(60):
        assert isinstance(await request.cancel(), zmesh.Cancelled)
    assert chain.ended == [request.message_id]


async def test_after_cancel_the_replies_that_are_there_can_still_be_taken(chain):
    request = chain["a"].stream("z", "z:ticks").send()
    await anext(request)
    request.cancel()
    with pytest.raises(zmesh.Cancelled):
        while True:
            assert len((await anext(request)).payload) == 50_000
    assert chain.ended == [request.message_id]


# --- what is over, twice, or never arrived --------------------------------------------------------------------------


async def test_cancelling_twice_and_what_is_over_is_harmless(chain):
    request = chain["a"].stream("z", "z:waits").send()
    await under_way(chain)
    ends = await asyncio.gather(request.cancel(), request.cancel(), request.finished())
    assert [type(error) for error in ends] == [zmesh.Cancelled] * 3
    assert isinstance(await request.cancel(), zmesh.Cancelled)
    done = chain["a"].stream("z", "echo:echo", b"x").send()
    await done.only_payload()
    assert await done.cancel() is None
    failed = chain["a"].stream("z", "z:nothing").send()
    with pytest.raises(zmesh.UnknownDirective):
        await failed.only_payload()
    assert isinstance(await failed.cancel(), zmesh.UnknownDirective)
    assert chain.ended == [request.message_id]


async def test_cancelling_what_never_left_ends_it_at_once(chain):
    request = chain["a"].stream("nobody", "echo:echo").send()
    error = await request.cancel()
    assert str(error) == "cancelled; it had not reached 'nobody'"


async def test_a_leaf_that_cancels_what_never_arrived_waits_for_nobody(chain):
    chain["a"].enable_server(["tcp://127.0.0.1:*"])
    config = zmesh.Config(node_id="leaf", peers=[chain["a"].listening[-1]], ephemeral=True)
    async with zmesh.Controller(config) as leaf, asyncio.timeout(60):
        request = leaf.stream("nobody", "echo:echo").send()
        await leaf.ping_once("a")
        assert "it had not reached 'nobody'" in str(await request.cancel())


async def test_the_end_of_a_stream_comes_again_when_it_is_asked_for_again(chain):
    async with chain["a"].stream("z", "z:nothing") as replies:
        for _ in range(2):
            with pytest.raises(zmesh.UnknownDirective):
                await anext(replies)


async def test_a_request_with_more_than_one_reply_raises_what_tells_which_and_stops_the_work(chain):
    request = chain["a"].stream("z", "z:ticks").send()
    with pytest.raises(zmesh.TooManyReplies, match="node 'z' sent more than one reply; use `stream`") as raised:
        await request.only_payload()
    assert (raised.value.code, raised.value.node) == ("too_many_replies", "z")
    assert raised.value.message_id == request.message_id
    await request.cancel()
    assert chain.ended == [request.message_id]


async def test_two_tasks_do_not_wait_for_the_replies_of_one_request(chain):
    request = chain["a"].stream("z", "z:waits").send()
    first = asyncio.ensure_future(wait_quietly(request.only_payload()))
    await under_way(chain)
    with pytest.raises(RuntimeError, match="another task"):
        await request.only_payload()
    await request.cancel()
    assert isinstance(await first, zmesh.Cancelled)


async def wait_quietly(waiting):
    try:
        await waiting
    except zmesh.MeshError as error:
        return error
    return None


# --- from elsewhere -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["waits", "ticks", "polls"])
async def test_another_node_cancels_work_by_its_id_and_hears_that_it_has_ended(chain, kind):
    request = chain["a"].stream("z", f"z:{kind}").send()
    await under_way(chain)
    await eventually(lambda: kind != "polls" or chain.polling.is_set())
    assert await chain["b"].cancel_at("z", request.message_id)
    assert chain.ended == [request.message_id]
    with pytest.raises(zmesh.Cancelled, match=f"node 'z': z:{kind} was cancelled by 'b'"):
        async for _ in request:
            pass
    assert not await chain["b"].cancel_at("z", request.message_id), "it is over"
    await nothing_is_kept(chain)


async def test_the_number_that_a_ping_lists_and_the_id_of_a_reply_name_the_work_as_well(chain):
    request = chain["a"].stream("z", "z:waits").send()
    await under_way(chain)
    (work,) = (await chain["b"].ping_once("z")).active_work
    assert await chain["b"].cancel_at("z", work.id)
    with pytest.raises(zmesh.Cancelled):
        await request.only_payload()
    replies = chain["a"].stream("z", "z:ticks").send()
    reply = await anext(replies)
    assert await chain["z"].cancel_at("z", reply.header["message_id"])
    with pytest.raises(zmesh.Cancelled, match="by 'z'"):
        while True:
            await anext(replies)


async def test_the_answer_waits_for_the_work(chain):
    request = chain["a"].stream("z", "z:tidies_up").send()
    await under_way(chain)
    first = asyncio.ensure_future(chain["b"].cancel_at("z", request.message_id))
    second = asyncio.ensure_future(chain["a"].cancel_at("z", request.message_id))
    await eventually(lambda: next(iter(chain["z"].node.serving.runner._active.values())).work.cancelled)
    await chain["b"].ping_once("z")
    assert not first.done()
    chain.hold.set()
    assert await first
    assert await second
    assert chain.ended == [request.message_id]
    with pytest.raises(zmesh.Cancelled, match="by 'b'"):
        await request.only_payload()


async def test_who_waits_for_a_cancel_may_give_up_waiting(chain):
    request = chain["a"].stream("z", "z:tidies_up").send()
    await under_way(chain)
    with pytest.raises(zmesh.TimedOut):
        await chain["b"].cancel_at("z", request.message_id, timeout=0.1)
    chain.hold.set()
    with pytest.raises(zmesh.Cancelled):
        await request.only_payload()
    await nothing_is_kept(chain)


async def test_work_whose_payload_is_still_arriving_is_cancelled_before_it_begins(chain):
    async def endless():
        while True:
            yield bytes(50_000)

    request = chain["a"].stream("z", "echo:echo", endless()).send()
    await eventually(lambda: len(chain["z"].node.serving))
    assert await chain["b"].cancel_at("z", request.message_id)
    with pytest.raises(zmesh.Cancelled, match="before all of its payload had come, by 'b'"):
        await request.only_payload()


async def test_work_that_nobody_waits_for_can_be_cancelled_all_the_same(chain):
    message_id = await chain["a"].send(b"", "z", "z:waits", expect_response=False)
    await under_way(chain)
    assert await chain["b"].cancel_at("z", message_id)
    assert chain.ended == [message_id]


async def test_a_node_that_runs_all_that_it_may_can_still_stop_some_of_it():
    async with Mesh.chain("a", "z", max_work=1) as mesh:
        request = mesh["a"].stream("z", "sleep:execute", "60").send()
        await eventually(lambda: mesh["z"].node.serving.runner.active())
        assert await mesh["a"].cancel_at("z", request.message_id)
        with pytest.raises(zmesh.Cancelled):
            await request.only_payload()


def sleep_for_long(work):
    time.sleep(3600)


async def test_work_in_a_process_of_its_own_is_cancelled_from_elsewhere_too(chain):
    chain["z"].register("z:isolated", sleep_for_long, isolate=True)
    request = chain["a"].stream("z", "z:isolated").send()
    await under_way(chain)
    assert await chain["b"].cancel_at("z", request.message_id)
    assert at_work(chain) == []
    with pytest.raises(zmesh.Cancelled, match="z:isolated was cancelled by 'b'"):
        await request.only_payload()


async def test_what_is_no_message_id_is_refused_here_and_there(chain):
    with pytest.raises(zmesh.ConfigError, match="'work' is no message id: 32 hex digits, or the number"):
        await chain["a"].cancel_at("z", "work")
    for payload in (None, "work", {"message_id": "work"}, {"message_id": None}, [1]):
        with pytest.raises(zmesh.RemoteError, match="ValueError|JSONDecodeError"):
            await chain["a"].request("z", "zmesh:cancel", payload)


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("AB" * 16, "ab" * 16),
        ("1" * 32, "1" * 32),
        ("17", f"{17:032x}"),
        (17, f"{17:032x}"),
        ((1 << 128) - 1, "f" * 32),
        (10**31, f"{10**31:032x}"),
        (1 << 128, None),
        (-1, None),
        (True, None),
        ("", None),
        (" 17", None),
        ("1_7", None),
        ("\u0661", None),
        ("0x" + "1" * 30, None),
        ("1" * 40, None),
    ],
)
def test_a_message_id_is_read_in_both_of_its_forms(word, named):
    assert parse_message_id(word) == named


async def test_a_node_that_answers_a_cancel_with_something_else_is_an_error(chain):
    chain["z"].node.serving.add_builtin("zmesh:cancel", lambda work: ["what?"])
    with pytest.raises(zmesh.RemoteError, match="node 'z' answers a cancel with something else"):
        await chain["b"].cancel_at("z", "0" * 32)


async def test_an_id_that_is_nearly_right_is_pointed_out(chain):
    request = chain["a"].stream("z", "z:waits").send()
    await under_way(chain)
    wrong = request.message_id[:-1] + ("0" if request.message_id[-1] != "0" else "1")
    wrong = f"{int(wrong, 16) ^ (1 << 100):032x}"
    answer = (await chain["b"].request("z", "zmesh:cancel", {"message_id": wrong})).json()
    assert answer == {"node": "z", "message_id": wrong, "cancelled": False, "near": [request.message_id]}
    await request.cancel()


async def test_closing_a_node_that_waits_for_work_to_end_is_no_trouble(chain):
    request = chain["a"].stream("z", "z:tidies_up").send()
    await under_way(chain)
    waiting = asyncio.ensure_future(wait_quietly(chain["b"].request("z", "zmesh:cancel", {"message_id": "0" * 32})))
    cancelling = asyncio.ensure_future(chain["b"].cancel_at("z", request.message_id, timeout=60))
    await eventually(lambda: next(iter(chain["z"].node.serving.runner._active.values())).work.cancelled)
    assert await waiting is None
    asyncio.get_running_loop().call_later(0.1, chain.hold.set)
    await chain.remove("z")
    outcome = (await asyncio.gather(cancelling, return_exceptions=True))[0]
    assert outcome is True or isinstance(outcome, zmesh.ExchangeError)
    with pytest.raises(zmesh.Cancelled):
        await request.only_payload()
