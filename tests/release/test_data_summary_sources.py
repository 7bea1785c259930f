"""The public summary of corpora written by hand: kinds of sources, domains, versions, and text that nothing obeys."""

import dataclasses
import re
import urllib.parse

import pytest

from apertus_jax import configuration
from apertus_jax.errors import UserError
from apertus_jax.release.data_summary import (
    Crawler,
    DatasheetAnswers,
    Declarations,
    Provider,
    PublishedModel,
    SourceDescription,
    data_summary,
    data_summary_command,
)
from apertus_jax.release.data_summary.answers.general import size_class
from apertus_jax.release.data_summary.domains import top_domains
from apertus_jax.release.data_summary.ledger_sums import Size
from apertus_jax.storage import artifacts
from tests.release.data_summary_inputs import (
    EVERY_CATEGORY,
    Cells,
    described,
    everything_declared,
    field_of,
    markdown_tokens,
    read_domains,
    reason_of,
    row,
    small_corpus,
    write_prepared,
)


@pytest.fixture
def small(tmp_path):
    return small_corpus(tmp_path / "small")


def test_a_policy_without_opt_outs_says_so(small, tmp_path):
    data_summary(small, tmp_path / "out")
    assert "reads no opt-out protocol" in reason_of(tmp_path / "out", "3.1", "opt_out_protocols")
    assert "no tombstones were applied" in reason_of(tmp_path / "out", "3.2", "removal_requests")
    assert "tokens were not counted" in reason_of(tmp_path / "out", "1.3", "text_size_class")


def test_of_a_tokenizer_only_the_name_is_told_not_the_folder(tmp_path):
    rows = [row(tokens=7), row(tokens=2, reason="robots")]
    write_prepared(tmp_path / "mine", rows, policy={"tokenizer": "/home/somebody/mine.json"})
    data_summary(tmp_path / "mine", tmp_path / "out")
    assert field_of(tmp_path / "out", "1.3", "tokenizer")["name"] == "mine.json"
    assert field_of(tmp_path / "out", "1.3", "text_size")["tokens"] == 7


def test_official_languages_are_found_in_all_scripts_and_codes(tmp_path):
    labels = ["ekk_Latn", "est_Latn", "lvs_Latn", "lav_Latn", "hrv_Latn", "ell_Grek", "ell_Latn", "srp_Cyrl"]
    write_prepared(tmp_path / "labels", [row(language=label) for label in labels])
    data_summary(tmp_path / "labels", tmp_path / "out")
    found = {each["code"]: each["documents"] for each in field_of(tmp_path / "out", "1.3", "eu_languages")}
    assert {code: count for code, count in found.items() if count} == {"ekk": 2, "lvs": 2, "hrv": 1, "ell": 2}


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (0, "less than 1 billion"),
        (10**9 - 1, "less than 1 billion"),
        (10**9, "1 billion to 10 trillion"),
        (10**13, "1 billion to 10 trillion"),
        (10**13 + 1, "more than 10 trillion"),
    ],
)
def test_size_classes_are_those_of_the_template(tokens, name):
    assert size_class(tokens).startswith(name)


def test_every_category_of_source_answers_its_section(small, tmp_path):
    sources = [described(name, name) for name in EVERY_CATEGORY]
    data_summary(small, tmp_path / "out", **everything_declared(*sources))
    used = [
        ("2.1", "public_datasets_used"),
        ("2.2.1", "licensed_used"),
        ("2.2.2", "third_party_used"),
        ("2.3", "crawlers_used"),
        ("2.4", "model_interactions_used"),
        ("2.4", "other_services_used"),
        ("2.5", "synthetic_used"),
        ("2.6", "other_used"),
    ]
    assert all(field_of(tmp_path / "out", *each) is True for each in used)
    rows = field_of(tmp_path / "out", "2.1", "large_public_datasets")
    assert rows[0]["documents in"] == 2 and rows[0]["documents"] == 1 and rows[0]["bytes"] == 1000
    assert rows[0]["link"] == "https://example.org/dataset" and rows[0]["selection"] == "the whole"
    assert reason_of(tmp_path / "out", "2.1", "other_public_datasets")


def test_large_public_datasets_are_told_apart_by_their_share(tmp_path):
    write_prepared(tmp_path / "two", [row("large", size=97_001), row("small", size=2_999)])
    sources = [described("large", "public"), described("small", "public", period="")]
    data_summary(tmp_path / "two", tmp_path / "out", sources=sources)
    assert [each["source"] for each in field_of(tmp_path / "out", "2.1", "large_public_datasets")] == ["large"]
    others = field_of(tmp_path / "out", "2.1", "other_public_datasets")
    assert [(each["source"], each["period"]) for each in others] == [("small", "03/2024-03/2024")]


def test_site_on_a_platform_is_told_as_the_platform():
    sizes = {name: Size(1, 10, 1, 10) for name in ("jane.github.io", "joe.github.io", "192.0.2.7", "", "=cmd.test")}
    found = top_domains(sizes | {"other.co.uk": Size(1, 15, 1, 15)}, small_provider=False)
    assert found.largest == [("github.io", Size(2, 20, 2, 20))] and found.num_domains == 2
    assert found.nameless == Size(3, 30, 3, 30) and found.crawled == Size(6, 65, 6, 65)


def test_small_providers_list_a_twentieth_and_at_most_a_thousand():
    sizes = {f"d{number}.test": Size(1, 1, 0, 1) for number in range(30_000)}
    assert len(top_domains(dict(list(sizes.items())[:1000]), True).largest) == 50
    assert len(top_domains(sizes, True).largest) == 1000
    assert len(top_domains(sizes, False).largest) == 3000


