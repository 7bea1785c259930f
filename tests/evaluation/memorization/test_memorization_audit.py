"""The memorization audit: who recites is found, who does not is left alone, and a stopped audit goes on."""

import csv
import json
import shutil
from dataclasses import fields, replace
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

from apertus_jax.data import Tokenizer, TokenStore, tokenize
from apertus_jax.data.probes.probes import ProbeExposure, plant_probes, read_probes
from apertus_jax.errors import UserError
from apertus_jax.evaluation.execution import Execution
from apertus_jax.evaluation.memorization import memorization_command as audit_module
from apertus_jax.evaluation.memorization.excess import summarize, verdict
from apertus_jax.evaluation.memorization.grid import AuditedModel, check_grid, fitting_grid, grid_cells
from apertus_jax.evaluation.memorization.memorization_command import memorization
from apertus_jax.evaluation.memorization.options import AuditFigures, AuditGrid, MembershipOptions
from apertus_jax.evaluation.memorization.probes import AuditProbe, audit_probes, overlap_in_store
from apertus_jax.evaluation.memorization.report import AuditReport, aligned_pieces
from apertus_jax.evaluation.memorization.text_metrics import compare
from apertus_jax.inference import generate_tokens
from apertus_jax.model import Transformer
from apertus_jax.model.model_folder import load_model, save_model
from apertus_jax.objectives import goldfish
from apertus_jax.storage import artifacts
from tests.evaluation.memorization.reciting_model import PROBE_WORDS, make_reciting_model, psalm_passages

SUFFIX, PREFIX = 48, 24
GRID = AuditGrid(prefix=PREFIX, prefixes=(8,), offsets=(8,), suffix=SUFFIX)
SMALLEST_GRID = replace(GRID, prefixes=(), offsets=(), strategies=("greedy",), buckets=("0a", "128"))
EXECUTION = Execution(batch_size=8, progress=False)
SMALL = {"grid": GRID, "execution": EXECUTION}
SMALLEST = {"grid": SMALLEST_GRID, "execution": EXECUTION}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return make_reciting_model(tmp_path_factory.mktemp("reciting"))


def membership_of(trained, k=4):
    documents = (str(trained / "members.jsonl"), str(trained / "others.jsonl"))
    return MembershipOptions(*documents, loss_masks=[goldfish(k=k, h=13)], canaries=str(trained / "canaries"))


