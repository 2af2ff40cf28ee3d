"""The guide, first part: a configuration, a controller, its loop, what it listens on and whom it dials."""

import asyncio
import threading

import pytest

import zmesh as receptor
import zmesh.receptor
from tests.waiting import WITHIN
from zmesh.testing import eventually

# --- the one change of a program: `import zmesh as receptor`, or `import zmesh.receptor as receptor` ------------------


@pytest.mark.parametrize("module", ["zmesh", "zmesh.receptor"])
def test_a_program_for_the_receptor_runs_when_its_import_is_changed(program, depot, module):
    source = """
        import sys
        import IMPORTED

        def show(message):
            if message.header.get("eof", False):
                print("all told")
            else:
                print(message.payload.readall().decode())

        async def main():
            await controller.send(
                payload="twelve crates", recipient="depot", directive="depot:store", response_handler=show
            )

        config = receptor.ReceptorConfig()
        controller = receptor.Controller(config)
        controller.enable_server(["rnp://127.0.0.1:0"])
        controller.add_peer(sys.argv[1])
        controller.run(main)
        """
    changed = program(source.replace("IMPORTED", f"{module} as receptor"), depot.url)
    assert changed.end() == 0, changed.stderr
    assert [changed.line(), changed.line()] == ["stored 13 bytes", "all told"]
    assert changed.stderr == ""


@pytest.mark.parametrize("receptor", [receptor, zmesh.receptor])
def test_all_names_of_the_guide_are_there(receptor):
    assert receptor.ReceptorConfig is receptor.Config
    assert {receptor.BYTES_PAYLOAD, receptor.BUFFER_PAYLOAD, receptor.FILE_PAYLOAD} == {"bytes", "buffer", "file"}
    controller = receptor.Controller(receptor.ReceptorConfig())
    for name in ("run", "enable_server", "add_peer", "send", "ping", "recv", "loop", "receptor"):
        assert hasattr(controller, name)
    controller.loop.close()


def test_a_configuration_needs_no_arguments_and_names_its_node():
    first, second = receptor.ReceptorConfig(), receptor.ReceptorConfig()
    assert first.node_id
    assert first.node_id != second.node_id
    assert first.listen == ()
    assert first.peers == ()


# --- whose loop -----------------------------------------------------------------------------------------------------


def test_a_controller_without_a_loop_makes_one_and_run_closes_it():
    controller = receptor.Controller(receptor.ReceptorConfig())
    seen = []

    async def main():
        seen.append(asyncio.get_running_loop())

    controller.run(main)
    assert seen == [controller.loop]
    assert controller.loop.is_closed()


def test_run_gives_back_what_main_returns_and_raises_what_it_raises():
    async def seven():
        return 7

    async def fails():
        raise LookupError("no such crate")

    assert receptor.Controller(receptor.ReceptorConfig()).run(seven) == 7
    with pytest.raises(LookupError, match="no such crate"):
        receptor.Controller(receptor.ReceptorConfig()).run(fails)


def test_a_controller_in_a_loop_of_mine_runs_there_with_run(depot):
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        controller = receptor.Controller(receptor.ReceptorConfig(), loop=loop)
        controller.add_peer(depot.url)

        async def main():
            assert asyncio.get_running_loop() is loop
            assert await controller.request("depot", "depot:store", "mine") is not None

        controller.run(main)
        assert controller.loop is loop
        assert not loop.is_closed(), "a loop that the program made is the program's to close"
        assert loop.run_until_complete(asyncio.sleep(0, "still mine")) == "still mine"
    assert depot.kept(1) == [b"mine"]


def test_a_controller_in_a_loop_of_mine_needs_no_run(depot):
    replies = []

    async def program():
        await controller.send("no run", "depot", "depot:store", response_handler=replies.append)
        await eventually(lambda: replies and replies[-1].header["eof"])
        await controller.close()

    with asyncio.Runner() as runner:
        controller = receptor.Controller(receptor.ReceptorConfig(), loop=runner.get_loop())
        controller.add_peer(depot.url)
        runner.run(program())
    assert depot.kept(1) == [b"no run"]


def test_a_controller_in_a_loop_that_runs_already_needs_no_run(depot):
    async def program():
        controller = receptor.Controller(receptor.ReceptorConfig(), loop=asyncio.get_running_loop())
        controller.add_peer(depot.url)
        payload = await controller.request("depot", "depot:store", b"running")
        assert payload.text() == "stored 7 bytes"
        await controller.close()

    asyncio.run(program())


def test_a_controller_in_a_loop_of_another_thread_takes_messages_from_any(depot):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    controller = receptor.Controller(receptor.ReceptorConfig(), loop=loop)
    controller.add_peer(depot.url)
    ended = threading.Event()
    thread.start()
    try:
        sent = controller.send("from outside", "depot", "depot:store", response_handler=lambda message: ended.set())
        assert ended.wait(WITHIN)
        assert len(sent.message_id) == 32
        asyncio.run_coroutine_threadsafe(controller.close(), loop).result(WITHIN)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    assert depot.kept(1) == [b"from outside"]


# --- listening ------------------------------------------------------------------------------------------------------


