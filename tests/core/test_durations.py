import pytest

from zmesh.core.durations import exact, milliseconds, span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.6, "1 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_a_duration_is_shown_in_the_largest_unit_of_which_there_are_two(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text", "short"),
    [
        (0.000412, "0.000412 s", "0.412 ms"),
        (0.25, "0.25 s", "250 ms"),
        (0.9996, "1 s", "1000 ms"),
        (31.5, "31.5 s", "31500 ms"),
        (999.6, "1000 s", "999600 ms"),
        (3600, "3600 s", "3600000 ms"),
    ],
)
def test_a_duration_has_three_digits_and_no_exponent(seconds, text, short):
    assert (exact(seconds), milliseconds(seconds)) == (text, short)