@pytest.fixture(scope="module")
def audited(trained):
    """The folder of one audit with everything in it, and what it returned."""
    passages = psalm_passages()
    for name, texts in (("members", passages[:8]), ("others", passages[60:68])):
        (trained / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    results = memorization(
        str(trained / "model"),
        str(trained / "audit"),
        str(trained / "probes"),
        **SMALL,
        membership=membership_of(trained),
    )
    return trained / "audit", results


@pytest.fixture(scope="module")
def rows(audited):
    return [json.loads(line) for line in (audited[0] / "rows.jsonl").read_text().splitlines()]


def entry(results, exposure, strategy="greedy", kind="raw", prefix=PREFIX, offset=0):
    wanted = {"exposure": exposure, "strategy": strategy, "filter": kind, "prefix": prefix, "offset": offset}
    (found,) = [e for e in results["conditions"] if all(e[name] == value for name, value in wanted.items())]
    return found


def test_model_that_was_trained_to_recite_is_flagged(audited):
    _, results = audited
    assert entry(results, 128)["means"]["rouge_l"]["value"] > 0.9
    assert entry(results, 128)["exact_match"]["events"] >= 2
    assert entry(results, 128)["excess"]["rouge_l"]["lower"] > 0.5
    assert results["verdict"]["above"] and results["verdict"]["above_from"] == 128
    assert results["verdict"]["line"].startswith("recall is above control at exposure 128: excess Rouge-L +0.")


def test_unseen_probes_are_not_flagged(audited, trained, tmp_path):
    _, results = audited
    for exposure in (0, 1):
        assert entry(results, exposure)["means"]["rouge_l"]["value"] < 0.25
        assert entry(results, exposure)["exact_match"]["events"] == 0
    assert entry(results, 1)["excess"]["rouge_l"]["lower"] <= 0.02
    run, probes = str(trained / "model"), str(trained / "strangers")
    strangers = memorization(run, str(tmp_path / "audit"), probes, **SMALLEST)
    assert strangers["verdict"]["above"] is False and strangers["verdict"]["above_from"] is None
    assert "recall is not above control at exposure 128" in strangers["verdict"]["line"]
    assert entry(strangers, 128)["means"]["rouge_l"]["value"] < 0.25


def test_rows_have_exact_lengths_and_metrics_of_their_ids(rows, trained):
    tokenizer = Tokenizer.load(trained / "tokenizer")
    probes = audit_probes(read_probes(trained / "probes"), tokenizer)
    ids = {probe.planted.probe: probe.ids.tolist() for probe in probes}
    assert len(rows) == 16 * 3 * 2
    for row in rows:
        begin, middle = row["offset"], row["offset"] + row["prefix_length"]
        assert row["prefix"] == ids[row["probe"]][begin:middle]
        assert row["true_suffix"] == ids[row["probe"]][middle : middle + SUFFIX]
        assert len(row["generated_suffix"]) == SUFFIX == row["suffix_length"]
        assert tokenizer.eod_id not in row["generated_suffix"]
        found = compare(row["true_suffix"], row["generated_suffix"])
        assert found == {name: row[name] for name in found}


def test_greedy_suffixes_and_losses_are_those_of_the_plain_model(rows, trained):
    config, params = load_model(trained / "model")
    tokenizer = Tokenizer.load(trained / "tokenizer")
    forward = jax.jit(lambda given, tokens: Transformer(config).apply({"params": given}, tokens))
    chosen = [row for row in rows if row["strategy"] == "greedy" and row["prefix_length"] == 8]
    for name, loss in (("true_suffix", "nll_true_suffix"), ("generated_suffix", "nll_generated_suffix")):
        tokens = np.array([[tokenizer.bod_id, *row["prefix"], *row[name]] for row in chosen])
        logits = np.array(forward(params, tokens[:, :-1]))[:, 8:]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 9:]).mean(axis=1)
        np.testing.assert_allclose([row[loss] for row in chosen], losses, rtol=2e-5, atol=2e-5)
        logits[..., tokenizer.eod_id] = -np.inf  # never drawn
        best = logits.argmax(axis=-1)
        if name == "generated_suffix":
            np.testing.assert_array_equal(best, tokens[:, 9:])
        else:
            greedy = [0.0 if each else None for each in (best == tokens[:, 9:]).all(axis=1)]
            assert [row["log_p_true_suffix"] for row in chosen] == greedy


def test_end_of_document_cannot_end_a_suffix_early(trained):
    config, params = load_model(trained / "model")
    tokenizer = Tokenizer.load(trained / "tokenizer")
    model = AuditedModel(config, params, tokenizer, EXECUTION, GRID.sampling)
    known = [each for each in audit_probes(read_probes(trained / "probes"), tokenizer) if each.planted.bucket == "128"]
    prompts = [[tokenizer.bod_id, *probe.ids[:-4].tolist()] for probe in known]
    plain = generate_tokens(config, params, prompts, max_new_tokens=16, stop_tokens=(tokenizer.eod_id,))
    assert min(map(len, plain)) < 16
    exact = model.continue_exactly(prompts, 16, "greedy", None, [probe.key for probe in known])
    assert all(len(ids) == 16 and tokenizer.eod_id not in ids for ids in exact)


def test_nucleus_extraction_is_certain_only_for_what_was_learnt(audited):
    _, results = audited
    learnt, unseen = (entry(results, exposure, "nucleus")["extraction"] for exposure in (128, 0))
    assert max(point["extractable"]["rate"] for point in learnt) >= 0.75
    assert all(point["extractable"]["events"] == 0 for point in unseen)
    assert all(0.2 < point["extractable"]["upper_bound"] < 0.4 for point in unseen)  # 8 controls


def test_membership_is_by_exposure_by_mask_and_given_documents(audited):
    _, results = audited
    areas = {(row["set"], row["score"], row["tokens"]): row["area"]["value"] for row in results["membership"]}
    for score in ("loss", "zlib", "min_k", "min_k_plus_plus"):
        for tokens in ("all", "masked", "unmasked"):
            assert areas["exposure 128", score, tokens] == 1.0
    assert areas["documents", "loss", "all"] > 0.5
    assert ("documents", "blind_bag_of_words", "none") in areas
    sizes = {row["set"]: (row["members"], row["non_members"]) for row in results["membership"]}
    assert sizes == {"exposure 1": (4, 8), "exposure 128": (4, 8), "documents": (8, 8)}


