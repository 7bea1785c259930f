"""The `provenance` command: which documents a step was trained on, and which steps were trained on a document."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import json
from collections.abc import Sequence
from typing import Any

import pyarrow.compute
from etils import epath

from apertus_jax import artifacts
from apertus_jax.corpus.documents import DOCUMENT_ID
from apertus_jax.corpus.removal.requests import parse_day
from apertus_jax.data.provenance import DocumentUse, Phase, uses_in_phases, uses_of_step
from apertus_jax.data.recorded_stream import recorded_streams, steps_done
from apertus_jax.data.token_store import HELD_OUT, TokenStore
from apertus_jax.data.tombstoned_documents import find_tombstoned, open_tombstones
from apertus_jax.errors import UserError
from apertus_jax.printable import printable

KIND = "provenance"
USES_FILE = "uses.jsonl"
RUN_FILE = "run.json"
ROWS_SHOWN = 40
CHARACTERS_SHOWN = 60


def provenance(
    run: epath.PathLike,
    question: str,
    store: str = "",
    output: str = "",
    steps: int = 0,
    tombstones: str = "",
    today: str = "",
    show_text: bool = False,
) -> list[dict[str, Any]]:
    """Prints which documents a step read, or which steps read a document; returns a row for each use.

    The order is computed again from mixture.json of the run and the token store, and compared with what the run
    recorded. A use is a stretch of a document in one row of a step's batch; which of its tokens gave loss is for the
    loss masks of the run to say.

    Args:
      run: folder that `pretrain` wrote.
      question: a step (a number), a document's identity (32 hexadecimal digits), an address, or a removal request.
      store: the token store; "" takes the place that the run recorded.
      output: folder for all uses as uses.jsonl, beside what is printed; "" for none.
      steps: how many steps to look through; 0 for those that the run has done, as far as its log says.
      tombstones: folder that `remove` wrote, for removal requests.
      today: day on which requests must be in effect, YYYY-MM-DD; "" for the present one.
      show_text: also the beginning of the text of each use.

    Raises:
      UserError: the run, the store or the tombstones are unusable, or nothing answers to the question.
    """
    root = epath.Path(run)
    opened = TokenStore.open(store or _recorded_store(root))
    phases = recorded_streams(root, opened)
    done = steps or steps_done(root)
    question = str(question)
    if question.isdecimal() and not DOCUMENT_ID.fullmatch(question):
        uses = _uses_of_step(phases, int(question), done, root)
        title = f"step {int(question)}: {len(uses)} stretches of {len({_document(use) for use in uses})} documents"
    else:
        documents = _documents_named(opened, question, tombstones, today)
        uses = [use for source, number in documents for use in uses_in_phases(phases, source, number, done)]
        uses.sort(key=lambda use: (use.step, use.row, use.offset))
        title = f"{question}: {_read(uses)} in {done} steps{_held_out_note(documents)}"
    rows = [_row(use, opened, show_text) for use in uses]
    if output:
        _write(output, rows, {"question": question, "steps": done, "store": opened.digest, "show_text": show_text})
    _show(rows, title)
    return rows


def _recorded_store(run: epath.Path) -> str:
    """Returns where the token store of a run lay when it was started."""
    if not (run / RUN_FILE).exists():
        raise UserError(f"{run} has no {RUN_FILE}; give the folder that pretrain wrote")
    try:
        config = json.loads((run / RUN_FILE).read_text())["config"]
        return ast.literal_eval(config["pretrain.store"])
    except (OSError, ValueError, SyntaxError, KeyError) as error:
        raise UserError(
            f"{run / RUN_FILE} does not say where the token store lies ({error!r}); give --gin.provenance.store"
        ) from error


def _uses_of_step(phases: Sequence[Phase], step: int, done: int, run: epath.Path) -> list[DocumentUse]:
    """Returns the uses of one step, in the order that held for it."""
    if step >= done:
        raise UserError(f"{run} has done {done} steps, 0 to {done - 1}; give --steps to ask about the steps to come")
    phase = next(phase for phase in phases if phase.stop_step is None or step < phase.stop_step)
    return uses_of_step(phase.stream, step)


def _documents_named(store: TokenStore, question: str, tombstones: str, today: str) -> list[tuple[str, int]]:
    """Returns (source, number) of the documents of a store that have an identity or address, or a request names.

    Raises:
      UserError: there are none.
    """
    column = "document_id" if DOCUMENT_ID.fullmatch(question) else "url"
    found = []
    for name in store.source_names:
        matches = pyarrow.compute.equal(store.source(name).documents[column], question)
        found += [(name, number) for number in pyarrow.compute.indices_nonzero(matches).to_pylist()]
    if not found and tombstones:
        day = parse_day(today) if today else datetime.datetime.now(datetime.UTC).date()
        if day is None:
            raise UserError(f"provenance.today = {today!r} is not a day; write YYYY-MM-DD")
        found = find_tombstoned(store, open_tombstones(tombstones), day).documents_of(question)
    if not found:
        more = "" if tombstones else " (for a removal request, give --gin.provenance.tombstones)"
        raise UserError(
            f"{question!r} is no document of {store.folder}{more}; `apertus why` says whether the corpus kept it"
        )
    return found


def _document(use: DocumentUse) -> tuple[str, int]:
    return use.source, use.document


def _read(uses: Sequence[DocumentUse]) -> str:
    """Returns in words how often documents were read."""
    if not uses:
        return "not read"
    steps = sorted({use.step for use in uses})
    tokens = sum(use.length for use in uses)
    return f"{tokens} tokens read in {len(uses)} stretches, {len(steps)} steps from {steps[0]} to {steps[-1]},"


def _held_out_note(documents: Sequence[tuple[str, int]]) -> str:
    held_out = sum(source == HELD_OUT for source, _ in documents)
    return f"; {held_out} of {len(documents)} documents held out for evaluation" if held_out else ""


def _row(use: DocumentUse, store: TokenStore, show_text: bool) -> dict[str, Any]:
    """Returns a use and what the store knows of its document."""
    source = store.source(use.source)
    table = source.documents
    row = dataclasses.asdict(use) | {
        name: table[name][use.document].as_py() for name in ("language", "url") if name in table.column_names
    }
    if show_text:
        begin = int(source.document_starts[use.document]) + use.start
        row["text"] = store.tokenizer.decode(source.tokens(begin, use.length))
    return row


def _write(output: str, rows: Sequence[dict[str, Any]], inputs: dict[str, Any]) -> None:
    """Writes all uses."""
    if artifacts.already_built(output, KIND, inputs):
        return
    with artifacts.build(output, KIND, inputs) as build:
        with (build.path / USES_FILE).open("wb") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        build.summary.update(uses=len(rows))


def _show(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Prints the first uses as a table; markup in texts and addresses is shown, not obeyed."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(title)))
    with_text = bool(rows) and "text" in rows[0]
    for name in ("step: row, token", "document", "its tokens", "epoch", "language", "source"):
        table.add_column(name, no_wrap=True)  # what is asked about again stays whole, the last column gives way
    table.add_column("text" if with_text else "address", overflow="fold")
    for row in rows[:ROWS_SHOWN]:
        place = f"{row['step']}: {row['row']}, {row['offset']}"
        extent = f"{row['start']} to {row['start'] + row['length'] - 1}"
        last = row["text"][:CHARACTERS_SHOWN] if with_text else row.get("url") or ""
        cells = (place, row["document_id"], extent, row["epoch"], row.get("language", ""), row["source"], last)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    if len(rows) > ROWS_SHOWN:
        table.caption = f"and {len(rows) - ROWS_SHOWN} more; --output=FOLDER keeps all"
    Console().print(table)
