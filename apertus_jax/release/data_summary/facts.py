"""Provider facts: what only the provider knows, bound in a gin file, checked and never guessed.

Whatever is left empty is printed as not available, with the name to bind.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from apertus_jax.clock import require_day
from apertus_jax.errors import UserError
from apertus_jax.release.data_summary.answers.template import SECTIONS_WITH_COMMENTS
from apertus_jax.storage.run_parent import recorded_parent
from apertus_jax.validation import fields_by_annotation

TRAINED_FROM_START = "none: trained from the start"
# Where the template asks about each kind of source (docs/reference/data.md §12.1).
PUBLIC, LICENSED, THIRD_PARTY, CRAWL = "public", "licensed", "third_party", "crawl"
USER_INTERACTIONS, USER_SERVICES, SYNTHETIC, OTHER = "user_interactions", "user_services", "synthetic", "other"
CATEGORIES = (PUBLIC, LICENSED, THIRD_PARTY, CRAWL, USER_INTERACTIONS, USER_SERVICES, SYNTHETIC, OTHER)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class Provider:
    """The provider, who places the model on the market (template section 1.1).

    Attributes:
      name, contact: of the provider.
      representative, representative_contact: of the authorised representative in the Union; a provider that is
        established there writes so.
      small: a small or medium-sized enterprise, which lists fewer domains.
    """

    name: str = ""
    contact: str = ""
    representative: str = ""
    representative_contact: str = ""
    small: bool = False

    def __post_init__(self) -> None:
        _check_plain(self)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class PublishedModel:
    """One model that this summary is about (section 1.2).

    Attributes:
      name: with its version.
      documentation: link to what else is published about it.
      based_on: the model that it was fine-tuned from, "none" when it was trained from the start.
      based_on_summary: link to that model's summary.
      union_market_date: when it was placed on the Union market.
      run: folder of its run, of the model or of its export, whose record fills `based_on` in; "" for none.
    """

    name: str
    documentation: str = ""
    based_on: str = ""
    based_on_summary: str = ""
    union_market_date: str = ""
    run: str = ""

    def __post_init__(self) -> None:
        _check_plain(self)

    def with_recorded_parents(self) -> PublishedModel:
        """Returns the model with `based_on` as the record of its run says; what was declared of a parent stays.

        Raises:
          UserError: no such record, or "none" was declared of a model that has a parent.
        """
        if not self.run:
            return self
        parent = recorded_parent(self.run)
        recorded = TRAINED_FROM_START if parent is None else "; ".join(each.name for each in parent.lineage())
        if parent is not None and self.based_on.casefold().startswith("none"):
            raise UserError(
                f"PublishedModel.based_on = {self.based_on!r} and the record in {self.run} says that {self.name} is "
                f"based on {recorded}; declare that, or leave based_on empty"
            )
        return dataclasses.replace(self, based_on=self.based_on or recorded, run="")


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class SourceDescription:
    """Description of one source of the prepared corpus (sections 2.1 to 2.6).

    Attributes:
      source: its name in the ledger.
      category: `public` (a dataset that anybody can get), `licensed` (commercially, by rightsholders), `third_party`
        (private, from others), `crawl` (by the provider or on its behalf), `user_interactions` (with the model),
        `user_services` (from the provider's other services), `synthetic`, or `other`.
      title: what it is called in public.
      link: where it can be found. A `third_party` source without a link is one that is not publicly known.
      version: of the dataset, where the ledger has none.
      selection: how a part of it was chosen, before `prepare` chose by its policy.
      content: what kind of texts it holds.
      period: MM/YYYY-MM/YYYY of the collection, where documents carry no dates.
      market_models, other_models: of a `synthetic` source, the models that wrote it, available on the market or not.
      model_summaries: links to the summaries of those.
    """

    source: str
    category: str
    title: str = ""
    link: str = ""
    version: str = ""
    selection: str = ""
    content: str = ""
    period: str = ""
    market_models: Sequence[str] = ()
    other_models: Sequence[str] = ()
    model_summaries: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raises UserError when the category is unknown or a value has the wrong type."""
        _check_plain(self)
        if self.category not in CATEGORIES:
            raise UserError(
                f"SourceDescription.category = {self.category!r} of source {self.source!r} is unknown; choose among "
                f"{', '.join(CATEGORIES)}"
            )


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class Crawler:
    """A crawler that the provider, or somebody on its behalf, used (section 2.3).

    Attributes:
      name: by which it introduced itself.
      purpose: what it was for.
      behaviour: what it does about captchas, passwords, paywalls, robots.txt and other protocols.
      period: MM/YYYY-MM/YYYY; empty for what the dates of the crawled documents say.
    """

    name: str
    purpose: str = ""
    behaviour: str = ""
    period: str = ""

    def __post_init__(self) -> None:
        _check_plain(self)


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class Declarations:
    """Everything else that the template asks and no corpus can answer.

    Attributes:
      last_update: YYYY-MM-DD of this version of the summary.
      previous_link: where the version before was published.
      content_types: kinds of texts in the corpus as a whole.
      training_continues: whether the model is trained on newer data after that of this summary.
      regional_notes: national, regional and demographic characteristics.
      code_of_practice_signed: whether the provider signed the code of practice for general-purpose AI.
      opt_outs_kept_current: how reservations of rights that are expressed later are respected.
      copyright_policy: link.
      illegal_content: what was done to leave out illegal content, beyond the filters of the policy.
      further_information: free text of section 3.3.
      comments: number of a section of the template → free text.
    """

    last_update: str = ""
    previous_link: str = ""
    content_types: str = ""
    training_continues: bool | None = None
    regional_notes: str = ""
    code_of_practice_signed: bool | None = None
    opt_outs_kept_current: str = ""
    copyright_policy: str = ""
    illegal_content: str = ""
    further_information: str = ""
    comments: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UserError when the date is none, or a comment belongs to no section."""
        _check_plain(self)
        if self.last_update:
            require_day(self.last_update, "Declarations.last_update")
        for section in self.comments:
            if section not in SECTIONS_WITH_COMMENTS:
                raise UserError(
                    f"Declarations.comments has section {section!r}; sections that take comments are "
                    f"{', '.join(SECTIONS_WITH_COMMENTS)}"
                )


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class DatasheetAnswers:
    """Answers of the datasheet beyond the figures; also names the dataset in its Croissant description.

    `name`, `link` and `licence` are those of the corpus; the others are free text.
    """

    name: str = ""
    link: str = ""
    licence: str = ""
    purpose: str = ""
    funding: str = ""
    intended_uses: str = ""
    unsuitable_uses: str = ""
    limitations: str = ""
    distribution: str = ""
    maintenance: str = ""

    def __post_init__(self) -> None:
        _check_plain(self)


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that was declared."""

    provider: Provider
    models: tuple[PublishedModel, ...]
    sources: tuple[SourceDescription, ...]
    crawlers: tuple[Crawler, ...]
    declarations: Declarations
    datasheet: DatasheetAnswers

    def check_sources(self, known: Collection[str]) -> None:
        """Raises UserError when a description is of no source of the corpus, or a source is described twice."""
        seen: set[str] = set()
        for description in self.sources:
            name = description.source
            if name not in known:
                close = difflib.get_close_matches(name, known, n=3) or sorted(known)
                raise UserError(
                    f"SourceDescription.source = {name!r} is not in the corpus; its sources are {', '.join(close)}: "
                    "`apertus data-summary --template=FILE --input=…` writes a gin file for them to fill in"
                )
            if name in seen:
                raise UserError(f"source {name!r} has two descriptions in data_summary.sources; keep one")
            seen.add(name)

    def of_category(self, *categories: str) -> list[SourceDescription]:
        """Returns the descriptions of these categories, by name of the source."""
        return sorted((each for each in self.sources if each.category in categories), key=lambda each: each.source)

    def undescribed(self, known: Iterable[str]) -> list[str]:
        """Returns the sources of which nothing was declared."""
        described = {each.source for each in self.sources}
        return sorted(name for name in known if name not in described)

    def to_json(self) -> dict[str, Any]:
        """Returns the declarations as JSON, for the manifest."""
        values = dataclasses.asdict(self)
        for model in values["models"]:
            del model["run"]  # what its record says stands in based_on
        return values


def _check_plain(facts: Any) -> None:
    """Raises UserError when a text is no text, or a list of texts is one text."""
    for field in dataclasses.fields(facts):
        value, where = getattr(facts, field.name), f"{type(facts).__name__}.{field.name}"
        if field.type == "str" and not isinstance(value, str):
            raise UserError(f"{where} = {value!r} must be text in quotes")
        if str(field.type).startswith("bool") and not isinstance(value, bool | None):
            raise UserError(f"{where} = {value!r} must be True or False")
        if str(field.type).startswith("Sequence"):
            if isinstance(value, str) or not all(isinstance(each, str) for each in value):
                raise UserError(f"{where} = {value!r} must be a list of texts, as ['one', 'two']")
            object.__setattr__(facts, field.name, tuple(value))
