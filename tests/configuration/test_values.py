"""A value that is not what its parameter asks for is one line with the right spelling, before anything is built."""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence

import gin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax import cli, configuration
from apertus_jax.configuration.values import mismatch
from apertus_jax.errors import UserError


@pytest.fixture(autouse=True, scope="module")
def registered():
    configuration.register(cli.locations())
    yield
    gin.clear_config()


WRONG = [
    ("pretrain.model = @ModelConfig", ["pretrain.model = @ModelConfig must be a ModelConfig", "write @ModelConfig()"]),
    ("pretrain.model = @RopeScaling()", ["@RopeScaling() must be a ModelConfig", "write @ModelConfig()"]),
    ("pretrain.model = 3", ["must be a ModelConfig", "write @ModelConfig()"]),
    ("pretrain.model = 'ModelConfig'", ["write @ModelConfig() without quotes"]),
    ("pretrain.model = '@ModelConfig()'", ["write @ModelConfig() without quotes"]),
    ("pretrain.model = {'hidden_size': 3}", ["must be a ModelConfig", "write @ModelConfig()"]),
    ("pretrain.model = [@ModelConfig()]", ["must be a ModelConfig"]),
    ("pretrain.model = None", ["must be a ModelConfig"]),
    ("pretrain.model = %M\nM = @ModelConfig", ["write @ModelConfig()"]),
    ("Objective.loss_masks = [@goldfish]", ["Objective.loss_masks[0] = @goldfish", "write @goldfish()"]),
    ("Objective.loss_masks = @goldfish()", ["must be a list", "write [@goldfish()]"]),
    ("Objective.loss_masks = [@goldfish(), 'not_after_eod']", ["loss_masks[1]", "@not_after_eod() without quotes"]),
    ("Objective.loss_masks = [@goldfish(), %M]\nM = @not_padding", ["loss_masks[1]", "write @not_padding()"]),
    ("Objective.loss_masks = 'goldfish'", ["must be a list"]),
    ("Objective.loss_masks = [@ademamix]", ["loss_masks[0]", "@goldfish()"]),
    ("Objective.loss_masks = [@ModelConfig()]", ["loss_masks[0]", "@goldfish()"]),
    (
        "RunSchedule.learning_rate = @wsd_schedule",
        ["@wsd_schedule must be a number or a function", "write @wsd_schedule()"],
    ),
    ("RunSchedule.learning_rate = 'wsd_schedule'", ["write @wsd_schedule() without quotes"]),
    ("RunSchedule.learning_rate = @goldfish()", ["must be a number or a function", "@constant_schedule()"]),
    ("pretrain.optimizer = 'adamw'", ["write @adamw without quotes"]),
    ("pretrain.optimizer = @adamw()", ["write @adamw without brackets"]),
    ("pretrain.optimizer = @goldfish", ["must be a function", "@ademamix", "@adamw"]),
    ("pretrain.optimizer = @ModelConfig", ["must be a function", "@ademamix"]),
    ("pretrain.optimizer = 3", ["must be a function", "@ademamix"]),
    ("pretrain.mixture = @MixtureStage()", ["must be a Mixture or a MegatronMixture", "@Mixture()"]),
    ("Mixture.stages = @MixtureStage()", ["write [@MixtureStage()]"]),
    ("Mixture.stages = [@Mixture()]", ["stages[0]", "@MixtureStage()"]),
    ("MixtureStage.rates = ['a', 'b']", ["must be a dictionary from text in quotes to a number"]),
    ("MixtureStage.rates = {'a': 'much'}", ["MixtureStage.rates['a'] = 'much' must be a number"]),
    ("MixtureStage.rates = {1: 0.5}", ["must be text in quotes"]),
    ("MixtureStage.sources = 'a'", ["must be a list of texts in quotes", "write ['a']"]),
    ("MixtureStage.sources = ['a', 3]", ["sources[1] = 3 must be text in quotes", "write '3'"]),
    ("run.stages = 'tokenize'", ["run.stages = 'tokenize'", "write ['tokenize']"]),
    ("generate.prompts = 'Once'", ["write ['Once']"]),
    ("evaluate.seed = '3'", ["must be a whole number", "write 3 without quotes"]),
    ("evaluate.seed = 3.0", ["must be a whole number"]),
    ("evaluate.seed = True", ["must be a whole number"]),
    ("evaluate.seed = None", ["must be a whole number"]),
    ("evaluate.seed = 99999999999999999999", ["must be a whole number"]),
    ("evaluate.check_overlap = 1", ["must be True or False"]),
    ("evaluate.check_overlap = 'True'", ["write True without quotes"]),
    ("tokenize.output = 3", ["must be text in quotes or a path in quotes", "write '3'"]),
    ("tokenize.held_out_fraction = 'small'", ["must be a number"]),
    ("QualityRule.top_n_grams = [(2, 0.2), (3,)]", ["top_n_grams[1] = (3,)", "(a whole number, a number)"]),
    ("QualityRule.top_n_grams = [(2, 'x')]", ["top_n_grams[0][1] = 'x' must be a number"]),
    ("Policy.consent_rules = [@RobotsScoring()]", ["consent_rules[0]", "must be a Rule"]),
    ("Policy.consent_rules = [@RobotsRule]", ["consent_rules[0]", "write @RobotsRule()"]),
    ("Policy.consent_scoring = [@RobotsRule()]", ["consent_scoring[0]", "must be a Scoring"]),
    ("prepare.policy = @Policy", ["write @Policy()"]),
    ("prepare.sources = @Source()", ["write [@Source()]"]),
    ("pretrain.evaluators = [@HeldOutEvaluator]", ["write @HeldOutEvaluator()"]),
    ("generate.output_filter = 'runs/filter'", ["must be a TextFilter or None", "@OutputFilter()"]),
    ("ModelConfig.rope_scaling = {'factor': 8.0}", ["must be a RopeScaling or None", "@RopeScaling()"]),
    ("goldfish.anchors = 'x'", ["must be a AnchorTable or a VocabularyText or None", "@vocabulary_text()"]),
]


