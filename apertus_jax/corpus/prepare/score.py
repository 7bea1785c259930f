"""Score stage: every column of every document of one unit, and the rows that could not be read."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from apertus_jax.corpus.batching import batched
from apertus_jax.corpus.duplicates import KeyWriter, key_records
from apertus_jax.corpus.prepare import questions
from apertus_jax.corpus.prepare.facts import TokenCounter, facts, facts_schema
from apertus_jax.corpus.prepare.policy import Policy, check_columns, only, scorers_of
from apertus_jax.corpus.prepare.tables import TableWriter
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Verdict
from apertus_jax.corpus.scorer import Row, Rule, Scorer
from apertus_jax.corpus.sources import QuarantinedRow
from apertus_jax.errors import UserError
from apertus_jax.process.interruptions import TimeLimitExceeded, time_limit
from apertus_jax.process.module_sources import failure_of_foreign, is_foreign

if TYPE_CHECKING:
    import pyarrow

SCORES_FILE, QUARANTINE_FILE, KEYS_FILE = "scores.parquet", "quarantine.parquet", "copies.keys"
BANDS = "duplicates_bands"  # only the search for copies needs them, and they are larger than all other columns
DOCUMENTS_PER_BATCH = 512
CHARACTERS_PER_BATCH = 1 << 22
CONTENT_EVALUATED = "content_evaluated"
TOO_SLOW = "time_limit"


def quarantine_schema() -> pyarrow.Schema:
    """Returns the columns of a unit's quarantine."""
    import pyarrow

    text = pyarrow.string()
    return pyarrow.schema(
        [("source", text), ("file", text), ("row", pyarrow.int64()), ("reason", text), ("detail", text)]
    )


class UnitScorer:
    """Scores the documents of a unit under one policy.

    Args:
      policy: its consent rules decide which texts are looked at; its personal data policy rewrites addresses.
      consent: the scorers of the policy's consent scorings.
      language_of: the language by which a row's document goes.
      seconds: what one document may take; a slower one is quarantined.
    """

    def __init__(
        self, policy: Policy, consent: Sequence[Scorer], language_of: Callable[[Row], str | None], seconds: float
    ):
        self.consent = consent
        self.content = scorers_of(policy.content_scoring)
        check_columns(policy.rules, (*consent, *self.content))
        self._duplicates: Any = only(policy.content_scoring, "scope_of")
        self._consent_rules = policy.consent_rules
        self._personal_data = policy.personal_data
        self._language_of = language_of
        self._seconds = seconds
        self._counter = TokenCounter.load(policy.tokenizer) if policy.tokenizer else None
        self._not_evaluated = {field.name: None for scorer in self.content for field in scorer.schema()}

    @property
    def duplicate_scope(self) -> str | None:
        """Among which documents copies are looked for; None for not at all."""
        return self._duplicates.scope if self._duplicates else None

    @property
    def tokenizer_digest(self) -> str | None:
        """The digest of the tokenizer that counts; None when tokens are not counted."""
        return self._counter.digest if self._counter else None

    def applied_tombstones(self) -> dict[str, Any] | None:
        """Returns the record of the removal requests that are applied; None without any."""
        found = [scorer.applied() for scorer in self.consent if hasattr(scorer, "applied")]
        return found[0] if found else None

    def schema(self) -> pyarrow.Schema:
        """Returns the columns of a unit's scores: facts, whether consent let the text be looked at, all scorers'."""
        import pyarrow

        fields = [*facts_schema(), pyarrow.field(CONTENT_EVALUATED, pyarrow.bool_())]
        scored = itertools.chain.from_iterable(scorer.schema() for scorer in (*self.consent, *self.content))
        return pyarrow.schema([*fields, *(field for field in scored if field.name != BANDS)])

    def write(
        self,
        folder: epath.Path,
        documents: Iterable[RawDocument | QuarantinedRow],
        first_ordinal: int,
        source_version: str,
    ) -> dict[str, int]:
        """Writes scores, quarantine and keys of copies of a unit's documents; returns how many documents there are."""
        counts = {"documents": 0, "quarantined": 0}
        with contextlib.ExitStack() as stack:
            scores = stack.enter_context(TableWriter(folder / SCORES_FILE, self.schema()))
            quarantine = stack.enter_context(TableWriter(folder / QUARANTINE_FILE, quarantine_schema()))
            keys = None
            if self._duplicates:
                keys = stack.enter_context(KeyWriter(os.fspath(folder / KEYS_FILE), self._duplicates.bands))
            for batch in batched(documents, DOCUMENTS_PER_BATCH, _characters, CHARACTERS_PER_BATCH):
                readable = [each for each in batch if isinstance(each, RawDocument)]
                rows = self._rows(readable, source_version)
                slow = [_too_slow(each, self._seconds) for each, row in zip(readable, rows, strict=True) if row is None]
                unreadable = [_quarantine_row(each) for each in batch if isinstance(each, QuarantinedRow)]
                scored = [row for row in rows if row is not None]
                if keys:
                    self._write_keys(keys, scored, first_ordinal + counts["documents"])
                if chats := sum(bool(each.conversation) for each in readable):
                    counts["conversations"] = counts.get("conversations", 0) + chats
                counts["documents"] += scores.write(scored)
                counts["quarantined"] += quarantine.write(unreadable + slow)
        return counts

    def _write_keys(self, keys: KeyWriter, rows: Sequence[dict[str, Any]], first_ordinal: int) -> None:
        """Writes what the search for copies needs; band keys leave the rows."""
        scopes = [self._duplicates.scope_of(row["source"], self._language_of(row) or "") for row in rows]
        keys.write(key_records(rows, range(first_ordinal, first_ordinal + len(rows)), scopes))
        for row in rows:
            del row[BANDS]

    def _rows(self, documents: Sequence[RawDocument], source_version: str) -> list[dict[str, Any] | None]:
        """Returns the row of each document, None where it took too long."""
        try:
            with time_limit(self._seconds):
                return list(self._score(documents, source_version))
        except TimeLimitExceeded:
            if len(documents) == 1:
                return [None]
        # One of them is slow: find out which, the others are scored as if it were not there.
        return list(itertools.chain.from_iterable(self._rows([each], source_version) for each in documents))

    def _score(self, documents: Sequence[RawDocument], source_version: str) -> list[dict[str, Any]]:
        """Runs the consent scorers on all documents, the others on those that consent allows."""
        rows = [facts(each, source_version, self._personal_data, self._counter) for each in documents]
        _add_columns(rows, documents, self.consent)
        allowed = [first_verdict(self._consent_rules, row, {}) is None for row in rows]
        for row, is_allowed in zip(rows, allowed, strict=True):
            row[CONTENT_EVALUATED] = is_allowed
            if not is_allowed:
                row.update(self._not_evaluated)
        chosen = [number for number, is_allowed in enumerate(allowed) if is_allowed]
        _add_columns([rows[number] for number in chosen], [documents[number] for number in chosen], self.content)
        return rows


