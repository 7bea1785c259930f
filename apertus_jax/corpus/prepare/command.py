"""The `prepare` command: documents → permitted documents and the ledger of why each one stayed or went."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from apertus_jax import __version__, artifacts
from apertus_jax.corpus.documents import input_name
from apertus_jax.corpus.ledger import Funnel
from apertus_jax.corpus.ledger import records as ledger
from apertus_jax.corpus.ledger.report import write_report
from apertus_jax.corpus.prepare import aggregate, select
from apertus_jax.corpus.prepare.launchers import PROCESSES, check_launcher, run_units
from apertus_jax.corpus.prepare.plan import make_plan
from apertus_jax.corpus.prepare.policy import Policy, describe
from apertus_jax.corpus.prepare.preparation import Preparation
from apertus_jax.corpus.prepare.progress import StageProgress
from apertus_jax.corpus.prepare.stages import (
    AGGREGATE,
    APPLY,
    DECIDE,
    SCORE,
    SELECT,
    STAGES,
    aggregate_folder,
    all_units,
    select_folder,
    stage_of,
)
from apertus_jax.corpus.prepare.tasks import Share, missing_units, read_summaries
from apertus_jax.corpus.sources import Source
from apertus_jax.errors import UserError
from apertus_jax.run_folder import acquire_lease

PLAN, FINISH = "plan", "finish"
ORDER = (PLAN, SCORE, AGGREGATE, DECIDE, SELECT, APPLY, FINISH)
MEGABYTE = 1_000_000


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
    unit_megabytes: int = 64,
    seconds_per_document: float = 30.0,
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
      unit_megabytes: size of the pieces into which large files are cut.
      seconds_per_document: a document whose scoring takes longer is quarantined.
      show_hosts: names domains in the report instead of masking them.
      progress: shows bars on a terminal.

    Raises:
      UserError: an input, the policy or a stage is unusable, or the output folder holds something else.
    """
    check_launcher(launcher)
    share = Share.parse(task)
    if stage and stage not in ORDER:
        raise UserError(f"prepare --stage={stage} does not exist; stages are {', '.join(ORDER)}")
    given = [*sources, Source(name=input_name(documents), path=str(documents))] if documents else list(sources)
    work = work or f"{output}.work"
    plan = make_plan(given, work, as_of, unit_megabytes * MEGABYTE)
    preparation = Preparation(plan, policy, str(work), str(output), seconds_per_document)
    if artifacts.already_built(output, ledger.KIND, preparation.part_inputs):
        return dict(artifacts.read_manifest(output, ledger.KIND)["summary"])
    _refuse_strangers(epath.Path(output))

    def do(units_of: str, numbers: Sequence[int], done: Callable[[int], Any]) -> None:
        run_units(preparation, units_of, numbers, launcher, workers, beam_options, done)

    with StageProgress(progress) as bars:
        for name in [stage] if stage else ORDER:
            if name in STAGES:
                _do_units(preparation, name, share, do, bars)
            elif name != PLAN and not _do_once(preparation, name, share, show_hosts, bars):
                break
    if artifacts.is_complete(output):
        return dict(artifacts.read_manifest(output, ledger.KIND)["summary"])
    return {"plan": plan.digest(), "units": len(plan.units)}


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


def _do_units(preparation: Preparation, name: str, share: Share, do: Callable[..., None], bars: StageProgress) -> None:
    """Does the share's missing units of a stage, after checking that the stage before is whole."""
    stage = stage_of(preparation, name)
    if name != SCORE:
        before = {DECIDE: aggregate_folder, APPLY: select_folder}[name](preparation)
        if not artifacts.is_complete(before):
            raise UserError(f"prepare --stage={name} needs the stage before it; run the stages in this order: {ORDER}")
    total = len(preparation.plan.units)
    missing = [number for number in share.units(total) if number in set(missing_units(stage.folder, total))]
    with bars.stage(name, len(missing)) as done:
        do(name, missing, done)


def _do_once(preparation: Preparation, name: str, share: Share, show_hosts: bool, bars: StageProgress) -> bool:
    """Does a stage that sees the whole corpus; returns False when other tasks have to finish before.

    Of many tasks only the first does these stages.
    """
    total = len(preparation.plan.units)
    units = stage_of(preparation, {AGGREGATE: SCORE, SELECT: DECIDE, FINISH: APPLY}[name])
    missing = missing_units(units.folder, total)
    if missing or share.index:
        if missing:
            bars.note(f"{name} waits for {len(missing)} of {total} units of {units.name}, which other tasks do")
        return False
    folders = all_units(units, total)
    for folder in folders:
        artifacts.verify(folder, units.kind)
    if name == FINISH:
        _finish(preparation, show_hosts)
        return True
    place = aggregate_folder(preparation) if name == AGGREGATE else select_folder(preparation)
    kind = aggregate.KIND if name == AGGREGATE else select.KIND
    if artifacts.already_built(place, kind, preparation.decision_inputs):
        return True
    with (
        bars.stage(name, None),
        acquire_lease(epath.Path(preparation.work) / ".leases" / place.name),
        artifacts.build(place, kind, preparation.decision_inputs) as build,
    ):
        if name == AGGREGATE:
            build.summary.update(aggregate.aggregate(preparation, folders, build.path))
        else:
            build.summary.update(
                select.select(aggregate_folder(preparation), folders, preparation.duplicate_rule, build.path)
            )
    return True


def _finish(preparation: Preparation, show_hosts: bool) -> None:
    """Writes statistics, funnel and report, and commits the result."""
    output = epath.Path(preparation.output)
    stage = stage_of(preparation, APPLY)
    total = len(preparation.plan.units)
    funnel = Funnel.sum(read_summaries(stage.folder, stage.kind, total))
    statistics = aggregate.read_statistics(aggregate_folder(preparation))
    parts = all_units(stage, total)
    summary = {
        "policy_name": preparation.policy.name,
        "policy": preparation.policy.digest(),
        "plan": preparation.plan.digest(),
        "as_of": preparation.plan.as_of,
        "code": __version__,
        "tombstones": preparation.scorer.applied_tombstones(),
        **funnel.totals(),
        "parts": {folder.name: artifacts.read_manifest(folder, stage.kind)["digest"] for folder in parts},
    }
    with acquire_lease(epath.Path(preparation.work) / ".leases" / "finish"):
        artifacts.write_atomically(output / ledger.STATISTICS_FILE, _pretty(statistics))
        artifacts.write_atomically(output / ledger.FUNNEL_FILE, _pretty(funnel.to_json()))
        artifacts.write_atomically(
            output / ledger.POLICY_FILE,
            _pretty({"policy": describe(preparation.policy), "scores": preparation.score_inputs}),
        )
        write_report(output / ledger.REPORT_FILE, funnel, summary, statistics, parts, show_hosts)
        artifacts.commit(output, ledger.KIND, preparation.part_inputs, summary, without=(ledger.PARTS,))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
