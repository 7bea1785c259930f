"""Rules for task files from strangers: data only, nothing that runs.

The harness's task files can name Python functions, datasets that are scripts, metrics that are downloaded programs and
templates that reach into Python objects. A file is read here as plain YAML nodes, before the harness sees it, and every
such thing is refused with its file and line. Templates are also rendered in a sandbox later (`task_loading`), because
what a template does can depend on the documents.

Source: docs/reference/evaluation_and_release.md §2.5.
"""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from apertus_jax.errors import UserError

if TYPE_CHECKING:
    import jinja2

# Builders of the `datasets` library that read plain data. Others unpickle, query databases or run scripts.
PLAIN_FORMATS = ("json", "csv", "parquet", "text", "arrow")
# Metrics of lm_eval's own registry; any other name is looked for in a library of downloadable programs.
PLAIN_METRICS = frozenset(
    ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "exact_match", "likelihood", "brier_score")
    + ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
    + ("mcc", "f1", "bleu", "chrf", "chrf++", "ter", "bypass")
)
REFUSED_KEYS = {
    "class": "names a Python class",
    "custom_dataset": "builds its documents with Python",
    "hf_evaluate": "downloads a metric that is a program",
    "trust_remote_code": "lets a dataset run code",
    "unsafe_code": "decides whether generated code is run",
    "use_prompt": "loads prompts from another file or library",
}
# What a task may tell the `datasets` library: which local files, and how plain data in them is written. Others choose
# folders to write to, servers, or how values are made into objects.
DATASET_ARGUMENTS = frozenset(
    ("data_files", "data_dir", "field", "columns", "column_names", "names", "header", "sep", "delimiter", "quotechar")
    + ("encoding", "sample_by", "keep_linebreaks", "trust_remote_code")
)
# What a group may say about a task that its folder does not define: nothing that feeds other data to its functions.
HARMLESS_FOR_OTHERS = {
    *("group", "group_alias", "task", "task_alias", "tag", "metadata", "num_fewshot", "include"),
    *("aggregate_metric_list", "repeats", "alias", "weight_by_size"),
}
DEEPEST_INCLUDES = 50
MAX_BYTES = 1 << 22
STANDARD_TAGS = "tag:yaml.org,2002:"
UNSAFE_TAGS = "tag:yaml.org,2002:python"
HOW_TO_ALLOW = "read it, and allow it with evaluate_tasks.allow_code = True if you trust it"


