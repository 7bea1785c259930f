"""Help: every command and every bindable name lists its parameters; bare text is text where a parameter takes text."""

import inspect
import shlex

import gin
import pytest

from apertus_jax import cli, configuration
from apertus_jax.commands import COMMANDS
from apertus_jax.configuration.descriptions import describe, documented_parameters
from apertus_jax.configuration.registry import bindables
from apertus_jax.errors import UserError

WIDTH = 100


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Every name that gin files may bind."""
    configuration.register(cli.locations())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_lists_every_parameter(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    with pytest.raises(SystemExit) as ended:
        cli._run([name, "--help"])
    shown = capsys.readouterr().out
    command = COMMANDS[name]
    assert ended.value.code == 0
    for each in (command, *command.variants.values()):
        bindable = bindables[each.function]
        assert bindable.parameters or "It has no parameters" in shown
        for parameter in bindable.parameters:
            assert f"  {each.function}.{parameter}" in shown
    assert max(map(len, shown.splitlines())) <= WIDTH


def test_help_of_every_bindable_name_is_complete():
    for name, bindable in bindables.items():
        shown = describe(bindable)
        for parameter in bindable.parameters:
            assert f"  {name}.{parameter}" in shown
        assert inspect.getdoc(bindable.target), name
        assert max(map(len, shown.splitlines())) <= WIDTH, name


def test_help_shows_type_default_and_documentation(capsys):
    assert cli.main(["help", "tokenize"]) == 0
    shown = capsys.readouterr().out
    assert "tokenize.vocab_size: int = 8192\n      ids of a trained tokenizer" in shown
    assert "tokenize.output: epath.PathLike (required)" in shown


def test_help_of_an_unknown_name_shows_the_nearest(capsys):
    assert cli.main(["help", "wsd_shedule"]) == 2
    assert "did you mean wsd_schedule" in capsys.readouterr().err


def test_documented_parameters_follow_lists_and_indentation():
    def function(first, second, third):
        """Does it.

        Args:
          first, second: two things,
            told in two lines: really.
          third: one.

        Returns:
          first: not a parameter here.
        """

    assert documented_parameters(function) == {
        "first": "two things, told in two lines: really.",
        "second": "two things, told in two lines: really.",
        "third": "one.",
    }


@pytest.mark.parametrize("value", ["runs/mine/store", "tekken", "gs://bucket/x", "../a-b_c.d", "2024-01-31", "üñ"])
def test_bare_text_of_a_flag_is_text_where_text_is_taken(value):
    configuration.parse([], [f"tokenize.tokenizer = {value}"])
    assert gin.query_parameter("tokenize.tokenizer") == value


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("tokenize.vocab_size = many", "a value is neither"),  # no text there
        ("tokenize.tokenizer = 5", "must be text"),  # a number stays one
        ("tokenize.tokenizer = True", "must be text"),
        ("tokenize.tokenizer = @tokenize", "is a command"),
        ("tokenize.tokenizer = a b", "a value is neither"),
        ("tokenize.tokenizer = a;b", "gin"),
        ("tokenize.tokenizer = a#b", "gin"),
        ("tokenize.tokenizer = 'a", "is missing"),
        ("tokenize.tokenizer = a'b", "gin"),
        ("tokenize.tokenizer = a,b", "gin"),
        ("tokenize.tokenizer = (a)", "gin"),
    ],
)
def test_bare_text_is_nothing_else_and_nowhere_else(binding, told):
    with pytest.raises(UserError, match=told):
        configuration.parse([], [binding])


def test_a_gin_file_keeps_its_quotes(tmp_path):
    file = tmp_path / "a.gin"
    file.write_text("tokenize.tokenizer = tekken\n")
    with pytest.raises(UserError, match="text needs quotes"):
        configuration.parse([str(file)], [])


@pytest.mark.parametrize("value", ["None", "'None'"])
def test_none_stays_none_and_quoted_text_stays_text(value):
    configuration.parse(
        [], [f"RunSchedule.stop_step = {value}" if value == "None" else f"tokenize.tokenizer = {value}"]
    )
    name = "RunSchedule.stop_step" if value == "None" else "tokenize.tokenizer"
    assert gin.query_parameter(name) == (None if value == "None" else "None")


def test_print_config_shows_what_is_in_effect_and_runs_nothing(tmp_path, capsys):
    arguments = ["pretrain", "--gin_file=quickstart.gin", f"--output={tmp_path / 'run'}", "--gin.goldfish.k=7"]
    assert cli.main([*arguments, "--print_config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "goldfish.k = 7" in lines and "goldfish.h = 50" in lines  # bound, and a default
    assert "VOCAB_SIZE = 4096" in lines and "ModelConfig.vocab_size = %VOCAB_SIZE" in lines
    assert "pretrain.store = (required)" in lines
    assert list(tmp_path.iterdir()) == []


def test_print_config_takes_the_innermost_scope(tmp_path, capsys):
    file = tmp_path / "a.gin"
    file.write_text(
        "pretrain.objective = @a/Objective()\nObjective.loss_norm = 'global'\na/Objective.loss_norm = 'micro'\n"
    )
    assert cli.main(["pretrain", f"--gin_file={file}", "--print_config"]) == 0
    assert "a/Objective.loss_norm = 'micro'" in capsys.readouterr().out.splitlines()


def test_print_config_refuses_what_the_command_would_refuse(capsys):
    assert cli.main(["pretrain", "--gin.goldfish.q=7", "--print_config"]) == 2
    assert "has no parameter 'q'" in capsys.readouterr().err


def test_help_of_a_command_lists_the_options_that_it_takes(capsys):
    with pytest.raises(SystemExit):
        cli.main(["memorization", "--help"])
    shown = capsys.readouterr().out
    assert "AuditGrid.suffix: int | None = None" in shown and "Execution.batch_size" in shown


def test_help_of_an_old_name_tells_the_new_one(capsys):
    assert cli.main(["help", "memorization.prefixes"]) == 2
    assert "memorization.prefixes is called AuditGrid.prefixes now" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_wrapped_example_is_the_same_command_to_a_shell(name):
    for each in (COMMANDS[name], *COMMANDS[name].variants.values()):
        assert shlex.split(cli.wrapped_example(each.example).replace("\\\n", "")) == shlex.split(each.example)
