"""Numeric hosts: addresses of both families, e-mail before them, and what is only numbered like an address."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.personal_data import PersonalDataPolicy, rewrite
from tests.processor_time import assert_linear, repeated

STRICT = PersonalDataPolicy()

ONE_MARKER = [
    ("2400:cb00::93.184.216.34", "<ip-pii>"),
    ("[2400:cb00::93.184.216.34]:443", "[<ip-pii>]:443"),
    ("http://[2400:CB00:1:2:3:4:93.184.216.34]/x", "http://[<ip-pii>]/x"),
    ("2400:cb00::93.184.216.34/96", "<ip-pii>/96"),
    ("2400:cb00::93.184.216.34%eth0 up", "<ip-pii> up"),
    ("2400:cb00::93.184.216.34:80", "<ip-pii>:80"),
    ("IPv6:2400:cb00::1", "IPv6:<ip-pii>"),
    ("IPv6:2400:cb00::93.184.216.34:80", "IPv6:<ip-pii>:80"),
    ("64:ff9b::8.8.8.8", "64:ff9b::<ip-pii>"),
    ("anna@123.123.123.123", "<email-pii>"),
    ("write to anna@10.0.0.1.", "write to <email-pii>."),
    ("anna@[192.0.2.1]", "<email-pii>"),
    ("anna@[8.8.4.4]", "<email-pii>"),
    ("anna@[IPv6:2001:db8::1]", "<email-pii>"),
    ("anna@[fe80::1%eth0]", "<email-pii>"),
    ("anna@2400:cb00::1", "<email-pii>"),
    ("anna@2400:cb00::93.184.216.34!", "<email-pii>!"),
    ("anna@8.8.8.8.example.org", "<email-pii>"),
    ('"anna muster"@example.org', "<email-pii>"),
    (r'to "anna \"x\" muster"@[8.8.8.8] now', "to <email-pii> now"),
    ("mailto:anna@8.8.8.8?subject=x", "mailto:<email-pii>?subject=x"),
    ("müller@123.123.123.123", "<email-pii>"),
]
ADDRESSES = [
    *(
        "ping {}",
        "http://{}/",
        "https://ipinfo.io/{}",
        "({})",
        "[{}]:25",
        "y ([{}])",
        "dns = [{}]",
        "<{}>",
        "<td>{}</td>",
        "dns={}",
        "--host={}",
        "=> {}",
    ),
    *("ip.addr=={}", "host == {}", "nameserver {}", "from mail.example.org [{}]", "([{}])", "{}:53", "{}.", "x < {}"),
    *("{}.in-addr.arpa", "ip-{}", "for example {}", "logged in from {}", "Received: by {}", "{} - - [10/Oct/2000]"),
]
NUMBERINGS = [
    *(
        "foo=={}",
        "foo>={},<9",
        "foo == {}",
        "foo~={}",
        "libfoo.so.{}",
        "[{}]",
        "see [{}].",
        "Figure {}",
        "Sec. {}",
        "Eq. ({})",
        "<version>{}</version>",
        'AssemblyVersion("{}")',
        '"foo": "^{}"',
        "Fig. {}: a plot",
    ),
    *(
        "Section {}",
        "§ {}",
        "Table {}",
        "Abbildung {}",
        "Version: {}",
        '"version": "{}"',
        "v{}",
        "release {}",
        "foo-{}",
    ),
    *(
        "foo-{}.tar.gz",
        "foo_{}-1ubuntu2",
        "{}-beta1",
        "{}rc1",
        "Chrome/{} Safari",
        "EC {}",
        "OID {}",
        "versions {} and {}",
    ),
]
REMOTES = [
    "git@github.com:a/b.git",
    "git clone git@git.example.org:group/sub/b.git",
    "ssh://git@github.com/a/b.git",
    "git+ssh://git@git.example.org/a",
    "scp x user@host.example.org:path/file",
    "rsync user@host.example.org:~/x .",
    "hg@bitbucket.org:/a/b",
]


@pytest.mark.parametrize(("text", "expected"), ONE_MARKER)
def test_numeric_hosts_become_one_marker_with_all_before_them(text, expected):
    assert rewrite(text, STRICT).text == expected
    assert rewrite(expected, STRICT).text == expected


@pytest.mark.parametrize("context", ADDRESSES)
def test_addresses_are_found_in_their_contexts(context):
    assert rewrite(context.format("8.8.4.4"), STRICT).text == context.format("<ip-pii>")


@pytest.mark.parametrize("context", NUMBERINGS)
def test_numbers_of_versions_and_figures_are_left_alone(context):
    text = context.replace("{}", "8.4.2.1")
    assert rewrite(text, STRICT).text == text


@pytest.mark.parametrize("text", REMOTES)
def test_places_of_sources_are_left_alone(text):
    assert rewrite(text, STRICT).text == text


def test_mail_to_people_is_found_beside_colons():
    for text in (
        "Anna anna@example.org: hello",
        "anna@example.org:8080/x",
        "https://anna@example.org/x",
        "anna@x.org:",
    ):
        assert "<email-pii>" in rewrite(text, STRICT).text


def test_host_names_that_only_look_hexadecimal_are_no_hosts():
    for text in ("anna@[abc]", "x@a::b", "anna@12:30", "anna@999.1.2.3", "anna@::1"):
        assert rewrite(text, STRICT).spans == ()


ipv6 = st.one_of(
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**125 - 1).map(lambda number: number + (1 << 125)),  # 2000::/3
    st.tuples(st.integers(0x2400, 0x2AFF), st.integers(0, 2**32 - 1)).map(lambda pair: (pair[0] << 112) + pair[1]),
).map(ipaddress.IPv6Address)


def spellings(address):
    """Returns an IPv6 address in its ways: short, whole, in capitals, with the last 32 bits as IPv4."""
    groups = address.exploded.split(":")
    tail = str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    mixed = [":".join([*groups[:6], tail]), ":".join([*(group.lstrip("0") or "0" for group in groups[:6]), tail])]
    if int(address) >> 32 & 0xFFFF == 0:
        head = ":".join(groups[:6]).rstrip("0:") or ""
        mixed.append(f"{head}::{tail}")
    return [address.compressed, address.exploded, address.compressed.upper(), *mixed]


@settings(max_examples=400, deadline=None)
@given(ipv6, st.sampled_from(["{}", "x {} y", "[{}]:80", "({}),", "{}.", "{}/64"]))
def test_ipv6_addresses_are_whole_in_every_spelling(address, around):
    public = address.is_global and int(address) >> 125 == 1
    for spelled in spellings(address):
        try:
            if ipaddress.IPv6Address(spelled) != address:
                continue
        except ValueError:
            continue
        found = rewrite(around.format(spelled), STRICT).text
        if public:
            assert found == around.format("<ip-pii>"), spelled
        elif "." not in spelled:  # of others an embedded public IPv4 address is replaced
            assert found == around.format(spelled), spelled


@settings(max_examples=400, deadline=None)
@given(
    st.ip_addresses(), st.sampled_from(["anna", "a.b+c", "müller", '"a b"']), st.sampled_from(["{}", "<{}>", "x {}, y"])
)
def test_mail_at_any_address_is_one_marker(address, local, around):
    hosts = [f"[{address}]", f"[IPv6:{address}]" if address.version == 6 else str(address)]
    if address.version == 6 and len(str(address)) > 5 and any(character.isdecimal() for character in str(address)):
        hosts.append(str(address))
    for host in hosts:
        text = around.format(f"{local}@{host}")
        assert rewrite(text, STRICT).text == around.format("<email-pii>"), text


@settings(max_examples=400, deadline=None)
@given(st.ip_addresses(v=4), st.sampled_from(ADDRESSES), st.sampled_from(NUMBERINGS))
def test_public_ipv4_is_found_and_numbering_never(address, context, numbering):
    expected = context.format("<ip-pii>") if address.is_global else context.format(address)
    assert rewrite(context.format(address), STRICT).text == expected
    text = numbering.replace("{}", str(address))
    assert rewrite(text, STRICT).text == text


@pytest.mark.parametrize(
    "piece", ['"', '"a@', "anna@1.2.3.", "anna@2400:", "git@x.org:a", "foo==8.8.4.4,", "[8.8.4.4]"]
)
@pytest.mark.timed
def test_time_stays_linear_on_halves_of_hosts(piece):
    assert_linear(lambda text: rewrite(text, STRICT), repeated(piece), 8_000)
