"""`zmesh dashboard`: its port."""

import socket


def test_a_port_that_is_taken_is_one_line(shell):
    shell.node("hub")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = shell.run("dashboard", "--port", str(port), "--peer", "hub")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == (
        f"zmesh: can't listen on port {port} of 127.0.0.1: Address already in use"
    )


def test_what_is_no_port_is_one_line(shell):
    for text in ("99999", "-1", "x"):
        done = shell.run("dashboard", "--port", text)
        assert done.returncode == 2
        (line,) = done.stderr.decode().splitlines()
        assert "'--port'" in line
        assert "'zmesh dashboard -h' has its usage" in line
