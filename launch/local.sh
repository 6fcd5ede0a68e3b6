#!/usr/bin/env bash
# Trains one config on this machine, data-parallel, then evaluates and reports.
#
#   launch/local.sh CONFIG WORKDIR [--config.field=value …]
#
# Nothing to edit. All accelerators of the machine are used. PROCESSES=n starts n processes that share the batch (CPU
# machines, or one process per accelerator), which meet at PORT; DEVICES=n splits a CPU into n devices per process.
# The same command resumes what was stopped. SIGTERM and Ctrl-C reach all processes; SIGTERM lets them save.
# DRY_RUN=1 prints the commands.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
config=$1 workdir=$2
shift 2
processes=${PROCESSES:-1}
[ -z "${DEVICES:-}" ] || export JAX_NUM_CPU_DEVICES=$DEVICES

run() {
    if [ -n "${DRY_RUN:-}" ]; then
        echo "${*@Q}"
    else
        exec "$@"
    fi
}

pids=() stopped='' finished=0 status=0
forward() {
    stopped=$1
    kill -s "$1" "${pids[@]}" 2>/dev/null || true
}
trap 'forward TERM' TERM
trap 'forward INT' INT
trap '[ ${#pids[@]} -eq 0 ] || kill -s KILL "${pids[@]}" 2>/dev/null || true' EXIT

for ((i = 0; i < processes; i++)); do
    several=()
    [ "$processes" -eq 1 ] ||
        several=(--coordinator "127.0.0.1:${PORT:-12355}" --num-processes "$processes" --process-id "$i")
    run python -m castream_jax train --config "$config" --workdir "$workdir" ${several[@]+"${several[@]}"} "$@" &
    pids+=($!)
done
while [ "$finished" -lt "$processes" ] && [ "$status" -eq 0 ]; do # one failure stops them all
    before=$stopped
    wait -n || status=$?
    if [ "$stopped" != "$before" ]; then # a signal ended the wait, not a process
        status=0
    else
        finished=$((finished + 1))
    fi
done
[ "$finished" -lt "$processes" ] || pids=()
[ -z "$stopped" ] && [ "$status" -eq 0 ] || exit "$status"
run python -m castream_jax evaluate --config "$config" --workdir "$workdir" "$@"
