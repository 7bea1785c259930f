"""The `plant-canaries` command: random secrets planted in training text, to tell recall from guessing.

    documents.jsonl     what the run is trained on: every copy a document of its own, an input of `tokenize`
    canaries.jsonl      the secrets, where they stand, how often they are shown; 0 times for controls
    references.json     secrets of the same templates that are never trained on: what exposure is measured against
    opening.json        the salt of the commitment
    commitment.json     salted digests of secrets and references: publish it before the run, and the rest after

All but `commitment.json` stay private until the model is judged: the commit marker's own digests are not salted.
The Goldfish mask depends on the last h tokens. A secret behind one and the same prefix has the same holes in every
copy; behind prefixes that vary, the holes of its first h − 1 tokens vary too and the copies together show all of them.

Source: docs/reference/evaluation_and_release.md §3.1, §3.8.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from apertus_jax.data.tokenizer.bpe import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization.canaries.secret_stream import SecretStream
from apertus_jax.evaluation.memorization.canaries.templates import (
    CHARACTERS,
    RECORD,
    TOKENS,
    Template,
    make_template,
)
from apertus_jax.evaluation.memorization.text_metrics import prefix_match_length
from apertus_jax.process.secret_source import read_secret
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of
from apertus_jax.storage.json_reader import parse_json_lines, read_json
from apertus_jax.validation import fields_by_annotation

KIND = "canaries"
DOCUMENTS_FILE, CANARIES_FILE, REFERENCES_FILE = "documents.jsonl", "canaries.jsonl", "references.json"
OPENING_FILE, COMMITMENT_FILE = "opening.json", "commitment.json"
SAME, VARIED = "same", "varied"
SHORTEST_SECRET = 16
ALGORITHM = "BLAKE2b-256 keyed with the salt"


@dataclasses.dataclass(frozen=True)
@fields_by_annotation
class CanaryPlan:
    """One canary for each combination, `per_cell` times. Lengths count characters, digits of a record, or tokens.

    `prefixes` says whether copies of one canary stand behind the `same` text or a `varied` one; with fewer than two
    copies there is no difference, and only the first is made. A prefix of 60 words is longer than h = 50 tokens.
    """

    kinds: tuple[str, ...] = (CHARACTERS, RECORD, TOKENS)
    lengths: tuple[int, ...] = (16, 48, 96)
    repetitions: tuple[int, ...] = (0, 1, 4, 16, 64)
    prefixes: tuple[str, ...] = (SAME, VARIED)
    per_cell: int = 1
    references: int = 255
    prefix_words: int = 60

    def __post_init__(self) -> None:
        for name, values, lowest in (("lengths", self.lengths, 1), ("repetitions", self.repetitions, 0)):
            if not values or len(set(values)) < len(values) or min(values) < lowest:
                raise UserError(f"canary {name}={list(values)} must be different numbers of at least {lowest}")
        for name, chosen, known in (
            ("kinds", self.kinds, (CHARACTERS, RECORD, TOKENS)),
            ("prefixes", self.prefixes, (SAME, VARIED)),
        ):
            if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
                raise UserError(f"canary {name}={list(chosen)} must be some of {', '.join(known)}")
        if self.per_cell < 1 or self.references < 1 or self.prefix_words < 0:
            raise UserError(
                f"canary per_cell={self.per_cell} and references={self.references} must be at least 1, "
                f"prefix_words={self.prefix_words} at least 0"
            )
        if max(self.repetitions) == 0:
            raise UserError("canary repetitions are all 0; nothing would be planted")


@dataclasses.dataclass(frozen=True)
class Canary:
    """A secret and where it stands: copy c reads prefix(c) + before + secret + after.

    `prefixes` holds one text, or one for each copy where they vary. `template` names the references to rank it among;
    `space_bits` is log2 of how many secrets could have been drawn.
    """

    canary: str
    kind: str
    length: int
    repetitions: int
    prefix: str
    template: str
    space_bits: float
    before: str
    secret: str
    after: str
    prefixes: tuple[str, ...]

    def context(self, copy: int = 0) -> str:
        """Returns all that stands before the secret in one copy."""
        return self.prefixes[copy % len(self.prefixes)] + self.before

    def text(self, copy: int = 0) -> str:
        """Returns the whole document of one copy."""
        return self.context(copy) + self.secret + self.after


def plant_canaries(
    output: epath.PathLike,
    secret: str = "",
    plan: CanaryPlan | None = None,
    tokenizer: Tokenizer | str | None = None,
    source: str = KIND,
    secret_file: str = "",
    secret_variable: str = "",
) -> dict[str, Any]:
    """Writes canaries with their copies for `tokenize.planted`; returns the summary.

    Idempotent: returns immediately if the output is complete.

    Args:
      output: folder to write.
      secret: decides all that is random; who has it can make all canaries again. At least 16 characters, none to be
        guessed, for example of `secrets.token_hex()`. From Python only: gin does not bind it, for it would be recorded.
      plan: which canaries, None for the default.
      tokenizer: one or its folder, needed for the kind `tokens`.
      source: source of the copies in a token store.
      secret_file: a file that holds the secret.
      secret_variable: the name of an environment variable that holds the secret.

    Raises:
      UserError: no secret or a short one, no tokenizer for tokens, too few candidates of a template, or the output
        folder holds something else.
    """
    plan = plan or CanaryPlan()
    secret = read_secret("plant_canaries", secret, secret_file, secret_variable)
    if not secret:
        raise UserError(
            "plant_canaries has no secret; put one into a file (openssl rand -hex 32 > secret; chmod 600 secret) and "
            "give plant_canaries.secret_file, or name an environment variable in plant_canaries.secret_variable"
        )
    tokenizer = Tokenizer.load(tokenizer) if isinstance(tokenizer, str) else tokenizer
    canaries, references = make_canaries(secret, plan, tokenizer)
    salt = SecretStream(secret, "salt").take(32)
    contents = {
        CANARIES_FILE: "".join(json.dumps(dataclasses.asdict(each), ensure_ascii=False) + "\n" for each in canaries),
        REFERENCES_FILE: json.dumps(references, ensure_ascii=False, indent=1) + "\n",
    }
    commitment = {
        "algorithm": ALGORITHM,
        "canaries": len(canaries),
        "digests": {name: salted_digest(text.encode(), salt) for name, text in contents.items()},
    }
    inputs = {
        **identity_of(plan),
        "tokenizer": tokenizer.digest if tokenizer and TOKENS in plan.kinds else None,
        "commitment": commitment["digests"],
        "source": source,
    }
    if artifacts.already_built(output, KIND, inputs):
        return dict(artifacts.read_manifest(output, KIND)["summary"])
    with artifacts.build(output, KIND, inputs) as build:
        for name, text in contents.items():
            (build.path / name).write_text(text)
        (build.path / OPENING_FILE).write_text(json.dumps({"salt": salt.hex()}) + "\n")
        (build.path / COMMITMENT_FILE).write_text(json.dumps(commitment, indent=1) + "\n")
        rows = SecretStream(secret, "order").shuffled(list(_copies(canaries, source)))
        with (build.path / DOCUMENTS_FILE).open("w") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        build.summary.update(canaries=len(canaries), documents=len(rows), source=source)
    return dict(build.summary)


def make_canaries(
    secret: str, plan: CanaryPlan, tokenizer: Tokenizer | None = None
) -> tuple[list[Canary], dict[str, list[str]]]:
    """Returns the canaries of a plan and, for each template, the reference secrets; all secrets of a template differ.

    Raises:
      UserError: as `plant_canaries`.
    """
    if len(secret) < SHORTEST_SECRET:
        raise UserError(
            f"the canaries' secret has {len(secret)} characters, at least {SHORTEST_SECRET} are needed; "
            "make one with python -c 'import secrets; print(secrets.token_hex())'"
        )
    cells = [
        (repetitions, prefix)
        for repetitions in plan.repetitions
        for prefix in (plan.prefixes if repetitions > 1 else plan.prefixes[:1])
        for _ in range(plan.per_cell)
    ]
    canaries: list[Canary] = []
    references = {}
    for kind in plan.kinds:
        for length in plan.lengths:
            template = make_template(kind, length, tokenizer)
            drawn = _distinct_secrets(template, secret, len(cells) + plan.references)
            references[template.name] = drawn[len(cells) :]
            for number, (repetitions, prefix) in enumerate(cells):
                stream = SecretStream(secret, f"{template.name}/{number}")
                canaries.append(_canary(template, drawn[number], repetitions, prefix, plan.prefix_words, stream))
    return canaries, references


def read_canaries(folder: epath.PathLike) -> tuple[list[Canary], dict[str, list[str]]]:
    """Returns what `plant_canaries` wrote: canaries, and reference secrets by template.

    Raises:
      UserError: the folder holds no canaries, or damaged ones.
    """
    artifacts.verify(folder, KIND)
    root = epath.Path(folder)
    try:
        lines = (root / CANARIES_FILE).read_bytes().split(b"\n")
        rows = [row for _, row in parse_json_lines(lines, str(root / CANARIES_FILE))]
        canaries = [Canary(**(row | {"prefixes": tuple(row["prefixes"])})) for row in rows]
        return canaries, read_json(root / REFERENCES_FILE)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{root} was written by another version ({error}); plant the canaries again") from error


def check_commitment(folder: epath.PathLike, commitment: epath.PathLike) -> None:
    """Checks that opened canaries are those that a published `commitment.json` promised.

    Raises:
      UserError: a file is missing or is not what was committed to.
    """
    root = epath.Path(folder)
    try:
        salt = bytes.fromhex(read_json(root / OPENING_FILE)["salt"])
        promised = dict(read_json(commitment)["digests"])
        contents = {name: (root / name).read_bytes() for name in (CANARIES_FILE, REFERENCES_FILE)}
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder} and {commitment} cannot be compared ({error}); give opened canaries") from error
    for name, content in contents.items():
        if promised.get(name) != salted_digest(content, salt):
            raise UserError(f"{root / name} is not what {commitment} committed to; it was changed or is of another run")


def salted_digest(content: bytes, salt: bytes) -> str:
    """Returns BLAKE2b-256 of the content keyed with the salt, in hexadecimal."""
    return hashlib.blake2b(content, key=salt, digest_size=32).hexdigest()


def split_tokens(tokenizer: Tokenizer, context: str, secret: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns int32[p], int32[s]: a context followed by a secret as training text has it, cut where they meet.

    A token across the seam counts to the secret, so that nothing of the secret is given away.
    """
    alone, together = tokenizer.encode_batch([context, context + secret])
    seam = prefix_match_length(alone, together)
    return together[:seam], together[seam:]


