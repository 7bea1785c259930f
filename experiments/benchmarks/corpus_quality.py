"""How fast and how right language and quality scores are, beside datatrove's blocks for the same work.

    python experiments/benchmarks/corpus_quality.py [--input DOCUMENTS]

Needs `pip install -r requirements-benchmarks.txt`. Prints MB of UTF-8 per second of CPU time in one process: medians of
rounds in the order ours, theirs, ours, theirs, …, so that a change of clock or neighbours meets both.

What the peer does: its `LanguageFilter` (here with the model file that ours reads, since its own is a download),
`GopherQualityFilter`, `GopherRepetitionFilter` and `FineWebQualityFilter`. Its filters stop at the first limit that a
text passes, while ours measure everything once for the ledger. So two figures: `all measures`, where no limit can be
passed, and `stops early`, with datatrove's own limits, the next filter seeing only what the last one kept. Its word
tokenizers (spaCy, NLTK and others) are either left out (`split`: text.split(), which costs next to nothing) or, the
nearest to what it does for most languages that needs no download, NLTK's Treebank tokenizer (`treebank`).
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from apertus_jax.corpus.bundled import bundled_documents
from apertus_jax.corpus.documents import read_documents
from apertus_jax.corpus.language import LanguageScoring, detect_scripts
from apertus_jax.corpus.language.models import language_and_script, load_model, model_path
from apertus_jax.corpus.language_codes import scripts_of
from apertus_jax.corpus.quality import EnglishQualityRule, QualityRule, QualityScoring
from apertus_jax.corpus.raw_document import RawDocument

DOCUMENTS_AT_ONCE = 1000
NO_LIMIT = 1e9


def read(path: str | None) -> list[RawDocument]:
    """Returns the documents of a file or folder, of the bundled corpus by default."""
    documents = read_documents(path) if path else bundled_documents()
    return [RawDocument(d.document_id, d.text, d.source, "", 1, language=d.language) for d in documents]


def score(scorers: Sequence, documents: Sequence[RawDocument]) -> list[dict]:
    """Returns the rows of all scorers, joined, from batches as `prepare` makes them."""
    rows = []
    for first in range(0, len(documents), DOCUMENTS_AT_ONCE):
        batch = documents[first : first + DOCUMENTS_AT_ONCE]
        for parts in zip(*(scorer.score(batch) for scorer in scorers), strict=True):
            rows.append({key: value for part in parts for key, value in part.items()})
    return rows


def ours(scorers: Sequence, documents: Sequence[RawDocument]) -> None:
    """Scores and, where quality is scored, decides."""
    rules = (EnglishQualityRule(), QualityRule())
    for row in score(scorers, documents):
        if "quality_words" in row and "language_label" in row:
            for rule in rules:
                rule.verdict(row, {})


def peer_filters(stops_early: bool) -> list:
    """Returns datatrove's three heuristic filters, with their own limits or with limits that nothing passes."""
    from datatrove.pipeline import filters

    if stops_early:
        return [filters.GopherRepetitionFilter(), filters.GopherQualityFilter(), filters.FineWebQualityFilter()]
    top, duplicate = ((2, 3, 4), (5, 6, 7, 8, 9, 10))
    return [
        filters.GopherRepetitionFilter(
            *(NO_LIMIT,) * 4, tuple((n, NO_LIMIT) for n in top), tuple((n, NO_LIMIT) for n in duplicate)
        ),
        # A limit of 0 or None would skip the measure; nothing is below −1 or above NO_LIMIT.
        filters.GopherQualityFilter(-1, NO_LIMIT, -1, *(NO_LIMIT,) * 4, -1, -1),
        filters.FineWebQualityFilter(
            line_punct_thr=-1, short_line_thr=NO_LIMIT, char_duplicates_ratio=NO_LIMIT, new_line_ratio=NO_LIMIT
        ),
    ]


def peer_language() -> Callable:
    """Returns datatrove's language filter over the model file that ours reads."""
    from datatrove.pipeline.filters import LanguageFilter

    LanguageFilter._requires_dependencies = []  # it asks for another build of the fastText package
    block = LanguageFilter(label_only=True, keep_top_pairs_threshold=0.01)
    path = model_path("lid.176")
    from apertus_jax.storage import artifacts

    model = load_model(path, artifacts.digest_file(path))

    def predict(document):
        # As FT176LID.predict, whose .item() belongs to another fastText package's arrays.
        labels, scores = model.predict(document.text.replace("\n", " "), k=-1)
        pairs = {label.split("__")[2]: score for label, score in zip(labels, scores, strict=True)}
        return max(pairs.items(), key=lambda pair: pair[1]), pairs

    block.model.predict = predict
    return block.filter