@dataclasses.dataclass(frozen=True)
class Refusal:
    """One thing that a task file may not say; `line` counts from 1, 0 stands for the whole file."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}{f' line {self.line}' if self.line else ''} {self.reason}"


def check_task_folder(folder: Path) -> None:
    """Refuses a folder of task files, or one task file, that could run code.

    Raises:
      UserError: names the first offending file and line.
    """
    refusals = list(find_refusals(folder))
    if refusals:
        more = f" ({len(refusals)} such places)" if len(refusals) > 1 else ""
        raise UserError(f"{refusals[0]}{more}; {HOW_TO_ALLOW}")


def find_refusals(folder: Path) -> Iterator[Refusal]:
    """Yields everything that `check_task_folder` objects to, file by file, included files as well.

    Raises:
      UserError: there is no such folder, or a file is not YAML.
    """
    if not folder.exists():
        raise UserError(f"{folder} does not exist; give a folder of task files")
    root = folder if folder.is_dir() else folder.parent
    if folder.is_dir():
        for script in sorted(root.rglob("*.py")):
            yield Refusal(script, 0, "is Python in a folder of task files")
    documents = read_with_includes(root, task_files(folder))
    own = {name for node in documents.values() for name in _defined_tasks(node)}
    for path, node in documents.items():
        yield from _check_node(path, root, node)
        yield from _check_overrides(path, node, own)


def task_files(folder: Path) -> list[Path]:
    """Returns the files that the harness would read as tasks: those below `folder`, or the file itself."""
    return sorted(folder.glob("**/*.yaml")) if folder.is_dir() else [folder]


def read_with_includes(root: Path, paths: Sequence[Path]) -> dict[Path, yaml.Node]:
    """Returns the YAML tree of each file and of the files that they include below `root`.

    Raises:
      UserError: a file is not YAML, or an included file is missing.
    """
    documents: dict[Path, yaml.Node] = {}

    def read(path: Path, including: tuple[Path, ...]) -> None:
        if path in documents:
            return
        documents[path] = _compose(path)
        for line, included in _includes(documents[path]):
            target = path.parent / included
            if not _is_below(target, root):
                continue  # refused by `_check_node`
            if not target.exists():
                raise UserError(f"{path} line {line} includes {included}, which does not exist")
            if target.resolve() in (each.resolve() for each in (*including, path)):
                raise UserError(
                    f"{path} line {line} includes {included}, which includes it in turn; remove one of the two"
                )
            if len(including) > DEEPEST_INCLUDES:
                raise UserError(f"{path} line {line} includes {included}, the last of more than {DEEPEST_INCLUDES}")
            read(target, (*including, path))

    for path in paths:
        read(path, ())
    return documents


def _compose(path: Path) -> yaml.Node:
    """Returns the YAML tree of a file."""
    if not path.is_file():
        raise UserError(f"{path} is no file, so it cannot be a task file; remove it")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, too many for a task file; remove it")
    try:
        node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply; mend the task file") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "is no text in UTF-8"
        raise UserError(f"{path}{where} is not YAML ({problem}); mend the task file") from error
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path} is not a mapping of settings; mend the task file")
    return node


def _check_node(path: Path, root: Path, node: yaml.Node) -> Iterator[Refusal]:
    for line, included in _includes(node):
        if not _is_below(path.parent / included, root):
            yield Refusal(path, line, f"includes {included}, outside its folder")
    for each in _walk(node):
        line = each.start_mark.line + 1
        if not each.tag.startswith(STANDARD_TAGS) or each.tag.startswith(UNSAFE_TAGS):
            value = each.value if isinstance(each, yaml.ScalarNode) else "…"
            yield Refusal(path, line, f"has the tag {each.tag} {value}, which runs code")
        if isinstance(each, yaml.MappingNode):
            for key, value in each.value:
                if isinstance(key, yaml.ScalarNode):
                    yield from _check_pair(path, key, value)
                else:
                    yield Refusal(path, key.start_mark.line + 1, "has a list or mapping as a name")
        elif isinstance(each, yaml.ScalarNode) and ("{{" in each.value or "{%" in each.value):
            yield from (Refusal(path, line, reason) for reason in template_refusals(each.value))


def _check_pair(path: Path, key: yaml.Node, value: yaml.Node) -> Iterator[Refusal]:
    name, line = key.value, key.start_mark.line + 1
    said = value.value if isinstance(value, yaml.ScalarNode) else None
    if name in REFUSED_KEYS and said not in ("false", "null", "~", ""):
        yield Refusal(path, line, f"has {name}, which {REFUSED_KEYS[name]}")
    elif name == "dataset_path" and said not in PLAIN_FORMATS:
        formats = ", ".join(PLAIN_FORMATS)
        yield Refusal(path, line, f"has dataset_path {said}; without trust it may be {formats} with local data_files")
    elif name == "metric" and said is not None and said not in PLAIN_METRICS:
        yield Refusal(path, line, f"has the metric {said}, which is none of lm_eval's own and would be downloaded")
    elif name in ("data_files", "data_dir"):
        for each in _walk(value):
            if isinstance(each, yaml.ScalarNode) and ("://" in each.value or "::" in each.value):
                yield Refusal(path, each.start_mark.line + 1, f"reads {each.value}; give a local copy")
    elif name == "dataset_kwargs":
        for argument, _ in value.value if isinstance(value, yaml.MappingNode) else ():
            if isinstance(argument, yaml.ScalarNode) and argument.value not in DATASET_ARGUMENTS:
                where = argument.start_mark.line + 1
                yield Refusal(path, where, f"gives the dataset {argument.value}, which is none of the plain settings")
    elif name in ("storage_options", "filesystem"):
        yield Refusal(path, line, f"has {name}, which opens other file systems")


def _check_overrides(path: Path, node: yaml.Node, own: set[str]) -> Iterator[Refusal]:
    """A group must not send its own data or templates into a task that it did not define."""
    for mapping in _walk(node):
        if not isinstance(mapping, yaml.MappingNode):
            continue
        keys = {key.value: key for key, _ in mapping.value if isinstance(key.value, str)}
        foreign = [name for name in _referenced_tasks(mapping) if name not in own]
        changed = [key for name, key in keys.items() if name not in HARMLESS_FOR_OTHERS]
        if foreign and changed:
            line = changed[0].start_mark.line + 1
            yield Refusal(path, line, f"changes {changed[0].value} of the task {foreign[0]}, which it does not define")


def template_refusals(template: str) -> list[str]:
    """Returns what is wrong with a Jinja template: names with a leading underscore, the attr filter, other files.

    Calls of methods of strings and lists stay allowed: the sandbox decides about those when it renders.
    """
    import jinja2.nodes  # comes with lm_eval; the runtime does without
    import jinja2.sandbox

    try:
        tree = jinja2.sandbox.SandboxedEnvironment().parse(template)
    except jinja2.TemplateSyntaxError as error:
        return [f"has a template that is no Jinja: {error.message}"]
    except RecursionError:
        return ["has a template that is nested too deeply"]
    reasons = []
    for node in tree.find_all((jinja2.nodes.Getattr, jinja2.nodes.Getitem, jinja2.nodes.Filter, jinja2.nodes.Name)):
        name = _accessed_name(node)
        if isinstance(name, str) and name.startswith("_"):
            reasons.append(f"has a template that reaches for {name}, which leads into Python")
        elif isinstance(node, jinja2.nodes.Filter) and node.name in ("attr", "map") and _names_attribute(node):
            reasons.append(f"has a template with the filter {node.name} on an attribute, which leads into Python")
    others = (jinja2.nodes.Include, jinja2.nodes.Import, jinja2.nodes.FromImport, jinja2.nodes.Extends)
    if any(True for _ in tree.find_all(others)):
        reasons.append("has a template that loads another template")
    return reasons


def _accessed_name(node: Any) -> object:
    import jinja2.nodes

    if isinstance(node, jinja2.nodes.Getattr):
        return node.attr
    if isinstance(node, jinja2.nodes.Getitem):
        return node.arg.value if isinstance(node.arg, jinja2.nodes.Const) else None
    return node.name


def _names_attribute(node: jinja2.nodes.Filter) -> bool:
    return node.name == "attr" or any(keyword.key == "attribute" for keyword in node.kwargs)


def _walk(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yields a node and everything below it once, aliases included."""
    pending, seen = [node], set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, yaml.MappingNode):
            pending.extend(each for pair in reversed(current.value) for each in reversed(pair))
        elif isinstance(current, yaml.SequenceNode):
            pending.extend(reversed(current.value))


