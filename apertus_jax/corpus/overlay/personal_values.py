"""Synthetic personal data: values that pass every check and belong to nobody, and look-alikes.

E-mail addresses lie below reserved names. Public IPv4 addresses are of a network that is not routed on the internet,
IPv6 ones of a block that was never assigned. Account, insurance and card numbers have random digits and computed check
digits; cards begin like test cards.
"""

from __future__ import annotations

import ipaddress
import random

FIRST_NAMES = ("ada", "bruno", "carla", "dario", "elif", "fritz", "greta", "henri", "ines", "jonas", "kaya", "luca")
LAST_NAMES = ("almquist", "berneck", "corvo", "dunmore", "eschen", "falkner", "grindel", "hollis", "ibarra", "jansson")
IBAN_STRUCTURES = {"CH": "n" * 17, "DE": "n" * 18, "GB": "aaaa" + "n" * 14, "NL": "aaaa" + "n" * 10, "BE": "n" * 12}
KINDS = ("email", "ip", "iban", "ahv", "card")


def personal_value(kind: str, generator: random.Random) -> str:
    """Returns a valid value of one of `KINDS`."""
    return {"email": _email, "ip": _ip, "iban": _iban, "ahv": _ahv, "card": _card}[kind](generator)


def harmless_value(kind: str, generator: random.Random) -> str:
    """Returns a value that looks like one of `KINDS` and is none: a wrong check digit, an address for documentation."""
    if kind == "email":
        return f"{generator.choice(FIRST_NAMES)} at {generator.choice(LAST_NAMES)} dot example"
    if kind == "ip":
        return f"{generator.choice(('192.0.2', '198.51.100', '10.0.0'))}.{generator.randint(1, 254)}"
    valid = personal_value(kind, generator)
    place = 3 if kind == "iban" else len(valid) - 1
    return valid[:place] + str((int(valid[place]) + 1) % 10) + valid[place + 1 :]


def _digits(count: int, generator: random.Random) -> str:
    return "".join(generator.choice("0123456789") for _ in range(count))


def _email(generator: random.Random) -> str:
    domain = generator.choice(("post.example", "mail.test", "letters.invalid"))
    return f"{generator.choice(FIRST_NAMES)}.{generator.choice(LAST_NAMES)}{generator.randint(10, 9999)}@{domain}"


def _ip(generator: random.Random) -> str:
    if generator.random() < 0.7:
        return "11." + ".".join(str(generator.randint(1, 254)) for _ in range(3))
    return ipaddress.IPv6Address((0x2D << 120) | generator.getrandbits(120)).compressed


def _iban(generator: random.Random) -> str:
    country = generator.choice(sorted(IBAN_STRUCTURES))
    account = "".join(
        generator.choice("0123456789" if kind == "n" else "BCDFGHJK") for kind in IBAN_STRUCTURES[country]
    )
    number = int("".join(str(int(character, 36)) for character in f"{account}{country}00"))
    compact = f"{country}{98 - number % 97:02d}{account}"
    return compact if generator.random() < 0.4 else " ".join(compact[at : at + 4] for at in range(0, len(compact), 4))


def _ahv(generator: random.Random) -> str:
    body = "756" + _digits(9, generator)
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(body))
    number = body + str(-total % 10)
    return f"{number[:3]}.{number[3:7]}.{number[7:11]}.{number[11:]}"


def _card(generator: random.Random) -> str:
    body = "400000" + _digits(9, generator)
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in body[0::2])
    number = body + str(-(doubled + sum(map(int, body[1::2]))) % 10)
    separator = generator.choice(("", " ", "-"))
    return separator.join(number[at : at + 4] for at in range(0, 16, 4))
