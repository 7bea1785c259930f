"""A small corpus and policy for the tests of `prepare`."""

import json
import random
from pathlib import Path

from apertus_jax.corpus.duplicates import DuplicateRule, DuplicateScoring
from apertus_jax.corpus.language import LanguageRule, LanguageScoring
from apertus_jax.corpus.prepare import Policy
from apertus_jax.corpus.removal import RemovalRule, RemovalScoring

AS_OF = "2026-11-24"
TEXT = """
river mountain village winter summer garden window table letter morning evening market bridge harbour forest teacher
student doctor farmer painter music story history science weather season journey silence colour light answers carries
follows remembers discovers protects explains imagines the a this that every another with near
"""
WORDS = TEXT.split()


def sentence(generator: random.Random, length: int = 40) -> str:
    """Returns English-looking words."""
    return " ".join(generator.choice(WORDS) for _ in range(length)).capitalize() + "."


def write_corpus(folder: Path, documents: int = 120, seed: int = 0) -> Path:
    """Writes two JSONL files with copies and repeated identities; returns the folder."""
    generator = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"d{number}", "url": f"https://h{number % 7}.example/p{number}", "text": sentence(generator)}
        for number in range(documents)
    ]
    for number in range(0, documents // 4):
        rows[documents - 1 - number]["text"] = rows[number]["text"]  # a copy in another file
    rows[documents - 2]["id"] = "d1"  # an identity that the other file has
    half = documents // 2
    for name, part in (("one.jsonl", rows[:half]), ("two.jsonl", rows[half:])):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


def small_policy(**changes) -> Policy:
    """Returns a policy with one part of each kind."""
    options = {
        "name": "small",
        "consent_scoring": (RemovalScoring(),),
        "consent_rules": (RemovalRule(),),
        "content_scoring": (LanguageScoring(), DuplicateScoring()),
        "content_rules": (LanguageRule(threshold=0.1, per_language_thresholds=False), DuplicateRule()),
    }
    return Policy(**(options | changes))