def test_canaries_that_were_shown_give_their_bits_away(audited):
    _, results = audited
    bits = {row["repetitions"]: row["mean bits"] for row in results["canaries"]}
    assert bits[64] == 5.0  # rank 1 of 32 candidates
    assert bits[0] < 4.0


def test_tables_and_page_hold_the_figures_of_the_results(audited, rows):
    folder, results = audited
    with (folder / "summary.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(results["conditions"]) == 3 * 2 * 3 * 2
    for line, found in zip(table, results["conditions"], strict=True):
        assert float(line["means_rouge_l_value"]) == found["means"]["rouge_l"]["value"]
        assert line["excess_rouge_l_upper"] == (
            "" if not found["exposure"] else str(found["excess"]["rouge_l"]["upper"])
        )
        assert int(line["exact_trials"]) == found["probes"]
    page = (folder / "report.html").read_text()
    assert results["verdict"]["line"] in page
    assert page.count("<figure") == 8 and "<script" not in page and "<mark>" in page
    assert page.count("<details>") == 16  # every probe once
    artifacts.verify(folder, "memorization_audit")


def test_killed_audit_goes_on_and_ends_with_the_same_bytes(trained, tmp_path, monkeypatch):
    run, probes = str(trained / "model"), str(trained / "probes")
    settings = SMALLEST | {"grid": replace(SMALLEST_GRID, strategies=("greedy", "nucleus"))}
    memorization(run, str(tmp_path / "whole"), probes, **settings)
    computed = []
    real_rows = audit_module.cell_rows

    def stopping(cell, *rest):
        computed.append(cell)
        if len(computed) == 3:
            yield next(real_rows(cell, *rest))
            raise KeyboardInterrupt
        yield from real_rows(cell, *rest)

    monkeypatch.setattr(audit_module, "cell_rows", stopping)
    with pytest.raises(KeyboardInterrupt):
        memorization(run, str(tmp_path / "stopped"), probes, **settings)
    assert not artifacts.is_complete(tmp_path / "stopped")
    memorization(run, str(tmp_path / "stopped"), probes, **settings)
    # Four cells: two before the kill, the one that it hit, and then that one again and the last.
    assert len(computed) == 5 and computed[2] == computed[3]
    files = artifacts.list_files(tmp_path / "whole")
    for name in [*files, artifacts.COMMIT_MARKER]:
        if not name.startswith(".lease"):
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name
    assert artifacts.list_files(tmp_path / "stopped") == files


def test_finished_audit_returns_and_refuses_other_settings(audited, trained, monkeypatch):
    folder, results = audited
    shutil.copytree(folder, trained / "copy")
    again = SMALL | {"membership": membership_of(trained)}
    monkeypatch.setattr("apertus_jax.checkpoints.OpenedModel.load", None)
    run, probes = str(trained / "model"), str(trained / "probes")
    assert memorization(run, str(trained / "copy"), probes, **again) == json.loads(json.dumps(results))
    faster = again | {"execution": Execution(batch_size=3, batch_tokens=64, progress=False)}
    assert memorization(run, str(trained / "copy"), probes, **faster) == json.loads(json.dumps(results))
    for change, named in (
        ({"figures": AuditFigures(bootstrap_seed=1)}, "AuditFigures.bootstrap_seed"),
        ({"membership": membership_of(trained, k=5)}, "MembershipOptions.loss_masks"),
        ({"grid": replace(GRID, seeds=(43,))}, "AuditGrid.seeds"),
    ):
        with pytest.raises(UserError, match=f"was made with other {named}"):
            memorization(run, str(trained / "copy"), probes, **(again | change))


def test_unfinished_audit_of_other_settings_is_refused(trained, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(audit_module, "_compute", stop)
    run, probes = str(trained / "model"), str(trained / "probes")
    with pytest.raises(KeyboardInterrupt):
        memorization(run, str(tmp_path / "audit"), probes, **SMALLEST)
    named = "AuditGrid.buckets, AuditGrid.offsets, AuditGrid.prefixes"
    with pytest.raises(UserError, match=f"holds an unfinished memorization_audit with other {named}"):
        memorization(run, str(tmp_path / "audit"), probes, **SMALL)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and was not written by this command"):
        memorization(run, str(tmp_path / "other"), probes, **SMALLEST)


def identity(monkeypatch, trained, **options):
    """What decides the content of an audit, which is asked for before any weight is read."""

    class Asked(Exception):
        pass

    def ask(folder, kind, inputs, resumable):
        raise Asked(artifacts.canonical_json(inputs))

    monkeypatch.setattr(artifacts, "already_built", ask)
    with pytest.raises(Asked) as asked:
        memorization(str(trained / "model"), str(trained / "nowhere"), str(trained / "probes"), **options)
    return str(asked.value)


def test_every_option_of_an_audit_is_part_of_its_identity(audited, trained, monkeypatch):
    documents = [str(trained / f"{name}.jsonl") for name in ("members", "others")]
    given = {"grid": GRID, "figures": AuditFigures(), "membership": MembershipOptions(*documents)}
    others = {
        "grid": {"prefix": 20, "prefixes": (4,), "offsets": (2,), "suffix": 40, "buckets": ("0a", "128")}
        | {"strategies": ("greedy",), "temperature": 0.5, "top_p": 0.8, "seeds": (1,)},
        "figures": {"min_type_token_ratio": 0.3, "max_overlap": 0.2, "bootstrap_seed": 1, "max_recitations": 3},
        "membership": {"members": documents[1], "non_members": documents[0], "reference": str(trained / "model")}
        | {"loss_masks": [goldfish(k=4, h=13)], "canaries": str(trained / "canaries")},
    }
    first = identity(monkeypatch, trained, **given)
    for name, options in given.items():
        assert others[name].keys() == {field.name for field in fields(options)}, "a field without another value"
        for field, value in others[name].items():
            changed = given | {name: replace(options, **{field: value})}
            assert identity(monkeypatch, trained, **changed) != first, field
    for execution in (Execution(batch_size=2), Execution(batch_tokens=64), Execution(progress=False)):
        assert identity(monkeypatch, trained, **given, execution=execution) == first


def test_probes_are_read_and_digested_once(trained, monkeypatch):
    digested = []
    digest = artifacts.size_and_digest
    monkeypatch.setattr(artifacts, "size_and_digest", lambda path: digested.append(path.name) or digest(path))
    identity(monkeypatch, trained, grid=GRID)
    assert digested.count("probes.json") == 1


def synthetic_rows(values, strategy="greedy", overlap=None, variety=None):
    """Rows with the given Rouge-L: {(bucket, exposure): [value, …]}; every other metric follows from it."""
    return [
        {
            "probe": f"{bucket}-{number}",
            "bucket": bucket,
            "exposure": exposure,
            "overlap": (overlap or {}).get((bucket, number), 0.0),
            **{"prefix_length": 8, "suffix_length": 16, "offset": 0, "strategy": strategy, "seed": seed},
            **dict.fromkeys(("rouge_l", "longest_common_run", "edit_similarity"), value + 0.1 * seed),
            **dict.fromkeys(("span_coverage_13", "span_coverage_50", "prefix_match_length"), 0.0),
            "type_token_ratio_reference": (variety or {}).get((bucket, number), 0.8),
            **dict.fromkeys(("type_token_ratio_generated", "nll_true_suffix", "nll_generated_suffix"), 1.0),
            **{"exact_match": value >= 1, "log_p_true_suffix": None},
        }
        for (bucket, exposure), of_bucket in values.items()
        for number, value in enumerate(of_bucket)
        for seed in ((0,) if strategy == "greedy" else (0, 1))
    ]


def test_excess_is_over_all_controls_and_filters_drop_no_proof():
    values = {("0a", 0): [0.1, 0.2], ("0b", 0): [0.3], ("4", 4): [0.5, 0.9, 0.7]}
    rows = synthetic_rows(values, overlap={("4", 1): 0.5}, variety={("0b", 0): 0.3})
    raw, kept = (
        {entry["exposure"]: entry for entry in summarize(rows, AuditFigures()) if entry["filter"] == kind}
        for kind in ("raw", "filtered")
    )
    assert (raw[4]["probes"], raw[4]["controls"]) == (3, 3) and (kept[4]["probes"], kept[4]["controls"]) == (2, 2)
    assert raw[4]["excess"]["rouge_l"]["value"] == pytest.approx(0.7 - 0.2)
    assert kept[4]["excess"]["rouge_l"]["value"] == pytest.approx(0.6 - 0.15)
    assert raw[0]["excess"]["rouge_l"] is None
    assert kept[4]["excess"]["rouge_l"]["lower"] <= 0.45 <= kept[4]["excess"]["rouge_l"]["upper"]


def test_no_event_is_reported_with_its_upper_bound():
    rows = synthetic_rows({("0a", 0): [0.1] * 30, ("8", 8): [1.0, *[0.2] * 29]})
    by_exposure = {entry["exposure"]: entry["exact_match"] for entry in summarize(rows, AuditFigures())}
    assert by_exposure[0]["events"] == 0 and by_exposure[0]["rule_of_three"] == pytest.approx(3 / 30)
    assert by_exposure[0]["upper_bound"] == pytest.approx(1 - 0.05 ** (1 / 30))
    assert by_exposure[8]["events"] == 1 and by_exposure[8]["rule_of_three"] is None


def test_draws_under_several_seeds_are_averaged_for_each_probe():
    rows = synthetic_rows({("0a", 0): [0.0, 0.0], ("8", 8): [0.4, 0.6]}, "nucleus")
    found = {e["exposure"]: e for e in summarize(rows, AuditFigures()) if e["filter"] == "raw"}
    assert found[8]["probes"] == 2
    assert found[8]["means"]["rouge_l"]["value"] == pytest.approx(0.55)
    assert found[8]["excess"]["rouge_l"]["value"] == pytest.approx(0.5)


def test_verdict_without_a_probe_left_says_so():
    rows = synthetic_rows({("0a", 0): [0.1], ("8", 8): [0.9]}, overlap={("8", 0): 1.0})
    found = verdict(summarize(rows, AuditFigures()), 8, ["greedy"])
    assert found["above"] is None and "nothing can be said" in found["line"]


def test_grid_asks_prefixes_at_offset_0_and_offsets_at_one():
    cells = grid_cells(AuditGrid(500, [50, 500], [0, 64], 400, ["0a", "8"], seeds=[1, 2]))
    asked = {(cell.condition.prefix, cell.condition.offset) for cell in cells}
    assert asked == {(500, 0), (50, 0), (500, 64)}
    assert len(cells) == len({cell.name for cell in cells}) == 2 * 3 * 3
    assert {cell.seed for cell in cells if cell.condition.strategy == "greedy"} == {None}


def test_overlap_in_a_store_leaves_a_probes_own_copies_out(trained, tmp_path):
    tokenizer = Tokenizer.load(trained / "tokenizer")
    planted = read_probes(trained / "probes")
    probes = audit_probes(planted, tokenizer)
    quoting = f"As it is written: {planted[0].text} Thus far."
    (tmp_path / "web.jsonl").write_text(json.dumps({"text": quoting}) + "\n")
    documents = {"web": str(tmp_path / "web.jsonl"), "probes": str(trained / "probes")}
    tokenize(documents, tmp_path / "store", tokenizer=str(trained / "tokenizer"), held_out_fraction=0.0, progress=False)
    found = overlap_in_store(probes, planted, TokenStore.open(tmp_path / "store"))
    assert [probe.planted.overlap for probe in found] == [1.0] + [0.0] * 15


def test_exposures_that_happened_stand_beside_the_planned_ones(trained):
    planted = read_probes(trained / "probes")
    probes = audit_probes(planted, Tokenizer.load(trained / "tokenizer"))
    ledger = [ProbeExposure(each.probe, each.bucket, each.copies, 0, 2 * each.copies, 0, ()) for each in planted]
    described = audit_module._describe_buckets(probes, AuditFigures(), ledger)
    assert [(each["exposure"], each["happened"]) for each in described] == [(0, 0), (0, 0), (1, 2), (128, 256)]
    assert {each["happened"] for each in audit_module._describe_buckets(probes, AuditFigures(), None)} == {None}


def test_recitations_are_marked_and_nothing_in_them_is_markup():
    pieces = aligned_pieces([1, 2, 3, 4], [9, 2, 3, 8, 4], lambda ids: "".join(f"<{i}>" for i in ids))
    assert pieces == (
        [("<1>", False), ("<2><3>", True), ("<4>", True)],
        [("<9>", False), ("<2><3>", True), ("<8>", False), ("<4>", True)],
    )
    report = AuditReport("title")
    report.recitation("<script>", "<img src=x>", *pieces)
    page = report.render()
    assert "<mark>&lt;2&gt;&lt;3&gt;</mark>" in page
    assert "<script>" not in page and "<img" not in page and "<1>" not in page


@pytest.fixture(scope="module")
def other_probes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other_probes")
    plant_probes(folder / "no_control", {"4": ["some text to be learnt"]})
    plant_probes(folder / "short", {"0a": psalm_passages()[:2], "4": ["a short text"]})
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probes": "short"}, "bucket 4: the longest probe has [0-9]+ tokens, but offset 0"),
        ({"probes": "no_control"}, "hold no control"),
        ({"probes": "nowhere"}, "does not exist; a probes folder is expected"),
        ({"offsets": (4096,)}, f"bucket 0a: the longest probe .* offset 4096 \\+ prefix {PREFIX} \\+ suffix {SUFFIX}"),
        ({"prefix": 240}, "a prompt of <s> and 240 tokens with a suffix of 48 needs 289, but the model's context is"),
        ({"buckets": ("0a", "64")}, "has no probe bucket '64'; it has 0a, 0b, 1, 128"),
        ({"buckets": ("0a", "0b")}, "are all controls"),
        ({"strategies": ("beam",)}, "AuditGrid.strategies: each = 'beam' must be one of 'greedy', 'nucleus'"),
        ({"strategies": ("nucleus",), "seeds": ()}, r"AuditGrid.seeds = \(\) must be .* with at least 1"),
        ({"suffix": 0}, "AuditGrid.suffix = 0 must be a whole number of at least 1"),
        ({"offsets": (-1,)}, "AuditGrid.offsets: each = -1 must be a whole number of at least 0"),
        ({"members": "x.jsonl"}, "MembershipOptions.members is given without non_members"),
        ({"canaries": "nowhere"}, "does not exist; a canaries folder is expected"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(trained, other_probes, tmp_path, change, message):
    change = dict(change)
    name = change.pop("probes", "probes")
    folder = trained if name == "probes" else other_probes
    membership = {each: change.pop(each) for each in ("members", "canaries") if each in change}
    with pytest.raises(UserError, match=message) as error:
        memorization(
            str(trained / "model"),
            str(tmp_path / "audit"),
            str(folder / name),
            grid=replace(SMALLEST_GRID, **({"buckets": None} | change)),
            membership=MembershipOptions(**membership),
            execution=EXECUTION,
        )
    assert "\n" not in str(error.value) and not (tmp_path / "audit").exists()


def test_model_without_a_known_tokenizer_is_refused(trained, tmp_path):
    config, params = load_model(trained / "model")
    save_model(tmp_path / "bare", config, params)
    with pytest.raises(UserError, match="carries no tokenizer, so probes cannot be read; give the token store"):
        memorization(str(tmp_path / "bare"), str(tmp_path / "audit"), str(trained / "probes"), **SMALLEST)
    (tmp_path / "web.jsonl").write_text(json.dumps({"text": "another text, another tokenizer"}) + "\n")
    tokenize(str(tmp_path / "web.jsonl"), tmp_path / "store", vocab_size=640, held_out_fraction=0.0, progress=False)
    with pytest.raises(UserError, match="was made by tokenizer"):
        memorization(
            str(trained / "model"),
            str(tmp_path / "audit"),
            str(trained / "probes"),
            store=str(tmp_path / "store"),
            **SMALLEST,
        )


def test_probes_are_cut_from_texts_of_equal_length():
    assert {len(text.split()) for text in psalm_passages()} == {PROBE_WORDS}


def asked_probes(*lengths):
    """Probes of two buckets with so many tokens each."""
    ids = [np.arange(length) for length in lengths]
    return [AuditProbe(each, planted=SimpleNamespace(bucket=bucket)) for bucket in ("0a", "4") for each in ids]


@pytest.mark.parametrize(
    ("context", "tokens", "expected"),
    [
        (4096, 4000, (500, [50, 100, 250, 500, 1000, 2000, 3000], 13, 500)),
        (512, 1500, (256, [50, 100, 250], 11, 255)),  # the quickstart's model
        (512, 90, (45, [45], 1, 45)),
        (16, 1000, (8, [8], 11, 7)),
    ],
)
def test_the_grid_fits_the_model_and_the_probes_by_itself(context, tokens, expected):
    probes = asked_probes(5, tokens)
    grid = fitting_grid(AuditGrid(), probes, context)
    assert (grid.prefix, list(grid.prefixes), len(grid.offsets), grid.suffix) == expected
    assert grid.buckets == ("0a", "4")
    check_grid(grid_cells(grid), probes, context)


def test_what_was_asked_for_is_not_made_to_fit():
    asked = AuditGrid(500, [7], [3], 600, ["0a", "4"])
    assert fitting_grid(asked, asked_probes(90), 64) == replace(asked, buckets=("0a", "4"))
    assert fitting_grid(AuditGrid(20), asked_probes(90), 64).suffix == 43
