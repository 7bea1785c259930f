"""How many documents a second one core can ask robots.txt about, for all agents of a set, beside Protego.

    python experiments/benchmarks/corpus_robots.py --urls_per_host 20 --json robots.json

Reads the 4,231 real files of Protego's source distribution (`make install-dev` unpacks them), makes URLs for each host
(articles, searches, and some from the file's own rules), and asks both libraries whether each agent may fetch each
URL. `cached` is the rate with every file parsed and asked before, `from the body` includes parsing each file once. The
two take turns and medians are printed; time is the processor's.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from protego import Protego
from rich.console import Console
from rich.table import Table

from apertus_jax.corpus.robots import RobotsPolicy, agent_set, parser_version

FILES = Path(sys.prefix) / "share" / "protego-0.7.0" / "tests" / "test_data"
WORDS = ("news", "article", "archive", "image", "product", "about", "tag", "café", "category", "2019", "11", "index")

Hosts = list[tuple[bytes, list[str]]]


def made_url(generator: random.Random, rules: list[str]) -> str:
    """Returns one URL: a third from the host's rules where it has any, the rest articles, a tenth with a query."""
    if rules and generator.random() < 1 / 3:
        return "https://host.example" + generator.choice(rules).strip().rstrip("$").replace("*", "x")
    path = "/".join(generator.choices(WORDS, k=generator.randint(1, 5)))
    query = f"?id={generator.randint(1, 10**6)}&lang=de" if generator.random() < 0.1 else ""
    return f"https://host.example/{path}/{generator.randint(1, 10**6)}.html{query}"


def read_hosts(urls_per_host: int, seed: int) -> Hosts:
    """Returns each file's body with URLs for it."""
    generator = random.Random(seed)
    hosts = []
    for file in sorted(FILES.iterdir()):
        body = file.read_bytes()
        rules = re.findall(r"(?im)^\s*(?:dis)?allow\s*:[ \t]*(/[^\r\n#]*)", body.decode("utf-8", "replace"))
        hosts.append((body, [made_url(generator, rules) for _ in range(urls_per_host)]))
    return hosts


def parse_ours(body: bytes) -> RobotsPolicy:
    return RobotsPolicy.parse(body)


def parse_protego(body: bytes) -> Protego:
    return Protego.parse(body.decode("utf-8", "replace"))


def ask_ours(policy: RobotsPolicy, agents: tuple[str, ...], urls: list[str]) -> int:
    """Returns how many URLs some agent may not fetch."""
    return sum([not policy.verdict(agents, url).allowed for url in urls])


def ask_protego(parser: Protego, agents: tuple[str, ...], urls: list[str]) -> int:
    """Returns how many URLs some agent may not fetch; each agent is asked, because the ledger names all that refuse."""
    return sum([bool([agent for agent in agents if not parser.can_fetch(url, agent)]) for url in urls])


SIDES: dict[str, tuple[Callable, Callable]] = {
    "apertus_jax": (parse_ours, ask_ours),
    "protego": (parse_protego, ask_protego),
}


def seconds(function: Callable[[], int]) -> float:
    """Returns the processor time of one call, which other processes on the machine do not change much."""
    started = time.process_time()
    function()
    return time.process_time() - started


def measure(hosts: Hosts, agents: tuple[str, ...], repetitions: int) -> dict[str, dict[str, float]]:
    """Returns medians for each side: documents a second cached and from the body, files parsed a second, refusals."""
    documents = sum(len(urls) for _, urls in hosts)
    parsed = {name: [parse(body) for body, _ in hosts] for name, (parse, _) in SIDES.items()}

    def cached(name: str) -> int:
        ask = SIDES[name][1]
        return sum(ask(parser, agents, urls) for parser, (_, urls) in zip(parsed[name], hosts, strict=True))

    def from_body(name: str) -> int:
        parse, ask = SIDES[name]
        return sum(ask(parse(body), agents, urls) for body, urls in hosts)

    def parse_only(name: str) -> int:
        return sum(SIDES[name][0](body) is not None for body, _ in hosts)

    times: dict[str, dict[str, list[float]]] = {name: {"cached": [], "body": [], "parse": []} for name in SIDES}
    refused = {name: cached(name) for name in SIDES}
    for _ in range(repetitions):
        for kind, function in (("cached", cached), ("body", from_body), ("parse", parse_only)):
            for name in SIDES:
                times[name][kind].append(seconds(lambda function=function, name=name: function(name)))
    return {
        name: {
            "documents_per_second_cached": documents / statistics.median(of_side["cached"]),
            "documents_per_second_from_body": documents / statistics.median(of_side["body"]),
            "files_parsed_per_second": len(hosts) / statistics.median(of_side["parse"]),
            "share_refused": refused[name] / documents,
        }
        for name, of_side in times.items()
    }


def main() -> None:
    """Measures both sides and prints one table; with --json writes the figures too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--urls_per_host", type=int, default=20)
    parser.add_argument("--agents", default="apertus-2025-01", help="name of an agent set or a .json file")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    if not FILES.is_dir():
        parser.error(f"{FILES} is missing: run `make install-dev`")
    agents = agent_set(arguments.agents).agents
    hosts = read_hosts(arguments.urls_per_host, arguments.seed)
    figures = measure(hosts, agents, arguments.repetitions)
    table = Table(
        title=f"robots.txt: {len(agents)} agents, {len(hosts)} hosts x {arguments.urls_per_host} URLs, one core"
    )
    for column in ("", "cached, documents/s", "from the body, documents/s", "parsing, files/s", "refused"):
        table.add_column(column, justify="right" if column else "left")
    versions = {"apertus_jax": parser_version("rfc9309"), "protego": parser_version("protego")}
    for name, row in figures.items():
        rates = (f"{row[key]:,.0f}" for key in list(row)[:3])
        table.add_row(versions[name], *rates, f"{row['share_refused']:.2%}")
    ours, theirs = figures["apertus_jax"], figures["protego"]
    table.add_row("ratio", *(f"{ours[key] / theirs[key]:.1f} x" for key in list(ours)[:3]), "")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"agents": arguments.agents, "versions": versions, **figures}, indent=2))


if __name__ == "__main__":
    main()
