"""Arguments that no public call should be given, as strategies for Hypothesis, and what is left of such a call."""

import contextlib
import decimal
import fractions
import math

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import zmesh
from tests.waiting import WITHIN
from zmesh.testing import eventually

LONG = "x" * 10_000


class Odd:
    """Not even its own text can be had."""

    def __repr__(self):
        raise LookupError("no text")

    __str__ = __repr__

    def __eq__(self, other):
        raise LookupError("no equal")

    __hash__ = None


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(4300, 5000).map(lambda digits: 10**digits),  # more than Python turns into text
    st.sampled_from([10**30, -(10**30), 2**63, 2**64, 2**128 - 1, 2**128, -1, 0]),
    st.floats(),
    st.sampled_from([math.inf, -math.inf, math.nan, 1e300, -0.0, 5e-324]),
    st.text(max_size=10),
    st.text(st.characters(categories=["Cs", "Cc", "Zs", "Nd"]), max_size=5),
    st.sampled_from(["", " ", "\udcff", "x:\udcff", "\ud800:x", "x:\0", "a:b:c", ":", "a:", ":b", LONG, f"a:{LONG}"]),
    st.sampled_from(["far@", "@far", "far@far@far", "far\n", "zz", "0" * 31, "0" * 33, "9" * 39, "9" * 40, "²"]),
    st.sampled_from(["tcp://", "tcp://a", "tcp://[::1", "tcp://a:99999", "tcp://a:²", "tcp://\udcff:1", "http://a:1"]),
    st.sampled_from([f"ipc://{LONG}", "ipc://\udcff", "tcp://a\0b:1", "tcp://a b:1", "rnps://a:1", "tcp://a:1?cost=²"]),
    st.sampled_from(["inproc://", "ipc:///\0", "tcp://127.0.0.1:1?cost=0", "tcp://a:1?x=\udcff", "tcp://:1", "//a:1"]),
    st.binary(max_size=10),
    st.lists(st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.floats()), max_size=2),
    st.sets(st.text(max_size=3), max_size=2),
    st.builds(Odd),
    st.builds(object),
    st.sampled_from([object, Odd, len, decimal.Decimal("nan"), decimal.Decimal(1), fractions.Fraction(1, 3), 1j]),
    st.sampled_from([lambda: 1, lambda a, b: 1, lambda *, a: 1, lambda *a: None, "lambda", ..., NotImplemented]),
)
BAD = st.one_of(
    st.sampled_from(["\udcff", "x:\udcff", math.inf, math.nan, -1.0, 10**30, "1", b"far", "", None]),
    st.builds(Odd),  # made anew each time, since Hypothesis asks what it samples from for its text
)


def of(*good):
    """Mostly what may be given, so that each argument is odd by itself, too."""
    return st.one_of(st.sampled_from(good), st.sampled_from(good), ODD, BAD)


def is_hashable(value):
    """Whether it may be a key."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def is_short(timeout):
    """Whether a wait for nothing ends soon, or is refused."""
    return timeout is not None and (
        not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not 0.1 < timeout <= 1e9
    )


NODE = of("far", "ctl", "nobody", "leaf@far")
DIRECTIVE = of("echo:echo", "no:such")
TIMEOUT = of(None, 5, 0.05, 0)
PAYLOAD = of(b"bytes", "text", {"a": 1}, None)
METADATA = st.one_of(
    of(None, {"key": "text"}, {"k": "v" * 8192}, {}), st.dictionaries(ODD.filter(is_hashable), ODD, max_size=2)
)
CONTENT_TYPE = of(None, "image/png", "application/json", "json", "a/b; charset=\udcff", f"a/{LONG}")

ALLOWED = (ValueError, TypeError, zmesh.MeshError)


async def settled(mesh):
    """Wait until nothing is under way at the node; what is left then, by table."""
    node = mesh.node

    def left():
        return {
            "exchanges": len(node.requests),
            "handing over": node.engine.is_handing_over,
            **{
                table: count
                for table, count in node.engine.stats().items()
                if table in ("requests_made", "requests_received")
            },
        }

    with contextlib.suppress(AssertionError):  # the caller's comparison tells more
        await eventually(lambda: not any(left().values()), WITHIN)
    node.engine.check()
    return {table: count for table, count in left().items() if count}


SETTINGS = settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
