"""Opt-out signals: each protocol by its own words, all of them always read, none broken by hostile input."""

import hashlib
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason
from apertus_jax.corpus.robots_snapshot import build_robots_snapshot
from apertus_jax.corpus.signals import KINDS, SignalRule, SignalScoring
from apertus_jax.errors import UserError
from tests.processor_time import assert_bounded

ORIGIN = "https://a.example"


def document(url=ORIGIN + "/page", headers=None, meta=None):
    fields = {"headers": headers or {}, "meta_tags": meta or {}}
    return RawDocument(document_id="0" * 32, text="", source="s", file="f", row=1, url=url, **fields)


def write(folder, name, content):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def scoring_of(tmp_path, robots=None, tdmrep=None, ai_txt=None):
    """A scoring whose host a.example has the given files."""
    options = {}
    if robots is not None:
        build_robots_snapshot(write(tmp_path / "robots", "a.example", robots), tmp_path / "snapshot", "2025-01-31")
        options["snapshot"] = str(tmp_path / "snapshot")
    if tdmrep is not None:
        content = tdmrep if isinstance(tdmrep, str | bytes) else json.dumps(tdmrep)
        options["tdmrep"] = str(write(tmp_path / "tdmrep", "a.example.json", content))
    if ai_txt is not None:
        options["ai_txt"] = str(write(tmp_path / "ai_txt", "a.example.txt", ai_txt))
    return SignalScoring(**options)


def signal(scoring, kind, page):
    return {entry["kind"]: entry for entry in scoring.build().score([page])[0]["signals"]}[kind]


RESERVED, FREE = {"tdm-reservation": 1}, {"tdm-reservation": 0}


@pytest.mark.parametrize(
    "rules, path, verdict, line",
    [
        ([{"location": "/", **RESERVED}], "/page", "deny", 1),
        ([{"location": "/", **FREE}], "/page", "allow", 1),
        ([{"location": "/open/", **FREE}, {"location": "/", **RESERVED}], "/open/x", "allow", 1),
        # The first match speaks, not the longest as in robots.txt.
        ([{"location": "/", **RESERVED}, {"location": "/open/", **FREE}], "/open/x", "deny", 1),
        ([{"location": "/other/", **RESERVED}], "/page", "unknown", 0),
        ([{"location": "*.html$", **RESERVED}], "/a/b.html", "deny", 1),
        ([{"location": "*.html$", **RESERVED}], "/a/b.html?x", "unknown", 0),
        ([{"location": "/a*c", **RESERVED}], "/abbbcd", "deny", 1),
        ([{"location": "/caf%C3%A9", **RESERVED}], "/café", "deny", 1),
        ([{"location": "/%62", **RESERVED}], "/b", "deny", 1),
        ([{"location": "/a%2Fb", **RESERVED}], "/a/b", "unknown", 0),
        ([{"location": "/path/foo-%24", **RESERVED}], "/path/foo-$", "deny", 1),
        # Other values are not understood; such a rule still is the one that matched.
        ([{"location": "/", "tdm-reservation": 2}, {"location": "/", **RESERVED}], "/page", "not_understood", 1),
        ([{"location": "/", "tdm-reservation": True}], "/page", "not_understood", 1),
        ([{"location": "/", "tdm-reservation": "1"}], "/page", "not_understood", 1),
        ([{"location": "/", "tdm-reservation": 1.0}], "/page", "not_understood", 1),
        ([{"location": "/"}], "/page", "not_understood", 1),
        ([{"location": "/other/", "tdm-reservation": 2}, {"location": "/", **FREE}], "/page", "allow", 2),
        # A rule about nobody knows which paths is passed over and remembered.
        ([7, {"location": 7, **RESERVED}, {**RESERVED}, {"location": "/", **RESERVED}], "/page", "deny", 4),
        ([{"location": "page", **RESERVED}, {"location": "/", **FREE}], "/page", "not_understood", 1),
        ([{"location": "https://a.example/", **RESERVED}], "/page", "not_understood", 1),
        ([{"location": "/", **FREE}, 7], "/page", "allow", 1),
        ([], "/page", "unknown", 0),
        ({"location": "/", **RESERVED}, "/page", "not_understood", 0),
        ("not json", "/page", "not_understood", 0),
        ("", "/page", "not_understood", 0),
        (b"\xef\xbb\xbf" + json.dumps([{"location": "/", **RESERVED}]).encode(), "/page", "deny", 1),
        (b"\xff\xfe[", "/page", "not_understood", 0),
        ("[" * 100_000, "/page", "not_understood", 0),
        ("[" + "1" * 100_000 + "]", "/page", "not_understood", 0),
        ("<!DOCTYPE html><p>not found", "/page", "not_understood", 0),
    ],
)
def test_tdmrep_file_rules_speak_in_the_order_of_the_file(tmp_path, rules, path, verdict, line):
    found = signal(scoring_of(tmp_path, tdmrep=rules), "tdmrep", document(ORIGIN + path))
    assert (found["verdict"], found["line"]) == (verdict, line)
    if verdict != "unknown":
        assert found["carrier"] == "tdmrep.json"
        content = (tmp_path / "tdmrep" / "a.example.json").read_bytes()
        assert found["evidence"].endswith("sha256:" + hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    "file, header, meta, verdict, carrier",
    [
        (1, None, None, "deny", "tdmrep.json"),
        (1, "0", None, "allow", "header"),
        (0, "1", None, "deny", "header"),
        (1, "0", "1", "deny", "meta"),
        (1, "1", "0", "allow", "meta"),
        (1, None, "0", "allow", "meta"),
        (1, "maybe", "", "deny", "tdmrep.json"),  # a carrier that is not understood resets nothing
        (None, "0", "x", "not_understood", "meta"),
        (0, "true", None, "not_understood", "header"),
        (0, "true", "0", "allow", "meta"),
        (None, " 1 ", None, "deny", "header"),
        (None, "0, 1", None, "deny", "header"),  # two headers of one name
        (None, "0, yes", None, "not_understood", "header"),
        (None, "1.0", None, "not_understood", "header"),
        (None, '"1"', None, "not_understood", "header"),
        (None, "", None, "not_understood", "header"),
        (None, "reserved", None, "not_understood", "header"),
        (None, None, None, "unknown", ""),
    ],
)
def test_tdmrep_carriers_override_each_other_in_rising_priority(tmp_path, file, header, meta, verdict, carrier):
    scoring = scoring_of(tmp_path, tdmrep=None if file is None else [{"location": "/", "tdm-reservation": file}])
    named = [{} if value is None else {"tdm-reservation": value} for value in (header, meta)]
    found = signal(scoring, "tdmrep", document(headers=named[0], meta=named[1]))
    assert (found["verdict"], found["carrier"]) == (verdict, carrier)


