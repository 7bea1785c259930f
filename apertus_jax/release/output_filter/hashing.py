"""Hashes of the output filter: a fast one for passages, a slow one for short strings.

Passages: SHA-256 under a public salt, cut to 128 bits, of n words in a row. Nobody finds eight words from a digest, but
who knows most of a passage can try the rest word by word; therefore the filter keeps n-grams side by side by default,
and not each that overlaps the last by all words but one.

Strings such as a name or a telephone number can be guessed whole. They are hashed by scrypt, which makes a guess cost
as much time and memory as the filter itself spends. That raises the price and does not forbid: there are only 10⁸
telephone numbers of eight digits. A string key, 32 random bytes that are given to those who apply the filter and do not
stand in it, does forbid it; without the key even a right guess cannot be recognised.

Not each run of words in a text can be hashed slowly. A few bits of a fast hash (salted, keyed like the slow one) decide
which need be: a share `prefilter_rate` of all others. The same share of wrong guesses is all that the slow hash still
has to be computed for, so a low rate makes both filtering and guessing cheaper.

Source: docs/reference/data.md §13.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import hmac
import math
from collections.abc import Sequence

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.release.output_filter.bloom import DIGEST_BYTES

SALT_BYTES = 16
SHORTEST_STRING_KEY = 32
PREFILTER_BITS = 32
# One GiB for each hash; a filter file from elsewhere cannot ask for more.
LARGEST_SCRYPT_N = 1 << 20
SCRYPT_R, SCRYPT_P = 8, 1
# A text repeats its words: most candidates were hashed before.
_CACHED_STRINGS = 1 << 14


class NgramHash:
    """The digest of n words in a row: SHA-256(salt, "ngram", n, words with single spaces) cut to 128 bits."""

    def __init__(self, salt: bytes):
        self._salted = hashlib.sha256(salt + b"ngram")

    def digest(self, words: Sequence[str]) -> bytes:
        """Returns the digest, 16 bytes."""
        state = self._salted.copy()
        state.update(len(words).to_bytes(2, "big") + " ".join(words).encode("utf-8", "surrogatepass"))
        return state.digest()[:DIGEST_BYTES]


@dataclasses.dataclass(frozen=True)
class StringHash:
    """The digests of strings, which are given as their normalised words without anything between.

    Attributes:
      salt: of the filter.
      key: the string key; empty for none.
      scrypt_n: cost of scrypt, a power of two: 128 · 8 · n bytes of memory.
      prefilter_bits: how many bits of a string's fast hash the filter tells.
    """

    salt: bytes
    key: bytes
    scrypt_n: int
    prefilter_bits: int

    @functools.cached_property
    def _keyed_salt(self) -> bytes:
        return hmac.digest(self.key, b"strings" + self.salt, "sha256") if self.key else self.salt

    def prefilter(self, string: str) -> int:
        """Returns the fast hash of `prefilter_bits` bits."""
        content = self._keyed_salt + b"string" + string.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.sha256(content).digest()[:4], "big") >> (PREFILTER_BITS - self.prefilter_bits)

    def digest(self, string: str) -> bytes:
        """Returns the slow hash, 16 bytes."""
        return _scrypt(string, self._keyed_salt, self.scrypt_n)


@functools.lru_cache(_CACHED_STRINGS)
def _scrypt(string: str, salt: bytes, n: int) -> bytes:
    return hashlib.scrypt(
        string.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=n,
        r=SCRYPT_R,
        p=SCRYPT_P,
        dklen=DIGEST_BYTES,
        maxmem=2 * 128 * SCRYPT_R * n + (1 << 20),
    )


def check_scrypt_n(n: int) -> None:
    """Raises UserError when n is not a cost of scrypt that is used here."""
    if not (2 <= n <= LARGEST_SCRYPT_N and n & (n - 1) == 0):
        raise UserError(f"scrypt_n={n} must be a power of two of at most {LARGEST_SCRYPT_N}; 16384 takes 16 MiB")


def prefilter_bits(count: int, rate: float) -> int:
    """Returns how many bits let a share of about `rate` pass when there are `count` strings."""
    return min(PREFILTER_BITS, max(1, math.ceil(math.log2(max(count, 1) / rate))))


def read_string_key(path: epath.PathLike) -> bytes:
    """Returns the content of a file with a string key, white space at the ends apart.

    Raises:
      UserError: it is missing or shorter than 32 bytes.
    """
    advice = "make one with: openssl rand -hex 32 > strings.key"
    file = epath.Path(path)
    if not file.exists() or file.is_dir():
        raise UserError(f"string key {file} does not exist; {advice}")
    key = file.read_bytes().strip()
    if len(key) < SHORTEST_STRING_KEY:
        raise UserError(f"string key {file} has {len(key)} bytes, fewer than {SHORTEST_STRING_KEY}; {advice}")
    return key


def fingerprint(key: bytes) -> str:
    """Returns a name for a string key, from which a key of 32 random bytes cannot be found; "" for no key."""
    return hmac.digest(key, b"apertus output filter string key", "sha256")[:8].hex() if key else ""
