"""Refusals that no parser hears: read as what they mean where that can be told, else the file is not understood."""

import pytest

from apertus_jax.corpus.robots import RobotsPolicy, agent_set
from apertus_jax.corpus.robots.body_text import utf8_body
from apertus_jax.corpus.robots_snapshot.responses import RobotsRecord
from apertus_jax.corpus.robots_snapshot.scoring import RobotsRule
from apertus_jax.corpus.robots_snapshot.states import robots_state

AGENTS = tuple(agent_set("apertus-2025-01").agents)
ALL = "User-agent: *\n"


def state_of(body: str | bytes) -> str:
    octets = body.encode() if isinstance(body, str) else body
    return robots_state(RobotsRecord("host.example", "https", 0, 200, (), "", octets, False, ""))


def is_refused(body: str | bytes, path="/x/private/page.html") -> bool:
    octets = utf8_body(body.encode() if isinstance(body, str) else body)[0]
    return not RobotsPolicy.parse(octets).verdict(AGENTS, f"https://host.example{path}").allowed


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\v", "\f", "\\n", "\\r\\n", "<br>", "<BR />"])
def test_every_end_of_a_line_ends_a_rule(end):
    assert is_refused(f"User-agent: *{end}Disallow: /{end}")
    assert is_refused(f"User-agent: *{end}Allow: /b{end}Disallow: /x{end}Sitemap: /s")
    assert not is_refused(f"User-agent: *{end}Disallow: /y{end}")


def test_a_backslash_in_a_path_ends_no_line():
    assert not is_refused(ALL + "Disallow: /x\\new")
    assert is_refused(ALL + "Disallow: /x\\new", "/x\\new")


@pytest.mark.parametrize(
    "value",
    [
        "https://host.example/x/",
        "HTTP://host.example/x/private/*",
        '"/"',
        "'/x/'",
        "</>",
        "(/x/)",
        "^/x/",
        "./",
        "\\",
        "%2F",
    ]
    + ["/, /y", "/y /x", "/y, /x/", "/ all", "/ // all", "all", "\uff0f", "/\ttdm", "/ User-agent: x"],
)
def test_a_path_is_known_however_it_is_named(value):
    assert is_refused(ALL + f"Disallow: {value}")
    assert not is_refused(ALL + f"Allow: {value}\nDisallow: /y2"), "a permission is read as it stands"


@pytest.mark.parametrize(
    "value", ["https://buy.host.example/", "/products;", "*;", "/* */y", "/ *&o= *", "/en gb/", "//x"]
)
def test_another_path_closes_nothing_beyond_itself(value):
    assert not is_refused(ALL + f"Disallow: {value}")


UNHEARD = [
    *("Disallow: /", "User-agent:\nDisallow: /", "User-agent: %2A\nDisallow: /", "User-agent: * Disallow: /"),
    *("\uff35ser-agent\uff1a*\nDisallow\uff1a/", ALL + "Disallow\uff1a/", ALL + "Disallow = /", ALL + "Disallow; /"),
    *(
        "User-agent=*\nDisallow=/",
        ALL + "Disallow / all",
        ALL + "Dis-allow: /",
        ALL + "Dis allow: /",
        ALL + "Disalllow: /",
    ),
    *(ALL + "Disallo: /", ALL + "Diallow: /", ALL + "isallow: /", ALL + "Dis\u0430llow: /", ALL + "Deny: /"),
    *("User-agnet: *\nDisallow: /", "User\u2013agent: *\nDisallow: /", "Us\u0435r-agent: *\nDisallow: /"),
    *(
        "Agent: *\nDisallow: /",
        "- User-agent: *\n- Disallow: /",
        "User-agent: all\nDisallow: /",
        "User-agent: AI\nDisallow: /",
    ),
    *(ALL + "Disallow: https://www.host.example/", ALL + "Disallow: http://HOST.example"),
    *(
        ALL + "NoAI: /",
        ALL + "Disallow AI training in any form whatsoever: /",
        ALL + "AI-Train: no",
        "TDM-Reservation: 1",
        "ai_train=no",
    ),
    *(ALL + "Content\uff0dSignal: ai-train=no", "Content-Signal\uff1a ai-train=no", "Usage-Preferences: train-ai=n"),
    b"\x84\x31\x95\x33User-agent: *\nDisallow: /",  # the byte order mark of GB 18030
]


@pytest.mark.parametrize("body", UNHEARD)
def test_a_refusal_that_nobody_hears_is_not_understood(body):
    state = state_of(body)
    row = {"robots_verdict": "unknown", "robots_state": state}
    assert state == "malformed"
    assert RobotsRule("strict").verdict(row, {}) is not None
    assert RobotsRule("apertus").verdict(row, {}) is None


@pytest.mark.parametrize(
    "body",
    [
        *("", "# Disallow: /", ALL, ALL + "Disallow:", "User-agent: x\nDisallow: /", "Sitemap: https://host.example/s"),
        *(ALL + "Allow: /\nCrawl-delay: 5\nHost: host.example", ALL + "Noindex: /a", "User-agent: all\nAllow: /"),
        *(ALL + "Display: none", "Allow: /a\n" + ALL, ALL + "Content-Signal: ai-train=yes", ALL + "Request-rate: 1/5"),
        *(
            ALL + "AI-Train: yes",
            ALL + "TDM-Reservation: 0",
            ALL + "Content-Signal: ai-train=no",
            "Content-Usage: train-ai=n",
        ),
        *(ALL + "Allowance: /", ALL + "Disallow: https://shop.host.example/"),
    ],
)
def test_a_file_without_a_hidden_refusal_is_understood(body):
    assert state_of(body) == "found"


def test_a_field_about_training_is_read_as_disallow():
    assert is_refused(ALL + "DisallowAITraining: /")


def test_the_evidence_of_a_read_path_is_the_line():
    verdict = RobotsPolicy.parse(ALL + "Disallow: https://host.example/x").verdict(AGENTS, "https://host.example/x")
    assert (verdict.rule, verdict.line) == ("Disallow: https://host.example/x", 2)
