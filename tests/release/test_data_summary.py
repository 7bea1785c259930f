"""The public summary of a crawl-like corpus: every field of the template, and figures that can be recounted."""

import collections
import hashlib
import json
import math
import shutil
from pathlib import Path

import gin
import pyarrow.parquet
import pytest

from apertus_jax.cli import main
from apertus_jax.corpus import documents as corpus_documents
from apertus_jax.corpus.ledger import records as corpus_records
from apertus_jax.corpus.reasons import CONSENT_REASONS
from apertus_jax.release.data_summary import data_summary, policy_in_force, prepared_corpus
from apertus_jax.release.data_summary.languages import language_rows
from apertus_jax.release.data_summary.ledger_sums import Size
from apertus_jax.storage import artifacts
from tests.corpus.prepare.prepare_inputs import OVERLAY_CHAIN
from tests.release.data_summary_inputs import (
    FILES,
    LEDGER,
    Cells,
    described,
    every_field,
    everything_declared,
    field_of,
    markdown_tokens,
    read_domains,
    reason_of,
    summary_of,
)

POLICY = OVERLAY_CHAIN + "write_overlay.documents = 400\n"
# The table of docs/reference/data.md §12.1, written down a second time.
FIELDS = {
    "0": "version last_update earlier_versions",
    "1.1": "provider_name provider_contact representative_name representative_contact",
    "1.2": "model_names model_dependencies union_market_date",
    "1.3": "modalities text_size_class text_size content_types latest_acquisition training_continues languages "
    "eu_languages regional_and_demographic tokenizer comments",
    "2.1": "public_datasets_used public_modalities large_public_datasets other_public_datasets public_sizes comments",
    "2.2.1": "licensed_used licensed_modalities",
    "2.2.2": "third_party_used third_party_modalities third_party_known third_party_others comments",
    "2.3": "crawlers_used crawler_names crawler_purposes crawler_behaviour crawl_period crawl_content "
    "crawl_modalities crawl_domains comments",
    "2.4": "model_interactions_used other_services_used user_services user_modalities comments",
    "2.5": "synthetic_used synthetic_modalities synthetic_market_models synthetic_model_summaries "
    "synthetic_other_models comments",
    "2.6": "other_used other_description comments",
    "3.1": "code_of_practice_signed opt_out_protocols opt_out_effect opt_outs_kept_current copyright_policy comments",
    "3.2": "illegal_content_measures content_filters removal_requests comments",
    "3.3": "personal_data further_information",
}
EU = [
    *("bul", "hrv", "ces", "dan", "nld", "eng", "ekk", "fin", "fra", "deu", "ell", "hun"),
    *("gle", "ita", "lvs", "lit", "mlt", "pol", "por", "ron", "slk", "slv", "spa", "swe"),
]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    root = tmp_path_factory.mktemp("overlay")
    (root / "policy.gin").write_text(POLICY)
    assert main(["run", f"--gin_file={root / 'policy.gin'}", f"--output={root / 'chain'}"]) == 0
    gin.clear_config()
    return root / "chain"


@pytest.fixture(scope="module")
def truth(chain):
    return json.loads((chain / "overlay" / "truth.json").read_text())["summary"]


@pytest.fixture(scope="module")
def ledger(chain):
    return [
        each
        for part in corpus_records.parts_of(chain / "prepared")
        for each in pyarrow.parquet.read_table(str(part / "ledger.parquet")).to_pylist()
    ]


@pytest.fixture(scope="module")
def bare(chain):
    """The summary of a provider that declares nothing."""
    data_summary(chain / "prepared", chain / "bare")
    return chain / "bare"


@pytest.fixture(scope="module")
def full(chain):
    """The summary of a provider that declares everything, the overlay as a crawl of its own."""
    data_summary(chain / "prepared", chain / "full", **everything_declared(described("overlay", "crawl")))
    return chain / "full"


@pytest.mark.parametrize("summary", ["bare", "full"])
def test_every_field_of_the_template_has_a_value_or_a_reason(summary, request):
    folder = request.getfixturevalue(summary)
    assert {path.name for path in folder.iterdir()} == FILES | {"COMMITTED.json"}
    found = {(number, name) for number, name, _ in every_field(folder)}
    assert found == {(number, name) for number, names in FIELDS.items() for name in names.split()}
    for number, name, content in every_field(folder):
        assert ("value" in content) != ("not_available" in content), (number, name)
        assert content.get("value", "a reason") not in (None, "", [], {}), (number, name)
        assert content.get("not_available") != "", (number, name)


