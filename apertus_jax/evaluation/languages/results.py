"""Language results: the content of results.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from apertus_jax.data import TokenStore
from apertus_jax.data.provenance.language_shares import names_language
from apertus_jax.evaluation.languages.counting import Passage
from apertus_jax.evaluation.languages.figures import (
    BITS_PER_BYTE,
    LanguageFigures,
    group_figures,
    inequality,
    known,
    mean_over_languages,
)
from apertus_jax.evaluation.languages.inequality import rank_correlation, worst_decile
from apertus_jax.evaluation.languages.parallel_texts import TextSet
from apertus_jax.evaluation.languages.parity import compare, fairness, line_sums
from apertus_jax.evaluation.languages.store_texts import HELD_OUT_TEXT, TRAINING_TEXT
from apertus_jax.evaluation.languages.training_share import RunRecord

HOW_TO_READ = (
    "Intervals are 95 % bootstrap intervals: over passages, or blocks of 32 tokens where a language has fewer than "
    "eight (then they say how sure the figures of these very texts are); means over languages resample languages; "
    "parity resamples lines. Bits per byte count text tokens only, after <s>. Fertility counts tokens per whitespace "
    "word and says little for scripts that do not separate words; bits per byte favour scripts with three bytes per "
    "character, which information parity does not."
)


def summarize(rows: Sequence[LanguageFigures], seed: int) -> dict[str, Any]:
    """Returns the figures over all languages: macro means, the worst decile, what the share of training text explains.

    Bits per byte also for languages with held-out, training and unknown text apart, and for those that have both the
    mean difference held out − training.
    """
    found: dict[str, Any] = {
        "languages": sum(names_language(row.language) for row in rows),
        "scripts": len({row.script for row in rows}),
        "tokens": sum(row.tokens for row in rows),
    }
    for name in rows[0].ratios:
        values = known(rows, name)
        found[name] = None
        if values:
            found[name] = dataclasses.asdict(mean_over_languages(values, seed)) | {
                "languages": len(values),
                "standard_deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            }
    judged = [row for row in rows if row.ratios[BITS_PER_BYTE] is not None]
    if not judged:
        return found
    worst = [judged[place] for place in worst_decile(known(judged, BITS_PER_BYTE))]
    found["worst_decile"] = dataclasses.asdict(mean_over_languages(known(worst, BITS_PER_BYTE), seed)) | {
        "languages": [row.language for row in worst]
    }
    found["bits_per_byte_by_text"] = {
        text: dataclasses.asdict(mean_over_languages(values, seed)) | {"languages": len(values)}
        for text in sorted({text for row in judged for text in row.bits_per_byte_by_text})
        if (values := [row.bits_per_byte_by_text[text] for row in judged if text in row.bits_per_byte_by_text])
    }
    both = [row.bits_per_byte_by_text for row in judged if len(row.bits_per_byte_by_text) == 2]
    if both:
        differences = [values[HELD_OUT_TEXT] - values[TRAINING_TEXT] for values in both]
        found["held_out_minus_training"] = dataclasses.asdict(mean_over_languages(differences, seed)) | {
            "languages": len(both)
        }
    if judged[0].share is not None:
        shared = [(row.share, row.value(BITS_PER_BYTE)) for row in judged]
        found["rank_correlation_with_share"] = rank_correlation(*zip(*shared, strict=True))
    return found


def group_results(rows: Sequence[LanguageFigures], seed: int) -> dict[str, Any]:
    """Returns scripts, resource classes, and the inequality between languages and between them."""
    groups = {name: group_figures(rows, name, seed) for name in ("script", "resource_class")}
    return {
        "inequality": inequality(rows, groups, seed),
        "scripts": groups["script"],
        "resource_classes": groups["resource_class"],
    }


def parallel_results(
    texts: TextSet | None,
    passages: Sequence[Passage],
    counted: Sequence[np.ndarray],
    baseline: str,
    units: str,
    seed: int,
) -> dict[str, Any] | None:
    """Returns fairness and parity on translations; None without any."""
    if not passages or texts is None:
        return None
    sums = line_sums(passages, counted)
    rows = compare(sums, baseline, units, seed)
    return {
        "texts": texts.name,
        "note": texts.note,
        "baseline": baseline,
        "fairness": fairness(sums, units, seed),
        "languages": [dataclasses.asdict(row) for row in rows],
    }


def notes(
    run: str,
    rows: Sequence[LanguageFigures],
    given: TextSet | None,
    store: TokenStore | None,
    record: RunRecord | None,
    trained_on_it: bool,
) -> list[str]:
    """Returns what a reader must know before comparing numbers; the last one is the same for every report."""
    told = []
    if not run:
        told.append("No model was given: only figures of the tokenizer.")
    elif given is not None or not trained_on_it:
        name = given.name if given else "the token store"
        told.append(f"Texts: {name}. Whether the model has seen them in training is not known.")
    else:
        counts = {text: sum(row.text == text for row in rows) for text in (HELD_OUT_TEXT, TRAINING_TEXT)}
        told.append(
            f"Bits per byte of {counts[HELD_OUT_TEXT]} languages are on held-out documents, those of "
            f"{counts[TRAINING_TEXT]} on documents of the training sources, WHICH THE MODEL MAY HAVE SEEN: the column "
            "`text` says which. Do not rank the one kind against the other."
        )
    if given is not None and given.note and not given.aligned:
        told.append(f"The texts are not translations of each other: {given.note}.")
    if store is not None and not trained_on_it:
        told.append("The run was trained on another token store than the one given: shares of training are not shown.")
    elif store is not None and record is None:
        told.append("No record of a mixture lies beside the model: shares of training tokens are those of the store.")
    return [*told, HOW_TO_READ]


def describe(row: LanguageFigures) -> dict[str, Any]:
    """Returns a language as JSON values."""
    described = {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != "ratios"}
    ratios = {name: value and dataclasses.asdict(value) for name, value in row.ratios.items()}
    return described | {"bits_per_byte_by_text": dict(row.bits_per_byte_by_text)} | ratios
