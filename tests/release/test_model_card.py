"""The model card of an export: what the run recorded, how to load it, and what nobody has said yet."""

import json
import re

import pytest

from apertus_jax import cli, configuration
from apertus_jax.configuration.registry import bindables
from apertus_jax.errors import UserError
from apertus_jax.model.model_folder import save_model
from apertus_jax.model.parameters import count_parameters
from apertus_jax.release import export, import_huggingface, load_huggingface
from apertus_jax.release.model_card import CARD_FILE, SETTINGS, model_card

BINDINGS = {
    "RunSchedule.total_steps": "401",
    "pretrain.optimizer": "@ademamix",
    "ademamix.alpha": "8.0",
    "ademamix.moment_dtype": "None",
    "RunSchedule.learning_rate": "@wsd_schedule()",
    "wsd_schedule.peak": "0.001",
    "Objective.loss_masks": "[@goldfish(), @not_after_eod()]",
    "goldfish.k": "50",
    "not_after_eod.eod_id": "2",
    "pretrain.store": "'/home/somebody/store'",
}
FINISHED = {"tokens": 102656, "languages": 17, "non_english_share": 0.8548}


@pytest.fixture
def run(tmp_path, config, params, tokenizer_folder):
    """A finished run, as far as export reads it."""
    folder = tmp_path / "run"
    save_model(folder / "model", config, params, tokenizer_folder, inputs={"store": "5" * 32, "step": 401})
    (folder / "run.json").write_text(json.dumps({"code_version": "0.1.0", "config": BINDINGS, "history": [{}, {}]}))
    (folder / "finished.json").write_text(json.dumps({"finished": True, **FINISHED}))
    return folder


def test_card_says_what_the_run_recorded(tmp_path, run, config, params):
    export(run, tmp_path / "out")
    card = (tmp_path / "out" / CARD_FILE).read_text()
    rows = dict(re.findall(r"^\| (.*?) \| (.*) \|$", card, re.MULTILINE))
    assert rows["parameters"] == f"{count_parameters(params):,}, stored as float32"
    assert (rows["layers"], rows["vocabulary"]) == (str(config.num_layers), str(config.vocab_size))
    assert rows["loss masks"] == "`[goldfish(k=50), not_after_eod(eod_id=2)]`"
    assert rows["optimizer"] == "`ademamix(alpha=8.0)`" and rows["learning rate"] == "`wsd_schedule(peak=0.001)`"
    assert rows["tokens read"] == "102,656" and rows["languages"] == "17, 85 % not English"
    assert rows["store"] == f"`{'5' * 32}`" and rows["changed on the way"].startswith("2 settings")
    assert "somebody" not in card and str(tmp_path) not in card


def test_settings_of_the_card_are_names_that_gin_binds():
    configuration.register(cli.locations())
    for _, name in SETTINGS:
        owner, parameter = name.split(".")
        assert parameter in bindables[owner].parameters


def test_card_is_the_same_bytes_wherever_the_run_lies(tmp_path, run):
    export(run, tmp_path / "out")
    run.rename(tmp_path / "elsewhere")
    export(tmp_path / "elsewhere", tmp_path / "again")
    assert (tmp_path / "out" / CARD_FILE).read_bytes() == (tmp_path / "again" / CARD_FILE).read_bytes()


def test_licence_and_summary_stand_where_readers_look(tmp_path, run):
    hub = pytest.importorskip("huggingface_hub")
    export(run, tmp_path / "unsaid")
    unsaid = hub.ModelCard((tmp_path / "unsaid" / CARD_FILE).read_text())
    assert unsaid.data.license is None and unsaid.data.library_name == "transformers"
    assert "**No licence has been chosen.**" in unsaid.text and "**No summary" in unsaid.text
    export(run, tmp_path / "said", license="apache-2.0", data_summary="https://example.org/summary.html")
    said = hub.ModelCard((tmp_path / "said" / CARD_FILE).read_text())
    assert said.data.license == "apache-2.0" and "(https://example.org/summary.html)" in said.text
    assert "**No " not in said.text


def test_export_with_another_licence_needs_another_folder(tmp_path, run):
    export(run, tmp_path / "out", license="apache-2.0")
    export(run, tmp_path / "out", license="apache-2.0")
    with pytest.raises(UserError, match="license"):
        export(run, tmp_path / "out", license="mit")


def test_model_without_a_run_says_that_it_has_no_record(tmp_path, run):
    export(run, tmp_path / "out")
    import_huggingface(tmp_path / "out", tmp_path / "imported")
    export(tmp_path / "imported", tmp_path / "again")
    assert "No record of a run" in (tmp_path / "again" / CARD_FILE).read_text()


@pytest.mark.parametrize("given", [{"license": "mit\ntags: []"}, {"data_summary": "https://a b"}])
def test_what_cannot_stand_in_a_card_is_refused(config, given):
    with pytest.raises(UserError, match=f"export.{next(iter(given))}="):
        model_card(config, 1, **given)


def test_damaged_record_of_a_run_is_refused(tmp_path, run):
    (run / "finished.json").write_text(json.dumps({**FINISHED, "tokens": "many"}))
    with pytest.raises(UserError, match=r"finished\.json.*tokens"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_name_of_a_repository_is_told_how_to_fetch_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="hf download swiss-ai/Apertus-8B-2509 --local-dir Apertus-8B-2509"):
        import_huggingface("swiss-ai/Apertus-8B-2509", tmp_path / "out")
    with pytest.raises(UserError, match="config.json does not exist"):
        load_huggingface(tmp_path)
