"""Counters of what the links of a node carry."""

from zmesh.transport.traffic import SPARE, TrafficTable


def test_the_counters_of_links_that_are_gone_are_kept_as_a_sum():
    table = TrafficTable()
    for link in range(1, 3 * SPARE):
        table.open(link, {link})
        table.by_link[link].bytes_in += 10
        table.by_link[link].messages_out += 1
    assert len(table.by_link) <= SPARE + 3
    total = table.total()
    assert (total.bytes_in, total.messages_out) == (10 * (3 * SPARE - 1), 3 * SPARE - 1)


async def test_both_ends_count_the_same(listener, dialler, url, eventually):
    shown = listener.listen(url)
    dialler.dial(shown)
    await eventually(lambda: dialler.links)
    (link,) = dialler.links
    assert dialler.send(link, (b"head",))
    assert dialler.send(link, (b"head", b"x" * 50_000))
    await eventually(lambda: listener.traffic.total().messages_in == 2)
    out, into = dialler.traffic.by_link[link], listener.traffic.total()
    assert (out.messages_out, out.bytes_out) == (2, 50_008)
    assert (into.messages_in, into.bytes_in) == (2, 50_008)
    (back,) = listener.links
    assert listener.send(back, (b"answer",))
    await eventually(lambda: dialler.traffic.by_link[link].bytes_in == 6)
