"""Probes as the audit asks for them: token ids, cut into what the model is shown and what it should not know."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from apertus_jax.data import TokenStore
from apertus_jax.data.probes import (
    PlantedProbe,
    ProbeExposure,
    exposure_ledger,
    exposure_of_bucket,
    gram_overlap,
    read_probes,
)
from apertus_jax.data.recorded_stream import MIXTURE_FILE, recorded_streams, steps_done
from apertus_jax.data.token_store import HELD_OUT
from apertus_jax.data.tokenizer import Tokenizer
from apertus_jax.errors import UserError
from apertus_jax.model_folder import find_model, tokenizer_folder


@dataclasses.dataclass(frozen=True)
class AuditProbe:
    """A probe in the audited model's tokens, int32[n] without boundaries; `exposure` is how often it was planted.

    `overlap` is the share of its 13-grams that other training text holds.
    """

    probe: str
    bucket: str
    index: int
    exposure: int
    overlap: float
    text: str
    ids: np.ndarray

    @property
    def row_seed(self) -> int:
        """What decides its draws, with the seed of the cell: the same for every model that is audited."""
        return int(self.probe[:8], 16)


def audit_probes(
    folder: epath.PathLike, tokenizer: Tokenizer, buckets: Sequence[str | int] | None = None
) -> list[AuditProbe]:
    """Reads planted probes in the tokens of a model; `buckets` limits them to some, None takes all.

    Raises:
      UserError: no probes, an unknown bucket, no control, or nothing but controls.
    """
    planted = read_probes(folder)
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
    return [_audit_probe(probe, tokens) for probe, tokens in zip(chosen, ids, strict=True)]


def exposures_of_run(run: str, store: TokenStore | None, folder: str) -> list[ProbeExposure] | None:
    """Returns in which steps of a run each copy of the probes in `folder` was read; None when that cannot be known.

    It can for a run folder, which records its order, beside the token store that it was trained on.

    Raises:
      UserError: the store is another one, or the record of the run is damaged or of an older version.
    """
    if store is None or not (epath.Path(run) / MIXTURE_FILE).exists():
        return None
    return exposure_ledger(recorded_streams(run, store), read_probes(folder), steps_done(run))


def overlap_in_store(probes: Sequence[AuditProbe], folder: epath.PathLike, store: TokenStore) -> list[AuditProbe]:
    """Returns the probes with the 13-gram overlap of what a store really holds beside the planted copies (E§3.4).

    Reads every training document once. What was found at planting counts where it is greater.
    """
    copies = {planted.copy_id(copy) for planted in read_probes(folder) for copy in range(planted.copies)}

    def other_texts():
        for name in store.source_names:
            if name == HELD_OUT:
                continue
            source = store.source(name)
            for number, document_id in enumerate(source.documents.column("document_id").to_pylist()):
                if document_id not in copies:
                    yield store.tokenizer.decode(source.document(number)[1:-1])

    found = gram_overlap([probe.text for probe in probes], other_texts())
    return [
        dataclasses.replace(probe, overlap=max(probe.overlap, round(float(share), 6)))
        for probe, share in zip(probes, found, strict=True)
    ]


def tokenizer_of(run: epath.PathLike, store: TokenStore | None) -> Tokenizer:
    """Returns the tokenizer of a model folder, or of the store where the model carries none.

    Raises:
      UserError: neither has one, or the two differ.
    """
    folder = tokenizer_folder(find_model(run))
    if folder is None and store is None:
        raise UserError(f"{run} carries no tokenizer, so probes cannot be read; give the token store it was trained on")
    if folder is None:
        return store.tokenizer
    tokenizer = Tokenizer.load(folder)
    if store is not None:
        store.check_tokenizer(tokenizer)
    return tokenizer


def cut_probe(probe: AuditProbe, prefix: int, suffix: int, offset: int, bod_id: int) -> tuple[list[int], list[int]]:
    """Returns the prompt, <s> and `prefix` tokens from `offset` on, and the `suffix` tokens after them (E§3.2)."""
    ids = probe.ids[offset : offset + prefix + suffix].tolist()
    return [bod_id, *ids[:prefix]], ids[prefix:]


def long_enough(probes: Sequence[AuditProbe], prefix: int, suffix: int, offset: int) -> list[AuditProbe]:
    """Returns the probes with at least offset + prefix + suffix tokens; the others are skipped (E§3.2)."""
    return [probe for probe in probes if len(probe.ids) >= offset + prefix + suffix]


def _audit_probe(planted: PlantedProbe, ids: np.ndarray) -> AuditProbe:
    return AuditProbe(
        probe=planted.probe,
        bucket=planted.bucket,
        index=planted.index,
        exposure=planted.copies,
        overlap=planted.overlap,
        text=planted.text,
        ids=ids,
    )
