"""The `prepare` command: documents → permitted documents and the ledger of why each one stayed or went."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from etils import epath

from apertus_jax.corpus.documents import input_name
from apertus_jax.corpus.duplicates import DEFAULT_MEMORY, SMALLEST_MEMORY
from apertus_jax.corpus.ledger import records as ledger
from apertus_jax.corpus.prepare.launching.launchers import PROCESSES, Launcher, check_launcher
from apertus_jax.corpus.prepare.launching.tasks import is_done, missing_units, unit_folder
from apertus_jax.corpus.prepare.plan import keep_plan, make_plan
from apertus_jax.corpus.prepare.policy import Policy
from apertus_jax.corpus.prepare.preparation import Preparation
from apertus_jax.corpus.prepare.questions import check_source_names, in_words, require_sources
from apertus_jax.corpus.prepare.stages import ORDER, STAGES, Stage, Stages
from apertus_jax.corpus.sources import Source
from apertus_jax.corpus.sources.source import BUNDLED
from apertus_jax.errors import UserError
from apertus_jax.process.malloc_trim import return_freed_memory
from apertus_jax.process.share_of_work import Share
from apertus_jax.storage import artifacts
from apertus_jax.storage.lease import acquire_lease
from apertus_jax.terminal.progress import ProgressBars

logger = logging.getLogger("prepare")


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
    unit_bytes: int = 0,
    seconds_per_document: float = 30.0,
    sort_bytes: int = DEFAULT_MEMORY,
    show_hosts: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Decides about every document of the sources; returns the summary.

    Idempotent: returns immediately if the output is complete.

    plan → score → aggregate → decide → select → apply → finish. Everything that has been done stays when the command
    is stopped or killed, and is not done again; a policy with other thresholds uses the scores that are there.

    Args:
      output: the folder of the result.
      policy: what is looked at and what is decided.
      documents: a file or folder of documents, or `bundled`: one more source, named after it.
      sources: where documents come from.
      work: folder of intermediate stages; by default beside the output, with `.work` at the end of its name. It stays,
        so that a policy with other thresholds need not score again; delete it at will once the output is complete.
      as_of: YYYY-MM-DD of the plan; by default the day on which it is made first.
      stage: only this stage, for launchers that hand out tasks; empty for all.
      task: INDEX/COUNT, this process does only its share of the units; empty for all.
      launcher: `processes` of this machine, `inline`, or `beam`.
      workers: processes; 0 takes one per processor.
      beam_options: of Apache Beam's pipeline.
      unit_bytes: size of the units, the pieces that processes share; large files are cut to it. 0 takes a 32nd of the
        corpus, but at least 1 MB and at most 64 MB. Which documents are kept does not depend on it.
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
    require_sources(policy.name, policy.scorings, policy.rules, _missing_documents(given))
    check_source_names(policy.rules, [source.name for source in given])
    plan = make_plan(given, work, as_of, unit_bytes)
    preparation = Preparation(plan, policy, str(work), str(output), seconds_per_document, sort_bytes, show_hosts)
    if artifacts.already_built(output, ledger.KIND, preparation.part_inputs, resumable=True):
        return _told(output, work)
    artifacts.check_resumable(output, ledger.KIND, preparation.part_inputs, (ledger.PARTS, *ledger.FILES))
    # Only now, with inputs, policy and folders known to be usable, is anything written.
    preparation = preparation.under(keep_plan(plan, work, as_of))

    stages = Stages(preparation)
    with ProgressBars(progress, stay=True) as bars, Launcher(stages, launcher, workers, beam_options) as units:
        for each in STAGES:
            if stage not in ("", each.name) or each.make is None:
                continue
            if each.per_unit:
                _do_units(stages, each, share, units, bars)
            elif not _do_once(stages, each, share, bars):
                break
            return_freed_memory()
    if artifacts.is_complete(output):
        return _told(output, work)
    logger.info(
        "%s: %s done for task %s of %d units; not finished, run the other stages and tasks",
        output,
        f"stage {stage}" if stage else "what could be",
        task or "0/1",
        len(plan.units),
    )
    return {"plan": preparation.plan.digest(), "units": len(plan.units)}


def _missing_documents(sources: Sequence[Source]) -> list[str]:
    """Returns what is to be read and is not there, when something else is missing too."""
    paths = [source.path for source in sources if source.path and "*" not in source.path]
    return [f"{path}, which does not exist" for path in paths if path != BUNDLED and not epath.Path(path).exists()]


def _told(output: epath.PathLike, work: epath.PathLike) -> dict[str, Any]:
    """Returns the summary of a finished corpus and says, in the last line, what was kept and what was not asked."""
    if epath.Path(work).exists():
        logger.info("%s keeps the scores, so that another policy need not score again; delete it at will", work)
    summary = dict(artifacts.read_manifest(output, ledger.KIND)["summary"])
    unasked = in_words(summary[ledger.NOT_ASKED])
    logger.info(
        "%s: %s of %s documents kept under policy %s; %s; open %s",
        output,
        f"{summary['kept']:,}",
        f"{summary['documents']:,}",
        summary["policy_name"],
        f"NOT ASKED: {unasked}" if unasked else "every question was asked",
        epath.Path(output) / ledger.REPORT_FILE,
    )
    return summary


def _do_units(stages: Stages, stage: Stage, share: Share, launcher: Launcher, bars: ProgressBars) -> None:
    """Does the share's missing units of a stage, after checking that the stage before is whole."""
    before = next(each for each in STAGES if each.name == stage.after)
    if before.make is not None and not artifacts.is_complete(stages[before.name].folder):
        raise UserError(f"prepare --stage={stage.name} needs the stages before it; their order is {', '.join(ORDER)}")
    numbers, folder = share.units(len(stages.preparation.plan.units)), stages[stage.name].folder
    missing = [number for number in numbers if not is_done(folder, number)]
    bar = bars.bar(stage.name, len(missing))
    launcher.do(stage.name, missing, lambda number: bar.advance())


def _do_once(stages: Stages, stage: Stage, share: Share, bars: ProgressBars) -> bool:
    """Does a stage that sees the whole corpus; returns False when other tasks have to finish before.

    Of many tasks only the first does these stages.
    """
    place, before = stages[stage.name].folder, stages[stage.after]
    if artifacts.is_complete(place):
        return True
    total = len(stages.preparation.plan.units)
    missing = missing_units(before.folder, total)
    if missing:
        logger.info("%s waits for %d units of %s, which other tasks do", stage.name, len(missing), stage.after)
    if missing or share.index:
        return False
    folders = [unit_folder(before.folder, number) for number in range(total)]
    bar = bars.bar(stage.name, 1)
    with acquire_lease(epath.Path(stages.preparation.work) / ".leases" / stage.name):
        if artifacts.is_complete(place):  # another process did it while this one looked
            return True
        for folder in folders:
            artifacts.verify(folder, before.kind)
        stages[stage.name].write(folders)
    bar.advance()
    return True
