"""JSON from strangers: what the standard parser takes is taken alike, all else is one line that names the place."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import JSONError, parse_json, parse_json_lines, read_json, read_json_object

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(VALUES, st.booleans(), st.booleans())
def test_what_the_json_module_takes_is_read_alike(value, as_bytes, escaped):
    content = json.dumps(value, ensure_ascii=escaped)
    read = parse_json(content.encode() if as_bytes else content, "x")
    assert repr(read) == repr(json.loads(content))


REFUSED = {
    "deep arrays": (b"[" * 100_000, "nested"),
    "deep objects that close": (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested"),
    "deeper than is used": (b"[" * 101 + b"]" * 101, "nested"),
    "5,000 digits": (b'{"n": ' + b"9" * 5_000 + b"}", "5000 digits"),
    "5,000 digits and a sign": (b"-" + b"9" * 5_000, "digits"),
    "beyond floating point": (b"[1e999]", "floating point"),
    "NaN": (b'{"a": NaN}', "NaN"),
    "Infinity": (b"-Infinity", "Infinity"),
    "latin-1": ('{"a": "\xe9"}'.encode("latin-1"), "UTF-8 at byte 7"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "UTF-8"),
    "lone surrogate": (rb'{"a": ["x\ud800"]}', r"\\ud800"),
    "lone surrogate in a key": (rb'{"\udfff": 1}', r"\\udfff"),
    "lone surrogate alone": (rb'"\ud800"', r"\\ud800"),
    "surrogate in text": ('"\ud800"', r"\\ud800"),
    "truncated": (b'{"a": [1, 2', "not valid JSON"),
    "empty": (b"", "not valid JSON"),
    "two values": (b"1 2", "not valid JSON"),
    "bare control character": (b'"\x01"', "not valid JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_refusal_is_one_line_that_names_the_place(case):
    content, what = REFUSED[case]
    with pytest.raises(UserError, match=what) as raised:
        parse_json(content, "corpus.jsonl, row 3")
    message = str(raised.value)
    assert message.startswith("corpus.jsonl, row 3: ") and "\n" not in message and len(message) < 300
    assert isinstance(raised.value, ValueError)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_value_or_one_line(content):
    try:
        parse_json(content, "here")
    except JSONError as error:
        assert str(error).startswith("here: ") and str(error).isprintable()


def test_escaped_pairs_marks_and_lenient_numbers_are_read():
    assert parse_json(rb'"\ud83d\ude00"', "x") == "😀"
    assert parse_json(b"\xef\xbb\xbf[1]", "x") == [1] == parse_json("\ufeff[1]", "x")
    assert math.isnan(parse_json(b"NaN", "x", allow_nan=True)) and parse_json("1e999", "x", allow_nan=True) == math.inf
    assert parse_json("[" * 100 + "]" * 100, "x")


def test_lines_are_numbered_and_blank_ones_passed_over():
    lines = [b'{"a": 1}\n', b"\n", b"2\n"]
    assert list(parse_json_lines(lines, "f")) == [(1, {"a": 1}), (3, 2)]
    with pytest.raises(UserError, match="f, line 2: not valid JSON"):
        list(parse_json_lines([b"1", b"{"], "f"))


def test_files_are_read_up_to_their_bound(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1} == read_json_object(path)
    with pytest.raises(UserError, match="8 bytes long, more than the 7"):
        read_json(path, max_bytes=7)
    path.write_text("[1]")
    with pytest.raises(UserError, match="JSON array where an object is expected"):
        read_json_object(path)
    with pytest.raises(UserError, match="is a folder, not a file"):
        read_json(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "absent.json")
