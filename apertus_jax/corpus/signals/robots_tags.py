"""`noai` and `noml` in the X-Robots-Tag header and in robots meta tags (a convention that DeviantArt began in 2022)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from apertus_jax.corpus.signals.signal import DENY, Page, Signal, evidence, strictest

REFUSALS = ("noai", "noml")  # noimageai is about images
_SEPARATORS = re.compile(r"[\s,;]+")


class NoAi:
    """Refuses where a page is tagged noai or noml, for everyone or for an agent of the set.

    `X-Robots-Tag: GPTBot: noai` and `<meta name="gptbot" content="noai">` address one agent. Header values are
    joined before they come here, so a prefix limits only the directive that it stands at: `otherbot: noindex, noai`
    is read as a refusal to all.
    """

    kind = "noai"

    def read(self, page: Page) -> Signal:
        """Returns deny or unknown: the convention has no word for consent."""
        return strictest(self.kind, self._refusals(page))

    def _refusals(self, page: Page) -> Iterator[Signal]:
        header, tags = page.document.headers.get("x-robots-tag", ""), page.document.meta_tags
        if not header and not tags:
            return
        agents = {_product(agent) for agent in page.agents} | {"*"}
        for word in _addressed(header, agents):
            yield Signal(self.kind, DENY, "header", evidence(word, header))
        for name, content in tags.items():
            if name.strip().lower() == "robots" or _product(name) in agents:
                for word in _SEPARATORS.split(content.lower()):
                    if word in REFUSALS:
                        yield Signal(self.kind, DENY, "meta", evidence(word, content))


def _addressed(header: str, agents: set[str]) -> Iterator[str]:
    """Yields the refusals of a header value that speak to everyone or to one of the agents.

    Directives with a value (`max-snippet: 20`) look like agents of that name, and are passed over like those.
    """
    for directive in header.lower().split(","):
        prefix, colon, rest = directive.partition(":")
        if colon and _product(prefix) not in agents:
            continue
        for word in _SEPARATORS.split(rest if colon else prefix):
            if word in REFUSALS:
                yield word


def _product(agent: str) -> str:
    """Returns the product token of an agent (`CCBot/2.0` gives `ccbot`)."""
    return agent.strip().lower().partition("/")[0]
