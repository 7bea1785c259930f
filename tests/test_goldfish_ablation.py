"""The Goldfish ablation: exact exposures, twins that differ in the mask alone, every arm in the report, resumable."""

import dataclasses
import json
import sys
from pathlib import Path

import gin
import numpy as np
import pytest

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
sys.path.insert(0, str(EXPERIMENTS))
import goldfish_ablation as ablation  # noqa: E402
from goldfish_ablation_copies import measure_leak, near_copies  # noqa: E402
from goldfish_ablation_data import plant, prepare_texts  # noqa: E402
from goldfish_ablation_settings import ARMS, GoldfishAblation, parse_arm  # noqa: E402
from goldfish_ablation_twins import arm_masks, recall  # noqa: E402

from apertus_jax.data import token_pieces  # noqa: E402
from apertus_jax.data.store.ngrams import text_ngram_hashes  # noqa: E402
from apertus_jax.errors import UserError  # noqa: E402
from apertus_jax.model import ModelConfig  # noqa: E402
from apertus_jax.objectives import normalized  # noqa: E402

MODEL = ModelConfig(512, 16, 32, num_layers=1, num_heads=2, num_kv_heads=1, max_position_embeddings=128)
SETTINGS = GoldfishAblation(
    MODEL,
    arms=("none", "cluster:4:13", "none:restarted"),
    seeds=(3,),
    exposures=(0, 1, 5),
    probes=2,
    prefix=16,
    suffix=48,
    clusters=1,
    copy_exposures=2,
    background_rows=12,
    held_out=3,
)


@pytest.fixture(autouse=True)
def forget_bindings():
    yield
    gin.clear_config()


@pytest.fixture(scope="module")
def texts():
    return prepare_texts(SETTINGS)


@pytest.fixture(scope="module")
def planted(texts):
    return plant(SETTINGS, texts, 3)


@pytest.mark.parametrize("size", ["test", "small", "medium"])
def test_every_setting_builds(size):
    settings = ablation.read_settings([f"ablations/goldfish_{size}.gin"], [])
    assert settings.arms == ARMS and len(settings.seeds) >= (3 if size == "medium" else 2)
    if size != "test":
        assert settings.suffix >= 250
        assert set(settings.exposures) == {0, 1, 2, 4, 8, 16, 32, 64, 128}
    changed = ablation.read_settings([f"ablations/goldfish_{size}.gin"], ["GoldfishAblation.seeds = [7]"])
    assert changed == dataclasses.replace(settings, seeds=(7,))


def test_every_probe_is_read_exactly_as_often_as_its_bucket_says(planted):
    rows = [row.tobytes() for row in planted.rows]
    for number, probe in enumerate(planted.probes):
        assert rows.count(probe.tobytes()) == planted.exposure[number] == (planted.planted == number).sum()
    assert len({probe.tobytes() for probe in planted.probes}) == len(planted.probes) == 6
    for edits in planted.copies:
        distinct = {row.tobytes(): 0 for row in edits.values()}
        for row in edits.values():
            distinct[row.tobytes()] += 2
        assert {row: rows.count(row) for row in distinct} == distinct
    assert len(planted.rows) % SETTINGS.batch_size == 0


def test_no_probe_shares_a_passage_with_other_text(texts, planted):
    others = [each.text for part in texts.background.values() for each in part]
    known = np.concatenate([text_ngram_hashes(text) for text in others])
    for probe in planted.probes:
        text = texts.tokenizer.decode(probe, skip_special_tokens=True)
        assert not np.isin(text_ngram_hashes(text), known).any()


def test_seed_alone_decides_the_data_of_the_ablation(texts, planted):
    assert plant(SETTINGS, texts, 3).digest == planted.digest != plant(SETTINGS, texts, 4).digest


def test_copies_have_the_same_words_but_for_one_and_other_tokens(texts):
    text = next(each.text for each in texts.pool if len(each.text) > 1500)[:1500]
    copies = near_copies(text, texts.tokenizer, 0, 300)
    spelled = {edit: normalized(texts.tokenizer.decode_bytes(ids)) for edit, ids in copies.items()}
    assert len({ids.tobytes() for ids in copies.values()}) == len(copies) == 8
    for edit, letters in spelled.items():
        assert (letters == normalized(text.encode())) == (edit != "one word changed"), edit


def test_leak_of_copies_counted_by_hand():
    pieces = (b"", b"In", b" the", b" beginning", b"\n", b" begin", b"ning", b" end")
    first, wrapped, other = np.array([1, 2, 3]), np.array([1, 4, 2, 5, 6]), np.array([1, 2, 7])

    def leak(*drops):
        return measure_leak([first, wrapped, other], [np.array(each, bool) for each in drops], pieces, 1)

    one = leak([0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0])
    assert (one.labels, one.masked_here, one.masked_everywhere, one.revealed) == (
        2,
        1,
        1,
        0.0,
    )  # the last copy is silent
    assert leak([0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1]).revealed == 1.0
    assert leak([0, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0]).masked_everywhere == 1
    assert np.isnan(leak([1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0]).revealed)


