"""What the tests of the forwarding plane share."""

import pytest

from tests.core.forwarding.forwarding_harness import Node


@pytest.fixture
def node():
    """Node `a`, which reaches `c` over its neighbour `b`, and has a leaf `l` on link 3."""
    node = Node()
    node.join(1, "b")
    node.join(2, "d")
    node.join(3, "l", leaf=True)
    node.reach(1, "c")
    return node
