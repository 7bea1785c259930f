"""The `train-classifier` command: labelled texts → a classifier folder with its validation figures."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from apertus_jax.corpus.classifiers.classifier_folder import KIND, write_classifier
from apertus_jax.corpus.classifiers.embedder import Embedder, Embedding
from apertus_jax.corpus.classifiers.hashed_ngrams import HashedNgramEmbedding
from apertus_jax.corpus.classifiers.head import HeadShape, Parameters, score_row
from apertus_jax.corpus.classifiers.head_training import QUALITY, TASKS, HeadRecipe, standard_recipe, train_head
from apertus_jax.corpus.classifiers.labelled_texts import (
    EXCLUDED_WORDS,
    LabelledText,
    passage_detector,
    read_labelled_texts,
)
from apertus_jax.corpus.classifiers.measures import area_interval, area_under_curve, calibration_error
from apertus_jax.corpus.documents import digest_input
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of_arguments
from apertus_jax.terminal.progress import ProgressBars

MIN_OF_A_CLASS = 20
# A long document is represented by its first chunks; each counts as its share of one example.
CHUNKS_PER_DOCUMENT = 8
SHARES = 1 << 32


def train_classifier(
    input: str,
    output: str,
    task: str = QUALITY,
    embedder: Embedding | None = None,
    recipe: HeadRecipe | None = None,
    exclude: str = "",
    validation_share: float = 0.1,
    max_documents: int = 100_000,
    seed: int = 42,
    progress: bool = True,
) -> dict[str, Any]:
    """Trains the head of a quality or toxicity classifier; returns its summary.

    Idempotent: returns immediately if the output is complete.

    Within each language the more frequent label is cut to the size of the other one; languages with one label only
    are left out, because they would teach the head to recognise languages. Copies of a text count once.

    Args:
      input: .jsonl(.gz) or .parquet with text, label (1: good, or toxic; 0: not), and optionally language and group.
      output: folder of the classifier.
      task: `quality` looks at the first chunk of a document, `toxicity` takes the worst chunk.
      embedder: options of the embedder; hashed n-grams by default.
      recipe: network and training; the published one for the task and embedder by default.
      exclude: documents (benchmarks) whose passages no training text may share; empty for none.
      validation_share: share of texts, or of groups, kept for the figures.
      max_documents: most texts that are used; a keyed hash chooses, equally within each language.
      seed: of the split, the choice, the training and the bootstrap.
      progress: whether a bar is drawn on a terminal.

    Raises:
      UserError: the input cannot be read, is too small, or has only one label.
    """
    arguments = dict(locals())
    if task not in TASKS:
        raise UserError(f"train_classifier task {task!r} is unknown; choose one of {', '.join(TASKS)}")
    if not 0.01 <= validation_share <= 0.5:
        raise UserError(f"train_classifier validation_share {validation_share} must lie between 0.01 and 0.5")
    built = (embedder or HashedNgramEmbedding()).build()
    recipe = recipe or standard_recipe(task, str(built.identity()["implementation"]))
    read = {"input": digest_input(input), "exclude": digest_input(exclude) if exclude else ""}
    made = {"embedder": dict(built.identity()), "recipe": dataclasses.asdict(recipe)}
    settings = identity_of_arguments(train_classifier, arguments, "output", "progress", **read, **made)
    inputs = {**settings, "excluded_words": EXCLUDED_WORDS}
    if artifacts.already_built(output, KIND, inputs):
        return artifacts.read_manifest(output, KIND)["summary"]
    texts, counts = _choose_texts(input, exclude, max_documents, seed)
    in_validation = np.array([_on_validation_side(text, validation_share, seed) for text in texts])
    _require_both_labels(texts, in_validation, input)
    with artifacts.build(output, KIND, inputs) as build, ProgressBars(progress) as bars:
        chunk_limit = 1 if task == QUALITY else CHUNKS_PER_DOCUMENT
        rows, owners = _embed(built, bars.track(texts, "embedding", len(texts)), len(texts), chunk_limit)
        labels = np.array([text.label for text in texts])
        in_training = ~in_validation[owners]
        weights = 1.0 / np.bincount(owners, minlength=len(texts))[owners]
        losses: list[float] = []
        epochs = bars.bar("training", recipe.epochs)

        def after_epoch(_: int, loss: float) -> None:
            losses.append(round(loss, 6))
            epochs.advance()

        parameters = train_head(
            rows[in_training],
            labels[owners][in_training],
            weights[in_training],
            recipe,
            seed,
            on_epoch=after_epoch,
        )
        held = [(text, rows[owners == at]) for at, text in enumerate(texts) if in_validation[at]]
        build.summary = {**counts, **_validate(parameters, held, seed), "training_losses": losses, "seed": seed}
        build.summary["documents_trained"] = int((~in_validation).sum())
        write_classifier(build.path, parameters, _description(inputs, built, recipe, texts, build.summary))
    return artifacts.read_manifest(output, KIND)["summary"]


def _description(
    inputs: dict[str, Any], embedder: Embedder, recipe: HeadRecipe, texts: Sequence[LabelledText], summary: Any
) -> dict[str, Any]:
    """Returns what stands in classifier.json."""
    shape = HeadShape(embedder.dimensions, recipe.hidden_size, recipe.outputs)
    languages = sorted({text.language for text in texts})
    return {**inputs, "head": dataclasses.asdict(shape), "languages": languages, "validation": summary}


def _digest(text: str, seed: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode()).digest()


def _on_validation_side(text: LabelledText, share: float, seed: int) -> bool:
    unit = text.group or text.text
    return int.from_bytes(_digest("split|" + unit, seed)[:4], "little") < share * SHARES


def _choose_texts(input: str, exclude: str, max_documents: int, seed: int) -> tuple[list[LabelledText], dict[str, Any]]:
    """Returns the balanced texts in the order of a keyed hash, and counts of what was left out and why."""
    shares_passage = passage_detector(exclude) if exclude else None
    seen: dict[bytes, int] = {}
    found: dict[tuple[str, int], list[tuple[bytes, LabelledText]]] = defaultdict(list)
    counts = {"documents_read": 0, "copies": 0, "contradictions": 0, "excluded": 0}
    for text in read_labelled_texts(input):
        counts["documents_read"] += 1
        key = _digest(text.text, seed)
        if key in seen:
            counts["copies" if seen[key] == text.label else "contradictions"] += 1
        elif shares_passage and shares_passage(text.text):
            counts["excluded"] += 1
        else:
            seen[key] = text.label
            found[text.language, text.label].append((key, text))
    languages = sorted({language for language, _ in found})
    two_sided = [name for name in languages if found.get((name, 0)) and found.get((name, 1))]
    if not two_sided:
        raise UserError(f"{input} holds only one label in every language; give texts of label 0 and 1 of one language")
    left_out = [name for name in languages if name not in two_sided]
    per_class = max(1, max_documents // (2 * len(two_sided)))
    chosen: list[tuple[bytes, LabelledText]] = []
    for name in two_sided:
        size = min(len(found[name, 0]), len(found[name, 1]), per_class)
        for label in (0, 1):
            chosen += sorted(found[name, label], key=lambda item: item[0])[:size]
    texts = [text for _, text in sorted(chosen, key=lambda item: item[0])]
    return texts, {**counts, "documents_used": len(texts), "languages_with_one_label": left_out}


def _require_both_labels(texts: Sequence[LabelledText], in_validation: np.ndarray, input: str) -> None:
    labels = np.array([text.label for text in texts])
    for label in (0, 1):
        total, held = int((labels == label).sum()), int((in_validation & (labels == label)).sum())
        if total < MIN_OF_A_CLASS:
            raise UserError(
                f"{input} gives {total} texts of label {label} after balancing; at least {MIN_OF_A_CLASS} are needed"
            )
        if not held or held == total:
            raise UserError(
                f"{input}: {held} of {total} texts of label {label} are held out; give more texts or smaller groups"
            )


def _embed(
    embedder: Embedder, texts: Iterable[LabelledText], count: int, chunk_limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns float16 [chunks, D] and the text that each chunk belongs to, int64 [chunks]."""
    rows, owners = [], []
    for at, text in enumerate(texts):
        vectors = embedder.embed(embedder.chunks(text.text)[:chunk_limit])
        rows.append(vectors)
        owners.append(np.full(len(vectors), at))
    return np.concatenate(rows), np.concatenate(owners)


def _validate(parameters: Parameters, held: Sequence[tuple[LabelledText, np.ndarray]], seed: int) -> dict[str, Any]:
    """Returns n, area with interval, calibration error over all validation texts and for each language."""
    exact = {name: value.astype(np.float64) for name, value in parameters.items()}
    scores = np.array([max(score_row(exact, row) for row in rows) for _, rows in held])
    labels = np.array([text.label for text, _ in held])
    languages = np.array([text.language for text, _ in held])
    by_language = {
        name: _figures(scores[languages == name], labels[languages == name], seed) for name in sorted(set(languages))
    }
    return {**_figures(scores, labels, seed), "by_language": by_language}


def _figures(scores: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    both = 0 < labels.sum() < len(labels)
    area: Sequence[float | None] = (None, None, None)
    if both:
        area = [round(figure, 6) for figure in (area_under_curve(scores, labels), *area_interval(scores, labels, seed))]
    return {
        "validated": len(labels),
        **dict(zip(("auc", "auc_low", "auc_high"), area, strict=True)),
        "calibration_error": round(calibration_error(scores, labels), 6),
    }
