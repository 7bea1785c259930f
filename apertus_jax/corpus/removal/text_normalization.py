"""Text digest that ignores case, spacing and compatibility spelling."""

from __future__ import annotations

import hashlib
import unicodedata

DIGEST_BYTES = 16
NORMALIZATION = "NFKC, casefold, whitespace collapsed"


def normalize_text(text: str) -> str:
    """Returns `text` in NFKC, casefolded, each run of white space one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_digest(text: str) -> str:
    """Returns the BLAKE2b-128 digest (32 hexadecimal digits) of the normalised text."""
    # Halves of surrogate pairs are refused elsewhere; a digest must exist for whatever is asked about.
    content = normalize_text(text).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()
