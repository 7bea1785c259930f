"""The `prepare` command: documents → permitted documents and the ledger of why each one stayed or went."""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from apertus_jax import __version__, artifacts
from apertus_jax.corpus.documents import input_name
from apertus_jax.corpus.duplicates import DEFAULT_MEMORY, SMALLEST_MEMORY
from apertus_jax.corpus.ledger import Funnel
from apertus_jax.corpus.ledger import records as ledger
from apertus_jax.corpus.ledger.report import write_report
from apertus_jax.corpus.prepare import aggregate, select
from apertus_jax.corpus.prepare.interruption import terminated_as_interrupted
from apertus_jax.corpus.prepare.launchers import PROCESSES, Launcher, check_launcher
from apertus_jax.corpus.prepare.plan import keep_plan, make_plan
from apertus_jax.corpus.prepare.policy import Policy
from apertus_jax.corpus.prepare.preparation import Preparation
from apertus_jax.corpus.prepare.progress import StageProgress
from apertus_jax.corpus.prepare.stages import (
    AGGREGATE,
    APPLY,
    DECIDE,
    SCORE,
    SELECT,
    STAGES,
    all_units,
    copies_folder,
    select_folder,
    stage_of,
    statistics_folder,
)
from apertus_jax.corpus.prepare.tasks import Share, is_done, missing_units, read_summaries
from apertus_jax.corpus.sources import Source
from apertus_jax.errors import UserError
from apertus_jax.freed_memory import return_freed_memory
from apertus_jax.run_folder import acquire_lease

PLAN, FINISH = "plan", "finish"
ORDER = (PLAN, SCORE, AGGREGATE, DECIDE, SELECT, APPLY, FINISH)


