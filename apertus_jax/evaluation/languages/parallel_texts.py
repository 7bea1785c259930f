"""Parallel texts: FLORES-style folders, documents of any kind, or the bundled sample."""

from __future__ import annotations

import codecs
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.data.store.document_inputs import read_inputs, resolve_inputs
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import parse_json
from apertus_jax.storage.listing import regular_file

SAMPLE = "sample"
SAMPLE_FILE = epath.Path(__file__).parent / "data" / "parallel_sample.json"
LABEL = r"[a-z]{2,3}_[A-Z][a-z]{3}"
LANGUAGE_LABEL = re.compile(LABEL)
LINE_FILE = re.compile(rf"(?P<language>{LABEL})\.(?P<kind>devtest|dev|txt|jsonl)")
DOCUMENT_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


@dataclasses.dataclass(frozen=True)
class TextSet:
    """Texts by language; `aligned` texts have, in every language, the same lines, which translate each other.

    Attributes:
      name: what the report calls them.
      texts: language → line → text.
      aligned: whether lines of different languages are translations of each other.
      note: why they are not aligned, or where they come from.
      digest: of their content.
    """

    name: str
    texts: Mapping[str, Mapping[str, str]]
    aligned: bool
    note: str
    digest: str


def read_texts(location: str, aligned: bool | None = None, max_lines: int | None = None) -> TextSet:
    """Reads texts of many languages.

    Args:
      location: `sample`; a folder of files `<lang_Script>.devtest`, `.dev`, `.txt` (one text per line) or `.jsonl`
        (rows with `text` and perhaps `id`); or documents as `tokenize` takes them, each with its language.
      aligned: whether lines are translations of each other; None means that they are when every language has the same.
      max_lines: only the first N lines of each language; None means all.

    Raises:
      UserError: nothing there, a file with an unknown name, an unreadable line, or lines that cannot be aligned.
    """
    if location == SAMPLE:
        content = json.loads(SAMPLE_FILE.read_text())
        texts = {language: _numbered(lines) for language, lines in content["lines"].items()}
        note, may_align = content["note"], True
    elif files := _line_files(location):
        texts, note, may_align = {language: _read_lines(path) for language, path in files}, "", True
    else:
        texts, note, may_align = _read_documents(location), "documents, not lines that translate each other", False
    if max_lines is not None:
        texts = {language: dict(list(lines.items())[:max_lines]) for language, lines in texts.items()}
    different = _why_not_aligned(texts) if may_align else note
    if aligned and different:
        raise UserError(f"{location} cannot be taken as translations: {different}; bind LanguageOptions.aligned = None")
    is_aligned = not different if aligned is None else aligned
    return TextSet(location, texts, is_aligned, different or note, artifacts.digest_json(texts))


def _numbered(lines: Sequence[str]) -> dict[str, str]:
    return {str(number): line for number, line in enumerate(lines, 1)}


def _why_not_aligned(texts: Mapping[str, Mapping[str, str]]) -> str:
    """Returns what keeps the languages from being translations line by line; empty when nothing does."""
    if len(texts) < 2:
        return "there is only one language"
    first, *others = sorted(texts)
    for other in others:
        if texts[other].keys() != texts[first].keys():
            return f"{other} has {len(texts[other])} lines that are not those of {first} ({len(texts[first])})"
    return ""


def _line_files(location: str) -> list[tuple[str, epath.Path]]:
    """Returns (language, file) of a FLORES-like folder; empty for an input of documents.

    Raises:
      UserError: the folder is missing or empty, or a file is named in no way that tells its language.
    """
    root = epath.Path(location)
    if not root.is_dir() or artifacts.is_complete(root):
        return []
    names = sorted(child.name for child in root.iterdir() if not child.name.startswith("."))
    if not names:
        raise UserError(f"{root} is empty; give files such as deu_Latn.devtest or deu_Latn.txt, or .jsonl documents")
    matches = {name: LINE_FILE.fullmatch(name) for name in names}
    if not any(matches.values()) and any(name.endswith(DOCUMENT_SUFFIXES) for name in names):
        return []
    found: dict[str, epath.Path] = {}
    for name, match in matches.items():
        if match is None:
            raise UserError(
                f"{root / name} does not tell its language; name files LANGUAGE_Script.devtest, .dev, .txt or .jsonl, "
                "for example deu_Latn.devtest"
            )
        if match["language"] in found:
            raise UserError(f"{root} has {found[match['language']].name} and {name}; keep one file of each language")
        found[match["language"]] = root / name
    return list(found.items())


def _read_lines(path: epath.Path) -> dict[str, str]:
    """Returns line → text of one file, empty lines left out; the line is its number, or the `id` of a JSON row.

    Raises:
      UserError: not UTF-8, not JSON, no text, or an `id` twice.
    """
    try:
        lines = regular_file(path).read_bytes().removeprefix(codecs.BOM_UTF8).decode().split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); convert it") from error
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        key, text = _json_line(path, number, line) if path.suffix == ".jsonl" else (str(number), line.rstrip("\r"))
        if key in texts:
            raise UserError(f"{path}:{number} has the id {key!r} of an earlier line; make ids unique")
        texts[key] = text
    if not texts:
        raise UserError(f"{path} has no text; remove it or fill it")
    return texts


def _json_line(path: epath.Path, number: int, line: str) -> tuple[str, str]:
    try:
        row: Any = parse_json(line, f"{path}:{number}")
        text = row["text"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}:{number} is not a JSON object with a text ({error!r}); correct the line") from error
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{path}:{number} has the text {text!r}; give words, or remove the line")
    return str(row.get("id", number)), text


def _read_documents(location: str) -> dict[str, dict[str, str]]:
    """Returns language → document → text of documents as `tokenize` takes them.

    Raises:
      UserError: no documents, or one whose language is unknown.
    """
    texts: dict[str, dict[str, str]] = {}
    for document_id, language, text in _documents(location):
        if not LANGUAGE_LABEL.fullmatch(language):
            raise UserError(
                f"document {document_id} of {location} has the language {language!r}; give a label such as deu_Latn"
            )
        texts.setdefault(language, {})[document_id] = text
    return texts


def _documents(location: str) -> Iterator[tuple[str, str, str]]:
    for _, document in read_inputs(resolve_inputs(location)):
        yield document.document_id, document.language, document.text
