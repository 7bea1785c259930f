"""The `why` command: one document's way through the policy."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from apertus_jax.corpus.documents import DOCUMENT_ID
from apertus_jax.corpus.ledger.decision_sentences import decided_by, quarantined_by, refusals
from apertus_jax.corpus.ledger.records import KIND, LEDGER_FILE, NOT_ASKED, QUARANTINE_FILE, url_digest
from apertus_jax.corpus.prepared_parts import checked_parts
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.manifests import values_of
from apertus_jax.terminal.json_output import print_json
from apertus_jax.terminal.tables import show_fields, show_line

FIRST = ("decision", "reason", "detail", "kept_id", "document_id", "url", "source", "file", "row")
# Columns that are empty also when the question to which they are the answer was not asked.
ANSWERS = {"removal_request": "removal", "quality_score": "quality_score", "toxicity_score": "toxicity"}
PLACE = re.compile(r"(?P<file>.+):(?P<row>\d+)")


@dataclasses.dataclass(frozen=True)
class Story:
    """One document of the ledger, or one row of the quarantine."""

    row: Mapping[str, Any]
    quarantined: bool

    @property
    def title(self) -> str:
        """What became of it, and the reason as the ledger spells it."""
        if self.quarantined:
            return f"quarantined: {self.row['reason']}"
        return f"dropped: {self.row['reason']}" if self.row["reason"] else "kept"

    @property
    def decided_by(self) -> str:
        """What decided, in one sentence."""
        return quarantined_by(self.row) if self.quarantined else decided_by(self.row)


def why(prepared: epath.PathLike, document: str, full: bool = False, json: bool = False) -> list[dict[str, Any]]:
    """Prints why a document stayed or went: the line or rule that decided, and what consent said of it.

    Args:
      prepared: folder that `prepare` wrote.
      document: its address, its identity (32 hexadecimal digits), or `FILE:ROW` as error lines name it.
      full: print every verdict, score and digest of the ledger.
      json: print one JSON object in place of text.

    Returns:
      The ledger's rows; several when several documents had this address.

    Raises:
      UserError: the folder is no prepared corpus, or no input document matches.
    """
    manifest = artifacts.read_manifest(prepared, KIND)
    with values_of(prepared, KIND):
        return _tell(prepared, document, manifest["summary"], full, json)


def _tell(
    prepared: epath.PathLike, document: str, summary: Mapping[str, Any], full: bool, as_json: bool
) -> list[dict[str, Any]]:
    stories = list(find(prepared, document))
    if not stories:
        raise UserError(
            f"{document!r} is not in the ledger of {prepared}; give an address, 32 hexadecimal digits, or FILE:ROW"
        )
    if as_json:
        shared = {name: summary.get(name) for name in ("plan", "as_of", NOT_ASKED)}
        print_json({"prepared": os.fspath(prepared), **shared, "documents": [_as_json(story) for story in stories]})
    else:
        for number, story in enumerate(stories):
            if number:
                print()
            (_show_full if full else _show)(story, summary)
    return [dict(story.row) for story in stories]


def _as_json(story: Story) -> dict[str, Any]:
    """Returns one document for scripts: what decided, and the ledger's columns as they are."""
    row = dict(story.row)
    if row.get("personal_data"):
        row["personal_data"] = dict(row["personal_data"])
    return {
        "decision": "quarantined" if story.quarantined else row["decision"],
        "reason": row["reason"],
        "decided_by": story.decided_by,
        "refused_by": [] if story.quarantined else list(refusals(row)),
        "ledger": row,
    }


def find(prepared: epath.PathLike, document: str) -> Iterator[Story]:
    """Yields the ledger rows of a document named by address, identity or place; only the columns asked are scanned.

    Raises:
      UserError: the folder is no prepared corpus.
    """
    column, value = _question(document)
    parts = checked_parts(prepared, (LEDGER_FILE, QUARANTINE_FILE))
    for part in parts:
        yield from (Story(row, False) for row in _matching(part / LEDGER_FILE, {column: value}))
    if place := PLACE.fullmatch(document):
        wanted = {"file": place["file"], "row": int(place["row"])}
        for part in parts:
            yield from (Story(row, False) for row in _matching(part / LEDGER_FILE, wanted))
            yield from (Story(row, True) for row in _matching(part / QUARANTINE_FILE, wanted))


def _question(document: str) -> tuple[str, str]:
    """Returns the column to look into and the value to look for."""
    if DOCUMENT_ID.fullmatch(document):
        return "document_id", document
    return "url_digest", url_digest(document)


def _matching(path: epath.Path, wanted: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file whose columns have these values."""
    import pyarrow.parquet

    filters = [(name, "==", value) for name, value in wanted.items()]
    columns = list(wanted)
    parquet = pyarrow.parquet.ParquetFile(os.fspath(path))
    for group in range(parquet.num_row_groups):
        narrow = parquet.read_row_group(group, columns=columns)
        rows = [number for number, row in enumerate(narrow.to_pylist()) if all(row[c] == v for c, _, v in filters)]
        if rows:
            yield from parquet.read_row_group(group).take(rows).to_pylist()


def _place_of(row: Mapping[str, Any]) -> Callable[[str], tuple[int, int]]:
    """Returns a key that sorts what decided before everything else, which keeps its order."""
    places = {name: place for place, name in enumerate(row)}
    return lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), places[name])


def _show(story: Story, summary: Mapping[str, Any]) -> None:
    """Prints what decided about a document, and how to find it again."""
    row = story.row
    show_line(story.title)
    show_line(story.decided_by, indent=2, head="  ")
    fields = [("address", row.get("url")), ("document", row.get("document_id"))]
    fields += [("place", f"{row['source']}, {row['file']}:{row['row']}")]
    if not story.quarantined:
        fields += [("consent", _consent(row)), ("kept instead", row["kept_id"]), ("policy", row["policy"])]
        fields += [("also refused by", each) for each in refusals(row) if each not in story.decided_by]
        fields += [("not asked", ", ".join(summary.get(NOT_ASKED, {})))]
    show_fields([(f"  {name}", value) for name, value in fields if value])
    show_line(f"--full shows all {len(row)} columns, --json prints them", head="  ")


def _consent(row: Mapping[str, Any]) -> str:
    """Returns what the questions of consent answered, in one line."""
    names = {"robots_verdict": "robots.txt", "signals_verdict": "signals", "licence_class": "licence"}
    return ", ".join(f"{name}: {row[column]}" for column, name in names.items() if row.get(column))


def _show_full(story: Story, summary: Mapping[str, Any]) -> None:
    """Prints every column of the ledger, what decided first."""
    row = story.row
    unasked = summary.get(NOT_ASKED, {})
    absent = "none" if row.get("content_evaluated", True) else "not evaluated"
    fields = [("decided by", story.decided_by)]
    for name in sorted(row.keys() - {NOT_ASKED}, key=_place_of(row)):
        empty = "not asked" if ANSWERS.get(name) in unasked else absent
        fields.append((name, empty if row[name] in (None, "", []) else row[name]))
        if name == FIRST[2]:
            fields += [("refused by", sentence) for sentence in refusals(row)]
    fields += [("not asked", f"{name}: {reason}") for name, reason in unasked.items()]
    fields += [(name, summary[name]) for name in ("plan", "as_of") if name in summary]
    show_fields(fields, story.title)
