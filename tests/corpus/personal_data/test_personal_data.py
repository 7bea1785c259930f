"""What is personal data: vectors, checks against independent ones, boundaries, policies, URLs, the column."""

import ipaddress
import random

import pytest
import stdnum.ch.ssn
import stdnum.iban
import stdnum.luhn

from apertus_jax.corpus.personal_data import KINDS, PersonalDataPolicy, PersonalDataScoring, rewrite, rewrite_url
from apertus_jax.corpus.personal_data.checks import (
    iban_shapes,
    is_ahv,
    is_card,
    is_iban,
    is_public_ipv4,
    is_public_ipv6,
    passes_luhn,
)
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.errors import UserError

STRICT = PersonalDataPolicy()
EVERYTHING = PersonalDataPolicy(kinds=KINDS)

REWRITTEN = [
    ("CH93 0076 2011 6238 5295 7", "<iban-pii>"),
    ("DE89 3704 0044 0532 0130 00", "<iban-pii>"),
    ("GB82 WEST 1234 5698 7654 32", "<iban-pii>"),
    ("NL91 ABNA 0417 1643 00", "<iban-pii>"),
    ("BE68 5390 0754 7034", "<iban-pii>"),
    ("BE68539007547034,", "<iban-pii>,"),
    ("IBAN:de89370400440532013000.", "IBAN:<iban-pii>."),
    ("FR14\u00a02004\u00a01010\u00a00505\u00a00001\u00a03M02\u00a0606 ", "<iban-pii> "),
    ("to DE89-3704-0044-0532-0130-00", "to <iban-pii>"),
    ("pay CH93 0076 2011 6238 5295 7 2024", "pay <iban-pii> 2024"),
    ("(8.8.8.8)", "(<ip-pii>)"),
    ("from 8.8.8.8.", "from <ip-pii>."),
    ("8.8.8.8-8.8.4.4", "<ip-pii>-<ip-pii>"),
    ("8.8.8.8:53", "<ip-pii>:53"),
    ("地址8.8.8.8是", "地址<ip-pii>是"),
    ("http://[2a00:1450:4001:81b::200e]:80/", "http://[<ip-pii>]:80/"),
    ("2001:4860:4860::8888.", "<ip-pii>."),
    ("server 2001:4860:4860:0:0:0:0:8888: down", "server <ip-pii>: down"),
    ("64:ff9b::8.8.8.8", "64:ff9b::<ip-pii>"),
    ("AHV 756.9217.0769.85", "AHV <ahv-pii>"),
    ("7569217076985", "<ahv-pii>"),
    ("756 9217 0769 85", "<ahv-pii>"),
    ("4111 1111 1111 1111", "<card-pii>"),
    ("4111 1111 1111 1111 123", "<card-pii> 123"),
    ("5500-0000-0000-0004", "<card-pii>"),
    ("4111 1111 1111 1111 5500 0000 0000 0004", "<card-pii> <card-pii>"),
    ("3782 822463 10005", "<card-pii>"),
    ("378282246310005", "<card-pii>"),
    ("3056 930902 5904", "<card-pii>"),
    ("6011111111111117", "<card-pii>"),
    ("mail anna@example.org!", "mail <email-pii>!"),
    ("<a.b+c@x-y.co.uk>", "<<email-pii>>"),
    ("'o'brien@example.org'", "'<email-pii>'"),
    ("müller@exämple.de", "<email-pii>"),
    ("用户@例子.公司", "<email-pii>"),
    ("пример@почта.рф", "<email-pii>"),
    ("请联系foo@bar.com谢谢", "请联系<email-pii>谢谢"),
    ("anna@x.org/bob@y.com", "<email-pii>/<email-pii>"),
    ("wait...anna@x.org", "wait...<email-pii>"),
    ("root@[8.8.8.8]", "<email-pii>"),
    ("a@b.com@c.com", "<email-pii>@c.com"),
    ("8.8.8.8@x.org", "<email-pii>"),
]
UNTOUCHED = [
    "DE00 3704 0044 0532 0130 00",
    "CH93 0076 2011 6238 5295 8",
    "XCH9300762011623852957",
    "CH93007620116238529570",
    "ZZ93 0076 2011 6238 5295 7",
    "1.2.3.4.5",
    "999.1.2.3",
    "1.2.3.999",
    "10.0.0.1 192.168.1.1 127.0.0.1 169.254.1.1 224.0.0.256",
    "v8.8.8.8",
    "version 8.8.8.8",
    "see Section 3.14.15.92",
    "§ 3.14.15.92",
    "08.8.8.8.1",
    "::1 fe80::1 2001:db8::1",
    "12:30:45 std::vector 2024:10:23 a::b",
    "12001:4860:4860::8888",
    "756.9217.0769.86",
    "1756.9217.0769.85",
    "756.9217 0769.85",
    "4111 1111 1111 1112",
    "1234567812345670",
    "14111111111111111",
    "4111-1111 1111-1111",
    "DE39 4917 9045 8186 0456 08",
    "0.4111111111111111",
    "image@2x.png",
    "@media user@ @x.org a@b user@localhost",
    "<email-pii> <ip-pii> <iban-pii> <ahv-pii> <card-pii> <phone-pii>",
]
PHONES = [
    ("Tel. +41 44 668 18 00.", "Tel. <phone-pii>."),
    ("+1 (212) 555-0100", "<phone-pii>"),
    ("0041446681800", "<phone-pii>"),
    ("079 123 45 67", "<phone-pii>"),
    ("+289 999 999 999", "+289 999 999 999"),
    ("+41 44", "+41 44"),
    ("2+2=4, 1000 000 000", "2+2=4, 1000 000 000"),
]


