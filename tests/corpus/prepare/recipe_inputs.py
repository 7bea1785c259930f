"""What the strict recipe of README is tried on: the overlay, and beside it hosts and pages in which more is planted."""

import dataclasses
import gzip
import json
import random
import zlib
from pathlib import Path

import brotli

from apertus_jax.corpus.overlay import hosts, write_overlay
from apertus_jax.corpus.overlay.prose import Prose, paragraphs
from apertus_jax.corpus.reasons import Reason

README_ADDRESS = "https://example.org/page"
CLOSED = b"User-agent: *\nDisallow: /\n"
OPEN = b"User-agent: *\nAllow: /\n"
OPT_OUT, ROBOTS, UNREACHABLE = Reason.OPT_OUT_SIGNAL, Reason.ROBOTS, Reason.ROBOTS_UNREACHABLE
NOT_PERMITTED, NOT_UNDERSTOOD = Reason.LICENCE_NOT_PERMITTED, Reason.LICENCE_NOT_UNDERSTOOD

# robots.txt, path of a page, reason, what `why` must say.
SIGNAL_ONLY = {
    "example.org": ("Content-Signal: search=yes, ai-train=no\n", "/page", OPT_OUT, "content_signal, ai-train=no"),
    "note.example": ("# A note.\n\ncontent-signal :AI-Train = No\n", "/a", OPT_OUT, "line 3: content_signal"),
    "group.example": ("Content-Signal: ai-train=no\nUser-agent: *\nAllow: /\n", "/a", OPT_OUT, "line 1: content"),
    "usage.example": ("Content-Usage: train-ai=n\n", "/a", OPT_OUT, "line 1: aipref, train-ai=n"),
    "garbled.example": ("Content-Signal: ai-train = nope\n", "/a", OPT_OUT, "line 1: content_signal, ai-train not"),
    "json.example": ('Content-Signal: ["ai-train=no"]\n', "/a", OPT_OUT, "line 1: content_signal, not understood"),
    "part.example": ("Content-Signal: /closed/ ai-train=no\n", "/closed/a", OPT_OUT, "line 1: content_signal"),
    "otherpart.example": ("Content-Signal: /closed/ ai-train=no\n", "/open/a", "", ""),
    "willing.example": ("Content-Signal: search=no, ai-train=yes\n", "/a", "", ""),
    "searched.example": ("Content-Usage: search=n\n", "/a", "", ""),
}  # fmt: skip