PAGE_TAGS = {"html", "head", "meta", "title", "style", "body", "header", "nav", "main", "h1", "h2", "p"}
PAGE_TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
FIGURE_TAGS = {"div", "figure", "figcaption", "a", "b", "i", "span"}
FIGURE_TAGS |= {"svg", "style", "g", "rect", "line", "circle", "path", "text"}
ATTRIBUTES = {"lang", "charset", "name", "content", "class", "http-equiv", "id", "href", "download", "style", "role"}
ATTRIBUTES |= {"aria-label", "viewbox", "x", "y", "x1", "x2", "y1", "y2", "dx", "dy", "width", "height"}
ATTRIBUTES |= {"rx", "cx", "cy", "r", "d", "text-anchor", "transform"}
SAVED = "data:image/svg+xml,"  # a figure that is saved as a file
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[here](javascript:alert(1)) ![x](https://evil.example/x.png)",
    "a | b | c\n\n# heading\n\n- item\n```\ncode",
    "*bold* _soft_ ~~gone~~ `code` <b>tag</b> &lt;",
    "right\u202eto left\u2028line \x1b[31mred",
]


def test_text_of_documents_and_declarations_is_never_obeyed(tmp_path):
    source, label, month = HOSTILE[0], HOSTILE[1], "<b>2024"
    rows = [
        row(source, label, crawl_date=month, registrable_domain=HOSTILE[0], source_version=HOSTILE[2]),
        row(HOSTILE[3], reason=HOSTILE[4]),
    ]
    corpus = write_prepared(tmp_path / "hostile", rows, quarantined=[(HOSTILE[2], HOSTILE[5])])
    sources = [
        described(source, "crawl", title=HOSTILE[2], content=HOSTILE[3], link=HOSTILE[1]),
        described(HOSTILE[3], "public", title=HOSTILE[4]),
        described(HOSTILE[2], "synthetic", market_models=HOSTILE),
    ]
    everything = everything_declared(*sources) | {
        "provider": Provider(*HOSTILE[:4]),
        "models": [PublishedModel(*HOSTILE[:5])],
        "crawlers": [Crawler(*HOSTILE[2:5])],
        "datasheet": DatasheetAnswers(*HOSTILE),
    }
    data_summary(corpus, tmp_path / "out", **everything)
    page = (tmp_path / "out" / "public_summary.html").read_text()
    parsed = Cells(page)
    assert parsed.tags <= PAGE_TAGS | FIGURE_TAGS
    assert parsed.attributes <= ATTRIBUTES
    links = re.findall(r'href="([^"]*)"', page)
    figures = [link.removeprefix(SAVED) for link in links if link.startswith(SAVED)]
    assert figures and all(link.startswith((SAVED, "#s")) for link in links)
    for figure in map(urllib.parse.unquote, figures):
        assert Cells(figure).tags <= FIGURE_TAGS and not re.search(r"<\w+[^>]* (on\w+|href|src)=", figure)
    assert any("<script>alert(1)</script>" in cell for cell in parsed.cells)
    for name in ("public_summary.md", "datasheet.md"):
        text = (tmp_path / "out" / name).read_text()
        kinds = {token.type for token in markdown_tokens(text)}
        assert not kinds & {"html_inline", "html_block", "link_open", "image", "em_open", "strong_open", "s_open"}, name
        assert not kinds & {"code_inline", "fence", "code_block", "bullet_list_open"}, name
        assert {token.tag for token in markdown_tokens(text) if token.type == "heading_open"} == {"h1", "h2"}
        for obeyed in "\u202e\u2028\x1b":
            assert obeyed not in text and obeyed not in page
    assert "<" not in (tmp_path / "out" / "croissant.json").read_text()
    assert read_domains(tmp_path / "out") == []


def test_finished_summary_returns_and_refuses_other_declarations(small, tmp_path, monkeypatch):
    first = data_summary(small, tmp_path / "out")
    monkeypatch.setattr(data_summary_command, "read_sums", None)  # nothing is read again
    assert data_summary(small, tmp_path / "out") == first
    with pytest.raises(UserError, match="made with other facts"):
        data_summary(small, tmp_path / "out", provider=Provider("Somebody"))


def test_versions_form_a_chain_of_digests(small, tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    data_summary(small, first, declarations=Declarations(last_update="2026-01-31"))
    data_summary(small, second, previous=str(first), declarations=Declarations(previous_link="https://example.org/1"))
    data_summary(small, third, previous=str(second))
    assert "first version" in reason_of(first, "0", "earlier_versions")
    assert [field_of(each, "0", "version") for each in (first, second, third)] == [1, 2, 3]
    rows = field_of(third, "0", "earlier_versions")
    digests = [artifacts.read_manifest(each, "data_summary")["digest"] for each in (second, first)]
    assert [each["digest"] for each in rows] == digests and [each["version"] for each in rows] == [2, 1]
    assert rows[1]["link"] == "https://example.org/1" and rows[1]["last update"] == "2026-01-31"
    assert "bind Declarations.previous_link" in rows[0]["link"]["not_available"]
    assert digests[1] in (third / "public_summary.md").read_text()
    (first / "datasheet.md").write_text("changed")
    with pytest.raises(UserError, match="datasheet.md has"):
        data_summary(small, tmp_path / "fourth", previous=str(first))


def test_the_example_file_names_everything_that_can_be_declared():
    text = (configuration.GIN_CONFIGS / "release" / "data_summary.gin").read_text()
    optional = {"SourceDescription": {"version", "period"}}
    for kind in (Provider, PublishedModel, SourceDescription, Crawler, Declarations, DatasheetAnswers):
        for field in dataclasses.fields(kind):
            if field.name not in optional.get(kind.__name__, ()):
                assert f"{kind.__name__}.{field.name} = " in text, (kind.__name__, field.name)
