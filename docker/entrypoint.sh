#!/usr/bin/env bash
# Runs a command where ROS 2 and the package are found.
set -eo pipefail
# shellcheck disable=SC1090
source "/opt/ros/$ROS_DISTRO/setup.bash"
# shellcheck disable=SC1091
source /opt/clipseg/install/setup.bash
exec "$@"
