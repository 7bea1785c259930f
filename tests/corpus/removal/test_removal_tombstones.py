"""Lookups: what a request covers, from which day on, against a plain reading of the request file."""

import datetime
import hashlib
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason
from apertus_jax.corpus.removal import (
    AppliedTombstones,
    RemovalRule,
    RemovalScoring,
    Tombstones,
    remove,
    text_digest,
)
from apertus_jax.corpus.web_addresses import parse_web_address, registrable_domain
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from tests.corpus.removal.test_removal_requests import request, write_requests

DAY = datetime.date(2026, 6, 1)
ID = "0123456789abcdef" * 2


def tombstones_of(folder, rows, name="tombstones", **settings):
    requests = [request(**{"id": f"R-{number}"} | row) for number, row in enumerate(rows)]
    remove(write_requests(folder / f"{name}.jsonl", requests), folder / name, **settings)
    return Tombstones.open(folder / name)


@pytest.mark.parametrize(
    "scope, value, covered, not_covered",
    [
        (
            "url_prefix",
            "https://site.example/people/jo",
            [
                "https://site.example/people/jo",
                "http://SITE.example:80/people/john?x=1",
                "https://me:pw@site.example/people/%6Ao#top",
                "https://site.example./people/./x/../jo/",
            ],
            [
                "https://site.example/people/",
                "https://www.site.example/people/jo",
                "https://site.example:8080/people/jo",
            ],
        ),
        (
            "url_prefix",
            "https://site.example",
            ["https://site.example", "https://site.example/a"],
            ["https://site.example.evil/", "https://site.examples/"],
        ),
        (
            "url_prefix",
            "https://site.example/über%2Funs",
            ["https://site.example/%C3%BCber%2funs/1"],
            ["https://site.example/über/uns"],
        ),
        (
            "url",
            "https://site.example/part3?x=1#top",
            [
                "https://site.example/part3?x=1",
                "http://me:pw@SITE.example.:80/a/../part3?x=1#end",
                "https://site.example:443/%70art3?x=1",
            ],
            [
                "https://site.example/part30?x=1",
                "https://site.example/part3?x=10",
                "https://site.example/part3",
                "https://site.example/part3/?x=1",
                "https://site.example/Part3?x=1",
                "https://site.example/part3?x=1&y=2",
                "https://www.site.example/part3?x=1",
                "https://site.example:8443/part3?x=1",
            ],
        ),
        (
            "url",
            "https://site.example",
            ["http://site.example/", "https://site.example/#a", "https://site.example/."],
            ["https://site.example/a", "https://site.example/?"],
        ),
        ("url", "https://site.example/ü%2f", ["https://site.example/%C3%BC%2F"], ["https://site.example/ü/"]),
        (
            "host",
            "Bücher.example",
            ["https://xn--bcher-kva.example/", "http://bücher.example:8080/a"],
            ["https://www.bücher.example/", "https://bucher.example/"],
        ),
        (
            "domain",
            "site.co.uk",
            ["https://site.co.uk/", "https://a.b.site.co.uk/x"],
            ["https://mysite.co.uk/", "https://site.co.uk.example/", "https://co.uk/"],
        ),
    ],
)
def test_a_request_covers_exactly_what_it_names(tmp_path, scope, value, covered, not_covered):
    tombstones = tombstones_of(tmp_path, [{"scope": scope, "value": value}])
    for url in covered:
        assert tombstones.match(ID, url, "", DAY) == "R-0", url
    for url in [*not_covered, "", "not a url", "ftp://site.example/people/jo"]:
        assert tombstones.match(ID, url, "", DAY) is None, url


def test_documents_are_found_by_id_and_text_in_any_case(tmp_path):
    text = "Die Straße  von\tＪＯ\n führt zum ﬂuss."
    again = " die strasse von jo führt\u00a0zum FLUSS. "
    assert text_digest(text) == text_digest(again) != text_digest(again.replace(".", "!"))
    # Anyone can compute it: the definition in four words of Python.
    assert text_digest("A  b") == hashlib.blake2b(b"a b", digest_size=16).hexdigest()
    rows = [{"scope": "document_id", "value": ID.upper()}, {"scope": "text_digest", "value": text_digest(text)}]
    tombstones = tombstones_of(tmp_path, rows)
    assert tombstones.match(ID, "", "", DAY) == "R-0"
    assert tombstones.match("f" * 32, "", text_digest(again), DAY) == "R-1"
    assert tombstones.match("f" * 32, "", ID, DAY) is None, "an id is not a text digest"


