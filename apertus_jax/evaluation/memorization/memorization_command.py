"""The `memorization` command: what a model reproduces of texts that it read a known number of times.

BUILDING.json          what decides the content, while the audit runs; a later start goes on where this one ended
cells/                 one committed folder per bucket, prefix, offset, strategy and seed; overlap; membership
exposures.jsonl        in which steps of the run each copy of a probe was read, for a run folder with its store
rows.jsonl             one line per probe and cell: ids and every metric
summary.csv            one line per condition, exposure and filter
results.json           everything the report draws, the verdict first
report.html
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from apertus_jax.checkpoints import OpenedModel, open_model
from apertus_jax.data import TokenStore
from apertus_jax.data.probes.probes import PlantedProbe, ProbeExposure, read_probes, write_exposure_ledger
from apertus_jax.data.store.document_inputs import read_inputs, resolve_inputs
from apertus_jax.data.tokenizer.bpe import Tokenizer
from apertus_jax.evaluation.execution import Execution
from apertus_jax.evaluation.intervals import without_nan
from apertus_jax.evaluation.memorization.canaries.canary_audit import canary_groups, canary_rows
from apertus_jax.evaluation.memorization.canaries.plant_canaries_command import read_canaries
from apertus_jax.evaluation.memorization.excess import summarize, verdict
from apertus_jax.evaluation.memorization.grid import (
    ID_FIELDS,
    AuditedModel,
    Cell,
    cell_rows,
    check_grid,
    fitting_grid,
    grid_cells,
)
from apertus_jax.evaluation.memorization.membership.membership_audit import (
    CandidateSet,
    labels_in_loss,
    membership_rows,
    probe_sets,
)
from apertus_jax.evaluation.memorization.options import AuditFigures, AuditGrid, MembershipOptions
from apertus_jax.evaluation.memorization.probes import (
    AuditProbe,
    Candidate,
    audit_probes,
    exposures_of_run,
    overlap_in_store,
    tokenizer_of,
    with_overlap,
)
from apertus_jax.evaluation.memorization.report import summary_table, write_report
from apertus_jax.evaluation.scoring import LikelihoodScorer
from apertus_jax.objectives import LossMask
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of
from apertus_jax.storage.json_reader import parse_json_lines, read_json
from apertus_jax.storage.lease import acquire_lease
from apertus_jax.terminal.progress import ProgressBars

KIND, PART_KIND = "memorization_audit", "memorization_audit_part"
CELLS, LEASE = "cells", ".lease"
MEMBERSHIP, OVERLAP, CANARIES = "membership", "overlap", "canaries"
ROWS_FILE, SUMMARY_FILE, RESULTS_FILE, REPORT_FILE = "rows.jsonl", "summary.csv", "results.json", "report.html"
EXPOSURES_FILE = "exposures.jsonl"


@dataclasses.dataclass(frozen=True)
class _Audit:
    """An audit that has been checked and may begin."""

    root: epath.Path
    inputs: dict[str, Any]
    cells: Sequence[Cell]
    probes: Sequence[AuditProbe]
    tokenizer: Tokenizer

    def part(self, name: str, write: Callable[[], Iterator[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Returns the rows of one part, computed and committed unless an earlier start has done so."""
        folder = self.root / CELLS / name
        identity = {"audit": artifacts.digest_json(self.inputs), "part": name}
        if not artifacts.same_inputs(folder, PART_KIND, identity):
            with artifacts.build(folder, PART_KIND, identity) as build:
                lines = [json.dumps(row, ensure_ascii=False) for row in write()]
                (build.path / ROWS_FILE).write_text("".join(line + "\n" for line in lines))
        artifacts.verify(folder, PART_KIND)
        lines = (folder / ROWS_FILE).read_bytes().split(b"\n")
        return [row for _, row in parse_json_lines(lines, str(folder / ROWS_FILE), allow_nan=True)]


