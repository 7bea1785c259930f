"""How fast personal data is found and replaced, beside datatrove's formatter at equal kinds.

    python experiments/benchmarks/corpus_personal_data.py --megabytes 20

Text: the bundled corpus (`apertus_jax.corpus.bundled`, about 750 languages and two English books), with e-mail
addresses, public and private IP addresses planted between words at a rate per megabyte that `--planted` sets. Both
sides see the same documents, one at a time, on one core. Equal kinds means e-mail and public IPv4 addresses; ours also
looks for IPv6 there. The first table takes turns (peer, ours, peer) and gives medians. What each side found is counted
against what was planted.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from apertus_jax.corpus.bundled import bundled_documents
from apertus_jax.corpus.personal_data import KINDS, PersonalDataPolicy, rewrite

EQUAL_KINDS = ("email", "ip")
POLICIES = {
    "e-mail and IP": PersonalDataPolicy(kinds=EQUAL_KINDS),
    "strict, default kinds": PersonalDataPolicy(),
    "strict, all kinds": PersonalDataPolicy(kinds=KINDS),
    "apertus mode": PersonalDataPolicy("apertus"),
}
TARGET_MEGABYTES_PER_SECOND = 20
TARGET_RATIO = 2
DOMAINS = ("example.org", "mail.example.com", "post.example.ch", "uni.example.ac.uk")


def planted_documents(megabytes: float, planted_per_megabyte: float, seed: int) -> tuple[list[str], list[str]]:
    """Returns about so many megabytes of documents (the bundled corpus, repeated), and the personal values in them."""
    generator = random.Random(seed)
    bundled = [document.text for document in bundled_documents()]
    documents: list[str] = []
    values: list[str] = []
    size, due = 0, 0.0
    while size < megabytes * 1e6:
        text = bundled[len(documents) % len(bundled)]
        length = len(text.encode())
        size += length
        due += length * planted_per_megabyte / 1e6
        words = text.split(" ")
        while due >= 1:
            due -= 1
            value, is_personal = planted_value(generator)
            words.insert(generator.randrange(len(words) + 1), value)
            if is_personal:
                values.append(value)
        documents.append(" ".join(words))
    return documents, values


def planted_value(generator: random.Random) -> tuple[str, bool]:
    """Returns an e-mail address (three in four), a public or a private address, and whether it is personal."""
    if generator.random() < 0.75:
        name = "".join(generator.choice("abcdefghijklmnopqrstuvwxyz.") for _ in range(8)).strip(".").replace("..", ".")
        return f"{name}x@{generator.choice(DOMAINS)}", True
    if generator.random() < 0.5:
        return f"192.168.{generator.randrange(256)}.{generator.randrange(256)}", False
    return f"84.{generator.randrange(256)}.{generator.randrange(256)}.{generator.randrange(1, 255)}", True


def seconds(function: Callable[[str], object], documents: Sequence[str]) -> float:
    """Returns the processor time that a function takes for all documents."""
    started = time.process_time()
    for text in documents:
        function(text)
    return time.process_time() - started


def missed(function: Callable[[str], str], documents: Sequence[str], values: Sequence[str]) -> int:
    """Returns how many of the planted values stand in the results."""
    left = set(" ".join(map(function, documents)).split(" "))
    return sum(value in left for value in values)


def measure(megabytes: float, planted: float, repetitions: int, seed: int) -> dict[str, object]:
    """Returns all figures as JSON."""
    from datatrove.pipeline.formatters import PIIFormatter

    documents, values = planted_documents(megabytes, planted, seed)
    size = sum(len(text.encode()) for text in documents) / 1e6
    peer = PIIFormatter()
    ours = POLICIES["e-mail and IP"]
    rates: dict[str, list[float]] = {"datatrove": [], **{name: [] for name in POLICIES}}
    ratios = []
    for _ in range(repetitions):
        before = seconds(peer.format, documents)
        own = seconds(lambda text: rewrite(text, ours), documents)
        after = seconds(peer.format, documents)
        rates["datatrove"] += [size / before, size / after]
        rates["e-mail and IP"].append(size / own)
        ratios.append((before + after) / 2 / own)
    for name, policy in list(POLICIES.items())[1:]:
        times = [seconds(lambda text, policy=policy: rewrite(text, policy), documents) for _ in range(repetitions)]
        rates[name] = [size / one for one in times]
    return {
        "megabytes": round(size, 1),
        "documents": len(documents),
        "planted": len(values),
        "planted_per_megabyte": planted,
        "megabytes_per_second": {name: round(statistics.median(each), 1) for name, each in rates.items()},
        "ratio_to_datatrove": round(statistics.median(ratios), 2),
        "missed": {
            "datatrove": missed(peer.format, documents, values),
            "e-mail and IP": missed(lambda text: rewrite(text, ours).text, documents, values),
        },
        "private_addresses_replaced": {
            "datatrove": private(documents) - private(map(peer.format, documents)),
            "e-mail and IP": private(documents) - private(rewrite(text, ours).text for text in documents),
        },
    }


def private(texts: Sequence[str] | map) -> int:
    """Returns how many of the planted private addresses stand in texts."""
    return sum(len(re.findall(r"192\.168\.[0-9]+\.[0-9]+", text)) for text in texts)


def main() -> None:
    """Measures, prints one table, and writes JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--planted", type=float, default=200, help="values per megabyte of text")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    figures = measure(arguments.megabytes, arguments.planted, arguments.repetitions, arguments.seed)
    table = Table(
        title=f"Personal data: {figures['megabytes']} MB in {figures['documents']} documents, "
        f"{figures['planted']} values planted, one core, medians of {arguments.repetitions}"
    )
    for column in ("what", "MB/s", "planted values missed", "private addresses replaced"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, rate in figures["megabytes_per_second"].items():
        label = "datatrove 0.10, e-mail and IP" if name == "datatrove" else f"ours, {name}"
        missing = figures["missed"].get(name, "")
        table.add_row(label, f"{rate:.1f}", str(missing), str(figures["private_addresses_replaced"].get(name, "")))
    console = Console()
    console.print(table)
    rate = figures["megabytes_per_second"]["strict, default kinds"]
    console.print(
        f"At equal kinds {figures['ratio_to_datatrove']:.1f} times datatrove (target {TARGET_RATIO}); "
        f"all default kinds at {rate:.0f} MB/s per core (target {TARGET_MEGABYTES_PER_SECOND})"
    )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