@pytest.mark.parametrize(("lines", "parts"), WRONG, ids=lambda value: value[:60] if isinstance(value, str) else None)
def test_a_value_of_the_wrong_kind_shows_the_right_spelling(tmp_path, lines, parts):
    (tmp_path / "mine.gin").write_text(lines + "\n")
    with pytest.raises(UserError) as error:
        configuration.parse([str(tmp_path / "mine.gin")], [])
    line = str(error.value)
    assert all(part in line for part in [*parts, "mine.gin, line 1"]), line
    assert "\n" not in line and "0x" not in line


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("--gin.tokenize.tokenizer=my tokenizer", ["text needs quotes", "--gin.tokenize.tokenizer=\"'my tokenizer'\""]),
        ("--gin.evaluate.check_overlap=true", ["write --gin.evaluate.check_overlap=True"]),
        ("--gin.run.stages=[tokenize]", ["quotes around text inside"]),
        ("--gin.pretrain.model=ModelConfig", ["text needs quotes"]),
        ("--gin.plan.devices=h100", ["--gin.plan.devices=\"'h100'\""]),
    ],
)
def test_text_without_quotes_shows_them(capsys, flag, parts):
    assert cli.main(["plan", flag]) == 2
    line = capsys.readouterr().err
    assert all(part in line for part in parts) and line.count("\n") == 1
    assert "malformed" not in line and "<ast" not in line


def test_plain_flags_of_the_wrong_kind_are_one_line(capsys):
    configuration.parse([], [])
    with gin.unlock_config():
        gin.bind_parameter("evaluate.run", 3)
        gin.bind_parameter("evaluate.store", "x")
        gin.bind_parameter("evaluate.output", "x")
    with pytest.raises(UserError, match="evaluate.run = 3 must be text in quotes; write '3'"):
        gin.get_configurable("evaluate")()