def document(text, source="web"):
    return RawDocument(document_id="0" * 32, text=text, source=source, file="f", row=1)


@pytest.mark.parametrize(("text", "expected"), REWRITTEN)
def test_personal_data_becomes_the_marker_of_its_kind(text, expected):
    assert rewrite(text, STRICT).text == expected


@pytest.mark.parametrize("text", UNTOUCHED)
def test_what_fails_a_check_or_a_boundary_stays(text):
    assert rewrite(text, STRICT) == type(rewrite("", STRICT))(text, dict.fromkeys(STRICT.kinds, 0), ())


@pytest.mark.parametrize(("text", "expected"), PHONES)
def test_phone_numbers_are_replaced_only_when_asked_for(text, expected):
    assert rewrite(text, EVERYTHING).text == expected
    assert rewrite(text, STRICT).text == text


def test_only_the_chosen_kinds_are_replaced():
    text = "anna@x.org 8.8.8.8 BE68539007547034"
    assert rewrite(text, PersonalDataPolicy(kinds=("iban",))).text == "anna@x.org 8.8.8.8 <iban-pii>"
    assert rewrite(text, PersonalDataPolicy(kinds=())).text == text


def test_iban_check_equals_an_independent_one():
    generator = random.Random(1)
    digits, letters = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    agreed = 0
    for _ in range(6_000):
        country = generator.choice(sorted(iban_shapes()))
        length = iban_shapes()[country][0] + generator.choice((0, 0, 0, 0, 0, 0, 0, -1, 1))
        alphabet = generator.choice((digits, digits + letters))
        account = "".join(generator.choice(alphabet) for _ in range(length - 4))
        if generator.random() < 0.5:
            account = generator.choice("A0") * 4 + account[4:]
            rest = int("".join(str(int(c, 36)) for c in account + country + "00")) % 97
            check = f"{98 - rest:02d}"
        else:
            check = f"{generator.randrange(2, 99):02d}"
        number = country + check + account
        assert is_iban(number) == stdnum.iban.is_valid(number, check_country=False), number
        agreed += is_iban(number)
    assert agreed > 300


def test_ahv_check_equals_an_independent_one():
    generator = random.Random(2)
    numbers = [generator.choice(("756", "757")) + f"{generator.randrange(10**10):010d}" for _ in range(5_000)]
    assert [is_ahv(number) for number in numbers] == [
        number.startswith("756") and stdnum.ch.ssn.is_valid(number) for number in numbers
    ]


def test_luhn_is_right_and_cards_need_issuer_and_length():
    generator = random.Random(3)
    numbers = [f"{generator.randrange(10**19):019d}"[: generator.randint(12, 19)] for _ in range(5_000)]
    assert [passes_luhn(number) for number in numbers] == [stdnum.luhn.is_valid(number) for number in numbers]

    def valid(prefix, length):
        body = prefix + "".join(generator.choice("0123456789") for _ in range(length - 1 - len(prefix)))
        return body + stdnum.luhn.calc_check_digit(body)

    for prefix, length in [("4", 16), ("4", 19), ("51", 16), ("2720", 16), ("37", 15), ("36", 14), ("3589", 16)]:
        assert all(is_card(valid(prefix, length)) for _ in range(50)), prefix
    for prefix, length in [("4", 15), ("4", 13), ("51", 17), ("2721", 16), ("37", 16), ("9", 16), ("1", 16)]:
        assert not any(is_card(valid(prefix, length)) for _ in range(50)), prefix


def test_public_addresses_equal_the_registry():
    generator = random.Random(4)
    for _ in range(5_000):
        four, six = ipaddress.IPv4Address(generator.getrandbits(32)), ipaddress.IPv6Address(generator.getrandbits(128))
        assert is_public_ipv4(str(four)) == four.is_global
        assert is_public_ipv6(str(six)) == (six.is_global and int(six) >> 125 == 1)


