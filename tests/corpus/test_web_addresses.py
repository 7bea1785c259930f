"""Web addresses: one spelling for each host, whatever the URL looked like, and no input that breaks them."""

import re
import urllib.parse

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from apertus_jax.corpus import web_addresses
from apertus_jax.corpus.web_addresses import WebAddress, canonical_host, parse_web_address, registrable_domain

SPELLINGS = [
    ("http://EXAMPLE.com:80/A?b#c", "http", "example.com", "example.com", "/A?b"),
    ("https://user:pass@example.com:443/x", "https", "example.com", "example.com", "/x"),
    ("https://user@evil.org@example.com/", "https", "example.com", "example.com", "/"),
    ("http://example.com:443/", "http", "example.com", "example.com:443", "/"),
    ("http://example.com:0080/", "http", "example.com", "example.com", "/"),
    ("http://example.com:/", "http", "example.com", "example.com", "/"),
    ("http://example.com./x", "http", "example.com", "example.com", "/x"),
    ("https://Bücher.example?q", "https", "xn--bcher-kva.example", "xn--bcher-kva.example", "/?q"),
    ("https://B%C3%BCcher.example/", "https", "xn--bcher-kva.example", "xn--bcher-kva.example", "/"),
    ("https://ex%41mple.com/", "https", "example.com", "example.com", "/"),
    ("https://straße.de/", "https", "xn--strae-oqa.de", "xn--strae-oqa.de", "/"),
    ("https://日本語。jp/", "https", "xn--wgv71a119e.jp", "xn--wgv71a119e.jp", "/"),
    ("https://ＥＸＡＭＰＬＥ.com/", "https", "example.com", "example.com", "/"),
    ("https://😀.la/", "https", "xn--e28h.la", "xn--e28h.la", "/"),
    ("http://[2001:DB8::0:1]:8080/", "http", "[2001:db8::1]", "[2001:db8::1]:8080", "/"),
    ("http://192.0.2.1/", "http", "192.0.2.1", "192.0.2.1", "/"),
    ("http://foo_bar.example/", "http", "foo_bar.example", "foo_bar.example", "/"),
    ("  HTTPS:\\\\example.com\\a\\b?c\\d \n", "https", "example.com", "example.com", "/a/b?c\\d"),
    ("http://exam\nple.com/a\tb", "http", "example.com", "example.com", "/ab"),
    ("http://example.com/a/../%62?x=%2F#", "http", "example.com", "example.com", "/a/../%62?x=%2F"),
]
NO_ADDRESS = [
    "",
    " ",
    "example.com",
    "ftp://example.com/",
    "mailto:someone@example.com",
    "http:",
    "http://",
    "http:///path",
    "http:/example.com",
    "http://.",
    "http://a..b/",
    "http://user@/",
    "http://:80/",
    "http://a:65536/",
    "http://a:-1/",
    "http://a:٣/",
    "http://a:b/",
    "http://a:80:80/",
    "http://" + "9" * 5000 + ":" + "9" * 5000,
    "http://[::1/",
    "http://[::1]x/",
    "http://[fe80::1%25eth0]/",
    "http://[zz]/",
    "http://::1/",
    "http://a b/",
    "http://a%20b/",
    "http://a%00b/",
    "http://%ff/",
    "http://%zz/",
    "http://\ud800.com/",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 130 + "com/",
]


@pytest.mark.parametrize("url, scheme, host, authority, path", SPELLINGS)
def test_each_spelling_has_one_canonical_address(url, scheme, host, authority, path):
    assert parse_web_address(url) == WebAddress(scheme, host, authority, path)


@pytest.mark.parametrize("url", NO_ADDRESS)
def test_what_has_no_usable_host_has_no_address(url):
    assert parse_web_address(url) is None


@pytest.mark.parametrize("url, scheme, host, authority, path", SPELLINGS)
def test_the_canonical_address_is_its_own_spelling(url, scheme, host, authority, path):
    address = parse_web_address(url)
    assert parse_web_address(address.url) == address


ODD = st.text(alphabet="htps:/\\?#@[].%-_aZ0ü。😀 \n\x00\ud800", max_size=40)


