"""robots.txt verdicts of documents: from the right host, with evidence, under two policies that differ where stated."""

import hashlib
import json
import pickle

import pytest

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason
from apertus_jax.corpus.robots import RobotsPolicy, agent_set
from apertus_jax.corpus.robots_snapshot import RobotsRule, RobotsScoring, build_robots_snapshot, robots_state
from apertus_jax.corpus.robots_snapshot.lookup import BoundedCache
from apertus_jax.corpus.robots_snapshot.responses import RobotsRecord
from apertus_jax.corpus.robots_snapshot.states import STATES
from apertus_jax.errors import UserError

BODIES = {
    "closed.example": b"User-agent: *\nDisallow: /\n",
    "open.example": b"User-agent: *\nAllow: /\n",
    "some.example": b"# a comment\nUser-agent: GPTBot\nUser-agent: CCBot\nDisallow: /private/\n",
    "empty.example": b"",
    "html.example": b"\xef\xbb\xbf\n <!DOCTYPE html><p>User-agent: *</p>",
    "htmlclosed.example": b"<html>\nUser-agent: *\nDisallow: /\n",
    "prose.example": b"Not found\n",
    "port.example:8080": b"User-agent: *\nDisallow: /\n",
    "xn--bcher-kva.example": b"User-agent: *\nDisallow: /x\n",
}
STATUSES = {"forbidden.example": 403, "gone.example": 404, "busy.example": 503}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robots")
    (folder / "files").mkdir()
    for host, body in BODIES.items():
        (folder / "files" / host).write_bytes(body)
    lines = [{"host": host, "http_status": status, "fetched_at": "2025-01-07"} for host, status in STATUSES.items()]
    lines.append({"host": "dead.example", "error_kind": "dns"})
    lines.append({"host": "only-http.example", "scheme": "http", "file": "closed.example"})
    lines.append({"host": "closed.example", "file": "closed.example"})
    (folder / "files" / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    build_robots_snapshot(folder / "files", folder / "snapshot", "2025-01-31")
    return str(folder / "snapshot")


def document(url):
    return RawDocument(document_id="0" * 32, text="", source="s", file="f", row=1, url=url)


def score(snapshot, url, **options):
    return RobotsScoring(snapshot=snapshot, **options).build().score([document(url)])[0]


EVIDENCE = {"robots_refusing_agents": ["GPTBot"], "robots_line": 2}


def decide(row, policy):
    verdict = RobotsRule(policy=policy).verdict(row, {})
    return None if verdict is None else verdict.reason


# url, verdict, state, apertus, strict
CASES = [
    ("https://closed.example/a", "deny", "found", Reason.ROBOTS, Reason.ROBOTS),
    ("https://open.example/a", "allow", "found", None, None),
    ("https://some.example/a", "allow", "found", None, None),
    ("https://some.example/private/a", "deny", "found", Reason.ROBOTS, Reason.ROBOTS),
    ("https://empty.example/a", "allow", "found", None, None),
    ("https://html.example/a", "unknown", "html", None, Reason.ROBOTS_UNREACHABLE),
    ("https://htmlclosed.example/a", "deny", "html", Reason.ROBOTS, Reason.ROBOTS),
    ("https://prose.example/a", "unknown", "malformed", None, Reason.ROBOTS_UNREACHABLE),
    ("https://forbidden.example/a", "unknown", "unavailable", None, None),
    ("https://gone.example/a", "unknown", "unavailable", None, None),
    ("https://busy.example/a", "unknown", "unreachable", None, Reason.ROBOTS_UNREACHABLE),
    ("https://dead.example/a", "unknown", "unreachable", None, Reason.ROBOTS_UNREACHABLE),
    ("https://nowhere.example/a", "unknown", "missing", None, None),
    ("", "unknown", "no_url", None, None),
    ("http://[", "unknown", "no_url", None, None),
]


@pytest.mark.parametrize("url, verdict, state, apertus, strict", CASES)
def test_strict_and_apertus_differ_only_where_stated(snapshot, url, verdict, state, apertus, strict):
    row = score(snapshot, url)
    assert (row["robots_verdict"], row["robots_state"]) == (verdict, state)
    assert decide(row, "apertus") == apertus and decide(row, "strict") == strict


# What strict does with every state in which no rule decides; apertus keeps them all. A new state must be added here.
STRICT_KEEPS = {"found": True, "missing": True, "unavailable": True, "no_url": True}
STRICT_DROPS = ("unreachable", "html", "malformed", "undecodable", "incomplete", "a state of another version", "", None)


def test_robots_policies_have_a_decision_for_every_state():
    for state in {*STATES, *STRICT_KEEPS, *STRICT_DROPS}:
        row = {"robots_verdict": "unknown", "robots_state": state}
        assert decide(row, "apertus") is None
        assert (decide(row, "strict") is None) is STRICT_KEEPS.get(state, False), state
        assert decide({**row, "robots_verdict": "deny", **EVIDENCE}, "apertus") == Reason.ROBOTS
    assert set(STATES) <= {*STRICT_KEEPS, *STRICT_DROPS}


def test_a_refusal_carries_its_evidence(snapshot):
    row = score(snapshot, "https://some.example/private/a")
    assert row["robots_refusing_agents"] == ["CCBot", "CCBot/2.0", "CCBot/1.0", "GPTBot"]
    assert (row["robots_rule"], row["robots_line"]) == ("Disallow: /private/", 4)
    assert row["robots_group"] in ("ccbot", "gptbot")
    assert row["robots_body_sha256"] == hashlib.sha256(BODIES["some.example"]).hexdigest()
    verdict = RobotsRule().verdict(row, {})
    assert verdict.detail == "line 4 refuses 4 agents: CCBot, CCBot/2.0, CCBot/1.0, …"
    assert score(snapshot, "https://gone.example/")["robots_fetched_at"] == "2025-01-07T00:00:00Z"


@pytest.mark.parametrize(
    "url, verdict",
    [
        ("HTTPS://user@CLOSED.example.:443/a", "deny"),
        ("https://Bücher.example/x", "deny"),
        ("https://sub.closed.example/a", "unknown"),  # RFC 9309 §2.3: no inheritance to subdomains
        ("https://closed.example:444/a", "unknown"),
        ("https://port.example:8080/a", "deny"),
        ("http://port.example:8080/a", "unknown"),  # another server, whatever the scheme option
        ("http://closed.example/a", "deny"),
        ("https://only-http.example/a", "deny"),
        ("http://only-http.example/a", "deny"),
    ],
)
def test_the_canonical_authority_is_looked_up(snapshot, url, verdict):
    assert score(snapshot, url)["robots_verdict"] == verdict


def test_without_any_scheme_the_letter_of_the_rfc_holds(snapshot):
    assert score(snapshot, "http://closed.example/a", any_scheme=False)["robots_verdict"] == "unknown"
    assert score(snapshot, "https://only-http.example/a", any_scheme=False)["robots_verdict"] == "unknown"
    assert score(snapshot, "https://closed.example/a", any_scheme=False)["robots_verdict"] == "deny"


@pytest.mark.parametrize("mode", ["rfc9309", "protego"])
def test_verdicts_are_those_of_a_loop_over_agents_and_urls(snapshot, mode):
    agents = agent_set("apertus-2025-01").agents
    documents = [
        document(f"https://{host}/{path}") for host in BODIES for path in ("", "private/x", "x?y=1", "robots.txt")
    ]
    rows = RobotsScoring(snapshot=snapshot, mode=mode).build().score(documents)
    for page, row in zip(documents, rows, strict=True):
        body = BODIES[page.url.split("/")[2]]
        refusing = [agent for agent in agents if not RobotsPolicy.parse(body, mode=mode).allows(agent, page.url)]
        assert row["robots_refusing_agents"] == refusing
        assert (row["robots_verdict"] == "deny") == bool(refusing)


def test_scores_do_not_depend_on_batches_or_order(snapshot):
    documents = [document(url) for url, *_ in CASES] * 2
    whole = RobotsScoring(snapshot=snapshot).build().score(documents)
    scorer = RobotsScoring(snapshot=snapshot).build()
    assert [scorer.score([page])[0] for page in documents] == whole
    assert RobotsScoring(snapshot=snapshot).build().score(documents[::-1])[::-1] == whole
    assert scorer.score([]) == []


def test_each_host_is_looked_up_and_each_body_parsed_once(snapshot, monkeypatch):
    parsed = []
    parse = RobotsPolicy.parse
    monkeypatch.setattr(RobotsPolicy, "parse", lambda body, **options: parsed.append(body) or parse(body, **options))
    scorer = RobotsScoring(snapshot=snapshot).build()
    for _ in range(3):
        scorer.score([document(f"https://{host}/{n}") for n in range(5) for host in BODIES])
    assert sorted(parsed) == sorted(set(BODIES.values()))  # closed.example and port.example share a body
    assert scorer._snapshot.row_groups_read == 1


def test_rows_fit_the_schema_and_the_identity_names_what_decides(snapshot):
    import pyarrow

    scoring = RobotsScoring(snapshot=snapshot)
    assert pickle.loads(pickle.dumps(scoring)) == scoring
    scorer = scoring.build()
    rows = scorer.score([document(url) for url, *_ in CASES])
    schema = pyarrow.schema(scorer.schema())
    assert all(set(row) == set(schema.names) for row in rows)
    assert pyarrow.Table.from_pylist(rows, schema=schema).to_pylist() == rows
    identity = json.loads(json.dumps(scorer.identity()))
    assert identity["as_of"] == "2025-01-31T23:59:59Z" and identity["agents"].startswith("apertus-2025-01/")
    protego = RobotsScoring(snapshot=snapshot, mode="protego").build().identity()
    assert protego["parser"].startswith("protego/") and protego["parser"] != identity["parser"]


def test_wrong_options_are_one_line(tmp_path):
    for make, message in (
        (lambda: RobotsScoring().build(), "snapshot is empty"),
        (lambda: RobotsScoring(snapshot="x", mode="google"), "mode is 'google'"),
        (lambda: RobotsScoring(snapshot="x", agents="none"), "agent set 'none'"),
        (lambda: RobotsScoring(snapshot=str(tmp_path / "x")).build(), "does not exist"),
        (lambda: RobotsRule(policy="lax"), "policy is 'lax'"),
    ):
        with pytest.raises(UserError, match=message):
            make()


def test_half_a_line_at_the_cut_of_a_body_forbids_nothing(tmp_path):
    (tmp_path / "files").mkdir()
    rule = b"User-agent: *\nDisallow: /"
    padding = b"#" * (512_000 - len(rule) - 1) + b"\n"
    (tmp_path / "files" / "a.example").write_bytes(padding + rule + b"private/\n")
    build_robots_snapshot(tmp_path / "files", tmp_path / "snapshot", "2025-01-31")
    assert score(str(tmp_path / "snapshot"), "https://a.example/public")["robots_verdict"] == "allow"


@pytest.mark.parametrize(
    "body, state",
    [
        (b"", "found"),
        (b"\n\n", "found"),
        (b"# nothing\r# here", "found"),
        (b"Sitemap: https://a.example/sitemap.xml", "found"),
        (b"user-agent *\ndisallow /", "found"),
        (b"x\rUser-Agent: *", "found"),
        (b"content-usage: train-ai=n", "found"),
        (b"\n\t <a>", "html"),
        (b"<?xml version='1.0'?>", "html"),
        (b"Host not found", "malformed"),
        (b'{"error": "allow: none"}', "malformed"),
        (b"\xff\xfeU\x00s\x00e\x00r\x00", "malformed"),
        (b"\x89PNG\r\n\x1a\n", "malformed"),
    ],
)
def test_the_state_tells_rules_from_what_only_looks_like_a_file(body, state):
    assert robots_state(RobotsRecord("a", "https", None, 200, (), "https://a/robots.txt", body, False, "")) == state


@pytest.mark.parametrize(
    "status, state", [(100, "unreachable"), (204, "found"), (304, "unavailable"), (400, "unavailable")]
)
def test_other_statuses(status, state):
    assert robots_state(RobotsRecord("a", "https", None, status, (), "", b"", False, "")) == state


def test_the_cache_keeps_the_newest_within_its_limit():
    cache = BoundedCache(10)
    for number in range(5):
        cache.put(number, str(number), 4)
        cache.get(0)
    assert [cache.get(number) for number in range(5)] == ["0", None, None, None, "4"]
    cache.put("large", "x", 100)
    assert cache.get("large") == "x" and cache.get(0) is None
