"""Looks at a step: gradient norms by layer, loss by language, source and stage agree with computing them apart."""

import json

import jax
import numpy as np
import pytest

from apertus_jax.corpus.documents import UNKNOWN_LANGUAGE
from apertus_jax.data import Mixture, MixtureStage, TokenStore, tokenize
from apertus_jax.data.loader.batch_loader import BatchLoader
from apertus_jax.data.provenance.label_origins import LabelOrigins, Origin
from apertus_jax.data.provenance.recorded_stream import recorded_streams, stage_starts
from apertus_jax.data.provenance.uses import uses_of_step
from apertus_jax.model import Transformer, init_parameters
from apertus_jax.objectives import goldfish
from apertus_jax.objectives.masks import combine_masks
from apertus_jax.sharding import MeshConfig
from apertus_jax.training import Objective
from apertus_jax.training.records.report import figures_of_stages
from apertus_jax.training.records.telemetry import read_evaluations, read_metrics
from apertus_jax.training.survival.language_figures import language_figures
from apertus_jax.training.survival.run_watch import RunWatch
from apertus_jax.training.survival.supervision import Supervision
from tests.tiny_experiment import write_documents
from tests.training.small_run import MODEL, small_run

OBJECTIVE = Objective([goldfish(k=4, h=8)], num_tiles=2)
STAGES = [MixtureStage(rates={"one": 0.7, "two": 0.3}), MixtureStage(start=12, rates={"one": 0.1, "two": 0.9})]


LOOKED_AT = {
    "mixture": Mixture(STAGES),
    "objective": OBJECTIVE,
    "supervision": Supervision(watch=RunWatch(layers_every=1, languages_every=1)),
}


@pytest.fixture(scope="module")
def spoken_store(tmp_path_factory):
    """Folder of a token store of two sources, whose documents are in two languages or in nobody knows which."""
    root = tmp_path_factory.mktemp("spoken")
    languages = ("deu_Latn", "ell_Grek", None)
    for seed, name in enumerate(("one", "two")):
        lines = [
            json.loads(line) for line in write_documents(root / f"{name}.jsonl", 60, seed).read_text().splitlines()
        ]
        spoken = [line | {"language": languages[number % 3]} for number, line in enumerate(lines)]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in spoken))
    tokenize({name: str(root / f"{name}.jsonl") for name in ("one", "two")}, root / "store", vocab_size=384)
    return root / "store"


@pytest.fixture(scope="module")
def looked_run(spoken_store, tmp_path_factory):
    """A run of three steps of 8 samples, every one looked at; the second stage begins in the second step."""
    folder = tmp_path_factory.mktemp("looked") / "run"
    small_run(spoken_store, folder, {"log_every": 1}, total_steps=3, **LOOKED_AT)
    return folder


def figures(folder, name):
    """Returns the figures of a run by step."""
    return {row["step"]: row["metrics"] for row in read_evaluations(folder) if row["evaluator"] == name}


def test_gradient_norms_of_layers_make_up_that_of_the_step(looked_run):
    found = figures(looked_run, "layer_figures")
    for row in read_metrics(looked_run):
        norms = {name: value for name, value in found[row["step"]].items() if name.startswith("gradient_norm/")}
        assert {"gradient_norm/layer_00", "gradient_norm/layer_01", "gradient_norm/lm_head"} <= norms.keys()
        assert np.linalg.norm(list(norms.values())) == pytest.approx(row["gradient_norm"], rel=1e-5)


