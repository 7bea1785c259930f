"""Progress: bars on a terminal, elsewhere a line every so many seconds."""

import io
import time

import pytest

from apertus_jax.terminal import progress
from apertus_jax.terminal.progress import Heartbeat, ProgressBars, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def errors_to(monkeypatch):
    """Puts something in the place of standard error; a test calls it itself, because pytest does so too."""

    def put(stream):
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return put


def test_bars_show_what_is_done_on_a_terminal(errors_to):
    stream = errors_to(Terminal())
    with ProgressBars(stay=True) as bars:
        bar = bars.bar("[/]scoring", 4)
        bar.advance(3)
        bar.move(4, "loss 1.5")
        bars.print("[a note]")
        assert list(bars.track(range(3), "writing", 3)) == [0, 1, 2]
    shown = stream.getvalue()
    assert "[/]scoring" in shown and "4/4" in shown and "loss 1.5" in shown and "[a note]" in shown


@pytest.mark.parametrize("wanted, kind", [(False, Terminal), (True, io.StringIO)])
def test_bars_are_silent_where_nobody_looks(wanted, kind, errors_to):
    stream = errors_to(kind())
    with ProgressBars(wanted) as bars:
        assert not bars.shown
        bars.bar("scoring", 4).advance()
        assert list(bars.track("ab", "x", 2)) == ["a", "b"]
    assert list(track("ab", "x", 2, wanted)) == ["a", "b"]
    assert stream.getvalue() == ""


def test_line_says_how_far_the_work_is_where_no_terminal_is(errors_to, monkeypatch):
    stream = errors_to(io.StringIO())
    monkeypatch.setattr(progress, "_last_line", 0.0)
    beat = Heartbeat("prepare", seconds=1.0)
    assert beat.line() == ""  # most commands have ended by then
    with ProgressBars() as bars:
        bars.bar("score", 32).advance(5)
        bars.bar("[/]tokens", None, text="here").advance(1234)
        assert beat.line() == "prepare: score 5 of 32, [/]tokens 1,234 here, 0 s"
        bars.print("step 1/4")
        assert beat.line() == ""  # a line has just been said
    assert stream.getvalue() == "step 1/4\n"
    monkeypatch.setattr(progress, "_last_line", 0.0)
    beat = Heartbeat("prepare", seconds=1e-9)
    assert beat.line() == "prepare: at work, 0 s"


def test_line_is_left_to_the_bar_on_a_terminal(errors_to, monkeypatch):
    errors_to(Terminal())
    monkeypatch.setattr(progress, "_last_line", 0.0)
    beat = Heartbeat("prepare", seconds=1.0)
    with ProgressBars() as bars:
        bars.bar("score", 2)
        assert beat.line() == ""


def test_heartbeat_speaks_while_a_command_works_and_ends_with_it(errors_to, monkeypatch):
    stream = errors_to(io.StringIO())
    monkeypatch.setattr(progress, "_last_line", 0.0)
    with Heartbeat("why\x1b", seconds=0.01):
        while not stream.getvalue():
            time.sleep(0.01)
    said = stream.getvalue()
    assert said.startswith("why\N{REPLACEMENT CHARACTER}: at work, ") and said.endswith(" s\n")
    time.sleep(0.05)
    assert stream.getvalue() == said
