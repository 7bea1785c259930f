"""Byte-level BPE tokenizer of Apertus: encoding, decoding, training, and the transformers folder.

Pre-tokenizer, vocabulary layout and `ignore_merges` are those of the released Apertus vocabulary (report section 2.2):
words split where the case changes, digits alone, no normaliser, no prefix space, no byte fallback.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from apertus_jax.data.tokenizer import special_tokens as layout
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import parse_json
from apertus_jax.storage.tokenizer_files import TOKENIZER_FILE, library_tokenizer, parse_vocabulary, read_tokenizer_file

if TYPE_CHECKING:
    import tokenizers

PARTS = ("model", "decoder")
# Words in which an upper-case run is followed by a lower-case run; single digits; punctuation; line ends; spaces.
SPLIT_PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
BYTE_VALUES = 256
LARGEST_TRAINED = 1 << 22  # the library sets aside 70 bytes for each, and ends the process where it cannot


class Tokenizer:
    """A vocabulary with two ways to read text.

    `encode` treats its input as data: boundary, role and other special tokens typed in a document stay text, so that
    no document can forge an end of document. Only the PII markers, which the corpus itself writes, and the LaTeX
    openings become single ids. `encode_with_special_tokens` is for prompts that we compose ourselves.
    """

    def __init__(self, serialized: str):
        """Parses the text of a `tokenizer.json` in the reserved layout.

        Raises:
          UserError: it is damaged, not byte-level BPE, or its boundary tokens do not have the layout's ids.
        """
        self._serialized = serialized
        self._vocabulary, self._added, description = parse_vocabulary(serialized, "tokenizer.json")
        kinds = [part.get("type") if isinstance(part := description.get(name), dict) else None for name in PARTS]
        byte_level_bpe = kinds == ["BPE", "ByteLevel"]
        if not byte_level_bpe:
            raise UserError("tokenizer.json is not byte-level BPE; train a tokenizer with tokenize, or use tekken")
        for token_id, token in enumerate((layout.UNK_TOKEN, layout.BOD_TOKEN, layout.EOD_TOKEN, layout.PAD_TOKEN)):
            found = self._vocabulary.get(token)
            if found != token_id:
                raise UserError(
                    f"tokenizer has {token} at id {found} where {token_id} is expected; train one with tokenize"
                )
        strange = set().union(*(self._vocabulary.keys() - self._added.keys())).difference(byte_characters())
        if strange:
            raise UserError(
                f"tokenizer.json has tokens with {min(strange)!r}, which stands for no byte; use its maker's"
            )
        self.vocab_size: int = max(self._vocabulary.values()) + 1
        self.unk_id, self.bod_id, self.eod_id, self.pad_id = layout.UNK_ID, layout.BOD_ID, layout.EOD_ID, layout.PAD_ID

    @classmethod
    def load(cls, folder: epath.PathLike) -> Tokenizer:
        """Reads a tokenizer folder (or a tokenizer.json itself).

        Raises:
          UserError: there is no tokenizer.json or it cannot be used.
        """
        path = epath.Path(folder)
        if path.is_dir():
            path = path / TOKENIZER_FILE
        if not path.exists():
            raise UserError(f"{path} does not exist; give a folder with a {TOKENIZER_FILE}")
        try:
            return cls(read_tokenizer_file(path))
        except UserError as error:
            told = str(error)
            raise (error if str(path) in told else UserError(f"{path}: {told}")) from error

    def save(self, folder: epath.PathLike) -> None:
        """Writes tokenizer.json and the two files that transformers' AutoTokenizer wants beside it."""
        root = epath.Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        (root / TOKENIZER_FILE).write_text(self._serialized)
        special = {
            "bos_token": layout.BOD_TOKEN,
            "eos_token": layout.EOD_TOKEN,
            "pad_token": layout.PAD_TOKEN,
            "unk_token": layout.UNK_TOKEN,
        }
        config = {
            **special,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1 << 30,
        }
        for name, content in (("special_tokens_map.json", special), ("tokenizer_config.json", config)):
            (root / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")

    @functools.cached_property
    def digest(self) -> str:
        """The tokenizer's identity: the digest of its canonical JSON, whatever the spelling of the file."""
        return artifacts.digest_json(parse_json(self._serialized, "tokenizer.json"))

    def encode(self, text: str) -> np.ndarray:
        """Returns int32[n], the ids of a document's text without boundary tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns int32[n] per text, computed on all cores."""
        encodings = self._documents.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_with_special_tokens(self, text: str) -> np.ndarray:
        """Returns int32[n] of a prompt in which special tokens are written out; adds no boundary token itself."""
        return np.asarray(self._prompts.encode(text, add_special_tokens=False).ids, dtype=np.int32)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Returns the text of ids; bytes that are not UTF-8 (half a character) become U+FFFD."""
        return self.decode_bytes(ids, skip_special_tokens).decode(errors="replace")

    def decode_bytes(self, ids: Iterable[int], skip_special_tokens: bool = False) -> bytes:
        """Returns the exact bytes of ids.

        Raises:
          UserError: an id is outside the vocabulary.
        """
        table, special = self._token_bytes, self._special_ids
        pieces: list[bytes] = []
        for token_id in map(int, ids):
            if not 0 <= token_id < len(table):
                raise UserError(f"token id {token_id} is outside the vocabulary of {len(table)}; use its own tokenizer")
            if not (skip_special_tokens and token_id in special):
                pieces.append(table[token_id])
        return b"".join(pieces)

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a token by its name, or None."""
        return self._vocabulary.get(token)

    @functools.cached_property
    def token_byte_lengths(self) -> np.ndarray:
        """int32[V]: how many bytes of a document's text each id stands for (for bits per byte).

        Over `encode(text)` they sum up to the UTF-8 bytes of the text: personal-data markers count as they are spelled,
        other special tokens, which no document is encoded to, have none.
        """
        lengths = np.array([len(piece) for piece in self._token_bytes], dtype=np.int32)
        lengths[sorted(self._special_ids - self.marker_ids)] = 0
        return lengths

    @functools.cached_property
    def marker_ids(self) -> frozenset[int]:
        """The ids of the personal-data markers, the only special tokens that a document's text is encoded to."""
        return frozenset(self._vocabulary[marker] for marker in layout.PII_MARKERS if marker in self._added)

    @functools.cached_property
    def _prompts(self) -> tokenizers.Tokenizer:
        """The library's tokenizer as the file describes it: special tokens are matched in the text."""
        return library_tokenizer(self._serialized, "tokenizer.json")

    @functools.cached_property
    def _documents(self) -> tokenizers.Tokenizer:
        """The library's tokenizer with special tokens read as plain text, PII markers excepted."""
        description = parse_json(self._serialized, "tokenizer.json")
        for entry in description["added_tokens"]:
            entry["special"] = entry.get("special", False) and entry["content"] not in layout.PII_MARKERS
        tokenizer = library_tokenizer(json.dumps(description), "tokenizer.json")
        tokenizer.encode_special_tokens = True
        return tokenizer

    @functools.cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(entry["id"] for entry in self._added.values() if entry.get("special", False))

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        """The bytes of each id; the names of added tokens are their own text."""
        to_byte = {character: value for value, character in enumerate(byte_characters())}
        table = [b""] * self.vocab_size
        for token, token_id in self._vocabulary.items():
            added = token in self._added
            table[token_id] = token.encode() if added else bytes(to_byte[character] for character in token)
        return table


@functools.cache
def byte_characters() -> tuple[str, ...]:
    """Returns the printable character that stands for each byte 0 … 255 in byte-level vocabularies.

    Printable bytes of Latin-1 stand for themselves; the others take the characters from U+0100 on, in order.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [value for value in range(BYTE_VALUES) if value not in printable]
    return tuple(chr(value) if value in printable else chr(256 + others.index(value)) for value in range(BYTE_VALUES))


def describe_tokenizer(block_size: int, entries: dict[str, int], merges: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Returns the content of a tokenizer.json: the reserved block, then BPE `entries` (token → id) and `merges`."""
    added = layout.reserved_tokens(block_size)
    # The pre-tokenizer never joins a letter with punctuation after it, so no BPE entry can spell a reserved token.
    assert entries.keys().isdisjoint(added), sorted(entries.keys() & set(added))
    vocabulary = {token: token_id for token_id, token in enumerate(added)} | entries
    boundary = {"SpecialToken": {"id": layout.BOD_TOKEN, "type_id": 0}}
    text = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(token, token_id) for token_id, token in enumerate(added)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": SPLIT_PATTERN}, "behavior": "Isolated", "invert": False},
                byte_level,
            ],
        },
        # Readers of the exported folder get <s> in front, as every document had it in training; our own
        # store writes both boundary tokens explicitly and asks for none.
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [boundary, text[0]],
            "pair": [boundary, *text],
            "special_tokens": {
                layout.BOD_TOKEN: {"id": layout.BOD_TOKEN, "ids": [layout.BOD_ID], "tokens": [layout.BOD_TOKEN]}
            },
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in merges],
        },
    }


