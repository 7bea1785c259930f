"""What is asked about each encoding of the WHATWG Encoding Standard: every sequence of its table, noise, and a page."""

import hashlib
import itertools
import re
from collections.abc import Iterator

SINGLE_BYTES = (
    *("ibm866", "iso-8859-2", "iso-8859-3", "iso-8859-4", "iso-8859-5", "iso-8859-6", "iso-8859-7", "iso-8859-8"),
    *("iso-8859-8-i", "iso-8859-10", "iso-8859-13", "iso-8859-14", "iso-8859-15", "iso-8859-16", "koi8-r", "koi8-u"),
    *("macintosh", "windows-874", "windows-1250", "windows-1251", "windows-1252", "windows-1253", "windows-1254"),
    *("windows-1255", "windows-1256", "windows-1257", "windows-1258", "x-mac-cyrillic", "x-user-defined"),
)
SEVERAL_BYTES = ("big5", "euc-jp", "euc-kr", "gb18030", "gbk", "iso-2022-jp", "shift_jis")
UNICODE = ("utf-8", "utf-16be", "utf-16le")
ENCODINGS = (*SINGLE_BYTES, *SEVERAL_BYTES, *UNICODE)
NOISE_BYTES = 20_000
# A sentence in a language that is written in the encoding; its letters stand beside the whole table on the page.
SENTENCES = {
    "big5": "今天的天氣很好，我們去公園散步。",
    "euc-jp": "きょうは天気がいいので、公園を散歩します。",
    "euc-kr": "오늘은 날씨가 좋아서 공원을 산책합니다.",
    "gb18030": "今天天气很好，我们去公园散步。",
    "gbk": "今天天气很好，我们去公园散步。",
    "ibm866": "Сегодня хорошая погода, и мы гуляем в парке.",
    "iso-2022-jp": "きょうは天気がいいので、公園を散歩します。",
    "iso-8859-2": "Dziś jest ładna pogoda, więc idziemy do parku.",
    "iso-8859-3": "Hodiaŭ la vetero estas bela, ni promenas en la ĝardeno.",
    "iso-8859-4": "Šiandien gražus oras, einame į parką.",
    "iso-8859-5": "Днес времето е хубаво и се разхождаме в парка.",
    "iso-8859-6": "الطقس جميل اليوم ونحن نمشي في الحديقة.",
    "iso-8859-7": "Σήμερα ο καιρός είναι καλός και πάμε στο πάρκο.",
    "iso-8859-8": "היום מזג האוויר יפה ואנחנו הולכים לפארק.",
    "iso-8859-8-i": "היום מזג האוויר יפה ואנחנו הולכים לפארק.",
    "iso-8859-10": "Í dag er gott veður og við göngum í garðinum.",
    "iso-8859-13": "Šodien ir labs laiks, un mēs ejam uz parku.",
    "iso-8859-14": "Tá an aimsir go breá inniu, ṫáinig an ġrian.",
    "iso-8859-15": "Il fait beau, l'œuvre coûte dix €.",
    "iso-8859-16": "Astăzi este vreme bună și mergem în parc.",
    "koi8-r": "Сегодня хорошая погода, и мы гуляем в парке.",
    "koi8-u": "Сьогодні гарна погода, і ми гуляємо в парку.",
    "macintosh": "Heute ist schönes Wetter, und wir gehen in den Park.",
    "shift_jis": "きょうは天気がいいので、公園を散歩します。",
    "utf-8": "Grüße, κόσμε, мир, 世界",
    "utf-16be": "Grüße, κόσμε, мир, 世界",
    "utf-16le": "Grüße, κόσμε, мир, 世界",
    "windows-874": "วันนี้อากาศดี เราไปเดินเล่นในสวน",
    "windows-1250": "Dnes je pěkné počasí, a tak jdeme do parku.",
    "windows-1251": "Сегодня хорошая погода, и мы гуляем в парке.",
    "windows-1252": "“Größe” – fünf €",
    "windows-1253": "Σήμερα ο καιρός είναι καλός και πάμε στο πάρκο.",
    "windows-1254": "Bugün hava güzel, parkta yürüyoruz; ışık.",
    "windows-1255": "היום מזג האוויר יפה ואנחנו הולכים לפארק.",
    "windows-1256": "الطقس جميل اليوم ونحن نمشي في الحديقة.",
    "windows-1257": "Täna on ilus ilm ja me läheme parki. Šodien.",
    "windows-1258": "Hôm nay tôi đi trong công viên đông.",
    "x-mac-cyrillic": "Сегодня хорошая погода, и мы гуляем в парке.",
}
_LIKELY = [bytes((byte,)) for byte in b"\x81\x8e\x8f\xa1\xa4\xb0\xe0\xed\xf0\xfe01A<~"]
_ESCAPES = (b"\x1b(B", b"\x1b(J", b"\x1b(I", b"\x1b$@", b"\x1b$B", b"\x1b$B$")
_CODECS = {
    "iso-8859-8-i": "iso8859-8",
    "macintosh": "mac-roman",
    "windows-874": "cp874",
    "x-mac-cyrillic": "mac-cyrillic",
    "x-user-defined": "ascii",
}
_UNFIT = re.compile("[\0-\x20\x7f<>&\ufffd\ud800-\udfff]|^$")
_TAGS = re.compile("<[^<>]*>")
# White space and characters without width: what becomes of them is a matter of layout.
_LAYOUT = re.compile("[\0-\x20\x7f\x85\xa0\xad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]+")


