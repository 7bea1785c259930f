#!/usr/bin/env bash
# Prepares a corpus as SLURM array jobs: three arrays of shard tasks with the steps over the whole corpus between them.
#
#   experiments/launch/prepare_slurm.sh 64 POLICY.gin DOCUMENTS PREPARED [--gin.NAME=VALUE …]
#
# Every task is idempotent: submit the same line again after a failure, finished units are not done again. Each array
# job is one node; its processes share the work of its task.
set -euo pipefail
tasks=$1 gin_file=$2 documents=$3 output=$4
shift 4
prepare() {
  printf '%q ' .venv/bin/python -m apertus_jax prepare --gin_file="$gin_file" --input="$documents" --output="$output" "$@"
}
once() { sbatch --parsable --export=ALL ${3:+--dependency=afterok:$3} --job-name="prepare-$1" --wrap "$2"; }
array() {
  sbatch --parsable --export=ALL --dependency="afterok:$3" --array="0-$((tasks - 1))" --requeue --job-name="prepare-$1" \
    --wrap "$2 --task=\$SLURM_ARRAY_TASK_ID/$tasks"
}
job=$(once plan "$(prepare --stage=plan "$@")" "")
job=$(array score "$(prepare --stage=score "$@")" "$job")
job=$(once aggregate "$(prepare --stage=aggregate "$@")" "$job")
job=$(array decide "$(prepare --stage=decide "$@")" "$job")
job=$(once select "$(prepare --stage=select "$@")" "$job")
job=$(array apply "$(prepare --stage=apply "$@")" "$job")
once finish "$(prepare --stage=finish "$@")" "$job"
