"""The stages of `prepare` that work unit by unit: score, decide, apply.

Each has `folder`, in which every unit has a folder of its own, `kind` and `inputs` of these, and
`write(number, folder)`, which fills one and returns its summary.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from apertus_jax import __version__
from apertus_jax.corpus.documents import UNKNOWN_LANGUAGE, Document, write_documents
from apertus_jax.corpus.language_codes import language_label
from apertus_jax.corpus.ledger import Decision, Funnel, ledger_schema
from apertus_jax.corpus.ledger import records as ledger
from apertus_jax.corpus.personal_data import rewrite
from apertus_jax.corpus.personal_data.conversations import rewrite_conversation
from apertus_jax.corpus.prepare import aggregate
from apertus_jax.corpus.prepare.launching.tasks import unit_folder
from apertus_jax.corpus.prepare.plan import ordinal
from apertus_jax.corpus.prepare.preparation import Preparation
from apertus_jax.corpus.prepare.score import CONTENT_EVALUATED, QUARANTINE_FILE, SCORES_FILE, first_verdict
from apertus_jax.corpus.prepare.select import DECISIONS_FILE, Selection
from apertus_jax.corpus.prepare.tables import TableWriter, read_rows, row_groups
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.sources import QuarantinedRow, read_unit
from apertus_jax.storage import artifacts

# What applying needs of the scores; the others pass from their file into the ledger as they are.
APPLY_COLUMNS = (
    "file",
    "row",
    "source",
    "url",
    "utf8_bytes",
    "tokens",
    CONTENT_EVALUATED,
    "language_label",
    "language_declared",
    "licence_expression",
    "text_digest",
)


class ScoreStage:
    """Reads a unit and writes every column about every document."""

    kind = "prepare_scores"

    def __init__(self, preparation: Preparation, stages: Mapping[str, Any]):
        self._plan, self._scorer = preparation.plan, preparation.scorer
        self.inputs = preparation.score_inputs
        self.folder = preparation.stage_folder("score", self.inputs)

    def write(self, number: int, folder: epath.Path) -> dict[str, Any]:
        """Writes one unit's scores, quarantine and keys of copies; returns how many documents there are."""
        source = self._plan.source_of(number)
        ignored: collections.Counter[str] = collections.Counter()
        documents = read_unit(source, self._plan.units[number], today=self._plan.as_of, ignored=ignored)
        counts = self._scorer.write(folder, documents, ordinal(number, 0), source.version)
        return counts | {"ignored": dict(sorted(ignored.items()))}

    def scores_of(self, number: int) -> epath.Path:
        """Returns the folder of a unit's scores, checked against its digests.

        Raises:
          UserError: it is missing or damaged.
        """
        folder = unit_folder(self.folder, number)
        artifacts.verify(folder, self.kind)
        return folder


class DecideStage:
    """Asks every rule but the one that must wait for the choice among copies."""

    kind = "prepare_decisions"

    def __init__(self, preparation: Preparation, stages: Mapping[str, Any]):
        self._scores, self._aggregate = stages["score"], stages["aggregate"]
        self._rules = [rule for rule in preparation.policy.rules if rule is not preparation.selection_rule]
        self._language_of = preparation.language_of
        self.inputs = preparation.decision_inputs
        self.folder = preparation.stage_folder("decide", self.inputs)

    def write(self, number: int, folder: epath.Path) -> dict[str, Any]:
        """Writes one unit's decisions; returns how many documents passed."""
        import pyarrow

        statistics = self._aggregate.statistics
        repeated = aggregate.repeated_in_unit(self._aggregate.copies, number)
        schema = pyarrow.schema([(name, pyarrow.string()) for name in ("document_id", "reason", "detail")])
        passed = 0
        with TableWriter(folder / DECISIONS_FILE, schema) as table:
            for position, row in enumerate(read_rows(self._scores.scores_of(number) / SCORES_FILE)):
                row["language"] = self._language_of(row)
                verdict = first_verdict(self._rules, row, statistics)
                if position in repeated and (verdict is None or verdict.reason != Reason.REMOVED_ON_REQUEST):
                    verdict = Verdict(Reason.DUPLICATE_ID, "an earlier document has this identity")
                reason, detail = ("", "") if verdict is None else (str(verdict.reason), verdict.detail)
                table.write([{"document_id": row["document_id"], "reason": reason, "detail": detail}])
                passed += verdict is None
        return {"passed": passed}


