"""Planned documents of the synthetic crawl: one document, and the growing list of them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

from apertus_jax.corpus.documents import document_id
from apertus_jax.corpus.overlay.hosts import OPEN_HOSTS, Host
from apertus_jax.corpus.overlay.phrases import LANGUAGES
from apertus_jax.corpus.overlay.prose import Prose, paragraphs

SOURCE = "overlay"
PERMITTED_LICENCES = ("CC-BY-4.0", "CC0-1.0")
SECTIONS = ("stories", "notes", "town", "letters", "almanac")
SLUGS = ("ladder", "kettle", "geese", "market", "bridge", "organ", "lanterns", "reeds", "harvest", "ferry", "snow")
# English is the largest part, as in crawls; the rest is shared out evenly.
LANGUAGE_WEIGHTS = (6, 3, 2, 2, 2, 2, 2, 2)


@dataclasses.dataclass
class Planned:
    """One document: what is written of it, what is planted in it, and the reason that must keep it out, or ""."""

    kind: str
    reason: str
    document_id: str
    url: str
    text: str
    language: str
    licence: str
    crawl_date: str
    headers: dict[str, str]
    meta_tags: dict[str, str]
    personal: dict[str, int] = dataclasses.field(default_factory=dict)
    values: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # (kind, value)

    def row(self) -> dict[str, Any]:
        """Returns the row of the documents file."""
        names = ("document_id", "url", "text", "crawl_date", "licence", "language", "headers", "meta_tags")
        return {name: getattr(self, name) for name in names}


class Plan:
    """Documents planned so far, and the only source of chance."""

    def __init__(self, seed: int, documents: int):
        self.seed = seed
        self.size = documents
        self.generator = random.Random(f"apertus overlay {seed}")
        self.documents: list[Planned] = []
        # Pairs of numbers (earlier, later) of documents whose order decides which of them stays.
        self.order: list[tuple[int, int]] = []

    def share(self, of_600: int) -> range:
        """Returns a range as long as the part of this corpus that `of_600` is of one of 600 documents, at least 1."""
        return range(max(1, round(of_600 * self.size / 600)))

    def language(self) -> str:
        """Returns one of the languages."""
        return self.generator.choices(LANGUAGES, LANGUAGE_WEIGHTS)[0]

    def sentences(self, language: str, fewest: int = 10, most: int = 16) -> list[str]:
        """Returns the sentences of an ordinary document: more than 100 words, less than 2,000 characters."""
        return Prose(language, self.generator).sentences(self.generator.randint(fewest, most))

    def address(self, host: Host, path: str = "") -> str:
        """Returns a new URL of a host; its spelling varies as spellings do."""
        section, slug = self.generator.choice(SECTIONS), self.generator.choice(SLUGS)
        path = path or f"/{section}/"
        name = host.name.title() if self.generator.random() < 0.05 and "xn--" not in host.name else host.name
        port = ":443" if self.generator.random() < 0.03 else ""
        return f"https://{name}{port}{path}{slug}-{len(self.documents)}"

    def add(
        self,
        kind: str,
        reason: str = "",
        host: Host | None = None,
        language: str = "",
        sentences: Sequence[str] = (),
        text: str = "",
        path: str = "",
        **fields: Any,
    ) -> Planned:
        """Plans one document; whatever is not given is ordinary and permitted."""
        language = language or self.language()
        host = host or self.generator.choice(OPEN_HOSTS)
        year, month, day = self.generator.choice((2023, 2024)), *(self.generator.randint(1, 12) for _ in range(2))
        planned = Planned(
            kind=kind,
            reason=reason,
            document_id=document_id(SOURCE, str(self.seed), str(len(self.documents))),
            url=self.address(host, path),
            text=text or paragraphs(sentences or self.sentences(language)),
            language=language,
            licence=self.generator.choice(PERMITTED_LICENCES),
            crawl_date=f"{year}-{month:02d}-{day:02d}",
            headers={"content-type": "text/html; charset=utf-8"},
            meta_tags={},
        )
        for name, value in fields.items():
            setattr(planned, name, value)
        self.documents.append(planned)
        return planned

    def add_after(self, original: Planned, kind: str, reason: str, **fields: Any) -> Planned:
        """Plans a document that must be read after another one."""
        planned = self.add(kind, reason, language=original.language, **fields)
        self.order.append((self.documents.index(original), len(self.documents) - 1))
        return planned

    def in_reading_order(self) -> list[Planned]:
        """Returns the documents shuffled, with every pair of `order` the right way round."""
        places = list(range(len(self.documents)))
        self.generator.shuffle(places)
        for earlier, later in self.order:
            if places[earlier] > places[later]:
                places[earlier], places[later] = places[later], places[earlier]
        ordered = sorted(zip(places, self.documents, strict=True), key=lambda pair: pair[0])
        return [planned for _, planned in ordered]
