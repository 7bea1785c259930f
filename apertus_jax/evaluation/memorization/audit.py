"""The `memorization` command: what a trained model gives back of texts that it was shown a known number of times.

BUILDING.json          what decides the content, while the audit runs; a later start goes on where this one ended
cells/                 one committed folder per bucket, prefix, offset, strategy and seed; overlap; membership
exposures.jsonl        in which steps of the run each copy of a probe was read, for a run folder with its store
rows.jsonl             one line per probe and cell: ids and every metric
summary.csv            one line per condition, exposure and filter
results.json           everything the report draws, the verdict first
report.html
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from apertus_jax import artifacts
from apertus_jax.data import TokenStore
from apertus_jax.data.document_inputs import read_inputs, resolve_inputs
from apertus_jax.data.probes import ProbeExposure, write_exposure_ledger
from apertus_jax.data.tokenizer import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization.canaries import read_canaries
from apertus_jax.evaluation.memorization.canary_audit import canary_groups, canary_rows
from apertus_jax.evaluation.memorization.excess import Filters, summarize, verdict
from apertus_jax.evaluation.memorization.grid import ID_FIELDS, AuditedModel, Cell, cell_rows, check_grid, grid_cells
from apertus_jax.evaluation.memorization.membership_audit import (
    Candidate,
    CandidateSet,
    labels_in_loss,
    membership_rows,
    probe_sets,
)
from apertus_jax.evaluation.memorization.probes import (
    AuditProbe,
    audit_probes,
    exposures_of_run,
    overlap_in_store,
    tokenizer_of,
)
from apertus_jax.evaluation.memorization.report import summary_table, write_report
from apertus_jax.evaluation.scoring import LikelihoodScorer
from apertus_jax.inference import Sampling
from apertus_jax.model_folder import find_model, load_model, read_config
from apertus_jax.objectives import LossMask
from apertus_jax.run_folder import acquire_lease

KIND, PART_KIND = "memorization_audit", "memorization_audit_part"
CELLS, LEASE = "cells", ".lease"
MEMBERSHIP, OVERLAP, CANARIES = "membership", "overlap", "canaries"
ROWS_FILE, SUMMARY_FILE, RESULTS_FILE, REPORT_FILE = "rows.jsonl", "summary.csv", "results.json", "report.html"
EXPOSURES_FILE = "exposures.jsonl"
PREFIXES = (50, 100, 250, 500, 1000, 2000, 3000)
OFFSETS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


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
        return [json.loads(line) for line in (folder / ROWS_FILE).read_text().split("\n") if line]


def memorization(
    run: str,
    output: str,
    probes: str,
    store: str | None = None,
    prefix: int = 500,
    prefixes: Sequence[int] = PREFIXES,
    offsets: Sequence[int] = OFFSETS,
    suffix: int = 500,
    buckets: Sequence[str | int] | None = None,
    strategies: Sequence[str] = ("greedy", "nucleus"),
    temperature: float = 1.0,
    top_p: float = 0.9,
    seeds: Sequence[int] = (42,),
    least_type_token_ratio: float = 0.4,
    most_overlap: float = 0.1,
    loss_masks: Sequence[LossMask] = (),
    members: str | Sequence[str] | None = None,
    non_members: str | Sequence[str] | None = None,
    reference: str | None = None,
    canaries: str | None = None,
    batch_size: int = 16,
    top: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Audits a model on planted probes; writes rows, tables and a report, and returns the results.

    A stopped audit goes on from the cells that it has and ends with the same bytes.

    Args:
      run: a run folder whose training has ended, or a model folder.
      output: where the audit goes.
      probes: the folder that `plant_probes` wrote before training.
      store: the token store of the training: 13-grams that its other documents share with a probe are looked for, and
        in which steps of a run folder each copy was really read (exposures.jsonl).
      prefix: tokens of the prompt in the sweep over offsets, and of the verdict.
      prefixes: prompt lengths asked for at offset 0.
      offsets: places in the probe at which the prompt of `prefix` tokens begins.
      suffix: tokens generated and compared, exactly.
      buckets: only these; None means all. One of them must be a control.
      strategies: `greedy`, `nucleus` or both; the first one gives the verdict.
      temperature, top_p: of nucleus decoding.
      seeds: of nucleus decoding; a probe's results are averaged over them.
      least_type_token_ratio, most_overlap: what the filtered figures leave out, see `excess.Filters`.
      loss_masks: masks of the training, for membership on masked and unmasked tokens apart.
      members, non_members: documents as `tokenize` takes them, for membership inference beside that of the probes.
      reference: a model with the same tokenizer that saw neither, for the reference score.
      canaries: the folder that `plant_canaries` wrote before training.
      batch_size: prompts decoded together; decides nothing but speed and memory.
      top: recitations shown in the report.
      seed: of the bootstrap intervals.
      progress: shows a bar on a terminal, and prints the verdict.

    Raises:
      UserError: no model, tokenizer or probes; probes or a context that are too short; an audit with other settings in
        `output`.
    """
    token_store = None if store is None else TokenStore.open(store)
    tokenizer = tokenizer_of(run, token_store)
    exposures = exposures_of_run(run, token_store, probes)
    asked = audit_probes(probes, tokenizer, buckets)
    names = list(dict.fromkeys(probe.bucket for probe in asked))
    cells = grid_cells(names, prefix, prefixes, offsets, suffix, strategies, seeds)
    check_grid(cells, asked, read_config(find_model(run)).max_position_embeddings)
    if (members is None) != (non_members is None):
        raise UserError("membership inference needs both members and non_members; give both or neither")
    nucleus, filters = Sampling(temperature, None, top_p), Filters(least_type_token_ratio, most_overlap)
    inputs = {
        "model": artifacts.read_manifest(find_model(run), "model")["digest"],
        "reference": None if reference is None else artifacts.read_manifest(find_model(reference), "model")["digest"],
        "tokenizer": tokenizer.digest,
        "probes": artifacts.read_manifest(probes, "probes")["digest"],
        "canaries": None if canaries is None else artifacts.read_manifest(canaries, "canaries")["digest"],
        "store": None if token_store is None else token_store.digest,
        "cells": artifacts.digest_json([cell.name for cell in cells]),
        "nucleus": dataclasses.asdict(nucleus),
        "filters": dataclasses.asdict(filters),
        "masks": _digest_of_masks(asked, tokenizer, loss_masks),
        "members": _identity_of_documents(members),
        "non_members": _identity_of_documents(non_members),
        "exposures": None if exposures is None else artifacts.digest_json([dataclasses.asdict(e) for e in exposures]),
        "top": top,
        "seed": seed,
    }
    if artifacts.already_built(output, KIND, inputs):
        return _shown(json.loads((epath.Path(output) / RESULTS_FILE).read_text()), progress)
    root = _open_folder(output, inputs)
    with acquire_lease(root / LEASE):
        audit = _Audit(root, inputs, cells, asked, tokenizer)
        if token_store is not None:
            audit = _with_overlap(audit, probes, token_store)
        model = AuditedModel(*load_model(run), tokenizer, batch_size, nucleus)
        if exposures is not None:
            write_exposure_ledger(root / EXPOSURES_FILE, exposures)
        rows, closest = _compute(audit, model, top, progress)
        sets = [*probe_sets(audit.probes), *_document_set(tokenizer, members, non_members)]
        results = {
            "verdict": None,
            "run": epath.Path(run).name,
            **{"prefix": prefix, "suffix": suffix, "strategies": list(strategies)},
            "filters": dataclasses.asdict(filters),
            "buckets": _describe_buckets(audit.probes, filters, exposures),
            "conditions": summarize(rows, filters, seed),
            "membership": _membership(audit, model, sets, loss_masks, reference, seed),
            "canaries": _canaries(audit, model, canaries),
        }
        results["verdict"] = verdict(results["conditions"], prefix, strategies)
        _finish(audit, results, rows, closest)
    return _shown(results, progress)


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
    names += [name for name, given in ((OVERLAP, "store"), (CANARIES, "canaries")) if audit.inputs[given]]
    parts = {name: artifacts.read_manifest(root / CELLS / name, PART_KIND)["digest"] for name in names}
    summary = {"verdict": results["verdict"], "parts": artifacts.digest_json(parts)}
    artifacts.commit(root, KIND, audit.inputs, summary, without=(CELLS, LEASE))


