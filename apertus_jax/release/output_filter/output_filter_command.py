"""The `output-filter` command: a listing of what people asked to have removed → a signed file of its digests.

    FILTER/output_filter.bin     to be published: see `filter_file`
    FILTER/public_key.pem        who signed it, for convenience; trust a copy from elsewhere
    FILTER/COMMITTED.json        counts, the measured rates, dates

Users are advised to fetch the newest version every six months (docs/reference/data.md §13); so long a filter is called
fresh.
"""

from __future__ import annotations

import calendar
import concurrent.futures
import datetime
import hashlib
import hmac
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from apertus_jax.clock import require_day
from apertus_jax.errors import UserError
from apertus_jax.release.output_filter import hashing
from apertus_jax.release.output_filter.bloom import DIGEST_BYTES, bloom_size, build_bloom, halves, share_that_pass
from apertus_jax.release.output_filter.filter_file import (
    FILTER_FILE,
    FilterHeader,
    ProtectedContent,
    read_filter,
    split_digests,
)
from apertus_jax.release.output_filter.listing import Listing, NgramPlan, read_listing, read_rows
from apertus_jax.release.output_filter.matching import WordMatcher
from apertus_jax.release.output_filter.options import FilterRates
from apertus_jax.release.output_filter.signing import load_signing_key, public_key_file, raw_public_key
from apertus_jax.release.output_filter.words import NORMALIZATION, unicode_versions, words_of
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KIND = "output_filter"
PUBLIC_KEY_FILE = "public_key.pem"
MEASURED_DIGESTS = 1 << 18

_log = logging.getLogger(__name__)


def build_output_filter(
    listed: str | Sequence[str],
    output: epath.PathLike,
    signing_key: str,
    date: str,
    months: int = 6,
    supersedes: str | None = None,
    ngrams: NgramPlan = NgramPlan(),  # noqa: B008 (frozen)
    rates: FilterRates = FilterRates(),  # noqa: B008 (frozen)
    string_key: str | None = None,
    ordinary: str | None = None,
) -> dict[str, Any]:
    """Makes an output filter; returns its summary.

    Idempotent: returns immediately if the output is complete.

    Args:
      listed: JSONL file of all passages and strings so far, see `listing`, or the folder that `tombstoned` wrote;
        several are read together.
      output: the folder to write.
      signing_key: PEM file of an Ed25519 private key, see `signing`.
      date: the day that the filter is of, YYYY-MM-DD. The clock is not asked: the same inputs give the same bytes.
      months: after so many the filter is stale, and who loads it is told to fetch a newer one.
      supersedes: folder of the filter that this one takes the place of. All that it lists must be listed again, with
        the same settings.
      ngrams: how passages are cut into n-grams.
      rates: how much ordinary text gets past the fast tables, and the cost of the slow hash.
      string_key: file of 32 random bytes or more that users are given beside the filter; with it strings cannot be
        guessed from the filter alone. None for a filter that needs no secret, whose strings can be guessed at a price.
      ordinary: JSONL file of texts in which nothing listed should be found; the summary tells what was.

    Raises:
      UserError: a line is not a passage or string, a key is wrong, something superseded is not listed any more, or the
        output folder holds something else. Nothing is left half-written.
    """
    expires = _expiry(date, months)
    key, secret = load_signing_key(signing_key), hashing.read_string_key(string_key) if string_key else b""
    public_key = raw_public_key(key)
    before = _open_superseded(supersedes, public_key, secret) if supersedes else None
    if before is not None and date < before.header.date:
        raise UserError(f"build_output_filter.date = {date!r} is before that of {supersedes}, {before.header.date}")
    listing = read_listing([listed] if isinstance(listed, str | os.PathLike) else list(listed), ngrams)
    ordinary_texts = [text for _, _, text in read_rows(ordinary)] if ordinary else []
    inputs = {
        # A plain digest of a short listing would let anybody try what is in it, without the slow hash.
        "listed": _keyed_digest(key.private_bytes_raw(), sorted(listing.strings), sorted(map(list, listing.ngrams))),
        "ordinary": _keyed_digest(key.private_bytes_raw(), ordinary_texts),
        "string_key": hashing.fingerprint(secret),
        **identity_of(ngrams),
        **identity_of(rates),
        "public_key": public_key.hex(),
        "dates": [date, expires],
        "supersedes": before.digest if before else None,
        "normalisation": [NORMALIZATION, unicode_versions()],
    }
    if not artifacts.already_built(output, KIND, inputs):
        content = filter_bytes(listing, key, (date, expires), rates, secret, before)
        protected = read_filter(content, "the new filter", public_key, secret)
        if before is not None:
            _refuse_lost_digests(before, protected, supersedes)
        with artifacts.build(output, KIND, inputs) as build:
            (build.path / FILTER_FILE).write_bytes(content)
            (build.path / PUBLIC_KEY_FILE).write_bytes(public_key_file(public_key))
            build.summary.update(_summary(listing, ngrams, protected, ordinary_texts))
        _log.info("%s: signed by %s, to be renewed by %s", output, public_key.hex(), expires)
    return dict(artifacts.read_manifest(output, KIND)["summary"])


