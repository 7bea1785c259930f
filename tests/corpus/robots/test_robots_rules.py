"""robots.txt by RFC 9309: conformance vectors, the RFC's own examples, leniencies, and the evidence for a refusal."""

import json

import pytest

from apertus_jax.corpus.robots import (
    BODY_LIMIT,
    Record,
    RobotsPolicy,
    RobotsVerdict,
    agent_set,
    agent_set_names,
    parser_version,
)
from apertus_jax.errors import UserError


def body(*lines: str) -> bytes:
    """Joins lines; `UA:x` is short for a user-agent line."""
    return "\n".join(line.replace("UA:", "User-agent: ") for line in lines).encode()


# docs/reference/data.md §1.4: lines, path, agent, allowed by RFC 9309, allowed by Protego 0.7.0.
VECTORS = {
    "longer allow wins": (("UA:*", "Disallow:/a/", "Allow:/a/b"), "/a/b/c", "GPTBot", True, True),
    "allow wins a tie": (("UA:*", "Disallow:/p", "Allow:/p"), "/p", "GPTBot", True, True),
    "end anchor hit": (("UA:*", "Disallow:/*.php$"), "/a.php", "GPTBot", False, False),
    "end anchor missed": (("UA:*", "Disallow:/*.php$"), "/a.php5", "GPTBot", True, True),
    "own group": (("UA:*", "Disallow:/", "UA:GPTBot", "Allow:/"), "/q", "GPTBot", True, True),
    "own group without rules": (("UA:*", "Disallow:/", "UA:GPTBot"), "/q", "GPTBot", True, True),
    "groups are merged": (
        ("UA:GPTBot", "Disallow:/a", "UA:x", "Disallow:/", "UA:GPTBot", "Disallow:/b"),
        "/b",
        "GPTBot",
        False,
        False,
    ),
    "raw rule, encoded path": (("UA:*", "Disallow:/ツ"), "/%E3%83%84", "GPTBot", False, False),
    "encoded letters in a rule": (("UA:*", "Disallow:/foo/%62%61%7A"), "/foo/baz", "GPTBot", False, False),
    "encoded slash is no slash": (("UA:*", "Disallow:/a%2Fb"), "/a/b", "GPTBot", True, True),
    "fragment is dropped": (("UA:*", "Disallow:/a$"), "/a#f", "GPTBot", False, False),
    "robots.txt is open": (("UA:*", "Disallow:/"), "/robots.txt", "GPTBot", True, True),
    "no substring agents": (("UA:bot", "Disallow:/"), "/b", "GPTBot", True, True),
    "sitemap does not split": (("UA:GPTBot", "Sitemap: /s", "UA:CCBot", "Disallow:/"), "/a", "GPTBot", False, False),
    "byte order mark": (("\ufeffUA:*", "Disallow:/"), "/a", "GPTBot", False, True),
    "version after the token": (("UA:CCBot/2.0", "Disallow:/"), "/a", "CCBot", False, True),
    "no prefix agents": (("UA:Google", "Disallow:/"), "/a", "Google-Extended", True, False),
    "crawl-delay does not split": (
        ("UA:GPTBot", "Crawl-delay:5", "UA:CCBot", "Disallow:/"),
        "/a",
        "GPTBot",
        False,
        True,
    ),
    "an HTML page is no rule": (("<!DOCTYPE html>", "<html><body>Disallow: no</body>"), "/a", "GPTBot", True, True),
}


@pytest.mark.parametrize("name", VECTORS)
def test_conformance_vectors_of_the_data_spec(name):
    lines, path, agent, rfc, protego = VECTORS[name]
    for url in (path, f"https://example.org{path}"):
        assert RobotsPolicy.parse(body(*lines)).allows(agent, url) is rfc
        assert RobotsPolicy.parse(body(*lines), mode="protego").allows(agent, url) is protego