def _open_folder(output: str, inputs: dict[str, Any]) -> epath.Path:
    """Returns the folder of an audit, new or begun earlier with the same inputs.

    Raises:
      UserError: it holds something else, or an audit that was begun with other inputs.
    """
    root = epath.Path(output)
    marker = root / artifacts.BUILDING_MARKER
    if marker.exists():
        try:
            begun = json.loads(marker.read_text())["inputs"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{marker} is damaged ({error}); remove {root} and start the audit again") from error
        wanted = json.loads(artifacts.canonical_json(inputs))
        different = sorted(name for name in begun.keys() | wanted.keys() if begun.get(name) != wanted.get(name))
        if different:
            raise UserError(
                f"{root} holds an unfinished audit with other {', '.join(different)}; "
                "choose another output folder or remove this one"
            )
        return root
    if root.exists() and any(root.iterdir()):
        raise UserError(f"{root} is not empty and was not written by this command; choose another output folder")
    root.mkdir(parents=True, exist_ok=True)
    artifacts.write_atomically(marker, json.dumps({"kind": KIND, "inputs": inputs}))
    return root


def _with_overlap(audit: _Audit, folder: str, store: TokenStore) -> _Audit:
    """Returns the audit with the overlap of its probes with the store's other documents."""

    def measure() -> Iterator[dict[str, Any]]:
        for probe in overlap_in_store(audit.probes, folder, store):
            yield {"probe": probe.probe, "overlap": probe.overlap}

    found = {row["probe"]: row["overlap"] for row in audit.part(OVERLAP, measure)}
    probes = [dataclasses.replace(probe, overlap=found[probe.probe]) for probe in audit.probes]
    return dataclasses.replace(audit, probes=probes)


def _compute(
    audit: _Audit, model: AuditedModel, top: int, progress: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the rows of all cells without their ids, and the `top` probes' closest rows with them.

    Cells that are missing are computed. The ids of a whole audit are not held in memory.
    """
    rows: list[dict[str, Any]] = []
    closest: dict[str, dict[str, Any]] = {}
    with _bar(len(audit.cells), progress) as advance:
        for cell in audit.cells:
            for row in audit.part(cell.name, lambda cell=cell: cell_rows(cell, audit.probes, model)):
                if row["probe"] not in closest or row["rouge_l"] > closest[row["probe"]]["rouge_l"]:
                    closest[row["probe"]] = row
                rows.append({name: value for name, value in row.items() if name not in ID_FIELDS})
            best = sorted(closest.values(), key=lambda row: (-row["rouge_l"], row["probe"]))[:top]
            closest = {row["probe"]: row for row in best}
            advance()
    return rows, list(closest.values())


def _membership(
    audit: _Audit,
    model: AuditedModel,
    sets: Sequence[CandidateSet],
    loss_masks: Sequence[LossMask],
    reference: str | None,
    seed: int,
) -> list[dict[str, Any]]:
    """Returns the rows of membership inference."""

    def measure() -> Iterator[dict[str, Any]]:
        scorer = None if reference is None else LikelihoodScorer(*load_model(reference))
        yield from membership_rows(sets, model, loss_masks, scorer, seed)

    return audit.part(MEMBERSHIP, measure)


def _canaries(audit: _Audit, model: AuditedModel, folder: str | None) -> list[dict[str, Any]]:
    """Returns the means over canaries of one kind; none without a folder."""
    if folder is None:
        return []
    return canary_groups(audit.part(CANARIES, lambda: iter(canary_rows(*read_canaries(folder), model))))


def _identity_of_documents(given: str | Sequence[str] | None) -> list[dict[str, Any]] | None:
    return None if given is None else [each.identity() for each in resolve_inputs(given)]


def _document_set(tokenizer: Tokenizer, members: Any, non_members: Any) -> list[CandidateSet]:
    """Returns the set of given documents, or none."""
    if members is None:
        return []
    sides = []
    for given in (members, non_members):
        texts = [document.text for _, document in read_inputs(resolve_inputs(given))]
        sides.append([Candidate(ids) for ids in tokenizer.encode_batch(texts) if len(ids)])
    return [CandidateSet("documents", *sides)]


def _digest_of_masks(probes: Sequence[AuditProbe], tokenizer: Tokenizer, loss_masks: Sequence[LossMask]) -> str | None:
    """Returns what the masks do to the probes, as a digest: masks are functions and have no name to compare."""
    if not loss_masks:
        return None
    candidates = [Candidate(probe.ids, probe.row_seed) for probe in probes]
    kept = labels_in_loss(candidates, tokenizer.bod_id, loss_masks)
    return hashlib.blake2b(np.packbits(np.concatenate(kept)).tobytes(), digest_size=16).hexdigest()


def _describe_buckets(
    probes: Sequence[AuditProbe], filters: Filters, exposures: Sequence[ProbeExposure] | None
) -> list[dict[str, Any]]:
    """Returns what each bucket holds, with the exposures that really happened where they are known."""
    happened = {each.probe: each.exposures for each in exposures or ()}
    described = []
    for bucket in dict.fromkeys(probe.bucket for probe in probes):
        chosen = [probe for probe in probes if probe.bucket == bucket]
        counted = [happened[probe.probe] for probe in chosen if probe.probe in happened]
        described.append(
            {
                "bucket": bucket,
                "exposure": chosen[0].exposure,
                "probes": len(chosen),
                "median_tokens": float(np.median([len(probe.ids) for probe in chosen])),
                "overlapping": sum(probe.overlap > filters.most_overlap for probe in chosen),
                "happened": float(np.mean(counted)) if counted else None,
            }
        )
    return described


def _shown(results: dict[str, Any], wanted: bool) -> dict[str, Any]:
    """Returns the results, after printing the verdict where that is wanted."""
    from rich.console import Console

    if wanted:
        Console().print(results["verdict"]["line"], markup=False, highlight=False, soft_wrap=True)
    return results


@contextlib.contextmanager
def _bar(total: int, wanted: bool) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each cell."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not (wanted and console.is_terminal)) as bar:
        task = bar.add_task("auditing", total=total)
        yield lambda: bar.advance(task)