def _entries(node: yaml.Node, name: str) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        yield from (value for key, value in node.value if key.value == name)


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        yield from (each for each in node.value if isinstance(each, yaml.ScalarNode))


def _includes(node: yaml.Node) -> Iterator[tuple[int, str]]:
    for value in _entries(node, "include"):
        yield from ((each.start_mark.line + 1, each.value) for each in _scalars(value))


def _defined_tasks(node: yaml.Node) -> Iterator[str]:
    """A file without `group` and with `task: NAME` defines a task; one with `group: NAME` a group."""
    is_group = any(True for _ in _entries(node, "group"))
    for value in _entries(node, "group" if is_group else "task"):
        yield from (each.value for each in _scalars(value))


def _referenced_tasks(mapping: yaml.MappingNode) -> Iterator[str]:
    """The tasks and groups that a group, or a member of one, names; what it says reaches all of them."""
    for value in (*_entries(mapping, "task"), *_entries(mapping, "group")):
        yield from (each.value for each in _scalars(value))
        for member in value.value if isinstance(value, yaml.SequenceNode) else ():
            if isinstance(member, yaml.MappingNode):
                yield from _referenced_tasks(member)


def _is_below(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def with_local_files(config: Any, task_file: Path, roots: Sequence[Path] | None) -> Any:
    """Returns a task's or group's settings with data_files and data_dir absolute, relative to the task file's folder.

    Args:
      config: settings as read; those of the members of a group are inside.
      task_file: where they stand.
      roots: folders that data may lie in, after links; None for everywhere, for those who are trusted.

    Raises:
      UserError: data outside these folders.
    """
    if isinstance(config, Mapping):
        return {
            name: _absolute_arguments(value, task_file, roots)
            if name == "dataset_kwargs" and isinstance(value, Mapping)
            else with_local_files(value, task_file, roots)
            for name, value in config.items()
        }
    return [with_local_files(each, task_file, roots) for each in config] if isinstance(config, list) else config


def _absolute_arguments(kwargs: Mapping[str, Any], task_file: Path, roots: Sequence[Path] | None) -> dict[str, Any]:
    def absolute(value: Any) -> Any:
        if isinstance(value, str):
            return value if "://" in value else _files_of(task_file.parent / value, task_file, roots)
        if isinstance(value, Mapping):
            return {name: absolute(each) for name, each in value.items()}
        if not isinstance(value, (list, tuple)):
            return value
        found = [absolute(each) for each in value]
        return [path for each in found for path in (each if isinstance(each, list) else [each])]

    return {name: absolute(value) if name in ("data_files", "data_dir") else value for name, value in kwargs.items()}


def _files_of(place: Path, task_file: Path, roots: Sequence[Path] | None) -> str | list[str]:
    """Returns a file or folder, or the files of a pattern, all of them below the roots."""
    pattern = glob.has_magic(str(place))
    found = sorted(glob.glob(str(place), recursive=True)) if pattern else [str(place)]
    below = [str(each) for each in place.rglob("*")] if not pattern and place.is_dir() else []
    for path in [*found, *below]:
        if roots is not None and not any(_is_below(Path(path), root) for root in roots):
            raise UserError(
                f"{task_file} reads {path}, which lies outside its folder; put the data beside the task file, or give "
                f"its folder as evaluate_tasks.task_data"
            )
    return found if pattern else str(place)
