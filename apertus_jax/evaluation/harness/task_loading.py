"""Task loading: own folders first, local data instead of a hub, templates in a sandbox."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fnmatch
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apertus_jax.errors import UserError
from apertus_jax.evaluation.harness import local_data
from apertus_jax.evaluation.harness.macros import DATA_FOLDER
from apertus_jax.evaluation.harness.task_rules import HOW_TO_ALLOW, check_task_folder, task_files, with_local_files

if TYPE_CHECKING:
    import jinja2

OWN_FOLDER = Path(DATA_FOLDER)
DEMO_FOLDER = OWN_FOLDER / "apertus_demo"
NEAREST_NAMES = 5
# lm_eval asks for this variable before it draws bootstrap samples.
IN_ONE_PROCESS = "DISABLE_MULTIPROC"
# What the harness, `datasets` and Python raise over settings and documents that make no sense.
_OF_BAD_FILES = (
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError, SyntaxError, OSError),
    *(ArithmeticError, RecursionError, NotImplementedError, re.error),
)
_OF_THIS_MACHINE = (MemoryError,)
MAX_MEMBERS = 100_000
FILTER_SECONDS_PER_ANSWER = 0.01
MISSING_HARNESS = (
    "evaluating tasks needs the package lm-eval, which is not installed; install requirements-dev.txt (make test does)"
)


def harness() -> Any:
    """Returns the lm_eval package.

    Raises:
      UserError: it is not installed.
    """
    try:
        import lm_eval
        import lm_eval.api.task
        import lm_eval.evaluator
        import lm_eval.tasks
    except ImportError as error:
        raise UserError(MISSING_HARNESS) from error
    return lm_eval


def load_tasks(
    names: Sequence[str],
    include_path: Sequence[str] = (),
    task_data: str | None = None,
    allow_code: bool = False,
) -> dict[str, Any]:
    """Returns the harness's loaded tasks: {"tasks": …, "groups": …, "group_map": …}.

    Names are looked up in the `include_path` folders, then among our own tasks, then among those that come with
    lm_eval; a name may be a pattern (`arc_*`) or the path of a task file. Call it, and use what it returns, inside
    `guarded`.

    Args:
      names: tasks, groups, tags, patterns or files.
      include_path: folders of task files.
      task_data: a folder with local copies of hub datasets; see `local_data`.
      allow_code: trust the folders: their functions are imported, and their data may lie anywhere.

    Raises:
      UserError: no name, an unknown one (with the nearest), a file that could run code, a task without documents.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not wanted:
        raise UserError("no task was named; give evaluate.tasks, such as apertus_demo")
    folders = [Path(folder).expanduser().resolve() for folder in include_path]
    files = [Path(name).expanduser().resolve() for name in wanted if name.endswith((".yaml", ".yml"))]
    if not allow_code:
        for folder in (*folders, *files):
            check_task_folder(folder)
    with task_errors(", ".join(wanted)):
        read = _Reader(allow_code, task_data)
        manager = _manager(wanted, folders, read)
        _refuse_endless(wanted, manager.task_index)
        if not allow_code:
            _refuse_unsafe(wanted, manager.task_index)
        specs = _specs(wanted, manager, read)
        with local_data.as_dataset_source(task_data):
            loaded = manager.load(specs)
    for name, task in loaded["tasks"].items():
        _check_task(name, task)
    return loaded


