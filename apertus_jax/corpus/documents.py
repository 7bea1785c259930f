"""The document record and its files: JSONL (also gzipped), Parquet, and folders of them.

Readers stream: memory does not grow with the corpus. A row that cannot be read stops the reading with one line that
names the file and the row.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from etils import epath

from apertus_jax.chat import Conversation, MalformedConversation, parse_conversation
from apertus_jax.corpus.batching import batched
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import parse_json
from apertus_jax.storage.listing import list_files, regular_file

if TYPE_CHECKING:
    import pyarrow

UNKNOWN_LANGUAGE = "und"
# What `prepare` writes: only these files of it are documents, its ledger is not.
PREPARED_KIND, PREPARED_DOCUMENTS = "prepared_corpus", "documents.parquet"
JSONL_SUFFIXES = (".jsonl", ".jsonl.gz")
PARQUET_SUFFIXES = (".parquet",)
NOT_A_LINE = ": not a line of JSON in UTF-8"
DOCUMENT_ID = re.compile(r"[0-9a-f]{32}")
ROWS_PER_BATCH = 1024
LONGEST_SOURCE_NAME = 200
HELD_OUT = "held_out"  # the source of a store that is kept from training
# Spellings that people use for the optional columns, the first of them ours.
ALIASES = {
    "language": ("language", "lang"),
    "licence": ("licence", "license"),
    "url": ("url",),
    "source": ("source",),
    "cluster": ("cluster",),
    "text_digest": ("text_digest",),
}


CONVERSATION = "conversation"  # the column of prepared conversations, as JSON
DOCUMENT_COLUMNS = frozenset({"text", "document_id", "id", CONVERSATION}.union(*ALIASES.values()))


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """One document: `document_id` is 32 hexadecimal digits, `language` is an `iso639-3_Script` label or `und`.

    `cluster` is the `document_id` that stands for all copies of this document, near ones included; empty when it has
    none. `text_digest` is that of the text before personal data was rewritten, by which removal requests name it.
    `conversation` is the JSON record of a chat, whose `text` is then what is said in it; empty for other documents.
    """

    document_id: str
    text: str
    source: str
    language: str = UNKNOWN_LANGUAGE
    url: str = ""
    licence: str = ""
    cluster: str = ""
    text_digest: str = ""
    conversation: str = ""


def document_id(source: str, version: str, record: str) -> str:
    """Returns the BLAKE2b-128 digest (hexadecimal) of `source|version|record`, the identity of a document for ever."""
    return hashlib.blake2b(f"{source}|{version}|{record}".encode(), digest_size=16).hexdigest()


def document_schema(conversations: bool = False) -> pyarrow.Schema:
    """Returns the Parquet schema of document files: one string column per field of `Document`.

    The column of conversations is there only where `conversations` says that there may be some.
    """
    import pyarrow

    names = [field.name for field in dataclasses.fields(Document) if conversations or field.name != CONVERSATION]
    return pyarrow.schema([(name, pyarrow.string()) for name in names])


def write_documents(path: epath.PathLike, documents: Iterable[Document], conversations: bool = False) -> int:
    """Writes documents to one Parquet file and returns how many; the same documents give the same bytes."""
    import pyarrow
    import pyarrow.parquet

    schema = document_schema(conversations)
    count = 0
    with (
        epath.Path(path).open("wb") as file,
        pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for batch in batched(documents, ROWS_PER_BATCH):
            rows = [dataclasses.asdict(document) for document in batch]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            count += len(batch)
    return count


def input_files(path: epath.PathLike) -> list[epath.Path]:
    """Returns the document files of an input in reading order: the file itself, or those below a folder, sorted.

    Raises:
      UserError: the path is missing, holds no document file, or is a folder that a command has not finished.
    """
    root = epath.Path(path)
    endings = JSONL_SUFFIXES + PARQUET_SUFFIXES
    if not root.is_dir():
        if not root.exists() and not os.path.lexists(root):
            raise UserError(
                f"input {root} does not exist; give a .jsonl, .jsonl.gz or .parquet file or a folder of them"
            )
        if not root.name.endswith(endings):
            raise UserError(f"input {root} is not a .jsonl, .jsonl.gz or .parquet file; convert it to one of these")
        return [regular_file(root, "input")]
    if (root / artifacts.BUILDING_MARKER).exists() and not artifacts.is_complete(root):
        raise UserError(f"input {root} was not finished by the command that wrote it; run that command again")
    names = list_files(root, endings)
    if artifacts.is_complete(root) and artifacts.kind_of(root) == PREPARED_KIND:
        names = [name for name in names if name.rpartition("/")[2] == PREPARED_DOCUMENTS]
    if not names:
        raise UserError(f"input folder {root} holds no .jsonl, .jsonl.gz or .parquet file; put documents there")
    check_names(names, root)
    return [root / name for name in names]


def check_names(names: Iterable[str], root: epath.PathLike) -> None:
    """Raises UserError for a file whose name is no text: it could not be written down as the place of a document."""
    for name in names:
        if problem := _surrogate(name):
            raise UserError(f"{root}: the name of the file {ascii(name)} is not UTF-8 ({problem}); rename it")


@functools.lru_cache(maxsize=1 << 12)
def source_folder_name(name: str) -> str:
    """Returns a source's name as the name of a folder, "" when it cannot be one.

    Characters other than letters, digits, dot, dash and underscore become `_`: names come from strangers' rows.
    """
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._-")
    return "" if len(cleaned) > LONGEST_SOURCE_NAME else cleaned


def input_name(path: epath.PathLike) -> str:
    """Returns the source that rows of an input belong to when they name none: its name without the ending."""
    return re.sub(r"\.(jsonl|parquet)(\.(gz|zst))?$", "", epath.Path(path).name)


def read_documents(path: epath.PathLike) -> Iterator[Document]:
    """Streams the documents of a file or folder in a fixed order.

    Only `text` is required, or `messages` in its place: a conversation, see `apertus_jax.chat`. Without a
    `document_id` the identity is taken from `id`, or else from the file's name inside the input and the row, so that
    moving a corpus to another folder changes no identity. Without a `source` the input's name is used.

    Raises:
      UserError: an input is missing or a row is not a document; names the file and the row.
    """
    root = epath.Path(path)
    default_source = input_name(root)
    for file in input_files(root):
        rows = (
            jsonl_rows(file, lenient=True)
            if file.name.endswith(JSONL_SUFFIXES)
            else parquet_rows(file, DOCUMENT_COLUMNS)
        )
        name = file.relative_to(root).as_posix() if file != root else file.name
        for row_number, row in rows:
            yield _document(row, default_source, f"{name}:{row_number}", f"{file}, row {row_number}")


def digest_input(path: epath.PathLike) -> str:
    """Returns a digest of an input's content: of a committed folder its manifest's, else of the bytes of its files.

    Raises:
      UserError: as `input_files`.
    """
    files = input_files(path)
    root = epath.Path(path)
    if root.is_dir() and artifacts.is_complete(root):
        return artifacts.read_any(root)["digest"]
    names = {(file.relative_to(root).as_posix() if file != root else file.name): file for file in files}
    return artifacts.digest_json({name: artifacts.digest_file(file) for name, file in names.items()})


def _document(row: Any, default_source: str, default_record: str, where: str) -> Document:
    """Makes a document of one parsed row; `where` names the row in errors."""
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: a JSON object with a text field is expected, found {type(row).__name__}")
    conversation = _conversation(row, where)
    text = conversation_text(conversation) if conversation else row.get("text")
    if not isinstance(text, str):
        raise UserError(f"{where}: field text must be a string, found {type(text).__name__}; mend or remove the row")
    if not text.strip():
        raise UserError(f"{where}: field text is empty; remove the row")
    if problem := _surrogate(text):
        raise UserError(f"{where}: text holds {problem}; mend the row")
    fields = {name: _string_field(row, spellings, where) for name, spellings in ALIASES.items()}
    source = fields["source"] or default_source
    given = _string_field(row, ("document_id",), where)
    if given and not DOCUMENT_ID.fullmatch(given):
        raise UserError(f"{where}: document_id {given!r} must be 32 hexadecimal digits; call the field id instead")
    record = _string_field(row, ("id",), where) or default_record
    return Document(
        document_id=given or document_id(source, "", record),
        text=text,
        source=source,
        language=fields["language"] or UNKNOWN_LANGUAGE,
        url=fields["url"],
        licence=fields["licence"],
        cluster=fields["cluster"],
        text_digest=fields["text_digest"],
        conversation=conversation.to_text() if conversation else "",
    )


def conversation_text(conversation: Conversation) -> str:
    """Returns the text of the document that a conversation is: all that is said in it."""
    return "\n\n".join(conversation.texts())


def _conversation(row: Mapping[str, Any], where: str) -> Conversation | None:
    """Returns the conversation of a row, which has `messages` and no text, or was prepared; None for other rows."""
    prepared = row.get(CONVERSATION)
    try:
        if isinstance(prepared, str) and prepared.startswith('{"messages":'):
            return parse_conversation(parse_json(prepared, where))
        return parse_conversation(row) if row.get("text") is None and row.get("messages") is not None else None
    except MalformedConversation as error:
        raise UserError(f"{where}: {error}") from error


def _string_field(row: Mapping[str, Any], spellings: tuple[str, ...], where: str) -> str:
    """Returns the first present spelling of an optional field as a string, or the empty string."""
    for spelling in spellings:
        value = row.get(spelling)
        if value is None:
            continue
        if isinstance(value, str) or (isinstance(value, int) and spelling == "id"):
            if problem := _surrogate(str(value)):
                raise UserError(f"{where}: field {spelling} holds {problem}; mend the row")
            return str(value)
        raise UserError(f"{where}: field {spelling} must be a string, found {type(value).__name__}; mend the row")
    return ""


def _surrogate(text: str) -> str:
    """Returns what keeps a string from being text that can be written as UTF-8, or nothing."""
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half of a surrogate pair at character {error.start}"
    return ""


def jsonl_rows(path: epath.Path, problem: str = "", lenient: bool = False) -> Iterator[tuple[int, Any]]:
    """Yields (row number from 1, parsed row) of a file, plain or gzipped; blank lines are passed over but counted.

    Args:
      path: the file.
      problem: what a line that cannot be read is said to be, before the reason.
      lenient: passes on what is not quite JSON (NaN, half of a surrogate pair), for fields that nobody reads.

    Raises:
      UserError: a line is not JSON in UTF-8, or the file is damaged; names the file and the row.
    """
    number = 0
    try:
        with path.open("rb") as raw, gzip.open(raw) if path.name.endswith(".gz") else raw as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{path}, row {number}{problem}"
                    yield number, parse_json(line, where, allow_nan=lenient, allow_surrogates=lenient)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}, after row {number}: damaged gzip data ({error}); copy the file again") from error


def parquet_rows(path: epath.Path, wanted: Collection[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Streams (row number from 1, row) of a Parquet file, with those of the wanted columns that it has.

    Raises:
      UserError: the file cannot be read as Parquet.
    """
    import pyarrow
    import pyarrow.parquet

    row_number = 0
    try:
        with path.open("rb") as file:
            parquet = pyarrow.parquet.ParquetFile(file)
            columns = [name for name in parquet.schema_arrow.names if name in wanted]
            for batch in parquet.iter_batches(ROWS_PER_BATCH, columns=columns):
                for row in _batch_rows(batch, f"{path}, row", row_number):
                    row_number += 1
                    yield row_number, row
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}, after row {row_number}: not readable as Parquet ({reason}); copy it again") from error


def _batch_rows(batch: pyarrow.RecordBatch, where: str, before: int) -> list[Mapping[str, Any]]:
    """Returns the rows of a batch of which `before` rows came before.

    Raises:
      UserError: a value is no text, which writers of Parquet do not check, or nothing that Python has.
    """
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError):
        for number in range(len(batch)):
            try:
                batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{where} {before + number + 1}: not UTF-8 at byte {error.start}; mend the row"
                ) from error
            except (ValueError, OverflowError) as error:
                raise UserError(f"{where} {before + number + 1}: a value that cannot be read; mend the row") from error
        raise
