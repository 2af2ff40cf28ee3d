"""`zmesh.sync`: the same names for programs without asyncio."""

import asyncio
import gc
import os
import subprocess
import sys
import threading

import pytest

import zmesh
import zmesh.sync
from tests.waiting import WITHIN
from zmesh.observe.events import NodeJoined


@pytest.fixture
def mesh(depot):
    """A controller without asyncio whose peer is `depot`."""
    with zmesh.sync.Controller(zmesh.Config(node_id="ctl", peers=[depot.url])) as controller:
        yield controller


def ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("zmesh ctl")]


def working(depot):
    return depot.call(lambda: [work["directive"] for work in depot.controller.node.serving.runner.active()])


def test_a_request_returns_the_payload_or_raises_what_went_wrong(mesh):
    assert mesh.request("depot", "echo:echo", b"hello").readall() == b"hello"
    assert mesh.request("depot", "depot:count", "0") is None
    with pytest.raises(zmesh.UnknownDirective, match="'depot'") as raised:
        mesh.request("depot", "depot:nothing")
    assert (raised.value.code, raised.value.node) == ("unknown_directive", "depot")
    assert len(raised.value.message_id) == 32
    with pytest.raises(zmesh.TooManyReplies):
        mesh.request("depot", "depot:count", "2")
    with pytest.raises(zmesh.TimedOut):
        mesh.request("depot", "sleep:execute", "60", timeout=0.1)
    with pytest.raises(TypeError, match="a payload can't be object"):
        mesh.request("depot", "echo:echo", object())


def test_the_replies_of_a_request_are_iterated_over(mesh):
    with mesh.stream("depot", "depot:count", "5") as replies:
        assert [(r.header["in_response_to"], r.payload.text()) for r in replies] == [
            (replies.message_id, str(number)) for number in range(5)
        ]
        assert list(replies) == []
        assert replies.cancel() is None, "it was over, and had succeeded"
        assert replies.final.header["code"] == 0
    with pytest.raises(zmesh.UnknownDirective):
        with mesh.stream("depot", "depot:nothing") as replies:
            list(replies)


def test_replies_are_taken_inside_of_the_block(mesh):
    replies = mesh.stream("depot", "depot:count", "1")
    with pytest.raises(RuntimeError, match="inside of the block"):
        next(replies)
    with replies:
        assert [reply.payload.text() for reply in replies] == ["0"]
    with pytest.raises(RuntimeError, match="entered once"):
        replies.__enter__()


def test_a_streamed_reply_is_read_while_it_arrives(mesh):
    sizes = []
    with mesh.stream("depot", "echo:echo", bytes(20_000_000), buffered=False) as replies:
        for reply in replies:
            sizes.append(sum(len(chunk) for chunk in reply.payload))
    assert sizes == [20_000_000]


def test_leaving_the_replies_early_stops_the_work(mesh, depot):
    with mesh.stream("depot", "depot:count", str(10**9)) as replies:
        for _ in replies:
            assert working(depot) == ["depot:count"]
            break
    assert working(depot) == [], "the block ends when the work has"
    assert isinstance(replies.cancel(), zmesh.Cancelled)


def test_many_nodes_are_asked_at_a_time_and_each_has_its_answer(mesh):
    answers = {answer.node: answer for answer in mesh.request_many(["depot", "ctl", "depot"], "echo:echo", b"x")}
    assert {node: answer.payload.text() for node, answer in answers.items()} == {"depot": "x", "ctl": "x"}
    assert {answer.node for answer in mesh.request_many("*,!ctl", "echo:echo")} == {"depot"}


def test_what_is_sent_has_a_message_id_and_is_received_or_handled(mesh):
    message_id = mesh.send("x", "depot", "echo:echo")
    first, last = mesh.recv(), mesh.recv(timeout=90)
    assert (first.header["in_response_to"], first.payload.text()) == (message_id, "x")
    assert last.header["eof"]
    with pytest.raises(zmesh.TimedOut, match="no reply has come to 'ctl' within 0.05 s"):
        mesh.recv(timeout=0.05)
    handled = []
    done = threading.Event()
    mesh.send("y", "depot", "echo:echo", lambda m: done.set() if m.header["eof"] else handled.append(m.payload.text()))
    assert done.wait(WITHIN)
    assert handled == ["y"]


