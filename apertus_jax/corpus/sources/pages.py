"""HTML extraction: a page's text, the tags that say something about consent, and its licence links."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apertus_jax.corpus.sources import evidence
from apertus_jax.corpus.sources.quarantine import QuarantineReason, Unusable
from apertus_jax.corpus.web.page_encoding import decode_page

if TYPE_CHECKING:
    from resiliparse.parse.html import ElementNode, HTMLTree

# The parser compares every attribute of a tag with all others, the extractor walks up from every block.
MAX_BLANKS_IN_TAG = 4_000
MAX_NESTED_BLOCKS = 256
MAX_LINKS = 64
MAX_ANCESTORS = 512
LONGEST_LINK = 2048
_TAG = re.compile(r"""<[a-zA-Z](?:[^>"']++|"[^"]*+"|'[^']*+')*+""")
_BLOCK = re.compile(r"<(/?)(?:div|article)\b", re.IGNORECASE)
_BLANK = re.compile(r"[\s/]+")
_LICENCE_HOST = re.compile(r"(?:https?:)?//(?:[a-z]+\.)?creativecommons\.org/(?:licenses|publicdomain)/", re.IGNORECASE)
_HEADER_LINK = re.compile(r"<([^<>]{1,2048})>((?:\s*;\s*[\w*-]+\s*=\s*(?:\"[^\"]*\"|[^\s;,\"]*))*)")
_LICENCE_RELATION = re.compile(r"\blicense\b", re.IGNORECASE)
_COMMENTS = re.compile(r"\bcomments?\b|\bdisqus\b", re.IGNORECASE)
# A declared licence often stands in a footer; a mere link to one there says nothing about the text.
_NEVER_FROM = frozenset(("nav", "aside"))
_BOILERPLATE = frozenset(("nav", "aside", "footer"))


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Extracted web page: text, tags about consent, licence links."""

    text: str
    meta_tags: dict[str, str]
    licence_links: tuple[str, ...]


def read_page(body: bytes, charset: str, main_content: bool) -> Page:
    """Extracts an HTML page.

    Args:
      body: the page, transfer and content codings removed.
      charset: what the HTTP header says, or nothing.
      main_content: whether navigation and the like are left out; a page that is nothing else is taken whole.

    Raises:
      Unusable: the encoding is not what is declared, or the page is built to keep a parser busy.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    html = decode(body, charset, is_html=True)
    _check_attributes(html)
    # Nested blocks make only the search for the main content slow.
    main_content = main_content and _nested_blocks(html) <= MAX_NESTED_BLOCKS
    tree = HTMLTree.parse(html)
    options: dict[str, Any] = {"preserve_formatting": True, "alt_texts": False}
    text = extract_plain_text(tree, main_content=True, comments=False, **options) if main_content else ""
    if not text.strip():
        text = extract_plain_text(tree, main_content=False, **options)
    return Page(text.strip(), _meta_tags(tree), _licence_links(tree))


def decode(body: bytes, charset: str, is_html: bool) -> str:
    """Returns the characters of a body (see `decode_page`).

    Raises:
      Unusable: it is in no encoding that anything suggests.
    """
    text = decode_page(body, charset, is_html)
    if text is None:
        raise Unusable(QuarantineReason.INVALID_ENCODING, "the page is not in the encoding that it declares")
    return text


def header_licence_links(link_header: str) -> tuple[str, ...]:
    """Returns the targets of an HTTP Link header (RFC 8288) whose relation is license."""
    return tuple(target.strip() for target, rest in _HEADER_LINK.findall(link_header) if _is_licence_parameter(rest))


def _is_licence_parameter(parameters: str) -> bool:
    """Returns whether the parameters of a Link header say rel=license."""
    relations = re.findall(r"\brel\s*=\s*(\"[^\"]*\"|[^\s;,\"]*)", parameters, re.IGNORECASE)
    return bool(relations) and _LICENCE_RELATION.search(relations[0]) is not None


def _check_attributes(html: str) -> None:
    """Raises Unusable when one tag has thousands of attributes."""
    if len(html) <= 2 * MAX_BLANKS_IN_TAG:
        return
    for match in _TAG.finditer(html):
        start, stop = match.span()
        if stop - start > 2 * MAX_BLANKS_IN_TAG and len(_BLANK.findall(html, start, stop)) > MAX_BLANKS_IN_TAG:
            raise Unusable(QuarantineReason.PAGE_TOO_COMPLEX, f"a tag with more than {MAX_BLANKS_IN_TAG} attributes")


def _nested_blocks(html: str) -> int:
    """Returns how deeply blocks are inside each other, as the tags are written."""
    depth = deepest = 0
    for match in _BLOCK.finditer(html):
        depth = max(depth - 1, 0) if match.group(1) else depth + 1
        deepest = max(deepest, depth)
    return deepest


def _all(tree: HTMLTree, selector: str) -> Sequence[ElementNode]:
    """Returns the elements that a selector picks; taking them one by one would count from the first each time."""
    document = tree.document
    assert document is not None  # of a tree that was parsed
    return document.query_selector_all(selector)[:]


def _meta_tags(tree: HTMLTree) -> dict[str, str]:
    """Returns the meta tags that say something about consent or licence."""
    found = []
    for element in _all(tree, "meta[name], meta[property], meta[http-equiv]"):
        name = element.getattr("name") or element.getattr("property") or element.getattr("http-equiv") or ""
        name, content = evidence.meta_tag_name(name), (element.getattr("content") or "").strip()
        # An empty one counts: it is no consent to what it speaks of.
        if name and evidence.is_signal_meta_tag(name, content):
            found.append((name, content))
    return evidence.join_values(found)


def _licence_links(tree: HTMLTree) -> tuple[str, ...]:
    """Returns link targets that declare a licence of the page, each once, in the order of the page.

    These are `a` and `link` elements with rel=license outside navigation, side bars and comments, and further
    addresses of Creative Commons licences in `a`, `link` and `meta` elements that do not stand in a footer either.
    """
    found: dict[str, None] = {}
    looked_up = 0
    for element in _all(tree, "[href][rel], [href*='creativecommons.org/'], meta[content*='creativecommons.org/']"):
        target = (element.getattr("href") or element.getattr("content") or "").strip()
        declares = _LICENCE_RELATION.search(element.getattr("rel") or "") is not None
        if not target or len(target) > LONGEST_LINK or not (declares or _LICENCE_HOST.match(target)):
            continue
        if target not in found and not _stands_in(element, _NEVER_FROM if declares else _BOILERPLATE):
            found[target] = None
        looked_up += 1
        if looked_up == MAX_LINKS:
            break
    return tuple(found)


def _stands_in(element: ElementNode, tags: frozenset[str]) -> bool:
    """Returns whether an element stands inside one of these tags or among comments of readers."""
    node: Any = element.parent
    for _ in range(MAX_ANCESTORS):
        if node is None or node.tag in ("body", "html", "#document"):
            return False
        if node.tag in tags or _COMMENTS.search(f"{node.getattr('id') or ''} {node.getattr('class') or ''}"):
            return True
        node = node.parent
    return True
