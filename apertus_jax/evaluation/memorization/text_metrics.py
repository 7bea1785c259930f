"""Verbatim overlap metrics on token ids: Rouge-L, longest common run, edit similarity.

Sequences may be lists, tuples or integer arrays of any length. All similarities lie in [0, 1]; two empty sequences are
equal, so they score 1, and an empty one shares nothing with one that is not.

Source: docs/reference/evaluation_and_release.md §3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apertus_jax.errors import UserError

Tokens = Sequence[int] | np.ndarray


def rouge_l(reference: Tokens, generated: Tokens) -> float:
    """Returns the F-measure 2·LCS / (n + m) of the longest common subsequence; with n = m simply LCS / n."""
    total = len(reference) + len(generated)
    return 2 * common_subsequence_length(reference, generated) / total if total else 1.0


def longest_common_run(reference: Tokens, generated: Tokens) -> float:
    """Returns the length of the longest contiguous run of tokens found in both, over the reference's length (LCCS)."""
    if not len(reference):
        return float(not len(generated))
    return longest_common_run_length(reference, generated) / len(reference)


def type_token_ratio(ids: Tokens) -> float:
    """Returns the number of distinct ids over the number of ids; 0 for an empty sequence."""
    return len(set(_as_list(ids))) / len(ids) if len(ids) else 0.0


def exact_match(reference: Tokens, generated: Tokens) -> bool:
    """Returns whether both sequences are the same."""
    return _as_list(reference) == _as_list(generated)


def prefix_match_length(reference: Tokens, generated: Tokens) -> int:
    """Returns the first place where the sequences differ, or the shorter length if they do not before it."""
    length = 0
    for ours, theirs in zip(_as_list(reference), _as_list(generated), strict=False):
        if ours != theirs:
            break
        length += 1
    return length


def edit_similarity(reference: Tokens, generated: Tokens) -> float:
    """Returns 1 − Levenshtein distance / max(n, m)."""
    longest = max(len(reference), len(generated))
    return 1 - edit_distance(reference, generated) / longest if longest else 1.0


def span_coverage(reference: Tokens, generated: Tokens, k: int) -> float:
    """Returns the share of reference tokens inside some run of k tokens that the generated text holds too.

    A reference shorter than k has no such run, so it scores 0 even against itself. Raises UserError if k < 1.
    """
    return _covered_share(common_run_lengths(reference, generated), k)


def compare(reference: Tokens, generated: Tokens, spans: Sequence[int] = (13, 50)) -> dict[str, float | int | bool]:
    """Returns every metric of this module by name, `span_coverage_<k>` for each k in `spans`.

    Lengths of runs are looked up once, so this is cheaper than calling the functions one by one.
    """
    runs = common_run_lengths(reference, generated)
    longest = max(runs, default=0)
    return {
        "rouge_l": rouge_l(reference, generated),
        "longest_common_run": longest / len(runs) if runs else float(not len(generated)),
        "exact_match": exact_match(reference, generated),
        "prefix_match_length": prefix_match_length(reference, generated),
        "edit_similarity": edit_similarity(reference, generated),
        "type_token_ratio_reference": type_token_ratio(reference),
        "type_token_ratio_generated": type_token_ratio(generated),
        **{f"span_coverage_{k}": _covered_share(runs, k) for k in spans},
    }


def common_subsequence_length(reference: Tokens, generated: Tokens) -> int:
    """Returns the length of the longest common subsequence: bits of one big integer per row (Hyyrö 2004, LCS).

    A zero bit of `row` marks a reference place where the table's row rises by one.
    """
    masks = _place_masks(reference)
    everything = (1 << len(reference)) - 1
    row = everything
    for token in _as_list(generated):
        matches = row & masks.get(token, 0)
        row = ((row + matches) | (row - matches)) & everything
    return len(reference) - row.bit_count()


