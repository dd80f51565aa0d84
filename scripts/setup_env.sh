#!/usr/bin/env bash
# Makes a virtual environment with everything in requirements.lock, and installs the apt packages
# that are missing. Does nothing where all of it is there already.
#
#     scripts/setup_env.sh [FOLDER]          (FOLDER: .venv unless given)
#
# PYTHON names the interpreter to make it with: python3 unless set. YES=1 installs system packages
# without asking.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${1:-.venv}"
python="${PYTHON:-python3}"

fail() {
    printf '\nclipseg_ros: %s\n' "$1" >&2
    shift
    printf '%s\n' "$@" >&2
    exit 1
}

# ---- what the wheels need: Linux on x86_64, CPython 3.10 to 3.14 -----------------------------
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail \
    "this is $(uname -s) on $(uname -m), and the ROS 2 wheels are for Linux on x86_64 only." \
    'Elsewhere build with colcon in a ROS 2 installation: see docs/install.md.'

if [ -x "$venv/bin/python" ]; then
    python="$venv/bin/python"
fi
command -v "$python" >/dev/null || fail "there is no '$python'." \
    'Install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3 …'
"$python" - <<'PY' || fail "'$python' is $("$python" --version 2>&1), and CPython 3.10 to 3.14 is needed." \
    'Name another: make PYTHON=/path/to/python3 VENV=/path/to/a/new/environment …'
import sys
sys.exit(not ((3, 10) <= sys.version_info[:2] <= (3, 14) and sys.implementation.name == 'cpython'))
PY

# ---- system packages: a compiler for the messages, EGL for the renderer ------------------------
missing=()
command -v g++ >/dev/null || missing+=(g++)
command -v cmake >/dev/null || missing+=(cmake)
command -v make >/dev/null || missing+=(make)
administration="$PATH:/usr/sbin:/sbin"
has_library() { PATH="$administration" ldconfig -p 2>/dev/null | grep -q "$1"; }
has_library 'libEGL\.so\.1' || missing+=(libegl1)
compgen -G '/usr/share/glvnd/egl_vendor.d/*.json' >/dev/null \
    || compgen -G '/etc/glvnd/egl_vendor.d/*.json' >/dev/null \
    || missing+=(libegl-mesa0 libgl1-mesa-dri)
"$python" -c 'import ensurepip, venv' 2>/dev/null \
    || missing+=("python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
"$python" - <<'PY' || missing+=(python3-dev)
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')))
PY

if [ "${#missing[@]}" -gt 0 ]; then
    install="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    command -v apt-get >/dev/null || fail "the system lacks what Debian calls: ${missing[*]}" \
        'Install these with your package manager, then try again.'
    if [ "$(id -u)" -eq 0 ]; then
        runner=()
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        runner=(sudo -n)
    else
        fail "the system lacks: ${missing[*]}" \
            'and this user may not install packages without a password. Please run' '' \
            "    sudo sh -c '$install'" '' 'then try again.'
    fi
    echo "clipseg_ros: the system lacks: ${missing[*]}"
    echo "As root, this would run: $install"
    if [ "${YES:-}" != 1 ]; then
        [ -t 0 ] || fail 'there is nobody to ask whether to install system packages.' \
            'Add YES=1 (make YES=1 …) to allow it, or run the command above yourself.'
        read -r -p 'Install them now? [y/N] ' answer
        case "$answer" in
            [yY] | [yY][eE][sS]) ;;
            *) fail 'nothing was installed.' "Run it yourself, then try again: $install" ;;
        esac
    fi
    "${runner[@]}" env DEBIAN_FRONTEND=noninteractive PATH="$administration" \
        sh -c "$install" >/dev/null </dev/null \
        || fail 'apt-get could not install them.' "The command was: $install"
fi

# ---- Python packages, once for each content of the lock file --------------------------------------
mkdir -p "$venv"
exec 9>"$venv/.busy"
flock 9  # Another make, of this checkout or of one that shares the environment, may be at it.
if [ ! -x "$venv/bin/python" ]; then
    echo "clipseg_ros: making the environment $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi
python="$venv/bin/python"

stamp="$venv/.lock-$(sha256sum <requirements.lock | cut -c1-16)"
if [ ! -e "$stamp" ]; then
    echo 'clipseg_ros: installing requirements.lock (about 6 GB; a minute or two on a fast connection)'
    rm -f "$venv"/.lock-*
    # Every package of the lock is named, so nothing is resolved, and parts of it can be unpacked side
    # by side. What is imported is compiled then, once; most of 20,000 modules never are.
    parts="$(mktemp -d)"
    trap 'rm -rf "$parts"' EXIT
    awk -v folder="$parts" '/^[^ ]/ { part = ++number % 6 } { print > (folder "/" part) }' \
        requirements.lock
    printf '%s\0' "$parts"/* | xargs -0 -n 1 -P "$(nproc)" \
        "$python" -m pip install -qq --no-input --disable-pip-version-check --no-compile \
        --no-deps --require-hashes --requirement \
        || fail 'pip could not install requirements.lock.' 'What it said stands above.'
    "$python" -m pip check --disable-pip-version-check >"$parts/check" \
        || fail 'the packages of requirements.lock do not fit together:' "$(cat "$parts/check")"
    touch "$stamp"
fi

# The project itself is not copied: the environment points to this checkout.
link="$venv/.checkout-$( (pwd -P; cat setup.py pyproject.toml package.xml) | sha256sum | cut -c1-16)"
if [ ! -e "$link" ]; then
    rm -f "$venv"/.checkout-*
    "$python" -m pip install -qq --no-input --disable-pip-version-check \
        --no-deps --no-build-isolation --editable . \
        || fail 'pip could not install this checkout.' 'What it said stands above.'
    touch "$link"
fi
