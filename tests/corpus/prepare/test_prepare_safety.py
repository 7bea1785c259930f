"""Documents, hosts and robots files that carry markup, escape sequences and worse: shown nowhere but as text."""

import json
import re
import unicodedata
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import gin
import pyarrow.parquet
import pytest

from apertus_jax.cli import main
from apertus_jax.corpus.ledger import Funnel, parts_of, why
from apertus_jax.corpus.ledger.report import write_report
from apertus_jax.terminal.terminal_text import printable

MARK = "zqxj"  # in every hostile string and nowhere else
FIGURE = "data:image/svg+xml,"  # a figure that is saved as a file
ESCAPES = f"\x1b[31m{MARK}\x1b]0;title\x07\x9b2J\r\n\t\x08\x7f\x85\u2028"
BIDI = f"\u202e{MARK}\u2066\u2069\u200f\u061c"
MARKUP = f"<script>{MARK}()</script><img src=x onerror='{MARK}()'><!-- {MARK} --></table></pre></svg><h1>{MARK}</h1>"
RICH = f"[red]{MARK}[/red][link=https://{MARK}.example]x[/link][bold"
FORMULA = f"$\\frac{{{MARK}$ ${{{MARK}}}"
LONG = MARK * 2500
HOSTILE = (MARKUP, ESCAPES, BIDI, RICH, FORMULA, LONG, f'"onmouseover="{MARK}()" \'{MARK}\'', f"&lt;{MARK}&gt;&amp;")
HOSTS = (f"www.{MARK}\"'&;(1).example", f"{MARK}&lt;b&gt;.example", f"$\\{MARK}$.example", f"{MARK}ʹ\u202e.example")
GIN = """
prepare.policy = @Policy()
Policy.name = '<b>[red]name\\x1b[31m'
Policy.consent_scoring = [@RemovalScoring(), @RobotsScoring(), @SignalScoring(), @LicenceScoring()]
Policy.consent_rules = [@RemovalRule(), @RobotsRule(), @SignalRule(), @LicenceRule()]
RobotsRule.policy = 'strict'
Policy.not_asked = ['removal']
Policy.content_scoring = [@LanguageScoring(), @QualityScoring(), @DuplicateScoring()]
Policy.content_rules = [@LanguageRule(), @DuplicateRule()]
LanguageRule.trust_declared = True
LanguageRule.per_language_thresholds = False
prepare.as_of = '2026-11-24'
prepare.launcher = 'inline'
build_robots_snapshot.as_of = '2026-11-24'
"""


def is_obeyed(character: str) -> bool:
    """Whether a terminal or a page may obey a character rather than show it: controls, separators, directions."""
    kind = unicodedata.category(character)
    return (
        kind in ("Cc", "Zl", "Zp")
        or unicodedata.bidirectional(character)[-1:] in "EOFI"
        and kind == "Cf"
        or (character in "\u061c\u200e\u200f")
    )


def hostile_rows() -> list[dict]:
    """Rows each of which carries every hostile string in one of its fields."""
    rows = []
    for number, bad in enumerate(HOSTILE):
        prose = f"This is the text of a page about rivers and bridges, the {number}th of them, and it says {bad}. "
        good = {"id": str(number), "url": f"https://fine.example/{number}", "text": prose * 4, "licence": "CC0-1.0"}
        short = bad[:2000]
        changes = [
            {},
            {"text": bad},
            {"id": f"{short}{number}"},
            {"url": f"https://fine.example/{short}"},
            {"licence": short, "language": "en"},
            {"language": short},
            {"headers": {"X-Robots-Tag": f"noai, {short}", "TDM-Reservation": "1", "tdm-policy": short}},
            {"meta_tags": {"robots": f"noml, {short}", "content-usage": short}},
            {"licence_links": [f"https://creativecommons.org/licenses/{short}"]},
            {"url": f"https://{short}/"},
            {"crawl_date": short},
            {"document_id": short},
        ]
        rows += [good | {"id": f"{number}-{place}"} | change for place, change in enumerate(changes)]
    for number, host in enumerate(HOSTS):
        rows.append(
            {"id": f"h{number}", "url": f"https://{host}/a", "text": "A page of a strange host. " * (number + 1)}
        )
    return rows


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A corpus prepared from hostile rows, files and robots files: once with hosts masked, once with hosts shown."""
    root = tmp_path_factory.mktemp("hostile")
    documents = root / f"<img src={MARK}>[red]\x1b[31m\u202e"
    documents.mkdir()
    lines = [json.dumps(row) for row in hostile_rows()]
    (documents / f"{MARK}<b>\x1b[1m.jsonl").write_text("\n".join([*lines, f'["{MARK}"]', f'{{"{MARK}']) + "\n")
    (root / "robots").mkdir()
    bad = MARKUP + "".join(ESCAPES.splitlines()) + BIDI  # any end of a line of Unicode ends a rule
    plain = "".join(filter(str.isascii, bad))  # with other letters a preference is not understood
    body = (
        f"User-agent: GPTBot\nUser-agent: {bad}\nDisallow: /{bad}\nDisallow: /1\nContent-Usage: train-ai=n, {plain}\n"
    )
    (root / "robots" / "fine.example").write_text(body)
    (root / "policy.gin").write_text(GIN)
    flags = [f"--gin_file={root / 'policy.gin'}"]
    snapshot = str(root / "snapshot")
    assert main(["robots-snapshot", *flags, f"--input={root / 'robots'}", f"--output={snapshot}"]) == 0
    flags += [f"--gin.RobotsScoring.snapshot='{snapshot}'", f"--gin.SignalScoring.snapshot='{snapshot}'"]
    flags += [f"--gin.prepare.work='{root / 'work'}'", "--gin.prepare.sources=[@Source()]"]
    flags += ["--gin.Source.name='hostile'", f"--gin.Source.path={str(documents)!r}"]
    for name, show in (("masked", False), ("shown", True)):
        assert main(["prepare", *flags, f"--gin.prepare.show_hosts={show}", f"--output={root / name}"]) == 0
    gin.clear_config()
    return root / "masked", root / "shown"


@pytest.fixture
def prepared(both):
    return both[0]


def ledger_rows(prepared: Path, name: str = "ledger.parquet") -> list[dict]:
    return [row for part in parts_of(prepared) for row in pyarrow.parquet.read_table(str(part / name)).to_pylist()]


class Page(HTMLParser):
    """What a browser would make of a page: its tags with attributes, comments, and text by the tag it stands in."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.others: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def attributes_named(self, name: str) -> int:
        """Returns how many attributes have this name."""
        return [each for each, _ in self.attributes].count(name)

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.others.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def assert_inert(page: str) -> None:
    """Checks that nothing in a page but its text comes from documents, and that the text holds nothing to obey."""
    parsed = Page(page)
    assert not set(parsed.tags) & {"script", "img", "iframe", "object", "embed", "link", "form", "base", "h3"}
    assert parsed.tags.count("h1") == ("<html" in page)
    assert not [tag for tag in parsed.tags if MARK in tag]
    # Links lead to sections of the page, or save a figure, which is a page of the same kind.
    files = [value.removeprefix(FIGURE) for name, value in parsed.attributes if value.startswith(FIGURE)]
    assert parsed.tags.count("a") == parsed.attributes_named("href") and ("<html" not in page or files)
    for file in files:
        assert_inert(urllib.parse.unquote(file))
    for name, value in parsed.attributes:
        if name == "href" and (re.fullmatch(r"#s[0-9]+", value) or value.startswith(FIGURE)):
            continue
        assert not name.startswith("on") and MARK not in name + value, (name, value)
        assert not value.strip().lower().startswith(("javascript:", "data:")), (name, value)
    assert not [other for other in parsed.others if MARK in other and re.search(r"[<>]|--", other)]
    assert [hex(ord(each)) for each in page if is_obeyed(each) and each != "\n"] == []