def test_a_server_opens_nothing_until_run(free_port, answers):
    controller = receptor.Controller(receptor.ReceptorConfig(insecure=True))
    controller.enable_server([f"rnp://0.0.0.0:{free_port}"])
    assert not answers(free_port)
    assert controller.listening == []
    seen = []

    async def main():
        seen.extend([answers(free_port), controller.listening])

    controller.run(main)
    assert seen == [True, [f"tcp://0.0.0.0:{free_port}"]]
    assert not answers(free_port)


def test_a_server_in_a_loop_of_mine_opens_nothing_until_the_loop_runs(free_port, answers):
    with asyncio.Runner() as runner:
        controller = receptor.Controller(receptor.ReceptorConfig(), loop=runner.get_loop())
        controller.enable_server([f"rnp://127.0.0.1:{free_port}"])
        assert not answers(free_port)
        runner.run(eventually(lambda: answers(free_port)))
        runner.run(controller.close())
        assert not answers(free_port)


def test_a_server_listens_on_several_addresses():
    controller = receptor.Controller(receptor.ReceptorConfig())
    controller.enable_server(["rnp://127.0.0.1:0", "tcp://127.0.0.1:*"])
    controller.enable_server(["rnp://127.0.0.1:0"])

    async def main():
        return controller.listening

    ports = {url.removeprefix("tcp://127.0.0.1:") for url in controller.run(main)}
    assert len(ports) == 3
    assert all(port.isdigit() for port in ports)


def test_a_server_on_a_port_that_is_taken_makes_run_fail_with_a_clear_text(depot):
    controller = receptor.Controller(receptor.ReceptorConfig())
    controller.enable_server([depot.url])

    async def main():
        pytest.fail("main must not run")

    with pytest.raises(receptor.AddressError, match="in use"):
        controller.run(main)


@pytest.mark.parametrize("url", ["0.0.0.0:7323", "rnp://0.0.0.0", "rnp://:7323", "rnp://0.0.0.0:seven", "http://a:1"])
def test_a_malformed_address_is_reported_at_once(url):
    controller = receptor.Controller(receptor.ReceptorConfig())
    with pytest.raises(receptor.AddressError, match="0.0.0.0|7323|http"):
        controller.enable_server([url])
    with pytest.raises(receptor.AddressError):
        controller.add_peer(url)


def test_other_nodes_reach_a_controller_that_listens(elsewhere):
    controller = receptor.Controller(receptor.ReceptorConfig(node_id="ctl"))
    controller.enable_server(["rnp://127.0.0.1:0"])

    async def main():
        caller = await asyncio.to_thread(elsewhere, "caller", peers=tuple(controller.listening))
        await eventually(lambda: "caller" in controller.receptor.router.get_nodes())
        return (await controller.request("caller", "depot:store", "hello")).text(), caller.stored

    assert controller.run(main) == ("stored 5 bytes", [b"hello"])


# --- dialling -------------------------------------------------------------------------------------------------------


def test_a_peer_is_dialled_when_the_loop_runs_and_not_before(depot):
    controller = receptor.Controller(receptor.ReceptorConfig(node_id="ctl"))
    controller.add_peer(depot.url)
    assert controller.loop.run_until_complete(asyncio.sleep(0.0)) is None  # a loop that runs for something else
    assert depot.call(lambda: depot.controller.node.telemetry.counts["link_up"]) == 0

    async def main():
        await eventually(lambda: "depot" in controller.receptor.router.get_nodes())

    controller.run(main)
    depot.eventually(lambda: depot.controller.receptor.router.get_nodes() == ["depot"])


def test_a_peer_may_come_up_after_the_controller_and_gets_what_was_sent_meanwhile(elsewhere, free_port):
    controller = receptor.Controller(receptor.ReceptorConfig())
    controller.add_peer(f"rnp://127.0.0.1:{free_port}")
    failed = []
    controller.receptor.watch(lambda report: failed.append(report.detail) if report.event == "dial_failed" else None)
    late = []

    async def main():
        controller.send("early", "late", "depot:store")
        await eventually(lambda: failed)
        late.append(await asyncio.to_thread(elsewhere, "late", listen=f"tcp://127.0.0.1:{free_port}"))

    controller.run(main)
    assert late[0].kept(1) == [b"early"]
    assert f"127.0.0.1:{free_port}" in failed[0]


def test_a_peer_that_comes_back_is_dialled_again(elsewhere, free_port):
    url = f"tcp://127.0.0.1:{free_port}"
    controller = receptor.Controller(receptor.ReceptorConfig(heartbeat=0.2))
    controller.add_peer(url)

    async def main():
        for _ in range(3):
            node = await asyncio.to_thread(elsewhere, "depot", listen=url)
            await controller.request("depot", "depot:store", "again")
            await asyncio.to_thread(node.close)
            await eventually(lambda: "depot" not in controller.receptor.router.get_nodes())

    controller.run(main)


def test_peers_and_servers_may_be_added_while_the_controller_runs(depot, elsewhere):
    controller = receptor.Controller(receptor.ReceptorConfig())

    async def main():
        controller.add_peer(depot.url)
        controller.enable_server(["rnp://127.0.0.1:0"])
        await asyncio.to_thread(elsewhere, "second", peers=tuple(controller.listening))
        await eventually(lambda: {"depot", "second"} <= set(controller.receptor.router.get_nodes()))

    controller.run(main)