@contextlib.contextmanager
def guarded(allow_code: bool = False) -> Iterator[None]:
    """Renders task templates in Jinja's sandbox, keeps the harness's log quiet and its statistics in this process."""
    utils, tasks = harness().utils, harness().api.task
    import datasets

    original, bar, logger = utils.env, tasks.tqdm, logging.getLogger("lm_eval")
    apply_filters = tasks.ConfigurableTask.apply_filters
    level, in_one_process = logger.level, os.environ.get(IN_ONE_PROCESS)
    if not allow_code:
        utils.env = _sandbox(original)
        tasks.ConfigurableTask.apply_filters = _limited_filters(apply_filters)
    # A pool of forked processes does not go with the threads of XLA, and wants longer to start than to count.
    os.environ[IN_ONE_PROCESS] = "1"
    # None: no bar where nobody watches.
    tasks.tqdm = functools.partial(bar, disable=None, leave=False)
    bars_of_datasets = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        utils.env, tasks.tqdm = original, bar
        tasks.ConfigurableTask.apply_filters = apply_filters
        logger.setLevel(level)
        if in_one_process is None:
            del os.environ[IN_ONE_PROCESS]
        if not bars_of_datasets:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def task_errors(names: str) -> Iterator[None]:
    """Turns what the harness raises over a bad task file or document into one line."""
    import jinja2.exceptions  # comes with lm_eval; the runtime does without
    import yaml

    from apertus_jax.evaluation.harness.template_sandbox import CostlyTemplateError

    try:
        yield
    except jinja2.exceptions.SecurityError as error:
        raise UserError(f"a template of {names} tried to reach into Python ({error}); {HOW_TO_ALLOW}") from error
    except CostlyTemplateError as error:
        raise UserError(f"a template or filter of {names} is stopped: {error}; mend the task file") from error
    except jinja2.TemplateError as error:
        raise UserError(f"a template of {names} cannot be filled in ({error}); mend the task file") from error
    except ImportError as error:
        raise UserError(f"{names} needs a package that is not installed ({_one_line(error)})") from error
    except (UserError, *_OF_THIS_MACHINE):
        raise
    except (*_OF_BAD_FILES, yaml.YAMLError) as error:
        raise UserError(f"the harness cannot use {names} ({_one_line(error)}); mend the task file") from error


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads task files of our folders; without trust, their data must lie beside them or below `task_data`."""

    allow_code: bool
    task_data: str | None

    def __call__(self, path: Path) -> dict[str, Any]:
        import yaml
        from lm_eval.tasks._yaml_loader import load_yaml

        try:
            config = load_yaml(path, resolve_func=self.allow_code)
        except (*_OF_BAD_FILES, yaml.YAMLError) as error:
            raise UserError(f"{path} cannot be read as a task file ({_one_line(error)}); mend it") from error
        roots = [path.parent, *([Path(self.task_data).expanduser()] if self.task_data else [])]
        return with_local_files(config, path, None if self.allow_code else roots)


def _manager(wanted: Sequence[str], folders: Sequence[Path], read: _Reader) -> Any:
    """Returns lm_eval's task manager; reading its thousands of own task files takes long, so only when needed."""
    manager_class = harness().tasks.TaskManager
    # A later folder wins over an earlier one, so a person's own come last.
    searched = [OWN_FOLDER, *folders]
    for with_stock in (False, True):
        manager = manager_class(include_path=searched, include_defaults=with_stock)
        _bind_entries(manager.task_index, searched, read)
        if not _reachable(wanted, manager.task_index)[1]:
            break
    unknown = [name for name in wanted if not _matches(name, manager.task_index)]
    if unknown:
        # Lower-case, so that a wrong capital is no distance.
        for path in (each for folder in folders for each in task_files(folder)):
            read(path)  # the harness passes over files that it cannot read
        known = {name.lower(): name for name in manager.all_tasks}
        nearest = difflib.get_close_matches(unknown[0].lower(), known, NEAREST_NAMES, 0.5)
        advice = "the nearest are " + ", ".join(known[name] for name in nearest) if nearest else "none is similar"
        raise UserError(f"there is no task {unknown[0]!r}; {advice}")
    return manager


def _bind_entries(index: Mapping[str, Any], folders: Sequence[Path], read: _Reader) -> None:
    """Reads the entries of our folders once, with local file names; lm_eval would look for data in the working folder.

    What was checked is also what is used: the files are not read again.
    """
    for entry in index.values():
        if entry.yaml_path is not None and any(Path(entry.yaml_path).is_relative_to(folder) for folder in folders):
            entry.cfg = read(Path(entry.yaml_path))
            entry.yaml_path = None


