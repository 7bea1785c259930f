"""The `languages` command: how well each language is modelled, what its tokens cost, and how unequal languages are.

results.json       everything below, the summary first
languages.csv      one line per language
groups.csv         one line per script and per resource class
parity.csv         one line per language of the parallel texts
report.html
"""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from apertus_jax import artifacts
from apertus_jax.data import TokenStore
from apertus_jax.data.tokenizer import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.evaluation.intervals import FEWEST_DOCUMENTS
from apertus_jax.evaluation.languages import report
from apertus_jax.evaluation.languages.counting import Passage, count_tokens, with_losses
from apertus_jax.evaluation.languages.figures import language_figures
from apertus_jax.evaluation.languages.parallel_texts import SAMPLE, TextSet, read_texts
from apertus_jax.evaluation.languages.parity import UNITS, check_baseline
from apertus_jax.evaluation.languages.results import (
    describe,
    group_results,
    notes,
    parallel_results,
    summarize,
    without_nan,
)
from apertus_jax.evaluation.languages.store_texts import UNKNOWN_TEXT, store_passages
from apertus_jax.evaluation.languages.training_share import RunRecord, read_run_record, training_shares
from apertus_jax.evaluation.scoring import LikelihoodScorer
from apertus_jax.model_folder import find_model, load_model, read_config, tokenizer_folder

KIND = "languages"
RESULTS_FILE, REPORT_FILE = "results.json", "report.html"
NO_PARALLEL = ""


