#!/usr/bin/env bash
# What to measure in nine minutes on one accelerator, in order of worth: is it right, does it start quickly, is it fast?
#
#     benchmarks/accelerator.sh OUT [--quick]
#
# Each program has a limit of its own, and the next one runs whatever becomes of it. OUT gets N-NAME.json, or .txt, with
# what a program printed, N-NAME.log with what it said besides, and times.txt. --quick takes small sizes, to try it on a
# CPU. CASTREAM_SHARED is the folder of the reference arrays; `castream` and `python` are those of the PATH.
set -u
[ $# -ge 1 ] || { sed -n 2,8p "$0"; exit 2; }
mkdir -p "$1" && out=$(realpath "$1")
quick=${2:-}
cd "$(dirname "$0")/.." || exit 2
number=0

run() { # LIMIT NAME.SUFFIX COMMAND …
    local limit=$1 name=$((number += 1))-$2 begin=$SECONDS
    shift 2
    timeout --kill-after=5 "$limit" "$@" >"$out/$name" 2>"$out/${name%.*}.log"
    echo "$name: status $?, $((SECONDS - begin)) of $limit s: $*" | tee -a "$out/times.txt"
}

rm -f "$out/times.txt"
# Right: the machine, the reference arrays, and a training that is killed and goes on to the same bits.
run 30 doctor.txt castream doctor
run 100 deviation.json python benchmarks/deviation.py $quick
run 90 interruptions.json python benchmarks/interruptions.py --quick
# Quick to start: the first explanation with an empty cache and the next with a warm one; train, evaluate, report.
run 60 explain.json python benchmarks/explain.py $quick --starts 2
run 80 quickstart.txt castream quickstart --workdir "$out/quickstart"
# Fast.
run 60 train_step.json python benchmarks/train_step.py $quick --rounds 5
run 50 forward.json python benchmarks/forward.py $quick --backbones resnet50 --rounds 5
run 70 evaluation.txt python benchmarks/evaluation.py $quick --json "$out/evaluation.json"