# The example of the attachment draft, and each of its rules on its own.
AIPREF_EXAMPLE = (
    "User-Agent: *\nAllow: /\nDisallow: /never/\nContent-Usage: / train-ai=n\nContent-Usage: /ai-ok/ train-ai=y\n"
)


@pytest.mark.parametrize(
    "robots, path, verdict, line",
    [
        (AIPREF_EXAMPLE, "/test", "deny", 4),
        (AIPREF_EXAMPLE, "/never/test", "unknown", 0),  # no preference about what may not be crawled
        (AIPREF_EXAMPLE, "/ai-ok/test", "allow", 5),
        ("User-agent: *\nContent-Usage: train-ai=n", "/x", "deny", 2),  # without a path: everything
        ("User-agent: *\ncontent-usage :\t/ \t train-ai=n # why", "/x", "deny", 2),
        ("User-agent: *\nContent-Usage: / train-ai=n;why=1, search=y", "/x", "deny", 2),
        ("User-agent: *\nContent-Usage: /a train-ai=n\nContent-Usage: /a train-ai=y", "/a", "deny", 2),
        ("User-agent: *\nContent-Usage: /a train-ai=y\nContent-Usage: /a train-ai=n", "/a", "deny", 3),
        ("User-agent: *\nContent-Usage: / train-ai=n\nContent-Usage: /*.pdf$ train-ai=y", "/a.pdf", "allow", 3),
        ("User-agent: *\nContent-Usage: /%61b train-ai=n\nContent-Usage: /a train-ai=y", "/ab", "deny", 2),
        # The longest rule speaks, also when it is broken: it is not understood then.
        ("User-agent: *\nContent-Usage: / train-ai=n\nContent-Usage: /a train-ai=N!", "/ab", "not_understood", 3),
        ("User-agent: *\nContent-Usage: / train-ai=n, ", "/x", "not_understood", 2),
        ("User-agent: *\nContent-Usage: / train-ai=n,,", "/x", "not_understood", 2),
        ("User-agent: *\nContent-Usage: / Train-AI=n", "/x", "not_understood", 2),
        ('User-agent: *\nContent-Usage: / train-ai="n"', "/x", "not_understood", 2),
        ("User-agent: *\nContent-Usage: / train-ai=no", "/x", "not_understood", 2),
        ("User-agent: *\nContent-Usage: / search=n", "/x", "unknown", 2),
        ("User-agent: *\nContent-Usage: /", "/x", "unknown", 2),
        (
            "User-agent: GPTBot\nContent-Usage: / train-ai=n\n\nUser-agent: *\nContent-Usage: / train-ai=y",
            "/x",
            "deny",
            2,
        ),
        ("User-agent: OtherBot\nContent-Usage: / train-ai=n", "/x", "unknown", 0),
        # Before the first group it holds for everyone, beside what a group says.
        ("Content-Usage: / train-ai=n", "/x", "deny", 1),
        ("Content-Usage: train-ai=n\nUser-agent: *\nContent-Usage: /x train-ai=y", "/x", "deny", 1),
        ("Content-Usage: /a train-ai=n\nUser-agent: *\nContent-Usage: train-ai=y", "/x", "allow", 3),
        ("User-agent: *\nContent-Usage: all=n", "/x", "not_understood", 2),  # a label of earlier drafts
        ("User-agent: *\nContent-Usage: train-ai=n, train-ai=y", "/x", "deny", 2),
        ("User-agent: *\nContent-Usage: train-ai", "/x", "not_understood", 2),
        ("User-agent: *\nContent-Usage: /train-ai=n", "/x", "not_understood", 2),
        ("User-agent: *\nContent-Usage train-ai=n, search=y", "/x", "deny", 2),
    ],
)
def test_aipref_in_robots_speaks_for_the_longest_crawlable_path(tmp_path, robots, path, verdict, line):
    found = signal(scoring_of(tmp_path, robots=robots), "aipref", document(ORIGIN + path))
    assert (found["verdict"], found["line"]) == (verdict, line)
    if line:
        assert found["carrier"] == "robots.txt" and hashlib.sha256(robots.encode()).hexdigest() in found["evidence"]