def test_masks_leak_but_for_that_of_the_cluster(texts):
    model = dataclasses.replace(MODEL, max_position_embeddings=512)
    planted = plant(dataclasses.replace(SETTINGS, model=model, prefix=64, suffix=384, clusters=4), texts, 0)
    pieces = token_pieces(texts.tokenizer)
    revealed = {}
    for name in ("megatron:4:13", "document:4:13", "cluster:4:13"):
        masks = arm_masks(parse_arm(name), texts, planted)
        leaks = [
            measure_leak([row[1:] for row in edits.values()], drops, pieces, 63)
            for edits, drops in zip(planted.copies, masks.copies, strict=True)
        ]
        assert sum(leak.masked_here for leak in leaks) > 100
        revealed[name] = 1 - sum(leak.masked_everywhere for leak in leaks) / sum(leak.masked_here for leak in leaks)
    assert revealed["cluster:4:13"] < 0.03
    assert revealed["megatron:4:13"] > 0.5 and revealed["document:4:13"] > 0.5


def test_the_standard_twin_keeps_every_label(texts, planted):
    masks = arm_masks(parse_arm("none"), texts, planted)
    assert not masks.rows.any() and not masks.probes.any()


def test_recall_tells_a_recitation_from_one_that_errs_at_a_hole():
    reference, dropped = np.arange(10, 20), np.arange(10) == 4
    perfect = recall(reference, reference.tolist(), dropped)
    assert (perfect["rouge_l"], perfect["exact_match"], perfect["prefix_match"], perfect["errs_at_hole"]) == (
        1,
        True,
        10,
        None,
    )
    wrong = recall(reference, [*reference[:4].tolist(), 99, *reference[5:].tolist()], dropped)
    assert (wrong["prefix_match"], wrong["errs_at_hole"], wrong["first_hole"], wrong["rouge_l"]) == (4, True, 4, 0.9)


@pytest.fixture(scope="module")
def interrupted_run(tmp_path_factory, texts):
    """The folder of a run that was interrupted in its second arm and went on, its summary, and the arms measured."""
    folder, measure, calls = tmp_path_factory.mktemp("ablation"), ablation.measure, []

    def interrupted(twins, arm, *rest):
        calls.append(arm.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(twins, arm, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "prepare_texts", lambda _: texts)
        patch.setattr(ablation, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ablation.run(SETTINGS, str(folder), progress=False)
        assert not (folder / "results.json").exists()
        summary = ablation.run(SETTINGS, str(folder), progress=False)
    return folder, summary, calls


def figures_of(folder, arm):
    return json.loads((ablation.arm_folder(folder, arm, 3) / "figures.json").read_text())


def test_an_interrupted_run_goes_on_and_the_report_has_every_arm(interrupted_run):
    folder, summary, calls = interrupted_run
    assert calls == ["none", "cluster:4:13", "cluster:4:13", "none:restarted"]
    check_report(folder, SETTINGS, summary)
    standard, masked = (figures_of(folder, arm) for arm in ("none", "cluster:4:13"))
    assert standard["data"] == masked["data"]
    assert standard["first_loss"] == pytest.approx(masked["first_loss"], abs=0.1)  # same weights and rows, other labels


def test_restarted_twin_differs_in_its_first_weights_alone(interrupted_run):
    folder, summary, _ = interrupted_run
    one, other = (figures_of(folder, arm) for arm in ("none", "none:restarted"))
    assert one["data"] == other["data"] and one["drop_rate"] == other["drop_rate"]
    assert one["first_loss"] != other["first_loss"]
    assert summary["arms"]["none:restarted"]["held_out"]["all"]["difference"] != 0


def check_report(folder, settings, summary):
    page = (folder / "report.html").read_text()
    assert "<svg" in page and "Near-duplicate copies" in page and "<details>" in page
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(summary))
    for arm in settings.arms:
        assert page.count(arm) >= 4
        found = summary["arms"][arm]
        assert set(found["recall"]) == {str(exposure) for exposure in settings.exposures}
        low, high = (found["recall"]["0"]["rouge_l"][side] for side in ("lower", "upper"))
        assert 0 <= low <= found["recall"]["0"]["rouge_l"]["value"] <= high <= 1
        assert "English" in found["held_out"] and found["held_out"]["all"]["loss"] > 0
    assert summary["arms"]["none"]["held_out"]["all"]["difference"] == 0
    masked = [arm for arm in settings.arms if not arm.startswith("none")]
    assert len(summary["claims"]) == 1 + 2 * len(masked)


@pytest.mark.slow
def test_the_test_setting_runs_and_its_report_has_every_arm(tmp_path):
    settings = ablation.read_settings(["ablations/goldfish_test.gin"], [])
    check_report(tmp_path, settings, ablation.run(settings, str(tmp_path), progress=False))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ("document:50:50",)}, "must name 'none'"),
        ({"arms": ("none", "document:fifty:50")}, "STRATEGY:K:H"),
        ({"arms": ("none", "documnet:50:50")}, "is unknown"),
        ({"exposures": (1, 2)}, "must hold 0"),
        ({"suffix": 0}, "suffix=0 must be at least 1"),
        ({"suffix": 400}, "max_position_embeddings"),
    ],
)
def test_bad_settings_are_one_clear_line(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SETTINGS, **changes)


def test_too_long_probes_and_too_much_background_are_refused(texts):
    with pytest.raises(UserError, match="only .* chapters are that long"):
        plant(dataclasses.replace(SETTINGS, probes=500), texts, 0)
    with pytest.raises(UserError, match="background_rows"):
        plant(dataclasses.replace(SETTINGS, background_rows=10**6), texts, 0)
