"""Verification of prepared corpora, tombstones, robots snapshots and classifiers."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator
from typing import Any

from etils import epath

from apertus_jax.corpus.classifiers.classifier_folder import load_classifier
from apertus_jax.corpus.documents import DOCUMENT_ID, PREPARED_DOCUMENTS
from apertus_jax.corpus.prepared_parts import PART_KIND, PARTS, checked_parts
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.manifests import require_fields
from apertus_jax.storage.verification import Notes, check_digests, parquet_batches

LEDGER, QUARANTINE = "ledger.parquet", "quarantine.parquet"
LEDGER_COLUMNS = ["document_id", "decision", "reason", "text_sha256_out", "utf8_bytes_out"]


def verify_prepared(folder: epath.Path, manifest: dict[str, Any], notes: Notes) -> None:
    """Checks every part of a prepared corpus: ledger and documents agree, row by row, and the counts with the marker.

    Raises:
      UserError: the first thing that is not.
    """
    summary = manifest["summary"]
    require_fields(summary, {"documents": int, "kept": int, "quarantined": int, PARTS: dict}, f"{folder}: summary")
    totals = dict.fromkeys(("documents", "kept", "quarantined"), 0)
    parts = checked_parts(folder, ())
    for part in notes.track(parts, "parts", len(parts)):
        check_digests(part, artifacts.read_manifest(part, PART_KIND), Notes())
        for name, count in _check_part(part).items():
            totals[name] += count
    for name, total in totals.items():
        if summary[name] != total:
            raise UserError(f"{folder} says {name} = {summary[name]} where its parts hold {total}; prepare again")
    notes.add(folder, "ledger and documents", f"{totals['kept']:,} of {totals['documents']:,} kept, {len(parts)} parts")


def _check_part(part: epath.Path) -> dict[str, int]:
    kept = {}
    documents = 0
    for row in _rows(part / LEDGER, LEDGER_COLUMNS):
        documents += 1
        if not DOCUMENT_ID.fullmatch(row["document_id"] or ""):
            raise UserError(f"{part / LEDGER}, row {documents}: {row['document_id']!r:.40} is no identity; restore it")
        if (row["decision"] == "keep") != (not row["reason"]) or row["decision"] not in ("keep", "drop"):
            raise UserError(f"{part / LEDGER}, row {documents}: decision and reason contradict each other; restore it")
        if row["decision"] == "keep":
            kept[row["document_id"]] = row["text_sha256_out"]
    stored = 0
    for row in _rows(part / PREPARED_DOCUMENTS, ["document_id", "text"]):
        stored += 1
        found = hashlib.sha256((row["text"] or "").encode()).hexdigest()
        if kept.get(row["document_id"]) != found:
            raise UserError(
                f"{part / PREPARED_DOCUMENTS}, row {stored}: document {row['document_id']!r:.40} is not kept by the "
                "ledger with this text; prepare again"
            )
    if stored != len(kept):
        raise UserError(
            f"{part / PREPARED_DOCUMENTS} has {stored} rows where the ledger keeps {len(kept)}; prepare again"
        )
    quarantined = sum(1 for _ in _rows(part / QUARANTINE, ["file", "row", "reason"]))
    return {"documents": documents, "kept": stored, "quarantined": quarantined}


def _rows(path: epath.Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in parquet_batches(path, columns):
        yield from batch.to_pylist()


def verify_tombstones(folder: epath.Path, manifest: dict[str, Any], notes: Notes) -> None:
    """Checks that the keys of tombstones are sorted, their days are days, and their requests are listed.

    Raises:
      UserError: the first thing that is not.
    """
    fields = {"version": int, "requests": int, "granted": int, "scopes": dict, "supersedes": list}
    require_fields(manifest["summary"], fields, f"{folder}: summary")
    listed = [row["id"] for row in _rows(folder / "requests.parquet", ["id"])]
    if len(listed) != manifest["summary"]["requests"]:
        raise UserError(f"{folder / 'requests.parquet'} has {len(listed)} rows, not what the marker says; remove again")
    known, previous, number = set(listed), (-1, -1), 0
    for row in _rows(folder / "tombstones.parquet", ["key_high", "key_low", "effective_day", "request"]):
        number += 1
        key = (row["key_high"], row["key_low"])
        if key < previous:
            raise UserError(f"{folder / 'tombstones.parquet'}, row {number}: keys are out of order; run remove again")
        if not 1 <= row["effective_day"] <= datetime.date.max.toordinal():
            raise UserError(f"{folder / 'tombstones.parquet'}, row {number}: its day is none; run remove again")
        if row["request"] not in known:
            raise UserError(f"{folder / 'tombstones.parquet'}, row {number}: no request of this id; run remove again")
        previous = key
    notes.add(folder, "tombstones", f"{number:,} of {len(listed):,} requests")


def verify_snapshot(folder: epath.Path, manifest: dict[str, Any], notes: Notes) -> None:
    """Checks that hosts of a robots snapshot are in order, found by the index, and their bodies are those captured.

    Raises:
      UserError: the first thing that is not.
    """
    index = list(_rows(folder / "index.parquet", ["authority", "scheme", "part", "row_group"]))
    parts = sorted(name for name in manifest["files"] if name.startswith("robots-"))
    previous, number = ("", ""), 0
    for name in parts:
        for row in _rows(folder / name, ["authority", "scheme", "body", "body_sha256"]):
            number += 1
            key = (row["authority"], row["scheme"])
            if key <= previous:
                raise UserError(f"{folder / name}: {key[0]!r:.60} is out of order; build the snapshot again")
            if row["body_sha256"] and hashlib.sha256(row["body"] or b"").hexdigest() != row["body_sha256"]:
                raise UserError(
                    f"{folder / name}: the robots.txt of {key[0]!r:.60} is not what was captured; restore it"
                )
            previous = key
    keys = [(row["authority"], row["scheme"]) for row in index]
    if keys != sorted(set(keys)) or any(not 0 <= row["part"] < max(len(parts), 1) for row in index):
        raise UserError(f"{folder / 'index.parquet'} does not lead to the table; build the snapshot again")
    notes.add(folder, "robots.txt of hosts", f"{number:,}")


def verify_classifier(folder: epath.Path, manifest: dict[str, Any], notes: Notes) -> None:
    """Checks that a classifier loads and its weights are finite.

    Raises:
      UserError: it does not.
    """
    description = read_json_object(folder / "classifier.json")
    require_fields(description, {"task": str}, str(folder / "classifier.json"))
    classifier = load_classifier(folder, description["task"])
    notes.add(
        folder, f"{description['task']} head", f"{sum(each.size for each in classifier.parameters.values()):,} weights"
    )
