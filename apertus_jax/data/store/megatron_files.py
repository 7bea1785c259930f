"""Megatron token files: `.bin` holds the raw tokens, `.idx` the place of each document.

Layout of the index (docs/reference/data.md §11), little-endian: 9 bytes magic, u64 version 1, u8 type code, u64 number
of sequences N, u64 number of document entries N+1, i32[N] lengths, i64[N] byte offsets, i64[N+1] document starts 0 … N.
One sequence is one document, so the file has 42 + 20·N bytes.
"""

from __future__ import annotations

import array
import struct
from types import TracebackType

import numpy as np
from etils import epath

from apertus_jax.data.store.token_blocks import SUFFIX as BLOCKS_SUFFIX
from apertus_jax.data.store.token_blocks import BlockDigests
from apertus_jax.errors import UserError
from apertus_jax.storage.listing import regular_file

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
BYTES_PER_DOCUMENT = 20
FIXED_BYTES = 42
TYPE_CODES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
LARGEST_UINT16_VOCAB = 65_536
LARGEST_DOCUMENT = 2**31 - 1


def token_dtype(vocab_size: int) -> np.dtype:
    """Returns the stored type of tokens: int32 when the vocabulary is larger than 65,536, else uint16."""
    return np.dtype("<i4") if vocab_size > LARGEST_UINT16_VOCAB else np.dtype("<u2")


class MegatronWriter:
    """Writes one `.bin`/`.idx` pair, document by document, and `.blocks`; memory is 4 bytes per document."""

    def __init__(self, prefix: epath.PathLike, vocab_size: int):
        """Opens `prefix`.bin; the `.idx` is written when the writer is closed."""
        self._index_path = epath.Path(f"{prefix}.idx")
        self._vocab_size = vocab_size
        self._dtype = token_dtype(vocab_size)
        self._lengths = array.array("i")
        self._blocks = BlockDigests()
        self._blocks_path = epath.Path(f"{prefix}{BLOCKS_SUFFIX}")
        self._file = epath.Path(f"{prefix}.bin").open("wb")

    def append(self, tokens: np.ndarray) -> None:
        """Writes one document's tokens, any integer dtype.

        Raises:
          UserError: an id is outside the vocabulary, or the document has no token or 2^31 of them.
        """
        if not 0 < len(tokens) <= LARGEST_DOCUMENT:
            raise UserError(f"document {len(self._lengths)} has {len(tokens)} tokens; 1 to {LARGEST_DOCUMENT} fit")
        smallest, largest = int(tokens.min()), int(tokens.max())
        if smallest < 0 or largest >= self._vocab_size:
            wrong = smallest if smallest < 0 else largest
            raise UserError(f"token id {wrong} is outside the vocabulary of {self._vocab_size}; use its own tokenizer")
        content = tokens.astype(self._dtype).tobytes()
        self._file.write(content)
        self._blocks.update(content)
        self._lengths.append(len(tokens))

    def close(self) -> None:
        """Closes the token file and writes the index and the digests of its blocks."""
        self._file.close()
        lengths = np.frombuffer(self._lengths, dtype="<i4") if self._lengths else np.zeros(0, dtype="<i4")
        offsets = np.zeros(len(lengths), dtype="<i8")
        np.cumsum(lengths[:-1], out=offsets[1:], dtype="<i8")
        offsets *= self._dtype.itemsize
        code = next(code for code, name in TYPE_CODES.items() if np.dtype(name) == self._dtype)
        with self._index_path.open("wb") as file:
            file.write(HEADER.pack(MAGIC, 1, code, len(lengths), len(lengths) + 1))
            for values in (lengths, offsets, np.arange(len(lengths) + 1, dtype="<i8")):
                file.write(values.tobytes())
        self._blocks_path.write_bytes(self._blocks.finish())

    def __enter__(self) -> MegatronWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


class MegatronReader:
    """Reads one `.bin`/`.idx` pair; tokens are memory-mapped, the index takes 8 bytes per document."""

    def __init__(self, prefix: epath.PathLike):
        """Opens the pair and checks that the index is whole and fits the token file.

        Raises:
          UserError: a file is missing, damaged, or the two do not belong together.
        """
        self.prefix = str(prefix)
        index_path, token_path = epath.Path(f"{prefix}.idx"), epath.Path(f"{prefix}.bin")
        for path in (index_path, token_path):
            if not path.exists():
                raise UserError(f"{path} does not exist; token files come in pairs of .bin and .idx")
            regular_file(path)
        self.dtype, lengths, offsets = _read_index(index_path)
        self.document_starts = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=self.document_starts[1:])
        if not np.array_equal(offsets, self.document_starts[:-1] * self.dtype.itemsize):
            raise UserError(f"{index_path} has offsets that do not follow from its lengths; rebuild the token files")
        expected = self.num_tokens * self.dtype.itemsize
        found = token_path.stat().length
        if found != expected:
            raise UserError(f"{token_path} has {found} bytes where its index says {expected}; rebuild the token files")
        empty = np.zeros(0, dtype=self.dtype)
        self.stored_tokens = np.memmap(token_path, dtype=self.dtype, mode="r") if self.num_tokens else empty

    @property
    def num_documents(self) -> int:
        """Number of documents N."""
        return len(self.document_starts) - 1

    @property
    def num_tokens(self) -> int:
        """Number of tokens over all documents, boundary tokens included."""
        return int(self.document_starts[-1])

    def tokens(self, start: int, length: int) -> np.ndarray:
        """Returns int32[length], tokens start … start+length−1 of the concatenated documents.

        Raises:
          IndexError: the range leaves the store.
        """
        if start < 0 or length < 0 or start + length > self.num_tokens:
            raise IndexError(f"tokens {start} to {start + length} of {self.prefix}, which has {self.num_tokens}")
        return np.asarray(self.stored_tokens[start : start + length], dtype=np.int32)

    def document(self, number: int) -> np.ndarray:
        """Returns int32[n], the tokens of one document with its boundary tokens.

        Raises:
          IndexError: there is no such document.
        """
        if not 0 <= number < self.num_documents:
            raise IndexError(f"document {number} of {self.prefix}, which has {self.num_documents}")
        start, end = self.document_starts[number : number + 2]
        return self.tokens(int(start), int(end - start))


def _read_index(path: epath.Path) -> tuple[np.dtype, np.ndarray, np.ndarray]:
    """Returns (token dtype, lengths i32[N], byte offsets i64[N]) of an index file."""
    content = path.read_bytes()
    if len(content) < HEADER.size or not content.startswith(MAGIC):
        raise UserError(f"{path} is not a Megatron index; rebuild the token files")
    _, version, code, count, entries = HEADER.unpack_from(content)
    if version != 1 or code not in TYPE_CODES:
        raise UserError(f"{path} has version {version} and type code {code}; version 1 with integer tokens is read")
    if entries != count + 1 or len(content) != FIXED_BYTES + BYTES_PER_DOCUMENT * count:
        raise UserError(
            f"{path} has {len(content)} bytes where {count} documents take {FIXED_BYTES + 20 * count}; rebuild"
        )
    lengths = np.frombuffer(content, dtype="<i4", count=count, offset=HEADER.size)
    offsets = np.frombuffer(content, dtype="<i8", count=count, offset=HEADER.size + 4 * count)
    documents = np.frombuffer(content, dtype="<i8", count=entries, offset=HEADER.size + 12 * count)
    if not np.array_equal(documents, np.arange(entries)) or (count and lengths.min() <= 0):
        raise UserError(f"{path} does not hold one sequence per document; rebuild the token files")
    return np.dtype(TYPE_CODES[code]), lengths, offsets
