"""`zmesh dashboard`: its port."""

import os
import socket

from tests.waiting import WITHIN


def test_a_port_that_is_taken_is_one_line(shell):
    shell.node("hub")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = shell.run("dashboard", "--port", str(port), "--peer", "hub")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == (
        f"zmesh: can't listen on port {port} of 127.0.0.1: Address already in use"
    )


def test_an_output_that_can_not_be_written_is_not_blamed_on_the_port(shell):
    """It was: `can't listen on port 0 of 127.0.0.1: Success`."""
    shell.node("hub")
    about = b"the mesh as 'hub' knows it, for a browser on this machine; Ctrl-C stops it\n"
    reading, writing = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    for output, end in (
        (writing, (141, about)),
        (full, (1, about + b"zmesh: can't write the output: No space left on device\n")),
    ):
        command = shell.start("dashboard", "--peer", "hub", stdout=output)
        os.close(output)
        _, err = command.communicate(timeout=WITHIN)
        assert (command.returncode, err) == end


def test_what_is_no_port_is_one_line(shell):
    for text in ("99999", "-1", "x"):
        done = shell.run("dashboard", "--port", text)
        assert done.returncode == 2
        (line,) = done.stderr.decode().splitlines()
        assert "'--port'" in line
        assert "'zmesh dashboard -h' has its usage" in line
