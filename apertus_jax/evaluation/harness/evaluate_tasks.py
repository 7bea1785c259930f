"""Tasks of the evaluation harness on one of our models: results in its JSON, a table, a page to look at."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jax.sharding import Mesh

from apertus_jax import __version__, artifacts
from apertus_jax.errors import UserError
from apertus_jax.evaluation.harness import task_loading
from apertus_jax.evaluation.harness.macros import macro_scores
from apertus_jax.evaluation.harness.task_report import print_table, write_report
from apertus_jax.model_folder import KIND as MODEL_KIND
from apertus_jax.model_folder import find_model

KIND = "task_evaluation"
RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"
SAMPLES_FOLDER = "samples"
FINISHED_RUN_FILE = "finished.json"


def evaluate_tasks(
    run: epath.PathLike,
    tasks: str | Sequence[str],
    output: epath.PathLike,
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    include_path: str | Sequence[str] = (),
    task_data: str | None = None,
    allow_code: bool = False,
    max_length: int | None = None,
    max_gen_toks: int | None = None,
    add_bos: bool = True,
    apply_chat_template: bool = False,
    system_instruction: str | None = None,
    batch_tokens: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    bootstrap_resamples: int = 1000,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Evaluates a model on tasks of lm-evaluation-harness; writes results.json, samples/ and report.html.

    Done already with the same model, documents and settings: the results are read again.

    Args:
      run: a run folder whose training has ended, or a model folder.
      tasks: names, patterns or files; a string holds several with commas. `apertus_demo` comes with the package and
        needs no network.
      output: where the results go.
      limit: documents per task, for a first look; None means all.
      num_fewshot: solved examples before each question; None means what the task says.
      include_path: folders of task files of one's own.
      task_data: folder of local copies of hub datasets, for the tasks that come with lm_eval (see `local_data`).
      allow_code: let task files run their Python and models' code be run. Off, such files are refused.
      max_length: longest input; None means the model's context.
      max_gen_toks: new tokens of generation tasks; None means what the task says.
      add_bos: put <s> before every context.
      apply_chat_template: ask in the model's chat format, solved examples as earlier turns.
      system_instruction: what the conversation or the context begins with.
      batch_tokens: about how many tokens one forward pass of scoring has; None means what suits the device.
      batch_size: texts generated together.
      seed: of few-shot draws, sampled generation and bootstrap intervals.
      bootstrap_resamples: draws for the standard errors of perplexities; 0 means none.
      mesh: devices for scoring; None means one device.

    Returns:
      The results, as in results.json: those of the harness, and `macros` (see `macro_scores`), `consumed_tokens` (of
      the training, None when unknown) and what `HarnessModel.get_model_info` says.

    Raises:
      UserError: lm_eval is missing, an unknown task, a task file that could run code, a task without documents, a
        model without a fitting tokenizer, or logits that are not finite.
    """
    names = tasks.split(",") if isinstance(tasks, str) else list(tasks)
    folders = [include_path] if isinstance(include_path, str) else list(include_path)
    task_loading.harness()
    model_manifest = artifacts.read_manifest(find_model(run), MODEL_KIND)
    with task_loading.guarded(allow_code):
        loaded = task_loading.load_tasks(names, folders, task_data, allow_code)
        _configure(loaded["tasks"], num_fewshot, max_gen_toks, seed)
        inputs = {
            "model": model_manifest["digest"],
            "tasks": {name: _task_digest(task, limit) for name, task in loaded["tasks"].items()},
            "groups": loaded["group_map"],
            "harness": importlib.metadata.version("lm_eval"),
            "limit": limit,
            "max_length": max_length,
            "add_bos": add_bos,
            "apply_chat_template": apply_chat_template,
            "system_instruction": system_instruction,
            "seed": seed,
            "bootstrap_resamples": bootstrap_resamples,
        }
        if artifacts.already_built(output, KIND, inputs):
            results = json.loads((epath.Path(output) / RESULTS_FILE).read_text())
        else:
            from apertus_jax.evaluation.harness.model import HarnessModel

            model = HarnessModel.open(
                run,
                max_length=max_length,
                batch_tokens=batch_tokens,
                batch_size=batch_size,
                add_bos=add_bos,
                seed=seed,
                mesh=mesh,
            )
            results = run_tasks(
                model,
                loaded,
                limit=limit,
                seed=seed,
                bootstrap_resamples=bootstrap_resamples,
                apply_chat_template=apply_chat_template,
                system_instruction=system_instruction,
            )
            results["consumed_tokens"] = consumed_tokens(run, model_manifest)
            _write(output, inputs, results, str(run))
    print_table(results)
    return results


