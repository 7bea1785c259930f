"""Labelled texts for training heads, with removal of those that share passages with a benchmark."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from apertus_jax.corpus.documents import (
    JSONL_SUFFIXES,
    NOT_A_LINE,
    UNKNOWN_LANGUAGE,
    input_files,
    jsonl_rows,
    parquet_rows,
    read_documents,
)
from apertus_jax.errors import UserError
from apertus_jax.unspaced_scripts import PASSAGE_CHARACTERS_1

COLUMNS = ("text", "label", "language", "group")
EXCLUDED_WORDS = 8
WORD = re.compile(f"[{PASSAGE_CHARACTERS_1}]|[^\\W{PASSAGE_CHARACTERS_1}]+")


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and whether it is what the classifier looks for (1) or not (0).

    Texts of one `group` (versions of one document) never stand on both sides of the validation split.
    """

    text: str
    label: int
    language: str = UNKNOWN_LANGUAGE
    group: str = ""


def read_labelled_texts(path: epath.PathLike) -> Iterator[LabelledText]:
    """Streams the rows of a .jsonl(.gz) or .parquet file, or of a folder of them; `text` and `label` are required.

    Raises:
      UserError: an input is missing or a row is no labelled text; names file and row.
    """
    for file in input_files(path):
        rows = jsonl_rows(file, NOT_A_LINE) if file.name.endswith(JSONL_SUFFIXES) else parquet_rows(file, COLUMNS)
        for number, row in rows:
            yield _labelled_text(row, f"{file}, row {number}")


def _labelled_text(row: Any, where: str) -> LabelledText:
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: a JSON object with text and label is expected, found {type(row).__name__}")
    text, label = row.get("text"), row.get("label")
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: field text must be a string with content; mend or remove the row")
    if label not in (0, 1):
        raise UserError(f"{where}: field label must be 0 or 1, found {label!r:.40}; mend or remove the row")
    others = {name: row.get(name) or default for name, default in (("language", UNKNOWN_LANGUAGE), ("group", ""))}
    for name, value in others.items():
        if not isinstance(value, str):
            raise UserError(f"{where}: field {name} must be a string, found {type(value).__name__}; mend the row")
    return LabelledText(text, int(label), **others)


def passage_detector(excluded: epath.PathLike, words: int = EXCLUDED_WORDS) -> Callable[[str], bool]:
    """Returns a test for texts that share a run of `words` words with any document of `excluded`.

    A shorter text is found when it is a whole excluded document. Case and punctuation do not count.

    Raises:
      UserError: `excluded` is not a readable set of documents.
    """
    known = {gram for document in read_documents(excluded) for gram in _word_runs(document.text, words)}
    return lambda text: any(gram in known for gram in _word_runs(text, words))


def _word_runs(text: str, words: int) -> Iterable[bytes]:
    """Yields a 64-bit digest of every run of `words` words, or of all words when there are fewer."""
    found = WORD.findall(text.casefold())
    for start in range(max(1, len(found) - words + 1) if found else 0):
        run = " ".join(found[start : start + words])
        yield hashlib.blake2b(run.encode("utf-8", "surrogatepass"), digest_size=8).digest()
