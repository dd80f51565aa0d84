#!/usr/bin/env bash
# Writes requirements.lock: one version of every package that setup.py's extras need, for each
# supported Python, with the digests of its files, which are all that pip then accepts; and
# requirements-jazzy.lock, the packages of ROS 2 Jazzy. Versions already in the files are kept where
# they still fit; options such as `--upgrade` or `--upgrade-package NAME` go to `uv pip compile`
# (`pip install uv`).
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {  # FILE OPTION…
    uv pip compile setup.py --universal --python-version 3.10 --no-python-downloads \
        --generate-hashes --no-strip-extras --no-header --no-annotate --no-emit-index-url --quiet \
        --output-file "$@"
    # A line that digests follow ends in a backslash.
    # uv repeats the only platform that there are wheels for (pyproject.toml, [tool.uv]) on every
    # line.
    sed -i -E \
        -e "s/(python_full_version < '3\.15'|platform_machine == 'x86_64'|sys_platform == 'linux') and //g" \
        -e "s/( ;| and) (python_full_version < '3\.15'|platform_machine == 'x86_64'|sys_platform == 'linux')( \\\\)?\$/\3/" \
        "$1"
}

# All extras but tensorrt, whose wheels are gigabytes that only some GPUs can use.
mapfile -t extras < <(sed -n "s/^        '\([a-z]*\)': \[.*/--extra=\1/p" setup.py | grep -v tensorrt)
compile requirements.lock "${extras[@]}" "$@"

# Another ROS 2 borrows the rest from that environment: its own packages alone are locked.
everything="$(mktemp)"
trap 'rm -f "$everything"' EXIT
cp requirements-jazzy.lock "$everything"
compile "$everything" --extra=ros-jazzy --extra=build-jazzy "$@"
awk '/^[^ ]/ { ours = /^ros-/ } ours' "$everything" >requirements-jazzy.lock
