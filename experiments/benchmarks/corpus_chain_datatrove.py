"""The stages of the chain in datatrove, one task and one worker, as a child of corpus.py.

    python experiments/benchmarks/corpus_chain_datatrove.py DOCUMENTS OUTPUT {own,all} {split,treebank}

The order is that of FineWeb's published pipeline: language, Gopher repetition, Gopher quality, FineWeb quality, a
Parquet file; MinHash in its four stages; personal data; a Parquet file. What had to be given to it:

- its language model is a download, so the block has the model file that ours reads (the quantised lid.176);
- its word tokenizers are spaCy's and NLTK's with downloaded data, so `split` stands in, which costs next to nothing, or
  NLTK's Treebank tokenizer (English, no download), the nearest to what it does;
- its JSONL blocks need orjson, which the project does not install: Parquet on both sides;
- it passes text to xxhash, which since version 4 takes bytes alone.

`own` has its own limits, but for the English stop words, which would drop most of 41 languages unseen: what a filter
drops costs nothing further. `all` has limits that nothing passes, so that every block sees every text, as ours do.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import xxhash
from corpus_quality import NO_LIMIT, peer_filters
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline import filters
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.lid import LID
from datatrove.utils.word_tokenizers import WordTokenizer

from apertus_jax.corpus.language.models import DEFAULT_MODEL, load_model, model_path
from apertus_jax.storage import artifacts


class InstalledModel(LID):
    """datatrove's `FastTextLID.predict` over the model that ours reads."""

    @functools.cached_property
    def _digest(self) -> str:
        return artifacts.digest_file(model_path(DEFAULT_MODEL))

    def predict(self, doc: Any) -> tuple[tuple[str, float], dict[str, float]]:
        """Returns the best (language, score) and the scores of all languages."""
        model = load_model(model_path(DEFAULT_MODEL), self._digest) if self._model is None else self._model
        self._model = model
        labels, scores = model.predict(doc.text.replace("\n", " "), k=-1)
        pairs = {label.split("__")[2]: score for label, score in zip(labels, scores, strict=True)}
        return max(pairs.items(), key=lambda pair: pair[1]), pairs

    _model: Any = None


class Words(WordTokenizer):
    """Words by `str.split` or by NLTK's Treebank rules."""

    def __init__(self, kind: str):
        super().__init__("en")
        if kind == "split":
            self._tokenize = str.split
        else:
            from nltk.tokenize import NLTKWordTokenizer

            self._tokenize = NLTKWordTokenizer().tokenize

    def word_tokenize(self, text: str) -> list[str]:
        """Returns the words of a text."""
        return self._tokenize(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """No block of this chain asks for sentences."""
        raise AssertionError("no block of this chain asks for sentences")

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """No block of this chain asks for spans."""
        raise AssertionError("no block of this chain asks for spans")


def text_filters(limits: str, words: Words) -> list[Any]:
    """Returns the language filter and the three heuristic filters, which share one word tokenizer."""
    filters.LanguageFilter._requires_dependencies = []  # it asks for another build of the fastText package
    language = filters.LanguageFilter(label_only=limits == "all", language_threshold=0.3)
    language.model = InstalledModel()
    if limits == "all":
        blocks = peer_filters(stops_early=False)
    else:
        blocks = [
            filters.GopherRepetitionFilter(),
            filters.GopherQualityFilter(min_stop_words=None, min_avg_word_length=1, max_avg_word_length=NO_LIMIT),
            filters.FineWebQualityFilter(),
        ]
    for block in blocks:
        block.language = words
    return [language, *blocks]


def signatures(folder: str, config: MinhashConfig, words: Words) -> MinhashDedupSignature:
    """Returns the block of MinHash signatures."""
    block = MinhashDedupSignature(folder, config, language=words)
    block._hash_func = lambda shingle: xxhash.xxh64_intdigest(shingle.encode())
    return block


def main() -> None:
    """Runs the pipelines one after another; the result lies in OUTPUT/documents."""
    documents, output, limits, kind = sys.argv[1:]
    root = Path(output)
    words, config = Words(kind), MinhashConfig()
    filtered, signed, paired, clustered, written = (
        str(root / name) for name in ("filtered", "signatures", "buckets", "clusters", "documents")
    )
    first = ParquetReader(str(Path(documents).parent), glob_pattern=Path(documents).name)
    pipelines = (
        [first, *text_filters(limits, words), ParquetWriter(filtered)],
        [ParquetReader(filtered), signatures(signed, config, words)],
        [MinhashDedupBuckets(signed, paired, config=config)],
        [MinhashDedupCluster(paired, clustered, config=config)],
        [ParquetReader(filtered), MinhashDedupFilter(clustered), PIIFormatter(), ParquetWriter(written)],
    )
    for number, pipeline in enumerate(pipelines):
        # Its search for pairs takes one task for each bucket.
        tasks = config.num_buckets if isinstance(pipeline[0], MinhashDedupBuckets) else 1
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(root / f"logs{number}")).run()


if __name__ == "__main__":
    main()
