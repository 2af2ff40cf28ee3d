"""A machine in namespaces: systemd as process 1 of its own, on this machine's files, of which it changes nothing.

Its root file system is an overlay whose upper layer is in memory (overlayfs never writes to the lower one), in a mount
namespace that ends with it; the units of this machine are hidden, and it has no network but a loopback of its own.
systemd-nspawn(1) does the rest.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import zmesh
import zmesh_cli

NEEDS = ("systemd-nspawn", "systemctl", "unshare", "nsenter", "setpriv")
BOOTS_WITHIN = 180.0
RUNS_WITHIN = 90.0
PREFIX = Path("/opt/zmesh")
"""Where zmesh is installed there: a path that every user may read."""

END_WITH_THIS = ("setpriv", "--pdeathsig", "TERM")
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
INSTALL = rf"""
echo /opt/python/lib >/etc/ld.so.conf.d/python.conf
ldconfig
cd {PREFIX}
mkdir -p bin
ln -s "/opt/python/bin/$1" bin/python
echo 'home = /opt/python/bin' >pyvenv.cfg
echo /opt/packages >"lib/$1/site-packages/packages.pth"
cat >bin/zmesh <<END
#!{PREFIX}/bin/python
import sys
from zmesh_cli.main import main
sys.exit(main())
END
chmod 755 bin/zmesh
"""
"""Makes a virtual environment of the files mounted there; an interpreter may have its own shared library."""
MOUNT = r"""
mount -t tmpfs zmesh-test "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
"""
LAUNCH = r"""
memory=$1 name=$2
shift 2
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    if [ -f "$hierarchy/cgroup.procs" ]; then
        mkdir -p "$hierarchy/$name"
        echo $$ >"$hierarchy/$name/cgroup.procs"
    fi
done
exec systemd-nspawn --directory="$memory/root" --machine="$name" "$@"
"""


class Machine:
    """A machine that has booted. `run` runs a command in it as root."""

    def __init__(self, leader: int) -> None:
        self._leader = leader

    def run(self, *words: str, stdin: str = "", code: int | None = 0) -> str:
        """Run a command to its end, whose exit code must be `code` if that is not None; what it has printed on both."""
        environment = {"PATH": f"{PREFIX}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        done = subprocess.run(
            ["nsenter", "--target", str(self._leader), "--all", "--", "env", "--chdir=/", *words],
            input=stdin,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUNS_WITHIN,
            start_new_session=True,
        )
        assert "Traceback" not in done.stdout, done.stdout
        assert code is None or done.returncode == code, f"{words}: {done.returncode}: {done.stdout}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file that everybody may read."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "sh", path, stdin=text)

    def shown(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        lines = self.run("systemctl", "show", f"--property={','.join(names)}", unit).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def journal(self, unit: str, *words: str) -> list[str]:
        """The lines of a unit in the journal."""
        return self.run("journalctl", "--unit", unit, "--output=cat", "--no-pager", *words).splitlines()


def why_not() -> str:
    """Why no machine can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "only root can make a machine"
    missing = [name for name in NEEDS if shutil.which(name) is None]
    if missing:
        return f"there is no {missing[0]}"
    with tempfile.TemporaryDirectory(prefix="zmesh-machine-") as memory:
        done = subprocess.run(["unshare", "--mount", "sh", "-euc", MOUNT, "sh", memory], capture_output=True, text=True)
    return f"no overlay can be mounted here: {done.stderr.strip()}" if done.returncode else ""


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """A machine; all that runs in it, and its files, are gone at the end."""
    name = f"zmesh-test-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        memory = stack.enter_context(tempfile.TemporaryDirectory(prefix="zmesh-machine-"))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="zmesh-machine-"))
        notified = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notified.bind(f"{folder}/notify")
        notified.settimeout(BOOTS_WITHIN)
        console = stack.enter_context(open(f"{folder}/console", "w+"))
        stack.callback(_remove_cgroups, name)
        nspawn = subprocess.Popen(
            [*END_WITH_THIS, "unshare", "--mount", "sh", "-euc", MOUNT + LAUNCH, "sh", memory, name, *_options()],
            env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": f"{folder}/notify"},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
        stack.callback(nspawn.wait, BOOTS_WITHIN)
        leader = 0
        # without its process 1 a machine is gone, and systemd-nspawn ends
        stack.callback(lambda: os.kill(leader or nspawn.pid, signal.SIGKILL))
        try:
            while "READY=1" not in (lines := notified.recv(4096).decode().splitlines()):
                leader = next((int(line.partition("=")[2]) for line in lines if "LEADER_PID=" in line), leader)
        except TimeoutError:
            console.seek(0)
            raise AssertionError(f"systemd has not booted: {console.read()}") from None
        notified.close()  # systemd goes on to report, and stands still once ten reports are unread (unix(7))
        machine = Machine(leader)
        machine.run("sh", "-euc", INSTALL, "sh", PYTHON)
        yield machine


def _options() -> Sequence[str]:
    """The options of systemd-nspawn."""
    packages = PREFIX / f"lib/{PYTHON}/site-packages"
    bound = {sys.base_prefix: "/opt/python", sysconfig.get_path("purelib"): "/opt/packages"}
    bound |= {module.__path__[0]: f"{packages}/{module.__name__}" for module in (zmesh, zmesh_cli)}
    return (
        *("--quiet", "--register=no", "--keep-unit", "--private-network", "--link-journal=no", "--notify-ready=yes"),
        *("--tmpfs=/etc/systemd/system:mode=0755", "--tmpfs=/var:mode=0755", "--tmpfs=/root:mode=0700"),
        *("--tmpfs=/home:mode=0755", "--tmpfs=/srv:mode=0755"),
        *(f"--bind-ro={here}:{there}" for here, there in bound.items()),
        *("--boot", "--", "systemd.unit=multi-user.target"),
    )


def _remove_cgroups(name: str) -> None:
    for hierarchy in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"):
        for folder, _, _ in os.walk(f"{hierarchy}/{name}", topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
