"""The `remove` command: removal requests → tombstones."""

from __future__ import annotations

import collections
import datetime
from collections.abc import Sequence
from typing import Any

from etils import epath

from apertus_jax.corpus.removal.keys import Scope, authority_hash, key_digest
from apertus_jax.corpus.removal.requests import Decision, RemovalRequest, read_requests
from apertus_jax.corpus.removal.tombstones import (
    INDEX_FILE,
    KIND,
    REQUESTS_FILE,
    TOMBSTONES_FORMAT,
    Tombstones,
    index_schema,
    requests_schema,
)
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts


def remove(input: epath.PathLike, output: epath.PathLike, supersedes: epath.PathLike | None = None) -> dict[str, Any]:
    """Makes tombstones of a file of removal requests; returns their summary.

    Idempotent: returns immediately if the output is complete.

    Args:
      input: JSONL file of all requests so far, its format: `apertus_jax.corpus.removal.requests`, and docs/corpus.md.
      output: the folder to write.
      supersedes: the tombstones that these take the place of. Every request of theirs must still be in the file, about
        the same thing; its decision and date may have changed.

    Raises:
      UserError: a row is not a request, a request of the superseded version is missing or about something else, or the
        output folder holds something else. Nothing is left half-written.
    """
    requests = read_requests(input)
    before = Tombstones.open(supersedes) if supersedes else None
    if before is not None:
        _refuse_lost_requests(requests, before, epath.Path(input))
    inputs = {
        "format": TOMBSTONES_FORMAT,
        "requests": artifacts.digest_json([_row(request) for request in requests]),
        "supersedes": before.digest if before else None,
    }
    if not artifacts.already_built(output, KIND, inputs):
        with artifacts.build(output, KIND, inputs) as build:
            _write_requests(build.path / REQUESTS_FILE, requests)
            _write_index(build.path / INDEX_FILE, requests)
            build.summary.update(_summary(requests, before))
    return dict(artifacts.read_manifest(output, KIND)["summary"])


def _summary(requests: Sequence[RemovalRequest], before: Tombstones | None) -> dict[str, Any]:
    granted = [request for request in requests if request.decision == Decision.GRANTED]
    days = sorted({request.effective_date for request in granted})
    return {
        "version": before.version + 1 if before else 1,
        "supersedes": [before.digest, *before.supersedes] if before else [],
        "requests": len(requests),
        "decisions": dict(sorted(collections.Counter(str(request.decision) for request in requests).items())),
        "scopes": dict(sorted(collections.Counter(str(request.scope) for request in granted).items())),
        "granted": len(granted),
        "first_effective_date": days[0] if days else "",
        "last_effective_date": days[-1] if days else "",
    }


def _refuse_lost_requests(requests: Sequence[RemovalRequest], before: Tombstones, file: epath.Path) -> None:
    """Raises UserError when a request of the superseded version has vanished or now means something else."""
    now = {request.id: request for request in requests}
    for request_id, scope, digest in before.requests():
        if request_id not in now:
            raise UserError(
                f"{file} lacks request {request_id} of the superseded {before.folder}; requests are never taken out: "
                "add it again, with decision refused if it was withdrawn"
            )
        if (now[request_id].scope, now[request_id].value_digest) != (scope, digest):
            raise UserError(
                f"{file}: request {request_id} is about something else than in the superseded {before.folder}; give "
                "the new one an id of its own"
            )


def _row(request: RemovalRequest) -> dict[str, str]:
    return {
        "id": request.id,
        "received": request.received,
        "basis": request.basis,
        "scope": str(request.scope),
        "value": request.value,
        "key": request.key,
        "value_digest": request.value_digest,
        "decision": str(request.decision),
        "effective_date": request.effective_date,
    }


def _write_requests(path: epath.Path, requests: Sequence[RemovalRequest]) -> None:
    """Writes every request, sorted by id."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([_row(request) for request in requests], schema=requests_schema())
    with path.open("wb") as file:
        pyarrow.parquet.write_table(table, file, compression="zstd")


def _write_index(path: epath.Path, requests: Sequence[RemovalRequest]) -> None:
    """Writes the granted requests for lookup, sorted by key, without the values."""
    import pyarrow
    import pyarrow.parquet

    granted = [request for request in requests if request.decision == Decision.GRANTED]
    digests = [key_digest(request.scope, request.key) for request in granted]
    days = [datetime.date.fromisoformat(request.effective_date).toordinal() for request in granted]
    prefixes = [request.scope == Scope.URL_PREFIX for request in granted]
    order = sorted(range(len(granted)), key=lambda number: (digests[number], days[number], granted[number].id))
    columns = {
        "key_high": [int.from_bytes(digests[number][:8], "big") for number in order],
        "key_low": [int.from_bytes(digests[number][8:], "big") for number in order],
        "effective_day": [days[number] for number in order],
        "request": [granted[number].id for number in order],
        "scope": [str(granted[number].scope) for number in order],
        "authority": [
            authority_hash(granted[number].key.partition("/")[0]) if prefixes[number] else None for number in order
        ],
        "prefix_length": [len(granted[number].key) if prefixes[number] else None for number in order],
    }
    with path.open("wb") as file:
        pyarrow.parquet.write_table(pyarrow.table(columns, schema=index_schema()), file, compression="zstd")
