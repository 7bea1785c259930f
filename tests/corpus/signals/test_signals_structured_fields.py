"""Structured-field dictionaries: RFC 9651's own cases, a round trip of anything it can say, and no other exception."""

import base64
import contextlib
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.signals.structured_fields import Token, parse_dictionary

PARSED = [
    ("", {}),
    ("  ", {}),
    ("train-ai=n", {"train-ai": Token("n")}),
    ("train-ai=y, search=n", {"train-ai": Token("y"), "search": Token("n")}),
    ("a,b;x=1,c", {"a": True, "b": True, "c": True}),
    ("a=?0, b, c; foo=bar", {"a": False, "b": True, "c": True}),
    ('en="Applepie", da=:w4ZibGV0w6ZydGU=:', {"en": "Applepie", "da": "Æbletærte".encode()}),
    ("rating=1.5, feelings=(joy sadness)", {"rating": 1.5, "feelings": ["joy", "sadness"]}),
    ("a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid", {"a": [1, 2], "b": 3, "c": 4, "d": [5, 6]}),
    ("a=1 ,\t b=2", {"a": 1, "b": 2}),
    ("a=1,b=2,a=3", {"b": 2, "a": 3}),
    ('a="x\\"y\\\\z"', {"a": 'x"y\\z'}),
    ("a=()", {"a": []}),
    ("a=( 1;x  2 )", {"a": [1, 2]}),
    ("a=-999999999999999", {"a": -999999999999999}),
    ("a=@1659578233", {"a": 1659578233}),
    ('a=%"f%c3%bc"', {"a": "fü"}),
    ("*a.b-c_1=*/x:y", {"*a.b-c_1": "*/x:y"}),
    ("a=;x", None),
    ("a=1,", None),
    (",a", None),
    ("a b", None),
    ("A=1", None),
    ("1=1", None),
    ("a==1", None),
    ("a= 1", None),
    ("a =1", None),
    ("train-ai: n", None),
    ("a=1.", None),
    ("a=1.2345", None),
    ("a=1234567890123456", None),
    ("a=1234567890123.0", None),
    ("a=-", None),
    ("a=?2", None),
    ('a="x', None),
    ('a="\\x"', None),
    ('a="ü"', None),
    ("a=ü", None),
    ("a=(1 2", None),
    ("a=(1,2)", None),
    ("a=(1(2))", None),
    ("a=:x", None),
    ("a=:a:", None),
    ("a=:=a=:", None),
    ("a=@1.5", None),
    ('a=%"%ff"', None),
    ('a=%"%C3"', None),
    ("\ta=1", None),
    ("a=1;X=2", None),
]


@pytest.mark.parametrize("text, expected", PARSED)
def test_dictionaries_parse_as_the_rfc_says_or_fail_whole(text, expected):
    if expected is None:
        with pytest.raises(ValueError):
            parse_dictionary(text)
    else:
        assert parse_dictionary(text) == expected


def test_a_token_is_not_a_string():
    assert isinstance(parse_dictionary("a=n")["a"], Token)
    assert not isinstance(parse_dictionary('a="n"')["a"], Token)


key = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,6}", fullmatch=True)
bare = st.one_of(
    st.booleans(),
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.binary(max_size=6),
    st.text(string.printable[:95].replace("\t", ""), max_size=6).filter(str.isprintable),
    st.from_regex(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]{0,6}", fullmatch=True).map(Token),
    st.integers(-(10**6), 10**6).map(lambda thousandths: thousandths / 1000),
)


def written(value):
    if isinstance(value, bool):
        return f"?{int(value)}"
    if isinstance(value, bytes):
        return f":{base64.b64encode(value).decode()}:"
    if isinstance(value, list):
        return f"({' '.join(map(written, value))})"
    if isinstance(value, (Token, int)):
        return str(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(key, bare | st.lists(bare, max_size=3), max_size=4), st.sampled_from([",", ", ", " ,\t"]))
def test_whatever_can_be_said_is_read_back(members, comma):
    text = comma.join(f"{name}={written(value)}" for name, value in members.items())
    found = parse_dictionary(text)
    assert found == members
    assert [isinstance(value, Token) for value in found.values()] == [isinstance(v, Token) for v in members.values()]


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet='ab=,;() \t"\\?:@%-.019*üA', max_size=16))
def test_other_text_fails_with_value_error_only(text):
    with contextlib.suppress(ValueError):
        assert isinstance(parse_dictionary(text), dict)
