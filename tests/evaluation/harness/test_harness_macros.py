"""Macro scores: which leaves, what mean, and when there is none."""

import collections
import logging
import random
import statistics

import pytest

from apertus_jax.evaluation.harness import macro_scores, task_list
from apertus_jax.evaluation.harness.macros import leaf_table, plain_metrics

# docs/reference/evaluation_and_release.md §1.3, counted there.
LEAVES = {"english": 9, "swiss": 19, "eu": 86, "multilingual": 143, "global": 152}
DIMENSIONS = {"general": 90, "agnostic": 15, "regional": 47}
PREFIXES = {
    "general": ("hellaswag", "piqa", "arc", "winogrande", "xwinograd", "xnli", "xcopa"),
    "agnostic": ("mmlu", "global_mmlu"),
    "regional": ("include", "switzerland_qa"),
}
EU = "sq hy eu be bg ca hr da nl en et fi fr ka de el hu it lt mk pl pt ro rm ru sr sk es sv uk"


def all_results(seed=0):
    generator = random.Random(seed)
    return {
        "results": {
            leaf.task: {"alias": leaf.task, "acc,none": generator.random(), "acc_stderr,none": 0.5}
            for leaf in leaf_table().leaves
        }
    }


@pytest.mark.parametrize("group", LEAVES)
def test_groups_have_the_published_number_of_leaves(group):
    assert len(task_list(group)) == LEAVES[group] == len(set(task_list(group)))


def test_leaves_cover_the_published_dimensions_and_languages():
    leaves = leaf_table().leaves
    assert collections.Counter(leaf.dimension for leaf in leaves) == DIMENSIONS
    assert len({leaf.language for leaf in leaves}) == 59 and len({leaf.task for leaf in leaves}) == 152
    assert all(leaf.task.startswith(PREFIXES[leaf.dimension]) for leaf in leaves)
    assert sorted(leaf_table().language_groups["eu"]) == sorted(EU.split())
    assert not any(name in leaf.task for leaf in leaves for name in ("blend", "cultural"))
    english = "hellaswag mmlu winogrande xnli_en xwinograd_en piqa switzerland_qa_en arc_easy arc_challenge"
    assert sorted(task_list("english")) == sorted(english.split())
    swiss = collections.Counter(task.rpartition("_")[0] for task in task_list("swiss"))
    assert swiss == {
        **{"arc": 3, "global_mmlu": 3, "hellaswag": 3, "include_base_44": 3},
        **{"xnli": 2, "xwinograd": 1, "switzerland_qa": 4},
    }
    assert len(task_list("swiss", "regional")) == 7


def test_a_macro_is_the_plain_mean_over_its_leaves():
    results = all_results()
    macros = macro_scores(results)
    assert not macros["withheld"]
    value = {task: metrics["acc,none"] for task, metrics in results["results"].items()}
    for group in LEAVES:
        expected = statistics.mean(value[task] for task in task_list(group))
        assert macros["scores"][f"language_group/{group}.macro"] == {"acc": pytest.approx(expected, rel=1e-12)}
    swiss_regional = statistics.mean(value[task] for task in task_list("swiss", "regional"))
    assert macros["scores"]["dimension_group/regional.swiss.macro"]["acc"] == pytest.approx(swiss_regional)
    romansh = macros["scores"]["dimension_lang/regional.rm.macro"]["acc"]
    assert romansh == value["switzerland_qa_rm"] and "dimension_lang/general.rm.macro" not in macros["scores"]
    agnostic = statistics.mean(value[task] for task in task_list(dimension="agnostic"))
    assert macros["scores"]["dimension/agnostic.macro"]["acc"] == pytest.approx(agnostic)


def test_missing_leaf_withholds_every_macro_that_needs_it(caplog):
    results = all_results()
    del results["results"]["xnli_de"]
    with caplog.at_level(logging.WARNING):
        macros = macro_scores(results)
    needing = {"language_group/swiss", "language_group/eu", "language_group/multilingual", "language_group/global"}
    needing |= {"dimension/general", "dimension_group/general.swiss", "dimension_group/general.eu"}
    needing |= {"dimension_group/general.multilingual", "dimension_group/general.global", "dimension_lang/general.de"}
    assert macros["withheld"] == {f"{name}.macro": ["xnli_de"] for name in needing}
    assert not set(macros["withheld"]) & set(macros["scores"])
    assert "language_group/swiss.macro is withheld: 1 of its 19 leaves are missing (xnli_de)" in caplog.text


def test_a_metric_is_averaged_over_the_leaves_that_report_it():
    results = all_results()
    reporting = ["hellaswag", "piqa"]
    for number, task in enumerate(reporting):
        results["results"][task]["acc_norm,none"] = float(number)
    assert macro_scores(results)["scores"]["language_group/english.macro"]["acc_norm"] == 0.5


def test_groups_and_several_files_and_other_spellings_count():
    results = all_results()
    group = results["results"].pop("include_base_44_north_macedonian")
    results["results"]["include_base_44_north macedonian"] = group
    moved = {"mmlu": results["results"].pop("mmlu")}
    results["results"]["mmlu"] = {"alias": "mmlu"}  # a group without aggregation has no figure
    assert macro_scores(results)["withheld"]
    assert not macro_scores([results, {"groups": moved}])["withheld"]


def test_nothing_measured_gives_no_macro_and_no_warning(caplog):
    assert macro_scores({"results": {"other": {"acc,none": 1.0}}}) == {"scores": {}, "withheld": {}}
    assert not caplog.text


def test_bare_metrics_are_numbers_without_errors_and_texts():
    metrics = {"alias": "x", "acc,strict": 0.2, "acc,none": 0.1, "acc_stderr,none": 9.0, "f1,none": "N/A", "n": 3}
    assert plain_metrics({**metrics, "ppl,none": float("inf"), "em,a": 1.0, "em,b": 2.0}) == {"acc": 0.1, "em": 1.0}