def test_the_report_holds_nothing_of_documents_but_text(both):
    masked, shown = [(folder / "report.html").read_text() for folder in both]
    assert_inert(masked)
    assert_inert(shown)
    assert MARK not in masked and "example" in masked
    text = Page(shown).text
    assert f"{MARK}\"'&;(1).example" in text and f"{MARK}&lt;b&gt;.example" in text


def test_a_report_about_hostile_names_holds_nothing_but_text(tmp_path):
    funnel = Funnel()
    for number, bad in enumerate(HOSTILE):
        funnel.counts[bad, bad, "kept"] = [number + 1, 10, 3]
        funnel.counts[bad, bad, "length"] = [number + 1, 10, 3]
        funnel.personal_data[bad] = 1
        funnel.quarantined[bad, bad] = 1
    summary = {name: MARKUP + ESCAPES + BIDI for name in ("policy_name", "policy", "plan", "as_of", "code")}
    summary |= {"documents": 3, "kept": 2, "dropped": 1, "quarantined": 0, "ignored": {MARKUP: 3}}
    write_report(tmp_path / "report.html", funnel, summary, {MARKUP: dict.fromkeys(HOSTILE, MARKUP)}, [], True)
    page = (tmp_path / "report.html").read_text()
    assert MARK in Page(page).text
    assert_inert(page)


def test_machine_readable_outputs_stay_valid(prepared):
    files = [path for folder in (prepared, prepared.with_name("work")) for path in folder.rglob("*.json")]
    assert len(files) > 8
    for path in files:
        assert isinstance(json.loads(path.read_text(), parse_constant=pytest.fail), dict), path
    rows, broken = ledger_rows(prepared), ledger_rows(prepared, "quarantine.parquet")
    assert len(rows) + len(broken) == len(hostile_rows()) + 2
    assert {row["reason"] for row in broken} >= {"invalid_json", "not_an_object", "url_without_host", "malformed_date"}
    for row in broken:
        assert MARK not in row["reason"] + row["detail"] and "\n" not in row["detail"]
    assert {row["reason"] for row in rows} >= {"robots", "opt_out_signal", ""}


def test_why_prints_nothing_that_a_terminal_obeys(prepared, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rows, broken = ledger_rows(prepared), ledger_rows(prepared, "quarantine.parquet")
    questions = [row["document_id"] for row in rows if MARK in str(row)] + [
        f"{row['file']}:{row['row']}" for row in broken
    ]
    assert len(questions) > 60
    told = ""
    for question in questions[::2]:
        assert why(prepared, question, full=True) and why(prepared, question)
        told += capsys.readouterr().out
    assert MARK in told
    assert [hex(ord(each)) for each in told if is_obeyed(each) and each != "\n"] == []
    assert f"[red]{MARK}" in told.replace("\n", "")  # shown as it is, not as colour


def test_why_of_a_hostile_question_is_one_quiet_line(prepared, capsys):
    for bad in HOSTILE:
        assert main(["why", bad, f"--input={prepared}"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert [each for each in said if is_obeyed(each)] == ["\n"]


@pytest.mark.parametrize("character", [chr(code) for code in range(0x3000) if is_obeyed(chr(code))])
def test_printable_replaces_every_control_and_direction(character):
    assert printable(f"a{character}b") == "a\ufffdb"