def random_numbers(count, seed):
    """Returns strings that look like the validated kinds, most of them wrong, with the kinds that they really are."""
    generator = random.Random(seed)

    def digits(number):
        return "".join(generator.choice("0123456789") for _ in range(number))

    def grouped(text, sizes, separator):
        pieces, position = [], 0
        for size in sizes:
            pieces.append(text[position : position + size])
            position += size
        return separator.join(piece for piece in pieces if piece)

    for _ in range(count):
        shape = generator.randrange(5)
        if shape == 0:
            text = ".".join(str(generator.randrange(320)) for _ in range(generator.choice((3, 4, 4, 4, 5))))
            yield text, "ip" if _global(text) else None
        elif shape == 1:
            country = generator.choice(("CH", "DE", "BE", "AT", "ES", "QQ"))
            number = country + digits(2) + digits(iban_shapes().get(country, (22,))[0] - 4)
            good = number[2:4] not in ("00", "01", "99") and stdnum.iban.is_valid(number, check_country=False)
            yield grouped(number, [4] * 8, generator.choice(("", " "))), "iban" if good else None
        elif shape == 2:
            number = "756" + digits(10)
            text = grouped(number, (3, 4, 4, 2), generator.choice(("", ".", " ")))
            yield text, "ahv" if stdnum.ch.ssn.is_valid(number) else None
        elif shape == 3:
            number = "4" + digits(15)
            text = grouped(number, [4] * 4, generator.choice(("", "-", " ")))
            yield text, "card" if stdnum.luhn.is_valid(number) else None
        else:
            groups = [f"{generator.getrandbits(16):x}" for _ in range(generator.choice((7, 8, 8, 9)))]
            text = ":".join(groups)
            yield text, "ip" if len(groups[0]) == 4 and groups[0][0] in "23" and _global(text) else None


def _global(text):
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def test_precision_and_recall_of_numbers_are_99_percent():
    found = right = expected = 0
    for text, kind in random_numbers(8_000, seed=5):
        spans = rewrite(f"x {text} y", STRICT).spans
        found += len(spans)
        expected += kind is not None
        right += [(span.kind, span.start, span.end) for span in spans] == [(kind, 2, 2 + len(text))]
    assert expected > 400
    assert right / found >= 0.99
    assert right / expected >= 0.99


URLS = [
    ("https://x.org/u/anna%40y.com/p", "https://x.org/u/<email-pii>/p"),
    ("https://x.org/?to=anna@y.com&b=1", "https://x.org/?to=<email-pii>&b=1"),
    ("https://x.org/a?u=anna%2540y.com#top", "https://x.org/a?u=<email-pii>#top"),
    ("https://x.org/?iban=CH93+0076+2011+6238+5295+7", "https://x.org/?iban=<iban-pii>"),
    ("https://x.org/?iban=CH93%200076%202011%206238%205295%207", "https://x.org/?iban=<iban-pii>"),
    ("https://x.org/?u=anna+list@y.com", "https://x.org/?u=<email-pii>"),
    ("https://anna:secret@x.org/a", "https://x.org/a"),
    ("https://x.org/m%C3%BCller%40y.de", "https://x.org/<email-pii>"),
    ("http://8.8.8.8:80/from/9.9.9.9", "http://8.8.8.8:80/from/<ip-pii>"),
    ("mailto:anna@y.com", "mailto:<email-pii>"),
    ("https://x.org/%FF%FE/caf%C3%A9?a=b+c%20d", "https://x.org/%FF%FE/caf%C3%A9?a=b+c%20d"),
    ("pkg:pypi/gflanguages@1.0#a/b", "pkg:pypi/gflanguages@1.0#a/b"),
]


@pytest.mark.parametrize(("url", "expected"), URLS)
def test_urls_lose_personal_data_also_when_percent_encoded(url, expected):
    assert rewrite_url(url, STRICT) == expected
    assert rewrite_url(expected, STRICT) == expected


def test_policy_mistakes_are_one_clear_line():
    for arguments in (
        {"mode": "strickt"},
        {"kinds": ("emial",)},
        {"kinds": "email"},
        {"skip_sources": "code"},
        {"mode": "apertus", "kinds": ("card",)},
    ):
        with pytest.raises(UserError) as error:
            PersonalDataPolicy(**arguments)
        assert "\n" not in str(error.value)
    assert PersonalDataPolicy(kinds=("ip", "email")) == PersonalDataPolicy(kinds=("email", "ip", "ip"))


def test_column_counts_each_kind_and_is_empty_where_skipped():
    import pyarrow

    scorer = PersonalDataScoring(PersonalDataPolicy(skip_sources=("code",))).build()
    documents = [document("anna@x.org bob@y.org 8.8.8.8"), document("anna@x.org", "code"), document("nothing")]
    rows = scorer.score(documents)
    assert rows[0]["personal_data_counts"] == {"email": 2, "ip": 1, "iban": 0, "ahv": 0, "card": 0}
    assert rows[1]["personal_data_counts"] is None
    assert sum(rows[2]["personal_data_counts"].values()) == 0
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(scorer.schema()))
    assert table.to_pylist() == rows
    assert not any(value in repr((rows, scorer.identity())) for value in ("anna", "bob", "8.8.8.8"))


def test_one_document_at_a_time_equals_the_batch():
    scorer = PersonalDataScoring(EVERYTHING).build()
    documents = [document(f"{text} {kind}") for text, kind in random_numbers(300, seed=6)]
    assert scorer.score(documents) == [row for one in documents for row in scorer.score([one])]
