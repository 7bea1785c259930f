"""Closing line of a command: what lies in the folder that it wrote, and the report to open."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from apertus_jax.errors import UserError

if TYPE_CHECKING:
    from apertus_jax.storage.run_folder import RunFolder

# Kind of folder → what it holds, in the fields of its manifest's summary. Prepared corpora are missing: `prepare` ends
# with a line of its own, which also says what was not asked.
HELD = {
    "canaries": "{canaries:,} canaries in {documents:,} documents",
    "classifier": "trained on {documents_trained:,} texts, {validated:,} others give an AUC of {auc:.3f}",
    "data_summary": "{documents:,} documents; {fields_with_value} of {fields} fields have a value",
    "evaluation": "{pooled[nats_per_token]:.4f} nats per token, {pooled[ratio_to_unigram]:.3f} × the unigram baseline",
    "generations": "{num_prompts:,} prompts continued",
    "huggingface_model": "{num_parameters:,} parameters in {dtype}",
    "languages": "{languages:,} languages measured",
    "memorization_audit": "{verdict[line]}",
    "model": "{num_parameters:,} parameters",
    "output_filter": "{strings:,} strings and {ngrams:,} n-grams",
    "overlay": "{documents:,} invented documents, {kept:,} of them to be kept",
    "plan": "planned; one device has the memory: {fits}",
    "probes": "{probes:,} probes",
    "provenance": "{uses:,} uses",
    "robots_snapshot": "answers of {authorities:,} hosts, as of {as_of}",
    "task_evaluation": "{num_results:,} tasks evaluated",
    "token_store": "{num_documents:,} documents, {num_tokens:,} tokens",
    "tombstoned_documents": "{documents:,} documents named by {requests:,} requests, {tokens:,} tokens",
    "tombstones": "{granted:,} of {requests:,} requests granted, version {version}",
}
TELL_THEMSELVES = ("prepared_corpus", "comparison")
COMMANDS_THAT_TELL = ("prepare", "sweep")  # their last line is their own, also where they have not finished
# What a person opens, the first that is there.
OPENED = ("report.html", "public_summary.html", "results.json", "generations.jsonl", "uses.jsonl", "documents.jsonl")


def closing_line(command: str, output: str) -> str:
    """Returns what a command says last; "" where it has said so itself.

    Args:
      command: its name.
      output: the folder that it wrote.
    """
    from etils import epath

    from apertus_jax.storage import artifacts
    from apertus_jax.storage.run_folder import RunFolder

    folder = epath.Path(output)
    if not artifacts.is_complete(folder):
        if RunFolder(folder).is_run():
            return f"{command}: {_of_run(RunFolder(folder))}"
        return _of_chain(command, folder) if folder.exists() else ""
    try:
        manifest = artifacts.read_any(folder)
    except UserError:  # the command has ended well; whoever reads the folder will say what is wrong with it
        return ""
    if manifest["kind"] in TELL_THEMSELVES:
        return ""
    report = next((folder / name for name in OPENED if name in manifest["files"]), None)
    end = f"open {report}" if report else f"in {output}"
    return f"{command}: {_held(manifest['kind'], manifest['summary'])}; {end}"


def _held(kind: str, summary: Mapping[str, Any]) -> str:
    counts = {f"num_{name}": len(value) for name, value in summary.items() if isinstance(value, Mapping)}
    try:
        return HELD[kind].format_map({**counts, **summary})
    except (KeyError, TypeError, ValueError):  # a folder of another version, or of a kind that the table lacks
        return f"{kind.replace('_', ' ')} written"


def _of_run(run: RunFolder) -> str:
    """Returns the line for a run: how far it is, and its page when it has ended."""
    from apertus_jax.storage.json_reader import read_json_object

    if not run.finished.exists():
        return f"not finished, the same command goes on; in {run.path}"
    try:
        summary = read_json_object(run.finished, allow_nan=True)
        return f"finished at step {summary['step']}, {summary['tokens']:,} tokens; open {run.report}"
    except (UserError, KeyError, TypeError, ValueError):  # of another version; the run itself has ended well
        return f"finished; open {run.report}"


def _of_chain(command: str, folder: Any) -> str:
    """Returns the line for a folder of several stages: the reports in it."""
    stages = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    reports = [f"{stage.name}/{name}" for stage in stages for name in OPENED[:2] if (stage / name).exists()]
    if not reports:
        return f"{command}: done, in {os.fspath(folder)}"
    return f"{command}: done; open in {os.fspath(folder)}: {', '.join(reports)}"
