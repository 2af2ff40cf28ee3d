import pytest

from zmesh_cli.quantities import milliseconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.0, "0 ms"), (0.000412, "0.412 ms"), (0.9996, "1000 ms"), (1.25, "1250 ms")]
)
def test_a_round_trip_time_has_no_exponent(seconds, text):
    assert milliseconds(seconds) == text