def test_lists_of_macros_of_lists_do_not_grow_without_end():
    lines = [f"M{n} = [{', '.join([f'%M{n + 1}'] * 10)}]" for n in range(20)]
    with pytest.raises(UserError, match="holds more than 100,000 things"):
        configuration.parse([], [*lines, "M20 = 1", "generate.prompts = %M0"])
    chain = [f"M{n} = %M{n + 1}" for n in range(5000)]
    with pytest.raises(UserError, match="too many macros|leads back"):
        configuration.parse([], [*chain, "M5000 = 1", "evaluate.seed = %M0"])


@pytest.mark.parametrize(
    "lines",
    [
        ["OnlySources.rule = @OnlySources()"],
        ["a/OnlySources.rule = @b/OnlySources()", "b/OnlySources.rule = @a/OnlySources()"],
        ["OnlySources.rule = %R", "R = @OnlySources()"],
        ["OnlySources.rule = @a/OnlySources()", "prepare.sources = []"],
    ],
)
def test_what_needs_itself_is_told_before_it_is_built(lines):
    with pytest.raises(UserError, match="itself; break the circle"):
        configuration.parse([], lines)


def test_the_same_thing_within_another_of_its_kind_is_no_circle():
    lines = ["OnlySources.rule = @a/OnlySources()", "OnlySources.sources = ['x']", "a/OnlySources.rule = @RobotsRule()"]
    configuration.parse([], lines)  # both are built; that a policy has no use for it is the class's own to say
    with pytest.raises(UserError, match="name the sources of the rule once"):
        gin.get_configurable("OnlySources")()


class Scorer(typing.Protocol):
    """For the checks below."""

    size: int

    def score(self, text: str) -> float: ...


@dataclasses.dataclass
class Good:
    """A Scorer."""

    size: int

    def score(self, text: str) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (Good(3), Scorer, True),
        (Good, Scorer, False),
        (3, Scorer, False),
        ([Good(1)], Sequence[Scorer], True),
        (("a", "b"), list[str], True),
        (["a"], tuple[str, ...], True),
        ("ab", Sequence[str], False),
        ({}, Sequence[str], False),
        ([], Mapping[str, int], False),
        ([1, "a"], tuple[int, str], True),
        ([1, "a", 2], tuple[int, str], False),
        (None, str | None, True),
        (None, typing.Optional[int], True),  # noqa: UP045
        (1, typing.Union[str, int], True),  # noqa: UP007
        (len, Callable[..., int], True),
        (3, Callable[..., int], False),
        (1, float, True),
        (True, float, False),
        (float("nan"), float, False),
        ("b", typing.Literal["a", "b"], True),
        ("c", typing.Literal["a", "b"], False),
        (object(), typing.Any, True),
        (3, typing.Annotated[int, "x"], True),
        ("3", typing.Annotated[int, "x"], False),
    ],
)
def test_annotations_mean_what_they_say(value, hint, fits):
    assert (mismatch(value, hint) is None) == fits


PLAIN = {int: st.integers(-5, 5), float: st.floats(-5, 5), str: st.text("ab", max_size=3), bool: st.booleans()}


@st.composite
def typed(draw, depth=2):
    """Returns an annotation and a value of it."""
    kind = draw(st.sampled_from([*PLAIN, *([list, dict, tuple, None] if depth else [])]))
    if kind in PLAIN:
        return kind, draw(PLAIN[kind])
    if kind is None:
        hint, value = draw(typed(depth - 1))
        return hint | None, draw(st.sampled_from([value, None]))
    hint, value = draw(typed(depth - 1))
    return {
        list: (Sequence[hint], [value] * draw(st.integers(0, 3))),
        tuple: (tuple[hint, int], (value, 3)),
        dict: (Mapping[str, hint], {"a": value}),
    }[kind]


@settings(max_examples=300, deadline=None)
@given(typed())
def test_a_value_made_for_its_annotation_is_never_refused(pair):
    hint, value = pair
    assert mismatch(value, hint) is None


@settings(max_examples=300, deadline=None)
@given(typed())
def test_a_foreign_thing_in_its_place_is_always_refused(pair):
    hint, _ = pair
    found = mismatch(object(), hint)
    assert found is not None and found.told("a.b").startswith("a.b")