def set_peer_words(name: str) -> None:
    """Replaces datatrove's word tokenizer, one call for each text as its own cache makes it."""
    from datatrove.pipeline.filters import fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter

    if name == "split":
        tokenize = str.split
    else:
        from nltk.tokenize import NLTKWordTokenizer

        tokenize = NLTKWordTokenizer().tokenize
    words = functools.lru_cache(5)(tokenize)
    for module in (fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter):
        module.split_into_words = lambda text, language=None: words(text)


def theirs(filters: Sequence[Callable], documents: Sequence[RawDocument], words: str) -> int:
    """Runs datatrove's filters over every document until one drops it; returns how many were kept."""
    from datatrove.data import Document

    set_peer_words(words)
    kept = 0
    for document in documents:
        copy = Document(text=document.text, id=document.document_id)
        for block in filters:
            if block(copy) is not True:
                break
        else:
            kept += 1
    return kept


def seconds(work: Callable[[], None]) -> float:
    """Returns the CPU time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(documents: Sequence[RawDocument], rounds: int) -> Table:
    """Returns the table of speeds, every pair measured in alternation."""
    megabytes = sum(len(document.text.encode("utf-8", "replace")) for document in documents) / 1e6
    language, quality = LanguageScoring().build(), QualityScoring().build()
    language_block = peer_language()
    everything = [block.filter for block in peer_filters(stops_early=False)]
    early = [block.filter for block in peer_filters(stops_early=True)]
    pairs = [
        ("language", [language], [language_block], "split"),
        ("quality, all measures, split", [quality], everything, "split"),
        ("quality, all measures, treebank", [quality], everything, "treebank"),
        ("quality, stops early, split", [quality], early, "split"),
        ("both, all measures, split", [language, quality], [language_block, *everything], "split"),
        ("both, all measures, treebank", [language, quality], [language_block, *everything], "treebank"),
        ("both, stops early, split", [language, quality], [language_block, *early], "split"),
    ]
    table = Table(
        "work", "ours MB/s", "datatrove MB/s", "ratio", title=f"{len(documents)} documents, {megabytes:.1f} MB"
    )
    for name, scorers, filters, words in pairs:
        own, peer = [], []
        ours(scorers, documents[:50])
        if "early" not in name and theirs(filters, documents[:500], words) != len(documents[:500]):
            raise AssertionError(f"{name}: a filter stopped although nothing passes its limits")
        for _ in range(rounds):
            own.append(megabytes / seconds(lambda scorers=scorers: ours(scorers, documents)))
            peer.append(megabytes / seconds(lambda f=filters, w=words: theirs(f, documents, w)))
        ratio = statistics.median(a / b for a, b in zip(own, peer, strict=True))
        table.add_row(name, f"{statistics.median(own):.1f}", f"{statistics.median(peer):.1f}", f"{ratio:.1f}")
    return table


def accuracy(documents: Sequence[RawDocument]) -> Table:
    """Returns how often the declared script and language were found."""
    scorer = LanguageScoring().build()
    model = load_model(scorer.path, scorer.digest)
    labels = {label for text in ("a", "я", "中") for label in model.predict(text, k=-1, threshold=-1)[0]}
    known = {language_and_script(label.removeprefix("__label__"))[0] for label in labels}
    table = Table("agreement with what is declared", "documents", "right")
    texts = [document.text for document in documents]
    rows = [row for row in score([scorer], documents) if "_" in row["language_declared"]]
    scripts = [(row["language_declared"].split("_")[1], row["language_script"]) for row in rows]
    groups = {"script": [declared == found for declared, found in scripts]}
    for least in (0, 100, 300):
        groups[f"language that the model knows, from {least} characters"] = [
            row["language_label"] == row["language_declared"]
            for row, text in zip(score([scorer], documents), texts, strict=True)
            if len(text) >= least and _is_known(row["language_declared"], known)
        ]
    for name, right in groups.items():
        table.add_row(name, str(len(right)), f"{100 * sum(right) / max(len(right), 1):.1f} %")
    return table


def _is_known(label: str, known: set[str]) -> bool:
    language, _, script = label.partition("_")
    return language in known and script in scripts_of(language)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", help="documents to use in place of the bundled corpus")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    documents = read(arguments.input)
    detect_scripts(["ä"])  # the tables are built once for each process
    console = Console()
    languages = [document for document in documents if not document.source.startswith("pythonbible")]
    console.print(accuracy(languages))
    console.print(compare(documents, arguments.rounds))
    if len(languages) < len(documents):
        console.print("The same without the English books:")
        console.print(compare(languages, arguments.rounds))


if __name__ == "__main__":
    main()
