"""Top domains by text among what the provider crawled, and which of them may be published.

The template wants names of domains. A name can be that of a person, so they stand in one file only, for sources that
are declared as the provider's own crawl and for nobody else's; sites below one platform (`jane.blogs.example`) are told
as the platform, addresses that are numbers are not told, and names can be masked.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import functools
import importlib.metadata
import io
import math
import re
from collections.abc import Mapping
from typing import Any

from apertus_jax.release.data_summary.ledger_sums import Size, total

DOMAINS_FILE = "top_domains.csv"
COLUMNS = ("rank", "domain", "documents", "utf8_bytes", "tokens", "share_of_crawled_bytes")
SHARE, SHARE_OF_SMALL, MAX_OF_SMALL = 0.10, 0.05, 1000  # docs/reference/data.md §12.1, field 2.3
PUBLIC_SUFFIXES = "publicsuffixlist"
# A name of letters, digits and hyphens; also keeps out what a spreadsheet would take for a formula.
_NAME = re.compile(r"[a-z0-9_][a-z0-9_-]*(?:\.[a-z0-9_][a-z0-9_-]*)*\.[a-z][a-z0-9-]*")


@dataclasses.dataclass(frozen=True)
class TopDomains:
    """The largest domains, in order, and how many there are.

    Attributes:
      largest: (name, size of what was kept).
      num_domains: all domains with a name.
      crawled: all that was kept of crawled sources.
      nameless: of that, what has no name that could be told.
      rule: how the largest were chosen.
    """

    largest: list[tuple[str, Size]]
    num_domains: int
    crawled: Size
    nameless: Size
    rule: str


def top_domains(sizes: Mapping[str, Size], small_provider: bool) -> TopDomains:
    """Returns the tenth of the domains with the most bytes; of a small provider a twentieth, at most 1,000."""
    named: dict[str, Size] = collections.defaultdict(Size)
    nameless = Size()
    for domain, size in sizes.items():
        name = _registered_name(domain)
        (nameless if name is None else named[name]).add(size)
    share, most = (SHARE_OF_SMALL, MAX_OF_SMALL) if small_provider else (SHARE, len(named))
    count = min(math.ceil(len(named) * share), most)
    ordered = sorted(named.items(), key=lambda item: (-item[1].bytes_kept, item[0]))
    limit = f", at most {MAX_OF_SMALL:,}" if small_provider else ""
    rule = f"the {share:.0%} of all domains with the most bytes kept{limit}"
    return TopDomains(ordered[:count], len(named), total(sizes.values()), nameless, rule)


def describe(domains: TopDomains, masked: bool) -> dict[str, Any]:
    """Returns what the summary says of the list, without a single name."""
    return {
        "file": DOMAINS_FILE,
        "listed": len(domains.largest),
        "domains": domains.num_domains,
        "chosen": domains.rule,
        "names": "masked" if masked else "in full, sites of one platform together",
        "documents without a domain name": domains.nameless.documents,
    }


def write_csv(domains: TopDomains, counted: bool, masked: bool) -> str:
    """Returns the list as CSV; only a header when there is nothing to list."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, (name, size) in enumerate(domains.largest, start=1):
        share = size.bytes_kept / max(domains.crawled.bytes_kept, 1)
        tokens = size.tokens if counted else ""
        shown = mask(name) if masked else name
        writer.writerow((rank, shown, size.documents, size.bytes_kept, tokens, f"{share:.6f}"))
    return text.getvalue()


def mask(name: str) -> str:
    """Returns a name with all but its first letter and its last label hidden: `s•••.example`."""
    return f"{name[:1]}•••.{name.rpartition('.')[2]}"


def suffixes_version() -> str:
    """Returns the version of the list by which platforms are known."""
    return importlib.metadata.version(PUBLIC_SUFFIXES)


def _registered_name(domain: str) -> str | None:
    """Returns the name that was registered with a registry, None for a number or what is no name."""
    if not _NAME.fullmatch(domain):
        return None
    return _suffixes().privatesuffix(domain) or domain


@functools.cache
def _suffixes() -> Any:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(only_icann=True)  # its private section has the platforms
