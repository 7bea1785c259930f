"""Ledger sums in one pass: documents, bytes and tokens by whatever the summary asks.

Memory holds one row group, and one entry for each distinct value: sources, languages, reasons, months, and the
registrable domains of sources that the provider crawled (about 600 bytes each, measured).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.release.data_summary.prepared_corpus import (
    DOCUMENTS_FILE,
    LEDGER_FILE,
    QUARANTINE_FILE,
    PreparedCorpus,
    num_rows,
    row_groups,
)

if TYPE_CHECKING:
    import pyarrow

KEPT = "kept"
NOT_EVALUATED = "not evaluated"  # the language of what consent did not allow to look at, as in funnel.json
NO_DATE = ""
NEEDED = (
    *("source", "source_version", "language", "decision", "reason", "crawl_date", "registrable_domain"),
    *("utf8_bytes", "utf8_bytes_out", "tokens", "personal_data"),
)
# Columns that only some policies write.
WANTED = ("licence_class", "robots_verdict", "signals")
MEASURES = ("utf8_bytes", "tokens", "utf8_bytes_out")


@dataclasses.dataclass(slots=True)
class Size:
    """Sizes: documents, bytes as they came in, tokens of these, and bytes of what was kept."""

    documents: int = 0
    bytes_in: int = 0
    tokens: int = 0
    bytes_kept: int = 0

    def add(self, other: Size) -> None:
        """Adds another size to this one."""
        self.documents += other.documents
        self.bytes_in += other.bytes_in
        self.tokens += other.tokens
        self.bytes_kept += other.bytes_kept


def total(sizes: Iterable[Size]) -> Size:
    """Returns the sum of sizes."""
    result = Size()
    for size in sizes:
        result.add(size)
    return result


def _sizes() -> Any:
    return collections.defaultdict(Size)


def _counts() -> Any:
    return dataclasses.field(default_factory=collections.Counter)


@dataclasses.dataclass
class LedgerSums:
    """Sums over the ledger.

    Attributes:
      decisions: (source, language, `kept` or reason) → size.
      licences: licence class → size of what was kept; empty when the policy looked at none.
      months: (source, YYYY-MM) → size of what was kept; NO_DATE for documents without one.
      domains: registrable domain → size of what was kept of crawled sources.
      versions: source → versions that its documents name.
      robots: verdict → documents.
      signals: (protocol, verdict) → documents.
      personal_data: kind → spans rewritten in what was kept.
      quarantined: (source, reason) → rows that were no documents.
      documents_written: rows of the files of permitted documents.
    """

    decisions: dict[tuple[str, str, str], Size] = dataclasses.field(default_factory=_sizes)
    licences: dict[str, Size] = dataclasses.field(default_factory=_sizes)
    months: dict[tuple[str, str], Size] = dataclasses.field(default_factory=_sizes)
    domains: dict[str, Size] = dataclasses.field(default_factory=_sizes)
    versions: dict[str, set[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(set))
    robots: collections.Counter[str] = _counts()
    signals: collections.Counter[tuple[str, str]] = _counts()
    personal_data: collections.Counter[str] = _counts()
    quarantined: collections.Counter[tuple[str, str]] = _counts()
    documents_written: int = 0

    def kept(self, where: Callable[[str, str], bool] = lambda source, language: True) -> Size:
        """Returns the size of what was kept, of sources and languages for which `where` holds."""
        return total(
            size
            for (source, language, decision), size in self.decisions.items()
            if decision == KEPT and where(source, language)
        )

    def kept_by_language(self) -> dict[str, Size]:
        """Returns language → size of what was kept, largest first."""
        sizes = _sizes()
        for (_, language, decision), size in self.decisions.items():
            if decision == KEPT:
                sizes[language].add(size)
        return dict(sorted(sizes.items(), key=lambda item: (-item[1].bytes_kept, item[0])))

    def by_decision(self) -> dict[str, Size]:
        """Returns `kept` or reason → size, in alphabetical order."""
        sizes = _sizes()
        for (_, _, decision), size in self.decisions.items():
            sizes[decision].add(size)
        return dict(sorted(sizes.items()))

    def dropped(self, *reasons: str) -> Size:
        """Returns the size of what was left out for these reasons."""
        return total(size for decision, size in self.by_decision().items() if decision in reasons)

    def add_ledger(self, path: epath.Path, crawled: Collection[str]) -> None:
        """Adds every row of a ledger; domains only of crawled sources."""
        import pyarrow
        import pyarrow.compute as compute

        for table in row_groups(path, NEEDED, WANTED):
            is_kept = compute.equal(table["decision"], "keep")
            _check_decisions(table, is_kept, path)
            decision = compute.if_else(is_kept, KEPT, table["reason"])
            label = compute.fill_null(table["language"], "")
            language = compute.if_else(compute.equal(label, ""), NOT_EVALUATED, label)
            keyed = table.append_column("outcome", decision).append_column("by_language", language)
            for key, size in _grouped(keyed, ["source", "by_language", "outcome"]):
                self.decisions[key].add(size)
            kept = keyed.filter(is_kept)
            month = compute.utf8_slice_codeunits(compute.fill_null(kept["crawl_date"], NO_DATE), 0, 7)
            for key, size in _grouped(kept.append_column("month", month), ["source", "month"]):
                self.months[key].add(size)
            if "licence_class" in kept.column_names:
                for (licence,), size in _grouped(kept, ["licence_class"]):
                    self.licences[licence].add(size)
            is_crawled = compute.is_in(kept["source"], pyarrow.array(sorted(crawled), pyarrow.string()))
            for (domain,), size in _grouped(kept.filter(is_crawled), ["registrable_domain"]):
                self.domains[domain or ""].add(size)
            self._add_counts(table)

    def _add_counts(self, table: pyarrow.Table) -> None:
        """Adds what is counted, not weighed."""
        import pyarrow
        import pyarrow.compute as compute

        for row in table.group_by(["source", "source_version"]).aggregate([]).to_pylist():
            self.versions[row["source"]].add(row["source_version"] or "")
        if "robots_verdict" in table.column_names:
            for entry in compute.value_counts(table["robots_verdict"]).to_pylist():
                self.robots[entry["values"]] += entry["counts"]
        if "signals" in table.column_names:
            flat = compute.list_flatten(table["signals"])
            names = ("kind", "verdict")
            columns = [compute.struct_field(flat, [name]) for name in names]
            pairs = (
                pyarrow.table(dict(zip(names, columns, strict=True)))
                .group_by(list(names))
                .aggregate([([], "count_all")])
            )
            for row in pairs.to_pylist():
                self.signals[row["kind"], row["verdict"]] += row["count_all"]
        for chunk in table["personal_data"].chunks:
            spans = (
                pyarrow.table({"kind": chunk.keys, "spans": chunk.items}).group_by("kind").aggregate([("spans", "sum")])
            )
            for row in spans.to_pylist():
                self.personal_data[row["kind"]] += row["spans_sum"]

    def add_quarantine(self, path: epath.Path) -> None:
        """Adds every row of a quarantine."""
        for table in row_groups(path, ("source", "reason")):
            for row in table.group_by(["source", "reason"]).aggregate([([], "count_all")]).to_pylist():
                self.quarantined[row["source"], row["reason"]] += row["count_all"]


def read_sums(corpus: PreparedCorpus, crawled: Collection[str], parts: Iterable[epath.Path]) -> LedgerSums:
    """Verifies and adds up these parts of a corpus, and checks that nothing is lost.

    Raises:
      UserError: a part is damaged, or the ledger, the files of documents, the funnel and the manifest disagree.
    """
    sums = LedgerSums()
    for part in parts:
        corpus.verify_part(part)
        sums.add_ledger(part / LEDGER_FILE, crawled)
        sums.add_quarantine(part / QUARANTINE_FILE)
        sums.documents_written += num_rows(part / DOCUMENTS_FILE)
    check_balance(corpus, sums)
    return sums


def check_balance(corpus: PreparedCorpus, sums: LedgerSums) -> None:
    """Checks that every row that came in was kept, dropped for one reason, or set aside.

    Source: docs/reference/data.md §12.

    Raises:
      UserError: a count differs; it is named with both values.
    """
    decided = total(sums.decisions.values()).documents
    kept = sums.kept().documents
    dropped = sum(size.documents for decision, size in sums.by_decision().items() if decision != KEPT)
    quarantined = sum(sums.quarantined.values())
    summary = corpus.summary
    rows_in = summary["documents"] + summary["quarantined"]
    counts = [
        ("documents in the ledger", decided, summary["documents"]),
        ("documents kept", kept, summary["kept"]),
        ("documents dropped", dropped, summary["dropped"]),
        ("rows in quarantine", quarantined, summary["quarantined"]),
        ("documents in the files of permitted documents", sums.documents_written, kept),
        ("rows kept, dropped and in quarantine", kept + dropped + quarantined, rows_in),
    ]
    for what, found, expected in counts:
        if found != expected:
            raise UserError(
                f"{corpus.folder}: {found} {what} where {expected} are expected; the corpus does not balance, "
                "run `apertus prepare` again"
            )
    ledger = {key: [size.documents, size.bytes_in, size.tokens] for key, size in sums.decisions.items()}
    funnel = {tuple(entry[:3]): entry[3:6] for entry in corpus.funnel["counts"]}
    agree = (
        ledger == funnel
        and sums.kept().bytes_kept == corpus.funnel["bytes_out"]
        and dict(sums.personal_data) == corpus.funnel["personal_data"]
        and dict(sums.quarantined) == {tuple(entry[:2]): entry[2] for entry in corpus.funnel["quarantined"]}
    )
    if not agree:
        raise UserError(f"{corpus.folder}: the ledger and funnel.json count differently; run `apertus prepare` again")


def _check_decisions(table: pyarrow.Table, is_kept: pyarrow.ChunkedArray, path: epath.Path) -> None:
    """Raises UserError when a document is kept with a reason to drop it, or dropped without one."""
    import pyarrow.compute as compute

    has_reason = compute.not_equal(compute.fill_null(table["reason"], ""), "")
    if compute.any(compute.equal(is_kept, has_reason)).as_py():
        raise UserError(f"{path} holds a document whose decision and reason contradict each other; prepare it again")


def _grouped(table: pyarrow.Table, keys: list[str]) -> Iterator[tuple[tuple[Any, ...], Size]]:
    """Yields (values of the keys, size) of every group of rows."""
    sums = table.group_by(keys).aggregate([([], "count_all"), *((name, "sum") for name in MEASURES)])
    for row in sums.to_pylist():
        yield (
            tuple(row[name] for name in keys),
            Size(row["count_all"], row["utf8_bytes_sum"] or 0, row["tokens_sum"] or 0, row["utf8_bytes_out_sum"] or 0),
        )
