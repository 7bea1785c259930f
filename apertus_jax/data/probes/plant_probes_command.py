"""The `plant-probes` command: passages of given documents, dealt at random into exposure buckets.

The documents must not be among those that the run is trained on otherwise; 13-grams that probes share with `documents`
are counted, and the audit leaves such probes out of its filtered figures
(docs/reference/evaluation_and_release.md §3.4).
"""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.corpus.documents import UNKNOWN_LANGUAGE, Document
from apertus_jax.data.probes.probes import deal_into_buckets, plant_probes
from apertus_jax.data.store.document_inputs import read_inputs, resolve_inputs
from apertus_jax.errors import UserError
from apertus_jax.process.secret_source import read_secret

# The exposures of the reported heatmaps (docs/reference/evaluation_and_release.md §3.1), with two buckets of controls.
LENGTHS = (4000, 3000, 2000, 1500, 1000, 700, 500, 300)  # characters of a passage, where none is asked for
BUCKETS = ("0a", "0b", "1", "2", "4", "8", "16", "32", "64", "128")
_log = logging.getLogger(__name__)


def plant(
    texts: str | Sequence[str],
    output: epath.PathLike,
    buckets: Sequence[str | int] = BUCKETS,
    per_bucket: int = 8,
    characters: int | None = None,
    sources: Sequence[str] = (),
    documents: str | Sequence[str] | Mapping[str, str] | None = None,
    source: str = "probes",
    language: str = UNKNOWN_LANGUAGE,
    licence: str = "",
    secret: str = "",
    seed: int = 0,
    secret_file: str = "",
    secret_variable: str = "",
) -> dict[str, Any]:
    """Plants passages of documents as probes; returns the summary.

    Idempotent: returns immediately if the output is complete.

    Which passages are taken and which bucket each goes to depends on the seed and on the documents, not on their order.

    Args:
      texts: documents as `tokenize` takes them; the run must not be trained on them otherwise.
      output: folder to write, for `tokenize.planted` and `memorization.probes`.
      buckets: how often the probes of each bucket are shown, with a letter where several have one number.
      per_bucket: probes in each bucket.
      characters: length of a passage; give enough for the audit's prefix and suffix. None means 4,000, or as many
        thousands or hundreds as the texts have enough passages of.
      sources: only documents of these sources; all if empty.
      documents: what else the run is trained on, see `plant_probes`.
      source, language, licence, secret: see `plant_probes`; gin does not bind the secret, for it would be recorded.
      seed: of the choice.
      secret_file: a file that holds the secret.
      secret_variable: the name of an environment variable that holds the secret.

    Raises:
      UserError: too few passages of that length, or what `plant_probes` raises.
    """
    if per_bucket < 1 or (characters is not None and characters < 1):
        raise UserError(f"plant.per_bucket={per_bucket} and characters={characters} must be at least 1")
    wanted = per_bucket * len(buckets)
    for length in LENGTHS if characters is None else (characters,):
        given = (each for _, each in read_inputs(resolve_inputs(texts)) if not sources or each.source in sources)
        chosen = choose_passages(given, length, wanted, seed)
        if len(chosen) >= wanted:
            break
    else:
        raise UserError(
            f"{texts} gives {len(chosen)} passages of {length} characters, {len(buckets)} buckets of {per_bucket} "
            f"probes need {wanted}; give more text, or lower per_bucket or characters"
        )
    _log.info("%s: passages of %d characters", output, length)
    dealt = deal_into_buckets(chosen, buckets, per_bucket, seed)
    secret = read_secret("plant", secret, secret_file, secret_variable)
    return plant_probes(output, dealt, None, documents, source, language, licence, secret)


def choose_passages(documents: Iterable[Document], characters: int, count: int, seed: int) -> list[str]:
    """Returns up to `count` different passages, the first in the order of a keyed hash; memory holds no others."""
    key = f"apertus_jax probes {seed}".encode()
    kept: list[tuple[int, str]] = []
    present: set[str] = set()
    for passage in (passage for document in documents for passage in passages(document.text, characters)):
        if passage in present:
            continue
        digest = hashlib.blake2b(passage.encode(), digest_size=8, key=key).digest()
        heapq.heappush(kept, (-int.from_bytes(digest, "big"), passage))
        present.add(passage)
        if len(kept) > count:
            present.remove(heapq.heappop(kept)[1])
    return [passage for _, passage in sorted(kept, reverse=True)]


def passages(text: str, characters: int) -> Iterator[str]:
    """Yields consecutive passages of at least `characters` that end between words; a shorter rest is left.

    Where no space comes within a tenth of the length, as in scripts without spaces, a passage ends anywhere.
    """
    text = text.strip()
    while len(text) >= characters:
        end = characters
        latest = characters + characters // 10
        while end < min(latest, len(text)) and not text[end].isspace():
            end += 1
        end = characters if end == latest else end
        yield text[:end].rstrip()
        text = text[end:].lstrip()
