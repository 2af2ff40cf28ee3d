import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.wire.wire_strategies import entries, record, records, refused, u63, update
from zmesh.core import wire
from zmesh.core.wire import U63, Kind, WireError, encode, link


@given(st.integers(0, 3), u63, st.lists(entries, max_size=6))
def test_an_update_comes_out_as_it_went_in(full, number, several):
    packet = wire.read_packet(wire.encode_update(wire.Update(full, number, several)))
    assert packet.kind == Kind.UPDATE
    assert wire.decode_update(packet.head) == wire.Update(full, number, several)


@pytest.mark.parametrize("column", range(6))
def test_an_update_whose_columns_differ_in_length_is_refused(column):
    columns = [["a", "b"], [1, 1], [1, 1], [1, 1], [1, 1], [1, 1]]
    columns[column].pop()
    refused(wire.decode_update, encode((0, 1, *columns)))


@pytest.mark.parametrize("wrong", [None, True, 1.5, "text", b"a", [], {}, -1, "a b"])
@pytest.mark.parametrize("column", range(6))
def test_an_update_with_a_wrong_field_in_a_column_is_refused(column, wrong):
    columns = [["a", "b"], [1, 1], [1, 1], [1, 1], [1, 1], [1, 1]]
    columns[column][1] = wrong
    if (column, wrong) != (0, "text"):
        refused(wire.decode_update, encode((0, 1, *columns)))


def test_an_update_with_a_feasibility_distance_below_nought_is_refused():
    assert wire.decode_update(update(2, metric=7, excess=7)).entries[0][3:] == (7, 1, 7)
    refused(wire.decode_update, encode((0, 1, ["a", "b"], [1, 1], [1, 1], [9, 7], [1, 1], [8, 8])))


def test_the_names_that_were_read_before_are_remembered_within_bounds(monkeypatch):
    monkeypatch.setattr(link, "MAX_KNOWN", 2)
    for number in range(9):
        assert wire.decode_update(update(1, node=f"known-{number}")).entries[0][0] == f"known-{number}"
        assert len(link._known_nodes) <= 3 + 1


@given(st.lists(records, max_size=6))
def test_records_come_out_with_their_own_bytes(several):
    blobs = [encode(record) for record in several]
    packet = wire.read_packet(wire.encode_records(blobs))
    assert packet.kind == Kind.RECORD
    assert wire.decode_records(packet.head) == (list(zip(several, blobs, strict=True)), [])


@pytest.mark.parametrize("bad", [b"", "record", 7, b"\xc1", record(serial=U63 + 1), record("no id")], ids=repr)
def test_a_record_that_is_garbage_does_not_spoil_the_others_of_its_frame(bad):
    records, errors = wire.decode_records(encode((record("a"), bad, record("b"))))
    assert [blob for _, blob in records] == [record("a"), record("b")]
    assert [type(error) for error in errors] == [WireError]


@pytest.mark.parametrize(
    "capabilities", [[1], [b"a:b"], [None], [["a:b"]]], ids=["number", "bytes", "nothing", "array"]
)
def test_a_capability_is_a_text(capabilities):
    refused(wire.decode_record, record(capabilities=capabilities))


def test_a_record_may_have_no_key_that_is_a_text():
    refused(wire.decode_record, record(key="key"), "not a key")


# --- tags of records --------------------------------------------------------------------------------------------------


def tagged(content):
    return wire.encode(wire.Record("a", 1, 1, (), (), b"")._replace(extensions={wire.TAGS: content}))


def test_tags_of_a_record_are_names():
    record = wire.decode_record(tagged(wire.encode_tags(("gpu", "site-3"))))
    assert wire.tags_of(record) == ("gpu", "site-3")
    assert wire.tags_of(record._replace(extensions={})) == ()
    most = tuple(f"{number:0{wire.MAX_TAG}}" for number in range(wire.MAX_TAGS))
    assert wire.tags_of(wire.decode_record(tagged(wire.encode_tags(most)))) == most


@pytest.mark.parametrize(
    "content", [b"", b"x", wire.encode_tags(("g p u",)), wire.encode_tags(("a",) * (wire.MAX_TAGS + 1)), bytes(3000)]
)
def test_a_record_with_anything_else_for_tags_is_malformed(content):
    with pytest.raises(wire.WireError):
        wire.decode_record(tagged(content))


# --- the software of records ------------------------------------------------------------------------------------------


def of_software(content):
    return wire.encode(wire.Record("a", 1, 1, (), (), b"")._replace(extensions={wire.SOFTWARE: content}))


def test_the_software_of_a_record_is_a_short_text():
    record = wire.decode_record(of_software(b"0.1.0"))
    assert wire.software_of(record) == "0.1.0"
    assert wire.software_of(record._replace(extensions={})) == ""
    assert wire.software_of(wire.decode_record(of_software(b"x" * wire.MAX_SOFTWARE))) == "x" * wire.MAX_SOFTWARE


@pytest.mark.parametrize("content", [b"\xff", b"0.1\n", b"\x1b[2J", b"x" * (wire.MAX_SOFTWARE + 1)])
def test_a_record_with_anything_else_for_its_software_is_malformed(content):
    with pytest.raises(wire.WireError):
        wire.decode_record(of_software(content))