def edit_distance(reference: Tokens, generated: Tokens) -> int:
    """Returns the Levenshtein distance: bits of big integers hold the differences of a column (Myers 1999, Hyyrö 2001).

    `rises` and `falls` mark the reference places where the column goes up or down by one, `right_*` those where its
    neighbour to the right does.
    """
    length = len(reference)
    if not length:
        return len(generated)
    masks = _place_masks(reference)
    everything = (1 << length) - 1
    last = 1 << (length - 1)
    rises, falls, distance = everything, 0, length
    for token in _as_list(generated):
        matches = masks.get(token, 0) | falls
        diagonal = (((rises + (matches & rises)) ^ rises) | matches) & everything
        right_rises = falls | (everything & ~(diagonal | rises))
        right_falls = diagonal & rises
        distance += bool(right_rises & last) - bool(right_falls & last)
        right_rises = ((right_rises << 1) | 1) & everything
        right_falls = (right_falls << 1) & everything
        rises = right_falls | (everything & ~(diagonal | right_rises))
        falls = right_rises & diagonal
    return distance


def longest_common_run_length(reference: Tokens, generated: Tokens) -> int:
    """Returns the number of tokens in the longest contiguous run found in both."""
    return max(common_run_lengths(reference, generated), default=0)


def common_run_lengths(reference: Tokens, generated: Tokens) -> list[int]:
    """Returns for each reference place the length of the longest run that ends there and is found in `generated`.

    The reference is read once through the suffix automaton of the generated text (Blumer et al. 1985): O(n + m).
    """
    lengths, links, steps = _suffix_automaton(_as_list(generated))
    state = run = 0
    runs = []
    for token in _as_list(reference):
        while state and token not in steps[state]:
            state = links[state]
            run = lengths[state]
        following = steps[state].get(token)
        if following is not None:
            state = following
            run += 1
        runs.append(run)
    return runs


def _suffix_automaton(tokens: list[int]) -> tuple[list[int], list[int], list[dict[int, int]]]:
    """→ for each state the length of its longest run, its suffix link (-1 at the root, state 0) and its steps."""
    lengths, links = [0], [-1]
    steps: list[dict[int, int]] = [{}]
    last = 0
    for token in tokens:
        current = len(lengths)
        lengths.append(lengths[last] + 1)
        links.append(0)
        steps.append({})
        state = last
        while state >= 0 and token not in steps[state]:
            steps[state][token] = current
            state = links[state]
        if state >= 0:
            found = steps[state][token]
            if lengths[found] != lengths[state] + 1:
                found = _split_state(lengths, links, steps, state, token)
            links[current] = found
        last = current
    return lengths, links, steps


def _split_state(lengths: list[int], links: list[int], steps: list[dict[int, int]], state: int, token: int) -> int:
    """Gives the runs of `state` + `token` a state of their own, copied from the one they share; returns it."""
    shared = steps[state][token]
    copy = len(lengths)
    lengths.append(lengths[state] + 1)
    links.append(links[shared])
    steps.append(dict(steps[shared]))
    links[shared] = copy
    while state >= 0 and steps[state].get(token) == shared:
        steps[state][token] = copy
        state = links[state]
    return copy


def _covered_share(runs: list[int], k: int) -> float:
    """Returns the share of places inside a run of at least k tokens; `runs` ends at each place."""
    if k < 1:
        raise UserError(f"span_coverage k={k} must be at least 1")
    covered = 0
    counted_to = 0
    for end, run in enumerate(runs, start=1):
        if run >= k:
            covered += end - max(counted_to, end - k)
            counted_to = end
    return covered / len(runs) if runs else 0.0


def _place_masks(tokens: Tokens) -> dict[int, int]:
    """Returns for each distinct token an integer whose bit i says that it stands at place i."""
    masks: dict[int, int] = {}
    bit = 1
    for token in _as_list(tokens):
        masks[token] = masks.get(token, 0) | bit
        bit <<= 1
    return masks


def _as_list(tokens: Tokens) -> list[int]:
    """Returns the tokens as Python integers, which hash and compare faster than array elements."""
    return tokens.tolist() if hasattr(tokens, "tolist") else list(tokens)