def _canary(
    template: Template, secret: str, repetitions: int, prefix: str, prefix_words: int, stream: SecretStream
) -> Canary:
    """Returns one canary behind as many prefixes as it needs."""
    before, after = template.frame(stream)
    number = repetitions if prefix == VARIED and repetitions > 1 else 1
    return Canary(
        canary=stream.take(16).hex(),
        kind=template.kind,
        length=template.length,
        repetitions=repetitions,
        prefix=prefix,
        template=template.name,
        space_bits=template.length * math.log2(template.alphabet_size),
        before=before,
        secret=secret,
        after=after,
        prefixes=tuple(stream.sentences(prefix_words) for _ in range(number)),
    )


def _distinct_secrets(template: Template, secret: str, number: int) -> list[str]:
    """Draws different secrets of one template."""
    if template.length * math.log2(template.alphabet_size) < math.log2(4 * number):
        raise UserError(
            f"canary template {template.name} has fewer than {4 * number} candidates for {number} secrets; "
            "lengthen it or lower references"
        )
    stream = SecretStream(secret, f"{template.name}/secrets")
    found: dict[str, None] = {}
    while len(found) < number:
        found.setdefault(template.draw(stream))
    return list(found)


def _copies(canaries: Sequence[Canary], source: str) -> Iterator[dict[str, str]]:
    """Yields one document for each copy; exact copies are of one cluster, copies behind varied prefixes of none."""
    for canary in canaries:
        for copy in range(canary.repetitions):
            yield {
                "document_id": canary.canary
                if copy == 0
                else artifacts.digest_bytes(f"{canary.canary}|{copy}".encode()),
                "source": source,
                "cluster": canary.canary if len(canary.prefixes) == 1 else "",
                "text": canary.text(copy),
            }
