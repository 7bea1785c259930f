"""Builder of a robots.txt snapshot: the files as they were on a chosen day."""

from __future__ import annotations

import collections
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from apertus_jax.corpus.documents import check_names
from apertus_jax.corpus.robots_snapshot.files import read_files
from apertus_jax.corpus.robots_snapshot.responses import ResponseStore, RobotsRecord, format_time
from apertus_jax.corpus.robots_snapshot.states import robots_state
from apertus_jax.corpus.robots_snapshot.table import KIND, TableWriter
from apertus_jax.corpus.robots_snapshot.warc import read_warc
from apertus_jax.corpus.web.dates import parse_date
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.listing import list_files, regular_file
from apertus_jax.terminal.progress import track

AUTO, WARC, FILES = "auto", "warc", "files"
_LAYOUTS = (AUTO, WARC, FILES)


def build_robots_snapshot(
    input: epath.PathLike | Sequence[epath.PathLike],
    output: epath.PathLike,
    as_of: str,
    layout: str = AUTO,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes a snapshot folder and returns its summary.

    Idempotent: returns immediately if the output is complete.

    For each scheme and authority the newest answer at or before `as_of` counts, with its status; redirects are
    followed through the other answers of the input, and the rules belong to the authority that was asked first
    (RFC 9309 §2.3.1.2). Memory stays flat; the temporary folder (TMPDIR) needs about the size of the input. The order
    and the names of WARC files leave no trace in the output.

    Args:
      input: WARC files of Common Crawl's robotstxt subset, folders of them, or one folder of files named by host
        (see `read_files`).
      output: the folder to write.
      as_of: a day (YYYY-MM-DD), month or year, all of it in UTC, or a time in ISO 8601.
      layout: `warc` or `files`; `auto` takes a folder without any .warc file as `files`.
      progress: shows a bar on a terminal.

    Raises:
      UserError: an input is missing or damaged, or holds no answer that old, or the output folder holds something else.
    """
    not_after = _last_second(as_of)
    if layout not in _LAYOUTS:
        raise UserError(f"layout is {layout!r}; choose one of {', '.join(_LAYOUTS)}")
    paths = [
        epath.Path(path) for path in ([input] if isinstance(input, str) or hasattr(input, "__fspath__") else input)
    ]
    layout, files = _find_files(paths, layout)
    inputs = {"as_of": format_time(not_after), "layout": layout, "files": _digest_of(files, layout)}
    if artifacts.already_built(output, KIND, inputs):
        return dict(artifacts.read_manifest(output, KIND)["summary"])
    with tempfile.TemporaryDirectory() as scratch, artifacts.build(output, KIND, inputs) as build:
        store = ResponseStore(Path(scratch) / "responses.sqlite")
        try:
            responses = 0
            read = files if layout == WARC else paths
            for path in track(read, "reading robots.txt answers", len(read), progress):
                responses += store.add(read_warc(path) if layout == WARC else read_files(path), not_after)
            if responses == 0:
                raise UserError(f"{paths[0]}: no answer at or before {as_of}; choose a later day or other files")
            states: collections.Counter[str] = collections.Counter()
            TableWriter(build.path).write(_counted(store.records(), states))
        finally:
            store.close()
        build.summary.update(
            as_of=format_time(not_after),
            responses=responses,
            authorities=states.total(),
            states=dict(sorted(states.items())),
        )
    return dict(build.summary)


def _last_second(as_of: str) -> int:
    date = parse_date(as_of)
    if date is None:
        raise UserError(f"build_robots_snapshot.as_of = {as_of!r} is not a day; write YYYY-MM-DD")
    return date.last


def _find_files(paths: Sequence[epath.Path], layout: str) -> tuple[str, list[epath.Path]]:
    """Returns the layout and all files below the given paths, sorted by name."""
    if not paths:
        raise UserError("no input; give WARC files, a folder of them, or a folder of files named by host")
    files: list[epath.Path] = []
    for path in paths:
        if not path.exists() and not os.path.lexists(path):
            raise UserError(f"{path} does not exist; give WARC files or a folder of robots.txt files")
        names = list_files(path) if path.is_dir() else None
        check_names([path.name] if names is None else names, path.parent if names is None else path)
        files.extend([regular_file(path)] if names is None else [path / name for name in names])
    archives = [path for path in files if path.name.endswith((".warc", ".warc.gz", ".warc.zst"))]
    if layout == AUTO:
        layout = WARC if archives or not paths[0].is_dir() else FILES
    if layout == WARC:
        # A folder of a crawl may hold lists and digests beside its archives; files that were named are taken as such.
        files = sorted({*archives, *(path for path in paths if not path.is_dir())})
        if not files:
            raise UserError(f"{paths[0]} holds no .warc or .warc.gz file; give the folder of a robotstxt subset")
        return layout, files
    if len(paths) != 1 or not paths[0].is_dir():
        raise UserError(f"{paths[0]}: files named by host are read from one folder; give that folder alone")
    if not files:
        raise UserError(f"{paths[0]} is empty; give a folder of files named by host, as example.com.txt")
    return layout, sorted(files)


def _digest_of(files: Iterable[epath.Path], layout: str) -> str:
    """Returns one digest of all files: of their contents alone for archives, with their names where these matter."""
    entries = sorted(artifacts.digest_file(path) + (path.name if layout == FILES else "") for path in files)
    digest = hashlib.blake2b(digest_size=artifacts.DIGEST_BYTES)
    for entry in entries:
        digest.update(entry.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def _counted(records: Iterable[RobotsRecord], states: collections.Counter[str]) -> Iterator[RobotsRecord]:
    for record in records:
        states[robots_state(record)] += 1
        yield record
