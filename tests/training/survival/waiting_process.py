"""One process of a job that meets the others over and over: `waiting_process.py CHECKPOINTS`."""

import logging
import sys
import time

from apertus_jax.training.multihost import any_process, join_job
from apertus_jax.training.survival.job_limits import JobLimits
from apertus_jax.training.survival.job_monitor import watched_job

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    limits = JobLimits(lost_seconds=10.0)
    join_job(limits)
    with watched_job(limits, sys.argv[1]):
        while True:
            any_process(False)
            print("met", flush=True)
            time.sleep(0.2)
