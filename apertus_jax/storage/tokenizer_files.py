"""Tokenizer folders from anybody: checked whole before a part of them is relied on.

A folder has `tokenizer.json` and, when transformers is to load it, companions. What is checked: JSON of the right
kinds, one id for each token and one token for each id, no absurd id, and that the `tokenizers` library takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import parse_json, read_json_object
from apertus_jax.storage.listing import regular_file

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_FILE = "tokenizer.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", CHAT_TEMPLATE_FILE)
LARGEST_TOKENIZER = 512 << 20  # bytes; the released vocabulary takes 17 MB
LARGEST_COMPANION = 64 << 20
LARGEST_ID = 2**31 - 1
# Ids without a token are rows that no text reaches: a few are usual (a vocabulary rounded up), many are a mistake.
MAX_HOLES = 1 << 16
ADVICE = "give the folder of a byte-level BPE tokenizer, or train one with tokenize"


class Vocabulary(NamedTuple):
    """A checked tokenizer.json: token → id, added tokens included; added token → its entry; and the whole content."""

    ids: dict[str, int]
    added: dict[str, Mapping[str, Any]]
    description: Mapping[str, Any]


def parse_vocabulary(content: str | bytes, where: str) -> Vocabulary:
    """Returns the vocabulary of the content of a tokenizer.json.

    Raises:
      UserError: it is no such file, or ids are wrong: not whole, negative, given twice, or absurdly large.
    """
    description = parse_json(content, where)
    model = description.get("model") if isinstance(description, Mapping) else None
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if not isinstance(vocabulary, Mapping) or not vocabulary:
        raise UserError(f"{where} is not a tokenizers file (no model.vocab that tells the id of each token); {ADVICE}")
    entries = description.get("added_tokens") or []
    if not isinstance(entries, list):
        raise UserError(f"{where} has added_tokens that are no list; {ADVICE}")
    added: dict[str, Mapping[str, Any]] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("content"), str) or "id" not in entry:
            raise UserError(f'{where}: added_tokens[{number}] is no object with "content" and "id"; {ADVICE}')
        if not isinstance(entry.get("special", False), bool):
            raise UserError(f"{where}: added_tokens[{number}].special must be true or false; {ADVICE}")
        added[entry["content"]] = entry
    ids = {**vocabulary, **{token: entry["id"] for token, entry in added.items()}}
    _check_ids(ids, where)
    return Vocabulary(ids, added, description)


def _check_ids(ids: Mapping[str, Any], where: str) -> None:
    """Raises UserError unless every id is a whole number that one token has, with few holes between them."""
    for token, token_id in ids.items():
        if type(token_id) is not int or not 0 <= token_id <= LARGEST_ID:
            shown = repr(token_id) if not isinstance(token_id, int) or token_id.bit_length() < 99 else "a huge number"
            raise UserError(f"{where} gives the token {token[:40]!r} the id {shown[:80]}; ids are whole numbers from 0")
    if len(set(ids.values())) < len(ids):
        seen: dict[int, str] = {}
        first, second = next((seen[i], token) for token, i in ids.items() if seen.setdefault(i, token) != token)
        raise UserError(f"{where} gives the tokens {first[:40]!r} and {second[:40]!r} one id, {ids[second]}; {ADVICE}")
    largest = max(ids.values())
    if largest >= 2 * len(ids) + MAX_HOLES:
        raise UserError(f"{where} has the id {largest} and only {len(ids)} tokens; {ADVICE}")


def read_vocabulary(folder: epath.PathLike) -> dict[str, int]:
    """Returns token → id of a tokenizer folder, added tokens included.

    Raises:
      UserError: there is no tokenizer.json, or it is not one.
    """
    path = epath.Path(folder) / TOKENIZER_FILE
    return parse_vocabulary(read_tokenizer_file(path), str(path)).ids


def read_tokenizer_file(path: epath.PathLike) -> str:
    """Returns the text of a tokenizer.json.

    Raises:
      UserError: it is missing, no regular file, absurdly large, or not UTF-8.
    """
    return _read_text(epath.Path(path), LARGEST_TOKENIZER)


def library_tokenizer(content: str, where: str) -> tokenizers.Tokenizer:
    """Returns the `tokenizers` library's reading of a tokenizer.json, which cuts and pads nothing.

    Raises:
      UserError: the library refuses it.
    """
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_str(content)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode("a 1", add_special_tokens=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # its panics are no Exceptions
        raise UserError(f"{where} is refused by the tokenizers library ({_first_line(error)}); {ADVICE}") from error
    return tokenizer


def check_tokenizer(folder: epath.PathLike | None, vocab_size: int) -> None:
    """Checks that a tokenizer folder can be used with a model of `vocab_size` ids: every file of it, every id.

    Raises:
      UserError: no tokenizer.json, an unreadable one, companions that are damaged, or an id the model has no row for.
    """
    if folder is None:
        return
    root = epath.Path(folder)
    path = root / TOKENIZER_FILE
    content = read_tokenizer_file(path)
    largest = max(parse_vocabulary(content, str(path)).ids.values())
    if largest >= vocab_size:
        raise UserError(
            f"{path} has the token id {largest} but the model's vocab_size is {vocab_size}; use the model's tokenizer"
        )
    library_tokenizer(content, str(path))
    for name in TOKENIZER_FILES[1:]:
        companion = root / name
        if not companion.exists():
            continue
        if name == CHAT_TEMPLATE_FILE:
            _read_text(companion, LARGEST_COMPANION)
        else:
            read_json_object(companion, max_bytes=LARGEST_COMPANION)


def copy_tokenizer(source: epath.PathLike, target: epath.PathLike, files: tuple[str, ...] = TOKENIZER_FILES) -> None:
    """Copies those of `files` that the tokenizer folder `source` has into the folder `target`."""
    epath.Path(target).mkdir(parents=True, exist_ok=True)
    for name in files:
        if (epath.Path(source) / name).exists():
            (epath.Path(source) / name).copy(epath.Path(target) / name, overwrite=True)


def _read_text(path: epath.PathLike, max_bytes: int) -> str:
    file = regular_file(path)
    size = file.stat().length
    if size > max_bytes:
        raise UserError(f"{file} has {size:,} bytes, more than {max_bytes:,}; {ADVICE}")
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 at byte {error.start}; fetch it again") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
