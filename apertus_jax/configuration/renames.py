"""Renamed gin names: a file or flag that still binds the old one is told the new one, in one line.

There are no aliases: the old name is refused, and nothing is bound under it.
"""

from __future__ import annotations

# Old → new, as `name.parameter`, or `name` alone where a whole function or class was renamed.
RENAMED = {
    "pretrain.batch_schedule": "RunSchedule.batch_schedule",
    "pretrain.learning_rate": "RunSchedule.learning_rate",
    "pretrain.total_steps": "RunSchedule.total_steps",
    "pretrain.stop_step": "RunSchedule.stop_step",
    "pretrain.sample_index": "Mixture.sample_index",
    "pretrain.tombstones": "RemovalOptions.tombstones",
    "pretrain.on_tombstoned": "RemovalOptions.on_tombstoned",
    "pretrain.tombstones_date": "RemovalOptions.date",
    "plan.batch_schedule": "RunSchedule.batch_schedule",
    "plan.learning_rate": "RunSchedule.learning_rate",
    "plan.total_steps": "RunSchedule.total_steps",
    "plan.compiler_options": "TrainingConfig.compiler_options",
    "memorization.prefix": "AuditGrid.prefix",
    "memorization.prefixes": "AuditGrid.prefixes",
    "memorization.offsets": "AuditGrid.offsets",
    "memorization.suffix": "AuditGrid.suffix",
    "memorization.buckets": "AuditGrid.buckets",
    "memorization.strategies": "AuditGrid.strategies",
    "memorization.temperature": "AuditGrid.temperature",
    "memorization.top_p": "AuditGrid.top_p",
    "memorization.seeds": "AuditGrid.seeds",
    "memorization.least_type_token_ratio": "AuditFigures.min_type_token_ratio",
    "memorization.most_overlap": "AuditFigures.max_overlap",
    "memorization.seed": "AuditFigures.bootstrap_seed",
    "memorization.top": "AuditFigures.max_recitations",
    "memorization.loss_masks": "MembershipOptions.loss_masks",
    "memorization.members": "MembershipOptions.members",
    "memorization.non_members": "MembershipOptions.non_members",
    "memorization.reference": "MembershipOptions.reference",
    "memorization.canaries": "MembershipOptions.canaries",
    "memorization.batch_size": "Execution.batch_size",
    "memorization.progress": "Execution.progress",
    "evaluate_tasks.limit": "HarnessOptions.limit",
    "evaluate_tasks.num_fewshot": "HarnessOptions.num_fewshot",
    "evaluate_tasks.max_length": "HarnessOptions.max_length",
    "evaluate_tasks.max_gen_toks": "HarnessOptions.max_gen_toks",
    "evaluate_tasks.add_bos": "HarnessOptions.add_bos",
    "evaluate_tasks.rolling_prefix": "HarnessOptions.rolling_prefix",
    "evaluate_tasks.apply_chat_template": "HarnessOptions.apply_chat_template",
    "evaluate_tasks.system_instruction": "HarnessOptions.system_instruction",
    "evaluate_tasks.seed": "HarnessOptions.seed",
    "evaluate_tasks.bootstrap_resamples": "HarnessOptions.bootstrap_resamples",
    "evaluate_tasks.batch_size": "Execution.batch_size",
    "evaluate_tasks.batch_tokens": "Execution.batch_tokens",
    "languages.units": "LanguageOptions.units",
    "languages.baseline": "LanguageOptions.baseline",
    "languages.aligned": "LanguageOptions.aligned",
    "languages.tokens_per_language": "LanguageOptions.tokens_per_language",
    "languages.tokens_per_document": "LanguageOptions.tokens_per_document",
    "languages.sequence_length": "LanguageOptions.sequence_length",
    "languages.seed": "LanguageOptions.seed",
    "languages.most_lines": "LanguageOptions.max_lines",
    "languages.batch_tokens": "Execution.batch_tokens",
    "languages.progress": "Execution.progress",
    "build_output_filter.ngram_sizes": "NgramPlan.sizes",
    "build_output_filter.unspaced_ngram_sizes": "NgramPlan.unspaced_sizes",
    "build_output_filter.ngram_stride": "NgramPlan.stride",
    "build_output_filter.bloom_rate": "FilterRates.bloom",
    "build_output_filter.string_prefilter_rate": "FilterRates.string_prefilter",
    "build_output_filter.scrypt_n": "FilterRates.scrypt_n",
}


def new_name(name: str, parameter: str = "") -> str | None:
    """Returns what `name.parameter`, or `name` itself, is called now; None where it was not renamed."""
    if name in RENAMED:
        return f"{RENAMED[name]}.{parameter}" if parameter else RENAMED[name]
    return RENAMED.get(f"{name}.{parameter}")
