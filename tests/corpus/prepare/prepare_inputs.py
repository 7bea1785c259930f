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
# `small_policy` without languages, for the command line.
SMALL_POLICY = f"""
prepare.policy = @Policy()
Policy.name = 'small'
Policy.consent_scoring = [@RemovalScoring()]
Policy.consent_rules = [@RemovalRule()]
Policy.not_asked = ['removal']
Policy.content_scoring = [@DuplicateScoring()]
Policy.content_rules = [@DuplicateRule()]
prepare.as_of = '{AS_OF}'
"""
# From nothing to the permitted documents of the overlay, for `apertus run`.
OVERLAY_CHAIN = """
include 'policies/quickstart.gin'
run.stages = ['overlay', 'robots-snapshot', 'remove', 'train-classifier', 'prepare']
prepare.sources = [@overlay/Source()]
prepare.as_of = '2026-11-01'
prepare.launcher = 'inline'
prepare.unit_bytes = 200_000
overlay/Source.name = 'overlay'
build_robots_snapshot.as_of = '2026-11-01'
train_classifier.task = 'toxicity'
"""


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
        "not_asked": () if "consent_scoring" in changes else ("removal",),
        "content_rules": (LanguageRule(threshold=0.1, per_language_thresholds=False), DuplicateRule()),
    }
    return Policy(**(options | changes))
