"""Language and script scores of documents."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apertus_jax.corpus.language.models import DEFAULT_MODEL, language_and_script, load_model, model_path, predict
from apertus_jax.corpus.language.scripts import ScriptShare, detect_scripts
from apertus_jax.corpus.language_codes import language_label, scripts_of
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.scorer import Row
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.validation import fields_by_annotation

if TYPE_CHECKING:
    import pyarrow

PIECES = 4
# Raised whenever the same options and model would give another score.
VERSION = 2


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class LanguageScoring:
    """Settings of language identification.

    Attributes:
      model: `lid.176` (176 languages, from an installed package) or the path of a fastText file, such as GlotLID.
      lowest_score: labels above this are kept as alternatives.
      characters: a longer document is judged by four pieces of it, equally far apart, of this length in all.
    """

    model: str = DEFAULT_MODEL
    lowest_score: float = 0.01
    characters: int = 1024

    def __post_init__(self) -> None:
        if not 0 <= self.lowest_score < 1:
            raise UserError(f"lowest_score {self.lowest_score} must be at least 0 and below 1")
        if self.characters < 256:
            raise UserError(f"characters {self.characters} is too short to tell a language; use 256 or more")

    def build(self) -> LanguageScorer:
        """Returns the scorer.

        Raises:
          UserError: the model is missing.
        """
        path = model_path(self.model)
        return LanguageScorer(self, path, artifacts.digest_file(path))


@dataclasses.dataclass(frozen=True)
class LanguageScorer:
    """A `Scorer`; the model is loaded at the first document, so that it can be sent to other processes."""

    options: LanguageScoring
    path: Path
    digest: str

    def schema(self) -> Sequence[pyarrow.Field]:
        """Returns the columns.

        - language_label: the model's best label whose language can be written in the script that the text shows;
          `und_Script` where there is none. language_score: its probability (0 for `und`).
        - language_script, language_script_share: majority script of the letters.
        - language_alternatives: every label above `lowest_score`, best first, whether its script fits or not.
        - language_declared: the label of the language that the source declared, `und` where it named none. It is
          spelled as a label and never copied, since a source can write anything there.
        """
        import pyarrow

        alternative = pyarrow.struct([("label", pyarrow.string()), ("score", pyarrow.float64())])
        return [
            pyarrow.field("language_label", pyarrow.string()),
            pyarrow.field("language_score", pyarrow.float64()),
            pyarrow.field("language_script", pyarrow.string()),
            pyarrow.field("language_script_share", pyarrow.float64()),
            pyarrow.field("language_alternatives", pyarrow.list_(alternative)),
            pyarrow.field("language_declared", pyarrow.string()),
        ]

    def identity(self) -> Mapping[str, Any]:
        """Returns the options, the model's digest and the version of the Unicode tables."""
        import regex

        return {
            "version": VERSION,
            "model_digest": self.digest,
            "lowest_score": self.options.lowest_score,
            "characters": self.options.characters,
            "regex": regex.__version__,
        }

    def score(self, documents: Sequence[RawDocument]) -> Sequence[Row]:
        """Returns one row for each document, in order.

        Raises:
          UserError: the model cannot be read.
        """
        model = load_model(self.path, self.digest)
        excerpts = [excerpt(document.text, self.options.characters) for document in documents]
        rows = []
        for document, text, script in zip(documents, excerpts, detect_scripts(excerpts), strict=True):
            rows.append(_row(predict(model, text, self.options.lowest_score), script, document.language))
        return rows


def excerpt(text: str, characters: int) -> str:
    """Returns a text, or four equally distant pieces of a longer one, its beginning and its end among them."""
    if len(text) <= characters:
        return text
    length = characters // PIECES
    starts = (index * (len(text) - length) // (PIECES - 1) for index in range(PIECES))
    return "\n".join(text[start : start + length] for start in starts)


def _row(predictions: Sequence[tuple[str, float]], script: ScriptShare, declared: str) -> Row:
    """Joins what the model and the letters say."""
    alternatives = []
    label, score = f"und_{script.script}", 0.0
    for name, probability in predictions:
        alternative, fits = _in_script(name, script.script)
        alternatives.append({"label": alternative, "score": probability})
        if fits and label.startswith("und"):
            label, score = alternative, probability
    return {
        "language_label": label,
        "language_score": score,
        "language_script": script.script,
        "language_script_share": script.share,
        "language_alternatives": alternatives,
        "language_declared": language_label(declared, script.script),
    }


@functools.lru_cache(maxsize=65_536)
def _in_script(name: str, script: str) -> tuple[str, bool]:
    """Returns the label of a model's name for a text in a script, and whether the language can be written in it.

    Where it cannot, the label has the language's own script; `und` never fits.
    """
    language, own_script = language_and_script(name)
    possible = (own_script,) if own_script else scripts_of(language) or (script,)
    fits = script in possible and language != "und"
    return language_label(f"{language}_{script if fits else possible[0]}"), fits