def sequences(encoding: str) -> list[bytes]:
    """Returns every sequence of the table of an encoding and more that are none, then noise."""
    found = [bytes((byte,)) for byte in range(256)]
    if encoding in SEVERAL_BYTES and encoding != "iso-2022-jp":
        found += [bytes(pair) for pair in itertools.product(range(0x80, 0x100), range(256))]
    if encoding == "euc-jp":
        found += [bytes((0x8F, *pair)) for pair in itertools.product(range(0xA0, 0x100), repeat=2)]
    if encoding == "iso-2022-jp":
        found += [b"\x1b$B" + bytes(pair) for pair in itertools.product(range(0x20, 0x80), repeat=2)]
        found += [escape + bytes((byte,)) for escape in (b"\x1b(J", b"\x1b(I", b"\x1b$@") for byte in range(256)]
    if encoding in ("gb18030", "gbk"):
        step = 1 if encoding == "gb18030" else 101
        ranges = (range(0, 39_600, step), range(188_900, 189_100), range(189_100, 1_237_500, 997))
        found += map(four_bytes, itertools.chain(*ranges, range(1_237_500, 1_237_700)))
    if encoding == "utf-8":
        found += [chr(code).encode() for code in range(0x80, 0x110000, 61) if not 0xD800 <= code < 0xE000]
    if encoding.startswith("utf-16"):
        units = range(0, 0x10000, 7)
        found += [unit.to_bytes(2, "big" if encoding.endswith("be") else "little") for unit in units]
    return found + [noise(encoding, seed) for seed in range(4)]


def four_bytes(pointer: int) -> bytes:
    """Returns the four bytes of gb18030 for a pointer."""
    rest, fourth = divmod(pointer, 10)
    rest, third = divmod(rest, 126)
    first, second = divmod(rest, 10)
    return bytes((0x81 + first, 0x30 + second, 0x81 + third, 0x30 + fourth))


def noise(encoding: str, seed: int) -> bytes:
    """Returns bytes without order, of which many begin sequences, the same ones on any machine."""
    state = seed * 7919 + sum(encoding.encode())
    made = bytearray()
    while len(made) < NOISE_BYTES:
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % (1 << 64)
        made += _LIKELY[(state >> 40) % len(_LIKELY)] if (state >> 33) % 2 else bytes(((state >> 48) % 256,))
        if encoding == "iso-2022-jp" and (state >> 20) % 4 == 0:
            made += _ESCAPES[(state >> 44) % len(_ESCAPES)]
    if encoding == "iso-2022-jp":
        # Of an escape sequence that is none Chromium swallows the second byte, which the standard reads again.
        return re.sub(rb"\x1b(?!\([BJI]|\$[@B])", b"0", bytes(made))
    # Chromium goes on reading JIS X 0212 behind a malformed sequence of it, which the standard does not.
    return bytes(made).replace(b"\x8f", b"\x8e") if encoding == "euc-jp" else bytes(made)


def characters(asked: list[bytes], texts: list[str]) -> Iterator[bytes]:
    """Yields the sequences that stand for characters and can be shown on a page, given the text of each."""
    for sequence, text in zip(asked, texts, strict=True):
        if len(sequence) < 8 and not _UNFIT.search(text):
            yield sequence


def page(encoding: str, characters: Iterator[bytes], head: str) -> bytes:
    """Returns an HTML page: a sentence and, in lines of 64, the characters of a table.

    Args:
      encoding: the page's.
      characters: their sequences.
      head: of the page, in ASCII.
    """
    codec = _CODECS.get(encoding, encoding)
    lines = [SENTENCES.get(encoding, "A page.").encode(codec)]
    while line := list(itertools.islice(characters, 64)):
        lines.append(b"".join(line))
    begin, end = "<p>".encode(codec), "</p>\n".encode(codec)
    if encoding == "iso-2022-jp":
        end = b"\x1b(B" + end
    paragraphs = [begin + line + end for line in lines]
    return f"<html><head>{head}</head><body>\n".encode(codec) + b"".join(paragraphs) + "</body></html>".encode(codec)


def without_layout(text: str, is_markup: bool = False) -> str:
    """Returns a text without white space, and without tags if it is the source of a page."""
    return _LAYOUT.sub("", _TAGS.sub("", text) if is_markup else text)


def digest_of(texts: list[str]) -> str:
    """Returns the SHA-256 of texts, a line feed behind each."""
    return hashlib.sha256("".join(f"{text}\n" for text in texts).encode("utf-8", "surrogatepass")).hexdigest()
