"""The log of `zmesh node` on stderr, at default verbosity."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from zmesh.core import wire

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
MEASURED = r"( \(\d+(\.\d+)?(e[+-]\d+)? ms\))?"
"""The round-trip time, which is left out where it is not measured within a second, as on a busy machine."""
Eventually = Callable[..., None]


def said(node: Any, text: str, *, time: str = TIME) -> bool:
    """Whether one of the lines so far matches this regular expression, after the time."""
    return any(re.fullmatch(time + text, line) for line in node.complaints().splitlines())


@pytest.fixture
def quick(shell: Any) -> list[str]:
    """Options of a node with a short heartbeat."""
    file = shell.folder / "quick.toml"
    file.write_text("heartbeat = 0.2\n")
    return ["--config", str(file)]


def test_links_and_nodes_that_come_go_and_come_back_are_logged(shell: Any, eventually: Eventually) -> None:
    hub = shell.node("hub", listen=shell.free_url())
    edge = shell.node("edge", "--peer", hub.url)
    far = shell.node("far", "--peer", hub.url)
    eventually(lambda: said(edge, rf"edge: linked with hub at {hub.url}{MEASURED}"))
    eventually(lambda: said(hub, rf"hub: linked with edge from 127\.0\.0\.1{MEASURED}"))
    eventually(lambda: said(hub, "hub: edge joined the mesh"))
    eventually(lambda: said(edge, "edge: far joined the mesh"))
    far.end()
    eventually(lambda: said(hub, r"hub: lost the link with far from 127\.0\.0\.1: they left: leaving"))
    eventually(lambda: said(hub, "hub: far left the mesh"))
    eventually(lambda: said(edge, r"edge: far left the mesh(, last heard by hub)?"))
    hub.end(signal.SIGKILL)
    eventually(lambda: said(edge, rf"edge: lost the link with hub at {hub.url}: .+"))
    eventually(lambda: said(edge, rf"edge: can't reach {hub.url}: .+; still trying"))
    shell.node("hub", listen=hub.url)
    eventually(lambda: said(edge, rf"edge: linked again with hub at {hub.url} after \d+ s{MEASURED}"))
    assert "INFO" not in edge.complaints()


def test_commands_are_not_logged(shell: Any) -> None:
    hub = shell.node("hub")
    assert shell.run("ping", "hub", "-c", "1", "--peer", hub.url).returncode == 0
    hub.event("link_lost")
    lines = hub.complaints().splitlines()
    assert [line for line in lines if "event loop blocked" not in line] == []  # which a busy machine does to it


def test_a_neighbour_that_falls_silent_is_logged_as_lost(shell: Any, quick: list[str], eventually: Eventually) -> None:
    hub = shell.node("hub", *quick)
    edge = shell.node("edge", *quick, "--peer", hub.url)
    hub.event("node_joined")
    edge.send(signal.SIGSTOP)
    eventually(lambda: said(hub, r"hub: lost the link with edge from 127\.0\.0\.1: silent for [\d.]+ s"))
    edge.send(signal.SIGCONT)
    eventually(lambda: said(hub, rf"hub: linked again with edge from 127\.0\.0\.1 after \d+ s{MEASURED}"))


def test_a_peer_that_refuses_is_logged_once_however_often_it_is_dialled(shell: Any, eventually: Eventually) -> None:
    url = shell.free_url()
    node = shell.node("a", "--peer", url)
    eventually(lambda: said(node, rf"a: can't reach {url}: .+; still trying"))
    assert node.event("dial_failed")["where"] == url
    hub = shell.node("hub")  # the peer is dialled some times meanwhile
    assert shell.run("ping", "hub", "-c", "1", "--peer", hub.url).returncode == 0
    lines = [line for line in node.complaints().splitlines() if " refused for 10 s;" not in line]  # which comes later
    assert sum("can't reach" in line for line in lines) == 1


def test_a_peer_without_an_address_has_another_reason_than_one_that_refuses(shell: Any, eventually: Eventually) -> None:
    nowhere, closed = "tcp://no-such-host.invalid:7323", shell.free_url()
    node = shell.node("a", "--peer", nowhere, "--peer", closed, "--insecure")
    eventually(lambda: said(node, rf"a: can't reach {closed}: connection refused; still trying"))
    eventually(lambda: said(node, rf"a: can't reach {nowhere}: the name 'no-such-host\.invalid' does not resolve.*"))


def test_a_peer_that_speaks_another_protocol_has_another_reason_than_a_closed_port(
    shell: Any, eventually: Eventually
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        node = shell.node("a", "--peer", url)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            eventually(lambda: said(node, rf"a: can't reach {url}: .+; still trying"))
    first = node.complaints().splitlines()[0]
    assert "nothing answers" not in first
    assert "refused" not in first


def test_a_peer_that_speaks_zeromq_and_is_no_node_is_logged(shell: Any, eventually: Eventually) -> None:
    import zmq

    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        url = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
        node = shell.node("a", "--peer", url)
        eventually(lambda: said(node, rf"a: can't reach {url}: no greeting for [\d.]+ s; still trying"))
        assert node.event("dial_failed")["where"] == url


# -- a second node of one name -----------------------------------------------------------------------------------------

GONE = r"zmesh: the id 'twin' is taken: .+; choose another id with --id, or end the other node"


def test_a_second_node_of_an_id_ends_and_the_first_its_hub_and_the_routes_name_it(
    shell: Any, quick: list[str], eventually: Eventually
) -> None:
    hub = shell.node("hub", *quick)
    first = shell.node("twin", *quick, "--peer", hub.url)
    hub.event("node_joined")
    second = shell.node("twin", *quick, "--peer", hub.url)
    assert second.event("id_taken")["node"] == "twin"
    assert second.process.wait(90) == 2
    text = "another node called 'twin' is alive in the mesh, linked to hub"
    assert said(second, rf"twin: refused by the node at {hub.url}: {text}")
    assert said(second, GONE, time="")
    eventually(lambda: said(hub, rf"hub: refused twin from 127\.0\.0\.1: {text}"))
    tried = r"twin: another node called 'twin' has tried to join at 'hub' from 127\.0\.0\.1 and was refused; .+"
    eventually(lambda: said(first, tried))
    for node in (hub, first):
        assert node.event("duplicate_id")["node"] == "twin"
        assert b"Two live nodes are called twin" in shell.run("routes", "--peer", node.url).stdout
    assert shell.run("ping", "twin", "-c", "1", "--peer", hub.url).returncode == 0
    assert first.process.poll() is None


def test_a_second_node_that_joins_through_another_hub_ends_and_is_named_by_the_first_and_its_hub(
    shell: Any, quick: list[str], eventually: Eventually
) -> None:
    hub = shell.node("hub", *quick)
    other = shell.node("other", *quick, "--peer", hub.url)
    first = shell.node("twin", *quick, "--peer", hub.url)
    while other.event("node_joined")["node"] != "twin":
        pass
    second = shell.node("twin", *quick, "--peer", other.url)
    assert second.process.wait(90) == 2
    assert said(second, GONE, time="")
    end = r"called 'twin' has tried to join at 'other' from 127\.0\.0\.1 and was refused; .+"
    eventually(lambda: said(first, f"twin: another node {end}"))
    eventually(lambda: said(hub, f"hub: a second node {end}"))
    for node in (hub, other, first):
        assert b"Two live nodes are called twin" in shell.run("routes", "--peer", node.url).stdout
    assert first.process.poll() is None


def test_of_two_meshes_that_are_linked_the_later_node_of_an_id_ends(
    shell: Any, quick: list[str], eventually: Eventually
) -> None:
    left, right = shell.node("left", *quick), shell.node("right", *quick)
    first = shell.node("twin", *quick, "--peer", left.url)
    second = shell.node("twin", *quick, "--peer", right.url)
    shell.node("bridge", *quick, "--peer", left.url, "--peer", right.url)
    assert second.process.wait(90) == 2
    assert said(second, GONE, time="")
    eventually(lambda: said(first, r"twin: another node called 'twin' is alive in the mesh, linked to right; .+"))
    assert first.process.poll() is None


def test_a_node_that_is_dialled_by_an_earlier_one_of_its_id_ends(shell: Any) -> None:
    url = shell.free_url()
    first = shell.node("twin", "--peer", url)
    second = shell.node("twin", listen=url)
    assert second.process.wait(90) == 2
    assert first.event("link_refused")["where"] == url
    assert first.process.poll() is None


def test_a_node_that_dials_itself_goes_on(shell: Any, eventually: Eventually) -> None:
    url = shell.free_url()
    node = shell.node("a", "--peer", url, listen=url)
    eventually(lambda: said(node, rf"a: refused by the node at {url}: the id 'a' is taken .+this node itself\)"))
    assert shell.run("ping", "a", "-c", "1", "--peer", url).returncode == 0
    assert b"Two live nodes" not in shell.run("routes", "--peer", url).stdout


# -- events and the log ------------------------------------------------------------------------------------------------


def test_events_carry_the_time_and_where_the_other_end_is(shell: Any) -> None:
    began = time.time()
    hub = shell.node("hub")
    edge = shell.node("edge", "--peer", hub.url)
    up = hub.event("link_up")
    assert list(up) == ["schema", "event", "node", "detail", "where", "time"]
    assert (up["node"], up["where"]) == ("edge", "127.0.0.1")
    assert edge.event("link_up")["where"] == hub.url
    joined = hub.event("node_joined")
    assert joined["where"] is None
    assert began - 1 < hub.ready["time"] <= up["time"] <= joined["time"] < time.time() + 1


def test_a_peer_that_fails_again_after_a_link_is_an_event_again(shell: Any) -> None:
    hub = shell.node("hub", listen=shell.free_url())
    edge = shell.node("edge", "--peer", hub.url)
    edge.event("link_up")
    for _ in range(2):
        hub.close()
        assert edge.event("dial_failed")["where"] == hub.url
        again = shell.node("hub", listen=hub.url)
        edge.event("link_up")
        hub = again


def test_lines_in_the_journal_of_systemd_have_their_priority_and_no_time_of_their_own(
    shell: Any, eventually: Eventually
) -> None:
    reading, writing = os.pipe()
    status = os.fstat(writing)
    environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    url = shell.free_url()
    node = shell.start("node", "--id", "a", "--peer", url, environment=environment, stderr=writing)
    os.close(writing)
    with os.fdopen(reading) as lines:
        ready, failure = sorted([lines.readline(), lines.readline()], key=lambda line: "reach" in line)
        assert re.fullmatch(rf"<4>a: can't reach {url}: .+; still trying\n", failure)
        assert ready == "<6>node a listens on no address\n"
        node.terminate()
        node.communicate(timeout=90)


def test_more_verbose_lines_name_their_level_and_logger(shell: Any, eventually: Eventually) -> None:
    hub = shell.node("hub", "-v")
    shell.node("edge", "--peer", hub.url)
    eventually(
        lambda: said(hub, rf"INFO    zmesh\.observe\.journal: hub: linked with edge from 127\.0\.0\.1{MEASURED}")
    )


def test_text_of_other_nodes_can_not_forge_a_line(shell: Any, eventually: Eventually) -> None:
    """An id has no control characters, and the reasons that other nodes send are escaped."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        url = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
        node = shell.node("a", "--peer", url)
        assert router.poll(90_000)
        sender, *_ = router.recv_multipart()
        refusal = wire.Refuse("leaf", "no\n2026-01-01T00:00:00.000Z a: all is well\x1b[31m")
        router.send_multipart([sender, *wire.encode_link(wire.Kind.REFUSE, refusal)])
        forged = re.escape(r"no\n2026-01-01T00:00:00.000Z a: all is well\x1b[31m")
        eventually(lambda: said(node, rf"a: refused by the node at {url}: {forged}"))
    assert json.dumps(node.event("link_refused")["detail"]).count("\\n") == 1


