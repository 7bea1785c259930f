"""`noai` and `noml` in the X-Robots-Tag header and in robots meta tags (a convention that DeviantArt began in 2022)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from apertus_jax.corpus.signals.signal import DENY, NOT_UNDERSTOOD, Page, Signal, evidence, strictest

REFUSALS = ("noai", "noml")  # noimageai is about images
EVERYBODY = frozenset(("*", "all", "any", "robots", "x-robots-tag", "ai", "bots", "genai", "llm", "llms", "ml"))
_SEPARATORS = re.compile(r"[\s,;]+")
_PARTED = re.compile(r"(?<![a-z0-9])no[\s_-]*((?:gen)?ai|ml|llms?|tdm)(?![a-z0-9])")
# No directive of search engines begins like this: whoever writes it means training, in words that nobody agreed on.
_LIKE_A_REFUSAL = re.compile(r"(?:no|dis)(?:allow)?(?:gen)?(?:ai|ml|llms?|tdm|gpt|train(?:ing)?)")
# A refusal in the words of another protocol, or with a value.
_VALUED_REFUSAL = re.compile(
    r"(?<![a-z])(?:gen-?ai|ai|ml|llms?|tdm(?:[-_]reservation)?|(?:ai[-_])?train(?:ing)?(?:[-_](?:gen)?ai)?"
    r"|machine[-_ ]?learning)\s*[=:]\s*[\"']?(?:no|not|n|0|1|false|den(?:y|ied)|disallow(?:ed)?|none|never|reserved)\b"
    r"|\bno[-_ ](?:machine|deep)[-_ ]?learning\b"
)
_MIXED = re.compile(r"[a-z][^\W\d_a-z]|[^\W\d_a-z][a-z]")
_KNOWN_ELSEWHERE = frozenset(("noimageai", "nomail", "nomailto"))


class NoAi:
    """Refuses where a page is tagged noai or noml, for everyone or for an agent of the set.

    `X-Robots-Tag: GPTBot: noai` and `<meta name="gptbot" content="noai">` address one agent. Header values are
    joined before they come here, so a prefix limits only the directive that it stands at: `otherbot: noindex, noai`
    is read as a refusal to all. `no-ai`, `no_ai` and `no ai` are noai; `noaitraining` is not understood.
    """

    kind = "noai"

    def read(self, page: Page) -> Signal:
        """Returns deny, not_understood or unknown: the convention has no word for consent."""
        return strictest(self.kind, self._refusals(page))

    def _refusals(self, page: Page) -> Iterator[Signal]:
        header, tags = page.document.headers.get("x-robots-tag", ""), page.document.meta_tags
        if not header and not tags:
            return
        agents = EVERYBODY.union(map(_product, page.agents))
        if header:
            yield from self._said(header, "header", agents)
        for name, content in tags.items():
            if _product(name) in agents:
                yield from self._said(content, "meta", agents)

    def _said(self, content: str, carrier: str, agents: frozenset[str]) -> Iterator[Signal]:
        """Yields what a value refuses to everyone or to the agents."""
        value = unicodedata.normalize("NFKC", content).lower()
        for directive in _addressed(value, agents):
            for word in _words(directive):
                if word in REFUSALS:
                    yield Signal(self.kind, DENY, carrier, evidence(word, content))
                elif _LIKE_A_REFUSAL.match(word) and word not in _KNOWN_ELSEWHERE:
                    yield Signal(self.kind, NOT_UNDERSTOOD, carrier, evidence("not understood", content))
        # Letters of two scripts in one word are not what they look like.
        if _VALUED_REFUSAL.search(value) or (not value.isascii() and _MIXED.search(value)):
            yield Signal(self.kind, NOT_UNDERSTOOD, carrier, evidence("not understood", content))


def _words(directive: str) -> Iterable[str]:
    """Returns the words of a directive in lower case without what joins their parts and what stands around them."""
    joined = _PARTED.sub(r"no\1", directive)
    return (re.sub(r"[^a-z0-9]", "", word) for word in _SEPARATORS.split(joined) if word)


def _addressed(value: str, agents: frozenset[str]) -> Iterator[str]:
    """Yields the directives of a value (in lower case) that speak to everyone or to one of the agents.

    Directives with a value (`max-snippet: 20`) look like agents of that name, and are passed over like those, unless
    the word before the colon is a refusal itself.
    """
    for directive in value.split(","):
        *prefixes, words = directive.split(":")
        if not prefixes or any(_product(prefix) in agents for prefix in prefixes):
            yield words
        for prefix in prefixes:
            if any(word in REFUSALS for word in _words(prefix)):
                yield prefix


def _product(agent: str) -> str:
    """Returns the product token of an agent (`CCBot/2.0` gives `ccbot`)."""
    return agent.strip().lower().partition("/")[0]