def read_filter_bytes(path: epath.PathLike) -> tuple[bytes, str]:
    """Returns the bytes of a filter, given its file or the folder around it, and where they lie.

    Raises:
      UserError: there is neither.
    """
    file = epath.Path(path)
    if file.is_dir():
        artifacts.read_manifest(file, KIND)
        file = file / FILTER_FILE
    if not file.exists():
        raise UserError(f"output filter {file} does not exist; give the file, or the folder that output-filter wrote")
    return file.read_bytes(), str(file)


def _expiry(date: str, months: int) -> str:
    """Returns the same day of the month so many months later, or the last one of a shorter month."""
    if not 1 <= months <= 120:
        raise UserError(f"build_output_filter.months={months} must be from 1 to 120")
    day = require_day(date, "build_output_filter.date")
    years, month = divmod(day.month - 1 + months, 12)
    year = day.year + years
    if year > datetime.MAXYEAR:
        raise UserError(f"build_output_filter.date = {date!r} is too late; correct the year")
    return datetime.date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1])).isoformat()


def _open_superseded(folder: str, public_key: bytes, secret: bytes) -> ProtectedContent:
    content, name = read_filter_bytes(folder)
    return read_filter(content, name, public_key, secret)


def _keyed_digest(key: bytes, *parts: Any) -> str:
    # Halves of surrogate pairs can stand in a listing; escaped, they have bytes.
    content = artifacts.canonical_json(parts).encode("utf-8", "surrogatepass")
    return hmac.new(key, content, "sha256").hexdigest()[:32]


def filter_bytes(
    listing: Listing,
    key: Ed25519PrivateKey,
    dates: tuple[str, str],
    rates: FilterRates,
    secret: bytes = b"",
    before: ProtectedContent | None = None,
) -> bytes:
    """Returns the whole file of a filter, signed.

    Args:
      listing: what it protects.
      key: who signs.
      dates: the day it is of, the day it expires.
      rates: of the Bloom filter and of the prefilter of strings, and the cost of the slow hash.
      secret: the string key; empty for none.
      before: the filter it takes the place of.
    """
    public_key = raw_public_key(key)
    # Public things only: a salt that depended on the listing would tell of it. Versions share it, to be comparable.
    first_salt = hashlib.sha256(b"apertus output filter salt" + public_key + dates[0].encode()).digest()
    salt = bytes.fromhex(before.header.salt) if before else first_salt[: hashing.SALT_BYTES]
    ngram_hash = hashing.NgramHash(salt)
    ngrams = sorted({ngram_hash.digest(words) for words in listing.ngrams})
    bits = hashing.prefilter_bits(len(listing.strings), rates.string_prefilter)
    prefilters, strings = _string_digests(listing.strings, hashing.StringHash(salt, secret, rates.scrypt_n, bits))
    bloom_bits, bloom_hashes = bloom_size(len(ngrams), rates.bloom)
    header = FilterHeader(
        version=before.header.version + 1 if before else 1,
        supersedes=(before.digest, *before.header.supersedes) if before else (),
        date=dates[0],
        expires=dates[1],
        normalisation=NORMALIZATION,
        unicode=unicode_versions(),
        public_key=public_key.hex(),
        salt=salt.hex(),
        ngram_sizes=tuple(sorted({len(words) for words in listing.ngrams})),
        num_ngrams=len(ngrams),
        ngram_bloom_bits=bloom_bits,
        ngram_bloom_hashes=bloom_hashes,
        ngram_bloom_rate=rates.bloom,
        string_lengths=tuple(sorted({len(string) for string in listing.strings})),
        num_strings=len(strings),
        num_prefilters=len(prefilters),
        string_prefilter_bits=bits,
        string_prefilter_rate=rates.string_prefilter,
        scrypt_n=rates.scrypt_n,
        string_key=hashing.fingerprint(secret) if strings else "",
    )
    bloom = build_bloom(halves(b"".join(ngrams)), bloom_bits, bloom_hashes)
    packed_prefilters = np.array(prefilters, dtype=">u4").tobytes()
    signed = b"".join([header.to_bytes(), bloom, *ngrams, packed_prefilters, *strings])
    return signed + key.sign(signed)


