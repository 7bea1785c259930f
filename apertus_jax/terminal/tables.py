"""Tables and fields of the terminal: legible at 80 columns, and no word is ever broken, in a pipe or on a screen.

A table that does not fit has its words wrapped; one whose words do not fit is shown row by row, a field on each line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from apertus_jax.terminal.terminal_text import printable

PADDING = 3  # of a column: its border and a blank on either side
NARROWEST = 24  # what a value gets at least beside the name of its field
LONGEST_NAME = 30  # names that are longer push their own value to the right, not all of them


def show_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str = "",
    right: Collection[str] = (),
    to_errors: bool = False,
) -> None:
    """Prints a table; what a terminal obeys is shown, markup too.

    Args:
      columns: headings; all "" for none.
      rows: a cell for each column.
      title: stands above.
      right: headings of columns whose cells align right.
      to_errors: prints to standard error.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    from apertus_jax.terminal.screen import Screen

    console = Screen(stderr=to_errors)
    cells = [[printable(cell) for cell in row] for row in rows]
    every = [list(column) for column in zip(columns, *cells, strict=True)]
    natural = [max(map(cell_len, column)) for column in every]
    least = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in every]
    room = console.width - PADDING * len(columns) - 1
    if sum(least) > room:
        if title:
            show_line(title, to_errors=to_errors)
        for row in cells:
            show_fields(zip(columns, row, strict=True), to_errors=to_errors, bullet="– ")
        return
    table = Table(title=Text(printable(title)) if title else None, show_header=any(columns))
    for name, width in zip(columns, _widths(natural, least, room), strict=True):
        table.add_column(Text(name), justify="right" if name in right else "left", width=max(width, 1))
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def _widths(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Returns a width for each column: its longest line where all fit, else more for those that need more."""
    widths = list(least)
    while sum(widths) < min(room, sum(natural)):
        neediest = max(range(len(widths)), key=lambda column: natural[column] / max(widths[column], 1))
        widths[neediest] += 1
    return widths


def show_fields(
    fields: Iterable[tuple[object, object]], title: str = "", to_errors: bool = False, bullet: str = ""
) -> None:
    """Prints names and values, a field on each line, long values wrapped between words under one another.

    Args:
      fields: (name, value).
      title: stands above.
      to_errors: prints to standard error.
      bullet: stands before the first name; the other lines are indented as far.
    """
    from rich.cells import cell_len

    shown = [(printable(name), printable(value)) for name, value in fields]
    longest = min(max((cell_len(name) for name, _ in shown), default=0), LONGEST_NAME)
    indent, lines = len(bullet) + longest + 2, [wrapped(title)] if title else []
    for number, (name, value) in enumerate(shown):
        start = bullet if not number else " " * len(bullet)
        lines.append(wrapped(value, indent, f"{start}{name}{' ' * max(longest - cell_len(name), 0)}  "))
    _print("\n".join(lines), to_errors)


def show_line(text: str, indent: int = 0, head: str = "", to_errors: bool = False) -> None:
    """Prints a text after `head`, see `wrapped`."""
    _print(wrapped(text, indent, head), to_errors)


def wrapped(text: str, indent: int = 0, head: str = "") -> str:
    """Returns `head` and a text in lines as wide as the terminal, wrapped between words, all but the first indented."""
    from rich.cells import cell_len

    from apertus_jax.terminal.screen import Screen

    width = Screen().width
    first, *words = printable(text).split(" ")
    lines = [head + first]
    for word in words:
        if cell_len(lines[-1]) + 1 + cell_len(word) > max(width, indent + NARROWEST):
            lines.append(" " * indent + word)
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def _print(text: str, to_errors: bool) -> None:
    from apertus_jax.terminal.screen import Screen

    Screen(stderr=to_errors).print(text, soft_wrap=True, markup=False, highlight=False)
