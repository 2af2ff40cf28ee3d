"""zmesh for programs without asyncio: the same names, but a call returns when it is done.

    import zmesh.sync

    with zmesh.sync.Controller(zmesh.Config(peers=["tcp://hub:7323"])) as mesh:
        print(mesh.request("edge-7", "echo:echo", b"hello").text())

The node and its event loop live in one daemon thread, from `open` to `close`. Any number of other threads may call.
`request` and `stream` are those of `zmesh.Controller`, without `await` and `async`.
"""

from __future__ import annotations

from zmesh.sync.controller import Controller as Controller
from zmesh.sync.iteration import Iteration as Iteration
from zmesh.sync.iteration import ReplyStream as ReplyStream
from zmesh.sync.jobs import Job as Job
from zmesh.sync.popen import Popen as Popen
from zmesh.sync.tunnels import ExposedPort as ExposedPort
from zmesh.sync.tunnels import ForwardedPort as ForwardedPort
