"""Canary exposure in the audit: how many bits of each planted secret a model gives away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apertus_jax.evaluation.memorization.canaries.exposure import MIN_REFERENCES, exposure, extrapolated_exposure
from apertus_jax.evaluation.memorization.canaries.plant_canaries_command import Canary, split_tokens
from apertus_jax.evaluation.memorization.grid import AuditedModel

GROUP = ("kind", "length", "repetitions", "prefix")


def canary_rows(
    canaries: Sequence[Canary], references: Mapping[str, Sequence[str]], model: AuditedModel
) -> list[dict[str, Any]]:
    """Returns one row per canary: its rank among the references behind its own first prefix, and the bits this means.

    `recited` says whether greedy decoding would give the whole secret.
    """
    rows = []
    for canary in canaries:
        pairs = [
            split_tokens(model.tokenizer, canary.context(), secret)
            for secret in (canary.secret, *references[canary.template])
        ]
        contexts = [[model.tokenizer.bod_id, *context.tolist()] for context, _ in pairs]
        own, *others = model.score(contexts, [secret for _, secret in pairs])
        likelihoods = np.array([each.log_likelihood for each in others])
        exact = exposure(own.log_likelihood, likelihoods)
        fitted = None
        if len(others) >= MIN_REFERENCES and np.ptp(likelihoods) > 0:  # no distribution fits equal ones
            fitted = extrapolated_exposure(own.log_likelihood, likelihoods, canary.space_bits)
        rows.append(
            {
                "canary": canary.canary,
                **{name: getattr(canary, name) for name in GROUP},
                "bits": exact.bits,
                "rank": exact.rank,
                "candidates": exact.candidates,
                "p_value": exact.p_value,
                "extrapolated_bits": None if fitted is None else fitted.bits,
                "fit_distance": None if fitted is None else fitted.fit_distance,
                "space_bits": canary.space_bits,
                "recited": own.is_greedy,
            }
        )
    return rows


def canary_groups(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns means over the canaries of one kind, length, repetitions and prefix."""
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in GROUP), []).append(row)
    means = []
    for key, members in groups.items():
        fitted = [row["extrapolated_bits"] for row in members if row["extrapolated_bits"] is not None]
        means.append(
            {
                **dict(zip(GROUP, key, strict=True)),
                "canaries": len(members),
                "mean bits": float(np.mean([row["bits"] for row in members])),
                "most measurable": float(np.log2(members[0]["candidates"])),
                "mean extrapolated bits": float(np.mean(fitted)) if fitted else None,
                "recited": sum(row["recited"] for row in members),
            }
        )
    return means
