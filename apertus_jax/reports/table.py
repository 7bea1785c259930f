"""Tables of reports: text to the left, numbers to the right with their points below each other."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

# What a column of numbers may hold beside numbers: "1,234", "+0.12 [0.1, 0.2]", "12.3 %", "1.2 (1.1 – 1.3)", "–".
_NUMBER = r"[+−-]?[\d,.]*\d(?:e[+-]?\d+)?"
_UNIT = r"\s?(?:%|×|s|ms|[kMGT]?B|[kMT])?"
_ENDS = rf"{_NUMBER}{_UNIT}\s?(?:,|–|to)\s{_NUMBER}{_UNIT}"
NUMBER_TEXT = re.compile(
    rf"{_NUMBER}{_UNIT}(?:\s?±\s?{_NUMBER}{_UNIT})?(?:\s?[(\[]{_ENDS}[)\]])?|{_ENDS}|[(\[]{_ENDS}[)\]]"
)
# Characters of the longest cell of a column that is kept on one line: everywhere, and where there is width.
SHORT, MEDIUM = 16, 30
DASHES = ("", "–")


def table_html(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table; a column whose every cell is a number, or reads like one, is aligned right."""
    rows = [list(row) for row in rows]
    cells = [_column([row[number] for row in rows]) for number in range(len(columns))]
    style = [f' class="{kind}"' if kind else "" for _, kind in cells]
    head = "".join(f"<th{each}>{html.escape(name)}</th>" for name, each in zip(columns, style, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{each}>{html.escape(cell)}</td>" for cell, each in zip(row, style, strict=True)) + "</tr>"
        for row in zip(*(shown for shown, _ in cells), strict=True)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts_html(rows: Iterable[tuple[str, object]]) -> str:
    """Returns a table of names and values, both to the left: the values are of many kinds."""
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(shown_value(value))}</td></tr>'
        for name, value in rows
    )
    return f'<div class="scroll"><table class="facts"><tbody>{body}</tbody></table></div>'


def shown_value(value: object) -> str:
    """Returns a single value as text: whole numbers exact with thousands, others with four digits, None as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        text = str(value)
        return _minus(text) if NUMBER_TEXT.fullmatch(text) else text
    return _minus(f"{value:,}" if isinstance(value, int) else f"{value:,.4g}")


def _column(values: Sequence[object]) -> tuple[list[str], str]:
    """Returns the cells of a column as text, and its style."""
    floats = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    decimals = _decimals(floats)
    shown = [
        _minus(f"{value:,.{decimals}f}")
        if decimals is not None and isinstance(value, float) and math.isfinite(value)
        else shown_value(value)
        for value in values
    ]
    texts = [text for text in shown if text not in DASHES]
    if shown and all(NUMBER_TEXT.fullmatch(text) for text in texts):
        return shown, "number"
    longest = max(map(len, shown), default=0)
    return shown, "short" if longest <= SHORT else "medium" if longest <= MEDIUM else ""


def _decimals(values: Sequence[float]) -> int | None:
    """Returns how many decimals give the greatest value four digits; None where that leaves too little of others."""
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return 0 if values else None
    decimals = max(3 - math.floor(math.log10(max(sizes))), 0)
    # 91.0 and 92.5 need no more than they have.
    decimals = next((n for n in range(decimals) if all(round(size, n) == size for size in sizes)), decimals)
    least_shown = 10.0 ** (1 - decimals) / 2
    return None if decimals > 6 or (min(sizes) < least_shown and max(sizes) / min(sizes) > 1e3) else decimals


def _minus(text: str) -> str:
    return text.replace("e-", "e\0").replace("-", "−").replace("\0", "-")
