#!/usr/bin/env bash
# Trains one run on several TPU slices that reach each other over the data-center network. Run it on each worker of each
# slice:
#
#   SLICES=2 SLICE=0 COORDINATOR=10.0.0.1:8476 experiments/launch/tpu_slices.sh apertus_8b.gin STORE RUN [--gin.NAME=VALUE …]
#
# COORDINATOR is worker 0 of slice 0. Where the platform sets MEGASCALE_NUM_SLICES, MEGASCALE_SLICE_ID and
# MEGASCALE_COORDINATOR_ADDRESS itself (queued resources, GKE), the three need not be given. A slice that is lost ends the
# others for requeue as a lost process does, and all start again once the platform has brought it back.
set -euo pipefail
export MEGASCALE_NUM_SLICES=${MEGASCALE_NUM_SLICES:-${SLICES:?say how many slices there are}}
export MEGASCALE_SLICE_ID=${MEGASCALE_SLICE_ID:-${SLICE:?say which slice this is, from 0}}
export MEGASCALE_COORDINATOR_ADDRESS=${MEGASCALE_COORDINATOR_ADDRESS:-${COORDINATOR:?give HOST:PORT of worker 0 of slice 0}}
if [ "$MEGASCALE_SLICE_ID" -ge "$MEGASCALE_NUM_SLICES" ]; then
  echo "SLICE=$MEGASCALE_SLICE_ID is none of SLICES=$MEGASCALE_NUM_SLICES; they count from 0" >&2
  exit 2
fi
exec "$(dirname "$0")/tpu_pod.sh" "$@"