@pytest.mark.parametrize(
    "robots_value, header, verdict, carrier",
    [
        ("y", "train-ai=n", "deny", "header"),
        ("n", "train-ai=y", "deny", "robots.txt"),
        ("y", "train-ai=y", "allow", "header"),
        ("y", "broken=", "not_understood", "header"),
        ("x", "broken=", "not_understood", "header"),
        ("y", "train-ai=y, train-ai=n", "deny", "header"),
        ("y", "train-ai=n, train-ai=y", "deny", "header"),  # two headers: not the last of a key, as in RFC 9651
        ("y", "", "allow", "robots.txt"),
    ],
)
def test_the_most_restrictive_of_the_aipref_carriers_counts(tmp_path, robots_value, header, verdict, carrier):
    scoring = scoring_of(tmp_path, robots=f"User-agent: *\nContent-Usage: / train-ai={robots_value}\n")
    found = signal(scoring, "aipref", document(headers={"content-usage": header}))
    assert (found["verdict"], found["carrier"]) == (verdict, carrier)


@pytest.mark.parametrize(
    "robots, header, verdict, line",
    [
        ("User-agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /", None, "deny", 2),
        ("User-agent: *\nContent-Signal: search=yes,ai-train=yes", None, "allow", 2),
        ("User-agent: *\nCONTENT-SIGNAL: AI-Train = No", None, "deny", 2),
        ("User-agent: *\nContent-Signal: search=no, ai-input=no", None, "unknown", 2),
        ("User-agent: *\nContent-Signal: ai-train=yes, ai-train=no", None, "deny", 2),
        ("User-agent: *\nContent-Signal: ai-train=maybe", None, "not_understood", 2),
        # Before the first group it holds for every agent, with groups or without.
        ("Content-Signal: ai-train=no", None, "deny", 1),
        ("# all\nCONTENT-SIGNAL :ai-train = no\n\nUser-agent: *\nAllow: /", None, "deny", 2),
        ("Content-Signal: ai-train=no\nUser-agent: *\nContent-Signal: ai-train=yes", None, "deny", 1),
        ("Content-Signal: ai-train=yes\nUser-agent: GPTBot\nContent-Signal: ai-train=no", None, "deny", 3),
        ("Content-Signal: search=yes\nContent-Signal: ai-train=no\nUser-agent: x\nDisallow:", None, "deny", 2),
        ("Content-Signal: /private/ ai-train=no\nUser-agent: *\nAllow: /", None, "unknown", 0),
        ("Content-Signal: /pa* ai-train=no\nUser-agent: *\nAllow: /", None, "deny", 1),
        ("User-agent: *\nContent-Signal: /private/ ai-train=no", None, "unknown", 0),
        ("User-agent: *\nContent-Signal: /pa ai-train=no", None, "deny", 2),
        (
            "User-agent: CCBot\nContent-Signal: ai-train=no\nUser-agent: *\nContent-Signal: ai-train=yes",
            None,
            "deny",
            2,
        ),
        ("User-agent: OtherBot\nContent-Signal: ai-train=no", None, "unknown", 0),
        ("User-agent: *\nDisallow: /\nContent-Signal: ai-train=no", None, "deny", 3),
        ("User-agent: *\nContent-Signal: ai-train=yes", "ai-train=no", "deny", 0),
        (None, "search=yes, ai-train=yes", "allow", 0),
    ],
)
def test_content_signal_refuses_training(tmp_path, robots, header, verdict, line):
    page = document(headers={} if header is None else {"content-signal": header})
    found = signal(scoring_of(tmp_path, robots=robots), "content_signal", page)
    assert (found["verdict"], found["line"]) == (verdict, line)


