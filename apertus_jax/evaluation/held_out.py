"""The `evaluate` command: held-out loss, pooled and per script, beside the unigram baselines."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from rich.console import Console
from rich.table import Table

from apertus_jax import artifacts
from apertus_jax.data import TokenStore, check_store
from apertus_jax.errors import UserError
from apertus_jax.evaluation.intervals import loss_interval
from apertus_jax.evaluation.likelihood import document_losses
from apertus_jax.evaluation.unigram import own_entropy, unigram_losses
from apertus_jax.model_folder import find_model, load_model
from apertus_jax.reporting import HtmlReport, interval_plot

KIND = "evaluation"
RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"
SCRIPTS_IN_TERMINAL = 12
COUNT_PIECE = 1 << 22


@dataclasses.dataclass(frozen=True)
class GroupLoss:
    """Losses of one group of documents: nats per token with a 95 % interval over `interval_unit`, bits per byte."""

    name: str
    documents: int
    tokens: int
    nats_per_token: float
    lower: float
    upper: float
    interval_unit: str
    bits_per_byte: float
    unigram_nats_per_token: float


def script_of(language: str) -> str:
    """Returns the script of an `iso639-3_Script` label."""
    return language.partition("_")[2] or "Zyyy"


def count_tokens(store: TokenStore, sources: Sequence[str]) -> np.ndarray:
    """Returns how often each token id occurs in the given sources, int64[V]."""
    counts = np.zeros(store.vocab_size, np.int64)
    for name in sources:
        source = store.source(name)
        for start in range(0, source.num_tokens, COUNT_PIECE):
            piece = source.tokens(start, min(COUNT_PIECE, source.num_tokens - start))
            counts += np.bincount(piece, minlength=store.vocab_size)
    return counts


def group_losses(
    groups: Sequence[str],
    token_losses: Sequence[np.ndarray],
    unigram: np.ndarray,
    utf8_bytes: np.ndarray,
    seed: int,
) -> list[GroupLoss]:
    """Pools documents by the name of their group; the largest group comes first.

    Args:
      groups: name of each document's group.
      token_losses: cross-entropy of each document's tokens, float32[n] each.
      unigram: float64[N], each document's cross-entropy under the unigram baseline.
      utf8_bytes: float64[N], size of each document's text.
      seed: of the intervals.
    """
    names = np.asarray(groups)
    results = []
    for name in sorted(set(groups)):
        chosen = np.flatnonzero(names == name)
        losses = [token_losses[number] for number in chosen]
        tokens = sum(len(each) for each in losses)
        total = float(sum(each.sum(dtype=np.float64) for each in losses))
        lower, upper, unit = loss_interval(losses, seed)
        results.append(
            GroupLoss(
                name=name,
                documents=len(chosen),
                tokens=tokens,
                nats_per_token=total / tokens,
                lower=lower,
                upper=upper,
                interval_unit=unit,
                bits_per_byte=total / math.log(2) / float(utf8_bytes[chosen].sum()),
                unigram_nats_per_token=float(unigram[chosen].sum()) / tokens,
            )
        )
    return sorted(results, key=lambda group: -group.tokens)


def evaluate(
    run: str,
    store: str,
    output: str,
    held_out_source: str = "held_out",
    sequence_length: int = 512,
    tokens_per_batch: int | None = None,
    seed: int = 0,
    check_overlap: bool = True,
) -> dict[str, Any]:
    """Measures a trained model on the held-out source of a token store; writes results.json and report.html.

    Args:
      run: a run folder whose training has ended, or a model folder.
      store: the token store with the held-out source.
      output: where the results go.
      held_out_source: name of the source that training did not see.
      sequence_length: longest window of one forward pass.
      tokens_per_batch: tokens of one forward pass; None means what `LikelihoodScorer` finds good.
      seed: of the bootstrap intervals.
      check_overlap: look for 13-grams that held-out and training text share; reads the whole store.

    Returns:
      The results, as in results.json.

    Raises:
      UserError: no finished model, no such source, or a store of another tokenizer.
    """
    token_store = TokenStore.open(store)
    model_manifest = artifacts.read_manifest(find_model(run), "model")
    inputs = {
        "model": model_manifest["digest"],
        "store": token_store.digest,
        "held_out_source": held_out_source,
        "sequence_length": sequence_length,
        "seed": seed,
        "check_overlap": check_overlap,
    }
    if artifacts.already_built(output, KIND, inputs):
        return json.loads((epath.Path(output) / RESULTS_FILE).read_text())
    config, params = load_model(run)
    if config.vocab_size != token_store.vocab_size:
        raise UserError(
            f"{run} has vocabulary {config.vocab_size} but {store} has {token_store.vocab_size}; "
            "give the store that the model was trained on"
        )
    source = token_store.source(held_out_source)
    starts = source.document_starts
    documents = [
        np.asarray(source.tokens(int(start), int(end - start)))
        for start, end in zip(starts[:-1], starts[1:], strict=True)
    ]
    losses = document_losses(config, params, documents, sequence_length, tokens_per_batch)
    training_sources = [name for name in token_store.source_names if name != held_out_source]
    results = summarize(token_store, source.documents, documents, losses, training_sources, seed)
    overlap = check_store(token_store) if check_overlap else None
    results["overlap"] = overlap.describe() if overlap else "not checked (evaluate.check_overlap = False)"
    with artifacts.build(output, KIND, inputs) as build:
        (build.path / RESULTS_FILE).write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        write_report(build.path / REPORT_FILE, results, run)
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
    utf8_bytes = np.asarray(table["utf8_bytes"].to_numpy(), np.float64)
    languages = table["language"].to_pylist()
    unigram = unigram_losses(documents, count_tokens(store, training_sources))
    (pooled,) = group_losses(["all"] * len(documents), losses, unigram, utf8_bytes, seed)
    scripts = group_losses([script_of(language) for language in languages], losses, unigram, utf8_bytes, seed)
    own = own_entropy(documents, store.vocab_size)
    return {
        "pooled": {
            **dataclasses.asdict(pooled),
            "languages": len(set(languages)),
            "ratio_to_unigram": pooled.nats_per_token / pooled.unigram_nats_per_token,
            "own_unigram_entropy": own,
            "ratio_to_own_unigram_entropy": pooled.nats_per_token / own,
        },
        "scripts": [dataclasses.asdict(group) for group in scripts],
    }


def print_table(results: dict[str, Any]) -> None:
    """Shows the pooled result and the largest scripts in the terminal."""
    pooled = results["pooled"]
    table = Table(title="Held-out loss (nats per token, 95 % interval)")
    for name in ("script", "documents", "tokens", "loss", "interval", "unigram", "bits per byte"):
        table.add_column(name, justify="left" if name == "script" else "right")
    for group in [pooled, *results["scripts"][:SCRIPTS_IN_TERMINAL]]:
        table.add_row(
            group["name"],
            f"{group['documents']:,}",
            f"{group['tokens']:,}",
            f"{group['nats_per_token']:.3f}",
            f"{group['lower']:.3f} – {group['upper']:.3f}",
            f"{group['unigram_nats_per_token']:.3f}",
            f"{group['bits_per_byte']:.3f}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"pooled loss is {pooled['ratio_to_unigram']:.3f} × the training text's unigram cross-entropy and "
        f"{pooled['ratio_to_own_unigram_entropy']:.3f} × the held-out text's own unigram entropy"
    )
    console.print(f"overlap with training text: {results['overlap']}")


def write_report(path: epath.PathLike, results: dict[str, Any], run: str) -> None:
    """Writes the HTML page: pooled figures, a plot and a table per script."""
    pooled = results["pooled"]
    report = HtmlReport("Held-out loss", f"model: {epath.Path(run).name}")
    report.table(
        ("figure", "value"),
        [
            ("documents", pooled["documents"]),
            ("languages", pooled["languages"]),
            ("tokens", pooled["tokens"]),
            ("loss, nats per token", pooled["nats_per_token"]),
            ("95 % interval", f"{pooled['lower']:.4f} – {pooled['upper']:.4f}"),
            ("unigram cross-entropy (training counts)", pooled["unigram_nats_per_token"]),
            ("ratio", pooled["ratio_to_unigram"]),
            ("the text's own unigram entropy", pooled["own_unigram_entropy"]),
            ("ratio to it", pooled["ratio_to_own_unigram_entropy"]),
            ("bits per byte", pooled["bits_per_byte"]),
            ("overlap with training text", results["overlap"]),
        ],
    )
    report.heading("By script")
    report.note(
        "95 % intervals resample documents, or blocks of 32 tokens where a script has fewer than eight documents: "
        "then they say nothing about other documents of the script."
    )
    columns = [[group[key] for group in results["scripts"]] for key in ("name", "nats_per_token", "lower", "upper")]
    report.figure(interval_plot(*columns, x_label="nats per token"))
    report.table(
        ("script", "documents", "tokens", "loss", "lower", "upper", "interval over", "unigram", "bits per byte"),
        [
            (
                group["name"],
                group["documents"],
                group["tokens"],
                group["nats_per_token"],
                group["lower"],
                group["upper"],
                group["interval_unit"],
                group["unigram_nats_per_token"],
                group["bits_per_byte"],
            )
            for group in results["scripts"]
        ],
    )
    report.write(path)
