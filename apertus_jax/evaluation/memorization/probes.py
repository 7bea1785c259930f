"""Probes of the audit as token ids, cut into prompt and expected continuation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from apertus_jax.checkpoints import OpenedModel
from apertus_jax.data import TokenStore
from apertus_jax.data.probes.probes import (
    PlantedProbe,
    ProbeExposure,
    exposure_ledger,
    exposure_of_bucket,
    gram_overlap,
)
from apertus_jax.data.provenance.recorded_stream import recorded_streams, steps_done
from apertus_jax.data.store.token_store import HELD_OUT
from apertus_jax.data.tokenizer.bpe import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.storage.run_folder import RunFolder


@dataclasses.dataclass(frozen=True, order=True)
class Condition:
    """Condition of a probe: `prefix` tokens from `offset` on are shown, the `suffix` tokens after them wanted."""

    prefix: int
    suffix: int
    offset: int
    strategy: str

    @property
    def tokens(self) -> int:
        """How long a probe has to be; shorter ones are skipped (docs/reference/evaluation_and_release.md §3.2)."""
        return self.offset + self.prefix + self.suffix


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A text that may have been trained on, in the audited model's tokens: int32[n] without boundaries.

    `key` is what its loss mask was drawn with, and decides its draws together with the seed of a cell: the same for
    every model that is audited.
    """

    ids: np.ndarray
    key: int = 0


@dataclasses.dataclass(frozen=True)
class AuditProbe(Candidate):
    """A planted probe as a candidate; its `planted.copies` are the exposure."""

    planted: PlantedProbe = dataclasses.field(kw_only=True)


def audit_probes(
    planted: Sequence[PlantedProbe],
    tokenizer: Tokenizer,
    buckets: Sequence[str | int] | None = None,
    folder: epath.PathLike = "the probes folder",
) -> list[AuditProbe]:
    """Returns planted probes in the tokens of a model; `buckets` limits them to some, None takes all.

    Raises:
      UserError: no probes, an unknown bucket, no control, or nothing but controls; `folder` says where.
    """
    known = sorted({probe.bucket for probe in planted}, key=lambda name: (exposure_of_bucket(name), name))
    if not planted:
        raise UserError(f"{folder} holds no probes; plant some before training")
    wanted = known if buckets is None else [str(bucket) for bucket in buckets]
    for bucket in wanted:
        if bucket not in known:
            raise UserError(f"{folder} has no probe bucket {bucket!r}; it has {', '.join(known)}")
    chosen = [probe for probe in planted if probe.bucket in wanted]
    exposures = {exposure_of_bucket(bucket) for bucket in wanted}
    if 0 not in exposures:
        raise UserError(
            f"the buckets {', '.join(wanted)} of {folder} hold no control (0 copies); recall cannot be told from "
            "chance without texts that the model never saw"
        )
    if exposures == {0}:
        raise UserError(f"the buckets {', '.join(wanted)} of {folder} are all controls; add one with copies")
    ids = tokenizer.encode_batch([probe.text for probe in chosen])
    return [
        AuditProbe(tokens, int(probe.probe[:8], 16), planted=probe) for probe, tokens in zip(chosen, ids, strict=True)
    ]


def exposures_of_run(
    run: str, store: TokenStore | None, planted: Sequence[PlantedProbe], step: int | None = None
) -> list[ProbeExposure] | None:
    """Returns in which steps of a run, up to `step`, each copy of the probes was read; None when it cannot be known.

    It can for a run folder, which records its order, beside the token store that it was trained on.

    Raises:
      UserError: the store is another one, or the record of the run is damaged or of an older version.
    """
    if store is None or not RunFolder(run).mixture.exists():
        return None
    return exposure_ledger(recorded_streams(run, store), planted, step or steps_done(run))


def overlap_in_store(
    probes: Sequence[AuditProbe], planted: Sequence[PlantedProbe], store: TokenStore
) -> list[AuditProbe]:
    """Returns the probes with the 13-gram overlap of what a store really holds beside all planted copies.

    Reads every training document once. What was found at planting counts where it is greater.

    Source: docs/reference/evaluation_and_release.md §3.4.
    """
    copies = {probe.copy_id(copy) for probe in planted for copy in range(probe.copies)}

    def other_texts():
        for name in store.source_names:
            if name == HELD_OUT:
                continue
            source = store.source(name)
            for number, document_id in enumerate(source.documents.column("document_id").to_pylist()):
                if document_id not in copies:
                    yield store.tokenizer.decode(source.document(number)[1:-1])

    found = gram_overlap([probe.planted.text for probe in probes], other_texts())
    return [
        with_overlap(probe, max(probe.planted.overlap, round(float(share), 6)))
        for probe, share in zip(probes, found, strict=True)
    ]


def with_overlap(probe: AuditProbe, overlap: float) -> AuditProbe:
    """Returns the probe with another share of 13-grams that other training text holds."""
    return dataclasses.replace(probe, planted=dataclasses.replace(probe.planted, overlap=overlap))


def tokenizer_of(model: OpenedModel, store: TokenStore | None) -> Tokenizer:
    """Returns the tokenizer of a model, or of the store where the model carries none.

    Raises:
      UserError: neither has one, or the two differ.
    """
    folder = model.tokenizer
    if folder is None:
        if store is None:
            raise UserError(
                f"{model.place} carries no tokenizer, so probes cannot be read; give the token store it was trained on"
            )
        return store.tokenizer
    tokenizer = Tokenizer.load(folder)
    if store is not None:
        store.check_tokenizer(tokenizer)
    return tokenizer


def cut_probe(probe: Candidate, condition: Condition, bod_id: int) -> tuple[list[int], list[int]]:
    """Returns the prompt, <s> and the prefix, and the suffix after it.

    Source: docs/reference/evaluation_and_release.md §3.2.
    """
    ids = probe.ids[condition.offset : condition.tokens].tolist()
    return [bod_id, *ids[: condition.prefix]], ids[condition.prefix :]
