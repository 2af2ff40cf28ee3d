"""Processes that fork: multiprocessing, gunicorn --preload, celery's prefork pool. Each child has a node of its own."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from tests import waiting

WITHIN = 90.0
QUIET = 'import warnings; warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)'
"""Python 3.12 warns of forking where there are threads, which is the matter here."""

POOL = f"""
import multiprocessing, os, sys
{QUIET}
import zmesh, zmesh.sync

def work(url, queue):
    with zmesh.sync.Controller(zmesh.Config(listen=["tcp://127.0.0.1:*"], peers=[url])) as mesh:
        mesh.wait_for("depot", 90)
        queue.put(mesh.request("depot", "echo:echo", str(os.getpid()), timeout=90).text())

if __name__ == "__main__":
    url, method = sys.argv[1:]
    context = multiprocessing.get_context(method)
    with zmesh.sync.Controller(zmesh.Config(node_id="ctl", peers=[url])) as mesh:
        mesh.wait_for("depot", 90)
        queue = context.Queue()
        children = [context.Process(target=work, args=(url, queue)) for _ in range(3)]
        for child in children:
            child.start()
        found = sorted(queue.get(timeout=90) for _ in children)
        for child in children:
            child.join(90)
        print(found == sorted(str(child.pid) for child in children), [child.exitcode for child in children])
        print(mesh.request("depot", "echo:echo", "still", timeout=90).text())
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_each_process_of_multiprocessing_opens_a_node_while_its_parent_has_one(program, depot, method):
    running = program(POOL, depot.url, method)
    assert running.line() == "True [0, 0, 0]", running.stderr
    assert running.line() == "still"
    assert running.end(WITHIN) == 0, running.stderr
    assert running.stderr == ""


INHERITED = f"""
import asyncio, os, sys
{QUIET}
import zmesh

def ignore(message): pass

async def main():
    config = zmesh.Config(node_id="ctl", listen=["tcp://127.0.0.1:*"], peers=[sys.argv[1]])
    unopened = zmesh.Controller(zmesh.Config(node_id="unopened"))
    async with zmesh.Controller(config) as mesh:
        await mesh.wait_for("depot", 90)
        received, events = mesh.recv(), mesh.events()
        pid = os.fork()
        if pid == 0:
            calls = {{
                "request": lambda: asyncio.run(mesh.request("depot", "echo:echo")),
                "stream": lambda: mesh.stream("depot", "echo:echo"),
                "request_many": lambda: mesh.request_many(["depot"], "echo:echo"),
                "send": lambda: mesh.send("x", "depot", "echo:echo"),
                "send with a handler": lambda: mesh.send("x", "depot", "echo:echo", ignore),
                "ping": lambda: mesh.ping("depot"),
                "ping_once": lambda: asyncio.run(mesh.ping_once("depot")),
                "cancel": lambda: mesh.cancel("0" * 32),
                "cancel_at": lambda: asyncio.run(mesh.cancel_at("depot", "0" * 32)),
                "recv": lambda: asyncio.run(anext(received)),
                "awaiting recv": lambda: asyncio.run(await_(mesh.recv())),
                "events": lambda: asyncio.run(anext(events)),
                "wait_for": lambda: asyncio.run(mesh.wait_for("depot")),
                "add_peer": lambda: mesh.add_peer(sys.argv[1]),
                "enable_server": lambda: mesh.enable_server(["tcp://127.0.0.1:*"]),
                "register": lambda: mesh.register("a:b", ignore),
                "node": lambda: mesh.receptor.router.get_nodes(),
                "open": lambda: asyncio.run(mesh.open()),
                "run": lambda: mesh.run(main),
                "opening what was not open": lambda: asyncio.run(unopened.open()),
                "running what was not open": lambda: unopened.run(main),
            }}
            for name, call in calls.items():
                try:
                    call()
                except zmesh.Closed as error:
                    if "make a Controller after forking" not in str(error):
                        print(name, error, flush=True)
                else:
                    print(name, "was not refused", flush=True)
            asyncio.run(mesh.close())
            mesh.stop()
            print(asyncio.run(of_its_own()), flush=True)
            os._exit(0)
        await asyncio.to_thread(os.waitpid, pid, 0)
        print((await mesh.request("depot", "echo:echo", "still", timeout=90)).text())

async def await_(awaitable):
    return await awaitable

async def of_its_own():
    async with zmesh.Controller(zmesh.Config(listen=["tcp://127.0.0.1:*"], peers=[sys.argv[1]])) as mine:
        await mine.wait_for("depot", 90)
        return (await mine.request("depot", "echo:echo", "mine", timeout=90)).text()

asyncio.run(main())
"""


@pytest.mark.timeout(300)
def test_a_child_is_refused_the_controller_of_its_parent_and_does_it_no_harm(program, depot):
    running = program(INHERITED, depot.url)
    assert running.line() == "mine", running.stderr
    assert running.line() == "still", running.stderr
    assert running.end(WITHIN) == 0, running.stderr
    assert running.stderr == ""


UNWOUND = f"""
import os, sys
{QUIET}
import zmesh.sync

mesh = zmesh.sync.Controller(zmesh.Config(node_id="ctl", peers=[sys.argv[1]]))
mesh.open()
mesh.wait_for("depot", 90)
handlers = []
mesh.register("ctl:isolated", lambda work: "isolated", isolate=True)
print(mesh.request("ctl", "ctl:isolated", timeout=60).text())
for number in range(3):
    child = os.fork()
    if child == 0:
        if number == 1:
            del mesh
        if number == 2:
            mesh.close()
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(mesh.request("depot", "echo:echo", "still", timeout=90).text(), flush=True)
mesh.close()
"""


