"""Collected files of hosts are read in whatever coding and encoding they were saved; what cannot be read refuses."""

import gzip
import json
import zlib

import brotli
import pytest
import zstandard

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.robots_snapshot import RobotsScoring, build_robots_snapshot
from apertus_jax.corpus.signals import SignalRule, SignalScoring

URL = "https://a.example/page"
PAGE = RawDocument("0" * 32, "Text.", "web", "a.jsonl", 1, url=URL)
REFUSALS = {
    "ai_txt": ("a.example.txt", "User-agent: *\nDisallow: /\n# " + "much more of it, " * 20),
    "tdmrep": ("a.example.json", json.dumps([{"location": "/", "tdm-reservation": 1}], indent=4)),
}
SAVED = {
    "plain": str.encode,
    "with a mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big end first": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "gzip": lambda text: gzip.compress(text.encode()),
    "gzip twice": lambda text: gzip.compress(gzip.compress(text.encode())),
    "gzip of UTF-16": lambda text: gzip.compress(text.encode("utf-16")),
    "brotli": lambda text: brotli.compress(text.encode()),
    "zstandard": lambda text: zstandard.ZstdCompressor().compress(text.encode()),
    "deflate": lambda text: zlib.compress(text.encode()),
    "padded with NULs": lambda text: text.encode() + b"\0" * 64,
}


def scored(tmp_path, kind, content):
    (tmp_path / kind).mkdir()
    (tmp_path / kind / REFUSALS[kind][0]).write_bytes(content)
    (row,) = SignalScoring(**{kind: str(tmp_path / kind)}).build().score([PAGE])
    verdict = next(entry["verdict"] for entry in row["signals"] if entry["kind"] == kind)
    return verdict, SignalRule().verdict(row, {}) is not None


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("how", SAVED)
def test_a_collected_refusal_is_heard_however_saved(tmp_path, kind, how):
    assert scored(tmp_path, kind, SAVED[how](REFUSALS[kind][1])) == ("deny", True)


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("content", [b"\x1f\x8b\x08garbage", bytes(range(256)) * 8, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_a_collected_file_that_is_no_text_refuses(tmp_path, kind, content):
    assert scored(tmp_path, kind, content) == ("not_understood", True)


@pytest.mark.parametrize("kind", REFUSALS)
def test_half_of_a_collected_file_is_no_consent(tmp_path, kind):
    consent = {"ai_txt": "User-agent: *\nAllow: /\n", "tdmrep": '[{"location": "/other", "tdm-reservation": 0}]'}[kind]
    packed = gzip.compress((consent + "\n" * 5000).encode())
    assert scored(tmp_path, kind, packed[:-9]) == ("not_understood", True)


@pytest.mark.parametrize("how", SAVED)
def test_a_collected_robots_file_is_heard_however_saved(tmp_path, how):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.example.txt").write_bytes(SAVED[how](REFUSALS["ai_txt"][1]))
    build_robots_snapshot(tmp_path / "files", tmp_path / "snapshot", "2025-01-31", progress=False)
    (row,) = RobotsScoring(snapshot=str(tmp_path / "snapshot")).build().score([PAGE])
    assert row["robots_verdict"] == "deny"
