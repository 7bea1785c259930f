"""`verify` of an audit reads its cells, which have markers of their own."""

import os
import re

import pytest

from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization.memorization_command import KIND, PART_KIND
from apertus_jax.pipeline.verify_command import verify
from apertus_jax.storage import artifacts

CELLS = ("membership", "bucket_0/p16_s16_o0_greedy")


@pytest.fixture
def audit(tmp_path):
    """An audit of two cells, as the command leaves it."""
    root = tmp_path / "audit"
    for name in CELLS:
        with artifacts.build(root / "cells" / name, PART_KIND, {"cell": name}) as build:
            (build.path / "rows.jsonl").write_text('{"row": 1}\n')
    (root / "results.json").write_text("{}\n")
    artifacts.commit(root, KIND, {}, {}, without=("cells",))
    return root


def test_whole_audit_is_told_with_its_cells(audit):
    assert [row["amount"] for row in verify(str(audit)) if row["what"] == "cells"] == ["2"]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("damage", ["flipped", "missing", "added", "no marker", "pipe", "folder"])
def test_damaged_cell_of_an_audit_is_named(audit, cell, damage):
    rows = named = audit / "cells" / cell / "rows.jsonl"
    if damage == "flipped":
        rows.write_text('{"row": 2}\n')
    elif damage == "added":
        named = rows.parent / "more.jsonl"
        named.write_text("{}\n")
    elif damage == "no marker":
        (rows.parent / artifacts.COMMIT_MARKER).unlink()
    else:
        rows.unlink()
        if damage == "pipe":
            os.mkfifo(rows)
        elif damage == "folder":
            rows.mkdir()
    with pytest.raises(UserError, match=re.escape(str(named))):
        verify(str(audit))


def test_audit_without_cells_is_refused(audit):
    (audit / "cells").rename(audit.parent / "elsewhere")
    with pytest.raises(UserError, match="cells is missing"):
        verify(str(audit))


@pytest.mark.parametrize("content", [b"\xff", None], ids=["bytes", "pipe"])
def test_strange_recorded_configuration_is_named(audit, content):
    path = audit / "operative_config.gin"
    os.mkfifo(path) if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match="operative_config.gin"):
        verify(str(audit))
