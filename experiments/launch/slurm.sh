#!/usr/bin/env bash
# Trains one run on several SLURM nodes, one process per node, and comes back after a time limit and after a crash.
#
#   sbatch --nodes=16 experiments/launch/slurm.sh apertus_8b.gin STORE RUN [--gin.NAME=VALUE …]
#
# SIGUSR2 comes ten minutes before the limit: the run saves and ends with status 0, and the same job is queued again
# until the run is finished. After a crash it is queued again too, see restarts.sh; SLURM replaces nodes that are down.
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --signal=USR2@600
#SBATCH --requeue
set -uo pipefail
# SLURM runs a copy of this file, in the folder that the job was submitted from.
source "${LAUNCH:-experiments/launch}/restarts.sh" || exit 1
gin_file=$1 store=$2 run=$3
shift 3
SECONDS=0 status=0
# When a process dies the others say which one within JobLimits.lost_seconds; then srun ends what is left.
srun --kill-on-bad-exit=0 --wait="${END_SECONDS:-300}" .venv/bin/python -m apertus_jax pretrain \
  --gin_file="$gin_file" --input="$store" --output="$run" --gin.pretrain.distributed=True "$@" || status=$?
if [ "$status" = 0 ]; then
  rm -f "crashes_$SLURM_JOB_ID"
  [ -e "$run/finished.json" ] || scontrol requeue "$SLURM_JOB_ID"
elif may_restart "$status" "$SECONDS" "crashes_$SLURM_JOB_ID"; then
  scontrol requeue "$SLURM_JOB_ID"
else
  exit "$status"
fi
