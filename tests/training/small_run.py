"""A tiny training run, as a function and as a process: `small_run.py STORE OUTPUT [TOTAL_STEPS [MESH]]`."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from typing import Any

from apertus_jax.data import BatchSchedule, Mixture, MixtureStage
from apertus_jax.model import ModelConfig
from apertus_jax.objectives import goldfish, not_after_eod
from apertus_jax.optimization import ademamix, wsd_schedule
from apertus_jax.sharding import MeshConfig
from apertus_jax.training import Objective, RemovalOptions, RunSchedule, TrainingConfig, pretrain
from apertus_jax.training.survival.job_limits import JobLimits
from apertus_jax.training.survival.supervision import Supervision

MODEL = ModelConfig(512, 32, 64, 2, 4, 2)
OBJECTIVE = Objective([goldfish(k=4, h=8), not_after_eod(2)], num_tiles=2)
TRAINING = {"sequence_length": 32, "log_every": 4, "checkpoint_every": 5, "clip_norm": 1.0}


def small_run(store: Any, output: Any, training: dict[str, Any] | None = None, **overrides: Any) -> dict[str, Any]:
    """Trains 12 steps of 8 samples, with a batch ramp, on all devices; keyword arguments override."""
    schedule = {
        "batch_schedule": BatchSchedule(8, 16, 64),
        "learning_rate": wsd_schedule(1e-2, 16, 160, 40),
        "total_steps": 12,
    }
    schedule |= {name: overrides.pop(name) for name in (*schedule, "stop_step") if name in overrides}
    removals = {name: overrides.pop(name) for name in ("tombstones", "on_tombstoned", "date") if name in overrides}
    started = {name: overrides.pop(name) for name in ("init_from", "init_step", "init_optimizer") if name in overrides}
    arguments = {
        "store": str(store),
        "output": str(output),
        "model": MODEL,
        "mixture": Mixture([MixtureStage(rates={"one": 0.7, "two": 0.3})]),
        "objective": OBJECTIVE,
        "optimizer": ademamix,
        "schedule": RunSchedule(**schedule),
        "removals": RemovalOptions(**removals),
        "training": TrainingConfig(**(TRAINING | (training or {}) | started)),
        **overrides,
    }
    return pretrain(**arguments)


if __name__ == "__main__":
    distributed = "JAX_COORDINATOR_ADDRESS" in os.environ
    logging.basicConfig(level=logging.INFO, force=True)
    steps = {"total_steps": int(sys.argv[3])} if len(sys.argv) > 3 else {}
    axes = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    # As many key heads as a mesh may want to split.
    changed = {"mesh": MeshConfig(**axes), "model": dataclasses.replace(MODEL, num_kv_heads=4)} if axes else {}
    limits = JobLimits(lost_seconds=float(os.environ.get("LOST_SECONDS", "100")))
    supervision = Supervision(limits=limits)
    print(small_run(sys.argv[1], sys.argv[2], distributed=distributed, supervision=supervision, **steps, **changed))
