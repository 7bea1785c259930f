#!/usr/bin/env bash
# Trains the runs of a sweep as one SLURM array, each task its share of neighbouring runs on one node, then compares them.
#
#   experiments/launch/sweep_slurm.sh 6 GIN_FILE STORE SWEEP --vary=goldfish.k=3,10,50 --vary=TrainingConfig.seed=1,2
#
# Submit the same line again after a failure: finished runs are not done again. SIGUSR2 comes ten minutes before the time
# limit: the run at work saves, and its task is queued again until every run of its share is finished.
set -euo pipefail
tasks=$1 gin_file=$2 store=$3 output=$4
shift 4
sweep=$(printf '%q ' .venv/bin/python -m apertus_jax sweep --gin_file="$gin_file" --store="$store" --output="$output" "$@")
compare=$(printf '%q ' .venv/bin/python -m apertus_jax compare "$output" --output="${output%/}_comparison")
share="--task=\$SLURM_ARRAY_TASK_ID/$tasks"
# 140 is SIGUSR2 between two runs, where there is nothing to save.
job=$(sbatch --parsable --export=ALL --array="0-$((tasks - 1))" --requeue --signal=USR2@600 --job-name=sweep --wrap "
  status=0; srun $sweep $share || status=\$?
  [ \$status = 0 ] || [ \$status = 140 ] || exit \$status
  [ -z \"\$($sweep $share --list)\" ] || scontrol requeue \$SLURM_JOB_ID")
sbatch --export=ALL --dependency="afterany:$job" --job-name=compare --wrap "$compare"
