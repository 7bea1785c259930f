"""The day against which documents are judged is that of UTC, wherever the machine stands."""

import ast
import datetime
import json
import os
import time
from pathlib import Path

import pytest

import apertus_jax
from apertus_jax import clock
from apertus_jax.corpus.prepare.plan import make_plan
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.removal import RemovalScoring
from apertus_jax.corpus.sources import Source
from apertus_jax.corpus.sources.reading import read_unit


@pytest.fixture(params=["Etc/GMT+12", "America/Los_Angeles", "UTC", "Pacific/Kiritimati"])
def zone(request, monkeypatch):
    """Puts the machine into a time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("hour", [0, 12, 23])
def test_page_of_today_is_not_of_the_future(tmp_path, monkeypatch, zone, hour):
    moment = datetime.datetime(2026, 3, 1, hour, 30, tzinfo=datetime.UTC)
    monkeypatch.setattr(clock, "now", lambda: moment)
    days = {"2026-02-28": True, "2026-03-01": True, "2026-03-02": False}
    rows = [{"text": f"page of {day}", "crawl_date": day} for day in days]
    (tmp_path / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = make_plan([Source("web", str(tmp_path / "web.jsonl"))], tmp_path / "work", "", 1 << 20)
    assert plan.as_of == "2026-03-01", os.environ["TZ"]
    (unit,) = plan.units
    read = list(read_unit(plan.source_of(0), unit, today=plan.as_of))
    assert [isinstance(each, RawDocument) for each in read] == list(days.values())
    assert RemovalScoring().day() == datetime.date(2026, 3, 1)


def test_no_module_asks_for_the_day_of_the_machine():
    package = Path(apertus_jax.__file__).parent
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("today", "now", "utcnow", "localtime"):
                owner = ast.unparse(node.value)
                is_clock = owner in ("clock", "self", "options") or path.name == "clock.py"
                assert is_clock or owner not in ("datetime", "datetime.date", "datetime.datetime", "time"), path
