"""The whole chain of `prepare` in one worker process, as a child of corpus.py.

python experiments/benchmarks/corpus_chain_ours.py DOCUMENTS SNAPSHOT OUTPUT {pages,tiny}
"""

from __future__ import annotations

import sys

from apertus_jax import cli
from apertus_jax.corpus.duplicates import DuplicateRule, DuplicateScoring
from apertus_jax.corpus.language import LanguageRule, LanguageScoring
from apertus_jax.corpus.personal_data import PersonalDataPolicy
from apertus_jax.corpus.prepare import Policy, prepare
from apertus_jax.corpus.quality import EnglishQualityRule, QualityRule, QualityScoring
from apertus_jax.corpus.robots_snapshot import RobotsRule, RobotsScoring
from apertus_jax.corpus.sources import Source

DAY = "2026-11-01"
# So that the smallest corpus of the memory table is cut into several units too.
TINY_UNIT_BYTES = 2_000_000


def policy_of(snapshot: str, kind: str) -> Policy:
    """Returns the policy: consent by robots.txt, language, heuristics, copies, e-mail and IP.

    Tiny documents are too short for the limits of crawled text; they are scored and stay, so that the search for
    copies has all of them. robots.txt is asked as Apertus asked it, so that a body that is no robots.txt lets in.
    """
    quality = (QualityRule(trust_declared=False), EnglishQualityRule(trust_declared=False))
    language = LanguageRule(trust_declared=False)
    if kind == "tiny":
        quality, language = (), LanguageRule(trust_declared=False, keep_unknown=True, threshold=0.0)
    return Policy(
        name="benchmark",
        consent_scoring=(RobotsScoring(snapshot=snapshot),),
        consent_rules=(RobotsRule(policy="apertus"),),
        content_scoring=(LanguageScoring(), QualityScoring(), DuplicateScoring()),
        content_rules=(language, *quality, DuplicateRule()),
        personal_data=PersonalDataPolicy(kinds=("email", "ip")),
    )


def main() -> None:
    """Prepares the documents; the result lies in OUTPUT."""
    cli.prepare_arrow()  # as the command does, before anything loads pyarrow
    documents, snapshot, output, kind = sys.argv[1:]
    options = {"unit_bytes": TINY_UNIT_BYTES} if kind == "tiny" else {}
    prepare(
        output,
        policy_of(snapshot, kind),
        sources=(Source(name="benchmark", path=documents),),
        as_of=DAY,
        launcher="processes",
        workers=1,
        progress=False,
        **options,
    )


if __name__ == "__main__":
    main()
