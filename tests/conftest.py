"""What all tests share: how long and how varied Hypothesis searches, and what an assertion says that fails.

`HYPOTHESIS_PROFILE` chooses one of: `dev` (new examples at each run, the default), `ci` (the same examples at each run;
the default where CI is set), `soak` (a hundred times as many).
"""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Modules of the tests that assert something: where it does not hold, the message has the values, as in a test file.
pytest.register_assert_rewrite(
    "tests.core.wire.wire_strategies",
    "tests.core.delivery.delivery_harness",
    "tests.core.engine_harness",
    "tests.hostile.victim",
    "tests.sockets",
    "tests.waiting",
    "tests.transport.transport_handler",
)

# No test uses, or changes, the identity of whoever runs it.
os.environ["XDG_CONFIG_HOME"] = "/nonexistent/zmesh-tests"
for variable in ("ZMESH_STATE", "STATE_DIRECTORY", "ZMESH_PASSPHRASE"):
    os.environ.pop(variable, None)

# A shell has background programs ignore these, which others inherit: also those that tests interrupt.
for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler if ignored is signal.SIGINT else signal.SIG_DFL)

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("dev", deadline=None, suppress_health_check=SLOW_IS_FINE, print_blob=True)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, database=None)
settings.register_profile("soak", settings.get_profile("dev"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


def pytest_xdist_auto_num_workers(config):
    """How many processes `-n auto` means: two for each core, since most tests wait most of the time."""
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Reports travel between processes (pytest-xdist) as UTF-8, and what a test has logged need not be that."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