@terminated_as_interrupted()
def prepare(
    output: epath.PathLike,
    policy: Policy,
    documents: str = "",
    sources: Sequence[Source] = (),
    work: str = "",
    as_of: str = "",
    stage: str = "",
    task: str = "",
    launcher: str = PROCESSES,
    workers: int = 0,
    beam_options: Sequence[str] = (),
    unit_bytes: int = 64_000_000,
    seconds_per_document: float = 30.0,
    sort_bytes: int = DEFAULT_MEMORY,
    show_hosts: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Decides about every document of the sources; returns the summary. Done already: returns at once.

    plan → score → aggregate → decide → select → apply → finish. Everything that has been done stays when the command
    is stopped or killed, and is not done again; a policy with other thresholds uses the scores that are there.

    Args:
      output: the folder of the result.
      policy: what is looked at and what is decided.
      documents: a file or folder of documents, or `bundled`: one more source, named after it.
      sources: where documents come from.
      work: folder of intermediate stages; by default beside the output, with `.work` at the end of its name.
      as_of: YYYY-MM-DD of the plan; by default the day on which it is made first.
      stage: only this stage, for launchers that hand out tasks; empty for all.
      task: INDEX/COUNT, this process does only its share of the units; empty for all.
      launcher: `processes` of this machine, `inline`, or `beam`.
      workers: processes; 0 takes one per processor.
      beam_options: of Apache Beam's pipeline.
      unit_bytes: size of the pieces into which large files are cut.
      seconds_per_document: a document whose scoring takes longer is quarantined.
      sort_bytes: memory for sorting, at least 1 MiB; more saves passes over the disk in a very large corpus.
      show_hosts: names domains in the report instead of masking them.
      progress: shows bars on a terminal.

    Raises:
      UserError: an input, the policy or a stage is unusable, or the output folder holds something else.
    """
    check_launcher(launcher)
    share = Share.parse(task)
    if stage and stage not in ORDER:
        raise UserError(f"prepare --stage={stage} does not exist; stages are {', '.join(ORDER)}")
    if sort_bytes < SMALLEST_MEMORY:
        raise UserError(f"prepare.sort_bytes = {sort_bytes} is too little to sort in; give at least {SMALLEST_MEMORY}")
    given = [*sources, Source(name=input_name(documents), path=str(documents))] if documents else list(sources)
    work = work or f"{output}.work"
    plan = make_plan(given, work, as_of, unit_bytes)
    preparation = Preparation(plan, policy, str(work), str(output), seconds_per_document, sort_bytes)
    if artifacts.already_built(output, ledger.KIND, preparation.part_inputs):
        return dict(artifacts.read_manifest(output, ledger.KIND)["summary"])
    _refuse_strangers(epath.Path(output))
    # Only now, with inputs, policy and folders known to be usable, is anything written.
    preparation = preparation.under(keep_plan(plan, work, as_of))

    with StageProgress(progress) as bars, Launcher(preparation, launcher, workers, beam_options) as units:
        for name in [stage] if stage else ORDER:
            if name in STAGES:
                _do_units(preparation, name, share, units, bars)
            elif name != PLAN and not _do_once(preparation, name, share, show_hosts, bars):
                break
            return_freed_memory()
    if artifacts.is_complete(output):
        return dict(artifacts.read_manifest(output, ledger.KIND)["summary"])
    return {"plan": preparation.plan.digest(), "units": len(plan.units)}


def _refuse_strangers(output: epath.Path) -> None:
    """Raises UserError when the output folder holds what this command did not write."""
    if not output.exists():
        return
    others = [each.name for each in output.iterdir() if each.name not in (ledger.PARTS, *ledger.FILES)]
    others = [name for name in others if not name.startswith(".")]
    if others:
        raise UserError(
            f"{output} holds {sorted(others)[0]}, which prepare did not write; choose another output folder"
        )


def _do_units(preparation: Preparation, name: str, share: Share, launcher: Launcher, bars: StageProgress) -> None:
    """Does the share's missing units of a stage, after checking that the stage before is whole."""
    stage = stage_of(preparation, name)
    if name != SCORE and not artifacts.is_complete(
        {DECIDE: statistics_folder, APPLY: select_folder}[name](preparation)
    ):
        raise UserError(f"prepare --stage={name} needs the stages before it; their order is {', '.join(ORDER)}")
    missing = [number for number in share.units(len(preparation.plan.units)) if not is_done(stage.folder, number)]
    with bars.stage(name, len(missing)) as done:
        launcher.do(name, missing, done)


def _do_once(preparation: Preparation, name: str, share: Share, show_hosts: bool, bars: StageProgress) -> bool:
    """Does a stage that sees the whole corpus; returns False when other tasks have to finish before.

    Of many tasks only the first does these stages.
    """
    places = {AGGREGATE: statistics_folder, SELECT: select_folder}
    place = places[name](preparation) if name in places else epath.Path(preparation.output)
    if artifacts.is_complete(place):
        return True
    stage = stage_of(preparation, {AGGREGATE: SCORE, SELECT: DECIDE, FINISH: APPLY}[name])
    missing = missing_units(stage.folder, len(preparation.plan.units))
    if missing:
        bars.note(f"{name} waits for {len(missing)} units of {stage.name}, which other tasks do")
    if missing or share.index:
        return False
    folders = all_units(stage, len(preparation.plan.units))
    with bars.stage(name, None), acquire_lease(epath.Path(preparation.work) / ".leases" / name):
        if artifacts.is_complete(place):  # another process did it while this one looked
            return True
        for folder in folders:
            artifacts.verify(folder, stage.kind)
        if name == AGGREGATE:
            aggregate.require_documents(folders)
            _aggregate(preparation, folders)
        elif name == SELECT:
            _select(preparation, folders)
        else:
            _finish(preparation, folders, show_hosts)
    return True


def _aggregate(preparation: Preparation, folders: Sequence[epath.Path]) -> None:
    """Finds copies, unless another policy with the same scores has, and the statistics of this policy."""
    copies, statistics = copies_folder(preparation), statistics_folder(preparation)
    if not artifacts.already_built(copies, aggregate.COPIES_KIND, preparation.score_inputs):
        with artifacts.build(copies, aggregate.COPIES_KIND, preparation.score_inputs) as build:
            build.summary.update(aggregate.find_copies(folders, build.path, preparation.sort_bytes))
    with artifacts.build(statistics, aggregate.STATISTICS_KIND, preparation.decision_inputs) as build:
        aggregate.write_statistics(preparation, folders, build.path)


def _select(preparation: Preparation, folders: Sequence[epath.Path]) -> None:
    """Chooses among copies."""
    with artifacts.build(select_folder(preparation), select.KIND, preparation.selection_inputs) as build:
        copies, rule = copies_folder(preparation), preparation.duplicate_rule
        chosen = select.select(copies, folders, rule, build.path, preparation.sort_bytes)
        build.summary.update(chosen)


def _finish(preparation: Preparation, parts: Sequence[epath.Path], show_hosts: bool) -> None:
    """Writes statistics, funnel and report, and commits the result."""
    output = epath.Path(preparation.output)
    stage = stage_of(preparation, APPLY)
    funnel = Funnel.sum(read_summaries(stage.folder, stage.kind, len(parts)))
    scored = stage_of(preparation, SCORE)
    ignored: collections.Counter[str] = collections.Counter()
    for each in read_summaries(scored.folder, scored.kind, len(parts)):
        ignored.update(each["ignored"])
    statistics = aggregate.read_statistics(statistics_folder(preparation))
    summary = {
        "policy_name": preparation.policy.name,
        "policy": preparation.policy_digest,
        "plan": preparation.plan.digest(),
        "as_of": preparation.plan.as_of,
        "code": __version__,
        "tombstones": preparation.scorer.applied_tombstones(),
        **funnel.totals(),
        "ignored": dict(sorted(ignored.items())),
        "parts": {folder.name: artifacts.read_manifest(folder, stage.kind)["digest"] for folder in parts},
    }
    artifacts.write_atomically(output / ledger.STATISTICS_FILE, _pretty(statistics))
    artifacts.write_atomically(output / ledger.FUNNEL_FILE, _pretty(funnel.to_json()))
    in_force = {"policy": preparation.policy_in_force, "scores": preparation.score_inputs}
    artifacts.write_atomically(output / ledger.POLICY_FILE, _pretty(in_force))
    write_report(output / ledger.REPORT_FILE, funnel, summary, statistics, parts, show_hosts)
    artifacts.commit(output, ledger.KIND, preparation.part_inputs, summary, without=(ledger.PARTS,))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