@pytest.mark.parametrize(
    "headers, meta, verdict, carrier",
    [
        ({"x-robots-tag": "noai"}, {}, "deny", "header"),
        ({"x-robots-tag": "noindex, NoAI"}, {}, "deny", "header"),
        ({"x-robots-tag": "noml"}, {}, "deny", "header"),
        ({"x-robots-tag": "noimageai"}, {}, "unknown", ""),
        ({"x-robots-tag": "noindex, nofollow, noarchive"}, {}, "unknown", ""),
        ({"x-robots-tag": "GPTBot: noai"}, {}, "deny", "header"),
        ({"x-robots-tag": "ccbot : noindex noai"}, {}, "deny", "header"),
        ({"x-robots-tag": "otherbot: noai"}, {}, "unknown", ""),
        ({"x-robots-tag": "otherbot: noindex, noai"}, {}, "deny", "header"),  # joined headers: read as said to all
        ({"x-robots-tag": "unavailable_after: 25 Jun 2030 15:00:00 GMT, noai"}, {}, "deny", "header"),
        ({}, {"robots": "index, noai"}, "deny", "meta"),
        ({}, {"robots": "noai noindex"}, "deny", "meta"),
        ({}, {"gptbot": "noml"}, "deny", "meta"),
        ({}, {"googlebot": "noai"}, "unknown", ""),
        ({}, {"description": "noai"}, "unknown", ""),
        ({}, {"robots": "noimageai, snoai"}, "unknown", ""),
        ({"x-robots-tag": "all"}, {"robots": "all"}, "unknown", ""),
        ({"x-robots-tag": "no-ai"}, {}, "deny", "header"),
        ({"x-robots-tag": "NO_AI, index"}, {}, "deny", "header"),
        ({"x-robots-tag": "no ai"}, {}, "deny", "header"),
        ({"x-robots-tag": "'noai'."}, {}, "deny", "header"),
        ({"x-robots-tag": "noai: otherbot"}, {}, "deny", "header"),
        ({"x-robots-tag": "otherbot: GPTBot: noai"}, {}, "deny", "header"),
        ({"x-robots-tag": "robots: noai"}, {}, "deny", "header"),
        ({"x-robots-tag": "otherbot: noindex, GPTBot/1.2: noai"}, {}, "deny", "header"),
        ({"x-robots-tag": "noaitraining"}, {}, "not_understood", "header"),
        ({"x-robots-tag": "no-genai, notrain"}, {}, "not_understood", "header"),
        ({"x-robots-tag": "no-genai, noai"}, {}, "deny", "header"),
        ({"x-robots-tag": "max-snippet:-1, max-image-preview:large, notranslate, noodp"}, {}, "unknown", ""),
        ({}, {"x-robots-tag": "noai"}, "deny", "meta"),
        ({}, {"robots": "no-ai"}, "deny", "meta"),
        ({}, {"robots": "gptbot: noai"}, "deny", "meta"),
    ],
)
def test_noai_and_noml_refuse_for_everyone_and_agents_of_the_set(headers, meta, verdict, carrier):
    found = signal(SignalScoring(), "noai", document(headers=headers, meta=meta))
    assert (found["verdict"], found["carrier"]) == (verdict, carrier)


