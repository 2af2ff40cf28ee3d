"""A process without a descriptor left: servers wait, commands are refused in one line, all is well afterwards."""

import pytest

from tests.own_process import run_coroutine

SETTING = """
import asyncio, os, socket
import zmesh
from tests.own_process import no_descriptors
from zmesh.errors import NodeOverloaded
from zmesh.testing import eventually

ALLOW = {"exec:*": ["*"], "tcp:*": ["*"]}

def open_descriptors():
    return len(os.listdir("/proc/self/fd"))
"""


SERVED = """
async def echo(reader, writer):
    writer.write(await reader.read(100))
    writer.close()

server = await asyncio.start_server(echo, "127.0.0.1", 0)
port = server.sockets[0].getsockname()[1]
async with zmesh.Controller(node_id="edge", allow=ALLOW) as mesh, mesh.forward(0, f"edge:{port}") as forward:
    mesh.stats(), await mesh.ping_once("edge", timeout=60)  # so that all modules are imported
    clients = [socket.socket() for _ in range(3)]
    for each in clients:
        each.setblocking(False)
    with no_descriptors(fill=True):
        for each in clients:
            await asyncio.get_running_loop().sock_connect(each, ("127.0.0.1", forward.port))
        await eventually(lambda: mesh.stats().counters["overloaded:forward_accept"] >= 2)
        await mesh.ping_once("edge", timeout=60)
        assert mesh.stats().counters["overloaded:forward_accept"] < 100
    loop = asyncio.get_running_loop()
    for each in clients:
        await loop.sock_sendall(each, b"well")
        assert await loop.sock_recv(each, 100) == b"well"
        each.close()
    await eventually(lambda: not forward.connections)
    assert (forward.made, forward.failed) == (3, 0)
server.close()
"""


@pytest.mark.timeout(120)
def test_a_forwarded_port_takes_those_who_waited_once_there_are_descriptors_again():
    """asyncio's own server logs as many tracebacks a second as its backlog is long."""
    (line,) = run_coroutine(SETTING, SERVED, quiet=False)[1].splitlines()
    assert "accepts no connections for now: too many open files; those that come wait" in line


SCRAPED = """
import http.client, threading

async with zmesh.Controller(node_id="edge", metrics=":*") as mesh:
    where = mesh.node.metrics_url.removeprefix("http://").removesuffix("/metrics")
    scrapes = mesh.node.components.exporter.scrapes
    client = socket.socket()
    host, _, port = where.rpartition(":")
    with no_descriptors(fill=True):
        client.connect((host, int(port)))
        await eventually(lambda: scrapes["refused"])
        refused = scrapes["refused"]
        await eventually(lambda: scrapes["refused"] >= refused + 2)
        turns = scrapes["refused"] - refused
        assert turns < 100, turns
    client.sendall(b"GET /metrics HTTP/1.0\\r\\n\\r\\n")
    answer = await asyncio.to_thread(client.recv, 100)
    assert answer.startswith(b"HTTP/1.0 200"), answer
    client.close()
"""


@pytest.mark.timeout(120)
def test_the_server_of_metrics_waits_and_answers_once_there_are_descriptors_again():
    run_coroutine(SETTING, SCRAPED)


SHOWN = """
import logging
from zmesh.dashboard import Dashboard

logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
async with zmesh.Controller(node_id="edge") as mesh, Dashboard(mesh) as dashboard:
    port = int(dashboard.url.split("/")[2].rpartition(":")[2])
    head = f"GET /api/nodes/edge?{dashboard.url.partition('?')[2]} HTTP/1.1\\r\\nhost: 127.0.0.1:{port}\\r\\n\\r\\n"

    async def ask(client):
        await loop.sock_sendall(client, head.encode())
        return await asyncio.wait_for(loop.sock_recv(client, 100), 60)

    loop = asyncio.get_running_loop()
    await mesh.ping_once("edge", timeout=60)  # so that all modules are imported
    await eventually(lambda: "edge" in dashboard.model.nodes)
    clients = [socket.socket() for _ in range(4)]
    for each in clients:
        each.setblocking(False)
    first = clients.pop()
    await loop.sock_connect(first, ("127.0.0.1", port))
    assert (await ask(first)).startswith(b"HTTP/1.1 200"), "before"
    with no_descriptors(fill=True):
        for each in clients:
            await loop.sock_connect(each, ("127.0.0.1", port))
        await eventually(lambda: dashboard.exhausted >= 2)
        assert dashboard.exhausted < 100
        await mesh.ping_once("edge", timeout=60)
    for each in clients:
        assert (await ask(each)).startswith(b"HTTP/1.1 200"), "after"
        each.close()
    first.close()
"""


@pytest.mark.timeout(120)
def test_the_dashboard_serves_those_who_waited_once_there_are_descriptors_again():
    """uvicorn's server is asyncio's own, which logs as many tracebacks a second as its backlog is long."""
    (line,) = run_coroutine(SETTING, SHOWN, quiet=False)[1].splitlines()
    assert line == "WARNING the dashboard accepts no connections for now: too many open files; those that come wait"


RUN = """
async with zmesh.Controller(node_id="edge", allow=ALLOW) as mesh:
    for merged in (False, True):
        await mesh.check_output("edge", ["true"])
        before = open_descriptors()
        refused = 0
        for spare in range(9):
            with no_descriptors(spare, fill=True):
                try:
                    await mesh.check_output("edge", ["true"])
                except NodeOverloaded as error:
                    refused += 1
                    assert "has nothing left to run commands with: too many open files" in str(error), error
        assert refused >= 4, refused
        assert await mesh.check_output("edge", ["echo", "well"]) == b"well\\n"
        await eventually(lambda: open_descriptors() <= before)
"""


@pytest.mark.timeout(120)
def test_commands_are_refused_in_one_line_and_nothing_of_them_is_left_open():
    run_coroutine(SETTING, RUN)


ISOLATED = """
import pprint
import tempfile, zmesh.serving.isolation.processes

async with zmesh.Controller(node_id="edge") as mesh:
    mesh.register("show:work", pprint.pformat, isolate=True)
    tempfile.gettempdir()  # which is found by writing a file there
    await mesh.request("edge", "echo:echo", b"x", timeout=60)  # so that all modules are imported
    refused = 0
    for started in (False, True):
        for spare in range(0, 9, 2):
            with no_descriptors(spare, fill=True):
                try:
                    await mesh.request("edge", "show:work", timeout=60)
                except NodeOverloaded as error:
                    refused += 1
                    assert "has nothing left to run show:work with: too many open files" in str(error), error
        assert "show:work" in (await mesh.request("edge", "show:work", timeout=60)).text()
    assert refused >= 3, refused
    await mesh.ping_once("edge", timeout=60)
"""


@pytest.mark.timeout(120)
def test_isolated_work_is_refused_in_one_line_and_runs_once_there_are_descriptors_again():
    run_coroutine(SETTING, ISOLATED)
