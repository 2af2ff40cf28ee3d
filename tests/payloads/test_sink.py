"""A streamed payload that is handed to a sink instead of a reader."""

from zmesh.payloads import StreamedPayload


class Kept:
    """Keeps what it is given while `full`."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.ended = 0
        self.full = False

    def feed(self, data: bytes) -> int:
        self.taken.append(data)
        return len(data) if self.full else 0

    def feed_eof(self) -> None:
        self.ended += 1


async def test_what_had_come_and_what_comes_goes_to_the_sink_and_room_is_given_back_once() -> None:
    released: list[int] = []
    payload, sink = StreamedPayload(released.append), Kept()
    assert payload.feed(b"early") == 5
    give_back = payload.divert(sink)
    assert released == [5]
    assert payload.feed(b"later") == 0
    sink.full = True
    assert payload.feed(b"kept") == 4
    assert released == [5]
    give_back(4)
    assert released == [5, 4]
    assert sink.taken == [b"early", b"later", b"kept"]
    payload.finish()
    assert sink.ended == 1
    assert len(payload) == 14


async def test_the_end_that_had_come_before_is_passed_on_and_what_fails_is_not() -> None:
    payload, sink = StreamedPayload(), Kept()
    payload.feed(b"all")
    payload.finish()
    payload.divert(sink)
    assert (sink.taken, sink.ended) == ([b"all"], 1)
    released: list[int] = []
    failed, sink = StreamedPayload(released.append), Kept()
    failed.divert(sink)
    failed.fail(ValueError("cut off"))
    assert failed.feed(b"late") == 4
    assert (sink.taken, sink.ended, released) == ([], 0, [4])
