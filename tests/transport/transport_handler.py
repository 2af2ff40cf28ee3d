"""What listens to a transport under test, and links between two of those."""

from zmesh.testing import eventually

FRAMES = (b"route", b"head", b"body")


class RecordingHandler:
    """Records the events of a transport."""

    def __init__(self):
        self.events = []
        self.links = []
        self.frames = []
        self.bursts = 0
        self.failures = []
        self.ready = []
        self.lost = []
        self.shut = []
        self.strangers = []
        self.channels = {}
        self.locals = []
        self.transport = None

    def on_link_up(self, link, *, dialled, cost, channel=b"", local=False):
        self.events.append(("up", link, dialled, cost))
        self.channels[link] = channel
        self.locals.append(local)
        self.links.append(link)

    def on_link_down(self, link, reason):
        self.events.append(("down", link, reason))
        self.links.remove(link)

    def on_link_ready(self, link):
        self.ready.append(link)

    def on_link_suspect(self, link):
        self.transport.send(link, FRAMES)

    def on_frames(self, link, frames):
        self.frames.append((link, tuple(bytes(frame) for frame in frames)))

    def on_burst(self):
        self.bursts += 1

    def on_burst_end(self):
        self.bursts -= 1

    def on_dial_failed(self, url, reason, code=""):
        self.failures.append((url, reason))

    def on_frames_lost(self, link, reason):
        self.lost.append((link, reason))

    def on_connection_shut(self, reason):
        self.shut.append(reason)

    def on_stranger(self, code, text):
        self.strangers.append((code, text))


async def joined(dialler, listener, url):
    """A link between the two: its numbers at the dialler's and at the listener's end."""
    dialler.dial(listener.listen(url))
    await eventually(lambda: dialler.handler.links)
    assert dialler.send(dialler.handler.links[0], FRAMES)
    dialler.settle()
    await eventually(lambda: listener.handler.links and listener.handler.frames)
    return dialler.handler.links[0], listener.handler.links[0]


def downs(transport):
    return sum(event[0] == "down" for event in transport.handler.events)
