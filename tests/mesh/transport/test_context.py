"""The context that the transports of a process share."""

from zmesh.transport import open_transports


async def test_the_context_is_there_as_long_as_any_transport_is(transports):
    first, second = transports(), transports()
    assert open_transports() == 2
    assert first.context is second.context
    await first.close()
    assert open_transports() == 1
    second.listen("tcp://127.0.0.1:*")
    await second.close()
    assert open_transports() == 0
    assert transports().context is not first.context
