#!/usr/bin/env bash
# Trains one run on every worker of a TPU pod slice, again after a crash. Run it on each worker, for example through
#
#   gcloud compute tpus tpu-vm ssh NAME --worker=all --command="cd apertus_jax && experiments/launch/tpu_pod.sh …"
#
#   experiments/launch/tpu_pod.sh apertus_8b.gin STORE RUN [--gin.NAME=VALUE …]
#
# STORE is on a file system that all workers see (stores are memory-mapped); RUN may be a bucket. When a process dies the
# others end with status 75 within JobLimits.lost_seconds, and each worker starts its own again: they meet at the
# coordinator, for which a start waits JobLimits.start_seconds. SIGTERM saves and ends; a worker that was asked to stop
# does not start again.
set -uo pipefail
source "$(dirname "$0")/restarts.sh" || exit 1
gin_file=$1 store=$2 run=$3
shift 3
crashes=$(mktemp)
rm "$crashes"
process="" stopped=""
stop() { stopped=yes; [ -z "$process" ] || kill -TERM "$process"; }
trap stop TERM USR2
while true; do
  SECONDS=0 status=0
  .venv/bin/python -m apertus_jax pretrain \
    --gin_file="$gin_file" --input="$store" --output="$run" --gin.pretrain.distributed=True \
    --gin.ModelConfig.attention_implementation="'tpu_splash'" "$@" &
  process=$!
  wait "$process" || status=$?
  # A signal ends the wait and not the process.
  while kill -0 "$process" 2> /dev/null; do status=0; wait "$process" || status=$?; done
  [ "$status" != 0 ] || exit 0
  [ -z "$stopped" ] || exit "$status"
  may_restart "$status" "$SECONDS" "$crashes" || exit "$status"
done
