"""Days are written YYYY-MM-DD, in ASCII digits, everywhere the same."""

import datetime

import pytest

from apertus_jax.clock import parse_day, require_day
from apertus_jax.corpus.prepare import Policy, prepare
from apertus_jax.corpus.removal import RemovalScoring
from apertus_jax.errors import UserError
from apertus_jax.release.data_summary import Declarations
from apertus_jax.release.output_filter import OutputFilter
from apertus_jax.training.tombstones import RemovalOptions

NO_DAYS = ["20261124", "2026-W48-2", "2026-11", "2026-02-30", "2026-1-2", " 2026-11-24", "２０２６-11-24", "today"]
TAKERS = {
    "prepare.as_of": lambda text, folder: prepare(str(folder / "out"), Policy(), documents="bundled", as_of=text),
    "RemovalScoring.today": lambda text, folder: RemovalScoring(today=text),
    "Declarations.last_update": lambda text, folder: Declarations(last_update=text),
    "OutputFilter.today": lambda text, folder: OutputFilter("file", "key", today=text),
    "RemovalOptions.date": lambda text, folder: RemovalOptions(date=text),
}


@pytest.mark.parametrize("text", NO_DAYS)
def test_other_spelling_than_the_calendar_day_is_none(text):
    assert parse_day(text) is None
    with pytest.raises(UserError, match="x.day = .* is not a day; write YYYY-MM-DD"):
        require_day(text, "x.day")


def test_calendar_day_is_read():
    assert parse_day("2024-02-29") == require_day("2024-02-29", "x") == datetime.date(2024, 2, 29)


@pytest.mark.parametrize("name", TAKERS)
def test_setting_that_is_no_day_is_named(name, tmp_path):
    with pytest.raises(UserError, match=f"{name} = '20261124' is not a day; write YYYY-MM-DD"):
        TAKERS[name]("20261124", tmp_path)
