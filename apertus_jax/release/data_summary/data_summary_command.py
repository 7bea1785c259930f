"""The `data-summary` command: a prepared corpus → what a provider has to publish about its content."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.release.data_summary.answers.general import general_answers
from apertus_jax.release.data_summary.answers.processing import figures, processing_answers
from apertus_jax.release.data_summary.answers.sources import source_answers
from apertus_jax.release.data_summary.answers.template import fill, num_available
from apertus_jax.release.data_summary.croissant import CROISSANT_FILE, describe_as_croissant
from apertus_jax.release.data_summary.datasheet import DATASHEET_FILE, datasheet_page
from apertus_jax.release.data_summary.domains import DOMAINS_FILE, suffixes_version, top_domains, write_csv
from apertus_jax.release.data_summary.facts import (
    CRAWL,
    Crawler,
    DatasheetAnswers,
    Declarations,
    Facts,
    Provider,
    PublishedModel,
    SourceDescription,
)
from apertus_jax.release.data_summary.history import FORMAT, KIND, SUMMARY_FILE, History
from apertus_jax.release.data_summary.inputs import Inputs
from apertus_jax.release.data_summary.ledger_sums import read_sums
from apertus_jax.release.data_summary.pages import html_page, markdown_page
from apertus_jax.release.data_summary.prepared_corpus import PreparedCorpus
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of_arguments
from apertus_jax.storage.manifests import values_of
from apertus_jax.terminal.progress import track

MARKDOWN_FILE, HTML_FILE = "public_summary.md", "public_summary.html"


def data_summary(
    prepared: epath.PathLike,
    output: epath.PathLike,
    provider: Provider | None = None,
    models: Sequence[PublishedModel] = (),
    sources: Sequence[SourceDescription] = (),
    crawlers: Sequence[Crawler] = (),
    declarations: Declarations | None = None,
    datasheet: DatasheetAnswers | None = None,
    previous: str = "",
    mask_domains: bool = False,
    large_share: float = 0.03,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the public summary of training content, a datasheet and a Croissant description.

    Figures are counted from the ledger; what only the provider knows is declared. A field without a value says why.
    Idempotent: returns immediately if the output is complete.

    Source: docs/reference/data.md §12.1.

    Args:
      prepared: folder that `apertus prepare` wrote.
      output: the folder to write.
      provider, models, sources, crawlers, declarations, datasheet: what only the provider knows.
      previous: folder of the version before this one; empty for the first.
      mask_domains: hides the names in the list of domains, which can be personal data.
      large_share: a public dataset with this share of the bytes of all public ones is listed by itself.
      progress: shows a bar on a terminal.

    Returns:
      The version, how many fields have a value, and the size of the corpus.

    Raises:
      UserError: the corpus is unfinished, damaged or does not balance, a declaration is about nothing in it, the
        previous version is damaged, or the output folder holds something else.
    """
    arguments = dict(locals())
    corpus = PreparedCorpus.open(prepared)
    facts = Facts(
        provider=provider or Provider(),
        models=tuple(model.with_recorded_parents() for model in models),
        sources=tuple(sources),
        crawlers=tuple(crawlers),
        declarations=declarations or Declarations(),
        datasheet=datasheet or DatasheetAnswers(),
    )
    with values_of(corpus.folder, "prepared corpus"):
        facts.check_sources(corpus.sources)
    _check_share(large_share)
    history = History.after(previous, facts.declarations.previous_link)
    declared = [field.name for field in dataclasses.fields(facts)]
    read = {"prepared": corpus.digest, "previous": history.digest}
    identity = {
        "format": FORMAT,
        "facts": facts.to_json(),
        "publicsuffixlist": suffixes_version(),
        **identity_of_arguments(data_summary, arguments, "output", "progress", *declared, **read),
    }
    if not artifacts.already_built(output, KIND, identity):
        with artifacts.build(output, KIND, identity) as build, values_of(corpus.folder, "prepared corpus"):
            inputs = _gather(corpus, facts, history, progress, mask_domains=mask_domains, large_share=large_share)
            build.summary.update(_write(build.path, inputs))
    return dict(artifacts.read_manifest(output, KIND)["summary"])


def _check_share(large_share: float) -> None:
    """Raises UserError unless it is a share."""
    if not 0 <= large_share <= 1:
        raise UserError(f"data_summary.large_share = {large_share} must be a share from 0 to 1")


def _gather(corpus: PreparedCorpus, facts: Facts, history: History, progress: bool, **options: Any) -> Inputs:
    """Reads the ledger once."""
    crawled = {each.source for each in facts.of_category(CRAWL)}
    parts = track(corpus.parts, "reading the ledger", len(corpus.parts), progress)
    sums = read_sums(corpus, crawled, parts)
    largest = top_domains(sums.domains, facts.provider.small)
    return Inputs(corpus, sums, facts, history, largest, **options)


def _write(folder: epath.Path, inputs: Inputs) -> dict[str, Any]:
    """Writes every file and returns the summary of the manifest."""
    answers = {**general_answers(inputs), **source_answers(inputs), **processing_answers(inputs)}
    summary = {
        "version": inputs.history.version,
        "template": fill(answers),
        "earlier_versions": inputs.history.earlier,
        "figures": figures(inputs),
    }
    # What was written is read again, so that pages can only show what the machine-readable file says.
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    summary = json.loads(text)
    title = "Public summary of training content"
    files = {
        SUMMARY_FILE: text,
        MARKDOWN_FILE: markdown_page(summary, title),
        HTML_FILE: html_page(summary, title),
        DOMAINS_FILE: write_csv(inputs.domains, inputs.counted, inputs.mask_domains),
        DATASHEET_FILE: datasheet_page(inputs, summary),
        CROISSANT_FILE: describe_as_croissant(inputs),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content.encode())
    kept = inputs.sums.kept()
    return {
        "version": inputs.history.version,
        "fields": len(answers),
        "fields_with_value": num_available(summary["template"]),
        "documents": kept.documents,
        "bytes": kept.bytes_kept,
        "tokens": kept.tokens if inputs.counted else None,
    }
