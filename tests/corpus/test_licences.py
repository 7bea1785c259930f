"""Licences: spellings, expressions, classes, links, columns, and the rule with its traps."""

import importlib.resources
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus import licences
from apertus_jax.corpus.licences import (
    CLASSES,
    LicenceRule,
    LicenceScoring,
    all_of,
    classes_of,
    licence_of_link,
    normalise,
    rating_of,
)
from apertus_jax.corpus.licences.classes import RATINGS, class_of_identifier, licence_database, ratings
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.reasons import Reason
from apertus_jax.errors import UserError

SPELLINGS = [
    ("MIT License", "MIT"),
    ("the mit licence", "MIT"),
    ("Apache License, Version 2.0", "Apache-2.0"),
    ("BSD 3-Clause", "BSD-3-Clause"),
    ("GPL-2.0+", "GPL-2.0-or-later"),
    ("GPLv3", "GPL-3.0-only"),
    ("GNU General Public License v3.0", "GPL-3.0-only"),
    ("Mozilla Public License 2.0", "MPL-2.0"),
    ("CC BY 4.0", "CC-BY-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("CC BY-NC-SA", "LicenseRef-CC-BY-NC-SA"),
    ("Creative Commons Attribution-NonCommercial 4.0 International", "CC-BY-NC-4.0"),
    ("https://creativecommons.org/licenses/by-nd/4.0/", "CC-BY-ND-4.0"),
    ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
    ("https://opensource.org/licenses/MIT", "MIT"),
    ("https://www.apache.org/licenses/LICENSE-2.0", "Apache-2.0"),
    ("Public Domain", "LicenseRef-Public-Domain"),
    ("LicenseRef-Public-Domain AND MIT", "LicenseRef-Public-Domain AND MIT"),
    ("MIT/Apache-2.0", "Apache-2.0 OR MIT"),
    ("MIT, CC BY-NC 4.0", "CC-BY-NC-4.0 AND MIT"),
    ("['MIT', 'Apache-2.0']", "Apache-2.0 AND MIT"),
    ("MIT License or CC BY 4.0", "CC-BY-4.0 OR MIT"),
    ("MIT AND MIT", "MIT"),
    ("MIT OR our own terms", "LicenseRef-Not-Understood OR MIT"),
    ("ODC-By", "ODC-By-1.0"),
]
NOT_UNDERSTOOD = [
    "",
    " ",
    "[]",
    "all rights reserved",
    "free or not",
    "MIT AND (",
    "(" * 400,
    "MIT " * 1000,
    "NONE",
    "🎈",
]
CLASSIFIED = [
    ("MIT", "permissive"),
    ("CC-BY-4.0", "permissive"),
    ("CC0-1.0", "public_domain"),
    ("Unlicense", "public_domain"),
    ("CC-PDM-1.0", "public_domain"),
    ("LicenseRef-Public-Domain AND MIT", "permissive"),
    ("CC-BY-SA-4.0", "share_alike"),
    ("GFDL-1.3-or-later", "share_alike"),
    ("ODbL-1.0", "share_alike"),
    ("GPL-3.0-only", "copyleft"),
    ("MPL-2.0", "copyleft"),
    ("GPL-2.0-only WITH Classpath-exception-2.0", "copyleft"),
    ("Apache-2.0 WITH LLVM-exception", "permissive"),
    ("Apache-2.0 WITH LicenseRef-scancode-commons-clause", "restricted"),
    ("CC-BY-NC-4.0", "nc_nd"),
    ("CC-BY-NC-SA-4.0", "nc_nd"),
    ("CC-BY-ND-3.0", "nc_nd"),
    ("BUSL-1.1", "restricted"),
    ("JSON", "restricted"),
    ("Artistic-2.0", "permissive"),
    ("LicenseRef-scancode-unknown", "unknown"),
]
LINKS = [
    ("https://creativecommons.org/licenses/by/4.0/", "CC-BY-4.0"),
    ("http://www.creativecommons.org/licenses/by-sa/3.0/de/deed.en", "CC-BY-SA-3.0-DE"),
    ("//creativecommons.org/licenses/by-nc-nd/2.0/fr/", "CC-BY-NC-ND-2.0"),
    ("https://creativecommons.org/licenses/by-sa/", "LicenseRef-CC-BY-SA"),
    ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
    ("https://creativecommons.org/licenses/", ""),
    ("https://creativecommons.org/about", ""),
    ("https://example.org/creativecommons.org/licenses/by/4.0/", ""),
    ("https://notcreativecommons.org/licenses/by/4.0/", ""),
    ("https://spdx.org/licenses/0BSD.html", "0BSD"),
    ("https://example.org/", ""),
]


def score(licence="", links=(), source="web"):
    document = RawDocument("0" * 32, "text", source, "f", 1, licence=licence, licence_links=tuple(links))
    (row,) = LicenceScoring().build().score([document])
    return {"source": source, **row}


@pytest.mark.parametrize(("declared", "expression"), SPELLINGS)
def test_common_spellings_become_spdx(declared, expression):
    assert normalise(declared) == expression
    assert normalise(expression) == expression


@pytest.mark.parametrize("declared", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_unknown(declared):
    assert normalise(declared) == ""


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="()MITAND OR/,[]'", max_size=30))
def test_no_declaration_breaks_the_reader_and_results_are_stable(declared):
    expression = normalise(declared)
    assert normalise(expression) == expression
    assert set(classes_of(expression)) <= set(CLASSES)


