#!/usr/bin/env bash
# Runs the tests in two parts: those without ROS side by side, one worker a core; then those of the
# nodes one after the other, since they time messages between processes.
#
#     scripts/run_tests.sh [ARGUMENT OF PYTEST]…
#
# Exits 0 if both parts pass, where one of them may have no test that the arguments select.
set -euo pipefail
cd "$(dirname "$0")/.."

none=5  # what pytest returns if it ran no test
outcomes=()
failed=0
for part in rest ros; do
    workers=()
    [ "$part" = ros ] || workers=(--numprocesses auto --maxprocesses 8 --dist loadfile)
    outcome=0
    python -m pytest --part "$part" ${workers[@]+"${workers[@]}"} "$@" || outcome=$?
    outcomes+=("$outcome")
    case "$outcome" in 0 | "$none") ;; *) failed=$outcome ;; esac
done
[ "${outcomes[*]}" != "$none $none" ] || failed=$none
exit "$failed"
