"""Version history of summaries: each names the ones before it by digest."""

from __future__ import annotations

import dataclasses
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.release.data_summary.answers.template import NotAvailable, as_json, stated
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import read_json_object

KIND = "data_summary"
FORMAT = 1
SUMMARY_FILE = "summary.json"


@dataclasses.dataclass(frozen=True)
class History:
    """A summary's place in the chain of versions.

    Attributes:
      version: 1 for the first.
      earlier: the versions before, the latest first.
      digest: of the version before, None for the first.
    """

    version: int
    earlier: list[dict[str, Any]]
    digest: str | None

    @classmethod
    def after(cls, previous: str, link: str) -> History:
        """Reads the version before this one, published at `link`; an empty `previous` begins a chain.

        Raises:
          UserError: the folder is no complete summary, or has changed since it was written.
        """
        if not previous:
            return cls(1, [], None)
        root = epath.Path(previous)
        manifest = artifacts.verify(root, KIND)
        if manifest["inputs"]["format"] != FORMAT:
            raise UserError(f"{root} was written by another version of apertus_jax; write it again with this one")
        before = read_json_object(root / SUMMARY_FILE)
        own = before["template"]["0"]["fields"]
        entry = {
            "version": before["version"],
            "last update": own["last_update"].get("value", "not declared"),
            "digest": manifest["digest"],
            "link": as_json(stated(link, "bind Declarations.previous_link")),
            "prepared corpus": before["figures"]["provenance"]["prepared corpus"],
            "documents": before["figures"]["balance"]["kept"],
        }
        return cls(before["version"] + 1, [entry, *before["earlier_versions"]], manifest["digest"])

    def answer(self) -> list[dict[str, Any]] | NotAvailable:
        """Returns the earlier versions, or that this is the first."""
        return self.earlier or NotAvailable("this is the first version")
