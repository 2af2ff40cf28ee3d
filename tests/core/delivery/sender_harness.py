"""What is done to a sender under test, and what it has sent."""

from zmesh.core.message import ReplyHeader, RequestHeader
from zmesh.core.wire import AckItem, Kind

HEADER = RequestHeader("echo:echo", 1.0)
ANSWER = ReplyHeader(1.0, 1)


def push(sender, exchange, body=b"", *, last=True, eof=None):
    header = HEADER if exchange.outbound_id.request else ANSWER
    sender.push(exchange, header, body, last=last, eof=eof, complete=last)


def chunks(forwarding):
    return [sent.value for sent in forwarding.frames(Kind.CHUNK)]


def acknowledge(sender, exchange, following, now, limit=0):
    sender.on_ack(exchange, AckItem(*exchange.outbound_id, following, limit), now)
