"""Learning-rate schedules (WSD with warm-up and cooldown, cosine, constant) in samples consumed.

Counting samples keeps a schedule right when the batch grows, when a run resumes with another batch size, and when an
update is skipped. Each schedule takes a Python int or uint32[2] = (high, low) and gives float32[].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from apertus_jax.errors import UserError
from apertus_jax.optimization.sample_counts import SampleCount, as_limbs, at_most, subtract_samples, to_float32
from apertus_jax.validation import COUNTS, is_finite, require_number, spelled

Schedule = Callable[[SampleCount], jax.Array]


@dataclasses.dataclass(frozen=True)
class ScheduleOfRun:
    """A schedule that hangs on the length of the run; `of_run` makes the schedule of a run of so many samples."""

    name: str
    of_run: Callable[[int], Schedule]

    def __call__(self, samples: SampleCount) -> jax.Array:
        """Raises UserError: the length is not known here."""
        raise UserError(
            f"{self.name} hangs on the length of the run, which is not known here; give total_samples, warm-up and "
            "decay in samples, or call of_run(total_samples)"
        )


def of_run(learning_rate: float | Schedule, total_samples: int) -> float | Schedule:
    """Returns the learning rate of a run of `total_samples`: itself, unless it hangs on the length of the run."""
    return learning_rate.of_run(total_samples) if isinstance(learning_rate, ScheduleOfRun) else learning_rate


def last_sample_of(learning_rate: float | Schedule) -> int | None:
    """Returns after how many samples a schedule has nothing more to say, None where it never ends."""
    return getattr(learning_rate, "total_samples", None)


def wsd_schedule(
    peak: float,
    warmup_samples: int | None = None,
    total_samples: int | None = None,
    decay_samples: int | None = None,
    lr_init_frac: float = 0.1,
    lr_final_frac: float = 0.1,
    warmup_fraction: float | None = None,
    decay_fraction: float | None = None,
) -> Schedule | ScheduleOfRun:
    """Warm-up, stable, decay: linear to `peak`, constant, then `1 - sqrt` down to `lr_final_frac * peak`.

    The decay (cooldown, annealing) takes the last `decay_samples` of `total_samples`; afterwards the final rate stays.
    The warm-up starts at `lr_init_frac * peak`: the paper's 0.1 by default, 0 in the released scripts
    (docs/reference/model_and_training.md §7.1, §17). Warm-up and decay can be fractions of the total instead, and
    without a total it is the length of the run. Raises UserError if warm-up and decay do not fit into the total.
    """
    _check_rates("wsd_schedule", peak, lr_init_frac, lr_final_frac)
    warmup = _part("wsd_schedule", "warmup", warmup_samples, warmup_fraction)
    decay = _part("wsd_schedule", "decay", decay_samples, decay_fraction)
    if total_samples is None:
        return ScheduleOfRun(
            "wsd_schedule", lambda total: _wsd(peak, warmup(total), total, decay(total), lr_init_frac, lr_final_frac)
        )
    _check_whole("wsd_schedule", "total_samples", total_samples)
    return _wsd(peak, warmup(total_samples), total_samples, decay(total_samples), lr_init_frac, lr_final_frac)


def _wsd(
    peak: float, warmup_samples: int, total_samples: int, decay_samples: int, lr_init_frac: float, lr_final_frac: float
) -> Schedule:
    _check_fit("wsd_schedule", total_samples, warmup_samples, decay_samples)
    decay_start = total_samples - decay_samples
    final = lr_final_frac * peak

    def schedule(samples: SampleCount) -> jax.Array:
        samples = as_limbs(samples)
        progress = to_float32(subtract_samples(samples, decay_start)) / float(max(decay_samples, 1))
        decaying = final + (peak - final) * (1 - jnp.sqrt(progress))
        after_start = jnp.where(at_most(samples, total_samples), decaying, final)
        rate = jnp.where(at_most(samples, decay_start), peak, after_start)
        return _with_warmup(samples, rate, peak, warmup_samples, lr_init_frac)

    schedule.total_samples = total_samples  # type: ignore[attr-defined]  # functions take attributes
    return schedule


def cosine_schedule(
    peak: float,
    warmup_samples: int | None = None,
    total_samples: int | None = None,
    lr_init_frac: float = 0.1,
    lr_final_frac: float = 0.1,
    warmup_fraction: float | None = None,
) -> Schedule | ScheduleOfRun:
    """Linear warm-up to `peak`, then half a cosine down to `lr_final_frac * peak` at `total_samples`, then constant.

    The warm-up can be a fraction of the total instead, and without a total it is the length of the run.
    Raises UserError if the warm-up is longer than the total.
    """
    _check_rates("cosine_schedule", peak, lr_init_frac, lr_final_frac)
    warmup = _part("cosine_schedule", "warmup", warmup_samples, warmup_fraction)
    if total_samples is None:
        return ScheduleOfRun(
            "cosine_schedule", lambda total: _cosine(peak, warmup(total), total, lr_init_frac, lr_final_frac)
        )
    _check_whole("cosine_schedule", "total_samples", total_samples)
    return _cosine(peak, warmup(total_samples), total_samples, lr_init_frac, lr_final_frac)


def _cosine(
    peak: float, warmup_samples: int, total_samples: int, lr_init_frac: float, lr_final_frac: float
) -> Schedule:
    _check_fit("cosine_schedule", total_samples, warmup_samples, 0)
    final = lr_final_frac * peak

    def schedule(samples: SampleCount) -> jax.Array:
        samples = as_limbs(samples)
        progress = to_float32(subtract_samples(samples, warmup_samples)) / float(max(total_samples - warmup_samples, 1))
        falling = final + (peak - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        rate = jnp.where(at_most(samples, total_samples), falling, final)
        return _with_warmup(samples, rate, peak, warmup_samples, lr_init_frac)

    schedule.total_samples = total_samples  # type: ignore[attr-defined]  # functions take attributes
    return schedule


def constant_schedule(
    peak: float, warmup_samples: int | None = None, lr_init_frac: float = 0.1, warmup_fraction: float | None = None
) -> Schedule | ScheduleOfRun:
    """Linear warm-up to `peak`, then constant; without a warm-up constant from the start.

    The warm-up can be a fraction of the run instead. Raises UserError for a negative warm-up.
    """
    _check_rates("constant_schedule", peak, lr_init_frac, 0.0)
    if warmup_samples is None and warmup_fraction is None:
        warmup_samples = 0
    warmup = _part("constant_schedule", "warmup", warmup_samples, warmup_fraction)
    if warmup_fraction is None:
        return _constant(peak, warmup(0), lr_init_frac)
    return ScheduleOfRun("constant_schedule", lambda total: _constant(peak, warmup(total), lr_init_frac))


def _constant(peak: float, warmup_samples: int, lr_init_frac: float) -> Schedule:
    def schedule(samples: SampleCount) -> jax.Array:
        return _with_warmup(as_limbs(samples), jnp.float32(peak), peak, warmup_samples, lr_init_frac)

    return schedule


def resolve_learning_rate(learning_rate: float | Schedule, samples_consumed: SampleCount | None) -> jax.Array:
    """The rate of a step, float32[].

    Raises UserError if it is a schedule and the sample count is missing, or if a schedule gives no single number.
    """
    if not callable(learning_rate):
        return jnp.float32(learning_rate)
    if samples_consumed is None:
        raise UserError(
            "learning_rate is a schedule of samples: call update(gradients, state, params, samples_consumed=...) "
            "with the samples consumed before this step"
        )
    rate = learning_rate(samples_consumed)
    if getattr(rate, "shape", None) != () and not isinstance(rate, int | float):
        raise UserError(f"the schedule {learning_rate!r:.100} gives {spelled(rate)}; it must give one number")
    return rate


def check_settings(
    optimizer: str, learning_rate: float | Schedule, betas: Mapping[str, float], eps: float, weight_decay: float
) -> None:
    """Raises UserError for settings that every optimizer of this family has and that are out of range."""
    if not callable(learning_rate) and not isinstance(learning_rate, jax.Array):
        require_number(f"{optimizer}.learning_rate", learning_rate, at_least=0)
    for name, beta in betas.items():
        require_number(f"{optimizer}.{name}", beta, at_least=0, below=1)
    require_number(f"{optimizer}.eps", eps, at_least=0)
    require_number(f"{optimizer}.weight_decay", weight_decay, at_least=0)


def _with_warmup(
    samples: jax.Array, rate: jax.Array, peak: float, warmup_samples: int, lr_init_frac: float
) -> jax.Array:
    if warmup_samples == 0:
        return rate.astype(jnp.float32)
    initial = lr_init_frac * peak
    warming = initial + (peak - initial) * (to_float32(samples) / float(warmup_samples))
    return jnp.where(at_most(samples, warmup_samples), warming, rate).astype(jnp.float32)


def _part(schedule: str, part: str, samples: int | None, fraction: float | None) -> Callable[[int], int]:
    """Returns how many samples a part of a schedule takes, from the total, given in samples or as a fraction of it."""
    if samples is not None and fraction is None:
        _check_whole(schedule, f"{part}_samples", samples)
        return lambda total: samples
    if fraction is not None and samples is None:
        require_number(f"{schedule}.{part}_fraction", fraction, at_least=0, at_most=1)
        return lambda total: round(fraction * total)
    given = "both" if samples is not None else "neither"
    raise UserError(
        f"{schedule} has {given} of {part}_samples and {part}_fraction; give one, for example "
        f"{schedule}.{part}_fraction = 0.1"
    )


def _check_rates(schedule: str, peak: Any, lr_init_frac: Any, lr_final_frac: Any) -> None:
    require_number(f"{schedule}.peak", peak, at_least=0)
    require_number(f"{schedule}.lr_init_frac", lr_init_frac, at_least=0)
    require_number(f"{schedule}.lr_final_frac", lr_final_frac, at_least=0)


def _check_whole(schedule: str, name: str, value: Any) -> None:
    whole = not isinstance(value, bool) and _is_number(value) and value == int(value)
    if not whole or value not in COUNTS:
        raise UserError(f"{schedule}.{name}={spelled(value)} must be a whole number of samples, 0 or more")


def _is_number(value: Any) -> bool:
    """Returns whether a value is a finite number; a whole one may be written as 4e6."""
    return isinstance(value, int | float) and is_finite(value)


def _check_fit(schedule: str, total_samples: int, warmup_samples: int, decay_samples: int) -> None:
    if warmup_samples + decay_samples > total_samples:
        raise UserError(
            f"{schedule}.total_samples={total_samples} does not hold warmup_samples={warmup_samples} and "
            f"decay_samples={decay_samples}; shorten them, or give them as fractions"
        )