@pytest.mark.parametrize(
    "content, path, verdict, line",
    [
        ("User-Agent: *\nDisallow: /\n", "/page", "deny", 2),
        ("User-Agent: *\nAllow: /\n", "/page", "allow", 0),
        ("User-Agent: *\nDisallow: *.jpg\nDisallow: *.png\n", "/page", "allow", 0),
        ("User-Agent: *\nAllow: *.jpg\nDisallow: *.txt\n", "/page", "deny", 3),
        ("User-Agent: *\nDisallow: *.html\n", "/dir/", "deny", 2),
        ("User-Agent: *\nDisallow: *.html\n", "/a.php", "allow", 0),
        ("User-Agent: *\nDisallow: *.html\n", "/a.html?x=1", "deny", 2),
        ("User-Agent: GPTBot\nDisallow: /\n", "/page", "deny", 2),
        ("# nothing is said\n", "/page", "allow", 0),
        ("", "/page", "allow", 0),
        # Words in no grammar that is known are not taken for consent.
        ("# My AI\nhello, models\n", "/page", "not_understood", 0),
        ("<html><p>not found</html>", "/page", "not_understood", 0),
        ("Disallow: /\n", "/page", "not_understood", 0),
        ("User-Agent: *\nDisallow: txt\n", "/page", "not_understood", 0),
        ("User-Agent: *\nDisallow: txt\nDisallow: /\n", "/page", "deny", 3),
    ],
)
def test_ai_txt_refuses_text_by_path_or_by_ending(tmp_path, content, path, verdict, line):
    found = signal(scoring_of(tmp_path, ai_txt=content), "ai_txt", document(ORIGIN + path))
    assert (found["verdict"], found["line"]) == (verdict, line)
    elsewhere = signal(SignalScoring(ai_txt=str(tmp_path / "ai_txt")), "ai_txt", document("https://b.example/"))
    assert elsewhere["verdict"] == "unknown"


def test_all_signals_are_read_even_when_the_first_refuses(tmp_path):
    robots = "User-agent: *\nContent-Usage: / train-ai=y\nContent-Signal: ai-train=yes\n"
    scoring = scoring_of(tmp_path, robots, [{"location": "/", **RESERVED}], "User-agent: *\nDisallow: /")
    row = scoring.build().score([document(headers={"x-robots-tag": "noai"})])[0]
    assert [entry["kind"] for entry in row["signals"]] == list(KINDS)
    assert [entry["verdict"] for entry in row["signals"]] == ["deny", "allow", "allow", "deny", "deny"]
    assert row["signals_verdict"] == "deny"
    verdict = SignalRule().verdict(row, {})
    assert (verdict.reason, verdict.detail) == (Reason.OPT_OUT_SIGNAL, "tdmrep, noai, ai_txt")
    assert SignalRule(deny=("noai",)).verdict(row, {}).detail == "noai"
    assert SignalRule(deny=("aipref", "content_signal")).verdict(row, {}) is None
    assert SignalRule(deny=()).verdict(row, {}) is None


GARBLED = (
    ["ai-train = nope", "ai-train=NOT", "ai_train=no", "ai-train:no", "ai-train", "ai-train=", "ai-train no"]
    + ['{"ai-train": "no"}', '["ai-train=no"]', "ai-train==no", "aitrain=no", "train-ai=n", "ai-train=false", "no"]
    + ["ai-train=\u043do", "search=yes ai-train=no", "ai-train='no'", "ai-train=0", "deny", "noai", "ai-train=yes/no"]
)
REFUSED_IN_ODD_SPELLINGS = ["ai-train=NO", "AI-Train = No ", "search=yes;ai-train=no", ",ai-train=no,", "ai-train\t=no"]


@pytest.mark.parametrize("value", GARBLED)
def test_a_content_signal_that_is_not_understood_refuses(tmp_path, value):
    for robots in (f"Content-Signal: {value}\nUser-agent: *\nAllow: /", f"User-agent: *\nContent-Signal: {value}"):
        folder = tmp_path / str(len(robots))
        folder.mkdir()
        row = scoring_of(folder, robots=robots).build().score([document()])[0]
        assert row["signals_verdict"] == "not_understood"
        assert SignalRule().verdict(row, {}).detail == "content_signal (not understood)"
        assert SignalRule(not_understood="keep").verdict(row, {}) is None
    for carrier in ("headers", "meta"):
        row = SignalScoring().build().score([document(**{carrier: {"content-signal": value}})])[0]
        assert SignalRule().verdict(row, {}).reason == Reason.OPT_OUT_SIGNAL