def languages(
    run: str,
    output: str,
    store: str | None = None,
    texts: str = "",
    units: str = "line",
    parallel: str = SAMPLE,
    baseline: str = "eng_Latn",
    aligned: bool | None = None,
    most_lines: int | None = None,
    tokens_per_language: int = 2048,
    tokens_per_document: int = 1024,
    sequence_length: int | None = None,
    batch_tokens: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Reports on every language; writes results.json, three tables and report.html, and returns the results.

    Args:
      run: a run folder whose training has ended, or a model folder; empty for the figures that need no model.
      output: where the report goes.
      store: the token store of the training: shares of training tokens, and the texts when `texts` is empty.
      texts: what is measured: a folder of `<lang_Script>.devtest`, `.dev`, `.txt` or `.jsonl`, documents as `tokenize`
        takes them, or `sample`; empty means a draw from the store.
      units: unit of the tokenizer-fairness cost: `line`, `word`, `character` or `byte`.
      parallel: translations for parity when `texts` are none: a folder as above, `sample` for the bundled sentences, or
        empty for none.
      baseline: the language that parity is set against.
      aligned: whether lines of `texts` translate each other; None means that they do when all languages have the same.
      most_lines: only the first so many lines of parallel texts; None means all.
      tokens_per_language: drawn from the store for each language, held-out and training text each.
      tokens_per_document: of a longer document of the store only the beginning is read.
      sequence_length: longest window of one forward pass; None means the model's context.
      batch_tokens: tokens of one forward pass; None means what `LikelihoodScorer` finds good.
      seed: of the draw and of the bootstrap intervals.
      progress: shows a bar on a terminal.

    Raises:
      UserError: no model or tokenizer, a store or texts of another one, or unusable texts.
    """
    if units not in UNITS:
        raise UserError(f"languages.units={units!r} must be one of {', '.join(UNITS)}")
    if not texts and store is None:
        raise UserError("languages has nothing to measure; give the token store of the training, or texts")
    token_store = None if store is None else TokenStore.open(store)
    tokenizer = check_tokenizers(run, token_store)
    record = read_run_record(run) if run else None
    given = read_texts(texts, aligned, most_lines) if texts else None
    beside = None
    if not (given and given.aligned) and parallel != NO_PARALLEL:
        beside = read_texts(parallel, True, most_lines)
    identity = _identity(run, token_store, tokenizer, record, given, beside)
    inputs = identity | {
        "units": units,
        "baseline": baseline,
        "tokens_per_language": tokens_per_language,
        "tokens_per_document": tokens_per_document,
        "sequence_length": sequence_length,
        "seed": seed,
    }
    if artifacts.already_built(output, KIND, inputs):
        return json.loads((epath.Path(output) / RESULTS_FILE).read_text())
    trained_on_it = bool(token_store) and (record is None or token_store.digest in record.store_digests)
    if given is None:
        passages = store_passages(token_store, trained_on_it, tokens_per_language, tokens_per_document, seed)
    else:
        passages = file_passages(given, tokenizer)
    translated = file_passages(beside, tokenizer) if beside else []
    own_translations = beside is None and given is not None and given.aligned
    if translated or own_translations:
        check_baseline({passage.language for passage in translated or passages}, baseline)
    losses = score(run, [*passages, *translated], tokenizer, sequence_length, batch_tokens, progress)
    counted = count([*passages, *translated], losses, tokenizer)
    texts_of_parity = (passages, counted) if own_translations else (translated, counted[len(passages) :])
    shares = training_shares(token_store, record) if trained_on_it else None
    rows = language_figures(passages, counted[: len(passages)], shares, seed)
    results = without_nan(
        {
            "summary": summarize(rows, seed) | {"vocabulary_utilisation": vocabulary_utilisation(passages, tokenizer)},
            "notes": notes(run, rows, given, token_store, record, trained_on_it),
            **group_results(rows, seed),
            "parallel": parallel_results(beside or given, *texts_of_parity, baseline, units, seed),
            "languages": [describe(row) for row in rows],
        }
    )
    with artifacts.build(output, KIND, inputs) as build:
        (build.path / RESULTS_FILE).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        report.write_tables(build.path, results)
        report.write_report(build.path / REPORT_FILE, results, run or str(store))
        build.summary.update(languages=len(rows), bits_per_byte=results["summary"]["bits_per_byte"])
    report.print_summary(results)
    return results


def check_tokenizers(run: str, store: TokenStore | None) -> Tokenizer:
    """Returns the tokenizer of the model, or of the store where there is no model or it carries none.

    Raises:
      UserError: neither has one, the two differ, or the vocabulary is not the model's.
    """
    folder = tokenizer_folder(find_model(run)) if run else None
    if folder is None and store is None:
        raise UserError(f"{run or 'languages'} carries no tokenizer, so no text can be read; give the token store")
    tokenizer = store.tokenizer if folder is None else Tokenizer.load(folder)
    if folder is not None and store is not None:
        store.check_tokenizer(tokenizer)
    if run:
        size = read_config(find_model(run)).vocab_size
        # A model may have more rows than its own tokenizer has ids; with a store's, a difference means another model.
        if size < tokenizer.vocab_size or (folder is None and size != tokenizer.vocab_size):
            raise UserError(
                f"{run} has vocabulary {size} but the tokenizer has {tokenizer.vocab_size} ids; give the store that "
                "the model was trained on"
            )
    return tokenizer


def file_passages(given: TextSet, tokenizer: Tokenizer) -> list[Passage]:
    """Returns every line of a text set in tokens."""
    keys = [(language, line) for language, lines in sorted(given.texts.items()) for line in lines]
    ids = tokenizer.encode_batch([given.texts[language][line] for language, line in keys])
    return [Passage(language, each, UNKNOWN_TEXT, line) for (language, line), each in zip(keys, ids, strict=True)]


def score(
    run: str,
    passages: Sequence[Passage],
    tokenizer: Tokenizer,
    sequence_length: int | None,
    batch_tokens: int | None,
    progress: bool,
) -> list[np.ndarray | None]:
    """Returns the nats of every token of each passage after <s>, float32[n] each; None each without a model."""
    if not run:
        return [None] * len(passages)
    config, params = load_model(run)
    longest = sequence_length or config.max_position_embeddings
    scorer = LikelihoodScorer(config, params, longest=longest, batch_tokens=batch_tokens)
    scored = scorer.score_rolling_texts([passage.ids for passage in passages], tokenizer.bod_id, progress=progress)
    return [-each.log_probabilities for each in scored]


def count(passages: Sequence[Passage], losses: Sequence[np.ndarray | None], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Returns float64[n, 5] of each passage, or [1, 5] of those that are resampled whole: then tokens are summed up."""
    sizes = collections.Counter((passage.language, passage.origin) for passage in passages)
    counted = []
    for passage, loss in zip(passages, losses, strict=True):
        rows = with_losses(count_tokens(tokenizer, passage.ids), loss)
        whole = sizes[passage.language, passage.origin] >= FEWEST_DOCUMENTS
        counted.append(rows.sum(axis=0, keepdims=True) if whole else rows)
    return counted


def vocabulary_utilisation(passages: Sequence[Passage], tokenizer: Tokenizer) -> float:
    """Returns the share of the vocabulary that occurs in the passages (evaluation spec §4)."""
    used = np.zeros(tokenizer.vocab_size, bool)
    for passage in passages:
        used[passage.ids] = True
    return float(used.mean())


def _identity(
    run: str,
    store: TokenStore | None,
    tokenizer: Tokenizer,
    record: RunRecord | None,
    given: TextSet | None,
    beside: TextSet | None,
) -> dict[str, Any]:
    """Returns digests of everything that is read."""
    return {
        "model": artifacts.read_manifest(find_model(run), "model")["digest"] if run else None,
        "mixture": artifacts.digest_json([record.mixture, record.samples]) if record else None,
        "tokenizer": tokenizer.digest,
        "store": store.digest if store else None,
        "texts": [given.digest, given.aligned] if given else None,
        "parallel": beside.digest if beside else None,
    }
