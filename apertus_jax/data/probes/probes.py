"""Planted memorization probes: texts that a run reads an exact number of times.

    documents.jsonl     what the run is trained on: every copy a document of its own, an input of `tokenize`
    probes.json         the texts, unseen controls among them; the audit reads it
    commitments.csv     probe, bucket, copies and digest of the text: can be published before the run, the texts after

A bucket is named by how often its probes are shown, with a letter where several have one number: "0a", "0b", "128".
After training, `exposure_ledger` says which samples, steps and places in windows really held each probe
(docs/reference/evaluation_and_release.md §3.1).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
from etils import epath

from apertus_jax.corpus.documents import UNKNOWN_LANGUAGE, document_id
from apertus_jax.data.provenance.uses import DocumentUse, Phase, uses_in_phases
from apertus_jax.data.store.document_inputs import read_inputs, resolve_inputs
from apertus_jax.data.store.ngrams import text_ngram_hashes
from apertus_jax.data.tokenizer.bpe import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of_arguments
from apertus_jax.storage.json_reader import read_json_object

KIND = "probes"
DOCUMENTS_FILE = "documents.jsonl"
PROBES_FILE = "probes.json"
COMMITMENTS_FILE = "commitments.csv"
BUCKET_NAME = re.compile(r"(\d+)([a-z]*)")


@dataclasses.dataclass(frozen=True)
class ProbeText:
    """A text and near duplicates of it: copies take turns among `text` and `variants`. The audit asks for `text`."""

    text: str
    variants: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class PlantedProbe:
    """One probe as planted: its place `index` in its bucket, how many `copies` the documents hold.

    `probe` is its identity, also the cluster of its copies. `overlap` is the share of its 13-grams found in other
    planted probes or, if greater, in the other training documents that were looked at.
    """

    probe: str
    bucket: str
    index: int
    copies: int
    commitment: str
    text: str
    variants: tuple[str, ...] = ()
    overlap: float = 0.0

    def copy_id(self, copy: int) -> str:
        """Returns the document_id of one copy; the first copy's is the probe's own."""
        return self.probe if copy == 0 else document_id(KIND, self.probe, str(copy))

    def copy_text(self, copy: int) -> str:
        """Returns the text of one copy."""
        return (self.text, *self.variants)[copy % (1 + len(self.variants))]


@dataclasses.dataclass(frozen=True)
class ProbeExposure:
    """Exposure of a run to one probe, as it really was.

    `planned` copies lie among the documents, `missing` of them in no training source of the run. `exposures` is how
    often every token of the text was a label, `partial` how much oftener some token was; `uses` says when and where.
    """

    probe: str
    bucket: str
    planned: int
    missing: int
    exposures: int
    partial: int
    uses: tuple[DocumentUse, ...]


def exposure_of_bucket(bucket: str | int) -> int:
    """Returns how often the probes of a bucket are shown: 128 of "128", 0 of "0a".

    Raises:
      UserError: the name is not a number, or a number and lower-case letters.
    """
    found = BUCKET_NAME.fullmatch(str(bucket))
    if not found:
        raise UserError(f"probe bucket {bucket!r} must be a number of copies, with a letter if need be: 0a, 0b, 1, 128")
    return int(found[1])


def deal_into_buckets(
    texts: Sequence[str], buckets: Sequence[str | int], per_bucket: int, seed: int
) -> dict[str, list[str]]:
    """Returns `per_bucket` texts for each bucket, dealt at random, so that buckets differ in exposure alone.

    Raises:
      UserError: there are too few texts.
    """
    if len(texts) < per_bucket * len(buckets):
        raise UserError(
            f"{len(buckets)} buckets of {per_bucket} probes need {per_bucket * len(buckets)} texts, "
            f"there are {len(texts)}; give more or lower per_bucket"
        )
    order = np.random.default_rng(seed).permutation(len(texts))
    dealt = iter(order.tolist())
    return {str(bucket): [texts[next(dealt)] for _ in range(per_bucket)] for bucket in buckets}


def plant_probes(
    output: epath.PathLike,
    buckets: Mapping[Any, Sequence[str | ProbeText | Sequence[int]]],
    tokenizer: Tokenizer | None = None,
    documents: str | Sequence[str] | Mapping[str, str] | None = None,
    source: str = "probes",
    language: str = UNKNOWN_LANGUAGE,
    licence: str = "",
    secret: str = "",
) -> dict[str, Any]:
    """Writes probes with their copies as an input of `tokenize`; returns the summary.

    Idempotent: returns immediately if the output is complete.

    Args:
      output: folder to write.
      buckets: bucket (a name or a number) → texts, or token ids that a tokenizer turns into text and back.
      tokenizer: needed for token ids.
      documents: the other documents of the training, as `tokenize` takes them: 13-grams that they share with a probe
        are counted (docs/reference/evaluation_and_release.md §3.4). Other planted probes are always looked at.
      source: source of the copies in a token store.
      language: label of all texts.
      licence: of all texts.
      secret: is digested with each text, so that nobody finds a text behind its commitment by guessing.

    Raises:
      UserError: no probes, none with copies, two equal texts, an empty one, or ids that are no text of the tokenizer.
    """
    arguments = dict(locals())
    probes = _probes(buckets, tokenizer, secret)
    read = None if documents is None else [each.identity() for each in resolve_inputs(documents)]
    # What the tokenizer made of them, and a commitment that has the secret in it, is in each probe.
    of_probes = ("buckets", "tokenizer", "secret")
    inputs: dict[str, Any] = {
        **identity_of_arguments(plant_probes, arguments, "output", *of_probes, documents=read),
        "probes": artifacts.digest_json([dataclasses.asdict(probe) for probe in probes]),
    }
    if artifacts.already_built(output, KIND, inputs):
        return dict(artifacts.read_manifest(output, KIND)["summary"])
    probes = _with_overlap(probes, documents)
    with artifacts.build(output, KIND, inputs) as build:
        with (build.path / DOCUMENTS_FILE).open("w") as file:
            for row in _copies(probes, source, language, licence):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        described = {"source": source, "language": language, "probes": [dataclasses.asdict(each) for each in probes]}
        (build.path / PROBES_FILE).write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n")
        (build.path / COMMITMENTS_FILE).write_text(_commitments(probes))
        counts: dict[str, int] = {}
        for probe in probes:
            counts[probe.bucket] = counts.get(probe.bucket, 0) + 1
        build.summary.update(
            probes=len(probes), copies=sum(probe.copies for probe in probes), buckets=counts, source=source
        )
    return dict(build.summary)


def read_probes(folder: epath.PathLike) -> list[PlantedProbe]:
    """Returns the probes that `plant_probes` wrote, bucket by bucket.

    Raises:
      UserError: the folder holds no probes, or damaged ones.
    """
    artifacts.verify(folder, KIND)
    path = epath.Path(folder) / PROBES_FILE
    try:
        rows = read_json_object(path)["probes"]
        return [PlantedProbe(**(row | {"variants": tuple(row["variants"])})) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} was written by another version ({error}); plant the probes again") from error


def gram_overlap(texts: Sequence[str], documents: Iterable[str]) -> np.ndarray:
    """Returns the share of each text's distinct 13-grams that some document holds, float64[N]; 0 without any gram."""
    grams = [np.unique(text_ngram_hashes(text)) for text in texts]
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *grams]))
    found = np.zeros(len(known), bool)
    if len(known):
        for text in documents:
            hashes = text_ngram_hashes(text)
            places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            found[places[known[places] == hashes]] = True
    return np.array([found[np.searchsorted(known, each)].mean() if len(each) else 0.0 for each in grams])


