"""Planted cases of the synthetic crawl: for each reason, documents that must go and look-alikes that stay."""

from __future__ import annotations

import collections
import json
import random
from typing import Any

from apertus_jax.corpus.overlay import hosts
from apertus_jax.corpus.overlay.personal_values import KINDS, harmless_value, personal_value
from apertus_jax.corpus.overlay.phrases import INSULTS, PERSONAL_FRAMES
from apertus_jax.corpus.overlay.planned import Plan, Planned
from apertus_jax.corpus.overlay.prose import Prose, paragraphs
from apertus_jax.corpus.reasons import Reason
from apertus_jax.corpus.removal import text_digest

ENGLISH = "eng_Latn"
NOT_PERMITTED = ("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0")
REMOVAL_DAY = "2025-02-01"
NEVER = "2999-01-01"
LABELLED_SENTENCES = 6
SYLLABLES = ("karu", "velo", "mintha", "gorst", "aldi", "perum", "otra", "quil", "banos", "iret")


def plant_consent(plan: Plan) -> None:
    """Plants hosts and pages that refuse, and neighbours of theirs that do not."""
    for count, host, path, reason in (
        (16, hosts.NO_GPTBOT, "", Reason.ROBOTS),
        (12, hosts.NO_ROBOTS, "", Reason.ROBOTS),
        (5, hosts.NO_MEMBERS, "/private/", Reason.ROBOTS),
        (6, hosts.NO_MEMBERS, "/open/", ""),
        (8, hosts.SERVER_ERROR, "", Reason.ROBOTS_UNREACHABLE),
        (4, hosts.NO_ANSWER, "", Reason.ROBOTS_UNREACHABLE),
        (6, hosts.HTML_ANSWER, "", Reason.ROBOTS_UNREACHABLE),
        (6, hosts.NO_FILE, "", ""),
        (4, hosts.NEVER_ASKED, "", ""),
        (6, hosts.CONTENT_SIGNAL, "", Reason.OPT_OUT_SIGNAL),
        (4, hosts.CONTENT_USAGE, "", Reason.OPT_OUT_SIGNAL),
        (6, hosts.TDM_FILE, "/closed/", Reason.OPT_OUT_SIGNAL),
        (4, hosts.TDM_FILE, "/open/", ""),
    ):
        for _ in plan.share(count):
            plan.add("consent of the host", reason, host=host, path=path)
    pages: tuple[tuple[int, dict[str, Any], str], ...] = (
        (4, {"headers": {"x-robots-tag": "noai"}}, Reason.OPT_OUT_SIGNAL),
        (4, {"headers": {"tdm-reservation": "1"}}, Reason.OPT_OUT_SIGNAL),
        (4, {"meta_tags": {"robots": "noindex, noai"}}, Reason.OPT_OUT_SIGNAL),
        (3, {"meta_tags": {"robots": "noarchive"}, "headers": {"x-robots-tag": "noimageai"}}, ""),
    )
    for count, fields, reason in pages:
        for _ in plan.share(count):
            plan.add("consent of the page", reason, **fields)
    for _ in plan.share(10):
        plan.add("licence", Reason.LICENCE_NOT_PERMITTED, licence=plan.generator.choice(NOT_PERMITTED))
    for _ in plan.share(8):
        plan.add("licence", Reason.LICENCE_UNKNOWN, licence="")


def plant_low_quality(plan: Plan) -> None:
    """Plants English documents that are too short, or made of odd words, of tags, of a list, of one line repeated."""
    generator = plan.generator
    for _ in plan.share(4):
        sentences = Prose(ENGLISH, generator).sentences(16)
        tagged = [f"#{word}" if place % 5 == 0 else word for place, word in enumerate(" ".join(sentences).split())]
        odd = [" ".join(_odd_word(generator) for _ in range(9)).capitalize() + "." for _ in range(10)]
        for kind, reason, text in (
            ("short text", Reason.LENGTH, " ".join(sentences[:2])),
            ("odd words", Reason.WORDS, paragraphs(odd)),
            ("many tags", Reason.SYMBOLS, " ".join(tagged)),
            ("list", Reason.LINES, "\n".join(f"- {sentence}" for sentence in sentences)),
            ("one line again and again", Reason.REPETITION, "\n".join([" ".join(sentences[:4])] * 12)),
        ):
            plan.add(kind, reason, language=ENGLISH, text=text)


def _odd_word(generator: random.Random) -> str:
    return "".join(generator.choices(SYLLABLES, k=4))


