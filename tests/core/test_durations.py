import pytest

from zmesh.core.durations import span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.6, "1 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_a_duration_is_shown_in_the_largest_unit_of_which_there_are_two(seconds, text):
    assert span(seconds) == text