class ApplyStage:
    """Reads the texts that stay again, rewrites personal data, and writes documents and ledger."""

    kind = ledger.PART_KIND

    def __init__(self, preparation: Preparation, stages: Mapping[str, Any]):
        self._scores, self._decisions = stages["score"], stages["decide"]
        self._aggregate, self._select = stages["aggregate"], stages["select"]
        self._plan, self._policy = preparation.plan, preparation.policy
        self._selection_rule = preparation.selection_rule
        self._language_of = preparation.language_of
        self._schema = ledger_schema(preparation.scorer.schema())
        self._constant = {
            "policy": self._policy.name,
            "policy_digest": preparation.policy_digest,
            "code_version": __version__,
            ledger.NOT_ASKED: ", ".join(self._policy.unasked),
            **dict.fromkeys(ledger.CONSENT_VERDICTS, ledger.NOT_ASKED),  # only where no scorer has such a column
        }
        self.inputs = preparation.part_inputs
        self.folder = epath.Path(preparation.output) / ledger.PARTS

    @functools.cached_property
    def _selection(self) -> Selection:
        return Selection(self._aggregate.copies, self._select.folder)

    def write(self, number: int, folder: epath.Path) -> dict[str, Any]:
        """Writes one unit's part of the result; returns its funnel."""
        scores = self._scores.scores_of(number)
        funnel = Funnel()
        with TableWriter(folder / ledger.LEDGER_FILE, self._schema) as rows:
            chats = "conversations" in artifacts.read_manifest(scores, self._scores.kind)["summary"]
            write_documents(folder / ledger.DOCUMENTS_FILE, self._permitted(number, scores, rows, funnel), chats)
        quarantine = list(read_rows(scores / QUARANTINE_FILE))
        for row in quarantine:
            funnel.add_quarantined(row)
        (folder / ledger.QUARANTINE_FILE).write_bytes((scores / QUARANTINE_FILE).read_bytes())
        return funnel.to_json()

    def _permitted(self, number: int, scores: epath.Path, rows: TableWriter, funnel: Funnel) -> Iterator[Document]:
        """Yields the documents of a unit that stay, and writes the ledger of all as it goes."""
        plan = self._plan
        texts = _readable(read_unit(plan.source_of(number), plan.units[number], today=plan.as_of))
        decided = read_rows(unit_folder(self._decisions.folder, number) / DECISIONS_FILE)
        selection = self._selection.of_unit(number)
        position = 0
        for group in row_groups(scores / SCORES_FILE):
            decisions = []
            for row in group.select([name for name in APPLY_COLUMNS if name in group.column_names]).to_pylist():
                document = next(each for each in texts if (each.file, each.row) == (row["file"], row["row"]))
                decision, permitted = self._decide(document, row, next(decided), selection.get(position, {}))
                decisions.append({"language": self._language(document, row)} | decision.columns() | self._constant)
                funnel.add_document(row | decisions[-1])
                position += 1
                if permitted is not None:
                    yield permitted
            rows.write_group(ledger.with_decisions(group, decisions))

    def _decide(
        self, document: RawDocument, row: dict[str, Any], decided: dict[str, Any], copies: dict[str, Any]
    ) -> tuple[Decision, Document | None]:
        """Returns the decision about a document and, when it stays, what may be trained on."""
        reason, detail, kept_id = decided["reason"], decided["detail"], ""
        if not reason and self._selection_rule is not None:
            verdict = self._selection_rule.verdict(row | copies, self._aggregate.statistics)
            if verdict is not None:
                reason, detail = str(verdict.reason), verdict.detail
                kept_id = copies.get("duplicates_survivor_id", "")
        cluster, size = copies.get("cluster", ""), copies.get("size", 1)
        if reason:
            return Decision(reason, detail, cluster, size, kept_id), None
        policy = self._policy.personal_data
        text, conversation = document.text, document.conversation
        counts: dict[str, int] = {}
        if policy.applies_to(document.source):
            if conversation:
                text, conversation, counts = rewrite_conversation(conversation, policy)
            else:
                rewritten = rewrite(document.text, policy)
                text, counts = rewritten.text, rewritten.counts
        permitted = Document(
            document_id=document.document_id,
            text=text,
            source=document.own_source or document.source,
            language=self._language(document, row) or UNKNOWN_LANGUAGE,
            url=row["url"],
            licence=row.get("licence_expression") or document.licence,
            cluster=cluster,
            text_digest=row.get("text_digest") or "",
            conversation=conversation,
        )
        return Decision.kept(text, counts, cluster, size), permitted

    def _language(self, document: RawDocument, row: dict[str, Any]) -> str | None:
        """Returns the label that a document goes by, None where its text was not looked at."""
        if not row[CONTENT_EVALUATED]:
            return None
        if "language_label" not in row:
            return language_label(document.language)
        return self._language_of(row)


def _readable(documents: Iterator[RawDocument | QuarantinedRow]) -> Iterator[RawDocument]:
    """Yields documents, without the rows that are none."""
    return (each for each in documents if isinstance(each, RawDocument))
