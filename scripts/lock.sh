#!/usr/bin/env bash
# Writes requirements.lock: one version of every package that setup.py's extras need, for each
# supported Python, with the digests of its files, which are all that pip then accepts; and
# requirements-jazzy.lock, the packages of ROS 2 Jazzy. Versions already in the files are kept where
# they still fit; options such as `--upgrade` or `--upgrade-package NAME` go to `uv pip compile`
# (`pip install uv`). Then docker/requirements.lock, of the same versions where they fit ROS 2's
# numpy, docker/requirements-cpu.lock, the same without torch and what only a GPU needs, and
# docker/requirements-light.lock, for the image without torch.
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

# Ubuntu's Python in the base image, on both kinds of processors: uv takes that from a project alone.
project="$(mktemp -d)"
trap 'rm -rf "$project" "$everything"' EXIT
cat > "$project/pyproject.toml" <<'END'
[tool.uv]
environments = ["sys_platform == 'linux' and python_full_version >= '3.12' and python_full_version < '3.13'"]
END
grep -E '^[A-Za-z0-9._-]+(\[.*\])?==' requirements.lock \
    | grep -vE '^(numpy|opencv-python-headless)==' \
    | sed -E -e 's/ ;.*//' -e 's/ \\$//' -e 's/\[[^]]*\]==/==/' \
    | awk -F== '{ lines[$1] = $0; count[$1]++ } END { for (n in lines) if (count[n] == 1) print lines[n] }' \
    > "$project/versions.txt"
docker="$PWD/docker"
lock_images() {  # FILE, then what it is made of
    local output="$docker/$1"
    shift
    (
        cd "$project"
        uv pip compile "${@/#/$docker/}" --constraint versions.txt --universal \
            --python-version 3.12 --no-python-downloads --generate-hashes --no-header \
            --no-annotate --no-emit-index-url --quiet --output-file "$output" "${options[@]}"
    )
}
options=("$@")
lock_images requirements.lock requirements.txt requirements-torch.txt
lock_images requirements-light.lock requirements.txt
awk '/^[a-z]/ { gpu = /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/ } !gpu' \
    "$docker/requirements.lock" > "$docker/requirements-cpu.lock"
