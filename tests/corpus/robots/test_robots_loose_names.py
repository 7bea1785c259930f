"""Agents and fields that are written in ways of their own: a refusal is heard, a permission opens nothing by them."""

import pytest
from protego import Protego

from apertus_jax.corpus.robots import RobotsPolicy, agent_set
from tests.processor_time import assert_bounded

AGENTS = tuple(agent_set("apertus-2025-01").agents)
CLOSED = "\nDisallow: /\n"


def is_refused(text, agents=("GPTBot",), path="/a"):
    policy = RobotsPolicy.parse(text)
    verdict = policy.verdict(agents, path)
    assert verdict.allowed is all(policy.allows(agent, path) for agent in agents)
    assert len(set(verdict.refusing_agents)) == len(verdict.refusing_agents)
    return not verdict.allowed


@pytest.mark.parametrize(
    "name",
    ["GPT*", "gptbot*", "*GPTBot*", "G*T*B*t", '"GPTBot"', "'GPTBot'", "<GPTBot>", "[GPTBot]", "Googlebot, GPTBot"]
    + [
        "GPTBot, CCBot",
        "CCBot; GPTBot/1.1",
        "CCBot|GPTBot",
        "\u200bGPTBot",
        "\u00a0GPTBot",
        "\ufeffGPTBot",
        "GPTBot\u200b",
    ]
    + ["Mozilla/5.0 (compatible; GPTBot/1.0)", "**", "*;", "*bot", "*PTBot", "Googlebot GPTBot", "Googlebot & GPTBot"]
    + ["\uff27\uff30\uff34\uff22\uff4f\uff54", "G\u0420TBot", "\uff0a"],
)
def test_an_agent_is_known_however_it_is_named(name):
    assert is_refused(f"User-agent: {name}{CLOSED}")
    assert is_refused(f"User-agent: *\nAllow: /\n\nUser-agent: {name}{CLOSED}")


@pytest.mark.parametrize(
    "name", ["GPT", "GP*X", "*bots", "GPTBot-User", "foo, CCBot", "xGPT*", '"GPT"', "GPT-*", "all"]
)
def test_another_name_is_not_taken_for_an_agent(name):
    assert not is_refused(f"User-agent: {name}{CLOSED}")


def test_wildcards_in_names_are_read_as_protego_reads_them():
    for name in ("GPT*", "*GPTBot*", "GPTBot*", "GP*X", "CC*"):
        text = f"User-agent: {name}{CLOSED}"
        assert is_refused(text) is not Protego.parse(text).can_fetch("https://host.example/a", "GPTBot"), name


@pytest.mark.parametrize("name", ["GPT*", '"GPTBot"', "Googlebot, GPTBot"])
def test_a_loose_name_takes_no_refusal_back(name):
    for refusing in ("*", "GPTBot"):
        for order in (0, 1):
            groups = [f"User-agent: {refusing}{CLOSED}", f"User-agent: {name}\nAllow: /\n"]
            assert is_refused("\n".join(groups[::-1] if order else groups))


def test_a_group_of_its_own_comes_before_a_loose_name():
    assert not is_refused(f"User-agent: *bot*{CLOSED}\nUser-agent: GPTBot\nAllow: /\n")


@pytest.mark.parametrize(
    "text",
    ["User-agents: *\nDisallow: /", "User_agent: *\nDisallow: /", "User-agent: *\nDisallowed: /"]
    + ["User-agent: *\nDisallows: /", "User-agent(s): GPTBot\nUser-agent: *\nDisallow: /"]
    + [
        "# one\n\ufeffUser-agent: *\nDisallow: /",
        "User-agent: *\n\u200bDisallow: /",
        "User-agent: *\n\u00a0Disallow: /",
    ]
    + ["User-agent: *\nDisallow:\u00a0/", "User-agent: *\nDisallow: \u200b/", "User-agent: *\n\u3000Disallow: /"],
)
def test_a_field_is_known_however_it_is_written(text):
    assert is_refused(text, AGENTS)


def test_other_fields_are_not_taken_for_rules():
    for field in ("Disallow-not-at-all-but-something-long-enough", "Allowance", "Allow-all", "User", "Dis"):
        assert not is_refused(f"User-agent: *\n{field}: /")
    assert is_refused(f"User-agent: *{CLOSED}Allow-crawling: /a")


def test_signals_in_loosely_named_groups_are_heard():
    policy = RobotsPolicy.parse("User-agent: GPT*\nContent-Signal: ai-train=no\n\nUser-agent: *\nContent-Signal: x=y\n")
    assert [record.value for record in policy.group_records("GPTBot", "content-signal")] == ["ai-train=no", "x=y"]


MANY_NAMES = "".join(f"User-agent: a{number}*b*c\n" for number in range(30_000)) + "Disallow: /\n"


def test_many_loose_names_of_others_refuse_nobody():
    assert not is_refused(MANY_NAMES, tuple(agent_set("wide").agents))


@pytest.mark.timed
def test_time_stays_bounded_with_many_loose_names():
    assert_bounded(lambda: is_refused(MANY_NAMES, tuple(agent_set("wide").agents)), 3)
