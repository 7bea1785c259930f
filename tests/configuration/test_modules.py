"""`--import`: the owner's own modules come in by the command line, are recorded, and never by a file."""

import hashlib
import json
import os
import sys

import gin
import pytest

from apertus_jax import cli, configuration
from apertus_jax.configuration import registry
from apertus_jax.configuration.modules import import_modules
from apertus_jax.errors import UserError
from apertus_jax.process.module_sources import source_digest
from tests.configuration.conftest import MASKS


@pytest.fixture
def apertus_line(capsys):
    """Returns a function that runs a command line that has to fail → its one line."""

    def call(*arguments):
        assert cli.main(list(arguments)) == 2
        line = capsys.readouterr().err
        assert line.startswith("apertus: ") and line.count("\n") == 1
        return line

    yield call
    gin.clear_config()


def digest_of(path):
    return hashlib.blake2b(path.read_bytes(), digest_size=32).hexdigest()


def test_what_a_module_lists_can_be_bound(lab):
    import_modules(["my_lab.masks"])
    configuration.parse([], ["Objective.loss_masks = [@drop_odd(), @goldfish()]", "drop_odd.offset = 1"])
    objective = gin.get_configurable("Objective")()
    assert len(objective.loss_masks) == 2
    assert {"drop_odd", "Pick"} <= set(configuration.known_names())
    for line in (
        "HIDDEN.x = 1",
        "not_listed.x = 1",
        "drop_odd.nothing = 1",
        "drop_odd.offset = 'x'",
        "Pick.share = 'x'",
    ):
        with pytest.raises(UserError):
            configuration.parse([], [line])


@pytest.mark.parametrize(
    "line",
    [
        "Objective.loss_masks = [@drop_odd()]",
        "pretrain.optimizer = @lab_optimizer",
        "Policy.content_rules = [@LabRule()]",
        "RunSchedule.learning_rate = @lab_schedule()",
        "drop_odd.offset = 1",
        "ModelConfig.attention_implementation = 'lab_attention'",
    ],
)
def test_name_that_only_a_module_could_have_tells_the_flag(apertus_line, line):
    told = apertus_line("plan", "--gin_file=models/test_1m.gin", f"--gin.{line}")
    assert told.count("--import=MODULE") == 1, told


def test_help_of_an_unknown_name_tells_the_flag(apertus_line):
    assert "if a module of yours has it, add --import=MODULE; did you mean goldfish?" in apertus_line("help", "goldfis")


