"""What a user reads where a library of an extra is not installed: one line that names the command to install it."""

import os
import subprocess
import sys

import pytest

from tests.waiting import WITHIN

HIDDEN = "import sys; sys.modules[{module!r}] = None; sys.argv[0] = 'zmesh'\n"
COMMAND = "from zmesh_cli.main import main\nmain()"
CASES = [
    ("web", "uvicorn", "the dashboard needs uvicorn: pip install 'zmesh-mq[web]'"),
    ("web", "starlette.applications", "the dashboard needs starlette.applications: pip install 'zmesh-mq[web]'"),
    ("metrics", "prometheus_client", "metrics need prometheus_client: pip install 'zmesh-mq[metrics]'"),
    ("otel", "opentelemetry", "tracing needs opentelemetry-api: pip install 'zmesh-mq[otel]'"),
]
WORDS = {"web": ["dashboard"], "metrics": ["node", "--metrics", ":*"], "otel": ["node"]}
CALLS = {
    "web": "from zmesh.dashboard import Dashboard",
    "metrics": "import zmesh; zmesh.Controller(metrics=':*')",
    "otel": "import zmesh; zmesh.Controller(tracing=True)",
}


def python(text, *words, **variables):
    line, environment = [sys.executable, "-P", "-c", text, *words], {**os.environ, **variables}
    return subprocess.run(line, capture_output=True, text=True, timeout=WITHIN, env=environment)


@pytest.mark.parametrize(("extra", "module", "line"), CASES)
def test_a_command_whose_extra_is_missing_is_one_line_with_the_way_out_and_status_2(extra, module, line):
    done = python(
        HIDDEN.format(module=module) + COMMAND, *WORDS[extra], ZMESH_TRACING="true" if extra == "otel" else ""
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"zmesh: {line}\n")


@pytest.mark.parametrize(("extra", "module", "line"), CASES)
def test_a_program_whose_extra_is_missing_gets_an_error_with_the_way_out(extra, module, line):
    done = python(HIDDEN.format(module=module) + CALLS[extra])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(f"Error: {line}")
