"""Rules and scorers from outside of the package: what they break is one line that names them."""

import types

import pyarrow
import pytest

from apertus_jax.corpus.prepare.policy import OnlySources
from apertus_jax.corpus.prepare.score import _add_columns, first_verdict
from apertus_jax.corpus.reasons import Reason, Verdict
from apertus_jax.errors import UserError
from apertus_jax.process.interruptions import TimeLimitExceeded

ROW = {"source": "web", "characters": 3}


class Rule:
    """Gives or raises what it was made with."""

    def __init__(self, result):
        self.result = result

    def verdict(self, row, statistics):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Scorer(Rule):
    def schema(self):
        return [pyarrow.field("moon_count", pyarrow.int64())]

    def score(self, documents):
        return self.verdict(None, None)


@pytest.mark.parametrize("wrap", [lambda rule: rule, lambda rule: OnlySources(rule, ["web"])], ids=["alone", "inside"])
def test_rule_that_fails_is_one_line(wrap):
    with pytest.raises(UserError, match=r"Rule of the module tests\S* fails with ZeroDivisionError: a b; correct it"):
        first_verdict([wrap(Rule(ZeroDivisionError("a\nb")))], ROW, {})
    with pytest.raises(TimeLimitExceeded):
        first_verdict([wrap(Rule(TimeLimitExceeded()))], ROW, {})


def test_rule_gives_a_verdict_or_nothing():
    verdict = Verdict(Reason.LENGTH, "short")
    assert first_verdict([Rule(None), Rule(verdict), Rule(True)], ROW, {}) is verdict
    with pytest.raises(UserError, match=r"Rule.verdict gives True; it must give a Verdict, or None"):
        first_verdict([Rule(True)], ROW, {})


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (KeyError("x"), "Scorer of the module .* fails with KeyError: 'x'"),
        ([], "Scorer.score gives 0 rows for 1 documents"),
        ([{"moons": 3}], r"Scorer.score gives the columns \['moons'\], its schema has \['moon_count'\]"),
    ],
    ids=["fails", "rows", "columns"],
)
def test_scorer_that_breaks_its_contract_is_one_line(result, told):
    rows, documents = [dict(ROW)], [types.SimpleNamespace(text="moon")]
    with pytest.raises(UserError, match=told):
        _add_columns(rows, documents, [Scorer(result)])
    _add_columns(rows, documents, [Scorer([{"moon_count": 1}])])
    assert rows == [ROW | {"moon_count": 1}]