def test_requests_hold_from_their_day_on_and_only_when_granted(tmp_path):
    rows = [
        {"id": "later", "value": "a.example", "effective_date": "2026-06-02"},
        {"id": "b", "value": "b.example", "effective_date": "2026-05-01"},
        {"id": "a", "value": "b.example", "effective_date": "2026-05-01"},
        {"id": "first", "scope": "domain", "value": "b.example", "effective_date": "2026-04-01"},
        {"id": "no", "value": "c.example", "decision": "refused"},
        {"id": "open", "value": "d.example", "decision": "pending"},
    ]
    tombstones = tombstones_of(tmp_path, rows)
    assert tombstones.match(ID, "https://a.example/", "", DAY) is None
    assert tombstones.match(ID, "https://a.example/", "", DAY + datetime.timedelta(1)) == "later"
    assert tombstones.match(ID, "https://b.example/", "", DAY) == "first"
    assert tombstones.match(ID, "https://c.example/", "", DAY) is None
    assert tombstones.match(ID, "https://d.example/", "", DAY) is None
    alone = tombstones_of(tmp_path, rows[1:3], name="alone")
    assert alone.match(ID, "https://b.example/", "", DAY) == "a"
    assert alone.match(ID, "https://b.example/", "", datetime.date(2026, 4, 30)) is None
    assert [tombstones.num_in_effect(day) for day in (datetime.date(2026, 3, 1), DAY, datetime.date.max)] == [0, 3, 4]


HOSTS = st.sampled_from(["a.example", "b.example", "www.a.example", "x.co.uk", "y.x.co.uk"])
PATHS = st.text(alphabet="ab/", max_size=6)
DAYS = st.sampled_from(["2026-05-31", "2026-06-01", "2026-06-02"])
REQUESTS = st.one_of(
    st.tuples(st.just("url_prefix"), st.builds("https://{}/{}".format, HOSTS, PATHS), DAYS),
    st.tuples(st.just("url"), st.builds("https://{}/{}".format, HOSTS, PATHS), DAYS),
    st.tuples(st.just("host"), HOSTS, DAYS),
    st.tuples(st.just("domain"), HOSTS.map(registrable_domain), DAYS),
    st.tuples(st.sampled_from(["document_id", "text_digest"]), st.sampled_from(["0" * 32, "1" * 32]), DAYS),
)
DOCUMENTS = st.tuples(
    st.sampled_from(["0" * 32, "2" * 32]),
    st.builds("http://{}/{}".format, HOSTS, PATHS),
    st.sampled_from(["1" * 32, "2" * 32]),
)


def plain_match(rows, document_id, url, digest):
    """Reads every request, as a person would."""
    address = parse_web_address(url)
    covers = {
        "url_prefix": lambda value: url.removeprefix("http").startswith(value.removeprefix("https")),
        "url": lambda value: url.removeprefix("http") == value.removeprefix("https"),
        "host": lambda value: address.host == value,
        "domain": lambda value: address.host == value or address.host.endswith("." + value),
        "document_id": lambda value: value == document_id,
        "text_digest": lambda value: value == digest,
    }
    found = [
        (day, f"R-{number}")
        for number, (scope, value, day) in enumerate(rows)
        if day <= DAY.isoformat() and covers[scope](value)
    ]
    return min(found)[1] if found else None


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(REQUESTS, min_size=1, max_size=10), documents=st.lists(DOCUMENTS, min_size=1, max_size=12))
def test_lookup_equals_reading_every_request(tmp_path_factory, rows, documents):
    folder = tmp_path_factory.mktemp("lookup")
    fields = [{"scope": scope, "value": value, "effective_date": day} for scope, value, day in rows]
    tombstones = tombstones_of(folder, fields)
    for document_id, url, digest in documents:
        assert tombstones.match(document_id, url, digest, DAY) == plain_match(rows, document_id, url, digest)


def test_one_address_is_removed_without_its_neighbours(tmp_path):
    pages = [f"https://site.example/part{number}" for number in range(1, 41)]
    one = tombstones_of(tmp_path, [{"scope": "url", "value": pages[2]}], name="one")
    assert [page for page in pages if one.match(ID, page, "", DAY)] == [pages[2]]
    begins = tombstones_of(tmp_path, [{"scope": "url_prefix", "value": pages[2]}], name="begins")
    assert [page for page in pages if begins.match(ID, page, "", DAY)] == [pages[2], *pages[29:39]]


