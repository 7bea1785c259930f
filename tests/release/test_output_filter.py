"""The output filter: nothing listed comes through, nothing listed can be read from it, nobody can change it."""

import dataclasses
import hashlib
import json
import logging
import random
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.errors import UserError
from apertus_jax.release.output_filter import OutputFilter, build_output_filter, new_signing_key
from apertus_jax.release.output_filter.filter_file import MAGIC, read_filter
from apertus_jax.release.output_filter.listing import Listing, NgramPlan
from apertus_jax.release.output_filter.matching import LONGEST_GAP, Action, FilteredText
from apertus_jax.release.output_filter.options import FilterRates
from apertus_jax.release.output_filter.output_filter_command import filter_bytes
from apertus_jax.release.output_filter.signing import load_signing_key
from apertus_jax.release.output_filter.words import LONGEST_CHUNK, words_of
from apertus_jax.storage import artifacts

DATE = "2026-11-24"
FAST = 16  # cost of scrypt
PASSAGES = [
    "Der Bund und die Kantone sorgen für eine gesunde Umwelt; straßenweise, für ALLE Menschen in der Schweiz!",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison.",
    "İstanbul'da yaşayan bütün insanlar ıssız kıyıları ve ışıklı sokakları çok iyi bilirlerdi o yıllarda.",
    "สิ่งที่เขียนไว้ในที่นี้ไม่มีการเว้นวรรคระหว่างคำแต่ต้องได้รับการคุ้มครองเช่นกัน",
    "我们的文字没有空格但是也要被保护因为有人提出了删除请求并且得到了同意",
]
STRINGS = [
    "Erika Mustermann-Größe",
    "+41 79 123 45 67",
    "erika.m@beispiel.ch",
    "李小明",
    "Ἀχιλλεύς ᾼσμα",
    "Zoë Ångström",
]
OTHER = "Heute scheint die Sonne über den Bergen, und 12 Kühe grasen. 今天天气很好。 The end of it"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return folder, new_signing_key(folder / "private.pem", folder / "public.pem")


@pytest.fixture(scope="module")
def key(keys):
    return load_signing_key(keys[0] / "private.pem")


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def listed(keys):
    rows = [{"text": text} for text in PASSAGES] + [{"string": string} for string in STRINGS]
    return write_lines(keys[0] / "listed.jsonl", rows)


@pytest.fixture(scope="module")
def build(keys):
    def build(listed, output, date=DATE, **settings):
        settings = {"rates": FilterRates(scrypt_n=FAST)} | settings
        return build_output_filter(listed, output, str(keys[0] / "private.pem"), date, **settings)

    return build


@pytest.fixture(scope="module")
def folder(build, listed, keys):
    build(listed, keys[0] / "filter")
    return keys[0] / "filter"


@pytest.fixture(scope="module")
def protected(folder, keys):
    return OutputFilter(str(folder), keys[1], today=DATE).protected


def protect(key, plan, passages=(), strings=(), secret=b""):
    """Opens a filter that never was a file."""
    listing = Listing()
    for text in passages:
        assert listing.add_passage(text, plan)
    for text in strings:
        listing.add_string(text)
    content = filter_bytes(listing, key, (DATE, "2027-05-24"), FilterRates(1e-3, 1 / 16, FAST), secret)
    return read_filter(content, "filter", key.public_key().public_bytes_raw(), secret)


def cut(text, places):
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[begin:end] for begin, end in zip(edges, edges[1:], strict=False)]


def run(protected, pieces, action=Action.REDACT, context="", replacement="[REDACTED]"):
    stream = FilteredText(protected, action, replacement, context)
    shown = "".join([*[stream.feed(piece) for piece in pieces], stream.finish()])
    return shown, stream.report()


