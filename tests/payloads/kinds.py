"""One function of each of the four kinds that a directive may be: each replies what it got, backwards."""

import pytest


async def coroutine(work):
    if "error" in work.config:
        raise work.config["error"]
    return work.payload.readall()[::-1]


def function(work):
    if "error" in work.config:
        raise work.config["error"]
    return work.payload.readall()[::-1]


async def async_generator(work):
    yield work.payload.readall()[::-1]
    if "error" in work.config:
        raise work.config["error"]


def generator(work):
    yield work.payload.readall()[::-1]
    if "error" in work.config:
        raise work.config["error"]


KINDS = [coroutine, function, async_generator, generator]
every_kind = pytest.mark.parametrize("kind", KINDS)