@pytest.mark.parametrize(("expression", "expected"), CLASSIFIED)
def test_licences_have_the_class_of_what_they_ask(expression, expected):
    assert classes_of(expression) == [expected]


def test_empty_list_of_licences_is_unknown_and_never_permitted():
    # "All elements are permitted" is true of no elements: the trap that lets unlicensed code in.
    assert all(licence in () for licence in [])
    assert all_of([]) == normalise("[]") == ""
    assert classes_of("") == ["unknown"]
    for licence in ("", "[]", "[ ]", "['']"):
        verdict = LicenceRule(permitted=CLASSES[:-1], required_sources=("code",)).verdict(
            score(licence, source="code"), {}
        )
        assert verdict is not None and verdict.reason is Reason.LICENCE_UNKNOWN
    with pytest.raises(UserError):
        LicenceRule(permitted=("unknown",))


EXAMPLES = {"CC0-1.0": 0, "MIT": 1, "CC-BY-SA-4.0": 2, "GPL-3.0-only": 3, "CC-BY-NC-4.0": 4, "BUSL-1.1": 5}


def test_or_takes_the_best_and_and_the_worst_class():
    for left, right in itertools.product(EXAMPLES, repeat=2):
        either, both = classes_of(f"{left} OR {right}"), classes_of(f"{left} AND {right}")
        assert either == [CLASSES[place] for place in sorted({EXAMPLES[left], EXAMPLES[right]})]
        assert both == [CLASSES[max(EXAMPLES[left], EXAMPLES[right])]]
    assert classes_of("(MIT OR GPL-3.0-only) AND (CC0-1.0 OR CC-BY-NC-4.0)") == ["permissive", "copyleft", "nc_nd"]


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.sampled_from(sorted(EXAMPLES)), lambda e: st.tuples(e, st.sampled_from(("AND", "OR")), e), max_leaves=6
    )
)
def test_classes_equal_enumeration_of_all_choices(tree):
    def write(node):
        return node if isinstance(node, str) else f"({write(node[0])} {node[1]} {write(node[2])})"

    def choices(node):
        if isinstance(node, str):
            return [{node}]
        left, right = choices(node[0]), choices(node[2])
        return left + right if node[1] == "OR" else [a | b for a in left for b in right]

    expected = {max(EXAMPLES[name] for name in choice) for choice in choices(tree)}
    assert classes_of(write(tree)) == [CLASSES[place] for place in sorted(expected)]
    # Normalising may drop choices that another choice makes superfluous, never the best one.
    assert classes_of(normalise(write(tree)))[0] == CLASSES[min(expected)]


