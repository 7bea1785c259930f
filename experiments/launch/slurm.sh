#!/usr/bin/env bash
# Trains one run on several SLURM nodes, one process per node, and comes back after a time limit.
#
#   sbatch --nodes=16 experiments/launch/slurm.sh apertus_8b.gin STORE RUN [--gin.NAME=VALUE …]
#
# SIGUSR2 comes ten minutes before the limit: the run saves and ends with status 0, and the same job is queued again
# until the run is finished.
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --signal=USR2@600
#SBATCH --requeue
set -euo pipefail
gin_file=$1 store=$2 run=$3
shift 3
srun .venv/bin/python -m apertus_jax pretrain \
  --gin_file="$gin_file" --input="$store" --output="$run" --gin.pretrain.distributed=True "$@"
[ -e "$run/finished.json" ] || scontrol requeue "$SLURM_JOB_ID"
