"""Records for the tests of the table of records, and what that advertises."""

from zmesh.core.wire import Record, decode_record, encode


def record(node="b", serial=1, incarnation=7, capabilities=(), neighbours=()):
    return Record(node, incarnation, serial, tuple(capabilities), tuple(neighbours), b"")


def hear(records, record, now=0.0, link=1):
    return records.update(link, record, encode(record), now)


def advertised(records, now):
    """What is sent on each link, decoded."""
    return [(link, [decode_record(blob) for blob in blobs]) for link, blobs in records.flush(now)]