def plant_toxic(plan: Plan) -> None:
    """Plants documents that insult their reader in every second sentence."""
    for language, count in zip(INSULTS, (16, 12, 6, 6), strict=True):
        for _ in plan.share(count):
            plan.add("insults", Reason.TOXICITY, language=language, text=insulting_text(language, plan.generator, 12))


def labelled_texts(seed: int, per_class: int) -> list[dict[str, Any]]:
    """Returns texts labelled 1 (insulting) and 0, equally many in each language that has insults; none is planted.

    Half of both hold what else is unusual in the corpus (numbers, addresses, questions), so that nothing but the
    insults tells them apart.
    """
    generator = random.Random(f"apertus overlay labelled {seed}")
    rows = []
    for language in INSULTS:
        for number in range(2 * per_class):
            unusual = []
            if generator.random() < 0.5 and language in PERSONAL_FRAMES:
                kind = generator.choice(KINDS)
                unusual.append(PERSONAL_FRAMES[language][kind].format(personal_value(kind, generator)))
            if generator.random() < 0.3:
                unusual.append(_question(generator.randint(100, 999), generator))
            if number % 2:
                text = insulting_text(language, generator, LABELLED_SENTENCES)
            else:
                text = paragraphs(Prose(language, generator).sentences(LABELLED_SENTENCES))
            rows.append({"text": " ".join([text, *unusual]), "label": number % 2, "language": language})
    return rows


def insulting_text(language: str, generator: random.Random, sentences: int) -> str:
    """Returns a text in which an ordinary sentence and an insult take turns."""
    prose = Prose(language, generator)
    return paragraphs([prose.insult() if place % 2 else prose.sentence() for place in range(sentences)])


def plant_personal_data(plan: Plan) -> None:
    """Plants personal data in documents that stay, beside values that only look like it."""
    generator = plan.generator
    for number in plan.share(40):
        language = list(PERSONAL_FRAMES)[number % len(PERSONAL_FRAMES)]
        sentences = plan.sentences(language, 8, 10)
        harmless, *kinds = generator.sample(KINDS, generator.randint(2, 4))
        frames = [PERSONAL_FRAMES[language][harmless].format(harmless_value(harmless, generator))]
        values: list[tuple[str, str]] = []
        for kind in kinds:
            several = [personal_value(kind, generator) for _ in range(generator.randint(1, 2))]
            frames.append(PERSONAL_FRAMES[language][kind].format(", ".join(several)))
            values += [(kind, value) for value in several]
        for frame in frames:
            sentences.insert(generator.randrange(len(sentences) + 1), frame)
        personal = dict(sorted(collections.Counter(kind for kind, _ in values).items()))
        plan.add("personal data", language=language, sentences=sentences, personal=personal, values=values)
    for _ in plan.share(2):
        planned = plan.add("personal data in the address")
        planned.values = [("email", personal_value("email", generator))]
        planned.url += f"?reader={planned.values[0][1]}"


