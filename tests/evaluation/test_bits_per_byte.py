"""Bits per byte have one definition: every command gives the same figure for the same text."""

import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax import sharding
from apertus_jax.data import TokenStore, tokenize
from apertus_jax.data.store.token_bytes import token_pieces
from apertus_jax.data.tokenizer.bpe import Tokenizer, train_bpe
from apertus_jax.evaluation import evaluate
from apertus_jax.evaluation.bits_per_byte import bits_per_byte, text_sums
from apertus_jax.evaluation.execution import Execution
from apertus_jax.evaluation.harness import evaluate_tasks
from apertus_jax.evaluation.harness.model import HarnessModel
from apertus_jax.evaluation.harness.options import HarnessOptions
from apertus_jax.evaluation.in_training import HeldOutEvaluator
from apertus_jax.evaluation.languages import languages
from apertus_jax.evaluation.languages.counting import BYTES, count_tokens
from apertus_jax.model import ModelConfig
from apertus_jax.model.model_folder import load_model, save_model
from apertus_jax.release import save_huggingface
from apertus_jax.storage import artifacts
from tests.evaluation.harness.harness_models import demo_texts, random_parameters

CONTEXT, VOCABULARY = 64, 480
CONFIG = ModelConfig(VOCABULARY, 48, 96, 2, 4, 2, head_dim=16, max_position_embeddings=CONTEXT)
PLAIN = "Snow is white, and Schnee ist weiß; naïve 雪 \U0001f600 ends it."
TEXTS = {
    "plain": PLAIN,
    "marked": f"Write to <email-pii> or to <ip-pii>. {PLAIN}",
    "long": " ".join([PLAIN, "<iban-pii>"] * 7),
}
SOURCE = "measured"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A model, its export, and a store of one document each, see `store_of`."""
    folder = tmp_path_factory.mktemp("bits")
    train_bpe(demo_texts(), VOCABULARY).save(folder / "tokenizer")
    save_model(folder / "model", CONFIG, random_parameters(CONFIG), folder / "tokenizer")
    save_huggingface(folder / "export", CONFIG, random_parameters(CONFIG), tokenizer=folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def expected(root):
    """text → bits per byte by transformers: each token after one <s> with all the context that fits."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(root / "export", dtype=torch.float32)
    tokenizer = Tokenizer.load(root / "tokenizer")

    def of(text, longest=CONTEXT):
        ids = [tokenizer.bod_id, *tokenizer.encode(text).tolist()]
        nats = 0.0
        for end in [*range(longest, len(ids) - 1, longest), len(ids) - 1]:
            count = longest if end % longest == 0 else end % longest
            window = torch.tensor([ids[max(0, end - longest) : end + 1]])
            with torch.no_grad():
                logits = model(window[:, :-1]).logits[0].double().log_softmax(-1)
            nats -= logits[-count:].gather(1, window[0, -count:, None]).sum().item()
        return nats / math.log(2) / len(text.encode())

    return {name: of(text) for name, text in TEXTS.items()}


def store_of(root, name):
    """A store with the text as the only document of a source."""
    place = root / f"store_{name}"
    if not place.exists():
        (root / f"{name}.jsonl").write_text(json.dumps({"id": "0", "text": TEXTS[name], "language": "eng_Latn"}) + "\n")
        (root / "other.jsonl").write_text(json.dumps({"id": "1", "text": "other", "language": "eng_Latn"}) + "\n")
        tokenize(
            {SOURCE: str(root / f"{name}.jsonl"), "other": str(root / "other.jsonl")},
            place,
            tokenizer=str(root / "tokenizer"),
            held_out_fraction=0.0,
            progress=False,
        )
    return place


def of_evaluate(root, name):
    found = evaluate(
        str(root / "model"),
        str(store_of(root, name)),
        str(root / f"evaluate_{name}"),
        SOURCE,
        CONTEXT,
        check_overlap=False,
    )
    return found["pooled"]["bits_per_byte"]


def of_training(root, name):
    config, params = load_model(root / "model")
    evaluator = HeldOutEvaluator(1, source=SOURCE)
    mesh = sharding.make_mesh(sharding.MeshConfig(data=8))
    view = SimpleNamespace(
        config=config,
        params=jax.tree.map(jnp.asarray, params),
        mesh=mesh,
        axis_rules=sharding.PRESETS["cpu"],
        store=TokenStore.open(store_of(root, name)),
    )
    evaluator.prepare(view)
    return evaluator(view, consumed=0)["bits_per_byte"]