def test_pings_and_cancels(mesh, depot):
    message_id = mesh.send(60, "depot", "sleep:execute")
    depot.eventually(lambda: depot.controller.node.serving.runner.active())
    pong = mesh.ping_once("depot")
    assert [work.id for work in pong.active_work] == [int(message_id, 16)]
    mesh.cancel(message_id)
    assert mesh.recv().header["reason"] == "cancelled"
    mesh.cancel(message_id)
    mesh.send(60, "depot", "sleep:execute")
    depot.eventually(lambda: depot.controller.node.serving.runner.active())
    assert mesh.cancel_at("depot", mesh.ping_once("depot").active_work[0].id)
    assert "by 'ctl'" in mesh.recv().header["error"]
    answer = threading.Event()
    assert len(mesh.ping("depot", lambda message: answer.set())) == 32
    assert answer.wait(WITHIN)


def test_a_request_is_written_while_its_replies_come(mesh):
    with mesh.stream("depot", "echo:stream", "zero", writable=True) as stream:
        assert next(stream).payload.text() == "zero"
        for word in ("one", "two"):
            stream.write(word)
            assert next(stream).payload.text() == word
        stream.end()
        assert list(stream) == []
        with pytest.raises(RuntimeError, match="after `end`"):
            stream.write("three")
    with mesh.stream("depot", "echo:stream", writable=True) as stream:
        stream.write("x")
        assert isinstance(stream.reset(7), zmesh.Cancelled)
        with pytest.raises(zmesh.Cancelled) as raised:
            stream.write("y")
    assert raised.value.reset_code == 7


def test_one_thread_writes_while_another_takes_the_replies(mesh):
    with mesh.stream("depot", "echo:stream", writable=True) as stream:

        def write():
            for number in range(200):
                stream.write(b"%d " % number)
            stream.end()

        writing = threading.Thread(target=write)
        writing.start()
        taken = b"".join(reply.payload.readall() for reply in stream)
        writing.join()
    assert taken.split() == [b"%d" % number for number in range(200)]


def test_the_tables_and_events_of_its_node_can_be_read(depot, elsewhere):
    with zmesh.sync.Controller(zmesh.Config(node_id="ctl")) as mesh, mesh.events() as events:
        mesh.add_peer(depot.url)
        assert any(event == NodeJoined("depot") for event in events)
        mesh.wait_for("depot", WITHIN)
        assert mesh.nodes() == ["ctl", "depot"]
        assert mesh.duplicates() == []
        assert [(route.destination, route.next_hop) for route in mesh.routes()] == [("depot", "depot")]
        assert [(link.node, link.where, link.dialled) for link in mesh.links()] == [("depot", depot.url, True)]
        assert mesh.stats().requests == 0
        with pytest.raises(zmesh.Unreachable, match="'nobody' was never known to 'ctl'"):
            mesh.wait_for("nobody", 0.05)
        assert ("ctl", "depot") in [edge[:2] for edge in mesh.edges()] or mesh.edges() == []
        assert "ctl" in mesh.capabilities()


def test_it_listens_and_offers_directives_before_and_after_it_is_open(elsewhere):
    mesh = zmesh.sync.Controller(zmesh.Config(node_id="ctl"))
    mesh.enable_server(["tcp://127.0.0.1:*"])
    mesh.register("ctl:early", lambda work: threading.current_thread().name)
    assert mesh.listening == []
    with mesh:
        mesh.register("ctl:late", lambda work: "late")
        mesh.enable_server(["tcp://127.0.0.1:*"])
        assert len(mesh.listening) == 2
        assert mesh.request("ctl", "ctl:early").text().startswith("zmesh-work")
        assert mesh.request("ctl", "ctl:late").text() == "late"


def test_many_threads_may_call_at_a_time(mesh):
    answers = {}

    def ask(number):
        for turn in range(20):
            answers[number, turn] = mesh.request("depot", "echo:echo", f"{number} {turn}").text()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {(number, turn): f"{number} {turn}" for number in range(8) for turn in range(20)}


