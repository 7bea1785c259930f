"""What a rule may declare: statistics of its own, that it is asked after the choice among copies."""

import collections
import dataclasses
import json
from typing import ClassVar

import pytest

from apertus_jax.corpus.classifiers import QualityScoreRule, ToxicityRule, percentile_statistics
from apertus_jax.corpus.duplicates import DuplicateRule
from apertus_jax.corpus.language import LanguageRule, language_statistics
from apertus_jax.corpus.ledger import parts_of
from apertus_jax.corpus.prepare import OnlySources, Policy, corpus_stages, prepare, unit_stages
from apertus_jax.corpus.prepare.aggregate import gather_statistics
from apertus_jax.corpus.prepare.tables import read_rows
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.corpus.sources import Source
from apertus_jax.errors import UserError
from tests.corpus.prepare.prepare_inputs import AS_OF, small_policy, write_corpus

SCORED = [
    {
        "language": label,
        "language_label": label,
        "language_score": 0.5 + number / 500,
        "language_declared": None,
        "sample_key": number * 7919,
        "quality_score": (number * 37 % 200) / 200,
        "toxicity_score": (number * 53 % 200) / 200,
    }
    for label in ("deu_Latn", "fra_Latn")
    for number in range(200)
]


class HostCounts:
    """How many documents each host has."""

    columns = ("authority",)

    def __init__(self):
        self.counts = collections.Counter()

    def add(self, row):
        self.counts[row["authority"]] += 1

    def result(self):
        return dict(sorted(self.counts.items()))


@dataclasses.dataclass(frozen=True)
class LargeHosts:
    """A rule of somebody's own: hosts of more than so many documents go."""

    most: int

    def statistics(self):
        return {"hosts": HostCounts()}

    def verdict(self, row, statistics):
        count = statistics["hosts"][row["authority"]]
        return Verdict(Reason.LENGTH, f"{count} documents") if count > self.most else None


@dataclasses.dataclass(frozen=True)
class LastOfCopies(DuplicateRule):
    """A rule of somebody's own about copies: it names the ones that go in its own words."""

    def verdict(self, row, statistics):
        verdict = super().verdict(row, statistics)
        return verdict and Verdict(verdict.reason, f"a copy, as {len(statistics['hosts'])} hosts have them")


def run(folder, corpus, policy, **options):
    source = Source(name="web", path=str(corpus), id_field="id")
    options = {"launcher": "inline", "progress": False, "as_of": AS_OF, "unit_bytes": 9000} | options
    prepare(str(folder), policy, sources=[source], **options)
    return [row for part in parts_of(folder) for row in read_rows(part / "ledger.parquet")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("rules") / "docs")


def test_rule_finds_the_statistics_that_it_declared(corpus, tmp_path):
    policy = small_policy()
    policy = dataclasses.replace(policy, content_rules=(LargeHosts(17), LastOfCopies()))
    rows = run(tmp_path / "out", corpus, policy)
    hosts = collections.Counter(row["authority"] for row in rows)
    assert max(hosts.values()) > 17 >= min(hosts.values())
    assert json.loads((tmp_path / "out" / "statistics.json").read_text())["hosts"] == hosts
    for row in rows:
        if row["reason"] != Reason.DUPLICATE_ID:
            assert (row["detail"] == f"{hosts[row['authority']]} documents") == (hosts[row["authority"]] > 17)
    copies = [row["detail"] for row in rows if row["reason"] == Reason.EXACT_DUPLICATE]
    assert copies and set(copies) == {"a copy, as 7 hosts have them"}


def test_statistics_of_all_rules_take_one_pass():
    asked = []

    def rows_of(columns):
        asked.append(columns)
        return SCORED

    quality = QualityScoreRule(keep_share=0.4, keep_shares={"fra_Latn": 0.2})
    rules = [LanguageRule(), OnlySources(quality, ["web"]), ToxicityRule(drop_share=0.1)]
    expected = {"language": language_statistics(SCORED)} | percentile_statistics(
        SCORED, quality_keep=(0.2, 0.4), toxicity_drop=(0.1,)
    )
    assert gather_statistics(rules, rows_of) == expected
    assert len(asked) == 1 and len(set(asked[0])) == len(asked[0])
    languages = expected["percentiles"]["languages"]
    assert languages["deu_Latn"]["quality"].keys() == {"0.2", "0.4"} and languages["deu_Latn"]["toxicity"]


@pytest.mark.parametrize("rules", [[], [LanguageRule(per_language_thresholds=False), DuplicateRule()]])
def test_corpus_is_not_read_for_statistics_that_no_rule_asks(rules):
    def rows_of(columns):
        raise AssertionError(columns)

    assert gather_statistics(rules, rows_of) == {}


def test_stages_are_made_once_in_a_process(corpus, tmp_path, monkeypatch):
    made = collections.Counter()
    for module, name in (
        *((unit_stages, name) for name in ("ScoreStage", "DecideStage", "ApplyStage")),
        *((corpus_stages, name) for name in ("AggregateStage", "SelectStage", "FinishStage")),
    ):
        stage = getattr(module, name)

        def begin(self, *arguments, _begin=stage.__init__, _name=name):
            made[_name] += 1
            _begin(self, *arguments)

        monkeypatch.setattr(stage, "__init__", begin)
    rows = run(tmp_path / "out", corpus, small_policy())
    assert len(rows) == 120 and len(parts_of(tmp_path / "out")) > 1
    assert made == dict.fromkeys(made, 1) and len(made) == 6


class SecondNaming(LanguageRule):
    """Another class that names the language."""

    names_language: ClassVar[bool] = True


@pytest.mark.parametrize(
    "rules, message",
    [
        ([DuplicateRule(), LastOfCopies()], "2 parts DuplicateRule and LastOfCopies; keep one"),
        ([LanguageRule(), OnlySources(SecondNaming(), ["web"])], "2 parts LanguageRule and SecondNaming; keep one"),
    ],
)
def test_policy_with_two_parts_for_one_place_is_refused(rules, message):
    with pytest.raises(UserError, match=message):
        Policy(content_rules=rules)


@pytest.mark.parametrize("rule", [LargeHosts(3), DuplicateRule(), OnlySources(LargeHosts(3), ["web"])])
def test_consent_rule_that_must_know_the_corpus_is_refused(rule):
    with pytest.raises(UserError, match="consent_rules holds (LargeHosts|DuplicateRule), which must know the whole"):
        Policy(consent_rules=[rule])
    Policy(content_rules=[rule])


def test_rule_about_copies_inside_only_sources_is_refused():
    with pytest.raises(UserError, match="OnlySources.rule cannot be a LastOfCopies; DuplicateScoring.scope = 'source'"):
        OnlySources(LastOfCopies(), ["web"])
