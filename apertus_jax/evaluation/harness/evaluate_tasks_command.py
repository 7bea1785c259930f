"""lm-evaluation-harness tasks on a model folder or run: JSON results, a table, an HTML page."""

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

from apertus_jax import __version__
from apertus_jax.checkpoints import OpenedModel, open_model
from apertus_jax.data.provenance.recorded_stream import recorded_history
from apertus_jax.errors import UserError
from apertus_jax.evaluation.execution import Execution
from apertus_jax.evaluation.harness import task_loading
from apertus_jax.evaluation.harness.macros import macro_scores
from apertus_jax.evaluation.harness.options import HarnessOptions
from apertus_jax.evaluation.harness.task_report import print_table, write_report
from apertus_jax.storage import artifacts
from apertus_jax.storage.identity import identity_of
from apertus_jax.storage.json_reader import read_json, read_json_object
from apertus_jax.storage.run_folder import RunFolder

KIND = "task_evaluation"
RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"
SAMPLES_FOLDER = "samples"


def evaluate_tasks(
    run: epath.PathLike,
    tasks: str | Sequence[str],
    output: epath.PathLike,
    options: HarnessOptions = HarnessOptions(),  # noqa: B008 (frozen)
    include_path: str | Sequence[str] = (),
    task_data: str | None = None,
    allow_code: bool = False,
    execution: Execution = Execution(),  # noqa: B008 (frozen)
    step: int | None = None,
) -> dict[str, Any]:
    """Evaluates a model on tasks of lm-evaluation-harness; writes results.json, samples/ and report.html.

    Done already with the same model, documents and settings: the results are read again.

    Args:
      run: a run folder, or a model folder.
      tasks: names, patterns or files; a string holds several with commas. `apertus_demo` comes with the package and
        needs no network.
      output: where the results go.
      options: how the tasks are asked.
      include_path: folders of task files of one's own.
      task_data: folder of local copies of hub datasets, for the tasks that come with lm_eval (see `local_data`).
      allow_code: let task files run their Python and models' code be run. Off, such files are refused.
      execution: how many texts are generated together; None means 8.
      step: a committed step of the run, which may still be training; None for the model of a finished run.

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
    opened = open_model(run, step)
    with task_loading.guarded(allow_code):
        loaded = task_loading.load_tasks(names, folders, task_data, allow_code)
        _configure(loaded["tasks"], options)
        inputs = {
            **opened.identity,
            "tasks": {name: _task_digest(task, options.limit) for name, task in loaded["tasks"].items()},
            "groups": loaded["group_map"],
            "harness": importlib.metadata.version("lm_eval"),
            **identity_of(options),
        }
        if artifacts.already_built(output, KIND, inputs):
            results = read_json(epath.Path(output) / RESULTS_FILE, allow_nan=True)
        else:
            from apertus_jax.evaluation.harness.model import HarnessModel

            results = run_tasks(HarnessModel.open(run, options, execution, step=step), loaded, options)
            results["consumed_tokens"] = consumed_tokens(run, opened)
            _write(output, inputs, results, str(run) if step is None else f"{run}, step {step}")
    print_table(results)
    return results


def run_tasks(
    model: Any,
    loaded: Mapping[str, Any],
    options: HarnessOptions = HarnessOptions(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Returns the harness's results of loaded tasks, with its samples, for any lm_eval model.

    Call it inside `task_loading.guarded`, where the tasks were loaded too. Neither time nor machine is in the results:
    the same model and documents give the same bytes.

    Args:
      model: an `lm_eval.api.model.LM`.
      loaded: what `load_tasks` returned.
      options: how many documents, in which format, and the seed of bootstrap intervals and of tasks that draw.
    """
    harness = task_loading.harness()
    chat = options.apply_chat_template
    template = model.chat_template(chat) if chat else None
    # The few places of the harness that draw without a generator of their own.
    random.seed(options.seed)
    np.random.seed(options.seed)
    # It reports on standard output, which is the command's.
    with task_loading.task_errors(", ".join(loaded["tasks"])), contextlib.redirect_stdout(io.StringIO()):
        results = harness.evaluator.evaluate(
            lm=model,
            task_dict=dict(loaded),
            limit=options.limit,
            bootstrap_iters=options.bootstrap_resamples,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            system_instruction=options.system_instruction,
            confirm_run_unsafe_code=True,
        )
    results["config"] = {
        "model": type(model).__name__,
        "model_args": None,
        **(model.get_model_info() if hasattr(model, "get_model_info") else {}),
        "limit": options.limit,
        "bootstrap_iters": options.bootstrap_resamples,
        "fewshot_seed": options.seed,
        "chat_template": template,
        "system_instruction": options.system_instruction,
        "truncated_requests": getattr(model, "truncated", None),
    }
    results["lm_eval_version"] = importlib.metadata.version("lm_eval")
    results["apertus_jax_version"] = __version__
    results["macros"] = macro_scores(results)
    return json.loads(json.dumps(results, default=_to_json, ensure_ascii=False))


def consumed_tokens(run: epath.PathLike, model: OpenedModel) -> int | None:
    """Returns how many tokens the model was trained on, from what it or its run records; None when unknown."""
    if model.step is not None:
        return recorded_history(run).tokens_before(model.step)
    recorded = model.summary.get("consumed_tokens")
    if recorded is not None:
        return int(recorded)
    finished = RunFolder(model.place.parent).finished
    summary = read_json_object(finished, allow_nan=True) if finished.exists() else {}
    # The summary is of the run's last step; a model of another step is not what it describes.
    same_step = summary.get("step") == model.inputs.get("step")
    return int(summary["tokens"]) if same_step and "tokens" in summary else None


def _configure(tasks: Mapping[str, Any], options: HarnessOptions) -> None:
    for name, task in tasks.items():
        stated = task.get_config("num_fewshot")
        # A task that says 0 means it: its prompt has no room for examples.
        if options.num_fewshot is not None and stated != 0:
            task.set_config(key="num_fewshot", value=options.num_fewshot)
        elif stated is None:
            task.set_config(key="num_fewshot", value=0)
        shots = task.get_config("num_fewshot")
        examples = len(list(task.fewshot_docs() or ())) if shots else 0
        if shots and examples < shots:
            raise UserError(
                f"task {name} has {examples} examples for {shots}-shot prompts; lower HarnessOptions.num_fewshot"
            )
        if options.max_gen_toks is not None and task.OUTPUT_TYPE == "generate_until":
            task.set_config(key="generation_kwargs", value={"max_gen_toks": options.max_gen_toks}, update=True)
        task.set_fewshot_seed(seed=options.seed)


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
