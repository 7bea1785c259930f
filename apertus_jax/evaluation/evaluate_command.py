"""The `evaluate` command: held-out loss, pooled and per script, beside the unigram baselines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from apertus_jax.checkpoints import open_model
from apertus_jax.data import TokenStore, check_store
from apertus_jax.data.provenance.language_shares import names_language
from apertus_jax.errors import UserError
from apertus_jax.evaluation.bits_per_byte import DEFINITION
from apertus_jax.evaluation.held_out_metrics import (
    group_losses,
    page_cells,
    page_columns,
    pooled_rows,
    script_of,
    terminal_cells,
    terminal_columns,
)
from apertus_jax.evaluation.losses import document_losses, own_entropy, unigram_losses
from apertus_jax.reports.axes import Axis
from apertus_jax.reports.html_report import HtmlReport
from apertus_jax.reports.row_charts import interval_chart
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of_arguments
from apertus_jax.storage.json_reader import read_json
from apertus_jax.terminal.tables import show_line, show_table

KIND = "evaluation"
RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"
SCRIPTS_IN_TERMINAL = 12
COUNT_PIECE = 1 << 22


def count_tokens(store: TokenStore, sources: Sequence[str]) -> np.ndarray:
    """Returns how often each token id occurs in the given sources, int64[V]."""
    counts = np.zeros(store.vocab_size, np.int64)
    for name in sources:
        source = store.source(name)
        for start in range(0, source.num_tokens, COUNT_PIECE):
            piece = source.tokens(start, min(COUNT_PIECE, source.num_tokens - start))
            counts += np.bincount(piece, minlength=store.vocab_size)
    return counts


def evaluate(
    run: str,
    store: str,
    output: str,
    held_out_source: str = "held_out",
    sequence_length: int = 512,
    tokens_per_batch: int | None = None,
    seed: int = 0,
    check_overlap: bool = True,
    step: int | None = None,
) -> dict[str, Any]:
    """Measures a trained model on the held-out source of a token store; writes results.json and report.html.

    Args:
      run: a run folder, or a model folder.
      store: the token store with the held-out source.
      output: where the results go.
      held_out_source: name of the source that training did not see.
      sequence_length: longest window of one forward pass.
      tokens_per_batch: tokens of one forward pass; None means what `LikelihoodScorer` finds good.
      seed: of the bootstrap intervals.
      check_overlap: look for 13-grams that held-out and training text share; reads the whole store.
      step: a committed step of the run, which may still be training; None for the model of a finished run.

    Returns:
      The results, as in results.json.

    Raises:
      UserError: no model, no such source, or a store of another tokenizer.
    """
    arguments = dict(locals())
    token_store = TokenStore.open(store)
    model = open_model(run, step)
    # How many tokens go through the model at a time says how the losses are computed, and not which.
    elsewhere = ("run", "step", "output", "tokens_per_batch")
    settings = identity_of_arguments(evaluate, arguments, *elsewhere, store=token_store.digest)
    inputs = {**model.identity, **settings, "bits_per_byte": DEFINITION}
    if artifacts.already_built(output, KIND, inputs):
        return read_json(epath.Path(output) / RESULTS_FILE, allow_nan=True)
    if model.config.vocab_size != token_store.vocab_size:
        raise UserError(
            f"{run} has vocabulary {model.config.vocab_size} but {store} has {token_store.vocab_size}; "
            "give the store that the model was trained on"
        )
    source = token_store.source(held_out_source)
    starts = source.document_starts
    documents = [
        np.asarray(source.tokens(int(start), int(end - start)))
        for start, end in zip(starts[:-1], starts[1:], strict=True)
    ]
    if not any(len(tokens) > 1 for tokens in documents):
        raise UserError(
            f"source {held_out_source!r} of {store} has no text to evaluate on; tokenize with a held-out part"
        )
    losses = document_losses(model.config, model.load(), documents, sequence_length, tokens_per_batch)
    training_sources = [name for name in token_store.source_names if name != held_out_source]
    results = summarize(token_store, source.documents, documents, losses, training_sources, seed)
    overlap = check_store(token_store) if check_overlap else None
    results["overlap"] = overlap.describe() if overlap else "not checked (evaluate.check_overlap = False)"
    with artifacts.build(output, KIND, inputs) as build:
        (build.path / RESULTS_FILE).write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        write_report(build.path / REPORT_FILE, results, model.name)
        build.summary["pooled"] = results["pooled"]
    print_table(results)
    return results


def summarize(
    store: TokenStore,
    table: Any,
    documents: list[np.ndarray],
    losses: list[np.ndarray],
    training_sources: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Returns pooled and per-script results with both unigram baselines."""
    byte_lengths = store.tokenizer.token_byte_lengths
    token_bytes = [byte_lengths[tokens[1:]] for tokens in documents]
    languages = table["language"].to_pylist()
    unigram = unigram_losses(documents, count_tokens(store, training_sources))
    (pooled,) = group_losses(["all"] * len(documents), losses, unigram, token_bytes, seed)
    scripts = group_losses([script_of(language) for language in languages], losses, unigram, token_bytes, seed)
    own = own_entropy(documents, store.vocab_size)
    return {
        "pooled": {
            **pooled,
            "languages": len({language for language in languages if names_language(language)}),
            "ratio_to_unigram": pooled["nats_per_token"] / pooled["unigram_nats_per_token"],
            "own_unigram_entropy": own,
            "ratio_to_own_unigram_entropy": pooled["nats_per_token"] / own,
        },
        "bits_per_byte_is": DEFINITION,
        "scripts": scripts,
    }


