"""The `provenance` command: which documents a step was trained on, and which steps were trained on a document."""

from __future__ import annotations

import dataclasses
import json as json_format
import os
from collections.abc import Sequence
from typing import Any

from etils import epath

from apertus_jax.corpus.documents import DOCUMENT_ID
from apertus_jax.data.provenance.ancestors import (
    AncestorAnswer,
    ancestors_of,
    ask_ancestor,
    find_documents,
    read_in_words,
    recorded_store,
)
from apertus_jax.data.provenance.recorded_stream import recorded_streams, steps_done
from apertus_jax.data.provenance.uses import DocumentUse, Phase, uses_in_phases, uses_of_step
from apertus_jax.data.store.token_store import HELD_OUT, TokenStore
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.terminal.json_output import print_json
from apertus_jax.terminal.tables import show_line

KIND = "provenance"
USES_FILE = "uses.jsonl"
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
    json: bool = False,
) -> list[dict[str, Any]]:
    """Prints which documents a step read, or which steps read a document; returns a row for each use.

    A run that started from weights of another run is asked with all its ancestors, as far as their folders are there;
    `run` in a row says which of them read the document.

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
      json: print one JSON object with every use in place of text.

    Raises:
      UserError: the run, the store or the tombstones are unusable, or nothing answers to the question.
    """
    root = epath.Path(run)
    opened = TokenStore.open(store or recorded_store(root))
    phases = recorded_streams(root, opened)
    done = steps or steps_done(root)
    question = str(question)
    ancestors: list[AncestorAnswer] = []
    if question.isdecimal() and not DOCUMENT_ID.fullmatch(question):
        uses = _uses_of_step(phases, int(question), done, root)
        title = f"step {int(question)}: {len(uses)} stretches of {len({_document(use) for use in uses})} documents"
    else:
        documents = find_documents(opened, question, tombstones, today)
        ancestors = [ask_ancestor(each, question, opened, tombstones, today) for each in ancestors_of(root)]
        if not documents and not any(ancestor.knows_it for ancestor in ancestors):
            more = "" if tombstones else " (for a removal request, give --gin.provenance.tombstones)"
            raise UserError(
                f"{question!r} is no document of {opened.folder}{more}; `apertus why` says whether the corpus kept it"
            )
        uses = [use for source, number in documents for use in uses_in_phases(phases, source, number, done)]
        uses.sort(key=lambda use: (use.step, use.row, use.offset))
        title = f"{question}: {read_in_words(uses)} in {done} steps{_held_out_note(documents)}"
    rows = [_row(use, opened, show_text) for use in uses]
    for ancestor in ancestors:
        if ancestor.store is not None:
            rows += [_row(use, ancestor.store, show_text) | {"run": ancestor.run} for use in ancestor.uses]
    if output:
        _write(output, rows, {"question": question, "steps": done, "store": opened.digest, "show_text": show_text})
    if json:
        told = {"ancestors": [ancestor.title for ancestor in ancestors]} if ancestors else {}
        answer = {"run": os.fspath(run), "question": question, "steps": done, "answer": title, "uses": rows}
        print_json(answer | told)
    else:
        _show(rows, title, [ancestor.title for ancestor in ancestors])
    return rows


def _uses_of_step(phases: Sequence[Phase], step: int, done: int, run: epath.Path) -> list[DocumentUse]:
    """Returns the uses of one step, in the order that held for it."""
    if step >= done:
        raise UserError(f"{run} has done {done} steps, 0 to {done - 1}; give --steps to ask about the steps to come")
    if step < phases[0].first_step:
        raise UserError(f"the order of step {step} of {run} is not on record; it begins at step {phases[0].first_step}")
    phase = next(phase for phase in phases if phase.stop_step is None or step < phase.stop_step)
    return uses_of_step(phase.stream, step)


def _document(use: DocumentUse) -> tuple[str, int]:
    return use.source, use.document


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
                file.write(json_format.dumps(row, ensure_ascii=False).encode() + b"\n")
        build.summary.update(uses=len(rows))


def _show(rows: Sequence[dict[str, Any]], title: str, ancestors: Sequence[str] = ()) -> None:
    """Prints the first uses, two lines each, of which identities and addresses are whole on every terminal."""
    for line in (title, *ancestors):
        show_line(line)
    step = None
    for row in rows[:ROWS_SHOWN]:
        if (row.get("run"), row["step"]) != step:
            step = row.get("run"), row["step"]
            show_line(f"step {row['step']} of {row['run']}" if "run" in row else f"step {row['step']}")
        last = row["start"] + row["length"] - 1
        show_line(
            f"tokens {row['start']} to {last} of {row['document_id']}, epoch {row['epoch']}",
            indent=4,
            head=f"  row {row['row']}, token {row['offset']}: ",
        )
        show_line(
            ", ".join(filter(None, (row["source"], row.get("language"), row.get("url")))), indent=6, head="      "
        )
        if "text" in row:
            show_line(f"“{row['text'][:CHARACTERS_SHOWN]}”", indent=6, head="      ")
    if len(rows) > ROWS_SHOWN:
        show_line(f"and {len(rows) - ROWS_SHOWN} more; --output=FOLDER keeps all, --json prints all")
