"""Tables of the terminal: legible at 80 columns, no word broken, nothing of a stranger obeyed."""

import re

import pytest

from apertus_jax.terminal.tables import show_fields, show_line, show_table

ADDRESS = "https://example.org/a-very-long-address/" + "part/" * 20
HOSTILE = "[red]x[/] \x1b[2J\u202e"


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def shown(capsys):
    return capsys.readouterr().out


def words(text):
    return [word for word in re.split(r"[\s│┃]+", text) if word]


def test_table_that_fits_is_one_line_a_row(capsys):
    show_table(("what", "amount"), [("documents", 12), ("tokens", 3456)], "store", right=("amount",))
    out = shown(capsys)
    assert "│ documents │     12 │" in out and max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_table_that_is_too_wide_wraps_between_words(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    sentence = " ".join(f"word-number-{number}" for number in range(12))
    show_table(("name", "sentence"), [("one", sentence), ("two", "short")])
    out = shown(capsys)
    assert max(map(len, out.splitlines())) <= columns
    assert [word for word in words(out) if word.startswith("word")] == sentence.split()


def test_row_whose_words_do_not_fit_is_shown_field_by_field(capsys):
    show_table(("document", "step", "address"), [("a" * 32, 7, ADDRESS), ("b" * 32, 8, "none")], "uses")
    lines = shown(capsys).splitlines()
    assert lines[0] == "uses" and lines[1] == f"– document  {'a' * 32}" and lines[3] == f"  address   {ADDRESS}"
    assert len(lines) == 7


def test_field_keeps_its_first_word_beside_its_name(capsys):
    show_fields([("address", ADDRESS), ("detail", "short words " * 12)], "title")
    lines = shown(capsys).splitlines()
    assert lines[1] == f"address  {ADDRESS}" and max(map(len, lines[2:])) <= 80
    assert all(line.startswith(" " * 9) for line in lines[3:])


def test_long_name_pushes_only_its_own_value(capsys):
    show_fields([("n" * 50, "value"), ("short", "other")])
    assert shown(capsys).splitlines() == [f"{'n' * 50}  value", f"{'short':<30}  other"]


def test_what_strangers_wrote_is_shown_and_not_obeyed(capsys):
    show_table(("a",), [(HOSTILE,)], HOSTILE)
    show_fields([(HOSTILE, HOSTILE)], HOSTILE)
    show_line(HOSTILE)
    out = shown(capsys)
    assert out.count("[red]x[/]") == 6 and not set(out) & set("\x1b\u202e")
