"""Apache Beam launcher of `prepare`: DirectRunner locally, Flink, Spark or Dataflow elsewhere.

Beam only hands out unit numbers. Each unit runs in a process of its own, because workers of Beam are threads and the
time limit of a document needs the main thread of its process. Workers must see the work folder and the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from apertus_jax.corpus.prepare.launching.unit_process import encode_job, run_in_process
from apertus_jax.corpus.prepare.preparation import Preparation
from apertus_jax.errors import UserError


def run_units_on_beam(
    preparation: Preparation, stage: str, numbers: Sequence[int], options: Sequence[str], done: Callable[[int], Any]
) -> None:
    """Runs these units as one Beam pipeline; `done` is called for all of them when it has ended.

    Raises:
      UserError: a unit failed.
    """
    pipeline = beam.Pipeline(options=PipelineOptions(list(options)))
    _ = (
        pipeline
        | "units" >> beam.Create(list(numbers))
        | "spread" >> beam.Reshuffle()
        | "prepare" >> beam.Map(run_in_process, job=encode_job(preparation, stage))
    )
    try:
        pipeline.run().wait_until_finish()
    except (UserError, RuntimeError) as error:
        # Beam wraps what a worker raised into a message that ends with the step's name.
        lines = [line for line in str(error).splitlines() if "UserError: " in line]
        if isinstance(error, UserError) or lines:
            message = lines[-1].partition("UserError: ")[2] if lines else str(error)
            raise UserError(message.partition(" [while running")[0]) from error
        raise
    for number in numbers:
        done(number)
