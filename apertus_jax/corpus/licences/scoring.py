"""Licence columns of a document: expression, classes, and what they were read from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apertus_jax.corpus.licences.classes import NOT_UNDERSTOOD, classes_of, lists_identity, rating_of
from apertus_jax.corpus.licences.creative_commons import licence_of_links
from apertus_jax.corpus.licences.expressions import all_of, normalize
from apertus_jax.corpus.licences.names import is_mere_notice
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.validation import fields_by_annotation

if TYPE_CHECKING:
    import pyarrow

_SILENCE = re.compile(r"[\s\[\](){}'\",]*")  # nothing, or an empty list
LICENCE_TAGS = ("license", "licence", "dcterms.license")
RIGHTS_TAGS = ("rights", "dc.rights", "dcterms.rights")
REVISION = 3  # raise when the same document can get other columns


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class LicenceScoring:
    """Licences as sources declare them and as pages link to them.

    Attributes:
      links: whether links of the page count. A declared licence and a linked one both hold.
    """

    links: bool = True

    def build(self) -> LicenceScorer:
        """Returns the scorer."""
        return LicenceScorer(self.links)


class LicenceScorer:
    """Writes `licence_expression`, `licence_classes`, `licence_class`, `licence_rating` and `licence_evidence`.

    - `licence_expression`: SPDX in normal form, "" when unknown.
    - `licence_classes`: the classes under which the text may be used, one or more, best first.
    - `licence_class`: the first of them; `unknown` where nothing is declared, `not_understood` where something is that
      nobody can tell the meaning of.
    - `licence_rating`: the Blue Oak Council's, "" when it rates none of them.
    - `licence_evidence`: `declared`, `links`, `declared and links`; `none`; or why what is declared is not understood:
      `not understood`, `contradictory links`.
    """

    def __init__(self, links: bool = True):
        self._links = links

    def schema(self) -> list[pyarrow.Field]:
        """Returns the five columns."""
        import pyarrow

        text = pyarrow.string()
        return [
            pyarrow.field("licence_expression", text),
            pyarrow.field("licence_classes", pyarrow.list_(text)),
            pyarrow.field("licence_class", text),
            pyarrow.field("licence_rating", text),
            pyarrow.field("licence_evidence", text),
        ]

    def identity(self) -> Mapping[str, Any]:
        """Returns the options, the revision of the rules, and versions and digests of the lists."""
        return {"links": self._links, "revision": REVISION, **lists_identity()}

    def score(self, documents: Sequence[RawDocument]) -> list[dict[str, Any]]:
        """Returns the columns of each document. Declared texts that are not understood are not repeated."""
        return [self._score(document) for document in documents]

    def _score(self, document: RawDocument) -> dict[str, Any]:
        """Returns the columns of one document."""
        expression, evidence = self._expression(document)
        classes = classes_of(expression or (NOT_UNDERSTOOD if evidence != "none" else ""))
        return {
            "licence_expression": expression,
            "licence_classes": classes,
            "licence_class": classes[0],
            "licence_rating": rating_of(expression),
            "licence_evidence": evidence,
        }

    def _expression(self, document: RawDocument) -> tuple[str, str]:
        """Returns the expression of a document and where it is from; "" and why it is unknown."""
        declarations = _declarations(document)
        declared = all_of(declarations)
        linked, contradictory = licence_of_links(document.licence_links) if self._links else ("", False)
        if (declarations and not declared) or linked == NOT_UNDERSTOOD:
            return "", "not understood"
        if contradictory:
            return "", "contradictory links"
        if declared and linked:
            return all_of((declared, linked)), "declared and links"
        return declared or linked, "declared" if declared else "links" if linked else "none"


def _declarations(document: RawDocument) -> list[str]:
    """Returns everything by which a document declares its licence: its field, and what its page says about itself.

    Statements of rights are prose: they count where they are understood, a mere copyright notice does not.
    """
    tags = document.meta_tags
    given = [document.licence, *(tags[name] for name in LICENCE_TAGS if name in tags)]
    rights = [tags[name] for name in RIGHTS_TAGS if name in tags]
    given += [text for text in rights if normalize(text) and not is_mere_notice(text)]
    return [text for text in given if _SILENCE.fullmatch(text) is None]
