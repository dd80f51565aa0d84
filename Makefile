# make demo    a camera, the node, a few prompts; checks the masks and writes demo/
# make console the same camera and node, with a page in the browser
# make test    style, types, imports and the tests
# make bench   how long a frame takes
# make help    all of them
#
# Each makes the environment $(VENV) first, if there is none for requirements.lock.

SHELL := /bin/bash
.SHELLFLAGS := -e -o pipefail -c
MAKEFLAGS += --no-print-directory

VENV ?= .venv
PYTHON ?= python3
# Which tests `make test` runs (pytest's -m): continuous integration says 'not slow or ci'.
TESTS ?= not slow
# More arguments of pytest, of the demo, or of the benchmark: make test ARGS='-k camera'.
ARGS ?=

# The environment brings its own ROS 2. Another one, sourced in this terminal, would be mixed in.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH PYTHONHOME
unexport ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION RMW_IMPLEMENTATION
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifdef ROS_DISTRO
unexport LD_LIBRARY_PATH
endif

IN_VENV = source '$(VENV)/bin/activate'
IN_ROS = $(IN_VENV) && source install/local_setup.bash
LINT = ruff check . && ruff format --check . && mypy && lint-imports

.PHONY: help demo console test bench lint env interfaces lock reference clean

help:
	@echo 'make demo    a camera, the node, a few prompts; checks the masks and writes demo/'
	@echo 'make console the same camera and node, with a page in the browser; prints its address'
	@echo 'make test    style, types, imports and the tests (ARGS: more arguments of pytest)'
	@echo 'make bench   how long a frame takes (ARGS: more arguments of the benchmark)'
	@echo 'make lint    style, types and imports alone'
	@echo 'make env     the environment $(VENV) alone (VENV=folder, PYTHON=interpreter)'
	@echo 'make lock    requirements.lock again, from setup.py (ARGS=--upgrade: newest versions)'
	@echo 'make reference  docs/reference.md again, from what the nodes declare'
	@echo 'make clean   removes what was built; the environment stays'

demo: interfaces
	@$(IN_ROS) && python -m clipseg_ros.demo $(ARGS)

console: interfaces
	@$(IN_ROS) && python -m clipseg_ros.demo.console $(ARGS)

# Checks and build side by side: either keeps one core busy for a minute.
test: env
	@scripts/build_interfaces.sh '$(VENV)' & building=$$!; failed=0; \
	{ $(IN_VENV) && $(LINT); } || failed=1; wait $$building || failed=1; exit $$failed
	@$(IN_ROS) && scripts/run_tests.sh -m '$(TESTS)' $(ARGS)

bench: env
	@$(IN_VENV) && python -m training.benchmark $(ARGS)

lint: env
	@$(IN_VENV) && $(LINT)

interfaces: env
	@scripts/build_interfaces.sh '$(VENV)'

env:
	@PYTHON='$(PYTHON)' scripts/setup_env.sh '$(VENV)'

lock:
	@scripts/lock.sh $(ARGS)

reference: env
	@$(IN_VENV) && python scripts/make_reference.py

clean:
	rm -rf build install log demo .pytest_cache .mypy_cache .ruff_cache
