"""Folder of well-known files named by host, collected beside a crawl and read one at a time."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from etils import epath

from apertus_jax.corpus.robots.body_text import utf8_body
from apertus_jax.corpus.robots_snapshot.lookup import BoundedCache
from apertus_jax.corpus.web.content_codings import looks_like_text, undo_unannounced
from apertus_jax.corpus.web_addresses import parse_web_address
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

SIZE_LIMIT = 1 << 20
_CACHED_BYTES = 8 << 20
_ENTRY_BYTES = 256


class HostFile(NamedTuple):
    """A collected file: as it lies there, its text as UTF-8 without byte order mark, and whether that is all of it.

    `is_sound` is False for one that is no text, is damaged or was cut: what it says counts, what it lacks does not.
    """

    stored: bytes
    body: bytes
    is_sound: bool


class HostFiles:
    """Files named `HOST` + suffix (HOST may carry `:PORT`), each at most SIZE_LIMIT bytes; larger ones are cut.

    They may have been saved as they came: in a content coding, in UTF-8, UTF-16 or UTF-32.
    """

    def __init__(self, folder: epath.PathLike, suffix: str):
        """Checks every name and digests every file, so that nothing that was collected is overlooked.

        Raises:
          UserError: the folder is missing or empty, or a name is not a host in canonical spelling.
        """
        self._folder, self._suffix = epath.Path(folder), suffix
        if not self._folder.is_dir():
            raise UserError(f"{folder} is not a folder; give one with files named by host, as example.com{suffix}")
        names = artifacts.list_files(self._folder)
        if not names:
            raise UserError(f"{folder} is empty; give a folder with files named by host, as example.com{suffix}")
        digest = hashlib.blake2b(digest_size=artifacts.DIGEST_BYTES)
        for name in names:
            address = parse_web_address(f"http://{name.removesuffix(suffix)}/")
            expected = "" if address is None else address.authority + suffix
            if name != expected:
                raise UserError(f"{self._folder / name}: name it {expected or 'example.com' + suffix}, by its host")
            digest.update(f"{name} {artifacts.digest_file(self._folder / name)}\n".encode())
        self.digest = digest.hexdigest()
        self._cache = BoundedCache(_CACHED_BYTES)

    def file(self, authority: str) -> HostFile | None:
        """Returns the file of an authority, or None when there is none."""
        found = self._cache.get(authority)
        if found is None:
            path = self._folder / (authority + self._suffix)
            file = _read(path) if path.exists() else None
            found = (file,)
            size = len(file.stored) + len(file.body) if file else 0
            self._cache.put(authority, found, _ENTRY_BYTES + size)
        return found[0]


def _read(path: epath.Path) -> HostFile:
    with path.open("rb") as file:
        stored = file.read(SIZE_LIMIT + 1)
    undone = undo_unannounced(stored[:SIZE_LIMIT], SIZE_LIMIT)
    body, is_sound = utf8_body(undone.body)
    is_whole = not undone.defect and not undone.is_cut and len(stored) <= SIZE_LIMIT
    return HostFile(stored[:SIZE_LIMIT], body, is_sound and is_whole and looks_like_text(body))
