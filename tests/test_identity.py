"""Identity of outputs: an argument of a command that is added or forgotten cannot give back a stale result."""

import dataclasses
import inspect
import json

import jax
import pytest

from apertus_jax.chat import ChatFormat
from apertus_jax.corpus.classifiers import HashedNgramEmbedding, train_classifier
from apertus_jax.corpus.classifiers.head_training import HeadRecipe
from apertus_jax.data import tokenize
from apertus_jax.data.probes.plant_probes_command import plant
from apertus_jax.evaluation import evaluate
from apertus_jax.model import ModelConfig, init_parameters
from apertus_jax.model.model_folder import save_model
from apertus_jax.release import export
from apertus_jax.release.data_summary import data_summary
from apertus_jax.release.data_summary.history import KIND as SUMMARY
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of_arguments
from tests.release.data_summary_inputs import EVERY_CATEGORY, described, everything_declared, row, write_prepared
from tests.tiny_experiment import write_documents

MODEL = ModelConfig(384, 32, 48, 2, 4, 2)


@dataclasses.dataclass
class Call:
    """One call of a command, and another value for each of its parameters: those that decide what is written, and
    those that do not."""

    command: object
    arguments: dict
    deciding: dict
    indifferent: dict


class Asked(Exception):
    """The command has asked whether its output is there already."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("identity")
    for seed, name in enumerate(("one", "two")):
        write_documents(root / f"{name}.jsonl", 60, seed)
        labelled = [{"text": f"{name} {number}", "label": number % 2} for number in range(4)]
        (root / f"labelled_{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in labelled))
        tokenize(str(root / f"{name}.jsonl"), root / f"store_{name}", vocab_size=384, progress=False)
        parameters = init_parameters(MODEL, jax.random.key(seed))
        save_model(root / f"model_{name}", MODEL, parameters, root / f"store_{name}" / "tokenizer")
        write_prepared(root / f"prepared_{name}", [row(source, size=1000 + seed) for source in EVERY_CATEGORY])
    plant(str(root / "one.jsonl"), root / "probes", ["1"], per_bucket=2, characters=30)
    return root


def calls(root):
    """Returns the calls by name of the command."""
    text = {name: str(root / name) for name in ("store_one", "store_two", "model_one", "model_two", "probes")}
    one, two, out, elsewhere = (str(root / name) for name in ("one.jsonl", "two.jsonl", "out", "elsewhere"))
    labelled = [str(root / f"labelled_{name}.jsonl") for name in ("one", "two")]
    prepared = [str(root / f"prepared_{name}") for name in ("one", "two")]
    declared = everything_declared(described("crawl", "crawl"))
    return {
        "evaluate": Call(
            evaluate,
            {"run": text["model_one"], "store": text["store_one"], "output": out},
            {"run": text["model_two"], "store": text["store_two"], "held_out_source": "one", "sequence_length": 32}
            | {"seed": 1, "check_overlap": False},
            {"output": elsewhere, "tokens_per_batch": 64},
        ),
        "export": Call(
            export,
            {"model": text["model_one"], "output": out},
            {"model": text["model_two"], "dtype": "bfloat16", "shard_bytes": 1e6, "chat": True}
            | {"license": "apache-2.0", "data_summary": "https://example.org/summary"},
            {"output": elsewhere},
        ),
        "tokenize": Call(
            tokenize,
            {"documents": one, "output": out},
            {"documents": two, "tokenizer": f"{text['store_one']}/tokenizer", "vocab_size": 400, "seed": 1}
            | {"held_out_fraction": 0.1, "bpe_bytes_per_source": 1000, "planted": text["probes"]}
            | {"chat_format": ChatFormat(legacy="sft")},
            {"output": elsewhere, "progress": False},
        ),
        "plant": Call(
            plant,
            {"texts": [one, two], "output": out, "buckets": ["1", "2"], "per_bucket": 2, "characters": 30},
            {"texts": two, "buckets": ["1", "4"], "per_bucket": 3, "characters": 40, "sources": ["one"], "seed": 1}
            | {"documents": two, "source": "p", "language": "deu_Latn", "licence": "CC0", "secret": "s" * 32}
            | {"secret_file": str(root / "secret"), "secret_variable": "A_SECRET"},
            {"output": elsewhere},
        ),
        "train_classifier": Call(
            train_classifier,
            {"input": labelled[0], "output": out},
            {"input": labelled[1], "task": "toxicity", "embedder": HashedNgramEmbedding(dimensions=512)}
            | {"recipe": HeadRecipe(epochs=2), "exclude": one, "validation_share": 0.2, "max_documents": 50, "seed": 1},
            {"output": elsewhere, "progress": False},
        ),
        "data_summary": Call(
            data_summary,
            {"prepared": prepared[0], "output": out},
            {"prepared": prepared[1], "previous": str(root / "previous"), "mask_domains": True, "large_share": 0.1}
            | declared,
            {"output": elsewhere, "progress": False},
        ),
    }


def identity(call, monkeypatch, **changes):
    """Returns what a call is known by, as far as JSON tells it apart."""

    def ask(output, kind, inputs):
        raise Asked(json.dumps(inputs, sort_keys=True))

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "already_built", ask)
        with pytest.raises(Asked) as asked:
            call.command(**call.arguments | changes)
    return asked.value.args[0]


@pytest.mark.parametrize("name", ["evaluate", "export", "tokenize", "plant", "train_classifier", "data_summary"])
def test_every_argument_decides_the_identity(root, monkeypatch, name):
    call = calls(root)[name]
    (root / "secret").write_text("f" * 40)
    (root / "secret").chmod(0o600)
    monkeypatch.setenv("A_SECRET", "v" * 40)
    if not (root / "previous").exists():
        data_summary(str(root / "prepared_one"), str(root / "previous"), progress=False)
        assert artifacts.kind_of(root / "previous") == SUMMARY
    tested = {*call.deciding, *call.indifferent}
    # `step` counts by what `open_model` finds at it, see tests/training/test_steps_of_runs.py.
    assert tested | {"step"} >= set(inspect.signature(call.command).parameters), "a parameter without another value"
    first = identity(call, monkeypatch)
    found = {argument: identity(call, monkeypatch, **{argument: value}) for argument, value in call.deciding.items()}
    assert [argument for argument, each in found.items() if each == first] == []
    assert len(set(found.values())) == len(found)
    assert {identity(call, monkeypatch, **{argument: value}) for argument, value in call.indifferent.items()} == {first}


def before(text, output, seed=0):
    """A command."""
    return identity_of_arguments(before, dict(locals()), "output", text="digest")


def after(text, output, seed=0, strict=False):
    """The command when it has one more parameter, and nothing else was changed."""
    return identity_of_arguments(after, dict(locals()), "output", text="digest")


def late(text, output):
    """A command that takes its arguments when there is something else among them."""
    number = len(text)
    return identity_of_arguments(late, dict(locals())), number


def test_added_parameter_is_part_of_the_identity():
    assert before("a", "b") == {"text": "digest", "seed": 0}
    assert after("a", "b", strict=True) == {"text": "digest", "seed": 0, "strict": True}


def test_wrong_arguments_of_an_identity_are_refused():
    arguments = {"text": "a", "output": "b", "seed": 0}
    with pytest.raises(TypeError, match="late has not the arguments number"):
        late("a", "b")
    with pytest.raises(TypeError, match="before has no parameter outptu"):
        identity_of_arguments(before, arguments, "outptu")
    with pytest.raises(TypeError, match="before has no parameter txt"):
        identity_of_arguments(before, arguments, txt="digest")
