import dataclasses

import pytest

from zmesh.core.effects import Abort, Deliver, HangUp, Pull, Report, StreamOver, Transmit
from zmesh.core.message import Stream

STREAM = Stream(bytes(16), True)
EFFECTS = [
    lambda: Transmit(1, (b"route", b"head", b"body")),
    lambda: Deliver(STREAM, "a", None, b"body", True, None, 516, 2),
    lambda: Pull(STREAM),
    lambda: StreamOver(STREAM),
    lambda: Abort(bytes(16), "cancelled"),
    lambda: HangUp(1, "silent", 0.0),
    lambda: Report("link_up", "a", 1),
]


@pytest.mark.parametrize("make", EFFECTS)
def test_an_effect_is_a_value(make):
    assert make() == make()
    assert hash(make()) == hash(make())


@pytest.mark.parametrize("make", EFFECTS)
def test_an_effect_never_changes(make):
    effect = make()
    name = effect._fields[0] if isinstance(effect, tuple) else dataclasses.fields(effect)[0].name
    with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
        setattr(effect, name, None)


def test_effects_of_different_kinds_are_unequal():
    assert len({make() for make in EFFECTS}) == len(EFFECTS)