def test_scopes_of_a_later_version_are_refused(tmp_path):
    tombstones_of(tmp_path, [{"value": "a.example"}])
    manifest = artifacts.read_manifest(tmp_path / "tombstones", "tombstones")
    inputs, summary = manifest["inputs"], manifest["summary"] | {"scopes": {"person": 1}}
    with artifacts.build(tmp_path / "later", "tombstones", inputs) as build:
        for name in ("requests.parquet", "tombstones.parquet"):
            (build.path / name).write_bytes((tmp_path / "tombstones" / name).read_bytes())
        build.summary.update(summary)
    with pytest.raises(UserError, match="scope person, unknown here"):
        Tombstones.open(tmp_path / "later")


def test_requests_are_found_among_20_000_and_nothing_else(tmp_path):
    generator = random.Random(5)
    rows = [
        {"scope": "url_prefix", "value": f"https://h{generator.randrange(300)}.example/{number}/"}
        for number in range(10_000)
    ] + [{"scope": "document_id", "value": f"{number:032x}"} for number in range(10_000)]
    tombstones = tombstones_of(tmp_path, rows)
    for number in range(0, 20_000, 37):
        row = rows[number]
        by_url = row["scope"] == "url_prefix"
        document_id, url = ("f" * 32, row["value"] + "page") if by_url else (row["value"], "")
        assert tombstones.match(document_id, url, "", DAY) == f"R-{number}"
        assert tombstones.match("f" * 32, f"https://h1.example/x{number}/", "", DAY) is None


def test_scorer_and_rule_name_the_request_and_say_nothing_else(tmp_path):
    rows = [{"id": "GDPR-7", "value": "secret.example"}]
    tombstones_of(tmp_path, rows)
    scorer = RemovalScoring(str(tmp_path / "tombstones"), "2026-06-01").build()
    documents = [
        RawDocument(f"{number:032x}", f"text {number}", "source", "file", number, url=url)
        for number, url in enumerate(["https://secret.example/a", "https://open.example/", "", "https://["])
    ]
    scores = scorer.score(documents)
    assert [row["removal_request"] for row in scores] == ["GDPR-7", None, None, None]
    assert [row["text_digest"] for row in scores] == [text_digest(document.text) for document in documents]
    assert scores == [scorer.score([document])[0] for document in documents]
    assert [field.name for field in scorer.schema()] == list(scores[0])
    verdicts = [RemovalRule().verdict(row, {}) for row in scores]
    assert [verdict and verdict.reason for verdict in verdicts] == [Reason.REMOVED_ON_REQUEST, None, None, None]
    assert "GDPR-7" in verdicts[0].detail
    assert "secret" not in json.dumps([scorer.identity(), scorer.applied(), verdicts[0].detail])
    without = RemovalScoring().build()
    assert [row["removal_request"] for row in without.score(documents)] == [None] * 4 and without.applied() is None
    with pytest.raises(UserError, match="RemovalScoring.today"):
        RemovalScoring(today="1.6.2026")
    with pytest.raises(UserError, match="add @RemovalScoring"):
        RemovalRule().verdict({}, {})


def test_scores_are_made_again_only_under_other_requests(tmp_path):
    tombstones_of(tmp_path, [{"effective_date": "2026-02-01"}, {"effective_date": "2026-08-01", "value": "b.example"}])

    def identity(today):
        return RemovalScoring(str(tmp_path / "tombstones"), today).build().identity()

    assert identity("2026-06-01") == identity("2026-07-31") != identity("2026-08-01") == identity("2027-01-01")


def test_a_corpus_knows_which_tombstones_it_already_obeys(tmp_path):
    rows = [{"effective_date": "2026-02-01"}, {"effective_date": "2026-08-01", "value": "b.example"}]
    first = tombstones_of(tmp_path, rows[:1], "first")
    second = tombstones_of(tmp_path, rows, "second", supersedes=tmp_path / "first")
    applied = AppliedTombstones.from_json(json.loads(json.dumps(second.applied(DAY).as_json())))
    assert (applied.version, applied.in_effect, applied.until) == (2, 1, "2026-08-01")
    assert applied.covers(second, DAY) and applied.covers(first, DAY)
    assert not applied.covers(second, datetime.date(2026, 8, 1)), "another request holds from that day on"
    assert not first.applied(DAY).covers(second, DAY), "an older version does not cover a newer one"
    assert second.applied(datetime.date(2026, 8, 1)).covers(second, datetime.date.max)