@pytest.mark.parametrize("value", REFUSED_IN_ODD_SPELLINGS)
def test_a_content_signal_refuses_in_every_spelling(tmp_path, value):
    for number, name in enumerate(("Content-Signal:", "content-signals :", "Content_Signal:", "Content-Signal")):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = signal(scoring_of(folder, robots=f"{name} {value}"), "content_signal", document())
        assert (found["verdict"], found["line"]) == ("deny", 1)


CATEGORIES = st.sampled_from(["ai-train", "ai-input", "search", "AI-TRAIN", "ai_train", "foo", ""])
VALUES = st.sampled_from(["yes", "no", "YES", "maybe", "", "yes no"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(CATEGORIES, VALUES), max_size=4))
def test_only_what_is_understood_whole_is_consent(pairs):
    value = ", ".join(f"{name}={word}" for name, word in pairs)
    found = signal(SignalScoring(), "content_signal", document(headers={"content-signal": value}))["verdict"]
    lowered = [(name.lower(), word.lower()) for name, word in pairs]
    known = all(word == "yes" and name or (name in ("ai-train", "ai-input", "search") and word == "no")
                for name, word in lowered)  # fmt: skip
    if ("ai-train", "no") in lowered:
        assert found == "deny"
    elif not known:
        assert found == "not_understood"
    else:
        assert found == ("allow" if ("ai-train", "yes") in lowered else "unknown")


def test_a_signal_that_nothing_could_carry_was_not_asked():
    row = SignalScoring().build().score([document()])[0]
    verdicts = {entry["kind"]: entry["verdict"] for entry in row["signals"]}
    assert verdicts.pop("ai_txt") == "not_asked" and set(verdicts.values()) == {"unknown"}
    assert row["signals_verdict"] == "unknown" and SignalRule().verdict(row, {}) is None


@pytest.mark.parametrize(
    "headers, verdict",
    [
        ({}, "unknown"),
        ({"content-usage": "train-ai=y"}, "allow"),
        ({"content-usage": "train-ai=y", "x-robots-tag": "noai"}, "deny"),
    ],
)
def test_the_verdict_of_all_is_the_most_restrictive(headers, verdict):
    row = SignalScoring().build().score([document(headers=headers)])[0]
    assert row["signals_verdict"] == verdict
    assert (SignalRule().verdict(row, {}) is not None) == (verdict == "deny")


def test_only_enabled_signals_are_read():
    row = (
        SignalScoring(signals=("noai", "tdmrep")).build().score([document(headers={"content-usage": "train-ai=n"})])[0]
    )
    assert [entry["kind"] for entry in row["signals"]] == ["tdmrep", "noai"] and row["signals_verdict"] == "unknown"


def test_evidence_never_holds_the_words_of_the_page(tmp_path):
    secret = "jane.doe@example.org"
    robots = f"User-agent: *\nContent-Usage: / train-ai=n;by={secret}\nContent-Signal: ai-train=no, {secret}=yes\n"
    tdmrep = [{"location": "/", **RESERVED, "tdm-policy": secret}]
    scoring = scoring_of(tmp_path, robots, tdmrep, f"User-agent: *\nDisallow: / # {secret}\n")
    headers = {"x-robots-tag": f"noai, {secret}", "content-usage": f"train-ai=n, x={secret}", "tdm-policy": secret}
    rows = scoring.build().score([document(headers=headers, meta={"robots": f"noai {secret}"})])
    assert secret not in repr(rows) and rows[0]["signals_verdict"] == "deny"


def test_scores_do_not_depend_on_batches_and_fit_the_schema(tmp_path):
    import pyarrow

    scoring = scoring_of(tmp_path, AIPREF_EXAMPLE, [{"location": "/t", **RESERVED}], "User-agent: *\nDisallow: /n")
    assert pickle.loads(pickle.dumps(scoring)) == scoring
    urls = [ORIGIN + path for path in ("/test", "/never/x", "/ai-ok/x")] + ["", "https://b.example/test", "http://["]
    documents = [document(url, headers={"x-robots-tag": "noai"} if n % 2 else {}) for n, url in enumerate(urls * 3)]
    scorer = scoring.build()
    rows = scorer.score(documents)
    assert [scoring.build().score([page])[0] for page in documents] == rows
    assert scorer.score(documents[::-1])[::-1] == rows
    schema = pyarrow.schema(scorer.schema())
    assert pyarrow.Table.from_pylist(rows, schema=schema).to_pylist() == rows
    assert json.loads(json.dumps(scorer.identity())) == scorer.identity() == scoring.build().identity()


