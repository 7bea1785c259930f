"""Variations: how `--vary` is read, what the product is, and what runs are called."""

import pytest

from apertus_jax.errors import UserError
from apertus_jax.sweeps.variations import LONGEST_NAME, read_axis, variations


def names(*texts):
    return [each.name for each in variations(texts)]


def test_product_changes_the_last_axis_fastest():
    found = variations(["goldfish.k=3,10", "TrainingConfig.seed=1,2"])
    assert [each.name for each in found] == ["k=3,seed=1", "k=3,seed=2", "k=10,seed=1", "k=10,seed=2"]
    assert found[1].bindings == {"goldfish.k": "3", "TrainingConfig.seed": "2"}


def test_commas_in_brackets_and_quotes_belong_to_a_value():
    (first, second) = read_axis("Objective.loss_masks=[@goldfish(), @not_after_eod()],[]")
    assert first.bindings == {"Objective.loss_masks": "[@goldfish(), @not_after_eod()]"}
    assert second.bindings == {"Objective.loss_masks": "[]"}
    assert [each.bindings["a.b"] for each in read_axis("a.b='x,y',\"z;,\",{'k': (1, 2)}")] == [
        "'x,y'",
        '"z;,"',
        "{'k': (1, 2)}",
    ]


def test_semicolon_varies_values_together():
    found = variations(["A=1,2; B=3,4", "C=5,6"])
    assert [each.name for each in found] == ["A=1,B=3,C=5", "A=1,B=3,C=6", "A=2,B=4,C=5", "A=2,B=4,C=6"]


def test_chosen_names_are_those_of_the_runs():
    assert names("name=ours,theirs; a.lr=1,2; a.wd=0.1,0.2", "S=7") == ["ours,S=7", "theirs,S=7"]


def test_short_names_that_clash_are_written_out():
    assert names("adamw.b1=0.9", "ademamix.b1=0.8") == ["adamw.b1=0.9,ademamix.b1=0.8"]


def test_names_are_folders_that_any_file_system_takes():
    (path,) = names("pretrain.store='/data/../x y'")
    assert path == "store=_data_.._x_y"[:6] + "data_.._x_y" and "/" not in path
    (reference,) = names("RunSchedule.learning_rate=@wsd_schedule()")
    assert reference == "learning_rate=wsd_schedule"
    (hidden,) = names("name=..; a.b=1")
    assert hidden == "_"
    (long,) = names("a.text='" + "x" * 500 + "'")
    assert len(long) == LONGEST_NAME


def test_runs_of_the_same_name_are_told_apart():
    first, second = names("a.b=[1],(1)")
    assert first.startswith("b=1~") and second.startswith("b=1~") and first != second


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ([], "varies nothing"),
        (["goldfish.k"], "is not NAME=VALUE"),
        (["3=k"], "is not NAME=VALUE"),
        (["a.b=1,,2"], "empty value for a.b"),
        (["a.b=1,1"], "a value twice"),
        (["a.b=1,2; c.d=3"], "as many values each"),
        (["a.b=1; a.b=2"], "names a.b twice"),
        (["name=x"], "names values of nothing"),
        (["a.b=1,2", "a.b=3,4"], "a.b is varied twice"),
        ([f"a.b={','.join(map(str, range(101)))}", f"c.d={','.join(map(str, range(100)))}"], "more than the 10,000"),
    ],
)
def test_what_cannot_be_read_is_one_line(texts, told):
    with pytest.raises(UserError, match=told):
        variations(texts)