@example("http://0? #")
@settings(max_examples=400, deadline=None)
@given(st.one_of(ODD, ODD.map("http://{}".format), st.text(max_size=60).map("https://{}".format)))
def test_no_text_raises_and_every_address_is_stable(url):
    address = parse_web_address(url)
    if address is not None:
        assert address.host.isascii() and address.host == address.host.lower()
        assert canonical_host(address.host) == address.host
        assert address.path_and_query.startswith("/")
        assert "#" not in address.url and "@" not in address.authority
        assert parse_web_address(address.url) == address
        assert registrable_domain(address.host)


def test_a_blank_before_a_fragment_is_kept_encoded():
    assert parse_web_address("http://a.example/b #c").path_and_query == "/b%20"


LABEL = st.text(alphabet="abcXYZ019", min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["http", "https"]),
    st.lists(LABEL, min_size=1, max_size=4),
    st.none() | st.integers(0, 65535),
    st.text(alphabet="ab/.%7Eé&=~*$", max_size=12),
    st.none() | st.text(alphabet="ab=/&?", max_size=8),
    st.none() | st.text(alphabet="ab#/", max_size=4),
)
def test_ordinary_urls_split_as_the_standard_library_splits_them(scheme, labels, port, path, query, fragment):
    assume(not re.fullmatch("[0-9]+|0[xX][0-9a-fA-F]*", labels[-1]))  # the standard library knows no such addresses
    url = f"{scheme}://{'.'.join(labels)}" + (f":{port}" if port is not None else "") + "/" + path
    url += ("" if query is None else "?" + query) + ("" if fragment is None else "#" + fragment)
    address, expected = parse_web_address(url), urllib.parse.urlsplit(url)
    assert (address.scheme, address.host) == (expected.scheme, expected.hostname)
    default = web_addresses.DEFAULT_PORTS[scheme]
    assert address.authority == expected.hostname + ("" if port in (None, default) else f":{port}")
    assert address.path_and_query == expected.path + ("" if query is None else "?" + query)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abC.-:/?#\\@% é", max_size=24))
def test_short_way_for_ordinary_urls_equals_the_long_way(rest):
    for url in (f"http://{rest}", f"https://example.com/{rest}"):
        assert web_addresses._parse(url) == web_addresses._parse_any(url)


def test_long_urls_are_not_kept_in_a_cache():
    before = web_addresses._parse_cached.cache_info().currsize
    assert parse_web_address("http://example.com/" + "a" * 1_000_000).host == "example.com"
    assert web_addresses._parse_cached.cache_info().currsize == before


@pytest.mark.parametrize(
    "host, domain",
    [
        ("a.b.example.co.uk", "example.co.uk"),
        ("example.com", "example.com"),
        ("someone.github.io", "someone.github.io"),  # private section: two blogs are two domains
        ("deep.someone.github.io", "someone.github.io"),
        ("www.xn--bcher-kva.de", "xn--bcher-kva.de"),
        ("com", "com"),
        ("co.uk", "co.uk"),
        ("host.unknown-suffix", "host.unknown-suffix"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("localhost", "localhost"),
        ("", ""),
        ("..", ".."),
    ],
)
def test_registrable_domain_is_what_somebody_registered(host, domain):
    assert registrable_domain(host) == domain


@pytest.mark.parametrize(
    ("host", "address"),
    [
        *(("8.8.8.8", "8.8.8.8"), ("134744072", "8.8.8.8"), ("0x08080808", "8.8.8.8"), ("8.8.2056", "8.8.8.8")),
        *(("010.8.8.8", "8.8.8.8"), ("8.526344", "8.8.8.8"), ("127.1", "127.0.0.1"), ("0X7F.1", "127.0.0.1")),
        *(("8.8.8.8.", "8.8.8.8"), ("\uff18.8.8.8", "8.8.8.8"), ("0x", "0.0.0.0"), ("4294967295", "255.255.255.255")),
        *(("256.1.1.1", None), ("4294967296", None), ("1.2.3.4.5", None), ("08.8.8.8", None), ("a.8", None)),
        *(("1..8", None), ("8.8.8.256", None), ("8.8.65536", None), ("0xg.0x1", None), ("9" * 200, None)),
        *(("8.8.8.8a", "8.8.8.8a"), ("0xg", "0xg"), ("8.example", "8.example")),
    ],
)
def test_a_host_that_ends_in_a_number_is_that_address(host, address):
    found = parse_web_address(f"http://{host}/x")
    assert (found and found.host) == address