def _raw_deflate(body: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(body) + coder.flush()


# Content-Encoding, body, reason, what `why` must say.
CODED = {
    "gzip.example": ("gzip", gzip.compress(CLOSED), ROBOTS, "line 2, `Disallow: /`"),
    "xgzip.example": ("x-gzip", gzip.compress(CLOSED), ROBOTS, "line 2, `Disallow: /`"),
    "br.example": ("br", brotli.compress(CLOSED), ROBOTS, "line 2, `Disallow: /`"),
    "deflate.example": ("deflate", zlib.compress(CLOSED), ROBOTS, "line 2, `Disallow: /`"),
    "rawdeflate.example": ("deflate", _raw_deflate(CLOSED), ROBOTS, "line 2, `Disallow: /`"),
    "double.example": ("gzip, gzip", gzip.compress(gzip.compress(CLOSED)), ROBOTS, "line 2, `Disallow: /`"),
    "mixed.example": ("gzip, br", brotli.compress(gzip.compress(CLOSED)), ROBOTS, "line 2, `Disallow: /`"),
    "identity.example": ("gzip, identity", gzip.compress(CLOSED), ROBOTS, "line 2, `Disallow: /`"),
    "members.example": ("gzip", gzip.compress(CLOSED[:14]) + gzip.compress(CLOSED[14:]), ROBOTS, "line 2"),
    "silent.example": ("", gzip.compress(CLOSED), ROBOTS, "line 2, `Disallow: /`"),
    "undone.example": ("br", CLOSED, ROBOTS, "line 2, `Disallow: /`"),
    "wide.example": ("", b"\xff\xfe" + CLOSED.decode().encode("utf-16-le"), ROBOTS, "line 2, `Disallow: /`"),
    "brsignal.example": ("br", brotli.compress(b"Content-Signal: ai-train=no\n"), OPT_OUT, "line 1: content_signal"),
    "noise.example": ("br", random.Random(5).randbytes(300), UNREACHABLE, "state undecodable"),
    "bropen.example": ("br", brotli.compress(OPEN), "", ""),
    "doubleopen.example": ("gzip, gzip", gzip.compress(gzip.compress(OPEN)), "", ""),
}
LICENCES = {
    **dict.fromkeys(
        (
            "Attribution-NonCommercial 4.0 International", "CC BY-NC-ND 3.0 IGO",
            "Creative Commons Attribution–NonCommercial", "creativecommons.org/licenses/by-nc/4.0",
            "https://creativecommons.org/licenses/by-nd/3.0/de/", "cc-by-nc-sa-4.0", "CC BY NC 2.0", "GPL 2.0",
            "LGPL 2.1", "GNU AGPLv3", "EUPL 1.2", "GPL-3.0-or-later", "MIT AND GPL-3.0-only", "All rights reserved",
            "Proprietary", "CC-BY-NC-4.0", "Creative Commons Attribution-NoDerivatives 4.0 International",
            "GNU General Public License v3.0", "© 2020 A Publisher. All rights reserved.",
        ),
        NOT_PERMITTED,
    ),
    **dict.fromkeys(("(MIT", "MIT WITH GPL-3.0-only", "see the foot of the page"), NOT_UNDERSTOOD),
    **dict.fromkeys(
        (
            "MIT", "Apache 2.0", "Apache License, Version 2.0", "CC0-1.0", "CC0", "CC BY 4.0", "cc-by-4.0",
            "Creative Commons Attribution 4.0 International", "https://creativecommons.org/licenses/by/4.0/",
            "creativecommons.org/publicdomain/zero/1.0", "BSD-3-Clause", "MIT OR GPL-3.0-only", "CC BY-SA 3.0",
            "Public Domain", "ISC", "CC-BY-SA-4.0", "Creative Commons Attribution-ShareAlike 4.0 International",
            "Unlicense", "http://creativecommons.org/licenses/by-sa/2.0/",
        ),
        "",
    ),
}  # fmt: skip
# What the recipe does not ask of the overlay; no licence is required there, and no tdmrep.json is given.
NOT_ASKED_OF_THE_OVERLAY = (Reason.TOXICITY, Reason.CONTAMINATION, Reason.LICENCE_UNKNOWN)


@dataclasses.dataclass(frozen=True)
class PlantedPage:
    """A page beside the overlay: its address, the reason that must keep it out (or ""), and words that `why` says."""

    url: str
    reason: str
    words: str


def write_world(root: Path) -> tuple[dict[tuple[str, int], str], list[PlantedPage]]:
    """Writes all that README and --help name; returns the planted reason of every row, and the pages besides."""
    write_overlay(root / "overlay")
    overlay = root / "overlay"
    (root / "DOCUMENTS").symlink_to(overlay / "documents")
    (root / "requests.jsonl").symlink_to(overlay / "removal_requests.jsonl")
    pages = list(_pages())
    rows = [_row(number, page, licence) for number, (page, licence) in enumerate(pages)]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (overlay / "documents" / "planted.jsonl").write_text(content)
    (root / "my.jsonl").write_text(content)
    for name in ("ROBOTS_WARCS", "robots_warcs"):
        (root / name).mkdir()
        (root / name / "robots.warc").write_bytes(b"".join(_records()))
    truth = json.loads((overlay / "truth.json").read_text())["rows"]
    planted = {(row["file"], row["row"]): row["reason"] for row in truth}
    planted |= {("planted.jsonl", number): str(page.reason) for number, (page, _) in enumerate(pages, start=1)}
    return planted, [page for page, _ in pages]


def _pages():
    for host, (_, path, reason, words) in SIGNAL_ONLY.items():
        yield PlantedPage(f"https://{host}{path}", reason, words), ""
    for host, (_, _, reason, words) in CODED.items():
        yield PlantedPage(f"https://{host}/a", reason, words), ""
    for number, (licence, reason) in enumerate(LICENCES.items()):
        yield PlantedPage(f"https://licences.example/{number}", reason, reason), licence


def _row(number: int, page: PlantedPage, licence: str) -> dict:
    text = paragraphs(Prose("eng_Latn", random.Random(f"planted {number}")).sentences(14))
    return {
        "document_id": f"{number:032x}",
        "url": page.url,
        "text": text,
        "licence": licence,
        "crawl_date": "2024-05-06",
    }


def _records():
    """Yields a WARC record for each answer of a host of the overlay and of the extension."""
    for host in hosts.HOSTS:
        if host == hosts.NEVER_ASKED:
            continue
        status = host.status or (200 if host.robots is not None else 504)
        yield _record(host.name, status, "", (host.robots or "").encode())
    for name, (robots, *_) in SIGNAL_ONLY.items():
        yield _record(name, 200, "", robots.encode())
    for name, (coding, body, *_) in CODED.items():
        yield _record(name, 200, coding, body)


def _record(host: str, status: int, coding: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Said\r\n" + (f"Content-Encoding: {coding}\r\n" if coding else "") + "\r\n"
    block = head.encode() + body
    fields = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://{host}/robots.txt\r\n"
        f"WARC-Date: {hosts.FETCHED_AT}\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return fields.encode() + block + b"\r\n\r\n"
