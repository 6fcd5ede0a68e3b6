#!/usr/bin/env bash
# Trains one config on a Cloud TPU pod slice: the same command on every host of it.
#
#   TPU_NAME=my-pod ZONE=us-central2-b launch/tpu_pod.sh CONFIG WORKDIR [--config.field=value …]
#
# Edit: FOLDER, where each host has a clone of this repository with an environment in .venv (see README), and which
# holds the data or its mount. WORKDIR is an address in a bucket (gs://…), or a folder that all hosts share. The
# processes find each other through the pod's metadata. The same command continues what was stopped. When it is done:
# castream evaluate --workdir WORKDIR on one host. DRY_RUN=1 prints the command.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
config=$1 workdir=$2
shift 2
: "${TPU_NAME:?is the name of the TPU}" "${ZONE:?is the zone of the TPU}"
FOLDER=${FOLDER:-castream_jax}

train=(.venv/bin/python -m castream_jax train --config "$config" --workdir "$workdir" "$@")
command=(
    gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone "$ZONE" --worker=all
    --command "cd ${FOLDER@Q} && CASTREAM_CLUSTER=tpu ${train[*]@Q}"
)
if [ -n "${DRY_RUN:-}" ]; then
    echo "${command[*]@Q}"
else
    exec "${command[@]}"
fi
