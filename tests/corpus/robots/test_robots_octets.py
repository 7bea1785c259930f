"""Escapes, limits and odd octets of robots.txt: what Google's parser does, and nothing that would forget a refusal."""

import itertools

import pytest

from apertus_jax.corpus.robots import BODY_LIMIT, RobotsPolicy
from apertus_jax.corpus.robots.path_encoding import canonical_path, canonical_pattern, octets_of
from tests.corpus.robots.test_robots_matcher import brute_force_allows

GROUP = b"User-agent: *\n"


def allows(rules: str, path: str) -> bool:
    text = GROUP.decode() + "".join(f"{line.strip()}\n" for line in rules.split(";;"))
    return RobotsPolicy.parse(text).allows("GPTBot", "https://h.example" + path)


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("Disallow: / ;; Allow: /*2", "/a(b", False),  # %28 holds a 2 that nobody wrote
        ("Disallow: /*A", "/a:b", True),  # and %3A an A
        ("Disallow: /*A", "/aAb", False),
        ("Disallow: /*3A", "/a:b", True),
        ("Disallow: /*%3A", "/a:b", False),
        ("Disallow: /*%3a", "/a%3Ab", False),
        ("Disallow: /*:", "/a%3ab", False),
        ("Disallow: /*F", "/a%2Fb", True),
        ("Disallow: /*2F", "/a%2Fb", True),
        ("Disallow: /*C3", "/ü", True),
        ("Disallow: /*BC$", "/ü", True),
        ("Disallow: /*%BC$", "/ü", False),  # a single octet of a character is an octet all the same
        ("Disallow: /a%2", "/a%2Fb", True),  # half an escape is a percent sign
        ("Disallow: /a%2", "/a%252", False),
        ("Disallow: /a%zz", "/a%25zz", False),
        ("Disallow: /a%zz", "/a%zz", False),
        ("Disallow: /a%", "/a%25", False),
        ("Disallow: /a%", "/a%2F", True),
        ("Disallow: /a%*41", "/aA", True),
        ("Disallow: /*5zz", "/a%zz", True),
        ("Disallow: /%2a", "/*", False),
        ("Disallow: /%2A", "/x", True),
        ("Disallow: /*$", "/anything", False),
        ("Disallow: /a$b", "/a%24b", False),
        ("Disallow: /*4b", "/a$b", True),
        ("Disallow: /a%24$", "/a$", False),
        ("Disallow: /a%24$", "/a$b", True),
        ("Disallow: /caf%E9", "/caf%e9", False),  # latin-1, no UTF-8
        ("Disallow: /caf%E9", "/café", True),
        ("Disallow: /*;sid=", "/a;sid=1", False),
        ("Disallow: /*;sid=", "/a%3Bsid=1", False),
        ("Disallow: /*B", "/a;sid=1", True),
        ("Disallow: /*?u=%2F", "/a?u=/b", False),
        ("Disallow: /*2Fb", "/a?u=%2Fb", True),
        ("Allow: /*%28 ;; Disallow: /aa", "/aa(", True),  # octets: 5 against 3
        ("Allow: /*( ;; Disallow: /aaa", "/aaa(", True),  # and 5 against 4: an escape has three octets
        ("Allow: /*( ;; Disallow: /aaaaa", "/aaaaa(", False),
    ],
)
def test_an_escape_is_one_character_that_nothing_enters(rules, path, allowed):
    assert allows(rules, path) is allowed


def test_matcher_equals_brute_force_on_every_short_rule():
    pieces = ("*", "2", "8", "(", "%28", "%", "a")
    paths = ["/" + "".join(path) for size in range(4) for path in itertools.product(pieces, repeat=size)]
    rules = ["/" + "".join(rule) + end for size in range(1, 4) for rule in itertools.product(pieces, repeat=size)
             for end in ("", "$")]  # fmt: skip
    for rule in rules[::3]:
        policy = RobotsPolicy.parse(f"User-agent: *\nDisallow: {rule}\n")
        for path in paths[::7]:
            assert policy.allows("x", path) is brute_force_allows([(False, rule)], path), (rule, path)


def test_octets_are_those_of_the_written_escape():
    for octet in range(256):
        written = f"/%{octet:02X}"
        pattern = canonical_pattern(written.encode())
        assert pattern == canonical_pattern(written.lower().encode()) == canonical_path(written)
        plain = chr(octet).isascii() and (chr(octet).isalnum() or chr(octet) in "-._~=&")
        assert len(pattern) == 2 and octets_of(pattern) == (2 if plain else 4)


def test_the_longest_line_is_that_of_googles_parser():
    for length, whole in ((16_663, True), (16_664, False)):
        rule = b"Disallow: /" + b"a" * (length - len(b"Disallow: /"))
        policy = RobotsPolicy.parse(GROUP + rule[:-1] + b"$" + b"\n")
        assert not policy.allows("x", "/" + "a" * (length - 12))
        assert policy.allows("x", "/" + "a" * (length - 11)) is whole  # the anchor was read or cut off


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + GROUP + b"Disallow: /",
        b"\xef\xbb" + GROUP + b"Disallow: /",  # Google's parser passes over any beginning of a mark
        b"\xef" + GROUP + b"Disallow: /",
        GROUP.replace(b"\n", b"\r") + b"Disallow: /\r",
        GROUP.replace(b"\n", b"\r\r\n") + b"Disallow: /\r\n",
        GROUP + b"Disallow: /\x00private",  # a C string ends there
        GROUP + b"\x00\x00Disallow: /",
        b"\x00" + GROUP + b"\x00Disallow: /\x00\n",
        GROUP + b"Disallow: /\x0b",
        GROUP + b"Disallow: / \t# \x00",
        GROUP + b"Disallow: /" + b" " * 20_000,
        GROUP + b"#" * 100_000 + b"\nDisallow: /",
        GROUP + b"\xff\xfe: \x80\nDisallow: /",
    ],
)
def test_odd_octets_hide_no_refusal(body):
    verdict = RobotsPolicy.parse(body).verdict(("GPTBot",), "https://h.example/page")
    assert not verdict.allowed and verdict.rule == "Disallow: /"


@pytest.mark.parametrize(("length", "end"), [(-1, b""), (0, b""), (0, b"\n"), (0, b"\r\nDisallow: /b"), (1, b"")])
def test_a_line_that_ends_at_the_limit_is_whole(length, end):
    rule = b"\nDisallow: /a"
    body = GROUP + b"#" * (BODY_LIMIT + length - len(GROUP) - len(rule)) + rule + end
    policy = RobotsPolicy.parse(body)
    assert policy.truncated is (len(body) > BODY_LIMIT)
    assert policy.allows("x", "/ab") is (length > 0)  # half a line is no rule
    assert policy.allows("x", "/b")
