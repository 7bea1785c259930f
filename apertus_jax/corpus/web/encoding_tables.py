"""Differences of the WHATWG Encoding Standard's tables from Python's codecs, as code points.

Found by comparing every sequence of each table with a browser (tests/corpus/web/web_encodings/make_digests.py); `tests`
hold every whole table against the digests that it made.
"""

from __future__ import annotations

from collections.abc import Mapping

# Encoding → the codec that has nearly its table.
CODECS = {
    "ibm866": "cp866",
    "iso-8859-8-i": "iso8859-8",
    "koi8-u": "koi8-u",
    "macintosh": "mac-roman",
    "windows-874": "cp874",
    "x-mac-cyrillic": "mac-cyrillic",
    "big5": "big5hkscs",
    "euc-jp": "euc_jp",
    "euc-kr": "cp949",
    "gb18030": "gb18030",
    "shift_jis": "cp932",
}
# What the vendors left free in these stands for the control characters of C1.
WITH_CONTROLS = "windows-"
SINGLE_BYTES = {"koi8-u": {0xAE: "\u045e", 0xBE: "\u040e"}, "windows-1255": {0xCA: "\u05ba"}}

_VERTICAL_FORMS = (0xFE10, 0xFE12, 0xFE11, 0xFE13, 0xFE14, 0xFE15, 0xFE16)
# The edition of 2022 gives eighteen characters their own code points; the ideographic space has a second place.
GB18030 = {
    b"\x80": "\u20ac",
    b"\xa3\xa0": "\u3000",
    b"\xa8\xbc": "\u1e3f",
    b"\x81\x35\xf4\x37": "\ue7c7",
    **{bytes((0xA6, trail)): chr(code) for trail, code in zip(range(0xD9, 0xE0), _VERTICAL_FORMS, strict=True)},
    **{bytes((0xA6, trail)): chr(code) for trail, code in ((0xEC, 0xFE17), (0xED, 0xFE18), (0xF3, 0xFE19))},
    **{bytes((0xFE, trail)): chr(0x9FB4 + place) for place, trail in enumerate(b"\x59\x61\x66\x67\x6d\x7e\x90\xa0")},
}
EUC_JP = {b"\x8f\xa2\xb7": "\uff5e"}

# Hong Kong's supplement of 2008 (87 7A to 87 DF), then characters that it has twice, then Microsoft's readings.
_SUPPLEMENT = """
    3875 21D53 2369E 26021 3EEC 258DE 3AF5 7AFC 9F97 24161 2890D 231EA 20A8A 2325E 430A 8484
    9F96 942F 4930 8613 5896 974A 9218 79D0 7A32 6660 6A29 889D 744C 7BC5 6782 7A2C
    524F 9046 34E6 73C4 25DB9 74C6 9FC7 57B3 492F 544C 4131 2368E 5818 7A72 27B65 8B8F
    46AE 26E88 4181 25D99 7BAE 224BC 9FC8 224C1 224C9 224CC 9FC9 8504 235BB 40B4 9FCA 44E1
    2ADFF 62C1 706E 9FCB
"""
_BIG5 = """
    8e69=7BB8 8e6f=7C06 8e7e=7CCE 8eab=7DD2 8eb4=7E1D 8ecd=8005 8ed0=8028 8f57=83C1 8f69=84A8 8f6e=840F
    8fcb=89A6 8fcc=89A9 8ffe=8D77 906d=90FD 907a=92B9 90dc=975C 90f1=97FF 91bf=9F16 9244=8503 92af=5159
    92b0=515B 92b1=515D 92b2=515E 92c8=936E 92d1=7479 9447=6D67 94ca=799B 95d9=9097 9644=975D 96ed=701E
    96fc=5B28 9b76=7201 9b78=77D7 9b7b=7E87 9bc6=99D6 9bde=91D4 9bec=60DE 9bf6=6FB6 9c42=8F36 9c53=4FBB
    9c62=71DF 9c68=9104 9c6b=9DF0 9c77=83CF 9cbc=5C10 9cbd=79E3 9cd0=5A67 9d57=8F0B 9d5a=7B51 9dc4=62D0
    9ea9=6062 9eef=75F9 9efd=6C4A 9f60=9B2E 9f66=9F17 9fcb=50ED 9fd8=5F0C a063=880F a077=62CE a0d5=7468
    a0df=7162 a0e4=7250 a145=2027 a14e=FE51 a1c2=00AF a1e3=FF5E a1f2=2295 a1f3=2299 a241=2215 a242=FE68
    a244=FFE5 a246=FFE0 a247=FFE1 c6cf=5EF4 c6d3=65E0 c6d5=7676 c6d7=96B6 c6de=3003 c6df=4EDD fa5f=5029
    fa66=507D fabd=5305 fac5=5344 fad5=537F fb48=5605 fbb8=5A77 fbf3=5E75 fbf9=5ED0 fc4f=5F58 fc6c=60A4
    fcb9=6490 fce2=6674 fcf1=675E fdb7=6C9C fdb8=6E1D fdbb=6E2F fdf1=716E fe52=732A fe6f=745C feaa=74E9
    fedd=7809
"""


def _big5() -> dict[bytes, str]:
    """Returns the corrections of Big5: two bytes → character."""
    trails = [*range(0x7A, 0x7F), *range(0xA1, 0xE0)]
    table = {bytes((0x87, trail)): chr(int(code, 16)) for trail, code in zip(trails, _SUPPLEMENT.split(), strict=True)}
    table |= {bytes((0xA3, 0xC0 + place)): chr(code) for place, code in enumerate([*range(0x2400, 0x2420), 0x2421])}
    table[b"\xa3\xe1"] = "\u20ac"
    pairs = (pair.split("=") for pair in _BIG5.split())
    return table | {bytes.fromhex(place): chr(int(code, 16)) for place, code in pairs}


CORRECTIONS: Mapping[str, Mapping[bytes, str]] = {
    "big5": _big5(),
    "euc-jp": EUC_JP,
    "euc-kr": {},
    "gb18030": GB18030,
    "shift_jis": {},
}

# Characters that a codec gives for sequences which are none, or another one, in the standard.
_OTHERS = {"euc-jp": "\u301c\u2016\u2212\u00a2\u00a3\u00ac", "shift_jis": "\uf8f0\uf8f1\uf8f2\uf8f3"}


def doubtful_characters(encoding: str) -> str:
    """Returns the characters whose presence in a codec's output says that it may not be what the standard gives."""
    found = _OTHERS.get(encoding, "")
    for sequence in CORRECTIONS[encoding]:
        try:
            found += sequence.decode(CODECS[encoding])
        except UnicodeDecodeError:
            continue
    return "".join(sorted({each for each in found if each > "\x7f"}))