def first_verdict(rules: Iterable[Rule], row: Row, statistics: dict[str, Any]) -> Verdict | None:
    """Returns the verdict of the first rule that has one.

    Raises:
      UserError: a rule from outside of the package fails, or gives something else.
    """
    for rule in rules:
        try:
            verdict = rule.verdict(row, statistics)
        except Exception as error:
            if (told := failure_of_foreign(questions.inner(rule), error)) is None:
                raise
            raise told from error
        if verdict is not None:
            if not isinstance(verdict, Verdict):
                raise UserError(f"{type(rule).__name__}.verdict gives {verdict!r}; it must give a Verdict, or None")
            return verdict
    return None


def _characters(each: RawDocument | QuarantinedRow) -> int:
    return len(each.text) if isinstance(each, RawDocument) else 0


def _add_columns(rows: Sequence[dict[str, Any]], documents: Sequence[RawDocument], scorers: Sequence[Scorer]) -> None:
    """Adds the columns of scorers to the rows of these documents."""
    if not documents:
        return
    for scorer in scorers:
        try:
            scored = scorer.score(documents)
        except Exception as error:
            if (told := failure_of_foreign(scorer, error)) is None:
                raise
            raise told from error
        if is_foreign(scorer):
            _check_scored(scorer, scored, len(documents))
        for row, columns in zip(rows, scored, strict=True):
            row.update(columns)


def _check_scored(scorer: Scorer, scored: Sequence[Row], documents: int) -> None:
    """Raises UserError unless a scorer gives one row for each document, with the columns of its schema."""
    name, columns = type(scorer).__name__, {field.name for field in scorer.schema()}
    if len(scored) != documents:
        raise UserError(f"{name}.score gives {len(scored)} rows for {documents} documents; it must give one for each")
    for row in scored:
        if row.keys() != columns:
            raise UserError(
                f"{name}.score gives the columns {sorted(row)}, its schema has {sorted(columns)}; correct one"
            )


def _quarantine_row(row: QuarantinedRow) -> dict[str, Any]:
    return {
        "source": row.source,
        "file": row.file,
        "row": row.row,
        "reason": str(row.reason),
        "detail": row.detail,
    }


def _too_slow(document: RawDocument, seconds: float) -> dict[str, Any]:
    return {
        "source": document.source,
        "file": document.file,
        "row": document.row,
        "reason": TOO_SLOW,
        "detail": f"scoring took longer than {seconds:g} s",
    }
