"""Checksums of PII candidates: check digits, lengths, issuers and address ranges.

Every function takes a string from which separators were removed and answers yes or no.
"""

from __future__ import annotations

import functools
import ipaddress
import re

# Structure of the account number after country code and check digits, per country: how many of digits (n), capital
# letters (a) or either (c). IBAN registry of SWIFT, release 101.
_IBAN_STRUCTURES = (
    "AD:8n12c AE:19n AL:8n16c AT:16n AZ:4a20c BA:16n BE:12n BG:4a6n8c BH:4a14c BI:23n BR:23n1a1c BY:4c4n16c CH:5n12c "
    "CR:18n CY:8n16c CZ:20n DE:18n DJ:23n DK:14n DO:4c20n EE:16n EG:25n ES:20n FI:14n FK:2a12n FO:14n FR:10n11c2n "
    "GB:4a14n GE:2a16n GI:4a15c GL:14n GR:7n16c GT:24c HN:4a20n HR:17n HU:24n IE:4a14n IL:19n IQ:4a15n IS:22n "
    "IT:1a10n12c JO:4a4n18c KW:4a22c KZ:3n13c LB:4n20c LC:4a24c LI:5n12c LT:16n LU:3n13c LV:4a13c LY:21n "
    "MC:10n11c2n MD:20c ME:18n MK:3n10c2n MN:16n MR:23n MT:4a5n18c MU:4a19n3a NI:4a20n NL:4a10n NO:11n OM:3n16c "
    "PK:4a16c PL:24n PS:4a21c PT:21n QA:4a21c RO:4a16c RS:18n RU:14n15c SA:2n18c SC:4a20n3a SD:14n SE:20n SI:15n "
    "SK:20n SM:1a10n12c SO:19n ST:21n SV:4a20n TL:19n TN:20n TR:6n16c UA:6n19c VA:18n VG:4a16n XK:16n YE:4a4n18c"
)
_CLASSES = {"n": "[0-9]", "a": "[A-Z]", "c": "[A-Z0-9]"}

# Issuer: first and last prefix, permitted lengths (ISO/IEC 7812; ranges as the networks publish them). Left out are
# the thirteen-digit Visa cards, long withdrawn, which one in ten EAN-13 article numbers of Germany or Japan resembles,
# and the parts of Maestro's range that the others do not name.
_ISSUERS = (
    ("4", "4", (16, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),  # Mastercard
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),  # American Express
    ("300", "305", (14, 16, 17, 18, 19)),  # Diners Club
    ("3095", "3095", (14, 16, 17, 18, 19)),  # Diners Club
    ("36", "36", (14, 16, 17, 18, 19)),  # Diners Club
    ("38", "39", (14, 16, 17, 18, 19)),  # Diners Club
    ("6011", "6011", (16, 17, 18, 19)),  # Discover
    ("644", "649", (16, 17, 18, 19)),  # Discover
    ("65", "65", (16, 17, 18, 19)),  # Discover
    ("3528", "3589", (16, 17, 18, 19)),  # JCB
    ("62", "62", (16, 17, 18, 19)),  # UnionPay
    ("2200", "2204", (16, 17, 18, 19)),  # Mir
    ("5018", "5018", (16, 17, 18, 19)),  # Maestro
    ("5020", "5020", (16, 17, 18, 19)),  # Maestro
    ("5038", "5038", (16, 17, 18, 19)),  # Maestro
    ("5893", "5893", (16, 17, 18, 19)),  # Maestro
    ("6304", "6304", (16, 17, 18, 19)),  # Maestro
    ("6759", "6759", (16, 17, 18, 19)),  # Maestro
    ("6761", "6763", (16, 17, 18, 19)),  # Maestro
)
_VALUES = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED = bytes.maketrans(bytes(range(10)), bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
_UNICAST = ipaddress.ip_network("2000::/3")


@functools.cache
def iban_shapes() -> dict[str, tuple[int, re.Pattern[str]]]:
    """Returns country → (length of the whole number, pattern of what follows the check digits)."""
    shapes = {}
    for entry in _IBAN_STRUCTURES.split():
        country, structure = entry.split(":")
        parts = [(int(count), kind) for count, kind in re.findall(r"([0-9]+)([nac])", structure)]
        pattern = "".join(f"{_CLASSES[kind]}{{{count}}}" for count, kind in parts)
        shapes[country] = 4 + sum(count for count, _ in parts), re.compile(pattern)
    return shapes


def is_iban(number: str) -> bool:
    """Returns whether a compact, upper-case string is an IBAN: country, length, structure, and remainder 1 modulo 97.

    Check digits 00, 01 and 99 pass the remainder but are never issued (ISO 13616).
    """
    shape = iban_shapes().get(number[:2])
    if shape is None or len(number) != shape[0] or number[2:4] in ("00", "01", "99"):
        return False
    if not (number.isascii() and number[2:4].isdigit() and shape[1].fullmatch(number, 4)):
        return False
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1


def is_ahv(digits: str) -> bool:
    """Returns whether thirteen ASCII digits are a Swiss social insurance number: 756 and the EAN-13 check digit."""
    if len(digits) != 13 or not digits.startswith("756"):
        return False
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits))
    return total % 10 == 0


def is_card(digits: str) -> bool:
    """Returns whether ASCII digits are a payment card number: an issuer's prefix and length, and the Luhn check."""
    length = len(digits)
    known = any(length in lengths and first <= digits[: len(first)] <= last for first, last, lengths in _ISSUERS)
    return known and passes_luhn(digits)


def passes_luhn(digits: str) -> bool:
    """Returns whether the last digit is the check digit of the others (ISO/IEC 7812, annex B)."""
    values = digits[::-1].encode().translate(_VALUES)
    return (sum(values[0::2]) + sum(values[1::2].translate(_DOUBLED))) % 10 == 0


def is_public_ipv4(address: str) -> bool:
    """Returns whether a dotted string is an IPv4 address that is globally reachable (IANA special-purpose registry)."""
    try:
        return ipaddress.IPv4Address(address).is_global
    except ValueError:
        return False


def is_public_ipv6(address: str) -> bool:
    """Returns whether a string is a global unicast IPv6 address (2000::/3, less the special-purpose registry)."""
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return parsed in _UNICAST and parsed.is_global


def is_ip(address: str) -> bool:
    """Returns whether a string is an IP address of either family, public or not."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