def _string_digests(strings: set[str], string_hash: hashing.StringHash) -> tuple[list[int], list[bytes]]:
    """Returns the fast and the slow hashes, each sorted by itself: which belong together is not told."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:  # scrypt lets other threads run
        slow = set(threads.map(string_hash.digest, strings))
    return sorted({string_hash.prefilter(string) for string in strings}), sorted(slow)


def _refuse_lost_digests(before: ProtectedContent, now: ProtectedContent, folder: str | None) -> None:
    lost_ngrams = sum(not now.holds_ngram_digest(digest) for digest in split_digests(before.ngrams))
    lost_strings = sum(not now.holds_string_digest(digest) for digest in split_digests(before.strings))
    if lost_ngrams or lost_strings:
        raise UserError(
            f"{lost_ngrams} n-grams and {lost_strings} strings of the superseded {folder} are not listed any more; "
            "give the whole listing with the same NgramPlan and FilterRates.scrypt_n, or begin anew without supersedes"
        )


def _summary(
    listing: Listing, plan: NgramPlan, protected: ProtectedContent, ordinary_texts: Sequence[str]
) -> dict[str, Any]:
    header = protected.header
    random_digests = halves(
        hashlib.shake_128(b"measured" + header.salt.encode()).digest(MEASURED_DIGESTS * DIGEST_BYTES)
    )
    return {
        "version": header.version,
        "supersedes": list(header.supersedes),
        "date": header.date,
        "expires": header.expires,
        "digest": protected.digest,
        "public_key": header.public_key,
        "passages": listing.passages,
        "short_passages_as_strings": listing.short_passages,
        "listed_strings": listing.listed_strings,
        "unprotected": listing.unprotected,
        "ngrams": header.num_ngrams,
        "ngram_sizes": list(header.ngram_sizes),
        "ngram_stride": plan.stride,
        "strings": header.num_strings,
        "strings_are_keyed": bool(header.string_key),
        "bloom_bits": header.ngram_bloom_bits,
        "bloom_hashes": header.ngram_bloom_hashes,
        "bloom_rate_designed": header.ngram_bloom_rate,
        "bloom_rate_measured": share_that_pass(
            protected.bloom_table, header.ngram_bloom_bits, header.ngram_bloom_hashes, random_digests
        ),
        "ordinary_text": count_in_texts(protected, ordinary_texts),
    }


def count_in_texts(protected: ProtectedContent, texts: Sequence[str]) -> dict[str, int]:
    """Returns how much a filter finds in texts: {"texts", "words", "passages", "strings"}, the last two occurrences."""
    counts = {"texts": len(texts), "words": 0, "passages": 0, "strings": 0}
    for text in texts:
        matcher = WordMatcher(protected)
        for word in words_of(text):
            for match in matcher.add(word):
                counts[match.kind] += 1
        counts["words"] += matcher.num_words
    return counts
