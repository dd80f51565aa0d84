#!/usr/bin/env bash
# Runs the tests in two parts, each side by side with one worker a core: those without ROS; then
# those of the nodes, of which a worker keeps to a ROS domain of its own.
#
#     scripts/run_tests.sh [--only ros|rest] [ARGUMENT OF PYTEST]…
#
# Exits 0 if both parts pass, where one of them may have no test that the arguments select.
set -euo pipefail
cd "$(dirname "$0")/.."

none=5  # what pytest returns if it ran no test
parts=(rest ros)
if [ "${1:-}" = --only ]; then
    parts=("$2")
    shift 2
fi
outcomes=()
failed=0
for part in "${parts[@]}"; do
    outcome=0
    # After a worker that crashed, xdist can wait for ever: its end is that of the run.
    python -m pytest --part "$part" --numprocesses auto --maxprocesses 8 --dist loadfile \
        --max-worker-restart 0 "$@" \
        || outcome=$?
    outcomes+=("$outcome")
    case "$outcome" in 0 | "$none") ;; *) failed=$outcome ;; esac
done
case "${outcomes[*]}" in "$none" | "$none $none") failed=$none ;; esac
exit "$failed"