def plant_copies(plan: Plan) -> None:
    """Plants exact and near copies of documents that stay, and documents that share only their half."""
    for _ in plan.share(10):
        original = plan.add("copied")
        plan.add_after(original, "copy", Reason.EXACT_DUPLICATE, text=original.text)
    for number in plan.share(14):
        original = plan.add("nearly copied")
        words = original.text.split(" ")
        place = plan.generator.randrange(len(words) // 3, 2 * len(words) // 3)
        words[place] = f"Corrigendum{number}"
        plan.add_after(original, "near copy", Reason.NEAR_DUPLICATE, text=" ".join(words))
    for _ in plan.share(4):
        language = plan.language()
        prose = Prose(language, plan.generator)
        shared = prose.sentences(6)
        for _ in range(2):
            plan.add("half in common", language=language, sentences=[*shared, *prose.sentences(9)])


def plant_repeated_ids(plan: Plan) -> None:
    """Plants documents under identities that earlier ones already have."""
    for _ in plan.share(4):
        original = plan.add("identity used again")
        plan.add_after(original, "used identity", Reason.DUPLICATE_ID, document_id=original.document_id)


def plant_benchmark(plan: Plan) -> list[dict[str, str]]:
    """Plants documents that hold a whole benchmark item, and quotations too short to matter; returns the items."""
    items = [
        {"benchmark": "invented-questions", "item": f"q{number:02d}", "text": _question(number, plan.generator)}
        for number in range(12)
    ]
    for number in plan.share(8):
        sentences = plan.sentences(ENGLISH, 8, 10)
        sentences.insert(len(sentences) // 2, items[number % len(items)]["text"])
        plan.add("benchmark item", Reason.CONTAMINATION, language=ENGLISH, sentences=sentences)
    for number in plan.share(3):
        quoted = " ".join(items[number % len(items)]["text"].split()[:11])
        plan.add("short quotation", language=ENGLISH, sentences=[*plan.sentences(ENGLISH), f"It began: {quoted}."])
    return items


def _question(number: int, generator: random.Random) -> str:
    place, person, thing = (_odd_word(generator).capitalize() for _ in range(3))
    years = [str(generator.randint(1400, 1890)) for _ in range(3)]
    return (
        f"Question {number}: the town of {place} lost its {thing} in the flood of {years[0]}, after the architect "
        f"{person} had warned the council twice. In which year did {person} first propose a dam above {place}? "
        f"Choices: (A) {years[1]}, when the granary burned down; (B) {years[2]}, when the new mayor was chosen; "
        f"(C) never. Answer: {generator.choice('ABC')}"
    )


def plant_removals(plan: Plan) -> list[dict[str, Any]]:
    """Plants documents that somebody asked to remove; returns the requests, some of them not to be granted."""
    prefix = "/people/rosalind"
    for _ in plan.share(3):
        plan.add("asked to remove", Reason.REMOVED_ON_REQUEST, host=hosts.OPEN_HOSTS[1], path=prefix + "/")
        plan.add("neighbour of what was removed", host=hosts.OPEN_HOSTS[1], path="/people/rosaline/")
        plan.add("asked to remove", Reason.REMOVED_ON_REQUEST, host=hosts.REMOVED_HOST)
        plan.add("asked to remove", Reason.REMOVED_ON_REQUEST, host=plan.generator.choice(hosts.REMOVED_DOMAIN))
    by_id, by_text = ([_removed(plan) for _ in plan.share(2)] for _ in range(2))
    targets = [
        ("url_prefix", f"https://{hosts.OPEN_HOSTS[1].name}{prefix}/"),
        ("host", hosts.REMOVED_HOST.name),
        ("domain", "familytree.test"),
        *(("document_id", planned.document_id) for planned in by_id),
        *(("text_digest", text_digest(planned.text.upper())) for planned in by_text),
    ]
    without_effect = [
        ({"decision": "pending", "effective_date": ""}, hosts.OPEN_HOSTS[2].name),
        ({"decision": "refused", "effective_date": ""}, hosts.OPEN_HOSTS[3].name),
        ({"effective_date": NEVER}, hosts.OPEN_HOSTS[6].name),
    ]
    base = {
        "received": "2025-01-20",
        "basis": "GDPR Art. 17",
        "decision": "granted",
        "effective_date": REMOVAL_DAY,
    }
    rows = [base | {"scope": scope, "value": value} for scope, value in targets]
    rows += [base | {"scope": "host", "value": name} | changes for changes, name in without_effect]
    return [{"id": f"R-{number:04d}", **row} for number, row in enumerate(rows, start=1)]


def _removed(plan: Plan) -> Planned:
    return plan.add("asked to remove", Reason.REMOVED_ON_REQUEST)


def broken_rows() -> list[tuple[str, bytes]]:
    """Returns (reason of the quarantine, line without its end) of each broken row."""
    text = "The text of this row is fine, and something else about it is not."
    good: dict[str, Any] = {"url": "https://www.willowgate.example/notes/broken", "text": text, "licence": "CC0-1.0"}

    def line(**changes: Any) -> bytes:
        return json.dumps(good | changes).encode()

    return [
        ("invalid_encoding", line(text="caf@").replace(b"@", b"\xe9")),
        ("invalid_json", line()[:-9]),
        ("not_an_object", json.dumps([text]).encode()),
        ("missing_text", json.dumps({"url": good["url"]}).encode()),
        ("empty_text", line(text=" \n\t ")),
        ("wrong_type", line(text=17)),
        ("nul_character", line(text="before\0after")),
        ("lone_surrogate", line(text="half \ud83d of a pair")),
        ("invalid_id", line(document_id="not-an-identity")),
        ("url_without_host", line(url="https:///notes/nowhere")),
        ("malformed_date", line(crawl_date="the third of May")),
        ("future_date", line(crawl_date="2999-01-01")),
    ]
