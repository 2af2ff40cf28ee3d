# From a bare Python 3.11 or newer: `make demo` shows a mesh at work, `make test` checks everything.
# Another Python than the newest that is found: `make PYTHON=/path/to/python ...`

PYTHON ?= python3.14 python3.13 python3.12 python3.11 python3 python
USABLE = import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PIP    = .venv/bin/python -m pip install --quiet --disable-pip-version-check
TOX    = .venv/bin/tox
# Pythons that tox would not find by itself, since they are not on PATH
PYENVS = $(wildcard $(shell pyenv root 2>/dev/null)/versions/3.*/bin/python3)

.DEFAULT_GOAL := help
.PHONY: help .venv demo test test-all dist vendor pictures image lint type docs bench soak fuzz dev clean

help:           ## show these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

demo: .venv     ## start a mesh of five nodes on this machine and watch it work
	.venv/bin/zmesh demo

test: .venv/tox ## run every check: lint, types, docs, layers, unit, simulation and real sockets
	$(TOX) run-parallel --parallel 3 --parallel-no-spinner -e lint,type,docs,core,py -- \
	    tests --ignore=tests/docs --ignore=tests/core

test-all: .venv/tox     ## the same on every Python 3.11+ of this machine
	$(TOX) run $(if $(PYENVS),--discover $(PYENVS))

lint type docs: .venv/tox
	$(TOX) run -e $@
	@if [ $@ = docs ]; then echo 'the pages are at docs/_build/html/index.html'; fi

lint:           ## style, format and layers
type:           ## mypy --strict
docs:           ## draw the drawings, build the pages (docs/_build/html/index.html), run every snippet in them

bench: .venv    ## measure the round trip beside bare ZeroMQ
	.venv/bin/python -m benchmarks.latency

soak: .venv/dev ## run 60,000 random meshes on all cores (an hour on two); prints how to replay what fails
	.venv/bin/python -m tests.simulation.soak

fuzz: .venv/dev ## give every decoder 10^7 malformed inputs in all, guided by coverage (some minutes; Python 3.11 to 3.13)
	$(PIP) --editable '.[fuzz]'
	.venv/bin/python -m tests.fuzz.run

dist: .venv/dev ## build the sdist and the wheel of a release, and check them
	.venv/bin/python tests/setup/release.py

pictures: .venv/dev   ## write the pictures of the guides anew, from tests (needs chromium)
	ZMESH_SCREENSHOTS=docs/guides .venv/bin/pytest tests/dashboard/test_browser.py tests/metrics/test_fault.py \
	    tests/tracing/test_spans.py -k 'person or cut_under_load or time_line'

image: .venv    ## build the image of the Containerfile, and run it (needs root, podman and crun)
	.venv/bin/python tests/setup/image.py $(OPTIONS)

vendor: .venv   ## fetch the libraries of the dashboard's pages anew, by version and hash (needs npm)
	.venv/bin/python tests/setup/vendor.py

dev: .venv/dev  ## put every tool into .venv, for an editor and for .venv/bin/pytest

clean:          ## remove all that make and the tools have made
	rm -rf .venv .tox .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -rf build dist docs/_build *.egg-info tests/guide/plugins/*/build tests/guide/plugins/*/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv: .venv/zmesh

.venv/zmesh: setup.cfg
	@for python in $(PYTHON); do \
	    if $$python -c '$(USABLE)' >/dev/null 2>&1; then \
	        echo "creating .venv with $$($$python --version)"; exec $$python -m venv --clear .venv; \
	    fi; \
	done; \
	echo 'zmesh needs Python 3.11 or newer with its venv module, but none of these is one: $(PYTHON).' >&2; \
	echo 'Install one, or name the one you have: make PYTHON=/path/to/python3 $(MAKECMDGOALS)' >&2; exit 1
	$(PIP) --editable '.[http]'
	@touch $@

.venv/tox: .venv/zmesh
	$(PIP) 'tox>=4.60,<5'
	@touch $@

.venv/dev: .venv/zmesh
	$(PIP) --editable '.[dev]'
	.venv/bin/python tests/setup/install_plugins.py
	@touch $@
