"""The robots matcher against a brute-force one, on any octets, and on bodies made to hurt."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.robots import RobotsPolicy, agent_set
from apertus_jax.corpus.robots.robots_file import LINE_LIMIT, parse_robots_file
from tests.processor_time import assert_bounded, assert_linear

UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
AGENTS = ("GPTBot", "CCBot/2.0", "AI2Bot", "*")


def tokens(text: str, is_rule: bool, query_is_data: bool) -> list:
    """Reads a path octet by octet: an octet, ("kept", octet) for an encoded delimiter, or "*"."""
    found, in_query, place = [], False, 0
    octets = text.encode()
    while place < len(octets):
        digits = octets[place + 1 : place + 3]
        if octets[place] == ord("%") and re.fullmatch(rb"[0-9A-Fa-f]{2}", digits):
            octet = int(digits, 16)
            keeps = chr(octet) in "/?" and not (in_query and query_is_data)
            found.append(("kept", octet) if keeps else octet)
            place += 3
            continue
        octet = octets[place]
        in_query = in_query or octet == ord("?")
        found.append("*" if is_rule and octet == ord("*") else octet)
        place += 1
    return found


def octet_count(rule: str) -> int:
    """Counts octets of a rule in the RFC's normal spelling; a delimiter in its place and a wildcard count one."""
    anchored = rule.endswith("$")
    plain = [t for t in tokens(rule.removesuffix("$") if anchored else rule, True, True)]
    return anchored + sum(1 if t == "*" or (isinstance(t, int) and chr(t) in UNRESERVED + "/?=&") else 3 for t in plain)


def brute_force_matches(rule: str, path: str) -> bool:
    """Matches with a backtracking regular expression over the tokens; a rule's query, if any, in both readings."""
    for query_is_data in (False, True) if "?" in rule else (False,):
        spell = {}

        def letter(token, spell=spell):
            return spell.setdefault(token, chr(0x4E00 + len(spell)))

        anchored = rule.endswith("$")
        parts = tokens(rule[:-1] if anchored else rule, True, query_is_data)
        expression = "".join(".*" if token == "*" else letter(token) for token in parts) + ("$" if anchored else "")
        if re.match(expression, "".join(map(letter, tokens(path, False, query_is_data)))):
            return True
    return False


def brute_force_allows(rules: list[tuple[bool, str]], path: str) -> bool:
    """Applies RFC 9309 §2.2.2 by trying every rule."""
    matching = [(octet_count(rule), allow) for allow, rule in rules if brute_force_matches(rule, path)]
    return max(matching)[1] if matching else True


PIECES = ["a", "b", "ab", "/", "?", "=", "%2F", "%2f", "%3F", "%61", "%", "%2A", "%24", "ü", "%c3%bc", ":", "$"]
PIECES += ["2", "A", "F", "3", "(", "%28", "%zz", "%2", ";", "%ff"]  # what an escape is written with
RULE_PIECES = PIECES + ["*"] * 6
rule_paths = st.tuples(st.sampled_from("/*"), st.lists(st.sampled_from(RULE_PIECES), max_size=6)).map(
    lambda pair: pair[0] + "".join(pair[1])
)
paths = st.lists(st.sampled_from(PIECES + ["*"]), max_size=8).map(lambda pieces: "/" + "".join(pieces))


def path_under(rule: str, fill: str, end: str) -> str:
    """Returns a path that the rule matches, or nearly."""
    path = rule.removesuffix("$").replace("*", fill) + end
    return path if path.startswith("/") else "/" + path


@settings(max_examples=800, deadline=None)
@given(st.lists(st.tuples(st.booleans(), rule_paths), min_size=1, max_size=6), paths, st.data())
def test_matcher_equals_brute_force(rules, path, data):
    if data.draw(st.booleans()):
        rules = [*rules, (data.draw(st.booleans()), data.draw(st.sampled_from(rules))[1].replace("*", "a"))]
        rule = data.draw(st.sampled_from(rules))[1]
        path = path_under(rule, data.draw(st.sampled_from(["", "a", "b/"])), data.draw(st.sampled_from(["", "b"])))
    text = "User-agent: *\n" + "".join(f"{'Allow' if allow else 'Disallow'}: {rule}\n" for allow, rule in rules)
    policy = RobotsPolicy.parse(text)
    assert policy.allows("x", "https://h.example" + path) is brute_force_allows(rules, path)


lines = st.one_of(
    st.sampled_from(["GPTBot", "CCBot", "AI2Bot", "*", "other", "GPTBot/1"]).map("User-agent: {}".format),
    st.tuples(st.sampled_from(["Allow", "Disallow"]), rule_paths).map(": ".join),
    st.sampled_from(["Crawl-delay: 3", "", "# nothing", "Disallow:"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(lines, max_size=14), st.lists(paths, max_size=2))
def test_many_agents_at_once_equal_one_by_one_with_the_rule(text, some_paths):
    policy = RobotsPolicy.parse("\n".join(text))
    some_paths = some_paths + [path_under(line.partition(": ")[2], "a", "") for line in text if "llow: " in line]
    for path in some_paths:
        verdict = policy.verdict(AGENTS, path)
        refusing = tuple(agent for agent in AGENTS if not RobotsPolicy.parse("\n".join(text)).allows(agent, path))
        assert verdict.refusing_agents == refusing
        assert verdict.allowed is (not refusing)
        if refusing:
            assert text[verdict.line - 1] == verdict.rule
            assert verdict.group in (refusing[0].partition("/")[0].lower(), "*")
        else:
            assert verdict[2:] == ("", 0, "")


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=400),
        st.lists(
            st.sampled_from([b"user-agent:", b"*", b"\n", b"disallow:", b"/", b"%", b"\x00", b"\xff", b"$", b":"])
        ).map(b"".join),
    ),
    st.text(st.characters(exclude_categories=()), max_size=40),
)
def test_any_octets_are_a_file_and_any_text_is_a_url(octets, url):
    for mode in ("rfc9309", "protego"):
        policy = RobotsPolicy.parse(octets, mode=mode)
        if mode == "rfc9309":
            RobotsPolicy.parse(url).verdict(AGENTS, url)
            policy.verdict(AGENTS, url)
        policy.verdict(AGENTS, "https://h.example/" + url.encode("utf-8", "ignore").decode())


