"""The harness over our adapter and over its own transformers backend, on the same exported weights."""

import json

import numpy as np
import pytest

from apertus_jax.evaluation.execution import Execution
from apertus_jax.evaluation.harness import task_loading
from apertus_jax.evaluation.harness.evaluate_tasks_command import run_tasks
from apertus_jax.evaluation.harness.model import HarnessModel
from apertus_jax.evaluation.harness.options import HarnessOptions
from apertus_jax.release import save_huggingface
from tests.evaluation.harness.harness_models import CONTEXT, demo_texts, random_parameters, tiny_config, write_model

LIMIT = 6
KINDS = {
    "hard_choice": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}, {metric: acc_mutual_info}]
""",
    "hard_cloze": """
output_type: loglikelihood
doc_to_text: question
doc_to_target: "{{choices[answer]}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "hard_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
    "hard_answer": """
output_type: generate_until
doc_to_text: question
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["e", "an", "и"], do_sample: false, max_gen_toks: 20}
metric_list: [{metric: exact_match}, {metric: chrf}]
""",
    "hard_few_shot": """
output_type: multiple_choice
doc_to_text: "{{question.strip()}} ({{language|upper}})"
doc_to_choice: choices
doc_to_target: answer
num_fewshot: 2
fewshot_split: examples
fewshot_config: {sampler: first_n}
description: "Answer the question.\\n\\n"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
}


def hard_documents() -> list[dict]:
    """The edges of encoding: no context, spaces at the border, a context that does not fit, rare scripts."""
    texts = demo_texts()
    long = [" ".join(texts)[start : start + 300] for start in (0, 900, 2500)]
    questions = ["", "Two spaces  ", "<s>begins with the token", *long]
    answers = [["white", "<s>white", "weiß"], [" blue", "blue", "bl"], ["a", "b", "c"], ["и снег", "雪", "naïve"]]
    return [
        {"question": asked, "choices": answers[n % 4], "answer": n % 3, "language": "und", "text": asked * 2 or "x"}
        for n, asked in enumerate(questions)
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    write_model(folder)
    config = tiny_config()
    save_huggingface(folder / "export", config, random_parameters(config), tokenizer=folder / "tokenizer")
    tasks = folder / "tasks"
    tasks.mkdir()
    lines = [json.dumps(document, ensure_ascii=False) for document in hard_documents()]
    (tasks / "documents.jsonl").write_text("\n".join(lines))
    for name, text in KINDS.items():
        files = "data_files: {test: documents.jsonl, examples: documents.jsonl}"
        header = f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  {files}\ntest_split: test\n"
        (tasks / f"{name}.yaml").write_text(header + text)
    return folder


class Recorder:
    """Notes the token pairs that a model scores, in the order asked, and the prompts that it continues."""

    def __init__(self, model):
        self.model, self.pairs, self.encoded = model, [], []
        inner = model.loglikelihood

        def loglikelihood(requests, **kwargs):
            self.pairs += [encode_pair(model, *request.args) for request in requests]
            return inner(requests, **kwargs)

        model.loglikelihood = loglikelihood


def encode_pair(model, context, continuation):
    """What a model makes of one request, through the harness's own TemplateLM."""
    seen = []
    saved = model._loglikelihood_tokens
    model._loglikelihood_tokens = lambda requests, **kwargs: seen.extend(requests) or [(0.0, False)]
    try:
        from lm_eval.api.model import TemplateLM

        request = type("Request", (), {"args": (context, continuation)})()
        TemplateLM.loglikelihood(model, [request], disable_tqdm=True)
    finally:
        model._loglikelihood_tokens = saved
    return seen[0][1:]


def transformers_backend(export):
    """The harness's own HFLM, with what the dev requirements bring for it."""
    import transformers
    from lm_eval.models.huggingface import HFLM

    model = transformers.AutoModelForCausalLM.from_pretrained(export, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(export)
    # One at a time: in a batch it decides for all prompts by the first whether <s> is there already.
    return HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=1)


@pytest.fixture(scope="module")
def both(root):
    """{"ours" and "theirs": (results, recorder)} on the demonstration tasks and on the hard documents."""
    ours = HarnessModel.open(root / "model", HarnessOptions(rolling_prefix="harness"), Execution(batch_tokens=512))
    theirs = transformers_backend(root / "export")
    found = {}
    for name, model in (("ours", ours), ("theirs", theirs)):
        recorder = Recorder(model)
        with task_loading.guarded():
            loaded = task_loading.load_tasks(["apertus_demo", *KINDS], [str(root / "tasks")])
            for task in loaded["tasks"].values():
                if task.get_config("num_fewshot") is None:
                    task.set_config(key="num_fewshot", value=0)
                task.set_fewshot_seed(seed=1)
            found[name] = run_tasks(model, loaded, HarnessOptions(limit=LIMIT, bootstrap_resamples=20)), recorder
    return found


def test_both_backends_are_asked_the_same(both):
    (ours, our_recorder), (theirs, their_recorder) = both["ours"], both["theirs"]
    assert our_recorder.pairs == their_recorder.pairs and len(our_recorder.pairs) > 100
    for task, documents in theirs["samples"].items():
        assert [each["arguments"] for each in ours["samples"][task]] == [each["arguments"] for each in documents]
    longest = max(len(context) + len(continuation) for context, continuation in our_recorder.pairs)
    assert longest > CONTEXT + 1  # some were truncated, and by both alike


def answers_of(results, task):
    return [np.asarray(answer[0], object) for document in results["samples"][task] for answer in document["resps"]]


def test_log_likelihoods_agree_and_so_do_greedy_decisions(both):
    compared = 0
    for task, documents in both["theirs"][0]["samples"].items():
        for mine, reference in zip(both["ours"][0]["samples"][task], documents, strict=True):
            for (ours,), (theirs,) in zip(mine["resps"], reference["resps"], strict=True):
                if isinstance(theirs, str):
                    continue
                rolling = isinstance(theirs, float)
                value, expected = (ours, theirs) if rolling else (float(ours[0]), float(theirs[0]))
                assert abs(value - expected) <= 1e-4 + 1e-6 * abs(expected), (task, value, expected)
                assert rolling or str(ours[1]) == str(theirs[1])
                compared += 1
    assert compared > 100


def test_generated_texts_are_the_same(both):
    texts = {}
    for task in ("hard_answer", "apertus_demo_answer"):
        for mine, reference in zip(both["ours"][0]["samples"][task], both["theirs"][0]["samples"][task], strict=True):
            assert mine["resps"] == reference["resps"]
            texts[task] = texts.get(task, []) + mine["resps"]
    assert any(text for answers in texts.values() for text in answers[0])


def test_metrics_are_identical(both):
    ours, theirs = both["ours"][0]["results"], both["theirs"][0]["results"]
    assert ours.keys() == theirs.keys() and len(ours) >= 10
    for task, metrics in theirs.items():
        assert ours[task].keys() == metrics.keys()
        for name, value in metrics.items():
            if not isinstance(value, float):
                assert ours[task][name] == value, (task, name)
            elif "bits_per_byte" in name:
                assert abs(ours[task][name] - value) <= 1e-6, (task, name)
            elif "perplexity" in name:  # an exponential: the 1e-5 is that of its exponent
                assert ours[task][name] == pytest.approx(value, rel=1e-5), (task, name)
            else:
                assert ours[task][name] == value, (task, name)
