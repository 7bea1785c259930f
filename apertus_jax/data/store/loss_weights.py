"""Loss weights of a token store: one float32 for each token of a source that holds conversations.

`weights.f32` lies beside `tokens.bin`: little-endian, in the same order, nothing else. The weight of a token is that of
the loss of predicting it. Documents that are no conversations weigh 1; a source without conversations has no such file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.listing import regular_file

WEIGHTS_FILE = "weights.f32"
WEIGHTS = "weights"  # of a source, in the summary of the store
WEIGHTS_FIELDS = {"conversations": int, "weighted_tokens": int}
DTYPE = np.dtype("<f4")
TOKENS_AT_A_TIME = 1 << 20


class WeightsWriter:
    """Writes the weights of a source, document by document."""

    def __init__(self, folder: Path):
        """Opens the file in the folder of a source."""
        self._file: BinaryIO = (folder / WEIGHTS_FILE).open("wb")
        self.summary = dict.fromkeys(WEIGHTS_FIELDS, 0)

    def append(self, weights: np.ndarray | None, num_tokens: int) -> None:
        """Writes one document of `num_tokens` tokens, boundary tokens included.

        `weights` float32[num_tokens - 2] are those of a conversation, whose boundary tokens weigh nothing; None is
        another document.
        """
        row = np.ones(num_tokens, DTYPE)
        if weights is not None:
            row[:] = 0
            row[1:-1] = weights
            self.summary["conversations"] += 1
        self._file.write(row.tobytes())
        self.summary["weighted_tokens"] += int(np.count_nonzero(row))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def open_weights(folder: epath.PathLike, summary: Mapping[str, Any], num_tokens: int) -> np.ndarray | None:
    """Returns float32[num_tokens], memory-mapped: the weights of a source; None where it has none.

    Raises:
      UserError: the file is missing or has another length.
    """
    if WEIGHTS not in summary:
        return None
    path = regular_file(epath.Path(folder) / WEIGHTS_FILE)
    if path.stat().length != num_tokens * DTYPE.itemsize:
        raise UserError(
            f"{path} has {path.stat().length} bytes where {num_tokens} tokens take {num_tokens * DTYPE.itemsize}; "
            "restore it or tokenize again"
        )
    return np.memmap(path, dtype=DTYPE, mode="r") if num_tokens else np.zeros(0, DTYPE)


def check_weights(
    weights: np.ndarray, document_starts: np.ndarray, summary: Mapping[str, Any], path: epath.PathLike
) -> None:
    """Checks every weight of a source: finite, not negative, and as many as its summary says.

    Raises:
      UserError: the first that is not; names its place.
    """
    weighted = 0
    for start in range(0, len(weights), TOKENS_AT_A_TIME):
        piece = np.asarray(weights[start : start + TOKENS_AT_A_TIME])
        wrong = np.flatnonzero(~(np.isfinite(piece) & (piece >= 0)))
        if len(wrong):
            value = float(piece[wrong[0]])
            raise UserError(f"{path}: the weight of token {start + int(wrong[0])} is {value}; tokenize again")
        weighted += int(np.count_nonzero(piece))
    conversations = int(np.count_nonzero(np.asarray(weights[document_starts[:-1]]) == 0))
    found = {"conversations": conversations, "weighted_tokens": weighted}
    for name, stated in summary[WEIGHTS].items():
        if found.get(name) != stated:
            raise UserError(f"{path}: {name} are {found.get(name)} where the manifest says {stated}; tokenize again")
