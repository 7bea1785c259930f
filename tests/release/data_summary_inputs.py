"""What the tests of the data summary share: a prepared corpus written by hand, declarations, and readers of pages."""

import csv
import html.parser
import json
from pathlib import Path

import markdown_it
import pyarrow
import pyarrow.parquet

from apertus_jax.release.data_summary import (
    Crawler,
    DatasheetAnswers,
    Declarations,
    Provider,
    PublishedModel,
    SourceDescription,
)
from apertus_jax.storage import artifacts

FILES = {
    "summary.json",
    "public_summary.md",
    "public_summary.html",
    "top_domains.csv",
    "datasheet.md",
    "croissant.json",
}
EVERY_CATEGORY = [
    "public",
    "licensed",
    "third_party",
    "crawl",
    "user_interactions",
    "user_services",
    "synthetic",
    "other",
]
COMMENTED = ["1.3", "2.1", "2.2.2", "2.3", "2.4", "2.5", "2.6", "3.1", "3.2"]
TEXT, NUMBER = pyarrow.string(), pyarrow.int64()
LEDGER = pyarrow.schema(
    [
        ("source", TEXT),
        ("source_version", TEXT),
        ("language", TEXT),
        ("decision", TEXT),
        ("reason", TEXT),
        ("crawl_date", TEXT),
        ("registrable_domain", TEXT),
        ("utf8_bytes", NUMBER),
        ("utf8_bytes_out", NUMBER),
        ("tokens", NUMBER),
        ("personal_data", pyarrow.map_(TEXT, NUMBER)),
    ]
)
QUARANTINE = pyarrow.schema([("source", TEXT), ("reason", TEXT)])


def row(source="web", language="eng_Latn", reason="", size=100, **changes) -> dict:
    """Returns a row of the ledger: kept, or left out for a reason."""
    return {
        "source": source,
        "source_version": "",
        "language": language,
        "decision": "drop" if reason else "keep",
        "reason": reason,
        "crawl_date": "2024-03-05",
        "registrable_domain": "site.example",
        "utf8_bytes": size,
        "utf8_bytes_out": 0 if reason else size,
        "tokens": None,
        "personal_data": [],
    } | changes


def write_prepared(folder: Path, rows: list[dict], quarantined=(), counts=None, policy=None) -> Path:
    """Writes a complete prepared corpus of one part; `counts` and `policy` replace what would be right."""
    part = folder / "parts" / "000000"
    part.mkdir(parents=True)
    kept = [each for each in rows if each["decision"] == "keep"]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, LEDGER), str(part / "ledger.parquet"))
    broken = [{"source": source, "reason": reason} for source, reason in quarantined]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(broken, QUARANTINE), str(part / "quarantine.parquet"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"] * len(kept)}), str(part / "documents.parquet"))
    committed = artifacts.commit(part, "prepared_part", {}, {})
    funnel: dict[tuple, list[int]] = {}
    for each in rows:
        sums = funnel.setdefault((each["source"], each["language"], each["reason"] or "kept"), [0, 0, 0])
        for place, value in enumerate((1, each["utf8_bytes"], each["tokens"] or 0)):
            sums[place] += value
    spans: dict[str, int] = {}
    for each in rows:
        for kind, count in each["personal_data"]:
            spans[kind] = spans.get(kind, 0) + count
    write_json(
        folder / "funnel.json",
        {
            "counts": [[*key, *sums] for key, sums in sorted(funnel.items())],
            "bytes_out": sum(each["utf8_bytes_out"] for each in rows),
            "personal_data": spans,
            "quarantined": [[source, reason, 1] for source, reason in sorted(quarantined)],
        },
    )
    parts = {
        "name": "by hand",
        "consent_scoring": [],
        "consent_rules": [],
        "content_scoring": [],
        "content_rules": [],
        "personal_data": {"class": "PersonalDataPolicy", "mode": "strict", "kinds": ["email"], "skip_sources": []},
        "tokenizer": "",
    }
    scores = {"consent": [], "content": [], "tokenizer": None}
    write_json(folder / "policy.json", {"policy": parts | (policy or {}), "scores": scores})
    summary = {
        "documents": len(rows),
        "kept": len(kept),
        "dropped": len(rows) - len(kept),
        "quarantined": len(broken),
        "policy_name": "by hand",
        "policy": "0" * 32,
        "plan": "1" * 32,
        "as_of": "2026-11-01",
        "code": "0.1.0",
        "tombstones": None,
        "parts": {"000000": committed["digest"]},
    }
    artifacts.commit(folder, "prepared_corpus", {}, summary | (counts or {}), without=("parts",))
    return folder


def write_json(path: Path, value) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(value))


def small_corpus(folder: Path) -> Path:
    """Writes a corpus with one document of one source for each category, one refused and one unreadable row."""
    rows = [row(source, size=1000) for source in EVERY_CATEGORY] + [row("public", reason="robots")]
    return write_prepared(folder, rows, quarantined=[("public", "empty_text")])


def described(source: str, category: str, **changes) -> SourceDescription:
    """Returns a description in which nothing is missing."""
    values = {
        "title": f"The {source}",
        "link": "https://example.org/dataset",
        "version": "1",
        "selection": "the whole",
        "content": "stories",
        "period": "01/2023-12/2024",
        "market_models": ["none"],
        "other_models": ["none"],
        "model_summaries": ["none"],
    }
    return SourceDescription(source, category, **(values | changes))


def everything_declared(*sources: SourceDescription) -> dict:
    """Returns the arguments of the command with every declaration made."""
    every_comment = {number: f"comment on {number}" for number in COMMENTED}
    return {
        "provider": Provider("The Provider", "summary@provider.example", "none: established in the Union", "none"),
        "models": [PublishedModel("Model 1.0", "https://example.org/card", "none", "none", "01/2026")],
        "sources": list(sources),
        "crawlers": [Crawler("Bot/1.0", "training text", "asks robots.txt, logs in nowhere")],
        "declarations": Declarations(
            last_update="2026-11-24",
            content_types="stories",
            training_continues=False,
            regional_notes="invented towns",
            code_of_practice_signed=False,
            opt_outs_kept_current="asked again before each build",
            copyright_policy="https://example.org/copyright",
            illegal_content="none beyond the filters",
            further_information="nothing",
            comments=every_comment,
        ),
        "datasheet": DatasheetAnswers(*[f"answer {number}" for number in range(10)]),
    }


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def field_of(folder: Path, section: str, name: str):
    """Returns the value of a field; fails when it has none."""
    return summary_of(folder)["template"][section]["fields"][name]["value"]


def reason_of(folder: Path, section: str, name: str) -> str:
    return summary_of(folder)["template"][section]["fields"][name]["not_available"]


def every_field(folder: Path):
    """Yields (section, name, field) of a summary."""
    for number, section in summary_of(folder)["template"].items():
        for name, content in section["fields"].items():
            yield number, name, content


def read_domains(folder: Path) -> list[dict]:
    with (folder / "top_domains.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Cells(html.parser.HTMLParser):
    """Gathers the texts of table cells, and every tag and attribute."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.cells, self._open = set(), set(), [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attributes)
        if tag == "td":
            self.cells.append("")
        self._open = tag == "td"

    def handle_data(self, data):
        if self._open:
            self.cells[-1] += data


def markdown_tokens(page: str):
    """Yields the tokens of a Markdown page as other programs read it: tables, inline HTML and all."""
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for token in parser.parse(page):
        yield token
        yield from token.children or ()