# RFC 9309 §5.1, its rules restated.
SIMPLE_EXAMPLE = """\
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""


@pytest.mark.parametrize(
    ("agent", "path", "allowed"),
    [
        ("otherbot", "/anything", True),
        ("otherbot", "/publications/report.html", True),
        ("otherbot", "/picture.gif", False),
        ("otherbot", "/picture.gif?size=1", True),
        ("otherbot", "/example/", False),
        ("otherbot", "/example/page.html", False),
        ("foobot", "/example/page.html", True),
        ("foobot", "/example/allowed.gif", True),
        ("foobot", "/example/", False),
        ("foobot", "/publications/", False),
        ("barbot", "/example/page.html", False),
        ("BazBot", "/example/page.html", False),
        ("bazbot", "/example/other.gif", True),
        ("quxbot", "/example/page.html", True),
        ("quxbot", "/picture.gif", True),
    ],
)
def test_simple_example_of_the_rfc(agent, path, allowed):
    assert RobotsPolicy.parse(SIMPLE_EXAMPLE).allows(agent, f"https://example.com{path}") is allowed


def test_longest_match_example_of_the_rfc():
    policy = RobotsPolicy.parse(body("UA:foobot", "Allow: /example/page/", "Disallow: /example/page/disallowed.gif"))
    assert not policy.allows("foobot", "https://example.com/example/page/disallowed.gif")
    assert policy.allows("foobot", "https://example.com/example/page/other.gif")


# RFC 9309 §2.2.2: spellings of one path that must compare equal.
EQUAL_PATHS = [
    ("/foo/bar?baz=quz", "/foo/bar?baz=quz"),
    ("/foo/bar?baz=https://foo.bar", "/foo/bar?baz=https%3A%2F%2Ffoo.bar"),
    ("/foo/bar/\u30c4", "/foo/bar/%E3%83%84"),
    ("/foo/bar/%E3%83%84", "/foo/bar/%e3%83%84"),
    ("/foo/bar/%62%61%7A", "/foo/bar/baz"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL_PATHS)
def test_paths_of_the_rfc_table_match_in_every_spelling(one, other):
    for rule in (one, other):
        for path in (one, other):
            policy = RobotsPolicy.parse(body("UA:*", f"Disallow: {rule}$"))
            assert not policy.allows("x", f"https://example.com{path}"), (rule, path)
            assert policy.allows("x", f"https://example.com{path}x"), (rule, path)


@pytest.mark.parametrize(
    ("rule", "path", "matches"),
    [
        ("/path/file-with-a-%2A.html", "/path/file-with-a-*.html", True),  # §2.2.3: literal star and dollar
        ("/path/file-with-a-%2A.html", "/path/file-with-a-x.html", False),
        ("/path/foo-%24", "/path/foo-$", True),
        ("/path/foo-%24", "/path/foo-", False),
        ("/this/path/exactly$", "/this/path/exactly", True),
        ("/this/path/exactly$", "/this/path/exactly/not", False),
        ("/this/*/exactly", "/this/is/it/exactly/so", True),
        ("/a$b", "/a$b", True),  # in the middle a dollar is a dollar
        ("/a$b", "/a", False),
        ("/Path", "/path", False),
        ("/a%2Fb", "/a%2fb", True),
        ("/a%3Fb", "/a?b", False),
        ("/a?b=%2F", "/a?b=/", True),
        ("/a?b=/", "/a?b=%2F", True),
        ("/*url=%2Fx", "/a?url=%2Fx", True),
        ("/*/x", "/a?url=%2Fx", False),  # only a rule with a query speaks of data in the query
        ("/*/x", "/a?url=/x", True),
        ("/*?*=/x", "/a?url=%2Fx", True),
        ("/a**b*", "/axxb", True),
        ("/a*aa$", "/aa", False),  # head and tail may not overlap
        ("/a*$", "/abc", True),
        ("*", "/abc", True),
        ("no-slash", "/no-slash", False),
    ],
)
def test_special_characters(rule, path, matches):
    assert RobotsPolicy.parse(body("UA:*", f"Disallow: {rule}")).allows("x", path) is not matches


@pytest.mark.parametrize(
    ("lines", "refuses_gptbot"),
    [
        (("UA:GPTBot", "Disallow:"), False),  # an empty value is no rule,
        (("UA:*", "Disallow: /", "UA:GPTBot", "Disallow:", "UA:x", "Disallow: /"), False),  # but it ends the agents
        (("Disallow: /", "UA:GPTBot"), False),  # rules before any group are nobody's
        (("UA:gptBOT", "Disallow: /"), True),
        (("UA:GPTBot/1.1 (+https://openai.com)", "Disallow: /"), True),
        (("UA:GPTBot-User", "Disallow: /"), False),
        (("UA:GPT", "Disallow: /"), False),
        (("UA:* ", "Disallow: /"), True),
        (("UA:*bot", "Disallow: /"), True),  # as whoever wrote it means it
        (("UA:*bots", "Disallow: /"), False),
        (("UA:", "Disallow: /"), False),
        (("useragent: GPTBot", "disallow: /"), True),
        (("user agent: GPTBot", "DISALLOW : /"), True),
        (("User-agent GPTBot", "Disallow /"), True),
        (("UA:GPTBot", "Disallow / extra words"), False),
        (("UA:GPTBot", "Dissallow: /"), True),
        (("UA:GPTBot", "Disalow: /"), True),
        (("UA:GPTBot", "Noindex: /", "UA:x", "Disallow: /"), True),
        (("UA:GPTBot # us", "Disallow: / # all"), True),
        (("UA:GPTBot", "Disallow: #/"), False),
        (("  UA:GPTBot", "\tDisallow:\t/\t"), True),
        (("UA:GPTBot", "nonsense", "", "Disallow: /"), True),
    ],
)
def test_groups_and_leniencies(lines, refuses_gptbot):
    assert RobotsPolicy.parse(body(*lines)).allows("GPTBot", "/page") is not refuses_gptbot


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_counts_as_one_line(line_end):
    policy = RobotsPolicy.parse(body("UA:a", "UA:GPTBot", "Allow: /b", "Disallow: /").replace(b"\n", line_end))
    assert policy.verdict(("GPTBot",), "/").line == 4


def test_agent_names_with_digits_are_whole_tokens_cut_as_by_rfc():
    policy = RobotsPolicy.parse(body("UA:AI2Bot-Dolma", "Disallow: /"))
    assert policy.allows("AI2Bot", "/")
    assert not policy.allows("AI2Bot-Dolma", "/")
    assert not policy.allows("AI", "/")
    assert not RobotsPolicy.parse(body("UA:AI2Bot", "Disallow: /")).allows("AI2Bot", "/")


def test_versions_of_one_agent_are_one_group():
    policy = RobotsPolicy.parse(body("UA:CCBot/2.0", "Disallow: /two", "UA:CCBot", "Disallow: /one"))
    for agent in ("CCBot", "CCBot/1.0", "CCBot/2.0"):
        assert not policy.allows(agent, "/one") and not policy.allows(agent, "/two")


def test_octets_of_the_normalised_rule_decide_which_is_longest():
    policy = RobotsPolicy.parse(body("UA:*", "Disallow: /ü", "Allow: /%C3%BCab", "Disallow: /ü*****"))
    assert not policy.allows("x", "/üab")  # 12 octets against 9
    policy = RobotsPolicy.parse(body("UA:*", "Disallow: /%61%62", "Allow: /ab*"))
    assert policy.allows("x", "/ab")  # 3 octets against 4: encoded letters are one octet


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://example.com", "/"),
        ("https://example.com?q=1", "/?q=1"),
        ("HTTPS://user@example.com:8443/a/b?q#f", "/a/b?q"),
        ("https://example.com/a?u=http://b/c", "/a?u=http://b/c"),
        ("https://example.com/ü", "/%C3%BC"),
        ("//not-a-host/a", "//not-a-host/a"),
    ],
)
def test_path_and_query_of_a_url_are_compared(url, path):
    assert not RobotsPolicy.parse(body("UA:*", f"Disallow: {path}$")).allows("x", url)


def test_verdict_names_refused_agents_and_the_first_one_s_line():
    text = body(
        "# a comment",
        "UA:GPTBot",
        "UA:CCBot",
        "Disallow: /private # because",
        "UA:ClaudeBot",
        "Disallow: /private",
        "UA:*",
        "Allow: /",
    )
    policy = RobotsPolicy.parse(text)
    verdict = policy.verdict(["ClaudeBot", "Other", "CCBot/2.0", "GPTBot"], "https://a.example/private/1")
    assert verdict == RobotsVerdict(False, ("ClaudeBot", "CCBot/2.0", "GPTBot"), "Disallow: /private", 6, "claudebot")
    assert policy.verdict(["GPTBot", "ClaudeBot"], "/private").line == 4
    assert policy.verdict(["Other", "*"], "/private") == RobotsVerdict(True, (), "", 0, "")


def test_agents_of_other_groups_are_named_in_the_order_asked():
    text = body("UA:a", "UA:c", "Disallow: /x", "UA:b", "UA:d", "Disallow: /xy", "Disallow: /only", "UA:e", "Disallow:")
    policy = RobotsPolicy.parse(text)
    assert policy.verdict(["d", "c", "e", "b", "a"], "/xyz")[1:] == (("d", "c", "b", "a"), "Disallow: /xy", 6, "d")
    assert policy.verdict(["a", "b", "c", "d"], "/xyz")[1:] == (("a", "b", "c", "d"), "Disallow: /x", 3, "a")
    assert policy.verdict(["a", "b", "c", "d"], "/only")[1:] == (("b", "d"), "Disallow: /only", 7, "b")
    assert policy.verdict(["a", "b"], "/x")[1:] == (("a",), "Disallow: /x", 3, "a")


@pytest.mark.parametrize("mode", ["rfc9309", "protego"])
def test_nobody_can_close_robots_txt(mode):
    policy = RobotsPolicy.parse(body("UA:*", "Disallow: /"), mode=mode)
    for url in ("https://a.example/robots.txt", "https://a.example/robots.txt?x", "https://a.example/robots.txt#x"):
        assert policy.verdict(["GPTBot"], url).allowed and policy.allows("GPTBot", url)
    for url in ("https://a.example/robots.txtx", "https://a.example/a/robots.txt"):
        assert not policy.verdict(["GPTBot"], url).allowed and not policy.allows("GPTBot", url)


def test_protego_mode_has_the_same_interface_and_no_lines():
    policy = RobotsPolicy.parse(body("UA:Google", "Disallow: /x"), mode="protego")
    assert policy.verdict(["GPTBot", "Google-Extended"], "/x") == RobotsVerdict(False, ("Google-Extended",), "", 0, "")
    assert policy.allows("Google-Extended", "http://[broken/x y")  # a parser error keeps the document, as in Apertus
    assert policy.mode == "protego" and parser_version("protego") == "protego/0.7.0"
    with pytest.raises(UserError, match="protego"):
        RobotsPolicy.parse(b"", mode="google")


def test_signals_are_read_from_the_group_of_the_agent():
    text = body(
        "Content-Signal: nobody=yes",
        "UA:*",
        "Content-Signal: search=yes, ai-train=no # so",
        "Disallow: /x",
        "UA:GPTBot",
        "content-usage: train-ai=n",
        "UA:x",
        "UA:*",
        "CONTENT-SIGNAL: ai-input=no",
    )
    policy = RobotsPolicy.parse(text)
    expected = [Record(3, "search=yes, ai-train=no"), Record(9, "ai-input=no")]
    assert policy.group_records("Whoever", "content-signal") == expected
    assert policy.group_records("GPTBot", "content-signal") == [Record(9, "ai-input=no")]  # agents run on: one block
    assert policy.group_records("GPTBot", "Content-Usage") == [Record(6, "train-ai=n")]
    assert RobotsPolicy.parse(b"").group_records("GPTBot", "content-usage") == []


def test_bodies_are_read_to_the_limit_without_the_cut_line():
    start = body("UA:*", "Disallow: /a") + b"\n"
    padding = b"# " + b"x" * 98 + b"\n"
    text = start + padding * ((BODY_LIMIT - len(start)) // len(padding) - 1)
    text += b"#" * (BODY_LIMIT - len(text) - 13) + b"\nDisallow: /beyond\n"
    assert text[:BODY_LIMIT].endswith(b"\nDisallow: /b")
    for given, stored_cut in ((text, False), (text.decode(), False), (text[:BODY_LIMIT], True)):
        policy = RobotsPolicy.parse(given, truncated=stored_cut)
        assert policy.truncated
        assert not policy.allows("x", "/a")
        assert policy.allows("x", "/beyond") and policy.allows("x", "/b")
    assert BODY_LIMIT >= 500 * 1024
    assert not RobotsPolicy.parse(text[: BODY_LIMIT - 13]).truncated


def test_agent_sets_are_versioned_data(tmp_path):
    apertus = agent_set("apertus-2025-01")
    names = (
        "AI2Bot Applebot-Extended Bytespider CCBot CCBot/2.0 CCBot/1.0 ClaudeBot cohere-training-data-crawler Diffbot "
        "FacebookBot Meta-ExternalAgent Google-Extended GPTBot PanguBot *"
    )
    assert apertus.agents == tuple(names.split()) and len(apertus.agents) == 15
    wide = agent_set("wide")
    keys = {agent.partition("/")[0].lower() for agent in wide.agents}
    assert {agent.partition("/")[0].lower() for agent in apertus.agents} <= keys
    assert len(wide.agents) == len(keys) >= 70 and wide.version >= "2026"
    assert agent_set_names() == ["apertus-2025-01", "wide"]
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"name": "apertus-2025-01", "version": "2025-01", "agents": list(apertus.agents)}))
    assert agent_set(str(own)) == apertus
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps({"name": "apertus-2025-01", "version": "2025-01", "agents": ["GPTBot"]}))
    assert agent_set(str(changed)).digest != apertus.digest


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "a", "version": "1", "agents": []}', '{"agents": ["a"]}'])
def test_bad_agent_sets_are_one_clear_line(tmp_path, text):
    path = tmp_path / "set.json"
    path.write_text(text)
    for name in (str(path), "unknown-set", str(tmp_path / "missing.json")):
        with pytest.raises(UserError) as error:
            agent_set(name)
        assert name in str(error.value) and "\n" not in str(error.value)
