"""Scrapes of nodes, read."""

import asyncio
import urllib.request

from prometheus_client.parser import text_string_to_metric_families as parse

import zmesh

Samples = dict[str, dict[tuple[str, ...], float]]
"""Values by name, and by the labels but `node`, in the order of their names."""


def fetch(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        return str(answer.read().decode())


async def scrape(node: zmesh.Controller) -> Samples:
    """The samples of a node."""
    url = node.node.metrics_url
    assert url is not None
    return samples(await asyncio.to_thread(fetch, url))


def samples(text: str) -> Samples:
    found: Samples = {}
    for family in parse(text):
        for sample in family.samples:
            labels = tuple(value for name, value in sorted(sample.labels.items()) if name != "node")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found
