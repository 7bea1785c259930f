"""Quality and toxicity scores of documents: one embedding, read by every head."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apertus_jax.corpus.classifiers.classifier_folder import Classifier, load_classifier
from apertus_jax.corpus.classifiers.embedder import Embedder, Embedding, embed_in_blocks
from apertus_jax.corpus.classifiers.hashed_ngrams import HashedNgramEmbedding
from apertus_jax.corpus.classifiers.head_training import QUALITY, TOXICITY
from apertus_jax.corpus.classifiers.keyed_hash import document_key
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.errors import UserError
from apertus_jax.validation import fields_by_annotation

if TYPE_CHECKING:
    import pyarrow

DECIMALS = 6


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class ClassifierScoring:
    """Options of the classifiers.

    Attributes:
      quality: folder of a quality classifier, empty for none.
      toxicity: folder of a toxicity classifier, empty for none.
      embedder: options of the embedder that both were trained with.
      seed: of the key that every sample of documents is drawn by.
      keep_embeddings: whether the vectors of all chunks are kept in half precision, for heads trained later.
    """

    quality: str = ""
    toxicity: str = ""
    embedder: Embedding = dataclasses.field(default_factory=HashedNgramEmbedding)
    seed: int = 0
    keep_embeddings: bool = False

    def __post_init__(self) -> None:
        """Checks the embedder.

        Raises:
          UserError: it cannot be built.
        """
        if not hasattr(self.embedder, "build"):
            raise UserError(f"ClassifierScoring.embedder {self.embedder!r} is no embedder; give HashedNgramEmbedding()")

    def build(self) -> ClassifierScorer:
        """Loads the heads and, where there is something to embed for, the embedder.

        Raises:
          UserError: a folder is not a classifier, or was trained over another embedder.
        """
        folders = {QUALITY: self.quality, TOXICITY: self.toxicity}
        classifiers = {task: load_classifier(folder, task) for task, folder in folders.items() if folder}
        if not classifiers and not self.keep_embeddings:
            return ClassifierScorer(classifiers, None, self.seed, self.keep_embeddings)
        embedder = self.embedder.build()
        for task, classifier in classifiers.items():
            _require_same_embedder(folders[task], classifier, embedder)
        return ClassifierScorer(classifiers, embedder, self.seed, self.keep_embeddings)


def _require_same_embedder(folder: str, classifier: Classifier, embedder: Embedder) -> None:
    wanted, given = classifier.embedder, dict(embedder.identity())
    different = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    if different:
        name = different[0]
        raise UserError(
            f"{folder} was trained over an embedder with {name} {wanted.get(name)!r}, here it is {given.get(name)!r}; "
            "set ClassifierScoring.embedder to the same or train again"
        )


class ClassifierScorer:
    """Columns quality_score, toxicity_score (float64, 6 decimals, null without a head) and sample_key (uint64)."""

    def __init__(
        self, classifiers: Mapping[str, Classifier], embedder: Embedder | None, seed: int, keep_embeddings: bool
    ):
        self._classifiers = dict(classifiers)
        self._embedder = embedder
        self._seed = seed
        self._keep_embeddings = keep_embeddings

    def schema(self) -> Sequence[pyarrow.Field]:
        """Returns the columns."""
        import pyarrow

        fields = [
            pyarrow.field("quality_score", pyarrow.float64()),
            pyarrow.field("toxicity_score", pyarrow.float64()),
            pyarrow.field("sample_key", pyarrow.uint64()),
        ]
        if self._keep_embeddings:
            fields.append(pyarrow.field("classifier_embeddings", pyarrow.list_(pyarrow.list_(pyarrow.float16()))))
        return fields

    def identity(self) -> Mapping[str, Any]:
        """Returns digests of the heads, the embedder's identity and the seed of the keys."""
        return {
            "classifiers": {task: classifier.digest for task, classifier in sorted(self._classifiers.items())},
            "embedder": dict(self._embedder.identity()) if self._embedder else None,
            "seed": self._seed,
            "keep_embeddings": self._keep_embeddings,
        }

    def score(self, documents: Sequence[RawDocument]) -> Sequence[Mapping[str, Any]]:
        """Returns one row for each document."""
        return [self._row(document) for document in documents]

    def _row(self, document: RawDocument) -> Mapping[str, Any]:
        row: dict[str, Any] = {
            "quality_score": None,
            "toxicity_score": None,
            "sample_key": document_key(document.document_id, self._seed),
        }
        if self._keep_embeddings:
            row["classifier_embeddings"] = []
        if self._embedder is None:
            return row
        chunks = self._embedder.chunks(document.text)
        if TOXICITY not in self._classifiers and not self._keep_embeddings:
            chunks = chunks[:1]
        first, worst = None, 0.0
        for block in embed_in_blocks(self._embedder, chunks):
            first = block[0] if first is None else first
            if TOXICITY in self._classifiers:
                worst = max(worst, *(self._classifiers[TOXICITY].score(vector) for vector in block))
            if self._keep_embeddings:
                row["classifier_embeddings"] += list(block)
        if QUALITY in self._classifiers:
            assert first is not None  # a text has at least one chunk
            row["quality_score"] = round(self._classifiers[QUALITY].score(first), DECIMALS)
        if TOXICITY in self._classifiers:
            row["toxicity_score"] = round(worst, DECIMALS)
        return row
