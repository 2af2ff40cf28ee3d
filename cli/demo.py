"""`zmesh demo`: a mesh of five nodes at work, step by step, with the commands that a user would type.

Every command that is shown is run as it is, in a process of its own; only what has to be timed is done in this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.server
import json
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec

from zmesh.errors import MeshError
from zmesh_cli.demo_job import follow_and_die
from zmesh_cli.demo_processes import COMMAND, MESH, Nodes, Workplace, workplace
from zmesh_cli.demo_tunnel import Tunnel, tunnel
from zmesh_cli.exit_codes import DONE, FAILED, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.routes import fetch_tables
from zmesh_cli.session import Session
from zmesh_cli.tables import INDENT, width_of_stdout
from zmesh_cli.terminal import Output

PICTURE = """
                       north
                      /     \\
    commands --- home         away --- tail
                      \\     /
                       south
"""
LINKS = {"home": (), "north": ("home",), "south": ("home",), "away": ("north", "south"), "tail": ("away",)}
FILE_MIB = 64
FLEET_MIB = 8
WIDTH = 116
"""Columns of a line, the indentation not included, where stdout is no terminal."""

COMMAND_WITHIN = 30.0
HEAL_WITHIN = 10.0
PING_AGAIN = 0.02
PAGE = "Hello from a web server that only this machine can reach.\n"


async def demo() -> int:
    """Run the demo; the exit code."""
    show = _Show(Output())
    try:
        with workplace() as place, _web_server() as url:
            async with Nodes(place) as nodes:
                await _Tour(show, nodes, place).run(url)
        await show.result("the processes have ended, their folder is deleted")
    except TimeoutError:
        raise Failure("a step of the demo took too long; try again when the machine is less busy", FAILED) from None
    return DONE


class _Show:
    """The output of the demo: headings, commands, and what they print."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._colour = output.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.width = min(WIDTH, width_of_stdout() - len(INDENT))
        self._steps = 0

    async def heading(self, text: str) -> None:
        """Print the heading of the next step."""
        self._steps += 1
        await self._output.text(f"\n{self._styled(1, f'{self._steps}. {text}')}\n\n")

    async def command(self, *words: str) -> None:
        """Print a command as a user would type it."""
        line = " ".join(word if re.fullmatch(r"[\w@%+=:,./-]+", word) else shlex.quote(word) for word in words)
        await self.say(f"$ {line}", 36)

    async def say(self, text: str, style: int | None = None) -> None:
        """Print lines, indented."""
        for line in text.rstrip("\n").split("\n"):
            for start in range(0, max(1, len(line)), self.width):
                part = line[start : start + self.width]
                await self._output.text(f"{INDENT}{self._styled(style, part)}".rstrip() + "\n")

    async def result(self, text: str) -> None:
        """Print the result of a step."""
        await self.say(f"=> {text}", 32)

    async def picture(self) -> None:
        """Print a picture of the mesh."""
        await self._output.text(f"{self._styled(1, 'zmesh demo: five nodes, a ring of four with a tail')}\n{PICTURE}")

    def _styled(self, style: int | None, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if style is not None and self._colour and text else text


class _Tour:
    """The steps of the demo."""

    def __init__(self, show: _Show, nodes: Nodes, place: Workplace) -> None:
        self._show = show
        self._nodes = nodes
        self._place = place

    async def run(self, web: str) -> None:
        """Run all of them. Raises Failure if one fails."""
        await self._show.picture()
        await self._start()
        await self._routes()
        await self._ping()
        await self._http(web)
        await self._file()
        await self._command()
        await self._files()
        await self._job()
        async with self._forwarding(web) as forwarded:
            await self._kill()
            await self._page_again(forwarded)
        await self._show.heading("Cleaning up")

    async def _start(self) -> None:
        show, nodes = self._show, self._nodes
        await show.heading("Five node processes, each with a certificate of its own; all links are encrypted")
        began = time.perf_counter()
        await nodes.start("home")
        await asyncio.gather(nodes.start("north", "home"), nodes.start("south", "home"))
        await nodes.start("away", "north", "south")
        await nodes.start("tail", "away")
        await nodes.wait_for_routes("home", {"north", "south", "away", "tail"})
        took = time.perf_counter() - began
        await show.command("zmesh", "init", "--name", MESH, "--id", "home")
        await show.say(
            "(each of the others joins with a ticket: 'zmesh invite NAME' at home, 'zmesh join TICKET' there)"
        )
        for name, peers in LINKS.items():
            urls = [word for peer in peers for word in ("--peer", nodes.urls[peer])]
            await show.command("zmesh", "node", "--id", name, "--listen", "tcp://127.0.0.1:*", *urls)
        await show.result(f"started one after the other and linked in {took:.1f} s; 'home' knows all the others")

    async def _routes(self) -> None:
        show, nodes = self._show, self._nodes
        await show.heading("The routes that 'home' has found; the commands below join the mesh there")
        nodes.environment["ZMESH_PEER"] = "home"
        await show.command("export", "ZMESH_PEER=home")
        async with Session(Place(nodes.local("home"), False), "tail") as session:
            await session.unless_not_found(session.ping(COMMAND_WITHIN))
        await show.say(await self._run("routes"))

    async def _ping(self) -> None:
        await self._show.heading("A ping to the farthest node: three hops from 'home', one more to get there")
        await self._show.say(await self._run("ping", "tail", "-c", "5", "-i", "0.1"))
        await self._show.say("(its state, the path to it, and why it is that one:)")
        for command in ("status", "trace", "why"):
            await self._show.say(await self._run(command, "tail"))

    async def _http(self, url: str) -> None:
        show = self._show
        await show.heading("An HTTP request, made by that node to a web server on this machine")
        if find_spec("aiohttp") is None:
            await show.say("left out: it needs an HTTP client; install it with: pip install 'zmesh-mq[http]'")
            return
        answer = await self._run("send", "tail", "http:execute", json.dumps({"url": url}))
        await show.say(answer)
        try:
            head, end = json.JSONDecoder().raw_decode(answer)
        except ValueError:
            head, end = {}, 0
        if head.get("status") != 200 or answer[end:] != PAGE:
            raise Failure("http:execute did not bring back the page", FAILED)
        await show.result(f"status {head['status']}, and the {len(PAGE)} bytes of the page came back over the mesh")

    async def _file(self) -> None:
        show = self._show
        await show.heading(f"A file of {FILE_MIB} MiB to the node three hops from 'home', which hashes what arrives")
        digest = await asyncio.to_thread(_write_noise, os.path.join(self._place.folder, "big.bin"), FILE_MIB)
        began = time.perf_counter()
        answer = await self._run("send", "tail", "digest:sha256", "@big.bin")
        took = time.perf_counter() - began
        await show.say(answer)
        if answer.strip() != digest:
            raise Failure(f"the digest is {answer.strip()!r}, and should be {digest}", FAILED)
        rate = FILE_MIB * 1024 * 1024 / 1e6 / took
        await show.result(f"the same digest as here; {took:.2f} s in all, {rate:.0f} MB/s")

    async def _job(self) -> None:
        """Leave a job, kill the command that follows it, and have another node follow the rest."""
        show = self._show
        await show.heading("A job at 'tail' that goes on when the command which follows it is killed")
        script = "for n in 1 2 3; do echo line $n; sleep 1; done"
        job = (await self._run("job", "submit", "tail", "--shell", "--", script)).strip()
        await show.say(job)
        await show.command("zmesh", "job", "attach", job)
        seen = await follow_and_die(("job", "attach", job), self._place, self._nodes.environment)
        await show.say(f"{seen.decode()}(killed)")
        rest = await self._run("job", "attach", job, "--from", str(len(seen)), "--peer", "away")
        await show.say(rest)
        if seen.decode() + rest != "line 1\nline 2\nline 3\n":
            raise Failure("the output of the job is not whole", FAILED)
        await show.result("the job went on, and another node had the rest, from the byte that was missing")

    @contextlib.asynccontextmanager
    async def _forwarding(self, web: str) -> AsyncIterator[Tunnel]:
        """Forward a port to a web server as 'tail' sees it, and fetch its page."""
        show = self._show
        await show.heading("A port here that leads to a web page at 'tail', as in a browser")
        words = ("forward", "127.0.0.1:0", f"tail:{web.split('/')[2]}")
        await show.command("zmesh", *words)
        environment = self._nodes.environment | {"ZMESH_PEER": "home"}
        async with tunnel(words, self._place, environment) as forwarded:
            page = await forwarded.get()
            await show.say(f"http://127.0.0.1:{forwarded.port}/ is the page: {page}")
            if page != PAGE:
                raise Failure("the forwarded port does not lead to the page", FAILED)
            await show.result("one TCP connection over three hops, which stays open")
            yield forwarded

    async def _page_again(self, forwarded: Tunnel) -> None:
        if await forwarded.get() != PAGE:
            raise Failure("the forwarded port does not lead to the page any more", FAILED)
        await self._show.result("the connection to the web page is still up: the page came again over it")

    async def _files(self) -> None:
        show, others = self._show, ("north", "south", "away", "tail")
        await show.heading(f"A file of {FLEET_MIB} MiB to all other nodes, each of which allows 'home' to write files")
        digest = await asyncio.to_thread(_write_noise, os.path.join(self._place.folder, "app.bin"), FLEET_MIB)
        began = time.perf_counter()
        await show.say(await self._run("cp", "app.bin", "--to", "*,!home", "app.bin", stderr=subprocess.STDOUT))
        took = time.perf_counter() - began
        for name in others:
            if await asyncio.to_thread(_digest_of, os.path.join(self._nodes.files(name), "app.bin")) != digest:
                raise Failure(f"the file at {name!r} is not the one that was copied", FAILED)
        await show.result(f"the same file at {len(others)} nodes; {took:.2f} s in all")

    async def _command(self) -> None:
        show = self._show
        await show.heading(
            "A command at all nodes; their permissions let 'home' have it run, and equal outputs are one"
        )
        began = time.perf_counter()
        answer = await self._run("run", "--all", "--group", "--", "uname", "-s", stderr=subprocess.STDOUT)
        took = time.perf_counter() - began
        await show.say(answer)
        if f"{len(LINKS)} nodes: {len(LINKS)} done" not in answer:
            raise Failure("the command is not done at all nodes", FAILED)
        await show.result(f"done at all {len(LINKS)} nodes after {took:.2f} s")

    async def _kill(self) -> None:
        show, nodes = self._show, self._nodes
        await show.heading("The node in the middle of the path is killed")
        before = await self._path()
        victim = before[1]
        await show.say(f"path: {' > '.join(before)}")
        await show.command("kill", "-9", str(nodes.pid(victim)))
        async with Session(Place(nodes.local("home"), False), "tail", HEAL_WITHIN) as session:
            await session.ping(COMMAND_WITHIN)
            killed = time.perf_counter()
            await nodes.kill(victim)  # what is answered from here on has taken another path
            await _first_answer(session)
            took = time.perf_counter() - killed
        await show.result(f"'{victim}' is gone; 'tail' answers over the new path after {1000 * took:.0f} ms")
        after = await self._path()
        await show.say(f"path: {' > '.join(after)}")
        if victim in after or after[-1] != "tail":
            raise Failure(f"the new path is {after}", FAILED)
        await show.say(await self._run("ping", "tail", "-c", "3", "-i", "0.1"))

    async def _path(self) -> list[str]:
        """The nodes on the path from 'home' to 'tail', by the next hop of each."""
        path = ["home"]
        while path[-1] != "tail" and len(path) <= len(LINKS):
            async with Session(Place(self._nodes.local("home"), False), path[-1]) as session:
                tables = await session.unless_not_found(fetch_tables(session, COMMAND_WITHIN))
            hops = {route["destination"]: route["next_hop"] for route in tables["routes"]}
            if "tail" not in hops:
                raise Failure(f"'{path[-1]}' has no route to 'tail'", FAILED)
            path.append(hops["tail"])
        return path

    async def _run(self, *words: str, stderr: int | None = None) -> str:
        """Show a command, run it, and return what it prints. Raises Failure if it fails."""
        await self._show.command("zmesh", *words)
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            process_group=0,  # Ctrl-C interrupts the demo alone, which ends the command
            env=self._nodes.environment | {"COLUMNS": str(self._show.width)},
            cwd=self._place.folder,
        )
        self._place.running(process.pid)
        try:
            out, _ = await asyncio.wait_for(process.communicate(), COMMAND_WITHIN)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            self._place.running(None)
        if process.returncode:
            raise Failure(f"'zmesh {words[0]}' failed with exit code {process.returncode}", FAILED)
        return out.decode(errors="backslashreplace")


def _digest_of(path: str) -> str:
    """The digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_noise(path: str, mib: int) -> str:
    """Fill a file with so many MiB of random bytes; their digest."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for _ in range(mib):
            block = os.urandom(1024 * 1024)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


async def _first_answer(session: Session) -> None:
    """Wait until a ping is answered, with a new one every PING_AGAIN."""
    pings: set[asyncio.Task[bool]] = set()
    try:
        async with asyncio.timeout(HEAL_WITHIN):
            while True:
                pings.add(asyncio.create_task(_answered(session)))
                done, _ = await asyncio.wait(pings, timeout=PING_AGAIN, return_when=asyncio.FIRST_COMPLETED)
                if any(ping.result() for ping in done):
                    return
                pings -= done
    finally:
        for ping in pings:
            ping.cancel()
        await asyncio.gather(*pings, return_exceptions=True)


async def _answered(session: Session) -> bool:
    try:
        await session.ping(HEAL_WITHIN)
    except MeshError:
        return False
    return True


@contextlib.contextmanager
def _web_server() -> Iterator[str]:
    """A web server on the loopback address, in a thread; its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(1.0)


class _Page(http.server.BaseHTTPRequestHandler):
    """Answers every GET with PAGE, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send the page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
