"""The `tombstoned` command: which texts of an older token store removal requests name, and where they lie.

    documents.jsonl    one object per document: its text, where it lies in the store, and the request that names it

This answers a removal request about what was trained on before it came (docs/reference/data.md §13), and is what
`output-filter` reads to keep models that saw these documents from reciting them. The folder holds exactly what somebody
asked to have removed: it is personal data. Keep it apart, and delete it once the filter is built.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from apertus_jax import clock
from apertus_jax.data.provenance.tombstoned_documents import TombstonedDocuments, find_tombstoned, open_tombstones
from apertus_jax.data.sample_order.sample_index import windows_of_range
from apertus_jax.data.store.token_store import HELD_OUT, TokenStore
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

KIND = "tombstoned_documents"
DOCUMENTS_FILE = "documents.jsonl"


def tombstoned(
    store: epath.PathLike,
    output: epath.PathLike,
    tombstones: epath.PathLike,
    today: str = "",
    sequence_length: int | None = None,
) -> dict[str, Any]:
    """Writes the texts of a store's documents that requests in effect name; returns a summary.

    Idempotent: returns immediately if the output is complete.

    Rows are {"text", "source", "document", "document_id", "request", "first_token", "tokens"}: `document` is its number
    in the source, `first_token` its place in the source's tokens, both from 0. The text is what the tokens spell,
    personal data rewritten as it was for training. Which steps of a run saw it is for
    the command `provenance` to say.

    Args:
      store: token store that may have been made before the requests.
      output: the folder to write; personal data.
      tombstones: folder that `remove` wrote.
      today: day on which requests must be in effect, YYYY-MM-DD; "" for the present one.
      sequence_length: of training; then rows have "samples", [first, last] of the source's windows of this length
        (`WindowIndex`) that hold a token of the document, or null where none does.

    Raises:
      UserError: the store or the tombstones are not complete folders of theirs, or the output holds something else.
    """
    day = clock.require_day(today, "tombstoned.today") if today else clock.today()
    if sequence_length is not None and sequence_length < 1:
        raise UserError(f"tombstoned.sequence_length={sequence_length} must be at least 1")
    opened, requests = TokenStore.open(store), open_tombstones(tombstones)
    inputs = {
        "store": opened.digest,
        "tombstones": requests.digest,
        "requests_in_effect": requests.num_in_effect(day),
        "sequence_length": sequence_length,
    }
    if not artifacts.already_built(output, KIND, inputs):
        found = find_tombstoned(opened, requests, day)
        with artifacts.build(output, KIND, inputs) as build:
            with (build.path / DOCUMENTS_FILE).open("wb") as file:
                for row in _rows(opened, found, sequence_length):
                    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            build.summary.update(
                documents=found.num_documents,
                held_out_documents=found.num_documents - found.num_training_documents,
                tokens=sum(found.tokens.values()),
                documents_of_sources={name: len(numbers) for name, numbers in found.numbers.items()},
                requests=len({request for named in found.requests.values() for request in named}),
            )
    return dict(artifacts.read_manifest(output, KIND)["summary"])


def _rows(store: TokenStore, found: TombstonedDocuments, sequence_length: int | None) -> Iterator[dict[str, Any]]:
    for name in sorted(found.numbers):
        source = store.source(name)
        identities = source.documents["document_id"]
        for number, request in zip(found.numbers[name].tolist(), found.requests[name], strict=True):
            begin, end = (int(place) for place in source.document_starts[number : number + 2])
            row = {
                # Boundary tokens are no text; the markers of rewritten personal data are.
                "text": store.tokenizer.decode(source.tokens(begin + 1, end - begin - 2)),
                "source": name,
                "document": number,
                "document_id": identities[number].as_py(),
                "request": request,
                "first_token": begin,
                "tokens": end - begin,
            }
            if sequence_length is not None:
                num_samples = 0 if name == HELD_OUT else (source.num_tokens - 1) // sequence_length
                windows = windows_of_range(begin, end, sequence_length, num_samples)
                row["samples"] = [int(windows[0]), int(windows[-1])] if len(windows) else None
            yield row
