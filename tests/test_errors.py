"""What error lines show of the thing they are about."""

import pytest

from apertus_jax.errors import LONGEST_PATH_SHOWN, shown_path


@pytest.mark.parametrize("path", ["", "/", "a/b c/d.gin", "/work/" + "n" * 64, "s3://bucket/x"])
def test_a_path_is_shown_as_it_is(path):
    assert shown_path(path) == path


@pytest.mark.parametrize("root", ["", "/tmp/pytest-of-root/pytest-166/test_every_cell_of_a_command_reproduce0/cell17/"])
def test_a_too_long_name_is_told_by_its_start(root):
    assert shown_path(f"{root}{'n' * 300}/run.json") == f"{root}{'n' * 32}…/run.json"


def test_both_ends_of_a_long_path_are_shown():
    deep = "/".join(["start", *["folder"] * 500, "end"])
    assert shown_path(deep).startswith("start/folder/") and shown_path(deep).endswith("/folder/end")
    assert len(shown_path(deep)) == LONGEST_PATH_SHOWN + 1


def test_bytes_that_are_no_text_are_shown():
    assert shown_path(b"caf\xe9/x") == "caf\ufffd/x"