@pytest.mark.parametrize("summary", ["bare", "full"])
def test_pages_show_every_field_and_never_drop_an_unknown_one(summary, request):
    folder = request.getfixturevalue(summary)
    markdown, page = (folder / "public_summary.md").read_text(), (folder / "public_summary.html").read_text()
    cells = Cells(page).cells
    texts = [token.content for token in markdown_tokens(markdown) if token.type == "text"]
    shown = "".join(texts)
    for number, section in summary_of(folder)["template"].items():
        assert f"{number} {section['title']}" in texts and f">{number} {section['title']}</h2>" in page
    for _, name, content in every_field(folder):
        title = content["title"].replace("'", "’")
        assert title in [cell.replace("'", "’") for cell in cells] and content["title"] in texts, name
        if "not_available" in content:
            unknown = f"not available – {content['not_available']}"
            assert unknown in cells and unknown in shown, name


def test_what_only_the_provider_knows_is_never_guessed(bare):
    for section, name in (("1.1", "provider_name"), ("1.2", "union_market_date"), ("3.1", "copyright_policy")):
        assert "bind " in reason_of(bare, section, name)
    for section, name in (("2.1", "public_datasets_used"), ("2.3", "crawlers_used"), ("2.5", "synthetic_used")):
        assert "overlay is not declared" in reason_of(bare, section, name)
    assert (bare / "top_domains.csv").read_text().count("\n") == 1


def test_summary_fully_declared_lacks_only_what_does_not_apply(full):
    for number, name, content in every_field(full):
        reason = content.get("not_available", "not applicable")
        assert reason.startswith("not applicable") or (number, name) == ("0", "earlier_versions"), (
            number,
            name,
            reason,
        )
    assert field_of(full, "2.3", "crawlers_used") is True and field_of(full, "2.1", "public_datasets_used") is False
    assert "bind" not in (full / "datasheet.md").read_text()


def test_figures_equal_a_recount_of_the_ledger(full, ledger):
    kept = [each for each in ledger if each["decision"] == "keep"]
    assert field_of(full, "1.3", "text_size") == {
        "documents": len(kept),
        "bytes (UTF-8)": sum(each["utf8_bytes_out"] for each in kept),
        "tokens": sum(each["tokens"] for each in kept),
    }
    languages = collections.defaultdict(lambda: [0, 0, 0])
    for each in kept:
        for place, value in enumerate((1, each["utf8_bytes_out"], each["tokens"])):
            languages[each["language"]][place] += value
    rows = field_of(full, "1.3", "languages")
    assert {each["language"]: [each["documents"], each["bytes"], each["tokens"]] for each in rows} == languages
    assert [each["bytes"] for each in rows] == sorted((each["bytes"] for each in rows), reverse=True)
    reasons = collections.Counter(each["reason"] for each in ledger if each["reason"])
    figures = summary_of(full)["figures"]
    assert {each["decision"]: each["documents"] for each in figures["decisions"]} == reasons
    months = collections.Counter(f"{each['crawl_date'][5:7]}/{each['crawl_date'][:4]}" for each in kept)
    assert {each["month"]: each["documents"] for each in figures["months"]} == months
    licences = collections.Counter(each["licence_class"] for each in kept)
    assert {each["class"]: each["documents"] for each in figures["licences"]} == licences
    assert field_of(full, "1.3", "latest_acquisition")["latest"] == "12/2024" == max(months, key=lambda m: (m[3:], m))
    assert field_of(full, "2.3", "crawl_period") == "01/2023-12/2024"


def test_rows_that_came_in_are_accounted_for_as_planted(full, truth):
    summary, figures = summary_of(full), summary_of(full)["figures"]
    assert {each["decision"]: each["documents"] for each in figures["decisions"]} == truth["dropped"]
    assert {each["reason"]: each["rows"] for each in figures["quarantine"]} == truth["quarantined"]
    assert figures["balance"] == {
        "rows in": truth["documents"] + sum(truth["quarantined"].values()),
        "kept": truth["kept"],
        "dropped": sum(truth["dropped"].values()),
        "quarantined": sum(truth["quarantined"].values()),
    }
    assert field_of(full, "3.3", "personal_data")["spans replaced"] == truth["personal_data"]
    assert field_of(full, "3.2", "removal_requests")["documents left out"] == truth["dropped"]["removed_on_request"]
    assert (
        summary["figures"]["provenance"]["prepared corpus"]
        == artifacts.read_manifest(full.parent / "prepared", "prepared_corpus")["digest"]
    )


