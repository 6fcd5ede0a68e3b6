#!/usr/bin/env bash
# Trains one config on this machine, data-parallel, then evaluates and reports.
#
#   launch/local.sh CONFIG WORKDIR [--config.field=value …]
#
# Nothing to edit. All accelerators of the machine are used. PROCESSES=n starts n processes that share the images (CPU
# machines, or one process per accelerator) and meet at PORT; DEVICES=n splits a CPU into n devices per process.
# The same command resumes what was stopped. SIGTERM and Ctrl-C reach all processes; SIGTERM lets training save.
# DRY_RUN=1 prints the commands.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
config=$1 workdir=$2
shift 2
fields=("$@")
processes=${PROCESSES:-1}
[ -z "${DEVICES:-}" ] || export JAX_NUM_CPU_DEVICES=$DEVICES

pids=() stopped=''
forward() {
    stopped=$1
    [ ${#pids[@]} -eq 0 ] || kill -s "$1" "${pids[@]}" 2>/dev/null || true
}
trap 'forward TERM' TERM
trap 'forward INT' INT
trap '[ ${#pids[@]} -eq 0 ] || kill -s KILL "${pids[@]}" 2>/dev/null || true' EXIT

# Runs a command of castream in every process. One failure stops them all, and so does a signal, after which
# processes that were told to save have ended well.
castream() {
    local command several finished=0 status=0 before
    pids=()
    for ((i = 0; i < processes; i++)); do
        several=()
        [ "$processes" -eq 1 ] ||
            several=(--coordinator "127.0.0.1:${PORT:-12355}" --num-processes "$processes" --process-id "$i")
        command=(
            python -m castream_jax "$1" --config "$config" --workdir "$workdir" "${several[@]}" "${fields[@]}"
        )
        if [ -n "${DRY_RUN:-}" ]; then
            echo "${command[*]@Q}"
        else
            "${command[@]}" &
            pids+=($!)
        fi
    done
    while [ "$finished" -lt ${#pids[@]} ] && [ "$status" -eq 0 ]; do
        before=$stopped
        wait -n || status=$?
        if [ "$stopped" != "$before" ]; then # a signal ended the wait, not a process
            status=0
        else
            finished=$((finished + 1))
        fi
    done
    [ "$status" -ne 0 ] || pids=()
    [ -z "$stopped" ] && [ "$status" -eq 0 ] || exit "$status"
}

castream train
castream evaluate