def test_closing_leaves_no_thread_and_ends_those_that_wait(depot):
    mesh = zmesh.sync.Controller(zmesh.Config(node_id="ctl", peers=[depot.url]))
    mesh.open()
    outcomes = []

    def wait(call):
        try:
            call()
        except zmesh.MeshError as error:
            outcomes.append(type(error))

    calls = [lambda: mesh.request("depot", "sleep:execute", "60"), mesh.recv]
    threads = [threading.Thread(target=wait, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    depot.eventually(lambda: depot.controller.node.serving.runner.active())
    assert len(ours()) == 1
    mesh.close()
    for thread in threads:
        thread.join(WITHIN)
    assert sorted(outcomes, key=str) == [zmesh.Cancelled, zmesh.Closed]
    assert ours() == []
    mesh.close()
    for call in (lambda: mesh.request("depot", "echo:echo"), mesh.open, lambda: mesh.stream("depot", "echo:echo")):
        with pytest.raises(zmesh.Closed):
            call()
    depot.eventually(lambda: not depot.controller.node.serving.runner.active())


def test_what_is_not_open_yet_says_so():
    mesh = zmesh.sync.Controller(zmesh.Config(node_id="ctl"))
    with pytest.raises(zmesh.Closed, match="'ctl' is not open yet; call inside of `with"):
        mesh.request("depot", "echo:echo")
    mesh.close()


def test_an_address_that_is_taken_is_reported_and_leaves_no_thread(depot):
    with pytest.raises(zmesh.AddressError, match="in use"):
        with zmesh.sync.Controller(zmesh.Config(node_id="ctl", listen=[depot.url])):
            pytest.fail("it must not be open")
    assert ours() == []


def test_the_end_of_the_block_hands_over_what_was_sent(depot):
    with zmesh.sync.Controller(zmesh.Config(node_id="ctl", peers=[depot.url])) as mesh:
        mesh.send(b"kept", "depot", "depot:store", expect_response=False)
    assert depot.kept(1) == [b"kept"]


def test_the_end_of_the_block_does_not_wait_for_replies_that_nobody_iterates_over(depot):
    with zmesh.sync.Controller(zmesh.Config(node_id="ctl", peers=[depot.url])) as mesh:
        replies = mesh.stream("depot", "depot:count", str(10**9))
        next(replies.__enter__())
    depot.eventually(lambda: not depot.controller.node.serving.runner.active())


def test_a_controller_that_is_forgotten_ends_its_thread(depot):
    mesh = zmesh.sync.Controller(zmesh.Config(node_id="ctl", peers=[depot.url]))
    mesh.open()
    (thread,) = ours()
    del mesh
    gc.collect()
    thread.join(WITHIN)
    assert not thread.is_alive()


async def test_it_works_where_a_loop_runs_that_no_node_lives_in(depot):
    """As in a notebook; the loop stops for as long as a call waits."""
    mesh = zmesh.sync.Controller(zmesh.Config(node_id="ctl", peers=[depot.url]))
    with mesh:
        assert mesh.request("depot", "echo:echo", "cell").text() == "cell"
        with mesh.stream("depot", "depot:count", "2") as replies:
            assert [reply.payload.text() for reply in replies] == ["0", "1"]
        assert [answer.node for answer in mesh.request_many(["depot"], "echo:echo")] == ["depot"]
        mesh.send("kept", "depot", "depot:store")
        assert mesh.recv(WITHIN).payload.text() == "stored 4 bytes"
    assert ours() == []


async def test_it_is_refused_where_a_node_lives_in_the_loop(depot):
    mesh = zmesh.sync.Controller(zmesh.Config(node_id="ctl"))
    async with zmesh.Controller(zmesh.Config(node_id="here")):
        with pytest.raises(RuntimeError, match="use zmesh.Controller with `async with` there"):
            mesh.open()
        await asyncio.to_thread(mesh.open)
        try:
            calls = (lambda: mesh.request("ctl", "echo:echo"), lambda: mesh.send("x", "ctl", "echo:echo"), mesh.close)
            for call in calls:
                with pytest.raises(RuntimeError, match="would stop the event loop"):
                    call()
        finally:
            await asyncio.to_thread(mesh.close)


def test_it_is_refused_in_a_handler(mesh):
    outcome = []
    done = threading.Event()

    def handler(message):
        try:
            mesh.request("depot", "echo:echo")
        except RuntimeError as error:
            outcome.append(str(error))
        done.set()

    mesh.send("x", "depot", "echo:echo", handler)
    assert done.wait(WITHIN)
    assert "a handler is called in such a loop, too" in outcome[0]


FORKED = """
import os, sys, warnings
import zmesh.sync

warnings.simplefilter("ignore", DeprecationWarning)   # of forking where there are threads, which is the matter here
with zmesh.sync.Controller(zmesh.Config(node_id="ctl")) as mesh:
    child = os.fork()
    if child == 0:
        try:
            mesh.request("ctl", "echo:echo", b"x")
        except zmesh.Closed as error:
            print(error, flush=True)
        mesh.close()
        with zmesh.sync.Controller(zmesh.Config(node_id="own")) as own:
            print(own.request("own", "echo:echo", "mine").text(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(mesh.request("ctl", "echo:echo", "still").text())
"""


def test_a_forked_child_has_to_make_its_own(program):
    forked = program(FORKED)
    assert "make a Controller after forking" in forked.line()
    assert forked.line() == "mine"
    assert forked.line() == "still"
    assert forked.end() == 0, forked.stderr


INTERRUPTED = """
import sys
import zmesh.sync

with zmesh.sync.Controller(zmesh.Config(node_id="ctl", peers=[sys.argv[1]])) as mesh:
    mesh.request("depot", "echo:echo", b"x")
    print("ready", flush=True)
    try:
        {call}
    except KeyboardInterrupt:
        print(mesh.request("depot", "echo:echo", b"interrupted").text(), flush=True)
print("closed", flush=True)
"""


@pytest.mark.parametrize(
    "call",
    [
        'mesh.request("depot", "sleep:execute", "60")',
        'list(mesh.stream("depot", "sleep:execute", "60").__enter__())',
        'list(mesh.request_many(["depot"], "sleep:execute", "60"))',
        'mesh.send("60", "depot", "sleep:execute", expect_response=False); mesh.recv()',
    ],
)
def test_ctrl_c_cancels_what_is_waited_for_and_the_mesh_can_be_used_on(program, depot, call):
    running = program(INTERRUPTED.format(call=call), depot.url)
    assert running.line() == "ready"
    depot.eventually(lambda: depot.controller.node.serving.runner.active())
    running.interrupt()
    assert running.line() == "interrupted"
    if "send" not in call:
        depot.eventually(lambda: not depot.controller.node.serving.runner.active())
    assert running.line() == "closed"
    assert running.end() == 0, running.stderr


def test_a_ctrl_c_that_comes_as_soon_as_a_call_is_submitted_cancels_it(depot, monkeypatch):
    """The node's thread may be so quick that the work runs before the calling thread has anything to wait for."""
    active = depot.controller.node.serving.runner.active
    submit = asyncio.run_coroutine_threadsafe

    def interrupted(coroutine, loop):
        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", submit)
        submit(coroutine, loop)
        depot.eventually(active)
        raise KeyboardInterrupt

    with zmesh.sync.Controller(zmesh.Config(node_id="ctl", peers=[depot.url])) as mesh:
        mesh.wait_for("depot")
        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mesh.request("depot", "sleep:execute", "600")
        depot.eventually(lambda: not active())
        assert mesh.request("depot", "echo:echo", b"on").text() == "on"


def test_a_script_that_forgets_to_close_ends_by_itself_and_in_peace(program, depot):
    forgetful = program(
        """
        import sys
        import zmesh.sync

        mesh = zmesh.sync.Controller(zmesh.Config(node_id="ctl", peers=[sys.argv[1]]))
        mesh.open()
        print(mesh.request("depot", "echo:echo", b"x").text(), flush=True)
        """,
        depot.url,
    )
    assert forgetful.line() == "x"
    assert forgetful.end() == 0
    assert forgetful.stderr == ""


def test_import_zmesh_does_not_load_it():
    code = "import sys, zmesh; assert 'zmesh.sync' not in sys.modules; import zmesh.sync; print(zmesh.sync.Controller)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert "zmesh.sync.controller.Controller" in done.stdout