def of_languages_store(root, name):
    """The store has two documents of the language; the sums of the other one are taken away."""
    out = str(root / f"store_languages_{name}")
    found = languages(
        str(root / "model"), out, str(store_of(root, name)), parallel="", execution=Execution(progress=False)
    )
    (row,) = found["languages"]
    (other,) = languages(
        str(root / "model"),
        f"{out}_other",
        texts=str(root / "other.jsonl"),
        parallel="",
        execution=Execution(progress=False),
    )["languages"]
    sizes = [each["utf8_bytes"] for each in (row, other)]
    bits = [each["bits_per_byte"]["value"] * size for each, size in zip((row, other), sizes, strict=True)]
    return (bits[0] - bits[1]) / (sizes[0] - sizes[1])


def of_languages_file(root, name):
    folder = root / f"texts_{name}"
    folder.mkdir(exist_ok=True)
    (folder / "eng_Latn.txt").write_text(TEXTS[name] + "\n")
    found = languages(
        str(root / "model"),
        str(root / f"languages_{name}"),
        texts=str(folder),
        parallel="",
        execution=Execution(progress=False),
    )
    return found["summary"]["bits_per_byte"]["value"]


def of_harness(root, name, **settings):
    folder = root / f"task_{name}"
    folder.mkdir(exist_ok=True)
    (folder / "texts.jsonl").write_text(json.dumps({"text": TEXTS[name]}) + "\n")
    (folder / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {test: texts.jsonl}}\ntest_split: test\n"
        "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: text\n"
        "metric_list: [{metric: bits_per_byte}]\n"
    )
    out = root / f"harness_{name}_{'-'.join(settings.values())}"
    found = evaluate_tasks(
        root / "model", str(folder / "mine.yaml"), out, HarnessOptions(bootstrap_resamples=0, **settings)
    )
    assert found["config"]["rolling_prefix"] == settings.get("rolling_prefix", "one")
    return found["results"]["mine"]["bits_per_byte,none"]


COMMANDS = {
    "evaluate": of_evaluate,
    "in training": of_training,
    "languages, a store": of_languages_store,
    "languages, a file": of_languages_file,
    "harness": of_harness,
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_gives_the_same_bits_per_byte(root, expected, name):
    found = {command: measure(root, name) for command, measure in COMMANDS.items()}
    assert found == {command: pytest.approx(expected[name], rel=2e-5) for command in found}


def test_convention_is_recorded_and_the_harness_keeps_its_own(root, expected):
    """The harness's own convention also scores <s> after <s>, which costs something."""
    theirs = of_harness(root, "plain", rolling_prefix="harness")
    assert theirs > expected["plain"] * 1.01
    inputs = artifacts.read_manifest(root / "harness_plain_harness", "task_evaluation")["inputs"]
    assert inputs["HarnessOptions.rolling_prefix"] == "harness"


def test_the_empty_text_costs_nothing(root):
    model = HarnessModel.open(root / "model")
    asked = [SimpleNamespace(args=(text,), task_name="mine", doc_id=0) for text in ("", "a")]
    nothing, something = model.loglikelihood_rolling(asked, disable_tqdm=True)
    assert nothing == 0.0 and something < 0


CHARACTERS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
PIECES = st.lists(
    st.one_of(CHARACTERS, st.sampled_from(["<email-pii>", "<iban-pii>", "<s>", "</s>", "<pad>", "\\end{"]))
)


@settings(max_examples=200, deadline=None)
@given(PIECES.map("".join))
def test_bytes_of_tokens_are_those_of_the_text(text):
    ids = TOKENIZER.encode(text)
    lengths = TOKENIZER.token_byte_lengths[ids]
    assert lengths.sum() == len(text.encode()) and (lengths > 0).all()
    assert count_tokens(TOKENIZER, ids)[:, BYTES].sum() == len(text.encode())


TOKENIZER = train_bpe(demo_texts(), VOCABULARY)


def test_tokens_without_text_count_neither_above_nor_below():
    losses = np.array([1.0, 2.0, 4.0], np.float32)
    assert text_sums(losses, np.array([3, 5, 0])) == (3.0, 8.0)
    assert bits_per_byte(3.0, 8.0) == pytest.approx(3 / math.log(2) / 8) and math.isnan(bits_per_byte(1.0, 0.0))


def test_content_anchors_still_ignore_markers():
    """What the cluster mask hashes is not changed by what bits per byte count."""
    pieces = token_pieces(TOKENIZER)
    assert all(pieces[each] == b"" for each in (*TOKENIZER.marker_ids, *range(4))) and len(TOKENIZER.marker_ids) == 3