def from_description(description: dict[str, Any]) -> Tokenizer:
    """Makes a tokenizer of `describe_tokenizer`'s result, in one spelling on disk."""
    return Tokenizer(json.dumps(description, ensure_ascii=False, separators=(",", ":")) + "\n")


def train_bpe(texts: Iterable[str], vocab_size: int, show_progress: bool = False) -> Tokenizer:
    """Trains byte-level BPE on `texts`; the result has exactly `vocab_size` ids.

    The same texts give the same bytes, whatever the number of threads. When the texts hold too little to learn that
    many merges, the remaining ids are placeholders at the end.

    Raises:
      UserError: the vocabulary cannot hold the reserved block and the 256 bytes, or there is no text.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    block_size = layout.reserved_block_size(vocab_size)
    if vocab_size > LARGEST_TRAINED:
        raise UserError(
            f"vocabulary size {vocab_size} is more than is trained here ({LARGEST_TRAINED:,} ids); choose a smaller one"
        )
    if vocab_size < block_size + BYTE_VALUES:
        raise UserError(f"vocabulary size {vocab_size} is too small; it needs at least {block_size + BYTE_VALUES} ids")
    learner = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - block_size,
        min_frequency=2,
        initial_alphabet=list(byte_characters()),
        special_tokens=[],
        show_progress=show_progress,
    )
    count = 0

    def counted() -> Iterable[str]:
        nonlocal count
        for text in texts:
            count += 1
            yield text

    learner.train_from_iterator(counted(), trainer)
    if not count:
        raise UserError("there is no text to train a tokenizer on; give documents")
    learned = json.loads(learner.to_str())["model"]
    entries = {token: token_id + block_size for token, token_id in learned["vocab"].items()}
    for token_id in range(block_size + len(entries), vocab_size):
        entries[layout.placeholder(token_id)] = token_id
    description = describe_tokenizer(block_size, entries, learned["merges"])
    description["added_tokens"] += [
        _added_token(token, token_id) for token, token_id in entries.items() if token == layout.placeholder(token_id)
    ]
    return from_description(description)


def _added_token(token: str, token_id: int) -> dict[str, Any]:
    """Returns the tokenizer.json entry of a token that is matched before BPE."""
    return {
        "id": token_id,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": token not in layout.LATEX_TOKENS,
    }