def test_loss_of_languages_is_that_of_their_labels(looked_run, spoken_store):
    """The first step computed apart: logits of the initial parameters, and the documents that provenance names."""
    opened = TokenStore.open(spoken_store)
    [phase] = recorded_streams(looked_run, opened)
    batch = BatchLoader(phase.stream, opened.vocab_size, opened.eod_id, context_window=8).batch(0)
    logits = Transformer(MODEL).apply(
        {"params": init_parameters(MODEL, jax.random.key(28))},
        batch["tokens"][:, :-1],
        positions=batch["positions"],
        segment_ids=batch["segment_ids"],
    )
    logits = np.asarray(logits, np.float64)
    labels = batch["tokens"][:, 1:]
    losses = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    kept = np.asarray(combine_masks(OBJECTIVE.loss_masks, batch))
    sums = {}
    for use in uses_of_step(phase.stream, 0):
        table = opened.source(use.source).documents
        language = table.column("language")[use.document].as_py() or UNKNOWN_LANGUAGE
        place = use.row, slice(max(use.offset - 1, 0), use.offset + use.length - 1)
        for name in (f"loss/{language}", f"source_loss/{use.source}", "loss"):
            loss, count = sums.get(name, (0.0, 0.0))
            sums[name] = loss + (losses[place] * kept[place]).sum(), count + kept[place].sum()
    found = figures(looked_run, "language_figures")[1]
    assert len(sums) == 6 and {name for name in found if "loss" in name} == sums.keys()
    for name, (loss, count) in sums.items():
        assert found[name] == pytest.approx(loss / count, rel=1e-5), name
        if "/" in name:
            assert found[name.replace("loss", "labels")] == count
    assert found["loss"] == pytest.approx(read_metrics(looked_run)[0]["loss"], rel=1e-6)


def test_pieces_and_mesh_of_a_step_change_no_figure(looked_run, spoken_store, tmp_path):
    training, mesh = {"log_every": 1, "accumulation": 2}, MeshConfig(data=4, tensor=2)
    small_run(spoken_store, tmp_path / "run", training, total_steps=1, mesh=mesh, **LOOKED_AT)
    for name in ("layer_figures", "language_figures"):
        found, expected = figures(tmp_path / "run", name)[1], figures(looked_run, name)[1]
        assert found == pytest.approx(expected, rel=1e-4)


def test_stages_stand_in_the_log_and_on_the_page(looked_run):
    rows = read_metrics(looked_run)
    assert [row["stage"] for row in rows] == [0, 1, 1]
    page = (looked_run / "report.html").read_text()
    assert "Stages of the mixture" in page and "loss when last looked at" in page


def test_a_row_between_two_stages_counts_for_both():
    rows = [
        {"samples": 8, "tokens": 80, "loss": 4.0},
        {"samples": 16, "tokens": 160, "loss": 2.0},
        {"samples": 24, "tokens": 240, "loss": 1.0},
    ]
    assert figures_of_stages(rows, [0, 10, 99]) == [
        (0, 0, 100, (80 * 4.0 + 20 * 2.0) / 100, 2.0),
        (1, 10, 140, (60 * 2.0 + 80 * 1.0) / 140, 1.0),
    ]


def test_another_mixture_begins_a_stage_other_batches_do_not():
    first = {"from_step": 0, "from_sample": 0, "blend": {"stages": [{"start": 0, "rates": [1]}, {"start": 40}]}}
    batches = {**first, "from_step": 2, "from_sample": 16}
    other = {"from_step": 9, "from_sample": 64, "blend": {"stages": [{"start": 0, "rates": [2]}]}}
    assert stage_starts({**batches, "earlier": [first]}) == [0, 40]
    assert stage_starts({**other, "earlier": [first, batches]}) == [0, 40, 64]
    assert stage_starts({**other, "earlier": [{**first}]}) == [0, 40, 64]


def test_languages_without_labels_are_left_out():
    origins = [Origin("web", "deu_Latn"), Origin("web", "ell_Grek"), Origin("books", "deu_Latn")]
    found = language_figures(origins, np.float32([6, 0, 2]), np.float32([3, 0, 1]))
    assert found == {
        "loss": 2.0,
        "loss/deu_Latn": 2.0,
        "labels/deu_Latn": 4.0,
        "source_loss/web": 2.0,
        "source_loss/books": 2.0,
        "source_labels/web": 3.0,
        "source_labels/books": 1.0,
    }
    assert language_figures(origins, np.zeros(3), np.zeros(3)) == {}


def test_labels_have_the_origins_that_provenance_says(looked_run, spoken_store):
    opened = TokenStore.open(spoken_store)
    [phase] = recorded_streams(looked_run, opened)
    origins = LabelOrigins(phase.stream)
    numbers = origins.of_samples(phase.stream.samples_of_step(1))
    for use in uses_of_step(phase.stream, 1):
        named = opened.source(use.source).documents.column("language")[use.document].as_py()
        of_use = numbers[use.row, max(use.offset - 1, 0) : use.offset + use.length - 1]
        assert {origins.origins[number] for number in of_use.tolist()} <= {
            Origin(use.source, named or UNKNOWN_LANGUAGE)
        }