def test_blue_oak_identifiers_are_in_the_spdx_list_and_in_permissive_classes():
    listed = json.loads(importlib.resources.files(licences).joinpath("blue_oak.json").read_text())["ratings"]
    counts = {rating: len(identifiers) for rating, identifiers in listed.items()}
    assert counts == {"model": 1, "gold": 1, "silver": 30, "bronze": 120, "lead": 72}  # D§3: 152 without lead
    assert set(ratings().values()) == set(RATINGS) - {""}
    for identifier in ratings():
        assert identifier in licence_database(), identifier
        assert class_of_identifier(identifier) in ("permissive", "public_domain"), identifier
    named = "MIT Apache-2.0 BSD-2-Clause BSD-3-Clause ISC 0BSD BSL-1.0 Zlib Unlicense CC0-1.0 PSF-2.0 PostgreSQL "
    named += "Artistic-2.0 NCSA UPL-1.0 MulanPSL-1.0 MulanPSL-2.0 W3C X11 curl OpenSSL PHP-3.01 Ruby ZPL-2.1"
    for identifier in named.split():
        assert RATINGS.index(rating_of(identifier)) <= RATINGS.index("bronze"), identifier
    assert rating_of("Beerware") == "lead"
    assert rating_of("MIT OR Beerware") == "silver"
    assert rating_of("MIT AND Beerware") == "lead"
    assert rating_of("GPL-3.0-only") == rating_of("") == ""


@pytest.mark.parametrize(("link", "expected"), LINKS)
def test_links_name_type_and_version(link, expected):
    assert licence_of_link(link) == expected


def test_links_of_a_page_count_and_contradictions_are_not_believed():
    by, nc = "https://creativecommons.org/licenses/by/4.0/", "https://creativecommons.org/licenses/by-nc/4.0/"
    older, zero = "https://creativecommons.org/licenses/by/3.0/", "https://creativecommons.org/publicdomain/zero/1.0/"
    assert score(links=[by, by, "https://example.org"])["licence_expression"] == "CC-BY-4.0"
    assert score(links=[by, older])["licence_class"] == "permissive"
    for links in ([by, nc], [by, zero], [nc, "https://creativecommons.org/licenses/by-nd/4.0/"]):
        row = score(links=links)
        assert (row["licence_class"], row["licence_evidence"]) == ("unknown", "contradictory links")
    both = score("MIT", [nc])
    assert (both["licence_class"], both["licence_evidence"]) == ("nc_nd", "declared and links")
    assert score()["licence_evidence"] == "none"
    assert score("ask Anna at anna@example.org")["licence_evidence"] == "not understood"
    assert "anna" not in repr(score("ask Anna at anna@example.org"))


def test_rule_keeps_out_what_is_known_and_not_permitted_and_unknown_only_where_required():
    rule = LicenceRule(required_sources=("code",))
    assert rule.verdict(score("CC-BY-4.0"), {}) is None
    assert rule.verdict(score("CC BY-NC 4.0"), {}).reason is Reason.LICENCE_NOT_PERMITTED
    assert rule.verdict(score("GPL-3.0-only OR MIT"), {}) is None
    assert rule.verdict(score("GPL-3.0-only AND MIT"), {}).reason is Reason.LICENCE_NOT_PERMITTED
    assert rule.verdict(score(""), {}) is None
    assert rule.verdict(score("", source="code"), {}).reason is Reason.LICENCE_UNKNOWN
    assert LicenceRule(required_sources=("*",)).verdict(score(""), {}).reason is Reason.LICENCE_UNKNOWN
    assert LicenceRule(permitted=("copyleft",)).verdict(score("GPL-3.0-only OR MIT"), {}) is None


def test_rated_sources_need_a_rating_and_lead_is_too_low():
    rule = LicenceRule(rated_sources=("code",))
    assert rule.verdict(score("MIT", source="code"), {}) is None
    assert rule.verdict(score("CC0-1.0", source="code"), {}) is None
    assert rule.verdict(score("Beerware", source="code"), {}).reason is Reason.LICENCE_NOT_PERMITTED
    assert rule.verdict(score("Beerware"), {}) is None
    assert rule.verdict(score("CC-BY-4.0", source="code"), {}).reason is Reason.LICENCE_NOT_PERMITTED


def test_rule_mistakes_are_one_clear_line():
    for arguments in ({"permitted": ("permisive",)}, {"permitted": "permissive"}, {"lowest_rating": "tin"}):
        with pytest.raises(UserError) as error:
            LicenceRule(**arguments)
        assert "\n" not in str(error.value)


def test_columns_fit_parquet_and_one_document_at_a_time_equals_the_batch():
    import pyarrow

    scorer = LicenceScoring().build()
    documents = [RawDocument("0" * 32, "t", "s", "f", 1, licence=spelling) for spelling, _ in SPELLINGS]
    rows = scorer.score(documents)
    assert rows == [row for document in documents for row in scorer.score([document])]
    assert pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(scorer.schema())).to_pylist() == rows
    assert json.loads(json.dumps(scorer.identity())) == scorer.identity()
