#!/usr/bin/env bash
# Trains one run on every worker of a TPU pod slice. Run it on each worker, for example through
#
#   gcloud compute tpus tpu-vm ssh NAME --worker=all --command="cd apertus_jax && experiments/launch/tpu_pod.sh …"
#
#   experiments/launch/tpu_pod.sh apertus_8b.gin STORE RUN [--gin.NAME=VALUE …]
#
# STORE is on a file system that all workers see (stores are memory-mapped); RUN may be a bucket.
set -euo pipefail
gin_file=$1 store=$2 run=$3
shift 3
exec .venv/bin/python -m apertus_jax pretrain \
  --gin_file="$gin_file" --input="$store" --output="$run" --gin.pretrain.distributed=True \
  --gin.ModelConfig.attention_implementation="'tpu_splash'" "$@"