def test_no_file_imports_a_module_of_the_lab(lab):
    for text in (
        "import my_lab.masks\n",
        "# imported: my_lab.masks = 'blake2b:00'\nObjective.loss_masks = [@drop_odd()]\n",
    ):
        (lab / "mine.gin").write_text(text)
        with pytest.raises(UserError):
            configuration.parse(["mine.gin"], [])
        with pytest.raises(UserError):
            configuration.parse([], [], ["mine.gin"])
    assert "my_lab.masks" not in sys.modules


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("lab_absent", None, ["there is no module lab_absent"]),
        ("lab_syntax", "def", ["fails with SyntaxError"]),
        ("lab_needs", "import no_such_package", ["needs no_such_package"]),
        ("lab_exits", "raise ValueError('a\\nb')", ["fails with ValueError: a"]),
        ("lab_plain", "def mask(): pass", ["has no __all__"]),
        ("lab_number", "__all__ = ['X']\nX = 3", ["X in __all__ is neither function nor class"]),
        ("lab_lies", "__all__ = ['X']", ["lists 'X', which it does not have"]),
        ("lab_taken", "__all__ = ['goldfish']\ndef goldfish(): pass", ["goldfish is a name of apertus_jax already"]),
        ("lab_unnamed", "__all__ = ['m']\ndef m(a, /, *b): pass", ["m takes a, *b by position, which gin cannot bind"]),
        ("../lab", None, ["is not the name of a module"]),
        ("lab.py", None, ["there is no module lab"]),
        ("os;x", None, ["is not the name of a module"]),
        ("", None, ["is not the name of a module"]),
    ],
)
def test_a_module_that_cannot_be_used_is_one_line(lab, capsys, name, content, parts):
    if content is not None:
        (lab / f"{name}.py").write_text(content)
    assert cli.main(["plan", f"--import={name}"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and all(part in line for part in parts), line


def test_an_import_is_recorded_with_digest_and_version(lab):
    (lab / "text.jsonl").write_text("".join(f'{{"id": "{n}", "text": "one two three {n}"}}\n' for n in range(30)))
    arguments = ["tokenize", "--input=text.jsonl", "--output=store", "--gin.tokenize.vocab_size=400"]
    assert cli.main([*arguments, "--import=my_lab.masks"]) == 0
    lines = (lab / "store" / "operative_config.gin").read_text().splitlines()
    digest = digest_of(lab / "my_lab" / "masks.py")
    assert f"# imported: my_lab.masks = 'blake2b:{digest} version 1.2'" in lines
    assert configuration.recorded_modules(lab / "store") == {"my_lab.masks": digest}


def test_digest_of_a_package_is_of_all_its_sources(lab):
    (lab / "my_lab" / "__init__.py").write_text("from my_lab.masks import drop_odd\n__all__ = ['drop_odd']\n")
    import_modules(["my_lab"])
    (lab / "my_lab" / "masks.py").write_text(MASKS + "# changed\n")
    assert source_digest(sys.modules["my_lab"]) != registry.imported["my_lab"].digest


@pytest.mark.parametrize(
    ("name", "statement", "changed", "counts"),
    [
        ("my_lab.masks", "from my_lab import helpers", "my_lab/helpers.py", True),
        ("my_lab.masks", "from my_lab.helpers import X", "my_lab/deeper.py", True),
        ("my_lab.masks", "def late():\n    from . import helpers", "my_lab/helpers.py", True),
        ("my_lab.masks", "import my_lab", "my_lab/__init__.py", True),
        ("my_lab.masks", "import my_lab", "my_lab/helpers.py", False),
        ("my_lab.masks", "import lab_beside", "lab_beside.py", False),
        ("lab_alone", "import lab_beside", "lab_beside.py", True),
        ("lab_alone", "", "lab_beside.py", False),
    ],
)
def test_digest_of_a_module_covers_what_it_uses_beside(lab, name, statement, changed, counts):
    (lab / "my_lab" / "helpers.py").write_text("from my_lab import deeper\nX = 1\n")
    (lab / "my_lab" / "deeper.py").write_text("Y = 1\n")
    (lab / "lab_beside.py").write_text("Z = 1\n")
    (lab / f"{name.replace('.', '/')}.py").write_text(f"{MASKS}{statement}\n")
    import_modules([name])
    before = registry.imported[name].digest
    assert source_digest(sys.modules[name]) == before
    (lab / changed).write_text("Y = Z = X = 2\n")
    assert (source_digest(sys.modules[name]) != before) is counts


RUN = {"operative_config.gin": "# apertus_jax 1\n{comment}\n", "run.json": "{json}"}


@pytest.mark.parametrize("command", ["generate", "evaluate", "reproduce", "languages", "memorization"])
@pytest.mark.parametrize("file", RUN)
def test_a_run_made_with_a_module_says_which_flag_to_type(lab, capsys, command, file):
    name = f"{registry.IMPORT_COMMENT}my_lab.masks"
    value = f"'blake2b:{digest_of(lab / 'my_lab' / 'masks.py')} version 1.2'"
    text = f"# apertus_jax 1\n{name} = {value}\n" if file.endswith("gin") else json.dumps({"config": {name: value}})
    (lab / "run" / "model").mkdir(parents=True)
    (lab / "run" / file).write_text(text)
    for folder in ("run", "run/model"):
        assert cli.main([command, f"--input={folder}", "--output=again"]) == 2
        line = capsys.readouterr().err
        assert "made with the module my_lab.masks" in line and "add --import=my_lab.masks" in line
        assert line.count("\n") == 1
    assert "my_lab.masks" not in sys.modules and not (lab / "again").exists()
    assert cli.main([command, "--input=run", "--output=again", "--import=my_lab.masks"]) != 0
    assert "my_lab.masks" not in capsys.readouterr().err


def test_a_module_that_has_changed_is_told(lab, capsys):
    (lab / "run").mkdir()
    (lab / "run" / "operative_config.gin").write_text(f"# imported: my_lab.masks = 'blake2b:{'0' * 64}'\n")
    assert cli.main(["reproduce", "--input=run", "--output=again", "--import=my_lab.masks"]) == 2
    line = capsys.readouterr().err
    assert "made with another my_lab.masks" in line and "0000000000000000" in line and line.count("\n") == 1


def test_a_command_that_goes_on_asks_for_the_modules_first(lab, capsys, caplog):
    (lab / "run").mkdir()
    name = f"{registry.IMPORT_COMMENT}my_lab.masks"
    (lab / "run" / "run.json").write_text(json.dumps({"config": {name: f"'blake2b:{'0' * 64}'"}}))
    again = ["pretrain", "--output=run", "--gin.Objective.loss_masks=[@drop_odd()]"]
    assert cli.main(again) == 2
    assert "made with the module my_lab.masks, which this command line" in capsys.readouterr().err
    with caplog.at_level("WARNING"):
        assert cli.main([*again, "--import=my_lab.masks"]) == 2  # `pretrain` compares the digest itself
    assert f"run was made with another my_lab.masks (blake2b {'0' * 16}…" in caplog.text


def test_error_in_the_code_of_a_module_names_the_module(lab, capsys):
    (lab / "lab_breaks.py").write_text("__all__ = ['broken']\ndef broken(text: str = 'a'):\n    return text.nothing\n")
    bindings = ["--gin.Objective.loss_masks=[@broken()]", "--gin.plan.objective=@Objective()"]
    assert cli.main(["plan", "--import=lab_breaks", *bindings]) == 2
    line = capsys.readouterr().err
    assert (
        line.startswith("apertus: --import=lab_breaks: its code fails with AttributeError: ") and "internal" not in line
    )
    assert line.count("\n") == 1


def test_an_installed_module_is_not_hidden_by_one_of_this_folder(lab):
    (lab / "json.py").write_text("raise SystemExit('hidden')\n")
    import_modules(["my_lab.masks"])
    assert sys.path[0] != os.getcwd() or sys.path[0] == ""
    assert sys.modules["json"].__file__ != str(lab / "json.py")


SCORES = """
import dataclasses

import pyarrow

__all__ = ["MoonScoring", "NoMoons"]


class MoonScorer:
    def schema(self):
        return [pyarrow.field("moon_count", pyarrow.int64())]

    def identity(self):
        return {"moon": 1}

    def score(self, documents):
        return [{"moon_count": document.text.count("moon")} for document in documents]


@dataclasses.dataclass(frozen=True)
class MoonScoring:
    def build(self):
        return MoonScorer()


@dataclasses.dataclass(frozen=True)
class NoMoons:
    most: int = 0

    def verdict(self, row, statistics):
        from apertus_jax.corpus.reasons import Reason, Verdict

        return Verdict(Reason.WORDS, "a moon") if row["moon_count"] > self.most else None
"""


def test_worker_processes_of_prepare_have_the_modules_too(lab):
    (lab / "my_lab" / "moons.py").write_text(SCORES)
    texts = ["the sun and the sea " * 9, "the moon and the sea " * 9, "a house on the hill " * 9]
    rows = [json.dumps({"id": str(number), "text": text}) for number, text in enumerate(texts)]
    (lab / "text.jsonl").write_text("\n".join(rows) + "\n")
    (lab / "mine.gin").write_text(
        "prepare.policy = @Policy()\nPolicy.content_scoring = [@MoonScoring()]\nPolicy.content_rules = [@NoMoons()]\n"
    )
    command = ["prepare", "--gin_file=mine.gin", "--input=text.jsonl", "--output=prepared", "--gin.prepare.workers=2"]
    assert cli.main([*command, "--import=my_lab.moons"]) == 0
    from apertus_jax.corpus import read_documents

    kept = [document.document_id for document in read_documents(lab / "prepared")]
    assert len(kept) == 2
    assert "my_lab.moons" in (lab / "prepared" / "operative_config.gin").read_text()


def test_a_chain_made_with_a_module_is_reproduced_with_it_only(lab, capsys):
    (lab / "text.jsonl").write_text("".join(f'{{"id": "{n}", "text": "one two three {n}"}}\n' for n in range(30)))
    (lab / "chain.gin").write_text(
        "run.stages = ['tokenize']\ntokenize.documents = 'text.jsonl'\ntokenize.vocab_size = 400\n"
    )
    assert cli.main(["run", "--gin_file=chain.gin", "--output=first", "--import=my_lab.masks"]) == 0
    assert list(configuration.recorded_modules(lab / "first")) == ["my_lab.masks"]
    again = ["reproduce", "--input=first", "--output=second", "--gin.reproduce.stages=['tokenize']"]
    assert cli.main([*again, "--import=my_lab.masks"]) == 0
    registry.imported.clear()  # as in another process
    capsys.readouterr()
    assert cli.main([*again[:2], "--output=third"]) == 2
    assert "add --import=my_lab.masks" in capsys.readouterr().err and not (lab / "third").exists()