def memorization(
    run: str,
    output: str,
    probes: str,
    store: str | None = None,
    grid: AuditGrid = AuditGrid(),  # noqa: B008 (frozen)
    figures: AuditFigures = AuditFigures(),  # noqa: B008 (frozen)
    membership: MembershipOptions = MembershipOptions(),  # noqa: B008 (frozen)
    execution: Execution = Execution(),  # noqa: B008 (frozen)
    step: int | None = None,
) -> dict[str, Any]:
    """Audits a model on planted probes; writes rows, tables and a report, and returns the results.

    A stopped audit goes on from the cells that it has and ends with the same bytes.

    Args:
      run: a run folder, or a model folder.
      output: where the audit goes.
      probes: the folder that `plant_probes` wrote before training.
      store: the token store of the training: 13-grams that its other documents share with a probe are looked for, and
        in which steps of a run folder each copy was really read (exposures.jsonl).
      grid: prompts, suffixes, buckets and decodings; the results say what those that it leaves open were.
      figures: what is left out of the filtered figures, and how they are shown.
      membership: documents, reference model, loss masks and canaries for membership inference.
      execution: how many prompts are decoded together (None means 16), and whether progress is shown.
      step: a committed step of the run, which may still be training; None for the model of a finished run.

    Raises:
      UserError: no model, tokenizer or probes; probes or a context that are too short; an audit with other settings in
        `output`.
    """
    token_store = None if store is None else TokenStore.open(store)
    opened = open_model(run, step)
    tokenizer = tokenizer_of(opened, token_store)
    planted = read_probes(probes)
    exposures = exposures_of_run(run, token_store, planted, step)
    asked = audit_probes(planted, tokenizer, grid.buckets, probes)
    context = opened.config.max_position_embeddings
    grid = fitting_grid(grid, asked, context)
    assert grid.prefix is not None  # it fits now
    cells = grid_cells(grid)
    check_grid(cells, asked, context)
    inputs = {
        **opened.identity,
        "tokenizer": tokenizer.digest,
        "probes": artifacts.read_manifest(probes, "probes")["digest"],
        "store": None if token_store is None else token_store.digest,
        "exposures": None if exposures is None else artifacts.digest_json([dataclasses.asdict(e) for e in exposures]),
        **identity_of(grid),
        **identity_of(figures),
        **_identity_of_membership(membership, asked, tokenizer),
    }
    if artifacts.already_built(output, KIND, inputs, resumable=True):
        return _shown(read_json(epath.Path(output) / RESULTS_FILE, allow_nan=True), execution.progress)
    root = epath.Path(output)
    artifacts.check_resumable(root, KIND, inputs)
    # Weights that cannot be used are found before anything is written.
    model = AuditedModel(opened.config, opened.load(), tokenizer, execution, grid.sampling)
    artifacts.begin_resumable(root, KIND, inputs)
    with acquire_lease(root / LEASE):
        audit = _Audit(root, inputs, cells, asked, tokenizer)
        if token_store is not None:
            audit = _with_overlap(audit, planted, token_store)
        if exposures is not None:
            write_exposure_ledger(root / EXPOSURES_FILE, exposures)
        rows, closest = _compute(audit, model, figures.max_recitations, execution.progress)
        results: dict[str, Any] = {
            "verdict": None,
            "run": opened.name,
            **{"prefix": grid.prefix, "suffix": grid.suffix, "strategies": list(grid.strategies)},
            "filters": figures.filters,
            "buckets": _describe_buckets(audit.probes, figures, exposures),
            "conditions": summarize(rows, figures),
            "membership": _membership(audit, model, membership, figures.bootstrap_seed),
            "canaries": _canaries(audit, model, membership.canaries),
        }
        results["verdict"] = verdict(results["conditions"], grid.prefix, grid.strategies)
        results = without_nan(results)
        _finish(audit, results, rows, closest)
    return _shown(results, execution.progress)


