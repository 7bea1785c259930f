"""Every setting of every name that gin files may bind refuses what it cannot be, in one line that names it."""

import dataclasses
import inspect
import math

import gin
import pytest

from apertus_jax import cli, configuration
from apertus_jax.configuration.calls import at_the_edge
from apertus_jax.configuration.names import CONFIGURABLES
from apertus_jax.configuration.registry import bindables
from apertus_jax.corpus.removal import RemovalRule
from apertus_jax.data import BatchSchedule
from apertus_jax.errors import UserError
from apertus_jax.objectives import goldfish

NAMES = sorted(name for names in CONFIGURABLES.values() for name in names)
# What a name needs beside the setting that is wrong.
NEEDED = {
    "ModelConfig": {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_layers": 2}
    | {"num_heads": 4, "num_kv_heads": 2},
    "BatchSchedule": {"initial": 8, "final": 16, "ramp_samples": 64},
    "wsd_schedule": {"peak": 1e-3, "warmup_samples": 1, "total_samples": 9, "decay_samples": 2},
    "cosine_schedule": {"peak": 1e-3, "warmup_samples": 1, "total_samples": 9},
    "constant_schedule": {"peak": 1e-3},
    "ademamix": {"learning_rate": 1e-3},
    "adamw": {"learning_rate": 1e-3},
    "completion_only": {"start_id": 1, "end_id": 2},
    "not_after_eod": {"eod_id": 2},
    "on_sources": {"masks": [goldfish()], "sources": ["web"]},
    "RunSchedule": {"batch_schedule": BatchSchedule(8), "learning_rate": 1e-3, "total_steps": 9},
    "Crawler": {"name": "bot"},
    "HeldOutEvaluator": {"every_tokens": 100},
    "OnlySources": {"rule": RemovalRule(), "sources": ["web"]},
    "Source": {"name": "web", "path": "web.jsonl"},
    "SourceDescription": {"source": "web", "category": "crawl"},
    "PublishedModel": {"name": "model"},
    "TransformerEmbedding": {"weights": "folder"},
}
# They read files or write some, and take what no gin file spells.
NOT_HERE = ("write_overlay", "vocabulary_text", "OutputFilter", "HeldOutSample")
NUMBERS = (math.nan, math.inf, -math.inf, -1, 0, -(10**30), 10**30, 2.5, True)
OTHERS = (
    "",
    "x",
    [],
    ["a", "a"],
    [math.nan],
    [10**30],
    {},
    {"a": math.nan},
    {"a": 10**30},
    [None],
    [[]],
    None,
    object(),
)
# Never what someone meant, whatever the setting.
NEVER = (math.nan, math.inf, -math.inf, -(10**30), 10**30)
# Settings of which one alone says nothing: the line names one of them and the other beside it.
TOGETHER = {"xielu_beta", "warmup_samples", "decay_samples"}


@pytest.fixture(autouse=True, scope="module")
def registered():
    configuration.register(cli.locations())
    yield
    gin.clear_config()


def is_never(value):
    return any(value is each or (value == each and not isinstance(value, bool)) for each in NEVER)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_HERE])
def test_a_setting_that_cannot_be_is_one_line_that_names_it(name):
    bindable = bindables[name]
    needed = NEEDED.get(name, {})
    for make in (bindable.target, at_the_edge(bindable)):  # from Python, and from gin
        make(**needed)
        for setting in bindable.parameters:
            for value in (*NUMBERS, *OTHERS):
                shown = f"{name}.{setting} = {value!r}"
                try:
                    make(**(needed | {setting: value}))
                except UserError as error:
                    line = str(error)
                    assert "\n" not in line and len(line) < 500, shown
                    assert f"{name}." in line and setting in line, f"{shown}: {line}"
                    assert f"{name}.{setting}" in line or setting in TOGETHER, f"{shown}: {line}"
                else:
                    assert not is_never(value), f"{shown} is taken"


def test_every_dataclass_checks_its_own_fields():
    for name in NAMES:
        target = bindables[name].target
        if inspect.isclass(target):
            assert dataclasses.is_dataclass(target), name
            assert hasattr(target.__post_init__, "__wrapped__"), f"{name} lacks @fields_by_annotation"