@pytest.mark.timeout(300)
def test_a_child_that_ends_as_programs_do_leaves_the_node_of_its_parent_alone(program, depot):
    """Its interpreter collects what it has inherited: sockets, a context, a loop."""
    running = program(UNWOUND, depot.url)
    assert running.line() == "isolated", running.stderr
    for _ in range(3):
        assert running.line() == "7", running.stderr
        assert running.line() == "still", running.stderr
    assert running.end(WITHIN) == 0, running.stderr
    assert running.stderr == ""


# --- gunicorn -------------------------------------------------------------------------------------------------------


class Service:
    """A program that serves until it is told to end; what it says goes to a file."""

    def __init__(self, folder, *words, **environment):
        self.log = folder / "log.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(folder), **environment},
            )

    def told(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WITHIN)
        finally:
            self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def service(tmp_path):
    services = []

    def start(source, *words, **environment):
        (tmp_path / "app.py").write_text(textwrap.dedent(source), encoding="utf-8")
        services.append(Service(tmp_path, *words, **environment))
        return services[-1]

    yield start
    for each in services:
        each.kill()


def until(found, service, within=WITHIN):
    """What the function gives as soon as that is something; fails when the service has ended."""

    def given():
        assert service.process.poll() is None, service.told()
        return found()

    return waiting.until(given, within)


WEB = """
import os
import zmesh, zmesh.sync

early = zmesh.sync.Controller(zmesh.Config(peers=[os.environ["DEPOT"]]))
early.open()                # by --preload, in the process that the workers are forked from
early.wait_for("depot", 90)
mine = None

def app(environ, start_response):
    global mine
    try:
        early.request("depot", "echo:echo", timeout=90)
        refused = "no"
    except zmesh.Closed:
        refused = "refused"
    if mine is None:
        mine = zmesh.sync.Controller(zmesh.Config(peers=[os.environ["DEPOT"]]))
        mine.open()
        mine.wait_for("depot", 90)
    text = mine.request("depot", "echo:echo", f"{refused} {os.getpid()}", timeout=90).readall()
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]
"""


class Http(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=WITHIN)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(path):
    connection = Http(path)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except OSError:
        return ""  # it does not listen yet
    finally:
        connection.close()


@pytest.mark.timeout(300)
def test_workers_of_gunicorn_have_nodes_of_their_own_after_preload(service, depot, tmp_path):
    path = str(tmp_path / "web.sock")
    words = ("gunicorn", "--preload", "--workers", "2", "--bind", f"unix:{path}", "--timeout", "120", "app:app")
    web = service(WEB, *words, DEPOT=depot.url)
    seen = set()

    def both():
        if answer := get(path):
            refused, pid = answer.split()
            assert refused == "refused", web.told()
            seen.add(pid)
        return len(seen) == 2

    until(both, web)
    assert str(web.process.pid) not in seen
    nodes = depot.nodes()
    assert len(nodes) == 4, "depot, that of the first process, and one for each worker"
    assert web.end() == 0, web.told()
    assert "Traceback" not in web.told()


# --- celery ---------------------------------------------------------------------------------------------------------

TASKS = """
import os
import celery
from celery.signals import worker_process_init, worker_process_shutdown
import zmesh, zmesh.sync

folder = os.environ["FOLDER"]
app = celery.Celery("app", broker="filesystem://", backend=f"file://{folder}/results")
app.conf.broker_transport_options = {
    "data_folder_in": f"{folder}/queue", "data_folder_out": f"{folder}/queue", "control_folder": f"{folder}/control",
    "store_processed": False,
}
app.conf.broker_connection_retry_on_startup = False
early = mine = None

if os.environ.get("WORKER"):    # in the process that the pool is forked from
    early = zmesh.sync.Controller(zmesh.Config(peers=[os.environ["DEPOT"]]))
    early.open()
    early.wait_for("depot", 90)

@worker_process_init.connect
def open_node(**_):
    global mine
    mine = zmesh.sync.Controller(zmesh.Config(peers=[os.environ["DEPOT"]]))
    mine.open()

@worker_process_shutdown.connect
def close_node(**_):
    mine.close()

@app.task
def ask(text):
    try:
        early.request("depot", "echo:echo", timeout=90)
        refused = "no"
    except zmesh.Closed:
        refused = "refused"
    mine.wait_for("depot", 90)
    return [refused, mine.request("depot", "echo:echo", text, timeout=90).text()]
"""
CLIENT = """
import app
results = [app.ask.delay(f"task {number}") for number in range(4)]
print([result.get(timeout=100) for result in results])
"""


@pytest.mark.timeout(240)
def test_workers_of_celery_have_nodes_of_their_own(service, depot, tmp_path):
    for folder in ("queue", "control", "results"):
        (tmp_path / folder).mkdir()
    words = ("celery", "-A", "app", "worker", "--pool", "prefork", "--concurrency", "2", "--without-mingle")
    worker = service(TASKS, *words, "--without-gossip", DEPOT=depot.url, FOLDER=str(tmp_path), WORKER="1")
    client = subprocess.run(
        [sys.executable, "-c", CLIENT],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "FOLDER": str(tmp_path), "DEPOT": depot.url},
    )
    assert client.returncode == 0, client.stderr + worker.told()
    assert client.stdout.strip() == str([["refused", f"task {number}"] for number in range(4)]), worker.told()
    assert worker.end() == 0, worker.told()
    assert "Traceback" not in worker.told()
