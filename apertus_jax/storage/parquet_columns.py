"""Parquet schema checks: whether a table from others has the columns that its readers use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apertus_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow


def require_columns(found: pyarrow.Schema, expected: pyarrow.Schema, where: Any) -> None:
    """Checks that a table has all expected columns with their types; other columns are left alone.

    Raises:
      UserError: a column is missing or of another type; one line names it.
    """
    for field in expected:
        if field.name not in found.names:
            raise UserError(f"{where} lacks the column {field.name}; restore it, or write it again")
        kind = found.field(field.name).type
        if kind != field.type:
            raise UserError(
                f"{where}: column {field.name} holds {str(kind)[:40]} where {field.type} is expected; restore it"
            )


def require_values(table: pyarrow.Table, names: Sequence[str], where: Any) -> None:
    """Checks that columns have a value in every row.

    Raises:
      UserError: one has not; one line names it.
    """
    for name in names:
        if table[name].null_count:
            raise UserError(f"{where}: column {name} has rows without a value; restore it, or write it again")