def exposure_ledger(phases: Sequence[Phase], probes: Sequence[PlantedProbe], num_steps: int) -> list[ProbeExposure]:
    """Returns the exposures that really happened in the first `num_steps` steps of a run, in the order of `probes`.

    A copy that was cut between windows counts once all its pieces were labels. Controls have no uses.
    """
    places = _places_of_copies(phases, probes)
    ledger = []
    for probe in probes:
        uses: list[DocumentUse] = []
        exposures = most = missing = 0
        for copy in range(probe.copies):
            place = places.get(probe.copy_id(copy))
            if place is None:
                missing += 1
                continue
            source, document, length = place
            found = uses_in_phases(phases, source, document, num_steps)
            counts = _label_counts(found, length)
            exposures += int(counts.min())
            most += int(counts.max())
            uses.extend(found)
        uses.sort(key=lambda use: (use.sample_id, use.offset))
        ledger.append(
            ProbeExposure(probe.probe, probe.bucket, probe.copies, missing, exposures, most - exposures, tuple(uses))
        )
    return ledger


def write_exposure_ledger(path: epath.PathLike, ledger: Sequence[ProbeExposure]) -> None:
    """Writes a ledger as JSON lines: of each use [step, row, sample, offset in the window, start in the document,
    tokens]."""
    lines = []
    for each in ledger:
        row = {field.name: getattr(each, field.name) for field in dataclasses.fields(each) if field.name != "uses"}
        row["uses"] = [[use.step, use.row, use.sample_id, use.offset, use.start, use.length] for use in each.uses]
        lines.append(json.dumps(row))
    artifacts.write_atomically(path, "\n".join(lines) + "\n")