def test_opt_out_protocols_are_the_policy_s_with_refusals(full, ledger):
    refusals = collections.Counter(
        signal["kind"] for each in ledger for signal in each["signals"] if signal["verdict"] == "deny"
    )
    robots = sum(each["robots_verdict"] == "deny" for each in ledger)
    found = {each["protocol"]: each for each in field_of(full, "3.1", "opt_out_protocols")}
    assert {name: each["documents it refuses"] for name, each in found.items()} == {
        "robots.txt (RFC 9309)": robots,
        "TDM Reservation Protocol": refusals["tdmrep"],
        "AIPREF Content-Usage (train-ai)": refusals["aipref"],
        "Content-Signal (ai-train)": refusals["content_signal"],
        "noai and noml": refusals["noai"],
    }  # ai.txt is in the policy too, but no such files were given
    assert robots and "as of 2026-11-01" in found["robots.txt (RFC 9309)"]["read from"]
    left_out = {each["reason"] for each in field_of(full, "3.1", "opt_out_effect")}
    assert left_out == {each["reason"] for each in ledger} & set(map(str, CONSENT_REASONS))


def test_official_languages_of_the_union_are_all_listed(full, ledger):
    rows = field_of(full, "1.3", "eu_languages")
    assert [each["code"] for each in rows] == EU
    for each in rows:
        kept = [row for row in ledger if row["decision"] == "keep" and row["language"][:3] == each["code"]]
        assert (each["documents"], each["tokens"]) == (len(kept), sum(row["tokens"] for row in kept))
        assert each["bytes"] == sum(row["utf8_bytes_out"] for row in kept) and each["present"] is bool(kept)
    assert {each["code"] for each in rows if each["present"]} >= {"eng", "deu", "fra"}
    assert not all(each["present"] for each in rows)


def test_sizes_name_the_tokenizer(full):
    counting = field_of(full, "1.3", "tokenizer")
    assert counting["name"] == "tekken" and len(counting["digest"]) == 32
    assert field_of(full, "1.3", "text_size_class") == "less than 1 billion tokens"


def test_top_domains_are_the_tenth_with_the_most_text(full, ledger):
    sizes = collections.Counter()
    for each in ledger:
        if each["decision"] == "keep":
            sizes[each["registrable_domain"]] += each["utf8_bytes_out"]
    expected = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[: math.ceil(len(sizes) / 10)]
    rows = read_domains(full)
    assert [(each["domain"], int(each["utf8_bytes"])) for each in rows] == expected
    assert [float(each["share_of_crawled_bytes"]) for each in rows] == [
        pytest.approx(size / sizes.total(), abs=1e-6) for _, size in expected
    ]
    assert field_of(full, "2.3", "crawl_domains")["domains"] == len(sizes)


def test_hosts_stand_in_one_file_only_and_can_be_masked(full, chain, ledger, tmp_path):
    domains = {each["registrable_domain"] for each in ledger}
    declared = everything_declared(described("overlay", "crawl"))
    data_summary(chain / "prepared", tmp_path / "masked", mask_domains=True, **declared)
    data_summary(chain / "prepared", tmp_path / "public", **everything_declared(described("overlay", "public")))
    for folder in (full, tmp_path / "masked", tmp_path / "public"):
        for name in FILES - {"top_domains.csv"}:
            text = (folder / name).read_text()
            assert not any(domain in text for domain in domains), name
    masked = read_domains(tmp_path / "masked")
    assert [each["utf8_bytes"] for each in masked] == [each["utf8_bytes"] for each in read_domains(full)]
    assert masked and all("•••" in each["domain"] and each["domain"] not in domains for each in masked)
    assert read_domains(tmp_path / "public") == []


