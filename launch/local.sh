#!/usr/bin/env bash
# Trains one config on this machine, data-parallel, then evaluates and reports.
#
#   launch/local.sh CONFIG WORKDIR [--config.field=value …]
#
# All accelerators of the machine are used. PROCESSES=n starts n processes that share the images (CPU machines, or one
# process per accelerator); DEVICES=n splits a CPU into n devices per process. The same command resumes what was stopped.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
config=$1 workdir=$2
shift 2
processes=${PROCESSES:-1}
[ -z "${DEVICES:-}" ] || export JAX_NUM_CPU_DEVICES=$DEVICES

if [ "$processes" -gt 1 ]; then
    CASTREAM_COORDINATOR=127.0.0.1:${PORT:-12355}
    export CASTREAM_COORDINATOR CASTREAM_NUM_PROCESSES=$processes
    trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
fi
for command in train evaluate; do
    run=(python -m castream_jax "$command" --config "$config" --workdir "$workdir" "$@")
    if [ "$processes" -gt 1 ]; then
        for ((i = 0; i < processes; i++)); do CASTREAM_PROCESS_ID=$i "${run[@]}" & done
        for ((i = 0; i < processes; i++)); do wait -n; done # one failure stops them all
    else
        "${run[@]}"
    fi
done