def _specs(wanted: Sequence[str], manager: Any, read: _Reader) -> list[Any]:
    specs: dict[str, Any] = {}
    for name in wanted:
        if name.endswith((".yaml", ".yml")):
            specs[name] = read(Path(name).expanduser().resolve())
        elif name in manager.task_index:
            specs[name] = name
        else:
            specs.update({found: found for found in _matches(name, manager.task_index)})
    return list(specs.values())


def _matches(name: str, index: Mapping[str, Any]) -> list[str]:
    if name in index or name.endswith((".yaml", ".yml")):
        return [name]
    return sorted(fnmatch.filter(index, name)) if any(sign in name for sign in "*?[") else []


def _reachable(wanted: Sequence[str], index: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Returns the names, and all that their groups and tags name in turn, which the index (has, lacks)."""
    pending, seen = list(wanted), set()
    known, lacking = [], []
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        found = _matches(name, index)
        if found and found != [name]:
            pending += found
        elif name in index:
            known.append(name)
            pending += _members(index[name])
        elif not found:
            lacking.append(name)
    return known, lacking


def _members(entry: Any) -> list[str]:
    """Returns what a group or tag names."""
    if entry.cfg is None:
        return sorted(entry.tags)
    members = entry.cfg.get("task")
    names = []
    for member in members if isinstance(members, list) else ():
        name = member if isinstance(member, str) else None
        if isinstance(member, Mapping):
            name = member.get("task") or member.get("group")
        if not isinstance(name, str):
            raise UserError(f"group {entry.name} has the member {member!r}, which names no task; mend the task file")
        names.append(name)
    return names


def _refuse_endless(wanted: Sequence[str], index: Mapping[str, Any]) -> None:
    """Refuses groups that hold themselves, or that hold others so often that no one waits for the end."""
    sizes: dict[str, int] = {}

    def size(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise UserError(f"group {name} holds itself ({' > '.join([*above, name])}); mend the task file")
        if name not in sizes:
            members = _members(index[name]) if name in index else []
            sizes[name] = max(1, sum(size(each, (*above, name)) for each in members))
        if sizes[name] > MAX_MEMBERS:
            raise UserError(f"group {name} holds more than {MAX_MEMBERS:,} tasks; name each once in the task file")
        return sizes[name]

    for name in (found for each in wanted for found in _matches(each, index)):
        size(name, ())


def _refuse_unsafe(wanted: Sequence[str], index: Mapping[str, Any]) -> None:
    """Refuses tasks that run what a model writes before they are loaded, which already runs code of theirs."""
    known, _ = _reachable(wanted, index)
    for name in known:
        if (index[name].cfg or {}).get("unsafe_code"):
            raise UserError(
                f"task {name} runs code that the model writes; allow it with evaluate_tasks.allow_code = True"
            )


def _check_task(name: str, task: Any) -> None:
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"task {name} needs images or sound, which this model cannot read")
    documents = task.eval_docs
    if documents is None or len(documents) == 0:
        raise UserError(f"task {name} has no documents; look at its data files and at its process_docs")


def _limited_filters(apply_filters: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a task's filters, which hold regular expressions of its own, a limit that grows with the answers."""
    from apertus_jax.evaluation.harness.template_sandbox import SECONDS, limited

    def apply(task: Any) -> Any:
        with limited(SECONDS + FILTER_SECONDS_PER_ANSWER * len(task.instances)):
            return apply_filters(task)

    return apply


def _sandbox(original: jinja2.Environment) -> jinja2.Environment:
    import jinja2

    from apertus_jax.evaluation.harness.template_sandbox import LimitedSandbox

    sandbox = LimitedSandbox(
        loader=jinja2.BaseLoader(), undefined=original.undefined, keep_trailing_newline=original.keep_trailing_newline
    )
    added: Mapping[str, Callable[..., Any]] = {
        name: function for name, function in original.filters.items() if name not in sandbox.filters
    }
    sandbox.filters.update(added)
    return sandbox


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