def test_the_same_inputs_give_the_same_bytes_wherever_they_lie(chain, full, tmp_path):
    shutil.copytree(chain / "prepared", tmp_path / "moved")
    data_summary(tmp_path / "moved", tmp_path / "again", **everything_declared(described("overlay", "crawl")))
    for name in FILES | {"COMMITTED.json"}:
        assert (full / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_summary_tells_no_personal_value_and_no_place(chain, full, bare):
    planted = json.loads((chain / "overlay" / "planted_values.json").read_text())["values"]
    values = {each["value"] for each in planted}
    assert len(values) > 50
    for folder in (full, bare):
        for path in folder.iterdir():
            text = path.read_text()
            assert not any(value in text for value in values), path
            assert str(chain.parent) not in text, path


def test_declarations_come_from_a_gin_file(chain, tmp_path):
    (tmp_path / "mine.gin").write_text(
        "data_summary.provider = @Provider()\nProvider.name = 'ETH & <EPFL>'\n"
        "data_summary.sources = [@crawl/SourceDescription()]\n"
        "crawl/SourceDescription.source = 'overlay'\ncrawl/SourceDescription.category = 'crawl'\n"
        "data_summary.declarations = @Declarations()\nDeclarations.comments = {'2.3': 'invented'}\n"
    )
    arguments = [f"--gin_file={tmp_path / 'mine.gin'}", f"--input={chain / 'prepared'}", f"--output={tmp_path / 'out'}"]
    assert main(["data-summary", *arguments]) == 0
    gin.clear_config()
    assert field_of(tmp_path / "out", "1.1", "provider_name") == "ETH & <EPFL>"
    assert field_of(tmp_path / "out", "2.3", "comments") == "invented"
    assert "ETH &amp; &lt;EPFL&gt;" in (tmp_path / "out" / "public_summary.html").read_text()


def test_the_datasheet_answers_all_seven_parts(full, bare, truth):
    for folder in (full, bare):
        text = (folder / "datasheet.md").read_text()
        parts = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
        assert parts == [
            *("Motivation", "Composition", "Collection", "Processing", "Uses", "Distribution", "Maintenance")
        ]
        assert f"{truth['kept']} documents" in text or f"documents: {truth['kept']}" in text
    assert "not available – bind DatasheetAnswers.purpose" in (bare / "datasheet.md").read_text()


def test_croissant_names_the_files_that_are_there(full, chain):
    described = json.loads((full / "croissant.json").read_text())
    manifest, files = described["distribution"]
    content = (chain / "prepared" / manifest["contentUrl"]).read_bytes()
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    paths = sorted((chain / "prepared").glob(files["includes"]))
    assert [path.parent for path in paths] == [Path(str(part)) for part in corpus_records.parts_of(chain / "prepared")]
    fields = described["recordSet"][0]["field"]
    assert [field["name"] for field in fields] == pyarrow.parquet.read_schema(str(paths[0])).names
    assert all(field["source"]["fileSet"]["@id"] == files["@id"] for field in fields)
    assert described["conformsTo"] == "http://mlcommons.org/croissant/1.0" and described["@type"] == "sc:Dataset"
    assert described["license"] == "answer 2" and described["datePublished"] == "2026-11-24"


def test_the_file_format_is_the_one_that_prepare_writes(ledger):
    assert prepared_corpus.CORPUS_KIND == corpus_records.KIND and prepared_corpus.PART_KIND == corpus_records.PART_KIND
    assert prepared_corpus.DOCUMENTS_FILE == corpus_documents.PREPARED_DOCUMENTS
    assert (prepared_corpus.PARTS, prepared_corpus.LEDGER_FILE, prepared_corpus.QUARANTINE_FILE) == (
        corpus_records.PARTS,
        corpus_records.LEDGER_FILE,
        corpus_records.QUARANTINE_FILE,
    )
    assert (prepared_corpus.FUNNEL_FILE, prepared_corpus.POLICY_FILE) == (
        corpus_records.FUNNEL_FILE,
        corpus_records.POLICY_FILE,
    )
    assert tuple(map(str, CONSENT_REASONS)) == policy_in_force.CONSENT_REASONS
    assert set(LEDGER.names) <= set(ledger[0])


def test_texts_of_unknown_language_are_no_language():
    sizes = {
        label: Size(number) for label, number in (("deu_Latn", 2), ("und", 3), ("und_Latn", 1), ("not evaluated", 4))
    }
    rows = language_rows(sizes, counted=False)
    assert [(row["language"], row["documents"]) for row in rows] == [("deu_Latn", 2), ("unknown", 8)]
    assert [row["language"] for row in language_rows({"deu_Latn": Size(2)}, counted=False)] == ["deu_Latn"]
