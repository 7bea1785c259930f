"""Table of gin-bindable names. A name that is not registered here does not exist for gin files.

Names are registered, not decorated: a plain call in Python never takes values from a gin file, only references inside
gin files do.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import gin

from apertus_jax.configuration.calls import at_the_edge
from apertus_jax.configuration.registry import Bindable, bindables
from apertus_jax.configuration.statements import GIN_MODULE

CONFIGURABLES = {
    "apertus_jax.chat": ("ChatFormat",),
    "apertus_jax.corpus.sources": ("Source", "Limits"),
    "apertus_jax.corpus.overlay": ("write_overlay",),
    "apertus_jax.corpus.robots_snapshot": ("RobotsScoring", "RobotsRule"),
    "apertus_jax.corpus.signals": ("SignalScoring", "SignalRule"),
    "apertus_jax.corpus.licences": ("LicenceScoring", "LicenceRule"),
    "apertus_jax.corpus.removal": ("RemovalScoring", "RemovalRule"),
    "apertus_jax.corpus.personal_data": ("PersonalDataPolicy",),
    "apertus_jax.corpus.language": ("LanguageScoring", "LanguageRule"),
    "apertus_jax.corpus.quality": ("QualityScoring", "QualityRule", "EnglishQualityRule"),
    "apertus_jax.corpus.classifiers": (
        "ClassifierScoring",
        "HashedNgramEmbedding",
        "TransformerEmbedding",
        "QualityScoreRule",
        "ToxicityRule",
    ),
    "apertus_jax.corpus.contamination": ("ContaminationScoring", "ContaminationRule"),
    "apertus_jax.corpus.duplicates": ("DuplicateScoring", "DuplicateRule"),
    "apertus_jax.corpus.prepare": ("Policy", "OnlySources"),
    "apertus_jax.model": ("ModelConfig", "RopeScaling"),
    "apertus_jax.sharding": ("MeshConfig",),
    "apertus_jax.data": (
        "BatchSchedule",
        "Mixture",
        "MixtureStage",
        "MegatronMixture",
        "MegatronStage",
    ),
    "apertus_jax.data.store.token_bytes": ("vocabulary_text",),
    "apertus_jax.objectives": ("goldfish", "not_after_eod", "not_padding", "completion_only", "on_sources"),
    "apertus_jax.optimization": ("ademamix", "adamw", "wsd_schedule", "cosine_schedule", "constant_schedule"),
    "apertus_jax.training": (
        "JobLimits",
        "Objective",
        "RemovalOptions",
        "RunSchedule",
        "RunWatch",
        "StepGuard",
        "Supervision",
        "TrainingConfig",
    ),
    "apertus_jax.training.trackers": ("TensorBoardTracker",),
    "apertus_jax.training.wandb_tracker": ("WandbTracker",),
    "apertus_jax.evaluation.execution": ("Execution",),
    "apertus_jax.evaluation.harness.options": ("HarnessOptions",),
    "apertus_jax.evaluation.languages.options": ("LanguageOptions",),
    "apertus_jax.evaluation.memorization.options": ("AuditGrid", "AuditFigures", "MembershipOptions"),
    "apertus_jax.evaluation.memorization.canaries.plant_canaries_command": ("CanaryPlan",),
    "apertus_jax.evaluation.in_training": ("HeldOutEvaluator", "HeldOutSample"),
    "apertus_jax.release.output_filter": ("OutputFilter", "NgramPlan", "FilterRates"),
    "apertus_jax.release.data_summary": (
        "Provider",
        "PublishedModel",
        "SourceDescription",
        "Crawler",
        "Declarations",
        "DatasheetAnswers",
    ),
}


def register(commands: Sequence[str]) -> None:
    """Registers every name that gin files may bind: the table above, and the commands (as "module:function")."""
    for location in (f"{module}:{name}" for module, group in CONFIGURABLES.items() for name in group):
        _register(location)
    for location in commands:
        _register(location, is_command=True)


def _register(location: str, is_command: bool = False) -> None:
    """Registers "module:name" unless it is known."""
    module, _, name = location.partition(":")
    if name not in bindables:
        add(Bindable(name, getattr(importlib.import_module(module), name), is_command))


def add(bindable: Bindable) -> None:
    """Makes a name known, here and to gin."""
    bindables[bindable.name] = bindable
    with gin.unlock_config():  # scripts add names of their own after a first file was read
        gin.register(bindable.name, module=GIN_MODULE)(at_the_edge(bindable))