# -- what commands say of a node that is not there ---------------------------------------------------------------------


@pytest.mark.parametrize("words", [("ping", "edge", "-c", "1"), ("send", "edge", "echo:echo", "x")])
def test_the_error_for_a_node_that_has_left_says_when_and_which_node_heard_it_last(
    shell: Any, words: tuple[str, ...]
) -> None:
    hub, edge = shell.chain("hub", "edge")
    edge.end()
    hub.event("node_left")
    done = shell.run(*words, "--peer", hub.url)
    assert done.returncode == 3
    assert re.search(
        rb"no node 'edge' can be reached from 'hub'.*; 'edge' left \d+ s ago, last heard by 'hub'", done.stderr
    )


def test_a_request_whose_recipient_dies_in_the_middle_is_unreachable_and_not_timed_out(
    shell: Any, eventually: Eventually
) -> None:
    hub, edge = shell.chain("hub", "edge")
    command = shell.start("send", "edge", "sleep:execute", "600", "--timeout", "300", "--peer", hub.url)

    def works() -> bool:
        out = shell.run("ping", "edge", "-c", "1", "--json", "--peer", hub.url).stdout
        return bool(json.loads(out.splitlines()[0])["active_work"])

    eventually(works)
    edge.end(signal.SIGKILL)
    _, err = command.communicate(timeout=90)
    assert command.returncode == 3
    assert re.search(rb"the request had reached 'edge'; 'edge' left \d+ s ago, last heard by 'hub'", err)


def test_the_error_for_an_unknown_node_lists_the_dials_of_the_peer(shell: Any) -> None:
    url = shell.free_url()
    home = shell.node("home", "--peer", url)
    reason = home.event("dial_failed")["detail"].removeprefix(f"{url}: ")
    done = shell.run("send", "edge", "echo:echo", "x", "--peer", home.url)
    assert done.returncode == 3
    assert re.search(rf"; 'edge' was never known to 'home'; peer {url}: {reason} for \d+ s".encode(), done.stderr)