def spelled(generator, text):
    """Another spelling: case, form, white space, zero-width characters."""
    text = generator.choice([str.upper, str.lower, str.title, str.swapcase, str])(unicodedata.normalize("NFC", text))
    text = unicodedata.normalize(generator.choice(["NFC", "NFD", "NFKC", "NFKD"]), text)
    spaces = [" ", "  ", "\n", "\t", "\u00a0", "\u3000", " \r\n"]
    text = "".join(generator.choice(spaces) if character.isspace() else character for character in text)
    rate = generator.choice([0, 0, 0.3])
    return "".join(
        c + (generator.choice("\u200b\u200d\u00ad\ufeff") if generator.random() < rate else "") for c in text
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 10_000), max_size=30))
def test_listed_text_is_found_in_any_spelling_and_cut(protected, seed, places):
    generator = random.Random(seed)
    picked = generator.sample(PASSAGES + STRINGS, 3)
    text = OTHER + ". " + "".join(f"{spelled(generator, each.strip('+!.'))} — {OTHER}: " for each in picked)
    shown, report = run(protected, cut(text, places))
    assert shown == OTHER + ". " + f"[REDACTED] — {OTHER}: " * 3 and report["redactions"] == 3
    assert report["matches"]["strings"] >= sum(each in STRINGS for each in picked)
    assert run(protected, [shown])[1]["matches"] == {"passages": 0, "strings": 0}
    stopped, report = run(protected, cut(text, places), Action.STOP)
    assert stopped == OTHER + ". " and report["stopped"]
    logged, report = run(protected, cut(text, places), Action.LOG)
    assert logged == text and sum(report["matches"].values()) >= 3 and not report["redactions"]


def test_strings_are_found_across_separators_not_inside_words(protected):
    for text in (
        "+41791234567",
        "(41) 79-123-45-67",
        "ErikaMustermannGröße",
        "E.r.i.k.a Mustermann\nGröße",
        "他叫李小明。",
    ):
        assert run(protected, [f"a {text} z"])[1]["redactions"] == 1, text
    for text in ("Erika Mustermann-Größen", "0041 791234567 8", "erika.m@beispiel.chat", "李小月"):
        assert run(protected, [f"a {text} z"]) == (f"a {text} z", run(protected, [])[1]), text


def test_a_part_of_a_passage_as_long_as_two_ngrams_is_found(key):
    passage = " ".join(f"w{number}" for number in range(40))
    for stride in (0, 1, 3, 8):
        protected = protect(key, NgramPlan((8,), (20,), stride), [passage])
        shortest = (stride or 8) + 7
        for start in range(0, 40 - shortest + 1):
            part = " ".join(passage.split()[start : start + shortest])
            assert run(protected, [f"and {part} or"])[1]["matches"]["passages"] >= 1


def reference_matches(words, passages, strings, plan):
    """Every (end word, kind, first word) by comparing all runs of words with all n-grams and strings of the listing."""
    ngrams = set()
    for passage in passages:
        size = max(size for size in plan.sizes if size <= len(passage))
        starts = [*range(0, len(passage) - size, plan.stride or size), len(passage) - size]
        ngrams.update(tuple(passage[start : start + size]) for start in starts)
    joined = {"".join(string) for string in strings}
    found = []
    for end in range(1, len(words) + 1):
        for first in range(end):
            run_of_words = tuple(words[first:end])
            found += [(end, "passages", first)] if run_of_words in ngrams else []
            found += [(end, "strings", first)] if "".join(run_of_words) in joined else []
    return found


def reference_text(words, gaps, matches, action):
    """What is shown of gap, word, gap, word, …, gap."""
    if action == Action.STOP and matches:
        end = min(end for end, _, _ in matches)
        first = min(first for at, _, first in matches if at == end)
        return "".join(gap + word for gap, word in zip(gaps, words[:first], strict=False)) + gaps[first]
    hidden = {number for end, _, first in matches for number in range(first, end)} if action == Action.REDACT else set()
    shown = ""
    for number, word in enumerate(words):
        if number not in hidden:
            shown += gaps[number] + word
        elif number - 1 not in hidden:
            shown += gaps[number] + "[X]"
    return shown + gaps[-1]


