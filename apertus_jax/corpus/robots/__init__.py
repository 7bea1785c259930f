"""robots.txt with hindsight: may an agent fetch a URL, by RFC 9309 or as Protego reads it, and by which line."""

from apertus_jax.corpus.robots.agents import AgentSet, agent_set, agent_set_names
from apertus_jax.corpus.robots.policy import MODES, RobotsPolicy, RobotsVerdict, parser_version
from apertus_jax.corpus.robots.robots_file import BODY_LIMIT, Record

__all__ = [
    "BODY_LIMIT",
    "MODES",
    "AgentSet",
    "Record",
    "RobotsPolicy",
    "RobotsVerdict",
    "agent_set",
    "agent_set_names",
    "parser_version",
]