def print_table(results: dict[str, Any]) -> None:
    """Shows the pooled result and the largest scripts in the terminal."""
    pooled = results["pooled"]
    columns = ("script", *terminal_columns())
    groups = [pooled, *results["scripts"][:SCRIPTS_IN_TERMINAL]]
    rows = [(group["name"], *terminal_cells(group)) for group in groups]
    show_table(columns, rows, "Held-out loss (nats per token, 95 % interval)", right=columns[1:])
    show_line(
        f"pooled loss is {pooled['ratio_to_unigram']:.3f} × the training text's unigram cross-entropy and "
        f"{pooled['ratio_to_own_unigram_entropy']:.3f} × the held-out text's own unigram entropy"
    )
    show_line(f"overlap with training text: {results['overlap']}")


def write_report(path: epath.PathLike, results: dict[str, Any], model: str) -> None:
    """Writes the HTML page: pooled figures, a plot and a table per script."""
    pooled = results["pooled"]
    report = HtmlReport("Held-out loss", f"model: {model}")
    report.tiles(
        [
            ("nats per token", f"{pooled['nats_per_token']:.3f}"),
            ("bits per byte", "–" if pooled["bits_per_byte"] is None else f"{pooled['bits_per_byte']:.3f}"),
            ("of the unigram cross-entropy", f"{pooled['ratio_to_unigram']:.3f} ×"),
            ("languages", pooled["languages"]),
        ]
    )
    report.facts(
        [
            *pooled_rows(pooled),
            ("languages", pooled["languages"]),
            ("loss over unigram cross-entropy", pooled["ratio_to_unigram"]),
            ("the text's own unigram entropy", pooled["own_unigram_entropy"]),
            ("loss over it", pooled["ratio_to_own_unigram_entropy"]),
            ("overlap with training text", results["overlap"]),
        ]
    )
    report.note(f"Bits per byte: {DEFINITION}.")
    report.heading("By script")
    report.note(
        "95 % intervals resample documents, or blocks of 32 tokens where a script has fewer than eight documents: "
        "then they say nothing about other documents of the script."
    )
    names, values, lower, upper = (
        [group[key] for group in results["scripts"]] for key in ("name", "nats_per_token", "lower", "upper")
    )
    report.figure(interval_chart("Held-out loss by script", names, values, lower, upper, x=Axis("nats per token")))
    report.table(("script", *page_columns()), [(row["name"], *page_cells(row)) for row in results["scripts"]])
    report.write(path)
