"""Folder of robots.txt files, each named by its host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from etils import epath

from apertus_jax.corpus.robots import BODY_LIMIT
from apertus_jax.corpus.robots_snapshot.responses import ROBOTS_PATH, Response, parse_time
from apertus_jax.corpus.web.content_codings import undo_unannounced
from apertus_jax.corpus.web_addresses import parse_web_address
from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import JSONError, parse_json
from apertus_jax.storage.listing import list_files, regular_file

FILE_INDEX = "index.jsonl"
_READ_LIMIT = 4 * BODY_LIMIT
_KEYS = {"host", "file", "scheme", "fetched_at", "http_status", "redirects", "final_url", "error_kind"}


def read_files(folder: epath.PathLike) -> Iterator[Response]:
    """Yields one response for each file of a folder named `HOST` or `HOST.txt` (HOST may carry `:PORT`).

    Without more, a file is the answer with status 200, at an unrecorded time, of `https://HOST/robots.txt`. A file
    `index.jsonl` may say more, one JSON object a line: `host`, and any of `file` (name in this folder; none = no body),
    `scheme`, `fetched_at` (ISO 8601), `http_status`, `redirects` (list of URLs), `final_url`, `error_kind`. Several
    lines about one host are several answers, of which a snapshot takes the newest. Hidden files are passed over.

    Raises:
      UserError: a file name that is no host, two files of one host, or a damaged line of the index.
    """
    root = epath.Path(folder)
    names = set(list_files(root)) - {FILE_INDEX}
    if nested := sorted(name for name in names if "/" in name):
        raise UserError(f"{root / nested[0]} lies in a folder of its own; put all files named by host into one folder")
    described: set[str] = set()
    if (root / FILE_INDEX).exists():
        with regular_file(root / FILE_INDEX).open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    entry = _parse_entry(line, f"{root / FILE_INDEX}, line {number}")
                    described.add(entry.get("file") or "")
                    yield _described(root, entry, names, f"{root / FILE_INDEX}, line {number}")
    seen: dict[str, str] = {}
    for name in sorted(names - described):
        url = _robots_url(name.removesuffix(".txt"), "https", f"{root / name}")
        if url in seen:
            raise UserError(
                f"{root}: {seen[url]} and {name} are both the file of {url}; keep one or describe both in {FILE_INDEX}"
            )
        seen[url] = name
        body, truncated = _read_body(root / name)
        yield Response(url=url, http_status=200, body=body, truncated=truncated)


def _parse_entry(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = parse_json(line, where)
    except JSONError as error:
        raise UserError(f"{where}: not JSON ({error.reason}); write one object a line") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("host"), str):
        raise UserError(f'{where}: no "host"; write an object such as {{"host": "example.com", "http_status": 404}}')
    if unknown := sorted(entry.keys() - _KEYS):
        raise UserError(f"{where}: unknown key {unknown[0]!r}; use {', '.join(sorted(_KEYS))}")
    status = entry.get("http_status")
    if status is not None and (not isinstance(status, int) or not 100 <= status <= 999):
        raise UserError(f"{where}: http_status {status!r} is not a status; write a number such as 200")
    for name in ("file", "scheme", "final_url", "error_kind", "fetched_at"):
        if not isinstance(entry.get(name, ""), str):
            raise UserError(f"{where}: {name} is {entry[name]!r}; write a text")
    if not any(entry.get(name) for name in ("file", "http_status", "error_kind")):
        raise UserError(f"{where}: no answer; give at least one of file, http_status, error_kind")
    return entry


def _described(root: epath.Path, entry: dict[str, Any], names: set[str], where: str) -> Response:
    file, redirects = entry.get("file") or "", entry.get("redirects") or []
    if file and file not in names:
        raise UserError(f"{where}: {file} is not a file of this folder; mend the name or remove the line")
    if not isinstance(redirects, list) or not all(isinstance(url, str) for url in redirects):
        raise UserError(f"{where}: redirects is {redirects!r}; write a list of URLs")
    final_url, fetched_at = entry.get("final_url") or "", entry.get("fetched_at") or ""
    if final_url and final_url not in redirects[-1:]:
        redirects = [*redirects, final_url]
    seconds = parse_time(fetched_at)
    if fetched_at and seconds is None:
        raise UserError(f"{where}: fetched_at {fetched_at!r} is not a time; write it as 2025-01-31T00:00:00Z")
    url = _robots_url(entry["host"], entry.get("scheme") or "https", where)
    body, truncated = _read_body(root / file) if file else (b"", False)
    error_kind = entry.get("error_kind") or ""
    return Response(
        url=url,
        fetched_at=seconds,
        http_status=entry.get("http_status", 200 if file and not error_kind else None),
        body=body,
        truncated=truncated,
        error_kind=error_kind,
        chain=tuple(address for address in redirects if address != url),
    )


def _read_body(path: epath.Path) -> tuple[bytes, bool]:
    """Returns at most BODY_LIMIT bytes of a file, which may have been saved as it came, and whether it was cut."""
    with path.open("rb") as file:
        stored = file.read(_READ_LIMIT + 1)
    undone = undo_unannounced(stored[:_READ_LIMIT], _READ_LIMIT)
    is_cut = undone.is_cut or undone.defect != "" or len(undone.body) > BODY_LIMIT or len(stored) > _READ_LIMIT
    return undone.body[:BODY_LIMIT], is_cut


def _robots_url(host: str, scheme: str, where: str) -> str:
    address = parse_web_address(f"{scheme}://{host}{ROBOTS_PATH}")
    if address is None or address.path_and_query != ROBOTS_PATH:
        raise UserError(f"{where}: {scheme}://{host} is not an address; name files by their host, as example.com.txt")
    return address.url
