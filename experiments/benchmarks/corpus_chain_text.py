"""The texts of the corpus benchmark: a Debian package in 42 languages, and tiny made-up documents for memory."""

from __future__ import annotations

import dataclasses
import itertools
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pyarrow
import pyarrow.parquet
from corpus_robots import FILES, parse_ours

from apertus_jax.corpus.robots import agent_set

PACKAGE = "gnome-user-docs"
AGENTS = "apertus-2025-01"
MALLARD = "{http://projectmallard.org/1.0/}"
# Elements of Mallard that are a line of text of their own; what is inside a line stays in it.
LINES = frozenset(MALLARD + tag for tag in ("title", "subtitle", "desc", "p", "code", "screen", "name", "email"))
PAGES_PER_HOST = 40
ROWS_PER_GROUP = 1000
# A reader of Parquet holds the footer of the whole file, 3 kB for each row group: 29 MB for 10^4 of them.
TINY_ROWS_PER_GROUP = 10_000
SYLLABLES = ("ba", "del", "fir", "go", "hum", "kan", "lo", "mir", "nes", "por", "ris", "sta", "tol", "ven", "wal", "zu")
TINY_COPY_SHARE = 0.3


@dataclasses.dataclass(frozen=True)
class Page:
    """One page of a manual in one language."""

    language: str
    manual: str
    name: str
    text: str


def fetch_package(folder: Path) -> Path:
    """Downloads the package with apt, unpacks it, and returns the folder with one folder for each language.

    Raises:
      SystemExit: apt or dpkg is missing, or the package cannot be fetched.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SystemExit(
            f"{PACKAGE} is fetched with apt-get and dpkg-deb, which need Debian or Ubuntu; or give --pages"
        )
    fetched = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    archives = sorted(folder.glob(f"{PACKAGE}_*.deb"))
    if fetched.returncode or not archives:
        raise SystemExit(f"apt-get download {PACKAGE} failed ({fetched.stderr.strip()[-200:]}); run apt-get update")
    subprocess.run(["dpkg-deb", "-x", str(archives[0]), str(folder / "unpacked")], check=True)
    return folder / "unpacked" / "usr" / "share" / "help"


def read_pages(help_folder: Path, megabytes: float | None = None) -> list[Page]:
    """Returns the pages of all languages in one fixed order, or an even choice of about so many megabytes of them."""
    pages = []
    for path in sorted(help_folder.glob("*/*/*.page")):
        language, manual = path.parts[-3:-1]
        text = page_text(path)
        if text:
            pages.append(Page(language, manual, path.stem, text))
    if not pages:
        raise SystemExit(f"{help_folder} holds no LANGUAGE/MANUAL/*.page; give the folder usr/share/help of {PACKAGE}")
    size = sum(len(page.text.encode()) for page in pages) / 1e6
    if megabytes and megabytes < size:
        wanted = max(1, round(len(pages) * megabytes / size))
        pages = [pages[index * len(pages) // wanted] for index in range(wanted)]
    return pages


def page_text(path: Path) -> str:
    """Returns the text of a Mallard page, one line for each title, paragraph, listing or author."""
    return "\n".join(line for line in _lines(ElementTree.parse(path).getroot()) if line)


def _lines(element: ElementTree.Element) -> Iterator[str]:
    if element.tag in LINES:
        yield " ".join("".join(element.itertext()).split())
    else:
        for child in element:
            yield from _lines(child)


def write_pages(pages: Sequence[Page], path: Path) -> None:
    """Writes pages as Parquet with addresses whose robots.txt lets every agent in.

    So both sides look at every text: a page that robots.txt refuses would cost us nothing further.
    """
    hosts = allowed_hosts()
    rows = []
    for first in range(0, len(pages), PAGES_PER_HOST):
        host = next(hosts)
        for page in pages[first : first + PAGES_PER_HOST]:
            name = f"{page.manual}/{page.name}"
            rows.append({"id": f"{page.language}/{name}", "text": page.text, "url": page_url(host, name)})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=ROWS_PER_GROUP)


def page_url(host: str, name: str) -> str:
    """Returns the address of a page of a host."""
    return f"https://{host}/help/{name}.html"


def allowed_hosts() -> Iterator[str]:
    """Yields, again and again, hosts whose robots.txt lets all agents fetch pages below /help/."""
    agents = agent_set(AGENTS).agents
    allowed = []
    for file in sorted(FILES.iterdir()):
        if parse_ours(file.read_bytes()).verdict(agents, page_url(file.name, "gnome-help/index")).allowed:
            allowed.append(file.name)
            yield file.name
    yield from itertools.cycle(allowed)


def write_tiny(documents: int, path: Path, seed: int = 0) -> None:
    """Writes documents of some 100 bytes, nearly a third of them copies of earlier ones, in flat memory."""
    schema = pyarrow.schema([(name, pyarrow.string()) for name in ("id", "text", "url")])
    hosts = list(itertools.islice(allowed_hosts(), 500))
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for first in range(0, documents, TINY_ROWS_PER_GROUP):
            numbers = range(first, min(first + TINY_ROWS_PER_GROUP, documents))
            writer.write_table(pyarrow.Table.from_pylist([_tiny(number, hosts, seed) for number in numbers], schema))


def _tiny(number: int, hosts: Sequence[str], seed: int) -> dict[str, str]:
    """Returns one tiny document; what a number says never depends on the others."""
    choice = random.Random(seed << 40 | number << 1)
    is_copy = number > 0 and choice.random() < TINY_COPY_SHARE
    origin = choice.randrange(number) if is_copy else number
    words = random.Random(seed << 40 | origin << 1 | 1)
    text = " ".join("".join(words.choices(SYLLABLES, k=3)) for _ in range(14))
    if is_copy and choice.random() < 0.5:
        text += " again"  # a near copy, where the others are exact ones
    return {
        "id": str(number),
        "text": f"What is known of this: {text}.",
        "url": page_url(hosts[number // PAGES_PER_HOST % len(hosts)], str(number)),
    }


def megabytes_of(texts: Iterable[str]) -> float:
    """Returns the size of texts in UTF-8, in millions of bytes."""
    return sum(len(text.encode()) for text in texts) / 1e6
