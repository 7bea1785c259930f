"""A request finds its page however the address is spelled, and one that could find nothing is refused."""

import datetime
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.removal import Tombstones
from apertus_jax.corpus.removal.keys import Scope, canonical_value
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from tests.corpus.removal.test_removal_tombstones import ID, tombstones_of

DAY = datetime.date(2026, 6, 1)


@pytest.mark.parametrize(
    "asked, stored",
    [
        ("https://site.example/wiki/Anna_(singer)", "https://site.example/wiki/Anna_%28singer%29"),
        ("https://site.example/%40anna", "https://SITE.example.:443/@anna#about"),
        ("https://site.example/a%2cb%3Bc%21", "http://site.example/a,b;c!"),
        ("https://site.example/it's*$:", "https://site.example/it%27s%2A%24%3a"),
        ("https://bücher.example/ü?q=%7E", "https://XN--BCHER-KVA.example/%c3%BC?q=~"),
        ("https://me:secret@site.example/./a/../b", "https://site.example/b"),
    ],
)
def test_a_request_finds_its_page_in_every_spelling(tmp_path, asked, stored):
    tombstones = tombstones_of(tmp_path, [{"scope": "url", "value": asked}])
    assert tombstones.match(ID, stored, "", DAY) == tombstones.match(ID, asked, "", DAY) == "R-0"
    back = tombstones_of(tmp_path, [{"scope": "url", "value": stored}], "back")
    assert back.match(ID, asked, "", DAY) == "R-0"


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab()@!',;:$*~/?&=+%ü ", max_size=12))
def test_encoding_a_path_as_programs_do_changes_no_key(path):
    path = "/" + path.replace("%", "%25") + "/"  # a blank at the end is no part of an address
    plain = canonical_value(Scope.URL, "https://site.example" + urllib.parse.quote(path, safe="/?&=+%!$'()*,;:@~"))
    assert canonical_value(Scope.URL, "https://site.example" + urllib.parse.quote(path, safe="/?&=+%")) == plain
    assert canonical_value(Scope.URL, "https://site.example" + path) == plain


@pytest.mark.parametrize(
    "scope, value",
    [("host", "*.site.example"), ("domain", "*.site.example"), ("url_prefix", "https://site.example/a/*")],
)
def test_a_wildcard_that_would_find_nothing_is_refused(scope, value):
    with pytest.raises(UserError, match=r"holds `\*`, which stands for nothing here"):
        canonical_value(Scope(scope), value)


def test_tombstones_with_keys_of_another_version_are_refused(tmp_path, monkeypatch):
    folder = tombstones_of(tmp_path, [{"scope": "url", "value": "https://site.example/a"}]).folder
    manifest = artifacts.verify(folder, "tombstones")
    monkeypatch.setattr(artifacts, "verify", lambda *_: {**manifest, "inputs": {**manifest["inputs"], "format": 1}})
    with pytest.raises(UserError, match="written by another version; run `apertus remove`"):
        Tombstones.open(folder)
