"""The stages of `prepare` that see the whole corpus: aggregate, select, finish.

Each has a `folder`, which is committed when the stage is done, and `write(folders)`, which is given the folders of all
units of the stage before, in order.
"""

from __future__ import annotations

import collections
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax import __version__
from apertus_jax.corpus.ledger import Funnel
from apertus_jax.corpus.ledger import records as ledger
from apertus_jax.corpus.ledger.report import write_report
from apertus_jax.corpus.prepare import aggregate, select
from apertus_jax.corpus.prepare.launching.tasks import read_summaries
from apertus_jax.corpus.prepare.preparation import Preparation
from apertus_jax.storage import artifacts


class AggregateStage:
    """Finds copies, unless another policy with the same scores has, and what this policy's rules ask of the corpus."""

    def __init__(self, preparation: Preparation, stages: Mapping[str, Any]):
        self._rules = preparation.policy.content_rules
        self._language_of, self._sort_bytes = preparation.language_of, preparation.sort_bytes
        self._copies_inputs, self._inputs = preparation.score_inputs, preparation.decision_inputs
        self.copies = preparation.stage_folder("copies", self._copies_inputs)
        self.folder = preparation.stage_folder("statistics", self._inputs)

    def write(self, folders: Sequence[epath.Path]) -> None:
        """Writes `copies`, shared by all policies with these scores, and the statistics of this one.

        Raises:
          UserError: there is no document to decide about.
        """
        aggregate.require_documents(folders)
        if not artifacts.already_built(self.copies, aggregate.COPIES_KIND, self._copies_inputs):
            with artifacts.build(self.copies, aggregate.COPIES_KIND, self._copies_inputs) as build:
                build.summary.update(aggregate.find_copies(folders, build.path, self._sort_bytes))
        with artifacts.build(self.folder, aggregate.STATISTICS_KIND, self._inputs) as build:
            aggregate.write_statistics(self._rules, self._language_of, folders, build.path)

    @functools.cached_property
    def statistics(self) -> dict[str, Any]:
        """What the rules asked of the corpus, once the stage is done."""
        return aggregate.read_statistics(self.folder)


class SelectStage:
    """Chooses among copies, once every other rule has spoken."""

    def __init__(self, preparation: Preparation, stages: Mapping[str, Any]):
        self._copies = stages["aggregate"].copies
        self._rule, self._sort_bytes = preparation.selection_rule, preparation.sort_bytes
        self._inputs = preparation.selection_inputs
        self.folder = preparation.stage_folder("select", self._inputs)

    def write(self, folders: Sequence[epath.Path]) -> None:
        """Writes which copies survive the decisions in `folders`."""
        with artifacts.build(self.folder, select.KIND, self._inputs) as build:
            build.summary.update(select.select(self._copies, folders, self._rule, build.path, self._sort_bytes))


class FinishStage:
    """Writes statistics, funnel and report of the parts, and commits the result."""

    def __init__(self, preparation: Preparation, stages: Mapping[str, Any]):
        self._preparation, self._stages = preparation, stages
        self.folder = epath.Path(preparation.output)

    def write(self, folders: Sequence[epath.Path]) -> None:
        """Commits the output folder, whose parts are `folders`."""
        preparation, stages, output = self._preparation, self._stages, self.folder
        applied, scored = stages["apply"], stages["score"]
        funnel = Funnel.sum(read_summaries(applied.folder, applied.kind, len(folders)))
        ignored: collections.Counter[str] = collections.Counter()
        for each in read_summaries(scored.folder, scored.kind, len(folders)):
            ignored.update(each["ignored"])
        statistics = stages["aggregate"].statistics
        summary = {
            "policy_name": preparation.policy.name,
            "policy": preparation.policy_digest,
            "plan": preparation.plan.digest(),
            "as_of": preparation.plan.as_of,
            "code": __version__,
            ledger.NOT_ASKED: preparation.policy.unasked,
            "tombstones": preparation.scorer.applied_tombstones(),
            **funnel.totals(),
            "ignored": dict(sorted(ignored.items())),
            "parts": {folder.name: artifacts.read_manifest(folder, applied.kind)["digest"] for folder in folders},
        }
        artifacts.write_atomically(output / ledger.STATISTICS_FILE, _pretty(statistics))
        artifacts.write_atomically(output / ledger.FUNNEL_FILE, _pretty(funnel.to_json()))
        in_force = {"policy": preparation.policy_in_force, "scores": preparation.score_inputs}
        artifacts.write_atomically(output / ledger.POLICY_FILE, _pretty(in_force))
        report = output / ledger.REPORT_FILE
        write_report(report, funnel, summary, statistics, folders, preparation.show_hosts)
        artifacts.commit(output, ledger.KIND, preparation.part_inputs, summary, without=(ledger.PARTS,))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