def _probes(buckets: Mapping, tokenizer: Tokenizer | None, secret: str) -> list[PlantedProbe]:
    """Returns the probes in the order of exposure, bucket and place, each text checked."""
    names = sorted((str(bucket) for bucket in buckets), key=lambda name: (exposure_of_bucket(name), name))
    contents = {str(bucket): content for bucket, content in buckets.items()}
    probes: list[PlantedProbe] = []
    owners: dict[str, str] = {}
    for bucket in names:
        for index, content in enumerate(contents[bucket]):
            where = f"probe {index} of bucket {bucket}"
            planted = content if isinstance(content, ProbeText) else ProbeText(_text(content, tokenizer, where))
            for text in (planted.text, *planted.variants):
                if not text.strip():
                    raise UserError(f"{where} is empty; give it a text or leave it out")
                if text in owners:
                    raise UserError(f"{where} has the text of {owners[text]}; a text can be in one bucket only")
                owners[text] = where
            copies = exposure_of_bucket(bucket)
            commitment = artifacts.digest_json([secret, bucket, copies, planted.text, *planted.variants])
            identity = document_id(KIND, bucket, artifacts.digest_json([planted.text, *planted.variants]))
            probes.append(
                PlantedProbe(identity, bucket, index, copies, commitment, planted.text, tuple(planted.variants))
            )
    if not probes:
        raise UserError("no probes were given; give at least one text in one bucket")
    if not any(probe.copies for probe in probes):
        raise UserError("all probes are controls (bucket 0), so nothing would be planted; add a bucket with copies")
    return probes


def _text(content: str | Sequence[int], tokenizer: Tokenizer | None, where: str) -> str:
    """Returns a probe's text; of token ids, the text that is read back as those ids."""
    if isinstance(content, str):
        return content
    if tokenizer is None:
        raise UserError(f"{where} is given as token ids; give their tokenizer, or texts")
    ids = np.asarray(content, np.int32)
    text = tokenizer.decode(ids)
    if not np.array_equal(tokenizer.encode(text), ids):
        raise UserError(f"{where}: its token ids are not what the tokenizer makes of their text; give the text instead")
    return text


def _with_overlap(probes: list[PlantedProbe], documents: Any) -> list[PlantedProbe]:
    """Returns the probes with the share of 13-grams found in other planted probes and, if given, in `documents`."""
    texts = [probe.text for probe in probes]
    if documents is None:
        overlap = np.zeros(len(probes))
    else:
        overlap = gram_overlap(texts, (document.text for _, document in read_inputs(resolve_inputs(documents))))
    grams = [
        np.unique(np.concatenate([text_ngram_hashes(text) for text in (probe.text, *probe.variants)]))
        for probe in probes
    ]
    planted = [each for probe, each in zip(probes, grams, strict=True) if probe.copies]
    known, counts = np.unique(np.concatenate(planted), return_counts=True)
    shared = []
    for probe in probes:
        own = np.unique(text_ngram_hashes(probe.text))
        places = np.minimum(np.searchsorted(known, own), max(len(known) - 1, 0))
        hits = counts[places] * (known[places] == own) - bool(probe.copies) if len(known) else np.zeros(len(own))
        shared.append(float((hits > 0).mean()) if len(own) else 0.0)
    return [
        dataclasses.replace(probe, overlap=round(max(float(elsewhere), among), 6))
        for probe, elsewhere, among in zip(probes, overlap, shared, strict=True)
    ]


def _copies(probes: Sequence[PlantedProbe], source: str, language: str, licence: str) -> Iterator[dict[str, str]]:
    """Yields the document rows of every copy."""
    for probe in probes:
        for copy in range(probe.copies):
            yield {
                "document_id": probe.copy_id(copy),
                "text": probe.copy_text(copy),
                "source": source,
                "language": language,
                "licence": licence,
                "cluster": probe.probe,
            }


def _commitments(probes: Sequence[PlantedProbe]) -> str:
    """Returns the table that can be published before the run."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("probe", "bucket", "copies", "commitment"))
    writer.writerows((probe.probe, probe.bucket, probe.copies, probe.commitment) for probe in probes)
    return buffer.getvalue()


def _places_of_copies(phases: Sequence[Phase], probes: Sequence[PlantedProbe]) -> dict[str, tuple[str, int, int]]:
    """Returns (source, document number, tokens) by the document_id of each copy that the sources of a run hold."""
    wanted = pyarrow.array([probe.copy_id(copy) for probe in probes for copy in range(probe.copies)], pyarrow.string())
    places: dict[str, tuple[str, int, int]] = {}
    for source, tokens in {each.source: each.tokens for phase in phases for each in phase.stream.sources}.items():
        ids = tokens.documents.column("document_id")
        for document in np.flatnonzero(pyarrow.compute.is_in(ids, value_set=wanted).to_numpy()).tolist():
            length = int(tokens.document_starts[document + 1] - tokens.document_starts[document])
            places[ids[document].as_py()] = (source, document, length)
    return places


def _label_counts(uses: Sequence[DocumentUse], length: int) -> np.ndarray:
    """Returns int64[length - 2]: how often each token of a document's text, without boundaries, was a label."""
    counts = np.zeros(length, np.int64)
    for use in uses:
        first_is_input_only = use.offset == 0
        counts[use.start + first_is_input_only : use.start + use.length] += 1
    return counts[1:-1]
