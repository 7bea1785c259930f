"""Crawler agent sets: versioned lists in whose name documents are checked."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from importlib import resources
from pathlib import Path

from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import parse_json

_FOLDER = resources.files("apertus_jax.corpus.robots") / "agent_sets"


@dataclasses.dataclass(frozen=True, slots=True)
class AgentSet:
    """Agents in a fixed order; `digest` is the SHA-256 of name, version and agents as canonical JSON."""

    name: str
    version: str
    agents: tuple[str, ...]
    digest: str


def agent_set_names() -> list[str]:
    """Returns the names of the sets that come with the package."""
    return sorted(entry.name.removesuffix(".json") for entry in _FOLDER.iterdir() if entry.name.endswith(".json"))


@functools.cache
def agent_set(name: str) -> AgentSet:
    """Returns a set by its name, or from a JSON file of your own with `name`, `version` and `agents` (a path to .json).

    Raises UserError where there is no such set or the file does not hold one.
    """
    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"agent set {name}: no such file")
        return _read(path.read_text(encoding="utf-8"), name)
    if name not in agent_set_names():
        raise UserError(
            f"agent set {name!r}: unknown; choose one of {', '.join(agent_set_names())} or give a .json file"
        )
    return _read((_FOLDER / f"{name}.json").read_text(encoding="utf-8"), name)


def _read(text: str, where: str) -> AgentSet:
    fields = parse_json(text, f"agent set {where}")
    agents = fields.get("agents") if isinstance(fields, dict) else None
    if not isinstance(agents, list) or not agents or not all(isinstance(a, str) and a.strip() for a in agents):
        raise UserError(f"agent set {where}: needs `agents`, a list of names that is not empty")
    if not all(isinstance(fields.get(key), str) and fields[key] for key in ("name", "version")):
        raise UserError(f"agent set {where}: needs `name` and `version` as text")
    if len(set(agents)) != len(agents):
        raise UserError(f"agent set {where}: an agent is listed twice; list each once")
    identity = {"name": fields["name"], "version": fields["version"], "agents": agents}
    canonical = json.dumps(identity, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode("utf-8")).hexdigest()
    return AgentSet(fields["name"], fields["version"], tuple(agents), digest)
