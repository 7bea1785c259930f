"""Blank declarations: a gin file for one's own corpus, with a place for everything that only the provider knows."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.release.data_summary.facts import (
    Crawler,
    DatasheetAnswers,
    Declarations,
    Provider,
    PublishedModel,
    SourceDescription,
)
from apertus_jax.release.data_summary.prepared_corpus import PreparedCorpus
from apertus_jax.storage import artifacts
from apertus_jax.storage.manifests import values_of
from apertus_jax.terminal.screen import Screen
from apertus_jax.terminal.terminal_text import printable

HEADER = """\
# What only the provider of a model knows about {prepared}, for `apertus data-summary`. Fill it in, then
#
#   apertus data-summary --gin_file={template} --input={prepared} --output=FOLDER
#
# Whatever stays empty is printed as "not available", with the name to bind. Only the category of each source has to be
# chosen: nothing is guessed.
"""


def data_summary_template(prepared: epath.PathLike, template: str) -> None:
    """Writes a gin file to fill in for `data-summary`: every declaration empty, every source of the corpus named.

    Args:
      prepared: folder that `apertus prepare` wrote.
      template: the gin file to write; it must not exist.

    Raises:
      UserError: the corpus is unfinished or damaged, or there is something at `template`.
    """
    corpus = PreparedCorpus.open(prepared)
    with values_of(corpus.folder, "prepared corpus"):
        sources = sorted(corpus.sources)
    if epath.Path(template).exists():
        raise UserError(f"{template} is there already; give another file to --template, or fill in that one")
    header = HEADER.format(prepared=printable(prepared), template=printable(template))
    text = header + "".join(f"\n{part}" for part in _parts(sources))
    artifacts.write_atomically(template, text)
    told = f"data-summary: a template for {len(sources):,} sources written; fill in {template}"
    Screen().print(f"{told}, then give it as --gin_file", markup=False, highlight=False, soft_wrap=True)


def _parts(sources: Iterable[str]) -> Iterator[str]:
    """Yields the parts of the file, each a comment and its bindings."""
    yield _comment(Provider) + "data_summary.provider = @Provider()\n" + _bindings(Provider)
    yield (
        _comment(PublishedModel)
        + "data_summary.models = [@model/PublishedModel()]\n"
        + _bindings(PublishedModel, "model/", name="")
    )
    yield _comment(Declarations) + "data_summary.declarations = @Declarations()\n" + _bindings(Declarations)
    scopes = _scopes(sources)
    listed = "".join(f"    @{scope}/SourceDescription(),\n" for scope in scopes)
    yield _comment(SourceDescription) + f"data_summary.sources = [\n{listed}]\n"
    for scope, source in scopes.items():
        yield _bindings(SourceDescription, f"{scope}/", source=source, category="")
    commented = "".join(f"# {line}\n" for line in _bindings(Crawler, "mine/", name="").splitlines())
    yield _comment(Crawler) + "data_summary.crawlers = []  # [@mine/Crawler()]\n" + commented
    yield _comment(DatasheetAnswers) + "data_summary.datasheet = @DatasheetAnswers()\n" + _bindings(DatasheetAnswers)


def _comment(facts: type) -> str:
    """Returns what a class of declarations says of its fields, as a comment."""
    lines = [line for line in (inspect.getdoc(facts) or "").splitlines() if line not in ("", "Attributes:")]
    return "".join(f"# {line}\n" for line in lines)


def _bindings(facts: type, scope: str = "", **values: str) -> str:
    """Returns a binding for each field of a class of declarations, to the value given or the default."""
    lines = []
    for field in dataclasses.fields(facts):
        default: Any = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = values.get(field.name, [] if default == () else default)
        choice = "  # one of those above" if field.name == "category" else ""
        lines.append(f"{scope}{facts.__name__}.{field.name} = {value!r}{choice}\n")
    return "".join(lines)


def _scopes(sources: Iterable[str]) -> dict[str, str]:
    """Returns scope → source, one scope that gin can read for each."""
    found: dict[str, str] = {}
    for source in sources:
        name = re.sub(r"[^0-9A-Za-z_]", "_", source)
        name = name if re.match(r"[A-Za-z_]", name) else f"source_{name}"
        number = next(number for number in range(len(found) + 1) if f"{name}{f'_{number}' * bool(number)}" not in found)
        found[f"{name}{f'_{number}' * bool(number)}"] = source
    return found
