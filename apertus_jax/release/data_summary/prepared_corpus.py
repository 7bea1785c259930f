"""Prepared corpus read as files: this package does not import the one that wrote it.

PREPARED/COMMITTED.json, funnel.json, policy.json
PREPARED/parts/NNNNNN/{documents,ledger,quarantine}.parquet
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import read_json_object
from apertus_jax.storage.manifests import require_fields

if TYPE_CHECKING:
    import pyarrow

CORPUS_KIND, PART_KIND = "prepared_corpus", "prepared_part"
PARTS, DOCUMENTS_FILE, LEDGER_FILE, QUARANTINE_FILE = (
    "parts",
    "documents.parquet",
    "ledger.parquet",
    "quarantine.parquet",
)
POLICY_PARTS = (
    *("name", "consent_scoring", "consent_rules", "content_scoring", "content_rules"),
    *("personal_data", "tokenizer"),
)
FUNNEL_FILE, POLICY_FILE = "funnel.json", "policy.json"


@dataclasses.dataclass(frozen=True)
class PreparedCorpus:
    """Manifest and small files of a prepared corpus.

    Attributes:
      folder: where it lies.
      digest: of the manifest, which has the digests of everything.
      summary: counts, plan, day, policy and tombstones.
      policy: the policy in force, as JSON.
      scores: identities of what looked at the documents, by which results can be traced.
      funnel: (source, language, decision) → documents, bytes and tokens, as JSON.
    """

    folder: epath.Path
    digest: str
    summary: Mapping[str, Any]
    policy: Mapping[str, Any]
    scores: Mapping[str, Any]
    funnel: Mapping[str, Any]

    @classmethod
    def open(cls, folder: epath.PathLike) -> Self:
        """Opens a finished prepared corpus and reads its small files.

        Raises:
          UserError: the folder is missing, unfinished, something else, damaged, or of an older version.
        """
        root = epath.Path(folder)
        manifest = artifacts.verify(root, CORPUS_KIND)
        for name in (FUNNEL_FILE, POLICY_FILE):
            if name not in manifest["files"]:
                raise UserError(f"{root} has no {name}, so an older version wrote it; run `apertus prepare` again")
        in_force = read_json_object(root / POLICY_FILE)
        require_fields(in_force, {"policy": dict, "scores": dict}, str(root / POLICY_FILE))
        require_fields(manifest["summary"], {PARTS: dict}, f"{root}: summary")
        if missing := sorted(set(POLICY_PARTS) - set(in_force["policy"])):
            raise UserError(f"{root / POLICY_FILE} has no {missing[0]}, so another version wrote it; prepare again")
        return cls(
            folder=root,
            digest=manifest["digest"],
            summary=manifest["summary"],
            policy=in_force["policy"],
            scores=in_force["scores"],
            funnel=read_json_object(root / FUNNEL_FILE),
        )

    @property
    def sources(self) -> list[str]:
        """The names of all sources, those whose every row is in quarantine included."""
        return sorted({each[0] for each in (*self.funnel["counts"], *self.funnel["quarantined"])})

    @property
    def parts(self) -> list[epath.Path]:
        """The folders of its parts, in order."""
        return [self.folder / PARTS / name for name in sorted(self.summary["parts"])]

    def verify_part(self, part: epath.Path) -> None:
        """Checks that the ledger and quarantine of a part are those that were committed; texts are not read.

        Raises:
          UserError: something is missing or has changed.
        """
        manifest = artifacts.read_manifest(part, PART_KIND)
        if manifest["digest"] != self.summary["parts"][part.name]:
            raise UserError(f"{part} is not the part that {self.folder} was made of; run `apertus prepare` again")
        for name in (LEDGER_FILE, QUARANTINE_FILE):
            artifacts.check_committed(part / name, manifest["files"][name], PART_KIND)
        documents, size = part / DOCUMENTS_FILE, manifest["files"][DOCUMENTS_FILE]["bytes"]
        if not documents.exists() or documents.stat().length != size:
            raise UserError(f"{documents} is missing or has not the {size} bytes that were committed; restore it")


def num_rows(path: epath.Path) -> int:
    """Returns the rows of a Parquet file, from its footer."""
    import pyarrow.parquet

    with path.open("rb") as file:
        return pyarrow.parquet.ParquetFile(file).metadata.num_rows


def column_names(path: epath.Path) -> list[str]:
    """Returns the columns of a Parquet file."""
    import pyarrow.parquet

    with path.open("rb") as file:
        return pyarrow.parquet.ParquetFile(file).schema_arrow.names


def row_groups(path: epath.Path, needed: Sequence[str], wanted: Sequence[str] = ()) -> Iterator[pyarrow.Table]:
    """Streams the row groups of a Parquet file: columns that are needed, and of those wanted the ones that it has.

    Raises:
      UserError: a needed column is missing.
    """
    import pyarrow.parquet

    with path.open("rb") as file:
        parquet = pyarrow.parquet.ParquetFile(file)
        present = set(parquet.schema_arrow.names)
        if missing := [name for name in needed if name not in present]:
            raise UserError(
                f"{path} has no column {missing[0]}, so another version wrote it; run `apertus prepare` again"
            )
        columns = [*needed, *(name for name in wanted if name in present)]
        # Group by group: reading in batches holds on to all that was read (measured, pyarrow 25).
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, columns=columns)
