"""What the output filter catches by mistake in ordinary text, what it misses, and what it costs.

    python experiments/benchmarks/output_filter.py
    python experiments/benchmarks/output_filter.py --listed 0.5 --ngram_size 6 --stride 1

Listed: a share of the bundled corpus (`apertus_jax.corpus.bundled`, texts in about 750 languages and an English book,
the King James Bible), drawn by document, and names and telephone numbers that were made up. Ordinary text: all other
documents, and the second book, the American Standard Version: a near duplicate of the first, so that most of what is
found in it is there, word for word. Because the exact list is asked after the Bloom filter, every n-gram that is found
stands in a listed text too; a mistake is that the ordinary text has it from elsewhere (a common phrase, a quotation).
Strings are counted with a cheap hash in the place of the slow one, which changes no count and saves an hour; what the
slow one costs is the last figure, for text that nobody has filtered before.

Misses: listed texts in other case, form, spacing and with zero-width characters, cut at random; there should be none.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from apertus_jax.corpus.bundled import BOOK_PACKAGES, LANGUAGES_PACKAGE, book_documents, language_documents
from apertus_jax.release.output_filter import FilterRates, NgramPlan, OutputFilter, build_output_filter, new_signing_key
from apertus_jax.release.output_filter.output_filter_command import count_in_texts
from apertus_jax.release.output_filter.words import words_of

DATE = "2026-11-24"
FIRST_NAMES = ("Ada", "Bruno", "Clara", "Dario", "Elena", "Fritz", "Giulia", "Hassan", "Ines", "Katya", "Luca", "Zoë")
LAST_NAMES = ("Aebischer", "Bianchi", "Cadalbert", "Dupont", "Egli", "Gujer", "Huonder", "Ivanova", "Lüthi", "Öztürk")


def spelled(generator: random.Random, text: str) -> str:
    """Returns another spelling of a text: case, normal form, white space, zero-width characters."""
    text = generator.choice([str.upper, str.lower, str.title, str])(unicodedata.normalize("NFC", text))
    text = unicodedata.normalize(generator.choice(["NFC", "NFD"]), text)
    spaces = [" ", "  ", "\n", "\u00a0"]
    pieces = (generator.choice(spaces) if character.isspace() else character for character in text)
    return "".join(piece + ("\u200b" if generator.random() < 0.02 else "") for piece in pieces)


def made_up_strings(generator: random.Random, count: int) -> list[str]:
    """Returns names and telephone numbers of nobody, half of each."""
    numbers = [f"+41 7{generator.randrange(10)} {generator.randrange(10**7):07d}" for _ in range(count // 2)]
    return numbers + [
        f"{generator.choice(FIRST_NAMES)} {generator.choice(FIRST_NAMES)} {generator.choice(LAST_NAMES)}"
        for _ in range(count - count // 2)
    ]


def count_misses(applied: OutputFilter, texts: Sequence[str], generator: random.Random) -> int:
    """Returns how many listed texts, spelled otherwise and cut at random, give no occurrence."""
    misses = 0
    for text in texts:
        text = f"x {spelled(generator, text)}. y"
        stream, start = applied.open(), 0
        while start < len(text):
            size = generator.randint(1, 12)
            stream.feed(text[start : start + size])
            start += size
        stream.finish()
        misses += not sum(stream.report()["matches"].values())
    return misses


def words_per_second(applied: OutputFilter, texts: Sequence[str]) -> float:
    """Returns how many words of English go through the filter in a second, one text at a time."""
    words, started = sum(len(words_of(text)) for text in texts), time.perf_counter()
    for text in texts:
        stream = applied.open()
        stream.feed(text)
        stream.finish()
    return words / (time.perf_counter() - started)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Builds one filter and returns all figures."""
    generator = random.Random(options.seed)
    languages = [document.text for document in language_documents()]
    books = {name: [document.text for document in book_documents(name)] for name in BOOK_PACKAGES}
    first_book, second_book = books.values()
    drawn = {text: generator.random() < options.listed for text in languages + first_book}
    listed = [text for text, is_listed in drawn.items() if is_listed]
    strings = made_up_strings(generator, options.strings)
    rows = [{"text": text} for text in listed] + [{"string": string} for string in strings]
    (folder / "listed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    public_key = new_signing_key(folder / "key.pem", folder / "key.pub.pem")
    seconds = {}
    for name, rates in (("filter", FilterRates()), ("cheap", FilterRates(scrypt_n=2))):
        started = time.perf_counter()
        summary = build_output_filter(
            str(folder / "listed.jsonl"),
            folder / name,
            str(folder / "key.pem"),
            DATE,
            ngrams=NgramPlan((options.ngram_size,), (options.unspaced_ngram_size,), options.stride),
            rates=rates,
        )
        seconds[name] = time.perf_counter() - started
    slow, applied = (OutputFilter(str(folder / name), public_key, today=DATE) for name in ("filter", "cheap"))
    ordinary = {
        f"{LANGUAGES_PACKAGE}, not listed": [text for text in languages if not drawn[text]],
        f"{BOOK_PACKAGES[0]}, not listed": [text for text in first_book if not drawn[text]],
        f"{BOOK_PACKAGES[1]} (near duplicate)": second_book,
    }
    protected_texts = [text for text in listed if len(text) > 200]
    return {
        "summary": summary,
        "file_bytes": (folder / "filter" / "output_filter.bin").stat().st_size,
        "build_seconds": seconds["filter"],
        "ordinary": {name: count_in_texts(applied.protected, texts) for name, texts in ordinary.items()},
        "tried": len(protected_texts) + len(strings),
        "misses": count_misses(applied, protected_texts + strings, generator),
        "cheap_words_per_second": words_per_second(applied, second_book[:200]),
        "words_per_second": words_per_second(slow, second_book[:10]),
    }


def main() -> None:
    """Prints the figures, and writes them as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listed", type=float, default=0.1, help="share of documents that are listed")
    parser.add_argument("--strings", type=int, default=100)
    parser.add_argument("--ngram_size", type=int, default=8)
    parser.add_argument("--unspaced_ngram_size", type=int, default=20)
    parser.add_argument("--stride", type=int, default=0, help="0 puts n-grams side by side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file to write the figures to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    summary, console = result["summary"], Console()
    console.print(
        f"{summary['ngrams']:,} n-grams and {summary['strings']:,} strings in {result['file_bytes']:,} bytes, built in "
        f"{result['build_seconds']:.1f} s; Bloom filter lets {summary['bloom_rate_measured']:.2e} pass "
        f"(designed {summary['bloom_rate_designed']:.0e})"
    )
    console.print(
        f"misses: {result['misses']} of {result['tried']:,}; {result['words_per_second']:,.0f} words a second,"
        f" {result['cheap_words_per_second']:,.0f} without the slow hash"
    )
    table = Table("ordinary text", "texts", "words", "n-grams found", "per million words", "strings found")
    for name, counts in result["ordinary"].items():
        rate = 1e6 * counts["passages"] / max(counts["words"], 1)
        numbers = (counts["texts"], counts["words"], counts["passages"], rate, counts["strings"])
        table.add_row(name, *(f"{number:,.0f}" for number in numbers))
    console.print(table)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