def test_matches_and_shown_text_equal_brute_force_in_thousands(key):
    generator = random.Random(5)
    vocabulary = ["aa", "aaa", "bbb", "ab", "cccc", "b"]
    cases = with_matches = 0
    for _ in range(150):
        sizes = tuple(generator.sample(range(2, 6), generator.choice([1, 2])))
        plan = NgramPlan(sizes, (20,), generator.randint(0, min(sizes)))
        passages = [
            generator.choices(vocabulary, k=generator.randint(max(sizes), 12)) for _ in range(generator.randint(0, 3))
        ]
        strings = [generator.choices(vocabulary, k=generator.randint(2, 4)) for _ in range(generator.randint(0, 3))]
        strings = [string for string in strings if len("".join(string)) >= 4]
        protected = protect(key, plan, map(" ".join, passages), map(" ".join, strings))
        for _ in range(20):
            words = generator.choices(vocabulary, k=generator.randint(0, 25))
            for part in passages + strings:
                at = generator.randint(0, len(words))
                words[at:at] = part[: generator.randint(1, len(part))]
            gaps = [generator.choice(["", " "]), *generator.choices([" ", ", ", "\n\n", "—", "; "], k=len(words))]
            text = "".join(gap + word for gap, word in zip(gaps, words, strict=False)) + gaps[-1]
            if not words:
                text = gaps[0]
            expected = reference_matches(words, passages, strings, plan)
            action = generator.choice(list(Action))
            shown, report = run(protected, cut(text, generator.choices(range(200), k=5)), action, replacement="[X]")
            assert shown == reference_text(words, gaps, expected, action)
            if action != Action.STOP:
                kinds = [kind for _, kind, _ in expected]
                assert report["matches"] == {"passages": kinds.count("passages"), "strings": kinds.count("strings")}
            cases, with_matches = cases + 1, with_matches + bool(expected)
    assert cases == 3000 and with_matches > 1000


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 10_000), max_size=30), st.sampled_from(list(Action)))
def test_shown_text_depends_on_no_cut_and_no_end_of_the_prompt(protected, seed, places, action):
    generator = random.Random(seed)
    parts = [
        *generator.sample(PASSAGES + STRINGS, 2),
        OTHER,
        " " * generator.choice([1, LONGEST_GAP + 9]),
        "\u0301x\u200b",
    ]
    generator.shuffle(parts)
    text = " ".join(parts)
    begin = generator.randint(0, len(text))
    context, text = text[:begin], text[begin:]
    assert run(protected, cut(text, places), action, context) == run(protected, [text], action, context)


def test_occurrence_may_begin_in_the_prompt_but_not_end_there(protected):
    assert run(protected, ["ka Mustermann Größe, 7"], context="Sie heisst Eri")[0] == "[REDACTED], 7"
    assert run(protected, [" Mustermann Größe, 7"], Action.STOP, "Sie heisst Erika")[0] == ""
    shown, report = run(protected, [", 7"], Action.STOP, "Sie heisst Erika Mustermann-Größe")
    assert shown == ", 7" and not report["stopped"] and report["matches"] == {"passages": 0, "strings": 0}
    passage = PASSAGES[0].split()
    shown, report = run(protected, [" ".join(["", *passage[4:], "Ende"])], context=" ".join(passage[:4]))
    assert shown == " [REDACTED]! Ende" and report["redactions"] == 1


def test_what_is_held_back_is_bounded(protected):
    stream = FilteredText(protected, Action.REDACT, "[X]")
    generator = random.Random(1)
    window = max(protected.header.ngram_sizes[-1], protected.header.string_lengths[-1])
    for _ in range(20_000):
        stream.feed(generator.choice(["Wort ", "中", "x", " " * 900, "\u0301" * 50, "Erika Mustermann "]))
        assert len(stream._reader._pending) <= LONGEST_CHUNK and len(stream._gap) <= LONGEST_GAP
        assert len(stream._held) <= window and all(len(held.text) <= LONGEST_CHUNK for held in stream._held)


