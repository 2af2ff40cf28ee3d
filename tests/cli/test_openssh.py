"""OpenSSH, rsync and git reach a node by `ProxyCommand zmesh nc %h %p`; the server is the sshd of the package."""

import getpass
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CONFIG = """\
Host edge-7
    ProxyCommand {command} nc %h %p
    Port {port}
    User {user}
    IdentityFile {folder}/user
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known
    StrictHostKeyChecking yes
"""


class Page(http.server.BaseHTTPRequestHandler):
    """A web page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"reached")

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (.ci/packages)")


@pytest.fixture(scope="module")
def site(new_shell: Callable[[], Any]) -> Iterator[Any]:
    """A shell with two nodes, an sshd beside one of them, and `ssh_config` for it."""
    need("ssh", "ssh-keygen")
    if SSHD is None:
        pytest.skip("sshd is not installed (.ci/packages)")
    shell = new_shell()
    folder = shell.folder
    shell.environment["ZMESH_ALLOW"] = '{"tcp:connect": ["hub"]}'
    shell.chain("hub", "edge-7")
    shell.environment["ZMESH_PEER"] = "hub"
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    port = shell.free_ports()
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # for the separation of privileges
    options = [f"AuthorizedKeysFile={folder}/user.pub", "StrictModes=no", "UsePAM=no", "PidFile=none",
               "ListenAddress=127.0.0.1", "Subsystem=sftp internal-sftp", "PermitRootLogin=yes"]  # fmt: skip
    words = [word for option in options for word in ("-o", option)]
    command = [SSHD, "-D", "-e", "-f", "/dev/null", "-p", str(port), "-h", str(folder / "host"), *words]
    key = (folder / "host.pub").read_text().split()
    (folder / "known").write_text(f"[edge-7]:{port} {key[0]} {key[1]}\n")
    zmesh = " ".join([sys.executable, "-P", "-m", "zmesh_cli"])
    (folder / "ssh_config").write_text(CONFIG.format(command=zmesh, port=port, user=getpass.getuser(), folder=folder))
    with subprocess.Popen(command, stderr=subprocess.PIPE) as sshd:
        assert sshd.stderr is not None
        while b"Server listening" not in (line := sshd.stderr.readline()):
            assert line
        yield shell
        sshd.terminate()
        sshd.stderr.read()


def run(site: Any, *command: str, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, input=stdin, capture_output=True, timeout=90, cwd=site.folder, env=site.environment | variables
    )


def test_ssh_runs_a_command_with_its_streams_and_exit_code(site: Any) -> None:
    done = run(site, "ssh", "-F", "ssh_config", "edge-7", "cat; echo no >&2; exit 7", stdin=b"x" * 1_000_000)
    assert (done.returncode, done.stdout) == (7, b"x" * 1_000_000)
    assert done.stderr == b"no\n"


def test_scp_copies_both_ways(site: Any) -> None:
    data = os.urandom(5_000_000)
    (site.folder / "data").write_bytes(data)
    for source, target in (("data", f"edge-7:{site.folder}/there"), (f"edge-7:{site.folder}/there", "back")):
        done = run(site, "scp", "-q", "-F", "ssh_config", source, target)
        assert (done.returncode, done.stderr) == (0, b"")
    assert (site.folder / "back").read_bytes() == data


def test_rsync_copies_a_directory_and_then_only_what_has_changed(site: Any) -> None:
    need("rsync")
    source = site.folder / "source"
    (source / "sub").mkdir(parents=True)
    for number in range(20):
        (source / "sub" / f"{number}").write_bytes(os.urandom(50_000))
    rsync = ("rsync", "-a", "--stats", "-e", "ssh -F ssh_config", f"{source}/", f"edge-7:{site.folder}/synced/")
    assert run(site, *rsync).returncode == 0
    (source / "sub" / "7").write_text("changed")
    done = run(site, *rsync)
    assert b"files transferred: 1\n" in done.stdout
    compared = subprocess.run(["diff", "-r", source, site.folder / "synced"], capture_output=True)
    assert (compared.returncode, compared.stdout) == (0, b"")


def test_git_clones_and_pushes(site: Any) -> None:
    need("git")
    git = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main")
    ssh = {"GIT_SSH_COMMAND": "ssh -F ../ssh_config", "GIT_CONFIG_GLOBAL": "/dev/null"}
    assert run(site, *git, "init", "-q", "--bare", "project.git").returncode == 0
    cloned = run(
        site, *git, "clone", "-q", f"edge-7:{site.folder}/project.git", "work", GIT_SSH_COMMAND="ssh -F ssh_config"
    )
    assert cloned.returncode == 0, cloned.stderr
    (site.folder / "work" / "file").write_bytes(os.urandom(100_000))
    for words in (("add", "file"), ("commit", "-qm", "Add a file"), ("push", "-q", "origin", "HEAD")):
        done = run(site, *git, "-C", "work", *words, **ssh)
        assert done.returncode == 0, done.stderr
    log = run(site, *git, "-C", "project.git", "log", "--format=%s", "main")
    assert log.stdout == b"Add a file\n"


def test_ssh_is_a_socks5_proxy_to_what_the_node_reaches(site: Any, eventually: Callable[..., None]) -> None:
    need("curl")
    proxy = f"127.0.0.1:{site.free_ports()}"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = ["ssh", "-F", "ssh_config", "-o", "ExitOnForwardFailure=yes", "-N", "-D", proxy, "edge-7"]
        with subprocess.Popen(command, cwd=site.folder, env=site.environment, stderr=subprocess.DEVNULL) as ssh:
            url = f"http://127.0.0.1:{server.server_port}/"
            curl = ("curl", "-s", "--noproxy", "", "--proxy", f"socks5h://{proxy}", url)
            eventually(lambda: run(site, *curl).stdout == b"reached")
            ssh.terminate()
        server.shutdown()


def test_why_a_node_does_not_connect_is_said_where_ssh_shows_it(site: Any) -> None:
    proxy = f"{sys.executable} -P -m zmesh_cli nc edge-7 192.0.2.1:22"
    done = run(site, "ssh", "-F", "/dev/null", "-o", f"ProxyCommand={proxy}", "edge-7")
    assert done.returncode == 255
    assert b"zmesh: node 'edge-7' connects to no 192.0.2.1:22: its configuration would, with " in done.stderr
