"""The index of the requests at a node: by message id, by the ids of replies, and by similarity."""

import secrets
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.message import reply_id
from zmesh.serving.index import BUCKET_COMPARED, SIMILAR_COMPARED, RequestIndex


class Request:
    def __init__(self, id, serial=0):
        self.id = id
        self.serial = serial


def table(*requests):
    index = RequestIndex()
    for request in requests:
        index.add(request)
    return index


def lines_run(function, *arguments):
    """How many lines of Python a call takes."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


@given(st.binary(min_size=16, max_size=16), st.integers(0, 1 << 31), st.data())
def test_a_request_is_found_by_its_own_id_and_that_of_any_of_its_replies(id, serial, data):
    request = Request(id, serial)
    index = table(Request(secrets.token_bytes(16), 5), request)
    given = data.draw(st.integers(0, serial))
    number = int.from_bytes(id, "big") + given
    if number < 1 << 128:
        assert reply_id(id, given) == number.to_bytes(16, "big")
        assert index.find(number) is request


def test_a_reply_that_was_not_given_is_not_found():
    request = Request(bytes(15) + b"\x05", 2)
    index = table(request)
    assert index.find(7) is request
    assert index.find(8) is None
    assert index.find(4) is None
    assert index.find(0) is None


def test_a_request_that_is_over_is_not_found():
    one, other = Request(bytes(15) + b"\x01", 1), Request(bytes(15) + b"\x09", 1)
    index = table(one, other)
    assert index.pop(one.id) is one
    assert index.pop(one.id) is None
    assert (index.find(1), index.find(2), index.find(10)) == (None, None, other)
    index.pop(other.id)
    assert (len(index), list(index), index.find(10)) == (0, [], None)


def test_a_request_takes_the_place_of_one_of_the_same_id():
    one, other = Request(bytes(16), 1), Request(bytes(16), 1)
    index = table(one, other)
    assert list(index) == [other]
    assert index.find(1) is other


@pytest.mark.parametrize("wrong", [0, 1, 6])
def test_an_id_with_a_few_wrong_digits_is_similar(wrong):
    id = secrets.token_bytes(16)
    digits = list(id.hex())
    for place in range(wrong):
        digits[5 * place] = "0" if digits[5 * place] != "0" else "f"
    index = table(Request(secrets.token_bytes(16)), Request(id), Request(secrets.token_bytes(16)))
    assert index.most_similar(int("".join(digits), 16), 0.8) == id


def test_an_id_with_many_wrong_digits_is_not_similar():
    assert table(Request(bytes(16))).most_similar(int("1" * 7, 16), 0.8) is None
    assert table(Request(bytes(16))).most_similar(int("8" * 6, 16), 0.8) == bytes(16)


def test_of_several_ids_the_most_similar_is_given():
    ids = [bytes(15) + bytes([last]) for last in (0x11, 0x01, 0x21)]
    assert table(*map(Request, ids)).most_similar(0x02, 0.8) == ids[1]


def test_looking_for_an_id_takes_as_long_among_many_as_among_few():
    few, many = (table(*(Request(secrets.token_bytes(16)) for _ in range(count))) for count in (10, 10_000))
    unknown = int.from_bytes(secrets.token_bytes(16), "big")
    assert lines_run(many.find, unknown) == lines_run(few.find, unknown)


def test_looking_for_a_likely_id_takes_no_longer_than_among_the_latest():
    least, many = (table(*(Request(secrets.token_bytes(16)) for _ in range(n))) for n in (SIMILAR_COMPARED, 10_000))
    unknown = int.from_bytes(secrets.token_bytes(16), "big")
    assert lines_run(many.most_similar, unknown, 0.8) <= lines_run(least.most_similar, unknown, 0.8) + 10


def test_ids_that_were_made_alike_do_not_make_the_search_longer():
    few, many = (
        table(*(Request(bytes(12) + number.to_bytes(4, "big")) for number in range(count)))
        for count in (BUCKET_COMPARED, 10_000)
    )
    assert lines_run(many.find, 1 << 31) == lines_run(few.find, 1 << 31)
