"""Writer of the synthetic crawl: pages, robots.txt, requests and the expected decision of each document.

    documents/part-N.jsonl[.gz]   what `prepare` reads: documents in eight languages, and broken rows
    robots/, tdmrep/              what the invented hosts say, for `robots-snapshot` and for signals
    removal_requests.jsonl        for `remove`
    benchmark.jsonl               for the search for contamination
    labelled_toxicity.jsonl       for `train-classifier`, other texts than those planted
    truth.json                    what must happen to each row
    planted_values.json           the personal data that no output may hold

Hosts lie below names reserved for examples (RFC 2606, RFC 6761), and nothing is taken from anybody.
"""

from __future__ import annotations

import collections
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.corpus.overlay import planted
from apertus_jax.corpus.overlay.hosts import write_robots, write_tdmrep
from apertus_jax.corpus.overlay.planned import Plan, Planned
from apertus_jax.corpus.reasons import Reason
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

KIND = "overlay"
OVERLAY_FORMAT = 1
MIN_DOCUMENTS = 400
DOCUMENTS_FOLDER = "documents"
PARTS = ("part-0.jsonl", "part-1.jsonl", "part-2.jsonl.gz")
LABELLED_PER_CLASS = 100


def write_overlay(output: epath.PathLike, seed: int = 0, documents: int = 600) -> dict[str, Any]:
    """Writes the overlay and returns its summary: what must be kept, dropped and set aside.

    Idempotent: returns immediately if the output is complete.

    Args:
      output: the folder to write.
      seed: decides every text and value; the same seed gives the same bytes.
      documents: how many documents; what is planted grows with them.

    Raises:
      UserError: fewer documents than hold everything planted, or the output folder holds something else.
    """
    if documents < MIN_DOCUMENTS:
        raise UserError(f"write_overlay.documents={documents} must be at least {MIN_DOCUMENTS} to hold what is planted")
    inputs = {"format": OVERLAY_FORMAT, "seed": seed, "documents": documents}
    if not artifacts.already_built(output, KIND, inputs):
        with artifacts.build(output, KIND, inputs) as build:
            build.summary.update(_write(build.path, Plan(seed, documents)))
    return dict(artifacts.read_manifest(output, KIND)["summary"])


def _write(folder: epath.Path, plan: Plan) -> dict[str, Any]:
    """Writes every file and returns the summary."""
    planted.plant_consent(plan)
    planted.plant_low_quality(plan)
    planted.plant_toxic(plan)
    planted.plant_personal_data(plan)
    planted.plant_copies(plan)
    planted.plant_repeated_ids(plan)
    items = planted.plant_benchmark(plan)
    requests = planted.plant_removals(plan)
    while len(plan.documents) < plan.size:
        plan.add("ordinary")
    rows, quarantine = _write_documents(folder / DOCUMENTS_FOLDER, plan)
    write_robots(folder / "robots")
    write_tdmrep(folder / "tdmrep")
    _write_lines(folder / "benchmark.jsonl", items)
    _write_lines(folder / "removal_requests.jsonl", requests)
    _write_lines(folder / "labelled_toxicity.jsonl", planted.labelled_texts(plan.seed, LABELLED_PER_CLASS))
    summary = summarize(rows, quarantine)
    _write_json(folder / "truth.json", {"summary": summary, "rows": rows, "quarantine": quarantine})
    values = [
        {"kind": kind, "value": value, "document_id": planned.document_id}
        for planned in plan.documents
        for kind, value in planned.values
    ]
    _write_json(folder / "planted_values.json", {"values": values})
    return summary


def summarize(rows: Sequence[Mapping[str, Any]], quarantine: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the totals of a truth: documents kept, dropped by reason, set aside by reason, personal data by kind."""
    personal: collections.Counter[str] = collections.Counter()
    for row in rows:
        if not row["reason"]:
            personal.update(row["personal_data"])
    return {
        "documents": len(rows),
        "kept": sum(not row["reason"] for row in rows),
        "dropped": dict(sorted(collections.Counter(row["reason"] for row in rows if row["reason"]).items())),
        "quarantined": dict(sorted(collections.Counter(row["reason"] for row in quarantine).items())),
        "personal_data": dict(sorted(personal.items())),
        "languages": dict(sorted(collections.Counter(row["language"] for row in rows).items())),
    }


def _write_documents(folder: epath.Path, plan: Plan) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Writes the documents files; returns the truth about documents and about broken rows, by file and row."""
    folder.mkdir()
    documents = plan.in_reading_order()
    lines: list[tuple[Planned | str, bytes]] = [
        (planned, json.dumps(planned.row(), ensure_ascii=False).encode()) for planned in documents
    ]
    for reason, line in planted.broken_rows():
        lines.insert(plan.generator.randrange(len(lines)), (reason, line))
    rows: list[dict[str, Any]] = []
    quarantine: list[dict[str, Any]] = []
    for number, name in enumerate(PARTS):
        part = lines[number * len(lines) // len(PARTS) : (number + 1) * len(lines) // len(PARTS)]
        content = b"".join(line + b"\n" for _, line in part)
        (folder / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
        seen: set[str] = set()
        for row, (what, _) in enumerate(part, start=1):
            place = {"file": name, "row": row}
            if isinstance(what, str):
                quarantine.append(place | {"reason": what})
            elif what.document_id in seen:
                # Within a file the reader notices, across files only the sorting of all identities.
                quarantine.append(place | {"reason": str(Reason.DUPLICATE_ID)})
            else:
                rows.append(place | _truth(what))
                seen.add(what.document_id)
    return rows, quarantine


def _truth(planned: Planned) -> dict[str, Any]:
    return {
        "document_id": planned.document_id,
        "kind": planned.kind,
        "reason": str(planned.reason),
        "language": planned.language,
        "personal_data": planned.personal,
    }


def _write_lines(path: epath.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write_json(path: epath.Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