def repeat_to(size: int, *pieces: bytes) -> bytes:
    """Fills a body with equal shares of numbered pieces, one kind after the other."""
    share = size // len(pieces)
    return b"".join(piece.replace(b"#", b"%d" % n) for piece in pieces for n in range(share // len(piece)))


HOSTILE = {
    "stars in lines": lambda size: b"User-agent: *\n" + (b"Disallow: /" + b"*" * 9_000 + b"a\n") * (size // 9_012),
    "one line of stars": lambda size: b"User-agent: *\nDisallow: /" + b"*" * size,
    "stars between letters": lambda size: (
        b"User-agent: *\n" + (b"Disallow: /" + b"*a" * 4_500 + b"b\n") * (size // 9_012)
    ),
    "nul octets": lambda size: b"User-agent: *\nDisallow: /\n" + b"\0" * size,
    "one group each line": lambda size: repeat_to(size, b"User-agent: b#\nDisallow: /\n"),
    "many agents, many rules": lambda size: repeat_to(size, b"User-agent: GPTBot#\n", b"Disallow: /#\n"),
    "one agent again and again": lambda size: repeat_to(size, b"User-agent: GPTBot\nDisallow: /#\n"),
    "nested prefixes": lambda size: (
        b"User-agent: *\n" + b"".join(b"Disallow: /" + b"a" * n + b"\n" for n in range(1, int((2 * size) ** 0.5) - 20))
    ),
    "wildcard rules": lambda size: repeat_to(size, b"User-agent: GPTBot\nDisallow: /*#*a\n"),
    "blank lines": lambda size: b"\r" * size,
    "encoded octets": lambda size: b"User-agent: *\n" + (b"Disallow: /" + b"%aa" * 3_000 + b"\n") * (size // 9_012),
}
LONG_URL = "https://h.example/" + "a" * 2_000 + "%2F" * 200


@pytest.mark.timed
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_stay_linear(name):
    agents = agent_set("apertus-2025-01").agents

    def ask(text):
        policy = RobotsPolicy.parse(text)
        policy.verdict(agents, LONG_URL)
        policy.verdict(agents, "https://h.example/short")

    assert_linear(ask, HOSTILE[name], 24_000)
    assert_bounded(lambda: ask(HOSTILE[name](480_000)), 3)


LINE_OF_100_MEGABYTES = b"User-agent: *\nDisallow: /" + b"*" * 100_000_000


@pytest.mark.timed
def test_line_of_100_megabytes_costs_no_more_than_the_limit():
    text = LINE_OF_100_MEGABYTES
    assert_bounded(lambda: RobotsPolicy.parse(text).verdict(AGENTS, LONG_URL), 1)
    assert_bounded(lambda: RobotsPolicy.parse(b"*" * 100_000_000).verdict(AGENTS, LONG_URL), 1)


def test_line_of_100_megabytes_is_cut():
    assert RobotsPolicy.parse(LINE_OF_100_MEGABYTES).truncated


def test_lines_are_read_to_their_limit():
    policy = RobotsPolicy.parse("User-agent: *\nDisallow: /" + "a" * 20_000 + "\nDisallow: /b")
    assert not policy.allows("x", "/" + "a" * (LINE_LIMIT - len("Disallow: /")))
    assert policy.allows("x", "/" + "a" * (LINE_LIMIT - len("Disallow: /") - 1))
    assert not policy.allows("x", "/b")
    assert LINE_LIMIT == 2083 * 8 - 1  # Google's buffer, with room for the end of a C string


def test_a_hundred_thousand_groups_share_their_rules():
    text = "".join(f"User-agent: {'ab'[n % 2]}{n}\n" for n in range(15_000)) + "Disallow: /x\n" * 15_000
    file = parse_robots_file(text)
    blocks = {id(block): block for group in file.groups.values() for block in group}
    assert sum(len(block.rules) for block in blocks.values()) == 15_000  # lines are stored once, not once per agent


@pytest.mark.timed
def test_time_stays_bounded_with_a_hundred_thousand_groups():
    hundred_thousand = "".join(f"User-agent: a{n}\nDisallow: /\n" for n in range(100_000))
    assert_bounded(lambda: RobotsPolicy.parse(hundred_thousand).verdict(AGENTS, "/"), 3)


MANY_WILDCARDS = "User-agent: *\nDisallow: /" + "*a" * 4_000 + "*b$"


@pytest.mark.timed
def test_wildcards_never_backtrack():
    policy = RobotsPolicy.parse(MANY_WILDCARDS)
    assert_bounded(lambda: policy.allows("x", "/" + "a" * 8_000), 1)


def test_thousands_of_wildcards_are_matched():
    policy = RobotsPolicy.parse(MANY_WILDCARDS)
    assert policy.allows("x", "/" + "a" * 8_000)
    assert not policy.allows("x", "/" + "a" * 8_000 + "b")


def test_memory_of_verdicts_is_bounded():
    rules = "".join(f"Disallow: /{n}/\n" for n in range(10_000))
    policy = RobotsPolicy.parse("User-agent: *\n" + rules)
    for n in range(10_000):
        assert policy.verdict(AGENTS, f"/{n}/").line == n + 2
    assert len(policy._verdicts) <= 4096