def test_the_identity_changes_with_every_file_that_was_collected(tmp_path):
    folder = write(tmp_path / "tdmrep", "a.example.json", "[]")
    first = SignalScoring(tdmrep=str(folder)).build().identity()
    write(folder, "b.example.json", "[]")
    second = SignalScoring(tdmrep=str(folder)).build().identity()
    assert first["tdmrep"] != second["tdmrep"]


@pytest.mark.parametrize(
    "name", ["A.example.json", "a.example", "a.example.txt", "bücher.example.json", "x/a.example.json"]
)
def test_a_collected_file_that_no_host_would_find_is_refused(tmp_path, name):
    (tmp_path / "tdmrep" / name).parent.mkdir(parents=True)
    (tmp_path / "tdmrep" / name).write_text("[]")
    with pytest.raises(UserError, match="name it .* by its host"):
        SignalScoring(tdmrep=str(tmp_path / "tdmrep")).build()


def test_wrong_options_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for make, message in (
        (lambda: SignalScoring(signals=("noai", "nope")), "names 'nope'"),
        (lambda: SignalScoring(signals="noai"), "is the text 'noai'"),
        (lambda: SignalScoring(tdmrep="x", signals=("noai",)), "tdmrep is not among the signals"),
        (lambda: SignalScoring(tdmrep=str(tmp_path / "none")).build(), "is not a folder"),
        (lambda: SignalScoring(ai_txt=str(tmp_path / "empty")).build(), "is empty"),
        (lambda: SignalScoring(snapshot=str(tmp_path / "none")).build(), "does not exist"),
        (lambda: SignalRule(deny=("robots",)), "names 'robots'"),
        (lambda: SignalRule(not_understood="drop"), "refuse or keep"),
    ):
        with pytest.raises(UserError, match=message):
            make()


WORDS = st.text(alphabet='train-ai=yno,;:()"\\/*$%?#@ \t\x00üA019{}[]', max_size=30)


@settings(max_examples=60, deadline=None)
@given(robots=WORDS, tdmrep=WORDS, ai_txt=WORDS, header=WORDS, path=st.text(max_size=12))
def test_hostile_carriers_never_raise(tmp_path_factory, robots, tdmrep, ai_txt, header, path):
    folder = tmp_path_factory.mktemp("hostile")
    body = f"User-agent: *\nContent-Usage: {robots}\nContent-Signal: {robots}\nDisallow: {robots}"
    rules = json.dumps([{"location": tdmrep, "tdm-reservation": 1}]) if len(tdmrep) % 2 else tdmrep
    scorer = scoring_of(folder, body, rules, f"User-agent: *\nDisallow: {ai_txt}\n{ai_txt}").build()
    names = ("content-usage", "content-signal", "x-robots-tag", "tdm-reservation")
    page = document(
        ORIGIN + "/" + path, dict.fromkeys(names, header), dict.fromkeys((*names, "robots", header), header)
    )
    row = scorer.score([page])[0]
    assert {entry["verdict"] for entry in row["signals"]} <= {"allow", "deny", "not_understood", "unknown"}


@pytest.mark.timed
def test_large_hostile_files_are_read_once_and_stay_fast(tmp_path):
    robots = "User-agent: *\n" + "".join(f"Content-Usage: /{'*a' * 20}{n} train-ai=n\n" for n in range(5000))
    rules = [{"location": f"/{'*a' * 20}{n}", **RESERVED} for n in range(5000)]
    scorer = scoring_of(tmp_path, robots, rules, "User-agent: *\nDisallow: " + "*" * 100_000 + "b\n").build()
    pages = [
        [document(f"{ORIGIN}/{'a' * 500}?{n}") for n in range(20 * round_, 20 * round_ + 20)] for round_ in range(3)
    ]
    scorer.score(pages[0][:1])
    rounds = iter(pages)
    assert_bounded(lambda: scorer.score(next(rounds)), 10)
