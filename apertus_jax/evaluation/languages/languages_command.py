"""The `languages` command: bits per byte, token costs and inequality by language.

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

from apertus_jax.checkpoints import OpenedModel, open_model
from apertus_jax.data import TokenStore
from apertus_jax.data.tokenizer.bpe import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.evaluation.bits_per_byte import DEFINITION
from apertus_jax.evaluation.execution import Execution
from apertus_jax.evaluation.intervals import MIN_DOCUMENTS, without_nan
from apertus_jax.evaluation.languages import report
from apertus_jax.evaluation.languages.counting import Passage, count_tokens, with_losses
from apertus_jax.evaluation.languages.figures import language_figures
from apertus_jax.evaluation.languages.options import LanguageOptions
from apertus_jax.evaluation.languages.parallel_texts import SAMPLE, TextSet, read_texts
from apertus_jax.evaluation.languages.parity import check_baseline
from apertus_jax.evaluation.languages.results import (
    describe,
    group_results,
    notes,
    parallel_results,
    summarize,
)
from apertus_jax.evaluation.languages.store_texts import UNKNOWN_TEXT, store_passages
from apertus_jax.evaluation.languages.training_share import RunRecord, read_run_record, training_shares
from apertus_jax.evaluation.scoring import LikelihoodScorer
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of
from apertus_jax.storage.json_reader import read_json

KIND = "languages"
RESULTS_FILE, REPORT_FILE = "results.json", "report.html"
NO_PARALLEL = ""


def languages(
    run: str,
    output: str,
    store: str | None = None,
    texts: str = "",
    parallel: str = SAMPLE,
    options: LanguageOptions = LanguageOptions(),  # noqa: B008 (frozen)
    execution: Execution = Execution(),  # noqa: B008 (frozen)
    step: int | None = None,
) -> dict[str, Any]:
    """Reports on every language; writes results.json, three tables and report.html, and returns the results.

    Args:
      run: a run folder, or a model folder; empty for the figures that need no model.
      output: where the report goes.
      store: the token store of the training: shares of training tokens, and the texts when `texts` is empty.
      texts: what is measured: a folder of `<lang_Script>.devtest`, `.dev`, `.txt` or `.jsonl`, documents as `tokenize`
        takes them, or `sample`; empty means a draw from the store.
      parallel: translations for parity when `texts` are none: a folder as above, `sample` for the bundled sentences, or
        empty for none.
      options: what is drawn from the store, which lines are taken, and what parity is set against.
      execution: how many tokens one forward pass has, and whether a bar is shown.
      step: a committed step of the run, which may still be training; None for the model of a finished run.

    Raises:
      UserError: no model or tokenizer, a store or texts of another one, or unusable texts.
    """
    if not texts and store is None:
        raise UserError("languages has nothing to measure; give the token store of the training, or texts")
    token_store = None if store is None else TokenStore.open(store)
    model = open_model(run, step) if run else None
    tokenizer = check_tokenizers(model, token_store)
    record = read_run_record(run, step) if run else None
    given = read_texts(texts, options.aligned, options.max_lines) if texts else None
    beside = None
    if not (given and given.aligned) and parallel != NO_PARALLEL:
        beside = read_texts(parallel, True, options.max_lines)
    inputs = {
        **_inputs_of(model, token_store, tokenizer, record, given, beside),
        **identity_of(options),
        "bits_per_byte": DEFINITION,
    }
    if artifacts.already_built(output, KIND, inputs):
        return read_json(epath.Path(output) / RESULTS_FILE, allow_nan=True)
    trained_on_it = token_store is not None and (record is None or token_store.digest in record.store_digests)
    if given is None:
        assert token_store is not None  # or there were nothing to measure
        passages = store_passages(token_store, trained_on_it, options)
    else:
        passages = file_passages(given, tokenizer)
    translated = file_passages(beside, tokenizer) if beside else []
    own_translations = beside is None and given is not None and given.aligned
    if translated or own_translations:
        check_baseline({passage.language for passage in translated or passages}, options.baseline)
    losses = score(model, [*passages, *translated], tokenizer, options.sequence_length, execution)
    seed = options.seed
    counted = count([*passages, *translated], losses, tokenizer)
    texts_of_parity = (passages, counted) if own_translations else (translated, counted[len(passages) :])
    shares = training_shares(token_store, record) if token_store is not None and trained_on_it else None
    rows = language_figures(passages, counted[: len(passages)], shares, seed)
    results = without_nan(
        {
            "summary": summarize(rows, seed) | {"vocabulary_utilisation": vocabulary_utilization(passages, tokenizer)},
            "notes": notes(run, rows, given, token_store, record, trained_on_it),
            "bits_per_byte_is": DEFINITION,
            **group_results(rows, seed),
            "parallel": parallel_results(beside or given, *texts_of_parity, options.baseline, options.units, seed),
            "languages": [describe(row) for row in rows],
        }
    )
    with artifacts.build(output, KIND, inputs) as build:
        (build.path / RESULTS_FILE).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        report.write_tables(build.path, results)
        report.write_report(build.path / REPORT_FILE, results, _name(run, store, step))
        build.summary.update(languages=len(rows), bits_per_byte=results["summary"]["bits_per_byte"])
    report.print_summary(results)
    return results


def _name(run: str, store: str | None, step: int | None) -> str:
    """Returns what the report calls the model, or the store where there is none."""
    return f"{run}, step {step}" if run and step is not None else run or str(store)


def check_tokenizers(model: OpenedModel | None, store: TokenStore | None) -> Tokenizer:
    """Returns the tokenizer of the model, or of the store where there is no model or it carries none.

    Raises:
      UserError: neither has one, the two differ, or the vocabulary is not the model's.
    """
    folder = None if model is None else model.tokenizer
    if folder is not None:
        tokenizer = Tokenizer.load(folder)
        if store is not None:
            store.check_tokenizer(tokenizer)
    elif store is not None:
        tokenizer = store.tokenizer
    else:
        who = "languages" if model is None else model.place
        raise UserError(f"{who} carries no tokenizer, so no text can be read; give the token store")
    if model is not None:
        size = model.config.vocab_size
        # A model may have more rows than its own tokenizer has ids; with a store's, a difference means another model.
        if size < tokenizer.vocab_size or (folder is None and size != tokenizer.vocab_size):
            raise UserError(
                f"{model.place} has vocabulary {size} but the tokenizer has {tokenizer.vocab_size} ids; give the store "
                "that the model was trained on"
            )
    return tokenizer


def file_passages(given: TextSet, tokenizer: Tokenizer) -> list[Passage]:
    """Returns every line of a text set in tokens."""
    keys = [(language, line) for language, lines in sorted(given.texts.items()) for line in lines]
    ids = tokenizer.encode_batch([given.texts[language][line] for language, line in keys])
    return [Passage(language, each, UNKNOWN_TEXT, line) for (language, line), each in zip(keys, ids, strict=True)]


def score(
    model: OpenedModel | None,
    passages: Sequence[Passage],
    tokenizer: Tokenizer,
    sequence_length: int | None,
    execution: Execution,
) -> list[np.ndarray | None]:
    """Returns the nats of every token of each passage after <s>, float32[n] each; None each without a model."""
    if model is None:
        return [None] * len(passages)
    longest = sequence_length or model.config.max_position_embeddings
    scorer = LikelihoodScorer(model.config, model.load(), longest=longest, batch_tokens=execution.batch_tokens)
    texts = [passage.ids for passage in passages]
    scored = scorer.score_rolling_texts(texts, tokenizer.bod_id, progress=execution.progress)
    return [-each.log_probabilities for each in scored]


def count(passages: Sequence[Passage], losses: Sequence[np.ndarray | None], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Returns float64[n, 5] of each passage, or [1, 5] of those that are resampled whole: then tokens are summed up."""
    sizes = collections.Counter((passage.language, passage.origin) for passage in passages)
    counted = []
    for passage, loss in zip(passages, losses, strict=True):
        rows = with_losses(count_tokens(tokenizer, passage.ids), loss)
        whole = sizes[passage.language, passage.origin] >= MIN_DOCUMENTS
        counted.append(rows.sum(axis=0, keepdims=True) if whole else rows)
    return counted


def vocabulary_utilization(passages: Sequence[Passage], tokenizer: Tokenizer) -> float:
    """Returns the share of the vocabulary that occurs in the passages.

    Source: docs/reference/evaluation_and_release.md §4.
    """
    used = np.zeros(tokenizer.vocab_size, bool)
    for passage in passages:
        used[passage.ids] = True
    return float(used.mean())


def _inputs_of(
    model: OpenedModel | None,
    store: TokenStore | None,
    tokenizer: Tokenizer,
    record: RunRecord | None,
    given: TextSet | None,
    beside: TextSet | None,
) -> dict[str, Any]:
    """Returns digests of everything that is read."""
    return {
        **({"model": None} if model is None else model.identity),
        "mixture": artifacts.digest_json([record.mixture, record.samples]) if record else None,
        "tokenizer": tokenizer.digest,
        "store": store.digest if store else None,
        "texts": [given.digest, given.aligned] if given else None,
        "parallel": beside.digest if beside else None,
    }
