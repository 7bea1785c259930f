"""Local data of harness tasks: files in place of a hub, which is not asked when they are there.

Two ways: a task file of one's own with `dataset_path: json` and `dataset_kwargs.data_files` (paths relative to the task
file), or a task that comes with lm_eval together with a folder `task_data` of local copies. For `dataset_path: A/B` and
`dataset_name: C` that folder holds `A--B/C/SPLIT.jsonl` (or .json, .parquet, .csv), without the level C where the task
names none. SPLIT is the split's name in the task file: test, validation, train.

A folder of data may carry SOURCES.json, `{file name: {"licence", "source", "sha256"}}`; then each file is checked.

Source: docs/reference/evaluation_and_release.md §2.5.
"""

from __future__ import annotations

import codecs
import contextlib
import glob
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from apertus_jax.errors import UserError
from apertus_jax.storage.json_reader import parse_json, read_json_object

SOURCES_FILE = "SOURCES.json"
JSON_SUFFIXES = (".jsonl", ".json")
BUILDERS = {".parquet": "parquet", ".csv": "csv"}


@contextlib.contextmanager
def as_dataset_source(task_data: str | None = None) -> Iterator[None]:
    """Makes the harness's tasks read local files as this module says, for as long as the block runs."""
    from lm_eval.api.task import ConfigurableTask

    original = ConfigurableTask.download

    def download(task: Any, dataset_kwargs: Mapping[str, Any] | None = None, **others: Any) -> None:
        config = task.config
        files = None if callable(config.custom_dataset) else _local_files(config, dataset_kwargs, task_data)
        if files is not None:
            task.dataset = read_splits(str(config.task), files)
            return
        with _missing_dataset(config, task_data):
            original(task, dict(dataset_kwargs) if dataset_kwargs is not None else None, **others)

    ConfigurableTask.download = download
    try:
        yield
    finally:
        ConfigurableTask.download = original


def read_splits(task: str, files: Mapping[str, Sequence[Path]]) -> Any:
    """Returns a `datasets.DatasetDict` of local files, held in memory.

    Args:
      task: its name, for errors.
      files: the files of each split, all of one format.

    Raises:
      UserError: a missing, damaged or empty file, or one that SOURCES.json does not describe rightly.
    """
    import datasets

    splits = {}
    for split, paths in files.items():
        if not paths:
            raise UserError(f"task {task} has no data file for its split {split!r}; look at data_files")
        for path in paths:
            if not path.is_file():
                raise UserError(f"task {task} reads {path}, which does not exist; look at data_files")
            check_source(path)
        if all(path.suffix in JSON_SUFFIXES for path in paths):
            splits[split] = _to_dataset(task, paths, [row for path in paths for row in read_json_rows(path)])
        else:
            names = [str(path) for path in paths]
            builder = BUILDERS.get(paths[0].suffix, "json")
            splits[split] = datasets.load_dataset(builder, data_files={split: names}, split=split)
        if len(splits[split]) == 0:
            raise UserError(f"task {task} has no documents: {paths[0]} is empty")
    return datasets.DatasetDict(splits)


def read_json_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the documents of a JSON Lines file, or of a JSON file that holds one list.

    Raises:
      UserError: names the line that is not a JSON object.
    """
    content = path.read_bytes()
    whole = path.suffix == ".json" and content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
    rows: list[dict[str, Any]] = []
    # Only a line feed ends a line: JSON may hold U+2028 and others of `splitlines` as they are.
    for number, line in enumerate([content] if whole else content.split(b"\n"), start=1):
        if not line.strip():
            continue
        value = parse_json(line, f"{path} line {number}", allow_nan=True)
        rows += value if isinstance(value, list) else [value]
        if not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{path} line {number} is not a JSON object; give one document a line")
    return rows


def check_source(path: Path) -> None:
    """Compares a data file with the digest in its folder's SOURCES.json, when there is one.

    Raises:
      UserError: the file is not described there, or has changed.
    """
    record = path.parent / SOURCES_FILE
    if not record.exists():
        return
    described = read_json_object(record).get(path.name)
    if not isinstance(described, Mapping):
        raise UserError(f"{path} is not described in {record}; add its licence, source and sha256")
    if hashlib.sha256(path.read_bytes()).hexdigest() != described.get("sha256"):
        raise UserError(f"{path} has changed: its sha256 is not the one in {record}; restore it or describe it anew")


def find_copies(task_data: Path, dataset: str, name: str | None) -> dict[str, list[Path]] | None:
    """Returns the local files of a hub dataset by split, or None when `task_data` has no folder for it."""
    folder = task_data / dataset.replace("/", "--")
    folder = folder / name if name else folder
    if not folder.is_dir():
        return None
    suffixes = (*JSON_SUFFIXES, *BUILDERS)
    found = sorted(path for path in folder.iterdir() if path.suffix in suffixes and path.name != SOURCES_FILE)
    return {path.stem: [path] for path in found}


def _local_files(config: Any, kwargs: Mapping[str, Any] | None, task_data: str | None) -> dict[str, list[Path]] | None:
    """Returns the local files of a task by split, or None when its dataset is not one of local JSON files."""
    if task_data is not None and config.dataset_path:
        copies = find_copies(Path(task_data).expanduser(), config.dataset_path, config.dataset_name)
        if copies is not None:
            return copies
    given = (kwargs or {}).get("data_files")
    if config.dataset_path != "json" or given is None:
        return None
    by_split = given if isinstance(given, Mapping) else {"train": given}
    files = {split: _expand(value) for split, value in by_split.items()}
    everything = [path for paths in files.values() for path in paths]
    plain = all(path.suffix in JSON_SUFFIXES for path in everything)
    return files if plain and not any("://" in str(value) for value in by_split.values()) else None


def _expand(value: str | Sequence[str]) -> list[Path]:
    patterns = [value] if isinstance(value, str) else list(value)
    paths: list[Path] = []
    for pattern in patterns:
        paths += [Path(each) for each in sorted(glob.glob(pattern))] if glob.has_magic(pattern) else [Path(pattern)]
    return paths


def _to_dataset(task: str, paths: Sequence[Path], rows: Sequence[Mapping[str, Any]]) -> Any:
    import datasets
    import pyarrow

    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return datasets.Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"task {task}: the documents of {paths[0]} differ in the type of a field ({reason})") from error


@contextlib.contextmanager
def _missing_dataset(config: Any, task_data: str | None) -> Iterator[None]:
    """Says where local copies go when a dataset is neither here nor to be had."""
    import datasets.exceptions

    # What `datasets` raises offline, without network, or for an unknown name; UserError passes.
    absent = (ConnectionError, OSError, datasets.exceptions.DatasetsError)
    try:
        yield
    except absent as error:
        name = f"{config.dataset_name}/" if config.dataset_name else ""
        folder = task_data or "FOLDER"
        copy = f"{folder}/{str(config.dataset_path).replace('/', '--')}/{name}SPLIT.jsonl"
        raise UserError(
            f"task {config.task} needs the dataset {config.dataset_path}, which is not on this machine; "
            f"put local copies at {copy} and give evaluate_tasks.task_data = '{folder}'"
        ) from error
