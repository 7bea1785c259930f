"""Output filter file: a signed list of digests.

    APERTUS OUTPUT FILTER 1 ⏎
    {…}⏎                        the header, one line of JSON with sorted keys: `head -2 FILE` shows it
    Bloom bits                  ngram_bloom_bits / 8 bytes
    n-grams                     num_ngrams × 16 bytes, ascending
    prefilters                  num_prefilters × 4 bytes, ascending, big-endian
    strings                     num_strings × 16 bytes, ascending
    signature                   64 bytes: Ed25519 of everything before

The same lists, settings, dates and key give the same bytes. Nothing in it is text of what is listed; what the digests
give away to who guesses is told in `hashing`.

Source: docs/reference/data.md §13; docs/reference/evaluation_and_release.md §9.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from apertus_jax.errors import UserError
from apertus_jax.release.output_filter.bloom import DIGEST_BYTES, Bloom, halves
from apertus_jax.release.output_filter.hashing import NgramHash, StringHash, check_scrypt_n, fingerprint
from apertus_jax.release.output_filter.signing import SIGNATURE_BYTES, is_signed_by
from apertus_jax.release.output_filter.words import NORMALIZATION
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import parse_json

MAGIC = b"APERTUS OUTPUT FILTER 1\n"
FILTER_FILE = "output_filter.bin"
PREFILTER_BYTES = 4


@dataclasses.dataclass(frozen=True)
class FilterHeader:
    """Header of a filter; every field is in the file.

    Attributes:
      version: 1 for a first filter, one more than the superseded one after that.
      supersedes: SHA-256 digests of the files of all earlier versions, the latest first.
      date: the day it was made for, YYYY-MM-DD.
      expires: the day from which on a newer one should be fetched.
      normalisation: the name of what `words` does.
      unicode: the character tables that it was built with.
      public_key: of who signed it, hexadecimal.
      salt: of all hashes, hexadecimal.
      ngram_sizes: the lengths of n-grams in it, in words, ascending.
      num_ngrams, ngram_bloom_bits, ngram_bloom_hashes, ngram_bloom_rate: see `bloom`; the rate is the designed one.
      string_lengths: the lengths of its strings, in characters of their words, ascending.
      num_strings, num_prefilters, string_prefilter_bits, string_prefilter_rate, scrypt_n: see `hashing`.
      string_key: fingerprint of the key that strings are hashed with, "" without one.
    """

    version: int
    supersedes: tuple[str, ...]
    date: str
    expires: str
    normalisation: str
    unicode: str
    public_key: str
    salt: str
    ngram_sizes: tuple[int, ...]
    num_ngrams: int
    ngram_bloom_bits: int
    ngram_bloom_hashes: int
    ngram_bloom_rate: float
    string_lengths: tuple[int, ...]
    num_strings: int
    num_prefilters: int
    string_prefilter_bits: int
    string_prefilter_rate: float
    scrypt_n: int
    string_key: str

    def section_sizes(self) -> tuple[int, int, int, int]:
        """Returns how many bytes the four sections after the header have."""
        return (
            self.ngram_bloom_bits // 8,
            self.num_ngrams * DIGEST_BYTES,
            self.num_prefilters * PREFILTER_BYTES,
            self.num_strings * DIGEST_BYTES,
        )

    def to_bytes(self) -> bytes:
        """Returns the header as the first lines of a file."""
        return MAGIC + artifacts.canonical_json(dataclasses.asdict(self)).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> FilterHeader:
        """Reads the header's line.

        Raises:
          ValueError: it is not what `to_bytes` writes.
        """
        fields = parse_json(line, "the header")
        kept: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        header = cls(**kept)
        if cls.to_bytes(header) != MAGIC + line + b"\n":
            raise ValueError("the header is not in its canonical spelling")
        return header


class ProtectedContent:
    """A filter, opened: asks whether words or a string are listed."""

    def __init__(self, header: FilterHeader, sections: Sequence[bytes], digest: str, string_key: bytes):
        """Use `read_filter`, which checks the file."""
        self.header = header
        self.digest = digest
        self.bloom_table, self.ngrams, prefilters, self.strings = sections
        self._bloom = Bloom(self.bloom_table, header.ngram_bloom_bits, header.ngram_bloom_hashes)
        self._ngram_high = np.ascontiguousarray(halves(self.ngrams)[:, 0])
        self._prefilters = frozenset(np.frombuffer(prefilters, dtype=">u4").tolist())
        self._strings = frozenset(split_digests(self.strings))
        salt = bytes.fromhex(header.salt)
        self._ngram_hash = NgramHash(salt)
        self._string_hash = StringHash(salt, string_key, header.scrypt_n, header.string_prefilter_bits)

    def has_ngram(self, words: Sequence[str]) -> bool:
        """Returns whether these words in a row are listed; len(words) is one of the header's sizes."""
        digest = self._ngram_hash.digest(words)
        return self._bloom.may_hold(digest) and self.holds_ngram_digest(digest)

    def holds_ngram_digest(self, digest: bytes) -> bool:
        """Returns whether a digest is in the exact list."""
        place = int(np.searchsorted(self._ngram_high, np.uint64(int.from_bytes(digest[:8], "big"))))
        while True:
            found = self.ngrams[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]
            if found[:8] != digest[:8]:
                return False
            if found == digest:
                return True
            place += 1

    def has_string(self, string: str) -> bool:
        """Returns whether words, put together without anything between, are a listed string."""
        return self._string_hash.prefilter(string) in self._prefilters and self.holds_string_digest(
            self._string_hash.digest(string)
        )

    def holds_string_digest(self, digest: bytes) -> bool:
        """Returns whether a digest is among those of strings."""
        return digest in self._strings


