"""Folders of small files named by host, read one at a time: well-known files that were collected beside a crawl."""

from __future__ import annotations

import hashlib

from etils import epath

from apertus_jax import artifacts
from apertus_jax.corpus.robots_snapshot.lookup import BoundedCache
from apertus_jax.corpus.web_addresses import parse_web_address
from apertus_jax.errors import UserError

SIZE_LIMIT = 1 << 20
_CACHED_BYTES = 8 << 20
_ENTRY_BYTES = 256


class HostFiles:
    """Files named `HOST` + suffix (HOST may carry `:PORT`), each at most SIZE_LIMIT bytes; larger ones are cut."""

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

    def body(self, authority: str) -> bytes | None:
        """Returns the file of an authority, or None when there is none."""
        found = self._cache.get(authority)
        if found is None:
            path = self._folder / (authority + self._suffix)
            body = None
            if path.exists():
                with path.open("rb") as file:
                    body = file.read(SIZE_LIMIT)
            found = (body,)
            self._cache.put(authority, found, _ENTRY_BYTES + len(body or b""))
        return found[0]