def test_a_changed_file_is_refused_in_one_line(folder, keys, tmp_path):
    whole = (folder / "output_filter.bin").read_bytes()
    random_places = random.Random(2).sample(range(len(whole)), 200)
    for place in [*range(0, len(MAGIC) + 40), *random_places, len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(UserError) as refused:
            read_filter(bytes(changed), "it", bytes.fromhex(keys[1]))
        assert "\n" not in str(refused.value) and str(refused.value).startswith("it ")
    for content in (b"", whole[:-1], whole[:40], whole + b"x", MAGIC, whole[: len(MAGIC)] + whole[-64:]):
        with pytest.raises(UserError, match="not an output filter|has changed since it was signed"):
            read_filter(content, "it", bytes.fromhex(keys[1]))
    (tmp_path / "cut.bin").write_bytes(whole[:-9])
    with pytest.raises(UserError, match="cut.bin has changed since it was signed"):
        _ = OutputFilter(str(tmp_path / "cut.bin"), keys[1]).protected


def test_another_signature_and_other_keys_are_refused(folder, keys, tmp_path):
    other = new_signing_key(tmp_path / "other.pem", tmp_path / "other.pub.pem")
    with pytest.raises(UserError, match=f"signed by '{keys[1]}', which is not the given public key {other}"):
        _ = OutputFilter(str(folder), str(tmp_path / "other.pub.pem")).protected
    whole = (folder / "output_filter.bin").read_bytes()
    forged = whole[:-64] + load_signing_key(tmp_path / "other.pem").sign(whole[:-64])
    with pytest.raises(UserError, match="has changed since it was signed"):
        read_filter(forged, "it", bytes.fromhex(keys[1]))
    for given_key, message in (
        ("", "neither"),
        ("nowhere.pem", "neither"),
        (str(keys[0] / "private.pem"), "not a public"),
    ):
        with pytest.raises(UserError, match=message):
            _ = OutputFilter(str(folder), given_key).protected
    with pytest.raises(UserError, match="exists already"):
        new_signing_key(tmp_path / "other.pem", tmp_path / "third.pem")
    assert (tmp_path / "other.pem").stat().st_mode & 0o077 == 0


def test_keys_made_by_openssl_are_taken(listed, tmp_path):
    made = subprocess.run(
        "openssl genpkey -algorithm ed25519 -out k.pem && openssl pkey -in k.pem -pubout -out k.pub.pem && "
        "openssl genrsa -out rsa.pem 2048",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("openssl is not there")
    build_output_filter(listed, tmp_path / "f", str(tmp_path / "k.pem"), DATE, rates=FilterRates(scrypt_n=FAST))
    assert OutputFilter(str(tmp_path / "f"), str(tmp_path / "k.pub.pem")).protected.header.version == 1
    assert (tmp_path / "f" / "public_key.pem").read_bytes() == (tmp_path / "k.pub.pem").read_bytes()
    for name, message in (
        ("rsa.pem", "not an Ed25519 key"),
        ("k.pub.pem", "not a private key"),
        ("no", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            build_output_filter(listed, tmp_path / "g", str(tmp_path / name), DATE)


def test_a_stale_filter_is_applied_with_a_warning(folder, keys, caplog):
    for today, stale in (("2026-11-24", 0), ("2027-05-23", 0), ("2027-05-24", 1), ("2031-01-01", 1)):
        caplog.clear()
        stream = OutputFilter(str(folder), keys[1], today=today).open()
        assert stream.feed("Er heisst 李小明. ") + stream.finish() == "Er heisst [REDACTED]. "
        assert len([r for r in caplog.records if "is stale since 2027-05-24" in r.getMessage()]) == stale


def test_the_same_inputs_give_the_same_bytes(build, listed, folder, tmp_path):
    lines = Path(listed).read_text().splitlines(keepends=True)
    (tmp_path / "turned.jsonl").write_text("".join(reversed(lines + lines[:2])))
    build(str(tmp_path / "turned.jsonl"), tmp_path / "again")
    for name in ("output_filter.bin", "public_key.pem"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    before = (folder / "COMMITTED.json").stat().st_mtime_ns
    assert build(listed, folder) == artifacts.verify(folder, "output_filter")["summary"]
    assert (folder / "COMMITTED.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="made with other dates"):
        build(listed, folder, date="2026-11-25")


def test_filter_folder_hides_what_is_listed(folder):
    content = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    lowered = content.lower()
    for text in PASSAGES + STRINGS:
        words = words_of(text)
        for word in [word for word in words if len(word) > 4] + [text, "".join(words), " ".join(words)]:
            for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
                assert word.encode(encoding).lower() not in lowered
    # What a fast hash of a whole string, or of a whole listing, would look like.
    salt = bytes.fromhex(json.loads(content[content.index(MAGIC) + len(MAGIC) :].split(b"\n")[0])["salt"])
    for string in map("".join, map(words_of, STRINGS)):
        for prefix in (b"", salt, salt + b"string"):
            for name in ("sha256", "sha1", "md5", "blake2b"):
                digest = hashlib.new(name, prefix + string.encode()).digest()
                assert digest[:8] not in content and digest.hex()[:16].encode() not in content


def test_strings_under_a_key_are_found_with_it_only(build, keys, tmp_path):
    listed = write_lines(tmp_path / "l.jsonl", [{"string": string} for string in STRINGS])
    for name in "ab":
        (tmp_path / f"{name}.key").write_text(hashlib.sha256(name.encode()).hexdigest() + "\n")
    summary = build(listed, tmp_path / "f", string_key=str(tmp_path / "a.key"))
    build(listed, tmp_path / "plain")
    assert summary["strings_are_keyed"] and summary["strings"] == len(STRINGS)
    opened = OutputFilter(str(tmp_path / "f"), keys[1], string_key=str(tmp_path / "a.key"))
    plain = OutputFilter(str(tmp_path / "plain"), keys[1])
    for each in (opened, plain):
        assert run(each.protected, ["a 41791234567, b"])[0] == "a [REDACTED], b"
    assert not set(plain.protected._strings) & set(opened.protected._strings)
    for key_file, message in (
        ("", "none was given"),
        ("b.key", "not [0-9a-f]{16}; give that key"),
        ("c.key", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            path = str(tmp_path / key_file) if key_file else ""
            _ = OutputFilter(str(tmp_path / "f"), keys[1], string_key=path).protected
    with pytest.raises(UserError, match="without a string key"):
        _ = OutputFilter(str(tmp_path / "plain"), keys[1], string_key=str(tmp_path / "a.key")).protected


def test_a_later_version_supersedes_and_loses_nothing(build, listed, folder, keys, tmp_path):
    rows = [json.loads(line) for line in Path(listed).read_text().splitlines()]
    more = write_lines(tmp_path / "more.jsonl", [*rows, {"string": "Hans Beispiel"}])
    summary = build(more, tmp_path / "second", date="2027-03-01", supersedes=str(folder))
    first = artifacts.read_manifest(folder, "output_filter")["summary"]["digest"]
    assert first == hashlib.sha256((folder / "output_filter.bin").read_bytes()).hexdigest()
    assert (summary["version"], summary["supersedes"], summary["expires"]) == (2, [first], "2027-09-01")
    third = build(more, tmp_path / "third", date="2027-08-31", supersedes=str(tmp_path / "second"), months=6)
    assert (third["version"], len(third["supersedes"]), third["expires"]) == (3, 2, "2028-02-29")
    fewer = write_lines(tmp_path / "fewer.jsonl", rows[1:-2])
    with pytest.raises(UserError, match=r"^3 n-grams and 2 strings of the superseded .* are not listed any more"):
        build(fewer, tmp_path / "lost", supersedes=str(folder))
    with pytest.raises(UserError, match="is before that of"):
        build(more, tmp_path / "lost", date="2026-11-23", supersedes=str(folder))
    assert not (tmp_path / "lost").exists()


def test_rates_are_measured_and_ordinary_text_is_counted(build, tmp_path):
    generator = random.Random(3)
    words = [f"w{number}" for number in range(3000)]
    rows = [{"text": " ".join(generator.choices(words, k=80))} for _ in range(100)]
    rows += [{"string": f"person{number} name"} for number in range(200)]
    ordinary = [{"text": " ".join(generator.choices(words, k=500))} for _ in range(4)]
    ordinary[0]["text"] += " " + rows[0]["text"] + " Person7 Name"
    summary = build(
        write_lines(tmp_path / "l.jsonl", rows),
        tmp_path / "f",
        rates=FilterRates(bloom=0.01, scrypt_n=FAST),
        ordinary=write_lines(tmp_path / "o.jsonl", ordinary),
    )
    assert summary["ngrams"] == 1000 and summary["strings"] == 200 and summary["bloom_rate_designed"] == 0.01
    assert 0.008 < summary["bloom_rate_measured"] < 0.012
    assert summary["ordinary_text"] == {"texts": 4, "words": 2082, "passages": 10, "strings": 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "lists nothing to protect"),
        (["nonsense"], r"row 1: an object with either"),
        ([{"string": "Erika Muster"}, {"text": "a", "string": "b"}], r"row 2: an object with either"),
        ([{"string": 7}], "row 1: string must be a string, found int"),
        ([{"string": "a.b"}], "row 1: a string of 2 letters and digits would be found in too many texts"),
        ([{"string": "李"}], "row 1: a string of 1 letters"),
        ([{"string": "geheim" * 400}], "row 1: a string of 2400 letters and digits is longer than 1024"),
        ([{"text": "Contact us"}], "lists nothing to protect"),
    ],
)
def test_bad_listing_is_refused_in_one_line_without_its_value(build, tmp_path, rows, message):
    listed = write_lines(tmp_path / "listed.jsonl", rows)
    with pytest.raises(UserError, match=message) as refused:
        build(listed, tmp_path / "f")
    assert "\n" not in str(refused.value) and "geheim" not in str(refused.value) and not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"date": "24.11.2026"}, "is not a day; write YYYY-MM-DD"),
        ({"date": "2026-02-30"}, "is not a day"),
        ({"months": 0}, "months=0 must be from 1 to 120"),
        ({"string_key": "nowhere.key"}, "string key nowhere.key does not exist"),
        ({"supersedes": "nowhere"}, "output filter nowhere does not exist"),
    ],
)
def test_bad_settings_are_refused_in_one_line(build, listed, tmp_path, settings, message):
    with pytest.raises(UserError, match=message) as refused:
        build(listed, tmp_path / "f", **settings)
    assert "\n" not in str(refused.value) and not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        (FilterRates, {"scrypt_n": 1000}, "FilterRates.scrypt_n: scrypt_n=1000 must be a power of two"),
        (FilterRates, {"bloom": 0.9}, "FilterRates.bloom = 0.9 must be a finite number at least 1e-09 and at most 0.5"),
        (NgramPlan, {"sizes": (1,)}, "NgramPlan.sizes = .1. must be whole numbers"),
        (NgramPlan, {"sizes": ()}, "NgramPlan.sizes = .. must be whole numbers"),
        (NgramPlan, {"stride": 9}, "NgramPlan.stride = 9 must be from 1"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, settings, message):
    with pytest.raises(UserError, match=message) as refused:
        options(**settings)
    assert "\n" not in str(refused.value)


def test_every_option_of_a_filter_is_part_of_its_identity(build, listed, tmp_path):
    given = {"rates": FilterRates(scrypt_n=FAST), "ngrams": NgramPlan()}
    others = {"rates": {"bloom": 1e-3, "string_prefilter": 0.1, "scrypt_n": 2 * FAST}}
    others["ngrams"] = {"sizes": (7,), "unspaced_sizes": (19,), "stride": 8}
    build(listed, tmp_path / "f", **given)
    for name, options in given.items():
        assert others[name].keys() == {field.name for field in dataclasses.fields(options)}, "a field without a value"
        for field, value in others[name].items():
            changed = given | {name: dataclasses.replace(options, **{field: value})}
            with pytest.raises(UserError, match=f"made with other .*{type(options).__name__}.{field}"):
                build(listed, tmp_path / "f", **changed)


def test_short_texts_are_kept_whole_and_empty_ones_named(build, keys, tmp_path, caplog):
    rows = [{"text": "Erika Mustermann wohnte hier."}, {"text": "Impressum"}, {"text": PASSAGES[0], "source": "x"}]
    with caplog.at_level(logging.WARNING):
        summary = build(write_lines(tmp_path / "l.jsonl", rows), tmp_path / "f")
    assert (summary["passages"], summary["short_passages_as_strings"], summary["unprotected"]) == (1, 1, 1)
    assert [record.getMessage().partition(":")[0][-5:] for record in caplog.records] == ["row 2"]
    assert "Impressum" not in caplog.text
    stream = OutputFilter(str(tmp_path / "f"), keys[1]).open()
    text = "Impressum: ERIKA\nMustermann wohnte hier, früher"
    assert stream.feed(text) + stream.finish() == "Impressum: [REDACTED], früher"
