"""`zmesh service`: a node as a systemd unit, installed, removed and shown."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import ExitStack, suppress

from zmesh import trust
from zmesh_cli.exit_codes import DONE, UNREACHABLE, USAGE, Failure
from zmesh_cli.parameters import NodeSettings
from zmesh_cli.terminal import printable, record, write_line
from zmesh_cli.units import NAME, Unit

SHOWN = (
    "LoadState",
    "ActiveState",
    "SubState",
    "MainPID",
    "ActiveEnterTimestamp",
    "NRestarts",
    "StatusText",
    "Result",
    "ExecMainStatus",
)


def unit_of(
    name: str, *, user: bool, config: str | None = None, state: str | None = None, unconfined: bool = False
) -> Unit:
    """The unit that is meant: of the system for root, else of this user. Raises Failure."""
    if not NAME.match(name):
        raise Failure(f"{name!r} is no name of a unit: 1 to 64 of A-Z a-z 0-9 : _ . -", USAGE)
    system = not user and os.geteuid() == 0
    folder = state if state is not None else trust.default_folder()
    return Unit(name, system, config, None if folder is None else os.fspath(folder), unconfined)


def install(unit: Unit, *, start: bool, only_print: bool) -> int:
    """Write the unit, and have systemd start it now and at each boot; nothing is left if it can't."""
    text = unit.text()
    if only_print:
        write_line(text)
        return DONE
    settings = NodeSettings(unit.config, None, None, None, False).load()  # a file that can't be used is an error now
    is_nobody = unit.system and unit.state is None and settings.identity == "auto"
    start = start and not is_nobody
    if os.path.exists(unit.file):
        raise Failure(f"{unit.file} is there already; 'zmesh service uninstall' removes it", USAGE)
    with ExitStack() as unless_installed:
        _write(unit.file, text)
        unless_installed.callback(_remove, unit)
        _systemctl(unit, "daemon-reload")
        _systemctl(unit, "enable", *(["--now"] if start else []), f"{unit.name}.service")
        unless_installed.pop_all()
    lines = [f"{unit.file} is written, and {'runs' if start else 'starts'} at each boot"]
    if not unit.system:
        lines.append("  Without a login too: loginctl enable-linger")
    if is_nobody:
        lines.append(f"  It has no identity yet: zmesh join TICKET --state /var/lib/{unit.name}")
        lines.append(f"  and then: systemctl start {unit.name}")
    lines.append(f"  Its log: {_log_of(unit)}")
    write_line("".join(f"{printable(line)}\n" for line in lines))
    return DONE


def uninstall(unit: Unit) -> int:
    """Stop the unit and remove it; its state stays."""
    if not os.path.exists(unit.file):
        raise Failure(f"there is no {unit.file}", USAGE)
    with suppress(Failure):  # it may not be enabled
        _systemctl(unit, "disable", "--now", f"{unit.name}.service")
    _remove(unit)
    _systemctl(unit, "daemon-reload")
    write_line(f"{printable(unit.file)} is removed; the state of the node stays\n")
    return DONE


def status(unit: Unit, *, as_json: bool) -> int:
    """Show whether the unit runs; 0 if it does, else 3."""
    done = _systemctl(unit, "show", f"--property={','.join(SHOWN)}", f"{unit.name}.service")
    found = dict(line.split("=", 1) for line in done.splitlines() if "=" in line)
    active = found.get("ActiveState", "unknown")
    pid = int(found.get("MainPID") or 0)
    if as_json:
        fields = {"active": active, "state": found.get("SubState", ""), "pid": pid, "text": found.get("StatusText", "")}
        since, restarts = found.get("ActiveEnterTimestamp", ""), int(found.get("NRestarts") or 0)
        write_line(record("zmesh.service/1", unit=unit.name, file=unit.file, **fields, since=since, restarts=restarts))
    elif found.get("LoadState") == "not-found":
        write_line(f"{printable(unit.name)} is not installed; zmesh service install\n")
    else:
        about = f", process {pid}" if pid else ""
        since = f" since {found['ActiveEnterTimestamp']}" if found.get("ActiveEnterTimestamp") else ""
        text = f": {found['StatusText']}" if found.get("StatusText") else ""
        again = f", started again {found.get('NRestarts')} times" if found.get("NRestarts", "0") != "0" else ""
        write_line(printable(f"{unit.name}: {active} ({found.get('SubState', '')}){about}{since}{again}{text}") + "\n")
        code = found.get("ExecMainStatus", "0")
        if active != "active" and (again or code != "0"):
            last = f"The last run ended by {found.get('Result')} ({code}); why" if code != "0" else "Why"
            write_line(printable(f"  {last}: {_log_of(unit)}") + "\n")
    return DONE if active == "active" else UNREACHABLE


def _log_of(unit: Unit) -> str:
    """The command that shows the log of a unit."""
    return f"journalctl {'' if unit.system else '--user '}-u {unit.name}"


def _write(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".zmesh-", dir=os.path.dirname(path))
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise Failure(f"{path} can't be written: {error.strerror}; --print shows the unit", USAGE) from None


def _remove(unit: Unit) -> None:
    with suppress(OSError):
        os.unlink(unit.file)


def _systemctl(unit: Unit, *words: str) -> str:
    """The output of systemctl. Raises Failure where it fails."""
    line = ["systemctl", *([] if unit.system else ["--user"]), *words]
    try:
        done = subprocess.run(line, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise Failure("there is no systemctl here; 'zmesh service install --print' shows the unit", USAGE) from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"it ended with {done.returncode}").splitlines()[0]
        raise Failure(f"{' '.join(line)}: {said}; 'zmesh service install --print' shows the unit", USAGE)
    return done.stdout