def _finish(audit: _Audit, results: dict[str, Any], rows: list[dict[str, Any]], closest: list[dict[str, Any]]) -> None:
    """Writes the tables and the report, and commits the folder."""
    root = audit.root
    partial = root / f".{ROWS_FILE}.partial"
    with partial.open("wb") as file:
        for cell in audit.cells:
            file.write((root / CELLS / cell.name / ROWS_FILE).read_bytes())
    partial.replace(root / ROWS_FILE)
    artifacts.write_atomically(root / SUMMARY_FILE, summary_table(results["conditions"]))
    artifacts.write_atomically(root / RESULTS_FILE, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write_report(root / REPORT_FILE, results, rows, closest, audit.tokenizer)
    names = [*(cell.name for cell in audit.cells), MEMBERSHIP]
    names += [OVERLAP] if audit.inputs["store"] else []
    names += [CANARIES] if audit.inputs["MembershipOptions.canaries"] else []
    parts = {name: artifacts.read_manifest(root / CELLS / name, PART_KIND)["digest"] for name in names}
    summary = {"verdict": results["verdict"], "parts": artifacts.digest_json(parts)}
    artifacts.commit(root, KIND, audit.inputs, summary, without=(CELLS, LEASE))


def _with_overlap(audit: _Audit, planted: Sequence[PlantedProbe], store: TokenStore) -> _Audit:
    """Returns the audit with the overlap of its probes with the store's other documents."""

    def measure() -> Iterator[dict[str, Any]]:
        for probe in overlap_in_store(audit.probes, planted, store):
            yield {"probe": probe.planted.probe, "overlap": probe.planted.overlap}

    found = {row["probe"]: row["overlap"] for row in audit.part(OVERLAP, measure)}
    probes = [with_overlap(probe, found[probe.planted.probe]) for probe in audit.probes]
    return dataclasses.replace(audit, probes=probes)


def _compute(
    audit: _Audit, model: AuditedModel, top: int, progress: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the rows of all cells without their ids, and the `top` probes' closest rows with them.

    Cells that are missing are computed. The ids of a whole audit are not held in memory.
    """
    rows: list[dict[str, Any]] = []
    closest: dict[str, dict[str, Any]] = {}
    with ProgressBars(progress) as bars:
        for cell in bars.track(audit.cells, "auditing", len(audit.cells)):
            for row in audit.part(cell.name, functools.partial(cell_rows, cell, audit.probes, model)):
                if row["probe"] not in closest or row["rouge_l"] > closest[row["probe"]]["rouge_l"]:
                    closest[row["probe"]] = row
                rows.append({name: value for name, value in row.items() if name not in ID_FIELDS})
            best = sorted(closest.values(), key=lambda row: (-row["rouge_l"], row["probe"]))[:top]
            closest = {row["probe"]: row for row in best}
    return rows, list(closest.values())


def _membership(audit: _Audit, model: AuditedModel, options: MembershipOptions, seed: int) -> list[dict[str, Any]]:
    """Returns the rows of membership inference."""

    def measure() -> Iterator[dict[str, Any]]:
        sets = [*probe_sets(audit.probes), *_document_set(audit.tokenizer, options)]
        scorer = None if options.reference is None else _scorer_of(open_model(options.reference))
        yield from membership_rows(sets, model, options.loss_masks, scorer, seed)

    return audit.part(MEMBERSHIP, measure)


def _scorer_of(model: OpenedModel) -> LikelihoodScorer:
    return LikelihoodScorer(model.config, model.load())


def _canaries(audit: _Audit, model: AuditedModel, folder: str | None) -> list[dict[str, Any]]:
    """Returns the means over canaries of one kind; none without a folder."""
    if folder is None:
        return []
    return canary_groups(audit.part(CANARIES, lambda: iter(canary_rows(*read_canaries(folder), model))))


def _identity_of_membership(
    options: MembershipOptions, probes: Sequence[AuditProbe], tokenizer: Tokenizer
) -> dict[str, Any]:
    """Returns the options with digests of what they name."""
    reference = options.reference
    return identity_of(
        options,
        members=_identity_of_documents(options.members),
        non_members=_identity_of_documents(options.non_members),
        reference=None if reference is None else open_model(reference).identity["model"],
        loss_masks=_digest_of_masks(probes, tokenizer, options.loss_masks),
        canaries=options.canaries and artifacts.read_manifest(options.canaries, "canaries")["digest"],
    )


def _identity_of_documents(given: str | Sequence[str] | None) -> list[dict[str, Any]] | None:
    return None if given is None else [each.identity() for each in resolve_inputs(given)]


def _document_set(tokenizer: Tokenizer, options: MembershipOptions) -> list[CandidateSet]:
    """Returns the set of given documents, or none."""
    if options.members is None or options.non_members is None:  # both or neither
        return []
    sides = []
    for given in (options.members, options.non_members):
        texts = [document.text for _, document in read_inputs(resolve_inputs(given))]
        sides.append([Candidate(ids) for ids in tokenizer.encode_batch(texts) if len(ids)])
    return [CandidateSet("documents", *sides)]


def _digest_of_masks(probes: Sequence[AuditProbe], tokenizer: Tokenizer, loss_masks: Sequence[LossMask]) -> str | None:
    """Returns what the masks do to the probes, as a digest: masks are functions and have no name to compare."""
    if not loss_masks:
        return None
    kept = labels_in_loss(probes, tokenizer.bod_id, loss_masks)
    return hashlib.blake2b(np.packbits(np.concatenate(kept)).tobytes(), digest_size=16).hexdigest()


def _describe_buckets(
    probes: Sequence[AuditProbe], figures: AuditFigures, exposures: Sequence[ProbeExposure] | None
) -> list[dict[str, Any]]:
    """Returns what each bucket holds, with the exposures that really happened where they are known."""
    happened = {each.probe: each.exposures for each in exposures or ()}
    described = []
    for bucket in dict.fromkeys(probe.planted.bucket for probe in probes):
        chosen = [probe for probe in probes if probe.planted.bucket == bucket]
        counted = [happened[probe.planted.probe] for probe in chosen if probe.planted.probe in happened]
        described.append(
            {
                "bucket": bucket,
                "exposure": chosen[0].planted.copies,
                "probes": len(chosen),
                "median_tokens": float(np.median([len(probe.ids) for probe in chosen])),
                "overlapping": sum(probe.planted.overlap > figures.max_overlap for probe in chosen),
                "happened": float(np.mean(counted)) if counted else None,
            }
        )
    return described


def _shown(results: dict[str, Any], wanted: bool) -> dict[str, Any]:
    """Returns the results, after printing the verdict where that is wanted."""
    from apertus_jax.terminal.screen import Screen

    if wanted:
        Screen().print(results["verdict"]["line"], markup=False, highlight=False, soft_wrap=True)
    return results
