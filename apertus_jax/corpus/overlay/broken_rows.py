"""Rows that are no documents, and what a reader must call them."""

from __future__ import annotations

import json
from typing import Any


def broken_rows() -> list[tuple[str, bytes]]:
    """Returns (reason of the quarantine, line without its end) of each broken row."""
    text = "The text of this row is fine, and something else about it is not."
    good: dict[str, Any] = {"url": "https://www.willowgate.example/notes/broken", "text": text, "licence": "CC0-1.0"}

    def line(**changes: Any) -> bytes:
        return json.dumps(good | changes).encode()

    return [
        ("invalid_encoding", line(text="caf@").replace(b"@", b"\xe9")),
        ("invalid_json", line()[:-9]),
        ("not_an_object", json.dumps([text]).encode()),
        ("missing_text", json.dumps({"url": good["url"]}).encode()),
        ("empty_text", line(text=" \n\t ")),
        ("wrong_type", line(text=17)),
        ("nul_character", line(text="before\0after")),
        ("lone_surrogate", line(text="half \ud83d of a pair")),
        ("invalid_id", line(document_id="not-an-identity")),
        ("url_without_host", line(url="https:///notes/nowhere")),
        ("malformed_date", line(crawl_date="the third of May")),
        ("future_date", line(crawl_date="2999-01-01")),
    ]