def run_tasks(
    model: Any,
    loaded: Mapping[str, Any],
    *,
    limit: int | None = None,
    seed: int = 0,
    bootstrap_resamples: int = 1000,
    apply_chat_template: bool = False,
    system_instruction: str | None = None,
) -> dict[str, Any]:
    """Returns the harness's results of loaded tasks, with its samples, for any lm_eval model.

    Call it inside `task_loading.guarded`, where the tasks were loaded too. Neither time nor machine is in the results:
    the same model and documents give the same bytes.

    Args:
      model: an `lm_eval.api.model.LM`.
      loaded: what `load_tasks` returned.
      limit: documents per task; None means all.
      seed: of bootstrap intervals and of tasks that draw.
      bootstrap_resamples: draws for the standard errors of perplexities; 0 means none.
      apply_chat_template: ask in the model's chat format.
      system_instruction: what the conversation or the context begins with.
    """
    harness = task_loading.harness()
    template = model.chat_template(apply_chat_template) if apply_chat_template else None
    # The few places of the harness that draw without a generator of their own.
    random.seed(seed)
    np.random.seed(seed)
    # It reports on standard output, which is the command's.
    with task_loading.task_errors(", ".join(loaded["tasks"])), contextlib.redirect_stdout(io.StringIO()):
        results = harness.evaluator.evaluate(
            lm=model,
            task_dict=dict(loaded),
            limit=limit,
            bootstrap_iters=bootstrap_resamples,
            apply_chat_template=apply_chat_template,
            fewshot_as_multiturn=apply_chat_template,
            system_instruction=system_instruction,
            confirm_run_unsafe_code=True,
        )
    results["config"] = {
        "model": type(model).__name__,
        "model_args": None,
        **(model.get_model_info() if hasattr(model, "get_model_info") else {}),
        "limit": limit,
        "bootstrap_iters": bootstrap_resamples,
        "fewshot_seed": seed,
        "chat_template": template,
        "system_instruction": system_instruction,
        "truncated_requests": getattr(model, "truncated", None),
    }
    results["lm_eval_version"] = importlib.metadata.version("lm_eval")
    results["apertus_jax_version"] = __version__
    results["macros"] = macro_scores(results)
    return json.loads(json.dumps(results, default=_to_json, ensure_ascii=False))


def consumed_tokens(run: epath.PathLike, model_manifest: Mapping[str, Any]) -> int | None:
    """Returns how many tokens the model was trained on, from its manifest or its run's summary; None when unknown."""
    recorded = model_manifest["summary"].get("consumed_tokens")
    if recorded is not None:
        return int(recorded)
    finished = find_model(run).parent / FINISHED_RUN_FILE
    summary = json.loads(finished.read_text()) if finished.exists() else {}
    # The summary is of the run's last step; a model of another step is not what it describes.
    same_step = summary.get("step") == model_manifest["inputs"].get("step")
    return int(summary["tokens"]) if same_step and "tokens" in summary else None


def _configure(tasks: Mapping[str, Any], num_fewshot: int | None, max_gen_toks: int | None, seed: int) -> None:
    for name, task in tasks.items():
        stated = task.get_config("num_fewshot")
        # A task that says 0 means it: its prompt has no room for examples.
        if num_fewshot is not None and stated != 0:
            task.set_config(key="num_fewshot", value=num_fewshot)
        elif stated is None:
            task.set_config(key="num_fewshot", value=0)
        shots = task.get_config("num_fewshot")
        examples = len(list(task.fewshot_docs() or ())) if shots else 0
        if shots and examples < shots:
            raise UserError(
                f"task {name} has {examples} examples for {shots}-shot prompts; lower evaluate_tasks.num_fewshot"
            )
        if max_gen_toks is not None and task.OUTPUT_TYPE == "generate_until":
            task.set_config(key="generation_kwargs", value={"max_gen_toks": max_gen_toks}, update=True)
        task.set_fewshot_seed(seed=seed)


def _task_digest(task: Any, limit: int | None) -> str:
    """Returns the digest of what decides a task's requests: its settings and documents."""
    documents = list(task.eval_docs)[:limit]
    examples = list(task.fewshot_docs() or ()) if task.get_config("num_fewshot") else []
    config = {name: value for name, value in task.dump_config().items() if name != "metadata"}
    return artifacts.digest_json(json.loads(json.dumps([config, documents, examples], default=_to_json)))


def _write(output: epath.PathLike, inputs: Mapping[str, Any], results: dict[str, Any], run: str) -> None:
    samples = results.pop("samples", {})
    with artifacts.build(output, KIND, inputs) as build:
        (build.path / SAMPLES_FOLDER).mkdir()
        for task, rows in samples.items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (build.path / SAMPLES_FOLDER / f"{task.replace('/', '-')}.jsonl").write_text(lines)
        (build.path / RESULTS_FILE).write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        write_report(build.path / REPORT_FILE, results, samples, run)
        build.summary["results"] = {task: dict(metrics) for task, metrics in results["results"].items()}


def _to_json(value: Any) -> Any:
    """Returns a JSON value for what the harness keeps in its results: NumPy scalars, functions, sets."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    # A function's address differs from run to run; its name does not.
    return getattr(value, "__qualname__", None) or str(value)
