"""Apertus vocabulary, made from the tekken vocabulary of `mistral-common` (report section 2.2).

Apertus keeps Mistral's pre-tokenizer and the order of its entries, and enlarges the reserved block to 1,000 ids: entry
of rank r has id 1000 + r, and the entries beyond 131,072 ids are dropped.
"""

from __future__ import annotations

import base64
import importlib.util

from etils import epath

from apertus_jax.data.tokenizer import special_tokens as layout
from apertus_jax.data.tokenizer.bpe import (
    SPLIT_PATTERN,
    Tokenizer,
    byte_characters,
    describe_tokenizer,
    from_description,
)
from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import read_json_object

TEKKEN_FILE = "tekken_240718.json"
APERTUS_VOCAB_SIZE = 131_072


def installed_tekken_path() -> epath.Path:
    """Returns the path of the tekken file inside the installed package, without importing the package.

    Raises:
      UserError: `mistral_common` is not installed.
    """
    package = importlib.util.find_spec("mistral_common")
    if package is None or not package.submodule_search_locations:
        raise UserError("the tekken vocabulary needs the package mistral-common; run `make install`")
    return epath.Path(package.submodule_search_locations[0]) / "data" / TEKKEN_FILE


def apertus_tokenizer(path: epath.PathLike | None = None) -> Tokenizer:
    """Returns the Apertus vocabulary (131,072 ids) converted from a tekken file; default is the installed one.

    Raises:
      UserError: the file is missing, is not a tekken vocabulary, or splits words in another way.
    """
    source = epath.Path(path) if path is not None else installed_tekken_path()
    if not source.exists():
        raise UserError(f"{source} does not exist; give a tekken JSON file")
    try:
        tekken = read_json_object(source)
        pattern = tekken["config"]["pattern"]
        ranked = sorted(tekken["vocab"], key=lambda entry: entry["rank"])[: APERTUS_VOCAB_SIZE - layout.FULL_BLOCK]
        tokens = [base64.b64decode(entry["token_bytes"]) for entry in ranked]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source} is not a tekken vocabulary ({error!r}); give {TEKKEN_FILE}") from error
    if pattern != SPLIT_PATTERN or len(tokens) != APERTUS_VOCAB_SIZE - layout.FULL_BLOCK:
        raise UserError(f"{source} is another edition of tekken than Apertus used; give {TEKKEN_FILE}")
    characters = byte_characters()
    spelled = ["".join(characters[value] for value in token) for token in tokens]
    entries = {token: layout.FULL_BLOCK + rank for rank, token in enumerate(spelled)}
    return from_description(describe_tokenizer(layout.FULL_BLOCK, entries, ranked_merges(spelled)))


def ranked_merges(tokens: list[str]) -> list[tuple[str, str]]:
    """Returns every merge that a vocabulary given in rank order implies, in order of the rank of its result.

    Mistral's encoder joins the neighbours whose concatenation has the lowest rank, however a token was learned; a list
    of merges says the same when it names each way to cut each token into two tokens.
    """
    rank_of = {token: rank for rank, token in enumerate(tokens)}
    merges: list[tuple[str, str]] = []
    for token in tokens:
        cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
        ways = [(left, right) for left, right in cuts if left in rank_of and right in rank_of]
        merges += sorted(ways, key=lambda way: (rank_of[way[0]], rank_of[way[1]]))
    return merges