def split_digests(content: bytes) -> list[bytes]:
    """Returns concatenated digests of 16 bytes as a list."""
    return [content[start : start + DIGEST_BYTES] for start in range(0, len(content), DIGEST_BYTES)]


def file_digest(content: bytes) -> str:
    """Returns the SHA-256 digest of a filter's file, hexadecimal: by this one name versions speak of each other."""
    return hashlib.sha256(content).hexdigest()


def read_filter(content: bytes, name: str, public_key: bytes, string_key: bytes = b"") -> ProtectedContent:
    """Opens the bytes of a filter's file.

    Args:
      content: the whole file.
      name: what messages call it.
      public_key: 32 bytes of the key that must have signed it.
      string_key: what its strings were hashed with, if with a key.

    Raises:
      UserError: it is no filter, has changed, was signed by somebody else, or needs another string key or program.
    """
    if not content.startswith(MAGIC):
        raise UserError(f"{name} is not an output filter of this format; give the file that output-filter wrote")
    signed, signature = content[:-SIGNATURE_BYTES], content[-SIGNATURE_BYTES:]
    line, _, payload = signed[len(MAGIC) :].partition(b"\n")
    if not is_signed_by(public_key, signature, signed):
        raise UserError(_why_not_signed(name, line, public_key))
    try:
        header = FilterHeader.from_json(line)
        sizes = header.section_sizes()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{name} has a header that this version of apertus_jax does not know; update one") from error
    if sum(sizes) != len(payload):
        raise UserError(
            f"{name} has {len(payload)} bytes of digests where its header says {sum(sizes)}; fetch it again"
        )
    if header.normalisation != NORMALIZATION:
        raise UserError(
            f"{name} normalises by {header.normalisation!r}, we by {NORMALIZATION!r}; update one of the two"
        )
    if header.num_strings:
        check_scrypt_n(header.scrypt_n)
        _check_string_key(name, header, string_key)
    sections, start = [], 0
    for size in sizes:
        sections.append(payload[start : start + size])
        start += size
    return ProtectedContent(header, sections, file_digest(content), string_key)


def _why_not_signed(name: str, line: bytes, public_key: bytes) -> str:
    try:
        claimed: Any = parse_json(line, name)["public_key"]
    except (ValueError, KeyError, TypeError):
        claimed = None
    if isinstance(claimed, str) and claimed != public_key.hex():
        return (
            f"{name} says it was signed by {claimed[:64]!r}, which is not the given public key {public_key.hex()}; "
            "fetch it from its publisher, or give the right key"
        )
    return f"{name} has changed since it was signed, or was never signed by {public_key.hex()}; fetch it again"


def _check_string_key(name: str, header: FilterHeader, string_key: bytes) -> None:
    given = fingerprint(string_key)
    if header.string_key == given:
        return
    if not header.string_key:
        raise UserError(f"{name} hashes its strings without a string key; leave string_key out")
    raise UserError(
        f"{name} hashes its strings with the string key {header.string_key}, "
        + (f"not {given}; give that key" if given else "none was given; give string_key, the file with that key")
    )
