"""Arguments of a megabyte are told in a short line."""

import pytest

from apertus_jax.cli import main
from apertus_jax.terminal.terminal_text import LONGEST_LINE

MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    "argument",
    [
        "--gin.tokenize.documents='" + "x" * (1 << 17) + "'",
        "--gin.tokenize.documents='" + "x" * MEGABYTE + "'",
        "--gin." + "x" * MEGABYTE + "=1",
        "--gin.tokenize.documents=[" + "1," * MEGABYTE + "]",
        "--import=" + "a" * MEGABYTE,
        "--gin_file=" + "a" * MEGABYTE,
        "--input=" + "a/" * MEGABYTE,
    ],
    ids=["long text", "text", "name", "list", "module", "gin file", "path"],
)
def test_long_argument_is_told_in_a_short_line(tmp_path, capsys, argument):
    assert main(["tokenize", f"--output={tmp_path / 'out'}", argument]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and len(shown) < LONGEST_LINE + 20
    assert not (tmp_path / "out").exists()
