#!/usr/bin/env bash
# Builds the ROS 2 package into build/ and install/ with colcon, for the messages of its own
# (`~/prompts`, `~/segments`, `~/set_prompts`). Does nothing where that was done for these files.
#
#     scripts/build_interfaces.sh [FOLDER [ROS]]
#
# FOLDER is that of the environment: .venv unless given. With ROS, the name of another distribution
# than that of requirements.lock, it builds into build-ROS/ and install-ROS/.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="$(cd "${1:-.venv}" && pwd -P)"
build="build${2:+-$2}"
install="install${2:+-$2}"
# Python modules are linked, not copied: only a new or a removed one needs another build.
fingerprint() {
    echo "$venv" "$PWD"
    find clipseg_model clipseg_ros tabletop_world launch config -name '*.*' -not -name '*.pyc' -type f \
        | sort
    cat msg/*.msg srv/*.srv package.xml CMakeLists.txt
}
stamp="$install/.built-$(fingerprint | sha256sum | cut -c1-16)"
exec 9>"$venv/.busy"
flock 9  # Another make may be at it.
[ ! -e "$stamp" ] || exit 0

echo 'clipseg_ros: building the package with colcon, for its messages (half a minute)'
rm -rf "$build" "$install" log
# shellcheck disable=SC1091
source "$venv/bin/activate"
export AMENT_PREFIX_PATH="$venv" CMAKE_PREFIX_PATH="$venv"
if ! colcon --log-base log build --base-paths . --build-base "$build" \
    --install-base "$install" --symlink-install --event-handlers console_direct- \
    --cmake-args -DBUILD_TESTING=OFF >build.log 2>&1; then
    cat build.log >&2
    rm -f build.log
    exit 1
fi
rm -f build.log
touch "$stamp"
