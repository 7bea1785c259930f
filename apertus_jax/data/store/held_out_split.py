"""Held-out split: which documents are kept from training, and the check that none leaked.

The split is by document, by keyed hash, in each source; every script gets a held-out document where it can. A held-out
document shares no 13-gram (see `grams`) with any training document. Documents that share one hang together: small
groups of near duplicates move together, so that a second translation of a held-out chapter is held out with it, and
larger ones go to training as a whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from apertus_jax.data.store.ngrams import GRAM_LENGTH, text_ngram_hashes
from apertus_jax.data.store.token_store import HELD_OUT, TokenStore
from apertus_jax.errors import UserError

# More candidates are examined than are needed, because many of them hang together with training documents.
CANDIDATES_PER_WANTED = 4
CANDIDATES_PER_SCRIPT = 16
LARGEST_GROUP = 8
GRAMS_PER_PIECE = 1 << 22


@dataclasses.dataclass(frozen=True)
class DocumentTable:
    """Columns of N documents for the split, all arrays of length N; `gram_starts` int64[N+1] points into the grams."""

    keys: np.ndarray  # uint64: keyed hash of the identity, the random order of the split
    sources: np.ndarray  # int32: number of the source
    languages: np.ndarray  # int32: number of the language
    scripts: np.ndarray  # int32: number of the script
    utf8_bytes: np.ndarray  # int64
    gram_starts: np.ndarray  # int64[N+1]


@dataclasses.dataclass(frozen=True)
class OverlapReport:
    """Result of the 13-gram check; `shared_grams` counts distinct grams that occur on both sides."""

    training_documents: int
    held_out_documents: int
    held_out_documents_with_grams: int
    training_grams: int
    held_out_grams: int
    shared_grams: int
    sharing_held_out_documents: tuple[int, ...]

    @property
    def is_clean(self) -> bool:
        """Whether no 13-gram is shared."""
        return self.shared_grams == 0

    def describe(self) -> str:
        """Returns the result as one sentence for people."""
        verdict = "no 13-gram is shared" if self.is_clean else f"{self.shared_grams:,} 13-grams are shared"
        return (
            f"{verdict} between {self.held_out_documents:,} held-out documents ({self.held_out_grams:,} 13-grams) "
            f"and {self.training_documents:,} training documents ({self.training_grams:,} 13-grams)"
        )


def choose_held_out(
    table: DocumentTable, grams: np.ndarray, fraction: float, never: np.ndarray | None = None
) -> np.ndarray:
    """Returns bool[N]: which documents are held out.

    About `fraction` of the bytes of each source, and one document or more of each script where possible. Every
    language keeps at least half of its bytes for training. Documents that `never` (bool[N]) marks stay in training,
    and so does every document that shares a 13-gram with one. Memory grows with the candidates' grams, not with
    `grams` (uint64[M], may be memory-mapped).

    Raises:
      UserError: the fraction is not in [0, 0.5).
    """
    if not 0 <= fraction < 0.5:
        raise UserError(f"held-out fraction {fraction} is outside 0 to 0.5; 0.02 holds out two per cent")
    chosen = np.zeros(len(table.keys), dtype=bool)
    if fraction == 0:
        return chosen
    never = np.zeros_like(chosen) if never is None else never
    candidates = first_candidates(table, fraction) & ~never
    # First look: who shares with a candidate? Small groups are completed with their other members.
    groups = groups_of_sharing_documents(table, grams, candidates)
    candidates = np.zeros_like(chosen)
    for group in groups:
        if len(group) <= LARGEST_GROUP:
            candidates[group] = True
    # Second look: do the completed groups share with anyone else?
    groups = groups_of_sharing_documents(table, grams, candidates)
    closed = [
        group for group in groups if len(group) <= LARGEST_GROUP and candidates[group].all() and not never[group].any()
    ]
    return select_groups(table, sorted(closed, key=lambda group: table.keys[group].min()), fraction)


def first_candidates(table: DocumentTable, fraction: float) -> np.ndarray:
    """Returns bool[N]: documents early in the random order, overall and within each script, that have a 13-gram."""
    has_gram = np.diff(table.gram_starts) > 0
    share = min(1.0, CANDIDATES_PER_WANTED * fraction)
    candidates = has_gram & (table.keys <= np.uint64(share * float(2**64 - 2**11)))
    order = np.lexsort((table.keys, table.scripts))
    order = order[has_gram[order]]
    scripts = table.scripts[order]
    first_of_script = np.searchsorted(scripts, scripts)
    candidates[order[np.arange(len(order)) - first_of_script < CANDIDATES_PER_SCRIPT]] = True
    return candidates


def groups_of_sharing_documents(table: DocumentTable, grams: np.ndarray, candidates: np.ndarray) -> list[np.ndarray]:
    """Returns int64[n] document numbers per group: candidates, and all documents that share grams with them.

    Two documents are in one group when a chain of grams that candidates hold leads from one to the other.
    """
    import scipy.sparse

    numbers = np.flatnonzero(candidates)
    if not len(numbers):
        return []
    held = [grams[table.gram_starts[number] : table.gram_starts[number + 1]] for number in numbers]
    known = np.unique(np.concatenate(held))
    documents, places = _occurrences(table.gram_starts, grams, known)
    nodes, rows = np.unique(documents, return_inverse=True)
    size = len(nodes) + len(known)
    edges = scipy.sparse.coo_matrix((np.ones(len(rows), dtype=bool), (rows, len(nodes) + places)), shape=(size, size))
    _, labels = scipy.sparse.csgraph.connected_components(edges, directed=False)
    labels = labels[: len(nodes)]
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    return [nodes[members] for members in np.split(order, cuts)]


def select_groups(table: DocumentTable, groups: Sequence[np.ndarray], fraction: float) -> np.ndarray:
    """Returns bool[N]: groups taken in turn, first for scripts that have none, then until each source has its share."""
    chosen = np.zeros(len(table.keys), dtype=bool)
    in_language = np.bincount(table.languages, weights=table.utf8_bytes)
    wanted = fraction * np.bincount(table.sources, weights=table.utf8_bytes)
    taken_of_language = np.zeros_like(in_language)
    taken_of_source = np.zeros_like(wanted)
    covered: set[int] = set()

    def take(group: np.ndarray) -> bool:
        taken = np.bincount(table.languages[group], table.utf8_bytes[group], minlength=len(in_language))
        if (taken_of_language + taken > in_language / 2)[taken > 0].any():
            return False
        taken_of_language[:] += taken
        taken_of_source[:] += np.bincount(table.sources[group], table.utf8_bytes[group], minlength=len(wanted))
        chosen[group] = True
        covered.update(table.scripts[group].tolist())
        return True

    for group in groups:
        if not covered.issuperset(table.scripts[group].tolist()):
            take(group)
    for group in groups:
        if not chosen[group[0]] and (taken_of_source < wanted)[table.sources[group]].all():
            take(group)
    return chosen


def check_no_shared_13grams(train: Iterable[str], held_out: Iterable[str]) -> OverlapReport:
    """Looks for 13-grams that occur in both sets of texts; memory grows with the held-out set only."""
    held = [text_ngram_hashes(text) for text in held_out]
    known = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *held]))
    shared = np.zeros(len(known), dtype=bool)
    documents, count = 0, 0
    for text in train:
        grams = text_ngram_hashes(text)
        documents += 1
        count += len(grams)
        found, places = _find(known, grams)
        shared[places[found]] = True
    common = known[shared]
    sharing = tuple(number for number, grams in enumerate(held) if np.isin(grams, common).any())
    return OverlapReport(
        training_documents=documents,
        held_out_documents=len(held),
        held_out_documents_with_grams=sum(len(grams) > 0 for grams in held),
        training_grams=count,
        held_out_grams=sum(map(len, held)),
        shared_grams=int(shared.sum()),
        sharing_held_out_documents=sharing,
    )


def check_store(store: TokenStore) -> OverlapReport:
    """Runs the 13-gram check on what a store really holds: its tokens, decoded.

    Raises:
      UserError: the store has no held-out source.
    """
    if not store.has_held_out:
        raise UserError(f"{store.folder} has no held-out documents; tokenize with a held-out fraction")

    def texts(names: Sequence[str]) -> Iterator[str]:
        for name in names:
            source = store.source(name)
            for number in range(source.num_documents):
                yield store.tokenizer.decode(source.document(number)[1:-1])

    return check_no_shared_13grams(texts(store.training_sources), texts([HELD_OUT]))


def _find(known: np.ndarray, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (bool[n] whether each gram is in the sorted `known`, int64[n] where)."""
    if not len(known):
        return np.zeros(len(grams), dtype=bool), np.zeros(len(grams), dtype=np.int64)
    places = np.minimum(np.searchsorted(known, grams), len(known) - 1)
    return known[places] == grams, places


def _occurrences(starts: np.ndarray, grams: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (document number, place in `known`) of every known gram in the corpus, read piece by piece."""
    documents: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for begin in range(0, len(grams), GRAMS_PER_PIECE):
        found, where = _find(known, np.asarray(grams[begin : begin + GRAMS_PER_PIECE]))
        positions = begin + np.flatnonzero(found)
        pairs = np.stack([np.searchsorted(starts, positions, side="right") - 1, where[found]])
        pairs = np.unique(pairs, axis=1)
        documents.append(pairs[0])
        places.append(pairs[1])
    return np.concatenate(documents), np.concatenate(places)


__all__ = ["GRAM_LENGTH", "OverlapReport", "check_no_shared_13grams", "check_store", "choose_held_out"]
