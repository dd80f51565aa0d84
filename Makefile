# make demo    a camera, the node, a few prompts; checks the masks and writes demo/
# make console the same camera and node, with a page in the browser
# make test    style, types, imports and the tests
# make test ROS=jazzy  the tests of the nodes on another ROS 2
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
# The ROS 2 that `make test` runs on. With another one than that of requirements.lock (jazzy), the
# tests of the nodes run, in an environment beside $(VENV).
ROS ?= kilted
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
IN_OTHER_ROS = source '$(VENV)-$(ROS)/bin/activate' && source install-$(ROS)/local_setup.bash
# The package that some tests build for themselves, so that none of them waits for it.
BUILD_VISION_MSGS = PYTHONPATH="tests/ros:$$PWD:$$PYTHONPATH" python -c \
	'import build_vision_msgs; build_vision_msgs.environment_with_vision_msgs()'
LINT = ruff check . && ruff format --check . && mypy && lint-imports

.PHONY: help demo console test bench fuzz soak lint env interfaces lock reference exports clean

help:
	@echo 'make demo    a camera, the node, a few prompts; checks the masks and writes demo/'
	@echo 'make console the same camera and node, with a page in the browser; prints its address'
	@echo 'make test    style, types, imports and the tests (ARGS: more arguments of pytest)'
	@echo "make test ROS=jazzy  the nodes' tests on ROS 2 Jazzy"
	@echo 'make bench   how long a frame takes (ARGS: more arguments of the benchmark)'
	@echo 'make fuzz    an hour of damaged files and hostile messages (ARGS: --seconds, --seed)'
	@echo 'make soak    a quarter of an hour of a camera, changes and faults (ARGS: --minutes, --seed)'
	@echo 'make lint    style, types and imports alone'
	@echo 'make env     the environment $(VENV) alone (VENV=folder, PYTHON=interpreter)'
	@echo 'make lock    requirements.lock again, from setup.py (ARGS=--upgrade: newest versions)'
	@echo 'make reference  docs/reference.md again, from what the nodes declare'
	@echo 'make exports    the ONNX graphs of the bundled models again, after their weights have changed'
	@echo 'make clean   removes what was built; the environment stays'

demo: interfaces
	@$(IN_ROS) && python -m clipseg_ros.demo --overwrite $(ARGS)

console: interfaces
	@$(IN_ROS) && python -m clipseg_ros.demo.console --overwrite $(ARGS)

ifeq ($(ROS),kilted)
# Checks and build side by side: either keeps one core busy for a minute.
test: env
	@{ scripts/build_interfaces.sh '$(VENV)' && $(IN_ROS) && $(BUILD_VISION_MSGS); } & \
	building=$$!; failed=0; \
	{ $(IN_VENV) && $(LINT); } || failed=1; wait $$building || failed=1; exit $$failed
	@$(IN_ROS) && scripts/run_tests.sh -m '$(TESTS)' $(ARGS)
else
test: env
	@scripts/setup_ros_env.sh '$(ROS)' '$(VENV)-$(ROS)' '$(VENV)'
	@scripts/build_interfaces.sh '$(VENV)-$(ROS)' '$(ROS)'
	@$(IN_OTHER_ROS) && scripts/run_tests.sh --only ros -m '$(TESTS)' $(ARGS)
endif

bench: env
	@$(IN_VENV) && python -m training.benchmark $(ARGS)

fuzz: interfaces
	@$(IN_ROS) && PYTHONPATH="$$PWD:$$PYTHONPATH" python -m tests.fuzz.hour $(ARGS)

soak: interfaces
	@$(IN_ROS) && PYTHONPATH="$$PWD:$$PYTHONPATH" python -m tests.soak.soak $(ARGS)

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

exports: env
	@$(IN_VENV) && python scripts/export_bundled.py $(ARGS)

clean:
	rm -rf build install build-* install-* log demo fuzz soak .pytest_cache .mypy_cache .ruff_cache
